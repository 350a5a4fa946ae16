//! One key fails and another serves: what each kind of failure leads to.

use std::time::Duration;

use support::{
    ask::{in_turn, in_turn_with},
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Upstream},
};

mod support;

const KEYS: [&str; 3] = ["sk-a", "sk-b", "sk-c"];

/// 401 or 403 that names no reason.
fn unnamed(status: u16) -> Answer {
    Answer::status(status).error("invalid_request_error", "", "You may not.")
}

fn server_error(status: u16) -> Answer {
    Answer::status(status).error("server_error", "", "The server had an error.")
}

fn model_missing() -> Answer {
    let message = "The model `gpt-4o` does not exist or you do not have access to it.";
    Answer::status(404).error("invalid_request_error", "model_not_found", message)
}

/// Three keys of which the first gets `answer`.
async fn one_of_three(answer: Answer) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    upstream.key("sk-a").always(answer);
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "")).await;
    (upstream, proxy)
}

fn calls(upstream: &Upstream) -> [usize; 3] {
    KEYS.map(|key| upstream.calls(key))
}

/// Six requests with the clock stopped: none may wait, none may get an error, the key in `state` is left alone.
async fn goes_to_the_next_key_at_once(answer: Answer, state: &str) {
    let _clock = StillClock::stop();
    let (upstream, proxy) = one_of_three(answer).await;
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200, "{state}");
    }
    assert_eq!(calls(&upstream), [1, 3, 3], "{state}");
    assert_eq!(proxy.keys_in(state).await, 1, "{state}");
}

#[tokio::test]
async fn a_limited_key_rests_and_the_next_serves_without_a_pause() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = one_of_three(Answer::rate_limited(Duration::from_secs(20))).await;
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!(calls(&upstream), [1, 3, 3]);
}

#[tokio::test]
async fn a_key_named_invalid_is_quarantined() {
    goes_to_the_next_key_at_once(Answer::revoked(), "rejected").await;
}

#[tokio::test]
async fn a_401_that_names_nothing_rests_the_key_without_quarantine() {
    goes_to_the_next_key_at_once(unnamed(401), "refused").await;
}

#[tokio::test]
async fn a_403_that_names_nothing_rests_the_key_without_quarantine() {
    goes_to_the_next_key_at_once(unnamed(403), "refused").await;
}

#[tokio::test]
async fn a_key_without_money_rests() {
    goes_to_the_next_key_at_once(Answer::status(402).error("billing", "", "Pay."), "quota_exhausted").await;
}

#[tokio::test]
async fn a_quota_that_is_spent_rests_the_key_whatever_retry_after_says() {
    goes_to_the_next_key_at_once(Answer::out_of_quota().retry_after(1), "quota_exhausted").await;
}

#[tokio::test]
async fn a_restricted_key_is_avoided_for_that_endpoint_only() {
    let message = "You have insufficient permissions for this operation. Missing scopes: model.request.";
    let restricted = Answer::with(move |request| match request.path() {
        "/v1/chat/completions" => Answer::status(403).error("invalid_request_error", "", message),
        _ => Answer::ok(),
    });
    let (upstream, proxy) = one_of_three(restricted).await;
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((calls(&upstream)[0], proxy.keys_in("ready").await), (1, 3));
    for _ in 0..3 {
        assert_eq!(proxy.post("/v1/embeddings", r#"{"model":"e","input":"x"}"#).await.status, 200);
    }
    assert!(calls(&upstream)[0] >= 2);
}

#[tokio::test]
async fn a_model_that_one_key_lacks_is_served_by_another_and_the_key_keeps_its_other_models() {
    let lacking = Answer::with(|request| match request.json()["model"].as_str() {
        Some("gpt-4o") => model_missing(),
        _ => Answer::ok(),
    });
    let (upstream, proxy) = one_of_three(lacking).await;
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!(calls(&upstream)[0], 1);
    for _ in 0..3 {
        assert_eq!(proxy.chat("gpt-4o-mini").await.status, 200);
    }
    assert_eq!(calls(&upstream)[0], 2);
}

#[tokio::test]
async fn a_model_that_nobody_has_is_asked_of_three_keys_and_the_404_is_delivered() {
    let upstream = Upstream::start().await;
    upstream.otherwise(model_missing());
    let keys = ["sk-1", "sk-2", "sk-3", "sk-4", "sk-5", "sk-6"];
    let proxy = Proxy::start(&in_turn(&upstream, &keys, "")).await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.status, got.code().as_str()), (404, "model_not_found"));
    assert_eq!(upstream.total_calls(), 3);
}

#[tokio::test]
async fn server_errors_and_broken_connections_go_to_another_key() {
    let faults = [
        ("500", server_error(500)),
        ("502", server_error(502)),
        ("503", server_error(503)),
        ("504", server_error(504)),
        ("408", server_error(408)),
        ("529", Answer::status(529).error("overloaded_error", "", "Overloaded")),
        ("overloaded", Answer::overloaded()),
        ("reset", Answer::ok().reset_before_head()),
        ("close", Answer::ok().close_before_head()),
        ("no HTTP", Answer::raw("SSH-2.0-OpenSSH_9.9\r\n")),
    ];
    for (fault, answer) in faults {
        let (upstream, proxy) = one_of_three(answer).await;
        let got = proxy.chat("gpt-4o").await;
        assert_eq!((got.status, calls(&upstream)), (200, [1, 1, 0]), "{fault}");
    }
}

#[tokio::test]
async fn what_the_client_got_wrong_is_delivered_unchanged_after_one_attempt_and_touches_nothing() {
    for status in [400, 404, 405, 409, 413, 415, 422] {
        let fault = Answer::status(status)
            .error("invalid_request_error", "some_fault", "That's wrong.")
            .header("x-odd", "kept");
        let (upstream, proxy) = one_of_three(fault.clone()).await;
        upstream.otherwise(fault);
        for n in 1..=3 {
            let got = proxy.chat("gpt-4o").await;
            assert_eq!((got.status, got.attempts(), upstream.total_calls()), (status, 1, n), "{status}");
            let body = support::upstream::error_body("invalid_request_error", "some_fault", "That's wrong.");
            assert_eq!(got.text(), body.to_string(), "{status}");
            assert_eq!(got.header("x-odd"), Some("kept"), "{status}");
        }
        assert_eq!(proxy.keys_in("ready").await, 3, "{status}");
        assert_eq!(proxy.healths().await, [1.0, 1.0, 1.0], "{status}");
        assert_eq!(proxy.open_hosts().await, [true], "{status}");
    }
}

#[tokio::test]
async fn no_key_is_tried_twice_while_another_is_free() {
    let upstream = Upstream::start().await;
    upstream.otherwise(server_error(500));
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "max_retries = 2")).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 500);
    assert_eq!(calls(&upstream), [1, 1, 1]);
}

#[tokio::test]
async fn a_key_that_is_not_configured_for_the_model_is_never_tried() {
    for fault in [Answer::rate_limited(Duration::from_secs(60)), Answer::revoked(), server_error(500)] {
        let upstream = Upstream::start().await;
        upstream.key("sk-a").always(fault);
        let entries = ["key = \"sk-a\"\nmodels = [\"gpt-4o\"]", "key = \"sk-b\"\nmodels = [\"others\"]"];
        let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "")).await;
        assert_ne!(proxy.chat("gpt-4o").await.status, 200);
        assert_eq!(upstream.calls("sk-b"), 0);
        assert_eq!(proxy.chat("o3").await.status, 200);
        assert_eq!(upstream.calls("sk-b"), 1);
    }
}

#[tokio::test]
async fn a_host_that_refuses_connections_is_left_for_another() {
    let (dead, alive) = (Upstream::start().await, Upstream::start().await);
    dead.stop().await;
    let entries = [
        format!("key = \"sk-a\"\nurl = \"{}\"", dead.url()),
        format!("key = \"sk-b\"\nurl = \"{}\"", dead.url()),
        format!("key = \"sk-c\"\nurl = \"{}\"", alive.url()),
    ];
    let proxy = Proxy::start(&in_turn_with(&alive, &entries, "")).await;
    for _ in 0..10 {
        let got = proxy.chat("gpt-4o").await;
        // One failed connect at most: the other key lives at the same dead host.
        assert!(got.status == 200 && got.attempts() <= 2, "{} after {}", got.status, got.attempts());
    }
    assert_eq!((alive.calls("sk-c"), dead.total_calls()), (10, 0));
}

#[tokio::test]
async fn the_first_request_succeeds_although_199_of_200_keys_are_dead() {
    let deaths = [
        Answer::revoked(),
        unnamed(401),
        unnamed(403),
        Answer::status(402).error("billing", "", "Pay."),
        Answer::out_of_quota(),
        Answer::rate_limited(Duration::from_secs(30)),
        Answer::status(429),
    ];
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..200).map(|n| format!("sk-{n}")).collect();
    for (key, death) in keys.iter().zip(deaths.iter().cycle()).take(199) {
        upstream.key(key).always(death.clone());
    }
    for (key, fault) in
        keys.iter().zip([server_error(500), Answer::ok().reset_before_head(), model_missing()])
    {
        upstream.key(key).always(fault);
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&in_turn(&upstream, &keys, "")).await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!(
        (got.status, upstream.total_calls(), upstream.calls("sk-199")),
        (200, 200, 1),
        "{}",
        got.text()
    );
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
}

#[tokio::test]
async fn one_bad_key_never_opens_the_breaker() {
    let (upstream, proxy) = one_of_three(server_error(500)).await;
    for _ in 0..60 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        assert_eq!(proxy.open_hosts().await, [true]);
    }
    assert!(calls(&upstream)[0] < 10, "a key that fails rests: {:?}", calls(&upstream));
}

#[tokio::test]
async fn an_outage_opens_the_breaker_and_one_probe_ends_it() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "max_retries = 0\nmax_wait_ms = 0")).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    upstream.crash().await;
    while proxy.open_hosts().await == [true] {
        assert_eq!(proxy.chat("gpt-4o").await.said(), (502, "upstream_unreachable".to_owned()));
    }
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.status, got.attempts(), got.retry_after()), (502, 0, Some(1)), "{}", got.text());
    assert_eq!(proxy.keys_in("ready").await, 3, "no key is blamed for an outage");

    upstream.restart().await;
    clock.pass(Duration::from_secs(1)).await;
    for _ in 0..3 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!(proxy.open_hosts().await, [true]);
}
