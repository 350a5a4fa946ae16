//! Promises that hold whatever the numbers are. Those over sequences of operations are in `machine`.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn weights_hold_over_many_draws(
        weights in prop::collection::vec(1..20_u16, 1..12),
        by_lot in prop::option::of(prop::sample::select(vec![super::Strategy::Random, super::Strategy::LeastInFlight])),
    ) {
        let (random, strategy) = (by_lot.is_some(), by_lot.unwrap_or(super::Strategy::RoundRobin));
        let entries = weights.iter().enumerate().map(|(n, weight)| Entry::new(&format!("sk-{n}")).weight(*weight));
        let mut bench = Bench::with(strategy, entries.collect());
        let whole: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let rounds = if random { 20_000 / whole + 1 } else { 10 };
        let shares = bench.shares(whole * rounds);
        for (share, weight) in shares.iter().zip(&weights) {
            let expected = usize::from(*weight) * rounds;
            // Five standard deviations of a count, or one turn of an order.
            let off = if random { 5 * expected.isqrt() + 5 } else { 1 };
            prop_assert!(share.abs_diff(expected) <= off, "{share} of {expected}: {shares:?}");
        }
    }

    #[test]
    fn a_fill_ends_before_the_next_key_is_begun(most in prop::collection::vec(1..6_u32, 1..12)) {
        let entries = most.iter().enumerate().map(|(n, most)| Entry::new(&format!("sk-{n}")).at_once(*most));
        let mut bench = Bench::with(super::Strategy::FillFirst, entries.collect());
        for (key, most) in most.iter().enumerate() {
            for _ in 0..*most {
                let (taken, _out) = bench.take();
                prop_assert_eq!(taken, key);
            }
        }
        prop_assert!(bench.acquire().is_err());
    }

    #[test]
    fn a_tier_is_full_before_the_next_is_begun(
        keys in prop::collection::vec((any::<u8>(), 1..4_u32, any::<bool>()), 1..12),
        strategy in prop::sample::select(super::Strategy::NAMES.to_vec()),
    ) {
        let entries = keys.iter().enumerate().map(|(n, (priority, most, elsewhere))| {
            let entry = Entry::new(&format!("sk-{n}")).models(&["m"]).priority(*priority).at_once(*most);
            if *elsewhere { entry.at(TWO) } else { entry }
        });
        let mut bench = Bench::with(strategy.1, entries.collect());
        bench.model = Some("m");
        let whole: u32 = keys.iter().map(|(_, most, _)| most).sum();
        let mut out: Vec<_> = (0..whole).map(|_| bench.take()).collect();
        let priority = |key: usize| keys[key].0;
        prop_assert!(out.is_sorted_by_key(|(key, _)| priority(*key)), "{}", strategy.0);
        // Whoever has room again is used again, the first tier of those first.
        for which in (0..out.len()).rev().step_by(2) {
            let _ = bench.settle(out.swap_remove(which).1, Outcome::Good);
        }
        let again: Vec<_> = (out.len()..whole as usize).map(|_| bench.take()).collect();
        prop_assert!(again.is_sorted_by_key(|(key, _)| priority(*key)), "{}", strategy.0);
    }

    #[test]
    fn no_round_leaves_a_key_out(keys in 1..60_usize, rounds in 1..5_usize) {
        let mut bench = Bench::with(super::Strategy::RoundRobin, Entry::many(keys));
        for _ in 0..rounds {
            prop_assert!(bench.shares(keys).iter().all(|share| *share == 1));
        }
    }

    #[test]
    fn the_moment_named_is_honest(
        rates in prop::collection::vec((0.05..50.0_f64, 1..4_u32), 1..10),
        rests in prop::collection::vec(0..20_000_u64, 0..10),
    ) {
        let entries = rates.iter().enumerate().map(|(n, (rate, burst))| {
            Entry::new(&format!("sk-{n}")).rate(*rate, *burst)
        });
        let mut bench = Bench::new(entries.collect());
        for ms in rests {
            let named = Some(Duration::from_millis(ms));
            if let Ok(Grant { ticket, .. }) = bench.acquire() {
                let _ = bench.settle(ticket, Outcome::Rest { reason: Reason::RateLimited, of: Rests::Account, named });
            }
        }
        for _ in 0..100 {
            match bench.acquire() {
                Ok(Grant { ticket, .. }) => { let _ = bench.settle(ticket, Outcome::Good); }
                Err(exhausted) => {
                    let free = exhausted.free_at.unwrap();
                    bench.now = free - Duration::from_nanos(1);
                    prop_assert!(bench.acquire().is_err(), "it was free before");
                    bench.now = free;
                    prop_assert!(bench.acquire().is_ok());
                }
            }
        }
    }

    #[test]
    fn a_line_is_served_in_the_order_of_arrival(waiters in 1..40_usize, at_once in 1..4_u32) {
        let mut bench = Bench::new(vec![Entry::new("a").at_once(at_once)]);
        let mut out: Vec<_> = (0..at_once).map(|_| bench.take().1).collect();
        let mut line: Vec<_> = (0..waiters).map(|_| bench.arrive()).collect();
        for arrival in &line {
            prop_assert!(bench.ask(*arrival).is_err());
            bench.join(*arrival).unwrap();
        }
        while let Some(ticket) = out.pop() {
            let mut wake = bench.settle(ticket, Outcome::Good).wake;
            while let Some(arrival) = wake.pop() {
                prop_assert_eq!(arrival, line[0]);
                let Ok(Grant { ticket, .. }) = bench.ask(arrival) else { break };
                out.push(ticket);
                line.remove(0);
                wake.extend(bench.pool.leave(arrival));
            }
        }
        prop_assert!(line.is_empty());
    }
}

#[test]
fn twenty_thousand_faults_of_clients_and_twenty_thousand_aborts_change_nothing() {
    let mut bench = Bench::new(Entry::many(5));
    for round in 0..60_000 {
        let (_, ticket) = bench.take();
        let outcome = [Outcome::Harmless, Outcome::Abandoned, Outcome::Good][round % 3];
        assert_eq!(bench.settle(ticket, outcome), Effects::default());
        bench.now += MS;
    }
    let snapshot = bench.pool.snapshot(bench.now);
    for key in snapshot.keys {
        assert_eq!((key.state, key.health, key.used, key.last_error), (State::Ready, 1.0, 12_000, None));
    }
}
