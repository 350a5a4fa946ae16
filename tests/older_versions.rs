//! What users of the two older KeyCycleProxys are used to works here.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::Method;
use serde_json::json;
use support::{
    ask::{in_turn, in_turn_with},
    proxy::{Proxy, chat, client},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

/// A proxy from a `config.json` of the Node.js version alone.
async fn from_json(keys: serde_json::Value) -> Proxy {
    let text = json!({"_comment": "Models: gpt-4, others", "port": 3456, "apiKeys": keys}).to_string();
    Proxy::start_in(&[("config.json", &text)], &[]).await
}

#[tokio::test]
async fn a_url_means_the_same_with_and_without_v1_and_a_trailing_slash() {
    for (end, path) in [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/reverse/openai", "/reverse/openai/v1/chat/completions"),
        ("/reverse/openai/v1/", "/reverse/openai/v1/chat/completions"),
    ] {
        let upstream = Upstream::start().await;
        let url = format!("{}{end}", upstream.url());
        let proxy = from_json(json!([{"key": "sk-a", "url": url, "models": ["others"]}])).await;
        assert_eq!(proxy.chat("gpt-4").await.status, 200, "{end}");
        assert_eq!(upstream.last_request().target, path, "{end}");
    }
}

#[tokio::test]
async fn models_may_be_a_lone_string_with_commas_and_others_serves_what_no_entry_names() {
    let upstream = Upstream::start().await;
    let proxy = from_json(json!([
        {"key": "sk-named", "url": upstream.url(), "models": "gpt-4"},
        {"key": "sk-both", "url": upstream.url(), "models": "gpt-4o, others"},
        {"key": "sk-none", "url": upstream.url(), "models": ["o3"]},
    ]))
    .await;
    for (model, key) in
        [("gpt-4", "sk-named"), ("gpt-4o", "sk-both"), ("whatever", "sk-both"), ("o3", "sk-none")]
    {
        for _ in 0..2 {
            assert_eq!(proxy.chat(model).await.status, 200);
            assert_eq!(upstream.last_request().key.as_deref(), Some(key), "{model}");
        }
    }
}

#[tokio::test]
async fn a_model_that_no_entry_serves_is_refused_without_an_upstream_call() {
    let upstream = Upstream::start().await;
    let proxy = from_json(json!([{"key": "sk-a", "url": upstream.url(), "models": ["gpt-4"]}])).await;
    assert_eq!(proxy.chat("o3").await.said(), (404, "model_not_found".to_owned()));
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn settings_in_toml_and_keys_in_json_stand_side_by_side() {
    let upstream = Upstream::start().await;
    let toml = format!(
        "[upstream]\nbase_url = \"{}/v1\"\n[keys]\nrotation_strategy = \"round_robin\"\n",
        upstream.url()
    );
    let json = json!({"apiKeys": [{"key": "sk-a"}, {"key": "sk-b", "models": []}]}).to_string();
    let files = [("config.toml", toml.as_str()), ("config.json", json.as_str())];
    let proxy = Proxy::start_in(&files, &[("OPENAI_KEYS", "sk-c")]).await;
    proxy.chats(6).await;
    assert_eq!(["sk-a", "sk-b", "sk-c"].map(|key| upstream.calls(key)), [2, 2, 2]);
}

#[tokio::test]
async fn openai_keys_is_a_comma_list_whose_blanks_do_not_count() {
    let upstream = Upstream::start().await;
    let toml = format!("[upstream]\nbase_url = \"{}\"\n", upstream.url());
    let proxy = Proxy::start_in(&[("config.toml", &toml)], &[("OPENAI_KEYS", " sk-a , ,sk-b,")]).await;
    proxy.chats(4).await;
    assert_eq!((upstream.calls("sk-a"), upstream.calls("sk-b"), upstream.total_calls()), (2, 2, 4));
}

#[tokio::test]
async fn one_secret_in_several_entries_shares_limits_and_faults() {
    for fault in [Answer::rate_limited(Duration::from_secs(50)), Answer::revoked(), Answer::out_of_quota()] {
        let _clock = StillClock::stop();
        let upstream = Upstream::start().await;
        upstream.key("sk-shared").always(fault);
        let entries = [
            "key = \"sk-shared\"\nmodels = [\"gpt-4\", \"both\"]",
            "key = \"sk-shared\"\nmodels = [\"gpt-4o\", \"both\"]",
            "key = \"sk-other\"",
        ];
        let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "max_wait_ms = 0")).await;
        assert_ne!(proxy.chat("both").await.status, 200);
        assert_eq!(upstream.calls("sk-shared"), 1, "the second entry has the same credential");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn one_secret_in_several_entries_has_one_rate() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let entries = ["key = \"sk-a\"\nmodels = [\"gpt-4\"]", "key = \"sk-a\"\nmodels = [\"gpt-4o\"]"];
    let file = in_turn_with(&upstream, &entries, "max_wait_ms = 0") + "[rate_limit]\nper_key_rps = 1\n";
    let proxy = Proxy::start(&file).await;
    assert_eq!((proxy.chat("gpt-4").await.status, proxy.chat("gpt-4o").await.status), (200, 429));
}

#[tokio::test]
async fn the_turn_is_kept_for_each_set_of_models() {
    let upstream = Upstream::start().await;
    let entries = [
        "key = \"sk-a\"\nmodels = [\"gpt-4\"]",
        "key = \"sk-b\"\nmodels = [\"gpt-4\"]",
        "key = \"sk-c\"\nmodels = [\"gpt-4o\"]",
        "key = \"sk-d\"\nmodels = [\"gpt-4o\"]",
    ];
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "")).await;
    // One counter for all would give every gpt-4 to one key.
    for _ in 0..10 {
        proxy.chat("gpt-4").await;
        proxy.chat("gpt-4o").await;
    }
    assert_eq!(["sk-a", "sk-b", "sk-c", "sk-d"].map(|key| upstream.calls(key)), [5; 4]);
}

#[tokio::test]
async fn least_latency_takes_turns_among_the_fast_ones() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.key("sk-slow").always(Answer::api().after(&gate));
    let file = in_turn(&upstream, &["sk-fast-1", "sk-slow", "sk-fast-2"], "")
        .replace("\"round_robin\"", "\"least_latency\"");
    let proxy = Proxy::start(&file).await;
    for n in 1..=40 {
        let slowness = async {
            upstream.wait_for(|up| up.total_calls() == n).await;
            if upstream.last_request().key.as_deref() == Some("sk-slow") {
                clock.pass(Duration::from_secs(2)).await;
                gate.release(1);
            }
        };
        let (got, ()) = tokio::join!(proxy.chat("gpt-4"), slowness);
        assert_eq!(got.status, 200);
    }
    let calls = ["sk-fast-1", "sk-fast-2", "sk-slow"].map(|key| upstream.calls(key));
    assert!(calls[0].abs_diff(calls[1]) <= 2 && calls[2] <= 3, "{calls:?}");
}

/// How often a key that fails every other time was asked among 200 requests, beside one that works.
async fn turns_of_a_degraded_key(penalty: u32) -> usize {
    let upstream = Upstream::start().await;
    let count = AtomicUsize::new(0);
    upstream.key("sk-bad").always(Answer::with(move |_| match count.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Answer::status(500).error("server_error", "", "No."),
        _ => Answer::ok(),
    }));
    let strategy = format!("\"round_robin_health_weighted\"\nunhealthy_penalty = {penalty}");
    let file = in_turn(&upstream, &["sk-bad", "sk-good"], "").replace("\"round_robin\"", &strategy);
    let proxy = Proxy::start(&file).await;
    proxy.chats(200).await;
    upstream.calls("sk-bad")
}

#[tokio::test]
async fn unhealthy_penalty_divides_the_share_of_a_degraded_key() {
    let (none, tenth) = (turns_of_a_degraded_key(1).await, turns_of_a_degraded_key(10).await);
    assert!((80..=140).contains(&none), "{none}");
    // A tenth of its sibling's share, after the few that it took to notice.
    assert!((18..=45).contains(&tenth), "{tenth}");
}

#[tokio::test]
async fn errors_mean_what_they_meant() {
    let error = |status: u16| Answer::status(status).error("odd", "", "No.");
    for (status, client_gets) in
        [(400, 400), (404, 404), (401, 200), (403, 200), (429, 200), (500, 200), (503, 200)]
    {
        let upstream = Upstream::start().await;
        upstream.key("sk-a").always(error(status));
        let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "")).await;
        assert_eq!(proxy.chat("gpt-4").await.status, client_gets, "{status}");
    }
}

#[tokio::test]
async fn health_is_the_text_ok_even_when_no_key_works() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::revoked());
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    for _ in 0..2 {
        let got = proxy.request(Method::GET, "/health").await;
        assert_eq!((got.status, got.text().as_str()), (200, "OK"));
        proxy.chat("gpt-4").await;
    }
}

#[tokio::test]
async fn metrics_are_prometheus_text_on_a_port_of_their_own() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    assert_ne!(proxy.address(), proxy.metrics_address());
    proxy.chat("gpt-4").await;
    let text = proxy.metrics().await;
    assert!(text.contains("# TYPE key_cycle_requests_total counter"), "{text}");
    let public = proxy.request(Method::GET, "/metrics").await;
    assert_eq!(public.status, 404);
    assert!(!public.text().contains("key_cycle"));
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn anything_may_be_posted() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::echo());
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    for (media, body) in [
        (None, chat("gpt-4")),
        (Some("application/json"), r#"{"no": "model", "é": [1, 2.50, "\u0041"]}"#.to_owned()),
        (Some("text/plain"), "not JSON at all".to_owned()),
        (Some("application/octet-stream"), "\u{1}\u{2}".to_owned()),
        (Some("application/x-www-form-urlencoded"), "a=b&c=d".to_owned()),
        (None, String::new()),
    ] {
        let mut request = client().post(proxy.url("/v1/anything/at/all?x=1")).body(body.clone());
        if let Some(media) = media {
            request = request.header("content-type", media);
        }
        assert_eq!(request.send().await.unwrap().status(), 200, "{media:?}");
        let sent = upstream.last_request();
        assert_eq!((sent.target.as_str(), sent.body), ("/v1/anything/at/all?x=1", body.into()));
    }
}

#[tokio::test]
async fn paths_of_the_api_are_known_without_v1() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    assert_eq!(proxy.post("/chat/completions", chat("gpt-4")).await.status, 200);
    assert_eq!(upstream.last_request().target, "/v1/chat/completions");
    assert_eq!(proxy.request(Method::GET, "/models?limit=2").await.status, 200);
    assert_eq!(upstream.last_request().target, "/v1/models?limit=2");
    assert_eq!(proxy.request(Method::GET, "/etc/passwd").await.said(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn get_delete_and_other_methods_are_served_too() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::echo());
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "")).await;
    for method in [Method::GET, Method::DELETE, Method::PUT, Method::PATCH] {
        assert_eq!(proxy.request(method.clone(), "/v1/files/file-1").await.status, 200, "{method}");
        assert_eq!(upstream.last_request().method, method);
    }
}

#[tokio::test]
async fn a_body_limit_of_an_older_file_is_obeyed_and_named() {
    let upstream = Upstream::start().await;
    let file = in_turn(&upstream, &["sk-a"], "") + "[server]\nrequest_body_limit_bytes = 262144\n";
    let proxy = Proxy::start(&file).await;
    let got = proxy.post("/v1/embeddings", vec![b' '; 262_145]).await;
    assert_eq!(got.said(), (413, "body_too_large".to_owned()));
    assert!(got.text().contains("request_body_limit_bytes"));
    assert_eq!(upstream.total_calls(), 0);
}
