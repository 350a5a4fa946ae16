//! Keys that share an account share its limits, whether that is declared or learned.

use super::*;

const MODEL: Option<&str> = Some("m1");

fn project(name: &str) -> AccountId {
    AccountId::project("openai", name).expect("it is a name")
}

impl Bench {
    /// One request of key `number`, whose answer names `account`; the others work and name none.
    fn learn(&mut self, number: usize, account: AccountId) {
        for _ in 0..1000 {
            let (key, ticket) = self.take();
            if key == number {
                let _ = self.pool.learn(self.now, &ticket, account);
                let _ = self.settle(ticket, Outcome::Good);
                return;
            }
            let _ = self.settle(ticket, Outcome::Good);
        }
        panic!("key {number} is never asked");
    }

    fn accounts(&mut self) -> Vec<Option<AccountId>> {
        self.pool.snapshot(self.now).keys.iter().map(|key| key.account).collect()
    }

    /// The keys that so many requests are given.
    fn asked(&mut self, requests: usize) -> Vec<usize> {
        let shares = self.shares(requests);
        (0..shares.len()).filter(|key| shares[*key] > 0).collect()
    }
}

#[test]
fn a_limit_that_one_key_meets_rests_its_whole_account_for_that_model() {
    let mut bench = Bench::new(vec![
        Entry::new("a").account("work"),
        Entry::new("b").account("work"),
        Entry::new("c").account("play"),
    ]);
    bench.model = MODEL;
    let effects = bench.hit(0, for_model(Reason::RateLimited, 10));
    assert!(matches!(effects.transitions[..], [Transition::Resting { with: 1, model: Some(_), .. }]));
    assert_eq!(bench.asked(100), [2]);
    let rests = |view: &KeyView| view.model_rests.iter().map(|rest| rest.reason).collect::<Vec<_>>();
    let shown: Vec<_> = bench.pool.snapshot(bench.now).keys.iter().map(rests).collect();
    assert_eq!(shown, [vec![Reason::RateLimited], vec![Reason::RateLimited], vec![]]);
    bench.model = Some("m2");
    assert_eq!(bench.asked(100), [0, 1, 2]);
    bench.model = MODEL;
    bench.now += SECOND * 10;
    assert_eq!(bench.asked(100), [0, 1, 2]);
}

#[test]
fn an_account_without_money_serves_nothing_and_one_trial_brings_all_its_keys_back() {
    let names = ["a", "b", "c"].map(|name| Entry::new(name).account("work"));
    let mut bench = Bench::new(names.to_vec());
    let broke = Outcome::Rest { reason: Reason::QuotaExhausted, of: Rests::Account, named: None };
    let _ = bench.hit(1, broke);
    assert!((0..3).all(|key| matches!(bench.state(key), State::Resting(Reason::QuotaExhausted, _))));
    let free_at = bench.acquire().unwrap_err().free_at.unwrap();
    bench.now = free_at;
    let (_, trial) = bench.take();
    let arrival = bench.arrive();
    assert!(bench.ask(arrival).is_err(), "one trial at a time, whichever key");
    bench.join(arrival).unwrap();
    let effects = bench.settle(trial, Outcome::Good);
    assert_eq!(effects.wake, [arrival]);
    assert_eq!(bench.pool.leave(arrival), None);
    assert!((0..3).all(|key| bench.state(key) == State::Ready));
    assert_eq!(bench.asked(100), [0, 1, 2]);
}

#[test]
fn a_trial_that_says_nothing_of_the_account_is_due_again_for_its_other_keys() {
    let mut bench = Bench::new(["a", "b"].map(|name| Entry::new(name).account("work")).to_vec());
    let _ = bench
        .hit(0, Outcome::Rest { reason: Reason::QuotaExhausted, of: Rests::Account, named: Some(SECOND) });
    bench.now += SECOND;
    let (first, trial) = bench.take();
    let arrival = bench.arrive();
    assert!(bench.ask(arrival).is_err());
    bench.join(arrival).unwrap();
    assert_eq!(bench.settle(trial, Outcome::Abandoned).wake, [arrival]);
    bench.tried = vec![bench.keys[first].identity()];
    let other = bench.ask(arrival).unwrap();
    assert_ne!(bench.number(&other.key), first);
}

#[test]
fn a_rejected_key_is_no_matter_of_its_account() {
    let mut bench = Bench::new(["a", "b"].map(|name| Entry::new(name).account("work")).to_vec());
    let _ = bench.hit(0, rest(Reason::Rejected));
    assert_eq!(bench.asked(50), [1]);
}

#[test]
fn keys_of_undeclared_projects_are_grouped_after_one_answer_each() {
    let mut bench = Bench::new(Entry::many(6));
    bench.model = MODEL;
    let of = |key: usize| project(if key.is_multiple_of(2) { "even" } else { "odd" });
    for key in 0..6 {
        bench.learn(key, of(key));
    }
    assert_eq!(bench.accounts(), (0..6).map(|key| Some(of(key))).collect::<Vec<_>>());
    let _ = bench.hit(2, for_model(Reason::RateLimited, 10));
    assert_eq!(bench.asked(100), [1, 3, 5]);
}

#[test]
fn a_key_that_is_found_to_be_of_a_resting_account_rests_with_it_and_takes_its_own_past_along() {
    let mut bench = Bench::new(Entry::many(3));
    bench.model = MODEL;
    // Nobody knows its account when it meets the limit; the answer tells.
    let _ = bench.hit(0, for_model(Reason::RateLimited, 10));
    bench.learn(1, project("one"));
    bench.now += SECOND;
    let _ = bench.hit(1, for_model(Reason::RateLimited, 20));
    bench.learn(2, project("one"));
    assert!(bench.acquire().is_err(), "the third key is of the second's account");
    bench.now += SECOND * 9;
    assert_eq!(bench.asked(20), [0]);
    // It is named now, and keeps its limit.
    bench.learn(0, project("two"));
    let _ = bench.hit(0, for_model(Reason::RateLimited, 30));
    bench.learn_again(0, project("two"));
    assert!(bench.acquire().is_err());
    bench.now += SECOND * 11;
    assert_eq!(bench.asked(20), [1, 2]);
}

impl Bench {
    /// An answer comes late.
    fn learn_again(&mut self, number: usize, account: AccountId) {
        let before = self.accounts();
        let slot = u32::try_from(number).unwrap();
        let moved = self.pool.accounts.learn(&mut self.pool.slots, slot, account);
        assert_eq!((moved.as_slice(), self.accounts()), (&[][..], before));
    }
}

#[test]
fn a_project_that_is_sent_with_keys_is_their_account_from_the_start() {
    let mut entries = Entry::many(3);
    for entry in &mut entries[..2] {
        entry.settings.project = Some(http::HeaderValue::from_static("proj_1"));
    }
    entries[2].settings.organization = Some(http::HeaderValue::from_static("org"));
    let mut bench = Bench::new(entries);
    let organization = AccountId::organization("openai", "org");
    assert_eq!(bench.accounts(), [Some(project("proj_1")), Some(project("proj_1")), organization]);
    bench.learn(2, project("proj_1"));
    assert_eq!(bench.accounts(), [Some(project("proj_1")); 3]);
}

#[test]
fn what_says_less_exactly_moves_no_key_and_the_configuration_is_not_overruled() {
    let mut bench = Bench::new(vec![Entry::new("a"), Entry::new("b").account("mine")]);
    let organization = AccountId::organization("openai", "org").unwrap();
    bench.learn(0, organization);
    bench.learn(0, project("one"));
    bench.learn(0, organization);
    bench.learn(0, AccountId::mentioned("org").unwrap());
    bench.learn(1, project("one"));
    assert_eq!(bench.accounts(), [Some(project("one")), AccountId::declared("mine")]);
}

#[test]
fn entries_of_one_credential_move_together_and_names_at_another_host_are_others() {
    let mut bench = Bench::new(vec![
        Entry::new("a").models(&["m1"]),
        Entry::new("a").models(&["m2"]),
        Entry::new("b").models(&["m1"]),
        Entry::new("c").at(TWO).models(&["m1"]),
    ]);
    bench.model = MODEL;
    for key in [0, 2, 3] {
        bench.learn(key, project("one"));
    }
    assert_eq!(bench.accounts(), [Some(project("one")); 4]);
    let _ = bench
        .hit(2, Outcome::Rest { reason: Reason::QuotaExhausted, of: Rests::Account, named: Some(SECOND) });
    assert_eq!(bench.asked(20), [3]);
    bench.model = Some("m2");
    assert!(bench.acquire().is_err());
}

#[test]
fn three_keys_of_one_account_keep_the_distance_of_one() {
    let granted = [1, 3].map(|count| {
        let mut bench =
            Bench::new(Entry::many(count).into_iter().map(|entry| entry.account("work")).collect());
        let _ = bench.hit(0, limited(1));
        bench.now += SECOND;
        let (from, mut granted) = (bench.now, 0);
        while bench.now < from + SECOND * 10 {
            if let Ok(Grant { ticket, .. }) = bench.acquire() {
                granted += 1;
                let _ = bench.settle(ticket, Outcome::Good);
            }
            bench.now += MS * 10;
        }
        granted
    });
    assert!(granted[0] > 9 && granted[0] == granted[1], "{granted:?}");
}

#[test]
fn a_line_is_told_the_pace_of_the_account_and_not_of_each_key() {
    let told = [1, 3].map(|count| {
        let mut bench =
            Bench::new(Entry::many(count).into_iter().map(|entry| entry.account("work")).collect());
        let _ = bench.hit(0, limited(2));
        let arrivals: Vec<_> = (0..5).map(|_| bench.arrive()).collect();
        for arrival in &arrivals {
            assert!(bench.ask(*arrival).is_err());
            bench.join(*arrival).unwrap();
        }
        bench.acquire().unwrap_err().free_at.unwrap().saturating_duration_since(bench.now)
    });
    assert_eq!(told[0], told[1]);
}
