//! Which tier serves: one behaviour each.

use super::*;

/// Two keys that come first, on one host, and two behind them on another.
fn two_tiers() -> Vec<Entry> {
    let of_tier = |n: u8| if n < 2 { Entry::new("").priority(1) } else { Entry::new("").at(TWO).priority(7) };
    (0..4).map(|n| Entry { secret: format!("sk-{n}"), ..of_tier(n).models(&["m", "n"]) }).collect()
}

fn bench(strategy: Strategy) -> Bench {
    let mut bench = Bench::with(strategy, two_tiers());
    bench.model = Some("m");
    bench
}

/// The requests that each tier gets.
fn tiers(bench: &mut Bench, requests: usize) -> [usize; 2] {
    let shares = bench.shares(requests);
    [shares[..2].iter().sum(), shares[2..].iter().sum()]
}

#[test]
fn a_lower_tier_serves_only_while_nobody_above_can_whatever_the_strategy() {
    for (name, strategy) in Strategy::NAMES {
        let mut bench = bench(strategy);
        assert_eq!(tiers(&mut bench, 100), [100, 0], "{name}");
        let _ = bench.hit(0, limited(60));
        assert_eq!(tiers(&mut bench, 100), [100, 0], "{name}: one rests");
        let _ = bench.hit(1, limited(30));
        assert_eq!(tiers(&mut bench, 100), [0, 100], "{name}: both rest");
        bench.now += SECOND * 30;
        assert_eq!(tiers(&mut bench, 100), [100, 0], "{name}: one is back");
    }
}

#[test]
fn the_lower_number_comes_first_wherever_it_stands() {
    let entries = [3, 1, 255, 0, 2].map(|priority| Entry::new(&format!("sk-{priority}")).priority(priority));
    let mut bench = Bench::new(entries.to_vec());
    for expected in [3, 1, 4, 0, 2] {
        assert_eq!(bench.serve(limited(60)), expected);
    }
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND * 60));
}

#[test]
fn a_full_tier_and_one_at_its_rate_pass_on_what_they_cannot_take() {
    let entries = vec![
        Entry::new("full").at_once(2).priority(0),
        Entry::new("rated").rate(1.0, 3).priority(1),
        Entry::new("last").priority(2),
    ];
    let mut bench = Bench::new(entries);
    let mut out: Vec<_> = (0..8).map(|_| bench.take()).collect();
    assert_eq!(out.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 2, 2, 2]);
    let _ = bench.settle(out.remove(0).1, Outcome::Good);
    bench.now += SECOND;
    let next: Vec<_> = (0..3).map(|_| bench.take()).collect();
    assert_eq!(next.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_request_tries_all_of_a_tier_then_the_next_and_repeats_only_then() {
    let mut bench = bench(Strategy::RoundRobin);
    for expected in [0, 1, 2, 3, 0, 1] {
        let (key, ticket) = bench.take();
        assert_eq!(key, expected);
        let _ = bench.settle(ticket, Outcome::Abandoned);
        let key = bench.keys[key].identity();
        bench.tried.push(key);
    }
}

#[test]
fn a_request_leaves_a_host_that_failed_it_for_a_lower_tier() {
    let mut bench = bench(Strategy::RoundRobin);
    bench.failed_hosts = vec![bench.keys[0].settings().base.origin().clone()];
    assert_eq!(tiers(&mut bench, 10), [0, 10]);
    bench.failed_hosts.push(bench.keys[2].settings().base.origin().clone());
    assert_eq!(tiers(&mut bench, 10), [10, 0]);
}

#[test]
fn an_outage_above_is_served_below_until_one_request_finds_it_over() {
    let mut bench = bench(Strategy::RoundRobin);
    for _ in 0..5 {
        bench.serve(OVERLOADED);
    }
    assert_eq!(tiers(&mut bench, 20), [0, 20]);
    bench.now += SECOND;
    let (key, probe) = bench.take();
    assert!(key < 2, "the host is asked again at once");
    assert_eq!(tiers(&mut bench, 20), [0, 20], "by one request");
    let _ = bench.settle(probe, Outcome::Good);
    assert_eq!(tiers(&mut bench, 20), [20, 0]);
}

#[test]
fn doubtful_keys_above_are_tried_now_and_then_while_a_sound_tier_serves() {
    let mut bench = bench(Strategy::RoundRobin);
    for _ in 0..2 {
        bench.serve(rest(Reason::Rejected));
    }
    bench.now += SECOND * 60;
    // Both are due, and fail again.
    let (mut dead, mut worst) = (0, 0);
    for _ in 0..1_000 {
        bench.now += MS;
        bench.tried.clear();
        loop {
            let (key, ticket) = bench.take();
            let _ = bench.settle(ticket, if key < 2 { rest(Reason::Rejected) } else { Outcome::Good });
            if key >= 2 {
                break;
            }
            dead += 1;
            let key = bench.keys[key].identity();
            bench.tried.push(key);
        }
        worst = worst.max(bench.tried.len());
    }
    assert_eq!((dead, worst), (2, 1), "one at a time, and not one after the other");
    bench.now += SECOND * 120;
    let _ = bench.hit(0, Outcome::Good);
    assert_eq!(tiers(&mut bench, 100), [100, 0], "one that works again is used again");
}

#[test]
fn doubtful_keys_below_are_left_alone_while_those_above_are_sound() {
    let mut bench = bench(Strategy::RoundRobin);
    for _ in 0..2 {
        assert!(bench.serve(limited(10)) < 2);
    }
    for _ in 0..2 {
        assert!(bench.serve(rest(Reason::Failing)) >= 2);
    }
    bench.now += SECOND * 20;
    for _ in 0..2_000 {
        bench.now += MS * 100;
        assert!(bench.serve(Outcome::Good) < 2);
    }
    for _ in 0..2 {
        bench.serve(limited(60));
    }
    assert_eq!(tiers(&mut bench, 10), [0, 10], "they are when they are needed");
}

#[test]
fn doubtful_keys_above_go_before_doubtful_ones_below() {
    let mut bench = bench(Strategy::RoundRobin);
    for expected in [0, 1, 2, 3] {
        assert_eq!(bench.serve(rest(Reason::Rejected)), expected);
    }
    bench.now += SECOND * 60;
    for expected in [0, 1, 2, 3] {
        assert_eq!(bench.serve(rest(Reason::Rejected)), expected);
    }
}

#[test]
fn a_rest_for_one_model_moves_that_model_alone_to_the_next_tier() {
    let mut bench = bench(Strategy::RoundRobin);
    for _ in 0..2 {
        bench.serve(for_model(Reason::RateLimited, 30));
    }
    assert_eq!(tiers(&mut bench, 10), [0, 10]);
    bench.model = Some("n");
    assert_eq!(tiers(&mut bench, 10), [10, 0]);
    (bench.model, bench.now) = (Some("m"), bench.now + SECOND * 30);
    assert_eq!(tiers(&mut bench, 10), [10, 0]);
}

#[test]
fn a_tier_keeps_its_weights_though_another_takes_what_it_cannot() {
    let mut entries = vec![Entry::new("a").weight(3), Entry::new("b")];
    entries.extend([Entry::new("c").weight(4), Entry::new("d")].map(|entry| entry.priority(1)));
    let mut bench = Bench::with(Strategy::RoundRobin, entries);
    let mut counts = [0; 4];
    for n in 0..4_000 {
        // Every second request has tried all of the first tier.
        let above = bench.keys[..2].iter().map(|key| key.identity());
        bench.tried = above.filter(|_| n % 2 == 1).collect();
        counts[bench.serve(Outcome::Good)] += 1;
    }
    assert_eq!(counts, [1_500, 500, 1_600, 400]);
}

#[test]
fn the_latency_of_a_lower_tier_makes_nobody_above_slow() {
    let mut entries = Entry::many(3);
    entries.push(Entry::new("fast").priority(1));
    let mut bench = Bench::with(Strategy::LeastLatency, entries);
    let mut counts = [0_usize; 3];
    for n in 0..12_000 {
        // Now and then all of the first tier are tried already.
        let all = || bench.keys[..3].iter().map(|key| key.identity()).collect();
        bench.tried = if n % 10 == 0 { all() } else { Vec::new() };
        let (key, mut ticket) = bench.take();
        let _ = bench.heard(&mut ticket, MS * [900, 1_800, 900, 10][key]);
        let _ = bench.settle(ticket, Outcome::Good);
        if key < 3 && n > 2_000 {
            counts[key] += 1;
        }
    }
    assert!(counts[0].abs_diff(counts[2]) < 100 && counts[1] * 3 < counts[0], "{counts:?}");
}

#[test]
fn who_waits_is_told_of_whichever_tier_is_free_first() {
    let entries = vec![Entry::new("a"), Entry::new("b").priority(1).at_once(1), Entry::new("c").priority(2)];
    let mut bench = Bench::new(entries);
    bench.serve(limited(9));
    let (key, out) = bench.take();
    assert_eq!((key, bench.serve(limited(5))), (1, 2));
    let first = bench.arrive();
    let free_at = Some(bench.now + SECOND * 5);
    assert_eq!(bench.ask(first).unwrap_err(), Exhausted { why: Why::NoneFree, free_at, sooner: true });
    bench.join(first).unwrap();
    assert_eq!(bench.settle(out, Outcome::Good).wake, [first]);
    let Grant { key, .. } = bench.ask(first).unwrap();
    assert_eq!(bench.number(&key), 1);
}

#[test]
fn a_crowd_above_that_may_not_does_not_hide_who_may_below() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastUsed] {
        let mut entries = Entry::many(100);
        entries.push(Entry::new("last").priority(1));
        let mut bench = Bench::with(strategy, entries);
        bench.purpose = "files";
        for _ in 0..100 {
            bench.serve(Outcome::Denied);
        }
        assert_eq!(bench.serve(Outcome::Good), 100);
        bench.purpose = "chat";
        assert!(bench.serve(Outcome::Good) < 100);
    }
}

#[test]
fn others_of_the_first_tier_do_not_go_before_a_named_key_of_the_last() {
    let settings = Settings { others_step_in: true, ..Settings::default() };
    let entries = vec![Entry::new("others"), Entry::new("named").models(&["m"]).priority(9)];
    let mut bench = Bench::set(settings, entries);
    bench.model = Some("m");
    assert_eq!(bench.shares(5), [0, 5]);
}
