//! Where a request goes: its path and query, checked once so that nobody on the way can read them differently.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::types::BaseUrl;

/// Where a request goes, below the base of whatever key it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: Box<str>,
    /// Where the part begins that goes below the base.
    start: usize,
    query: Option<Box<str>>,
}

/// Why a target is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// A `.` or `..` segment, plain or encoded.
    #[error("the path has a segment that is `.` or `..`")]
    Traversal,
    /// Two slashes in a row.
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    /// A backslash, which some read as a slash.
    #[error("the path has a backslash; write it as %5C")]
    Backslash,
    /// The upstream would be asked for something else.
    #[error("the target has characters that must be percent-encoded (RFC 3986)")]
    Unsafe,
}

impl Target {
    /// Reads a target from a raw path and a raw query. A query parameter named `key`, Google's way to send a
    /// credential, is left out.
    ///
    /// # Errors
    /// [`BadTarget`] if the path could mean something else to whoever reads it next.
    pub fn new(path: &str, query: Option<&str>) -> Result<Self, BadTarget> {
        check_path(path)?;
        let query = query.map(without_key).filter(|query| !query.is_empty());
        if query
            .as_deref()
            .is_some_and(|query| !query.bytes().all(|byte| SAFE[usize::from(byte)] & QUERY != 0))
        {
            return Err(BadTarget::Unsafe);
        }
        Ok(Self { path: Box::from(path), start: 0, query: query.map(Box::from) })
    }

    /// The same without the first `length` bytes of its path, which say where it goes here.
    ///
    /// # Panics
    /// If its path is not that long.
    #[must_use]
    pub fn below(mut self, length: usize) -> Self {
        self.start += length;
        assert!(self.path.is_char_boundary(self.start), "a target is cut where its path has a place to cut");
        self
    }

    /// The path below the base: from the slash after the version segment, `/chat/completions`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path[self.start..]
    }

    /// The values that its query gives `name`, decoded.
    pub(super) fn values<'t>(&'t self, name: &'t str) -> impl Iterator<Item = Cow<'t, str>> {
        let query = self.query.as_deref().unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.filter(move |(found, _)| found == name).map(|(_, value)| value)
    }

    /// The path and query of this target below `base`: what was asked for, byte for byte.
    ///
    /// # Errors
    /// [`BadTarget::Unsafe`] if no request line could carry it.
    pub fn under(&self, base: &BaseUrl) -> Result<PathAndQuery, BadTarget> {
        let query = self.query.as_deref();
        let length = base.path().len() + self.path().len() + query.map_or(0, |query| query.len() + 1);
        let mut text = String::with_capacity(length);
        text.push_str(base.path());
        text.push_str(self.path());
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| BadTarget::Unsafe)
    }
}

/// A byte that may stand in a path.
const PATH: u8 = 1;
/// A byte that may stand in a query.
const QUERY: u8 = 2;
/// A byte for which a path must be looked at more closely.
const CLOSER: u8 = 4;

/// What each byte may do. In a path that is RFC 3986's `pchar`, the slash, and the percent sign; in a query the same
/// and what clients send there unencoded, which every URL parser leaves as it is.
const SAFE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        let (in_path, in_query) = match c {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => (true, true),
            b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' | b':' | b'@' | b'/' => (true, true),
            b'?' | b'[' | b']' | b'|' | b'\\' | b'^' | b'`' | b'{' | b'}' => (false, true),
            _ => (false, false),
        };
        let closer = matches!(c, b'.' | b'%');
        table[byte] = ((in_path as u8) * PATH) | ((in_query as u8) * QUERY) | ((closer as u8) * CLOSER);
        byte += 1;
    }
    table
};

/// Refuses what a URL parser (WHATWG) or an upstream could read as another path.
fn check_path(path: &str) -> Result<(), BadTarget> {
    let mut all = PATH;
    let mut any = 0;
    let mut last = 0;
    for byte in path.bytes() {
        let class = SAFE[usize::from(byte)];
        all &= class;
        any |= class;
        if byte == b'/' && last == b'/' {
            return Err(BadTarget::EmptySegment);
        }
        if byte == b'\\' {
            return Err(BadTarget::Backslash);
        }
        last = byte;
    }
    if all != PATH || !(path.is_empty() || path.starts_with('/')) {
        return Err(BadTarget::Unsafe);
    }
    if any & CLOSER != 0 && path.split('/').any(is_dots) {
        return Err(BadTarget::Traversal);
    }
    Ok(())
}

/// Whether a segment is, or could be taken for, `.` or `..`.
fn is_dots(segment: &str) -> bool {
    // An encoded slash or backslash may be decoded before the path is walked, and what stands after a semicolon is to
    // some no part of the name (RFC 3986 §3.3).
    let decoded = decode_separators_and_dots(segment);
    let mut names = decoded.split(['/', '\\']).filter_map(|part| part.split(';').next());
    names.any(|name| name == "." || name == "..")
}

fn decode_separators_and_dots(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return segment.into();
    }
    let mut text = segment.to_owned();
    for (code, plain) in
        [("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\")]
    {
        text = text.replace(code, plain);
    }
    text.into()
}

/// The query without parameters named `key`.
fn without_key(query: &str) -> Cow<'_, str> {
    let is_key = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        let name: Vec<_> = url::form_urlencoded::parse(name.as_bytes()).collect();
        matches!(name.as_slice(), [(name, _)] if name == "key")
    };
    if !query.split('&').any(|pair| is_key(&pair)) {
        return query.into();
    }
    query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base(text: &str) -> BaseUrl {
        BaseUrl::parse(text).unwrap()
    }

    fn url(path: &str, query: Option<&str>) -> Result<String, BadTarget> {
        Target::new(path, query)?.under(&base("https://up.example/p")).map(|target| target.to_string())
    }

    #[test]
    fn path_and_query_travel_as_they_are() {
        assert_eq!(url("/chat/completions", None).unwrap(), "/p/v1/chat/completions");
        assert_eq!(
            url("/files/a%2Fb:c@d/", Some("a=1&b=%20&c")).unwrap(),
            "/p/v1/files/a%2Fb:c@d/?a=1&b=%20&c"
        );
        assert_eq!(url("", Some("after=x[0]|y'")).unwrap(), "/p/v1?after=x[0]|y'");
    }

    #[test]
    fn what_names_the_route_stays_here() {
        let target = Target::new("/v1/models", None).unwrap().below(3);
        assert_eq!(target.path(), "/models");
        assert_eq!(target.under(&base("https://up.example/v4")).unwrap(), "/v4/models");
        assert_eq!(Target::new("/v1", None).unwrap().below(3).path(), "");
    }

    #[test]
    fn a_key_in_the_query_never_travels() {
        assert_eq!(url("/m", Some("key=abc")).unwrap(), "/p/v1/m");
        assert_eq!(url("/m", Some("a=1&key=abc&%6Bey=x&b=2")).unwrap(), "/p/v1/m?a=1&b=2");
        assert_eq!(url("/m", Some("keys=1&monkey=2")).unwrap(), "/p/v1/m?keys=1&monkey=2");
    }

    #[test]
    fn no_path_leaves_the_base() {
        for (path, reason) in [
            ("/..", BadTarget::Traversal),
            ("/../x", BadTarget::Traversal),
            ("/a/%2e%2E/x", BadTarget::Traversal),
            ("/a/.%2e", BadTarget::Traversal),
            ("/./x", BadTarget::Traversal),
            ("/a%2f..%2fx", BadTarget::Traversal),
            ("/a/..%5Cx", BadTarget::Traversal),
            ("/a/..;p=1/x", BadTarget::Traversal),
            ("/a/..\\x", BadTarget::Backslash),
            ("//x", BadTarget::EmptySegment),
            ("/a//x", BadTarget::EmptySegment),
            ("/a b", BadTarget::Unsafe),
            ("/é", BadTarget::Unsafe),
            ("x", BadTarget::Unsafe),
        ] {
            assert_eq!(url(path, None), Err(reason), "{path}");
        }
        for query in ["q=\"a\"", "q=<a>", "q=a#b", "q=a b", "q=é"] {
            assert_eq!(url("/x", Some(query)), Err(BadTarget::Unsafe), "{query}");
        }
        for path in ["/", "/a/", "/.well-known/x", "/a..b/...", "/100%25", "/a%20b"] {
            assert!(url(path, None).is_ok(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_target_is_refused_or_stays_below_the_base_unchanged(path in "/[a-z0-9./%2eEfF5cC\\\\ '\"~:@-]{0,24}", query in prop::option::of("[a-z0-9=&%'/?#-]{0,16}")) {
            let base = base("https://up.example/p");
            if let Ok(target) = Target::new(&path, query.as_deref()) {
                let sent = target.under(&base).unwrap();
                prop_assert_eq!(sent.path(), format!("/p/v1{path}"));
                // Whoever parses it as browsers do finds the same path.
                let url = url::Url::parse(&format!("https://up.example{sent}")).unwrap();
                prop_assert_eq!(url.path(), sent.path());
                prop_assert_eq!(url.host_str(), Some("up.example"));
            }
        }
    }
}
