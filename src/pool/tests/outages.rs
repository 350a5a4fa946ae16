//! Whose fault it is, the key's or the host's: one behaviour each.

use super::*;

#[test]
fn one_bad_key_of_many_never_opens_the_breaker() {
    let mut bench = Bench::new(Entry::many(10));
    for _ in 0..2_000 {
        bench.now += MS * 20;
        let (key, ticket) = bench.take();
        let outcome = if key == 3 { FAILED } else { Outcome::Good };
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
    for outcome in Trouble::ALL.map(Outcome::Failed).into_iter().chain(Trouble::ALL.map(Outcome::HostFailed))
    {
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
        // One probe, and another if it takes long.
        assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND * 10));
        let effects = bench.settle(probe, Outcome::Good);
        assert!(matches!(effects.transitions[..], [Transition::HostClosed { .. }]));
        let snapshot = bench.pool.snapshot(bench.now);
        assert!(snapshot.keys.iter().all(|key| key.state == State::Ready && key.health == 1.0));
        // Nor later: the failures of the outage are forgotten.
        bench.shares(60);
        let snapshot = bench.pool.snapshot(bench.now);
        assert!(snapshot.keys.iter().all(|key| key.state == State::Ready && key.health == 1.0));
        assert!(bench.hit(2, FAILED).transitions.is_empty());
        assert!(bench.hit(2, FAILED).transitions.is_empty());
    }
}

#[test]
fn a_long_answer_that_ends_closes_no_breaker() {
    let mut bench = Bench::new(Entry::many(6));
    let (_, mut stream) = bench.take();
    let _ = bench.heard(&mut stream, MS * 100);
    bench.now += SECOND;
    let until = outage(&mut bench, OVERLOADED);
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
    bench.now = outage(&mut bench, OVERLOADED);
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
    let _ = bench.settle(ticket, FAILED);
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
        bench.serve(FAILED);
    }
    assert!(matches!(bench.state(2), State::Resting(Reason::Failing, _)));
}

#[test]
fn a_shut_host_with_resting_keys_is_not_free_when_it_opens() {
    let mut bench = Bench::new(Entry::many(2));
    let (_, first) = bench.take();
    let (_, second) = bench.take();
    let until = outage(&mut bench, OVERLOADED);
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
        _ => OVERLOADED,
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

/// An opening, with what it was for.
fn opening(effects: &Effects) -> Option<Trouble> {
    effects.transitions.iter().find_map(|transition| match transition {
        Transition::HostOpened { trouble, .. } => Some(*trouble),
        _ => None,
    })
}

#[test]
fn the_third_account_in_the_same_trouble_opens_it() {
    for trouble in Trouble::ALL {
        let mut bench = Bench::new(Entry::many(100));
        for n in 1..=3 {
            let (_, ticket) = bench.take();
            let effects = bench.settle(ticket, Outcome::HostFailed(trouble));
            assert_eq!(opening(&effects), (n == 3).then_some(trouble), "{n}");
        }
        let host = bench.pool.snapshot(bench.now).hosts.remove(0);
        assert_eq!((host.open, host.trouble), (false, Some(trouble)));
        assert_eq!(host.openings, Trouble::ALL.map(|kind| (kind, u64::from(kind == trouble))));
    }
}

#[test]
fn many_keys_of_two_accounts_are_two_witnesses_until_no_other_is_in_service() {
    let entries = Entry::many(40).into_iter().enumerate();
    let mut bench = Bench::with(
        Strategy::RoundRobin,
        entries.map(|(n, entry)| entry.account(if n < 36 { ["a", "b"][n % 2] } else { "c" })).collect(),
    );
    for _ in 0..36 {
        let (key, ticket) = bench.take();
        assert!(key < 36);
        assert_eq!(opening(&bench.settle(ticket, OVERLOADED)), None);
    }
    let (_, ticket) = bench.take();
    let _ = bench.settle(ticket, limited(60));
    for _ in 0..9 {
        bench.now += MS * 100;
        let (key, ticket) = bench.take();
        assert!(key < 36, "the third account rests");
        if opening(&bench.settle(ticket, OVERLOADED)).is_some() {
            panic!("it has just worked");
        }
    }
    let (_, ticket) = bench.take();
    assert_eq!(opening(&bench.settle(ticket, OVERLOADED)), Some(Trouble::Overload));
}

#[test]
fn a_brown_out_in_which_a_tenth_fails_opens_nothing() {
    let mut bench = Bench::new(Entry::many(10));
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        bench.now += MS;
        let (_, ticket) = bench.take();
        let effects = bench.settle(ticket, if rng.f64() < 0.1 { FAILED } else { Outcome::Good });
        assert_eq!(opening(&effects), None);
    }
}

#[test]
fn a_refused_address_is_not_tried_with_every_key_and_no_key_pays() {
    let mut bench = Bench::new(Entry::many(50));
    let refused = Outcome::of(&crate::types::Verdict::new(Class::EgressRefused, crate::types::Scope::Egress));
    let until = outage(&mut bench, refused);
    assert_eq!(bench.pool.snapshot(bench.now).keys.iter().map(|key| key.used).sum::<u64>(), 3);
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(until));
    bench.now = until;
    assert_eq!(bench.serve(Outcome::Good), 3);
    bench.shares(500);
    let snapshot = bench.pool.snapshot(bench.now);
    assert!(snapshot.keys.iter().all(|key| key.state == State::Ready && key.health == 1.0));
    assert!(snapshot.hosts[0].open && snapshot.hosts[0].trouble.is_none());
}

#[test]
fn a_refused_address_says_nothing_of_a_key_on_trial() {
    let mut bench = Bench::new(Entry::many(1));
    let _ = bench.hit(0, rest(Reason::Rejected));
    bench.now += SECOND * 60;
    bench.serve(Outcome::HostFailed(Trouble::Egress));
    assert!(matches!(bench.state(0), State::Resting(Reason::Rejected, _)));
    let (_, trial) = bench.take();
    let _ = bench.settle(trial, Outcome::Good);
    assert_eq!(bench.state(0), State::Ready);
}

#[test]
fn what_an_outage_has_cost_keys_before_it_was_known_is_given_back() {
    let mut bench = Bench::with(Strategy::RoundRobin, Entry::many(10));
    bench.shares(10);
    // Four requests each are out when it begins; answers still come to some.
    let mut out: Vec<_> = (0..40).map(|_| bench.take()).collect();
    bench.now += MS * 100;
    for _ in 0..2 {
        bench.serve(Outcome::Good);
    }
    let mut opened = false;
    while let Some((_, ticket)) = out.pop() {
        bench.now += MS * 200;
        opened |= opening(&bench.settle(ticket, FAILED)).is_some();
        // Some answers come late.
        if out.len() == 36 {
            let (_, ticket) = out.pop().unwrap();
            let _ = bench.settle(ticket, Outcome::Good);
        }
    }
    assert!(opened);
    let snapshot = bench.pool.snapshot(bench.now);
    assert!(snapshot.keys.iter().all(|key| key.state == State::Ready));
    let blamed = snapshot.keys.iter().filter(|key| key.health < 1.0).count();
    assert!(blamed <= 4, "those that failed before the last success, which spoke for the host: {blamed}");
    bench.now += SECOND * 60;
    bench.shares(100);
    let snapshot = bench.pool.snapshot(bench.now);
    assert!(snapshot.keys.iter().all(|key| key.state == State::Ready && key.health == 1.0));
}

#[test]
fn a_rest_that_began_in_an_outage_ends_with_it() {
    let mut bench = Bench::with(Strategy::RoundRobin, Entry::many(4));
    // Its third failure is the first of an outage.
    let mut rested = false;
    for _ in 0..3 {
        bench.shares(3);
        bench.now += MS;
        let (key, ticket) = bench.take();
        assert_eq!(key, 3);
        let effects = bench.settle(ticket, FAILED);
        rested = matches!(effects.transitions[..], [Transition::Resting { .. }]);
    }
    for _ in 0..20 {
        bench.now += MS * 300;
        let (key, ticket) = bench.take();
        let effects = bench.settle(ticket, FAILED);
        rested |= effects.transitions.iter().any(|it| matches!(it, Transition::Resting { .. }));
        if opening(&effects).is_some() {
            let back = effects.transitions.iter().any(|it| matches!(it, Transition::Recovered { .. }));
            assert!(back, "{key}");
            break;
        }
    }
    assert!(rested && bench.state(3) == State::Ready);
}
