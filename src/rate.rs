//! Request rates as arithmetic: GCRA (ITU-T I.371, the virtual scheduling form) with the time passed in.
//!
//! The answer to "may I?" is "yes" or "not before this moment".

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// So many requests a second, so many of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    /// How far ahead of its schedule a limiter may run: `interval × (burst - 1)`.
    tolerance: Duration,
}

impl Rate {
    /// A rate of `per_second` requests, of which `burst` may come at once.
    ///
    /// `None` unless `per_second` is finite and from 1e-6 to 1e6.
    #[must_use]
    pub fn per_second(per_second: f64, burst: NonZeroU32) -> Option<Self> {
        if !(1e-6..=1e6).contains(&per_second) {
            return None;
        }
        let interval = Duration::from_secs_f64(per_second.recip());
        Some(Self { interval, tolerance: interval.saturating_mul(burst.get() - 1) })
    }

    /// The time between two requests at this rate.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.interval
    }

    /// How many requests may come at once.
    #[must_use]
    pub fn burst(self) -> u128 {
        self.tolerance.as_nanos() / self.interval.as_nanos() + 1
    }
}

/// One limiter: the theoretical arrival time of the next request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gcra {
    next: Option<Instant>,
}

impl Gcra {
    /// When a request may next pass; a moment not after `now` means at once.
    #[must_use]
    pub fn free_at(self, rate: Rate, now: Instant) -> Instant {
        match self.next {
            // `checked_sub`: the clock may be younger than the tolerance.
            Some(next) => next.checked_sub(rate.tolerance).unwrap_or(now).max(now),
            None => now,
        }
    }

    /// Lets one request pass, or says when one may.
    ///
    /// # Errors
    /// The moment from which a request would pass, if none else comes before it.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Instant> {
        let free = self.free_at(rate, now);
        if free > now {
            return Err(free);
        }
        self.charge(rate, now);
        Ok(())
    }

    /// Counts a request that passes now, whether or not it was due.
    pub fn charge(&mut self, rate: Rate, now: Instant) {
        self.next = Some(self.next.map_or(now, |next| next.max(now)) + rate.interval);
    }

    /// Gives one request back that was counted and never sent.
    pub fn refund(&mut self, rate: Rate) {
        self.next = self.next.and_then(|next| next.checked_sub(rate.interval));
    }

    /// Whether the limiter is as good as new.
    #[must_use]
    pub fn is_idle(self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use proptest::prelude::*;

    fn rate(per_second: f64, burst: u32) -> Rate {
        Rate::per_second(per_second, NonZeroU32::new(burst).unwrap()).unwrap()
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let start = Clock::system().now().mono;
        let rate = rate(10.0, 3);
        let mut gcra = Gcra::default();
        for _ in 0..3 {
            assert_eq!(gcra.take(rate, start), Ok(()));
        }
        let free = gcra.take(rate, start).unwrap_err();
        assert_eq!(free - start, Duration::from_millis(100));
        assert_eq!(gcra.take(rate, free), Ok(()));
        assert!(gcra.take(rate, free).is_err());
    }

    #[test]
    fn a_refund_gives_the_place_back() {
        let start = Clock::system().now().mono;
        let rate = rate(1.0, 1);
        let mut gcra = Gcra::default();
        gcra.take(rate, start).unwrap();
        assert!(gcra.take(rate, start).is_err());
        gcra.refund(rate);
        assert_eq!(gcra.take(rate, start), Ok(()));
    }

    #[test]
    fn a_rate_tells_its_burst() {
        for burst in [1, 2, 7, 1_000_000] {
            assert_eq!(rate(3.0, burst).burst(), u128::from(burst));
        }
    }

    #[test]
    fn nonsense_rates_cannot_be_written_down() {
        let one = NonZeroU32::MIN;
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert_eq!(Rate::per_second(bad, one), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate_in_any_run(
            per_second in 1.0..500.0_f64,
            burst in 1..50_u32,
            steps in prop::collection::vec(0..200_u64, 1..300),
        ) {
            let rate = rate(per_second, burst);
            let start = Clock::system().now().mono;
            let (mut gcra, mut now, mut passed) = (Gcra::default(), start, 0_u32);
            for step in steps {
                now += Duration::from_millis(step);
                match gcra.take(rate, now) {
                    Ok(()) => passed += 1,
                    Err(free) => {
                        prop_assert!(free > now);
                        // Honest: at the moment named, one passes.
                        prop_assert_eq!(gcra.clone().take(rate, free), Ok(()));
                    }
                }
                let allowed = f64::from(burst) + (now - start).as_secs_f64() * per_second + 1e-3;
                prop_assert!(f64::from(passed) <= allowed, "{passed} > {allowed}");
            }
        }
    }
}
