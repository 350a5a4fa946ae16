//! The way to the upstream: connections, and what became of an attempt to use one.

use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header::CONTENT_LENGTH};
use url::Url;

/// HTTP/2 connections per upstream: one carries about a hundred streams, which share its window.
const HTTP2_CONNECTIONS: usize = 4;

/// How connections to upstreams are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a connect (DNS, TCP, TLS) may take.
    pub connect_timeout: Duration,
    /// Further certificate authorities, beside the system's.
    pub extra_roots: Vec<reqwest::Certificate>,
    /// Whether HTTP/2 is offered to upstreams.
    pub http2: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), extra_roots: Vec::new(), http2: false }
    }
}

/// Connections to upstreams, kept for the next request.
#[derive(Debug)]
pub struct Transport {
    /// One, unless HTTP/2 is on: a client has one HTTP/2 connection per origin.
    clients: Vec<reqwest::Client>,
    next: AtomicUsize,
}

/// The body of an answer, as it comes.
pub type AnswerBody = reqwest::Body;

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
    pub fn new(settings: &Settings) -> Result<Self, reqwest::Error> {
        let client = || {
            let mut builder = reqwest::Client::builder()
                .connect_timeout(settings.connect_timeout)
                // The key must not follow a redirect to another host, and the client decides what to do about one.
                .redirect(reqwest::redirect::Policy::none())
                // The attempt loop alone decides what is sent again.
                .retry(reqwest::retry::never())
                .tcp_nodelay(true)
                .tls_certs_merge(settings.extra_roots.iter().cloned());
            if !settings.http2 {
                builder = builder.http1_only();
            }
            builder.build()
        };
        let count = if settings.http2 { HTTP2_CONNECTIONS } else { 1 };
        Ok(Self {
            clients: (0..count).map(|_| client()).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// Sends one request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Fault`], which knows whether anything can have reached the upstream.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<AnswerBody>, Fault> {
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        } else if expects_length(request.method()) {
            // hyper says nothing about a body that is empty, and some upstreams then answer 411.
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let client = match self.clients.as_slice() {
            [only] => only,
            several => &several[self.next.fetch_add(1, Ordering::Relaxed) % several.len()],
        };
        match client.execute(request).await {
            Ok(answer) => Ok(answer.into()),
            Err(error) => Err(Fault::of(&error)),
        }
    }
}

/// Whether a request without a body says so (RFC 9110 §8.6).
fn expects_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

impl Fault {
    fn of(error: &reqwest::Error) -> Self {
        let mut unsent = error.is_connect();
        // The innermost cause says most, and none of them holds the URL.
        let mut text = String::new();
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(hyper) = inner.downcast_ref::<hyper::Error>() {
                unsent |= hyper.is_canceled();
            }
            if let Some(h2) = inner.downcast_ref::<h2::Error>() {
                unsent |= h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            }
            text = inner.to_string();
            cause = inner.source();
        }
        if unsent { Self::Unreachable(text) } else { Self::Broken(text) }
    }
}
