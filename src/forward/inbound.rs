//! The client's request, read and understood as far as routing needs.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, request::Parts};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    alarm::Alarm,
    asking,
    gather::{Gathered, gather},
    headers::strip_request,
    meaning::{Kind, Meaning},
    naming::MODELS,
    routes::PoolIndex,
    target::Target,
    transport::RequestBody,
    upgrade::{BadUpgrade, Wish},
    upload::{Upload, UploadRest},
};
use crate::{
    provider::{self, BadForm, Endpoint, SniffError, Spending},
    types::{ClientId, Demand, Dialect},
};

/// Says that a repetition is the same request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
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
    /// The body, or what is held of it.
    pub(super) body: Bytes,
    /// The rest of a body that is not held.
    upload: Option<Arc<Upload>>,
    /// What it asks to be spoken in place of HTTP.
    wish: Option<Box<Wish>>,
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
        limit: u64,
        /// Which limit it is.
        by: BodyLimit,
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
    /// It says that it is a form and isn't, or says unclearly which model is meant.
    #[error(transparent)]
    Form(#[from] BadForm),
    /// A form asks a model and names none.
    #[error("The form names no `model`")]
    NoModel,
    /// A form that is too long to be held names no model in its beginning.
    #[error(
        "the form is too large to be held, and its beginning names no `model`: put `model` before the file"
    )]
    ModelBehindFile,
    /// A form that is too long to be held is coded, and so its model can't be read.
    #[error("the form is too large to be decoded: send it without Content-Encoding")]
    CodedForm,
    /// It asks for another protocol, and not as one asks.
    #[error(transparent)]
    Upgrade(#[from] BadUpgrade),
    /// Its query names two models.
    #[error("the query names more than one `model`")]
    TwoModels,
    /// It stopped in the middle.
    #[error("the body stalled")]
    Stalled,
    /// It ended early or is badly framed.
    #[error("the body ended early or is badly framed")]
    Broken,
}

/// How long bodies may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// JSON, and every body that is held so that it can be sent again.
    pub held: usize,
    /// Bodies that are no JSON.
    pub uploads: u64,
}

/// Which of the limits applies to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// That of all bodies.
    Bodies,
    /// That of uploads.
    Uploads,
}

impl BodyLimits {
    pub(super) fn of(self, by: BodyLimit) -> u64 {
        match by {
            BodyLimit::Bodies => self.held as u64,
            BodyLimit::Uploads => self.uploads,
        }
    }
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

    pub(super) fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, InboundError> {
        let steps = u32::try_from(bytes.div_ceil(STEP)).map_err(|_| InboundError::NoMemory)?;
        Arc::clone(&self.steps).try_acquire_many_owned(steps).map_err(|_| InboundError::NoMemory)
    }
}

impl Inbound {
    /// Reads the body, or the beginning of one that is too long to be held, and what it says about the model. What is
    /// not understood is left in `body`. If it `may_ask`, the usage of a stream is asked for in it.
    ///
    /// # Errors
    /// [`InboundError`], before anything was sent to an upstream.
    pub async fn read<B>(
        mut parts: Parts,
        body: &mut Option<B>,
        target: Target,
        limits: BodyLimits,
        memory: &ReplayMemory,
        may_ask: bool,
        alarm: &mut Alarm,
    ) -> Result<Self, InboundError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let wish = Wish::of(&mut parts)?;
        if wish.is_some() && !body.as_ref().is_none_or(Body::is_end_stream) {
            return Err(BadUpgrade::Body.into());
        }
        // Nothing is known of what it says.
        let is_unknown = target.is_nameless() && target.spoken() == Dialect::Generic;
        let kind = if is_unknown { Kind::Unknown } else { Kind::of(&parts.headers) };
        let endpoint = classify(&parts.method, &target);
        let spending = provider::spending(endpoint, target.path());
        let may_ask = may_ask && asking::may_ask(endpoint, target.path(), &parts.headers);
        let wants = FormModel::of(endpoint, &target);
        let form = || kind.form(&parts.headers);
        let (gathered, held) = gather(body, limits, kind.limit(), form, memory, alarm).await?;
        let (body, upload, meaning) = match gathered {
            Gathered::Whole(body) => {
                let meaning = Meaning::of(kind, &parts.headers, &body, limits, may_ask)?;
                if kind.is_form() && meaning.model.is_none() && wants == FormModel::Always {
                    return Err(InboundError::NoModel);
                }
                (body, None, meaning)
            }
            Gathered::Begun(begun) => {
                let (beginning, form) = *begun;
                let meaning = Meaning::of_beginning(&kind, &beginning.held, form.as_ref(), limits)?;
                if kind.is_form() && meaning.model.is_none() && wants != FormModel::Unasked {
                    let plain = form.is_some();
                    return Err(if plain { InboundError::ModelBehindFile } else { InboundError::CodedForm });
                }
                let (held, upload) = Upload::new(beginning, parts.version < Version::HTTP_2, alarm.clock());
                (held, Some(upload), meaning)
            }
        };
        let Meaning { mut model, mut stream, demand, asking } = meaning;
        if wish.is_some() {
            // Its head comes before the work, as that of a stream does.
            (model, stream) = (model_in_query(&target)?, true);
        }
        let may_repeat = endpoint.may_repeat_after_write(parts.headers.contains_key(&IDEMPOTENCY_KEY));
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
            upload,
            wish,
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
            upload: None,
            wish: None,
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
        self.upload.is_none()
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

    /// The length of its body, or of what is held of it.
    #[must_use]
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// Counts what comes of a body that is not held.
    #[must_use]
    pub fn counter(&self) -> Option<Arc<AtomicU64>> {
        self.upload.as_ref().map(|upload| upload.counter())
    }

    /// The rest of a body that is not held.
    #[must_use]
    pub fn rest(&self) -> Option<UploadRest> {
        self.upload.clone().map(UploadRest)
    }

    /// The rest of a body that is not held.
    pub(super) fn upload(&self) -> Option<&Arc<Upload>> {
        self.upload.as_ref()
    }

    /// What it asks to be spoken in place of HTTP.
    pub(super) fn wish(&self) -> Option<&Wish> {
        self.wish.as_deref()
    }

    /// The client's connection, if another protocol may be spoken on it.
    #[must_use]
    pub fn take_client(&mut self) -> Option<Box<OnUpgrade>> {
        self.wish.as_mut()?.take_client().map(Box::new)
    }

    /// The body of one more attempt.
    pub(super) fn body(&self) -> RequestBody {
        match &self.upload {
            None => self.body.clone().into(),
            Some(upload) => RequestBody::Streamed(upload.send(self.body.clone())),
        }
    }

    /// How the client has spoilt its own body, while that was sent on.
    pub(super) fn failure(&self) -> Option<InboundError> {
        self.upload.as_ref()?.failure()
    }

    /// Whether it can't be sent again: some of its body is gone.
    pub(super) fn is_spent(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.is_spent())
    }

    /// The kind of endpoint, as permissions of keys know them.
    pub(super) fn purpose(&self) -> &str {
        self.target.purpose()
    }
}

/// The model that a query names.
fn model_in_query(target: &Target) -> Result<Option<Box<str>>, InboundError> {
    let mut names = target.values("model").filter(|name| !name.is_empty());
    let Some(name) = names.next() else { return Ok(None) };
    if names.any(|other| other != name) {
        return Err(InboundError::TwoModels);
    }
    if name.len() > LONGEST_MODEL {
        return Err(InboundError::ModelTooLong);
    }
    Ok(Some(name.into()))
}

/// Whether a form must name a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FormModel {
    /// It must.
    Always,
    /// The upstream has one for those that name none.
    IfSmall,
    /// It is about something else.
    Unasked,
}

impl FormModel {
    fn of(endpoint: Endpoint, target: &Target) -> Self {
        match target.purpose() {
            // It stands in the path.
            _ if target.model().is_some() => Self::Unasked,
            "audio" if endpoint == Endpoint::Inference => Self::Always,
            "images" if endpoint == Endpoint::Inference => Self::IfSmall,
            _ => Self::Unasked,
        }
    }
}

/// What a request does. Of an API that we don't know, a POST may do anything.
fn classify(method: &Method, target: &Target) -> Endpoint {
    match provider::classify(method, target.path()) {
        Endpoint::Inference if target.spoken() == Dialect::Generic => Endpoint::Create,
        endpoint => endpoint,
    }
}
