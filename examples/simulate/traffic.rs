//! Who asks for what, and when.

use std::time::{Duration, Instant};

use crate::scenario::{Load, Scenario};

/// How far sizes spread around the middle one: the standard deviation of their logarithms.
pub(crate) const TOKENS_SPREAD: f64 = 0.7;
const LATENCY_SPREAD: f64 = 0.5;
/// No request is larger than so many middle ones: the smallest account must be able to serve it.
const LARGEST: f64 = 6.0;
/// Half of the heads come sooner.
const HEAD_SECONDS: f64 = 0.6;
const SECONDS_PER_TOKEN: f64 = 0.005;
pub(crate) const CLIENTS: usize = 20;
/// The first client sends this share of the requests, the others the rest in equal parts.
const LARGEST_CLIENT: f64 = 0.5;

/// A request, and how long its answer will take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) came: Instant,
    pub(crate) client: usize,
    pub(crate) model: usize,
    pub(crate) tokens: f64,
    /// From the upstream's taking it on to the head of the answer.
    pub(crate) head: Duration,
    /// From there to its last byte.
    pub(crate) body: Duration,
}

/// The requests of a scenario, one after the other; the same for the same seed.
#[derive(Debug)]
pub(crate) struct Traffic {
    start: Instant,
    length: Duration,
    load: Load,
    per_second: f64,
    models: &'static [(&'static str, f64)],
    tokens: f64,
    rng: fastrand::Rng,
    /// When the last one came.
    at: Duration,
}

impl Traffic {
    pub(crate) fn new(scenario: &Scenario, start: Instant, seed: u64) -> Self {
        Self {
            start,
            length: scenario.length,
            load: scenario.load,
            per_second: scenario.per_second(),
            models: scenario.models,
            tokens: scenario.tokens,
            rng: fastrand::Rng::with_seed(seed),
            at: Duration::ZERO,
        }
    }

    /// Arrivals are a Poisson process: drawn at the highest rate, and thinned out to that of the moment.
    fn next_arrival(&mut self) -> Option<Instant> {
        let most = self.load.most();
        loop {
            let gap = -(1.0 - self.rng.f64()).ln() / (self.per_second * most);
            self.at += Duration::from_secs_f64(gap);
            if self.at >= self.length {
                return None;
            }
            if self.rng.f64() * most < self.load.at(self.at, self.length) {
                return Some(self.start + self.at);
            }
        }
    }

    fn client(&mut self) -> usize {
        if self.rng.f64() < LARGEST_CLIENT { 0 } else { self.rng.usize(1..CLIENTS) }
    }

    fn model(&mut self) -> usize {
        let mut at = self.rng.f64();
        let passed = |(_, share): &(&str, f64)| {
            at -= share;
            at < 0.0
        };
        self.models.iter().position(passed).unwrap_or(0)
    }

    /// A factor whose logarithm is normally distributed.
    fn factor(&mut self, spread: f64) -> f64 {
        let (radius, angle) = (1.0 - self.rng.f64(), self.rng.f64());
        let normal = (-2.0 * radius.ln()).sqrt() * (angle * std::f64::consts::TAU).cos();
        (normal * spread).exp()
    }
}

impl Iterator for Traffic {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let came = self.next_arrival()?;
        let (client, model) = (self.client(), self.model());
        let tokens = self.tokens * self.factor(TOKENS_SPREAD).min(LARGEST);
        let head = Duration::from_secs_f64(HEAD_SECONDS * self.factor(LATENCY_SPREAD));
        let body = Duration::from_secs_f64(tokens * SECONDS_PER_TOKEN);
        Some(Request { came, client, model, tokens, head, body })
    }
}
