//! Late keys: those that let requests wait while others answer.
//!
//! A key whose requests hang would be found out by their timeout, minutes later, and all that time it would be given
//! more. So for each key it is known how many attempts it has left without a head since its last one, and since when;
//! and for each host, how long heads usually take. A key that is behind by both, while heads come elsewhere, is late.
//! It is passed over like a key on trial, as long as another can serve, and tried now and then: a head clears it.
//!
//! That is a suspicion, not a verdict: no request is refused for it, and where everything is slow, or nobody answers,
//! nobody is late.

use std::time::{Duration, Instant};

use super::{Effects, Pool, Ticket};

/// So many heads tell what is usual.
const ENOUGH: f64 = 8.0;
/// The weight of a head in the averages, once there have been many, is one in so many.
const MEMORY: f64 = 64.0;
/// Heads come later than this many deviations (RFC 6298) next to never.
const DEVIATIONS: f64 = 4.0;
/// A difference below this is no matter.
const LEAST: Duration = Duration::from_millis(100);
/// A lone attempt must be so many times as late as usual heads come at the latest: it may be a long one. Several
/// share that.
const LONE: f64 = 4.0;
/// So many heads must have come elsewhere meanwhile, or one for each attempt.
const WITNESSES: u32 = 3;
/// A late key is tried again after this time, then each time after about twice as long, …
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// … and never later than that.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How long heads take at one host: an average, and how far they are from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usual {
    mean: f64,
    deviation: f64,
    seen: f64,
}

impl Usual {
    fn note(&mut self, took: Duration) {
        self.seen = (self.seen + 1.0).min(MEMORY);
        let off = took.as_secs_f64() - self.mean;
        self.mean += off / self.seen;
        // Of the first there is nothing to deviate from.
        let off = if self.seen > 1.0 { off.abs() } else { 0.0 };
        self.deviation += (off - self.deviation) / self.seen;
    }

    /// By when a head has come as a rule, in seconds.
    fn latest(&self) -> Option<f64> {
        let latest = self.mean + DEVIATIONS * self.deviation;
        (self.seen >= ENOUGH).then(|| latest.max(LEAST.as_secs_f64()))
    }
}

/// The attempts of a key, of one kind, that were sent after its last head and have brought none.
///
/// It is looked at with every pick, and there are two for each key: so it is kept small.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Silence {
    /// How many there are.
    sent: u32,
    /// How many of these are still out; the others were given up.
    out: u32,
    /// When it began, moved on by what lay between two attempts while none was out.
    began: Option<Instant>,
    /// How long after that nobody waited any more, if nobody does; and how long after it the last was sent.
    given_up: Millis,
    last_sent: Millis,
    before: Counts,
    /// How many silences there were before.
    number: u32,
}

/// How many attempts have been made and how many heads have come in the whole pool; only differences are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    attempts: u32,
    heads: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Millis(u32);

impl Millis {
    fn between(since: Instant, now: Instant) -> Self {
        Self(u32::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u32::MAX))
    }

    fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl Silence {
    fn sent(&mut self, now: Instant, counts: Counts) {
        let began = match self.began.filter(|_| self.sent > 0) {
            Some(began) if self.out > 0 => began,
            Some(began) => began + now.saturating_duration_since(began + self.given_up.duration()),
            None => {
                self.before = counts;
                now
            }
        };
        self.began = Some(began);
        self.last_sent = Millis::between(began, now);
        self.sent = self.sent.saturating_add(1);
        self.out = self.out.saturating_add(1);
    }

    fn given_up(&mut self, now: Instant) {
        self.out = self.out.saturating_sub(1);
        if let Some(began) = self.began.filter(|_| self.out == 0) {
            self.given_up = Millis::between(began, now);
        }
    }

    fn end(&mut self) {
        *self = Self { number: self.number.wrapping_add(1), ..Self::default() };
    }

    /// Whether it has lasted too long.
    fn is_late(&self, now: Instant, usual: &Usual, counts: Counts) -> bool {
        let Some(began) = self.began.filter(|_| self.sent > 0) else { return false };
        let age = if self.out > 0 { now.saturating_duration_since(began) } else { self.given_up.duration() };
        if age < LEAST {
            return false;
        }
        let elsewhere = counts.attempts.wrapping_sub(self.before.attempts).saturating_sub(self.sent);
        let heads = counts.heads.wrapping_sub(self.before.heads);
        // Where nobody else was asked it is worth asking.
        if heads < WITNESSES && heads < elsewhere {
            return false;
        }
        let age = age.as_secs_f64();
        usual.latest().is_some_and(|latest| age >= latest && age * f64::from(self.sent) >= latest * LONE)
    }

    /// Whether it is time to find out whether it is over.
    fn is_due(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| {
            let last_sent = self.last_sent.duration();
            now.saturating_duration_since(began + last_sent) >= last_sent.clamp(FIRST_RETRY, LAST_RETRY)
        })
    }
}

/// Of those that ask for a stream and those that don't: the heads of these come when the work is done.
pub(super) type ByKind<T> = [T; 2];

/// Which silence of its key an attempt is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Whether it is of streams.
    stream: bool,
    number: u32,
}

impl Part {
    #[cfg(test)]
    pub(super) const NONE: Self = Self { stream: false, number: u32::MAX };
}

impl Pool {
    /// Whether `slot` lets requests wait while others answer.
    pub(super) fn is_late(&self, slot: u32, now: Instant) -> bool {
        let slot = &self.slots[slot as usize];
        let usual = &self.hosts[slot.host as usize].usual;
        slot.silences.iter().zip(usual).any(|(silence, usual)| silence.is_late(now, usual, self.counts()))
    }

    /// Whether a late key may be tried once more though others are sound.
    pub(super) fn late_is_due(&self, slot: u32, now: Instant) -> bool {
        self.slots[slot as usize].silences.iter().all(|silence| silence.is_due(now))
    }

    fn counts(&self) -> Counts {
        #[expect(clippy::cast_possible_truncation, reason = "only differences are asked for")]
        let attempts = self.attempts as u32;
        Counts { attempts, heads: self.heads }
    }

    /// An attempt begins.
    pub(super) fn silent_from(&mut self, slot: u32, now: Instant, stream: bool) -> Part {
        let kind = usize::from(stream);
        let counts = self.counts();
        let silence = &mut self.slots[slot as usize].silences[kind];
        silence.sent(now, counts);
        Part { stream, number: silence.number }
    }

    /// A head has come for `ticket`, of an answer that was asked for.
    pub(super) fn note_head(&mut self, ticket: &Ticket, took: Duration) {
        self.heads = self.heads.wrapping_add(1);
        let host = self.slots[ticket.slot as usize].host;
        self.hosts[host as usize].usual[usize::from(ticket.part.stream)].note(took);
    }

    /// The key answers.
    pub(super) fn silence_ends(&mut self, slot: u32, effects: &mut Effects) {
        let this = &mut self.slots[slot as usize];
        for silence in this.silences.iter_mut().filter(|silence| silence.sent > 0) {
            silence.end();
        }
        if std::mem::take(&mut this.sidelined) {
            self.tell(slot, effects);
        }
    }

    /// Nobody waits for the head of `ticket` any more.
    pub(super) fn head_given_up(&mut self, now: Instant, ticket: &Ticket) {
        if let Some(silence) = self.silence_of(ticket) {
            silence.given_up(now);
        }
    }

    /// Nothing was sent with `ticket`, so nothing was to be expected.
    pub(super) fn head_not_expected(&mut self, now: Instant, ticket: &Ticket) {
        if let Some(silence) = self.silence_of(ticket) {
            silence.given_up(now);
            silence.sent -= 1;
        }
    }

    /// The silence that the attempt is part of, if that lasts.
    fn silence_of(&mut self, ticket: &Ticket) -> Option<&mut Silence> {
        let Part { stream, number } = ticket.part;
        let silence = &mut self.slots[ticket.slot as usize].silences[usize::from(stream)];
        (silence.number == number && silence.sent > 0).then_some(silence)
    }
}
