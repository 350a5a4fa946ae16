//! What answers mean for keys and hosts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Effects, Pool, Reason, Ticket, Transition, Want, breaker::Change, cooling::Cooling, rotation::index,
    slot::FAILURES_TO_REST,
};

impl Pool {
    /// The attempt shows its key, for its model, and its host at work.
    pub(super) fn works(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
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

    pub(super) fn host_works(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let at = self.slots[ticket.slot as usize].host;
        ticket.host_probe = false;
        if self.hosts[at as usize].breaker.succeeded(now).is_some() {
            let host = self.hosts[at as usize].origin.clone();
            effects.transitions.push(Transition::HostClosed { host });
            self.tell_host(at, effects);
        }
    }

    pub(super) fn rest(
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

    pub(super) fn rest_for_model(
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

    pub(super) fn failed(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
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

    pub(super) fn host_failed(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
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
    pub(super) fn return_probes(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
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

    pub(super) fn release(&mut self, at: usize) {
        self.slots[at].in_flight -= 1;
        for twin in self.family(index(at)) {
            self.slots[twin as usize].credential_in_flight -= 1;
        }
    }

    /// The key and the other entries of its credential.
    pub(super) fn family(&self, slot: u32) -> impl Iterator<Item = u32> + use<> {
        // Nearly always empty, and then the clone costs nothing.
        std::iter::once(slot).chain(self.slots[slot as usize].twins.clone())
    }

    /// The rest of a ticket's key for the model it was wanted for.
    pub(super) fn model_cooling(&mut self, ticket: &Ticket, want: &Want<'_>) -> Option<&mut Cooling> {
        let at = self.rotation_of(ticket.set, want.model);
        let rotation = &mut self.rotations[at as usize].rotation;
        let member = rotation.member_of(ticket.slot)?;
        rotation.members[member as usize].cooling.as_deref_mut()
    }

    /// The key may be free again: it stands in every rotation, and who is first in line asks again.
    pub(super) fn tell(&mut self, slot: u32, effects: &mut Effects) {
        for (at, order) in self.rotations.iter_mut().enumerate() {
            if let Some(member) = order.rotation.member_of(slot) {
                order.rotation.unpark(member);
                self.lines.wake(index(at), &mut effects.wake);
            }
        }
    }

    pub(super) fn tell_host(&mut self, host: u32, effects: &mut Effects) {
        for (at, order) in self.rotations.iter().enumerate() {
            if order.rotation.lanes.iter().any(|lane| lane.host == host) {
                self.lines.wake(index(at), &mut effects.wake);
            }
        }
    }
}
