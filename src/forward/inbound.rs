//! The client's request, read and understood as far as routing needs.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE, request::Parts};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    alarm::Alarm,
    asking,
    coding::{UnknownCoding, decoded},
    headers::strip_request,
    naming::MODELS,
    routes::PoolIndex,
    target::Target,
};
use crate::{
    provider::{
        self, Endpoint, SniffError, Spending, UnclearModel, demand, model_in_form, sniff, with_usage_asked,
    },
    types::{ClientId, Demand, Dialect},
};

/// How long a client may be silent in the middle of a body.
const BODY_GAP: Duration = Duration::from_secs(60);
/// How long a body may take in all.
const BODY_TIME: Duration = Duration::from_secs(600);
/// No model's name is longer. It is kept for a while, and logged.
pub const LONGEST_MODEL: usize = 256;
const STEP: usize = 1024;
/// A larger body is most of the buffers that it stands in.
const LARGEST_COPY: usize = 64 << 10;

/// A request, ready to be sent as often as need be.
#[derive(Debug)]
pub struct Inbound {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) model: Option<Box<str>>,
    pub(super) stream: bool,
    pub(super) demand: Demand,
    pub(super) endpoint: Endpoint,
    pub(super) spending: Spending,
    pub(super) may_repeat: bool,
    /// Whether it asks for the usage of its stream, and the client doesn't.
    pub(super) asks_for_usage: bool,
    pub(super) client: ClientId,
    /// The pool that it asks for; `None`: whichever serves its model.
    pub(super) to: Option<PoolIndex>,
    /// Whether another pool may serve it if that can't.
    pub(super) falls_back: bool,
    /// Given back when the answer is delivered, and with it the body.
    held: Option<OwnedSemaphorePermit>,
}

/// Why a request is not understood.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// Larger than the limit, declared or counted.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The memory for bodies is used up.
    #[error("too many request bodies are held")]
    NoMemory,
    /// It says JSON and isn't, or is ambiguous.
    #[error(transparent)]
    Json(#[from] SniffError),
    /// Its coding is unknown, so that the model can't be read.
    #[error("its Content-Encoding is unknown")]
    Coding,
    /// `model` is longer than any model's name.
    #[error("`model` is longer than {LONGEST_MODEL} bytes")]
    ModelTooLong,
    /// A form gives `model` more than once with different values, or as something other than a name.
    #[error("`model` must be given once, as a name of at most {LONGEST_MODEL} bytes")]
    ModelUnclear,
    /// It stopped in the middle.
    #[error("the body stalled")]
    Stalled,
    /// It ended early or is badly framed.
    #[error("the body ended early or is badly framed")]
    Broken,
}

/// The memory that request bodies may take while they may have to be sent again.
#[derive(Debug, Clone)]
pub struct ReplayMemory {
    steps: Arc<Semaphore>,
}

impl ReplayMemory {
    /// So many bytes for all requests together.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { steps: Arc::new(Semaphore::new((bytes / STEP).min(Semaphore::MAX_PERMITS))) }
    }

    fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, InboundError> {
        let steps = u32::try_from(bytes.div_ceil(STEP)).map_err(|_| InboundError::NoMemory)?;
        Arc::clone(&self.steps).try_acquire_many_owned(steps).map_err(|_| InboundError::NoMemory)
    }
}

impl Inbound {
    /// Reads the body, at most `limit` bytes of it, and what it says about the model. If it `may_ask`, the usage of a
    /// stream is asked for in it.
    ///
    /// # Errors
    /// [`InboundError`], before anything was sent to an upstream.
    pub async fn read<B>(
        parts: Parts,
        body: B,
        target: Target,
        limit: usize,
        memory: &ReplayMemory,
        may_ask: bool,
        alarm: &mut Alarm,
    ) -> Result<Self, InboundError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (body, held) = collect(body, limit, memory, alarm).await?;
        let endpoint = classify(&parts.method, &target);
        let spending = provider::spending(endpoint, target.path());
        let may_repeat = endpoint.may_repeat_after_write(parts.headers.contains_key("idempotency-key"));
        let may_ask = may_ask && asking::may_ask(endpoint, target.path(), &parts.headers);
        let Understood { model, stream, demand, asking } =
            if target.is_nameless() && target.spoken() == Dialect::Generic {
                // Nothing is known of what it says.
                Understood::default()
            } else {
                understand(&parts.headers, &body, limit, may_ask)?
            };
        let model = model.map(|model| match model.strip_prefix(MODELS) {
            Some(name) if target.spoken() == Dialect::Gemini => Box::from(name),
            _ => model,
        });
        let mut headers = parts.headers;
        strip_request(&mut headers);
        let model = target.model().map(Cow::into_owned).map(String::into_boxed_str).or(model);
        let stream = stream || target.is_stream();
        let asks_for_usage = asking.is_some();
        let body = asking.map_or(body, |asking| asking::ask(asking, &mut headers));
        Ok(Self {
            method: parts.method,
            target,
            headers,
            body,
            model,
            stream,
            demand,
            endpoint,
            spending,
            may_repeat,
            asks_for_usage,
            client: ClientId::default(),
            to: None,
            falls_back: false,
            held,
        })
    }

    /// A request of our own, without a body, for whoever serves `model`.
    pub(super) fn of_ours(method: Method, target: Target, headers: HeaderMap, model: &str) -> Self {
        let endpoint = provider::classify(&method, target.path());
        Self {
            method,
            target,
            headers,
            body: Bytes::new(),
            model: Some(Box::from(model)),
            stream: false,
            demand: Demand::default(),
            endpoint,
            spending: Spending::Nothing,
            asks_for_usage: false,
            may_repeat: true,
            client: ClientId::default(),
            to: None,
            falls_back: false,
            held: None,
        }
    }

    /// The same as a request of this client.
    #[must_use]
    pub fn from_client(mut self, client: ClientId) -> Self {
        self.client = client;
        self
    }

    /// The same as a request for this pool.
    #[must_use]
    pub fn to(mut self, pool: Option<PoolIndex>) -> Self {
        self.to = pool;
        self
    }

    /// The dialect that its client speaks.
    #[must_use]
    pub fn spoken(&self) -> Dialect {
        self.target.spoken()
    }

    /// The model it names.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Counts so many bytes more against the memory for bodies.
    pub(super) fn hold_more(&mut self, bytes: usize) -> Result<(), InboundError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let memory = ReplayMemory { steps: Arc::clone(held.semaphore()) };
        held.merge(memory.hold(bytes)?);
        Ok(())
    }

    /// Whether it can be sent more than once, to another pool if need be.
    pub(super) fn may_be_sent_again(&self) -> bool {
        true
    }

    /// Copies what it holds of the connection's buffers, of which a small request keeps a large part, so that they are
    /// free while it waits for a key.
    pub(super) fn settle_down(&mut self) {
        if self.body.len() <= LARGEST_COPY {
            self.body = Bytes::copy_from_slice(&self.body);
        }
        let length = self.headers.values().map(HeaderValue::len).sum();
        let mut all = BytesMut::with_capacity(length);
        for value in self.headers.values() {
            all.extend_from_slice(value.as_bytes());
        }
        let mut all = all.freeze();
        for value in self.headers.values_mut() {
            if let Ok(mut copy) = HeaderValue::from_maybe_shared(all.split_to(value.len())) {
                copy.set_sensitive(value.is_sensitive());
                *value = copy;
            }
        }
    }

    /// The length of its body.
    #[must_use]
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// The kind of endpoint, as permissions of keys know them.
    pub(super) fn purpose(&self) -> &str {
        self.target.purpose()
    }
}

async fn collect<B>(
    mut body: B,
    limit: usize,
    memory: &ReplayMemory,
    alarm: &mut Alarm,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), InboundError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = InboundError::TooLarge { limit };
    let declared = body.size_hint();
    if usize::try_from(declared.lower()).map_or(true, |lower| lower > limit) {
        return Err(too_large);
    }
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let exact = declared.exact().and_then(|length| usize::try_from(length).ok());
    // Held as it comes: what was only announced takes no memory.
    let mut held = memory.hold(0)?;
    let mut counted = 0;
    let end = alarm.clock().mono() + BODY_TIME;
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    loop {
        let next = alarm.limit(end.min(alarm.clock().mono() + BODY_GAP), body.frame());
        let frame = match next.await {
            Some(Some(Ok(frame))) => frame,
            Some(Some(Err(_))) => return Err(InboundError::Broken),
            Some(None) => break,
            None => return Err(InboundError::Stalled),
        };
        // Trailers of a request end here.
        let Ok(data) = frame.into_data() else { continue };
        let length = first.as_ref().map_or(0, Bytes::len) + all.len() + data.len();
        if length > limit {
            return Err(too_large);
        }
        if length > counted {
            held.merge(memory.hold(length - counted)?);
            counted = length;
        }
        // A body of one piece is never copied.
        match (first.take(), all.is_empty()) {
            (None, true) => first = Some(data),
            (Some(before), _) => {
                all.reserve(exact.unwrap_or_else(|| before.len() + data.len()));
                all.extend_from_slice(&before);
                all.extend_from_slice(&data);
            }
            (None, false) => all.extend_from_slice(&data),
        }
    }
    Ok((first.unwrap_or_else(|| all.freeze()), Some(held)))
}

/// What a body says.
#[derive(Default)]
struct Understood {
    model: Option<Box<str>>,
    /// Whether a stream is asked for.
    stream: bool,
    demand: Demand,
    /// The body with the question for its usage.
    asking: Option<Vec<u8>>,
}

/// What a request does. Of an API that we don't know, a POST may do anything.
fn classify(method: &Method, target: &Target) -> Endpoint {
    match provider::classify(method, target.path()) {
        Endpoint::Inference if target.spoken() == Dialect::Generic => Endpoint::Create,
        endpoint => endpoint,
    }
}

/// A media type without its parameters, in lower case.
pub(super) fn essence(media: &str) -> String {
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn understand(
    headers: &HeaderMap,
    body: &Bytes,
    limit: usize,
    may_ask: bool,
) -> Result<Understood, InboundError> {
    if body.is_empty() {
        return Ok(Understood::default());
    }
    let text =
        decoded(headers, body, limit.saturating_add(1)).map_err(|UnknownCoding| InboundError::Coding)?;
    if text.len() > limit {
        return Err(InboundError::TooLarge { limit });
    }
    let body = &match text {
        Cow::Borrowed(_) => body.clone(),
        Cow::Owned(text) => Bytes::from(text),
    };
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = essence(media);
    let sniffed = match essence.as_str() {
        "multipart/form-data" => {
            let model = model_in_form(media, body).map_err(|UnclearModel| InboundError::ModelUnclear)?;
            return Ok(Understood { model: model.map(String::into_boxed_str), ..Understood::default() });
        }
        "application/json" => sniff(body)?,
        other if other.ends_with("+json") => sniff(body)?,
        // Some post JSON without saying so, and then it counts all the same.
        _ if body.trim_ascii_start().starts_with(b"{") => match sniff(body) {
            Err(SniffError::NotJson { .. }) => return Ok(Understood::default()),
            sniffed => sniffed?,
        },
        _ => return Ok(Understood::default()),
    };
    if sniffed.model.as_ref().is_some_and(|model| model.len() > LONGEST_MODEL) {
        return Err(InboundError::ModelTooLong);
    }
    Ok(Understood {
        asking: if may_ask { with_usage_asked(body, &sniffed) } else { None },
        model: sniffed.model.map(Cow::into_owned).map(String::into_boxed_str),
        stream: sniffed.stream,
        demand: demand(body, sniffed.output),
    })
}
