//! One request, from in to out.

mod alarm;
mod api;
mod asking;
mod body;
mod budget;
mod catalog;
mod coding;
mod delivery;
mod error;
mod gather;
pub mod headers;
mod hedge;
mod inbound;
mod leases;
mod meaning;
mod naming;
mod opening;
mod plan;
mod policy;
mod refusal;
mod router;
mod routes;
mod target;
pub mod transport;
mod tries;
mod tunnel;
mod upgrade;
mod upload;
mod why;

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use alarm::Alarm;
pub use api::{Api, Credential};
use body::Rest;
pub use body::{BodyError, LeasedBody};
pub use budget::Budget;
use bytes::Bytes;
pub use catalog::Listed;
pub use delivery::SHOULD_RETRY;
pub use error::{ForwardError, Unavailable};
use headers::add_account;
use hedge::Course;
use http::{Response, response::Parts};
use http_body::Body as _;
pub use inbound::{BodyLimit, BodyLimits, Inbound, InboundError, LONGEST_MODEL, ReplayMemory};
pub use leases::SharedPool;
pub use naming::CannotRename;

use opening::{Begun, LONGEST_HOLD};
pub use plan::{Facts, Plan, Step, Stop};
pub use policy::{Backoff, InvalidBackoff, Policy};
use refusal::Refusal;
pub use router::Router;
pub use routes::{Aim, Alias, Choice, Choices, Misrouted, PoolIndex, Routes};
pub use target::{BadTarget, Parameter, Target};
use transport::{AnswerBody, Switched, Transport};
use tries::{Missed, Tries};
pub use tunnel::Tunnel;
pub use upgrade::BadUpgrade;
pub use upload::{ClientBody, UploadRest};
use why::{RULED_OUT, Story};

use crate::{
    clock::Clock,
    pool::{Explanation, Outcome, Turn},
    provider::{self, Answer, Endpoint, Media, Meter, Told, stream::judge_event, told},
    redact::Traces,
    telemetry::{Metrics, Retried, access::Access},
    types::{Class, Key, Verdict},
};

/// Sends requests with the keys of one pool.
#[derive(Debug)]
pub struct Forwarder {
    pool: Arc<SharedPool>,
    transport: Arc<Transport>,
    policy: Policy,
    api: Api,
    clock: Clock,
    budget: Mutex<Budget>,
    /// The same for second attempts beside the first.
    hedges: Mutex<Budget>,
    metrics: Arc<Metrics>,
}

/// How long the body of a refusal is waited for: its head says most, and another key may be free.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

/// Whoever had a key sooner did not wait for it.
const WORTH_TELLING: Duration = Duration::from_millis(1);

/// The reasons for which a failure is not tried again: labels of a metric.
#[must_use]
pub fn denials() -> Vec<&'static str> {
    Stop::ALL.iter().map(|stop| stop.as_str()).collect()
}

impl Forwarder {
    /// A forwarder over `pool`.
    #[must_use]
    pub fn new(
        pool: Arc<SharedPool>,
        transport: Arc<Transport>,
        policy: Policy,
        api: Api,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (budget, hedges) = (Mutex::new(Budget::new()), Mutex::new(Budget::of_hedges()));
        Self { pool, transport, policy, api, clock, budget, hedges, metrics }
    }

    /// How its upstreams are spoken to.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The pool it takes its keys from.
    #[must_use]
    pub fn pool(&self) -> &Arc<SharedPool> {
        &self.pool
    }

    /// Whether requests may be made to ask for the usage of their streams.
    #[must_use]
    pub fn may_ask_for_usage(&self) -> bool {
        self.policy.ask_for_usage
    }

    /// Sends `inbound`, which came at `start`, with one key after another until an answer is worth delivering.
    ///
    /// Dropped, it drops the upstream call with it, and the lease counts as abandoned.
    ///
    /// # Errors
    /// [`ForwardError`] when there is no answer to deliver; `access` comes back with it.
    // No async function, which would hold its arguments twice, and many may wait.
    pub fn run(
        &self,
        inbound: &mut Inbound,
        start: Instant,
        mut access: Access,
        mut alarm: Alarm,
    ) -> impl Future<Output = Result<Response<LeasedBody>, (ForwardError, Access)>> {
        let mut ask = self.pool.ask(inbound);
        // Made for those who look at the log or the header, and for nobody else.
        let mut story = self.is_explained(&access).then(Box::<Story>::default);
        ask.explained = story.is_some();
        let ask = Arc::new(ask);
        let mut plan = Plan::new(&self.policy, start, inbound.may_repeat, self.pool.keys());
        let mut rng = fastrand::Rng::new();
        let mut patience = if inbound.falls_back { Duration::ZERO } else { self.policy.max_wait };
        let mut tries = Tries::default();
        let (mut again, mut hedged) = (None, false);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).deposit();
        if self.hedges_after(inbound).is_some() {
            self.hedges.lock().unwrap_or_else(PoisonError::into_inner).deposit();
        }
        async move {
            loop {
                let asked = self.clock.mono();
                let wait = if tries.all_refuse() { Duration::ZERO } else { patience };
                let until = plan.deadline().min(asked + wait);
                let (tried, failed) = (&tries.keys, &tries.failed_hosts);
                let mut lease =
                    match self.pool.lease(&ask, tried, failed, until, || inbound.settle_down()).await {
                        Ok(lease) if tries.rules_out(lease.key()) => {
                            if let Some((story, why)) = story.as_deref().zip(lease.explanation()) {
                                self.tell_end(&mut access, story, RULED_OUT, why);
                            }
                            lease.settle(Outcome::Unused);
                            return self.conclude(tries, None, &ask, inbound.falls_back, access, alarm);
                        }
                        Ok(lease) => lease,
                        Err(no_lease) => {
                            if let Some((story, why)) = story.as_deref().zip(no_lease.explanation.as_deref())
                            {
                                self.tell_end(&mut access, story, no_lease.why.as_str(), why);
                            }
                            return self.conclude(
                                tries,
                                Some(&no_lease),
                                &ask,
                                inbound.falls_back,
                                access,
                                alarm,
                            );
                        }
                    };
                let sent = self.clock.mono();
                let waited = sent.saturating_duration_since(asked);
                if waited >= WORTH_TELLING {
                    self.metrics.waited(waited);
                }
                patience = patience.saturating_sub(waited);
                let head_timeout = self.policy.head_timeout_of(inbound.stream);
                let limit = head_timeout.min(plan.deadline().saturating_duration_since(sent));
                access.attempt(lease.key().id());
                if let Some((story, why)) = story.as_deref().zip(lease.explanation()) {
                    self.tell_pick(&mut access, story, lease.key(), why);
                }
                if let Some(kind) = again {
                    self.metrics.retried(kind);
                }
                // Held apart: who waits for a key has no need of the room that an attempt takes.
                let (missed, took) = {
                    let attempt = if let Some(after) = self.hedges_after(inbound).filter(|_| !hedged) {
                        let (ask, tried, deadline) = (&ask, &tries, plan.deadline());
                        let course = Course { inbound, ask, tries: tried, after, deadline };
                        match Box::pin(self.race(lease, course, &mut alarm, &mut access)).await {
                            Ok(raced) => {
                                (lease, hedged) = (raced.lease, raced.hedged);
                                if let Some(lost) = raced.lost {
                                    self.lost(&lost, &mut tries, story.as_deref_mut(), &mut access);
                                }
                                if let Some((story, why)) =
                                    story.as_deref().zip(lease.explanation()).filter(|_| hedged)
                                {
                                    self.tell_pick(&mut access, story, lease.key(), why);
                                }
                                Ok(raced.attempt)
                            }
                            Err(bad) => return Err((bad, access)),
                        }
                    } else {
                        Box::pin(self.attempt(lease.key(), inbound, limit, &mut alarm)).await
                    };
                    match attempt {
                        Err(bad) => return Err((bad, access)),
                        Ok(Attempt::Passed(passed)) => {
                            let (key, verdict) = (Arc::clone(lease.key()), passed.verdict);
                            self.metrics.attempt(verdict.class);
                            let lease = if verdict.class == Class::Success {
                                lease.heard(&passed.told);
                                Some(lease)
                            } else {
                                lease.judged(&verdict, &passed.told);
                                None
                            };
                            let upload = inbound.upload().cloned();
                            return Ok(self.deliver(passed, lease, upload, &key, access, alarm));
                        }
                        Ok(Attempt::Missed(missed)) => {
                            let took = self.clock.mono().saturating_duration_since(lease.since());
                            lease.judged(&missed.verdict, &missed.told);
                            (Box::new(missed), took)
                        }
                    }
                };
                let now = self.clock.mono();
                let verdict = missed.verdict;
                self.metrics.attempt(verdict.class);
                let key = Arc::clone(&missed.key);
                tries.count(&key, &verdict);
                let facts = Facts { local: self.pool.failure_is_local(&key), spent: inbound.is_spent() };
                let afford = || self.budget.lock().unwrap_or_else(PoisonError::into_inner).withdraw(now);
                let step = plan.step(&verdict, facts, now, &mut rng, afford);
                let status = missed.refusal.as_ref().map(|refusal| refusal.status.as_u16());
                if let Some(story) = &mut story {
                    story.tried(key.id(), verdict.class, status);
                }
                access.failed_attempt(self.pool.name(), &verdict, status, took, step.as_str());
                match step {
                    Step::Deliver => {
                        let Some(refusal) = missed.refusal else {
                            return Err((ForwardError::Broken, access));
                        };
                        // Word for word, unless the upstream has let the key slip.
                        let slipped = Traces::of(missed.key.secret()).is_told_in_part(&refusal.text());
                        return Ok(self.deliver_refusal(
                            refusal,
                            &verdict,
                            &missed.key,
                            slipped,
                            access,
                            alarm,
                        ));
                    }
                    Step::Next => {
                        again = Some(Retried::Rotation);
                        tries.last = Some(missed);
                    }
                    Step::NextHost => {
                        again = Some(Retried::Rotation);
                        tries.shun_host_of(&key);
                        tries.last = Some(missed);
                    }
                    Step::NextAfter(pause) => {
                        again = Some(Retried::Retry);
                        tries.last = Some(missed);
                        tokio::time::sleep(pause).await;
                    }
                    Step::Stop(stop) => {
                        self.metrics.retry_denied(stop.as_str());
                        tries.last = Some(missed);
                        if matches!(stop, Stop::NotRepeatable | Stop::Deadline) {
                            inbound.falls_back = false;
                        }
                        return self.conclude(tries, None, &ask, inbound.falls_back, access, alarm);
                    }
                }
            }
        }
    }

    /// Whether anybody wants to be told why it is which key.
    fn is_explained(&self, access: &Access) -> bool {
        access.tells_why() || tracing::enabled!(target: leases::TARGET, tracing::Level::DEBUG)
    }

    fn tell_pick(&self, access: &mut Access, story: &Story, key: &Key, why: &Explanation) {
        let (pool, id, strategy) = (self.pool.name(), key.id(), why.strategy.as_str());
        let (turn, passed_over) = (why.turn.map(Turn::as_str), why.passed_over.told());
        let (_, attempt) = access.attempts();
        tracing::debug!(target: leases::TARGET, %pool, request.id = access.id(), attempt, key.id = %id, strategy, turn, passed_over, "key picked");
        access.say_why(|| story.picked(id, why));
    }

    fn tell_end(&self, access: &mut Access, story: &Story, cause: &str, why: &Explanation) {
        let (pool, passed_over) = (self.pool.name(), why.passed_over.told());
        tracing::debug!(target: leases::TARGET, %pool, request.id = access.id(), cause, passed_over, "no key picked");
        access.say_why(|| story.ended(cause, why));
    }

    /// One upstream call, and what it came to.
    async fn attempt(
        &self,
        key: &Arc<Key>,
        inbound: &Inbound,
        limit: Duration,
        alarm: &mut Alarm,
    ) -> Result<Attempt, ForwardError> {
        let base = &key.settings().base;
        let spoken = inbound.target.spoken();
        let target = self.api.target(spoken, key, &inbound.target, inbound.model())?;
        let mut headers = inbound.headers.clone();
        self.api.sign(spoken, key, &mut headers);
        add_account(&mut headers, key);
        if let Some(wish) = inbound.wish() {
            return Box::pin(self.upgrade(key, inbound, wish, (target, headers), limit, alarm)).await;
        }
        let sending = self.transport.send(base, inbound.method.clone(), target, headers, inbound.body());
        let mut sending = pin!(sending);
        let mut until = self.clock.mono() + limit;
        let sent = loop {
            match alarm.limit(until, sending.as_mut()).await {
                // What is on its way up is not cut.
                None => match inbound.upload().map(|upload| upload.moved() + limit) {
                    Some(later) if later > until => until = later,
                    _ => break None,
                },
                sent => break sent,
            }
        };
        let answer = match sent {
            Some(Ok(answer)) => answer,
            sent => {
                if let Some(failure) = inbound.failure() {
                    return Err(failure.into());
                }
                return Ok(Attempt::without_answer(key, sent.and_then(Result::err).as_ref()));
            }
        };
        self.answered(answer, key, inbound, limit, until, alarm).await
    }

    /// What an answer comes to.
    async fn answered(
        &self,
        answer: Response<AnswerBody>,
        key: &Arc<Key>,
        inbound: &Inbound,
        limit: Duration,
        until: Instant,
        alarm: &mut Alarm,
    ) -> Result<Attempt, ForwardError> {
        let answer = match self.api.told_by_answers(inbound.spoken(), key) {
            Some(needles) => answer.map(|body| body.without(needles)),
            None => answer,
        };
        if !provider::reads_body(answer.status()) {
            let attempt = self.begun(answer, key, inbound, alarm, until).await;
            return match inbound.failure() {
                Some(failure) if matches!(attempt, Attempt::Missed(_)) => Err(failure.into()),
                _ => Ok(attempt),
            };
        }
        if let Some(upload) = inbound.upload() {
            upload.halt();
        }
        let refusal = Refusal::read(answer, limit.min(REFUSAL_PATIENCE)).await;
        let text = refusal.text();
        let answer = Answer { status: refusal.status, headers: &refusal.headers, body: &text };
        let verdict = provider::judge(&answer, inbound.endpoint, self.clock.wall());
        let told = told(answer.headers, answer.body, self.clock.wall());
        drop(text);
        Ok(Attempt::Missed(Missed { key: Arc::clone(key), verdict, told, refusal: Some(refusal) }))
    }

    /// What an answer with a good status came to: a stream may fail before it has begun. It is not
    /// waited for beyond `until`.
    async fn begun(
        &self,
        answer: Response<AnswerBody>,
        key: &Arc<Key>,
        inbound: &Inbound,
        alarm: &mut Alarm,
        until: Instant,
    ) -> Attempt {
        let head = Answer { status: answer.status(), headers: answer.headers(), body: &[] };
        let verdict = provider::judge(&head, inbound.endpoint, self.clock.wall());
        let told = told(answer.headers(), &[], self.clock.wall());
        let (parts, body) = answer.into_parts();
        let media = Media::of(&parts.headers);
        let watched = (media == Some(Media::Events)).then_some(inbound.endpoint);
        let has_extra = watched.is_some() && inbound.asks_for_usage && parts.status.is_success();
        let meter = media.filter(|_| verdict.class == Class::Success && parts.status.is_success());
        let meter = meter.map(|media| Meter::new(media, inbound.spending, inbound.demand));
        // Some forget the status: JSON may be a complaint, in place of a stream or of an answer.
        let asks_a_model = inbound.stream || inbound.endpoint == Endpoint::Inference;
        let may_fail = watched.is_some() || asks_a_model && media.is_some();
        if !may_fail || verdict.class != Class::Success || body.is_end_stream() {
            let rest = Rest::Coming(body);
            let start = Bytes::new();
            return Attempt::Passed(Passed {
                parts,
                start,
                rest,
                verdict,
                told,
                watched: None,
                meter,
                has_extra,
                switched: None,
            });
        }
        let hold = LONGEST_HOLD.min(self.policy.idle_timeout);
        let until = until.min(self.clock.mono() + hold);
        let Begun { start, rest, failure } = Begun::read(body, alarm, until).await;
        let (verdict, refusal) = match (failure, rest) {
            (Some(complaint), rest) => {
                let verdict = judge_event(&complaint, inbound.endpoint, self.clock.wall());
                let Parts { status, headers, .. } = parts;
                (verdict, Some(Refusal { status, headers, start, rest }))
            }
            // Nothing of it was delivered: it is as if it had not begun.
            (None, Rest::Broken) => (provider::judge_fault(provider::Fault::BrokenBody), None),
            (None, rest) => {
                return Attempt::Passed(Passed {
                    parts,
                    start,
                    rest,
                    verdict,
                    told,
                    watched,
                    meter,
                    has_extra,
                    switched: None,
                });
            }
        };
        Attempt::Missed(Missed { key: Arc::clone(key), verdict, told, refusal })
    }
}

enum Attempt {
    /// Nothing that had to be understood first: it goes through.
    Passed(Passed),
    Missed(Missed),
}

/// An answer that is delivered.
struct Passed {
    parts: Parts,
    /// What was read of it.
    start: Bytes,
    rest: Rest,
    verdict: Verdict,
    /// What the answer tells of its account.
    told: Told,
    /// If it is a stream of events: of which kind of endpoint.
    watched: Option<Endpoint>,
    /// Where it can be told what it costs.
    meter: Option<Meter>,
    /// Whether there may be a chunk in it that the client has not asked for.
    has_extra: bool,
    /// If another protocol is spoken from now on: its connection.
    switched: Option<Box<Switched>>,
}
