//! The answer's body on its way to the client: untouched, with the lease on its back.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    alarm::Alarm,
    leases::Lease,
    transport::{AnswerBody, Switched},
    upload::Upload,
};
use crate::{
    provider::{
        self, Endpoint, Meter, Told,
        stream::{Extra, Watch, judge_event},
    },
    telemetry::{
        TunnelEnd,
        access::{Access, Ending},
    },
    types::{Cost, Verdict},
};

/// A body that goes through as it comes, but for the chunk that only we have asked for.
///
/// Its lease is settled at its end. Dropped before that, because the client left, it drops the upstream's body with it,
/// which closes that connection: there is no task between the two. An error on the way is passed on, so that the
/// client's connection ends without the mark of a complete answer.
#[derive(Debug)]
pub struct LeasedBody {
    start: Option<Bytes>,
    inner: Option<AnswerBody>,
    lease: Option<Lease>,
    idle: Idle,
    access: Access,
    /// Looks for an error in what passes.
    watch: Option<(Watch, Endpoint)>,
    /// Looks for what it has cost.
    meter: Option<Meter>,
    /// Whether that counts against a limit of tokens that is known.
    is_counted: bool,
    /// Takes out what the client has not asked for.
    extra: Option<Box<Extra>>,
    ended: bool,
    /// The error that comes next.
    failing: Option<BodyError>,
    /// What the client still sends while it is answered.
    upload: Option<Arc<Upload>>,
    /// The connection on which another protocol is spoken from now on.
    switched: Option<Box<Switched>>,
}

/// What is still to come of a body.
#[derive(Debug)]
pub(super) enum Rest {
    /// Nothing.
    Ended,
    /// This.
    Coming(AnswerBody),
    /// Something that never came.
    Broken,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's connection broke.
    #[error("the upstream broke off its answer")]
    Broken,
    /// Nothing came for the idle timeout.
    #[error("the upstream fell silent in the middle of its answer")]
    Silent,
}

/// How long nothing has come.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    alarm: Alarm,
    /// When waiting for the next piece began. `None`: a piece has come since.
    since: Option<Instant>,
}

impl Idle {
    /// Ready when nothing came for the limit.
    fn poll_silent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(|| self.alarm.clock().mono());
        self.alarm.poll_due(context, since + self.limit)
    }
}

impl LeasedBody {
    /// `start` is what was read already of the body.
    pub(super) fn new(
        start: Option<Bytes>,
        rest: Rest,
        lease: Option<Lease>,
        idle: Duration,
        alarm: Alarm,
        access: Access,
    ) -> Self {
        let (inner, failing) = match rest {
            Rest::Ended => (None, None),
            Rest::Coming(body) => (Some(body), None),
            Rest::Broken => (None, Some(BodyError::Broken)),
        };
        let idle = Idle { limit: idle, alarm, since: None };
        Self {
            start,
            inner,
            lease,
            idle,
            access,
            watch: None,
            meter: None,
            is_counted: false,
            extra: None,
            ended: false,
            failing,
            upload: None,
            switched: None,
        }
    }

    /// The same, to a body that may still be on its way.
    pub(super) fn answering(mut self, upload: Arc<Upload>) -> Self {
        self.upload = Some(upload);
        self
    }

    /// The same, in front of another protocol.
    pub(super) fn switched(mut self, switched: Box<Switched>) -> Self {
        self.switched = Some(switched);
        self
    }

    /// The connection on which that is spoken.
    pub(super) fn take_switched(&mut self) -> Option<Box<Switched>> {
        self.switched.take()
    }

    /// The other protocol has come to an end, after so many bytes.
    pub(super) fn tunneled(&mut self, end: TunnelEnd, up: u64, down: u64) {
        self.access.tunneled(end, up, down);
        self.end(&Verdict::SUCCESS, end.ending());
    }

    /// The same, with an eye on errors in it: it is a stream of events.
    pub(super) fn watched(mut self, endpoint: Endpoint) -> Self {
        self.watch = Some((Watch::new(), endpoint));
        self
    }

    /// The same, with an eye on what it costs, which may count against a limit of tokens.
    pub(super) fn metered(mut self, meter: Meter, is_counted: bool) -> Self {
        (self.meter, self.is_counted) = (Some(meter), is_counted);
        self
    }

    /// The same, without the chunk that tells the usage: it is a stream whose client hasn't asked for that.
    pub(super) fn without_extra(mut self) -> Self {
        self.extra = Some(Box::default());
        self
    }

    /// What is remembered about the request so far.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A piece has come, and nothing comes behind it if it is the last. Returns what of it goes to the client now.
    fn passes(&mut self, piece: Bytes, is_last: bool) -> Bytes {
        if is_last {
            if let Some(meter) = self.meter.take() {
                self.costs(meter.end(&piece));
            }
        } else if let Some(meter) = &mut self.meter {
            meter.push(&piece);
        }
        if let Some((watch, endpoint)) = &mut self.watch
            && let Some(error) = watch.push(&piece)
        {
            let endpoint = *endpoint;
            self.watch = None;
            self.failed_inside(&error, endpoint);
        }
        let piece = match &mut self.extra {
            Some(extra) => {
                let passed = extra.push(piece);
                if is_last && !extra.is_empty() { [passed, extra.end()].concat().into() } else { passed }
            }
            None => piece,
        };
        self.access.sent(piece.len());
        piece
    }

    /// What was held back, now that nothing more comes.
    fn held(&mut self) -> Option<Bytes> {
        let held = self.extra.as_mut()?.end();
        self.access.sent(held.len());
        Some(held).filter(|held| !held.is_empty())
    }

    /// The stream tells of an error. The client hears of it by the same words; the pool learns of it now, for clients
    /// leave when they read them.
    fn failed_inside(&mut self, error: &[u8], endpoint: Endpoint) {
        let verdict = judge_event(error, endpoint, self.idle.alarm.clock().wall());
        if let Some(lease) = self.lease.take() {
            lease.judged(&verdict, &Told::default());
        }
        self.access.failed_inside(&verdict);
    }

    fn costs(&mut self, cost: Cost) {
        if let Some(lease) = self.lease.as_ref().filter(|_| self.is_counted) {
            lease.used(cost.usage());
        }
        self.access.cost(cost);
    }

    fn end(&mut self, verdict: &Verdict, ending: Ending) {
        if let Some((watch, endpoint)) = self.watch.take()
            && let Some(error) = watch.end()
        {
            self.failed_inside(&error, endpoint);
        }
        self.inner = None;
        self.ended = true;
        if let Some(meter) = self.meter.take() {
            self.costs(if ending == Ending::Complete { meter.end(b"") } else { meter.cut() });
        }
        if let Some(lease) = self.lease.take() {
            lease.judged(verdict, &Told::default());
        }
        self.access.ended(ending);
    }

    /// Whether the client has spoilt what is answered here.
    fn is_spoilt(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.failure().is_some())
    }

    /// Ends with `error`, after a pause of one turn: hyper throws away what it has not written when a body fails.
    fn fail(
        &mut self,
        error: BodyError,
        context: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(held) = self.held() {
            self.failing = Some(error);
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        let (fault, ending) = match error {
            BodyError::Broken => (provider::Fault::BrokenBody, Ending::Broken),
            BodyError::Silent => (provider::Fault::SilentBody, Ending::Silent),
        };
        self.end(&provider::judge_fault(fault), ending);
        self.failing = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for LeasedBody {
    fn drop(&mut self) {
        // An answer without a body, to HEAD say, ends without being asked for a piece.
        if !self.ended && self.is_end_stream() {
            self.end(&Verdict::SUCCESS, Ending::Complete);
        }
        // The client left, or never came for it.
        if let Some(mut meter) = self.meter.take() {
            if let Some(start) = self.start.take() {
                meter.push(&start);
            }
            self.access.cost(meter.cut());
        }
    }
}

impl Body for LeasedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(start) = this.start.take() {
            let is_last = this.failing.is_none() && this.inner.as_ref().is_none_or(Body::is_end_stream);
            let start = this.passes(start, is_last);
            if !start.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(start))));
            }
        }
        if let Some(error) = this.failing.take() {
            return if this.ended { Poll::Ready(Some(Err(error))) } else { this.fail(error, context) };
        }
        loop {
            let Some(inner) = &mut this.inner else {
                if !this.ended {
                    this.end(&Verdict::SUCCESS, Ending::Complete);
                }
                return Poll::Ready(None);
            };
            let piece = match Pin::new(&mut *inner).poll_frame(context) {
                // Trailers end here: no header announces them to the client, and nobody has looked for a key in them.
                Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
                Poll::Ready(None) => None,
                Poll::Ready(Some(Err(_))) if this.is_spoilt() => {
                    // The client broke off its own request: nobody is to blame.
                    (this.inner, this.lease, this.ended) = (None, None, true);
                    return Poll::Ready(Some(Err(BodyError::Broken)));
                }
                Poll::Ready(Some(Err(_))) => return this.fail(BodyError::Broken, context),
                Poll::Pending => {
                    ready!(this.idle.poll_silent(context));
                    return this.fail(BodyError::Silent, context);
                }
            };
            let Some(piece) = piece else {
                this.end(&Verdict::SUCCESS, Ending::Complete);
                return Poll::Ready(this.held().map(|held| Ok(Frame::data(held))));
            };
            let ended = inner.is_end_stream();
            this.idle.since = None;
            let piece = this.passes(piece, ended);
            if ended {
                this.end(&Verdict::SUCCESS, Ending::Complete);
            }
            // What is held back is nothing, and nothing is no frame.
            if !piece.is_empty() || this.extra.is_none() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_held = self.extra.as_ref().is_some_and(|extra| !extra.is_empty());
        self.failing.is_none()
            && self.start.is_none()
            && !is_held
            && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.extra.is_some() {
            return SizeHint::new();
        }
        let start = self.start.as_ref().map_or(0, |start| start.len() as u64);
        let inner = self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(start + inner.lower());
        if let Some(upper) = inner.upper().filter(|_| self.failing.is_none()) {
            hint.set_upper(start + upper);
        }
        hint
    }
}
