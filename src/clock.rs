//! The one place that reads a clock. Everything that depends on time takes a [`Now`].

use std::time::{Duration, Instant, SystemTime};

/// One moment, on both clocks: deadlines are monotonic, dates in headers are wall-clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: for deadlines, cooldowns, latencies.
    pub mono: Instant,
    /// Wall clock: for `Retry-After` dates and what people read.
    pub wall: SystemTime,
}

impl Now {
    /// This moment, `by` later on both clocks.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }
}

/// Reads the clocks of the process.
///
/// The monotonic clock is tokio's, so that a test that pauses time pauses the pool with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(());

impl Clock {
    /// The clocks of this machine.
    #[must_use]
    pub const fn system() -> Self {
        Self(())
    }

    /// Both clocks, read now.
    #[must_use]
    pub fn now(self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }

    /// The monotonic clock, read now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place the ban points to")]
    pub fn mono(self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// The wall clock, read now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place the ban points to")]
    pub fn wall(self) -> SystemTime {
        SystemTime::now()
    }
}
