//! The breaker of one host: closed, open, half-open with one probe.
//!
//! It opens when a host fails in one and the same way for several accounts and works for none: then the fault is the
//! host's, or our own address's, whatever the keys. So one bad key can't become an outage, and an outage is nobody's
//! fault but the host's. It never hears of refusals: a 401, 402, 403 or 429 comes from a host that works.

use std::time::{Duration, Instant};

use super::{cooling::Leave, outcome::Trouble};

/// The same trouble on so many accounts, without a success between, …
const ACCOUNTS: usize = 3;
/// … within this time, opens the breaker.
const WINDOW: Duration = Duration::from_secs(10);
/// A host that worked so recently is believed to, …
const JUST_WORKED: Duration = Duration::from_secs(1);
/// … until so many in a row have failed: where a fifth of all fails, three in a row come every second.
const AGAINST_A_SUCCESS: u32 = 10;
/// Where fewer accounts than that are in service: so many failures in a row, on each that is, …
const FAILURES: u32 = 5;
/// … and on so many keys (where the host has them).
const KEYS: usize = 2;
/// As many keys' failures as are remembered.
const MOST_REMEMBERED: usize = 32;
/// The next probe is not kept waiting for longer by one that brings nothing.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_OPEN: Duration = Duration::from_secs(1);
const LONGEST_OPEN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub(super) struct Breaker {
    state: State,
    /// Openings since the last success.
    openings: u32,
    /// The failures since the last success.
    failures: Vec<Failures>,
    last_success: Option<Instant>,
    last_opened: Option<Instant>,
    /// What it opened for last.
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    /// This attempt finds out. From then on another may, for its answer may take long.
    Probing {
        attempt: u64,
        again: Instant,
    },
}

/// The failures of one kind on one credential.
#[derive(Debug, Clone, Copy)]
struct Failures {
    trouble: Trouble,
    account: u32,
    credential: u32,
    count: u32,
    last: Instant,
}

/// What has failed, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) account: u32,
    pub(super) credential: u32,
    /// When it was sent.
    pub(super) started: Instant,
    /// Whether it was the probe of the half-open breaker.
    pub(super) probe: bool,
}

/// What a breaker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Opened { until: Instant },
    Closed,
}

impl Breaker {
    pub(super) fn leave(&self, now: Instant) -> Leave {
        match self.state {
            State::Closed => Leave::Free,
            State::Open { until } if until > now => Leave::NotBefore(until),
            State::Open { .. } => Leave::Probe,
            State::Probing { again, .. } if again > now => Leave::NotBefore(again),
            State::Probing { .. } => Leave::Probe,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a probe is out.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    /// What it is open for.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.filter(|_| !self.is_closed())
    }

    pub(super) fn probe_sent(&mut self, now: Instant, attempt: u64) {
        self.state = State::Probing { attempt, again: now + PROBE_PATIENCE };
    }

    /// The probe came back without a word on the host: the next request is the probe.
    pub(super) fn probe_lost(&mut self, now: Instant, probe: u64) {
        if matches!(self.state, State::Probing { attempt, .. } if attempt == probe) {
            self.state = State::Open { until: now };
        }
    }

    /// An answer, to an attempt that `started` then, that shows the host at work.
    pub(super) fn succeeded(&mut self, now: Instant, started: Instant) -> Option<Change> {
        // What was sent before it opened says nothing of now: an old connection may outlive an outage.
        if !self.is_closed() && self.opened_since(started) {
            return None;
        }
        self.failures.clear();
        self.last_success = Some(now);
        self.openings = 0;
        let was = std::mem::replace(&mut self.state, State::Closed);
        (was != State::Closed).then_some(Change::Closed)
    }

    /// An attempt failed at a host that has so many `credentials`. `in_service` counts the accounts that serve there; it
    /// is asked only where there are few.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        failure: Failure,
        credentials: usize,
        in_service: impl FnOnce() -> usize,
    ) -> Option<Change> {
        let Failure { trouble, .. } = failure;
        match self.state {
            State::Probing { .. } if failure.probe => return Some(self.open(now, trouble)),
            // Sent before it opened: nothing new.
            _ if self.opened_since(failure.started) => return None,
            State::Probing { .. } | State::Open { .. } => return None,
            State::Closed => {}
        }
        self.remember(now, failure);
        let just_worked = self.last_success.is_some_and(|at| now.saturating_duration_since(at) < JUST_WORKED);
        let alike = || self.failures.iter().filter(|known| known.trouble == trouble);
        let count: u32 = alike().map(|known| known.count).sum();
        if just_worked && count < AGAINST_A_SUCCESS {
            return None;
        }
        let distinct = |of: fn(&Failures) -> u32| {
            let mut all: Vec<u32> = alike().map(of).collect();
            all.sort_unstable();
            all.dedup();
            all.len()
        };
        let accounts = distinct(|known| known.account);
        let opens = accounts >= ACCOUNTS
            || count >= FAILURES
                && distinct(|known| known.credential) >= KEYS.min(credentials)
                && accounts >= in_service();
        opens.then(|| self.open(now, trouble))
    }

    fn remember(&mut self, now: Instant, failure: Failure) {
        self.failures.retain(|known| now.saturating_duration_since(known.last) <= WINDOW);
        let Failure { trouble, account, credential, .. } = failure;
        let same = |known: &&mut Failures| (known.trouble, known.credential) == (trouble, credential);
        if let Some(known) = self.failures.iter_mut().find(same) {
            (known.account, known.count, known.last) = (account, known.count.saturating_add(1), now);
            return;
        }
        if self.failures.len() == MOST_REMEMBERED {
            self.failures.remove(0);
        }
        self.failures.push(Failures { trouble, account, credential, count: 1, last: now });
    }

    /// Whether the host has answered well since `since`: then a failure is the key's rather than the host's.
    pub(super) fn worked_since(&self, since: Instant) -> bool {
        self.last_success.is_some_and(|at| at >= since)
    }

    /// Whether it has opened since `since`: then what failed before may be the host's fault.
    pub(super) fn opened_since(&self, since: Instant) -> bool {
        self.last_opened.is_some_and(|at| at >= since)
    }

    fn open(&mut self, now: Instant, trouble: Trouble) -> Change {
        let long = FIRST_OPEN.saturating_mul(2_u32.saturating_pow(self.openings)).min(LONGEST_OPEN);
        self.openings = self.openings.saturating_add(1);
        self.failures.clear();
        (self.last_opened, self.trouble) = (Some(now), Some(trouble));
        let until = now + long;
        self.state = State::Open { until };
        Change::Opened { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// One on a key that is an account.
    fn failure(trouble: Trouble, now: Instant, key: u32) -> Failure {
        Failure { trouble, account: key, credential: key, started: now, probe: false }
    }

    impl Breaker {
        /// A server error on one of so many keys, each an account in service.
        fn fails(&mut self, now: Instant, key: u32, keys: usize) -> Option<Change> {
            self.failed(now, failure(Trouble::ServerError, now, key), keys, || keys)
        }
    }

    #[test]
    fn three_accounts_in_the_same_trouble_open_it_at_once() {
        let now = Clock::system().now().mono;
        for trouble in Trouble::ALL {
            let mut breaker = Breaker::default();
            for key in 0..2 {
                assert_eq!(breaker.failed(now, failure(trouble, now, key), 100, || 100), None);
            }
            let opened = breaker.failed(now, failure(trouble, now, 2), 100, || 100);
            assert!(matches!(opened, Some(Change::Opened { .. })));
            assert_eq!(breaker.trouble(), Some(trouble));
        }
    }

    #[test]
    fn different_troubles_add_up_to_none() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for (key, trouble) in (0..).zip(Trouble::ALL.into_iter().chain(Trouble::ALL)) {
            assert_eq!(breaker.failed(now, failure(trouble, now, key), 100, || 100), None);
        }
    }

    #[test]
    fn keys_of_one_account_are_one_witness() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for credential in 0..40 {
            let failure = Failure { account: 0, credential, ..failure(Trouble::Overload, now, 0) };
            assert_eq!(breaker.failed(now, failure, 100, || 2), None);
        }
        let other = Failure { account: 1, credential: 99, ..failure(Trouble::Overload, now, 0) };
        assert!(breaker.failed(now, other, 100, || 2).is_some(), "there are no more");
    }

    #[test]
    fn failures_far_apart_are_no_incident() {
        let mut now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for key in 0..100 {
            assert_eq!(breaker.fails(now, key, 100), None);
            now += SECOND * 6;
        }
    }

    #[test]
    fn one_key_alone_never_opens_it() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(breaker.fails(now, 0, 2), None);
        }
        assert!(matches!(breaker.fails(now, 1, 2), Some(Change::Opened { .. })));
        // Though no other were in service.
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(breaker.failed(now, failure(Trouble::ServerError, now, 0), 200, || 1), None);
        }
    }

    #[test]
    fn the_only_key_of_a_host_does() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        let opened = (0..10).filter_map(|_| breaker.fails(now, 0, 1)).count();
        assert_eq!(opened, 1);
    }

    #[test]
    fn a_success_between_keeps_it_closed() {
        let mut now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for key in 0..100 {
            now += SECOND * 2;
            assert_eq!(breaker.fails(now, key, 100), None);
            if key % 2 == 1 {
                breaker.succeeded(now, now);
            }
        }
    }

    #[test]
    fn a_host_that_has_just_worked_takes_more_than_three() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        breaker.succeeded(now, now);
        let failed = (0..100).take_while(|key| breaker.fails(now, *key, 100).is_none()).count();
        assert_eq!(failed, 9);
    }

    #[test]
    fn half_open_admits_one_and_escalates() {
        let mut now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        let mut open = SECOND;
        for key in 0..3 {
            breaker.fails(now, key, 5);
        }
        for _ in 0..8 {
            assert_eq!(breaker.leave(now), Leave::NotBefore(now + open));
            now += open;
            assert_eq!(breaker.leave(now), Leave::Probe);
            breaker.probe_sent(now, 1);
            assert_eq!(breaker.leave(now), Leave::NotBefore(now + PROBE_PATIENCE));
            assert_eq!(breaker.leave(now + PROBE_PATIENCE), Leave::Probe);
            open = (open * 2).min(LONGEST_OPEN);
            let probe = Failure { probe: true, ..failure(Trouble::Transport, now, 0) };
            let change = breaker.failed(now, probe, 5, || 5);
            assert_eq!(change, Some(Change::Opened { until: now + open }));
        }
        now += open;
        breaker.probe_sent(now, 1);
        // Another was sent since: that the first is lost says nothing of it.
        breaker.probe_sent(now, 2);
        breaker.probe_lost(now, 1);
        assert!(breaker.is_probing());
        assert_eq!(breaker.succeeded(now, now - open), None, "sent before it opened");
        assert_eq!(breaker.succeeded(now, now), Some(Change::Closed));
        assert_eq!((breaker.leave(now), breaker.trouble()), (Leave::Free, None));
    }
}
