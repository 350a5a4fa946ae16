//! Who gets how much, by strategy.

use super::*;

fn assert_near(shares: &[usize], expected: &[f64], tolerance: f64) {
    let (all, whole) = (shares.iter().sum::<usize>() as f64, expected.iter().sum::<f64>());
    for (share, expected) in shares.iter().zip(expected) {
        let (share, expected) = (*share as f64 / all, expected / whole);
        assert!((share - expected).abs() <= tolerance * expected, "{shares:?}: {share} for {expected}");
    }
}

#[test]
fn round_robin_takes_each_in_turn_per_model_set() {
    let entries = vec![
        Entry::new("a").models(&["m1", "m2"]),
        Entry::new("b").models(&["m1"]),
        Entry::new("c").models(&["m1", "m2"]),
    ];
    let mut bench = Bench::with(Strategy::RoundRobin, entries);
    let mut turns = (Vec::new(), Vec::new());
    for n in 0..60 {
        // Traffic on one set does not touch the order of another.
        bench.model = Some(if n % 3 == 2 { "m2" } else { "m1" });
        let turn = bench.serve(Outcome::Good);
        if n % 3 == 2 { turns.1.push(turn) } else { turns.0.push(turn) }
    }
    assert_eq!(turns.0, [0, 1, 2].repeat(14)[..40]);
    assert_eq!(turns.1, [0, 2].repeat(10));
}

#[test]
fn two_models_of_the_same_keys_share_one_order() {
    let models = &["m1", "m2"];
    let entries = Entry::many(3).into_iter().map(|entry| entry.models(models)).collect();
    let mut bench = Bench::with(Strategy::RoundRobin, entries);
    let turns: Vec<usize> = (0..6)
        .map(|n| {
            bench.model = Some(models[n % 2]);
            bench.serve(Outcome::Good)
        })
        .collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn weights_are_kept_in_every_round_and_spread_over_it() {
    let entries = vec![Entry::new("a").weight(3), Entry::new("b"), Entry::new("c")];
    let mut bench = Bench::with(Strategy::RoundRobin, entries);
    let turns: Vec<usize> = (0..5000).map(|_| bench.serve(Outcome::Good)).collect();
    for round in turns.windows(5) {
        let of = |key| round.iter().filter(|turn| **turn == key).count();
        assert_eq!((of(0), of(1), of(2)), (3, 1, 1), "{round:?}");
    }
    assert!(!turns.windows(3).any(|three| three == [0, 0, 0]), "the heavy one bunches");
}

#[test]
fn a_degraded_key_gets_its_fraction_of_a_healthy_ones_share() {
    for penalty in [2.0, 5.0, 20.0] {
        let settings = Settings { unhealthy_penalty: penalty, ..Settings::default() };
        let mut bench = Bench::set(settings, Entry::many(4));
        let mut counts = [0; 4];
        for n in 0..40_000 {
            bench.now += MS * 10;
            let (key, ticket) = bench.take();
            counts[key] += usize::from(n > 2_000);
            // Two of three fail, never three in a row.
            let bad = key == 2 && !bench.pool.slots[2].used.is_multiple_of(3);
            let _ = bench.settle(ticket, if bad { Outcome::Failed } else { Outcome::Good });
        }
        assert_near(&counts, &[1.0, 1.0, penalty.recip(), 1.0], 0.1);
    }
}

#[test]
fn least_latency_rotates_among_the_fast_and_never_forgets_the_slow() {
    let mut bench = Bench::with(Strategy::LeastLatency, Entry::many(40));
    let mut counts = [0_usize; 40];
    for n in 0..60_000 {
        let (key, mut ticket) = bench.take();
        counts[key] += usize::from(n >= 10_000);
        let latency = if key < 3 { 100 + key * 5 } else { 400 };
        let _ = bench.heard(&mut ticket, MS * u32::try_from(latency).unwrap());
        let _ = bench.settle(ticket, Outcome::Good);
    }
    let fast = &counts[..3];
    assert_near(fast, &[1.0; 3], 0.05);
    for slow in &counts[3..] {
        assert!(*slow > 100 && *slow * 20 < fast[0], "{counts:?}");
    }
}

#[test]
fn least_latency_notices_when_the_slow_becomes_fast() {
    let mut bench = Bench::with(Strategy::LeastLatency, Entry::many(3));
    let mut late = [0; 3];
    for n in 0..9_000 {
        let (key, mut ticket) = bench.take();
        late[key] += usize::from(n >= 6_000);
        let slow = if n < 3_000 { 2 } else { 0 };
        let _ = bench.heard(&mut ticket, MS * if key == slow { 1_000 } else { 100 });
        let _ = bench.settle(ticket, Outcome::Good);
    }
    assert!(late[2] * 10 > late[1] * 9 && late[0] * 10 < late[1], "{late:?}");
}

#[test]
fn least_used_takes_the_one_that_served_least_through_whatever_model() {
    let entries = vec![
        Entry::new("a").models(&["m1", "m2"]),
        Entry::new("b").models(&["m1"]),
        Entry::new("c").models(&["m1"]).weight(2),
    ];
    let mut bench = Bench::with(Strategy::LeastUsed, entries);
    bench.model = Some("m2");
    assert_eq!(bench.shares(6), [6, 0, 0]);
    bench.model = Some("m1");
    // Until all are equal for their weight, `a` is spared.
    assert_eq!(bench.shares(18), [0, 6, 12]);
    assert_eq!(bench.shares(40), [10, 10, 20]);
}

#[test]
fn least_used_is_deterministic() {
    let turns = || {
        let mut bench = Bench::with(Strategy::LeastUsed, Entry::many(7));
        (0..100).map(|_| bench.serve(Outcome::Good)).collect::<Vec<_>>()
    };
    assert_eq!(turns(), turns());
    assert_eq!(turns()[..14], [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn chance_keeps_the_weights_and_no_order() {
    let entries = vec![Entry::new("a").weight(5), Entry::new("b").weight(2), Entry::new("c")];
    let mut bench = Bench::with(Strategy::Random, entries);
    assert_near(&bench.shares(80_000), &[5.0, 2.0, 1.0], 0.03);
    let mut bench = Bench::with(Strategy::Random, Entry::many(2));
    let turns: Vec<usize> = (0..1000).map(|_| bench.serve(Outcome::Good)).collect();
    let same = turns.windows(2).filter(|two| two[0] == two[1]).count();
    assert!(same > 200, "{same}");
}

#[test]
fn who_comes_back_from_a_rest_makes_up_for_nothing() {
    for strategy in [Strategy::RoundRobin, Strategy::RoundRobinHealthWeighted, Strategy::Random] {
        let mut bench = Bench::with(strategy, Entry::many(4));
        let _ = bench.hit(1, limited(60));
        let _ = bench.shares(3_000);
        bench.now += SECOND * 60;
        assert_near(&bench.shares(4_000), &[1.0; 4], 0.15);
    }
}

#[test]
fn a_host_that_comes_back_makes_up_for_nothing() {
    let at = |n: usize| if n < 4 { "https://one.test" } else { "https://two.test" };
    let entries = Entry::many(8).into_iter().enumerate().map(|(n, entry)| entry.at(at(n)).models(&["m"]));
    let mut bench = Bench::with(Strategy::RoundRobin, entries.collect());
    bench.model = Some("m");
    for _ in 0..20 {
        let (key, ticket) = bench.take();
        let _ = bench.settle(ticket, if key < 4 { Outcome::HostFailed } else { Outcome::Good });
    }
    assert_eq!(bench.shares(999)[..4], [0; 4], "the host is shut");
    bench.now += SECOND * 2;
    let turns: Vec<usize> = (0..80).map(|_| bench.serve(Outcome::Good)).collect();
    assert!(turns[..4].iter().any(|key| *key < 4));
    let first = turns.iter().filter(|key| **key < 4).count();
    assert!((36..=44).contains(&first), "{turns:?}");
}
