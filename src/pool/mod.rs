//! Which key, and is it well? Pure and sync: no I/O, no task; the time and the random source are arguments.
//!
//! [`Pool::acquire`] gives a [`Grant`] or says from when on it is worth asking again; [`Pool::settle`] takes the
//! ticket back with what became of it. Nothing happens in between: a cooldown that ends, a breaker that half-opens are
//! comparisons made when somebody asks.
//!
//! What the pool promises (and `tests` proves over random sequences of operations): it never grants a key that rests,
//! is full, or whose host is shut; when a key is free it grants one, and none of a later priority while one of an
//! earlier is good for the request; every ticket settled leaves nothing in flight; at most one probe is out per resting
//! key or account, and one in ten seconds per open host; of each client, who came first is served first, and each
//! client that waits has its turn in every round.

mod accounts;
mod breaker;
mod causes;
mod cooling;
mod effects;
mod explain;
mod forecast;
mod headroom;
mod incidents;
mod lateness;
mod limits;
mod line;
mod orders;
mod outcome;
mod pace;
mod pick;
mod prospects;
mod ramp;
mod rotation;
mod routing;
mod settings;
mod slot;
mod snapshot;
mod tank;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use accounts::Accounts;
use breaker::Breaker;
pub use causes::{Causes, Resting};
pub use cooling::Reason;
use effects::{Word, family};
pub use explain::{Counts, Explanation, PassedOver, Survey, Turn};
use lateness::{ByKind, Usual};
use limits::Limits;
pub use line::LineFull;
use line::Lines;
use orders::Order;
pub use outcome::{
    Arrival, Effects, Exhausted, Grant, Outcome, Rests, Ticket, Transition, Trouble, Want, Why,
};
use rotation::index;
use routing::Routing;
pub use settings::{Settings, Strategy, UnknownStrategy};
use slot::Slot;
pub use snapshot::{HostView, KeyView, ModelRest, ModelRoom, Snapshot, State};
pub use tank::Room;

use crate::types::{Class, ClientId, Fingerprint, Key, KeyIdentity, Origin};

/// The keys of one pool and everything that changes about them.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    slots: Vec<Slot>,
    by_identity: HashMap<KeyIdentity, u32>,
    hosts: Vec<Host>,
    accounts: Accounts,
    limits: Limits,
    routing: Routing,
    /// The model sets first, in the routing's order; then those of single models.
    rotations: Vec<Order>,
    /// Per model set: models some of whose keys rest for that model alone.
    overlays: Vec<HashMap<Box<str>, u32>>,
    /// Rotations that no model uses.
    vacant: Vec<u32>,
    lines: Lines,
    rng: fastrand::Rng,
    /// Attempts so far.
    attempts: u64,
    /// Heads so far, and over again.
    heads: u32,
    /// How often a key or a host changed its state.
    changes: u64,
    /// How many rests have begun, per reason.
    rests_begun: [u64; Reason::ALL.len()],
    /// Scratch space of a pick.
    aside: Vec<u32>,
    /// The same, for those whose accounts have no room for the request.
    without_room: Vec<u32>,
    /// When the last pick found nobody, and an account that had no room then.
    without_room_of: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Host {
    origin: Origin,
    breaker: Breaker,
    slots: Vec<u32>,
    /// How many credentials its keys are.
    credentials: usize,
    /// How long its heads take.
    usual: ByKind<Usual>,
    /// How often its breaker has opened, per trouble.
    openings: [u64; Trouble::ALL.len()],
}

impl Pool {
    /// A pool over `keys`; requests without a model go to the keys at `home`, else to those at the first key's host.
    #[must_use]
    pub fn new(mut settings: Settings, keys: Vec<Arc<Key>>, home: &Origin, rng: fastrand::Rng) -> Self {
        let penalty = settings.unhealthy_penalty;
        settings.unhealthy_penalty = if penalty.is_nan() { 1.0 } else { penalty.clamp(1.0, 1000.0) };
        let (mut slots, hosts) = people(keys);
        let accounts = Accounts::new(&mut slots);
        let known = hosts.iter().map(|host| &host.origin).find(|origin| *origin == home);
        let home = known.or_else(|| hosts.first().map(|host| &host.origin));
        let keys = slots.iter().map(|slot| &*slot.key);
        let (routing, sets) = Routing::new(&keys, |key| Some(key.settings().base.origin()) == home);
        let by_identity =
            slots.iter().enumerate().map(|(at, slot)| (slot.key.identity(), index(at))).collect();
        let mut pool = Self {
            settings,
            slots,
            by_identity,
            hosts,
            accounts,
            limits: Limits::default(),
            routing,
            rotations: Vec::new(),
            overlays: vec![HashMap::new(); sets.len()],
            vacant: Vec::new(),
            lines: Lines::default(),
            rng,
            attempts: 0,
            heads: 0,
            changes: 0,
            rests_begun: [0; Reason::ALL.len()],
            aside: Vec::new(),
            without_room: Vec::new(),
            without_room_of: None,
        };
        for (set, members) in sets.iter().enumerate() {
            let order = pool.order(members);
            pool.rotations.push(order);
            pool.lines.open();
            for slot in members {
                pool.slots[*slot as usize].sets.push(index(set));
            }
        }
        pool
    }

    /// The next place in the order of arrival, for a request of `client`.
    pub fn arrive(&mut self, client: ClientId) -> Arrival {
        self.lines.arrive(client)
    }

    /// Gives the key whose turn it is.
    ///
    /// # Errors
    /// [`Exhausted`]: no key serves the model, others came first, or none is free; and when to ask again.
    pub fn acquire(&mut self, now: Instant, want: &Want<'_>) -> Result<Grant, Exhausted> {
        let Some((set, named)) = self.routing.find(want.model) else {
            return Err(Exhausted { why: Why::NoKeyForModel, free_at: None, sooner: false });
        };
        let at = self.rotation_of(set, want.model);
        let asking = self.asking(want);
        if let Some(ahead) = self.lines.ahead(at, want.arrival, want.has_returned()) {
            let free_at = self.free_at(at, now, ahead, asking);
            let sooner = self.awaits(at);
            return Err(Exhausted { why: Why::InLine, free_at, sooner });
        }
        if let Some(grant) = self.pick(set, at, now, asking) {
            self.lines.served(want.arrival);
            return Ok(grant);
        }
        let mut free_at = self.free_at(at, now, 0, asking);
        let mut sooner = self.awaits(at);
        if let Some(others) = self.routing.others().filter(|_| named && self.settings.others_step_in) {
            let at = self.rotation_of(others, want.model);
            // They step in with what they have to spare: nothing, while anyone waits for them.
            let ahead = self.lines.length(at);
            if ahead == 0
                && let Some(grant) = self.pick(others, at, now, asking)
            {
                self.lines.served(want.arrival);
                return Ok(grant);
            }
            let theirs = self.free_at(at, now, ahead, asking);
            free_at = free_at.into_iter().chain(theirs).min();
            sooner |= self.awaits(at);
        }
        Err(Exhausted { why: Why::NoneFree, free_at, sooner })
    }

    /// Whether a member of the rotation may have a turn at any moment: when a trial ends, or a place is given back.
    fn awaits(&self, at: u32) -> bool {
        let rotation = &self.rotations[at as usize].rotation;
        let mut hosts = rotation.lanes.iter().map(|lane| &self.hosts[lane.host as usize]);
        rotation.awaits() || hosts.any(|host| host.breaker.is_probing())
    }

    /// Joins the line for a key; joining again keeps the place. To be called at once when [`Pool::acquire`] has
    /// refused: what becomes free between the two wakes nobody. Returns who should ask again: somebody may have had to
    /// make room, and has no place any more.
    ///
    /// # Errors
    /// [`LineFull`] when as many as the settings allow are waiting, and no client has more of them than this one.
    pub fn join(&mut self, want: &Want<'_>) -> Result<Vec<Arrival>, LineFull> {
        let Some((set, _)) = self.routing.find(want.model) else { return Ok(Vec::new()) };
        let mut effects = Effects::default();
        if let Some(((now, account), model)) = self.without_room_of.take().zip(want.model) {
            // Who wants another model doesn't wait for this one's room.
            self.mark_scarce(now, account, model, &mut effects);
        }
        let at = self.rotation_of(set, want.model);
        let most = self.settings.max_waiting.get();
        let mut wake = self.lines.join(at, want.arrival, want.has_returned(), want.model, most)?;
        wake.extend(effects.wake);
        Ok(wake)
    }

    /// Leaves the line, whether with a key or without. Returns who should now ask: the next in it.
    pub fn leave(&mut self, arrival: Arrival) -> Option<Arrival> {
        let waiting = self.lines.waiting();
        let next = self.lines.leave(arrival);
        if next.is_none() && self.settings.others_step_in && self.lines.waiting() < waiting {
            // Who may use the keys of another line too.
            return self.lines.first();
        }
        next
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.slots.len()
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
        self.note_head(ticket, latency);
        self.silence_ends(ticket.slot, &mut effects);
        self.works(now, ticket, want, &mut effects);
        ticket.heard = true;
        self.count(&effects);
        effects
    }

    /// Takes a ticket back. `want` is the one it was granted for.
    pub fn settle(&mut self, now: Instant, mut ticket: Ticket, outcome: Outcome, want: &Want<'_>) -> Effects {
        let mut effects = Effects::default();
        self.release(ticket.slot);
        match outcome {
            _ if ticket.heard => {}
            Outcome::Abandoned | Outcome::Failed(Trouble::Transport) => self.head_given_up(now, &ticket),
            Outcome::Unused | Outcome::HostFailed(Trouble::Transport) => self.head_not_expected(now, &ticket),
            _ => self.silence_ends(ticket.slot, &mut effects),
        }
        match outcome {
            Outcome::Good => {
                self.slots[ticket.slot as usize].window.record(now, true);
                // What its head showed was true then; that its body has ended says nothing of new attempts.
                if !ticket.heard {
                    self.works(now, &mut ticket, want, &mut effects);
                }
            }
            Outcome::Harmless => {
                self.used_nothing(now, &ticket, want, &mut effects);
                // Who was asked as a probe and answered is alive.
                if ticket.probes.any_rest() {
                    self.works(now, &mut ticket, want, &mut effects);
                }
                self.host_works(now, &mut ticket, &mut effects);
            }
            Outcome::Denied => {
                self.used_nothing(now, &ticket, want, &mut effects);
                self.slots[ticket.slot as usize].deny(now, want.purpose);
                // Whose permissions were looked up is alive.
                if ticket.probes.key {
                    self.key_works(now, &mut ticket, &mut effects);
                }
                self.host_works(now, &mut ticket, &mut effects);
            }
            Outcome::Rest { reason, of, named } => {
                self.host_works(now, &mut ticket, &mut effects);
                self.used_nothing(now, &ticket, want, &mut effects);
                self.rest(now, &mut ticket, (of, Word { reason, named }), want, &mut effects);
            }
            Outcome::Failed(trouble) => self.failed(now, &mut ticket, trouble, &mut effects),
            Outcome::HostFailed(trouble) => {
                self.used_nothing(now, &ticket, want, &mut effects);
                self.host_failed(now, &mut ticket, trouble, &mut effects);
            }
            Outcome::Abandoned => {}
            Outcome::Unused => {
                self.used_no_request(now, &ticket, want, &mut effects);
                self.refund(ticket.slot, &mut effects);
            }
        }
        self.return_probes(now, &ticket, want, &mut effects);
        for twin in family(&self.slots, ticket.slot) {
            self.tell_if_awaited(twin, &mut effects);
        }
        self.count(&effects);
        effects
    }

    /// Remembers what an attempt with this ticket came to, if that was a fault and not the client's, for people who ask.
    pub fn note(&mut self, now: Instant, ticket: &Ticket, class: Class) {
        if !matches!(class, Class::Success | Class::ClientFault) {
            self.slots[ticket.slot as usize].last_error = Some((class, now));
        }
    }

    fn count(&mut self, effects: &Effects) {
        self.changes += effects.transitions.len() as u64;
        for transition in &effects.transitions {
            if let Transition::Resting { reason, .. } = transition
                && let Some(at) = Reason::ALL.iter().position(|known| known == reason)
            {
                self.rests_begun[at] += 1;
            }
        }
    }

    /// Lifts rests that began for this reason, from the keys named and their accounts, for every model.
    pub fn lift(&mut self, now: Instant, keys: &[KeyIdentity], reason: Reason) -> Effects {
        let mut effects = Effects::default();
        let named = keys.iter().filter_map(|key| self.by_identity.get(key).copied());
        let mut slots: Vec<u32> = named.flat_map(|slot| family(&self.slots, slot)).collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            let Slot { account, .. } = self.slots[slot as usize];
            let rested = self.rests(slot, now);
            let lifted = self.slots[slot as usize].cooling.lift(reason);
            if self.lift_for_models(slot, reason) || lifted {
                self.tell(slot, &mut effects);
            }
            if self.lift_account(account, reason) {
                self.tell_account(account, &mut effects);
            }
            if rested && !self.rests(slot, now) {
                let key = Arc::clone(&self.slots[slot as usize].key);
                effects.transitions.push(Transition::Recovered { key });
            }
        }
        self.count(&effects);
        effects
    }

    /// Whether the key or its account rests, for every model.
    fn rests(&self, slot: u32, now: Instant) -> bool {
        let slot = &self.slots[slot as usize];
        let account = &self.accounts.get(slot.account).cooling;
        slot.cooling.current(now).or_else(|| account.current(now)).is_some()
    }

    /// Whether the limits of both are counted against one account, as far as that is known.
    #[must_use]
    pub fn share_account(&self, one: &Key, other: &Key) -> bool {
        let account =
            |key: &Key| self.by_identity.get(&key.identity()).map(|slot| self.slots[*slot as usize].account);
        account(one).is_some_and(|account_of_one| account(other) == Some(account_of_one))
    }

    /// Whether the host of `key` works for others now: then a server error is the key's own.
    #[must_use]
    pub fn failure_is_local(&self, key: &Key) -> bool {
        let Some(slot) = self.by_identity.get(&key.identity()).map(|slot| &self.slots[*slot as usize]) else {
            return false;
        };
        let breaker = &self.hosts[slot.host as usize].breaker;
        breaker.is_closed() && slot.failing.is_some_and(|failing| breaker.worked_since(failing.since))
    }
}

/// The keys with their hosts and their twins.
fn people(keys: Vec<Arc<Key>>) -> (Vec<Slot>, Vec<Host>) {
    let mut slots: Vec<Slot> = Vec::with_capacity(keys.len());
    let mut hosts: Vec<Host> = Vec::new();
    let mut by_origin: HashMap<Origin, u32> = HashMap::new();
    // A secret is a credential where it is sent: a placeholder that two servers accept is two.
    let mut twins: HashMap<(u32, Fingerprint), Vec<u32>> = HashMap::new();
    for key in keys {
        let at = index(slots.len());
        let origin = key.settings().base.origin();
        let host = *by_origin.entry(origin.clone()).or_insert_with(|| {
            let breaker = Breaker::default();
            let (slots, credentials, openings) = (Vec::new(), 0, [0; Trouble::ALL.len()]);
            let usual = ByKind::default();
            hosts.push(Host { origin: origin.clone(), breaker, slots, credentials, usual, openings });
            index(hosts.len() - 1)
        });
        hosts[host as usize].slots.push(at);
        twins.entry((host, key.fingerprint())).or_default().push(at);
        slots.push(Slot::new(key, host, at));
    }
    for ((host, _), family) in twins {
        hosts[host as usize].credentials += 1;
        if family.len() > 1 {
            let family: Arc<[u32]> = family.into();
            for &slot in &*family {
                slots[slot as usize].credential = family[0];
                slots[slot as usize].twins = Some(Arc::clone(&family));
            }
        }
    }
    (slots, hosts)
}
