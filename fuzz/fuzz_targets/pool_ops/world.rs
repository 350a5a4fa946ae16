//! What a caller can know of a pool, and what it may expect.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::{Duration, Instant},
};

use key_cycle_proxy::{
    clock::Clock,
    pool::{
        Arrival, Effects, Exhausted, Grant, HostView, KeyView, Outcome, Pool, Reason, Rests, Settings,
        Snapshot, State, Strategy, Ticket, Transition, Want, Why,
    },
    rate::Gcra,
    types::{BaseUrl, Class, ClientId, Demand, Key, KeyIdentity, Origin, PoolName, Secret},
};

use crate::input::{MANY, MODELS, Op, Refused, Script};

/// However long an upstream asks to stay away, a day later it is asked again.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NANOSECOND: Duration = Duration::from_nanos(1);
/// A key that has brought nothing for so long may be behind the others: then it is nobody's first choice.
const LATE: Duration = Duration::from_millis(100);
/// Rests for so many models are kept at least; then those that are soonest over make room.
const MODELS_REMEMBERED: usize = 100;
/// So many clients take turns in asking.
const CLIENTS: usize = 3;
/// Requests without a model go there, if a key does.
const HOME: &str = "https://two.test";

pub struct World {
    pool: Pool,
    settings: Settings,
    now: Instant,
    keys: Vec<Known>,
    hosts: Vec<Host>,
    out: Vec<Out>,
    waiting: BTreeMap<Arrival, Waiter>,
    /// Models that some key was refused.
    refused_models: BTreeSet<&'static str>,
    rests_begun: HashMap<Reason, u64>,
    arrived: usize,
    requests: usize,
    grants: u64,
}

/// What is known of a key.
struct Known {
    key: Arc<Key>,
    host: usize,
    /// The first key with the same secret on the same host.
    credential: usize,
    /// The first key of the same account.
    account: usize,
    gcra: Gcra,
    out: u32,
    used: u64,
    /// The end of a rest that a refusal named.
    named: Option<Instant>,
    /// The same for one model.
    named_for: HashMap<&'static str, Instant>,
    /// The grant that is to show whether it is well again.
    probe: Option<u64>,
    /// When the first attempt since it was last heard of went out.
    silent: Option<Instant>,
    /// Whether a refusal has taught it to keep a distance between its requests.
    paced: bool,
    /// Whether it was refused for one model alone: such rests are not seen from outside.
    refused_for_model: bool,
    /// Kinds of endpoint that it was refused some time or other.
    denied: BTreeSet<&'static str>,
    /// What it did last that was neither a success nor a client's fault.
    last_error: Option<(Class, Instant)>,
}

struct Host {
    origin: Origin,
    shut_until: Option<Instant>,
    openings: u64,
    probe: Option<u64>,
    /// When another may be sent though that is out.
    another: Option<Instant>,
}

/// An attempt that is out.
struct Out {
    ticket: Ticket,
    id: u64,
    key: usize,
    request: Request,
    /// Whether its head has come.
    heard: bool,
    /// Whether something may be waiting for its end to know how a key or a host is.
    may_prove: bool,
}

#[derive(Clone)]
struct Request {
    client: usize,
    arrival: Arrival,
    model: Option<&'static str>,
    purpose: &'static str,
    tried: Vec<KeyIdentity>,
    failed_hosts: Vec<Origin>,
}

impl Request {
    fn want(&self) -> Want<'_> {
        let Self { arrival, model, purpose, tried, failed_hosts, .. } = self;
        let (arrival, model, stream) = (*arrival, *model, tried.len() % 2 == 1);
        Want { arrival, model, purpose, stream, tried, failed_hosts, demand: Demand::default() }
    }
}

/// Somebody in line.
struct Waiter {
    request: Request,
    sleep: Sleep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// It was woken and will ask.
    Awake,
    /// Who is first in line watches the clock, too.
    Until(Option<Instant>),
}

impl World {
    pub fn new(script: &Script) -> Self {
        let entries = script.entries.iter().map(|entry| {
            let secret = Secret::new(&format!("sk-{}", entry.secret)).expect("a word is a credential");
            (secret, entry.settings.clone())
        });
        let keys: Vec<Arc<Key>> =
            Key::pool(&PoolName::default(), entries.collect()).into_iter().map(Arc::new).collect();
        let home = BaseUrl::parse(HOME).expect("it is a base URL");
        let rng = fastrand::Rng::with_seed(script.seed.into());
        let pool = Pool::new(script.settings.clone(), keys.clone(), home.origin(), rng);
        let mut hosts: Vec<Host> = Vec::new();
        let mut known: Vec<Known> = Vec::new();
        for key in keys {
            let origin = key.settings().base.origin();
            let host = hosts.iter().position(|host| host.origin == *origin).unwrap_or_else(|| {
                hosts.push(Host {
                    origin: origin.clone(),
                    shut_until: None,
                    openings: 0,
                    probe: None,
                    another: None,
                });
                hosts.len() - 1
            });
            let same = |other: &Known| other.host == host && other.key.fingerprint() == key.fingerprint();
            let credential = known.iter().position(same).unwrap_or(known.len());
            known.push(Known {
                key,
                host,
                credential,
                account: credential,
                gcra: Gcra::default(),
                out: 0,
                used: 0,
                named: None,
                named_for: HashMap::new(),
                probe: None,
                silent: None,
                paced: false,
                refused_for_model: false,
                denied: BTreeSet::new(),
                last_error: None,
            });
        }
        assert_eq!(pool.keys(), known.len());
        let declared = |of: &Known| {
            let family = known.iter().filter(|twin| twin.credential == of.credential);
            family.filter_map(|twin| twin.key.settings().account.as_deref()).next()
        };
        let first_of = |of: &Known| match declared(of) {
            Some(name) => {
                known.iter().position(|other| declared(other) == Some(name)).unwrap_or(of.credential)
            }
            None => of.credential,
        };
        let accounts: Vec<usize> = known.iter().map(first_of).collect();
        for (key, account) in known.iter_mut().zip(accounts) {
            key.account = account;
        }
        Self {
            pool,
            settings: script.settings.clone(),
            now: Clock::system().now().mono + DAY,
            keys: known,
            hosts,
            out: Vec::new(),
            waiting: BTreeMap::new(),
            refused_models: BTreeSet::new(),
            rests_begun: HashMap::new(),
            arrived: 0,
            requests: 0,
            grants: 0,
        }
    }

    /// How often a key was asked for.
    pub fn requests(&self) -> usize {
        self.requests
    }

    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Ask { model, purpose, refused } => {
                let request = self.arrive(model, purpose);
                self.ask_or(&request, refused);
            }
            Op::Heard { which, after } => self.heard(which, after),
            Op::Settle { which, outcome, again } => {
                let request = self.settle(which, outcome);
                if let Some((request, refused)) = request.zip(again) {
                    self.ask_or(&request, refused);
                }
            }
            Op::Leave { which } => {
                if let Some(nth) = usize::from(which).checked_rem(self.waiting.len()) {
                    let arrival = *self.waiting.keys().nth(nth).expect("so many wait");
                    self.leave(arrival);
                }
            }
            Op::Wake => {
                self.let_them_ask();
                self.disturb_the_first();
            }
            Op::Advance(by) => self.advance_to(self.now + by.min(DAY * 30)),
            Op::AdvanceToNext => {
                if let Some(next) = self.next_moment() {
                    self.advance_to(next);
                }
            }
            Op::Lift { key, reason } => self.lift(key, reason),
            Op::Run { model, outcome, times } => {
                for _ in 0..times {
                    if !self.serve(model, outcome) {
                        break;
                    }
                }
            }
            Op::Many { first, outcome, times } => {
                for model in MANY.iter().cycle().skip(first).take(times.into()) {
                    if !self.serve(Some(model), outcome) {
                        break;
                    }
                }
            }
        }
        self.check();
    }

    /// Ends the story: every attempt ends, and everybody who waits is served.
    pub fn finish(&mut self) {
        while !self.out.is_empty() {
            self.settle(0, Outcome::Abandoned);
            self.check();
        }
        // Each is served or told a later moment; no more than some rests and paces can put it off.
        for _ in 0..10_000 {
            self.let_them_ask();
            while !self.out.is_empty() {
                self.settle(0, Outcome::Good);
            }
            self.check();
            if self.waiting.values().any(|waiter| waiter.sleep == Sleep::Awake) {
                continue;
            }
            match self.next_moment() {
                Some(next) => self.advance_to(next),
                None => break,
            }
        }
        assert_eq!(self.waiting.len(), 0, "somebody is never served");
        self.expect_recovery();
    }

    fn arrive(&mut self, model: Option<&'static str>, purpose: &'static str) -> Request {
        // Three clients take turns in coming, so that what was recorded before there were clients means the same.
        self.arrived += 1;
        let client = self.arrived % CLIENTS;
        let seed = BuildHasherDefault::<DefaultHasher>::default();
        let arrival = self.pool.arrive(ClientId::of(&seed, client));
        Request { client, arrival, model, purpose, tried: Vec::new(), failed_hosts: Vec::new() }
    }

    /// Asks for a key. Who gets one leaves the line.
    fn ask(&mut self, request: &Request) -> Result<(), Exhausted> {
        self.requests += 1;
        let before = self.pool.snapshot(self.now);
        match self.pool.acquire(self.now, &request.want()) {
            Ok(grant) => {
                self.granted(request, grant, &before);
                self.leave(request.arrival);
                Ok(())
            }
            Err(exhausted) => {
                self.expect_refusal(request, exhausted, &before);
                Err(exhausted)
            }
        }
    }

    fn ask_or(&mut self, request: &Request, refused: Refused) {
        let Err(exhausted) = self.ask(request) else { return };
        match refused {
            Refused::GivesUp => {}
            Refused::Waits => self.wait(request, exhausted),
            Refused::ComesBack => self.come_back(request, exhausted),
        }
    }

    fn wait(&mut self, request: &Request, exhausted: Exhausted) {
        let joined = self.pool.join(&request.want());
        if exhausted.why == Why::NoKeyForModel {
            return;
        }
        let most = self.settings.max_waiting.get();
        let full = !self.waiting.contains_key(&request.arrival) && self.waiting.len() >= most;
        let Ok(mut wake) = joined else { return assert!(full, "there is room") };
        assert!(full || wake.is_empty(), "somebody makes room though there is some");
        let sleep = Sleep::Until(exhausted.free_at.filter(|_| exhausted.why == Why::NoneFree));
        self.waiting.insert(request.arrival, Waiter { request: request.clone(), sleep });
        if full {
            // Who had to make room for it gives up.
            let gone = wake.remove(0);
            assert!(gone != request.arrival && self.waiting.remove(&gone).is_some(), "it had no place");
        }
        self.woken(wake);
    }

    /// It asks again at the moment that it was told. Where nothing else can happen, that moment is the first.
    fn come_back(&mut self, request: &Request, exhausted: Exhausted) {
        let Some(at) = exhausted.free_at.filter(|_| exhausted.why == Why::NoneFree) else { return };
        let promised = self.waiting.is_empty() && !self.out.iter().any(|out| out.may_prove);
        if promised {
            self.advance_to(at - NANOSECOND);
            assert!(self.ask(request).is_err(), "it was free before the moment named");
        }
        self.advance_to(at);
        let came = self.ask(request);
        assert!(!promised || came.is_ok(), "the moment named was none: {came:?}");
    }

    fn leave(&mut self, arrival: Arrival) {
        let next = self.pool.leave(arrival);
        let waited = self.waiting.remove(&arrival).is_some();
        assert!(waited || next.is_none(), "who left was not in line");
        self.woken(next);
    }

    /// Those who were woken ask, who came first before the others, until nobody is awake.
    fn let_them_ask(&mut self) {
        while let Some(waiter) = self.waiting.values().find(|waiter| waiter.sleep == Sleep::Awake) {
            let request = waiter.request.clone();
            if let Err(exhausted) = self.ask(&request) {
                self.wait(&request, exhausted);
                // Those who would be told the present moment again have to be let pass first.
                if exhausted.free_at == Some(self.now) && exhausted.why == Why::NoneFree {
                    break;
                }
            }
        }
    }

    /// Who came first asks though nobody woke it: it must not have been worth its while.
    fn disturb_the_first(&mut self) {
        // Keys that step in wake one line, which wakes the next by leaving; that one may sleep until then.
        let first = self.waiting.values().next().filter(|_| !self.settings.others_step_in);
        let Some(Waiter { request, sleep: Sleep::Until(told) }) = first else { return };
        let (request, told) = (request.clone(), *told);
        let Err(exhausted) = self.ask(&request) else { panic!("it slept though a key is free") };
        if exhausted.why == Why::InLine {
            return;
        }
        let sooner = exhausted.free_at.is_some_and(|at| told.is_none_or(|told| at < told));
        assert!(!sooner, "it would have slept too long: until {told:?}, and {exhausted:?}");
        self.wait(&request, exhausted);
    }

    fn woken(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        for arrival in arrivals {
            self.waiting.get_mut(&arrival).expect("only who waits is woken").sleep = Sleep::Awake;
        }
    }

    fn advance_to(&mut self, moment: Instant) {
        self.now = self.now.max(moment);
        for waiter in self.waiting.values_mut() {
            if matches!(waiter.sleep, Sleep::Until(Some(at)) if at <= self.now) {
                waiter.sleep = Sleep::Awake;
            }
        }
    }

    fn next_moment(&self) -> Option<Instant> {
        let moments = self.waiting.values().filter_map(|waiter| match waiter.sleep {
            Sleep::Until(at) => at,
            Sleep::Awake => None,
        });
        moments.min()
    }

    /// A request that waits as long as it must and ends so. False if it can't be served now.
    fn serve(&mut self, model: Option<&'static str>, outcome: Outcome) -> bool {
        let request = self.arrive(model, "chat");
        if let Err(exhausted) = self.ask(&request) {
            let Some(at) = exhausted.free_at.filter(|_| exhausted.why == Why::NoneFree) else { return false };
            self.advance_to(at);
            if self.ask(&request).is_err() {
                return false;
            }
        }
        self.settle_nth(self.out.len() - 1, outcome);
        true
    }

    fn granted(&mut self, request: &Request, grant: Grant, before: &Snapshot) {
        let Grant { key, ticket } = grant;
        let number = self.keys.iter().position(|known| known.key == key).expect("a key of the pool");
        self.expect_grant(request, number, before);
        self.grants += 1;
        let (id, host) = (self.grants, self.keys[number].host);
        let family = self.family(number);
        let rests = |key: usize| before.keys[key].state != State::Ready;
        let may_prove = !before.hosts[host].open
            || self.of_account(number).iter().any(|key| rests(*key) || self.keys[*key].refused_for_model);
        if !before.hosts[host].open {
            self.hosts[host].probe = Some(id);
            self.hosts[host].another = Some(self.now + Duration::from_secs(10));
        }
        for twin in family {
            let known = &mut self.keys[twin];
            if rests(number)
                && matches!(before.keys[twin].state, State::Resting(_, until) if until <= self.now)
            {
                known.probe.get_or_insert(id);
            }
            if let Some(rate) = known.key.settings().rate {
                known.gcra.charge(rate, self.now);
            }
        }
        self.keys[number].out += 1;
        self.keys[number].used += 1;
        self.keys[number].silent.get_or_insert(self.now);
        self.out.push(Out { ticket, id, key: number, request: request.clone(), heard: false, may_prove });
    }

    fn heard(&mut self, which: u8, after: Duration) {
        let Some(nth) = usize::from(which).checked_rem(self.out.len()) else { return };
        let out = &mut self.out[nth];
        let effects = self.pool.heard(self.now, &mut out.ticket, after, &out.request.want());
        (out.heard, out.may_prove) = (true, false);
        self.keys[out.key].silent = None;
        let id = out.id;
        self.no_probe(|probe| probe == id);
        self.carry_out(effects);
    }

    /// Takes an attempt back. Its request, with what it has seen.
    fn settle(&mut self, which: u8, outcome: Outcome) -> Option<Request> {
        let nth = usize::from(which).checked_rem(self.out.len())?;
        Some(self.settle_nth(nth, outcome))
    }

    fn settle_nth(&mut self, nth: usize, outcome: Outcome) -> Request {
        let Out { ticket, id, key, heard, mut request, .. } = self.out.swap_remove(nth);
        let class = class_of(outcome);
        self.pool.note(self.now, &ticket, class);
        if !matches!(class, Class::Success | Class::ClientFault) {
            self.keys[key].last_error = Some((class, self.now));
        }
        let effects = self.pool.settle(self.now, ticket, outcome, &request.want());
        self.no_probe(|probe| probe == id);
        self.keys[key].out -= 1;
        match outcome {
            Outcome::Good if !heard => self.keys[key].silent = None,
            Outcome::Rest { reason, of, named } => {
                let for_model = matches!(of, Rests::KeyForModel | Rests::AccountForModel);
                self.note_rest(key, of, request.model.filter(|_| for_model), reason, named);
            }
            Outcome::Denied => {
                self.keys[key].denied.insert(request.purpose);
            }
            Outcome::Unused => {
                self.keys[key].used -= 1;
                for twin in self.family(key) {
                    let known = &mut self.keys[twin];
                    if let Some(rate) = known.key.settings().rate {
                        known.gcra.refund(rate);
                    }
                }
            }
            _ => {}
        }
        self.carry_out(effects);
        let known = &self.keys[key].key;
        let local = self.pool.failure_is_local(known);
        if matches!(outcome, Outcome::Failed(_) | Outcome::HostFailed(_)) && !local {
            request.failed_hosts.push(known.settings().base.origin().clone());
        }
        request.tried.push(known.identity());
        request
    }

    fn note_rest(
        &mut self,
        key: usize,
        of: Rests,
        model: Option<&'static str>,
        reason: Reason,
        named: Option<Duration>,
    ) {
        let named = named.filter(|wait| !wait.is_zero());
        let end = named.map(|wait| self.now + wait.min(DAY));
        let all = match of {
            // That is said of this entry: another may have another path.
            Rests::KeyForModel if model.is_some() => vec![key],
            Rests::Key | Rests::KeyForModel => self.family(key),
            Rests::Account | Rests::AccountForModel => self.of_account(key),
        };
        self.refused_models.extend(model);
        let forgetful = self.refused_models.len() > MODELS_REMEMBERED;
        for other in all {
            let known = &mut self.keys[other];
            // By the distance that it keeps, or by how few may go at first after a guessed rest.
            known.paced |= reason == Reason::RateLimited;
            known.refused_for_model |= model.is_some();
            let Some(end) = end else { continue };
            match model {
                // Such a rest is kept for one set of keys; where others step in, a model has two.
                Some(_) if of == Rests::KeyForModel && self.settings.others_step_in => {}
                Some(_) if forgetful => {}
                Some(model) => {
                    let known = known.named_for.entry(model).or_insert(end);
                    *known = end.max(*known);
                }
                None => known.named = known.named.max(Some(end)),
            }
        }
    }

    fn lift(&mut self, key: u8, reason: Reason) {
        let Some(key) = usize::from(key).checked_rem(self.keys.len()) else { return };
        let effects = self.pool.lift(self.now, &[self.keys[key].key.identity()], reason);
        for other in self.of_account(key) {
            // Perhaps of another reason: then it only is not looked at any more.
            self.keys[other].named = None;
            self.keys[other].named_for.clear();
            // Whoever was to find out about that rest finds out nothing about the next.
            self.keys[other].probe = None;
        }
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { transitions, wake } = effects;
        let after = self.pool.snapshot(self.now);
        for transition in transitions {
            self.expect_transition(&transition, &after);
            match transition {
                Transition::Resting { reason, .. } => *self.rests_begun.entry(reason).or_default() += 1,
                Transition::Recovered { key } => {
                    let known = self.keys.iter_mut().find(|known| known.key == key);
                    known.expect("a key of the pool").probe = None;
                }
                Transition::HostOpened { host, until, .. } => {
                    let host = self.hosts.iter_mut().find(|known| known.origin == host);
                    let host = host.expect("a host of the pool");
                    (host.shut_until, host.openings) = (Some(until), host.openings + 1);
                }
                Transition::HostClosed { host } => {
                    let host = self.hosts.iter_mut().find(|known| known.origin == host);
                    let host = host.expect("a host of the pool");
                    (host.shut_until, host.probe) = (None, None);
                }
            }
        }
        let once: BTreeSet<_> = wake.iter().collect();
        assert_eq!(once.len(), wake.len(), "woken twice");
        self.woken(wake);
    }

    fn no_probe(&mut self, ended: impl Fn(u64) -> bool) {
        let keys = self.keys.iter_mut().map(|key| &mut key.probe);
        for probe in keys.chain(self.hosts.iter_mut().map(|host| &mut host.probe)) {
            *probe = probe.filter(|id| !ended(*id));
        }
    }

    /// All entries of the key's credential.
    fn family(&self, key: usize) -> Vec<usize> {
        let credential = self.keys[key].credential;
        (0..self.keys.len()).filter(|other| self.keys[*other].credential == credential).collect()
    }

    /// All keys of the key's account.
    fn of_account(&self, key: usize) -> Vec<usize> {
        let account = self.keys[key].account;
        (0..self.keys.len()).filter(|other| self.keys[*other].account == account).collect()
    }

    /// The sets that may serve `model`, in the order of preference.
    fn sets(&self, model: Option<&str>) -> Vec<Vec<usize>> {
        let keys = |serves: &dyn Fn(&Known) -> bool| -> Vec<usize> {
            (0..self.keys.len()).filter(|key| serves(&self.keys[*key])).collect()
        };
        let Some(model) = model else {
            let home = self.hosts.iter().position(|host| host.origin.to_string() == HOME).unwrap_or(0);
            return [keys(&|key| key.host == home)].into_iter().filter(|set| !set.is_empty()).collect();
        };
        let named = keys(&|key| key.key.settings().models.names(model));
        let others = keys(&|key| key.key.settings().models.serves_others());
        let mut sets = Vec::new();
        let steps_in = named.is_empty() || self.settings.others_step_in;
        sets.extend(Some(named).filter(|set| !set.is_empty()));
        sets.extend(Some(others).filter(|set| steps_in && !set.is_empty()));
        sets
    }

    /// Whether it is sure that the key may be asked: what is hidden from a caller counts against that.
    fn is_surely_free(&self, key: usize, before: &Snapshot) -> bool {
        self.is_well(key, before) && !self.is_full(key)
    }

    /// Whether it is sure that the key may be asked as soon as an attempt ends.
    fn is_only_full(&self, key: usize, before: &Snapshot) -> bool {
        self.is_well(key, before) && self.is_full(key)
    }

    fn is_well(&self, key: usize, before: &Snapshot) -> bool {
        let known = &self.keys[key];
        let rate = known.key.settings().rate;
        before.keys[key].state == State::Ready
            && before.hosts[known.host].open
            && !known.paced
            && !known.refused_for_model
            && rate.is_none_or(|rate| known.gcra.free_at(rate, self.now) <= self.now)
    }

    fn is_full(&self, key: usize) -> bool {
        let most = self.keys[key].key.settings().max_in_flight;
        most.is_some_and(|most| self.in_flight(key) >= most.get())
    }

    /// What the key's credential is serving.
    fn in_flight(&self, key: usize) -> u32 {
        self.family(key).iter().map(|twin| self.keys[*twin].out).sum()
    }
}

/// A class that an attempt with this outcome may have been of.
fn class_of(outcome: Outcome) -> Class {
    match outcome {
        Outcome::Good => Class::Success,
        Outcome::Harmless | Outcome::Abandoned | Outcome::Unused => Class::ClientFault,
        Outcome::Rest { reason: Reason::ModelUnavailable, .. } => Class::ModelUnavailable,
        Outcome::Rest { .. } => Class::RateLimited,
        Outcome::Denied => Class::NotPermitted,
        Outcome::Failed(_) => Class::ServerError,
        Outcome::HostFailed(_) => Class::Overloaded,
    }
}

/// What must hold.
impl World {
    fn expect_grant(&self, request: &Request, number: usize, before: &Snapshot) {
        let known = &self.keys[number];
        let sets = self.sets(request.model);
        let free = |set: &[usize]| set.iter().any(|key| self.is_surely_free(*key, before));
        let set = sets.iter().find(|set| set.contains(&number)).expect("it is configured for the model");
        assert!(sets[0].contains(&number) || !free(&sets[0]), "others stepped in though a named key is free");

        let model = request.model;
        let peers = self
            .waiting
            .iter()
            .filter(|(_, waiter)| waiter.request.model == model && waiter.request.client == request.client);
        let mut same =
            peers.filter(|(_, waiter)| waiter.request.tried.is_empty() == request.tried.is_empty());
        assert!(!same.any(|(other, _)| *other < request.arrival), "overtook");

        if let State::Resting(_, until) = before.keys[number].state {
            assert!(until <= self.now, "it rests");
            assert_eq!(known.probe, None, "two probes of one key");
        }
        assert!(known.named.is_none_or(|end| end <= self.now), "it was told to rest");
        let forgetful = self.refused_models.len() > MODELS_REMEMBERED;
        let end = model.filter(|_| !forgetful).and_then(|model| known.named_for.get(model));
        assert!(end.is_none_or(|end| *end <= self.now), "it was told to rest for this model");

        let host = &self.hosts[known.host];
        if !before.hosts[known.host].open {
            assert!(host.shut_until.is_some_and(|until| until <= self.now), "its host is shut");
            let may_be = host.probe.is_none() || host.another.is_some_and(|another| another <= self.now);
            assert!(may_be, "two probes of one host");
        }

        let settings = known.key.settings();
        let in_flight = self.in_flight(number);
        assert!(settings.max_in_flight.is_none_or(|most| in_flight < most.get()), "it is full");
        let due = settings.rate.is_none_or(|rate| known.gcra.free_at(rate, self.now) <= self.now);
        assert!(due, "it is over its rate");

        let sound = set.iter().copied().filter(|key| {
            let Known { key: this, denied, .. } = &self.keys[*key];
            let host_failed = request.failed_hosts.contains(this.settings().base.origin());
            let tried = request.tried.contains(&this.identity());
            let late = self.keys[*key].silent.is_some_and(|since| since + LATE <= self.now);
            let good = !tried && !host_failed && !denied.contains(request.purpose);
            self.is_surely_free(*key, before) && good && !late
        });
        let sound: Vec<_> = sound.collect();
        let priority = |key: usize| self.keys[key].key.settings().priority;
        let above = sound.iter().any(|key| priority(*key) < priority(number));
        assert!(!above, "a key of an earlier priority is free");
        if self.settings.strategy == Strategy::FillFirst && sound.contains(&number) {
            let before_it = sound.iter().any(|key| priority(*key) == priority(number) && *key < number);
            assert!(!before_it, "one that stands before it is free");
        }

        let untried = |key: &usize| !request.tried.contains(&self.keys[*key].key.identity());
        if !untried(&number) {
            let better = set.iter().filter(|key| untried(key)).any(|key| self.is_surely_free(*key, before));
            assert!(!better, "it was tried, and another is free");
        }
    }

    fn expect_refusal(&mut self, request: &Request, exhausted: Exhausted, before: &Snapshot) {
        let Exhausted { why, free_at, sooner } = exhausted;
        let sets = self.sets(request.model);
        assert_eq!(why == Why::NoKeyForModel, sets.is_empty());
        assert!(free_at.is_none_or(|at| at >= self.now), "the moment named is past");
        assert!(!sooner || !self.out.is_empty(), "nothing is out that could end sooner");
        let causes = self.pool.causes(self.now, &request.want());
        assert_eq!(causes.keys(), sets.first().map_or(0, Vec::len));
        match why {
            Why::NoKeyForModel => assert_eq!((free_at, sooner), (None, false)),
            Why::InLine => {
                assert!(self.waiting.keys().any(|other| *other != request.arrival), "nobody is before it");
            }
            Why::NoneFree => {
                // Who steps in has nothing to spare while anybody waits for it.
                let asked = if self.waiting.is_empty() { &sets[..] } else { &sets[..1] };
                let mut all = asked.iter().flatten();
                assert!(!all.any(|key| self.is_surely_free(*key, before)), "refused though a key is free");
                assert!(free_at.is_some() || !self.out.is_empty(), "nothing is out, and yet no end is known");
                let mut all = asked.iter().flatten();
                assert!(
                    sooner || !all.any(|key| self.is_only_full(*key, before)),
                    "a full key is not waited for"
                );
                if asked.len() == sets.len() {
                    assert_ne!(free_at, Some(self.now), "refused, and free now");
                    let rated = |key: &usize| self.keys[*key].key.settings().rate.is_some();
                    let long = free_at.is_some_and(|at| at > self.now + DAY);
                    assert!(!long || sets.iter().flatten().any(rated), "they rest for more than a day");
                }
            }
        }
    }

    fn expect_transition(&self, transition: &Transition, after: &Snapshot) {
        let state = |key: &Key| {
            let view = after.keys.iter().find(|view| *view.key == *key);
            view.expect("a key of the pool").state
        };
        let open = |origin: &Origin| {
            let view = after.hosts.iter().find(|view| view.origin == *origin);
            view.expect("a host of the pool").open
        };
        match transition {
            Transition::Resting { key, model: None, reason, until, with } => {
                let number = self.keys.iter().position(|known| known.key == *key).expect("a key of the pool");
                assert!(*with == 0 || *with + 1 == self.of_account(number).len());
                // Key and account may both rest: what is shown is what ends last.
                let shown = matches!(state(key), State::Resting(_, end) if end >= *until);
                assert!(shown, "it is told to rest for {reason:?}, and shown as {:?}", state(key));
                assert!(*until > self.now && *until <= self.now + DAY);
            }
            Transition::Resting { model: Some(model), until, .. } => {
                assert!(self.refused_models.contains(&**model) && *until > self.now);
            }
            Transition::Recovered { key } => assert_eq!(state(key), State::Ready),
            Transition::HostOpened { host, until, .. } => assert!(!open(host) && *until > self.now),
            Transition::HostClosed { host } => assert!(open(host)),
        }
    }

    fn check(&mut self) {
        let snapshot = self.pool.snapshot(self.now);
        let may_serve = snapshot.keys.iter().any(|key| key.state == State::Ready);
        assert!(!may_serve || snapshot.is_usable(self.now));
        let Snapshot { keys, hosts, waiting, model_rests, rests_begun } = snapshot;
        assert_eq!((waiting, self.pool.waiting()), (self.waiting.len(), self.waiting.len()));
        assert_eq!((keys.len(), hosts.len()), (self.keys.len(), self.hosts.len()));
        for (view, known) in keys.iter().zip(&self.keys) {
            let KeyView { key, account, state, health, in_flight, used, .. } = view;
            let KeyView { model_rests, last_error, last_trial, .. } = view;
            let declared = self.of_account(known.credential).into_iter().any(|twin| {
                let twin = &self.keys[twin];
                twin.credential == known.credential && twin.key.settings().account.is_some()
            });
            assert_eq!(account.is_some(), declared);
            assert_eq!((key, *in_flight, *used), (&known.key, known.out, known.used));
            assert!((0.0..=1.0).contains(health) && State::NAMES.contains(&state.as_str()));
            assert!(model_rests.iter().all(|rest| self.refused_models.contains(&*rest.model)));
            assert_eq!(*last_error, known.last_error);
            assert!(last_trial.is_none_or(|at| at <= self.now));
        }
        for (HostView { origin, open, trouble, openings }, known) in hosts.iter().zip(&self.hosts) {
            let shut = known.shut_until.is_some();
            let openings: u64 = openings.iter().map(|(_, count)| count).sum();
            assert_eq!((origin, *open, openings), (&known.origin, !shut, known.openings));
            assert_eq!(trouble.is_some(), shut);
        }
        for (reason, begun) in rests_begun {
            assert_eq!(begun, self.rests_begun.get(&reason).copied().unwrap_or_default(), "{reason:?}");
        }
        // For a model, a key rests in each of its sets (with the stand-ins there are two), and with its account.
        let most = 3 * self.keys.len() * self.refused_models.len();
        assert!(model_rests.iter().map(|(_, count)| count).sum::<usize>() <= most);
    }

    /// Whatever has happened, some days later every model is served, as far as the configuration allows it.
    fn expect_recovery(&mut self) {
        for model in MODELS {
            self.advance_to(self.now + DAY * 2);
            let sets = self.sets(model);
            let request = self.arrive(model, "chat");
            let served = self.ask(&request).is_ok();
            let unrated = |key: &usize| self.keys[*key].key.settings().rate.is_none();
            assert!(served || !sets.iter().flatten().any(unrated), "no key has come back for {model:?}");
            while !self.out.is_empty() {
                self.settle(0, Outcome::Good);
            }
        }
        self.check();
    }
}
