//! What answers say is left: who has nothing left isn't asked, and nobody is refused.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::Method;
use serde_json::json;
use support::{
    ask::in_turn,
    binary::Folder,
    proxy::{Proxy, chat, client, toml},
    still::StillClock,
    upstream::{Answer, Upstream},
};

mod support;

const KEYS: [&str; 2] = ["sk-one", "sk-two"];

/// An answer after which so many of sixty requests a minute are left.
fn left(requests: u64) -> Answer {
    Answer::ok()
        .header("x-ratelimit-limit-requests", 60)
        .header("x-ratelimit-remaining-requests", requests)
        .header("x-ratelimit-reset-requests", format!("{}s", 60 - requests))
}

/// An answer that tells of the tokens that are left, and of those that it has cost.
fn left_tokens(tokens: u64, usage: bool) -> Answer {
    let mut body = json!({"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0,
        "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]});
    if usage {
        body["usage"] = json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11});
    }
    Answer::ok()
        .json(&body)
        .header("x-ratelimit-limit-tokens", 100_000)
        .header("x-ratelimit-remaining-tokens", tokens)
        .header("x-ratelimit-reset-tokens", format!("{}ms", (100_000 - tokens) * 60 / 100))
}

async fn health(proxy: &Proxy) -> serde_json::Value {
    proxy.request(Method::GET, "/health/detailed").await.json()["pools"][0]["keys"].clone()
}

#[tokio::test]
async fn a_key_with_nothing_left_is_spared_until_there_is() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key(KEYS[0]).always(left(0));
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "")).await;
    for _ in 0..20 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((upstream.calls(KEYS[0]), upstream.calls(KEYS[1])), (1, 19));
    let keys = health(&proxy).await;
    let told = json!([{"model": "gpt-4o", "requests": {"left": 0.0, "limit": 60.0}, "tokens": null}]);
    assert_eq!(keys[0]["headroom"], told);
    assert_eq!(keys[1]["headroom"][0]["requests"]["limit"], 10_000.0);
    // Of another model nothing was said.
    for _ in 0..4 {
        proxy.chat("gpt-4o-mini").await;
    }
    assert_eq!(upstream.calls(KEYS[0]), 2, "and then it was");

    clock.pass(Duration::from_secs(2)).await;
    for _ in 0..4 {
        proxy.chat("gpt-4o").await;
    }
    assert_eq!(upstream.calls(KEYS[0]), 3, "one more, which says again that nothing is left");
}

#[tokio::test]
async fn what_is_announced_is_used_to_the_last_request_and_none_is_refused_by_the_upstream() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let limits = [5_u64, 12];
    for (key, limit) in KEYS.iter().zip(limits) {
        let left_of_it = AtomicU64::new(limit);
        upstream.key(key).always(Answer::with(move |_| {
            let before =
                left_of_it.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            let Ok(before) = before else { return Answer::rate_limited(Duration::from_secs(30)) };
            Answer::ok()
                .header("x-ratelimit-limit-requests-minute", limit)
                .header("x-ratelimit-remaining-requests-minute", before - 1)
                .header("x-ratelimit-reset-requests-minute", 40)
        }));
    }
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "max_wait_ms = 1000")).await;
    for _ in 0..17 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((upstream.calls(KEYS[0]), upstream.calls(KEYS[1])), (5, 12));
    let refused = proxy.chat("gpt-4o").await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "all_keys_cooling"));
    assert_eq!((refused.retry_after(), refused.header("x-should-retry")), (Some(40), Some("true")));
    assert_eq!(upstream.total_calls(), 17, "it was not sent");
    assert_eq!(proxy.judged("rate_limited").await, 0);
    clock.pass(Duration::from_secs(1)).await;
    assert_eq!(proxy.chat("gpt-4o").await.retry_after(), Some(39));
}

#[tokio::test]
async fn a_large_request_goes_where_its_tokens_are() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key(KEYS[0]).always(left_tokens(4_000, true));
    upstream.key(KEYS[1]).always(left_tokens(90_000, true));
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, "")).await;
    for _ in KEYS {
        proxy.chat("gpt-4o").await;
    }
    let before = upstream.calls(KEYS[0]);
    let large =
        json!({"model": "gpt-4o", "max_tokens": 5000, "messages": [{"role": "user", "content": "Well?"}]});
    for _ in 0..4 {
        assert_eq!(proxy.post("/v1/chat/completions", large.to_string()).await.status, 200);
    }
    assert_eq!(upstream.calls(KEYS[0]), before);
    for _ in 0..4 {
        proxy.chat("gpt-4o").await;
    }
    assert!(upstream.calls(KEYS[0]) > before, "there is room for small ones");
}

#[tokio::test]
async fn what_an_answer_has_cost_is_logged_and_an_estimate_is_called_one() {
    let upstream = Upstream::start().await;
    upstream.key(KEYS[0]).answers([left_tokens(50_000, true), left_tokens(50_000, false)]);
    let folder = Folder::with(
        "p.toml",
        &toml(&upstream.url(), &KEYS[..1], "", "[observability]\nlog_format = \"json\"\n"),
    );
    let arguments = ["--config", "p.toml", "--bind", "127.0.0.1:0"];
    let mut daemon = folder.command(&arguments).serve().await;
    for (source, input, output) in [("told", 9..=9, 2..=2), ("estimated", 10..=40, 30..=60)] {
        let request = client().post(daemon.url("/v1/chat/completions"));
        let request = request.header("content-type", "application/json").body(chat("gpt-4o"));
        assert_eq!(request.send().await.expect("an answer").status(), 200);
        let line = daemon.wait_for("\"message\":\"request\"").await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
        let count = |name: &str| line[name].as_u64().expect("a count");
        assert_eq!(line["tokens"], source);
        assert!(input.contains(&count("input_tokens")) && output.contains(&count("output_tokens")), "{line}");
    }
}
