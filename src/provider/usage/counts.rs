//! The counts of one usage.

use std::fmt;

use memchr::memmem;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::USAGE;
use crate::{
    provider::scan::{self, Depth},
    types::Usage,
};

/// So many places that look like a usage are looked at, so that no body makes us read its end over and over.
pub(super) const MOST: usize = 16;

/// Behind `"usage` in the one key and in the other.
const RESTS: [&[u8]; 2] = [b"\"", b"Metadata\""];

/// Where most usages are, from the end.
const NEAR: usize = 512;

/// What an answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) cached: Option<u64>,
}

/// Counts, and whether they are the last that the answer tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) counts: Counts,
    pub(super) is_last: bool,
}

impl Counts {
    /// `None`: it counts no input.
    pub(super) fn usage(self) -> Option<Usage> {
        let input = self.input?;
        let cached_input = self.cached.unwrap_or_default().min(input);
        Some(Usage { input, output: self.output.unwrap_or_default(), cached_input })
    }

    /// The counts of the object that begins at `at`, and where that ends. `None`: it counts no tokens.
    pub(super) fn at(text: &[u8], at: usize) -> Option<(Self, usize)> {
        let rest = text.get(at..).filter(|rest| rest.first() == Some(&b'{'))?;
        let mut objects = serde_json::Deserializer::from_slice(rest).into_iter::<Fields>();
        let fields = objects.next()?.ok()?;
        Some((fields.counts()?, at + objects.byte_offset()))
    }

    /// The last usage in `text`, behind which it is closed, by one of these names.
    pub(super) fn last(text: &[u8], keys: &[&[u8]]) -> Option<Self> {
        let whole = |at: usize| {
            let (counts, end) = Self::at(text, at)?;
            closes(text.get(end..)?).then_some(counts)
        };
        // Nearly always it is there, and looking forward is quick.
        let near = text.len().saturating_sub(NEAR);
        let newest = USAGE.find_iter(&text[near..]).last();
        let newest = newest.and_then(|at| value_of(text, near + at)).and_then(whole);
        newest.or_else(|| {
            keys.iter().find_map(|key| scan::values_from_the_end(text, key).take(MOST).find_map(whole))
        })
    }
}

/// The names of usages; the last, in Cohere's `meta`, has no stream.
pub(super) const KEYS: [&[u8]; 3] = [b"\"usage\"", b"\"usageMetadata\"", b"\"billed_units\""];

/// Where the value begins of the key that begins at `at` with `"usage`.
pub(super) fn value_of(text: &[u8], at: usize) -> Option<usize> {
    let begun = at + USAGE.needle().len();
    let rest = RESTS.into_iter().find(|rest| text[begun..].starts_with(rest))?;
    scan::value_behind(text, at, USAGE.needle().len() + rest.len())
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

/// Whether a line whose usage was read last is one that tells it at the end: others count as they go. `line` is without
/// what stands before its last few KiB.
pub(super) fn is_final(line: &[u8]) -> bool {
    let has = |key: &str| memmem::find(line, key.as_bytes()).is_some();
    let is_told = |key: &'static str| {
        let values = memmem::Finder::new(key);
        scan::values(line, &values).take(MOST).any(|at| line.get(at) == Some(&b'"'))
    };
    let is_empty = || {
        let values = memmem::Finder::new("\"choices\"");
        scan::values(line, &values).take(MOST).any(|at| {
            let rest = line[at..].strip_prefix(b"[").unwrap_or_default();
            rest.trim_ascii_start().first() == Some(&b']')
        })
    };
    // Gemini counts in every event; so do a few others where they were asked to.
    if has("\"usageMetadata\"") {
        is_told("\"finishReason\"")
    } else {
        !has("\"choices\"") || is_told("\"finish_reason\"") || is_empty()
    }
}

/// What a usage says, by all the names that it has.
#[derive(Debug, Clone, Copy, Default)]
struct Fields {
    prompt: Option<u64>,
    completion: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_hit: Option<u64>,
    cache_read: Option<u64>,
    cache_creation: Option<u64>,
    gemini: Gemini,
    details: Option<u64>,
    tokens: Pair,
    billed: Pair,
}

#[derive(Debug, Clone, Copy, Default)]
struct Gemini {
    prompt: Option<u64>,
    tools: Option<u64>,
    candidates: Option<u64>,
    thoughts: Option<u64>,
    cached: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    input: Option<u64>,
    output: Option<u64>,
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, None) => None,
        _ => Some(one.unwrap_or_default().saturating_add(other.unwrap_or_default())),
    }
}

impl Fields {
    fn counts(self) -> Option<Counts> {
        // Only Anthropic leaves the cached tokens out of its input.
        let apart = sum(self.cache_read, self.cache_creation).unwrap_or_default();
        let Self { gemini, tokens, billed, .. } = self;
        let counts = Counts {
            input: self
                .prompt
                .or_else(|| self.input.map(|input| input.saturating_add(apart)))
                .or_else(|| sum(gemini.prompt, gemini.tools))
                .or(tokens.input)
                .or(billed.input),
            output: self
                .completion
                .or(self.output)
                .or_else(|| sum(gemini.candidates, gemini.thoughts))
                .or(tokens.output)
                .or(billed.output),
            cached: self.details.or(gemini.cached).or(self.cached).or(self.cache_hit).or(self.cache_read),
        };
        match (counts.input, counts.output) {
            // Embeddings of some give nothing else.
            (None, None) => self.total.map(|total| Counts { input: Some(total), ..counts }),
            _ => Some(counts),
        }
    }

    const fn pair(self) -> Pair {
        Pair { input: self.input, output: self.output }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

/// A number of tokens; anything else is none.
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

macro_rules! ignore {
    ($none:expr; $($method:ident: $type:ty),*) => {
        $(fn $method<E: Error>(self, _: $type) -> Result<Self::Value, E> { Ok($none) })*

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok($none)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            IgnoredAny.visit_seq(seq).map(|IgnoredAny| $none)
        }
    };
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Count, E> {
        Ok(Count(Some(count)))
    }

    // Some write 12.0.
    fn visit_f64<E: Error>(self, count: f64) -> Result<Count, E> {
        Ok(Count(Some(count).filter(|count| *count >= 0.0).map(|count| count as u64)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Count, A::Error> {
        IgnoredAny.visit_map(map).map(|IgnoredAny| Count(None))
    }

    ignore!(Count(None); visit_bool: bool, visit_i64: i64, visit_str: &str);
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a usage")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<Name>()? {
            let field = match name {
                Name::Prompt => &mut fields.prompt,
                Name::Completion => &mut fields.completion,
                Name::Input => &mut fields.input,
                Name::Output => &mut fields.output,
                Name::Total => &mut fields.total,
                Name::Cached => &mut fields.cached,
                Name::CacheHit => &mut fields.cache_hit,
                Name::CacheRead => &mut fields.cache_read,
                Name::CacheCreation => &mut fields.cache_creation,
                Name::GeminiPrompt => &mut fields.gemini.prompt,
                Name::GeminiTools => &mut fields.gemini.tools,
                Name::GeminiCandidates => &mut fields.gemini.candidates,
                Name::GeminiThoughts => &mut fields.gemini.thoughts,
                Name::GeminiCached => &mut fields.gemini.cached,
                Name::Details => {
                    fields.details = map.next_value::<Fields>()?.cached;
                    continue;
                }
                Name::Tokens => {
                    fields.tokens = map.next_value::<Fields>()?.pair();
                    continue;
                }
                Name::Billed => {
                    fields.billed = map.next_value::<Fields>()?.pair();
                    continue;
                }
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = map.next_value::<Count>()?.0;
        }
        Ok(fields)
    }

    ignore!(Fields::default(); visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
}

#[derive(serde::Deserialize)]
#[serde(field_identifier)]
enum Name {
    #[serde(rename = "prompt_tokens")]
    Prompt,
    #[serde(rename = "completion_tokens")]
    Completion,
    #[serde(rename = "input_tokens")]
    Input,
    #[serde(rename = "output_tokens")]
    Output,
    #[serde(rename = "total_tokens")]
    Total,
    #[serde(rename = "cached_tokens")]
    Cached,
    #[serde(rename = "prompt_cache_hit_tokens")]
    CacheHit,
    #[serde(rename = "cache_read_input_tokens")]
    CacheRead,
    #[serde(rename = "cache_creation_input_tokens")]
    CacheCreation,
    #[serde(rename = "promptTokenCount")]
    GeminiPrompt,
    #[serde(rename = "toolUsePromptTokenCount")]
    GeminiTools,
    #[serde(rename = "candidatesTokenCount")]
    GeminiCandidates,
    #[serde(rename = "thoughtsTokenCount")]
    GeminiThoughts,
    #[serde(rename = "cachedContentTokenCount")]
    GeminiCached,
    #[serde(rename = "prompt_tokens_details", alias = "input_tokens_details")]
    Details,
    #[serde(rename = "tokens")]
    Tokens,
    #[serde(rename = "billed_units")]
    Billed,
    #[serde(other)]
    Other,
}
