//! How an answer's body is written.

use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

/// How an answer's body is written, as far as it is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    /// One JSON value; also Gemini's streams without `alt=sse`, which are one array.
    Json,
    /// Server-sent events.
    Events,
}

impl Media {
    /// What `headers` say of the body. `None`: it is something else, or coded.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        if !codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return None;
        }
        let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = text.split(';').next().unwrap_or_default().trim();
        let (group, name) = essence.split_once('/')?;
        let is = |text: &str, expected: &str| text.eq_ignore_ascii_case(expected);
        if is(group, "text") && is(name, "event-stream") {
            return Some(Self::Events);
        }
        let suffix = name.rsplit('+').next().unwrap_or_default();
        (is(group, "application") && is(suffix, "json")).then_some(Self::Json)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn types() {
        for (text, media) in [
            ("text/event-stream", Some(Media::Events)),
            ("Text/Event-Stream; charset=utf-8", Some(Media::Events)),
            ("application/json", Some(Media::Json)),
            ("application/json;charset=UTF-8", Some(Media::Json)),
            ("application/problem+json", Some(Media::Json)),
            ("text/plain", None),
            ("audio/mpeg", None),
            ("application/jsonl", None),
            ("json", None),
            ("", None),
        ] {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(text))].into_iter().collect();
            assert_eq!(Media::of(&headers), media, "{text:?}");
        }
        assert_eq!(Media::of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_coded_is_not_looked_into() {
        for (coding, media) in
            [("identity", Some(Media::Events)), ("Identity", Some(Media::Events)), ("gzip", None), ("", None)]
        {
            let headers = [(CONTENT_TYPE, "text/event-stream"), (CONTENT_ENCODING, coding)];
            let headers =
                headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
            assert_eq!(Media::of(&headers), media, "{coding:?}");
        }
    }
}
