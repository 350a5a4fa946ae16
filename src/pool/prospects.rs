//! When the next turn comes, for those who wait or are told to come back.

use std::{
    collections::HashMap,
    iter,
    time::{Duration, Instant},
};

use super::{
    Pool,
    cooling::{Cooling, Leave},
    pick::{Asking, PASSED_OVER},
    rotation::Member,
};
use crate::rate::Rate;

/// How old the pace of a line may be.
const PACE_KEPT: Duration = Duration::from_millis(250);

impl Pool {
    /// When the turn after `ahead` others comes.
    pub(super) fn free_at(
        &mut self,
        at: u32,
        now: Instant,
        ahead: usize,
        asking: Asking<'_>,
    ) -> Option<Instant> {
        self.rotations[at as usize].rotation.tick(now);
        let mut first: Option<Instant> = None;
        for lane in 0..self.rotations[at as usize].rotation.lanes.len() {
            let lane = super::index(lane);
            let host = self.rotations[at as usize].rotation.lanes[lane as usize].host;
            let open = match self.hosts[host as usize].breaker.leave(now) {
                Leave::Free | Leave::Probe => now,
                Leave::NotBefore(until) => until,
                Leave::Blocked => continue,
            };
            if let Some(free) = self.first_in_lane(at, lane, now, asking) {
                let free = free.max(open);
                first = Some(first.map_or(free, |first| first.min(free)));
            }
        }
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        if ahead == 0 {
            return first;
        }
        let pace = self.pace(at, now);
        first.map(|first| first + pace.saturating_mul(ahead))
    }

    /// The moment, known or now, at which a member of `lane` may have a turn, its host aside.
    fn first_in_lane(&mut self, at: u32, lane: u32, now: Instant, asking: Asking<'_>) -> Option<Instant> {
        let mut without_room = std::mem::take(&mut self.without_room);
        let mut first: Option<Instant> = None;
        // What is ready was perhaps never looked at, and what is parked may have been put off since.
        while let Some(member) = self.rotations[at as usize].rotation.first_ready(lane)
            && without_room.len() < PASSED_OVER
        {
            let (leave, _) = self.standing(at, member, now);
            let rotation = &mut self.rotations[at as usize].rotation;
            if !leave.is_granted() {
                rotation.take_first(lane);
                self.park(at, member, leave);
                continue;
            }
            let fits_at = self.fits_at(at, member, now, asking);
            first = Some(first.map_or(fits_at, |first| first.min(fits_at)));
            if fits_at <= now {
                break;
            }
            self.rotations[at as usize].rotation.take_first(lane);
            without_room.push(member);
        }
        for member in without_room.drain(..) {
            self.rotations[at as usize].rotation.put_back(member);
        }
        self.without_room = without_room;
        while first.is_none_or(|first| first > now)
            && let Some((until, member)) = self.rotations[at as usize].rotation.first_parked(lane)
        {
            let (leave, _) = self.standing(at, member, now);
            let free = match leave {
                Leave::Free | Leave::Probe => {
                    // It is sooner than it was told.
                    self.rotations[at as usize].rotation.unpark(member);
                    self.fits_at(at, member, now, asking)
                }
                Leave::NotBefore(same) if same == until => {
                    return self.first_to_fit(at, lane, now, asking, first);
                }
                Leave::NotBefore(_) | Leave::Blocked => {
                    self.park(at, member, leave);
                    continue;
                }
            };
            return Some(first.map_or(free, |first| first.min(free)));
        }
        first
    }

    /// The first moment, `first` or sooner, at which one of those who are parked is back and has room for the request.
    fn first_to_fit(
        &self,
        at: u32,
        lane: u32,
        now: Instant,
        asking: Asking<'_>,
        mut first: Option<Instant>,
    ) -> Option<Instant> {
        let parked = self.rotations[at as usize].rotation.parked(lane);
        for (until, member) in parked.take(PASSED_OVER) {
            if first.is_some_and(|first| first <= until) {
                break;
            }
            let back = match self.standing(at, member, now).0 {
                Leave::Free | Leave::Probe => now,
                Leave::NotBefore(until) => until,
                Leave::Blocked => continue,
            };
            let fits = back.max(self.fits_at(at, member, now, asking));
            first = Some(first.map_or(fits, |first| first.min(fits)));
        }
        first
    }

    /// From when on the account of `member` has room for the request.
    pub(super) fn fits_at(&self, at: u32, member: u32, now: Instant, asking: Asking<'_>) -> Instant {
        let slot = self.rotations[at as usize].rotation.members[member as usize].slot;
        let headroom = self.headroom(slot, asking.model);
        headroom.map_or(now, |headroom| headroom.fits_at(now, asking.want.demand))
    }

    /// The time between two turns when all members in service are at their rates. Zero: one has none.
    fn pace(&mut self, at: u32, now: Instant) -> Duration {
        let order = &self.rotations[at as usize];
        if let Some((taken, pace)) = order.pace
            && now.saturating_duration_since(taken) < PACE_KEPT
        {
            return pace;
        }
        let in_service = |member: &&Member| {
            let own = &self.slots[member.slot as usize].cooling;
            iter::once(own).chain(self.shared(order, member)).all(|cooling| cooling.is_in_service(now))
        };
        let mut entries: HashMap<u32, f64> = HashMap::new();
        let members: Vec<&Member> = order.rotation.members.iter().filter(in_service).collect();
        for member in &members {
            *entries.entry(self.slots[member.slot as usize].account).or_default() += 1.0;
        }
        let per_second: Option<f64> = members
            .into_iter()
            .map(|member| {
                let slot = &self.slots[member.slot as usize];
                let own = slot.key.settings().rate.map(Rate::interval);
                let own = own.into_iter().chain(slot.cooling.interval()).max();
                #[expect(clippy::cast_precision_loss, reason = "fewer than 2^32 keys")]
                let own = own
                    .map(|own| own.as_secs_f64() * slot.twins.as_ref().map_or(1, |twins| twins.len()) as f64);
                // What its account may do, its keys share.
                let room = self.headroom(member.slot, order.model).and_then(|room| room.interval(now));
                let shared = self.shared(order, member).filter_map(Cooling::interval).chain(room).max();
                let shared = shared.map(|shared| shared.as_secs_f64() * entries[&slot.account]);
                own.into_iter().chain(shared).reduce(f64::max).map(f64::recip)
            })
            .sum();
        let pace = per_second.filter(|rate| *rate > 0.0).map_or(0.0, f64::recip);
        let pace = Duration::from_secs_f64(pace);
        self.rotations[at as usize].pace = Some((now, pace));
        pace
    }
}
