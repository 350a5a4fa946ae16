//! What answers announce is left decides who is asked.

use super::*;
use crate::types::{Allowance, Announced, Refill, Usage};

const MODEL: Option<&str> = Some("m1");
const MINUTE: Duration = Duration::from_secs(60);

/// So much is left of sixty requests a minute.
fn requests(remaining: u64) -> Announced {
    let reset = Some(SECOND * u32::try_from(60 - remaining).unwrap());
    let left = Allowance { limit: Some(60), remaining, reset, refill: Refill::Continuous };
    Announced { requests: Some(left), tokens: None }
}

/// So much is left of a hundred thousand tokens a minute.
fn tokens(remaining: u64) -> Announced {
    let reset = Some(MINUTE.mul_f64(1.0 - remaining as f64 / 1e5));
    let left = Allowance { limit: Some(100_000), remaining, reset, refill: Refill::Continuous };
    Announced { requests: None, tokens: Some(left) }
}

impl Bench {
    fn want_of(&self) -> Want<'static> {
        let (model, purpose, demand) = (self.model, self.purpose, self.demand);
        Want {
            arrival: Arrival { number: 0, client: ClientId::default() },
            model,
            purpose,
            stream: false,
            tried: &[],
            failed_hosts: &[],
            demand,
        }
    }

    fn tell_left(&mut self, ticket: &Ticket, announced: &Announced) -> Effects {
        let want = self.want_of();
        self.pool.announced(self.now, ticket, &want, announced)
    }

    /// One request of key `number`, whose answer says what is left; the others work and say nothing.
    fn says(&mut self, number: usize, announced: &Announced) -> Effects {
        for _ in 0..1000 {
            let (key, ticket) = self.take();
            if key == number {
                let effects = self.tell_left(&ticket, announced);
                let _ = self.settle(ticket, Outcome::Good);
                return effects;
            }
            let _ = self.settle(ticket, Outcome::Good);
        }
        panic!("key {number} is never asked");
    }
}

fn bench(names: &[&'static str]) -> Bench {
    let mut bench = Bench::new(names.iter().map(|name| Entry::new(name)).collect());
    bench.model = MODEL;
    bench
}

#[test]
fn who_has_nothing_left_is_asked_again_when_there_is() {
    let mut bench = bench(&["a", "b"]);
    let _ = bench.says(0, &requests(0));
    assert_eq!(bench.shares(50), [0, 50]);
    bench.model = Some("m2");
    assert_eq!(bench.shares(50), [25, 25], "limits are counted per model");
    bench.model = MODEL;
    bench.now += SECOND * 2;
    let shares = bench.shares(200);
    assert!((1..=2).contains(&shares[0]), "as many as have come back at the most: {shares:?}");
}

#[test]
fn keys_of_one_account_share_what_it_has_left() {
    let mut bench = Bench::new(vec![
        Entry::new("a").account("work"),
        Entry::new("b").account("work"),
        Entry::new("c").account("play"),
    ]);
    bench.model = MODEL;
    let _ = bench.says(0, &requests(10));
    let shares = bench.shares(300);
    assert_eq!(shares[0] + shares[1], 10);
}

#[test]
fn nobody_is_sent_in_vain_and_who_waits_knows_until_when() {
    let mut bench = bench(&["a"]);
    let _ = bench.says(0, &requests(1));
    let (_, ticket) = bench.take();
    let arrival = bench.arrive();
    let exhausted = bench.ask(arrival).unwrap_err();
    assert_eq!(exhausted.why, Why::NoneFree);
    let free_at = exhausted.free_at.expect("it is known");
    assert!(free_at > bench.now && free_at <= bench.now + SECOND + MS);
    bench.join(arrival).unwrap();
    // An answer says that there is more than was thought: somebody else's requests were taken back, say.
    let effects = bench.tell_left(&ticket, &requests(30));
    assert_eq!(effects.wake, [arrival]);
    assert!(bench.ask(arrival).is_ok());
    assert_eq!(bench.pool.leave(arrival), None);
    let _ = bench.settle(ticket, Outcome::Good);
}

#[test]
fn a_request_goes_where_its_tokens_are() {
    let mut bench = bench(&["a", "b"]);
    let _ = bench.says(0, &tokens(6_000));
    let _ = bench.says(1, &tokens(90_000));
    bench.demand = Demand { input: 10_000, output: Some(1_000) };
    assert_eq!(bench.shares(5), [0, 5]);
    // A smaller one fits everywhere.
    bench.demand = Demand { input: 100, output: Some(100) };
    assert!(bench.shares(20).iter().all(|share| *share > 0));
    // One that fits nowhere waits for the first of them.
    bench.demand = Demand { input: 40_000, output: None };
    let exhausted = bench.acquire().unwrap_err();
    let wait = exhausted.free_at.expect("it is known") - bench.now;
    assert!(wait > SECOND && wait < SECOND * 10, "{wait:?}");
    bench.now += wait;
    assert_eq!(bench.take().0, 1);
}

#[test]
fn what_an_answer_has_used_is_what_counts() {
    let mut bench = bench(&["a"]);
    bench.demand = Demand { input: 100, output: Some(40_000) };
    let (_, first) = bench.take();
    let _ = bench.tell_left(&first, &tokens(45_000));
    let (_, second) = bench.take();
    assert!(bench.acquire().is_err(), "as much was asked for as there is");
    let (now, want) = (bench.now, bench.want_of());
    let _ = bench.pool.used(now, &second, &want, &Usage { input: 100, output: 10, cached_input: 0 });
    let _ = bench.settle(second, Outcome::Good);
    assert!(bench.acquire().is_ok());
    let _ = bench.settle(first, Outcome::Good);
}

#[test]
fn an_account_that_is_no_longer_spoken_of_takes_its_plain_turns() {
    let mut bench = bench(&["a", "b"]);
    let _ = bench.says(0, &requests(0));
    assert_eq!(bench.shares(10), [0, 10]);
    bench.now += MINUTE * 3;
    assert_eq!(bench.shares(400), [200, 200]);
}

#[test]
fn turns_go_by_what_is_left() {
    let mut bench = bench(&["a", "b"]);
    for (left, at_most) in [(60, 45..=50), (15, 15..=25), (6, 5..=8)] {
        bench.now += MINUTE * 3;
        let _ = bench.says(0, &requests(left));
        // What goes out is soon back.
        let mut shares = [0, 0];
        for _ in 0..100 {
            let (key, ticket) = bench.take();
            shares[key] += 1;
            if key == 0 {
                let _ = bench.tell_left(&ticket, &requests(left));
            }
            let _ = bench.settle(ticket, Outcome::Good);
        }
        assert!(at_most.contains(&shares[0]), "{left}: {shares:?}");
    }
}

#[test]
fn a_limit_that_no_answer_speaks_of_is_learned_from_its_refusals_all_the_same() {
    let mut bench = bench(&["a"]);
    let _ = bench.says(0, &requests(59));
    for _ in 0..2 {
        let effects = bench.hit(0, for_model(Reason::RateLimited, 1));
        assert!(!effects.transitions.is_empty());
        let free_at = bench.acquire().unwrap_err().free_at.expect("it is known");
        assert!(free_at > bench.now);
        bench.now = free_at;
    }
    // Once more, and it keeps its distance, whatever is said to be left.
    let (_, ticket) = bench.take();
    let _ = bench.tell_left(&ticket, &requests(59));
    let _ = bench.settle(ticket, Outcome::Good);
    assert!(bench.acquire().is_err());
}

#[test]
fn a_thousand_models_with_little_left_take_no_room_from_others() {
    let mut bench = bench(&["a", "b", "c"]);
    let names: Vec<&'static str> =
        (0..1000).map(|n| &*Box::leak(format!("model-{n}").into_boxed_str())).collect();
    for name in names {
        bench.model = Some(name);
        let _ = bench.says(0, &requests(0));
        assert_eq!(bench.shares(10)[0], 0, "{name}");
    }
    let overlays: usize = bench.pool.overlays.iter().map(HashMap::len).sum();
    assert!(overlays <= 256, "{overlays}");
}
