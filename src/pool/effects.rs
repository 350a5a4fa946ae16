//! What answers mean for keys, accounts and hosts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Effects, Pool, Reason, Rests, Ticket, Transition, Want, breaker::Change, cooling::Cooling,
    rotation::index, slot::Slot,
};
use crate::types::AccountId;

/// What an attempt that went well, or a refusal, did to a rest.
struct Changed {
    /// Whether a rest ended.
    recovered: bool,
    /// Whether somebody who is parked for it may be asked sooner than he was told.
    sooner: bool,
}

/// What a refusal says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) reason: Reason,
    /// How long it asks for.
    pub(super) named: Option<Duration>,
}

impl Cooling {
    fn worked(&mut self, now: Instant, ticket: &Ticket) -> Changed {
        let held = self.held_until(now);
        let recovered = self.succeeded(now, ticket.started);
        let sooner = self.held_until(now) < held;
        let sooner = self.probe_back(ticket.id) || recovered || sooner;
        Changed { recovered, sooner }
    }

    /// The rest that began, if one did; and whether the pace lets go sooner than it did.
    fn refused(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        Word { reason, named }: Word,
    ) -> (Option<(Reason, Instant)>, bool) {
        let held = self.held_until(now);
        let began = self.begin(now, ticket.started, reason, named);
        let sooner = self.held_until(now) < held;
        (self.current(now).filter(|_| began), sooner)
    }
}

impl Pool {
    /// The attempt shows its key and account, for its model, and its host at work.
    pub(super) fn works(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
        self.key_works(now, ticket, effects);
        self.account_works(now, ticket, effects);
        self.model_works(now, ticket, want, effects);
        self.host_works(now, ticket, effects);
    }

    pub(super) fn key_works(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let slot = &mut self.slots[ticket.slot as usize];
        if let Some(failing) = slot.failing.take()
            && self.hosts[slot.host as usize].breaker.worked_since(failing.since)
        {
            slot.fell_short(now, failing.open);
        }
        ticket.probes.key = false;
        for twin in family(&self.slots, ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            let changed = slot.cooling.worked(now, ticket);
            if changed.recovered && self.accounts.get(slot.account).cooling.current(now).is_none() {
                effects.transitions.push(Transition::Recovered { key: Arc::clone(&slot.key) });
            }
            if changed.sooner {
                self.tell(twin, effects);
            }
        }
    }

    pub(super) fn account_works(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        ticket.probes.account = false;
        for account in self.accounts_of(ticket) {
            let changed = self.accounts.get_mut(account).cooling.worked(now, ticket);
            let slot = &self.slots[ticket.slot as usize];
            // Of an account that it has left nothing is told: it may not be back by that.
            if changed.recovered && account == slot.account && slot.cooling.current(now).is_none() {
                effects.transitions.push(Transition::Recovered { key: Arc::clone(&slot.key) });
            }
            if changed.sooner {
                self.tell_account(account, effects);
            }
        }
    }

    fn model_works(&mut self, now: Instant, ticket: &mut Ticket, want: &Want<'_>, effects: &mut Effects) {
        (ticket.probes.member, ticket.probes.limit) = (false, false);
        for account in self.accounts_of(ticket) {
            let Some(limit) = self.limits.named_mut(account, want.model) else { continue };
            if let Some(model) = want.model
                && limit.cooling.worked(now, ticket).sooner
            {
                self.tell_for_model(account, model, effects);
            }
        }
        let at = self.rotation_of(ticket.set, want.model);
        if let Some(cooling) = self.member_cooling(at, ticket.slot)
            && cooling.worked(now, ticket).sooner
        {
            self.tell(ticket.slot, effects);
        }
    }

    pub(super) fn host_works(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let at = self.slots[ticket.slot as usize].host;
        ticket.probes.host = false;
        if let Some(Change::Closed) = self.hosts[at as usize].breaker.succeeded(now, ticket.started) {
            let host = self.hosts[at as usize].origin.clone();
            effects.transitions.push(Transition::HostClosed { host });
            self.tell_host(at, effects);
        }
    }

    /// A refusal begins a rest of whom it is about. Without a model, what is said of one is said of all.
    pub(super) fn rest(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        (of, word): (Rests, Word),
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
        match (of, want.model) {
            (Rests::Key, _) | (Rests::KeyForModel, None) => self.rest_key(now, ticket, word, effects),
            (Rests::Account, _) | (Rests::AccountForModel, None) => {
                self.rest_account(now, ticket, word, effects);
            }
            (Rests::KeyForModel | Rests::AccountForModel, Some(model)) => {
                // A refusal for one model is no word against key and account.
                if ticket.probes.key {
                    self.key_works(now, ticket, effects);
                }
                if ticket.probes.account {
                    self.account_works(now, ticket, effects);
                }
                if of == Rests::KeyForModel {
                    self.rest_member(now, ticket, model, word, effects);
                } else {
                    self.rest_limit(now, ticket, model, word, effects);
                }
            }
        }
    }

    fn rest_key(&mut self, now: Instant, ticket: &Ticket, word: Word, effects: &mut Effects) {
        for twin in family(&self.slots, ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            let (began, sooner) = slot.cooling.refused(now, ticket, word);
            if let Some((reason, until)) = began {
                let key = Arc::clone(&slot.key);
                effects.transitions.push(Transition::Resting { key, model: None, reason, until, with: 0 });
            }
            if sooner {
                self.tell(twin, effects);
            }
        }
    }

    fn rest_account(&mut self, now: Instant, ticket: &Ticket, word: Word, effects: &mut Effects) {
        let slot = &self.slots[ticket.slot as usize];
        let at = slot.account;
        let account = self.accounts.get_mut(at);
        let (began, sooner) = account.cooling.refused(now, ticket, word);
        if let Some((reason, until)) = began {
            let (key, with) = (Arc::clone(&slot.key), account.slots.len() - 1);
            effects.transitions.push(Transition::Resting { key, model: None, reason, until, with });
        }
        if sooner {
            self.tell_account(at, effects);
        }
        self.tell_awaited_of(at, effects);
    }

    fn rest_member(&mut self, now: Instant, ticket: &Ticket, model: &str, word: Word, effects: &mut Effects) {
        let at = self.overlay(now, ticket.set, model, &mut effects.wake);
        let order = &mut self.rotations[at as usize];
        let Some(member) = order.rotation.member_of(ticket.slot) else { return };
        let cooling = order.rotation.members[member as usize].cooling.get_or_insert_default();
        let (began, sooner) = cooling.refused(now, ticket, word);
        order.marked_until = order.marked_until.max(cooling.current(now).map(|(_, until)| until));
        if let Some((reason, until)) = began {
            let (key, model) = (Arc::clone(&self.slots[ticket.slot as usize].key), Some(Box::from(model)));
            effects.transitions.push(Transition::Resting { key, model, reason, until, with: 0 });
        }
        if sooner {
            self.tell(ticket.slot, effects);
        }
    }

    fn rest_limit(&mut self, now: Instant, ticket: &Ticket, model: &str, word: Word, effects: &mut Effects) {
        let slot = &self.slots[ticket.slot as usize];
        let (account, key) = (slot.account, Arc::clone(&slot.key));
        let limit = self.limits.entry(now, account, model);
        if word.reason == Reason::RateLimited {
            limit.headroom.refused(now, ticket.charge.filter(|_| ticket.account == account));
        }
        let (began, sooner) = limit.cooling.refused(now, ticket, word);
        let until = limit.until(now);
        self.mark(now, account, model, until, effects);
        if let Some((reason, until)) = began {
            let with = self.accounts.get(account).slots.len() - 1;
            let model = Some(Box::from(model));
            effects.transitions.push(Transition::Resting { key, model, reason, until, with });
        }
        if sooner {
            self.tell_for_model(account, model, effects);
        }
        self.tell_awaited_of(account, effects);
    }

    /// Wherever keys of an account serve `model`, that has a rotation of its own, at least until then.
    fn mark(
        &mut self,
        now: Instant,
        account: u32,
        model: &str,
        until: Option<Instant>,
        effects: &mut Effects,
    ) {
        for set in self.sets_of(model) {
            let rotation = &self.rotations[set as usize].rotation;
            if self.accounts.get(account).slots.iter().any(|slot| rotation.member_of(*slot).is_some()) {
                let at = self.overlay(now, set, model, &mut effects.wake);
                let order = &mut self.rotations[at as usize];
                order.marked_until = order.marked_until.max(until);
            }
        }
    }

    /// The same, where the rotations that it takes cost nobody else's.
    pub(super) fn mark_if_cheap(
        &mut self,
        now: Instant,
        account: u32,
        model: &str,
        until: Option<Instant>,
        effects: &mut Effects,
    ) {
        let fits = |set| self.overlays[set as usize].contains_key(model) || self.has_room_for(now, set);
        if self.sets_of(model).all(fits) {
            self.mark(now, account, model, until, effects);
        }
    }

    /// The sets that may be asked for `model`.
    pub(super) fn sets_of(&self, model: &str) -> impl Iterator<Item = u32> + use<> {
        let found = self.routing.find(Some(model));
        let others = self.routing.others().filter(|_| self.settings.others_step_in);
        let others = others.filter(|_| found.is_some_and(|(_, named)| named));
        found.map(|(set, _)| set).into_iter().chain(others)
    }

    /// An answer says which account it counted against: its keys share limits from now on.
    pub fn learn(&mut self, now: Instant, ticket: &Ticket, id: AccountId) -> Effects {
        let mut effects = Effects::default();
        let moved = self.accounts.learn(&mut self.slots, ticket.slot, id);
        if moved.is_empty() {
            return effects;
        }
        self.changes += 1;
        let account = self.slots[ticket.slot as usize].account;
        let limits: Vec<_> =
            self.limits.of(account).map(|limit| (limit.model.clone(), limit.until(now))).collect();
        for (model, until) in limits {
            self.mark(now, account, &model, until, &mut effects);
        }
        for slot in moved {
            self.tell(slot, &mut effects);
        }
        effects
    }

    /// Lifts the key's rests for single models, and those of its account. True if there was one.
    pub(super) fn lift_for_models(&mut self, slot: u32, reason: Reason) -> bool {
        let mut lifted = false;
        for &set in &self.slots[slot as usize].sets {
            for at in self.overlays[set as usize].values() {
                let rotation = &mut self.rotations[*at as usize].rotation;
                let Some(member) = rotation.member_of(slot) else { continue };
                let cooling = rotation.members[member as usize].cooling.as_deref_mut();
                lifted |= cooling.is_some_and(|cooling| cooling.lift(reason));
            }
        }
        self.changes += u64::from(lifted);
        lifted
    }

    /// Lifts the rests of an account, for every model. True if there was one.
    pub(super) fn lift_account(&mut self, account: u32, reason: Reason) -> bool {
        let mut lifted = self.accounts.get_mut(account).cooling.lift(reason);
        for limit in self.limits.of_mut(account) {
            lifted |= limit.cooling.lift(reason);
        }
        self.changes += u64::from(lifted);
        lifted
    }

    /// Probes that said nothing are due again.
    pub(super) fn return_probes(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
        if ticket.probes.key {
            for twin in family(&self.slots, ticket.slot) {
                self.slots[twin as usize].cooling.probe_back(ticket.id);
            }
        }
        if ticket.probes.account {
            self.accounts.get_mut(ticket.account).cooling.probe_back(ticket.id);
        }
        if ticket.probes.limit
            && let Some(limit) = self.limits.named_mut(ticket.account, want.model)
        {
            limit.cooling.probe_back(ticket.id);
        }
        if ticket.probes.account || ticket.probes.limit {
            for account in self.accounts_of(ticket) {
                self.tell_awaited_of(account, effects);
            }
        }
        if ticket.probes.member {
            let at = self.rotation_of(ticket.set, want.model);
            if let Some(cooling) = self.member_cooling(at, ticket.slot) {
                cooling.probe_back(ticket.id);
            }
        }
        if ticket.probes.host {
            let host = self.slots[ticket.slot as usize].host;
            self.hosts[host as usize].breaker.probe_lost(now, ticket.id);
            self.tell_host(host, effects);
        }
    }

    /// The rest of `slot` for the model of rotation `at` alone.
    pub(super) fn member_cooling(&mut self, at: u32, slot: u32) -> Option<&mut Cooling> {
        if !self.is_overlay(at) {
            return None;
        }
        let rotation = &mut self.rotations[at as usize].rotation;
        let member = rotation.member_of(slot)?;
        rotation.members[member as usize].cooling.as_deref_mut()
    }

    /// The account that the attempt was counted against, and that of its key, if that is known to be another by now.
    pub(super) fn accounts_of(&self, ticket: &Ticket) -> impl Iterator<Item = u32> + use<> {
        let now = self.slots[ticket.slot as usize].account;
        let then = ticket.account;
        std::iter::once(now).chain((then != now).then_some(then))
    }

    /// Its turn counts for nothing.
    pub(super) fn refund(&mut self, slot: u32, effects: &mut Effects) {
        self.slots[slot as usize].used -= 1;
        for twin in family(&self.slots, slot) {
            let slot = &mut self.slots[twin as usize];
            if let Some(rate) = slot.key.settings().rate {
                slot.gcra.refund(rate);
                self.tell(twin, effects);
            }
        }
    }

    pub(super) fn release(&mut self, slot: u32) {
        self.slots[slot as usize].in_flight -= 1;
        for twin in family(&self.slots, slot) {
            self.slots[twin as usize].credential_in_flight -= 1;
        }
    }

    /// Who is parked until told is told.
    pub(super) fn tell_if_awaited(&mut self, slot: u32, effects: &mut Effects) {
        if std::mem::take(&mut self.slots[slot as usize].awaited) {
            self.tell(slot, effects);
        }
    }

    /// The same for all keys of an account. Who waited for a probe may now wait for a moment.
    fn tell_awaited_of(&mut self, account: u32, effects: &mut Effects) {
        for at in 0..self.accounts.get(account).slots.len() {
            self.tell_if_awaited(self.accounts.get(account).slots[at], effects);
        }
    }

    /// The key may be free again: wherever it stands, and who is first in line there asks again.
    pub(super) fn tell(&mut self, slot: u32, effects: &mut Effects) {
        for &set in &self.slots[slot as usize].sets {
            let overlays = self.overlays[set as usize].values().copied();
            for at in std::iter::once(set).chain(overlays) {
                let rotation = &mut self.rotations[at as usize].rotation;
                if let Some(member) = rotation.member_of(slot) {
                    rotation.unpark(member);
                    self.lines.wake(at, &mut effects.wake);
                }
            }
        }
        self.tell_those_for_whom_others_step_in(effects);
    }

    /// The same for all keys of an account.
    pub(super) fn tell_account(&mut self, account: u32, effects: &mut Effects) {
        for at in 0..self.accounts.get(account).slots.len() {
            self.tell(self.accounts.get(account).slots[at], effects);
        }
    }

    /// The same where they stand for one model alone.
    pub(super) fn tell_for_model(&mut self, account: u32, model: &str, effects: &mut Effects) {
        for &slot in &self.accounts.get(account).slots {
            for &set in &self.slots[slot as usize].sets {
                let Some(&at) = self.overlays[set as usize].get(model) else { continue };
                let rotation = &mut self.rotations[at as usize].rotation;
                if let Some(member) = rotation.member_of(slot) {
                    rotation.unpark(member);
                    self.lines.wake(at, &mut effects.wake);
                }
            }
        }
        self.tell_those_for_whom_others_step_in(effects);
    }

    pub(super) fn tell_host(&mut self, host: u32, effects: &mut Effects) {
        for (at, order) in self.rotations.iter().enumerate() {
            if !self.lines.is_empty(index(at)) && order.rotation.lanes.iter().any(|lane| lane.host == host) {
                self.lines.wake(index(at), &mut effects.wake);
            }
        }
        self.tell_those_for_whom_others_step_in(effects);
    }

    fn tell_those_for_whom_others_step_in(&self, effects: &mut Effects) {
        if self.settings.others_step_in && self.lines.waiting() > 0 {
            self.lines.wake_all(&mut effects.wake);
        }
    }
}

/// The key and the other entries of its credential.
pub(super) fn family(slots: &[Slot], slot: u32) -> impl Iterator<Item = u32> + use<> {
    let twins = slots[slot as usize].twins.clone();
    let others = (0..twins.as_ref().map_or(0, |twins| twins.len()))
        .filter_map(move |n| twins.as_ref().map(|twins| twins[n]).filter(|twin| *twin != slot));
    std::iter::once(slot).chain(others)
}
