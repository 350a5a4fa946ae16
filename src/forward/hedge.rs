//! Hedging: a second attempt, with a key of another account, for a request whose answer is late.
//!
//! It is off unless asked for. A request that may be repeated gets one such attempt at most, as soon as a key is free
//! and the budget allows it: no more than a share of all requests. The first answer that is none of a key's or
//! a host's faults is delivered, and the other attempt is dropped, which cuts it off. If one of the two fails, the
//! other goes on.

use std::{
    pin::pin,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};

use super::{
    Attempt, Forwarder, Inbound,
    alarm::Alarm,
    error::ForwardError,
    leases::{Ask, Lease},
    tries::{Missed, Tries},
    why::Story,
};
use crate::{
    pool::Outcome,
    telemetry::{Hedged, access::Access},
    types::Class,
};

/// A request that could have no second attempt asks again after this time at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a request and its hedge came to.
pub(super) struct Raced {
    pub(super) lease: Lease,
    pub(super) attempt: Attempt,
    /// Whether there was a second attempt.
    pub(super) hedged: bool,
    /// The other attempt, if it failed before.
    pub(super) lost: Option<Lost>,
}

/// An attempt that failed while another went on. Its lease is settled.
pub(super) struct Lost {
    missed: Missed,
    took: Duration,
}

/// What the two attempts share.
pub(super) struct Course<'r> {
    pub(super) inbound: &'r Inbound,
    pub(super) ask: &'r Arc<Ask>,
    pub(super) tries: &'r Tries,
    /// How long the first has for itself.
    pub(super) after: Duration,
    /// By when there must be a head.
    pub(super) deadline: Instant,
}

impl Attempt {
    /// Whether the request is served by it: another key would answer no better.
    fn is_an_answer(&self) -> bool {
        match self {
            Self::Passed(_) => true,
            Self::Missed(missed) => matches!(missed.verdict.class, Class::Success | Class::ClientFault),
        }
    }
}

impl Forwarder {
    /// After which time without an answer `inbound` is sent a second time.
    pub(super) fn hedges_after(&self, inbound: &Inbound) -> Option<Duration> {
        self.policy
            .hedge_after
            .filter(|_| inbound.may_repeat && inbound.upload().is_none() && inbound.wish().is_none())
    }

    /// An attempt with `lease`, and with another key when nothing comes of it for a while.
    pub(super) async fn race(
        &self,
        lease: Lease,
        course: Course<'_>,
        alarm: &mut Alarm,
        access: &mut Access,
    ) -> Result<Raced, ForwardError> {
        let Course { inbound, after, .. } = course;
        let key = Arc::clone(lease.key());
        let mut first = pin!(self.attempt(&key, inbound, self.limit(&course), alarm));
        let (mut wait, mut denied) = (after, false);
        let other = loop {
            if let Ok(attempt) = tokio::time::timeout(wait, first.as_mut()).await {
                return Ok(Raced { lease, attempt: attempt?, hedged: false, lost: None });
            }
            match self.second(&lease, &course) {
                Ok(other) => break other,
                Err(reason) if !std::mem::replace(&mut denied, true) => self.metrics.hedged(reason),
                Err(_) => {}
            }
            // It hangs on, and so there may be a second attempt yet.
            wait = after.max(ASK_AGAIN);
        };
        access.attempt(other.key().id());
        let mut alarm = Alarm::new(self.clock);
        let key = Arc::clone(other.key());
        let second = pin!(self.attempt(&key, inbound, self.limit(&course), &mut alarm));
        let (lease, attempt, lost, if_answered) = match select(first, second).await {
            Either::Left((one, second)) => match self.if_missed(one?, lease) {
                Either::Right((lease, one)) => (lease, one, None, Hedged::Lost),
                Either::Left(lost) => (other, second.await?, Some(lost), Hedged::Won),
            },
            Either::Right((two, first)) => match self.if_missed(two?, other) {
                Either::Right((lease, two)) => (lease, two, None, Hedged::Won),
                Either::Left(lost) => (lease, first.await?, Some(lost), Hedged::Lost),
            },
        };
        self.metrics.hedged(if attempt.is_an_answer() { if_answered } else { Hedged::Failed });
        access.is_answered_by(lease.key().id());
        Ok(Raced { lease, attempt, hedged: true, lost })
    }

    /// Settles the lease of an attempt that failed, at once: the other may go on for minutes.
    fn if_missed(&self, attempt: Attempt, lease: Lease) -> Either<Lost, (Lease, Attempt)> {
        match attempt {
            attempt if attempt.is_an_answer() => Either::Right((lease, attempt)),
            Attempt::Missed(missed) => {
                let took = self.clock.mono().saturating_duration_since(lease.since());
                lease.judged(&missed.verdict, &missed.told);
                Either::Left(Lost { missed, took })
            }
            passed @ Attempt::Passed(_) => Either::Right((lease, passed)),
        }
    }

    /// Of two attempts at once this one failed, and the other went on.
    pub(super) fn lost(
        &self,
        lost: &Lost,
        tries: &mut Tries,
        story: Option<&mut Story>,
        access: &mut Access,
    ) {
        let Lost { missed: Missed { key, verdict, refusal, .. }, took } = lost;
        self.metrics.attempt(verdict.class);
        tries.count(key, verdict);
        let status = refusal.as_ref().map(|refusal| refusal.status.as_u16());
        if let Some(story) = story {
            story.tried(key.id(), verdict.class, status);
        }
        access.failed_beside(self.pool.name(), key.id(), verdict, status, *took);
    }

    /// A key for the second attempt, if one is free now and the budget allows it; else what stands in the way.
    fn second(&self, first: &Lease, course: &Course<'_>) -> Result<Lease, Hedged> {
        let tries = course.tries;
        let second = match self.pool.lease_beside(first, course.ask, &tries.keys, &tries.failed_hosts) {
            Some(lease) if tries.rules_out(lease.key()) => {
                lease.settle(Outcome::Unused);
                None
            }
            second => second,
        };
        let lease = second.ok_or(Hedged::NoKey)?;
        if !self.hedges.lock().unwrap_or_else(PoisonError::into_inner).withdraw(self.clock.mono()) {
            lease.settle(Outcome::Unused);
            return Err(Hedged::Budget);
        }
        Ok(lease)
    }

    /// How long an attempt that begins now may wait for its head.
    fn limit(&self, course: &Course<'_>) -> Duration {
        let left = course.deadline.saturating_duration_since(self.clock.mono());
        self.policy.head_timeout_of(course.inbound.stream).min(left)
    }
}
