//! The counts of one usage.

use memchr::memmem;

use super::{
    USAGE,
    fields::{self, Fields},
};
use crate::{provider::scan, types::Usage};

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
        let (fields, end) = Fields::read(text, at)?;
        Some((fields.counts()?, end))
    }

    /// The last usage in `text`, behind which it is closed, by one of these names.
    pub(super) fn last(text: &[u8], keys: &[&[u8]]) -> Option<Self> {
        let whole = |at: usize| {
            let (counts, end) = Self::at(text, at)?;
            closes(text.get(end..)?).then_some((counts, end))
        };
        // Nearly always there is one, and looking forward is quick.
        let near = text.len().saturating_sub(NEAR);
        let newest = USAGE.find(&text[near..]).and_then(|at| value_of(text, near + at)).and_then(whole);
        let newest = newest.filter(|(_, end)| USAGE.find(&text[*end..]).is_none());
        let newest = newest.or_else(|| {
            keys.iter().find_map(|key| scan::values_from_the_end(text, key).take(MOST).find_map(whole))
        });
        newest.map(|(counts, _)| counts)
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
    let (mut level, mut objects, mut array, mut ended, mut at) = (0_u32, 0, false, false, 0);
    while let Some(byte) = behind.get(at) {
        at += 1;
        if byte.is_ascii_whitespace() {
            continue;
        }
        if array {
            return false;
        }
        ended = false;
        match byte {
            b'"' => match fields::string(behind, at - 1) {
                Some(end) => at = end,
                None => return false,
            },
            b'{' | b'[' => level += 1,
            b'}' | b']' if level > 0 => level -= 1,
            b'}' if objects < 2 => (objects, ended) = (objects + 1, true),
            b']' if objects > 0 => (array, ended) = (true, true),
            b'}' | b']' => return false,
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
