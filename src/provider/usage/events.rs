//! What the events of a stream count, kept as they pass.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::{
    END, Found, USAGE,
    counts::{self, Counts, KEYS},
};
use crate::provider::stream::lines::Lines;

/// Anthropic's first event, which counts the input and is no end.
static MESSAGE_START: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"message_start\""));

/// The latest line of a stream that has a usage. A piece without one is searched for the word, its lines are counted, and
/// no more.
#[derive(Debug)]
pub(super) struct Events {
    lines: Lines,
    /// How many lines have ended, and how many an event has: it is named or isn't.
    ended: u64,
    per_event: u64,
    begun: Option<Counts>,
    /// The end of the latest line that looks as if it counted: not read before it is asked for, since some count in
    /// every event.
    latest: Vec<u8>,
}

impl Events {
    /// Of a stream that begins with this piece.
    pub(super) fn of(first: &[u8]) -> Self {
        let per_event = if first.starts_with(b"event:") { 3 } else { 2 };
        Self { lines: Lines::new(END), ended: 0, per_event, begun: None, latest: Vec::new() }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.ended += memchr::memchr_iter(b'\n', piece).count() as u64;
        if !self.lines.has_begun() && USAGE.find(piece).is_none() {
            self.lines.skip(piece);
            return;
        }
        let Self { lines, begun, latest, .. } = self;
        lines.push(piece, |line| look(line, begun, latest));
    }

    /// How many events there were, nearly.
    pub(super) const fn count(&self) -> u64 {
        self.ended.div_ceil(self.per_event)
    }

    /// What the beginning counts.
    pub(super) const fn begun(&self) -> Option<Counts> {
        self.begun
    }

    /// What the latest usage counts, with the last line if that has no end. Nothing more may come.
    pub(super) fn seen(&mut self) -> Option<Found> {
        look(&self.lines.unended(), &mut self.begun, &mut self.latest);
        let mut counts = Counts::last(&self.latest, &KEYS[..2])?;
        // Counts only grow, and some servers leave 0 in the one or the other.
        if let Some(begun) = self.begun {
            counts.input = counts.input.max(begun.input);
            counts.cached = counts.cached.max(begun.cached);
        }
        Some(Found { counts, is_last: counts::is_final(&self.latest) })
    }
}

/// Keeps `line`, if it seems to count.
fn look(line: &[u8], begun: &mut Option<Counts>, latest: &mut Vec<u8>) {
    let value = USAGE.find_iter(line).last().and_then(|at| counts::value_of(line, at));
    // Many say null until the last.
    let Some(value) = value.filter(|at| line.get(*at) == Some(&b'{')) else { return };
    let is_first = begun.is_none() && latest.is_empty();
    if is_first && MESSAGE_START.find(line).is_some() {
        *begun = Counts::at(line, value).map(|(counts, _)| counts);
        return;
    }
    latest.clear();
    latest.extend_from_slice(&line[line.len().saturating_sub(END)..]);
}
