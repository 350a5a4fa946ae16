//! The chunk of a stream that tells the usage, and which only we have asked for, on its way out.
//!
//! It is an event whose data are a JSON object with empty `choices` and a `usage`. Everything else goes through byte for
//! byte. An event is held back only as long as it can still be that chunk, which an event that comes in one piece is
//! never. Others tell with the first choice in them that they aren't; many servers put `"usage":null` in front of it.

mod shape;

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

use self::shape::Shape;
use crate::provider::scan;

/// The chunk is much shorter.
const MOST: usize = 8 * 1024;

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));

/// Takes the chunk with the usage out of a stream that passes.
#[derive(Debug, Default)]
pub struct Extra {
    /// The beginning of the event, from its first line on that is no comment, while it may be that chunk.
    held: Vec<u8>,
    event: Event,
    line: Line,
    /// Whether the last byte was a CR, so that an LF would belong to it, and whether that CR was taken out.
    after_cr: bool,
    cr_is_out: bool,
    shape: Shape,
}

/// What is known of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Event {
    /// It hasn't begun, but for comments.
    #[default]
    None,
    /// It may be that chunk.
    Held,
    /// It isn't.
    Passing,
}

/// Where in a line we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    #[default]
    Start,
    /// So many bytes of the name of the data have come.
    Name(usize),
    Data,
    Comment,
    Other,
}

const DATA: &[u8] = b"data:";

impl Extra {
    /// Of a stream of which nothing has come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the body. Returns what of it, and of what was held back, goes to the client.
    #[must_use]
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        if self.event == Event::None && self.line == Line::Start && !self.after_cr && passes_whole(&piece) {
            return piece;
        }
        let mut out = Vec::with_capacity(self.held.len() + piece.len());
        let mut rest = &piece[..];
        while let Some((byte, behind)) = rest.split_first() {
            let is_end = matches!(byte, b'\n' | b'\r');
            if self.event != Event::Held && self.line != Line::Start && !self.after_cr && !is_end {
                // Nothing to look for in the rest of this line.
                let length = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                out.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            self.step(*byte, &mut out);
            rest = behind;
        }
        out.into()
    }

    /// What was held back of a stream that has ended in the middle of an event, or broken off; it isn't held any more.
    #[must_use]
    pub fn end(&mut self) -> Bytes {
        let mut out = Vec::new();
        self.let_go(&mut out);
        out.into()
    }

    /// Whether nothing is held back.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_cr) && byte == b'\n' {
            // The other half of a line's end.
            if !std::mem::take(&mut self.cr_is_out) {
                self.keep(byte, out);
            }
            return;
        }
        self.cr_is_out = false;
        if matches!(byte, b'\n' | b'\r') {
            self.after_cr = byte == b'\r';
            if std::mem::take(&mut self.line) == Line::Start {
                self.event_ends(byte, out);
            } else {
                self.shape.step(b'\n');
                self.keep(byte, out);
            }
            return;
        }
        self.line = match self.line {
            Line::Start if byte == b':' => Line::Comment,
            Line::Start | Line::Name(_) => {
                let come = if let Line::Name(come) = self.line { come } else { 0 };
                match DATA.get(come) {
                    Some(expected) if *expected != byte => Line::Other,
                    _ if come + 1 == DATA.len() => Line::Data,
                    _ => Line::Name(come + 1),
                }
            }
            Line::Data => {
                if self.event == Event::Held {
                    self.shape.step(byte);
                }
                Line::Data
            }
            line => line,
        };
        if self.event == Event::None && self.line != Line::Comment {
            self.event = Event::Held;
        }
        self.keep(byte, out);
    }

    /// A byte of an event goes where the event goes.
    fn keep(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.event != Event::Held {
            out.push(byte);
            return;
        }
        self.held.push(byte);
        if self.shape.is_other() || self.held.len() > MOST {
            out.append(&mut self.held);
            self.event = Event::Passing;
        }
    }

    /// An empty line.
    fn event_ends(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.event == Event::Held && self.shape.is_extra() {
            self.let_go(out);
            self.cr_is_out = byte == b'\r';
        } else {
            self.let_go(out);
            out.push(byte);
        }
        self.event = Event::None;
        self.shape = Shape::default();
    }

    /// Gives back what is held, but for the chunk if it is that.
    fn let_go(&mut self, out: &mut Vec<u8>) {
        if self.shape.is_extra() {
            // Comments between its lines are none of it.
            for line in lines(&self.held).filter(|line| line.starts_with(b":")) {
                out.extend_from_slice(line);
            }
            self.held = Vec::new();
        } else {
            out.append(&mut self.held);
        }
    }
}

/// Lines with their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = memchr::memchr2(b'\n', b'\r', rest).map_or(rest.len(), |at| at + 1);
        let length = if rest[..at].ends_with(b"\r") && rest[at..].starts_with(b"\n") { at + 1 } else { at };
        let (line, behind) = rest.split_at(length);
        rest = behind;
        (!line.is_empty()).then_some(line)
    })
}

/// Whether a piece that begins with an event ends with one, and none of them can be the chunk.
fn passes_whole(piece: &[u8]) -> bool {
    let is_null = |at: usize| {
        let value = scan::value_behind(piece, at, USAGE.needle().len());
        value.is_some_and(|value| piece.get(value) == Some(&b'n'))
    };
    (piece.ends_with(b"\n\n") || piece.ends_with(b"\r\n\r\n")) && USAGE.find_iter(piece).all(is_null)
}

#[cfg(test)]
mod tests;
