//! Accepting connections, and letting them end.

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tracing::warn;

use super::peer::Peer;

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
/// How long answers to the last call may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    connections: Arc<Semaphore>,
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
    /// No more connections; those there are finish their requests.
    pub accepting: CancellationToken,
    /// Requests that have no answer yet get one that says so.
    pub last_call: CancellationToken,
    /// Everything is cut.
    pub abort: CancellationToken,
    /// The time between the first two.
    pub drain: Duration,
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
        let connections = Arc::new(Semaphore::new(max_connections.get().min(Semaphore::MAX_PERMITS)));
        Ok(Self { socket: socket.listen(BACKLOG)?, connections })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until told to stop, and then until the connections have ended.
    pub async fn serve(self, routes: Router, stop: Stop) -> Drained {
        let tasks = TaskTracker::new();
        let graceful = GracefulShutdown::new();
        let protocols = protocols();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = stop.accepting.cancelled() => break,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let routes = routes.clone();
            let service = tower::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer.ip()));
                routes.clone().oneshot(request)
            });
            let (watcher, protocols, stop) = (graceful.watcher(), protocols.clone(), stop.clone());
            tasks.spawn(async move {
                let _permit = permit;
                // Until it says something it has no protocol, and hyper no time for it.
                tokio::select! {
                    spoken = tokio::time::timeout(HEADER_TIMEOUT, has_spoken(&stream)) => {
                        if spoken != Ok(true) {
                            return;
                        }
                    }
                    () = stop.accepting.cancelled() => return,
                }
                let service = TowerToHyperService::new(service);
                let connection = protocols.serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // How a client's connection ends is its own affair; requests are logged one by one.
                    _ = watcher.watch(connection.into_owned()) => {}
                    () = stop.abort.cancelled() => {}
                }
            });
        }
        drop(self.socket);
        tasks.close();
        let ended = async {
            graceful.shutdown().await;
            tasks.wait().await;
        };
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
        let permit = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                // An answer in pieces must not wait for the client's delayed ACK.
                let _ = stream.set_nodelay(true);
                Some((stream, peer, permit))
            }
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

/// Waits until it is clear which protocol a client speaks. False: it left.
async fn has_spoken(stream: &TcpStream) -> bool {
    let mut start = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(n) if n == PREFACE.len() || !PREFACE.starts_with(&start[..n]) => return true,
            // Part of a preface, in two packets. What was peeked at stays, so nothing tells of the rest.
            Ok(_) => tokio::time::sleep(PREFACE_PAUSE).await,
        }
    }
}

/// HTTP/1.1, and HTTP/2 to whoever begins with its preface.
fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS);
    // A client that vanished without a word holds its connection no longer than this.
    builder.http2().keep_alive_interval(HTTP2_PING).keep_alive_timeout(HTTP2_PING);
    builder
}
