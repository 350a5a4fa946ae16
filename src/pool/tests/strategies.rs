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
            let _ = bench.settle(ticket, if bad { FAILED } else { Outcome::Good });
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
fn fill_first_takes_the_first_that_can_and_comes_back_to_it_at_once() {
    let entries = vec![
        Entry::new("a").models(&["m"]).at_once(1),
        Entry::new("b").models(&["m"]).at(TWO).weight(9).rate(1.0, 1),
        Entry::new("c").models(&["m"]),
    ];
    let mut bench = Bench::with(Strategy::FillFirst, entries);
    bench.model = Some("m");
    assert_eq!(bench.shares(5), [5, 0, 0]);
    let (first, out) = bench.take();
    assert_eq!((first, bench.serve(Outcome::Good)), (0, 1), "the first is full");
    assert_eq!(bench.serve(Outcome::Good), 2, "the second is at its rate");
    let _ = bench.settle(out, limited(5));
    assert_eq!(bench.serve(Outcome::Good), 2);
    bench.now += SECOND;
    assert_eq!(bench.serve(Outcome::Good), 1, "the first rests");
    bench.now += SECOND * 4;
    assert_eq!(bench.shares(5), [5, 0, 0]);
}

#[test]
fn fill_first_moves_on_in_order_from_what_a_request_has_tried() {
    let mut bench = Bench::with(Strategy::FillFirst, Entry::many(3));
    for expected in [0, 1, 2, 0, 1] {
        let (key, ticket) = bench.take();
        assert_eq!(key, expected);
        let _ = bench.settle(ticket, Outcome::Abandoned);
        let key = bench.keys[key].identity();
        bench.tried.push(key);
    }
}

#[test]
fn fill_first_tries_a_doubtful_key_now_and_then_and_returns_to_it_once_it_works() {
    let mut bench = Bench::with(Strategy::FillFirst, Entry::many(3));
    bench.serve(rest(Reason::Rejected));
    assert_eq!(bench.shares(10), [0, 10, 0]);
    bench.now += SECOND * 60;
    let _ = bench.hit(0, rest(Reason::Rejected));
    assert_eq!(bench.shares(10), [0, 10, 0]);
    bench.now += SECOND * 120;
    let _ = bench.hit(0, Outcome::Good);
    assert_eq!(bench.shares(10), [10, 0, 0]);
}

#[test]
fn fill_first_spares_a_key_for_the_model_that_it_rests_for() {
    let entries = Entry::many(2).into_iter().map(|entry| entry.models(&["m1", "m2"]));
    let mut bench = Bench::with(Strategy::FillFirst, entries.collect());
    bench.model = Some("m1");
    bench.serve(for_model(Reason::RateLimited, 30));
    assert_eq!(bench.shares(5), [0, 5]);
    bench.model = Some("m2");
    assert_eq!(bench.shares(5), [5, 0]);
    (bench.model, bench.now) = (Some("m1"), bench.now + SECOND * 30);
    assert_eq!(bench.shares(5), [5, 0]);
}

#[test]
fn fill_first_leaves_a_host_that_is_down_and_returns_to_it() {
    let entries = Entry::many(3).into_iter().enumerate().map(|(n, entry)| {
        let entry = entry.models(&["m"]);
        if n == 2 { entry.at(TWO) } else { entry }
    });
    let mut bench = Bench::with(Strategy::FillFirst, entries.collect());
    bench.model = Some("m");
    for first in [0, 0, 0, 0, 1] {
        bench.tried = bench.keys[..first].iter().map(|key| key.identity()).collect();
        assert_eq!(bench.serve(OVERLOADED), first);
    }
    bench.tried.clear();
    assert_eq!(bench.shares(5), [0, 0, 5], "the host is shut");
    bench.now += SECOND;
    let (first, probe) = bench.take();
    assert_eq!((first, bench.serve(Outcome::Good)), (0, 2), "one request asks it");
    let _ = bench.settle(probe, Outcome::Good);
    assert_eq!(bench.shares(5), [5, 0, 0]);
}

#[test]
fn fill_first_finds_the_one_that_may_behind_hundreds_that_may_not() {
    let mut bench = Bench::with(Strategy::FillFirst, Entry::many(500));
    bench.purpose = "files";
    for attempts in [401, 1, 1] {
        bench.tried.clear();
        while bench.tried.last() != Some(&bench.keys[400].identity()) {
            let (key, ticket) = bench.take();
            let _ = bench.settle(ticket, if key == 400 { Outcome::Good } else { Outcome::Denied });
            let key = bench.keys[key].identity();
            bench.tried.push(key);
        }
        assert_eq!(bench.tried.len(), attempts);
    }
    bench.tried.clear();
    bench.purpose = "chat";
    assert_eq!(bench.serve(Outcome::Good), 0, "nobody has lost its place");
}

#[test]
fn least_in_flight_is_even_without_looking_at_all() {
    let mut bench = Bench::with(Strategy::LeastInFlight, Entry::many(100));
    let mut counts = [0; 100];
    let out: Vec<_> = (0..800).map(|_| bench.take()).collect();
    out.iter().for_each(|(key, _)| counts[*key] += 1);
    // By lot alone some key would have sixteen.
    assert!(counts.iter().all(|count| *count <= 10), "{counts:?}");
    // Whoever's answers end makes room for the next.
    let (ended, _out): (Vec<_>, Vec<_>) = out.into_iter().partition(|(key, _)| *key < 50);
    for (_, ticket) in ended {
        let _ = bench.settle(ticket, Outcome::Good);
    }
    let next: Vec<_> = (0..200).map(|_| bench.take()).collect();
    assert!(next.iter().filter(|(key, _)| *key < 50).count() > 140);
}

#[test]
fn least_in_flight_gives_nothing_more_to_a_key_that_hangs_while_others_are_idle() {
    let mut bench = Bench::with(Strategy::LeastInFlight, Entry::many(4));
    let hung: Vec<_> = (0..400)
        .filter_map(|_| {
            let (key, ticket) = bench.take();
            if key == 0 {
                return Some(ticket);
            }
            let _ = bench.settle(ticket, Outcome::Good);
            None
        })
        .collect();
    assert_eq!(hung.len(), 1);
}

#[test]
fn least_in_flight_counts_for_its_weight_and_idle_keys_share_by_weight() {
    let entries = || vec![Entry::new("a").weight(4), Entry::new("b").weight(2), Entry::new("c")];
    let mut bench = Bench::with(Strategy::LeastInFlight, entries());
    assert_near(&bench.shares(70_000), &[4.0, 2.0, 1.0], 0.05);
    let mut bench = Bench::with(Strategy::LeastInFlight, entries());
    let mut counts = [0; 3];
    for _ in 0..700 {
        counts[bench.take().0] += 1;
    }
    assert_near(&counts, &[4.0, 2.0, 1.0], 0.05);
}

#[test]
fn least_in_flight_counts_what_all_entries_of_a_credential_serve() {
    let same = |path: &str| Entry::new("same").at(&format!("https://one.test/{path}"));
    let entries = vec![same("a").models(&["m1"]), same("b").models(&["m2"]), Entry::new("b").models(&["m2"])];
    let mut bench = Bench::with(Strategy::LeastInFlight, entries);
    bench.model = Some("m1");
    let _out = [bench.take().1, bench.take().1];
    bench.model = Some("m2");
    assert_eq!(bench.shares(20), [0, 0, 20]);
}

#[test]
fn least_in_flight_sends_no_request_back_to_a_host_that_failed_it() {
    let mut bench = Bench::with(
        Strategy::LeastInFlight,
        vec![Entry::new("a").models(&["m"]), Entry::new("b").at(TWO).models(&["m"])],
    );
    bench.model = Some("m");
    bench.failed_hosts = vec![bench.keys[0].settings().base.origin().clone()];
    let out: Vec<_> = (0..20).map(|_| bench.take()).collect();
    assert!(out.iter().all(|(key, _)| *key == 1), "however busy the other is");
}

#[test]
fn who_comes_back_from_a_rest_makes_up_for_nothing() {
    let by_turns = [Strategy::RoundRobin, Strategy::RoundRobinHealthWeighted];
    for strategy in by_turns.into_iter().chain([Strategy::Random, Strategy::LeastInFlight]) {
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
        let _ = bench.settle(ticket, if key < 4 { OVERLOADED } else { Outcome::Good });
    }
    assert_eq!(bench.shares(999)[..4], [0; 4], "the host is shut");
    bench.now += SECOND * 2;
    let turns: Vec<usize> = (0..80).map(|_| bench.serve(Outcome::Good)).collect();
    assert!(turns[..4].iter().any(|key| *key < 4));
    let first = turns.iter().filter(|key| **key < 4).count();
    assert!((36..=44).contains(&first), "{turns:?}");
}
