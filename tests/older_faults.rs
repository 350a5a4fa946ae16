//! Faults of the older systems, none of which may exist here: routing, retrying, limits, state.
//! (`older_leaks.rs` has those of credentials and forwarding.)

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use support::{
    ask::{in_turn, in_turn_with},
    proxy::{Proxy, client, streamed_chat},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

const SECOND: Duration = Duration::from_secs(1);

fn server_error() -> Answer {
    Answer::status(500).error("server_error", "", "The server had an error.")
}

async fn three_keys(lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b", "sk-c"], lines)).await;
    (upstream, proxy)
}

#[tokio::test]
async fn a_clients_400_is_not_tried_on_every_key() {
    let (upstream, proxy) = three_keys("").await;
    assert_eq!(proxy.post("/v1/chat/completions", r#"{"model":"gpt-4o"}"#).await.status, 400);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn there_is_one_loop_of_attempts_and_it_ends() {
    for (max_retries, calls) in [(3, 4), (0, 1)] {
        let (upstream, proxy) = three_keys(&format!("max_retries = {max_retries}")).await;
        upstream.otherwise(server_error());
        assert_eq!(proxy.chat("gpt-4o").await.status, 500);
        assert_eq!(upstream.total_calls(), calls);
    }
}

#[tokio::test]
async fn the_index_moves_by_one_so_every_key_is_used() {
    for keys in 2..=6 {
        let upstream = Upstream::start().await;
        let names: Vec<String> = (0..keys).map(|n| format!("sk-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let proxy = Proxy::start(&in_turn(&upstream, &names, "")).await;
        proxy.chats(keys * 2).await;
        for name in names {
            assert_eq!(upstream.calls(name), 2, "{name} of {keys}");
        }
    }
}

#[tokio::test]
async fn nobody_sleeps_through_a_retry_after_while_other_keys_are_free() {
    // The clock stands still: who slept would sleep for ever.
    let _clock = StillClock::stop();
    let (upstream, proxy) = three_keys("").await;
    upstream.key("sk-a").always(Answer::rate_limited(SECOND * 5));
    for _ in 0..4 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!(upstream.calls("sk-a"), 1);
}

#[tokio::test]
async fn one_keys_429_pauses_no_other_key_and_no_other_model_of_its_own() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").always(Answer::with(|request| match request.json()["model"].as_str() {
        Some("gpt-4o") => Answer::rate_limited(SECOND * 50),
        _ => Answer::ok(),
    }));
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 429);
    assert_eq!(proxy.chat("gpt-4o-mini").await.status, 200);
}

#[tokio::test]
async fn one_outage_disables_no_key_for_good() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three_keys("max_wait_ms = 0\nmax_retries = 0").await;
    proxy.chats(3).await;
    upstream.crash().await;
    for _ in 0..30 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 502);
        clock.pass(SECOND / 2).await;
    }
    upstream.restart().await;
    upstream.reset_records();
    // The breaker's longest rest.
    clock.pass(SECOND * 30).await;
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!(["sk-a", "sk-b", "sk-c"].map(|key| upstream.calls(key)), [2, 2, 2]);
}

#[tokio::test]
async fn a_transport_error_goes_to_another_key() {
    for fault in [Answer::ok().reset_before_head(), Answer::ok().close_before_head()] {
        let (upstream, proxy) = three_keys("").await;
        upstream.key("sk-a").always(fault);
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
}

#[tokio::test]
async fn nothing_is_replayed_after_output() {
    let (upstream, proxy) = three_keys("").await;
    upstream.otherwise(Answer::sse(["one", "two", "three"]).cut_after(2));
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("gpt-4o"));
    let mut answer = request.send().await.unwrap();
    let mut text = Vec::new();
    let broken = loop {
        match answer.chunk().await {
            Ok(Some(piece)) => text.extend_from_slice(&piece),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "a broken stream does not end as if complete");
    assert_eq!(
        (String::from_utf8(text).unwrap().as_str(), upstream.total_calls()),
        ("data: one\n\ndata: two\n\n", 1)
    );
}

#[tokio::test]
async fn a_real_429_stays_a_429() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = three_keys("max_wait_ms = 0").await;
    upstream.otherwise(Answer::status(429));
    assert_eq!(proxy.chat("gpt-4o").await.status, 429);
    assert_eq!(proxy.post("/v1/chat/completions", streamed_chat("gpt-4o")).await.status, 429);
}

#[tokio::test]
async fn a_stream_is_not_answered_200_before_the_upstream_answered() {
    let (upstream, proxy) = three_keys("max_retries = 0").await;
    upstream.otherwise(server_error());
    let got = proxy.post("/v1/chat/completions", streamed_chat("gpt-4o")).await;
    assert_eq!((got.status, got.header("content-type")), (500, Some("application/json")));
}

#[tokio::test]
async fn a_broken_stream_counts_against_the_key_and_not_as_success() {
    let (upstream, proxy) = three_keys("").await;
    upstream.key("sk-a").always(Answer::sse(["one", "two"]).cut_after(1));
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("gpt-4o"));
    assert!(request.send().await.unwrap().bytes().await.is_err());
    assert!(proxy.healths().await.iter().any(|health| *health < 1.0));
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="broken"}"#).await, 1.0);
}

#[tokio::test]
async fn a_client_that_disconnects_counts_neither_as_success_nor_against_the_key() {
    let (upstream, proxy) = three_keys("").await;
    let gate = Gate::new();
    upstream.otherwise(Answer::pieces(["one", "two"]).gated(&gate));
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("gpt-4o"));
    let mut answer = request.send().await.unwrap();
    gate.release(1);
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    upstream.wait_for(|up| up.cancelled() == 1).await;
    let left = r#"key_cycle_requests_total{status="2xx",ending="client_left"}"#;
    while proxy.metric(left).await == 0.0 {}
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="complete"}"#).await, 0.0);
    assert_eq!(proxy.healths().await, [1.0; 3]);
}

#[tokio::test]
async fn no_wait_is_endless() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.otherwise(Answer::api().after(&gate));
    let entry = ["key = \"sk-a\"\nmax_in_flight = 1"];
    let proxy = Proxy::start(&in_turn_with(&upstream, &entry, "max_wait_ms = 3000")).await;
    let time = async {
        upstream.wait_for(|up| up.total_calls() == 1).await;
        proxy.until_waiting(1).await;
        clock.pass(SECOND * 3).await;
        // Who came second is refused; then the first is served.
        proxy.until_waiting(0).await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(proxy.chat("gpt-4o"), proxy.chat("gpt-4o"), time);
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429]);
}

#[tokio::test]
async fn failures_are_forgotten_and_health_is_of_the_last_minute() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three_keys("max_retries = 0").await;
    upstream.key("sk-a").answers([server_error(), server_error(), Answer::api()]);
    proxy.chats(6).await;
    assert!(proxy.healths().await.contains(&1.0) && proxy.healths().await.iter().any(|health| *health < 1.0));
    clock.pass(SECOND * 61).await;
    assert_eq!(proxy.healths().await, [1.0; 3]);
    // Two more failures are not the third and fourth in a row.
    proxy.chats(3).await;
    upstream.key("sk-a").answers([server_error(), server_error(), Answer::api()]);
    proxy.chats(6).await;
    assert_eq!(proxy.keys_in("ready").await, 3);
}

#[tokio::test]
async fn a_cooldown_lasts_as_long_as_the_upstream_says() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three_keys("").await;
    upstream.key("sk-a").answers([Answer::rate_limited(SECOND * 30), Answer::api()]);
    proxy.chats(1).await;
    clock.pass(SECOND * 29).await;
    proxy.chats(6).await;
    assert_eq!(upstream.calls("sk-a"), 1);
    clock.pass(SECOND).await;
    proxy.chats(6).await;
    assert!(upstream.calls("sk-a") >= 3, "{}", upstream.calls("sk-a"));
}

#[tokio::test]
async fn a_failed_key_comes_back_by_a_probe_and_stays() {
    let clock = StillClock::stop();
    let (upstream, proxy) = three_keys("").await;
    upstream.key("sk-a").answers([Answer::revoked(), Answer::api()]);
    proxy.chats(1).await;
    assert_eq!(proxy.keys_in("rejected").await, 1);
    clock.pass(SECOND * 60).await;
    for _ in 0..600 {
        proxy.chats(1).await;
        if proxy.keys_in("ready").await == 3 {
            return;
        }
    }
    panic!("it never came back");
}

#[tokio::test]
async fn many_requests_at_once_are_spread_evenly() {
    let (upstream, proxy) = three_keys("").await;
    let requests = (0..200).map(|_| proxy.chat("gpt-4o"));
    let answers = join_all(requests).await;
    assert!(answers.iter().all(|got| got.status == 200));
    assert_eq!(upstream.total_calls(), 200);
    let calls = ["sk-a", "sk-b", "sk-c"].map(|key| upstream.calls(key));
    assert!(calls.iter().all(|calls| (66..=67).contains(calls)), "{calls:?}");
}

#[tokio::test]
async fn no_route_tells_the_configuration() {
    let (upstream, proxy) = three_keys("").await;
    for path in ["/", "/config", "/config.json", "/keys", "/stats", "/admin", "/admin/keys", "/v2"] {
        let got = proxy.request(Method::GET, path).await;
        assert_eq!(got.status, 404, "{path}");
        assert!(!got.text().contains("sk-"), "{path}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_total_timeout_cuts_no_stream() {
    let clock = StillClock::stop();
    let lines = "total_timeout_ms = 5000\nrequest_timeout_ms = 5000\nfirst_byte_timeout_ms = 5000\nidle_timeout_ms = 20000";
    let (upstream, proxy) = three_keys(lines).await;
    let gate = Gate::new();
    upstream.otherwise(Answer::pieces(["one", "two", "three"]).gated(&gate));
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("gpt-4o"));
    let mut answer = request.send().await.unwrap();
    for _ in 0..3 {
        clock.pass(SECOND * 10).await;
        gate.release(1);
        assert!(answer.chunk().await.unwrap().is_some());
    }
    gate.open();
    assert!(answer.chunk().await.unwrap().is_none());
}
