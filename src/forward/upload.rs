//! A body that is too long to be held: its beginning is, and the rest goes up once, as it comes.
//!
//! The client's body stays with the request, and what goes upstream asks it for one piece after another, so that
//! backpressure is the connections' own. Each attempt has a turn of its own: what was left of an earlier one, in a
//! connection that is about to end, gets nothing more.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};

use super::{
    alarm::Alarm,
    gather::{BODY_GAP, BODY_TIME},
    inbound::{BodyLimit, InboundError},
};
use crate::clock::Clock;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client has yet to send.
pub type ClientBody = UnsyncBoxBody<Bytes, BoxError>;

/// Whoever sends less than this in a second, after the time that every body has, holds a key for nothing.
const SLOWEST: u64 = 16 << 10;

/// A body on its way, for as long as anybody cares for what is answered to it.
#[derive(Debug)]
pub(super) struct Upload {
    shared: Arc<Shared>,
    /// How much comes behind what is held, as the client declared it.
    behind: Option<u64>,
    /// Whether the client needs it read to the end before it hears a refusal.
    lingers: bool,
}

/// The rest of an upload.
#[derive(Debug)]
pub struct UploadRest(pub(super) Arc<Upload>);

impl UploadRest {
    /// What the client still sends of it, if it does.
    #[must_use]
    pub fn take(self) -> Option<ClientBody> {
        self.0.take_rest()
    }
}

/// What an upload is made of.
pub(super) struct Beginning {
    pub(super) held: Bytes,
    /// What came with it and is not held.
    pub(super) next: Option<Bytes>,
    pub(super) rest: ClientBody,
    pub(super) length: Option<u64>,
    pub(super) limit: u64,
}

#[derive(Debug)]
struct Shared {
    flow: Mutex<Flow>,
    /// What the client has sent of it.
    counted: Arc<AtomicU64>,
    limit: u64,
}

struct Flow {
    next: Option<Bytes>,
    rest: Option<ClientBody>,
    /// Whose turn it is: the last attempt's.
    turn: u64,
    /// Whether it goes on, or waits for what becomes of a refusal.
    halted: bool,
    /// Whether something of it is gone that can't be sent again.
    taken: bool,
    /// Why nothing more comes.
    cut: Option<Cut>,
    closed: bool,
    began: Instant,
    /// When something of it last went on.
    moved: Instant,
    /// Since when the next piece is waited for.
    since: Option<Instant>,
    alarm: Alarm,
    waiting: Option<Waker>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("taken", &self.taken).field("cut", &self.cut).finish_non_exhaustive()
    }
}

/// How a client has spoilt its own body.
#[derive(Debug, Clone, Copy)]
enum Cut {
    TooLarge,
    Stalled,
    Broken,
}

/// The body ends early, and its request with it.
#[derive(Debug, thiserror::Error)]
#[error("the body went no further")]
struct Spoilt;

impl Upload {
    pub(super) fn new(beginning: Beginning, lingers: bool, clock: Clock) -> (Bytes, Arc<Self>) {
        let Beginning { held, next, rest, length, limit } = beginning;
        let now = clock.mono();
        let counted = held.len() + next.as_ref().map_or(0, Bytes::len);
        let flow = Flow {
            next,
            rest: Some(rest),
            turn: 0,
            halted: false,
            taken: false,
            cut: None,
            closed: false,
            began: now,
            moved: now,
            since: None,
            alarm: Alarm::new(clock),
            waiting: None,
        };
        let counted = Arc::new(AtomicU64::new(counted as u64));
        let shared = Arc::new(Shared { flow: Mutex::new(flow), counted, limit });
        let behind = length.map(|length| length.saturating_sub(held.len() as u64));
        (held, Arc::new(Self { shared, behind, lingers }))
    }

    /// The body of one more attempt, which begins with what is held.
    pub(super) fn send(&self, held: Bytes) -> BoxBody<Bytes, BoxError> {
        let mut flow = self.shared.lock();
        flow.turn += 1;
        flow.halted = false;
        flow.moved = flow.alarm.clock().mono();
        let (left, turn) = (self.behind, flow.turn);
        let earlier = flow.waiting.take();
        drop(flow);
        if let Some(earlier) = earlier {
            earlier.wake();
        }
        let held = Some(held).filter(|held| !held.is_empty());
        BoxBody::new(Passing { held, shared: Arc::clone(&self.shared), turn, left, ended: false })
    }

    /// Nothing more is taken of it: the upstream has answered in a way that may need it again.
    pub(super) fn halt(&self) {
        self.shared.lock().halted = true;
    }

    /// Whether it can't be sent again as a whole.
    pub(super) fn is_spent(&self) -> bool {
        self.shared.lock().taken
    }

    /// When something of it last went on.
    pub(super) fn moved(&self) -> Instant {
        self.shared.lock().moved
    }

    /// How the client has spoilt it, if it has.
    pub(super) fn failure(&self) -> Option<InboundError> {
        let Shared { limit, .. } = *self.shared;
        self.shared.lock().cut.map(|cut| match cut {
            Cut::TooLarge => InboundError::TooLarge { limit, by: BodyLimit::Uploads },
            Cut::Stalled => InboundError::Stalled,
            Cut::Broken => InboundError::Broken,
        })
    }

    /// How much of it the client has sent so far.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.counted)
    }

    /// What the client still sends, if it does: whoever refuses the request may want to read it.
    pub(super) fn take_rest(&self) -> Option<ClientBody> {
        let mut flow = self.shared.lock();
        flow.halted = true;
        let rest = flow.rest.take();
        rest.filter(|rest| {
            self.lingers && flow.cut.is_none_or(|cut| matches!(cut, Cut::TooLarge)) && !rest.is_end_stream()
        })
    }
}

impl Drop for Upload {
    /// Connections that still wait for more of it end.
    fn drop(&mut self) {
        let mut flow = self.shared.lock();
        flow.closed = true;
        let waiting = flow.waiting.take();
        drop(flow);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece of the rest, for whoever has this turn.
    fn poll_piece(&self, turn: u64, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Spoilt>>> {
        let flow = &mut *self.lock();
        if flow.closed || flow.turn != turn || flow.cut.is_some() {
            return Poll::Ready(Some(Err(Spoilt)));
        }
        if flow.halted {
            flow.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some(next) = flow.next.take() {
            flow.taken = true;
            flow.moved = flow.alarm.clock().mono();
            return Poll::Ready(Some(Ok(next)));
        }
        let Some(rest) = &mut flow.rest else { return Poll::Ready(None) };
        loop {
            match Pin::new(&mut *rest).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    flow.since = None;
                    flow.moved = flow.alarm.clock().mono();
                    // Trailers of a request end here.
                    let Ok(data) = frame.into_data() else { continue };
                    flow.taken = true;
                    let counted = self.counted.fetch_add(data.len() as u64, Relaxed) + data.len() as u64;
                    if counted > self.limit {
                        flow.cut = Some(Cut::TooLarge);
                        return Poll::Ready(Some(Err(Spoilt)));
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                Poll::Ready(Some(Err(_))) => {
                    flow.cut = Some(Cut::Broken);
                    return Poll::Ready(Some(Err(Spoilt)));
                }
                Poll::Ready(None) => {
                    flow.rest = None;
                    flow.moved = flow.alarm.clock().mono();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let since = *flow.since.get_or_insert_with(|| flow.alarm.clock().mono());
                    let sent = Duration::from_secs(self.counted.load(Relaxed) / SLOWEST);
                    let due = (since + BODY_GAP).min(flow.began + BODY_TIME + sent);
                    ready!(flow.alarm.poll_due(context, due));
                    flow.cut = Some(Cut::Stalled);
                    return Poll::Ready(Some(Err(Spoilt)));
                }
            }
        }
    }
}

/// The body that goes upstream.
struct Passing {
    held: Option<Bytes>,
    shared: Arc<Shared>,
    turn: u64,
    /// What is still to come after what is held, where that was declared.
    left: Option<u64>,
    ended: bool,
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(held) = this.held.take() {
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        let piece = ready!(this.shared.poll_piece(this.turn, context));
        if let (Some(left), Some(Ok(piece))) = (&mut this.left, &piece) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        this.ended = piece.is_none();
        Poll::Ready(piece.map(|piece| piece.map(Frame::data).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.held.is_none() && self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().map_or(0, |held| held.len() as u64);
        match self.left {
            Some(left) => SizeHint::with_exact(held + left),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    type Pieces = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

    /// One of which this is held, and what gives the rest.
    fn upload(limit: u64) -> (Bytes, Arc<Upload>, Pieces) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let rest =
            ClientBody::new(StreamBody::new(stream::poll_fn(move |context| receiver.poll_recv(context))));
        let beginning = Beginning { held: Bytes::from("held"), next: None, rest, length: None, limit };
        let (held, upload) = Upload::new(beginning, true, Clock::system());
        (held, upload, sender)
    }

    async fn next(body: &mut BoxBody<Bytes, BoxError>) -> Option<Result<Bytes, BoxError>> {
        body.frame().await.map(|frame| frame.map(|frame| frame.into_data().expect("data")))
    }

    fn piece(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from(text)))
    }

    #[tokio::test]
    async fn each_attempt_begins_with_what_is_held_and_the_last_gets_the_rest() {
        let (held, upload, sender) = upload(100);
        let mut first = upload.send(held.clone());
        assert_eq!(next(&mut first).await.unwrap().unwrap(), "held");
        assert!(next(&mut first).now_or_never().is_none() && !upload.is_spent());
        upload.halt();
        sender.send(piece("rest")).unwrap();
        assert!(next(&mut first).now_or_never().is_none() && !upload.is_spent());
        let mut second = upload.send(held);
        assert!(next(&mut first).await.unwrap().is_err(), "it has had its turn");
        assert_eq!(next(&mut second).await.unwrap().unwrap(), "held");
        assert_eq!(next(&mut second).await.unwrap().unwrap(), "rest");
        assert!(upload.is_spent());
        drop(sender);
        assert!(next(&mut second).await.is_none() && upload.failure().is_none());
        assert_eq!(upload.counter().load(Relaxed), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_stalls_breaks_or_is_too_long_ends_early_and_says_why() {
        let (held, stalled, _sender) = upload(100);
        let mut body = stalled.send(held);
        next(&mut body).await.unwrap().unwrap();
        let before = Clock::system().mono();
        assert!(next(&mut body).await.unwrap().is_err());
        let waited = Clock::system().mono() - before;
        assert!(waited >= BODY_GAP && matches!(stalled.failure(), Some(InboundError::Stalled)));

        let (held, broken, sender) = upload(100);
        let mut body = broken.send(held);
        sender.send(Err("reset".into())).unwrap();
        next(&mut body).await.unwrap().unwrap();
        assert!(next(&mut body).await.unwrap().is_err());
        assert!(matches!(broken.failure(), Some(InboundError::Broken)) && broken.take_rest().is_none());

        let (held, long, sender) = upload(7);
        let mut body = long.send(held);
        sender.send(piece("abc")).unwrap();
        sender.send(piece("d")).unwrap();
        next(&mut body).await.unwrap().unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "abc");
        assert!(next(&mut body).await.unwrap().is_err());
        let failure = long.failure();
        assert!(matches!(failure, Some(InboundError::TooLarge { limit: 7, by: BodyLimit::Uploads })));
        assert!(long.take_rest().is_some(), "the client may want to be read to its end");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_dribbles_is_cut_in_the_end() {
        let (held, upload, sender) = upload(1 << 30);
        let mut body = upload.send(held);
        next(&mut body).await.unwrap().unwrap();
        let before = Clock::system().mono();
        let mut pieces = 0;
        let waited = loop {
            match next(&mut body).now_or_never() {
                None => {
                    tokio::time::sleep(BODY_GAP / 2).await;
                    sender.send(piece("x")).unwrap();
                    pieces += 1;
                }
                Some(Some(Err(_))) => break Clock::system().mono() - before,
                Some(_) => {}
            }
            assert!(pieces < 1000);
        };
        assert!(waited >= BODY_TIME);
    }

    #[tokio::test]
    async fn nobody_waits_for_more_when_nobody_cares_for_the_answer() {
        let (held, upload, _sender) = upload(100);
        let mut body = upload.send(held);
        next(&mut body).await.unwrap().unwrap();
        upload.halt();
        let (waiting, ()) = tokio::join!(next(&mut body), async { drop(upload) });
        assert!(waiting.unwrap().is_err());
    }
}
