//! Streams go through as they come: nothing changed, nothing delayed, nothing collected.

use std::time::Duration;

use support::{
    proxy::{Proxy, client, streamed_chat, toml},
    raw::{Raw, patiently},
    upstream::{Answer, Counter, Gate, Upstream, chat_events},
};

mod support;

async fn with_one_key() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    (upstream, proxy)
}

/// Asks for a stream; the head has come.
async fn ask(proxy: &Proxy) -> reqwest::Response {
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("m"));
    let answer = patiently(request.send()).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer
}

async fn next(answer: &mut reqwest::Response) -> bytes::Bytes {
    patiently(answer.chunk()).await.expect("an answer").expect("there is more")
}

#[tokio::test]
async fn every_byte_of_a_stream_arrives_as_it_was() {
    let (upstream, proxy) = with_one_key().await;
    let events = [
        ": ping",
        "grüße 🦀 漢字",
        "event: odd\r\ndata: {\"a\":1}\r\n\r\n",
        "id: 7\nretry: 10\ndata: x\ndata: y",
        ":",
        "data:no space",
        "[DONE]",
    ];
    let plain = Answer::sse(events);
    let expected = {
        upstream.key("sk-one").always(plain.clone());
        ask(&proxy).await.bytes().await.unwrap()
    };
    assert!(expected.starts_with(b": ping\n\ndata: gr\xc3\xbc"), "{expected:?}");
    // Writes of one, two and three bytes cut every character and every line end in two.
    for size in 1..=3 {
        upstream.key("sk-one").always(plain.clone().dribble(size));
        let answer = ask(&proxy).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.bytes().await.unwrap(), expected, "{size}");
    }
}

#[tokio::test]
async fn what_is_no_utf8_goes_through_too() {
    let (upstream, proxy) = with_one_key().await;
    let pieces: Vec<Vec<u8>> =
        vec![vec![0xc3], vec![0x28, 0xff, 0x00], vec![0xf0, 0x9f], b"\xa6\x80".to_vec()];
    let whole = pieces.concat();
    upstream.key("sk-one").always(Answer::pieces(pieces).header("content-type", "text/event-stream"));
    assert_eq!(ask(&proxy).await.bytes().await.unwrap(), whole);
}

#[tokio::test]
async fn nothing_waits_for_what_comes_next() {
    let (upstream, proxy) = with_one_key().await;
    for event_stream in [true, false] {
        let gate = Gate::new();
        let events = chat_events("one two three four");
        let answer = if event_stream { Answer::sse(&events) } else { Answer::pieces(events.clone()) };
        upstream.key("sk-one").always(answer.gated(&gate));
        // The head is here although no piece is; of events it comes with the first that says more than a role.
        let held = if event_stream { 2 } else { 0 };
        gate.release(held);
        let mut answer = ask(&proxy).await;
        let (mut sent, mut heard) = (String::new(), Vec::new());
        for (nth, event) in events.iter().enumerate() {
            if nth >= held {
                gate.release(1);
            }
            sent.push_str(&if event_stream { format!("data: {event}\n\n") } else { event.clone() });
            while nth + 1 >= held && heard.len() < sent.len() {
                heard.extend_from_slice(&next(&mut answer).await);
            }
            assert!(sent.as_bytes().starts_with(&heard));
        }
        gate.open();
        assert_eq!(patiently(answer.chunk()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_asked_for_as_a_stream_is_not_collected_either() {
    let (upstream, proxy) = with_one_key().await;
    let gate = Gate::new();
    upstream.key("sk-one").always(Answer::pieces(["first", "second"]).gated(&gate));
    let mut answer = patiently(client().get(proxy.url("/v1/files/f/content")).send()).await.unwrap();
    gate.release(1);
    assert_eq!(next(&mut answer).await, "first");
    gate.release(1);
    assert_eq!(next(&mut answer).await, "second");
}

#[tokio::test]
async fn an_upstream_is_read_only_as_fast_as_the_client_reads() {
    let (upstream, proxy) = with_one_key().await;
    let counter = Counter::new();
    upstream.key("sk-one").always(Answer::endless(vec![b'x'; 64 << 10], &counter));
    let mut answer = ask(&proxy).await;
    patiently(counter.until_blocked()).await;
    // What the sockets' buffers hold on the way, and no more.
    let held = counter.bytes();
    assert!(held < 64 << 20, "{held}");
    let mut read = 0;
    while read < held * 2 {
        read += next(&mut answer).await.len() as u64;
    }
    assert!(counter.bytes() >= read);
    drop(answer);
    upstream.wait_for(|up| up.cancelled() == 1 && up.open_requests() == 0).await;
}

#[tokio::test]
async fn a_stream_longer_than_every_timeout_of_the_head_is_not_cut() {
    let upstream = Upstream::start().await;
    let timeouts = "request_timeout_ms = 1000\nfirst_byte_timeout_ms = 1000\ntotal_timeout_ms = 1000";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], timeouts, "")).await;
    let pieces = vec!["piece "; 12];
    upstream.key("sk-one").always(Answer::pieces(pieces.clone()).gap(Duration::from_millis(110)));
    assert_eq!(ask(&proxy).await.text().await.unwrap(), pieces.concat());
    let answer = client().get(proxy.url("/v1/files/f/content")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), pieces.concat());
}

#[tokio::test]
async fn a_comment_is_a_sign_of_life_and_silence_is_cut() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "idle_timeout_ms = 1000", "")).await;
    let pings = vec![": ping"; 10];
    upstream.key("sk-one").always(Answer::sse(&pings).gap(Duration::from_millis(130)));
    assert_eq!(ask(&proxy).await.text().await.unwrap(), ": ping\n\n".repeat(10));

    upstream.key("sk-one").always(Answer::sse(&pings).stall_after(2));
    let mut answer = ask(&proxy).await;
    let mut heard = Vec::new();
    let error = loop {
        match patiently(answer.chunk()).await {
            Ok(Some(chunk)) => heard.extend_from_slice(&chunk),
            Ok(None) => panic!("ended as if complete"),
            Err(error) => break error,
        }
    };
    assert_eq!(heard, ": ping\n\n".repeat(2).as_bytes(), "{error}");
    upstream.wait_for(|up| up.cancelled() == 1).await;
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="silent"}"#).await, 1.0);
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_no_silent_upstream() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "idle_timeout_ms = 700", "")).await;
    let counter = Counter::new();
    upstream.key("sk-one").always(Answer::endless(vec![b'x'; 64 << 10], &counter));
    let mut answer = ask(&proxy).await;
    patiently(counter.until_blocked()).await;
    let (held, mut read) = (counter.bytes(), 0);
    // Longer than the timeout without a byte taken.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    while read < held * 2 {
        read += next(&mut answer).await.len() as u64;
    }
}

#[tokio::test]
async fn the_first_byte_of_a_stream_and_the_head_of_others_have_their_own_timeouts() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::ok().hang());
    let (long, short) = ("60000", "100");
    for (first_byte, request, streamed) in [(short, long, true), (long, short, false)] {
        let settings =
            format!("max_retries = 0\nfirst_byte_timeout_ms = {first_byte}\nrequest_timeout_ms = {request}");
        let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], &settings, "")).await;
        let ask = |streamed| {
            let body = if streamed { streamed_chat("m") } else { support::proxy::chat("m") };
            client().post(proxy.url("/v1/chat/completions")).body(body).send()
        };
        // The one with the short timeout ends while the other still waits.
        let other = ask(!streamed);
        tokio::pin!(other);
        tokio::select! {
            answer = patiently(ask(streamed)) => assert_eq!(answer.unwrap().status(), 504),
            _ = &mut other => panic!("the wrong timeout fired"),
        }
    }
}

#[tokio::test]
async fn the_deadline_covers_attempts_and_waits() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::ok().hang());
    let settings = "total_timeout_ms = 800\nrequest_timeout_ms = 60000\nfirst_byte_timeout_ms = 60000";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one", "sk-two"], settings, "")).await;
    let request = client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("m"));
    assert_eq!(patiently(request.send()).await.unwrap().status(), 504);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn an_answer_with_trailers_is_complete_without_them() {
    const CHUNKS: &str =
        "transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: sk-a\r\n\r\n";
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::raw(format!("HTTP/1.1 200 OK\r\n{CHUNKS}")));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-a"]).await;
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send("GET /v1/models HTTP/1.1\r\nhost: p\r\nconnection: te\r\nte: trailers\r\n\r\n").await;
    let head = raw.head().await.1;
    assert_eq!((head.get("trailer"), raw.until("0\r\n").await), (None, "2\r\nok\r\n0\r\n".into()));
    assert_eq!(raw.exactly(2).await.0, "\r\n");
    proxy.until_at_rest().await;
    let complete = r#"key_cycle_requests_total{status="2xx",ending="complete"}"#;
    assert_eq!(proxy.metric(complete).await, 1.0);
}
