//! How long and how often a request is tried.

use std::time::Duration;

/// The limits of one request's attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long one attempt may wait for its response head.
    pub head_timeout: Duration,
    /// The same for a request that asks for a stream, whose head comes before the work is done.
    pub first_byte_timeout: Duration,
    /// How long a body may be silent between two pieces.
    pub idle_timeout: Duration,
    /// The deadline to the delivered head, over all waits and attempts.
    pub total_timeout: Duration,
    /// How many backoff rounds against the same host.
    pub max_retries: u32,
    /// The pauses between them.
    pub backoff: Backoff,
    /// How long a request may wait for a key.
    pub max_wait: Duration,
    /// After which time without a head a second attempt is made beside the first. `None`: never.
    pub hedge_after: Option<Duration>,
    /// Whether the usage of a stream is asked for where its client doesn't.
    pub ask_for_usage: bool,
}

impl Policy {
    /// How long one attempt may wait for its response head.
    #[must_use]
    pub fn head_timeout_of(&self, stream: bool) -> Duration {
        if stream { self.first_byte_timeout } else { self.head_timeout }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(600),
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            total_timeout: Duration::from_secs(600),
            max_retries: 3,
            backoff: Backoff::default(),
            max_wait: Duration::from_secs(10),
            hedge_after: None,
            ask_for_usage: false,
        }
    }
}

/// Exponential backoff with full jitter: the n-th pause is anything up to `initial × 2ⁿ`, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
}

/// Bounds that make no backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the first pause must not be longer than the longest")]
pub struct InvalidBackoff;

impl Backoff {
    /// Pauses from `initial` to `max`.
    ///
    /// # Errors
    /// [`InvalidBackoff`] if `initial` is longer than `max`.
    pub fn try_new(initial: Duration, max: Duration) -> Result<Self, InvalidBackoff> {
        if initial > max {
            return Err(InvalidBackoff);
        }
        Ok(Self { initial, max })
    }

    /// The first pause at its longest.
    #[must_use]
    pub fn initial(self) -> Duration {
        self.initial
    }

    /// The longest pause.
    #[must_use]
    pub fn max(self) -> Duration {
        self.max
    }

    /// The pause before round `round` (from 0), drawn from `rng`.
    pub fn pause(self, round: u32, rng: &mut fastrand::Rng) -> Duration {
        let ceiling = self.initial.saturating_mul(2_u32.saturating_pow(round)).min(self.max);
        ceiling.mul_f64(rng.f64())
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(50), max: Duration::from_secs(2) }
    }
}
