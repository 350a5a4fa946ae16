//! What happens to a pool, read from bytes: a byte or two for each choice, so that a small change of the input is a
//! small change of the story.

use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    sync::LazyLock,
    time::Duration,
};

use arbitrary::{Arbitrary, Result, Unstructured};
use key_cycle_proxy::{
    pool::{Outcome, Reason, Rests, Settings, Strategy, Trouble},
    rate::Rate,
    types::{BaseUrl, KeySettings, ModelSet},
};

/// Bases of keys: two of them are one host.
const BASES: [&str; 4] =
    ["https://one.test", "https://two.test/a", "https://two.test/b", "https://three.test"];
/// Models that requests name.
pub const MODELS: [Option<&str>; 7] =
    [None, Some("m1"), Some("m1-mini"), Some("m2"), Some("x"), Some("é2"), Some("")];
/// Models that entries name.
const NAMED: [&[&str]; 10] = [
    &[],
    &["m1"],
    &["m*"],
    &["m1*", "others"],
    &["m1", "m2", "others"],
    &["m1", "m2"],
    &["*"],
    &["é*", "m1"],
    &["é2", "é*", "others"],
    &["x"],
];
/// More models than a pool remembers the rests of.
pub static MANY: LazyLock<Vec<String>> = LazyLock::new(|| (0..512).map(|n| format!("m1-{n}")).collect());
const RESTS: [Rests; 4] = [Rests::Key, Rests::KeyForModel, Rests::Account, Rests::AccountForModel];
const PURPOSES: [&str; 3] = ["chat", "embeddings", "images"];
const MOST_ENTRIES: usize = 8;

/// A pool, and what happens to it.
#[derive(Debug)]
pub struct Script {
    pub settings: Settings,
    pub seed: u8,
    pub entries: Vec<Entry>,
    pub ops: Vec<Op>,
}

/// An entry, as a file would have it.
#[derive(Debug)]
pub struct Entry {
    pub secret: u8,
    pub settings: KeySettings,
}

#[derive(Debug)]
pub enum Op {
    /// A request comes.
    Ask { model: Option<&'static str>, purpose: &'static str, refused: Refused },
    /// A head comes.
    Heard { which: u8, after: Duration },
    /// An attempt ends; perhaps its request asks again.
    Settle { which: u8, outcome: Outcome, again: Option<Refused> },
    /// Somebody who waits goes away.
    Leave { which: u8 },
    /// Those who were woken ask.
    Wake,
    /// Time passes.
    Advance(Duration),
    /// Time passes until the first of those who wait has been told to ask.
    AdvanceToNext,
    /// Rests are lifted.
    Lift { key: u8, reason: Reason },
    /// One request after the other, each of which waits as long as it is told, with one and the same end.
    Run { model: Option<&'static str>, outcome: Outcome, times: u8 },
    /// The same, each for another model, from this one of [`MANY`] on.
    Many { first: usize, outcome: Outcome, times: u8 },
}

/// What a request does that gets no key.
#[derive(Debug, Clone, Copy)]
pub enum Refused {
    GivesUp,
    Waits,
    /// It comes back at the moment that it was told, and a moment before.
    ComesBack,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let rules: u8 = u.arbitrary()?;
        let settings = Settings {
            strategy: pick(&Strategy::NAMES, rules & 7).1,
            others_step_in: rules & 0x40 != 0,
            max_waiting: NonZeroUsize::MIN.saturating_add(usize::from(rules >> 3 & 7)),
            unhealthy_penalty: if rules & 0x80 == 0 { 5.0 } else { f64::NAN },
        };
        let seed = u.arbitrary()?;
        let count = usize::from(u.arbitrary::<u8>()?) % (MOST_ENTRIES + 1);
        let entries = (0..count).map(|_| u.arbitrary()).collect::<Result<_>>()?;
        let mut ops = Vec::new();
        while !u.is_empty() {
            ops.push(u.arbitrary()?);
        }
        Ok(Self { settings, seed, entries, ops })
    }
}

impl<'a> Arbitrary<'a> for Entry {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let [who, limits, rank]: [u8; 3] = u.arbitrary()?;
        let base = BaseUrl::parse(pick(&BASES, who >> 2)).expect("these are base URLs");
        let mut settings = KeySettings::at(base);
        settings.models = ModelSet::parse(pick(&NAMED, who >> 4)).expect("these are names");
        let (per_second, burst) = match limits >> 4 {
            0 => (1e-6, 1),
            1 => (1e6, u32::MAX),
            2 => (0.01, u32::MAX),
            n @ 3..8 => (f64::from(n), u32::from(n) / 2),
            _ => (0.0, 1),
        };
        settings.account = match limits >> 4 {
            12 | 13 => Some("work".to_owned()),
            14 | 15 => Some("play".to_owned()),
            _ => None,
        };
        settings.priority = [0, 1, 2, u8::MAX][usize::from(rank & 3)];
        settings.rate = Rate::per_second(per_second, NonZeroU32::new(burst).expect("no burst is zero"));
        settings.max_in_flight = NonZeroU32::new(u32::from(limits & 3));
        settings.weight = match limits >> 2 & 3 {
            0 | 1 => NonZeroU16::MIN,
            2 => NonZeroU16::MIN.saturating_add(2),
            _ => NonZeroU16::MAX,
        };
        Ok(Self { secret: who & 3, settings })
    }
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let what: u8 = u.arbitrary()?;
        // What the low bits choose is done; the high ones are details of it.
        let detail = what >> 4;
        Ok(match what & 15 {
            0..4 => {
                let purpose = pick(&PURPOSES, detail >> 2);
                Self::Ask { model: model(u)?, purpose, refused: refused(detail) }
            }
            4 => Self::Heard { which: u.arbitrary()?, after: Duration::from_millis(u64::from(detail) * 40) },
            5..8 => Self::Settle { which: u.arbitrary()?, outcome: outcome(u)?, again: None },
            8 | 9 => {
                Self::Settle { which: u.arbitrary()?, outcome: outcome(u)?, again: Some(refused(detail)) }
            }
            10 => Self::Leave { which: detail },
            11 => Self::Wake,
            12 => Self::Advance(duration(u)?),
            13 => Self::AdvanceToNext,
            14 if detail < 8 => Self::Lift { key: detail, reason: pick(&Reason::ALL, u.arbitrary()?) },
            14 => Self::Many {
                first: usize::from(detail & 7) * MANY.len() / 8,
                outcome: outcome(u)?,
                times: u.arbitrary()?,
            },
            _ => Self::Run { model: model(u)?, outcome: outcome(u)?, times: u.arbitrary()? },
        })
    }
}

fn model(u: &mut Unstructured<'_>) -> Result<Option<&'static str>> {
    Ok(pick(&MODELS, u.arbitrary()?))
}

fn refused(detail: u8) -> Refused {
    [Refused::Waits, Refused::ComesBack, Refused::GivesUp, Refused::Waits][usize::from(detail & 3)]
}

fn outcome(u: &mut Unstructured<'_>) -> Result<Outcome> {
    let what: u8 = u.arbitrary()?;
    Ok(match what & 15 {
        0 | 1 => Outcome::Good,
        2 => Outcome::Harmless,
        3 => Outcome::Denied,
        4 | 5 => Outcome::Failed(pick(&Trouble::ALL, what >> 5)),
        6 => Outcome::HostFailed(pick(&Trouble::ALL, what >> 5)),
        7 => Outcome::Abandoned,
        8 => Outcome::Unused,
        _ => {
            let named = if what & 0x10 == 0 { None } else { Some(duration(u)?) };
            Outcome::Rest { reason: pick(&Reason::ALL, what >> 5), of: pick(&RESTS, what), named }
        }
    })
}

/// From nothing to more than any clock can count, mostly up to some minutes.
fn duration(u: &mut Unstructured<'_>) -> Result<Duration> {
    let amount: u8 = u.arbitrary()?;
    let n = u64::from(amount >> 3);
    Ok(match amount & 7 {
        0 => Duration::from_nanos(n),
        1 | 2 => Duration::from_millis(n * 40),
        3..6 => Duration::from_secs(n),
        6 => Duration::from_secs(n * n * 60),
        _ if amount == 0xff => Duration::MAX,
        _ => Duration::from_secs(n * 3600),
    })
}

fn pick<T: Copy>(all: &[T], which: u8) -> T {
    all[usize::from(which) % all.len()]
}
