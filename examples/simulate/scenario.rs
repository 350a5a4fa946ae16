//! What is simulated: accounts and their limits, traffic, and what goes wrong.

use std::time::Duration;

use crate::floors::{self, Floor};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// In words, for the table.
    pub(crate) about: &'static str,
    pub(crate) length: Duration,
    pub(crate) accounts: Vec<Account>,
    /// Each has this share of the requests, and of what the accounts allow.
    pub(crate) models: &'static [(&'static str, f64)],
    pub(crate) load: Load,
    /// Tokens of a request: half of the requests have fewer.
    pub(crate) tokens: f64,
    pub(crate) told: Told,
    /// Whether a refused call counts against the limit of requests too.
    pub(crate) refusals_count: bool,
    pub(crate) outages: Vec<Outage>,
    pub(crate) floor: Floor,
}

/// What the provider counts limits against.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) host: usize,
    /// How many keys it has that are in the pool.
    pub(crate) keys: usize,
    pub(crate) requests_per_minute: f64,
    pub(crate) tokens_per_minute: f64,
    pub(crate) refill: Refill,
    /// What is wrong with its keys, from then on.
    pub(crate) fault: Option<(Duration, Fault)>,
}

/// How a limit fills up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refill {
    /// All the time, up to what comes in within this time.
    Steadily(Duration),
    /// In full, at the beginning of each minute.
    EachMinute,
}

/// What is wrong with a key or a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 401: the key is revoked.
    Revoked,
    /// 500.
    Fails,
    /// Nothing comes back.
    Hangs,
    /// Nobody listens.
    Unreachable,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) host: usize,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) fault: Fault,
}

/// How a 429 says when to come back, and whether answers say what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Millis,
    /// Rounded up.
    Seconds,
    /// In milliseconds; but no answer says what is left.
    MillisAlone,
    Nothing,
}

/// How much is asked for, as a part of what the accounts allow in the long run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    Steady(f64),
    Bursts {
        between: f64,
        within: f64,
        every: Duration,
        lasts: Duration,
    },
    /// A day in the length of the scenario: least at its beginning and end, most in its middle.
    Day {
        night: f64,
        noon: f64,
    },
}

impl Load {
    pub(crate) fn at(self, since: Duration, length: Duration) -> f64 {
        match self {
            Self::Steady(load) => load,
            Self::Bursts { between, within, every, lasts } => {
                // The first comes in the middle of its interval.
                let into = (since + every / 2).as_secs_f64() % every.as_secs_f64();
                if into < lasts.as_secs_f64() { within } else { between }
            }
            Self::Day { night, noon } => {
                let hour = since.as_secs_f64() / length.as_secs_f64();
                night + (noon - night) * (1.0 - (hour * std::f64::consts::TAU).cos()) / 2.0
            }
        }
    }

    pub(crate) fn most(self) -> f64 {
        match self {
            Self::Steady(load) => load,
            Self::Bursts { between, within, .. } => between.max(within),
            Self::Day { night, noon } => night.max(noon),
        }
    }
}

/// Tokens of half of the requests; of the mean request there are more.
const TOKENS: f64 = 800.0;
/// Allowed per request that is allowed: enough for twice the mean.
const TOKENS_PER_REQUEST: f64 = 2000.0;
/// A limit may be used so far ahead.
const BURST: Refill = Refill::Steadily(Duration::from_secs(10));

impl Account {
    /// One key at the first host.
    fn new(requests_per_minute: f64) -> Self {
        Self {
            host: 0,
            keys: 1,
            requests_per_minute,
            tokens_per_minute: requests_per_minute * TOKENS_PER_REQUEST,
            refill: BURST,
            fault: None,
        }
    }

    fn with_tokens(mut self, per_request: f64) -> Self {
        self.tokens_per_minute = self.requests_per_minute * per_request;
        self
    }

    fn at(mut self, host: usize) -> Self {
        self.host = host;
        self
    }

    fn with_keys(mut self, keys: usize) -> Self {
        self.keys = keys;
        self
    }

    fn each_minute(mut self) -> Self {
        self.refill = Refill::EachMinute;
        self
    }

    fn with(mut self, fault: Fault, from: Duration) -> Self {
        self.fault = Some((from, fault));
        self
    }

    /// How many requests of a model with this share it serves in the long run, per second.
    pub(crate) fn per_second(&self, share: f64, mean_tokens: f64) -> f64 {
        share * self.requests_per_minute.min(self.tokens_per_minute / mean_tokens) / 60.0
    }
}

/// Requests per minute, and tokens per request, from a large tier to a trial account: some are limited by their tokens.
fn unequal() -> Vec<Account> {
    let limits = [
        (5000.0, 2000.0),
        (3000.0, 900.0),
        (1500.0, 3000.0),
        (500.0, 900.0),
        (500.0, 2000.0),
        (100.0, 2000.0),
    ];
    limits.map(|(requests, tokens)| Account::new(requests).with_tokens(tokens)).into()
}

impl Scenario {
    /// Ten minutes of steady traffic at 90 % on unequal accounts, and nothing goes wrong.
    fn steady(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            length: 10 * MINUTE,
            accounts: unequal(),
            models: &[("gpt-4o", 0.3), ("gpt-4o-mini", 0.7)],
            load: Load::Steady(0.9),
            tokens: TOKENS,
            told: Told::Millis,
            refusals_count: false,
            outages: Vec::new(),
            floor: floors::STEADY,
        }
    }

    fn loaded(mut self, load: f64, floor: Floor) -> Self {
        (self.load, self.floor) = (Load::Steady(load), floor);
        self
    }

    /// Every scenario, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::steady("steady", "90 % load, six unequal accounts"),
            Self::steady("overload", "the same at 150 %").loaded(1.5, floors::OVERLOAD),
            Self {
                refusals_count: true,
                ..Self::steady("refusals count", "150 %, and a refused call counts against the limit too")
                    .loaded(1.5, floors::REFUSALS_COUNT)
            },
            Self {
                load: Load::Bursts { between: 0.5, within: 2.5, every: MINUTE, lasts: 10 * SECOND },
                floor: floors::BURSTS,
                ..Self::steady("bursts", "50 %, and 250 % for 10 s of each minute")
            },
            Self::large_requests(),
            Self::windows("windows", "90 %, limits reset each minute"),
            Self::windows("windows, overload", "the same at 150 %").loaded(1.5, floors::WINDOWS_OVERLOAD),
            Self {
                told: Told::MillisAlone,
                floor: floors::REFUSALS_ALONE,
                ..Self::steady("refusals alone", "90 %, and only refusals speak of limits")
            },
            Self {
                told: Told::Nothing,
                floor: floors::LOST_HEADERS,
                ..Self::steady("lost headers", "90 %, and no Retry-After")
            },
            Self {
                told: Told::Nothing,
                // Each second of it is thousands of calls.
                length: 3 * MINUTE,
                ..Self::steady("lost headers, overload", "the same at 150 %, for three minutes")
                    .loaded(1.5, floors::LOST_HEADERS_OVERLOAD)
            },
            Self {
                told: Told::Nothing,
                ..Self::windows("lost headers, windows", "150 %, limits reset each minute, no Retry-After")
                    .loaded(1.5, floors::LOST_HEADERS_WINDOWS)
            },
            Self::shared(),
            Self::outage(),
            Self::bad_keys(),
            Self::day(),
        ]
    }

    fn large_requests() -> Self {
        // The largest requests are more than the smallest account ever serves.
        let mut accounts = unequal();
        accounts.pop();
        Self {
            accounts,
            tokens: 4.0 * TOKENS,
            floor: floors::LARGE_REQUESTS,
            ..Self::steady("large requests", "90 % of the tokens, 45 % of the requests")
        }
    }

    fn windows(name: &'static str, about: &'static str) -> Self {
        Self {
            accounts: unequal().into_iter().map(Account::each_minute).collect(),
            told: Told::Seconds,
            floor: floors::WINDOWS,
            ..Self::steady(name, about)
        }
    }

    fn shared() -> Self {
        let accounts = [(3000.0, 1), (3000.0, 2), (3000.0, 6)];
        Self {
            accounts: accounts.map(|(rate, keys)| Account::new(rate).with_keys(keys)).into(),
            floor: floors::SHARED,
            ..Self::steady("shared accounts", "90 %, three equal accounts with 1, 2 and 6 keys")
        }
    }

    fn outage() -> Self {
        let accounts = [(3000.0, 0), (1500.0, 0), (500.0, 0), (3000.0, 1), (1500.0, 1), (500.0, 1)];
        let outage = |host, from: u32, until: u32, fault| Outage {
            host,
            from: from * MINUTE,
            until: until * MINUTE,
            fault,
        };
        Self {
            accounts: accounts.map(|(rate, host)| Account::new(rate).at(host)).into(),
            load: Load::Steady(0.45),
            outages: vec![
                outage(0, 1, 3, Fault::Fails),
                outage(1, 4, 6, Fault::Unreachable),
                outage(0, 7, 9, Fault::Hangs),
            ],
            floor: floors::OUTAGE,
            ..Self::steady("outage", "45 %; one of two hosts fails, is unreachable, hangs: two minutes each")
        }
    }

    fn bad_keys() -> Self {
        let good = std::iter::repeat_n(Account::new(1200.0), 7);
        let faults = [Fault::Revoked, Fault::Fails, Fault::Hangs];
        let bad = faults.map(|fault| Account::new(1200.0).with(fault, MINUTE));
        Self {
            accounts: good.chain(bad).collect(),
            // 90 % of what seven of ten allow.
            load: Load::Steady(0.63),
            floor: floors::BAD_KEYS,
            ..Self::steady("bad keys", "63 %; after a minute one key of ten is revoked, one fails, one hangs")
        }
    }

    fn day() -> Self {
        let accounts = [60_000.0, 30_000.0, 15_000.0, 5000.0, 500.0];
        Self {
            length: 60 * MINUTE,
            accounts: accounts.map(Account::new).into(),
            load: Load::Day { night: 0.1, noon: 1.2 },
            floor: floors::DAY,
            ..Self::steady("day", "a day in an hour, 10 % at night and 120 % at noon")
        }
    }

    /// The same, with a tenth of the traffic where that is a lot: for checks that must not take long.
    pub(crate) fn reduced(mut self) -> Self {
        if self.length > 10 * MINUTE {
            for account in &mut self.accounts {
                account.requests_per_minute /= 10.0;
                account.tokens_per_minute /= 10.0;
            }
        }
        self
    }

    pub(crate) fn mean_tokens(&self) -> f64 {
        self.tokens * (crate::traffic::TOKENS_SPREAD.powi(2) / 2.0).exp()
    }

    /// What all accounts serve in the long run, in requests per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.accounts.iter().map(|account| account.per_second(1.0, self.mean_tokens())).sum()
    }
}
