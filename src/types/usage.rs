//! What an answer cost.

/// Tokens, as the provider counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, whether they came out of a cache or not.
    pub input: u64,
    /// Tokens generated, reasoning included.
    pub output: u64,
    /// Those of `input` that came out of the provider's prompt cache.
    pub cached_input: u64,
}

impl Usage {
    /// Input and output.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}
