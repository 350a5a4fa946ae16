//! Rest: until when a key is not picked, why, and how it comes back.

use std::time::{Duration, Instant};

use super::{pace::Pace, ramp::Ramp};

/// Why a key rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Too many requests or tokens for now.
    RateLimited,
    /// Money or a daily allowance has run out.
    QuotaExhausted,
    /// The upstream says that the credential is dead: quarantine.
    Rejected,
    /// The upstream refused for a reason it did not name.
    Refused,
    /// It failed several times in a row.
    Failing,
    /// It has no access to the model.
    ModelUnavailable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::Rejected,
        Self::Refused,
        Self::Failing,
        Self::ModelUnavailable,
    ];

    /// The name in logs, metrics and answers; a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Failing => "failing",
            Self::ModelUnavailable => "model_unavailable",
        }
    }

    /// Whether waiting cures it.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::RateLimited | Self::Failing)
    }

    /// The first rest where the upstream names none, and the longest there is.
    const fn bounds(self) -> (Duration, Duration) {
        let (first, longest) = match self {
            // The upstream's own word may be "tomorrow"; without a word, a minute is the usual window.
            Self::RateLimited => (1, 60),
            Self::QuotaExhausted => (5 * 60, 60 * 60),
            Self::Rejected => (60, 60 * 60),
            Self::Refused => (5, 5 * 60),
            Self::Failing => (1, 60),
            Self::ModelUnavailable => (5 * 60, 5 * 60),
        };
        (Duration::from_secs(first), Duration::from_secs(longest))
    }
}

/// However long an upstream asks us to stay away, a day later we ask again.
pub(super) const LONGEST_NAMED: Duration = Duration::from_secs(24 * 60 * 60);

/// The rest of one key, or of one key for one model.
#[derive(Debug, Clone, Default)]
pub(super) struct Cooling {
    rest: Option<Rest>,
    /// Rests since the last success: each without a named end is twice as long as the one before.
    strikes: u32,
    probe: Probe,
    /// What rate limits have taught; it outlasts the rests.
    pace: Option<Box<Pace>>,
    /// How its load grows again after a rest for a rate limit whose end we guessed.
    ramp: Option<Box<Ramp>>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    since: Instant,
    until: Instant,
    reason: Reason,
    /// Whether nobody has said when it ends.
    guessed: bool,
}

/// A key that comes back from a rest whose end we guessed serves one request at a time until one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Probe {
    #[default]
    NotNeeded,
    Due,
    /// The attempt with this number.
    Out(u64),
}

/// Whether a key may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Yes.
    Free,
    /// Yes, this once: it is a probe.
    Probe,
    /// Not before then.
    NotBefore(Instant),
    /// Not before something else ends.
    Blocked,
}

impl Leave {
    /// What both allow.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Blocked, _) | (_, Self::Blocked) => Self::Blocked,
            (Self::NotBefore(a), Self::NotBefore(b)) => Self::NotBefore(a.max(b)),
            (Self::NotBefore(until), _) | (_, Self::NotBefore(until)) => Self::NotBefore(until),
            (Self::Probe, _) | (_, Self::Probe) => Self::Probe,
            (Self::Free, Self::Free) => Self::Free,
        }
    }

    /// Whether it may be picked now.
    pub(super) fn is_granted(self) -> bool {
        matches!(self, Self::Free | Self::Probe)
    }
}

impl Cooling {
    pub(super) fn leave(&self, now: Instant) -> Leave {
        match self.held_until(now) {
            free if free > now => self.rested(now).and(Leave::NotBefore(free)),
            _ => self.rested(now),
        }
    }

    /// The same without the pace.
    pub(super) fn rested(&self, now: Instant) -> Leave {
        match (self.rest, self.probe) {
            (None, _) => Leave::Free,
            (Some(rest), _) if rest.until > now => Leave::NotBefore(rest.until),
            (_, Probe::NotNeeded) => Leave::Free,
            (_, Probe::Due) => Leave::Probe,
            (_, Probe::Out(_)) => Leave::Blocked,
        }
    }

    /// The reason and the end of a rest that still has effect.
    pub(super) fn current(&self, now: Instant) -> Option<(Reason, Instant)> {
        let rest = self.rest?;
        (rest.until > now || self.probe != Probe::NotNeeded).then_some((rest.reason, rest.until))
    }

    /// Whether nobody expects much of its probe: all rests but those for a limit that fills up again by itself.
    pub(super) fn is_doubtful(&self) -> bool {
        self.rest.is_some_and(|rest| rest.reason != Reason::RateLimited)
    }

    /// Begins or extends a rest, for an attempt that `started` then. True if a new one began.
    ///
    /// Of attempts that were in flight together only the first counts, and a shorter rest never cuts a longer one
    /// short.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        started: Instant,
        reason: Reason,
        named: Option<Duration>,
    ) -> bool {
        // "Come back at once" after a refusal is no answer.
        let named = named.filter(|wait| !wait.is_zero()).map(|wait| wait.min(LONGEST_NAMED));
        if let Some(wait) = named.filter(|_| reason == Reason::RateLimited) {
            match &mut self.pace {
                Some(pace) => pace.refused(now, started, wait),
                None => self.pace = Some(Box::new(Pace::new(now, wait))),
            }
        }
        let known = self.rest.is_some_and(|rest| rest.since >= started && rest.reason == reason);
        if known && named.is_none() {
            return false;
        }
        if !known {
            self.strikes = self.strikes.saturating_add(1);
        }
        let (first, longest) = reason.bounds();
        let guess = || first.saturating_mul(2_u32.saturating_pow(self.strikes - 1)).min(longest);
        let until = now + named.unwrap_or_else(guess);
        // A provider's word on when a limit resets is taken; everything else comes back by a probe.
        self.probe = match (reason, named, self.probe) {
            // Of a probe that is out nobody else knows how it ends.
            (_, _, Probe::Out(_)) => self.probe,
            (Reason::RateLimited, Some(_), Probe::NotNeeded) => Probe::NotNeeded,
            _ => Probe::Due,
        };
        match &mut self.rest {
            Some(rest) if rest.until >= until && rest.until > now => {
                // It stands for this word as well, and what was sent before can't contradict it.
                rest.since = now;
                false
            }
            _ => {
                self.rest = Some(Rest { since: now, until, reason, guessed: named.is_none() });
                !known
            }
        }
    }

    /// The probe failed without a word on what the rest began for.
    pub(super) fn probe_failed(&mut self, now: Instant, started: Instant) -> bool {
        let reason = match self.rest.map(|rest| rest.reason) {
            Some(known @ (Reason::Rejected | Reason::QuotaExhausted | Reason::Refused)) => known,
            _ => Reason::Failing,
        };
        self.begin(now, started, reason, None)
    }

    /// An attempt that `started` then went well. True if that ended a rest.
    pub(super) fn succeeded(&mut self, now: Instant, started: Instant) -> bool {
        if self.pace.as_mut().is_some_and(|pace| !pace.passed(now, started)) {
            self.pace = None;
        }
        match self.rest {
            // It says nothing about a rest that began after it was sent.
            Some(rest) if rest.since >= started => false,
            Some(rest) => {
                self.end();
                let is_ramp = rest.guessed && rest.reason == Reason::RateLimited;
                self.ramp = is_ramp.then(|| Box::new(Ramp::new(now)));
                true
            }
            None => {
                if self.ramp.as_mut().is_some_and(|ramp| !ramp.passed(now, started)) {
                    self.ramp = None;
                }
                self.strikes = 0;
                false
            }
        }
    }

    fn end(&mut self) {
        (self.rest, self.strikes, self.probe) = (None, 0, Probe::NotNeeded);
    }

    /// An attempt is made.
    pub(super) fn granted(&mut self, now: Instant) {
        if let Some(pace) = &mut self.pace {
            pace.granted(now);
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.granted(now);
        }
    }

    /// Whether it serves, or rests for its pace alone.
    pub(super) fn is_in_service(&self, now: Instant) -> bool {
        self.rested(now) == Leave::Free || self.interval().is_some()
    }

    /// Until when its pace, or its ramp, holds it back. Who is parked until then must be told when that comes sooner.
    pub(super) fn held_until(&self, now: Instant) -> Instant {
        let paced = self.pace.as_ref().map_or(now, |pace| pace.free_at(now));
        self.ramp.as_ref().map_or(paced, |ramp| ramp.free_at(now).max(paced))
    }

    /// The distance kept between attempts.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.pace.as_ref()?.interval()
    }

    pub(super) fn probe_sent(&mut self, attempt: u64) {
        self.probe = Probe::Out(attempt);
    }

    /// The attempt is over: if it was the probe, and ended no rest, the next is due. True if it was.
    pub(super) fn probe_back(&mut self, attempt: u64) -> bool {
        let was = self.probe == Probe::Out(attempt);
        if was {
            self.probe = Probe::Due;
        }
        was
    }

    /// Ends a rest that has this reason. True if there was one.
    pub(super) fn lift(&mut self, reason: Reason) -> bool {
        let lifted = self.is_for(reason);
        if lifted {
            self.end();
        }
        lifted
    }

    /// Takes back a rest for failures that `was_the_hosts` says, of the moment when it began, was the host's. True if
    /// there was one.
    pub(super) fn forgive(&mut self, now: Instant, was_the_hosts: impl FnOnce(Instant) -> bool) -> bool {
        let Some(rest) = self.rest.as_mut().filter(|rest| rest.reason == Reason::Failing) else {
            return false;
        };
        if !was_the_hosts(rest.since) {
            return false;
        }
        self.strikes = self.strikes.saturating_sub(1);
        if self.strikes == 0 {
            self.end();
        } else {
            // It failed before by itself: that stands, and the next attempt is a probe as this one was.
            rest.until = rest.until.min(now);
        }
        true
    }

    /// Whether there is a rest for this reason.
    pub(super) fn is_for(&self, reason: Reason) -> bool {
        self.rest.is_some_and(|rest| rest.reason == reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_named_end_is_kept_and_guesses_double() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::RateLimited, Some(SECOND * 7));
        assert_eq!(cooling.leave(now), Leave::NotBefore(now + SECOND * 7));
        assert_eq!(cooling.leave(now + SECOND * 7), Leave::Free);

        let mut cooling = Cooling::default();
        let mut at = now;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            cooling.begin(at, at, Reason::Failing, None);
            assert_eq!(cooling.leave(at), Leave::NotBefore(at + SECOND * seconds));
            at += SECOND * seconds;
            assert_eq!(cooling.leave(at), Leave::Probe);
        }
    }

    #[test]
    fn whatever_an_upstream_names_a_day_later_we_ask_again() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::RateLimited, Some(Duration::MAX));
        assert_eq!(cooling.leave(now), Leave::NotBefore(now + LONGEST_NAMED));
        assert_eq!(cooling.leave(now + LONGEST_NAMED), Leave::Free);
    }

    #[test]
    fn a_shorter_rest_never_cuts_a_longer_one_short() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        assert!(cooling.begin(now, now, Reason::RateLimited, Some(SECOND * 60)));
        assert!(!cooling.begin(now + SECOND, now + SECOND, Reason::RateLimited, Some(SECOND)));
        assert_eq!(cooling.leave(now + SECOND * 2), Leave::NotBefore(now + SECOND * 60));
    }

    #[test]
    fn attempts_in_flight_together_count_once() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        for n in 0..20 {
            cooling.begin(now + Duration::from_millis(n), now, Reason::Failing, None);
        }
        assert_eq!(cooling.strikes, 1);
    }

    #[test]
    fn a_success_sent_before_the_rest_does_not_end_it() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now + SECOND, now, Reason::RateLimited, Some(SECOND * 30));
        assert!(!cooling.succeeded(now + SECOND * 2, now));
        assert_eq!(cooling.leave(now + SECOND * 2), Leave::NotBefore(now + SECOND * 31));
        let back = now + SECOND * 31;
        assert!(cooling.succeeded(back, back));
        assert_eq!(cooling.leave(now + SECOND * 2), Leave::Free);
    }

    #[test]
    fn a_success_sent_before_a_refusal_does_not_end_the_longer_rest_that_stands_for_it() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::Failing, None);
        // Another entry of the credential goes on meanwhile.
        let (sent, refused) = (now + SECOND / 10, now + SECOND / 5);
        assert!(!cooling.begin(refused, sent, Reason::RateLimited, Some(SECOND / 2)));
        assert!(!cooling.succeeded(now + SECOND / 4, sent));
        assert_eq!(cooling.leave(now + SECOND / 4), Leave::NotBefore(now + SECOND));
    }

    #[test]
    fn one_probe_at_a_time() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::Rejected, None);
        let due = now + SECOND * 60;
        assert_eq!(cooling.leave(due), Leave::Probe);
        cooling.probe_sent(1);
        assert_eq!(cooling.leave(due), Leave::Blocked);
        assert!(!cooling.probe_back(2));
        assert!(cooling.probe_back(1));
        assert_eq!(cooling.leave(due), Leave::Probe);
    }

    #[test]
    fn a_rest_extended_while_its_probe_is_out_keeps_waiting_for_that_probe() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::RateLimited, None);
        cooling.probe_sent(1);
        cooling.begin(now + SECOND * 2, now, Reason::RateLimited, Some(SECOND));
        assert_eq!(cooling.leave(now + SECOND * 3), Leave::Blocked);
        cooling.probe_back(1);
        assert_eq!(cooling.leave(now + SECOND * 3), Leave::Probe);
    }

    #[test]
    fn a_quarantine_outlasts_a_probe_that_the_host_failed() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::Rejected, None);
        let due = now + SECOND * 60;
        cooling.probe_sent(1);
        cooling.probe_failed(due, due);
        cooling.probe_back(1);
        assert_eq!(cooling.current(due), Some((Reason::Rejected, due + SECOND * 120)));
    }

    #[test]
    fn no_wait_is_no_answer() {
        let now = Clock::system().now().mono;
        let mut cooling = Cooling::default();
        cooling.begin(now, now, Reason::RateLimited, Some(Duration::ZERO));
        assert_eq!(cooling.leave(now), Leave::NotBefore(now + SECOND));
    }
}
