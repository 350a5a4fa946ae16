//! What an answer cost, found at its end.
//!
//! Every API tells the tokens in its last words: a JSON body in one of its last fields, a stream in one of its last
//! events. So the last few KiB are kept as the body passes, and looked into when it has ended. Anthropic's streams tell
//! the input at the beginning as well, so the first KiB is kept too.
//!
//! | who | where | what |
//! |---|---|---|
//! | OpenAI chat, completions, embeddings, and all compatible | `usage`, in a stream's last chunk if asked for | `prompt_tokens`, `completion_tokens`, `prompt_tokens_details.cached_tokens` |
//! | OpenAI responses | `usage`, in a stream in `response.completed` | `input_tokens`, `output_tokens`, `input_tokens_details.cached_tokens` |
//! | Anthropic | `usage`, in a stream in `message_start` and the last `message_delta` | the same names, where `input_tokens` leaves out `cache_read_input_tokens` and `cache_creation_input_tokens` |
//! | Gemini | `usageMetadata`, in a stream in every event | `promptTokenCount`, `candidatesTokenCount`, `thoughtsTokenCount`, `toolUsePromptTokenCount`, `cachedContentTokenCount` |
//! | Groq | `x_groq.usage` in a stream's last chunk | as OpenAI |
//! | Mistral | `usage` before `choices` | as OpenAI |

use std::ops::Range;

use memchr::memmem::{self, Finder};
use serde_json::Value;

use super::media::Media;
use super::scan::{self, Depth};
use crate::types::{Cost, Demand, Usage};

/// The end that is kept. Behind a usage stand a few short fields, and in a stream an event or two.
const END: usize = 4 * 1024;

/// The beginning that is kept: Anthropic's `message_start` is half as long, and so is what Mistral says before its
/// `choices`.
const START: usize = 1024;

/// So many places that look like a usage are looked at, so that no body makes us read its end over and over.
const MOST: usize = 16;

/// `"usage"` and `"usageMetadata"`.
const KEYS: [&[u8]; 2] = [b"\"usage\"", b"\"usageMetadata\""];

/// What an event begins with.
const DATA: &[u8] = b"data:";

/// Bytes of a token in a JSON answer, with all that stands around it.
const BYTES_PER_TOKEN: u64 = 4;

/// Anthropic's first event, which counts the input and is no end.
const MESSAGE_START: &[u8] = b"\"message_start\"";

/// The end of a body, kept as it passes: at most 5 KiB, taken when the first byte comes.
#[derive(Debug)]
pub struct Tail {
    media: Media,
    start: Vec<u8>,
    /// A ring once it is full; then the oldest byte stands at `oldest`.
    end: Vec<u8>,
    oldest: usize,
    /// How much has passed, for an estimate: bytes, and the beginnings of events.
    bytes: u64,
    events: u64,
}

impl Tail {
    /// Of a body that is written as `media`.
    #[must_use]
    pub const fn new(media: Media) -> Self {
        Self { media, start: Vec::new(), end: Vec::new(), oldest: 0, bytes: 0, events: 0 }
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        if self.media == Media::Events {
            // Events that are cut in two here count or don't, which is near enough.
            self.events += memmem::find_iter(piece, DATA).count() as u64;
        }
        if self.start.len() < START {
            self.start.reserve_exact(START - self.start.len());
            let taken = piece.len().min(START - self.start.len());
            self.start.extend_from_slice(&piece[..taken]);
        }
        let mut piece = &piece[piece.len().saturating_sub(END)..];
        if self.end.len() < END {
            self.end.reserve_exact(END - self.end.len());
            let (first, rest) = piece.split_at(piece.len().min(END - self.end.len()));
            self.end.extend_from_slice(first);
            piece = rest;
        }
        if piece.is_empty() {
            return;
        }
        let (first, rest) = piece.split_at(piece.len().min(END - self.oldest));
        self.end[self.oldest..self.oldest + first.len()].copy_from_slice(first);
        self.end[..rest.len()].copy_from_slice(rest);
        self.oldest = (self.oldest + piece.len()) % END;
    }

    /// What the answer to a request with this demand has cost, now that it has ended: as it says, else as is likely,
    /// with a token for each event of a stream.
    #[must_use]
    pub fn cost(self, demand: Demand) -> Cost {
        let output = match self.media {
            Media::Events => self.events,
            Media::Json => self.bytes / BYTES_PER_TOKEN,
        };
        let output = demand.output.map_or(output, |most| output.min(most.into()));
        let estimate = Usage { input: demand.input.into(), output, cached_input: 0 };
        self.finish().map_or(Cost::Estimated(estimate), Cost::Told)
    }

    /// What the body says it cost, now that it has ended. `None` if it doesn't say, or was cut off before it did.
    ///
    /// Gemini counts in every event, so that a stream of its that was cut off tells what it had cost until then.
    #[must_use]
    pub fn finish(mut self) -> Option<Usage> {
        self.end.rotate_left(self.oldest);
        match self.media {
            // A short body is here from end to end, and can be seen to be whole.
            Media::Json if self.end.len() < END && depth_of(&self.end).level != 0 => None,
            Media::Json => last(&self.end, Media::Json).or_else(|| self.at_the_start())?.usage(),
            Media::Events => {
                let mut counts = last(&self.end, Media::Events)?;
                // Counts only grow, and some servers leave 0 in the one or the other.
                if let Some(begun) = message_start(&self.start) {
                    counts.input = counts.input.max(begun.input);
                    counts.cached = counts.cached.max(begun.cached);
                }
                counts.usage()
            }
        }
    }

    /// The usage of a body that tells it first, if the body seems to be whole.
    fn at_the_start(&self) -> Option<Counts> {
        if self.end.trim_ascii_end().last() != Some(&b'}') {
            return None;
        }
        let at = scan::values(&self.start, &Finder::new(KEYS[0])).take(MOST).find(|at| {
            let depth = depth_of(&self.start[..*at]);
            depth.level == 1 && !depth.quoted
        })?;
        Counts::read(&scan::object(&self.start, at)?.0)
    }
}

/// How deep the end of `text` is, which begins at the beginning.
fn depth_of(text: &[u8]) -> Depth {
    let mut depth = Depth::default();
    text.iter().for_each(|byte| depth.step(*byte));
    depth
}

/// The last usage in the end of a body.
fn last(end: &[u8], media: Media) -> Option<Counts> {
    let newest = |key| {
        scan::values_from_the_end(end, key).take(MOST).find_map(|at| {
            let (usage, behind) = scan::object(end, at)?;
            let line = match media {
                Media::Json => 0..end.len(),
                Media::Events => line_around(end, at),
            };
            let begins = media == Media::Events && memmem::find(&end[line.clone()], MESSAGE_START).is_some();
            let whole = !begins && closes(end.get(behind..line.end)?);
            Counts::read(&usage).filter(|_| whole)
        })
    };
    KEYS.into_iter().find_map(newest)
}

/// The line that `at` is in.
fn line_around(text: &[u8], at: usize) -> Range<usize> {
    let start = memchr::memrchr2(b'\n', b'\r', &text[..at]).map_or(0, |end| end + 1);
    let end = memchr::memchr2(b'\n', b'\r', &text[at..]).map_or(text.len(), |length| at + length);
    start..end
}

/// Whether behind a usage nothing but one or two objects (and Gemini's array) is closed. So a usage that the model has
/// written, deep inside an answer, is not taken for the answer's; nor is anything in a body that was cut off.
fn closes(behind: &[u8]) -> bool {
    let mut depth = Depth::default();
    let (mut objects, mut array, mut ended) = (0, false, false);
    for byte in behind.trim_ascii_end() {
        depth.step(*byte);
        ended = depth.level < -objects - i32::from(array);
        match byte {
            b'}' if ended && !array && objects < 2 => objects += 1,
            b']' if ended && !array && objects > 0 => array = true,
            _ if ended || array && !byte.is_ascii_whitespace() => return false,
            _ => {}
        }
    }
    ended
}

/// What the beginning of an Anthropic stream counts.
fn message_start(start: &[u8]) -> Option<Counts> {
    let event = memmem::find(start, MESSAGE_START)?;
    let at =
        scan::values(start, &Finder::new(KEYS[0])).find(|at| line_around(start, *at).contains(&event))?;
    Counts::read(&scan::object(start, at)?.0)
}

/// The counts of one usage.
#[derive(Debug, Clone, Copy)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
}

impl Counts {
    /// `None`: it counts no tokens.
    fn read(usage: &Value) -> Option<Self> {
        let count = |path: &str| {
            let number = usage.pointer(path)?;
            // Some write 12.0.
            number
                .as_u64()
                .or_else(|| number.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
        };
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            _ => Some(one.unwrap_or_default().saturating_add(other.unwrap_or_default())),
        };
        let read = count("/cache_read_input_tokens");
        // Only Anthropic leaves the cached tokens out of its input.
        let apart = sum(read, count("/cache_creation_input_tokens"));
        let input = count("/input_tokens").map(|input| input.saturating_add(apart.unwrap_or_default()));
        let counts = Self {
            input: count("/prompt_tokens")
                .or(input)
                .or_else(|| sum(count("/promptTokenCount"), count("/toolUsePromptTokenCount"))),
            output: count("/completion_tokens")
                .or_else(|| count("/output_tokens"))
                .or_else(|| sum(count("/candidatesTokenCount"), count("/thoughtsTokenCount"))),
            cached: count("/prompt_tokens_details/cached_tokens")
                .or_else(|| count("/input_tokens_details/cached_tokens"))
                .or_else(|| count("/cachedContentTokenCount"))
                // DeepSeek.
                .or_else(|| count("/prompt_cache_hit_tokens"))
                .or(read),
        };
        match (counts.input, counts.output) {
            // Embeddings of some give nothing else.
            (None, None) => count("/total_tokens").map(|total| Self { input: Some(total), ..counts }),
            _ => Some(counts),
        }
    }

    fn usage(self) -> Option<Usage> {
        let input = self.input?;
        let cached_input = self.cached.unwrap_or_default().min(input);
        Some(Usage { input, output: self.output.unwrap_or_default(), cached_input })
    }
}

#[cfg(test)]
mod tests;
