//! Everything that changes about one key.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Transition,
    cooling::{Cooling, Leave},
    lateness::{ByKind, Silence},
    window::Window,
};
use crate::{
    rate::Gcra,
    types::{Class, Key},
};

/// So many failures in a row, and the key rests.
pub(super) const FAILURES_TO_REST: u32 = 3;
/// How long a refusal of one kind of endpoint is remembered.
const DENIED_FOR: Duration = Duration::from_secs(5 * 60);
/// How many kinds of endpoint are remembered as refused.
const DENIED_MOST: usize = 16;
/// The weight of the newest latency in the average.
const LATENCY_ALPHA: f64 = 0.2;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Arc<Key>,
    pub(super) host: u32,
    /// What its limits are counted against.
    pub(super) account: u32,
    /// The first entry of its credential.
    pub(super) credential: u32,
    /// All entries of its credential, where there are several: they share its limits and its faults.
    pub(super) twins: Option<Arc<[u32]>>,
    /// The model sets it belongs to.
    pub(super) sets: Vec<u32>,
    /// Requests it is serving.
    pub(super) in_flight: u32,
    /// The same for all entries of its credential.
    pub(super) credential_in_flight: u32,
    /// Requests it was given.
    pub(super) used: u64,
    pub(super) window: Window,
    /// An average of seconds to the response head.
    pub(super) latency: Option<f64>,
    pub(super) failing: Option<Failing>,
    pub(super) cooling: Cooling,
    pub(super) gcra: Gcra,
    /// Whether a rotation has parked it until told.
    pub(super) awaited: bool,
    /// The attempts that it leaves without a head.
    pub(super) silences: ByKind<Silence>,
    /// Whether a rotation passes it over for being late.
    pub(super) sidelined: bool,
    /// The last attempt that was not a success: what it came to, and when.
    pub(super) last_error: Option<(Class, Instant)>,
    /// When it was last sent on trial.
    pub(super) last_trial: Option<Instant>,
    /// Kinds of endpoint it may not use, until then.
    denied: Vec<(Box<str>, Instant)>,
}

/// Failures since the last success.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing {
    /// Those between which the host worked for others.
    pub(super) count: u32,
    /// When the first of these was sent.
    pub(super) since: Instant,
    /// When the last came back.
    pub(super) last: Instant,
    /// Those that may have been the host's: not held against the key before somebody else's success clears the host.
    pub(super) open: u32,
    /// Those that are held against it though the host has not worked since.
    pub(super) blamed: u32,
}

impl Slot {
    pub(super) fn new(key: Arc<Key>, host: u32, at: u32) -> Self {
        Self {
            key,
            host,
            account: at,
            credential: at,
            sets: Vec::new(),
            twins: None,
            in_flight: 0,
            credential_in_flight: 0,
            used: 0,
            window: Window::default(),
            latency: None,
            failing: None,
            cooling: Cooling::default(),
            gcra: Gcra::default(),
            awaited: false,
            silences: ByKind::default(),
            sidelined: false,
            last_error: None,
            last_trial: None,
            denied: Vec::new(),
        }
    }

    /// Whether it may be picked, for all that concerns the key itself.
    pub(super) fn leave(&self, now: Instant) -> Leave {
        let settings = self.key.settings();
        if settings.max_in_flight.is_some_and(|most| self.credential_in_flight >= most.get()) {
            return Leave::Blocked;
        }
        let leave = self.cooling.leave(now);
        match settings.rate.map(|rate| self.gcra.free_at(rate, now)) {
            Some(free) if free > now => leave.and(Leave::NotBefore(free)),
            _ => leave,
        }
    }

    /// So many failures were its own.
    pub(super) fn fell_short(&mut self, now: Instant, failures: u32) {
        for _ in 0..failures {
            self.window.record(now, false);
        }
    }

    /// What is to be told of a rest that began.
    pub(super) fn resting(&self, now: Instant) -> Option<Transition> {
        let (reason, until) = self.cooling.current(now)?;
        Some(Transition::Resting { key: Arc::clone(&self.key), model: None, reason, until, with: 0 })
    }

    pub(super) fn weight(&self) -> f64 {
        f64::from(self.key.settings().weight.get())
    }

    /// What its credential is serving, for its weight.
    pub(super) fn load(&self) -> f64 {
        f64::from(self.credential_in_flight) / self.weight()
    }

    /// The turns it has had, for its weight.
    pub(super) fn turns(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "2^53 requests are enough")]
        let used = self.used as f64;
        used / self.weight()
    }

    pub(super) fn deny(&mut self, now: Instant, purpose: &str) {
        self.denied.retain(|(known, until)| *until > now && **known != *purpose);
        if self.denied.len() < DENIED_MOST {
            self.denied.push((Box::from(purpose), now + DENIED_FOR));
        }
    }

    pub(super) fn is_denied(&self, now: Instant, purpose: &str) -> bool {
        self.denied.iter().any(|(known, until)| **known == *purpose && *until > now)
    }

    pub(super) fn note_latency(&mut self, head: Duration) {
        // Below a millisecond differences are noise.
        let seconds = head.as_secs_f64().max(1e-3);
        self.latency = Some(self.latency.map_or(seconds, |mean| mean + LATENCY_ALPHA * (seconds - mean)));
    }
}
