//! The shell around a pool: one lock, the clock, and who sleeps until a key is free.
//!
//! A [`Lease`] is given back by settling it; dropped unsettled, its attempt was abandoned and nobody is to blame. So
//! nothing that ends a request early (a client that leaves, a timeout, a panic) can leave a key counted as busy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::Inbound;
use crate::{
    clock::Clock,
    pool::{
        Arrival, Causes, Effects, Exhausted, Explanation, Grant, Outcome, Pool, Reason, Snapshot, Survey,
        Ticket, Transition, Trouble, Want, Why,
    },
    provider::Told,
    types::{Class, Demand, Key, KeyIdentity, Origin, PoolName, Usage, Verdict},
};

/// The target of what is logged about keys and hosts: `RUST_LOG=key_cycle_proxy::pool=debug`.
pub(super) const TARGET: &str = "key_cycle_proxy::pool";

/// So many keys are looked at for one of another account.
const BESIDE_TRIES: usize = 4;

/// A pool that many requests share.
#[derive(Debug)]
pub struct SharedPool {
    name: PoolName,
    clock: Clock,
    keys: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    sleepers: HashMap<Arrival, Arc<Notify>>,
}

/// What a request wants a key for, for as long as the request lives.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) arrival: Arrival,
    pub(super) model: Option<Box<str>>,
    pub(super) purpose: Box<str>,
    pub(super) demand: Demand,
    pub(super) stream: bool,
    /// Whether somebody wants to be told why.
    pub(super) explained: bool,
}

impl Ask {
    fn want<'a>(&'a self, tried: &'a [KeyIdentity], failed_hosts: &'a [Origin]) -> Want<'a> {
        let Self { arrival, model, purpose, stream, demand, .. } = self;
        let (arrival, model, stream, demand) = (*arrival, model.as_deref(), *stream, *demand);
        Want { arrival, model, purpose, stream, tried, failed_hosts, demand }
    }
}

/// Why no lease was given, in spite of waiting.
#[derive(Debug)]
pub(super) struct NoLease {
    pub(super) why: NoLeaseWhy,
    /// When it is worth asking again.
    pub(super) free_in: Option<Duration>,
    pub(super) causes: Causes,
    /// Where somebody wants to be told.
    pub(super) explanation: Option<Box<Explanation>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLeaseWhy {
    NoKeyForModel,
    LineFull,
    NoneFree,
}

impl SharedPool {
    /// A pool to share.
    #[must_use]
    pub fn new(name: PoolName, pool: Pool, clock: Clock) -> Self {
        let keys = pool.keys();
        Self { name, clock, keys, inner: Mutex::new(Inner { pool, sleepers: HashMap::new() }) }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// How many keys it has.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The pool as it is now.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.clock.mono();
        self.lock().pool.snapshot(now)
    }

    pub(super) fn ask(&self, inbound: &Inbound) -> Ask {
        Ask {
            arrival: self.lock().pool.arrive(inbound.client),
            model: inbound.model().map(Box::from),
            purpose: Box::from(inbound.purpose()),
            demand: inbound.demand,
            stream: inbound.stream,
            explained: false,
        }
    }

    /// Leases the key whose turn it is; waits for one, in line, until `patience` ends. Before it waits it calls
    /// `about_to_wait`.
    #[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice, and many may wait")]
    pub(super) fn lease<'a>(
        self: &'a Arc<Self>,
        ask: &'a Arc<Ask>,
        tried: &'a [KeyIdentity],
        failed_hosts: &'a [Origin],
        patience: Instant,
        about_to_wait: impl FnOnce() + 'a,
    ) -> impl Future<Output = Result<Lease, NoLease>> + 'a {
        async move {
            let mut about_to_wait = Some(about_to_wait);
            let mut waiting: Option<Waiting<'_>> = None;
            loop {
                let now = self.clock.mono();
                let (until, woken) = {
                    let mut inner = self.lock();
                    // Made anew each time: who waits need not hold it.
                    let want = ask.want(tried, failed_hosts);
                    let survey = ask.explained.then(|| inner.pool.survey(now, &want));
                    let exhausted = match inner.pool.acquire(now, &want) {
                        Ok(grant) => {
                            let explanation = inner.explain(survey.as_ref(), Some(&grant.ticket));
                            drop(inner);
                            let lease = Lease {
                                pool: Arc::clone(self),
                                key: grant.key,
                                ticket: Some(grant.ticket),
                                ask: Arc::clone(ask),
                                since: now,
                                explanation,
                            };
                            return Ok(lease);
                        }
                        Err(exhausted) => exhausted,
                    };
                    let stands = inner.stand_in_line(now, &want, exhausted, patience);
                    let wake = stands.map_err(|mut no_lease| {
                        no_lease.explanation = inner.explain(survey.as_ref(), None);
                        no_lease
                    })?;
                    let woken = waiting.get_or_insert_with(|| Waiting::new(self, ask.arrival)).woken.clone();
                    inner.sleepers.insert(ask.arrival, Arc::clone(&woken));
                    inner.wake(&wake);
                    // Only who is first in line watches the clock; the others are woken by who goes before them.
                    let watched = exhausted.free_at.filter(|_| exhausted.why == Why::NoneFree);
                    (watched.map_or(patience, |at| at.min(patience)), woken)
                };
                if let Some(about_to_wait) = about_to_wait.take() {
                    about_to_wait();
                }
                // A cancelled wait leaves the line by `Waiting`'s drop.
                let _ = tokio::time::timeout_at(until.into(), woken.notified()).await;
            }
        }
    }

    /// Leases a key for a second attempt beside `first`: of another account if there is one, and only if it is free now
    /// and nobody waits for it.
    pub(super) fn lease_beside(
        self: &Arc<Self>,
        first: &Lease,
        ask: &Arc<Ask>,
        tried: &[KeyIdentity],
        failed_hosts: &[Origin],
    ) -> Option<Lease> {
        let now = self.clock.mono();
        let mut tried = tried.to_vec();
        tried.push(first.key.identity());
        let mut of_the_same: Option<Lease> = None;
        for _ in 0..BESIDE_TRIES {
            let mut inner = self.lock();
            if inner.pool.waiting() > 0 {
                break;
            }
            let want = ask.want(&tried, failed_hosts);
            let survey = ask.explained.then(|| inner.pool.survey(now, &want));
            let Ok(Grant { key, ticket }) = inner.pool.acquire(now, &want) else { break };
            let explanation = inner.explain(survey.as_ref(), Some(&ticket));
            let same = inner.pool.share_account(&first.key, &key);
            drop(inner);
            let lease = Lease {
                pool: Arc::clone(self),
                key,
                ticket: Some(ticket),
                ask: Arc::clone(ask),
                since: now,
                explanation,
            };
            let identity = lease.key.identity();
            if tried.contains(&identity) {
                // There is no other.
                lease.settle(Outcome::Unused);
                break;
            }
            if !same {
                if let Some(spare) = of_the_same {
                    spare.settle(Outcome::Unused);
                }
                return Some(lease);
            }
            tried.push(identity);
            match of_the_same {
                None => of_the_same = Some(lease),
                Some(_) => lease.settle(Outcome::Unused),
            }
        }
        of_the_same
    }

    pub(super) fn lift(&self, keys: &[KeyIdentity], reason: Reason) {
        let now = self.clock.mono();
        let effects = self.lock().pool.lift(now, keys, reason);
        self.carry_out(effects);
    }

    pub(super) fn failure_is_local(&self, key: &Key) -> bool {
        self.lock().pool.failure_is_local(key)
    }

    pub(super) fn causes(&self, ask: &Ask) -> Causes {
        let now = self.clock.mono();
        self.lock().pool.causes(now, &ask.want(&[], &[]))
    }

    /// The pool's decisions never panic half-way through a change that another could trip over.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, effects: Effects) {
        if !effects.wake.is_empty() {
            self.lock().wake(&effects.wake);
        }
        for transition in effects.transitions {
            self.log(&transition);
        }
    }

    fn log(&self, transition: &Transition) {
        let now = self.clock.mono();
        let ms = |until: &Instant| {
            u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
        };
        let pool = &self.name;
        match transition {
            Transition::Resting { key, model: None, reason: Reason::Rejected, until, .. } => {
                warn!(target: TARGET, %pool, key.id = %key.id(), recheck_ms = ms(until), "upstream rejected a key: quarantined");
            }
            Transition::Resting { key, model, reason, until, with } => {
                let model = model.as_deref();
                info!(target: TARGET, %pool, key.id = %key.id(), reason = reason.as_str(), model, for_ms = ms(until), with_keys = with, "key rests");
            }
            Transition::Recovered { key } => info!(target: TARGET, %pool, key.id = %key.id(), "key is back"),
            Transition::HostOpened { host, trouble: Trouble::Egress, until } => {
                warn!(target: TARGET, %pool, %host, trouble = Trouble::Egress.as_str(), for_ms = ms(until), "upstream refuses our address: breaker open");
            }
            Transition::HostOpened { host, trouble, until } => {
                warn!(target: TARGET, %pool, %host, trouble = trouble.as_str(), for_ms = ms(until), "upstream fails for its keys: breaker open");
            }
            Transition::HostClosed { host } => {
                info!(target: TARGET, %pool, %host, "upstream answers again: breaker closed")
            }
        }
    }
}

impl Inner {
    /// What an answer tells of its account.
    fn note(&mut self, now: Instant, ticket: &Ticket, want: &Want<'_>, told: &Told) -> [Option<Effects>; 2] {
        let learned = told.account.map(|account| self.pool.learn(now, ticket, account));
        let is_told = !told.left.is_empty();
        [learned, is_told.then(|| self.pool.announced(now, ticket, want, &told.left))]
    }

    fn explain(&self, survey: Option<&Survey>, ticket: Option<&Ticket>) -> Option<Box<Explanation>> {
        survey.map(|survey| Box::new(self.pool.explain(survey, ticket)))
    }

    fn wake(&self, arrivals: &[Arrival]) {
        for sleeper in arrivals.iter().filter_map(|arrival| self.sleepers.get(arrival)) {
            sleeper.notify_one();
        }
    }

    /// Joins the line, unless waiting is over or can't help. Returns who should ask again for that.
    fn stand_in_line(
        &mut self,
        now: Instant,
        want: &Want<'_>,
        exhausted: Exhausted,
        patience: Instant,
    ) -> Result<Vec<Arrival>, NoLease> {
        let why = match exhausted.why {
            Why::NoKeyForModel => NoLeaseWhy::NoKeyForModel,
            // Without a known moment something may still come free: a probe, a full key.
            _ if now >= patience
                || !exhausted.sooner && exhausted.free_at.is_some_and(|at| at > patience) =>
            {
                NoLeaseWhy::NoneFree
            }
            _ if self.pool.is_hopeless(now, want) => NoLeaseWhy::NoneFree,
            _ => match self.pool.join(want) {
                Ok(wake) => return Ok(wake),
                Err(_) => NoLeaseWhy::LineFull,
            },
        };
        let causes = self.pool.causes(now, want);
        // Where one may come sooner, the first moment is not known.
        let free_at = exhausted.free_at.filter(|_| !exhausted.sooner);
        let free_in = free_at.map(|at| at.saturating_duration_since(now));
        Err(NoLease { why, free_in, causes, explanation: None })
    }
}

/// A place in the line, left when dropped.
struct Waiting<'p> {
    pool: &'p SharedPool,
    arrival: Arrival,
    woken: Arc<Notify>,
}

impl<'p> Waiting<'p> {
    fn new(pool: &'p SharedPool, arrival: Arrival) -> Self {
        Self { pool, arrival, woken: Arc::new(Notify::new()) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.pool.lock();
        inner.sleepers.remove(&self.arrival);
        let next = inner.pool.leave(self.arrival);
        inner.wake(next.as_slice());
    }
}

/// The right to use one key for one attempt. Settled once; dropped unsettled, the attempt was abandoned.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<SharedPool>,
    key: Arc<Key>,
    ticket: Option<Ticket>,
    ask: Arc<Ask>,
    since: Instant,
    explanation: Option<Box<Explanation>>,
}

impl Lease {
    pub(super) fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// When it began.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Why it was this key, where somebody wants to be told.
    pub(super) fn explanation(&self) -> Option<&Explanation> {
        self.explanation.as_deref()
    }

    /// A head has come that shows the key at work, and tells this of its account; the lease stays out for the body.
    pub(super) fn heard(&mut self, told: &Told) {
        let now = self.pool.clock.mono();
        if let Some(ticket) = &mut self.ticket {
            let latency = now.saturating_duration_since(self.since);
            let want = self.ask.want(&[], &[]);
            let mut inner = self.pool.lock();
            let noted = inner.note(now, ticket, &want, told);
            let effects = inner.pool.heard(now, ticket, latency, &want);
            drop(inner);
            for effects in noted.into_iter().flatten().chain([effects]) {
                self.pool.carry_out(effects);
            }
        }
    }

    /// What its answer has cost, as that says.
    pub(super) fn used(&self, usage: &Usage) {
        if let Some(ticket) = &self.ticket {
            let now = self.pool.clock.mono();
            let effects = self.pool.lock().pool.used(now, ticket, &self.ask.want(&[], &[]), usage);
            self.pool.carry_out(effects);
        }
    }

    /// Whether what it costs counts against a limit of tokens that is known.
    pub(super) fn counts_tokens(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::counts_tokens)
    }

    pub(super) fn settle(mut self, outcome: Outcome) {
        self.give_back(outcome, None);
    }

    /// Settles it with what its attempt came to, and what the answer tells of its account.
    pub(super) fn judged(mut self, verdict: &Verdict, told: &Told) {
        if let Some(ticket) = &self.ticket {
            let want = self.ask.want(&[], &[]);
            let noted = self.pool.lock().note(self.pool.clock.mono(), ticket, &want, told);
            for effects in noted.into_iter().flatten() {
                self.pool.carry_out(effects);
            }
        }
        self.give_back(Outcome::of(verdict), Some(verdict.class));
    }

    fn give_back(&mut self, outcome: Outcome, class: Option<Class>) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.pool.clock.mono();
            let effects = {
                let pool = &mut self.pool.lock().pool;
                if let Some(class) = class {
                    pool.note(now, &ticket, class);
                }
                pool.settle(now, ticket, outcome, &self.ask.want(&[], &[]))
            };
            self.pool.carry_out(effects);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back(Outcome::Abandoned, None);
    }
}
