//! Errors inside streams: what comes before anything else is a refusal, what comes later goes through and is learned of.

use std::{pin::pin, time::Duration};

use http::Method;
use serde_json::json;
use support::{
    ask::{Got, in_turn},
    proxy::{Proxy, client, streamed_chat},
    raw::{Raw, patiently},
    still::StillClock,
    upstream::{Answer, Gate, Upstream, chat_events, error_body, response_events},
};

mod support;

const KEYS: [&str; 3] = ["sk-a", "sk-b", "sk-c"];

/// Errors as providers report them at the beginning of a stream, with the state in which they leave the key.
fn failures() -> Vec<(&'static str, Vec<String>, &'static str)> {
    let limited = error_body("requests", "rate_limit_exceeded", "Slow down.").to_string();
    let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    let created = r#"{"type":"response.created","response":{"id":"r","error":null,"status":"in_progress"}}"#;
    let failed = r#"{"type":"response.failed","response":{"id":"r","error":{"code":"rate_limit_exceeded","message":"No."}}}"#;
    let named = |name: &str, data: &str| format!("event: {name}\ndata: {data}");
    vec![
        ("OpenAI", vec![limited.clone()], "rate_limited"),
        ("OpenAI, behind the role", vec![role.to_owned(), limited.clone()], "rate_limited"),
        (
            "Anthropic",
            vec![
                named("message_start", r#"{"type":"message_start","message":{"content":[],"usage":{}}}"#),
                named("ping", r#"{"type": "ping"}"#),
                named("error", r#"{"type":"error","error":{"type":"rate_limit_error","message":"No."}}"#),
            ],
            "rate_limited",
        ),
        ("Responses", vec![named("response.created", created), named("response.failed", failed)], "rate_limited"),
        (
            "OpenRouter",
            vec![
                ": OPENROUTER PROCESSING".to_owned(),
                ": OPENROUTER PROCESSING".to_owned(),
                r#"{"error":{"code":402,"message":"Insufficient credits."}}"#.to_owned(),
            ],
            "quota_exhausted",
        ),
        (
            "Gemini",
            vec![r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]"#.to_owned()],
            "rejected",
        ),
    ]
}

async fn start(lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &KEYS, lines)).await;
    (upstream, proxy)
}

async fn ask(proxy: &Proxy) -> Got {
    proxy.post("/v1/chat/completions", streamed_chat("gpt-4o")).await
}

/// What a client reads of these events.
fn text(events: &[String]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn good() -> Vec<String> {
    chat_events("one two three")
}

#[tokio::test]
async fn a_stream_that_begins_with_an_error_is_a_refusal_and_the_next_key_serves() {
    for (name, events, state) in failures() {
        // However it comes: whole, or cut anywhere.
        for answer in [Answer::sse(&events), Answer::sse(&events).dribble(7)] {
            let (upstream, proxy) = start("").await;
            upstream.otherwise(Answer::sse(good()));
            upstream.key("sk-a").always(answer);
            let got = ask(&proxy).await;
            assert_eq!((got.status, got.text()), (200, text(&good())), "{name}");
            assert_eq!(got.attempts(), 2, "{name}");
            let resting = match state {
                // A limit per model lets the key serve the others.
                "rate_limited" => {
                    proxy.metric(r#"key_cycle_model_rests{pool="default",reason="rate_limited"}"#).await
                }
                state => proxy.keys_in(state).await as f64,
            };
            assert_eq!(resting, 1.0, "{name}: {state}");
            // It is not asked again.
            ask(&proxy).await;
            ask(&proxy).await;
            assert_eq!(upstream.calls("sk-a"), 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_begins_with_a_failure_of_the_server_is_tried_again() {
    let (upstream, proxy) = start("").await;
    upstream.otherwise(Answer::sse(good()));
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    upstream.key("sk-a").always(Answer::sse([format!("event: error\ndata: {overloaded}")]));
    assert_eq!(ask(&proxy).await.text(), text(&good()));
    assert_eq!((proxy.judged("overloaded").await, proxy.judged("success").await), (1, 1));
    assert_eq!(proxy.keys_in("ready").await, 3, "no key is to blame");
}

#[tokio::test]
async fn a_stream_that_breaks_off_before_it_has_begun_is_tried_again() {
    let (upstream, proxy) = start("").await;
    upstream.otherwise(Answer::sse(good()));
    upstream.key("sk-a").always(Answer::sse([": ping", ": ping"]).cut_after(1));
    assert_eq!(ask(&proxy).await.text(), text(&good()));
    assert_eq!((proxy.judged("broken").await, proxy.judged("success").await), (1, 1));
}

#[tokio::test]
async fn the_clients_own_fault_in_a_stream_is_delivered_as_it_came() {
    let (upstream, proxy) = start("").await;
    let told = error_body("invalid_request_error", "context_length_exceeded", "Too long.").to_string();
    let events = [told, "[DONE]".to_owned()];
    upstream.otherwise(Answer::sse(&events));
    let got = ask(&proxy).await;
    assert_eq!((got.status, got.text(), got.attempts()), (200, text(&events), 1));
    assert_eq!(proxy.judged("client_fault").await, 1);
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="failed"}"#).await, 1.0);
    assert_eq!(proxy.keys_in("ready").await, 3);
}

#[tokio::test]
async fn when_every_key_fails_so_the_client_gets_what_a_status_would_have_got() {
    let (upstream, proxy) = start("max_wait_ms = 0").await;
    let limited = error_body("requests", "rate_limit_exceeded", "Slow down.").to_string();
    upstream.otherwise(Answer::sse([limited]));
    let got = ask(&proxy).await;
    assert_eq!(got.said(), (429, "all_keys_cooling".to_owned()));
    assert_eq!(got.attempts(), 3);

    let (upstream, proxy) = start("max_retries = 2").await;
    let failed = error_body("server_error", "", "The server had an error.").to_string();
    upstream.otherwise(Answer::sse([failed.as_str(), "[DONE]"]));
    let got = ask(&proxy).await;
    assert_eq!((got.status, got.text()), (200, text(&[failed, "[DONE]".to_owned()])));
    assert_eq!((got.attempts(), got.header("x-should-retry")), (3, Some("false")));
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="failed"}"#).await, 1.0);
}

#[tokio::test]
async fn a_complaint_in_place_of_a_stream_is_a_refusal_too() {
    let (upstream, proxy) = start("").await;
    upstream.otherwise(Answer::sse(good()));
    let complaint = error_body("insufficient_quota", "insufficient_quota", "No money.");
    for answer in [
        Answer::status(200).json(&complaint),
        Answer::status(200).json(&complaint).header("content-type", "text/event-stream"),
    ] {
        upstream.key("sk-a").always(answer);
        assert_eq!(ask(&proxy).await.text(), text(&good()));
    }
    assert_eq!(proxy.keys_in("quota_exhausted").await, 1);
}

#[tokio::test]
async fn a_complaint_in_place_of_an_answer_is_a_refusal_whatever_its_status_says() {
    let (upstream, proxy) = start("").await;
    upstream.otherwise(Answer::api());
    let complaint = json!({"error": {"code": 429, "message": "Rate limit exceeded."}});
    upstream.key("sk-a").always(Answer::status(200).json(&complaint));
    for _ in 0..4 {
        let answer = proxy.chat("gpt-4o").await;
        assert_eq!((answer.status, &answer.json()["object"]), (200, &"chat.completion".into()));
    }
    assert_eq!((upstream.calls("sk-a"), proxy.judged("rate_limited").await), (1, 1));
    // What asks no model may well be about errors.
    let (upstream, proxy) = start("").await;
    upstream.otherwise(Answer::status(200).json(&complaint));
    assert_eq!(proxy.request(Method::GET, "/v1/batches/batch_1").await.json(), complaint);
    assert_eq!(proxy.judged("success").await, 1);
}

#[tokio::test]
async fn an_error_after_the_first_content_passes_and_the_key_learns() {
    let (upstream, proxy) = start("").await;
    let limited = error_body("requests", "rate_limit_exceeded", "Slow down.").to_string();
    let mut events = good();
    events.insert(2, limited);
    upstream.otherwise(Answer::sse(good()));
    upstream.key("sk-a").always(Answer::sse(&events));
    let got = ask(&proxy).await;
    assert_eq!((got.status, got.text(), got.attempts()), (200, text(&events), 1));
    assert_eq!(proxy.metric(r#"key_cycle_stream_errors_total{verdict="rate_limited"}"#).await, 1.0);
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="failed"}"#).await, 1.0);
    for _ in 0..4 {
        assert_eq!(ask(&proxy).await.text(), text(&good()));
    }
    assert_eq!(upstream.calls("sk-a"), 1, "it rests");
}

#[tokio::test]
async fn the_key_learns_though_the_client_leaves_at_the_error() {
    let (upstream, proxy) = start("").await;
    let gate = Gate::new();
    let mut events = good();
    events.insert(2, error_body("insufficient_quota", "insufficient_quota", "No money.").to_string());
    upstream.key("sk-a").always(Answer::sse(&events).gated(&gate).dribble(11));
    gate.release(3);
    let mut raw = Raw::connect(proxy.address()).await;
    let body = streamed_chat("gpt-4o");
    raw.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    raw.until("No money.").await;
    while proxy.keys_in("quota_exhausted").await == 0 {
        tokio::task::yield_now().await;
    }
    drop(raw);
    upstream.wait_for(|up| up.cancelled() == 1).await;
    proxy.until_at_rest().await;
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="failed"}"#).await, 1.0);
}

#[tokio::test]
async fn words_about_errors_are_no_errors() {
    let (upstream, proxy) = start("").await;
    let events = chat_events(r#"error "error": {"error":{"code":"invalid_api_key"}} event: error"#);
    upstream.otherwise(Answer::sse(&events).dribble(13));
    assert_eq!(ask(&proxy).await.text(), text(&events));
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="complete"}"#).await, 1.0);
    assert_eq!(proxy.keys_in("ready").await, 3);
}

/// Waits for `future` while time passes, half a second in a hundredth.
async fn hurrying<F: Future>(clock: &StillClock, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let tick = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(10)));
        tokio::select! {
            biased;
            output = &mut future => return output,
            _ = tick => clock.pass(Duration::from_millis(500)).await,
        }
    }
}

#[tokio::test]
async fn a_slow_first_event_is_waited_for_but_not_for_ever() {
    let clock = StillClock::stop();
    let (upstream, proxy) = start("").await;
    let gate = Gate::new();
    upstream.otherwise(Answer::sse(good()).gated(&gate));
    let request = || client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("gpt-4o")).send();

    // Soon: it comes with its head.
    let slow = async {
        upstream.wait_for(|up| up.open_requests() == 1).await;
        clock.pass(Duration::from_secs(5)).await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(request(), slow);
    assert_eq!(answer.unwrap().text().await.unwrap(), text(&good()));

    // Late: the head goes first, and nobody is to blame.
    let gate = Gate::new();
    upstream.otherwise(Answer::sse(good()).gated(&gate));
    let answer = hurrying(&clock, request()).await;
    gate.open();
    assert_eq!(answer.unwrap().text().await.unwrap(), text(&good()));
    assert_eq!((upstream.total_calls(), proxy.keys_in("ready").await), (2, 3));
}

#[tokio::test]
async fn signs_of_life_reach_a_client_that_waits_long_and_a_late_error_with_them() {
    let clock = StillClock::stop();
    let (upstream, proxy) = start("").await;
    let gate = Gate::new();
    let told = r#"{"error":{"code":402,"message":"Insufficient credits."}}"#;
    upstream.key("sk-a").always(Answer::sse([": OPENROUTER PROCESSING", told]).gated(&gate));
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("gpt-4o")).send();
    gate.release(1);
    let mut answer = hurrying(&clock, request).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), ": OPENROUTER PROCESSING\n\n");
    gate.open();
    assert_eq!(answer.text().await.unwrap(), text(&[told.to_owned()]));
    assert_eq!(proxy.keys_in("quota_exhausted").await, 1);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_stream_is_held_back_cancels_it() {
    let (upstream, proxy) = start("").await;
    upstream.key("sk-a").always(Answer::sse([": ping", ": ping"]).stall_after(1));
    let mut raw = Raw::connect(proxy.address()).await;
    let body = streamed_chat("gpt-4o");
    raw.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    upstream.wait_for(|up| up.open_requests() == 1).await;
    drop(raw);
    upstream.wait_for(|up| up.cancelled() == 1 && up.open_connections() == 0).await;
    proxy.until_at_rest().await;
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="none",ending="client_left"}"#).await, 1.0);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn a_coded_stream_passes_unjudged() {
    let (upstream, proxy) = start("").await;
    let limited = error_body("requests", "rate_limit_exceeded", "Slow down.").to_string();
    let answer =
        Answer::status(200).body(text(&[limited])).gzip().header("content-type", "text/event-stream");
    upstream.otherwise(answer);
    let got = ask(&proxy).await;
    assert_eq!((got.status, got.header("content-encoding"), got.attempts()), (200, Some("gzip"), 1));
    assert!(got.body.starts_with(b"\x1f\x8b"));
    assert_eq!(proxy.judged("success").await, 1);
}

#[tokio::test]
async fn what_has_no_body_is_not_waited_for() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = start("").await;
    for (method, status) in [(Method::HEAD, 200), (Method::POST, 204)] {
        upstream.otherwise(Answer::status(status).header("content-type", "text/event-stream"));
        let got = patiently(proxy.request(method, "/v1/models")).await;
        assert_eq!((got.status, got.body.len()), (status, 0));
    }
    upstream.otherwise(Answer::sse(Vec::<String>::new()));
    assert_eq!(ask(&proxy).await.text(), "");
    assert_eq!(proxy.judged("success").await, 3);
}

#[tokio::test]
async fn preambles_of_a_good_answer_arrive_with_it() {
    let (upstream, proxy) = start("").await;
    let events = response_events("one two");
    for answer in [Answer::sse(&events), Answer::sse(&events).dribble(5)] {
        upstream.otherwise(answer);
        let got = proxy.post("/v1/responses", r#"{"model":"gpt-4o","input":"a","stream":true}"#).await;
        assert!(events.iter().all(|event| got.text().contains(event.trim_end())), "{}", got.text());
        assert_eq!(got.attempts(), 1);
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_an_error_at_the_beginning() {
    let (upstream, proxy) = start("").await;
    let limited = error_body("requests", "rate_limit_exceeded", "Slow down.").to_string();
    upstream.key("sk-a").always(Answer::sse([limited]));
    upstream.otherwise(Answer::sse(good()));
    assert_eq!(ask(&proxy).await.text(), text(&good()));
    let used = upstream.connections();
    ask(&proxy).await;
    assert!((1..=2).contains(&used), "{used}");
    assert_eq!(upstream.connections(), used);
}
