//! What answers mean for keys and hosts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Effects, Pool, Reason, Ticket, Transition, Want,
    breaker::Change,
    rotation::index,
    slot::{FAILURES_TO_REST, Failing, Slot},
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
        self.key_works(now, ticket, effects);
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
        ticket.key_probe = false;
        for twin in family(&self.slots, ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            let held = slot.cooling.held_until(now);
            let recovered = slot.cooling.succeeded(now, ticket.started);
            if recovered {
                effects.transitions.push(Transition::Recovered { key: Arc::clone(&slot.key) });
            }
            let sooner = slot.cooling.held_until(now) < held;
            if slot.cooling.probe_back(ticket.id) || recovered || sooner {
                self.tell(twin, effects);
            }
        }
    }

    fn model_works(&mut self, now: Instant, ticket: &mut Ticket, want: &Want<'_>, effects: &mut Effects) {
        ticket.model_probe = false;
        let at = self.rotation_of(ticket.set, want.model);
        if !self.is_overlay(at) {
            return;
        }
        for twin in family(&self.slots, ticket.slot) {
            let rotation = &mut self.rotations[at as usize].rotation;
            let Some(member) = rotation.member_of(twin) else { continue };
            let Some(cooling) = rotation.members[member as usize].cooling.as_deref_mut() else { continue };
            // That a model is missing was said of one entry: another's success says nothing of it.
            let of_another = twin != ticket.slot && cooling.is_for(Reason::ModelUnavailable);
            let held = cooling.held_until(now);
            let recovered = !of_another && cooling.succeeded(now, ticket.started);
            let sooner = cooling.held_until(now) < held;
            if cooling.probe_back(ticket.id) || recovered || sooner {
                self.tell(twin, effects);
            }
        }
    }

    pub(super) fn host_works(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let at = self.slots[ticket.slot as usize].host;
        ticket.host_probe = false;
        if let Some(Change::Closed) = self.hosts[at as usize].breaker.succeeded(now, ticket.started) {
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
        for twin in family(&self.slots, ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            let held = slot.cooling.held_until(now);
            if slot.cooling.begin(now, ticket.started, reason, named) {
                effects.transitions.extend(slot.resting(now));
            }
            if slot.cooling.held_until(now) < held {
                self.tell(twin, effects);
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
        effects: &mut Effects,
    ) {
        let at = self.overlay(now, ticket.set, model, effects);
        // A limit is the credential's wherever it stands; that a model is missing is this entry's alone.
        let alone = reason == Reason::ModelUnavailable;
        for slot in family(&self.slots, ticket.slot).take(if alone { 1 } else { usize::MAX }) {
            let order = &mut self.rotations[at as usize];
            let Some(member) = order.rotation.member_of(slot) else { continue };
            let cooling = order.rotation.members[member as usize].cooling.get_or_insert_default();
            let held = cooling.held_until(now);
            let began = cooling.begin(now, ticket.started, reason, named);
            let sooner = cooling.held_until(now) < held;
            if let Some((reason, until)) = cooling.current(now) {
                if began {
                    let (key, model) = (Arc::clone(&self.slots[slot as usize].key), Some(Box::from(model)));
                    effects.transitions.push(Transition::Resting { key, model, reason, until });
                }
                order.marked_until = order.marked_until.map(|marked| marked.max(until));
            }
            if sooner {
                self.tell(slot, effects);
            }
        }
    }

    pub(super) fn failed(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let slot = &self.slots[ticket.slot as usize];
        let breaker = &self.hosts[slot.host as usize].breaker;
        // What failed in an outage counts no longer.
        let before = slot.failing.filter(|failing| !breaker.opened_since(failing.since));
        let since = before.map_or(ticket.started, |failing| failing.last);
        // While the host works for nobody it is the host that fails, and no key rests for it.
        let closed = breaker.is_closed();
        let local = closed && (breaker.worked_since(since) || self.is_alone(ticket.slot, now));
        let slot = &mut self.slots[ticket.slot as usize];
        let count = match before {
            Some(failing) => failing.count.saturating_add(u32::from(local)),
            None => 1,
        };
        let since = before.map_or(ticket.started, |failing| failing.since);
        let mut open = before.map_or(0, |failing| failing.open).saturating_add(1);
        if local {
            slot.fell_short(now, std::mem::take(&mut open));
        }
        slot.failing = Some(Failing { count, since, last: now, open });
        let rests = if ticket.key_probe && closed {
            slot.cooling.probe_failed(now, ticket.started)
        } else {
            local
                && count >= FAILURES_TO_REST
                && slot.cooling.begin(now, ticket.started, Reason::Failing, None)
        };
        if rests {
            effects.transitions.extend(slot.resting(now));
        }
        self.host_failed(now, ticket, effects);
    }

    pub(super) fn host_failed(&mut self, now: Instant, ticket: &mut Ticket, effects: &mut Effects) {
        let Slot { host: at, credential, .. } = self.slots[ticket.slot as usize];
        let host = &mut self.hosts[at as usize];
        let change = host.breaker.failed(now, credential, host.credentials, ticket.host_probe);
        if let Some(Change::Opened { until }) = change {
            host.openings += 1;
            let host = host.origin.clone();
            effects.transitions.push(Transition::HostOpened { host, until });
            // Who waited for the probe now waits for a moment.
            self.tell_host(at, effects);
            ticket.host_probe = false;
        }
    }

    /// Lifts the key's rests for single models. True if there was one.
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

    /// Whether no other credential is in service on the key's host: nobody could bear witness for the host.
    fn is_alone(&self, slot: u32, now: Instant) -> bool {
        let Slot { host, credential, .. } = self.slots[slot as usize];
        let host = &self.hosts[host as usize];
        let in_service =
            |other: &Slot| other.credential != credential && other.cooling.leave(now).is_granted();
        host.credentials == 1 || !host.slots.iter().any(|other| in_service(&self.slots[*other as usize]))
    }

    /// Probes that said nothing are due again.
    pub(super) fn return_probes(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        want: &Want<'_>,
        effects: &mut Effects,
    ) {
        if ticket.key_probe {
            for twin in family(&self.slots, ticket.slot) {
                self.slots[twin as usize].cooling.probe_back(ticket.id);
            }
        }
        if ticket.model_probe {
            let at = self.rotation_of(ticket.set, want.model);
            let rotation = &mut self.rotations[at as usize].rotation;
            for twin in family(&self.slots, ticket.slot) {
                let Some(member) = rotation.member_of(twin) else { continue };
                if let Some(cooling) = rotation.members[member as usize].cooling.as_deref_mut() {
                    cooling.probe_back(ticket.id);
                }
            }
        }
        if ticket.host_probe {
            let host = self.slots[ticket.slot as usize].host;
            self.hosts[host as usize].breaker.probe_lost(now);
            self.tell_host(host, effects);
        }
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
