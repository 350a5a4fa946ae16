//! Who waits for which rotation, and in which order.
//!
//! First in, first out for each client, and fair between clients: start-time fair queueing with steps of one. Who waits
//! has a virtual time, its *turn*: the first of a client's one that is not before the line's virtual time, each further
//! one the next. The earliest turn is first; among equals, who came first. The line's virtual time is one step after the
//! last turn that was taken. So each client has one turn in a round, however many it has waiting, and who joins comes
//! after the round that is under way: clients that nobody has seen before don't keep out the known.
//!
//! A client's turns are counted from that of its first, which moves on when it is served. So who gives up, or is
//! refused its place, costs its client nothing, and of a client without anybody in line nothing is remembered.
//!
//! Who has had an attempt already was first before, and is so still: it goes before all who had none, and its further
//! attempts are no further turns among those. Among each other, those who have returned take turns in the same way.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::outcome::Arrival;
use crate::types::ClientId;

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are waiting for a key")]
pub struct LineFull;

#[derive(Debug, Default)]
pub(super) struct Lines {
    arrivals: u64,
    /// One per rotation.
    lines: Vec<Line>,
    /// Where each stands.
    places: HashMap<Arrival, Place>,
    /// How many of each client wait, in whichever line, …
    held: HashMap<ClientId, usize>,
    /// … and who has how many.
    by_held: BTreeSet<(usize, ClientId)>,
}

#[derive(Debug)]
struct Place {
    line: u32,
    model: Option<Box<str>>,
    /// Whether it has had an attempt.
    returned: bool,
    /// Whether it has a key, and is about to leave.
    served: bool,
}

/// Those who wait for one rotation.
#[derive(Debug, Default)]
struct Line {
    /// Those who have had an attempt.
    returned: Round,
    others: Round,
}

/// Those who take turns.
#[derive(Debug, Default)]
struct Round {
    queues: HashMap<ClientId, Queue>,
    /// The first of each queue, by its turn.
    heads: BTreeSet<(u64, Arrival)>,
    turns: Turns,
    /// One step after the last turn that was taken.
    clock: u64,
    /// Who came last of all that have joined.
    latest: Option<Arrival>,
}

/// Those of one client.
#[derive(Debug)]
struct Queue {
    /// The turn of the first.
    turn: u64,
    /// In the order of arrival.
    waiting: VecDeque<Arrival>,
}

/// How many have which turn.
#[derive(Debug, Default)]
struct Turns {
    first: u64,
    counts: VecDeque<u32>,
    all: usize,
}

impl Turns {
    fn add(&mut self, turn: u64) {
        if self.counts.is_empty() {
            self.first = turn;
        }
        while turn < self.first {
            self.counts.push_front(0);
            self.first -= 1;
        }
        let at = self.at(turn);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.all += 1;
    }

    fn remove(&mut self, turn: u64) {
        let at = self.at(turn);
        self.counts[at] -= 1;
        self.all -= 1;
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
        while self.counts.back() == Some(&0) {
            self.counts.pop_back();
        }
    }

    fn at(&self, turn: u64) -> usize {
        usize::try_from(turn - self.first).expect("no more turns than places")
    }

    /// How many come before `turn`, and how many have it.
    fn before(&self, turn: u64) -> (usize, usize) {
        let Some(at) = turn.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else {
            return (0, 0);
        };
        match self.counts.get(at) {
            Some(count) => {
                let before = self.counts.iter().take(at).map(|count| *count as usize).sum();
                (before, *count as usize)
            }
            None => (self.all, 0),
        }
    }
}

impl Queue {
    /// How many of it came before `arrival`; `Ok` if that is among them itself.
    fn place(&self, arrival: Arrival) -> Result<usize, usize> {
        // Newcomers, the common case, go to the end.
        match self.waiting.back() {
            Some(last) if *last < arrival => Err(self.waiting.len()),
            _ => self.waiting.binary_search(&arrival),
        }
    }

    fn head(&self) -> Option<(u64, Arrival)> {
        self.waiting.front().map(|first| (self.turn, *first))
    }
}

impl Line {
    fn first(&self) -> Option<Arrival> {
        self.returned.first().or_else(|| self.others.first())
    }

    fn length(&self) -> usize {
        self.returned.turns.all + self.others.turns.all
    }

    fn is_empty(&self) -> bool {
        self.length() == 0
    }

    fn ahead(&self, arrival: Arrival, returned: bool) -> usize {
        if returned {
            return self.returned.ahead(arrival);
        }
        self.returned.turns.all + self.others.ahead(arrival)
    }

    fn round(&mut self, returned: bool) -> &mut Round {
        if returned { &mut self.returned } else { &mut self.others }
    }
}

impl Round {
    fn first(&self) -> Option<Arrival> {
        self.heads.first().map(|(_, first)| *first)
    }

    fn ahead(&self, arrival: Arrival) -> usize {
        let (turn, place) = match self.queues.get(&arrival.client) {
            Some(queue) => {
                let (Ok(place) | Err(place)) = queue.place(arrival);
                (queue.turn + place as u64, place)
            }
            None => (self.clock, 0),
        };
        let (before, equal) = self.turns.before(turn);
        let equal = if self.latest.is_none_or(|latest| latest < arrival) {
            equal
        } else {
            let others = self.queues.iter().filter(|(client, _)| **client != arrival.client);
            let peers = others.filter_map(|(_, queue)| {
                let place = usize::try_from(turn.checked_sub(queue.turn)?).ok()?;
                queue.waiting.get(place)
            });
            peers.filter(|peer| **peer < arrival).count()
        };
        debug_assert!(place <= before, "those of its own come before it");
        before + equal
    }

    /// `turn`: that of the first of its client, if none of that waits yet.
    fn join(&mut self, arrival: Arrival, turn: u64) {
        self.latest = self.latest.max(Some(arrival));
        let queue =
            self.queues.entry(arrival.client).or_insert_with(|| Queue { turn, waiting: VecDeque::new() });
        let Err(place) = queue.place(arrival) else { return };
        let head = queue.head();
        self.turns.add(queue.turn + queue.waiting.len() as u64);
        queue.waiting.insert(place, arrival);
        if place == 0 {
            head.map(|head| self.heads.remove(&head));
            self.heads.insert((queue.turn, arrival));
        }
    }

    /// It goes: with its turn, if it was `served`, else the next of its client has that.
    fn leave(&mut self, arrival: Arrival, served: bool) {
        let Some(queue) = self.queues.get_mut(&arrival.client) else { return };
        let Ok(place) = queue.place(arrival) else { return };
        if let Some(head) = queue.head() {
            self.heads.remove(&head);
        }
        let last = queue.turn + queue.waiting.len() as u64 - 1;
        self.turns.remove(if served { queue.turn } else { last });
        queue.waiting.remove(place);
        if served {
            queue.turn += 1;
            self.clock = self.clock.max(queue.turn);
        }
        match queue.head() {
            Some(head) => {
                self.heads.insert(head);
            }
            None => {
                self.queues.remove(&arrival.client);
            }
        }
    }
}

impl Lines {
    pub(super) fn open(&mut self) {
        self.lines.push(Line::default());
    }

    pub(super) fn arrive(&mut self, client: ClientId) -> Arrival {
        self.arrivals += 1;
        Arrival { number: self.arrivals, client }
    }

    /// How many stand before `arrival`, which has `returned` if it has had an attempt; `None` if nobody does.
    pub(super) fn ahead(&self, line: u32, arrival: Arrival, returned: bool) -> Option<usize> {
        let line = &self.lines[line as usize];
        if line.is_empty() || line.first() == Some(arrival) {
            return None;
        }
        Some(line.ahead(arrival, returned)).filter(|ahead| *ahead > 0)
    }

    /// Joins a line, or keeps the place in it. Returns who should ask again: when `most` wait already, the last of the
    /// client that has most waiting makes room for one that has fewer.
    pub(super) fn join(
        &mut self,
        line: u32,
        arrival: Arrival,
        returned: bool,
        model: Option<&str>,
        most: usize,
    ) -> Result<Vec<Arrival>, LineFull> {
        let mut wake = Vec::new();
        match self.places.get(&arrival) {
            Some(place) if place.line == line => return Ok(wake),
            Some(_) => wake.extend(self.leave(arrival)),
            None if self.places.len() >= most => {
                let own = self.held.get(&arrival.client).copied().unwrap_or_default();
                let (_, longest) =
                    self.by_held.last().copied().filter(|(held, _)| own + 1 < *held).ok_or(LineFull)?;
                let last = self.last_of(longest).ok_or(LineFull)?;
                wake.push(last);
                wake.extend(self.leave(last));
            }
            None => {}
        }
        self.places.insert(arrival, Place { line, model: model.map(Box::from), returned, served: false });
        self.count(arrival.client, |held| held + 1);
        let line = &mut self.lines[line as usize];
        let round = line.round(returned);
        round.join(arrival, round.clock);
        if !wake.is_empty() && line.first() == Some(arrival) {
            // It may have been told that somebody is before it.
            wake.push(arrival);
        }
        Ok(wake)
    }

    /// It has a key, and will leave.
    pub(super) fn served(&mut self, arrival: Arrival) {
        if self.places.is_empty() {
            return;
        }
        if let Some(place) = self.places.get_mut(&arrival) {
            place.served = true;
        }
    }

    /// Who is now first in that line, if that changed.
    pub(super) fn leave(&mut self, arrival: Arrival) -> Option<Arrival> {
        let Place { line, returned, served, .. } = self.places.remove(&arrival)?;
        self.count(arrival.client, |held| held - 1);
        let line = &mut self.lines[line as usize];
        let was_first = line.first() == Some(arrival);
        line.round(returned).leave(arrival, served);
        line.first().filter(|_| was_first)
    }

    fn count(&mut self, client: ClientId, change: impl Fn(usize) -> usize) {
        let held = self.held.entry(client).or_default();
        self.by_held.remove(&(*held, client));
        *held = change(*held);
        if *held > 0 {
            self.by_held.insert((*held, client));
        } else {
            self.held.remove(&client);
        }
    }

    /// Of those of `client` that wait, the one that came last.
    fn last_of(&self, client: ClientId) -> Option<Arrival> {
        let of = |round: &Round| round.queues.get(&client)?.waiting.back().copied();
        let queues = self.lines.iter().filter_map(|line| of(&line.others));
        // Who has returned is the last only if nobody else is.
        queues.max().or_else(|| self.places.keys().filter(|arrival| arrival.client == client).max().copied())
    }

    /// Those in line `from` who want `model` stand in line `to` from now on, in the same order. The first of both should
    /// ask again.
    pub(super) fn move_model(&mut self, from: u32, to: u32, model: &str, wake: &mut Vec<Arrival>) {
        if self.lines[from as usize].is_empty() {
            return;
        }
        for returned in [true, false] {
            let clock = self.lines[from as usize].round(returned).clock;
            let there = self.lines[to as usize].round(returned);
            there.clock = if there.heads.is_empty() { clock } else { there.clock.max(clock) };
        }
        let movers = self.places.iter_mut().filter(|(_, place)| place.line == from);
        for (arrival, place) in movers.filter(|(_, place)| place.model.as_deref() == Some(model)) {
            place.line = to;
            let here = self.lines[from as usize].round(place.returned);
            let turn = here.queues.get(&arrival.client).map_or(here.clock, |queue| queue.turn);
            here.leave(*arrival, false);
            self.lines[to as usize].round(place.returned).join(*arrival, turn);
        }
        self.wake(from, wake);
        self.wake(to, wake);
    }

    pub(super) fn wake(&self, line: u32, wake: &mut Vec<Arrival>) {
        if let Some(first) = self.lines[line as usize].first()
            && !wake.contains(&first)
        {
            wake.push(first);
        }
    }

    pub(super) fn wake_all(&self, wake: &mut Vec<Arrival>) {
        for line in 0..self.lines.len() {
            self.wake(super::index(line), wake);
        }
    }

    /// Of those who are first in a line, the one who came first.
    pub(super) fn first(&self) -> Option<Arrival> {
        self.lines.iter().filter_map(Line::first).min()
    }

    pub(super) fn length(&self, line: u32) -> usize {
        self.lines[line as usize].length()
    }

    pub(super) fn is_empty(&self, line: u32) -> bool {
        self.lines[line as usize].is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
impl Lines {
    pub(super) fn first_of(&self, line: u32) -> Option<Arrival> {
        self.lines[line as usize].first()
    }

    /// What is kept twice is the same, and nothing is kept of who does not wait.
    pub(super) fn assert_whole(&self) {
        let mut held: HashMap<ClientId, usize> = HashMap::new();
        for arrival in self.places.keys() {
            *held.entry(arrival.client).or_default() += 1;
        }
        assert_eq!(held, self.held);
        let by_held: BTreeSet<_> = held.iter().map(|(client, held)| (*held, *client)).collect();
        assert_eq!(by_held, self.by_held);
        let mut waiting = 0;
        for (at, line) in self.lines.iter().enumerate() {
            for round in [&line.returned, &line.others] {
                let mut turns: Vec<u64> = Vec::new();
                for queue in round.queues.values() {
                    assert!(queue.waiting.iter().is_sorted() && !queue.waiting.is_empty());
                    assert!(round.heads.contains(&queue.head().unwrap()));
                    assert!(queue.turn <= round.clock, "nobody is more than a round behind");
                    turns.extend((queue.turn..).take(queue.waiting.len()));
                }
                assert_eq!(round.heads.len(), round.queues.len());
                for turn in &turns {
                    let has = |other: &&u64| *other == turn;
                    let earlier = turns.iter().filter(|other| *other < turn).count();
                    assert_eq!(round.turns.before(*turn), (earlier, turns.iter().filter(has).count()));
                }
            }
            waiting += line.length();
            let here = self.places.values().filter(|place| place.line as usize == at);
            assert_eq!(here.count(), line.length());
        }
        assert_eq!(waiting, self.places.len());
    }
}
