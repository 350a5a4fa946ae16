//! Limits of keys, and who waits for them: one behaviour each.

use super::*;

#[test]
fn entries_of_one_credential_share_limits_and_faults() {
    let entry = || Entry::new("same").at_once(2).rate(1.0, 3);
    let entries = vec![entry().models(&["m1"]), entry().models(&["m2"]), Entry::new("same").at(TWO)];
    let mut bench = Bench::new(entries);
    bench.model = Some("m1");
    let (one, two) = (bench.take().1, bench.take().1);
    bench.model = Some("m2");
    assert_eq!(bench.acquire().unwrap_err().free_at, None, "two at once, wherever");
    let arrival = bench.arrive();
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
    assert_eq!(bench.acquire().unwrap_err(), Exhausted { why: Why::NoneFree, free_at: None, sooner: true });
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
fn a_key_whose_pace_is_forgotten_is_free_at_once() {
    let mut bench = Bench::new(vec![Entry::new("a")]);
    for outcome in [limited(1), Outcome::Good] {
        bench.serve(outcome);
        bench.now += SECOND;
    }
    let (_, long) = bench.take();
    bench.now += SECOND * 600;
    let (_, _out) = bench.take();
    assert!(bench.acquire().unwrap_err().free_at > Some(bench.now), "the distance is kept");
    let _ = bench.settle(long, Outcome::Good);
    let _free = bench.take();
}

#[test]
fn a_refusal_that_names_an_earlier_moment_than_the_pace_is_taken_at_its_word() {
    let mut bench = Bench::new(vec![Entry::new("a")]);
    bench.serve(limited(2));
    bench.now += SECOND * 2;
    let (_, one) = bench.take();
    bench.now += SECOND * 2;
    let (_, _two) = bench.take();
    let arrival = bench.arrive();
    assert_eq!(bench.ask(arrival).unwrap_err().free_at, Some(bench.now + SECOND * 2));
    bench.join(arrival).unwrap();
    assert_eq!(bench.settle(one, limited(1)).wake, [arrival]);
    assert_eq!(bench.ask(arrival).unwrap_err().free_at, Some(bench.now + SECOND));
    bench.now += SECOND;
    assert!(bench.ask(arrival).is_ok());
}

#[test]
fn who_came_first_is_served_first_even_when_it_comes_back() {
    let mut bench = Bench::new(vec![Entry::new("a").at_once(1)]);
    let early = bench.arrive();
    let (_, ticket) = bench.take();
    let (second, third) = (bench.arrive(), bench.arrive());
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
    let arrivals: Vec<_> = (0..3).map(|_| bench.arrive()).collect();
    assert_eq!(
        arrivals.iter().map(|arrival| bench.join(*arrival)).collect::<Vec<_>>(),
        [Ok(vec![]), Ok(vec![]), Err(LineFull)]
    );
    assert_eq!(bench.join(arrivals[1]), Ok(vec![]), "it has its place");
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
        let arrival = bench.arrive();
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
    let (first, second) = (bench.arrive(), bench.arrive());
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
    let arrival = bench.arrive();
    assert!(bench.ask(arrival).is_err());
    bench.join(arrival).unwrap();
    assert_eq!(bench.pool.lift(bench.now, &keys, Reason::Rejected), Effects::default());
    let effects = bench.pool.lift(bench.now, &keys, Reason::Refused);
    assert_eq!((effects.transitions.len(), &effects.wake[..]), (2, &[arrival][..]));
    assert!(bench.ask(arrival).is_ok());
}

#[test]
fn there_is_no_hope_of_keys_that_no_wait_brings_back() {
    let entries = vec![
        Entry::new("a").models(&["m"]),
        Entry::new("b").models(&["m"]),
        Entry::new("c").models(&["others"]),
    ];
    for others_step_in in [false, true] {
        let mut bench = Bench::set(Settings { others_step_in, ..Settings::default() }, entries.clone());
        bench.model = Some("m");
        let hopeless = |bench: &mut Bench| {
            let arrival = bench.arrive();
            let want = Want {
                arrival,
                model: Some("m"),
                purpose: "chat",
                stream: false,
                tried: &[],
                failed_hosts: &[],
                demand: Demand::default(),
            };
            bench.pool.is_hopeless(bench.now, &want)
        };
        let _ = bench.hit(0, rest(Reason::Rejected));
        assert!(!hopeless(&mut bench), "one is well");
        let _ = bench.hit(1, limited(5));
        assert!(!hopeless(&mut bench), "one is back by itself");
        bench.now += SECOND * 5;
        let _ = bench.hit(1, rest(Reason::QuotaExhausted));
        assert_eq!(hopeless(&mut bench), !others_step_in, "others may step in");
        // The rejected one is due for a trial, and while that is out it may yet be well.
        bench.now += SECOND * 55;
        assert!(!hopeless(&mut bench));
        let (key, trial) = bench.take();
        assert_eq!((key, hopeless(&mut bench)), (0, false));
        let _ = bench.settle(trial, rest(Reason::Rejected));
        assert_eq!(hopeless(&mut bench), !others_step_in);
    }
}
