//! What the upstream answers, as a builder.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::body::{Counter, Ending, Gate, Pace};
use super::faults::Fault;
use super::record::Recorded;

/// One answer, or one way to fail to answer.
#[derive(Clone)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) start: Start,
    pub(super) framing: Framing,
    pub(super) early: bool,
    pub(super) afterwards: Afterwards,
    pub(super) delay: Duration,
    pub(super) hold: Option<Gate>,
    pub(super) pace: Pace,
    pub(super) ending: Ending,
    pub(super) half: bool,
    pub(super) coded: bool,
}

#[derive(Clone)]
pub(super) enum Body {
    Bytes(Bytes),
    Events(Vec<Bytes>),
    Endless(Bytes, Counter),
    Raw(Bytes),
    Api,
    /// The realistic API's pieces up to so many, then an overload.
    ApiUntil(usize),
    Fault(Fault),
    Computed(Arc<dyn Fn(&Recorded) -> Answer + Send + Sync>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Head,
    Hang,
    Reset,
    Close,
}

/// How HTTP/1.1 marks the end of the body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A length for bytes, chunks for streams.
    Natural,
    Chunked,
    UntilClose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    KeepAlive,
    Close,
    ResetNext,
}

impl Answer {
    /// This status without a body.
    pub fn status(code: u16) -> Self {
        Self {
            status: StatusCode::from_u16(code).expect("a status code has three digits"),
            headers: HeaderMap::new(),
            body: Body::Bytes(Bytes::new()),
            start: Start::Head,
            framing: Framing::Natural,
            early: false,
            afterwards: Afterwards::KeepAlive,
            delay: Duration::ZERO,
            hold: None,
            pace: Pace::default(),
            ending: Ending::Whole,
            half: false,
            coded: false,
        }
    }

    /// 200 with a small JSON object, whatever was asked.
    pub fn ok() -> Self {
        Self::status(200).json(&json!({"ok": true}))
    }

    /// What the realistic API says to the request.
    pub fn api() -> Self {
        Self { body: Body::Api, ..Self::status(200) }
    }

    /// A stream of server-sent events. Plain texts become `data:` events; what begins with `:`, `data:`, `event:`,
    /// `id:` or `retry:` goes out as it is.
    pub fn sse<I: IntoIterator<Item: AsRef<str>>>(events: I) -> Self {
        let events = events.into_iter().map(|event| event_bytes(event.as_ref())).collect();
        Self { body: Body::Events(events), ..Self::status(200) }.header("content-type", "text/event-stream")
    }

    /// A chunked body of these pieces, for other formats than events.
    pub fn pieces<I: IntoIterator<Item: Into<Bytes>>>(pieces: I) -> Self {
        Self { body: Body::Events(pieces.into_iter().map(Into::into).collect()), ..Self::status(200) }
    }

    /// `piece` over and over, only as fast as it is read.
    pub fn endless(piece: impl Into<Bytes>, counter: &Counter) -> Self {
        Self { body: Body::Endless(piece.into(), counter.clone()), ..Self::status(200) }
    }

    /// These bytes instead of an HTTP answer; then the connection closes, unless it is [left open](Self::then_keep).
    /// On HTTP/2 the stream is reset.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { body: Body::Raw(bytes.into()), afterwards: Afterwards::Close, ..Self::status(200) }
    }

    /// 307 to `location`.
    pub fn redirect(location: &str) -> Self {
        Self::status(307).header("location", location)
    }

    /// The request as JSON: method, target, version, headers (name → values), body.
    pub fn echo() -> Self {
        Self::with(|request| {
            let mut headers = serde_json::Map::new();
            for (name, value) in &request.headers {
                let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
                values
                    .as_array_mut()
                    .expect("just made")
                    .push(String::from_utf8_lossy(value.as_bytes()).into());
            }
            Self::status(200).json(&json!({
                "method": request.method.as_str(),
                "target": request.target,
                "version": format!("{:?}", request.version),
                "headers": headers,
                "body": String::from_utf8_lossy(&request.body),
            }))
        })
    }

    /// Computed from the request. What is built onto this is added to what `answer` returns.
    pub fn with(answer: impl Fn(&Recorded) -> Self + Send + Sync + 'static) -> Self {
        Self { body: Body::Computed(Arc::new(answer)), ..Self::status(200) }
    }

    /// Adds a header; `content-type` is replaced.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        let value = HeaderValue::from_str(&value.to_string()).expect("a header value");
        if name == header::CONTENT_TYPE {
            self.headers.insert(name, value);
        } else {
            self.headers.append(name, value);
        }
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    #[must_use]
    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// An error as OpenAI words it. An empty `code` is null.
    #[must_use]
    pub fn error(self, kind: &str, code: &str, message: &str) -> Self {
        self.json(&error_body(kind, code, message))
    }

    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header("retry-after", seconds)
    }

    /// Codes the body with gzip and says so. What is computed for a request is coded then.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        if let Body::Api | Body::ApiUntil(_) | Body::Fault(_) | Body::Computed(_) = &self.body {
            self.coded = true;
            return self;
        }
        if let Body::Bytes(plain) = &self.body {
            let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            coder.write_all(plain).expect("a Vec takes everything");
            self.body = Body::Bytes(coder.finish().expect("a Vec takes everything").into());
        }
        self.header("content-encoding", "gzip")
    }

    /// Waits before the head.
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Holds the head until `gate` lets one pass.
    #[must_use]
    pub fn after(mut self, gate: &Gate) -> Self {
        self.hold = Some(gate.clone());
        self
    }

    /// Never sends a head.
    #[must_use]
    pub const fn hang(mut self) -> Self {
        self.start = Start::Hang;
        self
    }

    /// Resets the connection instead of answering.
    #[must_use]
    pub const fn reset_before_head(mut self) -> Self {
        self.start = Start::Reset;
        self
    }

    /// Closes the connection instead of answering.
    #[must_use]
    pub const fn close_before_head(mut self) -> Self {
        self.start = Start::Close;
        self
    }

    /// Announces the whole body, sends half of it, closes.
    #[must_use]
    pub const fn half_body(mut self) -> Self {
        self.half = true;
        self
    }

    /// Waits between pieces.
    #[must_use]
    pub const fn gap(mut self, gap: Duration) -> Self {
        self.pace.gap = Some(gap);
        self
    }

    /// Holds each piece until `gate` lets it pass. The head goes out at once.
    #[must_use]
    pub fn gated(mut self, gate: &Gate) -> Self {
        self.pace.gate = Some(gate.clone());
        self
    }

    /// Writes the pieces in writes of so many bytes.
    #[must_use]
    pub const fn dribble(mut self, bytes: usize) -> Self {
        assert!(bytes > 0);
        self.pace.dribble = Some(bytes);
        self
    }

    /// Closes the connection after so many pieces, without an end of the body.
    #[must_use]
    pub const fn cut_after(mut self, pieces: usize) -> Self {
        self.ending = Ending::CutAfter(pieces);
        self
    }

    /// Falls silent after so many pieces.
    #[must_use]
    pub const fn stall_after(mut self, pieces: usize) -> Self {
        self.ending = Ending::StallAfter(pieces);
        self
    }

    /// Writes a chunk size that is no number after so many pieces.
    #[must_use]
    pub const fn bad_chunk_after(mut self, pieces: usize) -> Self {
        self.ending = Ending::BadChunkAfter(pieces);
        self
    }

    /// Chunked, even where a length is known.
    #[must_use]
    pub const fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Neither length nor chunks: the body ends with the connection.
    #[must_use]
    pub const fn close_delimited(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self
    }

    /// Closes the connection after the answer without having announced it.
    #[must_use]
    pub const fn then_close(mut self) -> Self {
        self.afterwards = Afterwards::Close;
        self
    }

    /// Leaves the connection open for the next request, whatever was said on it.
    #[must_use]
    pub const fn then_keep(mut self) -> Self {
        self.afterwards = Afterwards::KeepAlive;
        self
    }

    /// Leaves the connection open, and resets it at the first byte of the next request.
    #[must_use]
    pub const fn then_reset_next(mut self) -> Self {
        self.afterwards = Afterwards::ResetNext;
        self
    }

    /// Answers without reading the request's body (recorded as empty), then closes.
    #[must_use]
    pub const fn early(mut self) -> Self {
        self.early = true;
        self
    }
}

/// An error as OpenAI words it. An empty `code` is null.
pub fn error_body(kind: &str, code: &str, message: &str) -> Value {
    let code = if code.is_empty() { Value::Null } else { code.into() };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

fn event_bytes(event: &str) -> Bytes {
    let is_raw = [":", "data:", "event:", "id:", "retry:"].iter().any(|field| event.starts_with(field));
    let mut text = if is_raw { event.to_owned() } else { format!("data: {event}") };
    if !text.ends_with("\n\n") && !text.ends_with("\r\n\r\n") {
        text.truncate(text.trim_end_matches('\n').len());
        text.push_str("\n\n");
    }
    Bytes::from(text)
}
