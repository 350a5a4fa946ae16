//! The handler: who calls, how often, what for; then on its way.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONTENT_LENGTH, EXPECT},
    request::Parts,
};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::{Settings, auth, cors, error::Refusal, peer};
use crate::{
    client::Clients,
    clock::Clock,
    forward::{Forwarder, Inbound, REQUEST_ID, ReplayMemory, Target},
    telemetry::{Metrics, access::Access},
};

/// The key id of the last attempt, with `debug_headers`.
pub(super) const DEBUG_KEY: HeaderName = HeaderName::from_static("x-key-cycle-key");
/// How many attempts there were, with `debug_headers`.
pub(super) const DEBUG_ATTEMPTS: HeaderName = HeaderName::from_static("x-key-cycle-attempts");

/// How much of a refused body is read.
const LINGER_BYTES: usize = 64 << 20;
/// And for how long.
const LINGER: Duration = Duration::from_secs(5);

/// First segments of the OpenAI API: taken without `/v1` too, as older clients send them.
const WITHOUT_VERSION: [&str; 20] = [
    "assistants",
    "audio",
    "batches",
    "chat",
    "completions",
    "containers",
    "conversations",
    "embeddings",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "rerank",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

/// Everything a request needs.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    clients: Clients,
    forwarder: Forwarder,
    memory: ReplayMemory,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// Cancelled when the time to finish requests is over.
    last_call: CancellationToken,
}

impl Proxy {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        settings: Settings,
        clients: Clients,
        forwarder: Forwarder,
        metrics: Arc<Metrics>,
        clock: Clock,
        last_call: CancellationToken,
    ) -> Self {
        let memory = ReplayMemory::new(settings.replay_memory);
        Self { settings, clients, forwarder, memory, metrics, clock, last_call }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }
}

/// The id that a request goes by, from the outermost layer inwards.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) HeaderValue);

pub(super) async fn handle(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let extensions = request.extensions();
    let id = extensions.get::<RequestId>().and_then(|id| id.0.to_str().ok()).unwrap_or_default();
    let peer = extensions.get::<peer::Peer>().map(|peer| peer.0);
    let client = peer.map(|peer| peer::address(peer, request.headers(), &proxy.settings.trusted_proxies));
    let (metrics, last_call) = (Arc::clone(&proxy.metrics), proxy.last_call.clone());
    let (method, path) = (request.method().clone(), request.uri().path());
    let access = Access::begin(metrics, proxy.clock, id, method, path, client, last_call);
    tokio::select! {
        answer = serve(&proxy, request, client, access) => answer,
        () = proxy.last_call.cancelled() => Refusal::shutting_down().into_response(),
    }
}

async fn serve(proxy: &Proxy, request: Request, client: Option<IpAddr>, mut access: Access) -> Response {
    let (parts, mut body) = request.into_parts();
    let lingers = lingers(&parts);
    let inbound = match understand(proxy, parts, &mut body, client).await {
        Ok(inbound) => inbound,
        Err(refusal) => {
            if lingers {
                linger(body).await;
            }
            return refuse(proxy, refusal, access);
        }
    };
    access.model(inbound.model());
    match proxy.forwarder.run(inbound, access).await {
        Ok(mut answer) => {
            if proxy.settings.debug_headers {
                let named = names(answer.body().access());
                answer.headers_mut().extend(named);
            }
            answer.map(Body::new)
        }
        Err((error, access)) => refuse(proxy, error.into(), access),
    }
}

/// Everything that can be refused before a key is asked for.
async fn understand(
    proxy: &Proxy,
    parts: Parts,
    body: &mut Body,
    client: Option<IpAddr>,
) -> Result<Inbound, Refusal> {
    if !proxy.clients.admits(auth::credentials(&parts.headers)) {
        return Err(Refusal::unauthorized());
    }
    if proxy.clients.is_open() && cors::is_foreign_page(&proxy.settings.cors, &parts.headers) {
        return Err(Refusal::foreign_page());
    }
    // The whole path is looked at, before its first segment decides where it goes.
    let uri = &parts.uri;
    Target::new(uri.path(), None)?;
    let path = below_version(uri.path()).ok_or_else(Refusal::no_such_route)?;
    let target = Target::new(path, uri.query())?;
    proxy.clients.count(proxy.clock.now().mono, client)?;
    Ok(Inbound::read(parts, body, target, proxy.settings.body_limit, &proxy.memory).await?)
}

/// Whether the rest of a refused request's body is read. To a client that waits to be told to go on, reading is telling.
fn lingers(parts: &Parts) -> bool {
    let waits = parts.headers.contains_key(EXPECT) && parts.headers.contains_key(CONTENT_LENGTH);
    parts.version < Version::HTTP_2 && !waits
}

/// Reads what a client still sends, within bounds: most read no answer before they have written everything, and a
/// connection that closes with bytes unread is reset, which takes the answer along.
async fn linger(mut body: Body) {
    let reading = async {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(length) else { return };
            left = less;
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

fn refuse(proxy: &Proxy, refusal: Refusal, mut access: Access) -> Response {
    access.refused(refusal.status(), refusal.code());
    let mut response = refusal.into_response();
    if proxy.settings.debug_headers {
        response.headers_mut().extend(names(&access));
    }
    response
}

/// What follows the version segment: `/chat/completions` of `/v1/chat/completions`.
fn below_version(path: &str) -> Option<&str> {
    if let Some(below) = path.strip_prefix("/v1") {
        return (below.is_empty() || below.starts_with('/')).then_some(below);
    }
    let first = path.strip_prefix('/')?.split('/').next()?;
    WITHOUT_VERSION.contains(&first).then_some(path)
}

/// The client's id for the request if it can be logged as it is, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| {
        let text = format!("req_{:032x}", fastrand::u128(..));
        HeaderValue::from_str(&text).expect("hex digits are a header value")
    })
}

/// The key of the last attempt and the number of attempts.
fn names(access: &Access) -> HeaderMap {
    let (key, attempts) = access.attempts();
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(DEBUG_ATTEMPTS, HeaderValue::from(attempts));
    if let Some(key) = key.and_then(|key| HeaderValue::from_str(key.as_str()).ok()) {
        headers.insert(DEBUG_KEY, key);
    }
    headers
}
