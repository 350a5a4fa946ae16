//! Who waits for which rotation, in the order of arrival.

use std::collections::{BTreeSet, HashMap};

use super::outcome::Arrival;

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are waiting for a key")]
pub struct LineFull;

#[derive(Debug, Default)]
pub(super) struct Lines {
    arrivals: u64,
    /// One per rotation.
    lines: Vec<BTreeSet<Arrival>>,
    /// Where each stands.
    places: HashMap<Arrival, Place>,
}

#[derive(Debug)]
struct Place {
    line: u32,
    model: Option<Box<str>>,
}

impl Lines {
    pub(super) fn open(&mut self) {
        self.lines.push(BTreeSet::new());
    }

    pub(super) fn arrive(&mut self) -> Arrival {
        self.arrivals += 1;
        Arrival(self.arrivals)
    }

    /// How many stand before `arrival`; `None` if nobody does.
    pub(super) fn ahead(&self, line: u32, arrival: Arrival) -> Option<usize> {
        let line = &self.lines[line as usize];
        let first = line.first()?;
        if *first >= arrival {
            return None;
        }
        // Newcomers, the common case, have everyone before them.
        let last = line.last()?;
        Some(if *last < arrival { line.len() } else { line.range(..arrival).count() })
    }

    pub(super) fn join(
        &mut self,
        line: u32,
        arrival: Arrival,
        model: Option<&str>,
        most: usize,
    ) -> Result<(), LineFull> {
        match self.places.get(&arrival) {
            Some(place) if place.line == line => return Ok(()),
            Some(place) => {
                self.lines[place.line as usize].remove(&arrival);
            }
            None if self.places.len() >= most => return Err(LineFull),
            None => {}
        }
        self.places.insert(arrival, Place { line, model: model.map(Box::from) });
        self.lines[line as usize].insert(arrival);
        Ok(())
    }

    /// Who is now first in that line, if that changed.
    pub(super) fn leave(&mut self, arrival: Arrival) -> Option<Arrival> {
        let line = &mut self.lines[self.places.remove(&arrival)?.line as usize];
        let was_first = line.first() == Some(&arrival);
        line.remove(&arrival);
        line.first().copied().filter(|_| was_first)
    }

    /// Those in line `from` who want `model` stand in line `to` from now on. The first of both should ask again.
    pub(super) fn move_model(&mut self, from: u32, to: u32, model: &str, wake: &mut Vec<Arrival>) {
        if self.lines[from as usize].is_empty() {
            return;
        }
        for (arrival, place) in &mut self.places {
            if place.line == from && place.model.as_deref() == Some(model) {
                place.line = to;
                self.lines[from as usize].remove(arrival);
                self.lines[to as usize].insert(*arrival);
            }
        }
        self.wake(from, wake);
        self.wake(to, wake);
    }

    pub(super) fn wake(&self, line: u32, wake: &mut Vec<Arrival>) {
        if let Some(&first) = self.lines[line as usize].first()
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
        self.lines.iter().filter_map(|line| line.first().copied()).min()
    }

    pub(super) fn length(&self, line: u32) -> usize {
        self.lines[line as usize].len()
    }

    pub(super) fn is_empty(&self, line: u32) -> bool {
        self.length(line) == 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.places.len()
    }
}
