//! A second attempt beside one whose head is late: when there is one, who wins, what becomes of the other.

use std::time::Duration;

use support::{
    ask::{Got, in_turn, in_turn_with},
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

const KEYS: [&str; 3] = ["sk-a", "sk-b", "sk-c"];
const AFTER: Duration = Duration::from_millis(400);
const HEDGED: &str = "hedge_after_ms = 400";

fn failure() -> Answer {
    Answer::status(500).error("server_error", "", "The server had an error.")
}

async fn three(lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, lines)).await;
    (upstream, proxy)
}

async fn hedges(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!(r#"key_cycle_hedges_total{{result="{result}"}}"#)).await
}

fn calls(upstream: &Upstream) -> [usize; 3] {
    KEYS.map(|key| upstream.calls(key))
}

/// A chat whose first call is late, while `then` happens.
async fn late_chat<F: Future>(clock: &StillClock, upstream: &Upstream, proxy: &Proxy, then: F) -> Got {
    let before = upstream.total_calls();
    let time = async {
        upstream.wait_for(|up| up.total_calls() == before + 1).await;
        clock.pass(AFTER).await;
        then.await;
    };
    tokio::join!(proxy.chat("gpt-4o"), time).0
}

#[tokio::test]
async fn a_call_that_hangs_is_beaten_by_a_second_one_and_cut_off() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    let key = proxy.chat("gpt-4o").await;
    upstream.key("sk-b").always(Answer::ok().hang());
    let got = late_chat(&clock, &upstream, &proxy, async {}).await;
    assert_eq!((got.status, got.attempts(), calls(&upstream)), (200, 2, [1, 1, 1]));
    upstream.wait_for(|up| up.cancelled() == 1).await;
    proxy.until_at_rest().await;
    assert_eq!((hedges(&proxy, "won").await, proxy.judged("success").await), (1.0, 2));
    // The header names who answered, and the one that was beaten has failed nobody.
    let third = proxy.chat("gpt-4o").await;
    assert_ne!(got.header("x-key-cycle-key"), key.header("x-key-cycle-key"));
    assert_eq!(third.header("x-key-cycle-key"), key.header("x-key-cycle-key"));
    assert_eq!(proxy.healths().await, [1.0; 3]);
}

#[tokio::test]
async fn a_first_call_that_answers_after_all_wins() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    let gate = Gate::new();
    upstream.key("sk-a").answers([Answer::api().after(&gate), Answer::api()]);
    upstream.key("sk-b").answers([Answer::ok().hang(), Answer::api()]);
    let then = async {
        upstream.wait_for(|up| up.calls("sk-b") == 1).await;
        gate.open();
    };
    let got = late_chat(&clock, &upstream, &proxy, then).await;
    assert_eq!((got.status, got.attempts()), (200, 2));
    upstream.wait_for(|up| up.cancelled() == 1).await;
    assert_eq!(hedges(&proxy, "lost").await, 1.0);
    proxy.chats(2).await;
    let again = proxy.chat("gpt-4o").await;
    assert_eq!(calls(&upstream), [2, 2, 1]);
    assert_eq!(got.header("x-key-cycle-key"), proxy_key(&proxy, 0).await.as_deref());
    assert_eq!(again.header("x-key-cycle-key"), proxy_key(&proxy, 1).await.as_deref());
}

/// The id of the key at this place of the configuration.
async fn proxy_key(proxy: &Proxy, at: usize) -> Option<String> {
    let told = proxy.request(http::Method::GET, "/health/detailed").await.json();
    told["pools"][0]["keys"][at]["id"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn where_one_of_the_two_fails_the_other_goes_on() {
    let clock = StillClock::stop();
    for first_fails in [false, true] {
        let (upstream, proxy) = three(HEDGED).await;
        let (answered, failed) = (Gate::new(), Gate::new());
        let (good, bad) = (Answer::api().after(&answered), failure().after(&failed));
        let (one, two) = if first_fails { (bad, good) } else { (good, bad) };
        upstream.key("sk-a").answers([one, Answer::api()]);
        upstream.key("sk-b").answers([two, Answer::api()]);
        let then = async {
            upstream.wait_for(|up| up.calls("sk-b") == 1).await;
            failed.open();
            upstream.wait_for(|up| up.open_requests() == 1).await;
            answered.open();
        };
        let got = late_chat(&clock, &upstream, &proxy, then).await;
        assert_eq!((got.status, got.attempts(), calls(&upstream)), (200, 2, [1, 1, 0]), "{first_fails}");
        let result = if first_fails { "won" } else { "lost" };
        assert_eq!(hedges(&proxy, result).await, 1.0, "{first_fails}");
        assert_eq!((proxy.judged("server_error").await, upstream.cancelled()), (1, 0), "{first_fails}");
        proxy.until_at_rest().await;
    }
}

#[tokio::test]
async fn where_both_fail_the_request_is_tried_again() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    let gate = Gate::new();
    for key in ["sk-a", "sk-b"] {
        upstream.key(key).always(failure().after(&gate));
    }
    let then = async {
        upstream.wait_for(|up| up.total_calls() == 2).await;
        gate.open();
        clock.trickle(upstream.wait_for(|up| up.total_calls() == 3)).await;
    };
    let got = late_chat(&clock, &upstream, &proxy, then).await;
    assert_eq!((got.status, got.attempts(), calls(&upstream)), (200, 3, [1, 1, 1]));
    assert_eq!((hedges(&proxy, "failed").await, proxy.judged("server_error").await), (1.0, 2));
}

#[tokio::test]
async fn a_clients_fault_wins_too() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    upstream.otherwise(Answer::status(400).error("invalid_request_error", "bad_value", "No."));
    upstream.key("sk-a").always(Answer::ok().hang());
    let got = late_chat(&clock, &upstream, &proxy, async {}).await;
    assert_eq!((got.said(), got.attempts()), ((400, "bad_value".to_owned()), 2));
}

#[tokio::test]
async fn the_second_goes_to_another_account_if_there_is_one_and_else_to_another_key() {
    let clock = StillClock::stop();
    for (accounts, expected) in [(["one", "one", "two"], [1, 0, 1]), (["one", "one", "one"], [1, 1, 0])] {
        let upstream = Upstream::start().await;
        upstream.key("sk-a").always(Answer::ok().hang());
        let entries = KEYS.iter().zip(accounts);
        let entries: Vec<_> =
            entries.map(|(key, account)| format!("key = \"{key}\"\naccount = \"{account}\"")).collect();
        let proxy = Proxy::start(&in_turn_with(&upstream, &entries, HEDGED)).await;
        let got = late_chat(&clock, &upstream, &proxy, async {}).await;
        assert_eq!((got.status, calls(&upstream)), (200, expected), "{accounts:?}");
    }
}

#[tokio::test]
async fn without_a_free_key_there_is_none_and_nobody_waits_for_one() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.key("sk-a").always(Answer::api().after(&gate));
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], HEDGED)).await;
    let then = async {
        while hedges(&proxy, "no_key").await == 0.0 {}
        gate.open();
    };
    let got = late_chat(&clock, &upstream, &proxy, then).await;
    assert_eq!((got.status, got.attempts(), upstream.total_calls()), (200, 1, 1));
}

#[tokio::test]
async fn who_was_denied_a_second_call_has_one_later_if_it_hangs_on() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").always(Answer::ok().hang());
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS[..2], HEDGED)).await;
    assert_eq!(late_chat(&clock, &upstream, &proxy, async {}).await.attempts(), 2);
    // The second to hang comes too soon after the first.
    let then = async {
        while hedges(&proxy, "budget").await == 0.0 {}
        clock.pass(Duration::from_secs(1)).await;
    };
    let got = late_chat(&clock, &upstream, &proxy, then).await;
    assert_eq!((got.status, got.attempts()), (200, 2));
    assert_eq!((hedges(&proxy, "won").await, hedges(&proxy, "budget").await), (2.0, 1.0));
}

#[tokio::test]
async fn what_may_have_had_effect_is_not_sent_twice() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    let gate = Gate::new();
    upstream.otherwise(Answer::ok().after(&gate));
    let time = async {
        upstream.wait_for(|up| up.total_calls() == 1).await;
        clock.pass(AFTER * 10).await;
        // Whatever would be sent now is sent before this.
        assert_eq!(proxy.keys_in("ready").await, 3);
        gate.open();
    };
    let (got, ()) = tokio::join!(proxy.post("/v1/files", "{}"), time);
    assert_eq!((got.status, upstream.total_calls()), (200, 1));
}

#[tokio::test]
async fn it_is_off_unless_asked_for() {
    let clock = StillClock::stop();
    for lines in ["", "hedge_after_ms = 0"] {
        let (upstream, proxy) = three(lines).await;
        let gate = Gate::new();
        upstream.otherwise(Answer::api().after(&gate));
        let then = async {
            clock.pass(Duration::from_secs(5)).await;
            assert_eq!(proxy.keys_in("ready").await, 3);
            gate.open();
        };
        let got = late_chat(&clock, &upstream, &proxy, then).await;
        assert_eq!((got.status, upstream.total_calls()), (200, 1), "{lines}");
    }
}

#[tokio::test]
async fn where_everything_is_slow_few_are_sent_twice() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    let gate = Gate::new();
    upstream.otherwise(Answer::api().after(&gate));
    let chats = futures_util::future::join_all((0..50).map(|_| proxy.chat("gpt-4o")));
    let time = async {
        upstream.wait_for(|up| up.total_calls() == 50).await;
        clock.pass(AFTER).await;
        // One that is there from the start, and a twentieth of those that came.
        upstream.wait_for(|up| up.total_calls() == 53).await;
        while hedges(&proxy, "budget").await < 47.0 {}
        gate.open();
    };
    let (got, ()) = tokio::join!(chats, time);
    assert!(got.iter().all(|got| got.status == 200));
    assert_eq!(upstream.total_calls(), 53);
}

#[tokio::test]
async fn a_client_that_leaves_takes_both_along() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three(HEDGED).await;
    upstream.otherwise(Answer::ok().hang());
    {
        let time = async {
            upstream.wait_for(|up| up.total_calls() == 1).await;
            clock.pass(AFTER).await;
            upstream.wait_for(|up| up.total_calls() == 2).await;
        };
        tokio::select! {
            got = proxy.chat("gpt-4o") => panic!("{}", got.status),
            () = time => {}
        }
    }
    upstream.wait_for(|up| up.cancelled() == 2).await;
    proxy.until_at_rest().await;
}
