//! Pace: how far apart the requests of a key must be, learned from its refusals.
//!
//! An upstream that limits a rate says in a refusal when the next request will pass. Sending one at that moment and the
//! next at once earns the next refusal: every success would cost one. So a key that was refused keeps a distance
//! between its requests. The first guess comes from what the refusals say; from then on the distance shrinks a little
//! with every request that passes and had to wait for its turn, and grows with every refusal (additive probing,
//! multiplicative retreat, as in congestion control): it stays near the upstream's rate, and follows it when it changes.
//!
//! A limit per window of time (so many a minute, all at once if you like) is another matter: its refusals name long
//! waits, after which a lot passes again. There the rest alone is right, unless next to nothing passed in between.

use std::time::{Duration, Instant};

use super::cooling::LONGEST_NAMED;

/// A named wait up to this long is that of a rate, a longer one that of a window.
const RATE_WAIT: Duration = Duration::from_secs(2);
/// So few that passed between two refusals: a rate after all, and a slow one.
const NEXT_TO_NOTHING: u32 = 1;
/// The part of the distance that each request takes away: at the most, and at the least.
const FIRST_STEP: f64 = 0.1;
const LAST_STEP: f64 = 0.0005;
/// While none is refused the step grows, so that a rate that has risen is soon found.
const COURAGE: f64 = 1.005;
/// A refusal quarters it …
const CALM: f64 = 0.25;
/// … and adds this to the distance.
const RETREAT: f64 = 1.05;
/// Below this distance there is nothing to keep.
const NEGLIGIBLE: Duration = Duration::from_micros(500);
/// Without a refusal for so long, and so many distances, the limit is no more.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);
const FORGOTTEN_DISTANCES: u32 = 500;

/// What is known of one key's rate, since its first refusal.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// The distance kept. `None`: none.
    interval: Option<Duration>,
    /// From when on the next request may go.
    next: Instant,
    step: f64,
    refused: Instant,
    /// When the last request went that may still pass.
    granted: Option<Instant>,
    /// How many have gone since the refusal, and how many were seen to pass.
    gone: u32,
    passed: u32,
    /// Whether the last request went as soon as it might: then it is the pace that bounds the traffic.
    bounds: bool,
}

impl Pace {
    /// A first refusal, which names `wait`.
    pub(super) fn new(now: Instant, wait: Duration) -> Self {
        Self {
            interval: (wait <= RATE_WAIT).then_some(wait),
            next: now + wait,
            step: FIRST_STEP,
            refused: now,
            granted: None,
            gone: 0,
            passed: 0,
            bounds: false,
        }
    }

    /// A further refusal, of an attempt that `started` then.
    pub(super) fn refused(&mut self, now: Instant, started: Instant, wait: Duration) {
        if started <= self.refused {
            // Sent before the last one came: it says nothing new.
            return;
        }
        let next = now + wait;
        // The request before this one took the last there was: the distance from it to the next is the upstream's own.
        let told = self.granted.filter(|granted| *granted < started);
        let told = told.map_or(wait, |granted| next.saturating_duration_since(granted));
        if self.interval.is_some() || wait <= RATE_WAIT || self.passed <= NEXT_TO_NOTHING {
            // Where nothing else has gone since the last refusal it was not the distance that was too short: whoever is
            // told to wait, and is refused again and again, is as far apart as ever.
            let retreat = if self.gone > 1 { RETREAT } else { 1.0 };
            let wider = self.interval.map(|interval| interval.mul_f64(retreat));
            let wider = wider.map_or(told, |wider| wider.max(told.min(wider.mul_f64(2.0))));
            self.interval = Some(wider.min(LONGEST_NAMED));
            self.step = (self.step * CALM).max(LAST_STEP);
        }
        self.next = next;
        self.refused = now;
        self.granted = None;
        (self.gone, self.passed) = (0, 0);
    }

    /// From when on a request may go.
    pub(super) fn free_at(&self, now: Instant) -> Instant {
        if self.interval.is_some() { self.next.max(now) } else { now }
    }

    /// A request goes now.
    pub(super) fn granted(&mut self, now: Instant) {
        self.granted = Some(now);
        self.gone = self.gone.saturating_add(1);
        if let Some(interval) = self.interval {
            self.bounds = now < self.next + interval;
            self.next = self.next.max(now) + interval;
        }
    }

    /// A request that `started` then has passed. False if there is no pace any more.
    pub(super) fn passed(&mut self, now: Instant, started: Instant) -> bool {
        // It counts though it was sent before the refusal: many may be under way when a window is used up.
        self.passed = self.passed.saturating_add(1);
        if started < self.refused {
            return true;
        }
        if self.bounds
            && let Some(interval) = &mut self.interval
        {
            *interval = interval.mul_f64(1.0 - self.step);
            self.step = (self.step * COURAGE).min(FIRST_STEP);
        }
        let interval = self.interval.unwrap_or(NEGLIGIBLE * 2);
        let kept = FORGOTTEN.max(interval.saturating_mul(FORGOTTEN_DISTANCES));
        interval > NEGLIGIBLE && now.saturating_duration_since(self.refused) < kept
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::clock::Clock;

    /// A token bucket as upstreams keep it.
    struct Bucket {
        per_second: f64,
        burst: f64,
        tokens: f64,
        at: Instant,
    }

    impl Bucket {
        fn take(&mut self, now: Instant) -> Result<(), Duration> {
            let since = now.saturating_duration_since(self.at).as_secs_f64();
            self.tokens = (self.tokens + since * self.per_second).min(self.burst);
            self.at = now;
            if self.tokens >= 1.0 {
                self.tokens -= 1.0;
                return Ok(());
            }
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
        }
    }

    /// As many requests as the pace allows, for so long: how many passed and how many were refused. An answer takes as
    /// long as `answer`, a refusal hardly anything.
    fn drive(bucket: &mut Bucket, answer: Duration, seconds: u64) -> (u32, u32) {
        let start = bucket.at;
        let (mut pace, mut now): (Option<Pace>, Instant) = (None, start);
        let mut answers: VecDeque<Instant> = VecDeque::new();
        let (mut passed, mut refused) = (0, 0);
        while now < start + Duration::from_secs(seconds) {
            if let Some(pace) = &mut pace {
                now = pace.free_at(now);
                pace.granted(now);
            }
            while let Some(went) = answers.pop_front_if(|went| *went + answer <= now) {
                pace = pace.filter_map_passed(went + answer, went);
            }
            match bucket.take(now) {
                Ok(()) => {
                    passed += 1;
                    answers.push_back(now);
                }
                Err(wait) => {
                    refused += 1;
                    let came = now + Duration::from_micros(300);
                    match &mut pace {
                        Some(pace) => pace.refused(came, now, wait),
                        None => pace = Some(Pace::new(came, wait)),
                    }
                    now = came + wait;
                }
            }
            now += Duration::from_micros(50);
        }
        (passed, refused)
    }

    trait FilterPassed {
        fn filter_map_passed(self, now: Instant, started: Instant) -> Self;
    }

    impl FilterPassed for Option<Pace> {
        fn filter_map_passed(mut self, now: Instant, started: Instant) -> Self {
            if self.as_mut().is_some_and(|pace| !pace.passed(now, started)) {
                return None;
            }
            self
        }
    }

    #[test]
    fn it_settles_at_the_upstreams_rate_and_is_seldom_refused() {
        for (per_second, burst) in [(20.0, 20.0), (5.0, 5.0), (500.0, 50.0), (0.05, 1.0)] {
            for answer in [0, 1, 10, 30, 49, 51, 100, 1000] {
                let at = Clock::system().now().mono;
                let mut bucket = Bucket { per_second, burst, tokens: burst, at };
                let seconds = (2000.0 / per_second) as u64;
                let (passed, refused) = drive(&mut bucket, Duration::from_millis(answer), seconds);
                let possible = burst + per_second * seconds as f64;
                let case = format!("{per_second} a second, {answer} ms");
                assert!(f64::from(passed) >= possible * 0.97, "{case}: {passed} of {possible}");
                assert!(f64::from(refused) <= possible * 0.03, "{case}: {refused} refused of {possible}");
            }
        }
    }

    #[test]
    fn refusals_in_a_row_do_not_widen_the_distance() {
        let mut at = Clock::system().now().mono;
        let wait = Duration::from_secs(1);
        let mut pace = Pace::new(at, wait);
        for _ in 0..2000 {
            at += wait;
            pace.granted(at);
            pace.refused(at, at, wait);
        }
        assert_eq!(pace.interval(), Some(wait));
    }

    #[test]
    fn it_follows_a_rate_that_rises() {
        let at = Clock::system().now().mono;
        let mut bucket = Bucket { per_second: 10.0, burst: 10.0, tokens: 10.0, at };
        drive(&mut bucket, Duration::ZERO, 60);
        let start = bucket.at;
        bucket.per_second = 20.0;
        let (passed, _) = drive(&mut bucket, Duration::ZERO, 120);
        let seconds = bucket.at.saturating_duration_since(start).as_secs_f64();
        assert!(f64::from(passed) >= seconds * 20.0 * 0.9, "{passed} in {seconds} s");
    }

    #[test]
    fn a_window_is_not_paced() {
        let now = Clock::system().now().mono;
        let mut pace = Pace::new(now, Duration::from_secs(40));
        assert_eq!(pace.interval(), None);
        let reset = now + Duration::from_secs(40);
        for n in 0..20 {
            let at = reset + Duration::from_millis(n);
            assert_eq!(pace.free_at(at), at);
            pace.granted(at);
            pace.passed(at, at);
        }
        pace.refused(reset + Duration::from_secs(1), reset + Duration::from_secs(1), Duration::from_secs(59));
        assert_eq!(pace.interval(), None);
    }

    #[test]
    fn a_window_used_up_before_its_first_answer_comes_is_not_paced() {
        let start = Clock::system().now().mono;
        let (window, answer) = (Duration::from_secs(60), Duration::from_secs(1));
        let mut pace = Pace::new(start + answer / 2, window);
        for n in 1..5 {
            // Those of the window before, all of which were sent before its refusal came.
            for _ in 0..20 {
                pace.passed(start + window * (n - 1) + answer, start + window * (n - 1));
            }
            let reset = start + window * n;
            for _ in 0..20 {
                pace.granted(reset);
            }
            let sent = reset + answer / 4;
            pace.granted(sent);
            pace.refused(reset + answer / 2, sent, window);
            assert_eq!(pace.interval(), None, "window {n}");
        }
    }
}
