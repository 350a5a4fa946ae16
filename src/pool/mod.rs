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
mod effects;
mod line;
mod orders;
mod outcome;
mod pick;
mod rotation;
mod routing;
mod settings;
mod slot;
mod snapshot;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use breaker::Breaker;
pub use cooling::Reason;
pub use line::LineFull;
use line::Lines;
use orders::Order;
pub use outcome::{Arrival, Effects, Exhausted, Grant, Outcome, Ticket, Transition, Want, Why};
use rotation::index;
use routing::Routing;
pub use settings::{Settings, Strategy, UnknownStrategy};
use slot::Slot;
pub use snapshot::{Causes, HostView, KeyView, Snapshot, State};

use crate::types::{Fingerprint, Key, KeyIdentity, Origin};

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
}
