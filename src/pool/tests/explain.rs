//! What people are told of a pick.

use super::*;

impl Bench {
    /// Asks, with the explanation.
    fn explained(&mut self) -> (Option<usize>, Explanation) {
        let arrival = self.arrive();
        let Self { model, purpose, .. } = *self;
        let want = Want {
            arrival,
            model,
            purpose,
            stream: false,
            tried: &self.tried,
            failed_hosts: &self.failed_hosts,
            demand: Demand::default(),
        };
        let survey = self.pool.survey(self.now, &want);
        let grant = self.pool.acquire(self.now, &want).ok();
        let why = self.pool.explain(&survey, grant.as_ref().map(|grant| &grant.ticket));
        (grant.map(|grant| self.number(&grant.key)), why)
    }
}

#[test]
fn each_reason_is_counted() {
    let mut entries = Entry::many(8);
    entries[5] = entries[5].clone().at_once(1);
    entries[6] = entries[6].clone().at(TWO);
    entries[7] = entries[7].clone().priority(9);
    let mut bench = Bench::with(Strategy::RoundRobin, entries);
    bench.model = Some("m");
    for (key, outcome) in [
        (0, limited(60)),
        (1, rest(Reason::Rejected)),
        (2, for_model(Reason::RateLimited, 60)),
        (3, Outcome::Denied),
    ] {
        let _ = bench.hit(key, outcome);
    }
    bench.tried = vec![bench.keys[4].identity()];
    bench.failed_hosts = vec![bench.keys[6].settings().base.origin().clone()];
    // The other two serve: one that may serve one at a time, and the one of the host that failed comes before a tier.
    let (chosen, why) = bench.explained();
    assert_eq!((chosen, why.strategy, why.turn), (Some(5), Strategy::RoundRobin, Some(Turn::Next)));
    assert_eq!(
        why.passed_over.to_string(),
        "2 rate_limited, 1 rejected, 1 host_failed, 1 tried, 1 denied, 1 lower_priority"
    );
    let (chosen, why) = bench.explained();
    assert_eq!(chosen, Some(7), "the host that failed is trusted less than a later priority");
    assert_eq!(
        why.passed_over.to_string(),
        "2 rate_limited, 1 rejected, 1 busy, 1 host_failed, 1 tried, 1 denied"
    );
}

#[test]
fn a_key_whose_turn_comes_later_is_not_passed_over() {
    let mut bench = Bench::new(Entry::many(5));
    let (_, why) = bench.explained();
    assert_eq!((why.turn, why.passed_over), (Some(Turn::Next), Counts::default()));
}

#[test]
fn trials_are_told_from_turns() {
    let mut bench = Bench::new(Entry::many(2));
    bench.serve(rest(Reason::Rejected));
    bench.serve(rest(Reason::Rejected));
    let (none, why) = bench.explained();
    assert_eq!((none, why.turn, why.passed_over.to_string().as_str()), (None, None, "2 rejected"));
    bench.now += SECOND * 60;
    let (one, why) = bench.explained();
    assert!(one.is_some());
    assert_eq!((why.turn, why.passed_over.to_string().as_str()), (Some(Turn::Trial), "1 on_trial"));
    // While its trial is out it still rests.
    let (two, why) = bench.explained();
    assert!(two.is_some() && two != one);
    assert_eq!((why.turn, why.passed_over.to_string().as_str()), (Some(Turn::Trial), "1 rejected"));
}

#[test]
fn a_host_out_of_order_is_told_and_so_is_its_trial() {
    let mut bench = Bench::new(Entry::many(2));
    for _ in 0..5 {
        bench.serve(Outcome::HostFailed(Trouble::Transport));
    }
    let (none, why) = bench.explained();
    assert_eq!((none, why.passed_over.to_string().as_str()), (None, "2 host_down"));
    bench.now += SECOND;
    let (one, why) = bench.explained();
    assert!(one.is_some());
    assert_eq!(why.turn, Some(Turn::HostTrial));
}

#[test]
fn who_steps_in_is_told_with_those_it_steps_in_for() {
    let entries = vec![
        Entry::new("a").models(&["m"]),
        Entry::new("b").models(&["m", "others"]),
        Entry::new("c"),
        Entry::new("d").at_once(1),
    ];
    let mut bench = Bench::set(Settings { others_step_in: true, ..Settings::default() }, entries);
    bench.model = Some("m");
    for key in 0..2 {
        let _ = bench.hit(key, limited(60));
    }
    let (chosen, why) = bench.explained();
    assert!(chosen.is_some_and(|key| key >= 2));
    assert_eq!((why.turn, why.passed_over.to_string().as_str()), (Some(Turn::StepIn), "2 rate_limited"));
}

#[test]
fn of_a_model_that_nobody_serves_there_is_nothing_to_tell() {
    let mut bench = Bench::new(vec![Entry::new("a").models(&["m"])]);
    bench.model = Some("x");
    let (none, why) = bench.explained();
    assert_eq!((none, why.turn, why.passed_over), (None, None, Counts::default()));
}
