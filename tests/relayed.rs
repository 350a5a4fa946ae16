//! What is unusual but good is relayed, as exactly one request.

use http::{Method, Version};
use support::{
    pair::{Pair, Then},
    proxy::chat,
    raw::{End, Raw},
    upstream::{Answer, Upstream},
};

mod support;

/// What a smuggler hopes that somebody reads as a request of its own.
const SMUGGLED: &str = "GET /v1/smuggled HTTP/1.1\r\nhost: p\r\n\r\n";

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// A POST with these header lines, and what follows its head.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /v1/files HTTP/1.1\r\nhost: p\r\n{lines}\r\n\r\n{rest}")
}

/// Whatever is asked for is there.
async fn pair() -> Pair {
    let pair = Pair::start().await;
    pair.upstream.otherwise(Answer::ok());
    pair
}

/// RFC 9112 §6.3: chunks overrule a length, and as that may have been an attempt to smuggle, it is the last request.
#[tokio::test]
async fn a_body_with_a_length_and_chunks_is_read_as_chunks_and_ends_the_connection() {
    let pair = pair().await;
    for (head, body) in [
        // Who goes by the length sees the rest as a part of the body …
        ("content-length: 44\r\ntransfer-encoding: chunked", ""),
        ("transfer-encoding: chunked\r\ncontent-length: 44", ""),
        // … or the rest of the body as a request.
        ("content-length: 3\r\ntransfer-encoding: chunked", SMUGGLED),
        ("transfer-encoding: chunked\r\ncontent-length: 3", SMUGGLED),
        ("content-length: 0\r\ntransfer-encoding: chunked\r\ncontent-length: 7", "{}"),
        ("transfer-encoding: chunked\r\ncontent-length: nonsense", "{}"),
    ] {
        let rest = if body.is_empty() { format!("0\r\n\r\n{SMUGGLED}") } else { chunked(body) + SMUGGLED };
        let (answer, sent) = pair.relays(post(head, &rest), 200, Then::Closed).await;
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        assert_eq!(sent.body, body, "{head}");
    }
}

#[tokio::test]
async fn chunked_is_chunked_however_it_is_written() {
    let pair = pair().await;
    for line in [
        "transfer-encoding: chunked",
        "tRANSFER-eNCODING: ChUnKeD",
        "transfer-encoding:chunked",
        "transfer-encoding:\t chunked \t",
        "transfer-encoding: , chunked",
    ] {
        let (_, sent) = pair.relays(post(line, &chunked("hello")), 200, Then::GoesOn).await;
        assert_eq!(sent.body, "hello", "{line}");
    }
}

#[tokio::test]
async fn what_belongs_to_the_chunks_does_not_go_up() {
    let pair = pair().await;
    for chunks in [
        "5 \r\nhello\r\n0\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nhost: evil.example\r\ncontent-length: 50\r\nauthorization: Bearer x\r\nx: y\r\n\r\n",
    ] {
        let text = post("transfer-encoding: chunked\r\ntrailer: x", chunks);
        let (_, sent) = pair.relays(text, 200, Then::GoesOn).await;
        assert_eq!((&sent.body[..], sent.header("x")), (&b"hello"[..], None), "{chunks:?}");
    }
}

/// RFC 9110 §8.6 lets a recipient take several equal lengths for one, as hyper does before anybody here sees them.
#[tokio::test]
async fn a_length_said_twice_alike_is_one_length() {
    let pair = pair().await;
    let text = post("content-length: 5\r\ncontent-length: 5\r\ncontent-length: 05", "hello");
    assert_eq!(pair.relays(text, 200, Then::GoesOn).await.1.body, "hello");
}

/// RFC 9112 §2.2 lets a recipient take a lone line feed for a line's end, and ignore an empty line before a request.
#[tokio::test]
async fn lines_may_end_in_a_line_feed_and_a_request_may_follow_empty_lines() {
    let pair = pair().await;
    for text in [
        "GET /v1/models HTTP/1.1\nhost: p\nx: y\n\n",
        "GET /v1/models HTTP/1.1\r\nhost: p\nx: y\r\n\n",
        "\r\n\r\n\nGET /v1/models HTTP/1.1\r\nhost: p\r\nx: y\r\n\r\n",
    ] {
        assert_eq!(pair.relays(text, 200, Then::GoesOn).await.1.header("x"), Some("y"));
    }
}

#[tokio::test]
async fn what_follows_a_request_without_a_body_is_no_body() {
    let pair = pair().await;
    for line in ["GET /v1/models", "POST /v1/files", "DELETE /v1/files/f"] {
        // The next request on the connection, which is none.
        let mut raw = Raw::connect(pair.proxy.address()).await;
        raw.send(format!("{line} HTTP/1.1\r\nhost: p\r\n\r\nhello\r\n\r\n")).await;
        assert_eq!(raw.answer().await.status, 200);
        assert_eq!(raw.answer().await.status, 400);
        assert!(raw.rest().await.0.is_empty());
        assert_eq!((pair.upstream.total_calls(), pair.upstream.last_request().body_len), (1, 0), "{line}");
        pair.upstream.reset_records();
    }
    // Announced, it is one, and only that.
    for line in ["GET /v1/models", "DELETE /v1/files/f", "OPTIONS /v1/models", "M-SEARCH /v1/models"] {
        let length = SMUGGLED.len();
        let text = format!("{line} HTTP/1.1\r\nhost: p\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}");
        let (_, sent) = pair.relays(text, 200, Then::GoesOn).await;
        assert_eq!(
            (format!("{} {}", sent.method, sent.target), &sent.body[..]),
            (line.to_owned(), SMUGGLED.as_bytes())
        );
    }
}

#[tokio::test]
async fn an_upgrade_that_is_half_asked_for_or_to_http_2_is_answered_as_if_it_had_not_been() {
    let pair = pair().await;
    let settings = "http2-settings: AAMAAABkAARAAAAAAAIAAAAA";
    for (lines, after) in [
        ("upgrade: websocket\r\nsec-websocket-version: 13", "\u{1}\u{2}hello"),
        ("connection: upgrade", SMUGGLED),
        ("upgrade: websocket", SMUGGLED),
        (&format!("connection: upgrade, http2-settings\r\nupgrade: h2c\r\n{settings}"), ""),
    ] {
        let text = format!("GET /v1/realtime HTTP/1.1\r\nhost: p\r\n{lines}\r\n\r\n{after}");
        let mut raw = Raw::connect(pair.proxy.address()).await;
        raw.send(&text).await;
        let answer = raw.answer().await;
        assert_eq!(
            (answer.status, answer.header("upgrade"), answer.end),
            (200, None, End::Marked),
            "{lines}"
        );
        // What follows is HTTP/1.1 still: a request if it is one.
        if after == SMUGGLED {
            assert_eq!(raw.answer().await.status, 200);
        }
        for sent in pair.upstream.requests() {
            pair.assert_ours(&sent);
            assert_eq!((sent.header("upgrade"), sent.header("connection")), (None, None), "{lines}");
        }
        assert_eq!(pair.upstream.total_calls(), 1 + usize::from(after == SMUGGLED));
        pair.upstream.reset_records();
    }
    // An upstream that goes on in HTTP/1.1 leaves the client where it was.
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(format!(
        "GET /v1/x HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n{SMUGGLED}"
    ))
    .await;
    for _ in 0..2 {
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.header("upgrade"), answer.end), (200, None, End::Marked));
    }
    assert_eq!(pair.upstream.total_calls(), 2);
    pair.upstream.reset_records();
    // Nor is the preface of HTTP/2 taken after a request of HTTP/1.1.
    let text =
        format!("GET /v1/x HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: h2c\r\n{settings}\r\n\r\n");
    pair.relays(text + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 200, Then::Closed).await;
}

/// Whatever name a client gives: the pool's upstream is asked, by its own name (RFC 9112 §3.2.2).
#[tokio::test]
async fn a_target_in_absolute_form_is_relayed_as_its_path() {
    let elsewhere = Upstream::start().await;
    let pair = pair().await;
    let ours = pair.proxy.address();
    for (target, host) in [
        (format!("http://{ours}/v1/models?a=b"), ours.to_string()),
        (format!("HTTP://localhost:{}/v1/models?a=b", ours.port()), ours.to_string()),
        (format!("{}/v1/models?a=b", elsewhere.url()), elsewhere.address().to_string()),
        (format!("{}/v1/models?a=b", elsewhere.url()), ours.to_string()),
        (format!("https://{}/v1/models?a=b", elsewhere.address()), ours.to_string()),
        (format!("http://user:password@{}/v1/models?a=b", elsewhere.address()), ours.to_string()),
        ("ws://evil.example/v1/models?a=b".to_owned(), ours.to_string()),
        ("/v1/models?a=b".to_owned(), elsewhere.address().to_string()),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let (_, sent) = pair.relays(text, 200, Then::GoesOn).await;
        assert_eq!(sent.target, "/v1/models?a=b", "{target}");
    }
    assert_eq!((elsewhere.connections(), elsewhere.total_calls()), (0, 0));
}

/// RFC 9112 §3.2 knows no fragment in a target; the `http` crate cuts it off before anybody here sees it.
#[tokio::test]
async fn a_fragment_is_no_part_of_a_target() {
    let pair = pair().await;
    for target in ["/v1/models#/../admin", "/v1/models#", "/v1/models#?x=y", "http://p/v1/models#x"] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: p\r\n\r\n");
        assert_eq!(pair.relays(text, 200, Then::GoesOn).await.1.target, "/v1/models", "{target}");
    }
}

#[tokio::test]
async fn what_is_encoded_in_a_target_stays_encoded() {
    let pair = pair().await;
    for target in [
        "/v1/files/%0d%0ahost:%20evil%00%252e%252e%252fx?%0d%0a=%00&a=%2f..%2f..",
        // A quote may stand in a query as it is, though browsers would encode it.
        "/v1/models?a='b'&c[]={d}|e",
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: p\r\n\r\n");
        assert_eq!(pair.relays(text, 200, Then::GoesOn).await.1.target, target);
    }
}

#[tokio::test]
async fn a_connection_header_names_nothing_away_that_is_ours() {
    let pair = pair().await;
    let named = "content-length, content-type, host, authorization, transfer-encoding, x-hop";
    let lines = format!(
        "connection: {named}\r\nx-hop: 1\r\ncontent-type: text/plain\r\nauthorization: Bearer client"
    );
    for (framing, body) in
        [("content-length: 5", "hello".to_owned()), ("transfer-encoding: chunked", chunked("hello"))]
    {
        let (_, sent) = pair.relays(post(&format!("{framing}\r\n{lines}"), &body), 200, Then::GoesOn).await;
        assert_eq!((&sent.body[..], sent.header("x-hop")), (&b"hello"[..], None));
    }
}

#[tokio::test]
async fn names_that_look_like_framing_are_only_names() {
    let pair = pair().await;
    let lines = "content-length: 5\r\ntransfer_encoding: chunked\r\ncontent_length: 50\r\nx-transfer-encoding: chunked";
    let (_, sent) = pair.relays(post(lines, "hello"), 200, Then::GoesOn).await;
    assert_eq!((&sent.body[..], sent.header("transfer_encoding")), (&b"hello"[..], Some("chunked")));
}

#[tokio::test]
async fn bytes_beyond_ascii_in_a_header_travel_as_they_are() {
    let pair = pair().await;
    let (_, sent) = pair
        .relays(b"GET /v1/models HTTP/1.1\r\nhost: p\r\nx: \xff\xc3\xa9\t.\r\n\r\n", 200, Then::GoesOn)
        .await;
    assert_eq!(sent.headers["x"].as_bytes(), b"\xff\xc3\xa9\t.");
}

#[tokio::test]
async fn a_request_without_model_or_type_is_relayed_word_for_word() {
    let pair = pair().await;
    for (lines, body) in [
        ("", ""),
        ("content-type: application/json\r\n", "{\"a\": [1, 2]}"),
        ("content-type: application/json\r\n", ""),
        ("", "{\"a\":1}"),
        ("", "{ not json"),
        ("content-type: nonsense\r\n", "\0\u{1}\u{7f}"),
        ("content-type: multipart/mixed\r\n", "no form"),
    ] {
        let (_, sent) = pair
            .relays(post(&format!("{lines}content-length: {}", body.len()), body), 200, Then::GoesOn)
            .await;
        assert_eq!(sent.body, body);
        let content_type = lines.strip_prefix("content-type: ").map(str::trim_end);
        assert_eq!(sent.header("content-type"), content_type);
    }
}

#[tokio::test]
async fn http_1_0_is_relayed_as_1_1_and_kept_open_only_when_asked_for() {
    let pair = pair().await;
    let length = chat("m").len();
    for (text, then) in [
        ("GET /v1/models HTTP/1.0\r\n\r\n".to_owned(), Then::Closed),
        (format!("GET /v1/models HTTP/1.0\r\n\r\n{SMUGGLED}"), Then::Closed),
        ("GET /v1/models HTTP/1.0\r\nhost: p\r\nconnection: keep-alive\r\n\r\n".to_owned(), Then::GoesOn),
        (format!("POST /v1/files HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{}", chat("m")), Then::Closed),
        // To HTTP/1.0 there is nothing to go on with (RFC 9110 §10.1.1).
        (
            format!(
                "POST /v1/files HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n{}",
                chat("m")
            ),
            Then::Closed,
        ),
    ] {
        let (_, sent) = pair.relays(text, 200, then).await;
        assert_eq!(sent.version, Version::HTTP_11);
    }
}

#[tokio::test]
async fn who_expects_something_else_is_served_without_it() {
    let pair = pair().await;
    for expect in ["200-ok", "100-continue, x", ""] {
        let text = post(&format!("expect: {expect}\r\ncontent-length: 5"), "hello");
        assert_eq!(pair.relays(text, 200, Then::GoesOn).await.1.body, "hello", "{expect}");
    }
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(post("expect: 100-Continue\r\ntransfer-encoding: chunked", "")).await;
    assert_eq!(raw.head().await.0, 100);
    raw.send(chunked("hello")).await;
    assert_eq!((raw.answer().await.status, &pair.upstream.last_request().body[..]), (200, &b"hello"[..]));
}

#[tokio::test]
async fn pipelined_requests_of_every_kind_are_answered_in_order() {
    let pair = Pair::start().await;
    pair.upstream.otherwise(Answer::with(|request| {
        let body = format!("{} {}", request.method, request.body.len());
        Answer::status(200).body(body)
    }));
    let requests = [
        "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        post("content-length: 5", "hello"),
        "HEAD /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        post("transfer-encoding: chunked", &chunked("four")),
        "OPTIONS /v1/models HTTP/1.1\r\nhost: p\r\norigin: http://localhost\r\naccess-control-request-method: POST\r\n\r\n".to_owned(),
        "OPTIONS /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        "DELETE /v1/files/f HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
    ];
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(requests.concat().repeat(3)).await;
    for _ in 0..3 {
        for (status, body) in [
            (200, "GET 0"),
            (200, "POST 5"),
            (200, ""),
            (200, "POST 4"),
            // A preflight is answered here, any other question by the upstream.
            (204, ""),
            (200, "OPTIONS 0"),
            (200, "OK"),
            (200, "DELETE 0"),
        ] {
            let answer = if body.is_empty() { raw.bodiless_answer().await } else { raw.answer().await };
            assert_eq!((answer.status, &answer.body[..]), (status, body.as_bytes()));
        }
    }
    let methods: Vec<_> = pair.upstream.requests().into_iter().map(|request| request.method).collect();
    let once = [Method::GET, Method::POST, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE];
    assert_eq!(methods, [&once[..]; 3].concat());
}
