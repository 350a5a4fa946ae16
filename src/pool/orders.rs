//! The rotations of a pool: one for each model set, and one for each model some of whose keys rest for it alone.

use std::time::{Duration, Instant};

use super::{
    Arrival, Causes, Pool, Strategy,
    limits::ModelHash,
    rotation::{Rotation, index},
};

/// At most so many members of rotations for one model, over all models. Each is about 100 bytes.
const OVERLAY_MEMBERS: usize = 200_000;
/// At most so many models with a rotation of their own, …
const OVERLAYS: usize = 256;
/// … and so many however large they are.
const OVERLAYS_AT_LEAST: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) rotation: Rotation,
    /// When the last rest for this model alone ends. `None`: this is no overlay.
    pub(super) marked_until: Option<Instant>,
    /// The only model that it is for, if there is only one.
    pub(super) model: Option<ModelHash>,
    /// The time between two turns in a line, and when it was found.
    pub(super) pace: Option<(Instant, Duration)>,
    /// Why none is free, when that was found, and after how many changes.
    pub(super) causes: Option<(Instant, u64, Option<ModelHash>, Causes)>,
    /// The member that last gave reason to hope.
    pub(super) hope: u32,
}

impl Pool {
    pub(super) fn rotation_of(&self, set: u32, model: Option<&str>) -> u32 {
        let overlays = &self.overlays[set as usize];
        match model {
            Some(model) if !overlays.is_empty() => overlays.get(model).copied().unwrap_or(set),
            _ => set,
        }
    }

    pub(super) fn is_overlay(&self, at: u32) -> bool {
        at as usize >= self.overlays.len()
    }

    /// The rotation of `model` alone, in which its keys can rest for it alone; made when first needed.
    pub(super) fn overlay(&mut self, now: Instant, set: u32, model: &str, wake: &mut Vec<Arrival>) -> u32 {
        if let Some(&known) = self.overlays[set as usize].get(model) {
            return known;
        }
        let parent = &self.rotations[set as usize];
        let order = Order {
            rotation: parent.rotation.clone(),
            marked_until: Some(now),
            model: Some(self.limits.hash(model)),
            ..Order::default()
        };
        self.make_room(order.rotation.members.len());
        let at = if let Some(at) = self.vacant.pop() {
            self.rotations[at as usize] = order;
            at
        } else {
            self.rotations.push(order);
            self.lines.open();
            index(self.rotations.len() - 1)
        };
        self.overlays[set as usize].insert(Box::from(model), at);
        self.lines.move_model(set, at, model, wake);
        at
    }

    /// Whether a model of `set` can have a rotation of its own without another losing one that it has a use for.
    pub(super) fn has_room_for(&self, now: Instant, set: u32) -> bool {
        let members = self.rotations[set as usize].rotation.members.len();
        let overlays = &self.rotations[self.overlays.len()..];
        let in_use = overlays.iter().filter(|order| order.marked_until.is_some_and(|until| until > now));
        let (count, held) =
            in_use.fold((0, 0), |(count, held), order| (count + 1, held + order.rotation.members.len()));
        count < OVERLAYS_AT_LEAST || (count < OVERLAYS && held + members <= OVERLAY_MEMBERS)
    }

    /// Gives up rotations of single models until one with so many members fits.
    fn make_room(&mut self, members: usize) {
        loop {
            let overlays = &self.rotations[self.overlays.len()..];
            let count = overlays.len() - self.vacant.len();
            let held: usize = overlays.iter().map(|order| order.rotation.members.len()).sum();
            if count < OVERLAYS_AT_LEAST || (count < OVERLAYS && held + members <= OVERLAY_MEMBERS) {
                return;
            }
            // The one that is soonest without any rest; but who waits in it would be forgotten.
            let used = (self.overlays.len()..self.rotations.len())
                .filter(|at| self.rotations[*at].marked_until.is_some() && self.lines.is_empty(index(*at)));
            let Some(at) = used.min_by_key(|at| self.rotations[*at].marked_until) else { return };
            for overlays in &mut self.overlays {
                overlays.retain(|_, known| *known as usize != at);
            }
            self.rotations[at] = Order::default();
            self.vacant.push(index(at));
        }
    }

    pub(super) fn order(&mut self, slots: &[u32]) -> Order {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^32 keys")]
        let spread = (slots.len() as f64).recip();
        let mut turns = Vec::with_capacity(slots.len());
        let mut place = 0.0;
        for &at in slots {
            let slot = &self.slots[at as usize];
            place += spread;
            let first = match self.settings.strategy {
                Strategy::LeastUsed => slot.turns(),
                Strategy::FillFirst => f64::from(at),
                Strategy::Random | Strategy::LeastInFlight => chance(&mut self.rng) / slot.weight(),
                // Spread over the first round, so that the heavy don't bunch where rounds meet.
                _ => place / slot.weight(),
            };
            turns.push((at, (slot.key.settings().priority, slot.host), first));
        }
        Order { rotation: Rotation::new(&turns), ..Order::default() }
    }
}

/// A draw from the exponential distribution with mean 1.
pub(super) fn chance(rng: &mut fastrand::Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}
