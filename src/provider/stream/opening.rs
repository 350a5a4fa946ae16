//! The beginning of an answer, before anything of it is delivered.

use std::borrow::Cow;

use memchr::{memchr2, memmem};

use super::event::{self, Event, PREAMBLES};
use super::lines::field;
use crate::provider::scan;

/// No more than this is held back. The longest preambles are those of the responses API, which repeat the instructions
/// and tools of the request.
const MOST: usize = 64 * 1024;

/// An event longer than this is no error, and if it doesn't begin as a preamble it need not end before it is delivered.
const LONGEST_ERROR: usize = 8 * 1024;

/// So much of an event tells whether it is a preamble.
const LONGEST_NAME: usize = 256;

/// The beginning of an answer of which nothing is delivered yet.
///
/// The caller holds back what comes until it is no longer [`Opened::NeedMore`], and not for too long: behind a preamble
/// a model may think for minutes. How long is the caller's to decide; then it delivers what it has, and
/// [`Watch`](super::Watch) goes on. Nothing is copied here: what is held back is looked at in place.
#[derive(Debug, Default)]
pub struct Opening {
    /// Where the event that has not ended begins.
    event: usize,
    /// Where its line that has not ended begins.
    line: usize,
    /// Up to where no line end is.
    seen: usize,
}

/// What is known of an answer that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// So far only what may be held back has come.
    NeedMore,
    /// The answer has begun, or something that isn't known. To be delivered, with all that was held back.
    Content,
    /// It failed before it began: the complaint, for [`judge_event`](super::judge_event).
    Failed(Vec<u8>),
}

impl Opening {
    /// Of an answer of which nothing has come.
    #[must_use]
    pub const fn new() -> Self {
        Self { event: 0, line: 0, seen: 0 }
    }

    /// Looks at `held`: all that has come so far, beginning with what it was the last time.
    pub fn look(&mut self, held: &[u8]) -> Opened {
        let opened = match held.trim_ascii_start().first() {
            None => Opened::NeedMore,
            Some(b'{' | b'[') => return json(held),
            Some(_) => self.events(held),
        };
        if opened == Opened::NeedMore && !self.may_go_on(held) { Opened::Content } else { opened }
    }

    /// The same when nothing more comes: whatever a client makes of an event without an end, it is the last. What fails
    /// nowhere is delivered, also if it is nothing.
    #[must_use]
    pub fn end(mut self, held: &[u8]) -> Opened {
        match self.look(held) {
            Opened::NeedMore if self.event < held.len() => match read(&held[self.event..]) {
                (Event::Failed, data) => Opened::Failed(data.into_owned()),
                _ => Opened::Content,
            },
            Opened::NeedMore => Opened::Content,
            opened => opened,
        }
    }

    fn events(&mut self, held: &[u8]) -> Opened {
        while let Some(at) = memchr2(b'\n', b'\r', &held[self.seen..]) {
            let end = self.seen + at;
            let next = match (held[end], held.get(end + 1)) {
                // An LF may belong to it.
                (b'\r', None) => {
                    self.seen = end;
                    return Opened::NeedMore;
                }
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            let is_empty = end == self.line;
            (self.line, self.seen) = (next, next);
            if !is_empty {
                continue;
            }
            match read(&held[self.event..end]) {
                (Event::Preamble, _) => self.event = next,
                (Event::Content, _) => return Opened::Content,
                (Event::Failed, data) => return Opened::Failed(data.into_owned()),
            }
        }
        self.seen = held.len();
        Opened::NeedMore
    }

    fn may_go_on(&self, held: &[u8]) -> bool {
        let event = &held[self.event..];
        if event.len() <= LONGEST_ERROR {
            return held.len() <= MOST;
        }
        let start = &event[..LONGEST_NAME];
        held.len() <= MOST && PREAMBLES.iter().any(|name| memmem::find(start, name.as_bytes()).is_some())
    }
}

/// What an event is, and its data, which are seldom in several lines.
fn read(event: &[u8]) -> (Event, Cow<'_, [u8]>) {
    let (mut name, mut data) = (&b""[..], Cow::Borrowed(&b""[..]));
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        match field(line) {
            (b"data", value) if data.is_empty() => data = Cow::Borrowed(value),
            (b"data", value) => {
                let all = data.to_mut();
                all.push(b'\n');
                all.extend_from_slice(value);
            }
            (b"event", value) => name = value,
            _ => {}
        }
    }
    (event::read(name, &data), data)
}

/// What a body is that is JSON in place of events: Gemini's streams without `alt=sse`, and complaints of those who
/// forget the status.
fn json(held: &[u8]) -> Opened {
    let more = |most| if held.len() <= most { Opened::NeedMore } else { Opened::Content };
    match complains(held) {
        Some(true) => {}
        Some(false) => return Opened::Content,
        None => return more(LONGEST_NAME),
    }
    let start = memchr::memchr(b'{', held).unwrap_or_default();
    match scan::object(held, start) {
        Some((_, end)) => match event::read(b"", &held[start..end]) {
            Event::Failed => Opened::Failed(held[start..end].to_vec()),
            Event::Preamble | Event::Content => Opened::Content,
        },
        None => more(LONGEST_ERROR),
    }
}

/// Whether the first object of `text` begins with an error. `None`: too little has come.
fn complains(text: &[u8]) -> Option<bool> {
    let mut rest = text.trim_ascii_start();
    if let Some(inside) = rest.strip_prefix(b"[") {
        rest = inside.trim_ascii_start();
    }
    let (brace, rest) = rest.split_first()?;
    if *brace != b'{' {
        return Some(false);
    }
    let mut rest = rest.trim_ascii_start();
    // Anthropic's error is of the type "error".
    for (at, beginning) in [&b"\"type\""[..], b":", b"\"error\"", b","].into_iter().enumerate() {
        match rest.strip_prefix(beginning) {
            Some(behind) => rest = behind.trim_ascii_start(),
            None if beginning.starts_with(rest) => return None,
            None if at == 0 => break,
            None => return Some(false),
        }
    }
    match rest.strip_prefix(b"\"error\"") {
        Some(_) => Some(true),
        None if b"\"error\"".starts_with(rest) => None,
        None => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is known of a body that comes in pieces of this size, and after how many bytes.
    fn opened_in(text: &[u8], size: usize) -> (Opened, usize) {
        let mut opening = Opening::new();
        for end in (1..text.len()).step_by(size).chain([text.len()]) {
            match opening.look(&text[..end]) {
                Opened::NeedMore => {}
                opened => return (opened, end),
            }
        }
        (opening.end(text), text.len())
    }

    fn opened(text: &str) -> (Opened, usize) {
        opened_in(text.as_bytes(), 1)
    }

    #[test]
    fn an_answer_is_held_back_up_to_the_end_of_its_first_event() {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
        for before in ["", ": ping\n\n", "\n\n\n", "event: ping\ndata: {\"type\":\"ping\"}\n\n", "id: 7\n\n"]
        {
            let text = format!("{before}{event}");
            assert_eq!(opened(&format!("{text}more")), (Opened::Content, text.len()), "{text}");
        }
    }

    #[test]
    fn a_failure_is_found_whatever_lines_end_with() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                format!(": ping{end}{end}event: error{end}data: {{\"a\":{end}data: 1}}{end}{end}: more");
            let expected = Opened::Failed(b"{\"a\":\n1}".to_vec());
            for size in [1, 2, 3, 5, 1000] {
                assert_eq!(opened_in(text.as_bytes(), size).0, expected, "{end:?} {size}");
            }
        }
    }

    #[test]
    fn what_ends_without_an_end_of_its_event_has_ended() {
        assert_eq!(opened("data: {\"error\":\"No.\"}").0, Opened::Failed(b"{\"error\":\"No.\"}".to_vec()));
        for text in ["", "\n", ": ping\n\n", "data: {\"error\":", "data: a", "event: error_like\n"] {
            assert_eq!(opened(text), (Opened::Content, text.len()), "{text}");
        }
    }

    #[test]
    fn a_complaint_in_place_of_events_is_found() {
        let told = r#"{"error":{"message":"No."}}"#;
        for (text, failed) in [
            (r#"{"error":{"message":"No."}}"#, Some(told)),
            (r#"  {"error":{"message":"No."}}more"#, Some(told)),
            (r#"[{"error":{"message":"No."}}"#, Some(told)),
            (
                r#"{"type": "error", "error":{"message":"No."}}"#,
                Some(r#"{"type": "error", "error":{"message":"No."}}"#),
            ),
            (r#"{"error":null}"#, None),
            (r#"{"error":{"message":"No."#, None),
            (r#"{"id":"x","error":{"message":"No."}}"#, None),
            (r#"{"errors":[]}"#, None),
            (r#"{"type":"message"}"#, None),
            ("[]", None),
            ("[1", None),
            ("{", None),
        ] {
            let expected = failed.map_or(Opened::Content, |failed| Opened::Failed(failed.into()));
            assert_eq!(opened(text).0, expected, "{text}");
            assert_eq!(opened_in(text.as_bytes(), 1000).0, expected, "{text}");
        }
        let long = format!("{{\"error\":\"{}\"}}", "x".repeat(LONGEST_ERROR));
        assert_eq!(opened(&long), (Opened::Content, LONGEST_ERROR + 1));
    }

    #[test]
    fn little_is_held_back_and_of_preambles_no_more_than_is_needed() {
        let long = |beginning: &str| format!("{beginning}{}", "x".repeat(2 * MOST));
        assert_eq!(opened(&long("data: {\"b64_json\":\"")), (Opened::Content, LONGEST_ERROR + 1));
        assert_eq!(
            opened(&long("data: {\"type\":\"response.created\",\"a\":\"")),
            (Opened::Content, MOST + 1)
        );
        assert_eq!(opened(&long("event: message_start\ndata: {\"a\":\"")), (Opened::Content, MOST + 1));
        let pings = ": ping\n\n".repeat(MOST);
        assert_eq!(opened(&pings), (Opened::Content, MOST + 1));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in r#"((data|event|): ?(error|ping|\{"error":1\}|\{"choices":\[\]\}|[a{}"])?(\n|\r\n|\r)?)*"#,
            size in 1..20_usize,
        ) {
            let (whole, _) = opened_in(text.as_bytes(), 10_000);
            prop_assert_eq!(opened_in(text.as_bytes(), size).0, whole);
        }
    }
}
