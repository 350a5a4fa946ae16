//! How many retries the traffic can bear.
//!
//! A maximum per request is a guess, and guesses multiply: when everything fails, every client's request becomes
//! several. A budget bounds retries as a share of requests, with a floor so that light traffic can retry at all.

use std::time::Instant;

/// Retries may add this share to the requests …
const SHARE: f64 = 0.2;
/// … and this many a second in any case.
const FLOOR_PER_SECOND: f64 = 10.0;
/// What can be saved up.
const MOST: f64 = 100.0;
/// The same for second attempts beside a first that is only slow.
const SHARE_OF_HEDGES: f64 = 0.05;
const HEDGES_PER_SECOND: f64 = 1.0;
const MOST_HEDGES: f64 = 10.0;

/// The retries that may still be made.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    per_second: f64,
    most: f64,
    saved: f64,
    counted: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// As much as a second brings.
    #[must_use]
    pub fn new() -> Self {
        Self::of(SHARE, FLOOR_PER_SECOND, MOST)
    }

    /// The same for second attempts beside a first.
    #[must_use]
    pub fn of_hedges() -> Self {
        Self::of(SHARE_OF_HEDGES, HEDGES_PER_SECOND, MOST_HEDGES)
    }

    fn of(share: f64, per_second: f64, most: f64) -> Self {
        Self { share, per_second, most, saved: per_second, counted: None }
    }

    /// A request was made.
    pub fn deposit(&mut self) {
        self.saved = (self.saved + self.share).min(self.most);
    }

    /// Whether one more retry may be made; counts it if so.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        if let Some(counted) = self.counted {
            let seconds = now.saturating_duration_since(counted).as_secs_f64();
            self.saved = (self.saved + seconds * self.per_second).min(self.most);
        }
        self.counted = Some(now);
        let affordable = self.saved >= 1.0;
        if affordable {
            self.saved -= 1.0;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    #[test]
    fn an_outage_costs_a_fifth_more_and_the_floor() {
        let mut now = Clock::system().now().mono;
        let mut budget = Budget::new();
        let mut retries = 0;
        // 1,000 requests a second for ten seconds, each of which would like three retries.
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            budget.deposit();
            retries += (0..3).filter(|_| budget.withdraw(now)).count();
        }
        assert!((2_000..=2_220).contains(&retries), "{retries}");
    }

    #[test]
    fn where_all_is_slow_a_twentieth_is_sent_twice() {
        let mut now = Clock::system().now().mono;
        let mut budget = Budget::of_hedges();
        let mut hedges = 0;
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            budget.deposit();
            hedges += usize::from(budget.withdraw(now));
        }
        assert!((500..=512).contains(&hedges), "{hedges}");
    }

    #[test]
    fn light_traffic_can_always_retry() {
        let mut now = Clock::system().now().mono;
        let mut budget = Budget::new();
        for _ in 0..100 {
            now += Duration::from_secs(1);
            budget.deposit();
            assert!((0..3).all(|_| budget.withdraw(now)));
        }
    }
}
