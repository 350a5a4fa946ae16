//! Where clients put their key.

use http::{
    HeaderMap,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

use crate::forward::headers::KEY_PROTOCOL;

/// Headers whose whole value is a key, as the SDKs of the several dialects send it.
const HEADERS: [&str; 4] = ["x-api-key", "x-goog-api-key", "api-key", "x-proxy-key"];

/// Every credential that the headers present.
pub(super) fn credentials(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get_all(AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let plain =
        HEADERS.iter().flat_map(|name| headers.get_all(*name)).map(|value| value.as_bytes().trim_ascii());
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let items = protocols.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    bearer.chain(plain).chain(items.filter_map(|item| key_of(item.trim_ascii())))
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
            assert_eq!(credentials(&headers).collect::<Vec<_>>(), [b"k"], "{name}: {value}");
        }
    }

    #[test]
    fn other_schemes_present_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Basic k".parse().unwrap());
        assert_eq!(credentials(&headers).count(), 0);
        headers.insert(AUTHORIZATION, "k".parse().unwrap());
        assert_eq!(credentials(&headers).count(), 0);
    }
}
