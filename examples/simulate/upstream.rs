//! The provider: accounts with limits of requests and of tokens per minute, for each model; hosts and keys that fail.

use std::time::{Duration, Instant};

use crate::{
    scenario::{Fault, Outage, Refill, Scenario},
    traffic::Request,
};

const MINUTE: Duration = Duration::from_secs(60);
/// How long a refusal takes: from, and to.
const REFUSAL_MILLIS: (u64, u64) = (20, 60);
const FAILURE: Duration = Duration::from_millis(200);
const NO_CONNECTION: Duration = Duration::from_millis(5);

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Answer {
    Served(Left),
    /// 429; the request will pass after this time.
    Limited(Duration, Left),
    /// What is wrong with the key or its host.
    Fault(Fault),
}

/// What an answer says is left of its account's limits for the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Left {
    pub(crate) requests: Level,
    pub(crate) tokens: Level,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    pub(crate) most: f64,
    pub(crate) left: f64,
    /// Until it is full again.
    pub(crate) reset: Duration,
    pub(crate) refill: Refill,
}

impl Answer {
    pub(crate) fn is_served(self) -> bool {
        matches!(self, Self::Served(_))
    }
}

#[derive(Debug)]
pub(crate) struct Upstream {
    start: Instant,
    accounts: Vec<Account>,
    /// Whose it is, for each key.
    keys: Vec<usize>,
    refusals_count: bool,
    outages: Vec<Outage>,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Account {
    host: usize,
    fault: Option<(Duration, Fault)>,
    /// For each model.
    limits: Vec<Limits>,
}

#[derive(Debug)]
struct Limits {
    requests: Tank,
    tokens: Tank,
}

/// What is left of a limit.
#[derive(Debug)]
struct Tank {
    per_second: f64,
    most: f64,
    left: f64,
    at: Instant,
    /// When it is full again, where that comes at once.
    reset: Option<Instant>,
}

impl Upstream {
    pub(crate) fn new(scenario: &Scenario, start: Instant, seed: u64) -> Self {
        let account = |account: &crate::scenario::Account| {
            let tank = |per_minute: f64| Tank::new(per_minute, account.refill, start);
            let limits = |(_, share): &(&str, f64)| Limits {
                requests: tank(account.requests_per_minute * share),
                tokens: tank(account.tokens_per_minute * share),
            };
            let limits = scenario.models.iter().map(limits).collect();
            Account { host: account.host, fault: account.fault, limits }
        };
        let keys = scenario.accounts.iter().enumerate();
        Self {
            start,
            accounts: scenario.accounts.iter().map(account).collect(),
            keys: keys.flat_map(|(at, account)| std::iter::repeat_n(at, account.keys)).collect(),
            refusals_count: scenario.refusals_count,
            outages: scenario.outages.clone(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The account of `key`.
    pub(crate) fn account_of(&self, key: usize) -> usize {
        self.keys[key]
    }

    /// Takes the request on or refuses it, and says after which time that is known to the caller, who hangs up after
    /// `limit`.
    pub(crate) fn call(
        &mut self,
        now: Instant,
        key: usize,
        request: &Request,
        limit: Duration,
    ) -> (Answer, Duration) {
        if let Some(fault) = self.fault(now, key) {
            let took = match fault {
                Fault::Revoked => self.refusal(),
                Fault::Fails => FAILURE,
                Fault::Hangs => limit,
                Fault::Unreachable => NO_CONNECTION,
            };
            return (Answer::Fault(fault), took.min(limit));
        }
        let limits = &mut self.accounts[self.keys[key]].limits[request.model];
        let wait = limits.wait(now, request.tokens);
        if wait.is_zero() {
            limits.take(request.tokens);
            return (Answer::Served(limits.left(now)), request.head);
        }
        if self.refusals_count {
            limits.requests.left = (limits.requests.left - 1.0).max(0.0);
        }
        let left = limits.left(now);
        (Answer::Limited(wait, left), self.refusal())
    }

    /// For those who can see it: how long until `key` would take the request on, and how full its account is.
    /// `None`: nobody knows.
    pub(crate) fn foresee(&mut self, now: Instant, key: usize, request: &Request) -> Option<(Duration, f64)> {
        if self.fault(now, key).is_some() {
            return None;
        }
        let limits = &mut self.accounts[self.keys[key]].limits[request.model];
        let wait = limits.wait(now, request.tokens);
        Some((wait, limits.requests.fill().min(limits.tokens.fill())))
    }

    fn fault(&self, now: Instant, key: usize) -> Option<Fault> {
        let account = &self.accounts[self.keys[key]];
        let since = now - self.start;
        let outage = self
            .outages
            .iter()
            .find(|outage| outage.host == account.host && (outage.from..outage.until).contains(&since));
        let own = account.fault.filter(|(from, _)| since >= *from);
        outage.map(|outage| outage.fault).or(own.map(|(_, fault)| fault))
    }

    fn refusal(&mut self) -> Duration {
        let (from, to) = REFUSAL_MILLIS;
        Duration::from_millis(self.rng.u64(from..=to))
    }
}

impl Limits {
    fn wait(&mut self, now: Instant, tokens: f64) -> Duration {
        self.requests.wait(now, 1.0).max(self.tokens.wait(now, tokens))
    }

    fn left(&self, now: Instant) -> Left {
        Left { requests: self.requests.level(now), tokens: self.tokens.level(now) }
    }

    fn take(&mut self, tokens: f64) {
        self.requests.left -= 1.0;
        self.tokens.left -= tokens;
    }
}

impl Tank {
    fn new(per_minute: f64, refill: Refill, start: Instant) -> Self {
        let per_second = per_minute / 60.0;
        let (most, reset) = match refill {
            Refill::Steadily(ahead) => (per_second * ahead.as_secs_f64(), None),
            Refill::EachMinute => (per_minute, Some(start + MINUTE)),
        };
        // Less than one request would be none for ever.
        let most = most.max(1.0);
        Self { per_second, most, left: most, at: start, reset }
    }

    /// How long until `amount` is there.
    fn wait(&mut self, now: Instant, amount: f64) -> Duration {
        match &mut self.reset {
            Some(reset) => {
                while *reset <= now {
                    *reset += MINUTE;
                    self.left = self.most;
                }
            }
            None => {
                let seconds = now.saturating_duration_since(self.at).as_secs_f64();
                self.left = (self.left + seconds * self.per_second).min(self.most);
                self.at = now;
            }
        }
        debug_assert!(amount <= self.most, "nobody could ever serve it");
        // What has come in bit by bit may be short of one by as much as it was rounded.
        let missing = amount - self.left;
        if missing <= 1e-6 {
            return Duration::ZERO;
        }
        match self.reset {
            Some(reset) => reset - now,
            None => Duration::from_secs_f64(missing / self.per_second) + Duration::from_nanos(1),
        }
    }

    fn level(&self, now: Instant) -> Level {
        let Self { per_second, most, left, .. } = *self;
        let (reset, refill) = match self.reset {
            Some(reset) => (reset - now, Refill::EachMinute),
            None => {
                let whole = Duration::from_secs_f64(most / per_second);
                (Duration::from_secs_f64((most - left) / per_second), Refill::Steadily(whole))
            }
        };
        Level { most, left, reset, refill }
    }

    fn fill(&self) -> f64 {
        self.left / self.most
    }
}
