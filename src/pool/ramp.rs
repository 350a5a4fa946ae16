//! Ramp: how a key is loaded again after a rest whose end we guessed.
//!
//! That its probe has passed says that there is room for one more request, not for everybody who waits. So each request
//! that passes lets two more go, as TCP's slow start does (RFC 5681 §3.1): the load doubles with every answer's time, and
//! the refusal that shows where the limit is costs few others.

use std::time::{Duration, Instant};

/// How many requests may go for each that has passed.
const FOR_EACH: u32 = 2;
/// Answers may take long, or never come: after this time without a grant one more may go.
const PATIENCE: Duration = Duration::from_secs(1);
/// Without a refusal for so long, there is nothing to be careful about.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The requests that may go, of a key that was loaded too much.
#[derive(Debug, Clone)]
pub(super) struct Ramp {
    since: Instant,
    /// How many may go now.
    may_go: u32,
    /// When the last one went.
    granted: Instant,
}

impl Ramp {
    /// The probe has passed.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, may_go: FOR_EACH, granted: now }
    }

    /// From when on a request may go.
    pub(super) fn free_at(&self, now: Instant) -> Instant {
        if self.may_go > 0 { now } else { now.max(self.granted + PATIENCE) }
    }

    /// A request goes.
    pub(super) fn granted(&mut self, now: Instant) {
        self.may_go = self.may_go.saturating_sub(1);
        self.granted = now;
    }

    /// One that `started` then has passed. False if the ramp is behind.
    pub(super) fn passed(&mut self, now: Instant, started: Instant) -> bool {
        if started >= self.since {
            self.may_go = self.may_go.saturating_add(FOR_EACH);
        }
        now.saturating_duration_since(self.since) < FORGOTTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_load_doubles_with_each_round() {
        let mut now = Clock::system().now().mono;
        let mut ramp = Ramp::new(now);
        for round in 1..8 {
            let mut went = 0;
            while ramp.free_at(now) <= now {
                ramp.granted(now);
                went += 1;
            }
            assert_eq!(went, 1 << round);
            let sent = now;
            now += Duration::from_millis(600);
            for _ in 0..went {
                assert!(ramp.passed(now, sent));
            }
        }
    }

    #[test]
    fn without_an_answer_one_more_goes_after_a_while() {
        let now = Clock::system().now().mono;
        let mut ramp = Ramp::new(now);
        ramp.granted(now);
        ramp.granted(now);
        assert_eq!(ramp.free_at(now), now + PATIENCE);
        // What was sent before it began says nothing.
        ramp.passed(now, now - Duration::from_secs(1));
        assert_eq!(ramp.free_at(now), now + PATIENCE);
        assert_eq!(ramp.free_at(now + PATIENCE), now + PATIENCE);
        ramp.granted(now + PATIENCE);
        assert_eq!(ramp.free_at(now + PATIENCE), now + PATIENCE * 2);
    }

    #[test]
    fn it_is_forgotten_when_nothing_is_refused() {
        let now = Clock::system().now().mono;
        let mut ramp = Ramp::new(now);
        assert!(ramp.passed(now + FORGOTTEN / 2, now));
        assert!(!ramp.passed(now + FORGOTTEN, now));
    }
}
