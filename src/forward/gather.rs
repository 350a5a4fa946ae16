//! Reading a client's body: whole where it can be held, else its beginning.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    alarm::Alarm,
    inbound::{BodyLimit, BodyLimits, InboundError, ReplayMemory},
    upload::{Beginning, ClientBody},
};
use crate::provider::{BadForm, FormReader};

/// How long a client may be silent in the middle of a body.
pub(super) const BODY_GAP: Duration = Duration::from_secs(60);
/// How long a body may take in all; one that is not held, until it may be asked to keep a pace.
pub(super) const BODY_TIME: Duration = Duration::from_secs(600);
/// So much is held of a body that was declared too long to be held …
const BEGINNING: usize = 1 << 20;
/// … and of one without a declared length: if it ends before, it is held.
const UNDECLARED: usize = 1 << 20;

/// What was read of a body.
pub(super) enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// Its beginning, and what a form says in that.
    Begun(Box<(Beginning, Option<FormReader>)>),
}

/// Reads `body`, which is left there if it is not understood. `form` is asked to look at it if it isn't held.
pub(super) async fn gather<B>(
    body: &mut Option<B>,
    limits: BodyLimits,
    by: BodyLimit,
    form: impl FnOnce() -> Result<Option<FormReader>, BadForm>,
    memory: &ReplayMemory,
    alarm: &mut Alarm,
) -> Result<(Gathered, Option<OwnedSemaphorePermit>), InboundError>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let limit = limits.of(by);
    let too_large = InboundError::TooLarge { limit, by };
    let Some(coming) = body else { return Ok((Gathered::Whole(Bytes::new()), None)) };
    let declared = coming.size_hint();
    if declared.lower() > limit {
        return Err(too_large);
    }
    if coming.is_end_stream() {
        return Ok((Gathered::Whole(Bytes::new()), None));
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX).min(limits.held);
    let exact = declared.exact().and_then(|length| usize::try_from(length).ok());
    let room = match (by, exact) {
        (BodyLimit::Bodies, _) => most,
        (BodyLimit::Uploads, Some(length)) if length <= most => most,
        (BodyLimit::Uploads, Some(_)) => most.min(BEGINNING),
        (BodyLimit::Uploads, None) => most.min(UNDECLARED),
    };
    // Of a body that is not held no more is read than its model needs.
    let is_long = declared.exact().is_some_and(|length| length > room as u64);
    let mut look = Some(form);
    let mut form = match look.take_if(|_| is_long) {
        Some(look) => look()?,
        None => None,
    };
    // Held as it comes: what was only announced takes no memory.
    let mut held = memory.hold(0)?;
    let mut counted = 0;
    let end = alarm.clock().mono() + BODY_TIME;
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let next = loop {
        let next = alarm.limit(end.min(alarm.clock().mono() + BODY_GAP), coming.frame());
        let frame = match next.await {
            Some(Some(Ok(frame))) => frame,
            Some(Some(Err(_))) => return Err(InboundError::Broken),
            Some(None) => return Ok((Gathered::Whole(first.unwrap_or_else(|| all.freeze())), Some(held))),
            None => return Err(InboundError::Stalled),
        };
        // Trailers of a request end here.
        let Ok(mut data) = frame.into_data() else { continue };
        let before = first.as_ref().map_or(0, Bytes::len) + all.len();
        let length = before + data.len();
        if length as u64 > limit {
            return Err(too_large);
        }
        let beyond = (length > room).then(|| data.split_off(room - before));
        let length = before + data.len();
        if length > counted {
            held.merge(memory.hold(length - counted)?);
            counted = length;
        }
        if let Some(form) = &mut form {
            form.push(data.clone())?;
        }
        // A body of one piece is never copied.
        match (first.take(), all.is_empty()) {
            (None, true) => first = Some(data),
            (Some(before), _) => {
                all.reserve(exact.map_or(before.len() + data.len(), |exact| exact.min(room)));
                all.extend_from_slice(&before);
                all.extend_from_slice(&data);
            }
            (None, false) => all.extend_from_slice(&data),
        }
        let is_full = is_long && length >= room;
        if beyond.is_some() || is_full || form.as_ref().is_some_and(|form| form.model().is_some()) {
            break beyond;
        }
    };
    let Some(rest) = body.take() else { return Err(InboundError::Broken) };
    let rest = ClientBody::new(rest.map_err(Into::into));
    let beginning = first.unwrap_or_else(|| all.freeze());
    if let Some(look) = look {
        form = look()?;
        if let Some(form) = &mut form {
            form.push(beginning.clone())?;
        }
    }
    let length = declared.exact();
    Ok((
        Gathered::Begun(Box::new((Beginning { held: beginning, next, rest, length, limit }, form))),
        Some(held),
    ))
}
