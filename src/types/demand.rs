//! What a request will cost, as far as can be told before it is sent.

/// Tokens of a request, estimated. Beyond four billion the difference is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Those of its prompt.
    pub input: u32,
    /// The most that it asks to be generated. `None`: it sets no bound.
    pub output: Option<u32>,
}

impl Demand {
    /// Input and output. Where the request sets no bound, `usual` is what answers have.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an average of counts")]
    pub fn total(self, usual: Option<f64>) -> u32 {
        let output = self.output.unwrap_or_else(|| usual.unwrap_or_default() as u32);
        self.input.saturating_add(output)
    }
}
