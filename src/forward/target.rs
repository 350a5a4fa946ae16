//! Where a request goes: its path and query, checked once so that nobody on the way can read them differently.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::types::{BaseUrl, Dialect, Secret, is_version};

/// What is percent-encoded in a segment or a query's value: all but RFC 3986's unreserved characters.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a request goes, below the base of whatever key it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: Box<str>,
    /// Where the part begins that goes below the base.
    start: u32,
    query: Option<Box<str>>,
    /// Whether that part begins with a version of its own, in place of the base's.
    has_version: bool,
    /// Whether its path names no model, though it may look so.
    nameless: bool,
    spoken: Dialect,
}

/// A parameter of a query that we add. Its `Debug` shows the name only: the value may be a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameter {
    name: Box<str>,
    /// As it is sent: `name=value`.
    pair: Box<str>,
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({})", self.name)
    }
}

impl Parameter {
    /// The parameter `name` with this value.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: Box::from(name), pair: pair(name, value).into_boxed_str() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pair
    }
}

fn pair(name: &str, value: &str) -> String {
    format!("{}={}", utf8_percent_encode(name, ENCODED), utf8_percent_encode(value, ENCODED))
}

/// Where a target goes, if that is not just below a base. No `Debug`: there is a credential in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'p> {
    /// What its path goes below: two pieces of a path.
    pub(super) below: [&'p str; 2],
    /// Parameters in place of those that it has of the same names.
    pub(super) set: &'p [Parameter],
    /// A parameter that it gets if it has none of that name: `api-version`.
    pub(super) default: Option<(&'static str, &'p str)>,
    /// A credential, in place of any parameter of that name.
    pub(super) credential: Option<(&'p str, &'p Secret)>,
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
        Ok(Self {
            path: Box::from(path),
            start: 0,
            query: query.map(Box::from),
            has_version: false,
            nameless: false,
            spoken: Dialect::OpenAi,
        })
    }

    /// The same without the first `length` bytes of its path, which say where it goes here.
    ///
    /// # Panics
    /// If its path is not that long.
    #[must_use]
    pub fn below(mut self, length: usize) -> Self {
        self.start += u32::try_from(length).expect("no head is so long");
        assert!(
            self.path.is_char_boundary(self.start as usize),
            "a target is cut where its path has a place to cut"
        );
        self
    }

    /// The same as a target whose path begins with a version that counts in place of the base's.
    #[must_use]
    pub fn with_version(mut self) -> Self {
        self.has_version = true;
        self
    }

    /// Whether its path begins with a version that counts in place of the base's.
    #[must_use]
    pub fn has_version(&self) -> bool {
        self.has_version
    }

    /// The same in another dialect than OpenAI's.
    #[must_use]
    pub fn spoken_in(mut self, dialect: Dialect) -> Self {
        self.spoken = dialect;
        self
    }

    /// The same where what stands in the place of a model's name is none.
    #[must_use]
    pub fn without_model(mut self) -> Self {
        self.nameless = true;
        self
    }

    /// Whether no model is to be found in its path.
    pub(super) fn is_nameless(&self) -> bool {
        self.nameless
    }

    /// The dialect that whoever asks for it speaks.
    #[must_use]
    pub fn spoken(&self) -> Dialect {
        self.spoken
    }

    /// The same with another model in its query, if that names one.
    pub(super) fn of_model_in_query(&self, model: &str) -> Self {
        const MODEL: &str = "model";
        let Some(query) = &self.query else { return self.clone() };
        let is_model = |pair: &str| name_of(pair).is_some_and(|name| name == MODEL);
        let pairs =
            query.split('&').map(|old| if is_model(old) { pair(MODEL, model) } else { old.to_owned() });
        Self { query: Some(pairs.collect::<Vec<_>>().join("&").into_boxed_str()), ..self.clone() }
    }

    /// Whether its path begins with the version that a base ends in.
    pub(super) fn repeats_version_of(&self, base: &BaseUrl) -> bool {
        let version = &base.path()[base.root().len()..];
        !version.is_empty()
            && self.path().strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The kind of endpoint, as permissions of keys know them: the first segment that is no version, no name of a
    /// compatible base, and no deployment.
    #[must_use]
    pub fn purpose(&self) -> &str {
        let mut segments = self.path().split('/').filter(|segment| !segment.is_empty()).peekable();
        while let Some(segment) = segments.next() {
            match segment {
                "openai" | "upload" if segments.peek().is_some() => {}
                "deployments" if segments.peek().is_some() => drop(segments.next()),
                segment if is_version(segment) => {}
                segment => return segment,
            }
        }
        ""
    }

    /// The same with another path below the base.
    ///
    /// # Errors
    /// [`BadTarget`] if that could mean something else to whoever reads it next.
    pub(super) fn with_path(&self, path: &str) -> Result<Self, BadTarget> {
        check_path(path)?;
        Ok(Self { path: Box::from(path), start: 0, ..self.clone() })
    }

    /// The path below the base: from the slash after the version segment, `/chat/completions`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path[self.start as usize..]
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
        let below = if self.has_version { base.root() } else { base.path() };
        self.at(&Place { below: [below, ""], ..Place::default() })
    }

    /// The path and query of this target at this place.
    ///
    /// # Errors
    /// [`BadTarget::Unsafe`] if no request line could carry it.
    pub(super) fn at(&self, place: &Place<'_>) -> Result<PathAndQuery, BadTarget> {
        let Place { below, set, default, credential } = *place;
        let replaced = |name: &str| {
            set.iter().any(|parameter| parameter.name() == name)
                || credential.is_some_and(|(credential, _)| credential == name)
        };
        let query = self.query.as_deref().unwrap_or_default();
        let query =
            if set.is_empty() && credential.is_none() { query.into() } else { without(query, replaced) };
        let length = below[0].len() + below[1].len() + self.path().len() + query.len() + 1;
        let mut text = String::with_capacity(length);
        text.extend([below[0], below[1], self.path()]);
        let mut separator = '?';
        let mut add = |pair: &str| {
            text.push(std::mem::replace(&mut separator, '&'));
            text.push_str(pair);
        };
        if !query.is_empty() {
            add(&query);
        }
        set.iter().for_each(|parameter| add(parameter.as_str()));
        if let Some((name, value)) = default.filter(|(name, _)| parameter(&query, name).is_none()) {
            add(&pair(name, value));
        }
        if let Some((name, secret)) = credential {
            add(&pair(name, secret.expose()));
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
pub(super) fn check_path(path: &str) -> Result<(), BadTarget> {
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
    without(query, |name| name == "key")
}

/// The query without parameters whose names, decoded, are to go.
fn without(query: &str, goes: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let goes = |pair: &&str| name_of(pair).is_some_and(|name| goes(&name));
    if !query.split('&').any(|pair| goes(&pair)) {
        return query.into();
    }
    query.split('&').filter(|pair| !goes(pair)).collect::<Vec<_>>().join("&").into()
}

/// The name of a pair in a query, decoded.
fn name_of(pair: &str) -> Option<Cow<'_, str>> {
    let name = pair.split('=').next().unwrap_or_default();
    url::form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name)
}

/// The value of a parameter of a query, decoded; of several, the first.
pub(super) fn parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value)
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
