//! Hedging: a second attempt, with a key of another account, for a request whose answer is late.
//!
//! It is off unless asked for. A request that may be repeated gets one such attempt at most, if a key is free at that
//! moment and the budget allows it: no more than a share of all requests. The first answer that is none of a key's or
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
};
use crate::{
    pool::Outcome,
    telemetry::{Hedged, access::Access},
    types::Class,
};

/// What a request and its hedge came to.
pub(super) struct Raced {
    pub(super) lease: Lease,
    pub(super) attempt: Attempt,
    /// The other attempt, if it failed before.
    pub(super) lost: Option<(Lease, Missed)>,
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
    /// After which time without a head `inbound` is sent a second time.
    pub(super) fn hedges_after(&self, inbound: &Inbound) -> Option<Duration> {
        self.policy.hedge_after.filter(|_| inbound.may_repeat)
    }

    /// An attempt with `lease`, and with another key when no head comes.
    pub(super) async fn race(
        &self,
        lease: Lease,
        course: Course<'_>,
        alarm: &mut Alarm,
        access: &mut Access,
    ) -> Result<Raced, ForwardError> {
        let Course { inbound, after, .. } = course;
        let (one, other) = {
            let mut first = pin!(self.attempt(&lease, inbound, self.limit(&course), alarm));
            match tokio::time::timeout(after, first.as_mut()).await {
                Ok(one) => (Some(one?), None),
                Err(_) => match self.second(&lease, &course) {
                    None => (Some(first.await?), None),
                    Some(other) => {
                        access.attempt(other.key().id());
                        let mut alarm = Alarm::new(self.clock);
                        let second = self.attempt(&other, inbound, self.limit(&course), &mut alarm);
                        let (one, two) = both(first, second).await?;
                        (one, Some((other, two)))
                    }
                },
            }
        };
        Ok(self.outcome(lease, one, other, access))
    }

    /// Who of the two is delivered.
    fn outcome(
        &self,
        lease: Lease,
        one: Option<Attempt>,
        other: Option<(Lease, Option<Attempt>)>,
        access: &mut Access,
    ) -> Raced {
        let missed = |attempt| match attempt {
            Some(Attempt::Missed(missed)) => Some(missed),
            _ => None,
        };
        let (raced, result) = match (one, other) {
            (Some(attempt), None) => return Raced { lease, attempt, lost: None },
            (Some(attempt), Some((other, two))) if attempt.is_an_answer() => {
                let lost = missed(two).map(|missed| (other, missed));
                (Raced { lease, attempt, lost }, Hedged::Lost)
            }
            (one, Some((other, Some(attempt)))) => {
                let result = if attempt.is_an_answer() { Hedged::Won } else { Hedged::Failed };
                let lost = missed(one).map(|missed| (lease, missed));
                (Raced { lease: other, attempt, lost }, result)
            }
            (Some(attempt), Some((_, None))) => (Raced { lease, attempt, lost: None }, Hedged::Failed),
            (None, None | Some((_, None))) => unreachable!("one of them has ended"),
        };
        self.metrics.hedged(result);
        access.is_answered_by(raced.lease.key().id());
        raced
    }

    /// Of two attempts at once this one failed, and the other went on.
    pub(super) fn lost(&self, lease: Lease, missed: &Missed, tries: &mut Tries, access: &mut Access) {
        let Missed { verdict, told, refusal, .. } = missed;
        self.metrics.attempt(verdict.class);
        tries.count(lease.key(), verdict);
        let status = refusal.as_ref().map(|refusal| refusal.status.as_u16());
        let took = self.clock.mono().saturating_duration_since(lease.since());
        access.failed_beside(self.pool.name(), lease.key().id(), verdict, status, took);
        lease.judged(verdict, told);
    }

    /// A key for the second attempt, if one is free now and the budget allows it.
    fn second(&self, first: &Lease, course: &Course<'_>) -> Option<Lease> {
        let now = self.clock.mono();
        if !self.hedges.lock().unwrap_or_else(PoisonError::into_inner).withdraw(now) {
            self.metrics.hedged(Hedged::Budget);
            return None;
        }
        let second =
            match self.pool.lease_beside(first, course.ask, &course.tries.keys, &course.tries.failed_hosts) {
                Some(lease) if course.tries.rules_out(lease.key()) => {
                    lease.settle(Outcome::Unused);
                    None
                }
                second => second,
            };
        if second.is_none() {
            self.metrics.hedged(Hedged::NoKey);
        }
        second
    }

    /// How long an attempt that begins now may wait for its head.
    fn limit(&self, course: &Course<'_>) -> Duration {
        let left = course.deadline.saturating_duration_since(self.clock.mono());
        self.policy.head_timeout_of(course.inbound.stream).min(left)
    }
}

type Tried = Result<Attempt, ForwardError>;

/// What both come to, or only the one that is an answer.
async fn both(
    first: impl Future<Output = Tried> + Unpin,
    second: impl Future<Output = Tried>,
) -> Result<(Option<Attempt>, Option<Attempt>), ForwardError> {
    match select(first, pin!(second)).await {
        Either::Left((one, second)) => match one? {
            one if one.is_an_answer() => Ok((Some(one), None)),
            one => Ok((Some(one), Some(second.await?))),
        },
        Either::Right((two, first)) => match two? {
            two if two.is_an_answer() => Ok((None, Some(two))),
            two => Ok((Some(first.await?), Some(two))),
        },
    }
}
