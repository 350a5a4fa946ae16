//! HTTP/1.1 connections that are kept from one request to the next.
//!
//! A connection is driven by whoever uses it: the task that waits for an answer, and then the body that reads it. So
//! a request is one task from its first byte to its last, nothing is handed from task to task, and an answer that
//! nobody wants any more ends with its connection. One that carries nothing is watched by a single task for all, which
//! lets go of those that the upstream has closed or nobody has used for a while.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, Connection, Parts, SendRequest},
    },
};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tower::Service as _;

use super::{
    Fault,
    connect::{Connector, Stream},
    gate::Gate,
    innermost,
    outgoing::RequestBody,
};
use crate::{
    clock::Clock,
    types::{BaseUrl, Origin},
};

/// How long a connection that carries nothing is kept.
const IDLE: Duration = Duration::from_secs(90);
/// How often those are looked through …
const SWEEP: Duration = Duration::from_secs(10);
/// … and the pause before it where one of them has moved, so that many at once are one sweep.
const SETTLE: Duration = Duration::from_millis(50);

/// The connections to all hosts.
pub(super) struct Kept {
    connector: Connector,
    clock: Clock,
    hosts: RwLock<HashMap<Origin, Arc<Host>>>,
    watch: Arc<Watch>,
}

/// Those to one host that carry nothing, the last used last.
#[derive(Debug, Default)]
struct Host {
    idle: Mutex<Vec<Link>>,
}

/// What is told when one that carries nothing moves, also before anybody waits for it.
#[derive(Debug, Default)]
struct Watch {
    begun: AtomicBool,
    moved: Notify,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.moved.notify_one();
    }
}

/// One connection.
struct Link {
    gate: Gate,
    sender: SendRequest<RequestBody>,
    connection: Pin<Box<Connection<MaybeHttpsStream<Stream>, RequestBody>>>,
    used: Instant,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("used", &self.used).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new(connector: Connector, clock: Clock) -> Arc<Self> {
        Arc::new(Self { connector, clock, hosts: RwLock::default(), watch: Arc::default() })
    }

    /// Sends a request, whose target is a path, and waits for the head of its answer.
    pub(super) async fn send(
        self: &Arc<Self>,
        base: &BaseUrl,
        mut request: Request<RequestBody>,
    ) -> Result<Response<LinkBody>, Fault> {
        let host = self.host(base.origin());
        loop {
            let kept = host.take();
            let reused = kept.is_some();
            let link = match kept {
                Some(link) => link,
                // Boxed: it is rare, and its room is in nobody else's way.
                None => Box::pin(self.connect(base)).await?,
            };
            match link.exchange(request).await {
                Ok((answer, link)) => {
                    self.watch_over();
                    let (clock, watch) = (self.clock, Arc::clone(&self.watch));
                    return Ok(answer.map(|incoming| LinkBody { incoming, link, host, clock, watch }));
                }
                // It was closed while we were about to use it, and nothing of the request has left us.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if reused => request = unsent,
                    Some(_) => return Err(Fault::Unreachable(innermost(&failed.into_error()))),
                    None => return Err(Fault::of(&failed.into_error())),
                },
            }
        }
    }

    /// Sends a request on a connection of its own, on which the upstream may speak another protocol afterwards.
    pub(super) async fn exchange_once(
        self: &Arc<Self>,
        base: &BaseUrl,
        request: Request<RequestBody>,
    ) -> Result<Exchanged, Fault> {
        let Link { gate, mut sender, mut connection, used } = Box::pin(self.connect(base)).await?;
        let (mut answer, mut ended) = (pin!(sender.try_send_request(request)), false);
        let answer = poll_fn(|context| {
            gate.poll(context.waker(), |context| {
                ended = ended || connection.as_mut().poll(context).is_ready();
                answer.as_mut().poll(context)
            })
        });
        let answer = answer.await.map_err(|mut failed| match failed.take_message() {
            Some(_) => Fault::Unreachable(innermost(&failed.into_error())),
            None => Fault::of(&failed.into_error()),
        })?;
        let (mut link, mut switched) = (None, None);
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !ended && let Err(error) = connection.as_mut().await {
                return Err(Fault::of(&error));
            }
            let Parts { io, read_buf, .. } = Pin::into_inner(connection).into_parts();
            switched = Some(Switched { io: Box::new(TokioIo::new(io)), start: read_buf });
        } else if !ended {
            link = Some(Link { gate, sender, connection, used });
        }
        let (clock, watch, host) = (self.clock, Arc::clone(&self.watch), Arc::default());
        let answer = answer.map(|incoming| LinkBody { incoming, link, host, clock, watch });
        Ok(Exchanged { answer, switched })
    }

    fn host(&self, origin: &Origin) -> Arc<Host> {
        if let Some(host) = self.hosts.read().unwrap_or_else(PoisonError::into_inner).get(origin) {
            return Arc::clone(host);
        }
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(origin.clone()).or_default())
    }

    async fn connect(&self, base: &BaseUrl) -> Result<Link, Fault> {
        let unreachable = |error: &dyn std::error::Error| Fault::Unreachable(innermost(error));
        let url = Uri::builder()
            .scheme(base.scheme().clone())
            .authority(base.authority().clone())
            .path_and_query("/")
            .build()
            .map_err(|error| unreachable(&error))?;
        let mut connector = self.connector.clone();
        poll_fn(|context| connector.poll_ready(context)).await.map_err(|error| unreachable(&*error))?;
        let stream = connector.call(url).await.map_err(|error| unreachable(&*error))?;
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| unreachable(&error))?;
        Ok(Link { gate: Gate::new(), sender, connection: Box::pin(connection), used: self.clock.mono() })
    }

    /// Sees to it that somebody watches those that carry nothing.
    fn watch_over(self: &Arc<Self>) {
        if self.watch.begun.load(Ordering::Relaxed) || self.watch.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let (this, watch) = (Arc::downgrade(self), Arc::clone(&self.watch));
        let watching = async move {
            loop {
                if tokio::time::timeout(SWEEP, watch.moved.notified()).await.is_ok() {
                    tokio::time::sleep(SETTLE).await;
                }
                let Some(kept) = Weak::upgrade(&this) else { return };
                kept.sweep(&Arc::clone(&watch).into());
            }
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with what it watches")]
        drop(tokio::spawn(watching));
    }

    /// Lets go of those that are closed or old.
    fn sweep(&self, watcher: &Waker) {
        let now = self.clock.mono();
        let hosts: Vec<_> =
            self.hosts.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for host in hosts {
            host.lock()
                .retain_mut(|link| now.saturating_duration_since(link.used) < IDLE && link.is_free(watcher));
        }
    }
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last used of those that are still open.
    fn take(&self) -> Option<Link> {
        loop {
            let mut link = self.lock().pop()?;
            if link.is_free(Waker::noop()) {
                return Some(link);
            }
        }
    }
}

impl Link {
    /// Whether it is open and carries nothing. `watcher` is told when that may have changed.
    fn is_free(&mut self, watcher: &Waker) -> bool {
        let Self { gate, connection, .. } = self;
        gate.poll(watcher, |context| connection.as_mut().poll(context)).is_pending() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer. The connection comes back with it unless it has ended.
    async fn exchange(
        self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Self>), TrySendError<Request<RequestBody>>> {
        let Self { gate, mut sender, connection, used } = self;
        let mut connection = Some(connection);
        let answer = {
            let mut answer = pin!(sender.try_send_request(request));
            poll_fn(|context| {
                gate.poll(context.waker(), |context| {
                    // The connection does the work, and tells the answer how it went.
                    if let Some(working) = &mut connection
                        && working.as_mut().poll(context).is_ready()
                    {
                        connection = None;
                    }
                    answer.as_mut().poll(context)
                })
            })
            .await?
        };
        Ok((answer, connection.map(|connection| Self { gate, sender, connection, used })))
    }
}

/// What came of a request on a connection of its own.
pub(super) struct Exchanged {
    pub(super) answer: Response<LinkBody>,
    pub(super) switched: Option<Switched>,
}

/// A connection on which HTTP is spoken no more.
pub struct Switched {
    /// The connection.
    pub(in crate::forward) io: Box<TokioIo<MaybeHttpsStream<Stream>>>,
    /// What came of the other protocol already.
    pub(in crate::forward) start: Bytes,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

/// The body of an answer, and the connection that it comes on.
#[derive(Debug)]
pub(super) struct LinkBody {
    incoming: Incoming,
    link: Option<Link>,
    host: Arc<Host>,
    clock: Clock,
    watch: Arc<Watch>,
}

impl LinkBody {
    /// The answer has come to its end: the connection is kept for the next request, if it is as good as new.
    fn give_back(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        if link.is_free(&Arc::clone(&self.watch).into()) {
            link.used = self.clock.mono();
            self.host.lock().push(link);
        }
    }
}

impl Drop for LinkBody {
    fn drop(&mut self) {
        // An answer without a body is not read.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.link {
            Some(Link { gate, connection, .. }) => {
                let mut ended = false;
                let frame = gate.poll(context.waker(), |context| {
                    let frame = Pin::new(&mut this.incoming).poll_frame(context);
                    if frame.is_ready() || ended {
                        return frame;
                    }
                    ended = connection.as_mut().poll(context).is_ready();
                    Pin::new(&mut this.incoming).poll_frame(context)
                });
                if ended {
                    this.link = None;
                }
                frame
            }
            None => Pin::new(&mut this.incoming).poll_frame(context),
        };
        match &frame {
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || this.incoming.is_end_stream() => {
                this.give_back();
            }
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
