//! The naive model: it scans all keys each time, and parks and orders nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    pool::{
        breaker::{Breaker, Failure},
        cooling::{Cooling, Leave},
        headroom::{Charge, Headroom},
        outcome::Probes,
        slot::{FAILURES_TO_REST, Failing},
    },
    rate::Gcra,
};

/// One key of the model.
pub(super) struct Naive {
    pub(super) key: Arc<Key>,
    pub(super) host: usize,
    pub(super) credential: usize,
    pub(super) account: usize,
    pub(super) cooling: Cooling,
    pub(super) gcra: Gcra,
    pub(super) failing: Option<Failing>,
    pub(super) out: u32,
}

pub(super) struct Out {
    pub(super) ticket: Ticket,
    pub(super) id: u64,
    pub(super) key: usize,
    /// The account of the key then.
    pub(super) account: usize,
    pub(super) set: Vec<usize>,
    pub(super) model: Option<&'static str>,
    pub(super) arrival: Arrival,
    pub(super) started: Instant,
    pub(super) charge: Option<Charge>,
    pub(super) tried: Vec<KeyIdentity>,
    pub(super) heard: bool,
    pub(super) probes: Probes,
    /// Whether the key it was granted was resting until a probe succeeds.
    pub(super) proves: bool,
    /// The same for its account.
    pub(super) proves_account: bool,
}

/// What each request costs.
pub(super) const DEMAND: Demand = Demand { input: 1, output: Some(0) };

/// Somebody who waits.
pub(super) struct Waiter {
    /// How often each other client was served since it is the first of its own.
    pub(super) passed: BTreeMap<ClientId, u32>,
    pub(super) model: Option<&'static str>,
    pub(super) tried: Vec<KeyIdentity>,
    /// What it was told last. `None`: it was woken and will ask.
    pub(super) asleep: Option<Exhausted>,
}

pub(super) struct World {
    pub(super) pool: Pool,
    pub(super) settings: Settings,
    pub(super) now: Instant,
    pub(super) keys: Vec<Naive>,
    pub(super) breakers: Vec<Breaker>,
    pub(super) origins: Vec<Origin>,
    pub(super) accounts: Vec<Cooling>,
    /// What they are called; at which host, if answers say so.
    pub(super) names: Vec<Option<(Option<usize>, AccountId)>>,
    /// By account and model.
    pub(super) limits: BTreeMap<(usize, &'static str), Cooling>,
    /// The same: what is left. There is one for each limit.
    pub(super) rooms: BTreeMap<(usize, &'static str), Headroom>,
    pub(super) for_model: BTreeMap<(Vec<usize>, &'static str), BTreeMap<usize, Cooling>>,
    pub(super) out: Vec<Out>,
    pub(super) waiting: BTreeMap<Arrival, Waiter>,
    pub(super) granted: u64,
}

impl World {
    pub(super) fn new(settings: Settings, entries: Vec<Entry>, seed: u64) -> Self {
        let all = keys(entries);
        let home = BaseUrl::parse("https://two.test").unwrap();
        let pool = Pool::new(settings.clone(), all.clone(), home.origin(), fastrand::Rng::with_seed(seed));
        let mut origins: Vec<Origin> = Vec::new();
        let mut naive: Vec<Naive> = Vec::new();
        for key in all {
            let origin = key.settings().base.origin();
            let host = origins.iter().position(|known| known == origin).unwrap_or_else(|| {
                origins.push(origin.clone());
                origins.len() - 1
            });
            let twin = naive.iter().position(|k| k.key.fingerprint() == key.fingerprint() && k.host == host);
            let credential = twin.unwrap_or(naive.len());
            let (cooling, gcra) = (Cooling::default(), Gcra::default());
            naive.push(Naive { key, host, credential, account: 0, cooling, gcra, failing: None, out: 0 });
        }
        let mut names: Vec<(Option<&str>, usize)> = Vec::new();
        let accounts = naive.iter().map(|key| {
            let family = naive.iter().filter(|other| other.credential == key.credential);
            let declared = family.filter_map(|key| key.key.settings().account.as_deref()).next();
            let account = (declared, if declared.is_none() { key.credential } else { 0 });
            names.iter().position(|known| *known == account).unwrap_or_else(|| {
                names.push(account);
                names.len() - 1
            })
        });
        let accounts: Vec<usize> = accounts.collect();
        let named = |(name, _): &(Option<&str>, usize)| Some((None, AccountId::declared((*name)?)?));
        let names = names.iter().map(named).collect::<Vec<_>>();
        for (key, account) in naive.iter_mut().zip(&accounts) {
            key.account = *account;
        }
        let breakers = vec![Breaker::default(); origins.len()];
        let now = Clock::system().now().mono + Duration::from_secs(24 * 3600);
        Self {
            pool,
            settings,
            now,
            keys: naive,
            breakers,
            origins,
            accounts: vec![Cooling::default(); names.len()],
            names,
            limits: BTreeMap::new(),
            rooms: BTreeMap::new(),
            for_model: BTreeMap::new(),
            out: Vec::new(),
            waiting: BTreeMap::new(),
            granted: 0,
        }
    }

    pub(super) fn keys_where(&self, test: impl Fn(&Naive) -> bool) -> Vec<usize> {
        (0..self.keys.len()).filter(|key| test(&self.keys[*key])).collect()
    }

    /// The sets that may serve `model`, in order of preference.
    pub(super) fn sets(&self, model: Option<&str>) -> Vec<Vec<usize>> {
        let Some(model) = model else {
            let home = self.origins.iter().position(|origin| origin.to_string() == "https://two.test");
            return vec![self.keys_where(|key| key.host == home.unwrap_or(0))];
        };
        let named = self.keys_where(|key| key.key.settings().models.names(model));
        let others = self.keys_where(|key| key.key.settings().models.serves_others());
        let both = if named.is_empty() {
            vec![others]
        } else if self.settings.others_step_in {
            vec![named, others]
        } else {
            vec![named]
        };
        both.into_iter().filter(|set| !set.is_empty()).collect()
    }

    pub(super) fn family(&self, key: usize) -> Vec<usize> {
        let credential = self.keys[key].credential;
        self.keys_where(|other| other.credential == credential)
    }

    pub(super) fn leave(&self, key: usize, set: &[usize], model: Option<&'static str>) -> Leave {
        let this = &self.keys[key];
        let mut leave = this.cooling.leave(self.now).and(self.breakers[this.host].leave(self.now));
        let out: u32 = self.family(key).iter().map(|twin| self.keys[*twin].out).sum();
        if this.key.settings().max_in_flight.is_some_and(|most| out >= most.get()) {
            leave = Leave::Blocked;
        }
        if let Some(rate) = this.key.settings().rate {
            let free = this.gcra.free_at(rate, self.now);
            if free > self.now {
                leave = leave.and(Leave::NotBefore(free));
            }
        }
        leave.and(self.shared(key, set, model))
    }

    /// What concerns more than the key, or the model alone.
    fn shared(&self, key: usize, set: &[usize], model: Option<&'static str>) -> Leave {
        let account = self.keys[key].account;
        let all = [Some(&self.accounts[account]), self.own_for_model(key, set, model)].into_iter().flatten();
        let leave = all.fold(Leave::Free, |leave, cooling| leave.and(cooling.leave(self.now)));
        let Some(limit) = model.and_then(|model| self.limits.get(&(account, model))) else { return leave };
        let room = model.and_then(|model| self.rooms.get(&(account, model))).expect("one for each");
        let guided = room.guides(self.now);
        let leave = leave.and(if guided { limit.rested(self.now) } else { limit.leave(self.now) });
        let fits_at = room.fits_at(self.now, DEMAND);
        if fits_at > self.now { leave.and(Leave::NotBefore(fits_at)) } else { leave }
    }

    fn shared_by(
        &self,
        key: usize,
        set: &[usize],
        model: Option<&'static str>,
    ) -> impl Iterator<Item = &Cooling> {
        let account = self.keys[key].account;
        let own = self.own_for_model(key, set, model);
        let limit = model.and_then(|model| self.limits.get(&(account, model)));
        [Some(&self.accounts[account]), own, limit].into_iter().flatten()
    }

    fn own_for_model(&self, key: usize, set: &[usize], model: Option<&'static str>) -> Option<&Cooling> {
        self.for_model.get(&(set.to_vec(), model?))?.get(&key)
    }

    /// Whether little is to be expected of the key, now that its rest is over.
    pub(super) fn is_doubtful(&self, key: usize, set: &[usize], model: Option<&'static str>) -> bool {
        let mut known = std::iter::once(&self.keys[key].cooling).chain(self.shared_by(key, set, model));
        known.any(|cooling| cooling.leave(self.now) == Leave::Probe && cooling.is_doubtful())
    }

    /// When, without anything else happening, one of `set` may serve.
    pub(super) fn free_at(&self, set: &[usize], model: Option<&'static str>) -> Option<Instant> {
        let moments = set.iter().filter_map(|key| match self.leave(*key, set, model) {
            Leave::Free | Leave::Probe => Some(self.now),
            Leave::NotBefore(until) => Some(until),
            Leave::Blocked => None,
        });
        moments.min()
    }

    pub(super) fn note_grant(
        &mut self,
        ticket: Ticket,
        key: usize,
        set: Vec<usize>,
        model: Option<&'static str>,
        arrival: Arrival,
        tried: &[KeyIdentity],
    ) {
        let (now, id) = (self.now, self.granted);
        let mut probes = Probes::default();
        let proves = self.keys[key].cooling.leave(now) == Leave::Probe;
        self.keys[key].out += 1;
        if self.breakers[self.keys[key].host].leave(now) == Leave::Probe {
            self.breakers[self.keys[key].host].probe_sent(now, id);
            probes.host = true;
        }
        // A probe only where the granted key itself needs one.
        let leave = self.keys[key].cooling.leave(now).and(self.shared(key, &set, model));
        let account = self.keys[key].account;
        let send = |cooling: &mut Cooling| {
            let due = leave == Leave::Probe && cooling.leave(now) == Leave::Probe;
            if due {
                cooling.probe_sent(id);
            }
            cooling.granted(now);
            due
        };
        for twin in self.family(key) {
            if let Some(rate) = self.keys[twin].key.settings().rate {
                self.keys[twin].gcra.charge(rate, now);
            }
            probes.key |= send(&mut self.keys[twin].cooling);
        }
        probes.account = send(&mut self.accounts[account]);
        if let Some(model) = model {
            let own = self.for_model.get_mut(&(set.clone(), model)).and_then(|by| by.get_mut(&key));
            probes.member = own.is_some_and(send);
            probes.limit = self.limits.get_mut(&(account, model)).is_some_and(send);
        }
        let room = model.and_then(|model| self.rooms.get_mut(&(account, model)));
        let charge = room.map(|room| room.charge(now, DEMAND));
        let started = now;
        let tried = tried.to_vec();
        let recent = |out: &Out| out.started + SECOND * 10 > now;
        let same_host = |out: &Out| self.keys[out.key].host == self.keys[key].host;
        assert!(!proves || !self.out.iter().any(|out| out.proves && out.key == key), "two probes of one key");
        assert!(
            !probes.host || !self.out.iter().any(|out| out.probes.host && same_host(out) && recent(out)),
            "two of one host"
        );
        let same_account = |out: &Out| out.proves_account && out.account == account;
        assert!(!probes.account || !self.out.iter().any(same_account), "two of one account");
        self.out.push(Out {
            ticket,
            id,
            key,
            account,
            set,
            model,
            arrival,
            started,
            charge,
            tried,
            heard: false,
            probes,
            proves,
            proves_account: probes.account,
        });
    }

    /// Its rest is over: a probe that is out is now an attempt like any other.
    pub(super) fn no_longer_probed(&mut self, key: usize) {
        self.out.iter_mut().filter(|out| out.key == key).for_each(|out| out.proves = false);
    }

    pub(super) fn key_works(&mut self, out: &mut Out) {
        self.keys[out.key].failing = None;
        (out.probes.key, out.proves) = (false, false);
        for twin in self.family(out.key) {
            if self.keys[twin].cooling.succeeded(self.now, out.started) {
                self.no_longer_probed(twin);
            }
            self.keys[twin].cooling.probe_back(out.id);
        }
    }

    /// That of the key now, and that of then.
    fn accounts_of(&self, out: &Out) -> BTreeSet<usize> {
        [self.keys[out.key].account, out.account].into()
    }

    pub(super) fn account_works(&mut self, out: &mut Out) {
        for account in self.accounts_of(out) {
            if self.accounts[account].succeeded(self.now, out.started) {
                self.account_no_longer_probed(account);
            }
            self.accounts[account].probe_back(out.id);
        }
        (out.probes.account, out.proves_account) = (false, false);
    }

    pub(super) fn account_no_longer_probed(&mut self, account: usize) {
        self.out.iter_mut().filter(|out| out.account == account).for_each(|out| out.proves_account = false);
    }

    pub(super) fn works(&mut self, out: &mut Out) {
        self.key_works(out);
        self.account_works(out);
        (out.probes.member, out.probes.limit) = (false, false);
        if let Some(model) = out.model {
            let own = self.for_model.get_mut(&(out.set.clone(), model)).and_then(|by| by.get_mut(&out.key));
            if let Some(cooling) = own {
                cooling.succeeded(self.now, out.started);
                cooling.probe_back(out.id);
            }
            for account in self.accounts_of(out) {
                if let Some(cooling) = self.limits.get_mut(&(account, model)) {
                    cooling.succeeded(self.now, out.started);
                    cooling.probe_back(out.id);
                }
            }
        }
        self.host_works(out);
    }

    pub(super) fn host_works(&mut self, out: &mut Out) {
        self.breakers[self.keys[out.key].host].succeeded(self.now, out.started);
        out.probes.host = false;
    }

    pub(super) fn key_is_of(&mut self, key: usize, account: AccountId) {
        let Naive { account: from, host, .. } = self.keys[key];
        let before = self.names[from].map(|(_, id)| id);
        if before.is_some_and(|known| known == account || account.is_coarser_than(&known)) {
            return;
        }
        let (family, name) = (self.family(key), Some((Some(host), account)));
        let to = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            if self.keys_where(|key| key.account == from) == family {
                self.names[from] = name;
                return from;
            }
            self.names.push(name);
            self.accounts.push(Cooling::default());
            self.names.len() - 1
        });
        for twin in family {
            self.keys[twin].account = to;
        }
    }

    pub(super) fn credentials(&self, host: usize) -> BTreeSet<usize> {
        self.keys.iter().filter(|key| key.host == host).map(|key| key.credential).collect()
    }

    fn is_in_service(&self, key: &Naive) -> bool {
        key.cooling.leave(self.now).and(self.accounts[key.account].leave(self.now)).is_granted()
    }

    pub(super) fn failed(&mut self, out: &mut Out, trouble: Trouble) {
        let (now, host) = (self.now, self.keys[out.key].host);
        let closed = self.breakers[host].is_closed() && !self.breakers[host].opened_since(out.started);
        self.host_failed(out, trouble);
        let (this, breaker) = (&self.keys[out.key], &self.breakers[host]);
        if !closed || !breaker.is_closed() {
            return;
        }
        let before = this.failing.filter(|failing| !breaker.opened_since(failing.since));
        let others =
            |key: &&Naive| key.host == host && key.credential != this.credential && self.is_in_service(key);
        let alone = self.keys.iter().filter(others).count() == 0;
        let witnessed = breaker.worked_since(before.map_or(out.started, |failing| failing.last));
        let local = witnessed || alone;
        let count = before.map_or(1, |failing| failing.count + u32::from(local));
        let since = before.map_or(out.started, |failing| failing.since);
        let this = &mut self.keys[out.key];
        this.failing = Some(Failing { count, since, last: now, open: 0, blamed: 0 });
        if out.probes.account {
            self.accounts[out.account].probe_failed(now, out.started);
        }
        if out.probes.key {
            this.cooling.probe_failed(now, out.started);
        } else if local && count >= FAILURES_TO_REST {
            this.cooling.begin(now, out.started, Reason::Failing, None);
        }
    }

    pub(super) fn host_failed(&mut self, out: &mut Out, trouble: Trouble) {
        let Naive { host, credential, account, .. } = self.keys[out.key];
        let credentials = self.credentials(host).len();
        let credential = u32::try_from(credential).unwrap();
        let account = u32::try_from(account).unwrap();
        let (started, probe) = (out.started, out.probes.host);
        let there = self.keys.iter().filter(|key| key.host == host && self.is_in_service(key));
        let in_service = there.map(|key| key.account).collect::<BTreeSet<_>>().len();
        let was_closed = self.breakers[host].is_closed();
        let failure = Failure { trouble, account, credential, started, probe };
        if self.breakers[host].failed(self.now, failure, credentials, || in_service).is_none() {
            return;
        }
        out.probes.host = false;
        if was_closed {
            for key in self.keys_where(|key| key.host == host) {
                let (this, breaker) = (&mut self.keys[key], &self.breakers[host]);
                this.failing = this.failing.filter(|failing| breaker.worked_since(failing.last));
                if this.cooling.forgive(self.now, |since| !breaker.worked_since(since)) {
                    self.no_longer_probed(key);
                }
            }
        }
    }
}
