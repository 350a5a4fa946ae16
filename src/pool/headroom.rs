//! What an account has left for one model: what its answers announced, less what has been given out since.
//!
//! The estimate goes on by itself, like the upstream's own bucket: what goes out is taken off, what comes back is added.
//! An answer says how things stood when the upstream took its request on; by so much as the estimate was wrong then, it
//! is put right now. So what has gone out since stays taken off, and an error that several answers show is mended once.
//! It is a forecast, no refusal, so it never holds for long against what it can't know:
//! where nothing says when more comes, where no answer has spoken of it for a while, and at least once a minute, the
//! account counts as one that nothing is known of.

use std::time::{Duration, Instant};

use crate::types::{Allowance, Announced, Demand, Refill};

/// For so long what was announced is good at least. Most limits are per minute.
const KEPT: Duration = Duration::from_secs(60);
/// And a little longer, so that at the beginning of a window it is still known how much is in it.
const AND_THEN: Duration = Duration::from_secs(10);
/// However long an account is said to be empty, after this time one request finds out whether that is so.
const DOUBTED_AFTER: Duration = Duration::from_secs(60);
/// What limits are for, in seconds: a second, a minute, an hour, a day. What comes near is taken for it …
const PERIODS: [f64; 4] = [60.0, 86_400.0, 3_600.0, 1.0];
/// … as near as this, or as rounding explains.
const ROUNDED: f64 = 0.1;
/// Of less than this share of a limit, the rate at which it comes back is not computed: resets are rounded.
const TOO_LITTLE_TO_TELL: f64 = 0.02;
/// A request that is estimated at more than this part of a limit is sent when so much is there: the estimate may be
/// too high, and if it is not, no key of that account will ever serve it.
const LARGEST_PART: f64 = 0.5;
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

/// What is left of one limit at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// How much, as far as can be told. Below zero, more was given out than there was.
    pub left: f64,
    /// Of how much, if that is known.
    pub limit: Option<f64>,
}

/// One limit, as the upstream keeps it.
#[derive(Debug, Clone, Copy)]
struct Tank {
    /// Its number: what is known of one says nothing of another.
    number: u16,
    left: f64,
    at: Instant,
    /// By how much answers have put it right.
    mended: f64,
    /// What is not given out: estimates may be too low.
    reserve: f64,
    /// How much there is when it is full. Infinite where nobody has said.
    most: f64,
    back: Back,
    /// From then on nothing is known of it.
    until: Instant,
}

/// How more comes.
#[derive(Debug, Clone, Copy)]
enum Back {
    /// So much in a second.
    Steadily(f64),
    /// All at once, at this moment; and then, it seems, each time after so long.
    AllAt(Instant, Duration),
    /// Nobody has said.
    Unknown,
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
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
            let mut filled = Tank::new(now, sent, &said, before, since.into(), reserve);
            if filled.number == 0 {
                filled.number = number_of(attempt);
            }
            *tank = Some(filled);
        }
    }
}

/// A number for a tank that the answer to `attempt` has filled; never 0.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is small enough")]
fn number_of(attempt: u64) -> u16 {
    (attempt % u64::from(u16::MAX)) as u16 + 1
}

/// The rate at which a limit of `most` comes back, of which so much is `used` and back after `reset`.
fn rate(most: f64, used: f64, reset: Duration, known: Option<Back>) -> Back {
    let period = most / used * reset.as_secs_f64();
    // What is used is rounded, by one at the most; and resets are rounded, too.
    let near = |other: &f64| {
        let ratio = period / other;
        let wrong = used.recip().max(ROUNDED);
        ratio * (1.0 + wrong) >= 1.0 && ratio <= 1.0 + wrong
    };
    match (PERIODS.iter().find(|other| near(other)), known) {
        (Some(period), _) => Back::Steadily(most / period),
        (None, Some(known @ Back::Steadily(_))) if used < most * TOO_LITTLE_TO_TELL => known,
        (None, _) => Back::Steadily(most / period),
    }
}

impl Tank {
    /// As an answer to a request that was `sent` then says. What was thought `before` is compared with it; a new one,
    /// since whose answer's request so much was `given` out, has no number yet.
    fn new(
        now: Instant,
        sent: Instant,
        said: &Allowance,
        before: Option<(&Self, f64)>,
        given: f64,
        reserve: f64,
    ) -> Self {
        let remaining = float(said.remaining);
        let most = said.limit.map_or(f64::INFINITY, |limit| float(limit).max(1.0));
        let before = before.filter(|(before, _)| before.most == most && before.is_known(now));
        let reset = said.reset.filter(|reset| !reset.is_zero());
        let back = match (said.refill, reset, before.map(|(before, _)| before.back)) {
            (Refill::Continuous, Some(reset), known) if remaining < most && most.is_finite() => {
                rate(most, most - remaining, reset, known)
            }
            (Refill::Window, Some(reset), Some(Back::AllAt(_, window))) if window <= KEPT => {
                Back::AllAt(now + reset, window.max(reset))
            }
            (Refill::Window, Some(reset), _) => Back::AllAt(now + reset, reset),
            (_, _, Some(known @ Back::Steadily(_))) => known,
            _ => Back::Unknown,
        };
        let until = now + reset.map_or(KEPT, |reset| reset.max(KEPT)) + AND_THEN;
        let number = before.map_or(0, |(before, _)| before.number);
        let (left, mended) = match before {
            Some((before, thought)) => {
                let wrong = remaining - thought - before.mended;
                ((before.left(now) + wrong).min(most), before.mended + wrong)
            }
            None => {
                let since = now.saturating_duration_since(sent).as_secs_f64();
                let came = if let Back::Steadily(rate) = back { rate * since } else { 0.0 };
                ((remaining + came).min(most) - given, 0.0)
            }
        };
        let reserve = if most.is_finite() { most * reserve } else { 0.0 };
        Self { number, left, at: now, mended, reserve, most, back, until }
    }

    /// Whether the window in which something was `sent` then is over: what was said of that is no longer true.
    fn has_begun_anew_since(&self, now: Instant, sent: Instant) -> bool {
        self.is_known(now)
            && match self.back {
                Back::AllAt(reset, _) if now >= reset => sent < reset,
                Back::AllAt(reset, window) => sent + window < reset,
                Back::Steadily(_) | Back::Unknown => false,
            }
    }

    fn is_known(&self, now: Instant) -> bool {
        // Where a window begins anew and nobody has said how much is in it, nothing is known any more.
        let ended = matches!(self.back, Back::AllAt(reset, _) if self.most.is_infinite() && now >= reset);
        now < self.until && !ended
    }

    fn left(&self, now: Instant) -> f64 {
        match self.back {
            Back::Steadily(rate) => {
                let seconds = now.saturating_duration_since(self.at).as_secs_f64();
                (self.left + rate * seconds).min(self.most)
            }
            Back::AllAt(reset, _) if now >= reset => self.most,
            Back::AllAt(..) | Back::Unknown => self.left,
        }
    }

    fn room(&self, now: Instant) -> Option<Room> {
        self.is_known(now)
            .then(|| Room { left: self.left(now), limit: Some(self.most).filter(|most| most.is_finite()) })
    }

    /// From when on so much is there. Now, where that is not known.
    fn free_at(&self, now: Instant, amount: f64) -> Instant {
        let amount = amount.min((self.most * LARGEST_PART).max(1.0)) + self.reserve;
        if amount <= self.left(now) || !self.is_known(now) {
            return now;
        }
        // The same moment, whenever it is asked for: who waits until then must find it so.
        let there = match self.back {
            Back::Steadily(rate) => {
                let wait = (amount - self.left) / rate;
                // What takes for ever is unknown.
                let wait = Duration::try_from_secs_f64(wait);
                wait.map_or(now, |wait| self.at + wait + Duration::from_nanos(1))
            }
            Back::AllAt(reset, _) => reset,
            Back::Unknown => now,
        };
        there.min(self.until).max(now)
    }

    fn take(&mut self, now: Instant, amount: f64) {
        self.left = (self.left(now) - amount).min(self.most);
        self.at = now;
        if let Back::AllAt(reset, window) = &mut self.back
            && now >= *reset
        {
            if self.most.is_infinite() {
                // How much is in the new window nobody has said.
                self.until = now;
            }
            let next = *reset + *window;
            *reset = if next > now { next } else { now + *window };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn now() -> Instant {
        Clock::system().now().mono
    }

    fn steady(limit: u64, remaining: u64, reset: Duration) -> Allowance {
        Allowance { limit: Some(limit), remaining, reset: Some(reset), refill: Refill::Continuous }
    }

    fn window(limit: u64, remaining: u64, reset: Duration) -> Allowance {
        Allowance { refill: Refill::Window, ..steady(limit, remaining, reset) }
    }

    fn requests(allowance: Allowance) -> Announced {
        Announced { requests: Some(allowance), tokens: None }
    }

    fn tokens(allowance: Allowance) -> Announced {
        Announced { requests: None, tokens: Some(allowance) }
    }

    fn demand(input: u64) -> Demand {
        let input = input.try_into().unwrap_or(u32::MAX);
        Demand { input, output: Some(0) }
    }

    /// An answer that came at once.
    fn told(announced: &Announced) -> (Headroom, Instant) {
        let (mut headroom, now) = (Headroom::default(), now());
        headroom.announced(now, (1, now), None, 0, announced);
        (headroom, now)
    }

    #[test]
    fn nothing_known_is_room_for_all() {
        let (headroom, now) = (Headroom::default(), now());
        assert_eq!(headroom.fits_at(now, demand(u64::MAX)), now);
        assert_eq!(headroom.share(now), None);
        assert!(!headroom.says_something(now));
    }

    #[test]
    fn what_was_given_out_since_is_taken_off() {
        let (mut headroom, now) = told(&requests(steady(60, 3, MINUTE)));
        let charges = [(); 3].map(|()| {
            assert_eq!(headroom.fits_at(now, demand(0)), now);
            headroom.charge(now, demand(0))
        });
        assert!(headroom.fits_at(now, demand(0)) > now);
        // The first of the three is answered: two more were given out since.
        headroom.announced(now, (2, now), Some(charges[0]), 0, &requests(steady(60, 2, MINUTE)));
        assert!(headroom.fits_at(now, demand(0)) > now);
        // And then the last, which was taken on last.
        headroom.announced(now, (4, now), Some(charges[2]), 0, &requests(steady(60, 1, MINUTE)));
        assert_eq!(headroom.fits_at(now, demand(0)), now);
        // What the second says is older.
        headroom.announced(now, (3, now), Some(charges[1]), 0, &requests(steady(60, 0, MINUTE)));
        assert_eq!(headroom.fits_at(now, demand(0)), now);
    }

    #[test]
    fn what_is_under_way_when_a_first_answer_comes_is_taken_off() {
        let (mut headroom, now) = (Headroom::default(), now());
        headroom.announced(now, (1, now), None, 5, &requests(steady(60, 5, MINUTE)));
        assert!(headroom.fits_at(now, demand(0)) > now);
    }

    #[test]
    fn it_comes_back_as_it_was_said() {
        let (headroom, now) = told(&requests(steady(60, 0, MINUTE)));
        let free = headroom.fits_at(now, demand(0));
        assert!(free > now && free <= now + SECOND + Duration::from_millis(1));
        assert_eq!(headroom.fits_at(free, demand(0)), free);

        let (mut headroom, now) = told(&requests(window(60, 0, SECOND * 30)));
        assert_eq!(headroom.fits_at(now, demand(0)), now + SECOND * 30);
        let reset = now + SECOND * 30;
        for _ in 0..60 {
            assert_eq!(headroom.fits_at(reset, demand(0)), reset);
            headroom.charge(reset, demand(0));
        }
        assert!(headroom.fits_at(reset, demand(0)) > reset);
    }

    #[test]
    fn what_is_said_of_a_window_that_is_over_is_not_true_of_the_next() {
        let (mut headroom, now) = told(&requests(window(60, 1, SECOND * 30)));
        let late = headroom.charge(now, demand(0));
        let reset = now + SECOND * 30;
        headroom.charge(reset, demand(0));
        headroom.announced(reset + SECOND, (2, now), Some(late), 0, &requests(window(60, 0, SECOND)));
        let [left, _] = headroom.rooms(reset + SECOND);
        assert_eq!(left.map(|left| left.left), Some(59.0));
    }

    #[test]
    fn only_what_was_known_can_mislead() {
        let (mut headroom, now) = told(&requests(steady(60, 50, SECOND * 10)));
        assert!(headroom.guides(now));
        // One that went before anything was known.
        headroom.refused(now, None);
        assert!(headroom.guides(now));
        let charge = headroom.charge(now, demand(0));
        headroom.refused(now, Some(charge));
        assert!(!headroom.guides(now));
        let later = now + MISLED_FOR;
        let charge = headroom.charge(later, demand(0));
        headroom.announced(later, (2, later), Some(charge), 0, &requests(steady(60, 50, SECOND * 10)));
        assert!(headroom.guides(later));
    }

    #[test]
    fn the_numbers_tell_a_day_from_a_minute() {
        let per_second = |limit: f64, left: f64, millis| match rate(
            limit,
            limit - left,
            Duration::from_millis(millis),
            None,
        ) {
            Back::Steadily(rate) => rate,
            _ => 0.0,
        };
        // Groq counts requests per day and tokens per minute, under names that don't tell.
        assert_eq!(per_second(14_400.0, 14_370.0, 179_560), 14_400.0 / 86_400.0);
        assert_eq!(per_second(18_000.0, 15_702.0, 7_660), 18_000.0 / 60.0);
        // A small account of OpenAI's; Azure, which rounds to seconds.
        assert_eq!(per_second(10_000.0, 9_999.0, 8_640), 10_000.0 / 86_400.0);
        assert_eq!(per_second(1_500_000.0, 745_399.0, 30_000), 1_500_000.0 / 60.0);
        // Nothing that is known.
        assert_eq!(per_second(100.0, 50.0, 5_000), 10.0);
    }

    #[test]
    fn whoever_asks_for_more_than_there_is_takes_no_more_than_that() {
        let (mut headroom, now) = told(&tokens(steady(30_000, 30_000, Duration::ZERO)));
        headroom.announced(now, (2, now), None, 0, &tokens(steady(30_000, 20_000, SECOND * 20)));
        let charge = headroom.charge(now, Demand { input: 1, output: Some(u32::MAX) });
        let [_, left] = headroom.rooms(now);
        assert!(left.unwrap().left >= -10_000.0);
        // It is refused for that.
        headroom.settle(now, 3, charge, 0);
        assert_eq!(headroom.fits_at(now, demand(1_000)), now);
        assert_eq!(headroom.rooms(now)[1].map(|left| left.left), Some(20_000.0));
    }

    #[test]
    fn what_was_thought_of_one_limit_says_nothing_of_another() {
        let (mut headroom, now) = told(&tokens(steady(1_000_000, 900_000, SECOND * 6)));
        let charges = [(); 3].map(|()| headroom.charge(now, demand(100)));
        // Another limit has less left, and is spoken of from now on.
        headroom.announced(now, (2, now), Some(charges[0]), 0, &tokens(steady(60_000, 9_900, SECOND * 50)));
        assert_eq!(headroom.rooms(now)[1].map(|left| left.left), Some(9_700.0));
        headroom.announced(now, (3, now), Some(charges[1]), 0, &tokens(steady(60_000, 9_800, SECOND * 50)));
        assert_eq!(headroom.rooms(now)[1].map(|left| left.left), Some(9_700.0));
    }

    #[test]
    fn who_joins_late_empties_nobody() {
        let (mut headroom, now) = told(&requests(steady(500, 400, SECOND * 12)));
        for _ in 0..100 {
            headroom.charge(now, demand(0));
        }
        headroom.announced(now, (500, now), None, 7, &requests(steady(500, 250, SECOND * 30)));
        assert_eq!(headroom.rooms(now)[0].map(|left| left.left), Some(300.0));
    }

    #[test]
    fn what_was_never_sent_is_given_back() {
        let (mut headroom, now) = told(&requests(steady(60, 1, SECOND * 59)));
        let charge = headroom.charge(now, demand(0));
        assert!(headroom.fits_at(now, demand(0)) > now);
        headroom.refund(now, 2, charge);
        assert_eq!(headroom.fits_at(now, demand(0)), now);
    }

    #[test]
    fn a_window_of_unknown_size_is_unknown_when_it_begins_anew() {
        let (mut headroom, now) = told(&requests(Allowance { limit: None, ..window(9, 0, SECOND * 5) }));
        assert!(headroom.fits_at(now, demand(0)) > now);
        let reset = now + SECOND * 5;
        assert_eq!(headroom.fits_at(reset, demand(0)), reset);
        headroom.charge(reset, demand(0));
        let charge = headroom.charge(reset, demand(0));
        let none = requests(Allowance { limit: None, ..window(9, 0, SECOND * 59) });
        headroom.announced(reset, (9, reset), Some(charge), 0, &none);
        assert!(headroom.fits_at(reset, demand(0)) > reset);
    }

    #[test]
    fn a_request_waits_for_its_tokens_and_a_smaller_one_does_not() {
        // Of which 1,200 are kept back.
        let (headroom, now) = told(&tokens(steady(60_000, 2_200, SECOND * 58)));
        assert_eq!(headroom.fits_at(now, demand(1_000)), now);
        let free = headroom.fits_at(now, demand(3_000));
        assert!(free > now + SECOND && free < now + SECOND * 3, "{:?}", free - now);
        // An estimate beyond the limit may be wrong: half of it is enough.
        let free = headroom.fits_at(now, demand(1_000_000));
        assert!(free > now + SECOND * 28 && free < now + SECOND * 30);
    }

    #[test]
    fn what_was_estimated_too_high_is_given_back() {
        let (mut headroom, now) = told(&tokens(steady(60_000, 2_200, SECOND * 58)));
        let charge = headroom.charge(now, demand(1_000));
        assert!(headroom.fits_at(now, demand(800)) > now);
        headroom.settle(now, 2, charge, 100);
        assert_eq!(headroom.fits_at(now, demand(800)), now);
        // An answer that came later has it in its numbers.
        let later = headroom.charge(now, demand(0));
        headroom.announced(now, (3, now), Some(later), 0, &tokens(steady(60_000, 0, MINUTE)));
        headroom.settle(now, 2, charge, 0);
        assert!(headroom.fits_at(now, demand(1)) > now);
    }

    #[test]
    fn an_unbounded_output_is_taken_to_be_usual() {
        let mut headroom = Headroom::default();
        let unbounded = Demand { input: 10, output: None };
        assert_eq!(headroom.estimate(unbounded), 10);
        headroom.note_output(500);
        assert_eq!(headroom.estimate(unbounded), 510);
        assert_eq!(headroom.estimate(demand(10)), 10);
    }

    #[test]
    fn what_nobody_speaks_of_any_more_is_unknown() {
        let (mut headroom, now) = told(&requests(steady(60, 60, Duration::ZERO)));
        assert_eq!(headroom.share(now), Some(1.0));
        for _ in 0..100 {
            headroom.charge(now, demand(0));
        }
        // Nothing says when more comes.
        assert_eq!(headroom.fits_at(now, demand(0)), now);
        let later = now + KEPT + AND_THEN;
        assert_eq!(headroom.share(later), None);
        assert!(!headroom.says_something(later));
    }

    #[test]
    fn once_a_minute_a_long_wait_is_put_to_the_test() {
        let (mut headroom, now) = told(&requests(window(10, 0, MINUTE * 600)));
        assert_eq!(headroom.fits_at(now, demand(0)), now + DOUBTED_AFTER);
        let doubted = now + DOUBTED_AFTER;
        assert_eq!(headroom.fits_at(doubted, demand(0)), doubted);
        headroom.charge(doubted, demand(0));
        assert_eq!(headroom.fits_at(doubted, demand(0)), doubted + DOUBTED_AFTER);
    }

    /// The upstream's own count.
    struct Bucket {
        left: f64,
        at: Instant,
    }

    const PER_SECOND: f64 = 5.0;
    const MOST: f64 = 300.0;

    impl Bucket {
        fn refill(&mut self, now: Instant) {
            self.left = (self.left + PER_SECOND * (now - self.at).as_secs_f64()).min(MOST);
            self.at = now;
        }

        /// What a request of so many tokens is told, if it is taken on.
        fn take(&mut self, now: Instant, amount: f64) -> Option<Announced> {
            self.refill(now);
            if self.left < amount {
                return None;
            }
            self.left -= amount;
            let reset = Duration::from_secs_f64((MOST - self.left) / PER_SECOND);
            Some(tokens(steady(300, self.left.floor() as u64, reset)))
        }
    }

    proptest! {
        /// Whatever comes when, and in whatever order answers come back: what fits passes.
        #[test]
        fn nothing_that_fits_is_refused(
            steps in proptest::collection::vec((0..2000_u64, 1..100_u64, 0..20_usize), 1..200),
        ) {
            let start = now();
            let mut headroom = Headroom::default();
            let mut bucket = Bucket { left: MOST, at: start };
            let first = bucket.take(start, 1.0).expect("it is full");
            headroom.announced(start, (1, start), None, 0, &first);
            let mut out: Vec<(u64, Instant, Charge, Announced)> = Vec::new();
            let (mut now, mut attempt, mut held) = (start, 1, 0);
            for (wait, size, back) in steps {
                now += Duration::from_millis(wait);
                if back < out.len() {
                    let (attempt, sent, charge, told) = out.remove(back);
                    headroom.announced(now, (attempt, sent), Some(charge), 0, &told);
                }
                if headroom.fits_at(now, demand(size)) <= now {
                    attempt += 1;
                    let charge = headroom.charge(now, demand(size));
                    let told = bucket.take(now, size as f64);
                    prop_assert!(told.is_some(), "refused with {} left", bucket.left);
                    out.push((attempt, now, charge, told.expect("checked")));
                } else {
                    held += 1;
                    bucket.refill(now);
                    // Nor is it held back for long where there is room: counts are rounded, resets are not.
                    prop_assert!(bucket.left < size as f64 + MOST * TOKEN_RESERVE + 2.0, "held back with {} left", bucket.left);
                }
            }
            let _ = held;
        }
    }
}
