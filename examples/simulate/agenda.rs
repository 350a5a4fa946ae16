//! The virtual clock: what is to happen when. The time is that of the last thing that happened; nothing sleeps.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Instant,
};

#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now: Instant,
    entries: BinaryHeap<Reverse<Entry<E>>>,
    added: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    /// What was added first happens first, of what happens at the same moment.
    number: u64,
    event: E,
}

impl<E> Entry<E> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.number)
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> Agenda<E> {
    pub(crate) fn new(start: Instant) -> Self {
        Self { now: start, entries: BinaryHeap::new(), added: 0 }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Lets `event` happen at `at`, or now if that is past.
    pub(crate) fn add(&mut self, at: Instant, event: E) {
        self.added += 1;
        self.entries.push(Reverse(Entry { at: at.max(self.now), number: self.added, event }));
    }

    /// What happens next; the time moves on to it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse(Entry { at, event, .. }) = self.entries.pop()?;
        self.now = at;
        Some(event)
    }
}
