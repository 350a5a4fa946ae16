//! The request as it goes upstream, and the answer's head as it goes to the client.

use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use memchr::memmem;
use url::Url;

use crate::{
    redact,
    types::{BaseUrl, Key, Secret},
};

const ORGANIZATION: HeaderName = HeaderName::from_static("openai-organization");
const PROJECT: HeaderName = HeaderName::from_static("openai-project");
/// The request's id: ours towards the client.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The id that the upstream gave its answer.
pub const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// Where a request goes, below the base of whatever key it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// From the slash after the version segment: `/chat/completions`.
    path: Box<str>,
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
    /// Reads a target from the raw path below the version segment, and the raw query.
    ///
    /// # Errors
    /// [`BadTarget`] if the path could mean something else to whoever reads it next.
    pub fn new(path: &str, query: Option<&str>) -> Result<Self, BadTarget> {
        check_path(path)?;
        let query = query.map(without_key).filter(|query| !query.is_empty());
        if query.as_deref().is_some_and(|query| !query.bytes().all(survives_in_query)) {
            return Err(BadTarget::Unsafe);
        }
        Ok(Self { path: Box::from(path), query: query.map(String::into_boxed_str) })
    }

    /// The path below the base.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL of this target below `base`.
    ///
    /// # Errors
    /// [`BadTarget::Unsafe`] if a URL parser would change its meaning.
    pub fn under(&self, base: &BaseUrl) -> Result<Url, BadTarget> {
        let mut text = String::with_capacity(base.as_str().len() + self.path.len() + 64);
        text.push_str(base.as_str());
        text.push_str(&self.path);
        if let Some(query) = &self.query {
            text.push('?');
            text.push_str(query);
        }
        let url = Url::parse(&text).map_err(|_| BadTarget::Unsafe)?;
        if url.as_str() == text { Ok(url) } else { Err(BadTarget::Unsafe) }
    }
}

/// Refuses what a URL parser (WHATWG) or an upstream could read as another path.
fn check_path(path: &str) -> Result<(), BadTarget> {
    if path.contains('\\') {
        return Err(BadTarget::Backslash);
    }
    let Some(below) = path.strip_prefix('/') else {
        return if path.is_empty() { Ok(()) } else { Err(BadTarget::Unsafe) };
    };
    let mut segments = below.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(BadTarget::EmptySegment);
        }
        if !segment.bytes().all(survives_in_path) {
            return Err(BadTarget::Unsafe);
        }
        // An encoded slash or backslash may be decoded before the path is walked, and what stands after a semicolon
        // is to some no part of the name (RFC 3986 §3.3).
        let decoded = decode_separators_and_dots(segment);
        let mut names = decoded.split(['/', '\\']).filter_map(|part| part.split(';').next());
        if names.any(|name| name == "." || name == "..") {
            return Err(BadTarget::Traversal);
        }
    }
    Ok(())
}

fn decode_separators_and_dots(segment: &str) -> std::borrow::Cow<'_, str> {
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

/// The bytes of RFC 3986's `pchar` (and `%`), which a URL parser leaves as they are.
fn survives_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte)
}

/// The same for a query. A URL parser would encode `'`, which RFC 3986 counts as a change.
fn survives_in_query(byte: u8) -> bool {
    (survives_in_path(byte) && byte != b'\'') || b"/?[]|\\^`{}".contains(&byte)
}

/// The query without parameters named `key`: Google's way to send a credential.
fn without_key(query: &str) -> String {
    let is_key = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        let name: Vec<_> = url::form_urlencoded::parse(name.as_bytes()).collect();
        matches!(name.as_slice(), [(name, _)] if name == "key")
    };
    if !query.split('&').any(|pair| is_key(&pair)) {
        return query.to_owned();
    }
    query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&")
}

/// The client's headers as `key`'s upstream gets them.
pub(super) fn request_headers(client: &HeaderMap, key: &Key) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(client.len() + 4);
    copy(client, &mut headers, |name| !stays_here(name));
    let settings = key.settings();
    headers.insert(AUTHORIZATION, key.authorization().clone());
    for (name, value) in [(ORGANIZATION, &settings.organization), (PROJECT, &settings.project)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    headers
}

/// The upstream's headers as the client gets them: without `secret`, should the upstream repeat it.
pub(super) fn answer_headers(upstream: &HeaderMap, secret: &Secret) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(upstream.len() + 4);
    copy(upstream, &mut headers, |name| !names_our_account(name));
    for value in headers.values_mut() {
        if memmem::find(value.as_bytes(), secret.expose().as_bytes()).is_some()
            && let Some(scrubbed) = redact::scrub_header(value, &[secret])
        {
            *value = scrubbed;
        }
    }
    if let Some(id) = headers.remove(REQUEST_ID) {
        headers.insert(UPSTREAM_REQUEST_ID, id);
    }
    headers
}

/// Copies what travels from end to end (RFC 9110 §7.6.1) and passes `keep`; repeated headers keep every value.
fn copy(from: &HeaderMap, to: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let connection: Vec<&str> = from
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|name| !name.is_empty())
        .collect();
    for (name, value) in from {
        let named = || connection.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()));
        if !is_hop_by_hop(name) && keep(name) && !named() {
            to.append(name.clone(), value.clone());
        }
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE]
        .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// What a client sends that must not go upstream: its credentials, its account, its network, and what is set anew.
fn stays_here(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, CONTENT_LENGTH, EXPECT, FORWARDED, HOST].contains(name)
        || matches!(
            name.as_str(),
            "x-api-key"
                | "api-key"
                | "x-goog-api-key"
                | "x-proxy-key"
                | "openai-organization"
                | "openai-project"
                | "x-goog-user-project"
                | "x-real-ip"
                // Browsers put a key among the protocols; and no upgrade is forwarded.
                | "sec-websocket-protocol"
        )
        || name.as_str().starts_with("x-forwarded-")
}

/// What an upstream sends that is about our account or for our connection to it, and CORS, which is ours to answer.
fn names_our_account(name: &HeaderName) -> bool {
    *name == SET_COOKIE
        || *name == ORGANIZATION
        || *name == PROJECT
        || matches!(name.as_str(), "alt-svc" | "strict-transport-security")
        || name.as_str().starts_with("access-control-")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::types::{KeySettings, PoolName, Secret};
    use proptest::prelude::*;

    fn base(text: &str) -> BaseUrl {
        BaseUrl::parse(text).unwrap()
    }

    fn url(path: &str, query: Option<&str>) -> Result<String, BadTarget> {
        Target::new(path, query)?.under(&base("https://up.example/p")).map(String::from)
    }

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn path_and_query_travel_as_they_are() {
        assert_eq!(url("/chat/completions", None).unwrap(), "https://up.example/p/v1/chat/completions");
        assert_eq!(
            url("/files/a%2Fb:c@d/", Some("a=1&b=%20&c")).unwrap(),
            "https://up.example/p/v1/files/a%2Fb:c@d/?a=1&b=%20&c"
        );
        assert_eq!(url("", Some("after=x[0]|y")).unwrap(), "https://up.example/p/v1?after=x[0]|y");
    }

    #[test]
    fn a_key_in_the_query_never_travels() {
        assert_eq!(url("/m", Some("key=abc")).unwrap(), "https://up.example/p/v1/m");
        assert_eq!(url("/m", Some("a=1&key=abc&%6Bey=x&b=2")).unwrap(), "https://up.example/p/v1/m?a=1&b=2");
        assert_eq!(url("/m", Some("keys=1&monkey=2")).unwrap(), "https://up.example/p/v1/m?keys=1&monkey=2");
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
        assert_eq!(url("/x", Some("q='a'")), Err(BadTarget::Unsafe));
    }

    #[test]
    fn credentials_accounts_and_networks_of_the_client_stay_here() {
        let entry = (Secret::new("sk-pool").unwrap(), KeySettings::at(base("https://up.example")));
        let key = Key::pool(&PoolName::default(), vec![entry]).remove(0);
        let client = map(&[
            ("authorization", "Bearer client"),
            ("x-api-key", "client"),
            ("api-key", "client"),
            ("x-goog-api-key", "client"),
            ("x-proxy-key", "client"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.client"),
            ("cookie", "client"),
            ("openai-organization", "client"),
            ("openai-project", "client"),
            ("x-goog-user-project", "client"),
            ("forwarded", "for=client"),
            ("x-forwarded-for", "client"),
            ("x-forwarded-anything", "client"),
            ("x-real-ip", "client"),
            ("host", "client"),
            ("expect", "100-continue"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("openai-beta", "a"),
            ("openai-beta", "b"),
        ]);
        let sent = request_headers(&client, &key);
        let left: Vec<_> =
            sent.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("openai-beta", "a"), ("openai-beta", "b"), ("authorization", "Bearer sk-pool")]);
        assert!(sent[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn a_key_sends_its_own_organization_and_project() {
        let settings = KeySettings {
            organization: Some(HeaderValue::from_static("org-1")),
            project: Some(HeaderValue::from_static("proj-1")),
            ..KeySettings::at(base("https://up.example"))
        };
        let key = Key::pool(&PoolName::default(), vec![(Secret::new("sk").unwrap(), settings)]).remove(0);
        let sent = request_headers(&map(&[("openai-organization", "client")]), &key);
        assert_eq!(sent.get_all(ORGANIZATION).iter().collect::<Vec<_>>(), ["org-1"]);
        assert_eq!(sent[PROJECT], "proj-1");
    }

    #[test]
    fn an_answer_names_neither_our_account_nor_our_connection() {
        let answer = answer_headers(
            &map(&[
                ("set-cookie", "a"),
                ("set-cookie", "b"),
                ("openai-organization", "org"),
                ("openai-project", "proj"),
                ("access-control-allow-origin", "*"),
                ("transfer-encoding", "chunked"),
                ("connection", "close, x-hop"),
                ("x-hop", "1"),
                ("x-request-id", "req_1"),
                ("strict-transport-security", "max-age=1"),
                ("x-echo", "Bearer sk-pool"),
                ("vary", "a"),
                ("vary", "b"),
            ]),
            &Secret::new("sk-pool").unwrap(),
        );
        let left: Vec<_> =
            answer.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            left,
            [
                ("vary", "a"),
                ("vary", "b"),
                ("x-echo", "Bearer [redacted]"),
                ("x-upstream-request-id", "req_1")
            ]
        );
    }

    proptest! {
        #[test]
        fn a_target_is_refused_or_stays_below_the_base_unchanged(path in "/[a-z0-9./%2eEfF5cC\\\\ '\"~:@-]{0,24}", query in prop::option::of("[a-z0-9=&%'/?#-]{0,16}")) {
            let base = base("https://up.example/p");
            if let Ok(target) = Target::new(&path, query.as_deref())
                && let Ok(url) = target.under(&base)
            {
                prop_assert!(url.path().starts_with("/p/v1"));
                prop_assert_eq!(url.path(), format!("/p/v1{path}"));
                prop_assert_eq!(url.host_str(), Some("up.example"));
            }
        }
    }
}
