//! What goes both ways once an upstream has switched to another protocol, with the lease on its back.
//!
//! One task, the client's, moves what comes in either direction. Nothing is buffered but what one side has sent and
//! the other can't take yet, at most a piece of a few KiB, and no alarm is set: such connections may be silent for
//! hours, and there may be thousands.

mod frames;
mod way;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use frames::Frames;
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use way::{GOING_AWAY, Stopped, TOO_LARGE, Way};

use super::{body::LeasedBody, transport::Switched};
use crate::telemetry::{Metrics, TunnelEnd};

/// How long the two sides may take to hear that it is over.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a client may take to close after everything was said.
const LINGER: Duration = Duration::from_secs(1);

/// An upstream that speaks another protocol by now, and waits for the client to do so.
#[derive(Debug)]
pub struct Tunnel {
    upstream: Switched,
    carrier: Carrier,
    metrics: Arc<Metrics>,
    is_websocket: bool,
}

/// Tells how it ended, however that was.
#[derive(Debug)]
struct Carrier {
    body: LeasedBody,
    end: TunnelEnd,
    up: u64,
    down: u64,
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.body.tunneled(self.end, self.up, self.down);
    }
}

/// Counts one that is open.
struct Open<'m>(&'m Metrics);

impl<'m> Open<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.tunnel_opened();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.tunnel_closed();
    }
}

impl Tunnel {
    pub(super) fn new(
        upstream: Switched,
        body: LeasedBody,
        metrics: Arc<Metrics>,
        is_websocket: bool,
    ) -> Self {
        let carrier = Carrier { body, end: TunnelEnd::ClientLeft, up: 0, down: 0 };
        Self { upstream, carrier, metrics, is_websocket }
    }

    /// Goes on until one side ends it, or some time after `leave`: then both are told, and what has not ended with
    /// `over` is cut. `start` is what the client has sent already. A frame has at most `limit` bytes.
    pub async fn run<C: AsyncRead + AsyncWrite + Unpin>(
        self,
        client: C,
        start: Bytes,
        limit: u64,
        leave: impl Future<Output = ()>,
        over: impl Future<Output = ()>,
    ) {
        let Self { upstream: Switched { io, start: sent }, mut carrier, metrics, is_websocket } = self;
        let _open = Open::new(&metrics);
        let frames = || is_websocket.then(|| Frames::new(limit));
        let (up, up_stopped) = Way::new(frames(), true, start.into());
        let (down, down_stopped) = Way::new(frames(), false, sent.into());
        let mut pump =
            Pump { client, upstream: io, up, down, metrics: &metrics, counted: (0, 0), over: [false; 2] };
        let flowing = async {
            let end = match (up_stopped, down_stopped) {
                (None, None) => {
                    tokio::select! {
                        end = poll_fn(|context| pump.poll_flow(context)) => end,
                        () = leave => TunnelEnd::Shutdown,
                    }
                }
                _ => TunnelEnd::FrameTooLarge,
            };
            carrier.end = end;
            match end {
                TunnelEnd::ClientLeft => return,
                TunnelEnd::Shutdown => {
                    pump.up.say_goodbye(GOING_AWAY);
                    pump.down.say_goodbye(GOING_AWAY);
                    poll_fn(|context| pump.poll_farewell(context)).await;
                }
                TunnelEnd::FrameTooLarge => {
                    pump.up.say_goodbye(TOO_LARGE);
                    pump.down.say_goodbye(TOO_LARGE);
                    let farewell = poll_fn(|context| pump.poll_farewell(context));
                    // Who does not listen is cut.
                    let _ = tokio::time::timeout(FAREWELL, farewell).await;
                }
                TunnelEnd::Closed | TunnelEnd::UpstreamLeft => {}
            }
            let _ = tokio::time::timeout(LINGER, pump.finish()).await;
        };
        let is_cut = tokio::select! {
            () = flowing => false,
            () = over => true,
        };
        if is_cut {
            if carrier.end == TunnelEnd::ClientLeft {
                carrier.end = TunnelEnd::Shutdown;
            }
            // What can be said at once is.
            pump.up.say_goodbye(GOING_AWAY);
            pump.down.say_goodbye(GOING_AWAY);
            let _ = poll_fn(|context| pump.poll_farewell(context)).now_or_never();
        }
        pump.count();
        (carrier.up, carrier.down) = (pump.up.bytes, pump.down.bytes);
    }
}

struct Pump<'m, C, U> {
    client: C,
    upstream: U,
    up: Way,
    down: Way,
    metrics: &'m Metrics,
    /// What the metrics know of.
    counted: (u64, u64),
    /// Whether nothing more comes from the client, and from the upstream.
    over: [bool; 2],
}

impl<C, U> Pump<'_, C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Moves what comes until it has to end.
    fn poll_flow(&mut self, context: &mut Context<'_>) -> Poll<TunnelEnd> {
        let [_, deaf] = &mut self.over;
        let up =
            if *deaf { Poll::Pending } else { self.up.poll(&mut self.client, &mut self.upstream, context) };
        let end = match up {
            Poll::Ready(Stopped::Ended | Stopped::ReadBroken) if self.up.is_closed() => {
                Some(TunnelEnd::Closed)
            }
            Poll::Ready(Stopped::Ended | Stopped::ReadBroken) => Some(TunnelEnd::ClientLeft),
            Poll::Ready(Stopped::TooLarge) => {
                self.up.refuse(TOO_LARGE);
                Some(TunnelEnd::FrameTooLarge)
            }
            // What it has sent before may be here yet.
            Poll::Ready(Stopped::WriteBroken) => {
                *deaf = true;
                None
            }
            Poll::Pending => None,
        };
        let end = end.map_or_else(|| self.poll_down(context), Poll::Ready);
        self.count();
        end
    }

    fn poll_down(&mut self, context: &mut Context<'_>) -> Poll<TunnelEnd> {
        Poll::Ready(match ready!(self.down.poll(&mut self.upstream, &mut self.client, context)) {
            Stopped::Ended | Stopped::ReadBroken if self.down.is_closed() => TunnelEnd::Closed,
            Stopped::Ended | Stopped::ReadBroken => TunnelEnd::UpstreamLeft,
            Stopped::WriteBroken => TunnelEnd::ClientLeft,
            Stopped::TooLarge => {
                self.down.refuse(TOO_LARGE);
                TunnelEnd::FrameTooLarge
            }
        })
    }

    /// Ready when both sides have been told goodbye and have answered, or are gone.
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { client, upstream, up, down, over: [client_over, upstream_over], .. } = self;
        if !*client_over && let Poll::Ready(stopped) = up.poll(client, upstream, context) {
            match stopped {
                Stopped::WriteBroken => *upstream_over = true,
                Stopped::TooLarge => up.refuse(TOO_LARGE),
                Stopped::Ended | Stopped::ReadBroken => *client_over = true,
            }
            context.waker().wake_by_ref();
        }
        if !*upstream_over && let Poll::Ready(stopped) = down.poll(upstream, client, context) {
            match stopped {
                Stopped::WriteBroken => *client_over = true,
                Stopped::TooLarge => down.refuse(TOO_LARGE),
                Stopped::Ended | Stopped::ReadBroken => *upstream_over = true,
            }
            context.waker().wake_by_ref();
        }
        let client_knows = *client_over || down.is_done() && up.has_no_answer();
        let upstream_knows = *upstream_over || up.is_done() && down.has_no_answer();
        let over = *client_over && *upstream_over || client_knows && upstream_knows;
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Gives the client what is left for it, and the end of its connection. What it still sends is read, since a
    /// connection that closes with bytes unread is reset, which takes along what was sent last.
    async fn finish(&mut self) {
        let Self { client, down, .. } = self;
        let written = poll_fn(|context| {
            ready!(down.poll_write(client, context))?;
            ready!(down.poll_flush(client, context))?;
            Pin::new(&mut *client).poll_shutdown(context)
        });
        if written.await.is_ok() {
            let mut nowhere = [0; 512];
            while client.read(&mut nowhere).await.is_ok_and(|read| read > 0) {}
        }
    }

    fn count(&mut self) {
        let now = (self.up.bytes, self.down.bytes);
        if now != self.counted {
            self.metrics.tunneled(now.0 - self.counted.0, now.1 - self.counted.1);
            self.counted = now;
        }
    }
}
