//! Connections to upstreams that are kept for the next request, and those that must not be.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use support::{
    ask::Got,
    by_hand::ByHand,
    proxy::{Proxy, client, streamed_chat, toml},
    raw::{End, Raw, patiently},
    still::StillClock,
    upstream::{Answer, Counter, Gate, Upstream},
};

mod support;

const MODELS: &str = "/v1/models";
const GET_MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";
/// What a test answers by hand.
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// What must never be taken for an answer.
const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

async fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "max_retries = 0", "")).await;
    (upstream, proxy)
}

/// A request that is answered by hand, on this connection or on a new one; then the connection.
async fn exchange(proxy: &Proxy, upstream: &ByHand, on: Option<Raw>, answer: &str) -> (Got, Raw) {
    let answering = async {
        let mut raw = match on {
            Some(raw) => raw,
            None => upstream.connection().await,
        };
        raw.request().await;
        raw.send(answer).await;
        raw
    };
    patiently(async { tokio::join!(proxy.request(Method::GET, MODELS), answering) }).await
}

// Which are kept.

#[tokio::test]
async fn every_answer_with_an_end_of_its_own_gives_its_connection_back() {
    let (upstream, proxy) = start().await;
    let raw = |text: &'static str| Answer::raw(text).then_keep();
    for (method, answer) in [
        (Method::GET, Answer::ok()),
        (Method::GET, Answer::status(200)),
        (Method::GET, Answer::status(200).body("a".repeat(3 << 20))),
        (Method::GET, Answer::pieces(["one", "two"])),
        (Method::GET, Answer::sse(["one", "two"])),
        (Method::GET, Answer::ok().gzip()),
        (Method::GET, Answer::status(204)),
        (Method::GET, Answer::status(304)),
        (Method::GET, Answer::redirect("/elsewhere")),
        (Method::GET, Answer::status(404).error("invalid_request_error", "no_such_file", "No such file.")),
        (Method::GET, Answer::status(404).error("invalid_request_error", "no_such_file", "No.").chunked()),
        (Method::GET, Answer::status(500)),
        (Method::HEAD, Answer::ok()),
        (Method::HEAD, Answer::pieces(["one"])),
        (Method::HEAD, Answer::status(404)),
        // With interim answers, with trailers, and an older server's that says that it keeps the connection.
        (
            Method::GET,
            raw("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ),
        (
            Method::GET,
            raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-b: c\r\n\r\n"),
        ),
        (Method::GET, raw("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n")),
    ] {
        upstream.otherwise(answer);
        let got = patiently(proxy.request(method, MODELS)).await;
        assert_ne!(got.status, 502);
        upstream.wait_for(|up| up.open_requests() == 0).await;
    }
    upstream.otherwise(Answer::ok());
    assert_eq!(proxy.request(Method::GET, MODELS).await.status, 200);
    let used: Vec<usize> = upstream.requests().iter().map(|request| request.connection).collect();
    assert!(used.len() > 18 && used.iter().all(|connection| *connection == 0), "{used:?}");
}

#[tokio::test]
async fn interim_answers_stay_here() {
    let upstream = ByHand::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n";
    let (got, raw) = exchange(&proxy, &upstream, None, &format!("{interim}{OK}")).await;
    assert_eq!((got.status, got.text(), got.header("link")), (200, "ok".to_owned(), None));
    let (got, _raw) = exchange(&proxy, &upstream, Some(raw), OK).await;
    assert_eq!(got.text(), "ok");
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each_and_later_ones_use_those_again() {
    let (upstream, proxy) = start().await;
    for round in 1..=3 {
        let gate = Gate::new();
        upstream.otherwise(Answer::ok().after(&gate));
        let asked = join_all((0..50).map(|_| Raw::ask(proxy.address(), GET_MODELS)));
        let held = async {
            upstream.wait_for(|up| up.open_requests() == 50).await;
            gate.open();
        };
        let (answers, ()) = patiently(async { tokio::join!(asked, held) }).await;
        assert!(answers.iter().all(|heard| heard.status == 200), "{round}");
        upstream.wait_for(|up| up.open_requests() == 0).await;
    }
    upstream.otherwise(Answer::ok());
    for _ in 0..50 {
        assert_eq!(Raw::ask(proxy.address(), GET_MODELS).await.status, 200);
    }
    assert_eq!((upstream.total_calls(), upstream.connections(), upstream.open_connections()), (200, 50, 50));
}

#[tokio::test]
async fn idle_connections_that_the_upstream_ends_are_let_go_without_a_request() {
    // No more than this time passes, so that nothing but the end itself is what is noticed.
    const SOON: u32 = 1000;
    let clock = StillClock::stop();
    let upstream = ByHand::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let asked = join_all((0..5).map(|_| proxy.request(Method::GET, MODELS)));
    let answering = async {
        let mut connections = Vec::new();
        for _ in 0..5 {
            connections.push(upstream.request().await.0);
        }
        for raw in &mut connections {
            raw.send(OK).await;
        }
        connections
    };
    let (_, connections) = tokio::join!(asked, answering);
    for mut raw in connections {
        raw.finish().await;
        let mut passed = 0;
        while raw.is_quiet() {
            assert!(passed < SOON, "it is still open");
            clock.trickle(tokio::time::sleep(Duration::from_millis(10))).await;
            passed += 10;
        }
        assert_eq!(raw.rest().await, (Default::default(), End::Closed));
    }
    assert!(upstream.is_quiet(), "nobody asked for another");
}

// Which are not.

#[tokio::test]
async fn an_answer_that_ends_its_connection_leaves_none_behind() {
    let (upstream, proxy) = start().await;
    let raw = |text: &'static str| Answer::raw(text).then_keep();
    let answers = [
        raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
        raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: foo, Close\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        raw("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        raw("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        Answer::status(200).body("ok").close_delimited(),
        Answer::status(200).body("ok").then_close(),
    ];
    let count = answers.len();
    for answer in answers {
        upstream.otherwise(answer);
        let got = patiently(proxy.request(Method::GET, MODELS)).await;
        assert!((got.status, got.text().as_str()) == (200, "ok") || got.status == 204, "{got:?}");
        // Those that the upstream would have kept are closed from here.
        upstream.wait_for(|up| up.open_connections() == 0).await;
    }
    assert_eq!((upstream.total_calls(), upstream.connections()), (count, count));
}

#[tokio::test]
async fn what_comes_after_an_answer_is_never_taken_for_the_next_one() {
    let (upstream, proxy) = start().await;
    let heads = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-a: b\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 60\r\n\r\n"),
        ("GET", "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"),
        ("GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ];
    for (method, answer) in heads {
        for extra in [EVIL, "\r\n", "e", "{\"evil\": true}"] {
            upstream.otherwise(Answer::raw(format!("{answer}{extra}")).then_keep());
            let mut raw = Raw::connect(proxy.address()).await;
            raw.send(GET_MODELS.replacen("GET", method, 1)).await;
            let heard = if method == "HEAD" { raw.bodiless_answer().await } else { raw.answer().await };
            assert!(heard.body.len() <= 2, "{answer}{extra}: {heard:?}");
            upstream.otherwise(Answer::status(200).body("good"));
            raw.send(GET_MODELS).await;
            let heard = raw.answer().await;
            assert_eq!((heard.status, &heard.body[..]), (200, &b"good"[..]), "after {answer}{extra}");
            let requests = upstream.requests();
            let [.., before, after] = &requests[..] else { panic!("{requests:?}") };
            assert_ne!(before.connection, after.connection, "after {answer}{extra}");
        }
    }
}

/// Also where the answer just fills what is read at once.
#[tokio::test]
async fn what_comes_after_a_long_answer_is_never_taken_for_the_next_one() {
    let (upstream, proxy) = start().await;
    for whole in [8 << 10, 16 << 10, 32 << 10, 64 << 10, 400 << 10].iter().flat_map(|n| n - 1..=n + 1) {
        let head = |length| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let length = whole - head(whole).len();
        let answer = format!("{}{}{EVIL}", head(length), "a".repeat(length));
        upstream.otherwise(Answer::raw(answer).then_keep());
        let heard = Raw::ask(proxy.address(), GET_MODELS).await;
        assert_eq!((heard.status, heard.body.len()), (200, length));
        upstream.otherwise(Answer::status(200).body("good"));
        assert_eq!(Raw::ask(proxy.address(), GET_MODELS).await.body, "good", "{length}");
    }
}

#[tokio::test]
async fn what_comes_unasked_on_an_idle_connection_ends_it() {
    let upstream = ByHand::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    for unasked in [EVIL, "e"] {
        let (_, mut raw) = exchange(&proxy, &upstream, None, OK).await;
        raw.send(unasked).await;
        // It is closed with what it brought unread or read.
        raw.rest().await;
        let (got, raw) = exchange(&proxy, &upstream, None, OK).await;
        assert_eq!(got.text(), "ok");
        drop(raw);
    }
}

#[tokio::test]
async fn an_early_answer_is_delivered_and_its_connection_not_used_again() {
    let upstream = ByHand::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let upload = vec![b'x'; 16 << 20];
    for answer in [
        "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let request = client().post(proxy.url("/v1/files")).body(upload.clone()).send();
        let answering = async {
            // The body is not read: there is more of it than any buffer on the way takes.
            let (mut raw, head) = upstream.request().await;
            assert!(head.contains("content-length: 16777216\r\n"), "{head}");
            raw.send(answer).await;
            raw
        };
        let (got, mut raw) = patiently(async { tokio::join!(request, answering) }).await;
        let got = Got::read(got.expect("an answer")).await;
        assert!(got.text() == "no" || got.status == 204, "{got:?}");
        let (got, _next) = exchange(&proxy, &upstream, None, OK).await;
        assert_eq!(got.text(), "ok", "on a connection of its own");
        let (rest, _) = raw.rest().await;
        assert!(rest.len() < upload.len() && rest.iter().all(|byte| *byte == b'x'), "nothing else came");
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_takes_that_upstream_connection_along_and_no_other() {
    let (upstream, proxy) = start().await;
    let gate = Gate::new();
    upstream.otherwise(Answer::pieces(["one", "two", "three"]).gated(&gate));
    let ask = || client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("m")).send();
    let (mut leaves, mut stays) = tokio::try_join!(ask(), ask()).expect("both are answered");
    gate.release(2);
    for stream in [&mut leaves, &mut stays] {
        assert_eq!(patiently(stream.chunk()).await.unwrap().unwrap(), "one");
    }
    drop(leaves);
    upstream.wait_for(|up| up.cancelled() == 1 && up.open_connections() == 1).await;
    gate.open();
    assert_eq!(patiently(stays.text()).await.unwrap(), "twothree");
    upstream.wait_for(|up| up.open_requests() == 0).await;
    assert_eq!((upstream.cancelled(), upstream.open_connections()), (1, 1));
    upstream.otherwise(Answer::ok());
    assert_eq!(proxy.request(Method::GET, MODELS).await.status, 200);
    assert_eq!(upstream.connections(), 2, "the one that stayed is used again");
}

#[tokio::test]
async fn a_client_that_leaves_a_body_it_does_not_read_takes_that_upstream_connection_along() {
    let (upstream, proxy) = start().await;
    let counter = Counter::new();
    upstream.otherwise(Answer::endless("x".repeat(64 << 10), &counter));
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(GET_MODELS).await;
    raw.head().await;
    patiently(counter.until_blocked()).await;
    drop(raw);
    upstream.wait_for(|up| up.cancelled() == 1 && up.open_connections() == 0).await;
    proxy.until_at_rest().await;
}
