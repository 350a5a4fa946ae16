//! What the pool promises, over examples and over random sequences of operations.

mod accounts;
mod examples;
mod explain;
mod fairness;
mod headroom;
mod late;
mod lines;
mod machine;
mod naive;
mod outages;
mod priorities;
mod properties;
mod strategies;

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    clock::Clock,
    rate::Rate,
    types::{AccountId, BaseUrl, ClientId, Demand, KeySettings, ModelSet, PoolName, Secret},
};

pub(super) const TWO: &str = "https://two.test";
pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// An entry, as a file would have it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) secret: String,
    pub(super) settings: KeySettings,
}

impl Entry {
    pub(super) fn new(secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            settings: KeySettings::at(BaseUrl::parse("https://one.test").unwrap()),
        }
    }

    pub(super) fn many(count: usize) -> Vec<Self> {
        (0..count).map(|n| Self::new(&format!("sk-{n}"))).collect()
    }

    pub(super) fn at(mut self, host: &str) -> Self {
        self.settings.base = BaseUrl::parse(host).unwrap();
        self
    }

    pub(super) fn models(mut self, models: &[&str]) -> Self {
        self.settings.models = ModelSet::parse(models).unwrap();
        self
    }

    pub(super) fn weight(mut self, weight: u16) -> Self {
        self.settings.weight = NonZeroU16::new(weight).unwrap();
        self
    }

    pub(super) fn priority(mut self, priority: u8) -> Self {
        self.settings.priority = priority;
        self
    }

    pub(super) fn rate(mut self, per_second: f64, burst: u32) -> Self {
        self.settings.rate = Rate::per_second(per_second, NonZeroU32::new(burst).unwrap());
        self
    }

    pub(super) fn account(mut self, name: &str) -> Self {
        self.settings.account = Some(name.to_owned());
        self
    }

    pub(super) fn at_once(mut self, most: u32) -> Self {
        self.settings.max_in_flight = NonZeroU32::new(most);
        self
    }
}

/// A pool with a clock and one waiting request's worth of defaults.
pub(super) struct Bench {
    pub(super) pool: Pool,
    pub(super) keys: Vec<Arc<Key>>,
    pub(super) now: Instant,
    pub(super) model: Option<&'static str>,
    pub(super) purpose: &'static str,
    pub(super) stream: bool,
    pub(super) tried: Vec<KeyIdentity>,
    pub(super) demand: Demand,
    pub(super) failed_hosts: Vec<Origin>,
}

impl Bench {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self::with(Strategy::default(), entries)
    }

    pub(super) fn with(strategy: Strategy, entries: Vec<Entry>) -> Self {
        Self::set(Settings { strategy, ..Settings::default() }, entries)
    }

    pub(super) fn set(settings: Settings, entries: Vec<Entry>) -> Self {
        let keys = keys(entries);
        let home = BaseUrl::parse("https://home.test").unwrap();
        let pool = Pool::new(settings, keys.clone(), home.origin(), fastrand::Rng::with_seed(7));
        let now = Clock::system().now().mono + Duration::from_secs(24 * 3600);
        let (tried, failed_hosts) = (Vec::new(), Vec::new());
        let demand = Demand::default();
        Self { pool, keys, now, model: None, purpose: "chat", stream: false, tried, demand, failed_hosts }
    }

    /// A request of the only client.
    pub(super) fn arrive(&mut self) -> Arrival {
        self.pool.arrive(ClientId::default())
    }

    pub(super) fn acquire(&mut self) -> Result<Grant, Exhausted> {
        let arrival = self.arrive();
        self.ask(arrival)
    }

    pub(super) fn ask(&mut self, arrival: Arrival) -> Result<Grant, Exhausted> {
        let Self { model, purpose, stream, demand, .. } = *self;
        let (tried, failed_hosts) = (&self.tried, &self.failed_hosts);
        let want = Want { arrival, model, purpose, stream, tried, failed_hosts, demand };
        self.pool.acquire(self.now, &want)
    }

    /// The number of the key, and its ticket.
    pub(super) fn take(&mut self) -> (usize, Ticket) {
        let Grant { key, ticket } = self.acquire().expect("a key is free");
        (self.number(&key), ticket)
    }

    pub(super) fn number(&self, key: &Key) -> usize {
        self.keys.iter().position(|known| **known == *key).unwrap()
    }

    pub(super) fn settle(&mut self, ticket: Ticket, outcome: Outcome) -> Effects {
        let want = Want {
            arrival: Arrival { number: 0, client: ClientId::default() },
            model: self.model,
            purpose: self.purpose,
            stream: self.stream,
            tried: &[],
            failed_hosts: &[],
            demand: Demand::default(),
        };
        self.pool.settle(self.now, ticket, outcome, &want)
    }

    /// Who should ask again since it has joined.
    pub(super) fn join(&mut self, arrival: Arrival) -> Result<Vec<Arrival>, LineFull> {
        let want = Want {
            arrival,
            model: self.model,
            purpose: self.purpose,
            stream: self.stream,
            tried: &[],
            failed_hosts: &[],
            demand: Demand::default(),
        };
        self.pool.join(&want)
    }

    pub(super) fn heard(&mut self, ticket: &mut Ticket, latency: Duration) -> Effects {
        let want = Want {
            arrival: Arrival { number: 0, client: ClientId::default() },
            model: self.model,
            purpose: self.purpose,
            stream: self.stream,
            tried: &[],
            failed_hosts: &[],
            demand: Demand::default(),
        };
        self.pool.heard(self.now, ticket, latency, &want)
    }

    /// One request that ends in `outcome`; the number of its key.
    pub(super) fn serve(&mut self, outcome: Outcome) -> usize {
        let (key, ticket) = self.take();
        let _ = self.settle(ticket, outcome);
        key
    }

    /// Requests until key `number` is asked, which gets this outcome; the others work.
    pub(super) fn hit(&mut self, number: usize, outcome: Outcome) -> Effects {
        for _ in 0..10_000 {
            let (key, ticket) = self.take();
            if key == number {
                return self.settle(ticket, outcome);
            }
            let _ = self.settle(ticket, Outcome::Good);
        }
        panic!("key {number} is never asked");
    }

    pub(super) fn state(&mut self, number: usize) -> State {
        self.pool.snapshot(self.now).keys[number].state
    }

    /// How often each key is asked in so many requests that all end well.
    pub(super) fn shares(&mut self, requests: usize) -> Vec<usize> {
        let mut counts = vec![0; self.keys.len()];
        for _ in 0..requests {
            counts[self.serve(Outcome::Good)] += 1;
        }
        counts
    }
}

pub(super) fn keys(entries: Vec<Entry>) -> Vec<Arc<Key>> {
    let entries =
        entries.into_iter().map(|entry| (Secret::new(&entry.secret).unwrap(), entry.settings)).collect();
    Key::pool(&PoolName::default(), entries).into_iter().map(Arc::new).collect()
}

pub(super) const FAILED: Outcome = Outcome::Failed(Trouble::ServerError);
pub(super) const OVERLOADED: Outcome = Outcome::HostFailed(Trouble::Overload);

pub(super) const fn rest(reason: Reason) -> Outcome {
    Outcome::Rest { reason, of: Rests::Key, named: None }
}

pub(super) const fn limited(seconds: u64) -> Outcome {
    let named = Some(Duration::from_secs(seconds));
    Outcome::Rest { reason: Reason::RateLimited, of: Rests::Account, named }
}

pub(super) const fn for_model(reason: Reason, seconds: u64) -> Outcome {
    let of =
        if matches!(reason, Reason::ModelUnavailable) { Rests::KeyForModel } else { Rests::AccountForModel };
    Outcome::Rest { reason, of, named: Some(Duration::from_secs(seconds)) }
}
