//! Failures: the key's own, or an incident of its host or of our address, for which no key is to pay.

use std::{sync::Arc, time::Instant};

use super::{
    Effects, Host, Pool, Reason, Ticket, Transition, Trouble,
    accounts::Accounts,
    breaker::{Change, Failure},
    slot::{FAILURES_TO_REST, Failing, Slot},
};

impl Pool {
    pub(super) fn failed(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        trouble: Trouble,
        effects: &mut Effects,
    ) {
        let host = self.slots[ticket.slot as usize].host as usize;
        let breaker = &self.hosts[host].breaker;
        // What was sent before an outage and fails after it is part of that.
        let in_outage = !breaker.is_closed() || breaker.opened_since(ticket.started);
        self.host_failed(now, ticket, trouble, effects);
        let breaker = &self.hosts[host].breaker;
        if in_outage || !breaker.is_closed() {
            return;
        }
        let slot = &self.slots[ticket.slot as usize];
        // What failed in an outage counts no longer.
        let before = slot.failing.filter(|failing| !breaker.opened_since(failing.since));
        let since = before.map_or(ticket.started, |failing| failing.last);
        let witnessed = breaker.worked_since(since);
        // While the host works for nobody it is the host that fails, and no key rests for it.
        let local = witnessed || self.is_alone(ticket.slot, now);
        let slot = &mut self.slots[ticket.slot as usize];
        let count = match before {
            Some(failing) => failing.count.saturating_add(u32::from(local)),
            None => 1,
        };
        let since = before.map_or(ticket.started, |failing| failing.since);
        let mut open = before.map_or(0, |failing| failing.open).saturating_add(1);
        let mut blamed = before.map_or(0, |failing| failing.blamed);
        if local {
            slot.fell_short(now, open);
            // Those before this one, the host has worked since.
            blamed = if witnessed { 1 } else { blamed.saturating_add(open) };
            open = 0;
        }
        slot.failing = Some(Failing { count, since, last: now, open, blamed });
        if ticket.probes.account {
            self.accounts.get_mut(ticket.account).cooling.probe_failed(now, ticket.started);
        }
        let rests = if ticket.probes.key {
            slot.cooling.probe_failed(now, ticket.started)
        } else {
            local
                && count >= FAILURES_TO_REST
                && slot.cooling.begin(now, ticket.started, Reason::Failing, None)
        };
        if rests {
            effects.transitions.extend(slot.resting(now));
        }
    }

    pub(super) fn host_failed(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        trouble: Trouble,
        effects: &mut Effects,
    ) {
        let Slot { host: at, account, credential, .. } = self.slots[ticket.slot as usize];
        let Host { breaker, slots, credentials, .. } = &mut self.hosts[at as usize];
        let (started, probe, was_closed) = (ticket.started, ticket.probes.host, breaker.is_closed());
        let failure = Failure { trouble, account, credential, started, probe };
        let in_service = || accounts_in_service(&self.slots, &self.accounts, slots, now);
        let change = breaker.failed(now, failure, *credentials, in_service);
        if let Some(Change::Opened { until }) = change {
            let host = &mut self.hosts[at as usize];
            host.openings[trouble as usize] += 1;
            let host = host.origin.clone();
            effects.transitions.push(Transition::HostOpened { host, trouble, until });
            // Who waited for the probe now waits for a moment.
            self.tell_host(at, effects);
            ticket.probes.host = false;
            if was_closed {
                self.forgive(at, now, effects);
            }
        }
    }

    /// What has failed at a host since it last worked was the host's: the keys get their good name back.
    fn forgive(&mut self, host: u32, now: Instant, effects: &mut Effects) {
        for n in 0..self.hosts[host as usize].slots.len() {
            let at = self.hosts[host as usize].slots[n];
            let breaker = &self.hosts[host as usize].breaker;
            let slot = &mut self.slots[at as usize];
            if let Some(failing) = slot.failing.take_if(|failing| !breaker.worked_since(failing.last)) {
                slot.window.forgive(now, failing.blamed);
            }
            if slot.cooling.forgive(now, |since| !breaker.worked_since(since)) {
                if !self.rests(at, now) {
                    let key = Arc::clone(&self.slots[at as usize].key);
                    effects.transitions.push(Transition::Recovered { key });
                }
                self.tell(at, effects);
            }
        }
    }

    /// Whether no other credential is in service on the key's host: nobody could bear witness for the host.
    fn is_alone(&self, slot: u32, now: Instant) -> bool {
        let Slot { host, credential, .. } = self.slots[slot as usize];
        let host = &self.hosts[host as usize];
        let others = |at: &u32| {
            let other = &self.slots[*at as usize];
            other.credential != credential && is_in_service(other, &self.accounts, now)
        };
        host.credentials == 1 || !host.slots.iter().any(others)
    }
}

fn is_in_service(slot: &Slot, accounts: &Accounts, now: Instant) -> bool {
    let account = &accounts.get(slot.account).cooling;
    slot.cooling.leave(now).and(account.leave(now)).is_granted()
}

/// How many accounts have a key in service among `there`.
fn accounts_in_service(slots: &[Slot], accounts: &Accounts, there: &[u32], now: Instant) -> usize {
    let in_service = there.iter().map(|at| &slots[*at as usize]);
    let mut known: Vec<u32> =
        in_service.filter(|slot| is_in_service(slot, accounts, now)).map(|slot| slot.account).collect();
    known.sort_unstable();
    known.dedup();
    known.len()
}
