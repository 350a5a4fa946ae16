//! Who calls.

use std::hash::{BuildHasher, Hash};

/// A client as far as turns go: a hash with a random seed of what tells clients apart, so that nobody can meet another
/// by choice, and nothing can be read from it. The default stands for everyone of whom nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClientId(u64);

impl ClientId {
    /// The client that is told from others by `who`. Comparable where the seed is the same.
    #[must_use]
    pub fn of(seed: &impl BuildHasher, who: impl Hash) -> Self {
        Self(seed.hash_one(who))
    }
}
