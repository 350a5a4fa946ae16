//! The pool itself, driven as the forwarder drives it (`forward::Forwarder::run`, `forward::SharedPool`), with its plan
//! and its budget; only that here nothing is awaited.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use key_cycle_proxy::{
    forward::{Budget, Facts, Plan, Policy, Step},
    pool::{Arrival, Effects, Exhausted, Grant, Outcome, Pool, Settings, Ticket, Want, Why},
    provider::{self, Endpoint, Told},
    types::{
        BaseUrl, ClientId, Demand, Key, KeyIdentity, KeySettings, Origin, PoolName, Secret, Usage, Verdict,
    },
};

use crate::{
    scenario::{Account, Fault, Refill, Scenario, Told as Telling},
    upstream::{Answer, Left, Level},
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
    told: Telling,
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
    demand: Demand,
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
        let Self { arrival, model, tried, failed_hosts, demand, .. } = self;
        let (arrival, model, demand) = (*arrival, Some(*model), *demand);
        Want { arrival, model, purpose: PURPOSE, stream: false, tried, failed_hosts, demand }
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

    fn heard(&mut self, world: &mut World, id: Id, told: &Told) {
        let request = under_way(&mut self.requests, id);
        let mut out = request.out.take().expect("it was called");
        let now = world.now();
        let latency = now.saturating_duration_since(out.since);
        let announced = self.pool.announced(now, &out.ticket, &request.want(), &told.left);
        let effects = self.pool.heard(now, &mut out.ticket, latency, &request.want());
        request.out = Some(out);
        self.carry_out(world, announced);
        self.carry_out(world, effects);
    }

    fn missed(&mut self, world: &mut World, id: Id, verdict: &Verdict, told: &Told) {
        let now = world.now();
        let request = under_way(&mut self.requests, id);
        let Out { key, ticket, .. } = request.out.take().expect("it was called");
        request.tried.push(key.identity());
        let host = key.settings().base.origin();
        if verdict.is_the_hosts() && !request.failed_hosts.contains(host) {
            request.failed_hosts.push(host.clone());
        }
        self.pool.note(now, &ticket, verdict.class);
        let announced = self.pool.announced(now, &ticket, &request.want(), &told.left);
        let effects = self.pool.settle(now, ticket, Outcome::of(verdict), &request.want());
        let facts = Facts { local: self.pool.failure_is_local(&key), spent: false };
        let afford = || self.budget.withdraw(now);
        let step = request.plan.step(verdict, facts, now, &mut self.rng, afford);
        self.carry_out(world, announced);
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
        let demand = estimated(&mut self.rng, world.request(id).tokens);
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
            demand,
        };
        self.budget.deposit();
        if self.requests.len() <= id.index() {
            self.requests.resize_with(id.index() + 1, || None);
        }
        self.requests[id.index()] = Some(request);
        self.lease(world, id);
    }

    fn answered(&mut self, world: &mut World, id: Id, answer: Answer) {
        match understood(answer, self.told) {
            (Verdict::SUCCESS, told) => self.heard(world, id, &told),
            (verdict, told) => self.missed(world, id, &verdict, &told),
        }
    }

    fn ended(&mut self, world: &mut World, id: Id) {
        let mut request = self.requests[id.index()].take().expect("it is under way");
        let Out { ticket, .. } = request.out.take().expect("it was called");
        let usage = Usage { input: count(world.request(id).tokens), ..Usage::default() };
        let used = self.pool.used(world.now(), &ticket, &request.want(), &usage);
        let effects = self.pool.settle(world.now(), ticket, Outcome::Good, &request.want());
        self.carry_out(world, used);
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

/// A forwarder doesn't know what a request will cost; it guesses well enough.
fn estimated(rng: &mut fastrand::Rng, tokens: f64) -> Demand {
    let input = count(tokens * (0.7 + 0.6 * rng.f64()));
    Demand { input: u32::try_from(input).unwrap_or(u32::MAX), output: Some(0) }
}

/// What the answer means and tells, by what stands in it.
fn understood(answer: Answer, telling: Telling) -> (Verdict, Told) {
    let mut headers = HeaderMap::new();
    let (status, body): (_, &[u8]) = match answer {
        Answer::Served(left) => {
            announce(&mut headers, &left, telling);
            (StatusCode::OK, b"")
        }
        Answer::Fault(Fault::Hangs) => {
            return (provider::judge_fault(provider::Fault::HeadTimeout), Told::default());
        }
        Answer::Fault(Fault::Unreachable) => {
            return (provider::judge_fault(provider::Fault::Connect), Told::default());
        }
        Answer::Fault(Fault::Fails) => {
            (StatusCode::INTERNAL_SERVER_ERROR, br#"{"error": {"type": "server_error", "code": null}}"#)
        }
        Answer::Fault(Fault::Revoked) => {
            (StatusCode::UNAUTHORIZED, br#"{"error": {"code": "invalid_api_key"}}"#)
        }
        Answer::Limited(wait, left) => {
            match telling {
                Telling::Nothing => {}
                Telling::Seconds => {
                    headers.insert("retry-after", HeaderValue::from(count(wait.as_secs_f64().ceil())));
                }
                Telling::Millis | Telling::MillisAlone => {
                    let millis = count((wait.as_secs_f64() * 1e3).ceil());
                    headers.insert("retry-after-ms", HeaderValue::from(millis));
                }
            }
            announce(&mut headers, &left, telling);
            (StatusCode::TOO_MANY_REQUESTS, br#"{"error": {"code": "rate_limit_exceeded"}}"#)
        }
    };
    let answer = provider::Answer { status, headers: &headers, body };
    let wall = SystemTime::UNIX_EPOCH;
    (provider::judge(&answer, Endpoint::Inference, wall), provider::told(&headers, body, wall))
}

/// What is left, as providers write it.
fn announce(headers: &mut HeaderMap, left: &Left, telling: Telling) {
    if matches!(telling, Telling::Nothing | Telling::MillisAlone) {
        return;
    }
    let mut put = |kind: &str, level: &Level| {
        let per = if level.refill == Refill::EachMinute { "-minute" } else { "" };
        for (field, value) in [
            ("limit", level.most.floor().to_string()),
            ("remaining", level.left.max(0.0).floor().to_string()),
            ("reset", format!("{}ms", (level.reset.as_secs_f64() * 1e3).ceil())),
        ] {
            let name = HeaderName::try_from(format!("x-ratelimit-{field}-{kind}{per}"));
            let value = HeaderValue::try_from(value);
            headers.insert(name.expect("a name"), value.expect("digits"));
        }
    };
    put("requests", &left.requests);
    put("tokens", &left.tokens);
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no count is negative")]
fn count(number: f64) -> u64 {
    number as u64
}
