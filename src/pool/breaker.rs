//! The breaker of one host: closed, open, half-open with one probe.
//!
//! It opens only when a host fails for several keys and works for none, so that one bad key can't become an outage,
//! and it never hears of refusals: a 401, 402, 403 or 429 comes from a host that works.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::cooling::Leave;

/// So many failures in a row, without a success between them, …
const FAILURES: usize = 5;
/// … on so many keys (where the host has them) …
const KEYS: usize = 2;
/// … within this time, open the breaker.
const WINDOW: Duration = Duration::from_secs(30);
const FIRST_OPEN: Duration = Duration::from_secs(1);
const LONGEST_OPEN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub(super) struct Breaker {
    state: State,
    /// Openings since the last success.
    openings: u32,
    /// The failures since the last success: when, and on which key.
    failures: VecDeque<(Instant, u32)>,
    last_success: Option<Instant>,
    last_opened: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    Probing,
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
            State::Probing => Leave::Blocked,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(super) fn probe_sent(&mut self) {
        self.state = State::Probing;
    }

    /// The probe came back without a word on the host: the next request is the probe.
    pub(super) fn probe_lost(&mut self, now: Instant) {
        if self.state == State::Probing {
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

    /// A transport error, overload or 5xx on `key`, one of `keys` credentials that the host has.
    pub(super) fn failed(&mut self, now: Instant, key: u32, keys: usize, probe: bool) -> Option<Change> {
        match self.state {
            State::Probing if probe => return Some(self.open(now)),
            // Sent before it opened: nothing new.
            State::Probing | State::Open { .. } => return None,
            State::Closed => {}
        }
        while self.failures.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.failures.pop_front();
        }
        if self.failures.len() == FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back((now, key));
        let first = self.failures[0].1;
        let other = self.failures.iter().any(|(_, other)| *other != first);
        let enough_keys = other || keys < KEYS;
        (self.failures.len() >= FAILURES && enough_keys).then(|| self.open(now))
    }

    /// Whether the host has answered well since `since`: then a failure is the key's rather than the host's.
    pub(super) fn worked_since(&self, since: Instant) -> bool {
        self.last_success.is_some_and(|at| at >= since)
    }

    /// Whether it has opened since `since`: then what failed before may be the host's fault.
    pub(super) fn opened_since(&self, since: Instant) -> bool {
        self.last_opened.is_some_and(|at| at >= since)
    }

    fn open(&mut self, now: Instant) -> Change {
        let long = FIRST_OPEN.saturating_mul(2_u32.saturating_pow(self.openings)).min(LONGEST_OPEN);
        self.openings = self.openings.saturating_add(1);
        self.failures.clear();
        self.last_opened = Some(now);
        let until = now + long;
        self.state = State::Open { until };
        Change::Opened { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn one_key_alone_never_opens_it() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(breaker.failed(now, 0, 2, false), None);
        }
        assert!(matches!(breaker.failed(now, 1, 2, false), Some(Change::Opened { .. })));
    }

    #[test]
    fn the_only_key_of_a_host_does() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        let opened = (0..10).filter_map(|_| breaker.failed(now, 0, 1, false)).count();
        assert_eq!(opened, 1);
    }

    #[test]
    fn a_success_between_keeps_it_closed() {
        let now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        for key in 0..100 {
            assert_eq!(breaker.failed(now, key, 100, false), None);
            if key % 4 == 3 {
                breaker.succeeded(now, now);
            }
        }
    }

    #[test]
    fn half_open_admits_one_and_escalates() {
        let mut now = Clock::system().now().mono;
        let mut breaker = Breaker::default();
        let mut open = Duration::from_secs(1);
        for key in 0..5 {
            breaker.failed(now, key, 5, false);
        }
        for _ in 0..8 {
            assert_eq!(breaker.leave(now), Leave::NotBefore(now + open));
            now += open;
            assert_eq!(breaker.leave(now), Leave::Probe);
            breaker.probe_sent();
            assert_eq!(breaker.leave(now), Leave::Blocked);
            open = (open * 2).min(LONGEST_OPEN);
            assert_eq!(breaker.failed(now, 0, 5, true), Some(Change::Opened { until: now + open }));
        }
        now += open;
        breaker.probe_sent();
        assert_eq!(breaker.succeeded(now, now - open), None, "sent before it opened");
        assert_eq!(breaker.succeeded(now, now), Some(Change::Closed));
        assert_eq!(breaker.leave(now), Leave::Free);
    }
}
