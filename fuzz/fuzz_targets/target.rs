//! Any path and query: a target is sent as it came, below its base, or refused for a reason that can be seen.

#![no_main]

use key_cycle_proxy::{
    forward::{BadTarget, Target},
    types::BaseUrl,
};
use libfuzzer_sys::fuzz_target;
use url::Url;

const BASE: &str = "https://up.example/prefix/v1";

fuzz_target!(|input: &str| {
    let (path, query) = match input.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (input, None),
    };
    let target = Target::new(path, query);
    let expected = path_fault(path).or_else(|| query.and_then(query_fault));
    let Ok(target) = target else {
        assert!(expected.is_some(), "{:?}, and nothing is wrong with it", target.err());
        return;
    };
    assert_eq!(expected, None, "accepted");
    assert_eq!(target.path(), path);

    let base = BaseUrl::parse(BASE).expect("it is a base URL");
    let sent = target.under(&base).expect("what was accepted can be sent");
    assert_eq!(sent.path(), format!("/prefix/v1{path}"));
    let kept = query.map(without_keys).filter(|query| !query.is_empty());
    assert_eq!(sent.query(), kept.as_deref());
    // Whoever reads it as browsers do finds the same place, and no credential of the client's.
    let url = Url::parse(&format!("https://up.example{sent}")).expect("a URL");
    assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some("up.example"), None));
    assert_eq!((url.username(), url.password(), url.fragment()), ("", None, None));
    assert_eq!(url.path(), sent.path());
    assert!(url.query_pairs().all(|(name, _)| name != "key"), "a client's credential goes upstream");
    if let Some(start) = path.match_indices('/').map(|(at, _)| at).nth(1) {
        assert_eq!(target.below(start).path(), &path[start..]);
    }
});

/// Why the path could mean something else to the next who reads it.
fn path_fault(path: &str) -> Option<BadTarget> {
    if path.contains('\\') {
        return Some(BadTarget::Backslash);
    }
    if !path.is_empty() && !path.starts_with('/') || !path.bytes().all(|byte| is_pchar(byte) || byte == b'/')
    {
        return Some(BadTarget::Unsafe);
    }
    // Some decode first and walk the path then; to some, what stands behind a semicolon is no part of the name.
    let decoded = decoded(path);
    let mut segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    let names = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
    if segments.any(|segment| matches!(&names(segment)[..], b"." | b"..")) {
        return Some(BadTarget::Traversal);
    }
    path.contains("//").then_some(BadTarget::EmptySegment)
}

/// Why the query could not be sent as it is.
fn query_fault(query: &str) -> Option<BadTarget> {
    let fits = |byte: u8| is_pchar(byte) || b"/?[]|\\^`{}".contains(&byte);
    (!without_keys(query).bytes().all(fits)).then_some(BadTarget::Unsafe)
}

/// RFC 3986 §3.3, and the sign of an escape.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte)
}

/// Every escape decoded, but for that of a semicolon: encoded, it belongs to the name.
fn decoded(path: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|hex| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|code| *code != b';');
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// The query without the pairs whose name says `key`.
fn without_keys(query: &str) -> String {
    let is_key = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        decoded(name) == b"key"
    };
    query.split('&').filter(|pair| !is_key(pair)).collect::<Vec<_>>().join("&")
}
