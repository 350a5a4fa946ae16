//! Pools in which hardly any key lives, and clients that hardly ever behave.

use std::time::Duration;

use http::Method;
use support::{
    ask::in_turn,
    proxy::{Proxy, chat, keys_toml},
    raw::{Raw, patiently},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

#[tokio::test]
async fn one_living_key_of_two_hundred_is_found_by_the_first_request_and_then_asked_nearly_alone() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..200).map(|n| format!("sk-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        let payment = || Answer::status(402).error("billing_error", "", "Insufficient credits.");
        upstream.key(key).always(match n % 4 {
            _ if n == 199 => Answer::api(),
            0 => Answer::revoked(),
            1 => payment(),
            2 => Answer::out_of_quota(),
            _ => Answer::rate_limited(Duration::from_secs(60)),
        });
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&keys_toml(&upstream.url(), &keys)).await;
    assert_eq!(patiently(proxy.chat("gpt-4o")).await.status, 200);
    let found = upstream.total_calls();
    assert_eq!(found, 200);
    upstream.count_only();
    let mut raw = Raw::connect(proxy.address()).await;
    let body = chat("gpt-4o");
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..10_000 {
        raw.send(&request).await;
        assert_eq!(raw.answer().await.status, 200);
    }
    // One turn in 128 tries a key that may have come back to life.
    let attempts = upstream.total_calls() - found;
    assert!((10_000..=10_100).contains(&attempts), "{attempts} attempts for 10,000 requests");
}

#[tokio::test]
async fn clients_that_err_or_leave_cost_one_attempt_each_and_no_key_its_health() {
    let upstream = Upstream::start().await;
    let keys = ["sk-a", "sk-b", "sk-c", "sk-d", "sk-e"];
    let proxy = Proxy::start(&in_turn(&upstream, &keys, "")).await;
    let faults = [
        (400, "context_length_exceeded"),
        (404, "not_found"),
        (413, ""),
        (422, "bad"),
        (400, "content_filter"),
    ];
    let held = Gate::new();
    for round in 0..30 {
        let (status, code) = faults[round % faults.len()];
        upstream.otherwise(Answer::status(status).error("invalid_request_error", code, "That is wrong."));
        let got = proxy.chat("gpt-4o").await;
        assert_eq!((got.status, got.attempts()), (status, 1));

        upstream.otherwise(Answer::sse(["one", "two"]).gated(&held));
        let before = upstream.total_calls();
        let mut raw = Raw::connect(proxy.address()).await;
        let body = chat("gpt-4o");
        raw.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        patiently(async {
            while upstream.total_calls() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(raw);
        patiently(proxy.until_at_rest()).await;
        assert_eq!(upstream.total_calls() - before, 1);

        upstream.otherwise(Answer::api());
        assert_eq!(proxy.chat("gpt-4o").await.attempts(), 1);
    }
    assert_eq!(proxy.healths().await, [1.0; 5]);
    assert_eq!(proxy.keys_in("ready").await, 5);
    let health = proxy.request(Method::GET, "/health/detailed").await.json();
    assert_eq!(health["status"], "ok");
}
