//! The order of turns among the keys that serve one set of models.
//!
//! Each member has a deadline in virtual time; the earliest is next, and a member that had its turn moves on by its
//! step (earliest deadline first). A step of `1 / share` gives smooth weighted round robin, a step drawn from an
//! exponential distribution gives weighted chance, a deadline that *is* the number of turns gives least used, and one
//! that never moves gives fill first.
//!
//! Members that can't have a turn are parked, ordered by the moment they may come back. They are found out when their
//! turn comes, so a change of state costs nothing when it happens, and a pick costs O(log n) however many are parked.
//! Members that come back from a rest on trial stand apart, and so do late ones: whoever is sound goes first.
//!
//! Members of one priority are a tier, which has a turn only while nobody in the tiers before it can have one. Who is
//! on trial counts as somebody who can't: a sound tier carries on while those above it are tried now and then, and
//! below it nobody is tried, for who keeps a tier in reserve wants nothing sent there. Each tier keeps its own time, by
//! which what it takes over from others is shared by weight, too.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use super::cooling::Cooling;

/// While others are sound, a key that is on trial gets one turn in so many, …
const TURNS_PER_TRIAL: u64 = 128;
/// … or one in this time.
const TIME_PER_TRIAL: Duration = Duration::from_secs(10);

/// Whichever tier.
pub(super) const ALL_TIERS: RangeInclusive<u32> = 0..=u32::MAX;

/// The members of one model set, in a lane per priority and host.
#[derive(Debug, Clone, Default)]
pub(super) struct Rotation {
    /// Ordered by slot.
    pub(super) members: Vec<Member>,
    pub(super) lanes: Vec<Lane>,
    /// In the order of their priorities.
    tiers: Vec<Tier>,
    /// The lanes in which somebody is ready, by tier and the deadline of the first.
    order: BTreeSet<(u32, Deadline, u32)>,
    entered: u64,
    turns: u64,
    /// No parked member comes back before.
    next_moment: Option<Instant>,
    /// How many are parked until told: each may have a turn at any moment.
    told: usize,
    /// The last trial: when, and after how many turns.
    last_trial: Option<(Instant, u64)>,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) slot: u32,
    lane: u32,
    deadline: f64,
    /// Its place among equals.
    entered: u64,
    place: Place,
    /// Its rest for this rotation's model alone.
    pub(super) cooling: Option<Box<Cooling>>,
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    /// It may have a turn, and nobody knows how that ends: its rest is over, or it lets requests wait.
    Trial,
    /// It can't have a turn until then.
    Parked(Until),
}

/// The members of one priority.
#[derive(Debug, Clone, Default)]
pub(super) struct Tier {
    pub(super) members: usize,
    /// How many are on trial.
    on_trial: usize,
    /// The latest deadline that was served.
    clock: f64,
    /// The least seconds to a head that a member shows.
    pub(super) fastest: Option<f64>,
}

/// The members of one tier on one host.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) tier: u32,
    pub(super) host: u32,
    ready: BinaryHeap<Turn>,
    trial: BTreeSet<(u64, u32)>,
    parked: BTreeSet<(Instant, u32)>,
    /// Its entry in the rotation's order.
    listed: Option<Deadline>,
}

impl Lane {
    fn new(tier: u32, host: u32) -> Self {
        let (ready, trial, parked) = (BinaryHeap::new(), BTreeSet::new(), BTreeSet::new());
        Self { tier, host, ready, trial, parked, listed: None }
    }
}

impl Member {
    pub(super) fn deadline(&self) -> f64 {
        self.deadline
    }
}

/// Until when a member is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    Moment(Instant),
    /// Until somebody says so.
    Told,
}

#[derive(Debug, Clone, Copy)]
struct Deadline(f64);

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deadline {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    deadline: Deadline,
    entered: u64,
    member: u32,
}

impl Ord for Turn {
    /// The earliest is the greatest: `BinaryHeap` shows its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.cmp(&self.deadline).then(other.entered.cmp(&self.entered))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Rotation {
    /// `slots` in order, each with its priority and host and its first deadline.
    pub(super) fn new(slots: &[(u32, (u8, u32), f64)]) -> Self {
        let mut rotation = Self::default();
        let mut priorities: Vec<u8> = slots.iter().map(|(_, (priority, _), _)| *priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        rotation.tiers.resize(priorities.len(), Tier::default());
        let mut lanes = std::collections::HashMap::new();
        for &(slot, (priority, host), deadline) in slots {
            let tier = priorities.partition_point(|other| *other < priority);
            rotation.tiers[tier].members += 1;
            let lane = *lanes.entry((tier, host)).or_insert_with(|| {
                rotation.lanes.push(Lane::new(index(tier), host));
                index(rotation.lanes.len() - 1)
            });
            let place = Place::Ready;
            rotation.members.push(Member { slot, lane, deadline, entered: 0, place, cooling: None });
            rotation.enter(index(rotation.members.len() - 1));
        }
        rotation
    }

    /// The member that stands for `slot`.
    pub(super) fn member_of(&self, slot: u32) -> Option<u32> {
        self.members.binary_search_by_key(&slot, |member| member.slot).ok().map(index)
    }

    /// The tier that `member` belongs to.
    pub(super) fn tier_of(&self, member: u32) -> u32 {
        self.lanes[self.members[member as usize].lane as usize].tier
    }

    pub(super) fn tier_mut(&mut self, member: u32) -> &mut Tier {
        let tier = self.tier_of(member);
        &mut self.tiers[tier as usize]
    }

    /// Those whose moment has come are back.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.next_moment.is_none_or(|next| next > now) {
            return;
        }
        self.next_moment = None;
        for lane in 0..self.lanes.len() {
            while let Some(&(until, member)) = self.lanes[lane].parked.first() {
                if until > now {
                    self.next_moment = Some(self.next_moment.map_or(until, |next| next.min(until)));
                    break;
                }
                self.unpark(member);
            }
        }
    }

    /// The first lane in the order of turns of those in `tiers` that `pass`.
    pub(super) fn first_lane(
        &self,
        tiers: &RangeInclusive<u32>,
        mut pass: impl FnMut(&Lane) -> bool,
    ) -> Option<u32> {
        let from = (*tiers.start(), Deadline(f64::NEG_INFINITY), 0);
        let lanes = self.order.range(from..).take_while(|(tier, ..)| tier <= tiers.end());
        lanes.map(|(.., lane)| *lane).find(|lane| pass(&self.lanes[*lane as usize]))
    }

    /// The first lane with somebody on trial of those in `tiers` that `pass`.
    pub(super) fn trial_lane(
        &self,
        tiers: &RangeInclusive<u32>,
        mut pass: impl FnMut(&Lane) -> bool,
    ) -> Option<u32> {
        if self.tiers.iter().all(|tier| tier.on_trial == 0) {
            return None;
        }
        let waiting = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| tiers.contains(&lane.tier) && !lane.trial.is_empty() && pass(lane));
        waiting.min_by_key(|(_, lane)| (lane.tier, lane.trial.first().copied())).map(|(at, _)| index(at))
    }

    /// Whether somebody on trial may have a turn though others, in this tier, are sound.
    pub(super) fn trial_is_due(&self, now: Instant, tier: u32) -> bool {
        // Below them nobody is tried: that would be a turn which belongs to those above.
        self.tiers[..=tier as usize].iter().any(|tier| tier.on_trial > 0)
            && self.last_trial.is_none_or(|(at, turns)| {
                self.turns - turns >= TURNS_PER_TRIAL || now.saturating_duration_since(at) >= TIME_PER_TRIAL
            })
    }

    /// Takes the first member of `lane` out of the order; it must be given back by one of the next five.
    pub(super) fn take(&mut self, lane: u32) -> Option<u32> {
        let turn = self.lanes[lane as usize].ready.pop()?;
        self.list(lane);
        Some(turn.member)
    }

    /// The first member of `lane` that is ready, else of those on trial.
    pub(super) fn first_ready(&self, lane: u32) -> Option<u32> {
        let lane = &self.lanes[lane as usize];
        let ready = lane.ready.peek().map(|turn| turn.member);
        ready.or_else(|| lane.trial.first().map(|(_, member)| *member))
    }

    /// Takes the first member that is ready, else on trial; it must be given back like those.
    pub(super) fn take_first(&mut self, lane: u32) -> Option<u32> {
        self.take(lane).or_else(|| self.take_trial(lane))
    }

    /// Takes the member that has been on trial longest; it must be given back like one that was ready.
    pub(super) fn take_trial(&mut self, lane: u32) -> Option<u32> {
        let Lane { tier, trial, .. } = &mut self.lanes[lane as usize];
        let (_, member) = trial.pop_first()?;
        self.tiers[*tier as usize].on_trial -= 1;
        Some(member)
    }

    /// It had its turn and moves on by `step`.
    pub(super) fn served(&mut self, member: u32, step: f64) {
        self.turns += 1;
        self.passed(member, step);
    }

    /// It had its turn and goes where it belongs.
    pub(super) fn served_to(&mut self, member: u32, deadline: f64) {
        self.turns += 1;
        self.put_at(member, deadline);
    }

    /// It moves on by `step` and had no turn.
    pub(super) fn passed(&mut self, member: u32, step: f64) {
        // Who rested or was passed over for long gains no more by it than to be next.
        let deadline = self.members[member as usize].deadline;
        let clock = &mut self.tier_mut(member).clock;
        *clock = clock.max(deadline);
        let next = *clock + step;
        self.put_at(member, next);
    }

    /// A member on trial has its turn.
    pub(super) fn tried(&mut self, now: Instant) {
        self.last_trial = Some((now, self.turns));
    }

    /// It goes back where it was.
    pub(super) fn put_back(&mut self, member: u32) {
        let Member { lane, entered, deadline, place, .. } = self.members[member as usize];
        if place == Place::Trial {
            self.lanes[lane as usize].trial.insert((entered, member));
            self.tier_mut(member).on_trial += 1;
        } else {
            self.lanes[lane as usize].ready.push(Turn { deadline: Deadline(deadline), entered, member });
            self.list(lane);
        }
    }

    /// It goes where it belongs.
    pub(super) fn put_at(&mut self, member: u32, deadline: f64) {
        self.members[member as usize].deadline = deadline;
        self.enter(member);
    }

    /// It stands on trial.
    pub(super) fn put_on_trial(&mut self, member: u32) {
        self.entered += 1;
        let this = &mut self.members[member as usize];
        if this.place != Place::Trial {
            (this.place, this.entered) = (Place::Trial, self.entered);
        }
        self.put_back(member);
    }

    /// It can't have a turn until then.
    pub(super) fn park(&mut self, member: u32, until: Until) {
        self.told += usize::from(until == Until::Told);
        let this = &mut self.members[member as usize];
        this.place = Place::Parked(until);
        if let Until::Moment(at) = until {
            self.lanes[this.lane as usize].parked.insert((at, member));
            self.next_moment = Some(self.next_moment.map_or(at, |next| next.min(at)));
        }
    }

    /// A member that is parked or on trial is ready.
    pub(super) fn unpark(&mut self, member: u32) {
        let this = &mut self.members[member as usize];
        let lane = &mut self.lanes[this.lane as usize];
        match this.place {
            Place::Ready => return,
            Place::Trial => {
                lane.trial.remove(&(this.entered, member));
                self.tiers[lane.tier as usize].on_trial -= 1;
            }
            Place::Parked(Until::Moment(at)) => {
                lane.parked.remove(&(at, member));
            }
            Place::Parked(Until::Told) => self.told -= 1,
        }
        self.enter(member);
    }

    /// Those of `lane` who are parked, and until when, as far as was known then.
    pub(super) fn parked(&self, lane: u32) -> impl Iterator<Item = (Instant, u32)> {
        self.lanes[lane as usize].parked.iter().copied()
    }

    /// The member of `lane` that comes back first, and when.
    pub(super) fn first_parked(&self, lane: u32) -> Option<(Instant, u32)> {
        self.lanes[lane as usize].parked.first().copied()
    }

    /// Moves a parked member to another moment.
    pub(super) fn repark(&mut self, member: u32, until: Until) {
        let Member { lane, place, .. } = self.members[member as usize];
        match place {
            Place::Parked(Until::Moment(at)) => {
                self.lanes[lane as usize].parked.remove(&(at, member));
            }
            Place::Parked(Until::Told) => self.told -= 1,
            Place::Ready | Place::Trial => {}
        }
        self.park(member, until);
    }

    /// Whether a member may have a turn at a moment that nobody knows.
    pub(super) fn awaits(&self) -> bool {
        self.told > 0
    }

    fn enter(&mut self, member: u32) {
        self.entered += 1;
        let this = &mut self.members[member as usize];
        (this.place, this.entered) = (Place::Ready, self.entered);
        self.put_back(member);
    }

    /// Keeps the place of `lane` in the order true.
    fn list(&mut self, lane: u32) {
        let this = &mut self.lanes[lane as usize];
        let first = this.ready.peek().map(|turn| turn.deadline);
        if this.listed == first {
            return;
        }
        if let Some(old) = std::mem::replace(&mut this.listed, first) {
            self.order.remove(&(this.tier, old, lane));
        }
        if let Some(new) = first {
            self.order.insert((this.tier, new, lane));
        }
    }
}

#[cfg(test)]
impl Rotation {
    pub(super) fn is_on_trial(&self, slot: u32) -> bool {
        self.member_of(slot).is_some_and(|member| self.members[member as usize].place == Place::Trial)
    }

    /// Every member stands in exactly one place, and who is parked until told is `awaited`.
    pub(super) fn assert_whole(&self, awaited: impl Fn(u32) -> bool) {
        let count = |lane: &Lane| lane.ready.len() + lane.trial.len() + lane.parked.len();
        let mut told = 0;
        for (at, member) in self.members.iter().enumerate() {
            let lane = &self.lanes[member.lane as usize];
            let at = index(at);
            match member.place {
                Place::Ready => assert!(lane.ready.iter().any(|turn| {
                    (turn.member, turn.entered) == (at, member.entered) && turn.deadline.0 == member.deadline
                })),
                Place::Trial => assert!(lane.trial.contains(&(member.entered, at))),
                Place::Parked(Until::Moment(until)) => {
                    assert!(lane.parked.contains(&(until, at)));
                    assert!(self.next_moment.is_some_and(|next| next <= until));
                }
                Place::Parked(Until::Told) => {
                    assert!(awaited(member.slot));
                    told += 1;
                }
            }
            assert!(member.deadline.is_finite());
        }
        assert_eq!(self.lanes.iter().map(count).sum::<usize>() + told, self.members.len());
        assert_eq!(told, self.told);
        for (at, tier) in self.tiers.iter().enumerate() {
            let lanes = || self.lanes.iter().filter(|lane| lane.tier == index(at));
            assert_eq!(lanes().map(|lane| lane.trial.len()).sum::<usize>(), tier.on_trial);
            let members = (0..index(self.members.len())).filter(|member| self.tier_of(*member) == index(at));
            assert_eq!(members.count(), tier.members);
        }
        assert_eq!(self.order.len(), self.lanes.iter().filter(|lane| !lane.ready.is_empty()).count());
        assert!(self.lanes.iter().all(|lane| lane.listed == lane.ready.peek().map(|turn| turn.deadline)));
    }
}

pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^32 keys")
}
