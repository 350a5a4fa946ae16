//! The end of a JSON body, kept as it passes.

use super::{
    END, Found,
    counts::{self, Counts, KEYS, MOST},
};
use crate::provider::scan::{self, Depth};

/// The beginning that is kept: what Mistral says before its `choices` is half as long.
pub(super) const START: usize = 1024;

/// At most 5 KiB of a body that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Json {
    /// The beginning, once it isn't in `end` any more.
    pub(super) start: Vec<u8>,
    /// A ring once it is full; then the oldest byte stands at `oldest`.
    pub(super) end: Vec<u8>,
    oldest: usize,
}

impl Json {
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.start.is_empty() && self.end.len() + piece.len() > END {
            self.start = self.end.iter().chain(piece).take(START).copied().collect();
        }
        let mut piece = &piece[piece.len().saturating_sub(END)..];
        if self.end.len() < END {
            self.end.reserve_exact(piece.len().min(END - self.end.len()));
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

    /// Both ends; they are one and the same of a short body.
    pub(super) fn ends(&mut self) -> (&[u8], &[u8]) {
        self.end.rotate_left(self.oldest);
        self.oldest = 0;
        (if self.start.is_empty() { &self.end } else { &self.start }, &self.end)
    }

    /// What the body counts, now that it has ended.
    pub(super) fn told(&mut self) -> Option<Found> {
        let (start, end) = self.ends();
        told(start, end)
    }

    /// What it has counted until now: Gemini's arrays do as they go.
    pub(super) fn seen(&mut self) -> Option<Found> {
        let (start, end) = self.ends();
        if start.trim_ascii_start().first() != Some(&b'[') {
            return None;
        }
        let mut places = scan::values_from_the_end(end, b"\"usageMetadata\"").take(MOST);
        let (counts, _) = places.find_map(|at| Counts::at(end, at))?;
        Some(Found { counts, is_last: false })
    }
}

/// What a whole body counts that begins with `start` and ends with `end`.
pub(super) fn told(start: &[u8], end: &[u8]) -> Option<Found> {
    let start = &start[..start.len().min(START)];
    let end = &end[end.len().saturating_sub(END)..];
    let counts = Counts::last(end, &KEYS).or_else(|| at_the_start(start, end))?;
    Some(Found { counts, is_last: true })
}

/// The usage of a body that tells it first, if the body seems to be whole.
fn at_the_start(start: &[u8], end: &[u8]) -> Option<Counts> {
    // A short body is here from end to end, and can be seen to be whole.
    let is_open = || {
        let mut depth = Depth::default();
        end.iter().for_each(|byte| depth.step(*byte));
        depth.level != 0
    };
    if end.trim_ascii_end().last() != Some(&b'}') || end.len() < END && is_open() {
        return None;
    }
    let mut depth = (Depth::default(), 0);
    super::USAGE.find_iter(start).take(MOST).find_map(|at| {
        start[depth.1..at].iter().for_each(|byte| depth.0.step(*byte));
        depth.1 = at;
        let is_inside = depth.0.level == 1 && !depth.0.quoted;
        let value = counts::value_of(start, at).filter(|_| is_inside)?;
        Counts::at(start, value).map(|(counts, _)| counts)
    })
}
