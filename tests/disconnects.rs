//! Who leaves takes the upstream call along; what breaks off never looks complete.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    proxy::{Proxy, chat, client, keys_toml, streamed_chat, toml},
    raw::{End, Raw, patiently},
    upstream::{Answer, Counter, Gate, Upstream},
};

mod support;

async fn with_one_key(settings: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], settings, "")).await;
    (upstream, proxy)
}

fn streamed() -> String {
    let body = streamed_chat("m");
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Answers that break, each after something came.
fn broken() -> Vec<(&'static str, Answer)> {
    let events = ["one", "two", "three"];
    vec![
        ("cut", Answer::sse(events).cut_after(2)),
        ("bad chunk", Answer::sse(events).bad_chunk_after(2)),
        ("silent", Answer::sse(events).stall_after(2)),
        ("half", Answer::status(200).body("data: one\n\ndata: two\n\nrest of the same length").half_body()),
        (
            "cut with length",
            Answer::status(200)
                .header("content-length", 1000)
                .body("data: one\n\ndata: two\n\n")
                .then_close(),
        ),
    ]
}

#[tokio::test]
async fn a_broken_stream_never_ends_as_if_complete_on_http1() {
    let (upstream, proxy) = with_one_key("idle_timeout_ms = 500").await;
    for (name, answer) in broken() {
        upstream.key("sk-one").always(answer);
        let answer = Raw::ask(proxy.address(), streamed()).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_ne!(answer.end, End::Marked, "{name}");
        assert!(answer.body.starts_with(b"data: one\n\ndata: two\n"), "{name}: {answer:?}");
    }
    proxy.until_at_rest().await;
}

#[tokio::test]
async fn a_broken_stream_never_ends_as_if_complete_on_http2() {
    let (upstream, proxy) = with_one_key("idle_timeout_ms = 500").await;
    for (name, answer) in broken() {
        upstream.key("sk-one").always(answer);
        let socket = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        let talking = async {
            let request = http::Request::post(proxy.url("/v1/chat/completions"))
                .body(Full::new(Bytes::from(streamed_chat("m"))))
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200, "{name}");
            let mut body = answer.into_body();
            let error = loop {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error,
                    None => panic!("{name} ended as if complete"),
                }
            };
            let error =
                std::error::Error::source(&error).unwrap().downcast_ref::<h2::Error>().unwrap().reason();
            assert_eq!(error, Some(h2::Reason::INTERNAL_ERROR), "{name}");
        };
        tokio::select! {
            () = patiently(talking) => {}
            ended = connection => panic!("the whole connection ended: {ended:?}"),
        }
    }
}

#[tokio::test]
async fn a_refusal_that_breaks_off_never_ends_as_if_complete() {
    let (upstream, proxy) = with_one_key("max_retries = 0\nidle_timeout_ms = 500").await;
    let refusal = || Answer::status(400).header("content-type", "application/json");
    for (name, answer) in [
        ("half", refusal().body("x".repeat(1000)).half_body()),
        ("half of a long one", refusal().body("x".repeat(1 << 20)).half_body()),
        ("cut", refusal().body("x".repeat(1000)).chunked().cut_after(1)),
        ("500 half", Answer::status(500).body("x".repeat(1000)).half_body()),
    ] {
        upstream.key("sk-one").always(answer);
        let answer = Raw::ask(proxy.address(), streamed()).await;
        assert_ne!(answer.end, End::Marked, "{name}: {answer:?}");
        assert!(matches!(answer.status, 400 | 500) && !answer.body.is_empty(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_long_refusal_is_delivered_whole() {
    let (upstream, proxy) = with_one_key("").await;
    let long = "0123456789".repeat(50_000);
    for answer in [
        Answer::status(400).body(long.clone()),
        Answer::status(400).body(long.clone()).chunked().dribble(5000),
    ] {
        upstream.key("sk-one").always(answer);
        let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap() == long), (400, true));
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_cancels_the_call() {
    let (upstream, proxy) = with_one_key("").await;
    upstream.key("sk-one").always(Answer::ok().hang());
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(streamed()).await;
    upstream.wait_for(|up| up.open_requests() == 1).await;
    drop(raw);
    upstream.wait_for(|up| up.cancelled() == 1 && up.open_connections() == 0).await;
    proxy.until_at_rest().await;
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="none",ending="client_left"}"#).await, 1.0);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_stream_cancels_it() {
    let (upstream, proxy) = with_one_key("").await;
    let gate = Gate::new();
    upstream.key("sk-one").always(Answer::sse(["one", "two"]).gated(&gate));
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(streamed()).await;
    gate.release(1);
    raw.until("data: one\n\n").await;
    drop(raw);
    // No piece has to come for the departure to be noticed.
    upstream.wait_for(|up| up.cancelled() == 1).await;
    proxy.until_at_rest().await;
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="client_left"}"#).await, 1.0);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_stream_is_blocked_cancels_it() {
    let (upstream, proxy) = with_one_key("").await;
    let counter = Counter::new();
    upstream.key("sk-one").always(Answer::endless(vec![b'x'; 64 << 10], &counter));
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(streamed()).await;
    raw.head().await;
    patiently(counter.until_blocked()).await;
    drop(raw);
    upstream.wait_for(|up| up.cancelled() == 1).await;
    proxy.until_at_rest().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_line_makes_room_and_no_call() {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    let keys = format!("{}max_in_flight = 1\n", keys_toml(&upstream.url(), &["sk-one"]));
    let proxy = Proxy::start(&keys).await;
    upstream.key("sk-one").always(Answer::ok().after(&gate));
    let mut first = Raw::connect(proxy.address()).await;
    first.send(streamed()).await;
    upstream.wait_for(|up| up.open_requests() == 1).await;
    let mut second = Raw::connect(proxy.address()).await;
    second.send(streamed()).await;
    patiently(async {
        while proxy.metric("key_cycle_requests_waiting").await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(second);
    patiently(async {
        while proxy.metric("key_cycle_requests_waiting").await > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut third = Raw::connect(proxy.address()).await;
    third.send(streamed()).await;
    gate.release(2);
    assert_eq!((first.answer().await.status, third.answer().await.status), (200, 200));
    assert_eq!(upstream.total_calls(), 2);
    proxy.until_at_rest().await;
}

#[tokio::test]
async fn a_client_that_resets_its_stream_cancels_only_that() {
    let (upstream, proxy) = with_one_key("").await;
    let gate = Gate::new();
    upstream.key("sk-one").always(Answer::pieces(["one", "two"]).gated(&gate));
    let socket = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    let talking = async {
        let ask = || {
            let request = http::Request::post(proxy.url("/v1/chat/completions"))
                .body(Full::new(Bytes::from(streamed_chat("m"))))
                .unwrap();
            sender.clone().send_request(request)
        };
        let (left, stays) = (ask().await.unwrap(), ask().await.unwrap());
        drop(left);
        upstream.wait_for(|up| up.cancelled() == 1 && up.open_requests() == 1).await;
        gate.open();
        let body = stays.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "onetwo");
    };
    tokio::select! {
        () = patiently(talking) => {}
        ended = connection => panic!("the whole connection ended: {ended:?}"),
    }
    proxy.until_at_rest().await;
}
