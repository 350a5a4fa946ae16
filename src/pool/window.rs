//! Health: the exact outcomes of the last minute, in a ring of buckets.
//!
//! Exact counts rather than a moving average: a tight burst of failures weighs in an average next to nothing, and
//! can hide a key that has stopped working; here each outcome counts fully until it leaves the window at once.

use std::time::{Duration, Instant};

const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(6);
/// Every key starts with so many good outcomes to its name, so that its first failure does not condemn it.
const CREDIT: f64 = 4.0;

/// The outcomes of one key over the last `BUCKETS × BUCKET`.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS],
    newest: usize,
    /// When the newest bucket began.
    began: Option<Instant>,
    good: u32,
    bad: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    good: u32,
    bad: u32,
}

impl Window {
    pub(super) fn record(&mut self, now: Instant, good: bool) {
        self.turn(now);
        let bucket = &mut self.buckets[self.newest];
        let (in_bucket, in_all) =
            if good { (&mut bucket.good, &mut self.good) } else { (&mut bucket.bad, &mut self.bad) };
        *in_bucket += 1;
        *in_all += 1;
    }

    /// So many of the latest bad outcomes are taken back.
    pub(super) fn forgive(&mut self, now: Instant, mut count: u32) {
        self.turn(now);
        for age in 0..BUCKETS {
            let bucket = &mut self.buckets[(self.newest + BUCKETS - age) % BUCKETS];
            let back = bucket.bad.min(count);
            bucket.bad -= back;
            self.bad -= back;
            count -= back;
        }
    }

    /// From 0.0 (nothing works) to 1.0 (nothing has failed).
    pub(super) fn health(&mut self, now: Instant) -> f64 {
        self.turn(now);
        if self.bad == 0 {
            return 1.0;
        }
        let (good, bad) = (f64::from(self.good), f64::from(self.bad));
        (good + CREDIT) / (good + bad + CREDIT)
    }

    /// Drops the buckets that have left the window.
    fn turn(&mut self, now: Instant) {
        let Some(began) = self.began else {
            self.began = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(began).as_nanos() / BUCKET.as_nanos();
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        if passed == 0 {
            return;
        }
        if passed >= BUCKETS {
            *self = Self { began: Some(now), ..Self::default() };
            return;
        }
        for _ in 0..passed {
            self.newest = (self.newest + 1) % BUCKETS;
            let old = std::mem::take(&mut self.buckets[self.newest]);
            self.good -= old.good;
            self.bad -= old.bad;
        }
        self.began = Some(began + BUCKET * u32::try_from(passed).expect("less than BUCKETS"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use proptest::prelude::*;

    #[test]
    fn one_failure_does_not_condemn_and_many_do() {
        let now = Clock::system().now().mono;
        let mut window = Window::default();
        assert_eq!(window.health(now), 1.0);
        window.record(now, false);
        assert!(window.health(now) > 0.75);
        for _ in 0..40 {
            window.record(now, false);
        }
        assert!(window.health(now) < 0.1);
    }

    #[test]
    fn what_left_the_window_is_forgotten() {
        let now = Clock::system().now().mono;
        let mut window = Window::default();
        for _ in 0..10 {
            window.record(now, false);
        }
        assert!(window.health(now + Duration::from_secs(53)) < 0.5);
        assert_eq!(window.health(now + Duration::from_secs(60)), 1.0);
    }

    #[test]
    fn what_is_forgiven_is_the_latest() {
        let now = Clock::system().now().mono;
        let mut window = Window::default();
        for at in [0, 3, 9, 14, 14] {
            window.record(now + Duration::from_secs(at), false);
        }
        let late = now + Duration::from_secs(15);
        window.forgive(late, 3);
        assert_eq!((window.bad, window.buckets[0].bad), (2, 2));
        window.forgive(late, 9);
        assert_eq!(window.health(late), 1.0);
    }

    proptest! {
        #[test]
        fn counts_equal_a_naive_recount(steps in prop::collection::vec((0..9_000_u64, any::<bool>()), 1..200)) {
            let start = Clock::system().now().mono;
            let (mut window, mut now, mut log) = (Window::default(), start, Vec::new());
            for (step, good) in steps {
                now += Duration::from_millis(step);
                window.record(now, good);
                log.push((now, good));
                let began = window.began.unwrap();
                let oldest = began.checked_sub(BUCKET * 9).unwrap_or(start);
                let kept = |wanted| log.iter().filter(|(at, good)| *at >= oldest && *good == wanted).count();
                let (good, bad) = (kept(true), kept(false));
                prop_assert!(window.good as usize <= good && window.bad as usize <= bad);
                prop_assert!((0.0..=1.0).contains(&window.health(now)));
                prop_assert_eq!(window.good, window.buckets.iter().map(|b| b.good).sum::<u32>());
                prop_assert_eq!(window.bad, window.buckets.iter().map(|b| b.bad).sum::<u32>());
            }
        }
    }
}
