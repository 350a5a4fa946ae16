//! One behaviour each.

use super::*;

const TWO: &str = "https://two.test";

#[test]
fn keys_that_name_a_model_come_first_and_others_serve_what_no_key_names() {
    let entries = vec![
        Entry::new("exact").models(&["gpt-4"]),
        Entry::new("star").models(&["gpt-*"]),
        Entry::new("longer").models(&["gpt-5*"]),
        Entry::new("others"),
        Entry::new("both").models(&["o1", "others"]),
    ];
    let mut bench = Bench::new(entries);
    for (model, keys) in [
        ("gpt-4", &[0, 1][..]),
        ("gpt-3", &[1]),
        ("gpt-5-mini", &[1, 2]),
        ("gpt-5", &[1, 2]),
        ("o1", &[4]),
        ("llama", &[3, 4]),
        ("gpt", &[3, 4]),
    ] {
        bench.model = Some(model);
        let asked: Vec<usize> = (0..5).map(|key| bench.shares(20)[key]).collect();
        let served: Vec<usize> = (0..5).filter(|key| asked[*key] > 0).collect();
        assert_eq!(served, keys, "{model}");
    }
}

#[test]
fn what_no_key_serves_is_said_at_once() {
    let mut bench = Bench::new(vec![Entry::new("a").models(&["gpt-4"])]);
    bench.model = Some("llama");
    assert_eq!(bench.acquire().unwrap_err(), Exhausted { why: Why::NoKeyForModel, free_at: None });
    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.acquire().unwrap_err().why, Why::NoKeyForModel);
}

#[test]
fn without_a_model_the_home_host_serves_else_the_first_keys_host() {
    let one = || Entry::new("a").models(&["m"]);
    let mut bench = Bench::new(vec![one(), Entry::new("b").at("https://home.test/x"), one()]);
    assert_eq!(bench.shares(10), [0, 10, 0]);
    let mut bench = Bench::new(vec![one(), Entry::new("b").at(TWO), Entry::new("c")]);
    assert_eq!(bench.shares(10), [5, 0, 5]);
}

#[test]
fn others_step_in_for_a_named_model_only_where_that_is_wished() {
    for wished in [false, true] {
        let settings = Settings { others_step_in: wished, ..Settings::default() };
        let mut bench = Bench::set(settings, vec![Entry::new("named").models(&["m"]), Entry::new("other")]);
        bench.model = Some("m");
        assert_eq!(bench.shares(4), [4, 0]);
        bench.serve(limited(9));
        if wished {
            assert_eq!(bench.shares(4), [0, 4]);
        } else {
            let free_at = Some(bench.now + SECOND * 9);
            assert_eq!(bench.acquire().unwrap_err(), Exhausted { why: Why::NoneFree, free_at });
        }
    }
}

#[test]
fn a_limit_with_a_wait_is_kept_to_the_moment() {
    let mut bench = Bench::new(Entry::many(1));
    let effects = { bench.hit(0, limited(7)) };
    let until = bench.now + SECOND * 7;
    let key = Arc::clone(&bench.keys[0]);
    assert_eq!(effects.transitions, [Transition::Resting { key, reason: Reason::RateLimited, until }]);
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(until));
    bench.now = until - Duration::from_nanos(1);
    assert!(bench.acquire().is_err());
    bench.now = until;
    // The provider's word is enough: no probe.
    let _first = bench.take();
    let _second = bench.take();
}

#[test]
fn a_limit_without_a_wait_rests_longer_each_time() {
    let mut bench = Bench::new(Entry::many(1));
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        bench.serve(rest(Reason::RateLimited));
        assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND * seconds));
        bench.now += SECOND * seconds;
    }
    bench.serve(Outcome::Good);
    bench.serve(rest(Reason::RateLimited));
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND));
}

#[test]
fn a_rest_for_one_model_leaves_the_others_alone() {
    let models = &["m1", "m2"];
    let mut bench = Bench::new(Entry::many(2).into_iter().map(|entry| entry.models(models)).collect());
    bench.model = Some("m1");
    let _ = bench.hit(0, for_model(Reason::RateLimited, 30));
    assert_eq!(bench.shares(10), [0, 10]);
    bench.model = Some("m2");
    assert_eq!(bench.shares(10), [5, 5]);
    assert_eq!(bench.state(0), State::Ready);
    bench.model = Some("m1");
    bench.now += SECOND * 30;
    assert_eq!(bench.shares(10), [5, 5]);
}

#[test]
fn three_failures_in_a_row_rest_a_key_until_one_probe_succeeds() {
    let mut bench = Bench::new(Entry::many(3));
    bench.shares(3);
    assert!(bench.hit(0, Outcome::Failed).transitions.is_empty());
    assert!(bench.hit(0, Outcome::Failed).transitions.is_empty());
    let effects = bench.hit(0, Outcome::Failed);
    assert!(matches!(effects.transitions[..], [Transition::Resting { reason: Reason::Failing, .. }]));
    assert_eq!(bench.shares(20)[0], 0);
    bench.now += SECOND;
    let mut out: Vec<_> = (0..20).map(|_| bench.take()).collect();
    let probes: Vec<usize> = (0..20).filter(|n| out[*n].0 == 0).collect();
    assert_eq!(probes.len(), 1);
    let (_, probe) = out.remove(probes[0]);
    let effects = bench.settle(probe, Outcome::Good);
    assert_eq!(effects.transitions, [Transition::Recovered { key: Arc::clone(&bench.keys[0]) }]);
    for (_, ticket) in out {
        let _ = bench.settle(ticket, Outcome::Good);
    }
    // Its health has suffered; it is in turn again all the same.
    assert!(bench.shares(300)[0] > 10);
}

#[test]
fn an_abandoned_probe_is_due_again() {
    let mut bench = Bench::new(Entry::many(1));
    bench.serve(rest(Reason::Failing));
    bench.now += SECOND;
    for _ in 0..3 {
        let (_, probe) = bench.take();
        assert_eq!(bench.acquire().unwrap_err().free_at, None, "one at a time");
        let _ = bench.settle(probe, Outcome::Abandoned);
    }
    bench.serve(Outcome::Good);
    assert_eq!(bench.state(0), State::Ready);
}

#[test]
fn a_rejected_key_stays_in_quarantine_until_a_recheck_succeeds() {
    let mut bench = Bench::new(Entry::many(2));
    let _ = bench.hit(0, rest(Reason::Rejected));
    for seconds in [60, 120, 240] {
        assert_eq!(bench.shares(500)[0], 0);
        let until = bench.now + SECOND * seconds;
        assert_eq!(bench.state(0), State::Resting(Reason::Rejected, until));
        bench.now = until;
        let _ = bench.hit(0, rest(Reason::Rejected));
    }
    bench.now += SECOND * 480;
    let _ = bench.hit(0, Outcome::Good);
    assert_eq!(bench.state(0), State::Ready);
}

#[test]
fn a_server_error_on_a_recheck_ends_no_quarantine() {
    let mut bench = Bench::new(Entry::many(2));
    let _ = bench.hit(0, rest(Reason::Rejected));
    bench.now += SECOND * 60;
    let _ = bench.hit(0, Outcome::Failed);
    assert_eq!(bench.state(0), State::Resting(Reason::Rejected, bench.now + SECOND * 120));
}

#[test]
fn a_refusal_for_one_model_ends_a_keys_quarantine() {
    let mut bench = Bench::new(Entry::many(1));
    bench.model = Some("m");
    bench.serve(rest(Reason::Rejected));
    bench.now += SECOND * 60;
    bench.serve(for_model(Reason::ModelUnavailable, 300));
    assert_eq!(bench.state(0), State::Ready);
    bench.model = Some("n");
    bench.serve(Outcome::Good);
}

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
        for transition in bench.settle(ticket, outcome).transitions {
            match transition {
                Transition::HostOpened { until, .. } => return until,
                other => panic!("{other:?}"),
            }
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
fn entries_of_one_credential_share_limits_and_faults() {
    let entry = || Entry::new("same").at_once(2).rate(1.0, 3);
    let entries = vec![entry().models(&["m1"]), entry().models(&["m2"]), Entry::new("same").at(TWO)];
    let mut bench = Bench::new(entries);
    bench.model = Some("m1");
    let (one, two) = (bench.take().1, bench.take().1);
    bench.model = Some("m2");
    assert_eq!(bench.acquire().unwrap_err().free_at, None, "two at once, wherever");
    let arrival = bench.pool.arrive();
    bench.join(arrival).unwrap();
    assert_eq!(bench.settle(one, Outcome::Good).wake, [arrival]);
    bench.pool.leave(arrival);
    bench.serve(Outcome::Good);
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND), "three in a burst");
    let _ = bench.settle(two, rest(Reason::Rejected));
    assert!(matches!(bench.state(0), State::Resting(Reason::Rejected, _)));
    assert!(matches!(bench.state(1), State::Resting(Reason::Rejected, _)));
    // On another host the same text is another credential: many local servers take any.
    assert_eq!(bench.state(2), State::Ready);
}

#[test]
fn a_key_serves_no_more_at_once_than_it_may() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(2), Entry::new("b").at_once(1)]);
    let mut out: Vec<_> = (0..3).map(|_| bench.take()).collect();
    assert_eq!(bench.acquire().unwrap_err(), Exhausted { why: Why::NoneFree, free_at: None });
    let (key, ticket) = out.remove(1);
    let _ = bench.settle(ticket, Outcome::Abandoned);
    assert_eq!(bench.take().0, key);
}

#[test]
fn a_keys_own_rate_is_kept_and_the_next_turn_is_named() {
    let mut bench = Bench::new(vec![Entry::new("a").rate(4.0, 2), Entry::new("b").rate(2.0, 1)]);
    bench.shares(3);
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + MS * 250));
    bench.now += MS * 250;
    assert_eq!(bench.take().0, 0);
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + MS * 250));
}

#[test]
fn a_rest_and_a_rate_are_waited_out_together() {
    let mut bench = Bench::new(vec![Entry::new("a").rate(0.1, 1)]);
    bench.serve(limited(3));
    assert_eq!(bench.acquire().unwrap_err().free_at, Some(bench.now + SECOND * 10));
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
fn who_came_first_is_served_first_even_when_it_comes_back() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let early = bench.pool.arrive();
    let (_, ticket) = bench.take();
    let (second, third) = (bench.pool.arrive(), bench.pool.arrive());
    for arrival in [second, third] {
        assert!(bench.ask(arrival).is_err());
        bench.join(arrival).unwrap();
    }
    assert_eq!(bench.pool.waiting(), 2);
    assert_eq!(bench.settle(ticket, Outcome::Good).wake, [second]);
    // Free, but not for those behind the first.
    assert_eq!(bench.ask(third).unwrap_err().why, Why::InLine);
    assert_eq!(bench.acquire().unwrap_err().why, Why::InLine);
    // An older one that retries goes ahead.
    let Grant { ticket, .. } = bench.ask(early).unwrap();
    assert_eq!(bench.ask(second).unwrap_err().why, Why::NoneFree);
    assert_eq!(bench.settle(ticket, Outcome::Good).wake, [second]);
    let Grant { ticket, .. } = bench.ask(second).unwrap();
    assert_eq!(bench.pool.leave(second), Some(third));
    assert_eq!(bench.ask(third).unwrap_err().why, Why::NoneFree);
    assert_eq!(bench.settle(ticket, Outcome::Good).wake, [third]);
}

#[test]
fn a_line_is_as_long_as_it_may_be() {
    let settings = Settings { max_waiting: 2.try_into().unwrap(), ..Settings::default() };
    let mut bench = Bench::set(settings, vec![Entry::new("a").at_once(1)]);
    let (_, _out) = bench.take();
    let arrivals: Vec<_> = (0..3).map(|_| bench.pool.arrive()).collect();
    assert_eq!(
        arrivals.iter().map(|arrival| bench.join(*arrival)).collect::<Vec<_>>(),
        [Ok(()), Ok(()), Err(LineFull)]
    );
    assert_eq!(bench.join(arrivals[1]), Ok(()), "it has its place");
}

#[test]
fn a_line_says_when_the_turn_after_those_in_it_comes() {
    let entries =
        vec![Entry::new("a").rate(1.0, 1), Entry::new("b").rate(1.0, 1), Entry::new("c").rate(8.0, 1)];
    let mut bench = Bench::new(entries);
    // Who rests adds nothing to the pace.
    let _ = bench.hit(2, rest(Reason::QuotaExhausted));
    for n in 0..5_u32 {
        if let Ok(Grant { ticket, .. }) = bench.acquire() {
            let _ = bench.settle(ticket, Outcome::Good);
        }
        let arrival = bench.pool.arrive();
        let expected = bench.now + SECOND + MS * 500 * n;
        let told = bench.ask(arrival).map(|_| ()).unwrap_err();
        assert!(n == 0 || told.why == Why::InLine);
        assert_eq!(told.free_at, Some(expected));
        bench.join(arrival).unwrap();
    }
}

#[test]
fn a_line_follows_its_model_into_an_order_of_its_own() {
    let models = &["m1", "m2"];
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1).models(models)]);
    bench.model = Some("m1");
    let (_, ticket) = bench.take();
    let (first, second) = (bench.pool.arrive(), bench.pool.arrive());
    for (model, arrival) in [("m1", first), ("m2", second)] {
        bench.model = Some(model);
        assert!(bench.ask(arrival).is_err());
        bench.join(arrival).unwrap();
    }
    bench.model = Some("m1");
    let mut wake = bench.settle(ticket, for_model(Reason::RateLimited, 20)).wake;
    wake.sort_unstable();
    assert_eq!(wake, [first, second]);
    assert_eq!(bench.ask(first).unwrap_err().free_at, Some(bench.now + SECOND * 20));
    assert_eq!(bench.acquire().unwrap_err().why, Why::InLine, "nobody overtakes");
    bench.model = Some("m2");
    assert!(bench.ask(second).is_ok(), "nobody waits for a model that rests");
}

#[test]
fn a_lifted_rest_wakes_the_line() {
    let mut bench = Bench::new(Entry::many(2));
    let keys: Vec<_> = bench.keys.iter().map(|key| key.identity()).collect();
    for _ in 0..2 {
        bench.serve(rest(Reason::Refused));
    }
    let arrival = bench.pool.arrive();
    assert!(bench.ask(arrival).is_err());
    bench.join(arrival).unwrap();
    assert_eq!(bench.pool.lift(&keys, Reason::Rejected), Effects::default());
    let effects = bench.pool.lift(&keys, Reason::Refused);
    assert_eq!((effects.transitions.len(), &effects.wake[..]), (2, &[arrival][..]));
    assert!(bench.ask(arrival).is_ok());
}

#[test]
fn a_tried_key_is_taken_again_only_when_none_else_is_free() {
    let mut bench = Bench::new(Entry::many(3));
    for tried in 0..3 {
        bench.tried = (0..3).filter(|n| *n != tried).map(|n| bench.keys[n].identity()).collect();
        for _ in 0..5 {
            assert_eq!(bench.serve(Outcome::Good), tried);
        }
    }
    // Of tried ones, not the one just tried.
    bench.tried = vec![bench.keys[0].identity(), bench.keys[1].identity()];
    let _ = { std::mem::take(&mut bench.tried) };
    let _ = bench.hit(2, limited(9));
    bench.tried = vec![bench.keys[0].identity(), bench.keys[1].identity()];
    assert_eq!(bench.serve(Outcome::Good), 0);
    bench.tried.reverse();
    assert_eq!(bench.serve(Outcome::Good), 1);
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
fn a_key_that_may_not_use_an_endpoint_is_spared_it() {
    let mut bench = Bench::new(Entry::many(3));
    bench.purpose = "files";
    let _ = bench.hit(1, Outcome::Denied);
    assert_eq!(bench.shares(20)[1], 0);
    assert_eq!(bench.state(1), State::Ready);
    bench.purpose = "chat";
    assert!(bench.shares(21)[1] >= 7);
    bench.purpose = "files";
    bench.now += SECOND * 300;
    assert!(bench.shares(21)[1] >= 7, "remembered for five minutes");
}

#[test]
fn of_a_thousand_keys_that_may_not_the_one_that_may_is_found() {
    let mut bench = Bench::new(Entry::many(1_000));
    bench.purpose = "files";
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (key, ticket) = bench.take();
        let _ = bench.settle(ticket, if key == 777 { Outcome::Good } else { Outcome::Denied });
        if key == 777 {
            break;
        }
    }
    assert!(attempts <= 1_000);
    let misses = (0..200).filter(|_| bench.serve(Outcome::Good) != 777).count();
    assert!(misses <= 200, "{misses}");
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
            Outcome::Rest { reason: Reason::QuotaExhausted, model_only: false, named: Some(SECOND * 86_400) }
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

#[test]
fn causes_say_what_rests_and_whether_waiting_helps() {
    let mut bench = Bench::new(Entry::many(3));
    let want = |arrival| Want { arrival, model: None, purpose: "chat", tried: &[], failed_hosts: &[] };
    let causes = |bench: &mut Bench| {
        let arrival = bench.pool.arrive();
        bench.pool.causes(bench.now, &want(arrival))
    };
    assert_eq!(causes(&mut bench).free, 3);
    let _ = bench.hit(0, rest(Reason::Rejected));
    let _ = bench.hit(1, rest(Reason::Rejected));
    let now = bench.now;
    let rejected = (Reason::Rejected, 2, now + SECOND * 60);
    assert_eq!(causes(&mut bench), Causes { resting: vec![rejected], free: 1, ..Causes::default() });
    let _ = bench.hit(2, rest(Reason::QuotaExhausted));
    let all = causes(&mut bench);
    assert!(all.is_hopeless() && all.keys() == 3, "{all:?}");
}

#[test]
fn a_million_failures_break_nothing() {
    let mut bench = Bench::new(vec![Entry::new("a"), Entry::new("b").at(TWO), Entry::new("c")]);
    let reasons = Reason::ALL.map(rest);
    let mut rng = fastrand::Rng::with_seed(3);
    bench.model = Some("m");
    for n in 0..1_000_000_usize {
        match bench.acquire() {
            Ok(Grant { ticket, .. }) => {
                let outcome = match n % 4 {
                    0 => Outcome::Failed,
                    1 => Outcome::HostFailed,
                    _ => reasons[n % 6],
                };
                let _ = bench.settle(ticket, outcome);
            }
            Err(exhausted) => bench.now = exhausted.free_at.unwrap() + MS * rng.u32(0..50),
        }
    }
    assert_eq!(bench.pool.snapshot(bench.now).keys.iter().map(|key| key.in_flight).sum::<u32>(), 0);
}
