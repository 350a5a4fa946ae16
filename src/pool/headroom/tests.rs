use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    pool::tank::{AND_THEN, KEPT, rate},
    types::{Allowance, Refill},
};

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
