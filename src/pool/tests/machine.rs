//! Random sequences of operations, each answer checked against a naive model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, strategy::Strategy as Generate};

use super::{
    naive::{DEMAND, Out, Waiter, World},
    *,
};
use crate::pool::{
    self,
    cooling::{Cooling, Leave},
    lateness::Part,
    outcome::Probes,
};
use crate::types::{Allowance, Announced, Refill};

const MODELS: [Option<&str>; 5] = [None, Some("m1"), Some("m1-mini"), Some("m2"), Some("x")];

fn streams(model: Option<&str>) -> bool {
    model == Some("m2")
}

#[derive(Debug, Clone)]
enum Op {
    /// A request comes, and waits in line if it must.
    Arrive {
        client: u8,
        model: usize,
    },
    Settle {
        which: usize,
        outcome: Outcome,
    },
    /// The attempt ends so, and the request asks for another key.
    Retry {
        which: usize,
        outcome: Outcome,
    },
    Heard {
        which: usize,
    },
    /// Somebody who waits goes away.
    Leave {
        which: usize,
    },
    /// Those who were woken ask.
    Ask,
    Advance {
        ms: u64,
    },
    Lift {
        key: usize,
        reason: Reason,
    },
    /// An answer says what is left.
    Announce {
        which: usize,
        announced: Announced,
    },
    /// An answer names an account.
    Learn {
        which: usize,
        account: AccountId,
    },
}

fn outcome() -> impl Generate<Value = Outcome> {
    let reason = prop::sample::select(&Reason::ALL[..]);
    let named = prop::option::of((0..40_000_u64).prop_map(Duration::from_millis));
    let of = prop::sample::select(vec![
        Rests::Key,
        Rests::KeyForModel,
        Rests::Account,
        Rests::AccountForModel,
        Rests::AccountForModel,
    ]);
    let rest = (reason, of, named).prop_map(|(reason, of, named)| Outcome::Rest { reason, of, named });
    let trouble = prop::sample::select(&Trouble::ALL[..]);
    prop_oneof![
        4 => Just(Outcome::Good),
        1 => Just(Outcome::Harmless),
        1 => Just(Outcome::Denied),
        4 => trouble.clone().prop_map(Outcome::Failed),
        3 => trouble.prop_map(Outcome::HostFailed),
        2 => Just(Outcome::Abandoned),
        1 => Just(Outcome::Unused),
        5 => rest,
    ]
}

fn op() -> impl Generate<Value = Op> {
    let which = 0..64_usize;
    let reason = prop::sample::select(&Reason::ALL[..]);
    prop_oneof![
        8 => (0..4_u8, 0..MODELS.len()).prop_map(|(client, model)| Op::Arrive { client, model }),
        5 => (which.clone(), outcome()).prop_map(|(which, outcome)| Op::Settle { which, outcome }),
        3 => (which.clone(), outcome()).prop_map(|(which, outcome)| Op::Retry { which, outcome }),
        4 => which.clone().prop_map(|which| Op::Heard { which }),
        1 => which.clone().prop_map(|which| Op::Leave { which }),
        4 => Just(Op::Ask),
        3 => (0..2_500_u64).prop_map(|ms| Op::Advance { ms }),
        1 => (0..100_000_u64).prop_map(|ms| Op::Advance { ms }),
        1 => (which.clone(), reason).prop_map(|(key, reason)| Op::Lift { key, reason }),
        4 => (which.clone(), announced()).prop_map(|(which, announced)| Op::Announce { which, announced }),
        1 => (which, account()).prop_map(|(which, account)| Op::Learn { which, account }),
    ]
}

fn announced() -> impl Generate<Value = Announced> {
    let reset = prop::option::of((0..120_000_u64).prop_map(Duration::from_millis));
    let refill = prop::sample::select(vec![Refill::Continuous, Refill::Window]);
    let allowance = (prop::option::of(1..12_u64), 0..12_u64, reset, refill).prop_map(
        |(limit, remaining, reset, refill)| {
            let remaining = limit.map_or(remaining, |limit| remaining.min(limit));
            Allowance { limit, remaining, reset, refill }
        },
    );
    let [requests, tokens] = [(); 2].map(|()| prop::option::of(allowance.clone()));
    (requests, tokens).prop_map(|(requests, tokens)| Announced { requests, tokens })
}

fn account() -> impl Generate<Value = AccountId> {
    let named = [
        AccountId::mentioned("one"),
        AccountId::organization("openai", "one"),
        AccountId::project("openai", "one"),
        AccountId::project("openai", "two"),
    ];
    prop::sample::select(named.map(Option::unwrap).to_vec())
}

fn entry() -> impl Generate<Value = Entry> {
    let host = prop::sample::select(vec!["https://one.test", "https://two.test/a", "https://three.test"]);
    let models = prop::sample::select(vec![
        &["others"][..],
        &["m1"],
        &["m*"],
        &["m1*", "others"],
        &["m1", "m2", "others"],
        &["m1", "m2"],
    ]);
    let rate = prop::option::weighted(0.3, (0.2..20.0_f64, 1..4_u32));
    let at_once = prop::option::weighted(0.3, 1..3_u32);
    let account = prop::option::weighted(0.5, prop::sample::select(vec!["work", "play"]));
    let priority = prop::sample::select(vec![0, 0, 1, 255]);
    (0..8_u32, host, models, priority, 1..5_u16, rate, at_once, account).prop_map(
        |(secret, host, models, priority, weight, rate, most, account)| {
            let mut entry = Entry::new(&format!("sk-{secret}")).at(host).models(models).weight(weight);
            entry = entry.priority(priority);
            if let Some((per_second, burst)) = rate {
                entry = entry.rate(per_second, burst);
            }
            if let Some(name) = account {
                entry = entry.account(name);
            }
            match most {
                Some(most) => entry.at_once(most),
                None => entry,
            }
        },
    )
}

fn settings() -> impl Generate<Value = Settings> {
    let strategy = prop::sample::select(pool::Strategy::NAMES.map(|(_, strategy)| strategy).to_vec());
    (strategy, any::<bool>(), 1..6_usize).prop_map(|(strategy, others_step_in, max_waiting)| Settings {
        strategy,
        others_step_in,
        max_waiting: max_waiting.try_into().unwrap(),
        ..Settings::default()
    })
}

impl World {
    fn line(&self, model: Option<&str>) -> Option<u32> {
        let (set, _) = self.pool.routing.find(model)?;
        Some(self.pool.rotation_of(set, model))
    }

    /// Those in the line for `model`.
    fn in_line(&self, model: Option<&str>) -> impl Iterator<Item = (&Arrival, &Waiter)> {
        let line = self.line(model);
        self.waiting.iter().filter(move |(_, waiter)| self.line(waiter.model) == line)
    }

    fn is_first(&self, arrival: Arrival, model: Option<&str>) -> bool {
        self.line(model).and_then(|line| self.pool.lines.first_of(line)) == Some(arrival)
    }

    /// How many wait of each client.
    fn held(&self) -> BTreeMap<ClientId, usize> {
        let mut held = BTreeMap::new();
        for arrival in self.waiting.keys() {
            *held.entry(arrival.client).or_default() += 1;
        }
        held
    }

    /// What those who wait are promised when another is served.
    fn passes(&mut self, arrival: Arrival, model: Option<&'static str>, tried: &[KeyIdentity]) {
        for (other, waiter) in self.in_line(model).filter(|(other, _)| **other != arrival) {
            let same = other.client == arrival.client && waiter.tried.is_empty() == tried.is_empty();
            assert!(!same || *other > arrival, "{other:?} of the same client came before {arrival:?}");
            assert!(waiter.tried.is_empty() || !tried.is_empty(), "{other:?} was first already");
        }
        if !tried.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        let line = self.in_line(model).filter(|(_, waiter)| waiter.tried.is_empty()).map(|(other, _)| *other);
        let line: Vec<_> = line.filter(|other| other.client != arrival.client).collect();
        for other in line {
            let passed = &mut self.waiting.get_mut(&other).unwrap().passed;
            if seen.insert(other.client) {
                let turns = passed.entry(arrival.client).or_default();
                *turns += 1;
                assert!(*turns <= 2, "{other:?} is passed over by {:?} for ever", arrival.client);
            } else {
                passed.clear();
            }
        }
    }

    /// Joins the line; whoever has to make room for that is gone.
    fn join(&mut self, want: &Want<'_>, model: Option<&'static str>, told: Exhausted) {
        let (arrival, most) = (want.arrival, self.settings.max_waiting.get());
        let held = self.held();
        let own = held.get(&arrival.client).copied().unwrap_or_default();
        let longest = held.values().copied().max().unwrap_or_default();
        let known = self.waiting.contains_key(&arrival);
        let full = !known && self.waiting.len() >= most;
        let wait = |world: &mut Self| {
            let waiter =
                || Waiter { passed: BTreeMap::new(), model, tried: want.tried.to_vec(), asleep: None };
            world.waiting.entry(arrival).or_insert_with(waiter).asleep = Some(told);
        };
        match self.pool.join(want) {
            Err(LineFull) => return assert!(full && own + 1 >= longest, "there is room, or should be made"),
            Ok(wake) if full => {
                let gone = wake[0];
                assert!(own + 1 < longest && held[&gone.client] == longest);
                self.waiting.remove(&gone);
                let later = |other: &Arrival| other.client == gone.client && *other > gone;
                let others = self.waiting.iter().filter(|(_, waiter)| waiter.tried.is_empty());
                assert!(!others.map(|(other, _)| other).any(later), "it was not the last");
                wait(self);
                self.woken(wake[1..].iter().copied());
                return;
            }
            Ok(wake) => self.woken(wake),
        }
        wait(self);
    }

    /// Whether anybody waits for the keys that would step in.
    fn others_busy(&self, model: Option<&str>) -> bool {
        let others = self.pool.routing.others().unwrap();
        let line = Some(self.pool.rotation_of(others, model));
        self.waiting.values().any(|waiter| self.line(waiter.model) == line)
    }

    /// Asks, and checks the answer.
    fn ask(&mut self, arrival: Arrival, model: Option<&'static str>, tried: &[KeyIdentity]) -> bool {
        let sets = self.sets(model);
        let first = self.is_first(arrival, model);
        let others = self.in_line(model).any(|(other, _)| *other != arrival);
        let choices: Vec<_> = sets.iter().map(|set| self.choice(set, model, tried)).collect();
        let (stream, demand) = (streams(model), DEMAND);
        let want = Want { arrival, model, purpose: "chat", stream, tried, failed_hosts: &[], demand };
        let Grant { key, ticket } = match self.pool.acquire(self.now, &want) {
            Ok(grant) => grant,
            Err(exhausted) => {
                assert!(exhausted.why != Why::InLine || (others && !first), "nobody is before it");
                self.refused(model, exhausted, &sets);
                if !sets.is_empty() {
                    self.join(&want, model, exhausted);
                }
                return false;
            }
        };
        self.passes(arrival, model, tried);
        let number = self.keys.iter().position(|known| known.key == key).unwrap();
        let eligible = |world: &Self, set: &Vec<usize>| -> Vec<usize> {
            set.iter().copied().filter(|key| world.leave(*key, set, model).is_granted()).collect()
        };
        let first = eligible(self, &sets[0]);
        let which = usize::from(first.is_empty());
        let set = sets[which].clone();
        self.expect_choice(number, &choices[which]);
        let free = eligible(self, &set);
        assert!(free.contains(&number), "granted a key that is not free");
        let fresh = free.iter().any(|key| !tried.contains(&self.keys[*key].key.identity()));
        assert!(!fresh || !tried.contains(&key.identity()), "took a tried key while another is free");
        self.granted += 1;
        assert_eq!(ticket.id, self.granted);
        self.note_grant(ticket, number, set, model, arrival, tried);
        if self.waiting.remove(&arrival).is_some() {
            let next = self.pool.leave(arrival);
            self.woken(next);
        }
        true
    }

    /// Those of `set` that may serve, are new to a request that has tried `tried`, and nothing speaks against.
    fn choice(&self, set: &[usize], model: Option<&'static str>, tried: &[KeyIdentity]) -> Choice {
        let slots = |at: &u32| {
            let members = &self.pool.rotations[*at as usize].rotation.members;
            members.iter().map(|member| member.slot as usize).eq(set.iter().copied())
        };
        let id = (0..index(self.pool.overlays.len())).find(slots).expect("it is a set of the pool");
        let rotation = &self.pool.rotations[self.pool.rotation_of(id, model) as usize].rotation;
        let late = |key: &usize| self.pool.is_late(index(*key), self.now);
        let on_trial = |key: &usize| {
            rotation.is_on_trial(index(*key)) || self.is_doubtful(*key, set, model) || late(key)
        };
        let good = set.iter().copied().filter(|key| {
            let this = &self.keys[*key];
            let trusted = self.breakers[this.host].leave(self.now) == Leave::Free || tried.is_empty();
            self.leave(*key, set, model).is_granted()
                && trusted
                && !tried.contains(&this.key.identity())
                && !self.pool.slots[*key].is_denied(self.now, "chat")
        });
        let (on_trial, sound): (Vec<_>, Vec<_>) = good.partition(on_trial);
        let not_due = |key: &usize| late(key) && !self.pool.late_is_due(index(*key), self.now);
        let not_due = on_trial.iter().copied().filter(not_due).collect();
        Choice { sound, on_trial, not_due }
    }

    /// What priorities and the strategy promise.
    fn expect_choice(&self, number: usize, Choice { sound, on_trial, not_due }: &Choice) {
        let priority = |key: usize| self.keys[key].key.settings().priority;
        let first_tier = |keys: &[usize]| keys.iter().map(|key| priority(*key)).min();
        assert!(sound.is_empty() || !not_due.contains(&number), "a late key is left alone for a while");
        if on_trial.contains(&number) {
            if not_due.is_empty() {
                assert_eq!(Some(priority(number)), first_tier(on_trial));
            }
            assert!(
                first_tier(sound).is_none_or(|tier| tier >= priority(number)),
                "tried below a sound tier"
            );
            return;
        }
        if !sound.contains(&number) {
            assert!(sound.is_empty() && on_trial.is_empty(), "others are better");
            return;
        }
        assert_eq!(Some(priority(number)), first_tier(sound));
        let mut peers = sound.iter().copied().filter(|key| priority(*key) == priority(number));
        let load = |key: usize| {
            let out: u32 = self.family(key).iter().map(|twin| self.keys[*twin].out).sum();
            f64::from(out) / f64::from(self.keys[key].key.settings().weight.get())
        };
        match self.settings.strategy {
            pool::Strategy::FillFirst => assert_eq!(peers.next(), Some(number)),
            pool::Strategy::LeastInFlight => {
                let others: Vec<_> = peers.filter(|key| *key != number).collect();
                let busiest = others.iter().all(|key| load(*key) < load(number));
                assert!(others.is_empty() || !busiest, "it took the busiest of several");
            }
            _ => {}
        }
    }

    fn refused(&self, model: Option<&'static str>, exhausted: Exhausted, sets: &[Vec<usize>]) {
        match exhausted.why {
            Why::NoKeyForModel => assert!(sets.is_empty()),
            Why::InLine => {}
            Why::NoneFree => {
                let others_busy = sets.len() > 1 && self.others_busy(model);
                let mut moments: Vec<_> =
                    sets[..1].iter().filter_map(|set| self.free_at(set, model)).collect();
                assert!(moments.iter().all(|at| *at > self.now), "refused though a key is free");
                if !others_busy {
                    moments.extend(sets[1..].iter().filter_map(|set| self.free_at(set, model)));
                    assert!(moments.iter().all(|at| *at > self.now), "refused though a key is free");
                    assert_eq!(exhausted.free_at, moments.into_iter().min());
                }
            }
        }
    }

    fn woken(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        for arrival in arrivals {
            self.waiting.get_mut(&arrival).expect("only who waits is woken").asleep = None;
        }
    }

    fn want_of(&self, out: &Out) -> Want<'static> {
        Want {
            arrival: out.arrival,
            model: out.model,
            purpose: "chat",
            stream: streams(out.model),
            tried: &[],
            failed_hosts: &[],
            demand: DEMAND,
        }
    }

    fn heard(&mut self, which: usize) {
        let Some(which) = which.checked_rem(self.out.len()) else { return };
        let mut out = self.out.swap_remove(which);
        let want = self.want_of(&out);
        let effects = self.pool.heard(self.now, &mut out.ticket, MS * 300, &want);
        self.works(&mut out);
        out.heard = true;
        self.out.push(out);
        self.woken(effects.wake);
    }

    fn settle(&mut self, which: usize, outcome: Outcome) -> Option<Retry> {
        let which = which.checked_rem(self.out.len())?;
        let mut out = self.out.swap_remove(which);
        let now = self.now;
        let want = self.want_of(&out);
        let (key, host) = (out.key, self.keys[out.key].host);
        let ticket = std::mem::replace(&mut out.ticket, never());
        let effects = self.pool.settle(now, ticket, outcome, &want);
        self.keys[key].out -= 1;
        match outcome {
            Outcome::Good if !out.heard => self.works(&mut out),
            Outcome::Good | Outcome::Abandoned => {}
            Outcome::Unused => {
                let room = out.model.and_then(|model| self.rooms.get_mut(&(out.account, model)));
                if let Some((room, charge)) = room.zip(out.charge) {
                    room.refund(now, out.id, charge);
                }
                for twin in self.family(key) {
                    if let Some(rate) = self.keys[twin].key.settings().rate {
                        self.keys[twin].gcra.refund(rate);
                    }
                }
            }
            Outcome::Harmless => {
                self.used_nothing(&out);
                if out.probes.any_rest() {
                    self.works(&mut out);
                }
                self.host_works(&mut out);
            }
            Outcome::Denied => {
                self.used_nothing(&out);
                if out.probes.key {
                    self.key_works(&mut out);
                }
                self.host_works(&mut out);
            }
            Outcome::Rest { reason, of, named } => {
                self.host_works(&mut out);
                self.used_nothing(&out);
                let account = self.keys[key].account;
                let for_model = matches!(of, Rests::KeyForModel | Rests::AccountForModel);
                if for_model && out.model.is_some() {
                    if out.probes.key {
                        self.key_works(&mut out);
                    }
                    if out.probes.account {
                        self.account_works(&mut out);
                    }
                }
                let word = |cooling: &mut Cooling| cooling.begin(now, out.started, reason, named);
                match (of, out.model) {
                    (Rests::KeyForModel, Some(model)) => {
                        let by_key = self.for_model.entry((out.set.clone(), model)).or_default();
                        word(by_key.entry(key).or_default());
                    }
                    (Rests::AccountForModel, Some(model)) => {
                        let room = self.rooms.entry((account, model)).or_default();
                        if reason == Reason::RateLimited {
                            room.refused(now, out.charge.filter(|_| out.account == account));
                        }
                        word(self.limits.entry((account, model)).or_default());
                    }
                    (Rests::Account | Rests::AccountForModel, _) => {
                        word(&mut self.accounts[account]);
                    }
                    (Rests::Key | Rests::KeyForModel, _) => {
                        for twin in self.family(key) {
                            word(&mut self.keys[twin].cooling);
                        }
                    }
                }
            }
            Outcome::Failed(trouble) => self.failed(&mut out, trouble),
            Outcome::HostFailed(trouble) => {
                self.used_nothing(&out);
                self.host_failed(&mut out, trouble);
            }
        }
        let keys = self.keys.iter_mut().map(|key| &mut key.cooling);
        for cooling in keys.chain(&mut self.accounts).chain(self.limits.values_mut()) {
            cooling.probe_back(out.id);
        }
        for cooling in self.for_model.values_mut().flat_map(|by_key| by_key.values_mut()) {
            cooling.probe_back(out.id);
        }
        if out.probes.host {
            self.breakers[host].probe_lost(now, out.id);
        }
        self.woken(effects.wake);
        out.tried.push(self.keys[key].key.identity());
        Some((out.arrival, out.model, out.tried))
    }

    fn lift(&mut self, key: usize, reason: Reason) {
        let key = key % self.keys.len();
        let effects = self.pool.lift(self.now, &[self.keys[key].key.identity()], reason);
        for twin in self.family(key) {
            if self.keys[twin].cooling.lift(reason) {
                self.no_longer_probed(twin);
            }
            for by_model in self.for_model.values_mut() {
                by_model.get_mut(&twin).map(|cooling| cooling.lift(reason));
            }
        }
        let account = self.keys[key].account;
        if self.accounts[account].lift(reason) {
            self.account_no_longer_probed(account);
        }
        for ((of, _), limit) in &mut self.limits {
            if *of == account {
                limit.lift(reason);
            }
        }
        self.woken(effects.wake);
    }

    fn used_nothing(&mut self, out: &Out) {
        let room = out.model.and_then(|model| self.rooms.get_mut(&(out.account, model)));
        if let Some((room, charge)) = room.zip(out.charge) {
            room.settle(self.now, out.id, charge, 0);
        }
    }

    fn announce(&mut self, which: usize, announced: &Announced) {
        let Some(which) = which.checked_rem(self.out.len()) else { return };
        let out = &self.out[which];
        let (now, want) = (self.now, self.want_of(out));
        let effects = self.pool.announced(now, &out.ticket, &want, announced);
        if let Some(model) = out.model.filter(|_| !announced.is_empty()) {
            let account = self.keys[out.key].account;
            let charge = out.charge.filter(|_| out.account == account);
            let in_flight: u32 =
                self.keys.iter().filter(|key| key.account == account).map(|key| key.out).sum();
            let others = if charge.is_some() { 0 } else { in_flight - 1 };
            let told = (out.id, out.started);
            self.limits.entry((account, model)).or_default();
            let room = self.rooms.entry((account, model)).or_default();
            room.announced(now, told, charge, others, announced);
        }
        self.woken(effects.wake);
    }

    fn learn(&mut self, which: usize, account: AccountId) {
        let Some(which) = which.checked_rem(self.out.len()) else { return };
        let effects = self.pool.learn(self.now, &self.out[which].ticket, account);
        self.key_is_of(self.out[which].key, account);
        self.woken(effects.wake);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Arrive { client, model } => {
                let arrival = self.pool.arrive(client_of(client));
                self.ask(arrival, MODELS[model], &[]);
            }
            Op::Settle { which, outcome } => {
                self.settle(which, outcome);
            }
            Op::Retry { which, outcome } => {
                if let Some((arrival, model, tried)) = self.settle(which, outcome) {
                    self.ask(arrival, model, &tried);
                }
            }
            Op::Heard { which } => self.heard(which),
            Op::Leave { which } => {
                let Some(which) = which.checked_rem(self.waiting.len()) else { return };
                let arrival = *self.waiting.keys().nth(which).unwrap();
                self.waiting.remove(&arrival);
                let next = self.pool.leave(arrival);
                self.woken(next);
            }
            Op::Ask => {
                while let Some((&arrival, waiter)) =
                    self.waiting.iter().find(|(_, waiter)| waiter.asleep.is_none())
                {
                    let (model, tried) = (waiter.model, waiter.tried.clone());
                    self.ask(arrival, model, &tried);
                }
            }
            Op::Advance { ms } => {
                self.now += MS * u32::try_from(ms).unwrap();
                for waiter in self.waiting.values_mut() {
                    if waiter.asleep.is_some_and(|told| told.free_at.is_some_and(|at| at <= self.now)) {
                        waiter.asleep = None;
                    }
                }
            }
            Op::Lift { key, reason } => self.lift(key, reason),
            Op::Announce { which, announced } => self.announce(which, &announced),
            Op::Learn { which, account } => self.learn(which, account),
        }
        self.check();
    }

    fn check(&mut self) {
        for order in &self.pool.rotations {
            order.rotation.assert_whole(|slot| self.pool.slots[slot as usize].awaited);
        }
        self.pool.lines.assert_whole();
        assert_eq!(self.pool.waiting(), self.waiting.len());
        for (arrival, waiter) in &self.waiting {
            let Some(told) = waiter.asleep else { continue };
            let first = self.is_first(*arrival, waiter.model);
            if told.why == Why::InLine {
                assert!(!first, "{arrival:?} was not told that it is first");
                continue;
            }
            // When keys that step in are free again one line is told, and tells the next by leaving; a line that is
            // left unserved meanwhile may sleep until its own moment.
            let only = self.waiting.values().all(|other| self.line(other.model) == self.line(waiter.model));
            for (at, set) in self.sets(waiter.model).iter().enumerate() {
                if first
                    && (at == 0 || only && !self.others_busy(waiter.model))
                    && let Some(free) = self.free_at(set, waiter.model)
                {
                    let free = free.max(self.now);
                    assert!(told.free_at.is_some_and(|told| told <= free), "{arrival:?} sleeps too long");
                }
            }
        }
        let snapshot = self.pool.snapshot(self.now);
        for (view, naive) in snapshot.keys.iter().zip(&self.keys) {
            assert_eq!(
                (view.in_flight, view.account),
                (naive.out, self.names[naive.account].map(|(_, id)| id))
            );
        }
    }
}

/// Those who are as good as any for a request.
struct Choice {
    sound: Vec<usize>,
    /// Those of whom nobody knows whether they are well again.
    on_trial: Vec<usize>,
    /// Those of these that are late, and were tried a short while ago.
    not_due: Vec<usize>,
}

/// Who asks again, for which model, and which keys it has tried.
type Retry = (Arrival, Option<&'static str>, Vec<KeyIdentity>);
/// A ticket that nobody gave out, to fill a place.
fn never() -> Ticket {
    let started = Clock::system().now().mono;
    Ticket {
        id: 0,
        slot: 0,
        set: 0,
        account: 0,
        started,
        heard: false,
        charge: None,
        part: Part::NONE,
        probes: Probes::default(),
    }
}

/// The same each time.
fn client_of(number: u8) -> ClientId {
    ClientId::of(&std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(), number)
}

proptest! {
    #[test]
    fn any_sequence_of_operations_keeps_every_promise(
        settings in settings(),
        entries in prop::collection::vec(entry(), 1..8),
        ops in prop::collection::vec(op(), 1..200),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(settings, entries, seed);
        for op in ops {
            world.apply(&op);
        }
        while !world.out.is_empty() {
            world.settle(0, Outcome::Abandoned);
            world.check();
        }
        prop_assert!(world.pool.snapshot(world.now).keys.iter().all(|key| key.in_flight == 0));
        prop_assert!(world.pool.slots.iter().all(|slot| slot.credential_in_flight == 0));
    }
}
