//! The pool itself, driven as the forwarder drives it (`forward::Forwarder::run`, `forward::SharedPool`), with its plan
//! and its budget; only that here nothing is awaited.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode};
use key_cycle_proxy::{
    forward::{Budget, Facts, Plan, Policy, Step},
    pool::{Arrival, Effects, Exhausted, Grant, Outcome, Pool, Settings, Ticket, Want, Why},
    provider::{self, Endpoint},
    types::{BaseUrl, ClientId, Key, KeyIdentity, KeySettings, Origin, PoolName, Secret, Verdict},
};

use crate::{
    scenario::{Account, Fault, Scenario, Told},
    upstream::Answer,
    world::{Contender, Id, Mark, World},
};

const PURPOSE: &str = "chat";

#[derive(Debug)]
pub(crate) struct Ours<'p> {
    pool: Pool,
    policy: &'p Policy,
    budget: Budget,
    /// In the order in which the upstream knows them.
    keys: HashMap<KeyIdentity, usize>,
    models: &'static [(&'static str, f64)],
    told: Told,
    rng: fastrand::Rng,
    /// In the places of their ids.
    requests: Vec<Option<Request<'p>>>,
    /// Who waits for a key.
    sleepers: HashMap<Arrival, Id>,
}

#[derive(Debug)]
struct Request<'p> {
    arrival: Arrival,
    model: &'static str,
    plan: Plan<'p>,
    tried: Vec<KeyIdentity>,
    failed_hosts: Vec<Origin>,
    /// For how much longer it may wait in all.
    patience: Duration,
    /// Since when, and until when at most, it has been asking for a key.
    asked: Instant,
    until: Instant,
    waits: bool,
    alarm: Option<Mark>,
    out: Option<Out>,
}

/// An attempt under way.
#[derive(Debug)]
struct Out {
    key: Arc<Key>,
    ticket: Ticket,
    since: Instant,
}

impl Request<'_> {
    fn want(&self) -> Want<'_> {
        let Self { arrival, model, tried, failed_hosts, .. } = self;
        Want { arrival: *arrival, model: Some(model), purpose: PURPOSE, tried, failed_hosts }
    }
}

/// The keys, account by account.
fn keys(accounts: &[Account]) -> Vec<Arc<Key>> {
    let entries = accounts.iter().enumerate().flat_map(|(at, account)| {
        let base = BaseUrl::parse(&format!("https://host-{}.test/v1", account.host)).expect("a URL");
        (0..account.keys).map(move |n| {
            let secret = Secret::new(&format!("sk-account-{at}-key-{n}")).expect("a word is a credential");
            let settings = KeySettings {
                label: Some(format!("account {at}, key {n}")),
                account: Some(format!("account {at}")),
                ..KeySettings::at(base.clone())
            };
            (secret, settings)
        })
    });
    Key::pool(&PoolName::default(), entries.collect()).into_iter().map(Arc::new).collect()
}

impl<'p> Ours<'p> {
    pub(crate) fn new(scenario: &Scenario, policy: &'p Policy, settings: Settings, seed: u64) -> Self {
        let keys = keys(&scenario.accounts);
        let numbers = keys.iter().enumerate().map(|(at, key)| (key.identity(), at)).collect();
        let home = keys[0].settings().base.origin().clone();
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            pool: Pool::new(settings, keys, &home, rng.fork()),
            policy,
            budget: Budget::new(),
            keys: numbers,
            models: scenario.models,
            told: scenario.told,
            rng,
            requests: Vec::new(),
            sleepers: HashMap::new(),
        }
    }

    /// Asks for a key, for as long as the request may still wait for one.
    fn lease(&mut self, world: &mut World, id: Id) {
        let now = world.now();
        let request = under_way(&mut self.requests, id);
        request.asked = now;
        request.until = request.plan.deadline().min(now + request.patience);
        self.ask(world, id);
    }

    fn ask(&mut self, world: &mut World, id: Id) {
        let now = world.now();
        let request = under_way(&mut self.requests, id);
        request.alarm = None;
        match self.pool.acquire(now, &request.want()) {
            Ok(Grant { key, ticket }) => {
                let waited = now.saturating_duration_since(request.asked);
                request.patience = request.patience.saturating_sub(waited);
                let left = request.plan.deadline().saturating_duration_since(now);
                let limit = self.policy.head_timeout_of(true).min(left);
                let number = self.keys[&key.identity()];
                request.out = Some(Out { key, ticket, since: now });
                self.leave(world, id);
                world.call(id, number, limit);
            }
            Err(exhausted) => self.wait(world, id, exhausted),
        }
    }

    /// Who is first in line watches the clock, the others are woken by who goes before them.
    fn wait(&mut self, world: &mut World, id: Id, exhausted: Exhausted) {
        let now = world.now();
        let request = under_way(&mut self.requests, id);
        let Exhausted { why, free_at, sooner } = exhausted;
        let is_hopeless = why == Why::NoKeyForModel
            || now >= request.until
            || !sooner && free_at.is_some_and(|at| at > request.until);
        if is_hopeless || self.pool.join(&request.want()).is_err() {
            self.give_up(world, id);
            return;
        }
        request.waits = true;
        self.sleepers.insert(request.arrival, id);
        let watched = free_at.filter(|_| why == Why::NoneFree);
        let at = watched.map_or(request.until, |at| at.min(request.until));
        request.alarm = Some(world.alarm(id, at));
    }

    /// Leaves the line, if it is in it.
    fn leave(&mut self, world: &mut World, id: Id) {
        let request = under_way(&mut self.requests, id);
        if std::mem::take(&mut request.waits) {
            self.sleepers.remove(&request.arrival);
            if let Some(next) = self.pool.leave(request.arrival) {
                self.wake(world, next);
            }
        }
    }

    fn wake(&mut self, world: &mut World, arrival: Arrival) {
        if let Some(&id) = self.sleepers.get(&arrival) {
            let alarm = world.alarm(id, world.now());
            under_way(&mut self.requests, id).alarm = Some(alarm);
        }
    }

    fn carry_out(&mut self, world: &mut World, effects: Effects) {
        for arrival in effects.wake {
            self.wake(world, arrival);
        }
    }

    fn give_up(&mut self, world: &mut World, id: Id) {
        self.leave(world, id);
        self.requests[id.index()] = None;
        world.give_up(id);
    }

    fn heard(&mut self, world: &mut World, id: Id) {
        let request = under_way(&mut self.requests, id);
        let mut out = request.out.take().expect("it was called");
        let now = world.now();
        let latency = now.saturating_duration_since(out.since);
        let effects = self.pool.heard(now, &mut out.ticket, latency, &request.want());
        request.out = Some(out);
        self.carry_out(world, effects);
    }

    fn missed(&mut self, world: &mut World, id: Id, verdict: &Verdict) {
        let now = world.now();
        let request = under_way(&mut self.requests, id);
        let Out { key, ticket, .. } = request.out.take().expect("it was called");
        request.tried.push(key.identity());
        let host = key.settings().base.origin();
        if verdict.is_the_hosts() && !request.failed_hosts.contains(host) {
            request.failed_hosts.push(host.clone());
        }
        self.pool.note(now, &ticket, verdict.class);
        let effects = self.pool.settle(now, ticket, Outcome::of(verdict), &request.want());
        let facts = Facts { local: self.pool.failure_is_local(&key) };
        let afford = || self.budget.withdraw(now);
        let step = request.plan.step(verdict, facts, now, &mut self.rng, afford);
        self.carry_out(world, effects);
        match step {
            // A host is left for good where it refuses our address, which none does here.
            Step::Next | Step::NextHost => self.lease(world, id),
            Step::NextAfter(pause) => {
                let alarm = world.alarm(id, now + pause);
                under_way(&mut self.requests, id).alarm = Some(alarm);
            }
            Step::Deliver | Step::Stop(_) => self.give_up(world, id),
        }
    }
}

impl Contender for Ours<'_> {
    fn came(&mut self, world: &mut World, id: Id) {
        let now = world.now();
        let request = Request {
            arrival: self.pool.arrive(ClientId::default()),
            model: self.models[world.request(id).model].0,
            plan: Plan::new(self.policy, now, true, self.pool.keys()),
            tried: Vec::new(),
            failed_hosts: Vec::new(),
            patience: self.policy.max_wait,
            asked: now,
            until: now,
            waits: false,
            alarm: None,
            out: None,
        };
        self.budget.deposit();
        if self.requests.len() <= id.index() {
            self.requests.resize_with(id.index() + 1, || None);
        }
        self.requests[id.index()] = Some(request);
        self.lease(world, id);
    }

    fn answered(&mut self, world: &mut World, id: Id, answer: Answer) {
        match judged(answer, self.told) {
            Verdict::SUCCESS => self.heard(world, id),
            verdict => self.missed(world, id, &verdict),
        }
    }

    fn ended(&mut self, world: &mut World, id: Id) {
        let mut request = self.requests[id.index()].take().expect("it is under way");
        let Out { ticket, .. } = request.out.take().expect("it was called");
        let effects = self.pool.settle(world.now(), ticket, Outcome::Good, &request.want());
        self.carry_out(world, effects);
    }

    fn rang(&mut self, world: &mut World, id: Id, mark: Mark) {
        let Some(request) = &mut self.requests[id.index()] else { return };
        if request.alarm != Some(mark) {
            return;
        }
        if request.waits { self.ask(world, id) } else { self.lease(world, id) }
    }
}

fn under_way<'a, 'p>(requests: &'a mut [Option<Request<'p>>], id: Id) -> &'a mut Request<'p> {
    requests[id.index()].as_mut().expect("it is under way")
}

/// What the answer means, judged by what stands in it.
fn judged(answer: Answer, told: Told) -> Verdict {
    let mut headers = HeaderMap::new();
    let (status, body): (_, &[u8]) = match answer {
        Answer::Served => return Verdict::SUCCESS,
        Answer::Fault(Fault::Hangs) => return provider::judge_fault(provider::Fault::HeadTimeout),
        Answer::Fault(Fault::Unreachable) => return provider::judge_fault(provider::Fault::Connect),
        Answer::Fault(Fault::Fails) => {
            (StatusCode::INTERNAL_SERVER_ERROR, br#"{"error": {"type": "server_error", "code": null}}"#)
        }
        Answer::Fault(Fault::Revoked) => {
            (StatusCode::UNAUTHORIZED, br#"{"error": {"code": "invalid_api_key"}}"#)
        }
        Answer::Limited(wait) => {
            match told {
                Told::Nothing => {}
                Told::Seconds => {
                    headers.insert("retry-after", whole(wait.as_secs_f64()));
                }
                Told::Millis => {
                    headers.insert("retry-after-ms", whole(wait.as_secs_f64() * 1e3));
                }
            }
            (StatusCode::TOO_MANY_REQUESTS, br#"{"error": {"code": "rate_limit_exceeded"}}"#)
        }
    };
    let answer = provider::Answer { status, headers: &headers, body };
    provider::judge(&answer, Endpoint::Inference, SystemTime::UNIX_EPOCH)
}

/// Rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a wait is not negative")]
fn whole(number: f64) -> HeaderValue {
    HeaderValue::from(number.ceil() as u64)
}
