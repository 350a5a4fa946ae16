//! The rotations of a pool: one for each model set, and one for each model some of whose keys rest for it alone.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{
    Causes, Pool, Strategy,
    rotation::{Rotation, index},
};

/// At most so many members of rotations for one model, over all models. Each is about 50 bytes.
const OVERLAY_MEMBERS: usize = 200_000;
/// At most so many models with a rotation of their own.
const OVERLAYS: usize = 256;

#[derive(Debug)]
pub(super) struct Order {
    pub(super) rotation: Rotation,
    /// When the last rest for this model alone ends. `None`: this is no overlay.
    pub(super) marked_until: Option<Instant>,
    /// The least seconds to a head that a member shows.
    pub(super) fastest: f64,
    /// The time between two turns when all members are at their rates. Zero: some have none.
    pub(super) pace: Duration,
    pub(super) causes: Option<(Instant, Causes)>,
}

impl Pool {
    pub(super) fn rotation_of(&self, set: u32, model: Option<&str>) -> u32 {
        let overlays = &self.overlays[set as usize];
        match model {
            Some(model) if !overlays.is_empty() => overlays.get(model).copied().unwrap_or(set),
            _ => set,
        }
    }

    /// The rotation of `model` alone, in which its keys can rest for it alone; made when first needed.
    pub(super) fn overlay(&mut self, now: Instant, set: u32, model: &str) -> Option<u32> {
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

    pub(super) fn order(&mut self, slots: &[u32], marked_until: Option<Instant>) -> Order {
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

/// A draw from the exponential distribution with mean 1.
pub(super) fn chance(rng: &mut fastrand::Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}
