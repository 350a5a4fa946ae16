//! The handler: who calls, how often, what for; then on its way.

use std::{
    borrow::Cow,
    future::ready,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::Either};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, EXPECT},
    request::Parts,
};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_util::{future::FutureExt as _, sync::CancellationToken};

use super::{Afterwards, AnswerBody, Connections, Settings, auth, cors, error::Refusal, framing, peer};
use crate::{
    client::Clients,
    clock::Clock,
    forward::{
        Alarm, BodyLimits, ForwardError, Forwarder, Inbound, LeasedBody, ReplayMemory, Target, Tunnel,
        UploadRest, headers::REQUEST_ID,
    },
    redact,
    telemetry::{Metrics, access::Access},
};

/// The key id of the last attempt, with `debug_headers`.
pub(super) const DEBUG_KEY: HeaderName = HeaderName::from_static("x-key-cycle-key");
/// How many attempts there were, with `debug_headers`.
pub(super) const DEBUG_ATTEMPTS: HeaderName = HeaderName::from_static("x-key-cycle-attempts");

/// Why it was which key, with `debug_headers`.
pub(super) const DEBUG_WHY: HeaderName = HeaderName::from_static("x-key-cycle-why");

/// How much of a refused body is read.
const LINGER_BYTES: usize = 64 << 20;
/// And for how long.
const LINGER: Duration = Duration::from_secs(5);

/// After so much silence the system asks whether a client still lives, where another protocol is spoken.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

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
    started: Instant,
    stages: Stages,
    connections: Connections,
}

/// How far the way to the end has been gone.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    /// Cancelled when we are asked to stop: then we are no longer ready.
    pub stopping: CancellationToken,
    /// Cancelled when the time to finish requests is over.
    pub last_call: CancellationToken,
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
        stages: Stages,
        connections: Connections,
    ) -> Self {
        let memory = ReplayMemory::new(settings.replay_memory);
        let started = clock.mono();
        Self { settings, clients, forwarder, memory, metrics, clock, started, stages, connections }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.mono()
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stages.stopping.is_cancelled()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.open()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// A path as it may be logged: somebody may have put a key into it.
    fn loggable<'p>(&self, path: &'p str) -> Cow<'p, str> {
        let may_be_key =
            |piece: &&str| piece.len() >= 8 && !piece.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let is_between = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_' | '~' | '+');
        let pieces = |path: &'p str| path.split(is_between).filter(may_be_key);
        if pieces(path).next().is_none() {
            return path.into();
        }
        let clean = redact::scrub(path.as_bytes(), &[]);
        let mut clean = String::from_utf8_lossy(&clean).into_owned();
        for piece in pieces(path).filter(|piece| self.clients.has(piece.as_bytes())) {
            clean = clean.replace(piece, redact::MARK);
        }
        clean.into()
    }
}

/// A request that has been read, and what is needed to answer it.
struct Read {
    access: Access,
    inbound: Result<Inbound, Refusal>,
    /// The rest of a refused request's body, if that is to be read.
    rest: Option<Incoming>,
    alarm: Alarm,
}

/// Answers a request. What it holds while it waits for a key is kept small: no block holds the request a second time,
/// and the room that reading it takes is given back.
pub(super) fn handle(
    proxy: &Proxy,
    peer: IpAddr,
    id: &HeaderValue,
    request: Request<Incoming>,
    after: &Afterwards,
) -> impl Future<Output = Response<AnswerBody>> {
    let reading = Box::pin(read(proxy, peer, id, request));
    let serving = async move {
        let Read { access, mut inbound, rest, alarm } = reading.await;
        match &mut inbound {
            Ok(inbound) => serve(proxy, inbound, access, alarm, after).await,
            Err(refusal) => {
                if let Some(rest) = rest {
                    Box::pin(linger(rest)).await;
                }
                refuse(proxy, refusal.clone(), access)
            }
        }
    };
    serving
        .with_cancellation_token(&proxy.stages.last_call)
        .map(|answer| answer.unwrap_or_else(|| Refusal::shutting_down().into()))
}

async fn read(proxy: &Proxy, peer: IpAddr, id: &HeaderValue, request: Request<Incoming>) -> Read {
    let client = peer::address(peer, request.headers(), &proxy.settings.trusted_proxies);
    let (metrics, last_call) = (Arc::clone(&proxy.metrics), proxy.stages.last_call.clone());
    let (method, path) = (request.method().clone(), proxy.loggable(request.uri().path()));
    let mut access = Access::begin(metrics, proxy.clock, id.clone(), method, &path, Some(client), last_call);
    if proxy.settings.debug_headers {
        access.tell_why();
    }
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    let lingers = lingers(&parts);
    let mut alarm = Alarm::new(proxy.clock);
    let inbound = understand(proxy, parts, &mut body, client, &mut alarm).await;
    if let Ok(inbound) = &inbound {
        access.read(inbound.model(), inbound.length());
        if let Some(counter) = inbound.counter() {
            access.reads_on(counter);
        }
    }
    let rest = body.filter(|_| inbound.is_err() && lingers);
    Read { access, inbound, rest, alarm }
}

fn serve(
    proxy: &Proxy,
    inbound: &mut Inbound,
    access: Access,
    alarm: Alarm,
    after: &Afterwards,
) -> impl Future<Output = Response<AnswerBody>> {
    let (rest, client) = (inbound.rest(), inbound.take_client());
    // Boxed only then: who waits for a key has no need of the room.
    proxy.forwarder.run(inbound, access, alarm).then(move |answer| {
        let answer = answered(proxy, answer, client, after);
        let refused = !answer.status().is_success();
        match rest.filter(|_| refused).and_then(UploadRest::take) {
            Some(rest) => Either::Left(Box::pin(linger(rest).map(|()| answer))),
            None => Either::Right(ready(answer)),
        }
    })
}

fn answered(
    proxy: &Proxy,
    answer: Result<Response<LeasedBody>, (ForwardError, Access)>,
    client: Option<Box<OnUpgrade>>,
    after: &Afterwards,
) -> Response<AnswerBody> {
    match answer {
        Ok(mut answer) => {
            if proxy.settings.debug_headers {
                let named = names(answer.body().access());
                answer.headers_mut().extend(named);
            }
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let (head, body) = answer.into_parts();
                let tunnel = proxy.forwarder.tunnel(&head.headers, body);
                if let Some((tunnel, client)) = tunnel.zip(client) {
                    after.goes_on(Box::pin(go_on(proxy, tunnel, *client)));
                }
                return Response::from_parts(head, AnswerBody::Own(axum::body::Body::empty()));
            }
            answer.map(|body| AnswerBody::Passed(Box::new(body)))
        }
        Err((error, access)) => refuse(proxy, error.into(), access),
    }
}

/// What goes on between a client that has been told to go on and its upstream.
fn go_on(proxy: &Proxy, tunnel: Tunnel, client: OnUpgrade) -> impl Future<Output = ()> + use<> {
    let Settings { frame_limit, shutdown_delay, drain, .. } = proxy.settings;
    let Stages { stopping, last_call } = proxy.stages.clone();
    async move {
        let Ok(client) = client.await else { return };
        let Ok(hyper::upgrade::Parts { io, read_buf, .. }) = client.downcast::<TokioIo<TcpStream>>() else {
            return;
        };
        let client = io.into_inner();
        // Who vanished without a word would hold a key for ever.
        let _ = SockRef::from(&client).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
        let leave = async {
            stopping.cancelled().await;
            // So that both sides have heard of it, and answered, before they are cut.
            tokio::time::sleep(shutdown_delay + drain / 2).await;
        };
        tunnel.run(client, read_buf, frame_limit, leave, last_call.cancelled()).await;
    }
}

/// Everything that can be refused before a key is asked for.
async fn understand(
    proxy: &Proxy,
    parts: Parts,
    body: &mut Option<Incoming>,
    client: IpAddr,
    alarm: &mut Alarm,
) -> Result<Inbound, Refusal> {
    let who = proxy.clients.admit(auth::credentials(&parts.headers), client);
    let who = who.ok_or_else(Refusal::unauthorized)?;
    if proxy.clients.is_open() && cors::is_foreign_page(&proxy.settings.cors, &parts.headers) {
        return Err(Refusal::foreign_page());
    }
    framing::check(&parts)?;
    // The whole path is looked at, before its first segment decides where it goes.
    let target = Target::new(parts.uri.path(), parts.uri.query())?;
    let version = version_of(target.path()).ok_or_else(Refusal::no_such_route)?;
    let target = target.below(version);
    proxy.clients.count(proxy.clock.mono(), Some(client))?;
    let limits = BodyLimits { held: proxy.settings.body_limit, uploads: proxy.settings.upload_limit };
    let inbound = Inbound::read(parts, body, target, limits, &proxy.memory, alarm);
    Ok(inbound.await?.from_client(who))
}

/// Whether the rest of a refused request's body is read. To a client that waits to be told to go on, reading is telling.
fn lingers(parts: &Parts) -> bool {
    let waits = parts.headers.contains_key(EXPECT) && parts.headers.contains_key(CONTENT_LENGTH);
    parts.version < Version::HTTP_2 && !waits
}

/// Reads what a client still sends, within bounds: most read no answer before they have written everything, and a
/// connection that closes with bytes unread is reset, which takes the answer along.
async fn linger(mut body: impl Body<Data = Bytes> + Unpin) {
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

fn refuse(proxy: &Proxy, refusal: Refusal, mut access: Access) -> Response<AnswerBody> {
    access.refused(refusal.code());
    let mut response = Response::from(refusal);
    if proxy.settings.debug_headers {
        response.headers_mut().extend(names(&access));
    }
    response
}

/// How long the version segment is that a path begins with: `/v1` of `/v1/chat/completions`.
fn version_of(path: &str) -> Option<usize> {
    const VERSION: &str = "/v1";
    if let Some(below) = path.strip_prefix(VERSION) {
        return (below.is_empty() || below.starts_with('/')).then_some(VERSION.len());
    }
    let first = path.strip_prefix('/')?.split('/').next()?;
    WITHOUT_VERSION.contains(&first).then_some(0)
}

/// The client's id for the request if it can be logged as it is, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(usable).cloned().unwrap_or_else(|| {
        let mut text = *b"req_00000000000000000000000000000000";
        for (digit, random) in text[4..].chunks_exact_mut(2).zip(fastrand::u128(..).to_ne_bytes()) {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            digit.copy_from_slice(&[DIGITS[usize::from(random >> 4)], DIGITS[usize::from(random & 15)]]);
        }
        HeaderValue::from_bytes(&text).expect("hex digits are a header value")
    })
}

/// The key of the last attempt, the number of attempts, and why it was which key.
fn names(access: &Access) -> HeaderMap {
    let (key, attempts) = access.attempts();
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(DEBUG_ATTEMPTS, HeaderValue::from(attempts));
    if let Some(key) = key.and_then(|key| HeaderValue::from_str(key.as_str()).ok()) {
        headers.insert(DEBUG_KEY, key);
    }
    if let Some(why) = access.why().and_then(|why| HeaderValue::from_str(why).ok()) {
        headers.insert(DEBUG_WHY, why);
    }
    headers
}
