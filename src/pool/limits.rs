//! What an account may do with one model: its rests for that model alone, and what it has left.
//!
//! Kept per account and model, however many keys the account has and however many rotations they stand in.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    time::Instant,
};

use super::{
    cooling::{Cooling, Leave},
    headroom::Headroom,
};

/// So many are remembered; beyond, those that say nothing any more are forgotten.
const MOST: usize = 100_000;

/// All of a pool's.
#[derive(Debug, Default)]
pub(super) struct Limits {
    names: RandomState,
    table: HashMap<(u32, ModelHash), Limit>,
}

/// Stands for a model's name: 64 bits with a random seed, so that nobody can make two names meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ModelHash(u64);

/// One account's, for one model.
#[derive(Debug, Default)]
pub(super) struct Limit {
    pub(super) model: Box<str>,
    pub(super) cooling: Cooling,
    /// What its answers say is left.
    pub(super) headroom: Headroom,
}

impl Limits {
    /// What stands for `model`, if anything is remembered at all.
    pub(super) fn look_up(&self, model: Option<&str>) -> Option<ModelHash> {
        model.filter(|_| !self.table.is_empty()).map(|model| self.hash(model))
    }

    /// What stands for `model` here.
    pub(super) fn hash(&self, model: &str) -> ModelHash {
        ModelHash(self.names.hash_one(model))
    }

    pub(super) fn get(&self, account: u32, model: Option<ModelHash>) -> Option<&Limit> {
        self.table.get(&(account, model?))
    }

    pub(super) fn get_mut(&mut self, account: u32, model: Option<ModelHash>) -> Option<&mut Limit> {
        self.table.get_mut(&(account, model?))
    }

    /// The same by the model's name.
    pub(super) fn named_mut(&mut self, account: u32, model: Option<&str>) -> Option<&mut Limit> {
        let model = self.look_up(model)?;
        self.get_mut(account, Some(model))
    }

    /// The limit, which is remembered from now on.
    pub(super) fn entry(&mut self, now: Instant, account: u32, model: &str) -> &mut Limit {
        if self.table.len() >= MOST {
            self.table.retain(|_, limit| limit.says_something(now));
            // What is forgotten is learned again, at the price of a call.
            if self.table.len() >= MOST {
                self.table.clear();
            }
        }
        let key = (account, self.hash(model));
        self.table.entry(key).or_insert_with(|| Limit { model: Box::from(model), ..Limit::default() })
    }

    pub(super) fn of(&self, account: u32) -> impl Iterator<Item = &Limit> {
        self.table.iter().filter(move |((of, _), _)| *of == account).map(|(_, limit)| limit)
    }

    /// Each with its account.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Limit)> {
        self.table.iter().map(|((account, _), limit)| (*account, limit))
    }

    pub(super) fn of_mut(&mut self, account: u32) -> impl Iterator<Item = &mut Limit> {
        self.table.iter_mut().filter(move |((of, _), _)| *of == account).map(|(_, limit)| limit)
    }
}

impl Limit {
    /// When its rest ends, if it has one.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.cooling.current(now).map(|(_, until)| until)
    }

    /// Whether its account may be asked, by its rest. Its pace counts where nothing better is known.
    pub(super) fn leave(&self, now: Instant) -> Leave {
        if self.headroom.guides(now) { self.cooling.rested(now) } else { self.cooling.leave(now) }
    }

    /// From when on its account may be asked, for all that is known of this model. `None`: when its probe is back.
    pub(super) fn free_at(&self, now: Instant) -> Option<Instant> {
        let opens = self.headroom.opens_at(now);
        match self.leave(now) {
            Leave::Free | Leave::Probe => Some(opens),
            Leave::NotBefore(until) => Some(opens.max(until)),
            Leave::Blocked => None,
        }
    }

    fn says_something(&self, now: Instant) -> bool {
        self.cooling.current(now).is_some()
            || self.cooling.interval().is_some()
            || self.headroom.says_something(now)
    }
}
