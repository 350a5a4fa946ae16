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

/// What an answer has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// As it says.
    Told(Usage),
    /// As is estimated, because it doesn't say.
    Estimated(Usage),
}

impl Cost {
    /// Where the numbers can come from.
    pub const SOURCES: [&'static str; 2] = ["told", "estimated"];

    /// How much it is.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        let (Self::Told(usage) | Self::Estimated(usage)) = self;
        usage
    }

    /// Where the numbers come from; a closed set.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Told(_) => "told",
            Self::Estimated(_) => "estimated",
        }
    }
}
