//! Read-only pictures of a pool, for metrics and health pages.

use std::{sync::Arc, time::Instant};

use super::{Pool, Reason, Trouble, rotation::index, tank::Room};
use crate::types::{AccountId, Class, Key, Origin};

/// Everything at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The keys in the order of the configuration.
    pub keys: Vec<KeyView>,
    /// Their hosts.
    pub hosts: Vec<HostView>,
    /// How many requests wait for a key.
    pub waiting: usize,
    /// Per reason, how many keys rest for one model alone, counted once for each such model.
    pub model_rests: Vec<(Reason, usize)>,
    /// Per reason, how many rests have begun.
    pub rests_begun: Vec<(Reason, u64)>,
}

impl Snapshot {
    /// Whether a key may serve now, or will once it has waited: one that is not rejected, refused or out of quota, or
    /// that was and is due for another try. Somebody must send that one.
    #[must_use]
    pub fn is_usable(&self, now: Instant) -> bool {
        self.keys.iter().any(|key| match key.state {
            State::Ready => true,
            State::Resting(reason, until) => reason.is_passing() || until <= now,
        })
    }
}

/// The rest of a key for one model alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRest {
    /// Which.
    pub model: Box<str>,
    /// Why.
    pub reason: Reason,
    /// Until when; then a probe decides, or it is free.
    pub until: Instant,
}

/// What is left of an account's limits for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRoom {
    /// Which.
    pub model: Box<str>,
    /// Of requests. `None`: unknown.
    pub requests: Option<Room>,
    /// Of tokens.
    pub tokens: Option<Room>,
}

/// One key at one moment.
#[derive(Debug, Clone)]
pub struct KeyView {
    /// Which.
    pub key: Arc<Key>,
    /// The account that its limits are counted against, where that is known.
    pub account: Option<AccountId>,
    /// Whether it may serve.
    pub state: State,
    /// From 0.0 to 1.0.
    pub health: f64,
    /// Requests it is serving.
    pub in_flight: u32,
    /// Requests it was given.
    pub used: u64,
    /// Its rests, and those of its account, for single models.
    pub model_rests: Vec<ModelRest>,
    /// What its account has left, for each model that answers spoke of lately.
    pub rooms: Vec<ModelRoom>,
    /// The last attempt that was neither a success nor a client's fault: what it came to, and when.
    pub last_error: Option<(Class, Instant)>,
    /// When it was last sent on trial.
    pub last_trial: Option<Instant>,
    /// Whether it lets requests wait while others answer: then it is passed over.
    pub late: bool,
}

/// Whether a key may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may.
    Ready,
    /// It rests for this reason, until then; then a probe decides, or it is free.
    Resting(Reason, Instant),
}

impl State {
    /// Every name.
    pub const NAMES: [&'static str; 7] = [
        "ready",
        Reason::RateLimited.as_str(),
        Reason::QuotaExhausted.as_str(),
        Reason::Rejected.as_str(),
        Reason::Refused.as_str(),
        Reason::Failing.as_str(),
        Reason::ModelUnavailable.as_str(),
    ];

    /// The name in metrics and health pages: `ready`, or the reason of the rest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Resting(reason, _) => reason.as_str(),
        }
    }
}

/// One host at one moment.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Which.
    pub origin: Origin,
    /// Whether requests are sent to it.
    pub open: bool,
    /// If not: in what trouble it is, or our way to it.
    pub trouble: Option<Trouble>,
    /// Per trouble, how often its breaker has opened.
    pub openings: Vec<(Trouble, u64)>,
}

impl Pool {
    /// The pool as it is.
    pub fn snapshot(&mut self, now: Instant) -> Snapshot {
        let mut model_rests: Vec<Vec<ModelRest>> = vec![Vec::new(); self.slots.len()];
        let overlays =
            self.overlays.iter().flatten().map(|(model, at)| (model, &self.rotations[*at as usize]));
        for (model, order) in overlays {
            for member in &order.rotation.members {
                if let Some((reason, until)) =
                    member.cooling.as_ref().and_then(|cooling| cooling.current(now))
                {
                    model_rests[member.slot as usize].push(ModelRest { model: model.clone(), reason, until });
                }
            }
        }
        let mut rooms: Vec<Vec<ModelRoom>> = vec![Vec::new(); self.slots.len()];
        for (account, limit) in self.limits.all() {
            let [requests, tokens] = limit.headroom.rooms(now);
            if requests.is_some() || tokens.is_some() {
                for slot in &self.accounts.get(account).slots {
                    let model = limit.model.clone();
                    rooms[*slot as usize].push(ModelRoom { model, requests, tokens });
                }
            }
            let Some((reason, until)) = limit.cooling.current(now) else { continue };
            for slot in &self.accounts.get(account).slots {
                model_rests[*slot as usize].push(ModelRest { model: limit.model.clone(), reason, until });
            }
        }
        let rests = |reason| model_rests.iter().flatten().filter(|rest| rest.reason == reason).count();
        let count = Reason::ALL.map(|reason| (reason, rests(reason)));
        let late: Vec<bool> = (0..self.slots.len()).map(|slot| self.is_late(index(slot), now)).collect();
        let accounts = &self.accounts;
        for rooms in &mut rooms {
            rooms.sort_unstable_by(|one, other| one.model.cmp(&other.model));
        }
        let of_models = model_rests.into_iter().zip(rooms);
        let keys = self.slots.iter_mut().zip(late).zip(of_models);
        let keys = keys.map(|((slot, late), (model_rests, rooms))| KeyView {
            key: Arc::clone(&slot.key),
            account: accounts.get(slot.account).id,
            state: [&slot.cooling, &accounts.get(slot.account).cooling]
                .into_iter()
                .filter_map(|cooling| cooling.current(now))
                .max_by_key(|(_, until)| *until)
                .map_or(State::Ready, |(reason, until)| State::Resting(reason, until)),
            health: slot.window.health(now),
            in_flight: slot.in_flight,
            used: slot.used,
            model_rests,
            rooms,
            last_error: slot.last_error,
            last_trial: slot.last_trial,
            late,
        });
        let hosts = self.hosts.iter().map(|host| HostView {
            origin: host.origin.clone(),
            open: host.breaker.is_closed(),
            trouble: host.breaker.trouble(),
            openings: Trouble::ALL.into_iter().zip(host.openings).collect(),
        });
        Snapshot {
            keys: keys.collect(),
            hosts: hosts.collect(),
            waiting: self.lines.waiting(),
            model_rests: count.into(),
            rests_begun: Reason::ALL.into_iter().zip(self.rests_begun).collect(),
        }
    }
}
