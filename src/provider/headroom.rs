//! What an answer says is left of its account's limits. Successes say it too, so this runs on every answer.
//!
//! Which limit a number belongs to is in the header's name; how long the limit's period is, often only in the numbers,
//! which the pool looks at. So nothing here takes a limit for one per minute that might be one per day.

mod ietf;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};

use super::limit_header::{Field, LimitHeader, Unit};
use super::limits;
use crate::types::{Allowance, Announced, Refill};

/// So many limits of one answer are read; providers send four.
const MOST: usize = 16;

/// No count is higher: a trillion tokens is beyond any limit, and a header may lie.
const HIGHEST: u64 = 1 << 40;

/// What `headers` say is left.
///
/// Read are OpenAI's `x-ratelimit-{limit,remaining,reset}-{requests,tokens,project-tokens}` and what others have made
/// of it (Azure's `renewalperiod`, Cerebras' and Mistral's `-minute` and `-day`, Fireworks' `tokens-prompt`, the plain
/// `x-ratelimit-remaining`), `anthropic-ratelimit-*`, and the IETF drafts' `ratelimit-*`, `ratelimit` and
/// `ratelimit-policy`. Nonsense says nothing.
///
/// **Where several limits count the same, the one with the least left decides**, whatever its share: of 5,000 tokens
/// in the project and 100,000 in the organization it is the 5,000 that refuse a request of 6,000.
///
/// **Input and output tokens** count only a part of what a request is estimated at, and don't compare with the whole:
/// Anthropic gives five times as much input as output, so that an untouched output limit would look like the tightest,
/// and a long prompt as if it never fitted. They count by their share: when a tenth of the output tokens is left, at
/// most a tenth of all tokens is.
#[must_use]
pub(super) fn announced(headers: &HeaderMap, wall: SystemTime) -> Announced {
    // Without such headers nothing is allocated.
    let mut readings: Vec<Reading<'_>> = Vec::new();
    let mut drafted = None;
    for (name, value) in headers {
        let name = name.as_str();
        if name == ietf::LEFT {
            drafted = drafted.or_else(|| ietf::allowance(headers));
        }
        let Some(header) = LimitHeader::read(name) else { continue };
        let at = readings.iter().position(|reading| reading.header.is_of(&header)).unwrap_or(readings.len());
        if at == MOST {
            continue;
        }
        if at == readings.len() {
            readings.push(Reading::new(header));
        }
        readings[at].take(header.field, value, wall);
    }
    let mut announced = Announced { requests: drafted, tokens: None };
    let mut parts = Parts::default();
    for (unit, allowance) in readings.iter().filter_map(Reading::allowance) {
        match unit {
            Unit::Requests => announced.requests = tighter(announced.requests, allowance),
            Unit::Tokens => announced.tokens = tighter(announced.tokens, allowance),
            Unit::SomeTokens => parts.add(allowance),
        }
    }
    if let Some(whole) = parts.as_whole(announced.tokens.and_then(|tokens| tokens.limit)) {
        announced.tokens = tighter(announced.tokens, whole);
    }
    announced
}

/// What the headers of one limit say.
struct Reading<'a> {
    header: LimitHeader<'a>,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
    period: Option<Duration>,
}

impl<'a> Reading<'a> {
    const fn new(header: LimitHeader<'a>) -> Self {
        Self { header, limit: None, remaining: None, reset: None, period: None }
    }

    fn take(&mut self, field: Field, value: &HeaderValue, wall: SystemTime) {
        let Some(text) = value.to_str().ok().map(str::trim) else { return };
        match field {
            Field::Limit => self.limit = self.limit.or_else(|| count(text)),
            Field::Remaining => self.remaining = self.remaining.or_else(|| count(text)),
            Field::Reset => self.reset = self.reset.or_else(|| limits::reset(text, wall)),
            Field::Period => self.period = self.period.or_else(|| limits::seconds(text)),
        }
    }

    /// `None` if it doesn't say what is left, or counts something else than requests and tokens.
    fn allowance(&self) -> Option<(Unit, Allowance)> {
        let counted = self.header.counted()?;
        let remaining = self.remaining?;
        // More left than there can be: then the limit is another one.
        let limit = self.limit.filter(|limit| *limit >= remaining);
        let reset = match counted.refill {
            Refill::Continuous => self.reset.filter(|reset| !reset.is_zero()).or_else(|| {
                // Azure rounds its resets down to seconds, and says 0 of tokens that are used up.
                let limit = limit.filter(|limit| *limit > 0)?;
                let used = (limit - remaining) as f64 / limit as f64;
                Some(limits::capped(self.period?.mul_f64(used)))
            }),
            Refill::Window => self.reset.or(counted.period),
        };
        let reset = reset.or(self.reset);
        Some((counted.unit, Allowance { limit, remaining, reset, refill: counted.refill }))
    }
}

/// Limits on a part of the tokens.
#[derive(Default)]
struct Parts {
    /// The one with the smallest share left.
    least: Option<Allowance>,
    /// The sum of all.
    limit: u64,
}

impl Parts {
    fn add(&mut self, part: Allowance) {
        // Of a part without a limit only one thing is clear: that nothing is left.
        if part.limit.is_none() && part.remaining > 0 {
            return;
        }
        let full = |part: &Allowance| u128::from(part.limit.unwrap_or(1).max(1));
        let share_is_smaller = |least: &Allowance| {
            u128::from(part.remaining) * full(least) < u128::from(least.remaining) * full(&part)
        };
        self.limit = self.limit.saturating_add(part.limit.unwrap_or_default());
        if self.least.as_ref().is_none_or(share_is_smaller) {
            self.least = Some(part);
        }
    }

    /// The smallest share, as a share of all tokens: of `limit` if that is known, else of all parts together.
    fn as_whole(&self, limit: Option<u64>) -> Option<Allowance> {
        let least = self.least?;
        let limit = limit.unwrap_or(self.limit);
        let full = least.limit.unwrap_or(1).max(1);
        let remaining = u128::from(limit) * u128::from(least.remaining) / u128::from(full);
        let remaining = u64::try_from(remaining).unwrap_or(limit);
        Some(Allowance { limit: Some(limit), remaining, ..least })
    }
}

/// The one with less left; of two with the same, the one that comes back later.
fn tighter(one: Option<Allowance>, other: Allowance) -> Option<Allowance> {
    let one = one.unwrap_or(other);
    let order = one.remaining.cmp(&other.remaining).then(other.reset.cmp(&one.reset));
    Some(if order.is_le() { one } else { other })
}

/// A count, rounded down and capped.
fn count(text: &str) -> Option<u64> {
    // A number too large for the type becomes the largest one.
    limits::number(text).map(|number| (number as u64).min(HIGHEST))
}

#[cfg(test)]
mod tests;
