//! Routing, rests and what ends them: one behaviour each.

use super::*;

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
    assert_eq!(
        bench.acquire().unwrap_err(),
        Exhausted { why: Why::NoKeyForModel, free_at: None, sooner: false }
    );
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
            assert_eq!(
                bench.acquire().unwrap_err(),
                Exhausted { why: Why::NoneFree, free_at, sooner: false }
            );
        }
    }
}

#[test]
fn a_limit_with_a_wait_is_kept_to_the_moment() {
    let mut bench = Bench::new(Entry::many(1));
    let effects = bench.hit(0, limited(7));
    let until = bench.now + SECOND * 7;
    let key = Arc::clone(&bench.keys[0]);
    assert_eq!(
        effects.transitions,
        [Transition::Resting { key, model: None, reason: Reason::RateLimited, until, with: 0 }]
    );
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
fn a_model_that_one_entry_misses_is_not_brought_back_by_another_of_the_same_credential() {
    let entry = |path: &str| Entry::new("same").at(&format!("https://one.test/{path}")).models(&["m1"]);
    let mut bench = Bench::new(vec![entry("without"), entry("with")]);
    bench.model = Some("m1");
    let _ = bench.hit(0, for_model(Reason::ModelUnavailable, 300));
    bench.now += SECOND;
    assert_eq!(bench.shares(10), [0, 10]);
    // What is said of the credential is another matter.
    let _ = bench.hit(1, for_model(Reason::RateLimited, 400));
    bench.now += SECOND * 400;
    let _ = bench.hit(1, Outcome::Good);
    assert_eq!(bench.shares(10), [5, 5]);
}

#[test]
fn rests_for_more_models_than_are_remembered_give_up_the_soonest_to_end() {
    let names: Vec<&'static str> = (0..400).map(|n| &*format!("m{n}").leak()).collect();
    let mut bench = Bench::new(vec![Entry::new("a").models(&["m*"]), Entry::new("b").models(&["m*"])]);
    let mut out = Vec::new();
    for name in &names {
        bench.model = Some(name);
        out.push(bench.take());
    }
    for (n, (name, (_, ticket))) in names.iter().zip(out).enumerate() {
        bench.model = Some(name);
        let _ = bench.settle(ticket, for_model(Reason::RateLimited, 100 + n as u64));
    }
    assert_eq!(bench.pool.rotations.len(), 1 + 256);
    let mut resting = |name| {
        bench.model = Some(name);
        let shares = bench.shares(4);
        shares.contains(&0)
    };
    assert!(names[400 - 256..].iter().all(|name| resting(name)));
    assert!(!names[..400 - 256].iter().any(|name| resting(name)));
    for order in &bench.pool.rotations {
        order.rotation.assert_whole(|slot| bench.pool.slots[slot as usize].awaited);
    }
}

#[test]
fn three_failures_in_a_row_rest_a_key_until_one_probe_succeeds() {
    let mut bench = Bench::new(Entry::many(3));
    bench.shares(3);
    assert!(bench.hit(0, FAILED).transitions.is_empty());
    assert!(bench.hit(0, FAILED).transitions.is_empty());
    let effects = bench.hit(0, FAILED);
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
    let _ = bench.hit(0, FAILED);
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
fn a_tried_key_is_taken_again_only_when_none_else_is_free() {
    let mut bench = Bench::new(Entry::many(3));
    for tried in 0..3 {
        bench.tried = (0..3).filter(|n| *n != tried).map(|n| bench.keys[n].identity()).collect();
        for _ in 0..5 {
            assert_eq!(bench.serve(Outcome::Good), tried);
        }
    }
    // Of tried ones, not the one just tried.
    bench.tried.clear();
    let _ = bench.hit(2, limited(9));
    bench.tried = vec![bench.keys[0].identity(), bench.keys[1].identity()];
    assert_eq!(bench.serve(Outcome::Good), 0);
    bench.tried.reverse();
    assert_eq!(bench.serve(Outcome::Good), 1);
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
    let mut attempts = Vec::new();
    for _ in 0..20 {
        bench.tried.clear();
        loop {
            let (key, ticket) = bench.take();
            let _ = bench.settle(ticket, if key == 777 { Outcome::Good } else { Outcome::Denied });
            let identity = bench.keys[key].identity();
            bench.tried.push(identity);
            if key == 777 {
                break;
            }
        }
        attempts.push(bench.tried.len());
    }
    assert!(attempts[0] <= 1_000, "{attempts:?}");
    assert!(attempts[2..].iter().all(|attempts| *attempts <= 20), "{attempts:?}");
}

#[test]
fn causes_say_what_rests_and_whether_waiting_helps() {
    let mut bench = Bench::new(Entry::many(3));
    let want = |arrival| Want {
        arrival,
        model: None,
        purpose: "chat",
        stream: false,
        tried: &[],
        failed_hosts: &[],
        demand: Demand::default(),
    };
    let causes = |bench: &mut Bench| {
        let arrival = bench.arrive();
        bench.pool.causes(bench.now, &want(arrival))
    };
    assert_eq!(causes(&mut bench).free, 3);
    let _ = bench.hit(0, rest(Reason::Rejected));
    let _ = bench.hit(1, rest(Reason::Rejected));
    let now = bench.now;
    let (reason, until) = (Reason::Rejected, now + SECOND * 60);
    let rejected = Resting { reason, keys: 2, accounts: 0, of_accounts: 0, until };
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
                    0 => FAILED,
                    1 => OVERLOADED,
                    _ => reasons[n % 6],
                };
                let _ = bench.settle(ticket, outcome);
            }
            Err(exhausted) => bench.now = exhausted.free_at.unwrap() + MS * rng.u32(0..50),
        }
    }
    assert_eq!(bench.pool.snapshot(bench.now).keys.iter().map(|key| key.in_flight).sum::<u32>(), 0);
}
