//! One limit of an account, as the upstream keeps it.

use std::time::{Duration, Instant};

use crate::types::{Allowance, Refill};

/// For so long what was announced is good at least. Most limits are per minute.
pub(super) const KEPT: Duration = Duration::from_secs(60);
/// And a little longer, so that at the beginning of a window it is still known how much is in it.
pub(super) const AND_THEN: Duration = Duration::from_secs(10);
/// What limits are for, in seconds: a second, a minute, an hour, a day. What comes near is taken for it …
const PERIODS: [f64; 4] = [60.0, 86_400.0, 3_600.0, 1.0];
/// … as near as this, or as rounding explains.
const ROUNDED: f64 = 0.1;
/// Of less than this share of a limit, the rate at which it comes back is not computed: resets are rounded.
const TOO_LITTLE_TO_TELL: f64 = 0.02;
/// A request that is estimated at more than this part of a limit is sent when so much is there: the estimate may be
/// too high, and if it is not, no key of that account will ever serve it.
const LARGEST_PART: f64 = 0.5;

/// What is left of one limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// How much, as far as can be told. Below zero, more was given out than there was.
    pub left: f64,
    /// Of how much, if that is known.
    pub limit: Option<f64>,
}

/// One limit, as the upstream keeps it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tank {
    /// Its number: what is known of one says nothing of another.
    pub(super) number: u16,
    pub(super) left: f64,
    at: Instant,
    /// By how much answers have put it right.
    pub(super) mended: f64,
    /// What is not given out: estimates may be too low.
    reserve: f64,
    /// How much there is when it is full. Infinite where nobody has said.
    pub(super) most: f64,
    pub(super) back: Back,
    /// From then on nothing is known of it.
    until: Instant,
}

/// How more comes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Back {
    /// So much in a second.
    Steadily(f64),
    /// All at once, at this moment; and then, it seems, each time after so long.
    AllAt(Instant, Duration),
    /// Nobody has said.
    Unknown,
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// The number of a tank that the answer to `attempt` has filled first; never 0.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is small enough")]
fn number_of(attempt: u64) -> u16 {
    (attempt % u64::from(u16::MAX)) as u16 + 1
}

/// The rate at which a limit of `most` comes back, of which so much is `used` and back after `reset`.
pub(super) fn rate(most: f64, used: f64, reset: Duration, known: Option<Back>) -> Back {
    let period = most / used * reset.as_secs_f64();
    // What is used is rounded, by one at the most; and resets are rounded, too.
    let near = |other: &f64| {
        let ratio = period / other;
        let wrong = used.recip().max(ROUNDED);
        ratio * (1.0 + wrong) >= 1.0 && ratio <= 1.0 + wrong
    };
    match (PERIODS.iter().find(|other| near(other)), known) {
        (Some(period), _) => Back::Steadily(most / period),
        (None, Some(known @ Back::Steadily(_))) if used < most * TOO_LITTLE_TO_TELL => known,
        (None, _) => Back::Steadily(most / period),
    }
}

impl Tank {
    /// As the answer to an attempt that was `sent` then says. What was thought `before` is compared with it. A new one
    /// has the attempt's number; so much was `given` out since.
    pub(super) fn new(
        now: Instant,
        (attempt, sent): (u64, Instant),
        said: &Allowance,
        before: Option<(&Self, f64)>,
        given: f64,
        reserve: f64,
    ) -> Self {
        let remaining = float(said.remaining);
        let most = said.limit.map_or(f64::INFINITY, |limit| float(limit).max(1.0));
        let before = before.filter(|(before, _)| before.most == most && before.is_known(now));
        let reset = said.reset.filter(|reset| !reset.is_zero());
        let back = match (said.refill, reset, before.map(|(before, _)| before.back)) {
            (Refill::Continuous, Some(reset), known) if remaining < most && most.is_finite() => {
                rate(most, most - remaining, reset, known)
            }
            (Refill::Window, Some(reset), Some(Back::AllAt(_, window))) if window <= KEPT => {
                Back::AllAt(now + reset, window.max(reset))
            }
            (Refill::Window, Some(reset), _) => Back::AllAt(now + reset, reset),
            (_, _, Some(known @ Back::Steadily(_))) => known,
            _ => Back::Unknown,
        };
        let until = now + reset.map_or(KEPT, |reset| reset.max(KEPT)) + AND_THEN;
        let number = before.map_or_else(|| number_of(attempt), |(before, _)| before.number);
        let (left, mended) = match before {
            Some((before, thought)) => {
                let wrong = remaining - thought - before.mended;
                ((before.left(now) + wrong).min(most), before.mended + wrong)
            }
            None => {
                let since = now.saturating_duration_since(sent).as_secs_f64();
                let came = if let Back::Steadily(rate) = back { rate * since } else { 0.0 };
                ((remaining + came).min(most) - given, 0.0)
            }
        };
        let reserve = if most.is_finite() { most * reserve } else { 0.0 };
        Self { number, left, at: now, mended, reserve, most, back, until }
    }

    /// Whether the window in which something was `sent` then is over: what was said of that is no longer true.
    pub(super) fn has_begun_anew_since(&self, now: Instant, sent: Instant) -> bool {
        self.is_known(now)
            && match self.back {
                Back::AllAt(reset, _) if now >= reset => sent < reset,
                Back::AllAt(reset, window) => sent + window < reset,
                Back::Steadily(_) | Back::Unknown => false,
            }
    }

    pub(super) fn is_known(&self, now: Instant) -> bool {
        // Where a window begins anew and nobody has said how much is in it, nothing is known any more.
        let ended = matches!(self.back, Back::AllAt(reset, _) if self.most.is_infinite() && now >= reset);
        now < self.until && !ended
    }

    pub(super) fn left(&self, now: Instant) -> f64 {
        match self.back {
            Back::Steadily(rate) => {
                let seconds = now.saturating_duration_since(self.at).as_secs_f64();
                (self.left + rate * seconds).min(self.most)
            }
            Back::AllAt(reset, _) if now >= reset => self.most,
            Back::AllAt(..) | Back::Unknown => self.left,
        }
    }

    pub(super) fn room(&self, now: Instant) -> Option<Room> {
        self.is_known(now)
            .then(|| Room { left: self.left(now), limit: Some(self.most).filter(|most| most.is_finite()) })
    }

    /// From when on so much is there. Now, where that is not known.
    pub(super) fn free_at(&self, now: Instant, amount: f64) -> Instant {
        let amount = amount.min((self.most * LARGEST_PART).max(1.0)) + self.reserve;
        if amount <= self.left(now) || !self.is_known(now) {
            return now;
        }
        // The same moment, whenever it is asked for: who waits until then must find it so.
        let there = match self.back {
            Back::Steadily(rate) => {
                let wait = (amount - self.left) / rate;
                // What takes for ever is unknown.
                let wait = Duration::try_from_secs_f64(wait);
                wait.map_or(now, |wait| self.at + wait + Duration::from_nanos(1))
            }
            Back::AllAt(reset, _) => reset,
            Back::Unknown => now,
        };
        there.min(self.until).max(now)
    }

    pub(super) fn take(&mut self, now: Instant, amount: f64) {
        self.left = (self.left(now) - amount).min(self.most);
        self.at = now;
        if let Back::AllAt(reset, window) = &mut self.back
            && now >= *reset
        {
            if self.most.is_infinite() {
                // How much is in the new window nobody has said.
                self.until = now;
            }
            let next = *reset + *window;
            *reset = if next > now { next } else { now + *window };
        }
    }
}
