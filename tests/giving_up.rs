//! When attempts run out: how many there are, and what the client is told.

use std::time::Duration;

use support::{
    ask::{Got, in_turn, in_turn_with},
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Upstream},
};

mod support;

const KEYS: [&str; 3] = ["sk-a", "sk-b", "sk-c"];

fn server_error() -> Answer {
    Answer::status(500).error("server_error", "", "The server had an error.")
}

/// Three keys, all of which get `answer`, with these lines under `[upstream]`.
async fn all_get(answer: Answer, lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    upstream.otherwise(answer);
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, lines)).await;
    (upstream, proxy)
}

fn said(got: &Got) -> (u16, String) {
    got.said()
}

#[tokio::test]
async fn a_server_error_is_tried_again_max_retries_times() {
    for (max_retries, calls) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        let (upstream, proxy) = all_get(server_error(), &format!("max_retries = {max_retries}")).await;
        assert_eq!(proxy.chat("gpt-4o").await.status, 500);
        assert_eq!(upstream.total_calls(), calls, "max_retries = {max_retries}");
        let spent = proxy.metric(r#"key_cycle_retries_denied_total{reason="spent"}"#).await;
        assert_eq!(spent, 1.0);
    }
}

#[tokio::test]
async fn max_retries_does_not_bound_the_way_to_another_key() {
    let upstream = Upstream::start().await;
    for (key, answer) in [("sk-a", Answer::revoked()), ("sk-b", Answer::rate_limited(Duration::from_secs(9)))]
    {
        upstream.key(key).always(answer);
    }
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "max_retries = 0")).await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.status, got.attempts()), (200, 3));
}

#[tokio::test]
async fn a_5xx_is_delivered_as_the_upstream_gave_it_and_tells_the_sdk_not_to_retry_once_more() {
    for status in [500, 502, 503, 504, 529] {
        let failure = Answer::status(status)
            .error("server_error", "odd_code", "Our own words.")
            .header("x-odd", "kept")
            .header("openai-project", "proj_of_the_pool");
        let (_upstream, proxy) = all_get(failure, "max_retries = 1").await;
        let got = proxy.chat("gpt-4o").await;
        assert_eq!(got.said(), (status, "odd_code".to_owned()));
        assert_eq!((got.header("x-odd"), got.header("openai-project")), (Some("kept"), None));
        assert_eq!(got.header("x-should-retry"), Some("false"), "{status}");
    }
}

#[tokio::test]
async fn once_we_have_retried_an_sdk_does_not_whatever_the_upstream_says() {
    let (_upstream, proxy) =
        all_get(server_error().header("x-should-retry", "true"), "max_retries = 1").await;
    assert_eq!(proxy.chat("gpt-4o").await.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn rejected_keys_are_our_business_and_the_client_gets_503_with_the_cause() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = all_get(Answer::revoked(), "").await;
    for calls in [3, 3] {
        let got = proxy.chat("gpt-4o").await;
        assert_eq!(said(&got), (503, "no_usable_key".to_owned()), "{}", got.text());
        assert!(got.text().contains("3 keys rejected"), "{}", got.text());
        assert!(!got.text().contains("Incorrect API key"), "{}", got.text());
        assert_eq!(upstream.total_calls(), calls, "dead keys are not asked again");
    }
}

#[tokio::test]
async fn keys_without_money_are_our_business_and_every_cause_is_named() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = all_get(Answer::out_of_quota(), "").await;
    upstream.key("sk-a").always(Answer::revoked());
    upstream.key("sk-b").always(Answer::status(402).error("billing", "", "Pay."));
    let got = proxy.chat("gpt-4o").await;
    assert_eq!(said(&got), (503, "no_usable_key".to_owned()), "{}", got.text());
    for cause in ["1 key rejected", "2 keys out of quota"] {
        assert!(got.text().contains(cause), "{}", got.text());
    }
}

#[tokio::test]
async fn an_unnamed_refusal_that_every_key_gets_is_delivered_scrubbed_and_no_key_rests_for_it() {
    let _clock = StillClock::stop();
    for status in [401, 403] {
        let refusal = Answer::with(move |request| {
            let key = request.key.clone().unwrap_or_default();
            let message = format!("{key} may not do this.");
            Answer::status(status).error("odd", "", &message).header("x-your-key", key)
        });
        let (upstream, proxy) = all_get(refusal, "").await;
        for calls in [3, 6] {
            let got = proxy.chat("gpt-4o").await;
            assert_eq!((got.status, upstream.total_calls()), (status, calls), "{}", got.text());
            assert!(got.text().contains("may not do this."), "{}", got.text());
            let all = format!("{:?} {}", got.headers, got.text());
            assert!(KEYS.iter().all(|key| !all.contains(key)), "{all}");
            assert_eq!(proxy.keys_in("ready").await, 3);
        }
        upstream.otherwise(Answer::api());
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
}

#[tokio::test]
async fn an_unnamed_refusal_of_some_keys_does_not_reach_the_client_when_others_are_limited() {
    let _clock = StillClock::stop();
    let (upstream, proxy) =
        all_get(Answer::status(403).error("odd", "", "You may not."), "max_wait_ms = 0").await;
    upstream.key("sk-b").always(Answer::rate_limited(Duration::from_secs(40)));
    let got = proxy.chat("gpt-4o").await;
    assert_eq!(said(&got), (429, "all_keys_cooling".to_owned()), "{}", got.text());
}

#[tokio::test]
async fn limits_of_all_keys_give_a_429_with_the_soonest_of_their_ends() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = all_get(Answer::rate_limited(Duration::from_secs(50)), "").await;
    upstream.key("sk-b").always(Answer::rate_limited(Duration::from_secs(40)));
    let got = proxy.chat("gpt-4o").await;
    assert_eq!(said(&got), (429, "all_keys_cooling".to_owned()));
    assert_eq!((got.retry_after(), got.header("retry-after-ms")), (Some(40), Some("40000")));
    assert_eq!(got.header("x-should-retry"), Some("true"));
    assert!(got.text().contains("3 keys rate limited"), "{}", got.text());
    assert_eq!(upstream.total_calls(), 3);
}

#[tokio::test]
async fn an_sdk_is_not_told_to_retry_after_more_than_a_minute() {
    let _clock = StillClock::stop();
    let (_upstream, proxy) = all_get(Answer::rate_limited(Duration::from_secs(61)), "").await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.retry_after(), got.header("x-should-retry")), (Some(61), Some("false")));
}

#[tokio::test]
async fn transport_failures_are_told_as_502_and_504() {
    for answer in [Answer::ok().reset_before_head(), Answer::ok().close_before_head()] {
        let (upstream, proxy) = all_get(answer, "max_retries = 1").await;
        let got = proxy.chat("gpt-4o").await;
        assert_eq!(said(&got), (502, "upstream_broken".to_owned()));
        assert_eq!((got.header("x-should-retry"), upstream.total_calls()), (Some("false"), 2));
    }
    let (upstream, proxy) = all_get(Answer::ok(), "max_retries = 1").await;
    upstream.stop().await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((said(&got), got.attempts()), ((502, "upstream_unreachable".to_owned()), 2));
}

#[tokio::test]
async fn a_hang_is_tried_once_more_on_another_key() {
    let clock = StillClock::stop();
    let (upstream, proxy) = all_get(Answer::ok().hang(), "request_timeout_ms = 20000").await;
    let chat = async { proxy.chat("gpt-4o").await };
    let time = async {
        for calls in 1..=2 {
            clock.trickle(upstream.wait_for(|up| up.total_calls() == calls)).await;
            clock.pass(Duration::from_secs(20)).await;
        }
    };
    let (got, ()) = tokio::join!(chat, time);
    assert_eq!(said(&got), (504, "upstream_timeout".to_owned()));
    assert_eq!(KEYS.map(|key| upstream.calls(key)), [1, 1, 0]);
    upstream.wait_for(|up| up.cancelled() == 2).await;
}

#[tokio::test]
async fn a_hang_on_one_key_is_made_good_by_another() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").always(Answer::ok().hang());
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "request_timeout_ms = 20000")).await;
    let time = async {
        upstream.wait_for(|up| up.total_calls() == 1).await;
        clock.pass(Duration::from_secs(20)).await;
        clock.trickle(upstream.wait_for(|up| up.calls("sk-b") == 1)).await;
    };
    let (got, ()) = tokio::join!(proxy.chat("gpt-4o"), time);
    assert_eq!((got.status, got.attempts()), (200, 2));
}

#[tokio::test]
async fn a_stream_has_a_head_timeout_of_its_own() {
    let clock = StillClock::stop();
    let (upstream, proxy) =
        all_get(Answer::ok().hang(), "max_retries = 0\nfirst_byte_timeout_ms = 20000").await;
    let body = support::proxy::streamed_chat("gpt-4o");
    let time = async {
        upstream.wait_for(|up| up.total_calls() == 1).await;
        clock.pass(Duration::from_secs(20)).await;
    };
    let (got, ()) = tokio::join!(proxy.post("/v1/chat/completions", body), time);
    assert_eq!(said(&got), (504, "upstream_timeout".to_owned()));
}

#[tokio::test]
async fn the_total_timeout_ends_attempts() {
    let clock = StillClock::stop();
    let (upstream, proxy) = all_get(Answer::ok().hang(), "total_timeout_ms = 20000").await;
    let time = async {
        upstream.wait_for(|up| up.total_calls() == 1).await;
        clock.pass(Duration::from_secs(20)).await;
    };
    let (got, ()) = tokio::join!(proxy.chat("gpt-4o"), time);
    assert_eq!((said(&got), upstream.total_calls()), ((504, "upstream_timeout".to_owned()), 1));
    assert_eq!(proxy.metric(r#"key_cycle_retries_denied_total{reason="deadline"}"#).await, 1.0);
}

#[tokio::test]
async fn the_total_timeout_bounds_the_wait_for_a_key() {
    let clock = StillClock::stop();
    let lines = "total_timeout_ms = 8000\nmax_wait_ms = 30000";
    let (upstream, proxy) = all_get(Answer::rate_limited(Duration::from_secs(20)), lines).await;
    let got = clock.trickle(proxy.chat("gpt-4o")).await;
    assert_eq!((got.status, got.retry_after(), upstream.total_calls()), (429, Some(20), 3));
}

#[tokio::test]
async fn the_budget_bounds_retries_over_all_requests_and_refills() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let mut keys = Vec::new();
    for n in 0..20 {
        upstream.key(&format!("sk-bad-{n}")).always(server_error());
        keys.push(format!("key = \"sk-bad-{n}\""));
        keys.push(format!("key = \"sk-good-{n}\""));
    }
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "")).await;
    // Uploads are not repeated after a 500. They show each bad key bad, and its host at work.
    for _ in 0..20 {
        assert_eq!(proxy.post("/v1/files", "{}").await.status, 500);
        assert_eq!(proxy.request(http::Method::GET, "/v1/models").await.status, 200);
    }
    // From here on each request costs one retry, at once. There are ten, and a fifth of one for each request so far.
    let mut served = 0;
    let refused = loop {
        let got = proxy.chat("gpt-4o").await;
        if got.status != 200 {
            break got;
        }
        served += 1;
        assert!(served < 60, "the budget has no end");
    };
    assert_eq!((refused.status, refused.attempts()), (500, 1));
    assert!(served >= 10, "{served}");
    assert_eq!(proxy.metric(r#"key_cycle_retries_denied_total{reason="budget"}"#).await, 1.0);
    clock.pass(Duration::from_secs(1)).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
}
