//! The beginning of a stream, held back until it shows whether it is an answer.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;

use super::{alarm::Alarm, body::Rest, transport::AnswerBody};
use crate::provider::stream::{Opened, Opening};

/// No longer than this is a head held back for what comes behind it: a model may think for minutes before it speaks, and
/// meanwhile programs between us and the client want to see signs of life.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// As much as is read of what follows a failure: usually nothing but the mark of the end.
const MOST_BEHIND: usize = 64 * 1024;

/// A body whose beginning has been looked at.
#[derive(Debug)]
pub(super) struct Begun {
    /// What was read of it.
    pub(super) start: Bytes,
    pub(super) rest: Rest,
    /// The complaint, if it failed before it began.
    pub(super) failure: Option<Vec<u8>>,
}

impl Begun {
    /// Reads `body` until it has begun, and no longer than `until`.
    pub(super) async fn read(mut body: AnswerBody, alarm: &mut Alarm, until: Instant) -> Self {
        let (mut start, mut opening) = (Bytes::new(), Opening::new());
        let reading = async {
            let mut is_copy = false;
            loop {
                match next(&mut body, &mut start).await {
                    None => {}
                    Some(Rest::Ended) => return (opening.end(&start), Some(Rest::Ended)),
                    Some(rest) => return (Opened::Content, Some(rest)),
                }
                match opening.look(&start) {
                    // Without the whole buffer into which it was read, which would be held as long.
                    Opened::NeedMore if !is_copy => (start, is_copy) = (Bytes::copy_from_slice(&start), true),
                    Opened::NeedMore => {}
                    opened => return (opened, None),
                }
            }
        };
        let (opened, mut ended) = alarm.limit(until, reading).await.unwrap_or((Opened::Content, None));
        let failure = match opened {
            Opened::Failed(complaint) => Some(complaint),
            Opened::Content | Opened::NeedMore => None,
        };
        if failure.is_some() {
            // With its end, which is there already as a rule, the connection can be used again.
            while ended.is_none() && start.len() < MOST_BEHIND {
                let Some(came) = next(&mut body, &mut start).now_or_never() else { break };
                ended = came;
            }
        }
        Self { start, rest: ended.unwrap_or(Rest::Coming(body)), failure }
    }
}

/// Adds the next piece to `start`, or says how the body has ended.
async fn next(body: &mut AnswerBody, start: &mut Bytes) -> Option<Rest> {
    match body.frame().await {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(piece) if start.is_empty() => *start = piece,
            Ok(piece) => {
                let mut both = BytesMut::from(std::mem::take(start));
                both.extend_from_slice(&piece);
                *start = both.freeze();
            }
            // Trailers.
            Err(_) => return Some(Rest::Ended),
        },
        Some(Err(_)) => return Some(Rest::Broken),
        None => return Some(Rest::Ended),
    }
    None
}
