//! Which key serves: strategies and priorities, seen from outside.

use std::time::Duration;

use support::{
    ask::{Got, in_turn_with},
    proxy::{Proxy, chat, client},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

const SECOND: Duration = Duration::from_secs(1);
const KEYS: [&str; 3] = ["key = \"sk-a\"", "key = \"sk-b\"", "key = \"sk-c\""];

async fn proxy(upstream: &Upstream, strategy: &str, entries: &[impl AsRef<str>]) -> Proxy {
    let file = in_turn_with(upstream, entries, "").replace("\"round_robin\"", &format!("\"{strategy}\""));
    Proxy::start(&file).await
}

fn calls(upstream: &Upstream) -> [usize; 3] {
    ["sk-a", "sk-b", "sk-c"].map(|key| upstream.calls(key))
}

#[tokio::test]
async fn fill_first_keeps_to_the_order_of_the_file_and_returns_to_the_first() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").answers([Answer::api(), Answer::rate_limited(SECOND * 20), Answer::api()]);
    let proxy = proxy(&upstream, "fill_first", &KEYS).await;
    for (pass, expected) in [(0, [1, 0, 0]), (0, [2, 1, 0]), (0, [2, 2, 0]), (20, [3, 2, 0])] {
        clock.pass(SECOND * pass).await;
        assert_eq!((proxy.chat("gpt-4o").await.status, calls(&upstream)), (200, expected));
    }
}

#[tokio::test]
async fn least_in_flight_leaves_a_key_alone_whose_answers_take_long() {
    let _clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.key("sk-a").always(Answer::api().after(&gate));
    // What was answered a moment ago may still be counted: a heavier key has less in flight for its weight even so.
    let proxy = proxy(&upstream, "least_in_flight", &[KEYS[0], "key = \"sk-b\"\nweight = 2"]).await;
    let send = || {
        let request = client().post(proxy.url("/v1/chat/completions")).body(chat("gpt-4o"));
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        tokio::spawn(async move { Got::read(request.send().await.expect("the proxy answers")).await })
    };
    // The first that the slow key gets is the last.
    let mut slow = None;
    while slow.is_none() {
        let (request, before) = (send(), upstream.total_calls());
        upstream.wait_for(|up| up.total_calls() > before).await;
        if upstream.calls("sk-a") == 1 {
            slow = Some(request);
        } else {
            assert_eq!(request.await.expect("it did not panic").status, 200);
        }
    }
    let before = upstream.calls("sk-b");
    for _ in 0..20 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((upstream.calls("sk-a"), upstream.calls("sk-b")), (1, before + 20));
    gate.open();
    assert_eq!(slow.expect("it was sent").await.expect("it did not panic").status, 200);
}

#[tokio::test]
async fn a_spare_serves_while_those_before_it_rest_and_no_longer() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    for (key, seconds) in [("sk-a", 20), ("sk-b", 30)] {
        upstream.key(key).answers([Answer::rate_limited(SECOND * seconds), Answer::api()]);
    }
    let entries = [KEYS[0], KEYS[1], "key = \"sk-c\"\npriority = 1"];
    let proxy = proxy(&upstream, "round_robin", &entries).await;
    for (pass, expected) in [(0, [1, 1, 1]), (0, [1, 1, 2]), (20, [2, 1, 2]), (10, [2, 2, 2]), (0, [3, 2, 2])]
    {
        clock.pass(SECOND * pass).await;
        assert_eq!((proxy.chat("gpt-4o").await.status, calls(&upstream)), (200, expected));
    }
}

#[tokio::test]
async fn a_provider_that_is_down_is_left_for_one_of_a_later_priority_and_taken_again_when_it_is_up() {
    let (main, spare) = (Upstream::start().await, Upstream::start().await);
    let elsewhere = format!("key = \"sk-c\"\nurl = \"{}\"\npriority = 9\nmodels = \"gpt-4o\"", spare.url());
    let at_main = |key: &str| format!("{key}\nmodels = \"gpt-4o\"");
    let proxy = proxy(&main, "round_robin", &[elsewhere, at_main(KEYS[0]), at_main(KEYS[1])]).await;
    for _ in 0..4 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((main.total_calls(), spare.total_calls()), (4, 0));
    main.stop().await;
    for _ in 0..10 {
        let got = proxy.chat("gpt-4o").await;
        // One failed connect at most: the other key lives at the same dead host.
        assert!(got.status == 200 && got.attempts() <= 2, "{} after {}", got.status, got.attempts());
    }
    assert_eq!((main.total_calls(), spare.total_calls()), (4, 10));
    main.restart().await;
    // Its breaker opens for a second at first.
    for _ in 0..200 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        if main.total_calls() > 4 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is never taken again");
}
