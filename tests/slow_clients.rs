//! Clients that stop in the middle: each has its time, and nobody else waits for it.

use std::time::Duration;

use futures_util::FutureExt as _;
use support::{
    frames::{DATA, END_HEADERS, END_STREAM, Fate, Frames, GET, HEADERS, block, frame, request},
    pair::{GOOD, Pair},
    raw::{End, Raw},
    still::StillClock,
};

mod support;

/// How long a head may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(120);
/// How long a body may pause, and how long it may take.
const GAP: Duration = Duration::from_secs(60);
const BODY: Duration = Duration::from_secs(600);
/// How long the rest of a refused body is read.
const LINGER: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// A client of HTTP/2 is asked for a sign of life after so long, and has as long for it.
const PING: Duration = Duration::from_secs(30);

const HEAD_OF_POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\n";

/// Lets the daemon read what has been sent, and do what there is to do: by asking it for something else meanwhile.
async fn attended(pair: &Pair) {
    for _ in 0..3 {
        assert_eq!(Raw::ask(pair.proxy.address(), GOOD).await.status, 200);
    }
    pair.upstream.reset_records();
}

async fn pass(clock: &StillClock, pair: &Pair, time: Duration) {
    attended(pair).await;
    clock.pass(time).await;
    attended(pair).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_ends_the_connection() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    for start in [
        "",
        "GE",
        "GET /v1/models HTTP/1.1\r\nhost: p\r\n",
        &format!("{HEAD_OF_POST}content-length: 2"),
        "PRI * HTT",
        "\r\n",
    ] {
        let mut raw = Raw::connect(pair.proxy.address()).await;
        raw.send(start).await;
        pass(&clock, &pair, HEAD - SECOND).await;
        assert!(raw.is_quiet(), "{start:?}");
        pass(&clock, &pair, SECOND).await;
        // To whoever has not finished asking hyper has nothing to say.
        assert_eq!(raw.rest().await.0, "", "{start:?}");
    }
    pair.proxy.until_at_rest().await;
}

/// However many lines come in the meantime.
#[tokio::test]
async fn a_head_that_drips_ends_the_connection_all_the_same() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send("GET /v1/models HTTP/1.1\r\nhost: p\r\n").await;
    for n in 0..4 {
        assert!(raw.is_quiet());
        raw.send(format!("x-{n}: 1\r\n")).await;
        pass(&clock, &pair, HEAD / 4).await;
    }
    assert_eq!(raw.rest().await.0, "");
}

#[tokio::test]
async fn a_head_that_comes_just_in_time_is_served_and_the_next_has_its_own_time() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    let mut raw = Raw::connect(pair.proxy.address()).await;
    let (first, second) = GOOD.split_at(30);
    for _ in 0..2 {
        raw.send(first).await;
        pass(&clock, &pair, HEAD - SECOND).await;
        raw.send(second).await;
        assert_eq!(raw.answer().await.status, 200);
    }
    // Idle, a connection is kept for as long.
    pass(&clock, &pair, HEAD - SECOND).await;
    assert!(raw.is_quiet());
    pass(&clock, &pair, SECOND).await;
    assert_eq!(raw.rest().await, ("".into(), End::Closed));
}

#[tokio::test]
async fn a_body_that_stalls_is_refused() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    for text in [
        "content-length: 100\r\n\r\n",
        "content-length: 100\r\n\r\n{\"model\":",
        "content-length: 18446744073709551613\r\n\r\n{\"model\":",
        "transfer-encoding: chunked\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5",
        "transfer-encoding: chunked\r\n\r\n5;",
        "transfer-encoding: chunked\r\n\r\n5\r\nhell",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y",
        // Announced as more than there is room for anywhere.
        "transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
    ] {
        let mut raw = Raw::connect(pair.proxy.address()).await;
        raw.send(format!("{HEAD_OF_POST}{text}")).await;
        let too_large = text.contains("18446744073709551613");
        if !too_large {
            pass(&clock, &pair, GAP - SECOND).await;
            assert!(raw.is_quiet(), "{text:?}");
            pass(&clock, &pair, SECOND).await;
        }
        // The rest is waited for a little, lest the answer be lost.
        pass(&clock, &pair, LINGER).await;
        let answer = raw.answer().await;
        let expected = if too_large { (413, "body_too_large") } else { (400, "invalid_request") };
        assert_eq!((answer.status, answer.code().as_str()), expected, "{text:?}");
        assert_eq!(raw.rest().await.0, "", "{text:?}");
        assert_eq!((pair.upstream.total_calls(), pair.upstream.incomplete()), (0, 0));
    }
    pair.proxy.until_at_rest().await;
}

#[tokio::test]
async fn who_was_told_to_go_on_and_does_not_is_refused_at_once() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(format!("{HEAD_OF_POST}expect: 100-continue\r\ncontent-length: 5\r\n\r\n")).await;
    assert_eq!(raw.head().await.0, 100);
    pass(&clock, &pair, GAP).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    assert_eq!(raw.rest().await.0, "");
}

#[tokio::test]
async fn a_body_that_drips_is_refused_when_its_time_is_over() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(format!("{HEAD_OF_POST}content-length: 100\r\n\r\n")).await;
    for _ in 0..12 {
        assert!(raw.is_quiet());
        raw.send(" ").await;
        pass(&clock, &pair, BODY / 12).await;
    }
    pass(&clock, &pair, LINGER).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    assert_eq!(pair.upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_body_that_pauses_but_comes_is_served() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    let body = support::proxy::chat("m");
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(format!("{HEAD_OF_POST}content-length: {}\r\n\r\n", body.len())).await;
    for piece in body.as_bytes().chunks(body.len().div_ceil(5)) {
        pass(&clock, &pair, GAP - SECOND).await;
        raw.send(piece).await;
    }
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(pair.upstream.last_request().body, body);
}

#[tokio::test]
async fn a_client_of_http2_that_says_nothing_is_cut_off() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    for start in [
        Vec::new(),
        // A head that never ends. Nothing else may come before its end (RFC 9113 §6.10), so no sign of life can.
        frame(HEADERS, END_STREAM, 1, &block(&GET)),
        // Half a frame.
        request(1, &GET)[..12].to_vec(),
    ] {
        let mut frames = Frames::connect(pair.proxy.address()).await;
        frames.send(&start).await;
        pass(&clock, &pair, PING).await;
        pass(&clock, &pair, PING).await;
        frames.end().await;
        assert_eq!(pair.upstream.total_calls(), 0);
    }
    pair.proxy.until_at_rest().await;
}

#[tokio::test]
async fn a_body_that_stalls_on_http2_is_refused_and_the_connection_goes_on() {
    let clock = StillClock::stop();
    let pair = Pair::start().await;
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/v1/files"), (":authority", "p")];
    let mut frames = Frames::connect(pair.proxy.address()).await;
    let start = [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, 0, 1, b"hel")].concat();
    frames.send(start).await;
    for _ in 0..5 {
        pass(&clock, &pair, GAP / 6).await;
        // Signs of life, when they are asked for, are given.
        assert_eq!(frames.fate(1).now_or_never(), None);
    }
    pass(&clock, &pair, GAP / 6).await;
    assert_eq!(frames.fate(1).await, Fate::Answered(400));
    assert_eq!((pair.upstream.total_calls(), pair.upstream.incomplete()), (0, 0));
    frames.send(request(3, &GET)).await;
    assert_eq!(frames.fate(3).await, Fate::Answered(200));
}

/// Who has said a part of the preface, which any `P` is, and then leaves is not waited for.
#[tokio::test]
async fn who_leaves_in_the_middle_of_the_preface_is_let_go() {
    let pair = Pair::start().await;
    for start in ["P", "PRI * HTT"] {
        let mut raw = Raw::connect(pair.proxy.address()).await;
        raw.send(start).await;
        raw.finish().await;
        assert_eq!(raw.rest().await.0, "", "{start}");
    }
}
