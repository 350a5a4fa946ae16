//! What HTTP demands of a request's head, and hyper lets through.

use http::{
    HeaderMap, Method, Version,
    header::{HOST, TRANSFER_ENCODING},
    request::Parts,
    uri::Authority,
};

use super::error::Refusal;

/// Refuses what is not meant for an origin, or could be read in two ways by whoever is behind us.
pub(super) fn check(parts: &Parts) -> Result<(), Refusal> {
    // The one asks for a tunnel, the other for the request back, with our key in it.
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::no_such_route());
    }
    if !has_one_host(parts) {
        return Err(Refusal::bad_host());
    }
    if parts.headers.contains_key(TRANSFER_ENCODING) && !is_chunked_alone(&parts.headers) {
        return Err(Refusal::unknown_transfer_coding());
    }
    Ok(())
}

/// Whether `Host` is there as RFC 9112 §3.2 wants it: once, if at all, and valid; in HTTP/1.1 always.
fn has_one_host(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => parts.version != Version::HTTP_11,
        (Some(host), None) => host.is_empty() || is_authority(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

fn is_authority(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("@");
    port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether chunks are all that hyper has undone.
fn is_chunked_alone(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}
