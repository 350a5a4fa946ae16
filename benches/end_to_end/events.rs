//! Whether the events of a stream have all come, once each.

use memchr::memmem;

/// What comes before an event's number.
const BEFORE: &[u8] = b"\"content\":\"";
const LAST: &[u8] = b"data: [DONE]";

/// The events of one stream, or of several.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) seen: usize,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    next: usize,
    has_end: bool,
    /// The start of an event whose end has not come.
    open: Vec<u8>,
}

impl Numbers {
    /// Reads a piece of a stream, which may begin and end anywhere.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        let mut text = std::mem::take(&mut self.open);
        text.extend_from_slice(piece);
        let mut rest = &text[..];
        while let Some(end) = memmem::find(rest, b"\n\n") {
            let (event, after) = rest.split_at(end + 2);
            self.event(event);
            rest = after;
        }
        self.open.extend_from_slice(rest);
    }

    /// The stream is over, and should have had so many.
    pub(crate) fn end(&mut self, expected: usize) {
        self.lost += expected.saturating_sub(self.next);
        if !self.has_end || !self.open.is_empty() {
            self.lost += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.lost += other.lost;
        self.repeated += other.repeated;
    }

    fn event(&mut self, event: &[u8]) {
        let Some(at) = memmem::find(event, BEFORE) else {
            self.has_end |= event.starts_with(LAST);
            return;
        };
        let digits = event[at + BEFORE.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        self.seen += 1;
        if number < self.next {
            self.repeated += 1;
        } else {
            self.lost += number - self.next;
            self.next = number + 1;
        }
    }
}
