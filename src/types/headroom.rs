//! What a provider says is left of its limits.

use std::time::Duration;

/// What an answer says is left, per kind of limit. `None`: it says nothing, which is neither "empty" nor "unlimited".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announced {
    /// Requests.
    pub requests: Option<Allowance>,
    /// Tokens, input and output together.
    pub tokens: Option<Allowance>,
}

/// What is left of one limit, as of the moment of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How much there is when it is full, never less than `remaining`.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: u64,
    /// Until it is full again, at most a day.
    pub reset: Option<Duration>,
    /// How it comes back.
    pub refill: Refill,
}

/// How a limit comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refill {
    /// Bit by bit, and after `reset` it would be full (OpenAI, Azure, Anthropic, Groq).
    Continuous,
    /// All at once, at `reset`. Before that nothing comes back.
    Window,
}

impl Announced {
    /// Whether the answer says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }
}

impl Allowance {
    /// What is left `elapsed` after the answer if nothing was used in between. `None`: it is full again, and nobody
    /// has said how much that is.
    ///
    /// Without a reset nothing is known to come back, so that this is the least that is left.
    #[must_use]
    pub fn left_after(&self, elapsed: Duration) -> Option<u64> {
        let Some(reset) = self.reset else { return Some(self.remaining) };
        if elapsed >= reset {
            return self.limit;
        }
        let used = match (self.refill, self.limit) {
            (Refill::Window, _) | (_, None) => return Some(self.remaining),
            (Refill::Continuous, Some(limit)) => limit.saturating_sub(self.remaining),
        };
        let back = u128::from(used).saturating_mul(elapsed.as_nanos()) / reset.as_nanos();
        Some(self.remaining.saturating_add(u64::try_from(back).map_or(used, |back| back.min(used))))
    }

    /// How long a continuous refill takes from empty to full: the length of the time that `limit` is for.
    ///
    /// No header says whether a limit is one per minute or per day; the numbers do. Groq counts requests per day and
    /// tokens per minute under names that don't tell. With 14,370 of 14,400 requests left the reset is "2m59.56s": 30
    /// come back in three minutes, so 14,400 in a day. `None` while nothing is used, or for windows.
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        let (Refill::Continuous, Some(limit), Some(reset)) = (self.refill, self.limit, self.reset) else {
            return None;
        };
        let used = limit.checked_sub(self.remaining).filter(|used| *used > 0)?;
        let nanos = reset.as_nanos().saturating_mul(limit.into()) / u128::from(used);
        Some(u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn allowance(limit: u64, remaining: u64, reset: Duration) -> Allowance {
        Allowance { limit: Some(limit), remaining, reset: Some(reset), refill: Refill::Continuous }
    }

    #[test]
    fn a_continuous_refill_comes_back_bit_by_bit() {
        let half = allowance(1000, 400, MINUTE / 2);
        for (seconds, left) in [(0, 400), (10, 600), (29, 980), (30, 1000), (3000, 1000)] {
            assert_eq!(half.left_after(Duration::from_secs(seconds)), Some(left), "{seconds}");
        }
    }

    #[test]
    fn a_window_comes_back_at_once() {
        let window = Allowance { refill: Refill::Window, ..allowance(20, 3, MINUTE) };
        assert_eq!(window.left_after(MINUTE - Duration::from_nanos(1)), Some(3));
        assert_eq!(window.left_after(MINUTE), Some(20));
        assert_eq!(Allowance { limit: None, ..window }.left_after(MINUTE), None);
    }

    #[test]
    fn what_is_not_said_does_not_come_back() {
        let bare = Allowance { limit: None, remaining: 7, reset: None, refill: Refill::Continuous };
        assert_eq!(bare.left_after(MINUTE), Some(7));
        assert_eq!(bare.period(), None);
        assert_eq!(Allowance { reset: Some(Duration::ZERO), ..bare }.left_after(Duration::ZERO), None);
    }

    #[test]
    fn the_numbers_tell_a_day_from_a_minute() {
        let near = |period: Option<Duration>, expected: Duration| {
            period.is_some_and(|period| period.abs_diff(expected) < expected / 100)
        };
        let day = 1440 * MINUTE;
        // Groq's requests and tokens; OpenAI's requests of a small account; Azure's tokens.
        assert!(near(allowance(14_400, 14_370, Duration::from_millis(179_560)).period(), day));
        assert!(near(allowance(18_000, 15_702, Duration::from_millis(7_660)).period(), MINUTE));
        assert!(near(allowance(10_000, 9_999, Duration::from_millis(8_640)).period(), day));
        assert!(near(allowance(1_500_000, 745_399, Duration::from_secs(30)).period(), MINUTE));
        assert_eq!(allowance(10, 10, Duration::ZERO).period(), None);
    }

    #[test]
    fn huge_numbers_are_no_trouble() {
        let huge = allowance(u64::MAX, 1, Duration::MAX);
        assert!(huge.left_after(Duration::from_secs(1)).is_some());
        assert!(huge.left_after(Duration::MAX - Duration::from_nanos(1)).is_some());
        assert!(huge.period().is_some());
        assert_eq!(allowance(u64::MAX, u64::MAX - 1, Duration::MAX).period(), Some(Duration::MAX));
    }
}
