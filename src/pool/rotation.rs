//! The order of turns among the keys that serve one set of models.
//!
//! Each member has a deadline in virtual time; the earliest is next, and a member that had its turn moves on by its
//! step (earliest deadline first). A step of `1 / share` gives smooth weighted round robin, a step drawn from an
//! exponential distribution gives weighted chance, a deadline that *is* the number of turns gives least used.
//!
//! Members that can't have a turn are parked, ordered by the moment they may come back. They are found out when their
//! turn comes, so a change of state costs nothing when it happens, and a pick costs O(log n) however many are parked.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap},
    time::Instant,
};

use super::cooling::Cooling;

/// The members of one model set, in a lane per host.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// Ordered by slot.
    pub(super) members: Vec<Member>,
    pub(super) lanes: Vec<Lane>,
    /// The deadline that was served last.
    clock: f64,
    entered: u64,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: u32,
    lane: u32,
    deadline: f64,
    /// `Some` while parked: when it may come back.
    parked: Option<Until>,
    /// Its rest for this rotation's model alone.
    pub(super) cooling: Option<Box<Cooling>>,
}

/// The members on one host.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) host: u32,
    ready: BinaryHeap<Turn>,
    parked: BTreeSet<(Until, u32)>,
}

impl Member {
    pub(super) fn deadline(&self) -> f64 {
        self.deadline
    }
}

impl Lane {
    /// The moment, known or now, at which a member may have a turn.
    pub(super) fn first_at(&self, now: Instant) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(now);
        }
        match self.parked.first()?.0 {
            Until::Moment(at) => Some(at),
            Until::Told => None,
        }
    }
}

/// Until when a member is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Until {
    Moment(Instant),
    /// Until somebody says so.
    Told,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    deadline: f64,
    entered: u64,
    member: u32,
}

impl Ord for Turn {
    /// The earliest is the greatest: `BinaryHeap` shows its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.entered.cmp(&self.entered))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Turn {}

impl Rotation {
    /// `slots` in order, each with its host and its first deadline.
    pub(super) fn new(slots: impl IntoIterator<Item = (u32, u32, f64)>) -> Self {
        let mut rotation = Self::default();
        for (slot, host, deadline) in slots {
            let lane = rotation.lanes.iter().position(|lane| lane.host == host).unwrap_or_else(|| {
                rotation.lanes.push(Lane { host, ready: BinaryHeap::new(), parked: BTreeSet::new() });
                rotation.lanes.len() - 1
            });
            let member = index(rotation.members.len());
            let lane = index(lane);
            rotation.members.push(Member { slot, lane, deadline, parked: None, cooling: None });
            rotation.enter(member);
        }
        rotation
    }

    /// The member that stands for `slot`.
    pub(super) fn member_of(&self, slot: u32) -> Option<u32> {
        self.members.binary_search_by_key(&slot, |member| member.slot).ok().map(index)
    }

    /// The earliest deadline in `lane`, whose members that were due are back.
    pub(super) fn front(&mut self, lane: usize, now: Instant) -> Option<f64> {
        while let Some(&(Until::Moment(until), member)) = self.lanes[lane].parked.first() {
            if until > now {
                break;
            }
            self.unpark(member);
        }
        self.lanes[lane].ready.peek().map(|turn| turn.deadline)
    }

    /// Takes the first member of `lane` out of the order; it must be given back by one of the next four.
    pub(super) fn take(&mut self, lane: usize) -> Option<u32> {
        self.lanes[lane].ready.pop().map(|turn| turn.member)
    }

    /// It had its turn and moves on by `step`.
    pub(super) fn served(&mut self, member: u32, step: f64) {
        let this = &mut self.members[member as usize];
        self.clock = self.clock.max(this.deadline);
        this.deadline += step;
        self.enter(member);
    }

    /// It goes back where it was.
    pub(super) fn put_back(&mut self, member: u32) {
        self.enter(member);
    }

    /// It goes where it belongs.
    pub(super) fn put_at(&mut self, member: u32, deadline: f64) {
        self.members[member as usize].deadline = deadline;
        self.enter(member);
    }

    /// It can't have a turn until then.
    pub(super) fn park(&mut self, member: u32, until: Until) {
        let this = &mut self.members[member as usize];
        this.parked = Some(until);
        self.lanes[this.lane as usize].parked.insert((until, member));
    }

    /// A parked member may come back now. It gains nothing by its absence.
    pub(super) fn unpark(&mut self, member: u32) {
        let this = &mut self.members[member as usize];
        let Some(until) = this.parked.take() else { return };
        this.deadline = this.deadline.max(self.clock);
        self.lanes[this.lane as usize].parked.remove(&(until, member));
        self.enter(member);
    }

    fn enter(&mut self, member: u32) {
        let Member { lane, deadline, .. } = self.members[member as usize];
        self.entered += 1;
        self.lanes[lane as usize].ready.push(Turn { deadline, entered: self.entered, member });
    }
}

pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^32 keys")
}
