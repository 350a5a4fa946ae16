//! The rest of a stream, as it passes.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::ERROR;
use super::event::{self, Event};
use super::lines::{Lines, field};
use crate::provider::scan;

/// Of a longer line only the beginning and the end are looked at. Errors are shorter; what is longer is an image, or
/// a whole response behind an event whose name says it all.
const LONGEST: usize = 16 * 1024;

/// What every error contains, and few other events.
static SIGN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("error"));

/// The name of the event of the responses API that ends one which failed, as a value.
static RESPONSE_FAILED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"response.failed\""));

/// Looks for the first error in a stream as it passes, and holds nothing back.
///
/// A piece without the word is searched for it and no more. Words in the text of an answer are no events: they stand
/// inside JSON strings, and their quotes are escaped.
#[derive(Debug)]
pub struct Watch {
    lines: Lines,
    /// Whether the event whose data come next is called an error.
    named: bool,
}

impl Watch {
    /// Of a stream of which nothing has come. (What an [`Opening`](super::Opening) has seen belongs to it.)
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: Lines::new(LONGEST), named: false }
    }

    /// Takes the next piece of the body. Returns the data of the first error that is complete with it, for
    /// [`judge_event`](super::judge_event).
    pub fn push(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        let Self { lines, named } = self;
        if !*named && !lines.has_begun() && SIGN.find(piece).is_none() {
            lines.skip(piece);
            return None;
        }
        let mut error = None;
        lines.push(piece, |line| {
            if error.is_none() {
                error = read(line, named);
            }
        });
        error
    }

    /// The error in the last line, if the stream has ended without an end of that.
    #[must_use]
    pub fn end(mut self) -> Option<Vec<u8>> {
        read(&self.lines.unended(), &mut self.named)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

/// The error that `line` tells, in an event that was `named` one or not.
fn read(line: &[u8], named: &mut bool) -> Option<Vec<u8>> {
    if line.is_empty() {
        *named = false;
        return None;
    }
    match field(line) {
        // Other names of errors don't have the word in them, and may have gone by unread; their data have it.
        (b"event", name) => *named = name == b"error",
        (b"data", data) if *named || tells_an_error(data) => return Some(data.to_vec()),
        _ => {}
    }
    None
}

fn tells_an_error(data: &[u8]) -> bool {
    // Most events don't mention an error, and most of those that do have none; what is left is read.
    let mut mentions = ERROR.find_iter(data).peekable();
    if mentions.peek().is_none() {
        return false;
    }
    let is_null = |at: usize| {
        let value = scan::values(&data[at..], &ERROR).next();
        value.is_some_and(|value| data[at + value..].starts_with(b"null"))
    };
    RESPONSE_FAILED.find(data).is_some() || !mentions.all(is_null) && event::read(b"", data) == Event::Failed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first error in a stream that comes in pieces of this size.
    fn error_in(text: &[u8], size: usize) -> Option<String> {
        let mut watch = Watch::new();
        let mut errors = text.chunks(size).map(|piece| watch.push(piece));
        let error = errors.find_map(|error| error).or_else(|| watch.end());
        error.map(|error| String::from_utf8(error).unwrap())
    }

    #[test]
    fn an_error_is_found_however_it_is_told_and_cut() {
        let good =
            "data: {\"choices\":[{\"delta\":{\"content\":\"no \\\"error\\\": error\"}}],\"error\":null}\n\n";
        for (event, error) in [
            ("data: {\"error\":{\"message\":\"No.\"}}\n\n", "{\"error\":{\"message\":\"No.\"}}"),
            ("event: error\ndata: No.\n\n", "No."),
            ("event:error\r\nid: 1\r\ndata: {}\r\n\r\n", "{}"),
            (
                "data: {\"type\":\"error\",\"message\":\"No.\"}\n\n",
                "{\"type\":\"error\",\"message\":\"No.\"}",
            ),
            (
                "data: {\"type\":\"response.failed\",\"response\":{\"error\":null}}\n\n",
                "{\"type\":\"response.failed\",\"response\":{\"error\":null}}",
            ),
            (
                "data: {\"choices\":[{\"finish_reason\":\"error\"}]}",
                "{\"choices\":[{\"finish_reason\":\"error\"}]}",
            ),
        ] {
            for text in [event.to_owned(), format!("{good}{event}"), format!(": ping\n\n{good}{event}{good}")]
            {
                if text.ends_with(good) && !event.ends_with('\n') {
                    continue;
                }
                for size in [1, 2, 3, 7, 20, 1000] {
                    assert_eq!(error_in(text.as_bytes(), size).as_deref(), Some(error), "{size} {text}");
                }
            }
            for size in [1, 7, 1000] {
                assert_eq!(error_in(good.repeat(3).as_bytes(), size), None);
            }
        }
    }

    #[test]
    fn what_is_only_called_so_is_no_error() {
        for text in [
            "event: error\n\ndata: later\n\n",
            "event: errors\ndata: {}\n\n",
            ": error\n\n",
            "data: {\"type\":\"response.created\",\"response\":{\"error\":null,\"status\":\"in_progress\"}}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"error\"}}]}\n\n",
            "data: error\n\n",
            "data: {\"error\":",
        ] {
            for size in [1, 3, 1000] {
                assert_eq!(error_in(text.as_bytes(), size), None, "{size} {text}");
            }
        }
    }

    #[test]
    fn a_response_that_failed_is_noticed_though_it_is_too_long_to_be_kept() {
        let long = "x".repeat(10 * LONGEST);
        let text = format!(
            "data: {{\"type\":\"response.failed\",\"response\":{{\"error\":{{\"code\":\"a\"}},\"b\":\"{long}\"}}}}\n\n"
        );
        for size in [100, 1000, 100_000] {
            assert!(error_in(text.as_bytes(), size).is_some(), "{size}");
        }
        let text = format!("data: {{\"error\":null,\"b\":\"{long}\"}}\n\n");
        assert_eq!(error_in(text.as_bytes(), 1000), None);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in r#"((data|event|): ?(error|response\.failed|\{"type":"response.failed"(,"error":null)?\}|\{"error":(1|true|null|"a")\}|\{"a":"error"\}|[a"])?(\n|\r\n|\r)?)*"#,
            size in 1..20_usize,
        ) {
            prop_assert_eq!(error_in(text.as_bytes(), size), error_in(text.as_bytes(), 10_000));
        }
    }
}
