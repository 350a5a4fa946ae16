//! The way to the upstream: connections, and what became of an attempt to use one.
//!
//! This is hyper's client, not one with policies of its own: it follows no redirect, decodes nothing, and repeats
//! nothing but what never left us because a kept connection had been closed.

mod connect;
mod gate;
mod kept;
mod outgoing;
mod scrubbed;

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use connect::Connector;
pub use connect::TlsError;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING},
    uri::{self, PathAndQuery, Scheme},
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::{
    client::{legacy::Client, proxy::matcher::Matcher},
    rt::{TokioExecutor, TokioTimer},
};
pub use kept::Switched;
use kept::{Exchanged, Kept, LinkBody};
pub use outgoing::RequestBody;
use rustls::pki_types::CertificateDer;
pub(super) use scrubbed::Needles;
use scrubbed::Scrubbed;

use crate::{clock::Clock, types::BaseUrl};

/// HTTP/2 connections per upstream: one carries about a hundred streams, which share its window.
const HTTP2_CONNECTIONS: usize = 4;
/// How long a connection that carries nothing is kept for the next request.
const IDLE: Duration = Duration::from_secs(90);

/// How connections to upstreams are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a connect (DNS, TCP, TLS) may take.
    pub connect_timeout: Duration,
    /// Further certificate authorities, beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Whether HTTP/2 is offered to upstreams.
    pub http2: bool,
    /// Forward proxies on the way. `None`: the way is direct.
    pub proxies: Option<Arc<Matcher>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), extra_roots: Vec::new(), http2: false, proxies: None }
    }
}

/// Connections to upstreams, kept for the next request.
#[derive(Debug)]
pub struct Transport {
    way: Way,
    /// Makes those on which another protocol is asked for, in HTTP/1.1.
    upgrades: Arc<Kept>,
}

enum Way {
    /// HTTP/1.1, directly.
    Direct(Arc<Kept>),
    /// Whatever the upstream speaks, perhaps through a proxy: a client has one HTTP/2 connection per origin.
    Any { clients: Vec<Client<Connector, RequestBody>>, next: AtomicUsize, proxies: Option<Arc<Matcher>> },
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(kept) => f.debug_tuple("Direct").field(kept).finish(),
            Self::Any { proxies, .. } => {
                f.debug_struct("Any").field("proxies", proxies).finish_non_exhaustive()
            }
        }
    }
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub struct AnswerBody(Source);

#[derive(Debug)]
enum Source {
    Direct(LinkBody),
    Any(Incoming),
    Scrubbed(Box<Scrubbed>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection, or one that was gone before anything was written to it.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// It broke after something was written.
    #[error("connection broke: {0}")]
    Broken(String),
}

impl Transport {
    /// Prepares connections.
    ///
    /// # Errors
    /// If TLS can't be set up: the system's certificate store is unreadable, or an extra root is unusable.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, TlsError> {
        let connector = Connector::new(settings, settings.http2)?;
        if !settings.http2 && settings.proxies.is_none() {
            let kept = Kept::new(connector, clock);
            return Ok(Self { way: Way::Direct(Arc::clone(&kept)), upgrades: kept });
        }
        let upgrades = Kept::new(Connector::new(settings, false)?.tunneling(), clock);
        let client = || {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(connector.clone())
        };
        let count = if settings.http2 { HTTP2_CONNECTIONS } else { 1 };
        let way = Way::Any {
            clients: (0..count).map(|_| client()).collect(),
            next: AtomicUsize::new(0),
            proxies: settings.proxies.clone(),
        };
        Ok(Self { way, upgrades })
    }

    /// Asks the host of `base` for another protocol, on a connection of its own: the head of the answer, and the
    /// connection if it switches.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn upgrade(
        &self,
        base: &BaseUrl,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
    ) -> Result<(Response<AnswerBody>, Option<Switched>), Fault> {
        let mut request = Request::new(RequestBody::from(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = target.into();
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, base.host().clone());
        let Exchanged { answer, switched } = self.upgrades.exchange_once(base, request).await?;
        Ok((answer.map(|body| AnswerBody(Source::Direct(body))), switched))
    }

    /// Sends one request to the host of `base` and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Fault`], which knows whether anything can have reached the upstream.
    pub async fn send(
        &self,
        base: &BaseUrl,
        method: Method,
        target: PathAndQuery,
        mut headers: HeaderMap,
        body: RequestBody,
    ) -> Result<Response<AnswerBody>, Fault> {
        if body.is_end_stream() {
            if expects_length(&method) {
                // hyper says nothing about a body that is empty, and some upstreams then answer 411.
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        } else if body.size_hint().exact().is_none() {
            // Of a method that seldom has a body hyper would send none.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let answer = match &self.way {
            Way::Direct(kept) => {
                request.headers_mut().insert(HOST, base.host().clone());
                *request.uri_mut() = target.into();
                kept.send(base, request).await?.map(|body| AnswerBody(Source::Direct(body)))
            }
            Way::Any { clients, next, proxies } => {
                let url = whole(base, target);
                // Through a proxy, TLS is a tunnel, and what opens it carries the credential.
                let proxy = proxies.as_ref().filter(|_| url.scheme() == Some(&Scheme::HTTP));
                if let Some(credential) = proxy
                    .and_then(|proxies| proxies.intercept(&url))
                    .as_ref()
                    .and_then(|proxy| proxy.basic_auth())
                {
                    request.headers_mut().insert(PROXY_AUTHORIZATION, credential.clone());
                }
                *request.uri_mut() = url;
                let client = &clients[next.fetch_add(1, Ordering::Relaxed) % clients.len()];
                match client.request(request).await {
                    Ok(answer) => answer.map(|body| AnswerBody(Source::Any(body))),
                    Err(error) if error.is_connect() => return Err(Fault::Unreachable(innermost(&error))),
                    Err(error) => return Err(Fault::of(&error)),
                }
            }
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for another protocol, so nobody is there to speak it.
            return Err(Fault::Broken("protocols were switched unasked".to_owned()));
        }
        Ok(answer)
    }
}

/// The URL of `target` at the host of `base`.
fn whole(base: &BaseUrl, target: PathAndQuery) -> Uri {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(base.scheme().clone());
    parts.authority = Some(base.authority().clone());
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).expect("it has a scheme, an authority, and a path")
}

/// Whether a request without a body says so (RFC 9110 §8.6).
fn expects_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// What the innermost cause says: that says most, and none holds the URL.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl Fault {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut unsent = false;
        let mut cause = Some(error);
        while let Some(inner) = cause {
            if let Some(hyper) = inner.downcast_ref::<hyper::Error>() {
                unsent |= hyper.is_canceled();
            }
            if let Some(h2) = inner.downcast_ref::<h2::Error>() {
                unsent |= h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            }
            cause = inner.source();
        }
        let text = innermost(error);
        if unsent { Self::Unreachable(text) } else { Self::Broken(text) }
    }
}

impl AnswerBody {
    /// The same without these.
    pub(super) fn without(self, needles: Needles) -> Self {
        Self(Source::Scrubbed(Box::new(Scrubbed::new(self, needles))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Source::Direct(body) => Pin::new(body).poll_frame(context),
            Source::Any(body) => Pin::new(body).poll_frame(context),
            Source::Scrubbed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Direct(body) => body.is_end_stream(),
            Source::Any(body) => body.is_end_stream(),
            Source::Scrubbed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Direct(body) => body.size_hint(),
            Source::Any(body) => body.size_hint(),
            Source::Scrubbed(body) => body.size_hint(),
        }
    }
}
