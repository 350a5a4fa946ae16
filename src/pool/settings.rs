//! How a pool chooses.

use std::{num::NonZeroUsize, str::FromStr};

/// The settings of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How the next key is chosen among those that may serve.
    pub strategy: Strategy,
    /// A degraded key gets this fraction of a healthy one's share: `1 / unhealthy_penalty`. At least 1.
    pub unhealthy_penalty: f64,
    /// Whether keys for `others` step in for a model that other keys name while all of those are resting.
    pub others_step_in: bool,
    /// How many requests may wait for a key at once.
    pub max_waiting: NonZeroUsize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            unhealthy_penalty: 5.0,
            others_step_in: false,
            max_waiting: NonZeroUsize::new(4096).expect("not zero"),
        }
    }
}

/// How the next key is chosen among those that may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Each in turn, by weight.
    RoundRobin,
    /// Each in turn, by weight times health.
    #[default]
    RoundRobinHealthWeighted,
    /// In turn among the fast ones; a slower key gets a share that falls with its latency.
    LeastLatency,
    /// The one that has served the fewest requests for its weight.
    LeastUsed,
    /// By lot, by weight.
    Random,
    /// The first in the order of the configuration that can serve.
    FillFirst,
    /// Of two that are drawn by lot, by weight, the one with fewer requests in flight for its weight.
    LeastInFlight,
}

impl Strategy {
    /// Every strategy with its name in a file.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("round_robin", Self::RoundRobin),
        ("round_robin_health_weighted", Self::RoundRobinHealthWeighted),
        ("least_latency", Self::LeastLatency),
        ("least_used", Self::LeastUsed),
        ("random", Self::Random),
        ("fill_first", Self::FillFirst),
        ("least_in_flight", Self::LeastInFlight),
    ];

    /// Its name in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, strategy)| *strategy == self).expect("all are named").0
    }

    /// Whether a key's place follows from what it is or has served, so that being passed over moves nobody on.
    pub(super) fn keeps_places(self) -> bool {
        matches!(self, Self::LeastUsed | Self::FillFirst)
    }
}

/// No strategy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such strategy")]
pub struct UnknownStrategy;

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, strategy)| *strategy)
            .ok_or(UnknownStrategy)
    }
}
