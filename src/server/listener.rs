//! Accepting connections, and letting them end.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{BoxError, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::warn;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: u32 = 4096;
/// How long a client may take over the head of a request; hyper's own default has no effect without a timer. The time
/// runs between two requests too, and some clients keep idle connections for 90 s.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// The words with which HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
const HTTP2_PING: Duration = Duration::from_secs(30);
/// What HTTP/2 clients may have under way on one connection.
const HTTP2_STREAMS: u32 = 1024;
/// The pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long after the last accept a request may still come over a connection that carries none: its client may have
/// sent it before it could know. Each such answer ends its connection.
const LATE_REQUEST: Duration = Duration::from_millis(500);
/// How long answers to the last call may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    allowed: Arc<Semaphore>,
    connections: Connections,
}

/// The connections of a listener that are open.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn opened(&self) -> OpenConnection {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }
}

/// One of them, as long as it is open.
struct OpenConnection(Connections);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the connections ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Each by itself.
    All,
    /// So many were cut.
    Cut(usize),
}

/// When a listener stops, and how.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Answers end their connections, so that clients look for another server before they have to.
    pub keeping: CancellationToken,
    /// No more connections; those there are finish their requests.
    pub accepting: CancellationToken,
    /// Requests that have no answer yet get one that says so.
    pub last_call: CancellationToken,
    /// Everything is cut.
    pub abort: CancellationToken,
    /// The time from the end of accepting to the last call.
    pub drain: Duration,
}

impl Stop {
    /// Comes when a connection that carries no request is not worth keeping any more.
    async fn no_late_request(&self) {
        self.accepting.cancelled().await;
        tokio::time::sleep(LATE_REQUEST).await;
    }
}

/// What goes on over a connection when no more HTTP is spoken on it. It counts as that connection, to its end.
#[derive(Clone, Default)]
pub struct Afterwards(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Afterwards {
    /// From the answer on that is given now.
    pub(super) fn goes_on(&self, with: BoxFuture<'static, ()>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(with);
    }

    fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whoever answers the requests of a listener.
pub trait Answers: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;

    /// The answer to a request from this address, over a connection that may go on without HTTP.
    fn answer(
        &self,
        peer: IpAddr,
        request: Request<Incoming>,
        after: &Afterwards,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

impl Answers for Router {
    type Body = axum::body::Body;

    async fn answer(
        &self,
        _: IpAddr,
        request: Request<Incoming>,
        _: &Afterwards,
    ) -> Response<axum::body::Body> {
        let Ok(answer) = self.clone().oneshot(request).await;
        answer
    }
}

impl Listener {
    /// Binds `address`; the port may be 0.
    ///
    /// # Errors
    /// Why the socket can't be had: the port is busy, say.
    pub fn bind(address: SocketAddr, max_connections: NonZeroUsize) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart finds its port again, though old connections linger in TIME_WAIT.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let allowed = Arc::new(Semaphore::new(max_connections.get().min(Semaphore::MAX_PERMITS)));
        Ok(Self { socket: socket.listen(BACKLOG)?, allowed, connections: Connections::default() })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Its connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves until told to stop, and then until the connections have ended.
    pub async fn serve(self, answers: impl Answers, stop: Stop) -> Drained {
        let tasks = TaskTracker::new();
        let (protocols, stop) = (Arc::new((http1(), http2())), Arc::new(stop));
        let attend = |stream, peer: SocketAddr, permit| {
            let held = (permit, self.connections.opened());
            let attended =
                attend(stream, peer.ip(), answers.clone(), Arc::clone(&protocols), Arc::clone(&stop));
            tasks.spawn(async move {
                let _held = held;
                attended.await;
            });
        };
        loop {
            tokio::select! {
                accepted = self.accept() => if let Some((stream, peer, permit)) = accepted {
                    attend(stream, peer, permit);
                },
                () = stop.accepting.cancelled() => break,
            }
        }
        // To those who wait to be accepted it looks as if they were.
        for (stream, peer) in backlog(self.socket) {
            let Ok(permit) = Arc::clone(&self.allowed).try_acquire_owned() else { break };
            attend(stream, peer, permit);
        }
        tasks.close();
        let ended = tasks.wait();
        tokio::pin!(ended);
        tokio::select! {
            () = &mut ended => return Drained::All,
            () = tokio::time::sleep(stop.drain) => {}
            () = stop.abort.cancelled() => {}
        }
        stop.last_call.cancel();
        if tokio::time::timeout(LAST_WORDS, &mut ended).await.is_ok() {
            return Drained::All;
        }
        let cut = tasks.len();
        stop.abort.cancel();
        ended.await;
        Drained::Cut(cut)
    }

    async fn accept(&self) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.allowed).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, peer)) => Some((stream, peer, permit)),
            Err(error) => {
                // The client that hung up before we answered is not worth a line.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None
            }
        }
    }
}

/// The connections that were made and not accepted yet.
fn backlog(socket: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    // Asked as it is, since the runtime's socket may not have heard of them.
    let socket = socket.into_std().ok();
    std::iter::from_fn(move || socket.as_ref()?.accept().ok()).filter_map(|(stream, peer)| {
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    })
}

/// Answers what comes over a connection, to its end.
async fn attend(
    stream: TcpStream,
    peer: IpAddr,
    answers: impl Answers,
    protocols: Arc<(http1::Builder, http2::Builder<TokioExecutor>)>,
    stop: Arc<Stop>,
) {
    // An answer in pieces must not wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    // Until it says something it has no protocol, and hyper no time for it.
    let protocol = tokio::select! {
        spoken = tokio::time::timeout(HEADER_TIMEOUT, protocol_of(&stream)) => spoken.ok().flatten(),
        () = stop.no_late_request() => None,
    };
    let Some(protocol) = protocol else { return };
    let after = Afterwards::default();
    let service = service_fn(|request| {
        let (answers, stop, after) = (answers.clone(), Arc::clone(&stop), after.clone());
        async move {
            let is_last = request.version() < Version::HTTP_2;
            let mut answer = answers.answer(peer, request, &after).await;
            let goes_on = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if is_last && !goes_on && stop.keeping.is_cancelled() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let (http1, http2) = &*protocols;
    // In boxes, since this future keeps room for every value that it ever moves.
    match protocol {
        Protocol::Http1 => {
            let connection = http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let connection = Box::pin(connection);
            finish(connection, |it| it.graceful_shutdown(), stop.no_late_request(), &stop.abort).await;
            if let Some(going_on) = after.take() {
                tokio::select! {
                    () = going_on => {}
                    () = stop.abort.cancelled() => {}
                }
            }
        }
        Protocol::Http2 => {
            let connection = Box::pin(http2.serve_connection(TokioIo::new(stream), service));
            // Its clients are told which requests were too late.
            finish(connection, |it| it.graceful_shutdown(), stop.accepting.cancelled(), &stop.abort).await;
        }
    }
}

/// Drives a connection to its end, which is near once `told` has come, and there with `abort`.
async fn finish<C: Future>(
    mut connection: Pin<Box<C>>,
    shut_down: impl FnOnce(Pin<&mut C>),
    told: impl Future<Output = ()>,
    abort: &CancellationToken,
) {
    let mut abort = pin!(abort.cancelled());
    // How a client's connection ends is its own affair; requests are logged one by one.
    tokio::select! {
        _ = &mut connection => return,
        () = told => {}
        () = &mut abort => return,
    }
    shut_down(connection.as_mut());
    tokio::select! {
        _ = connection => {}
        () = abort => {}
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

/// Waits until it is clear which protocol a client speaks. `None`: it left.
async fn protocol_of(stream: &TcpStream) -> Option<Protocol> {
    let mut start = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return None,
            Ok(n) if !PREFACE.starts_with(&start[..n]) => return Some(Protocol::Http1),
            Ok(n) if n == PREFACE.len() => return Some(Protocol::Http2),
            // Part of a preface, in two packets. What was peeked at stays, so nothing tells of the rest.
            Ok(_) => match stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(PREFACE_PAUSE).await,
                _ => return None,
            },
        }
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS);
    // A client that vanished without a word holds its connection no longer than this.
    builder.keep_alive_interval(HTTP2_PING).keep_alive_timeout(HTTP2_PING);
    builder
}
