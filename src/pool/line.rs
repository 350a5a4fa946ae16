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
    places: HashMap<Arrival, u32>,
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

    pub(super) fn join(&mut self, line: u32, arrival: Arrival, most: usize) -> Result<(), LineFull> {
        match self.places.get(&arrival) {
            Some(&at) if at == line => return Ok(()),
            Some(&at) => {
                self.lines[at as usize].remove(&arrival);
            }
            None if self.places.len() >= most => return Err(LineFull),
            None => {}
        }
        self.places.insert(arrival, line);
        self.lines[line as usize].insert(arrival);
        Ok(())
    }

    pub(super) fn leave(&mut self, arrival: Arrival) -> Option<Arrival> {
        let line = &mut self.lines[self.places.remove(&arrival)? as usize];
        let was_first = line.first() == Some(&arrival);
        line.remove(&arrival);
        line.first().copied().filter(|_| was_first)
    }

    pub(super) fn wake(&self, line: u32, wake: &mut Vec<Arrival>) {
        if let Some(&first) = self.lines[line as usize].first()
            && !wake.contains(&first)
        {
            wake.push(first);
        }
    }

    /// The lines in which somebody stands.
    pub(super) fn occupied(&self) -> impl Iterator<Item = u32> + '_ {
        self.places.values().copied()
    }

    pub(super) fn waiting(&self) -> usize {
        self.places.len()
    }
}
