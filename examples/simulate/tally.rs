//! What is counted of a run.

use std::time::{Duration, Instant};

use crate::{
    scenario::{Account, Scenario},
    traffic::{CLIENTS, Request},
    upstream::Answer,
};

/// Into so many parts the time is divided for the plot.
pub(crate) const SLICES: u8 = 120;

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) offered: u64,
    pub(crate) served: u64,
    /// Requests whose client got an error.
    pub(crate) errors: u64,
    pub(crate) calls: u64,
    /// How many of them were a 429.
    pub(crate) limited: u64,
    /// How many came to nothing otherwise.
    pub(crate) failed: u64,
    pub(crate) slices: Vec<Slice>,
    /// Per client.
    clients: Vec<Share>,
    /// Per account; those that can't serve to the end are left out of the comparison.
    accounts: Vec<Option<Share>>,
    /// From a request's coming to the call that served it, in microseconds.
    waits: Vec<u32>,
    start: Instant,
    length: Duration,
}

/// What happened within a part of the time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slice {
    pub(crate) offered: u32,
    pub(crate) served: u32,
    pub(crate) wasted: u32,
}

/// What somebody got, of what it could have got.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    got: f64,
    of: f64,
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario, start: Instant) -> Self {
        let (seconds, mean_tokens) = (scenario.length.as_secs_f64(), scenario.mean_tokens());
        let share = |account: &Account| {
            let of = account.per_second(1.0, mean_tokens) * seconds;
            account.fault.is_none().then_some(Share { got: 0.0, of })
        };
        Self {
            offered: 0,
            served: 0,
            errors: 0,
            calls: 0,
            limited: 0,
            failed: 0,
            slices: vec![Slice::default(); SLICES.into()],
            clients: vec![Share::default(); CLIENTS],
            accounts: scenario.accounts.iter().map(share).collect(),
            waits: Vec::new(),
            start,
            length: scenario.length,
        }
    }

    pub(crate) fn came(&mut self, request: &Request) {
        self.offered += 1;
        self.clients[request.client].of += 1.0;
        if let Some(slice) = self.slice(request.came) {
            slice.offered += 1;
        }
    }

    pub(crate) fn called(&mut self, now: Instant, request: &Request, account: usize, answer: Answer) {
        self.calls += 1;
        let is_served = answer.is_served();
        match answer {
            Answer::Served(_) => {
                self.served += 1;
                self.clients[request.client].got += 1.0;
                if let Some(share) = &mut self.accounts[account] {
                    share.got += 1.0;
                }
                let waited = now.saturating_duration_since(request.came).as_micros();
                self.waits.push(u32::try_from(waited).unwrap_or(u32::MAX));
            }
            Answer::Limited(..) => self.limited += 1,
            Answer::Fault(_) => self.failed += 1,
        }
        if let Some(slice) = self.slice(now) {
            slice.served += u32::from(is_served);
            slice.wasted += u32::from(!is_served);
        }
    }

    pub(crate) fn gave_up(&mut self) {
        self.errors += 1;
    }

    pub(crate) fn wasted(&self) -> u64 {
        self.limited + self.failed
    }

    /// The part of the calls that came to nothing.
    pub(crate) fn waste(&self) -> f64 {
        ratio(self.wasted(), self.calls)
    }

    /// So long or less `part` of those served have waited.
    pub(crate) fn wait(&mut self, part: f64) -> Duration {
        if self.waits.is_empty() {
            return Duration::ZERO;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
        let at = ((self.waits.len() - 1) as f64 * part) as usize;
        let (_, wait, _) = self.waits.select_nth_unstable(at);
        Duration::from_micros((*wait).into())
    }

    /// Jain's index over the clients' parts served: 1 is the same for all, 1/n everything for one.
    pub(crate) fn client_fairness(&self) -> f64 {
        jain(self.clients.iter().filter(|share| share.of > 0.0).map(|share| share.got / share.of))
    }

    /// Jain's index over the parts used of what the accounts allow.
    pub(crate) fn account_fairness(&self) -> f64 {
        jain(self.accounts.iter().flatten().map(|share| share.got / share.of))
    }

    fn slice(&mut self, at: Instant) -> Option<&mut Slice> {
        let part = at.saturating_duration_since(self.start).as_secs_f64() / self.length.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
        self.slices.get_mut((part * f64::from(SLICES)) as usize)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn jain(parts: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for part in parts {
        count += 1.0;
        sum += part;
        squares += part * part;
    }
    if squares == 0.0 { 1.0 } else { sum * sum / (count * squares) }
}
