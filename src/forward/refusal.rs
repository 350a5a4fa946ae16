//! A refusal: the head and the first part of the body of an answer that must be understood before it is delivered.

use std::{borrow::Cow, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;

use super::{body::Rest, coding::decoded, transport::AnswerBody};

/// As much of a refusal's body as is read, and as much as is decoded.
const MOST: usize = 64 * 1024;

/// A refusal, and the rest of its body if that is long.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) start: Bytes,
    pub(super) rest: Rest,
}

impl Refusal {
    /// Reads the start of the body; what doesn't come within `patience` is not waited for.
    pub(super) async fn read(answer: http::Response<AnswerBody>, patience: Duration) -> Self {
        let (parts, mut body) = answer.into_parts();
        let mut start = BytesMut::new();
        let reading = async {
            while start.len() < MOST {
                match body.frame().await {
                    Some(Ok(frame)) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                    Some(Err(_)) => return Some(Rest::Broken),
                    None => return Some(Rest::Ended),
                }
            }
            None
        };
        let ended = tokio::time::timeout(patience, reading).await.unwrap_or(None);
        let rest = ended.unwrap_or(Rest::Coming(body));
        Self { status: parts.status, headers: parts.headers, start: start.freeze(), rest }
    }

    /// The text of the body without its coding; nothing if the coding is unknown.
    pub(super) fn text(&self) -> Cow<'_, [u8]> {
        decoded(&self.headers, &self.start, MOST).unwrap_or_default()
    }
}
