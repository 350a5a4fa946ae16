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
