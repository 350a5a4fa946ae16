//! Any headers, one way or the other: what stays, stays; what travels, travels whole.

#![no_main]

use std::sync::LazyLock;

use common::{first_line, headers};
use http::{HeaderMap, HeaderName, StatusCode, header};
use key_cycle_proxy::{
    forward::{
        Api,
        headers::{REQUEST_ID, UPSTREAM_REQUEST_ID, add_account, strip_answer, strip_request},
    },
    types::{BaseUrl, Dialect, Key, KeySettings, PoolName, Secret},
};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "sk-canary-4711";
/// So much of a key in a row is more than a provider shows who masks it.
const PART: usize = 12;

static KEY: LazyLock<Key> = LazyLock::new(|| {
    let base = BaseUrl::parse("https://up.example").expect("it is a base URL");
    let entry = (Secret::new(SECRET).expect("it is a secret"), KeySettings::at(base));
    Key::pool(&PoolName::default(), vec![entry]).remove(0)
});

/// RFC 9110 §7.6.1, and the older ones.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What of a client goes no further.
const THE_CLIENTS: [&str; 15] = [
    "api-key",
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "openai-organization",
    "openai-project",
    "sec-websocket-protocol",
    "x-api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-proxy-key",
    "x-real-ip",
];

/// What of an upstream goes no further.
const THE_UPSTREAMS: [&str; 5] =
    ["alt-svc", "openai-organization", "openai-project", "set-cookie", "strict-transport-security"];

// The first line says which way, and whether it is an error.
fuzz_target!(|input: &[u8]| {
    let (way, rest) = first_line(input);
    let (came, _) = headers(rest);
    let mut went = came.clone();
    let named = named_by_connection(&came);
    let is_hop_by_hop = |name: &str| HOP_BY_HOP.contains(&name) || named.iter().any(|named| named == name);
    if way.starts_with(b"a") || way.starts_with(b"e") {
        let (status, most) = match way[0] {
            b'a' => (StatusCode::OK, SECRET.len()),
            // Errors quote parts of keys.
            _ => (StatusCode::UNAUTHORIZED, PART),
        };
        strip_answer(status, &mut went, KEY.secret());
        let stays = |name: &str| {
            is_hop_by_hop(name) || THE_UPSTREAMS.contains(&name) || name.starts_with("access-control-")
        };
        answer(&came, &went, most, stays);
    } else {
        strip_request(&mut went);
        let stays = |name: &str| {
            is_hop_by_hop(name) || THE_CLIENTS.contains(&name) || name.starts_with("x-forwarded-")
        };
        request(&came, went, stays);
    }
});

fn request(came: &HeaderMap, mut went: HeaderMap, stays: impl Fn(&str) -> bool) {
    for name in came.keys() {
        let kept: Vec<_> = went.get_all(name).iter().collect();
        if stays(name.as_str()) {
            assert!(kept.is_empty(), "{name} goes up");
        } else {
            assert_eq!(kept, came.get_all(name).iter().collect::<Vec<_>>(), "{name}");
        }
    }
    assert!(went.keys().all(|name| came.contains_key(name)));
    Api::default().sign(Dialect::OpenAi, &KEY, &mut went);
    add_account(&mut went, &KEY);
    let credentials: Vec<_> = went.get_all(header::AUTHORIZATION).iter().collect();
    assert_eq!(credentials, [format!("Bearer {SECRET}").as_str()]);
    assert!(credentials[0].is_sensitive());
}

/// `most`: so much of the key in a row is too much.
fn answer(came: &HeaderMap, went: &HeaderMap, most: usize, stays: impl Fn(&str) -> bool) {
    let holds_key = |value: &[u8]| {
        value.windows(most).any(|part| SECRET.as_bytes().windows(most).any(|of_key| of_key == part))
    };
    assert!(!went.values().any(|value| holds_key(value.as_bytes())), "the key comes back");
    for name in came.keys().filter(|name| **name != REQUEST_ID && **name != UPSTREAM_REQUEST_ID) {
        let (before, after): (Vec<_>, Vec<_>) = (values(came, name), values(went, name));
        if stays(name.as_str()) {
            assert!(after.is_empty(), "{name} goes down");
        } else if !before.iter().any(|value| holds_key(value)) {
            assert_eq!(after, before, "{name}");
        } else {
            assert_eq!(after.len(), before.len(), "{name}");
        }
    }
    assert!(!went.contains_key(REQUEST_ID), "the request's id is ours");
    if let Some(id) =
        came.get(REQUEST_ID).filter(|id| !stays(REQUEST_ID.as_str()) && !holds_key(id.as_bytes()))
    {
        assert_eq!(went.get(UPSTREAM_REQUEST_ID), Some(id));
    }
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(|value| value.as_bytes()).collect()
}

/// The names that `Connection` takes along.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}
