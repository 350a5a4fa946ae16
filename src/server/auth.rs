//! Where clients put their key.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

use crate::forward::headers::KEY_PROTOCOL;

/// Headers whose whole value is a key, as the SDKs of the several dialects send it.
const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("api-key"),
];

/// The header of ours: where it is, other credentials are somebody else's business and count for nothing.
const OURS: HeaderName = HeaderName::from_static("x-proxy-key");
/// The parameter of a query in which Google's API takes a credential.
const PARAMETER: &str = "key";

/// Every credential that a request presents to us.
pub(super) fn credentials<'r>(
    headers: &'r HeaderMap,
    query: Option<&'r str>,
) -> impl Iterator<Item = Cow<'r, [u8]>> {
    let ours = headers.get_all(OURS).iter().map(|value| value.as_bytes().trim_ascii());
    let others = !headers.contains_key(&OURS);
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let plain =
        HEADERS.into_iter().flat_map(|name| headers.get_all(name)).map(|value| value.as_bytes().trim_ascii());
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let items = protocols.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let query = query.filter(|query| query.contains(PARAMETER)).unwrap_or_default();
    let parameters = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == PARAMETER);
    let parameters = parameters.map(|(_, value)| Cow::Owned(value.into_owned().into_bytes()));
    let elsewhere = bearer
        .chain(plain)
        .chain(items.filter_map(|item| key_of(item.trim_ascii())))
        .map(Cow::Borrowed)
        .chain(parameters)
        .filter(move |_| others);
    ours.map(Cow::Borrowed).chain(elsewhere).filter(|credential| !credential.is_empty())
}

/// The key that stands among the subprotocols of a WebSocket.
fn key_of(protocol: &[u8]) -> Option<&[u8]> {
    let (name, key) = protocol.split_at_checked(KEY_PROTOCOL.len())?;
    (name.eq_ignore_ascii_case(KEY_PROTOCOL.as_bytes()) && !key.is_empty()).then_some(key)
}

/// The token of `Bearer token`; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialects_place_is_looked_at() {
        for (name, value) in [
            ("authorization", "Bearer k"),
            ("authorization", "bearer  k "),
            ("x-api-key", "k"),
            ("x-goog-api-key", "k"),
            ("api-key", " k"),
            ("x-proxy-key", "k"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.k,openai-beta.realtime-v1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(presented(&headers, None), ["k"], "{name}: {value}");
        }
        assert_eq!(presented(&HeaderMap::new(), Some("monkey=1&key=k%2B1&alt=sse")), ["k+1"]);
    }

    #[test]
    fn our_own_header_counts_alone() {
        let mut headers = HeaderMap::new();
        headers.insert("x-proxy-key", "k".parse().unwrap());
        headers.insert(AUTHORIZATION, "Bearer theirs".parse().unwrap());
        assert_eq!(presented(&headers, Some("key=theirs")), ["k"]);
    }

    fn presented(headers: &HeaderMap, query: Option<&str>) -> Vec<String> {
        let credentials = credentials(headers, query);
        credentials.map(|credential| String::from_utf8(credential.into_owned()).unwrap()).collect()
    }

    #[test]
    fn other_schemes_present_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Basic k".parse().unwrap());
        assert!(presented(&headers, None).is_empty());
        headers.insert(AUTHORIZATION, "k".parse().unwrap());
        assert!(presented(&headers, None).is_empty());
    }
}
