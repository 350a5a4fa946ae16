//! What an account has left for one model: what its answers announced, less what has been given out since.
//!
//! The estimate goes on by itself, like the upstream's own bucket: what goes out is taken off, what comes back is added.
//! An answer says how things stood when the upstream took its request on; by so much as the estimate was wrong then, it
//! is put right now. So what has gone out since stays taken off, and an error that several answers show is mended once.
//! It is a forecast, no refusal, so it never holds for long against what it can't know: where nothing says when more
//! comes, where no answer has spoken of it for a while, and at least once a minute, the account counts as one that
//! nothing is known of.

use std::time::{Duration, Instant};

use super::tank::{Back, Room, Tank, float};
use crate::types::{Announced, Demand};

/// However long an account is said to be empty, after this time one request finds out whether that is so.
const DOUBTED_AFTER: Duration = Duration::from_secs(60);
/// This part of the tokens is kept back: what requests cost is estimated, and some are estimated too low.
const TOKEN_RESERVE: f64 = 0.02;
/// A refusal comes as a surprise where more than this part of the limits was thought to be left …
const SURPRISE: f64 = 0.05;
/// … and then for so long there may be a limit that no answer speaks of.
const MISLED_FOR: Duration = Duration::from_secs(10 * 60);
/// No answer is longer, whatever it says.
const LONGEST_OUTPUT: u64 = 1 << 20;
/// The weight of the newest output in the average.
const OUTPUT_ALPHA: f64 = 0.1;

/// What is left for one account and model.
#[derive(Debug, Clone, Default)]
pub(super) struct Headroom {
    requests: Option<Tank>,
    tokens: Option<Tank>,
    /// Everything given out so far.
    given: Given,
    /// The attempt whose answer spoke last.
    told_by: u64,
    /// When that came, or when its word was last put to the test.
    trusted: Option<Instant>,
    /// An average of tokens that answers have had.
    output: Option<f64>,
    /// Until then it is not the only guide.
    misled: Option<Instant>,
}

/// Requests and tokens given out, up to a moment. They may overflow: only differences are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Given {
    requests: u32,
    tokens: u32,
}

/// What an attempt was charged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Charge {
    /// The tokens that were taken off for it.
    tokens: u32,
    /// What had been given out by then, this attempt included.
    given: Given,
    /// What was left then, of requests and of tokens, as was thought then, less what had been put right until then.
    /// Not a number where nothing was known.
    left: [f32; 2],
    /// Of which tanks that is.
    of: [u16; 2],
}

impl Charge {
    pub(super) fn counts_tokens(&self) -> bool {
        known(self.left[1]).is_some()
    }
}

fn known(left: f32) -> Option<f64> {
    Some(left).filter(|left| !left.is_nan()).map(f64::from)
}

impl Headroom {
    /// The tokens that a request is estimated at.
    fn estimate(&self, demand: Demand) -> u32 {
        demand.total(self.output)
    }

    /// From when on there is room for a request of this kind, as far as is known.
    pub(super) fn fits_at(&self, now: Instant, demand: Demand) -> Instant {
        self.free_at(now, self.estimate(demand).into())
    }

    /// From when on there is room for the smallest request.
    pub(super) fn opens_at(&self, now: Instant) -> Instant {
        self.free_at(now, 1.0)
    }

    fn free_at(&self, now: Instant, tokens: f64) -> Instant {
        let of = |tank: &Option<Tank>, amount| tank.as_ref().map_or(now, |tank| tank.free_at(now, amount));
        let free = of(&self.requests, 1.0).max(of(&self.tokens, tokens));
        let doubted = self.trusted.map_or(now, |trusted| trusted + DOUBTED_AFTER);
        free.min(doubted).max(now)
    }

    /// The share that is left, of the limit with the least; `None` if nothing is known.
    pub(super) fn share(&self, now: Instant) -> Option<f64> {
        let shares = [&self.requests, &self.tokens].into_iter().flatten().filter_map(|tank| {
            let room = tank.room(now)?;
            Some((room.left / room.limit?).clamp(0.0, 1.0))
        });
        shares.reduce(f64::min)
    }

    /// What is left of requests, and of tokens.
    pub(super) fn rooms(&self, now: Instant) -> [Option<Room>; 2] {
        [&self.requests, &self.tokens].map(|tank| tank.as_ref()?.room(now))
    }

    /// The time between two requests at the rate at which they come back.
    pub(super) fn interval(&self, now: Instant) -> Option<Duration> {
        let tank = self.requests.as_ref().filter(|tank| tank.is_known(now))?;
        match tank.back {
            Back::Steadily(rate) if rate > 0.0 => Duration::try_from_secs_f64(rate.recip()).ok(),
            _ => None,
        }
    }

    /// Whether it says all that there is to say about when the next request may go.
    pub(super) fn guides(&self, now: Instant) -> bool {
        self.misled.is_none_or(|until| until <= now) && self.says_something(now)
    }

    /// A request was refused for a limit of a rate. `charge` is what it was charged.
    pub(super) fn refused(&mut self, now: Instant, charge: Option<Charge>) {
        let Some(charge) = charge else { return };
        let tanks = [&self.requests, &self.tokens].into_iter().zip(charge.left);
        let thought = tanks.filter_map(|(tank, left)| tank.as_ref().zip(known(left)));
        let (mut is_known, mut is_surprise) = (false, true);
        for (tank, left) in thought {
            is_known = true;
            // A larger request may be refused where there is room for smaller ones, but not by that much. And where a
            // window begins is known roughly; its refusals end with it.
            let is_window = matches!(tank.back, Back::AllAt(..));
            is_surprise &= !is_window && left + tank.mended > tank.most * SURPRISE;
        }
        if is_known && is_surprise {
            self.misled = Some(now + MISLED_FOR);
        }
    }

    /// Whether it is worth remembering.
    pub(super) fn says_something(&self, now: Instant) -> bool {
        [&self.requests, &self.tokens].into_iter().flatten().any(|tank| tank.is_known(now))
    }

    /// A request goes out.
    pub(super) fn charge(&mut self, now: Instant, demand: Demand) -> Charge {
        // Of what asks for more than there ever is, no more is taken off: it will be refused, or asked for too much.
        let most = self.tokens.as_ref().map_or(f64::INFINITY, |tank| tank.most);
        let tokens = f64::from(self.estimate(demand)).min(most) as u32;
        self.given.requests = self.given.requests.wrapping_add(1);
        self.given.tokens = self.given.tokens.wrapping_add(tokens);
        let (mut left, mut of) = ([f32::NAN; 2], [0; 2]);
        let amounts = [(&mut self.requests, 1.0), (&mut self.tokens, f64::from(tokens))];
        for (at, (tank, amount)) in amounts.into_iter().enumerate() {
            let Some(tank) = tank else { continue };
            if tank.free_at(now, amount) > now {
                // There is no room for it: it goes to find out whether that is so.
                self.trusted = Some(now);
            }
            tank.take(now, amount);
            (left[at], of[at]) = ((tank.left - tank.mended) as f32, tank.number);
        }
        Charge { tokens, given: self.given, left, of }
    }

    /// Nothing was sent. What was charged is given back, unless an answer has spoken since.
    pub(super) fn refund(&mut self, now: Instant, attempt: u64, charge: Charge) {
        if attempt > self.told_by {
            let amounts = [(&mut self.requests, 1.0), (&mut self.tokens, f64::from(charge.tokens))];
            for (tank, amount) in amounts {
                if let Some(tank) = tank {
                    tank.take(now, -amount);
                }
            }
        }
    }

    /// Of what an attempt was charged, so many tokens were used in the end. The difference counts until an answer
    /// speaks that has it in its numbers.
    pub(super) fn settle(&mut self, now: Instant, attempt: u64, charge: Charge, used: u64) {
        if attempt > self.told_by
            && let Some(tank) = &mut self.tokens
        {
            tank.take(now, float(used) - f64::from(charge.tokens));
        }
    }

    /// An answer had so many tokens.
    pub(super) fn note_output(&mut self, tokens: u64) {
        let tokens = float(tokens.min(LONGEST_OUTPUT));
        self.output = Some(self.output.map_or(tokens, |mean| mean + OUTPUT_ALPHA * (tokens - mean)));
    }

    /// The answer to an attempt that was `sent` then says what is left. `charge` is what that was charged; an attempt
    /// that went out before anything was known was charged nothing, and then `others` more are under way.
    pub(super) fn announced(
        &mut self,
        now: Instant,
        (attempt, sent): (u64, Instant),
        charge: Option<Charge>,
        others: u32,
        announced: &Announced,
    ) {
        // A later one knows better; and so does one that was charged, where any was.
        let is_late = charge.is_none() && self.given.requests > 0 && self.says_something(now);
        if attempt < self.told_by || announced.is_empty() || is_late {
            return;
        }
        self.told_by = attempt;
        self.trusted = Some(now);
        let since = match charge {
            Some(Charge { given, .. }) => {
                let Given { requests, tokens } = self.given;
                let since = [requests.wrapping_sub(given.requests), tokens.wrapping_sub(given.tokens)];
                // It was charged to what has been forgotten since.
                since.map(|since| if since > u32::MAX / 2 { 0 } else { since })
            }
            None => [others, 0],
        };
        let thought =
            charge.map_or([(f32::NAN, 0); 2], |Charge { left, of, .. }| [(left[0], of[0]), (left[1], of[1])]);
        let tanks = [(&mut self.requests, announced.requests), (&mut self.tokens, announced.tokens)];
        let reserves = [0.0, TOKEN_RESERVE];
        for ((((tank, said), since), thought), reserve) in
            tanks.into_iter().zip(since).zip(thought).zip(reserves)
        {
            let Some(said) = said else { continue };
            if tank.as_ref().is_some_and(|tank| tank.has_begun_anew_since(now, sent)) {
                continue;
            }
            let (thought, of) = thought;
            let before = tank.as_ref().filter(|tank| tank.number == of).zip(known(thought));
            *tank = Some(Tank::new(now, (attempt, sent), &said, before, since.into(), reserve));
        }
    }
}

#[cfg(test)]
mod tests;
