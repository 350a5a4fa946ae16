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
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT},
    request::Parts,
};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_util::{future::FutureExt as _, sync::CancellationToken};

use super::{
    Afterwards, AnswerBody, Connections, Settings, auth, cors,
    error::Refusal,
    framing, lists, peer,
    way::{To, Way},
};
use crate::{
    client::{Clients, Stranger},
    clock::Clock,
    forward::{
        Alarm, BodyLimits, ForwardError, Forwarder, Inbound, LONGEST_MODEL, LeasedBody, Misrouted,
        ReplayMemory, Router, Routes, Tunnel, UploadRest, headers::REQUEST_ID,
    },
    pool::Snapshot,
    redact,
    telemetry::{
        Metrics,
        access::{Access, Ending},
    },
    types::{Dialect, PoolName},
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

/// Everything a request needs.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    clients: Clients,
    router: Router,
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
        router: Router,
        metrics: Arc<Metrics>,
        clock: Clock,
        stages: Stages,
        connections: Connections,
    ) -> Self {
        let memory = ReplayMemory::new(settings.replay_memory);
        let started = clock.mono();
        Self { settings, clients, router, memory, metrics, clock, started, stages, connections }
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

    /// Every pool as it is now.
    pub(super) fn snapshots(&self) -> Vec<(PoolName, Snapshot)> {
        let pools = self.router.pools().iter().map(Forwarder::pool);
        pools.map(|pool| (pool.name().clone(), pool.snapshot())).collect()
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
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

/// What a request asks for.
#[expect(clippy::large_enum_variant, reason = "nearly every request is of the large kind")]
enum Asked {
    /// An upstream's answer.
    Answer(Inbound),
    /// The models that there are, in this dialect.
    Models(Dialect),
    /// The pools that there are.
    Providers,
}

/// A request that has been read, and what is needed to answer it.
struct Read {
    access: Access,
    asked: Result<Asked, Refusal>,
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
    way: Way,
    request: Request<Incoming>,
    after: &Afterwards,
) -> impl Future<Output = Response<AnswerBody>> {
    let spoken = way.told_in(proxy.router.routes());
    let reading = Box::pin(read(proxy, peer, id, way, request));
    let serving = async move {
        let Read { access, mut asked, rest, alarm } = reading.await;
        match &mut asked {
            Ok(Asked::Answer(inbound)) => serve(proxy, inbound, spoken, access, alarm, after).await,
            Ok(Asked::Models(spoken)) => Box::pin(list_models(proxy, *spoken, access)).await,
            Ok(Asked::Providers) => {
                let names = proxy.router.pools().iter().map(|pool| pool.pool().name().to_string());
                list(&names.collect(), access)
            }
            Err(refusal) => {
                if let Some(rest) = rest {
                    Box::pin(linger(rest)).await;
                }
                refuse(proxy, refusal.clone(), spoken, access)
            }
        }
    };
    serving
        .with_cancellation_token(&proxy.stages.last_call)
        .map(move |answer| answer.unwrap_or_else(|| Refusal::shutting_down().answer(spoken, id)))
}

async fn read(proxy: &Proxy, peer: IpAddr, id: &HeaderValue, way: Way, request: Request<Incoming>) -> Read {
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
    let asked = understand(proxy, way, parts, &mut body, client, &mut alarm).await;
    if let Ok(Asked::Answer(inbound)) = &asked {
        access.read(inbound.model(), inbound.length());
        if let Some(counter) = inbound.counter() {
            access.reads_on(counter);
        }
    }
    let rest = body.filter(|_| asked.is_err() && lingers);
    Read { access, asked, rest, alarm }
}

fn serve(
    proxy: &Proxy,
    inbound: &mut Inbound,
    spoken: Dialect,
    access: Access,
    alarm: Alarm,
    after: &Afterwards,
) -> impl Future<Output = Response<AnswerBody>> {
    let (rest, client) = (inbound.rest(), inbound.take_client());
    // Boxed only then: who waits for a key has no need of the room.
    proxy.router.run(inbound, access, alarm).then(move |answer| {
        let answer = answered(proxy, answer, spoken, client, after);
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
    spoken: Dialect,
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
                let tunnel = proxy.router.tunnel(&head.headers, body);
                if let Some((tunnel, client)) = tunnel.zip(client) {
                    after.goes_on(Box::pin(go_on(proxy, tunnel, *client)));
                }
                return Response::from_parts(head, AnswerBody::Own(axum::body::Body::empty()));
            }
            answer.map(|body| AnswerBody::Passed(Box::new(body)))
        }
        Err((error, access)) => refuse(proxy, error.into(), spoken, access),
    }
}

/// Whether it goes to an API of which nothing is known.
fn to_unknown_api(way: &Way, routes: &Routes) -> bool {
    matches!(way.to, To::Pool(pool) if routes.native(pool) == Dialect::Generic)
}

async fn list_models(proxy: &Proxy, spoken: Dialect, access: Access) -> Response<AnswerBody> {
    let routes = proxy.router.routes();
    if !routes.pools().any(|pool| routes.speaks(pool, spoken)) {
        let error = ForwardError::Misrouted(Misrouted::NotSpoken { dialect: spoken });
        return refuse(proxy, error.into(), spoken, access);
    }
    list(&lists::models(spoken, proxy.router.models(spoken).await), access)
}

/// A list of our own.
fn list(list: &Value, mut access: Access) -> Response<AnswerBody> {
    let text = list.to_string();
    access.head(StatusCode::OK.as_u16());
    access.sent(text.len());
    access.ended(Ending::Complete);
    let mut response = Response::new(AnswerBody::Own(text.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
    way: Way,
    parts: Parts,
    body: &mut Option<Incoming>,
    client: IpAddr,
    alarm: &mut Alarm,
) -> Result<Asked, Refusal> {
    let path = parts.uri.path();
    // Elsewhere it would stand in every log on the way for nothing.
    let query = parts.uri.query().filter(|_| way.takes_key_in_query());
    let who = proxy.clients.admit(auth::credentials(&parts.headers, query), client);
    let who = who.map_err(|stranger| match stranger {
        Stranger::Unknown => Refusal::unauthorized(),
        Stranger::TwoCredentials => Refusal::two_credentials(),
    })?;
    if proxy.clients.is_open() && cors::is_foreign_page(&proxy.settings.cors, &parts.headers) {
        return Err(Refusal::foreign_page());
    }
    framing::check(&parts)?;
    let mut target = way.target(path, parts.uri.query())?;
    let is_model = |model: &str| model.len() <= LONGEST_MODEL && proxy.loggable(model) == model;
    if target.model().is_some_and(|model| !is_model(&model)) {
        // Models are kept for a while, and logged.
        target = target.without_model();
    }
    if to_unknown_api(&way, proxy.router.routes()) {
        // What its bodies say is its own business.
        target = target.without_model();
    }
    let to = match way.to {
        To::Any => None,
        To::Pool(pool) => Some(pool),
        To::Unknown { start, end } => return Err(Refusal::no_such_pool(&proxy.loggable(&path[start..end]))),
        To::Nowhere => return Err(Refusal::no_such_route()),
        To::Providers => None,
    };
    proxy.clients.count(proxy.clock.mono(), Some(client))?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    match way.to {
        To::Providers if reads => return Ok(Asked::Providers),
        To::Providers => return Err(Refusal::no_such_route()),
        To::Any if reads && way.is_catalog(path) && !proxy.router.lists_one_upstream() => {
            return Ok(Asked::Models(way.spoken));
        }
        _ => {}
    }
    let limits = BodyLimits { held: proxy.settings.body_limit, uploads: proxy.settings.upload_limit };
    let may_ask = proxy.router.may_ask_for_usage();
    let inbound = Inbound::read(parts, body, target, limits, &proxy.memory, may_ask, alarm);
    Ok(Asked::Answer(inbound.await?.from_client(who).to(to)))
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

fn refuse(proxy: &Proxy, refusal: Refusal, spoken: Dialect, mut access: Access) -> Response<AnswerBody> {
    access.refused(refusal.code());
    let id = HeaderValue::from_str(access.id()).unwrap_or(HeaderValue::from_static(""));
    let mut response = refusal.answer(spoken, &id);
    if proxy.settings.debug_headers {
        response.headers_mut().extend(names(&access));
    }
    response
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
