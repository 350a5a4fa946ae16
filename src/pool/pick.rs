//! Whose turn it is.

use std::{iter, ops::RangeInclusive, sync::Arc, time::Instant};

use super::{
    Grant, Pool, Strategy, Ticket, Want,
    cooling::{Cooling, Leave},
    effects::family,
    limits::ModelHash,
    orders::{Order, chance},
    outcome::Probes,
    rotation::{ALL_TIERS, Lane, Member, Until},
};

/// Below this health a key is degraded.
const DEGRADED: f64 = 0.75;
/// A key this much slower than the fastest still counts as fast.
const FAST_ENOUGH: f64 = 1.25;
/// The smallest share of a slow key: what it takes to notice that it has become fast.
const SLOWEST_SHARE: f64 = 0.02;
/// At most so many keys that are no good for a request are passed over for it in one pick.
pub(super) const PASSED_OVER: usize = 64;
/// The same where those keep their places, and stand in the way of the next such request as well.
const PASSED_OVER_IN_PLACE: usize = 1024;

/// Which members are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Among {
    Ready,
    /// Those on trial; of the late ones, who has been left alone for long enough.
    OnTrialAndDue,
    OnTrial,
}

/// A request, as a pick sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'w> {
    pub(super) want: &'w Want<'w>,
    /// What stands for its model, if any limit of any account is remembered.
    pub(super) model: Option<ModelHash>,
}

impl Pool {
    pub(super) fn asking<'w>(&self, want: &'w Want<'w>) -> Asking<'w> {
        Asking { want, model: self.limits.look_up(want.model) }
    }

    pub(super) fn pick(&mut self, set: u32, at: u32, now: Instant, asking: Asking<'_>) -> Option<Grant> {
        let Asking { want, .. } = asking;
        self.rotations[at as usize].rotation.tick(now);
        let mut aside = std::mem::take(&mut self.aside);
        let mut found = self.look(Among::Ready, ALL_TIERS, at, now, asking, &mut aside);
        if let Some(first) = found {
            let rotation = &self.rotations[at as usize].rotation;
            let tier = rotation.tier_of(first);
            // Who has been refused already is not sent on a trial.
            let trial = want.tried.is_empty() && rotation.trial_is_due(now, tier);
            let doubtful = if trial {
                self.look(Among::OnTrialAndDue, 0..=tier, at, now, asking, &mut aside)
            } else {
                None
            };
            if doubtful.is_some() {
                let rotation = &mut self.rotations[at as usize].rotation;
                rotation.put_back(first);
                rotation.tried(now);
                found = doubtful;
            } else if self.settings.strategy == Strategy::LeastInFlight {
                found = Some(self.less_busy(first, at, now, asking, &mut aside));
            }
        } else {
            found = self.look(Among::OnTrial, ALL_TIERS, at, now, asking, &mut aside);
        }
        let mut without_room = std::mem::take(&mut self.without_room);
        let short = without_room.first().filter(|_| found.is_none());
        self.without_room_of = short.map(|member| {
            let slot = self.rotations[at as usize].rotation.members[*member as usize].slot;
            (now, self.slots[slot as usize].account)
        });
        if !aside.is_empty() || !without_room.is_empty() {
            found = found.or_else(|| self.best_of(at, want, &mut aside));
            // So that the next request that looks sees others.
            let crowd = aside.len() + without_room.len() >= PASSED_OVER;
            for member in aside.drain(..).chain(without_room.drain(..)) {
                let rotation = &mut self.rotations[at as usize].rotation;
                if crowd && !self.settings.strategy.keeps_places() {
                    rotation.served(member, 1.0);
                } else {
                    rotation.put_back(member);
                }
            }
        }
        (self.aside, self.without_room) = (aside, without_room);
        found.map(|member| self.grant(set, at, member, now, asking))
    }

    /// The first that may be asked and is good for this request. Who is not goes `aside`.
    fn look(
        &mut self,
        among: Among,
        mut tiers: RangeInclusive<u32>,
        at: u32,
        now: Instant,
        asking: Asking<'_>,
        aside: &mut Vec<u32>,
    ) -> Option<u32> {
        let Asking { want, model } = asking;
        let passed_over =
            if self.settings.strategy.keeps_places() { PASSED_OVER_IN_PLACE } else { PASSED_OVER };
        let most = want.tried.len() + passed_over;
        let mut passed = 0;
        loop {
            let lane = self.next_lane(among, &tiers, at, now, want)?;
            let rotation = &mut self.rotations[at as usize].rotation;
            let member = match among {
                Among::Ready => rotation.take(lane)?,
                Among::OnTrialAndDue | Among::OnTrial => rotation.take_trial(lane)?,
            };
            let this = &rotation.members[member as usize];
            let slot = &self.slots[this.slot as usize];
            if among == Among::Ready
                && self.settings.strategy == Strategy::LeastUsed
                && this.deadline() < slot.turns()
            {
                // It was used through another rotation since it entered this one.
                rotation.put_at(member, slot.turns());
                continue;
            }
            let slot_at = this.slot;
            let (leave, doubtful) = self.standing(at, member, now);
            let late = leave.is_granted() && among != Among::OnTrial && self.is_late(slot_at, now);
            let not_due = late && among == Among::OnTrialAndDue && !self.late_is_due(slot_at, now);
            let rotation = &mut self.rotations[at as usize].rotation;
            match leave {
                Leave::Free | Leave::Probe if late && among == Among::Ready => {
                    self.slots[slot_at as usize].sidelined = true;
                    rotation.put_on_trial(member);
                }
                Leave::Probe if doubtful && among == Among::Ready => rotation.put_on_trial(member),
                Leave::Free | Leave::Probe => {
                    let slot = &self.slots[slot_at as usize];
                    let headroom = self.headroom(slot_at, model);
                    let no_room = headroom.is_some_and(|room| room.fits_at(now, want.demand) > now);
                    let is_no_good = want.tried.contains(&slot.key.identity()) || not_due;
                    if no_room || is_no_good || slot.is_denied(now, want.purpose) {
                        if no_room {
                            self.without_room.push(member)
                        } else {
                            aside.push(member)
                        }
                        passed += 1;
                        if passed == most {
                            // A crowd that is no good for a request doesn't keep it from the next tier.
                            let tier = self.rotations[at as usize].rotation.tier_of(member);
                            (tiers, passed) = (tier + 1..=*tiers.end(), 0);
                        }
                    } else {
                        return Some(member);
                    }
                }
                Leave::NotBefore(_) | Leave::Blocked => self.park(at, member, leave),
            }
        }
    }

    /// Of `first` and one more that is drawn by lot, the one with fewer requests in flight for its weight.
    ///
    /// Two choices are nearly as even as looking at all, and the numbers are read when they are needed: an order by
    /// them would have to be mended in every rotation that a key stands in, whenever one of its requests ends.
    fn less_busy(
        &mut self,
        first: u32,
        at: u32,
        now: Instant,
        asking: Asking<'_>,
        aside: &mut Vec<u32>,
    ) -> u32 {
        let Asking { want, .. } = asking;
        let tier = self.rotations[at as usize].rotation.tier_of(first);
        let Some(second) = self.look(Among::Ready, tier..=tier, at, now, asking, aside) else { return first };
        let members = &self.rotations[at as usize].rotation.members;
        let [one, two] = [first, second].map(|member| &self.slots[members[member as usize].slot as usize]);
        if self.trusts(one.host, now, want) && !self.trusts(two.host, now, want) {
            self.rotations[at as usize].rotation.put_back(second);
            return first;
        }
        let (taken, left, weight) = if two.load() < one.load() {
            (second, first, one.weight())
        } else {
            (first, second, two.weight())
        };
        // It is drawn anew: in its old place it would be one of every two until it is the less busy one.
        let step = chance(&mut self.rng) / weight;
        self.rotations[at as usize].rotation.passed(left, step);
        taken
    }

    /// Of those set aside, who was not tried or was so longest ago.
    fn best_of(&self, at: u32, want: &Want<'_>, aside: &mut Vec<u32>) -> Option<u32> {
        let members = &self.rotations[at as usize].rotation.members;
        let tried = |member: u32| {
            let key = self.slots[members[member as usize].slot as usize].key.identity();
            want.tried.iter().rposition(|tried| *tried == key).map_or(0, |at| at + 1)
        };
        let best = (0..aside.len()).min_by_key(|n| tried(aside[*n]))?;
        Some(aside.remove(best))
    }

    /// The lane in `tiers` whose front is next: of the hosts that may be asked, those that this request trusts first,
    /// though they be of a later tier.
    fn next_lane(
        &self,
        among: Among,
        tiers: &RangeInclusive<u32>,
        at: u32,
        now: Instant,
        want: &Want<'_>,
    ) -> Option<u32> {
        let rotation = &self.rotations[at as usize].rotation;
        let open = |lane: &Lane| self.hosts[lane.host as usize].breaker.leave(now).is_granted();
        let trusted = |lane: &Lane| self.trusts(lane.host, now, want);
        match among {
            Among::Ready => rotation.first_lane(tiers, trusted).or_else(|| rotation.first_lane(tiers, open)),
            Among::OnTrialAndDue | Among::OnTrial => {
                rotation.trial_lane(tiers, trusted).or_else(|| rotation.trial_lane(tiers, open))
            }
        }
    }

    /// Whether a host may be asked and is good for this request.
    fn trusts(&self, host: u32, now: Instant, want: &Want<'_>) -> bool {
        let host = &self.hosts[host as usize];
        match host.breaker.leave(now) {
            Leave::Free => !want.failed_hosts.contains(&host.origin),
            Leave::Probe => want.tried.is_empty() && want.failed_hosts.is_empty(),
            Leave::NotBefore(_) | Leave::Blocked => false,
        }
    }

    /// Whether a member may be picked, its host aside; and whether little is to be expected of that.
    pub(super) fn standing(&self, at: u32, member: u32, now: Instant) -> (Leave, bool) {
        let order = &self.rotations[at as usize];
        let member = &order.rotation.members[member as usize];
        let slot = &self.slots[member.slot as usize];
        let doubtful = |cooling: &Cooling| cooling.leave(now) == Leave::Probe && cooling.is_doubtful();
        let (mut leave, mut doubted) = (slot.leave(now), doubtful(&slot.cooling));
        let own = &self.accounts.get(slot.account).cooling;
        for cooling in iter::once(own).chain(member.cooling.as_deref()) {
            leave = leave.and(cooling.leave(now));
            doubted |= doubtful(cooling);
        }
        if let Some(limit) = self.limits.get(slot.account, order.model) {
            leave = leave.and(limit.leave(now));
            doubted |= doubtful(&limit.cooling);
            let opens = limit.headroom.opens_at(now);
            if opens > now {
                leave = leave.and(Leave::NotBefore(opens));
            }
        }
        (leave, doubted)
    }

    /// What a member can have to wait for beside its key's own rest: its account's, its own for the model, and its
    /// account's for the model.
    pub(super) fn shared<'p>(
        &'p self,
        order: &'p Order,
        member: &'p Member,
    ) -> impl Iterator<Item = &'p Cooling> {
        let account = self.slots[member.slot as usize].account;
        let limit = self.limits.get(account, order.model).map(|limit| &limit.cooling);
        iter::once(&self.accounts.get(account).cooling).chain(member.cooling.as_deref()).chain(limit)
    }

    pub(super) fn park(&mut self, at: u32, member: u32, leave: Leave) {
        let rotation = &mut self.rotations[at as usize].rotation;
        if let Leave::NotBefore(until) = leave {
            rotation.repark(member, Until::Moment(until));
        } else {
            self.slots[rotation.members[member as usize].slot as usize].awaited = true;
            rotation.repark(member, Until::Told);
        }
    }

    fn grant(&mut self, set: u32, at: u32, member: u32, now: Instant, asking: Asking<'_>) -> Grant {
        let (leave, _) = self.standing(at, member, now);
        let slot_at = self.rotations[at as usize].rotation.members[member as usize].slot;
        let part = self.silent_from(slot_at, now, asking.want.stream);
        let slot = &mut self.slots[slot_at as usize];
        self.attempts += 1;
        let mut ticket = Ticket {
            id: self.attempts,
            slot: slot_at,
            set,
            account: slot.account,
            started: now,
            charge: None,
            heard: false,
            part,
            probes: Probes::default(),
        };
        let breaker = &mut self.hosts[slot.host as usize].breaker;
        if breaker.leave(now) == Leave::Probe {
            ticket.probes.host = true;
            breaker.probe_sent(now, ticket.id);
        }
        slot.used += 1;
        slot.in_flight += 1;
        let key = Arc::clone(&slot.key);
        for twin in family(&self.slots, slot_at) {
            let slot = &mut self.slots[twin as usize];
            slot.credential_in_flight += 1;
            if let Some(rate) = slot.key.settings().rate {
                slot.gcra.charge(rate, now);
            }
        }
        if leave == Leave::Probe {
            self.send_probe(at, now, &mut ticket);
        }
        self.keep_pace(at, now, slot_at);
        let (charge, room) = self.charge(now, ticket.account, asking.model, asking.want);
        ticket.charge = charge;
        self.move_on(at, member, now, room);
        Grant { key, ticket }
    }

    /// The attempt counts against what rate limits have taught.
    fn keep_pace(&mut self, at: u32, now: Instant, slot: u32) {
        for twin in family(&self.slots, slot) {
            self.slots[twin as usize].cooling.granted(now);
        }
        let account = self.slots[slot as usize].account;
        self.accounts.get_mut(account).cooling.granted(now);
        if let Some(limit) = self.limits.get_mut(account, self.rotations[at as usize].model) {
            limit.cooling.granted(now);
        }
        if let Some(cooling) = self.member_cooling(at, slot) {
            cooling.granted(now);
        }
    }

    /// The attempt is the probe of the rests that have ended: of every entry of the credential, and of the account.
    fn send_probe(&mut self, at: u32, now: Instant, ticket: &mut Ticket) {
        let is_probe = |cooling: &mut Cooling| {
            let due = cooling.leave(now) == Leave::Probe;
            if due {
                cooling.probe_sent(ticket.id);
            }
            due
        };
        let order = &mut self.rotations[at as usize];
        order.rotation.tried(now);
        for twin in family(&self.slots, ticket.slot) {
            let slot = &mut self.slots[twin as usize];
            if is_probe(&mut slot.cooling) {
                ticket.probes.key = true;
                slot.last_trial = Some(now);
            }
        }
        ticket.probes.account = is_probe(&mut self.accounts.get_mut(ticket.account).cooling);
        if let Some(limit) = self.limits.get_mut(ticket.account, order.model) {
            ticket.probes.limit = is_probe(&mut limit.cooling);
        }
        let member = order.rotation.member_of(ticket.slot);
        let cooling =
            member.and_then(|member| order.rotation.members[member as usize].cooling.as_deref_mut());
        ticket.probes.member = cooling.is_some_and(is_probe);
    }

    /// The member had its turn. Its next is later, the less `room` its account has left.
    fn move_on(&mut self, at: u32, member: u32, now: Instant, room: f64) {
        let order = &mut self.rotations[at as usize];
        let slot = &mut self.slots[order.rotation.members[member as usize].slot as usize];
        let weight = slot.weight();
        match self.settings.strategy {
            Strategy::RoundRobin => order.rotation.served(member, weight.recip()),
            Strategy::RoundRobinHealthWeighted => {
                let share = room * weight * share(slot.window.health(now), self.settings.unhealthy_penalty);
                order.rotation.served(member, share.recip());
            }
            Strategy::LeastLatency => {
                let mut share =
                    room * weight * share(slot.window.health(now), self.settings.unhealthy_penalty);
                if let Some(latency) = slot.latency {
                    let tier = order.rotation.tier_mut(member);
                    // The mark drifts up, a tenth in a whole round, so that it follows when the fastest slows down.
                    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^32 keys")]
                    let drift = 1.0 + 0.1 / tier.members as f64;
                    let fastest = tier.fastest.map_or(latency, |fastest| (fastest * drift).min(latency));
                    tier.fastest = Some(fastest);
                    let behind = latency / (fastest * FAST_ENOUGH);
                    share *= if behind > 1.0 { behind.powi(3).recip().max(SLOWEST_SHARE) } else { 1.0 };
                }
                order.rotation.served(member, share.recip());
            }
            Strategy::LeastUsed => order.rotation.served_to(member, slot.turns()),
            Strategy::Random | Strategy::LeastInFlight => {
                order.rotation.served(member, chance(&mut self.rng) / weight);
            }
            Strategy::FillFirst => {
                let place = order.rotation.members[member as usize].deadline();
                order.rotation.served_to(member, place);
            }
        }
    }
}

/// The part of its weight that a key of this health gets.
fn share(health: f64, penalty: f64) -> f64 {
    if health < DEGRADED { penalty.recip() } else { health }
}
