//! Whose fault it is, the key's or the host's: one behaviour each.

use super::*;

#[test]
fn one_bad_key_of_many_never_opens_the_breaker() {
    let mut bench = Bench::new(Entry::many(10));
    for _ in 0..2_000 {
        bench.now += MS * 20;
        let (key, ticket) = bench.take();
        let outcome = if key == 3 { Outcome::Failed } else { Outcome::Good };
        let effects = bench.settle(ticket, outcome);
        assert!(!effects.transitions.iter().any(|it| matches!(it, Transition::HostOpened { .. })));
    }
}

/// Requests that all fail until the breaker opens.
fn outage(bench: &mut Bench, outcome: Outcome) -> Instant {
    for _ in 0..100 {
        let (_, ticket) = bench.take();
        match bench.settle(ticket, outcome).transitions[..] {
            [] => {}
            [Transition::HostOpened { until, .. }] => return until,
            ref others => panic!("{others:?}"),
        }
    }
    panic!("it stays closed");
}

#[test]
fn an_outage_opens_the_breaker_and_no_key_pays_for_it() {
    for outcome in [Outcome::Failed, Outcome::HostFailed] {
        let mut bench = Bench::new(Entry::many(6));
        bench.shares(6);
        bench.now += SECOND;
        for pause in [1, 2, 4, 8] {
            let until = outage(&mut bench, outcome);
            assert_eq!(until, bench.now + SECOND * pause);
            assert_eq!(bench.acquire().unwrap_err().free_at, Some(until));
            bench.now = until;
        }
        let (_, probe) = bench.take();
        assert_eq!(bench.acquire().unwrap_err().free_at, None, "one probe");
        let effects = bench.settle(probe, Outcome::Good);
        assert!(matches!(effects.transitions[..], [Transition::HostClosed { .. }]));
        let snapshot = bench.pool.snapshot(bench.now);
        assert!(snapshot.keys.iter().all(|key| key.state == State::Ready && key.health == 1.0));
        // Nor later: the failures of the outage are forgotten.
        bench.shares(6);
        assert!(bench.hit(2, Outcome::Failed).transitions.is_empty());
        assert!(bench.hit(2, Outcome::Failed).transitions.is_empty());
    }
}

#[test]
fn a_long_answer_that_ends_closes_no_breaker() {
    let mut bench = Bench::new(Entry::many(6));
    let (_, mut stream) = bench.take();
    let _ = bench.heard(&mut stream, MS * 100);
    bench.now += SECOND;
    let until = outage(&mut bench, Outcome::HostFailed);
    assert_eq!(bench.settle(stream, Outcome::Good), Effects::default());
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(until));
}

#[test]
fn refusals_close_a_breaker_and_never_open_one() {
    let mut bench = Bench::new(Entry::many(40));
    for _ in 0..30 {
        let (_, ticket) = bench.take();
        let effects = bench.settle(ticket, rest(Reason::Rejected));
        assert!(!effects.transitions.iter().any(|it| matches!(it, Transition::HostOpened { .. })));
    }
    bench.now = outage(&mut bench, Outcome::HostFailed);
    let (_, probe) = bench.take();
    let effects = bench.settle(probe, limited(5));
    assert!(matches!(effects.transitions[0], Transition::HostClosed { .. }));
}

#[test]
fn where_others_work_a_failure_is_the_keys_own() {
    let mut bench = Bench::new(Entry::many(2));
    let (first, second) = (Arc::clone(&bench.keys[0]), Arc::clone(&bench.keys[1]));
    assert!(!bench.pool.failure_is_local(&first), "it has not failed");
    let (_, ticket) = bench.take();
    let _ = bench.settle(ticket, Outcome::Failed);
    assert!(!bench.pool.failure_is_local(&first), "nobody knows");
    bench.serve(Outcome::Good);
    assert!(bench.pool.failure_is_local(&first));
    assert!(!bench.pool.failure_is_local(&second));
}

#[test]
fn the_last_key_in_service_rests_rather_than_being_hammered() {
    let mut bench = Bench::new(Entry::many(3));
    let _ = bench.hit(0, rest(Reason::QuotaExhausted));
    let _ = bench.hit(1, rest(Reason::QuotaExhausted));
    for _ in 0..3 {
        bench.serve(Outcome::Failed);
    }
    assert!(matches!(bench.state(2), State::Resting(Reason::Failing, _)));
}

#[test]
fn a_shut_host_with_resting_keys_is_not_free_when_it_opens() {
    let mut bench = Bench::new(Entry::many(2));
    let (_, first) = bench.take();
    let (_, second) = bench.take();
    let until = outage(&mut bench, Outcome::HostFailed);
    let _ = bench.settle(first, limited(50));
    let _ = bench.settle(second, limited(40));
    assert!(until < bench.now + SECOND * 40);
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND * 40));
}

#[test]
fn a_host_that_failed_a_request_is_asked_again_only_when_no_other_is_free() {
    let mut bench = Bench::new(vec![Entry::new("a").models(&["m"]), Entry::new("b").at(TWO).models(&["m"])]);
    bench.model = Some("m");
    bench.failed_hosts = vec![bench.keys[0].settings().base.origin().clone()];
    assert_eq!(bench.shares(6), [0, 6]);
    let _ = bench.hit(1, limited(9));
    assert_eq!(bench.shares(6), [6, 0]);
}

#[test]
fn the_one_living_key_of_two_hundred_is_found_and_kept() {
    // One in five stands on a host that is down.
    let at = |(n, entry): (usize, Entry)| if n % 5 == 4 { entry.at(TWO) } else { entry };
    let mut bench = Bench::new(Entry::many(200).into_iter().enumerate().map(at).collect());
    bench.model = Some("m");
    let dead = |key: usize| match key % 5 {
        0 => rest(Reason::Rejected),
        1 => rest(Reason::QuotaExhausted),
        2 => rest(Reason::Refused),
        3 => {
            Outcome::Rest { reason: Reason::QuotaExhausted, of: Rests::Account, named: Some(SECOND * 86_400) }
        }
        _ => Outcome::HostFailed,
    };
    let (mut attempts, mut worst) = (0, 0);
    for request in 0..10_000 {
        bench.now += MS * 10;
        bench.tried.clear();
        loop {
            let (key, ticket) = bench.take();
            attempts += usize::from(request > 0);
            let _ = bench.settle(ticket, if key == 198 { Outcome::Good } else { dead(key) });
            if key == 198 {
                break;
            }
            let key = bench.keys[key].identity();
            bench.tried.push(key);
        }
        if request == 0 {
            assert!(bench.tried.len() < 200);
        } else if request > 500 {
            worst = worst.max(bench.tried.len());
        }
    }
    assert!(attempts <= 10_000 * 101 / 100, "{attempts}");
    assert!(worst <= 1, "one request met {worst} dead keys");
}
