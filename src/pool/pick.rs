//! Whose turn it is, and when the next one comes.

use std::{sync::Arc, time::Instant};

use super::{Grant, Pool, Strategy, Ticket, Want, cooling::Leave, orders::chance, rotation::Until};

/// Below this health a key is degraded.
const DEGRADED: f64 = 0.75;
/// A key this much slower than the fastest still counts as fast.
const FAST_ENOUGH: f64 = 1.25;
/// The smallest share of a slow key: what it takes to notice that it has become fast.
const SLOWEST_SHARE: f64 = 0.02;

impl Pool {
    pub(super) fn pick(&mut self, set: u32, at: u32, now: Instant, want: &Want<'_>) -> Option<Grant> {
        let mut aside = std::mem::take(&mut self.aside);
        let mut found = None;
        while found.is_none()
            && let Some(lane) = self.next_lane(at, now, want)
        {
            let order = &mut self.rotations[at as usize];
            let Some(member) = order.rotation.take(lane) else { break };
            let this = &order.rotation.members[member as usize];
            let slot = &self.slots[this.slot as usize];
            if self.settings.strategy == Strategy::LeastUsed && this.deadline() < slot.turns() {
                // It was used through another rotation since it entered this one.
                order.rotation.put_at(member, slot.turns());
                continue;
            }
            let for_model = this.cooling.as_ref().map_or(Leave::Free, |cooling| cooling.leave(now));
            match (slot.leave(now), for_model) {
                (Leave::Blocked, _) | (_, Leave::Blocked) => {
                    self.slots[this.slot as usize].awaited = true;
                    order.rotation.park(member, Until::Told);
                }
                (Leave::NotBefore(a), Leave::NotBefore(b)) => {
                    order.rotation.park(member, Until::Moment(a.max(b)));
                }
                (Leave::NotBefore(until), _) | (_, Leave::NotBefore(until)) => {
                    order.rotation.park(member, Until::Moment(until));
                }
                (Leave::Free | Leave::Probe, Leave::Free | Leave::Probe) => {
                    let again = want.tried.contains(&slot.key.identity());
                    if again || slot.is_denied(now, want.purpose) {
                        aside.push(member);
                    } else {
                        found = Some(member);
                    }
                }
            }
        }
        let mut rest = aside.drain(..);
        let found = found.or_else(|| rest.next());
        for member in rest {
            self.rotations[at as usize].rotation.put_back(member);
        }
        self.aside = aside;
        found.map(|member| self.grant(set, at, member, now))
    }

    /// The lane whose front is next: of the hosts that may be asked, those that have not failed this request first.
    pub(super) fn next_lane(&mut self, at: u32, now: Instant, want: &Want<'_>) -> Option<usize> {
        let rotation = &mut self.rotations[at as usize].rotation;
        let mut best: Option<(usize, (bool, f64))> = None;
        for lane in 0..rotation.lanes.len() {
            let host = &self.hosts[rotation.lanes[lane].host as usize];
            if !matches!(host.breaker.leave(now), Leave::Free | Leave::Probe) {
                continue;
            }
            let Some(deadline) = rotation.front(lane, now) else { continue };
            let rank = (want.failed_hosts.contains(&host.origin), deadline);
            if best.is_none_or(|(_, best)| rank < best) {
                best = Some((lane, rank));
            }
        }
        best.map(|(lane, _)| lane)
    }

    pub(super) fn grant(&mut self, set: u32, at: u32, member: u32, now: Instant) -> Grant {
        let order = &mut self.rotations[at as usize];
        let this = &mut order.rotation.members[member as usize];
        let slot_at = this.slot;
        let slot = &mut self.slots[slot_at as usize];
        let breaker = &mut self.hosts[slot.host as usize].breaker;

        let key_probe = slot.cooling.leave(now) == Leave::Probe;
        let model_probe = this.cooling.as_ref().is_some_and(|cooling| cooling.leave(now) == Leave::Probe);
        let host_probe = breaker.leave(now) == Leave::Probe;
        if key_probe {
            slot.cooling.probe_sent();
        }
        if let Some(cooling) = this.cooling.as_mut().filter(|_| model_probe) {
            cooling.probe_sent();
        }
        if host_probe {
            breaker.probe_sent();
        }

        slot.used += 1;
        slot.in_flight += 1;
        let weight = slot.weight();
        match self.settings.strategy {
            Strategy::RoundRobin => order.rotation.served(member, weight.recip()),
            Strategy::RoundRobinHealthWeighted => {
                let share = weight * share(slot.window.health(now), self.settings.unhealthy_penalty);
                order.rotation.served(member, share.recip());
            }
            Strategy::LeastLatency => {
                let mut share = weight * share(slot.window.health(now), self.settings.unhealthy_penalty);
                if let Some(latency) = slot.latency {
                    // The mark drifts up, so that it follows when the fastest slows down.
                    order.fastest = (order.fastest * 1.01).min(latency);
                    let behind = latency / (order.fastest * FAST_ENOUGH);
                    share *= if behind > 1.0 { behind.powi(3).recip().max(SLOWEST_SHARE) } else { 1.0 };
                }
                order.rotation.served(member, share.recip());
            }
            Strategy::LeastUsed => order.rotation.put_at(member, slot.turns()),
            Strategy::Random => {
                order.rotation.served(member, chance(&mut self.rng) / weight);
            }
        }
        let key = Arc::clone(&slot.key);
        for twin in self.family(slot_at) {
            let slot = &mut self.slots[twin as usize];
            slot.credential_in_flight += 1;
            if let Some(rate) = slot.key.settings().rate {
                slot.gcra.charge(rate, now);
            }
        }
        let ticket = Ticket { slot: slot_at, set, started: now, key_probe, model_probe, host_probe };
        Grant { key, ticket }
    }

    /// When the turn after `ahead` others comes.
    pub(super) fn free_at(&self, at: u32, now: Instant, ahead: usize) -> Option<Instant> {
        let order = &self.rotations[at as usize];
        let lanes = order.rotation.lanes.iter().filter_map(|lane| {
            let open = match self.hosts[lane.host as usize].breaker.leave(now) {
                Leave::Free | Leave::Probe => now,
                Leave::NotBefore(until) => until,
                Leave::Blocked => return None,
            };
            lane.first_at(now).map(|first| first.max(open))
        });
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        lanes.min().map(|first| first + order.pace.saturating_mul(ahead))
    }
}

/// The part of its weight that a key of this health gets.
fn share(health: f64, penalty: f64) -> f64 {
    if health < DEGRADED { penalty.recip() } else { health }
}
