//! What an answer cost, found as it passes.
//!
//! Every API tells the tokens in its last words: a JSON body in one of its last fields, a stream in one of its last
//! events. Of a JSON body the last few KiB are kept (nothing, if it comes in one piece, as small ones do), and looked
//! into when it has ended. Of a stream the latest line that has a usage is kept. Anthropic's streams tell the input at
//! the beginning as well.
//!
//! | who | where | what |
//! |---|---|---|
//! | OpenAI chat, completions, embeddings, and all compatible | `usage`, in a stream's last chunk if asked for | `prompt_tokens`, `completion_tokens`, `prompt_tokens_details.cached_tokens` |
//! | OpenAI responses, images, transcriptions | `usage`, in a stream in `response.completed` and the like | `input_tokens`, `output_tokens`, `input_tokens_details.cached_tokens` |
//! | Anthropic | `usage`, in a stream in `message_start` and the last `message_delta` | the same names, where `input_tokens` leaves out `cache_read_input_tokens` and `cache_creation_input_tokens` |
//! | Gemini | `usageMetadata`, in a stream in every event (without `alt=sse` in every object of one array) | `promptTokenCount`, `candidatesTokenCount`, `thoughtsTokenCount`, `toolUsePromptTokenCount`, `cachedContentTokenCount` |
//! | Groq | `x_groq.usage` in a stream's last chunk | as OpenAI |
//! | Mistral | `usage` before `choices` | as OpenAI |
//! | DeepSeek | `usage` | as OpenAI, and `prompt_cache_hit_tokens` |
//! | Cohere | `usage`, or `meta` without it | `tokens.input_tokens`, `tokens.output_tokens`, else the same of `billed_units` |

mod counts;
mod events;
mod fields;
mod json;

use std::sync::LazyLock;

use memchr::memmem::Finder;

use self::{
    counts::{Counts, Found},
    events::Events,
    json::Json,
};
use super::{endpoint::Spending, media::Media};
use crate::types::{Cost, Demand, Usage};

/// The end that is kept. Behind a usage stand a few short fields.
const END: usize = 4 * 1024;

/// Bytes of a token in a JSON answer, with all that stands around it.
const BYTES_PER_TOKEN: u64 = 4;

/// What `"usage"` and `"usageMetadata"` begin with.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage"));

/// Looks for what an answer costs as it passes. Holds nothing back.
#[derive(Debug)]
pub struct Meter {
    demand: Demand,
    spending: Spending,
    media: Media,
    bytes: u64,
    /// What is kept, once there is something to keep.
    kept: Option<Box<Kept>>,
}

#[derive(Debug)]
enum Kept {
    Json(Json),
    Events(Events),
}

impl Meter {
    /// Of a body that is written as `media`, which answers a request with this demand.
    #[must_use]
    pub const fn new(media: Media, spending: Spending, demand: Demand) -> Self {
        Self { demand, spending, media, bytes: 0, kept: None }
    }

    /// Whether what it answers is known to spend tokens.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spending != Spending::Nothing
    }

    /// Takes the next piece of the body, behind which more may come.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let kept = self.kept.get_or_insert_with(|| {
            Box::new(match self.media {
                Media::Json => Kept::Json(Json::default()),
                Media::Events => Kept::Events(Events::of(piece)),
            })
        });
        match &mut **kept {
            Kept::Json(json) => json.push(piece),
            Kept::Events(events) => events.push(piece),
        }
    }

    /// What the answer has cost, which has ended as it should with this piece: as it says, else as is likely.
    #[must_use]
    pub fn end(mut self, last: &[u8]) -> Cost {
        let found = if self.media == Media::Json && self.kept.is_none() {
            // It came in one piece.
            self.bytes = last.len() as u64;
            json::told(last, last)
        } else {
            if !last.is_empty() {
                self.push(last);
            }
            match self.kept.as_deref_mut() {
                Some(Kept::Json(json)) => json.told(),
                Some(Kept::Events(events)) => events.seen(),
                None => None,
            }
        };
        match found.and_then(|found| found.counts.usage()) {
            Some(usage) => Cost::Told(usage),
            None => self.estimate(found.map(|found| found.counts)),
        }
    }

    /// What the answer has cost that went no further: as it says where it had told that already, else what it had
    /// counted until then, else as is likely.
    #[must_use]
    pub fn cut(mut self) -> Cost {
        let found = match self.kept.as_deref_mut() {
            Some(Kept::Json(json)) => json.seen(),
            Some(Kept::Events(events)) => events.seen(),
            None => None,
        };
        match found.and_then(|found| found.counts.usage().filter(|_| found.is_last)) {
            Some(usage) => Cost::Told(usage),
            None => self.estimate(found.map(|found| found.counts)),
        }
    }

    /// As is likely, with what was counted: a token for each event of a stream.
    fn estimate(&self, found: Option<Counts>) -> Cost {
        if self.spending == Spending::Nothing {
            return Cost::Estimated(Usage::default());
        }
        let begun = match self.kept.as_deref() {
            Some(Kept::Events(events)) => events.begun(),
            _ => None,
        };
        let of = |count: fn(&Counts) -> Option<u64>| [found, begun].iter().flatten().find_map(count);
        let input = of(|counts| counts.input).unwrap_or(self.demand.input.into());
        let output = || match (self.spending, self.kept.as_deref()) {
            (Spending::Both, Some(Kept::Events(events))) => events.count(),
            (Spending::Both, _) => self.bytes / BYTES_PER_TOKEN,
            (Spending::Input | Spending::Nothing, _) => 0,
        };
        // The output that a beginning counts is only what it had by then.
        let output = found.and_then(|found| found.output).unwrap_or_else(|| {
            let most = self.demand.output.map_or(u64::MAX, u64::from);
            output().min(most)
        });
        let cached_input = of(|counts| counts.cached).unwrap_or_default().min(input);
        Cost::Estimated(Usage { input, output, cached_input })
    }
}

#[cfg(test)]
mod tests;
