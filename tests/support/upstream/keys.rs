//! What each key gets.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::dialect::Dialect;
use super::faults::{Fault, overload_event};
use super::record::Recorded;
use super::script::{Answer, Body};
use super::{Hub, lock};

/// The part of a key, to be written.
pub struct KeyScript<'a> {
    keys: &'a Keys,
    key: String,
}

/// Ready-made parts.
#[derive(Debug, Clone, Copy)]
pub enum Character {
    Good,
    /// Answers, after this long.
    Slow(Duration),
    /// So many requests per second, after a burst of so many.
    RateLimited {
        rps: f64,
        burst: u32,
    },
    /// Not accepted: 401, or 400 of Gemini.
    Revoked,
    /// With this probability a 500 or a reset connection, in equal shares.
    Flaky {
        probability: f64,
        seed: u64,
    },
    /// Nothing left to spend.
    OutOfQuota,
    /// 500.
    Failing,
    /// 503, or 529 of Anthropic.
    Overloaded,
    /// Streams two pieces and breaks off.
    Breaking,
    /// Streams two pieces and falls silent.
    Stalling,
    /// Streams three pieces, then an error event.
    OverloadedLater,
}

impl KeyScript<'_> {
    /// These answers in order; the last one repeats.
    pub fn answers(&self, answers: impl IntoIterator<Item = Answer>) -> &Self {
        self.change(|part| part.script = answers.into_iter().collect())
    }

    /// This answer every time.
    pub fn always(&self, answer: Answer) -> &Self {
        self.answers([answer])
    }

    /// One of the ready-made parts.
    pub fn is(&self, character: Character) -> &Self {
        match character {
            Character::Good => self.always(Answer::api()),
            Character::Slow(delay) => self.always(Answer::api().delay(delay)),
            Character::RateLimited { rps, burst } => self.limit(rps, burst).always(Answer::api()),
            Character::Revoked => self.always(Answer::revoked()),
            Character::Flaky { probability, seed } => self.always(flaky(probability, seed)),
            Character::OutOfQuota => self.always(Answer::out_of_quota()),
            Character::Failing => self.always(Answer::failing()),
            Character::Overloaded => self.always(Answer::overloaded()),
            Character::Breaking => self.always(Answer::api().cut_after(2)),
            Character::Stalling => self.always(Answer::api().stall_after(2)),
            Character::OverloadedLater => self.always(Answer::overloaded_after(3)),
        }
    }

    /// A token bucket, shared by the keys of this key's account. Refusals use up nothing of the script.
    pub fn limit(&self, rps: f64, burst: u32) -> &Self {
        let mut parts = lock(&self.keys.parts);
        let account = parts.account(&self.key);
        parts.buckets.insert(account, Bucket::full(rps, burst));
        drop(parts);
        self
    }

    /// The project that this key belongs to: its limit, its files, its `openai-project` header. A key that was
    /// never given one is a project of its own.
    pub fn account(&self, account: &str) -> &Self {
        self.change(|part| part.account = Some(account.to_owned()))
    }

    fn change(&self, change: impl FnOnce(&mut Part)) -> &Self {
        change(lock(&self.keys.parts).known.entry(self.key.clone()).or_default());
        self
    }
}

fn flaky(probability: f64, seed: u64) -> Answer {
    let dice = Mutex::new(fastrand::Rng::with_seed(seed));
    Answer::with(move |_| {
        let mut dice = lock(&dice);
        match (dice.f64() < probability, dice.bool()) {
            (false, _) => Answer::api(),
            (true, false) => Answer::failing(),
            (true, true) => Answer::failing().reset_before_head(),
        }
    })
}

pub(super) struct Keys {
    parts: Mutex<Parts>,
}

struct Parts {
    known: HashMap<String, Part>,
    buckets: HashMap<String, Bucket>,
    otherwise: Answer,
    reject_unknown: bool,
}

#[derive(Default)]
struct Part {
    script: VecDeque<Answer>,
    account: Option<String>,
}

struct Bucket {
    rps: f64,
    burst: u32,
    level: f64,
    at: Instant,
}

/// A bucket as the rate headers tell it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub limit: u32,
    pub remaining: u32,
    pub reset: Duration,
}

impl Keys {
    pub fn new() -> Self {
        let parts = Parts {
            known: HashMap::new(),
            buckets: HashMap::new(),
            otherwise: Answer::api(),
            reject_unknown: false,
        };
        Self { parts: Mutex::new(parts) }
    }

    pub fn script(&self, key: &str) -> KeyScript<'_> {
        lock(&self.parts).known.entry(key.to_owned()).or_default();
        KeyScript { keys: self, key: key.to_owned() }
    }

    pub fn set_otherwise(&self, answer: Answer) {
        lock(&self.parts).otherwise = answer;
    }

    pub fn reject_unknown(&self) {
        lock(&self.parts).reject_unknown = true;
    }

    /// The next answer for this key.
    pub fn choose(&self, key: Option<&str>) -> Answer {
        let mut parts = lock(&self.parts);
        let Some(key) = key else { return parts.otherwise.clone() };
        if parts.reject_unknown && !parts.known.contains_key(key) {
            return Answer::revoked();
        }
        let account = parts.account(key);
        if let Some(bucket) = parts.buckets.get_mut(&account)
            && let Err(wait) = bucket.take()
        {
            return Answer::fault(429, Fault::RateLimited(wait, Some(bucket.standing())));
        }
        match parts.known.get_mut(key).map(|part| &mut part.script) {
            Some(script) if script.len() > 1 => script.pop_front().expect("there are several"),
            Some(script) if script.len() == 1 => script[0].clone(),
            _ => parts.otherwise.clone(),
        }
    }
}

impl Hub {
    /// What the chosen answer comes to for this request.
    pub(super) fn settle(&self, mut answer: Answer, request: &Recorded) -> Answer {
        loop {
            let computed = match &answer.body {
                Body::Computed(compute) => compute(request),
                Body::Fault(fault) => fault.answer(request, self.api.number()),
                Body::Api => self.api_answer(request),
                Body::ApiUntil(pieces) => self.overloaded_after(*pieces, request),
                _ => return answer,
            };
            answer = answer.onto(computed);
        }
    }

    fn api_answer(&self, request: &Recorded) -> Answer {
        let dialect = Dialect::of_request(request);
        let Some(key) = dialect.own_key(&request.headers, &request.target) else {
            return Fault::NoKey.answer(request, self.api.number());
        };
        let mut parts = lock(&self.keys.parts);
        let account = parts.account(&key);
        let unlimited = Standing { limit: 10_000, remaining: 9_999, reset: Duration::from_millis(6) };
        let standing = parts.buckets.get_mut(&account).map_or(unlimited, |bucket| bucket.standing());
        drop(parts);
        self.api.answer(dialect, request, &account, standing)
    }

    fn overloaded_after(&self, pieces: usize, request: &Recorded) -> Answer {
        let mut answer = self.api_answer(request);
        if let Body::Events(events) = &mut answer.body {
            events.truncate(pieces);
            events.push(overload_event(request, self.api.number()).into());
        }
        answer
    }
}

impl Parts {
    fn account(&self, key: &str) -> String {
        let given = self.known.get(key).and_then(|part| part.account.clone());
        given.unwrap_or_else(|| format!("proj_{:016x}", super::api::fnv(key.as_bytes())))
    }
}

impl Bucket {
    fn full(rps: f64, burst: u32) -> Self {
        Self { rps, burst, level: f64::from(burst), at: now() }
    }

    fn refill(&mut self) {
        let now = now();
        let gained = now.duration_since(self.at).as_secs_f64() * self.rps;
        self.level = (self.level + gained).min(f64::from(self.burst));
        self.at = now;
    }

    /// One token, or how long until there is one.
    fn take(&mut self) -> Result<(), Duration> {
        self.refill();
        // A wait rounded to nanoseconds may leave the bucket this much short of a token.
        if self.level >= 1.0 - 1e-6 {
            self.level = (self.level - 1.0).max(0.0);
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.level) / self.rps))
    }

    fn standing(&mut self) -> Standing {
        self.refill();
        let missing = f64::from(self.burst) - self.level;
        Standing {
            limit: self.burst,
            remaining: self.level as u32,
            reset: Duration::from_secs_f64(missing / self.rps),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tokio's clock, which stands still where a test pauses it")]
fn now() -> Instant {
    Instant::now()
}
