//! Asking for the usage of a stream where the client doesn't: which requests may be edited, and what else changes with
//! their body.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};

use crate::provider::{Endpoint, takes_stream_options};

/// What speaks of the body's bytes: whoever sends one of them wants them to arrive as they are.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Whether the body of such a request may be edited.
pub(super) fn may_ask(endpoint: Endpoint, path: &str, headers: &HeaderMap) -> bool {
    let is_coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    endpoint == Endpoint::Inference
        && takes_stream_options(path)
        && !is_coded
        && DIGESTS.iter().all(|name| !headers.contains_key(name))
}

/// The edited body. What comes of it has to be found in the answer, which therefore may not be coded.
pub(super) fn ask(body: Vec<u8>, headers: &mut HeaderMap) -> Bytes {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    body.into()
}
