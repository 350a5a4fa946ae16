//! Which key, and is it well? Pure and sync: no I/O, no task; the time and the random source are arguments.
//!
//! [`Pool::acquire`] gives a [`Grant`] or says from when on it is worth asking again; [`Pool::settle`] takes the
//! ticket back with what became of it. Nothing happens in between: a cooldown that ends, a breaker that half-opens are
//! comparisons made when somebody asks.
//!
//! What the pool promises (and `tests` proves over random sequences of operations): it never grants a key that rests,
//! is full, or whose host is shut; when a key is free it grants one; every ticket settled leaves nothing in flight; at
//! most one probe is out per resting key and per open host; who came first is served first.

mod breaker;
mod cooling;
mod line;
mod outcome;
mod rotation;
mod routing;
mod settings;
mod slot;
mod snapshot;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use breaker::{Breaker, Change};
pub use cooling::Reason;
use cooling::{Cooling, Leave};
pub use line::LineFull;
use line::Lines;
pub use outcome::{Arrival, Effects, Exhausted, Grant, Outcome, Ticket, Transition, Want, Why};
use rotation::{Rotation, Until, index};
use routing::Routing;
pub use settings::{Settings, Strategy, UnknownStrategy};
use slot::{FAILURES_TO_REST, Slot};
pub use snapshot::{Causes, HostView, KeyView, Snapshot, State};

use crate::types::{Fingerprint, Key, KeyIdentity, Origin};

/// Below this health a key is degraded.
const DEGRADED: f64 = 0.75;
/// A key this much slower than the fastest still counts as fast.
const FAST_ENOUGH: f64 = 1.25;
/// The smallest share of a slow key: what it takes to notice that it has become fast.
const SLOWEST_SHARE: f64 = 0.02;
/// At most so many members of rotations for one model, over all models. Each is about 50 bytes.
const OVERLAY_MEMBERS: usize = 200_000;
/// At most so many models with a rotation of their own.
const OVERLAYS: usize = 256;

/// The keys of one pool and everything that changes about them.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    slots: Vec<Slot>,
    by_identity: HashMap<KeyIdentity, u32>,
    hosts: Vec<Host>,
    routing: Routing,
    /// The model sets first, in the routing's order; then those of single models.
    rotations: Vec<Order>,
    /// Per model set: models some of whose keys rest for that model alone.
    overlays: Vec<HashMap<Box<str>, u32>>,
    lines: Lines,
    rng: fastrand::Rng,
    aside: Vec<u32>,
}

#[derive(Debug)]
struct Host {
    origin: Origin,
    breaker: Breaker,
    keys: usize,
}

#[derive(Debug)]
struct Order {
    rotation: Rotation,
    /// When the last rest for this model alone ends. `None`: this is no overlay.
    marked_until: Option<Instant>,
    /// The least seconds to a head that a member shows.
    fastest: f64,
    /// The time between two turns when all members are at their rates. Zero: some have none.
    pace: Duration,
    causes: Option<(Instant, Causes)>,
}

impl Pool {
    /// A pool over `keys`; requests without a model go to the keys at `home`, else to those at the first key's host.
    #[must_use]
    pub fn new(settings: Settings, keys: Vec<Arc<Key>>, home: &Origin, rng: fastrand::Rng) -> Self {
        let mut hosts: Vec<Host> = Vec::new();
        let mut by_origin: HashMap<Origin, u32> = HashMap::new();
        let mut twins: HashMap<Fingerprint, Vec<u32>> = HashMap::new();
        let mut slots: Vec<Slot> = Vec::with_capacity(keys.len());
        for key in keys {
            let origin = key.settings().base.origin();
            let host = *by_origin.entry(origin.clone()).or_insert_with(|| {
                hosts.push(Host { origin: origin.clone(), breaker: Breaker::default(), keys: 0 });
                index(hosts.len() - 1)
            });
            hosts[host as usize].keys += 1;
            twins.entry(key.fingerprint()).or_default().push(index(slots.len()));
            slots.push(Slot::new(key, host));
        }
        for family in twins.values().filter(|family| family.len() > 1) {
            for &slot in family {
                slots[slot as usize].twins = family.iter().copied().filter(|twin| *twin != slot).collect();
            }
        }
        let home =
            if by_origin.contains_key(home) { Some(home) } else { hosts.first().map(|host| &host.origin) };
        let keys = slots.iter().map(|slot| &*slot.key);
        let (routing, sets) = Routing::new(&keys, |key| Some(key.settings().base.origin()) == home);
        let by_identity =
            slots.iter().enumerate().map(|(at, slot)| (slot.key.identity(), index(at))).collect();
        let mut pool = Self {
            settings,
            slots,
            by_identity,
            hosts,
            routing,
            rotations: Vec::new(),
            overlays: vec![HashMap::new(); sets.len()],
            lines: Lines::default(),
            rng,
            aside: Vec::new(),
        };
        for slots in sets {
            let order = pool.order(&slots, None);
            pool.rotations.push(order);
            pool.lines.open();
        }
        pool
    }

    /// The next place in the order of arrival.
    pub fn arrive(&mut self) -> Arrival {
        self.lines.arrive()
    }

    /// Gives the key whose turn it is.
    ///
    /// # Errors
    /// [`Exhausted`]: no key serves the model, others came first, or none is free; and when to ask again.
    pub fn acquire(&mut self, now: Instant, want: &Want<'_>) -> Result<Grant, Exhausted> {
        let Some((set, named)) = self.routing.find(want.model) else {
            return Err(Exhausted { why: Why::NoKeyForModel, free_at: None });
        };
        let at = self.rotation_of(set, want.model);
        if let Some(ahead) = self.lines.ahead(at, want.arrival) {
            let free_at = self.free_at(at, now, ahead);
            return Err(Exhausted { why: Why::InLine, free_at });
        }
        if let Some(grant) = self.pick(set, at, now, want) {
            return Ok(grant);
        }
        let mut free_at = self.free_at(at, now, 0);
        if let Some(others) = self.routing.others().filter(|_| named && self.settings.others_step_in) {
            let at = self.rotation_of(others, want.model);
            if let Some(grant) = self.pick(others, at, now, want) {
                return Ok(grant);
            }
            free_at = free_at.into_iter().chain(self.free_at(at, now, 0)).min();
        }
        Err(Exhausted { why: Why::NoneFree, free_at })
    }

    /// Joins the line for a key; joining again keeps the place.
    ///
    /// # Errors
    /// [`LineFull`] when as many as the settings allow are waiting.
    pub fn join(&mut self, want: &Want<'_>) -> Result<(), LineFull> {
        let Some((set, _)) = self.routing.find(want.model) else { return Ok(()) };
        let at = self.rotation_of(set, want.model);
        self.lines.join(at, want.arrival, self.settings.max_waiting.get())
    }

    /// Leaves the line. Returns who is now first in it, if that changed.
    pub fn leave(&mut self, arrival: Arrival) -> Option<Arrival> {
        self.lines.leave(arrival)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lines.waiting()
    }

    /// A head has come that shows key and host at work, `latency` after the attempt began. The ticket stays out until
    /// the body has ended.
    pub fn heard(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        latency: Duration,
        want: &Want<'_>,
    ) -> Effects {
        let mut effects = Effects::default();
        self.slots[ticket.slot as usize].note_latency(latency);
        self.works(now, ticket, want, &mut effects);
        effects
    }

    /// Takes a ticket back. `want` is the one it was granted for.
    pub fn settle(&mut self, now: Instant, mut ticket: Ticket, outcome: Outcome, want: &Want<'_>) -> Effects {
        let mut effects = Effects::default();
        let at = ticket.slot as usize;
        self.release(at);
        match outcome {
            Outcome::Good => {
                self.slots[at].window.record(now, true);
                self.works(now, &mut ticket, want, &mut effects);
            }
            Outcome::Harmless => {
                // Who was asked as a probe and answered is alive.
                if ticket.key_probe || ticket.model_probe {
                    self.works(now, &mut ticket, want, &mut effects);
                }
                self.host_works(now, &mut ticket, &mut effects);
            }
            Outcome::Denied => {
                self.slots[at].deny(now, want.purpose);
                self.host_works(now, &mut ticket, &mut effects);
            }
            Outcome::Rest { reason, model_only, named } => {
                self.host_works(now, &mut ticket, &mut effects);
                match want.model.filter(|_| model_only) {
                    Some(model) => self.rest_for_model(now, &ticket, model, reason, named),
                    None => self.rest(now, &ticket, reason, named, &mut effects),
                }
                ticket.key_probe &= model_only;
                ticket.model_probe &= !model_only;
            }
            Outcome::Failed => self.failed(now, &mut ticket, &mut effects),
            Outcome::HostFailed => self.host_failed(now, &mut ticket, &mut effects),
            Outcome::Abandoned => {}
        }
        self.return_probes(now, &ticket, want, &mut effects);
        for twin in self.family(ticket.slot) {
            if std::mem::take(&mut self.slots[twin as usize].awaited) {
                self.tell(twin, &mut effects);
            }
        }
        effects
    }

    /// Lifts rests that began for this reason, from the keys named.
    pub fn lift(&mut self, keys: &[KeyIdentity], reason: Reason) -> Effects {
        let mut effects = Effects::default();
        for slot in keys.iter().filter_map(|key| self.by_identity.get(key).copied()).collect::<Vec<_>>() {
            for slot in self.family(slot) {
                if self.slots[slot as usize].cooling.lift(reason) {
                    let key = Arc::clone(&self.slots[slot as usize].key);
                    effects.transitions.push(Transition::Recovered { key });
                    self.tell(slot, &mut effects);
                }
            }
        }
        effects
    }

    /// Whether the host of `key` works for others now: then a server error is the key's own.
    #[must_use]
    pub fn failure_is_local(&self, key: &Key) -> bool {
        let Some(slot) = self.by_identity.get(&key.identity()).map(|slot| &self.slots[*slot as usize]) else {
            return false;
        };
        let breaker = &self.hosts[slot.host as usize].breaker;
        breaker.is_closed() && slot.failing_since.is_some_and(|since| breaker.worked_since(since))
    }

    // === picking ===

    fn pick(&mut self, set: u32, at: u32, now: Instant, want: &Want<'_>) -> Option<Grant> {
        let mut aside = std::mem::take(&mut self.aside);
        let mut found = None;
        while found.is_none()
            && let Some(lane) = self.next_lane(at, now, want)
        {
            let order = &mut self.rotations[at as usize];
            let Some(member) = order.rotation.take(lane) else { break };
            let this = &order.rotation.members[member as usize];
            let slot = &self.slots[this.slot as usize];
            if self.settings.strategy == Strategy::LeastUsed && this.deadline() < slot.turns() {
                // It was used through another rotation since it entered this one.
                order.rotation.put_at(member, slot.turns());
                continue;
            }
            let for_model = this.cooling.as_ref().map_or(Leave::Free, |cooling| cooling.leave(now));
            match (slot.leave(now), for_model) {
                (Leave::Blocked, _) | (_, Leave::Blocked) => {
                    self.slots[this.slot as usize].awaited = true;
                    order.rotation.park(member, Until::Told);
                }
                (Leave::NotBefore(a), Leave::NotBefore(b)) => {
                    order.rotation.park(member, Until::Moment(a.max(b)));
                }
                (Leave::NotBefore(until), _) | (_, Leave::NotBefore(until)) => {
                    order.rotation.park(member, Until::Moment(until));
                }
                (Leave::Free | Leave::Probe, Leave::Free | Leave::Probe) => {
                    let again = want.tried.contains(&slot.key.identity());
                    if again || slot.is_denied(now, want.purpose) {
                        aside.push(member);
                    } else {
                        found = Some(member);
                    }
                }
            }
        }
        let mut rest = aside.drain(..);
        let found = found.or_else(|| rest.next());
        for member in rest {
            self.rotations[at as usize].rotation.put_back(member);
        }
        self.aside = aside;
        found.map(|member| self.grant(set, at, member, now))
    }

    /// The lane whose front is next: of the hosts that may be asked, those that have not failed this request first.
    fn next_lane(&mut self, at: u32, now: Instant, want: &Want<'_>) -> Option<usize> {
        let rotation = &mut self.rotations[at as usize].rotation;
        let mut best: Option<(usize, (bool, f64))> = None;
        for lane in 0..rotation.lanes.len() {
            let host = &self.hosts[rotation.lanes[lane].host as usize];
            if !matches!(host.breaker.leave(now), Leave::Free | Leave::Probe) {
                continue;
            }
            let Some(deadline) = rotation.front(lane, now) else { continue };
            let rank = (want.failed_hosts.contains(&host.origin), deadline);
            if best.is_none_or(|(_, best)| rank < best) {
                best = Some((lane, rank));
            }
        }
        best.map(|(lane, _)| lane)
    }

    fn grant(&mut self, set: u32, at: u32, member: u32, now: Instant) -> Grant {
        let order = &mut self.rotations[at as usize];
        let this = &mut order.rotation.members[member as usize];
        let slot_at = this.slot;
        let slot = &mut self.slots[slot_at as usize];
        let breaker = &mut self.hosts[slot.host as usize].breaker;

        let key_probe = slot.cooling.leave(now) == Leave::Probe;
        let model_probe = this.cooling.as_ref().is_some_and(|cooling| cooling.leave(now) == Leave::Probe);
        let host_probe = breaker.leave(now) == Leave::Probe;
        if key_probe {
            slot.cooling.probe_sent();
        }
        if let Some(cooling) = this.cooling.as_mut().filter(|_| model_probe) {
            cooling.probe_sent();
        }
        if host_probe {
            breaker.probe_sent();
        }

        slot.used += 1;
        slot.in_flight += 1;
        let weight = slot.weight();
        match self.settings.strategy {
            Strategy::RoundRobin => order.rotation.served(member, weight.recip()),
            Strategy::RoundRobinHealthWeighted => {
                let share = weight * share(slot.window.health(now), self.settings.unhealthy_penalty);
                order.rotation.served(member, share.recip());
            }
            Strategy::LeastLatency => {
                let mut share = weight * share(slot.window.health(now), self.settings.unhealthy_penalty);
                if let Some(latency) = slot.latency {
                    // The mark drifts up, so that it follows when the fastest slows down.
                    order.fastest = (order.fastest * 1.01).min(latency);
                    let behind = latency / (order.fastest * FAST_ENOUGH);
                    share *= if behind > 1.0 { behind.powi(3).recip().max(SLOWEST_SHARE) } else { 1.0 };
                }
                order.rotation.served(member, share.recip());
            }
            Strategy::LeastUsed => order.rotation.put_at(member, slot.turns()),
            Strategy::Random => {
                order.rotation.served(member, chance(&mut self.rng) / weight);
            }
        }
        let key = Arc::clone(&slot.key);
        for twin in self.family(slot_at) {
            let slot = &mut self.slots[twin as usize];
            slot.credential_in_flight += 1;
            if let Some(rate) = slot.key.settings().rate {
                slot.gcra.charge(rate, now);
            }
        }
        let ticket = Ticket { slot: slot_at, set, started: now, key_probe, model_probe, host_probe };
        Grant { key, ticket }
    }

    /// When the turn after `ahead` others comes.
    fn free_at(&self, at: u32, now: Instant, ahead: usize) -> Option<Instant> {
        let order = &self.rotations[at as usize];
        let lanes = order.rotation.lanes.iter().filter_map(|lane| {
            let open = match self.hosts[lane.host as usize].breaker.leave(now) {
                Leave::Free | Leave::Probe => now,
                Leave::NotBefore(until) => until,
                Leave::Blocked => return None,
            };
            lane.first_at(now).map(|first| first.max(open))
        });
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        lanes.min().map(|first| first + order.pace.saturating_mul(ahead))
    }

    // === what answers mean for keys and hosts ===

    /// The attempt shows its key, for its model, and its host at work.
    fn works(&mut self, now: Instant, ticket: &mut Ticket, want: &Want<'_>, effects: &mut Effects) {
        for twin in self.family(ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            if twin == ticket.slot {
                (slot.failures, slot.failing_since) = (0, None);
            }
            if slot.cooling.succeeded(ticket.started) {
                effects.transitions.push(Transition::Recovered { key: Arc::clone(&slot.key) });
                self.tell(twin, effects);
            }
        }
        if self.model_cooling(ticket, want).is_some_and(|cooling| cooling.succeeded(ticket.started)) {
            self.tell(ticket.slot, effects);
        }
        (ticket.key_probe, ticket.model_probe) = (false, false);
        self.host_works(now, ticket, effects);
    }

    fn host_works(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let at = self.slots[ticket.slot as usize].host;
        ticket.host_probe = false;
        if self.hosts[at as usize].breaker.succeeded(now).is_some() {
            let host = self.hosts[at as usize].origin.clone();
            effects.transitions.push(Transition::HostClosed { host });
            self.tell_host(at, effects);
        }
    }

    fn rest(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        reason: Reason,
        named: Option<Duration>,
        effects: &mut Effects,
    ) {
        for twin in self.family(ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            if slot.cooling.begin(now, ticket.started, reason, named)
                && let Some((reason, until)) = slot.cooling.current(now)
            {
                let key = Arc::clone(&slot.key);
                effects.transitions.push(Transition::Resting { key, reason, until });
            }
        }
    }

    fn rest_for_model(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        model: &str,
        reason: Reason,
        named: Option<Duration>,
    ) {
        let Some(at) = self.overlay(now, ticket.set, model) else { return };
        // A limit is the credential's wherever it stands; that a model is missing is this entry's alone.
        let alone = reason == Reason::ModelUnavailable;
        let family: Vec<u32> = self.family(ticket.slot).take(if alone { 1 } else { usize::MAX }).collect();
        let order = &mut self.rotations[at as usize];
        for slot in family {
            let Some(member) = order.rotation.member_of(slot) else { continue };
            let cooling = order.rotation.members[member as usize].cooling.get_or_insert_default();
            cooling.begin(now, ticket.started, reason, named);
            if let Some((_, until)) = cooling.current(now) {
                order.marked_until = order.marked_until.map(|marked| marked.max(until));
            }
        }
    }

    fn failed(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let slot = &mut self.slots[ticket.slot as usize];
        slot.window.record(now, false);
        slot.failures = slot.failures.saturating_add(1);
        let since = *slot.failing_since.get_or_insert(ticket.started);
        let host = &self.hosts[slot.host as usize];
        // While the host works for nobody it is the host that fails, and no key rests for it.
        let local = host.keys == 1 || host.breaker.worked_since(since);
        if ticket.key_probe || (local && slot.failures >= FAILURES_TO_REST) {
            if slot.cooling.begin(now, ticket.started, Reason::Failing, None)
                && let Some((reason, until)) = slot.cooling.current(now)
            {
                let key = Arc::clone(&slot.key);
                effects.transitions.push(Transition::Resting { key, reason, until });
            }
            ticket.key_probe = false;
        }
        self.host_failed(now, ticket, effects);
    }

    fn host_failed(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let at = self.slots[ticket.slot as usize].host;
        let host = &mut self.hosts[at as usize];
        let change = host.breaker.failed(now, ticket.slot, host.keys, ticket.host_probe);
        if let Some(Change::Opened { until }) = change {
            let host = host.origin.clone();
            effects.transitions.push(Transition::HostOpened { host, until });
            // Who waited for the probe now waits for a moment.
            self.tell_host(at, effects);
            ticket.host_probe = false;
        }
    }

    /// Probes that said nothing are due again.
    fn return_probes(&mut self, now: Instant, ticket: &Ticket, want: &Want<'_>, effects: &mut Effects) {
        let at = ticket.slot as usize;
        if ticket.key_probe {
            self.slots[at].cooling.probe_lost();
        }
        if ticket.model_probe
            && let Some(cooling) = self.model_cooling(ticket, want)
        {
            cooling.probe_lost();
        }
        if ticket.host_probe {
            let host = self.slots[at].host;
            self.hosts[host as usize].breaker.probe_lost(now);
            self.tell_host(host, effects);
        }
    }

    fn release(&mut self, at: usize) {
        self.slots[at].in_flight -= 1;
        for twin in self.family(index(at)) {
            self.slots[twin as usize].credential_in_flight -= 1;
        }
    }

    /// The key and the other entries of its credential.
    fn family(&self, slot: u32) -> impl Iterator<Item = u32> + use<> {
        // Nearly always empty, and then the clone costs nothing.
        std::iter::once(slot).chain(self.slots[slot as usize].twins.clone())
    }

    /// The rest of a ticket's key for the model it was wanted for.
    fn model_cooling(&mut self, ticket: &Ticket, want: &Want<'_>) -> Option<&mut Cooling> {
        let at = self.rotation_of(ticket.set, want.model);
        let rotation = &mut self.rotations[at as usize].rotation;
        let member = rotation.member_of(ticket.slot)?;
        rotation.members[member as usize].cooling.as_deref_mut()
    }

    /// The key may be free again: it stands in every rotation, and who is first in line asks again.
    fn tell(&mut self, slot: u32, effects: &mut Effects) {
        for (at, order) in self.rotations.iter_mut().enumerate() {
            if let Some(member) = order.rotation.member_of(slot) {
                order.rotation.unpark(member);
                self.lines.wake(index(at), &mut effects.wake);
            }
        }
    }

    fn tell_host(&mut self, host: u32, effects: &mut Effects) {
        for (at, order) in self.rotations.iter().enumerate() {
            if order.rotation.lanes.iter().any(|lane| lane.host == host) {
                self.lines.wake(index(at), &mut effects.wake);
            }
        }
    }

    // === rotations ===

    fn rotation_of(&self, set: u32, model: Option<&str>) -> u32 {
        let overlays = &self.overlays[set as usize];
        match model {
            Some(model) if !overlays.is_empty() => overlays.get(model).copied().unwrap_or(set),
            _ => set,
        }
    }

    /// The rotation of `model` alone, in which its keys can rest for it alone; made when first needed.
    fn overlay(&mut self, now: Instant, set: u32, model: &str) -> Option<u32> {
        if let Some(&known) = self.overlays[set as usize].get(model) {
            return Some(known);
        }
        let slots: Vec<u32> =
            self.rotations[set as usize].rotation.members.iter().map(|member| member.slot).collect();
        let most = (OVERLAY_MEMBERS / slots.len().max(1)).clamp(8, OVERLAYS);
        let order = self.order(&slots, Some(now));
        let sets = self.overlays.len();
        let at = if self.rotations.len() - sets < most {
            self.rotations.push(order);
            self.lines.open();
            index(self.rotations.len() - 1)
        } else {
            // The one that is soonest without any rest, and for which nobody waits and nobody is out.
            let busy: HashSet<u32> = self.lines.occupied().collect();
            let free = (sets..self.rotations.len()).filter(|at| !busy.contains(&index(*at)));
            let at = free.min_by_key(|at| self.rotations[*at].marked_until)?;
            for overlays in &mut self.overlays {
                overlays.retain(|_, known| *known as usize != at);
            }
            self.rotations[at] = order;
            index(at)
        };
        self.overlays[set as usize].insert(Box::from(model), at);
        Some(at)
    }

    fn order(&mut self, slots: &[u32], marked_until: Option<Instant>) -> Order {
        let random = self.settings.strategy == Strategy::Random;
        let mut turns = Vec::with_capacity(slots.len());
        for &at in slots {
            let slot = &self.slots[at as usize];
            let first = match self.settings.strategy {
                Strategy::LeastUsed => slot.turns(),
                _ if random => chance(&mut self.rng) / slot.weight(),
                _ => slot.weight().recip(),
            };
            turns.push((at, slot.host, first));
        }
        let intervals = slots.iter().map(|at| self.slots[*at as usize].key.settings().rate);
        let per_second: Option<f64> =
            intervals.map(|rate| Some(rate?.interval().as_secs_f64().recip())).sum();
        let pace = per_second.filter(|rate| *rate > 0.0).map_or(0.0, f64::recip);
        Order {
            rotation: Rotation::new(turns),
            marked_until,
            fastest: f64::MAX,
            pace: Duration::from_secs_f64(pace),
            causes: None,
        }
    }
}

/// The part of its weight that a key of this health gets.
fn share(health: f64, penalty: f64) -> f64 {
    if health < DEGRADED { penalty.recip() } else { health }
}

/// A draw from the exponential distribution with mean 1.
fn chance(rng: &mut fastrand::Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}
