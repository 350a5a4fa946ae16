//! The keys that the simulated upstream knows, and how it treats requests that bring them.

use std::time::{Duration, Instant};

/// What all their secrets begin with.
const PREFIX: &str = "sk-soak-";
/// How often a key that is not quite well fails.
const FAILS: f64 = 0.05;
/// A limited key's rate, and how soon the next request is said to pass.
const PER_SECOND: f64 = 40.0;
const BURST: f64 = 20.0;
const SOON: Duration = Duration::from_millis(100);
/// A key with a quota may be used so often, and then not before so long.
const QUOTA: u32 = 400;
const QUOTA_RESET: Duration = Duration::from_secs(3);

/// How a key behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Character {
    Good,
    /// 429 beyond its rate.
    Limited,
    /// 429 when its quota is used up, until it is there again.
    Quota,
    /// 429 now and then, for no reason that could be learned.
    Moody,
    /// Now and then a 500.
    Failing,
    /// Now and then its connections break before there is an answer.
    Breaking,
    /// 401 always.
    Revoked,
}

/// At least one of them is always good.
pub(crate) const ALL: [(&str, Character); 8] = [
    ("good", Character::Good),
    ("limited", Character::Limited),
    ("quota", Character::Quota),
    ("failing", Character::Failing),
    ("breaking", Character::Breaking),
    ("revoked", Character::Revoked),
    ("sound", Character::Good),
    ("moody", Character::Moody),
];

/// What is done with a request instead of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 429, and when to come back.
    NotNow(Duration),
    /// Another refusal, with this status.
    Refusal(u16),
    /// The connection ends instead.
    Break(Break),
}

/// How a connection ends before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Reset,
    Close,
    /// In the middle of the head.
    HalfAHead,
}

/// One key at the upstream.
#[derive(Debug)]
pub(crate) struct Key {
    authorization: String,
    character: Character,
    /// Of a limited key what may still come at once, and since when that counts.
    tokens: f64,
    filled: Instant,
    /// What a quota has left, and when it is there again.
    left: u32,
    resets: Instant,
}

impl Key {
    pub(crate) fn all(now: Instant) -> Vec<Self> {
        ALL.iter()
            .map(|(name, character)| Self {
                authorization: format!("Bearer {}", secret(name)),
                character: *character,
                tokens: BURST,
                filled: now,
                left: QUOTA,
                resets: now,
            })
            .collect()
    }

    pub(crate) fn is(&self, authorization: &[u8]) -> bool {
        self.authorization.as_bytes() == authorization
    }

    /// What becomes of a request that brings it; `None`: an answer.
    pub(crate) fn fault(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Option<Fault> {
        let fails = rng.f64() < FAILS;
        match self.character {
            Character::Good => None,
            Character::Limited => self.is_over_rate(now).then_some(Fault::NotNow(SOON)),
            Character::Quota => self.is_over_quota(now).then(|| Fault::NotNow(self.resets - now)),
            Character::Moody => fails.then_some(Fault::NotNow(SOON)),
            Character::Failing => fails.then_some(Fault::Refusal(500)),
            Character::Breaking if fails => {
                rng.choice([Break::Reset, Break::Close, Break::HalfAHead]).map(Fault::Break)
            }
            Character::Breaking => None,
            Character::Revoked => Some(Fault::Refusal(401)),
        }
    }

    fn is_over_rate(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        self.filled = now;
        let over = self.tokens < 1.0;
        if !over {
            self.tokens -= 1.0;
        }
        over
    }

    fn is_over_quota(&mut self, now: Instant) -> bool {
        if self.left == 0 && self.resets <= now {
            self.left = QUOTA;
        }
        let over = self.left == 0;
        if !over {
            self.left -= 1;
            self.resets = now + QUOTA_RESET;
        }
        over
    }
}

/// The key as the configuration has it.
pub(crate) fn secret(name: &str) -> String {
    format!("{PREFIX}{name}")
}
