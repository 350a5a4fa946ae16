//! What is no good request is refused here: nothing of it goes up, the connection ends where HTTP demands it, and the
//! next request is served.
//!
//! Heads that hyper can't parse it answers by itself, before anything of ours is asked: with a bare status.

use support::{
    pair::{GOOD, Pair, Then},
    proxy::{chat, toml},
    raw::{End, Raw},
    upstream::Answer,
};

mod support;

/// What a smuggler hopes that somebody reads as a request of its own.
const SMUGGLED: &str = "GET /v1/smuggled HTTP/1.1\r\nhost: p\r\n\r\n";

/// A POST with these header lines, and what follows its head.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\n{lines}\r\n\r\n{rest}")
}

/// A GET with these header lines.
fn get(lines: &str) -> String {
    format!("GET /v1/models HTTP/1.1\r\n{lines}\r\n\r\n")
}

/// A GET of this target.
fn target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: p\r\n\r\n")
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// So many header lines.
fn lines(count: usize) -> String {
    (0..count).map(|n| format!("x-{n}: 1\r\n")).collect()
}

/// Refused by hyper: a status without a body, and the end.
async fn refused_unread(pair: &Pair, bytes: impl AsRef<[u8]>, status: u16) {
    let answer = pair.refuses(bytes, status, "", Then::Closed).await;
    assert_eq!((answer.header("connection"), answer.header("content-length")), (Some("close"), Some("0")));
    assert_eq!(answer.end, End::Marked);
}

#[tokio::test]
async fn a_length_that_is_not_one_number_is_refused() {
    let pair = Pair::start().await;
    for length in [
        "-5",
        "+5",
        "0x5",
        "5.0",
        "5 5",
        "5;",
        "\"5\"",
        "",
        "five",
        "5, 5",
        "5,",
        "٥",
        "99999999999999999999999",
    ] {
        refused_unread(&pair, post(&format!("content-length: {length}"), &format!("hello{SMUGGLED}")), 400)
            .await;
    }
    // A length so large that hyper uses it as a mark of its own is too large a head to it.
    for length in [u64::MAX, u64::MAX - 1] {
        refused_unread(&pair, post(&format!("content-length: {length}"), "hello"), 431).await;
    }
}

#[tokio::test]
async fn a_body_with_two_lengths_is_refused() {
    let pair = Pair::start().await;
    for lengths in ["5\r\ncontent-length: 6", "6\r\nContent-Length: 5", "5, 6", "5\r\ncontent-length: 5, 5"] {
        let text = post(&format!("content-length: {lengths}"), &format!("hello{SMUGGLED}"));
        refused_unread(&pair, text, 400).await;
    }
}

#[tokio::test]
async fn a_body_whose_last_coding_is_not_chunked_is_refused() {
    let pair = Pair::start().await;
    for codings in [
        "xchunked",
        "identity",
        "chunked, identity",
        "chunked\r\ntransfer-encoding: identity",
        "chunked,",
        "chunked;q=1",
        "\"chunked\"",
        "chunked\u{a0}",
        "chunke",
        "gzip",
        "",
    ] {
        let text = post(&format!("transfer-encoding: {codings}"), &(chunked("{}") + SMUGGLED));
        refused_unread(&pair, text, 400).await;
        let text =
            post(&format!("content-length: 2\r\ntransfer-encoding: {codings}"), &format!("{{}}{SMUGGLED}"));
        refused_unread(&pair, text, 400).await;
    }
    // HTTP/1.0 knows no chunks (RFC 9112 §6.1).
    let older = "POST /v1/files HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    refused_unread(&pair, format!("{older}{}", chunked("{}")), 400).await;
}

/// We undo one layer of chunks and nothing else, and what goes up has no transfer coding. A body that has another
/// would arrive as something else than was sent; and of chunks in chunks, each on the way could undo another number.
#[tokio::test]
async fn a_transfer_coding_beside_chunked_is_refused() {
    let pair = Pair::start().await;
    pair.upstream.otherwise(Answer::ok());
    for codings in [
        "gzip, chunked",
        "gzip\r\ntransfer-encoding: chunked",
        "identity\r\ntransfer-encoding: chunked",
        "identity, chunked",
        "chunked, chunked",
        "chunked\r\ntransfer-encoding: chunked",
    ] {
        let text = post(&format!("transfer-encoding: {codings}"), &chunked(&chat("m")));
        pair.refuses(text, 400, "invalid_request", Then::Closed).await;
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    let pair = Pair::start().await;
    let flood = "x".repeat(20_000);
    for chunks in [
        // Sizes.
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        // One that is 5 where it doesn't fit, and one that begins so.
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        // Larger and smaller than what comes.
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        // Line ends.
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\rx",
        // Extensions.
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        &format!("5;{flood}\r\nhello\r\n0\r\n\r\n"),
        &format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", &flood[..100]).repeat(200)),
        // Trailers.
        &format!("5\r\nhello\r\n0\r\n{}\r\n", lines(200)),
        &format!("5\r\nhello\r\n0\r\nx: {flood}\r\n\r\n"),
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: \0\r\n\r\n",
    ] {
        let text = post("transfer-encoding: chunked", &format!("{chunks}{SMUGGLED}"));
        pair.refuses(text, 400, "invalid_request", Then::Closed).await;
    }
}

#[tokio::test]
async fn a_head_that_is_not_http_is_refused() {
    let pair = Pair::start().await;
    for head in [
        // Lines that go on in the next one (obs-fold, RFC 9112 §5.2).
        get("host: p\r\nx: a\r\n b"),
        get("host: p\r\nx: a\r\n\tb"),
        post("transfer-encoding:\r\n chunked", &chunked("{}")),
        post("content-length: 2\r\n transfer-encoding: chunked", "{}"),
        // Space where none may be.
        post("transfer-encoding : chunked", &chunked("{}")),
        post("content-length\t: 2", "{}"),
        get(" host: p"),
        "GET  /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        "GET /v1/models  HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/1.1 \r\nhost: p\r\n\r\n".to_owned(),
        " GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        // Bytes that none may be.
        get("host: p\r\nx: a\0b"),
        get("host: p\r\nx\0y: a"),
        get("host: p\r\nx: a\rb"),
        get("host: p\r\nx: a\rtransfer-encoding: chunked"),
        get("host: p\r\nx: a\u{7f}"),
        get("host: p\r\nx: a\u{b}"),
        get("host: p\r\nx\u{e9}: a"),
        get("host: p\r\nx(y): a"),
        post("transfer-encoding: \u{b}chunked", &chunked("{}")),
        "G\"T /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_owned(),
        target("/v1/mo\0dels"),
        target("/v1/mo dels"),
        // Lines that are none.
        "GET /v1/models HTTP/1.1\rhost: p\r\r".to_owned(),
        get("host: p\r\nnonsense"),
        get("host: p\r\n: x"),
        "GET /v1/models\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n".to_owned(),
        // Versions that nobody speaks here, or not like this.
        "GET /v1/models HTTP/1.2\r\nhost: p\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/2.0\r\nhost: p\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/11\r\nhost: p\r\n\r\n".to_owned(),
        "GET /v1/models http/1.1\r\nhost: p\r\n\r\n".to_owned(),
        "GET /v1/models ICY/1.1\r\nhost: p\r\n\r\n".to_owned(),
        // Targets of no form (RFC 9112 §3.2).
        target("v1/models"),
        target("file:///v1/models"),
        target("http://"),
        target("http:///v1/models"),
    ] {
        refused_unread(&pair, head + SMUGGLED, 400).await;
    }
}

#[tokio::test]
async fn a_flood_of_header_lines_is_refused() {
    let pair = Pair::start().await;
    for head in [
        get(&format!("host: p\r\n{}x: 1", lines(100))),
        get(&format!("host: p\r\n{}x: 1", lines(10_000))),
        get(&format!("host: p\r\n{}x: 1", "x: 1\r\n".repeat(100))),
        // One that is as long as a flood, and one that never ends.
        get(&format!("host: p\r\nx: {}", "x".repeat(1 << 20))),
        format!("GET /v1/models HTTP/1.1\r\nhost: p\r\nx: {}", "x".repeat(1 << 20)),
        target(&format!("/v1/models?{}", "x".repeat(1 << 20))),
    ] {
        refused_unread(&pair, head, 431).await;
    }
    refused_unread(&pair, target(&format!("/v1/models?{}", "x".repeat(1 << 16))), 414).await;
}

/// RFC 9112 §3.2: whoever stands before us may have gone by another one than we would.
#[tokio::test]
async fn a_request_without_one_valid_host_is_refused() {
    let pair = Pair::start().await;
    for hosts in [
        "x: 1",
        "host: p\r\nhost: p",
        "host: p\r\nHost: q",
        "host: p, q",
        "host: a b",
        "host: p/v1",
        "host: user@p",
        "host: p:port",
        "host: http://p",
        "host: [::1",
    ] {
        pair.refuses(get(hosts), 400, "invalid_request", Then::GoesOn).await;
    }
    // HTTP/1.0 needs none, but two are no better.
    let older = "GET /v1/models HTTP/1.0\r\nhost: p\r\nhost: q\r\n\r\n";
    pair.refuses(older, 400, "invalid_request", Then::Closed).await;
}

#[tokio::test]
async fn no_path_leads_out_of_the_base() {
    let pair = Pair::start().await;
    let entry = format!("[[keys.pool]]\nkey = \"sk-two\"\nurl = \"{}/tenant/v1\"\n", pair.upstream.url());
    let below = toml(&format!("{}/tenant/v1", pair.upstream.url()), &[], "", &entry);
    let tenant = support::proxy::Proxy::start(&below).await;
    for path in [
        "/v1/..",
        "/v1/../admin",
        "/v1/models/../../admin",
        "/v1/./models",
        "/v1/models/.",
        "/../v1/models",
        "/v1/%2e%2e/admin",
        "/v1/%2E%2e/admin",
        "/v1/.%2e/admin",
        "/v1/%2e/models",
        "/v1/%2e%2e%2fadmin",
        "/v1/a/..%2f..%2fadmin",
        "/v1/a%2F..%2Fadmin",
        "/v1/..;/admin",
        "/v1/..;x=1/admin",
        "//v1/models",
        "/v1//models",
        "/v1/models//",
        "/v1//evil.example/x",
        "/v1/..\\admin",
        "/v1\\..\\admin",
        "/v1/a\\b",
        "/v1/..%5cadmin",
        "/v1/..%5Cadmin",
        "/v1/m|n",
        "/v1/m\"n",
        "/v1/mod\u{e9}ls",
        "/models/../v1/models",
        "/models//x",
        "http://p/v1/../admin",
        "http://p//v1/models",
    ] {
        let answer = pair.refuses(target(path), 400, "invalid_request", Then::GoesOn).await;
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        let answer = Raw::ask(tenant.address(), target(path)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{path}");
    }
    assert_eq!(pair.upstream.total_calls(), 0);
}

#[tokio::test]
async fn what_is_no_path_of_ours_is_refused() {
    let pair = Pair::start().await;
    // The question to the server as a whole, and a name without a path.
    for target in ["GET *", "OPTIONS *", "POST *"] {
        let text = format!("{target} HTTP/1.1\r\nhost: p\r\n\r\n");
        pair.refuses(text, 400, "invalid_request", Then::GoesOn).await;
    }
    for path in ["/", "/v2/models", "/v1x/models", "/nowhere", "http://evil.example", "evil.example:443", "p"]
    {
        pair.refuses(target(path), 404, "not_found", Then::GoesOn).await;
    }
}

#[tokio::test]
async fn no_tunnel_is_asked_for_upstream() {
    let pair = Pair::start().await;
    for target in ["evil.example:443", "p:80", "/v1/models", "http://evil.example/v1/models"] {
        let text = format!("CONNECT {target} HTTP/1.1\r\nhost: p\r\n\r\n");
        pair.refuses(text, 404, "not_found", Then::GoesOn).await;
    }
}

/// It asks for the request back as it arrived (RFC 9110 §9.3.8), and by then our key stands in it.
#[tokio::test]
async fn no_trace_is_asked_for_upstream() {
    let pair = Pair::start().await;
    pair.upstream.otherwise(Answer::echo());
    for target in ["/v1/models", "http://p/v1/models"] {
        let text = format!("TRACE {target} HTTP/1.1\r\nhost: p\r\n\r\n");
        pair.refuses(text, 404, "not_found", Then::GoesOn).await;
    }
}

#[tokio::test]
async fn an_answer_that_nobody_sent_for_makes_no_tunnel() {
    let pair = Pair::start().await;
    pair.upstream.otherwise(Answer::raw(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
    ));
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(get("host: p\r\nupgrade: websocket\r\nsec-websocket-key: x") + "\u{1}hello").await;
    let (status, _) = raw.head().await;
    assert_eq!(status, 502);
}

#[tokio::test]
async fn after_what_is_no_request_nothing_on_the_connection_is_served() {
    let pair = Pair::start().await;
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(format!("{GOOD}{GOOD}{}{SMUGGLED}{GOOD}", get("host: p\r\nx : y"))).await;
    for status in [200, 200, 400] {
        assert_eq!(raw.answer().await.status, status);
    }
    assert!(raw.rest().await.0.is_empty());
    assert_eq!(pair.upstream.total_calls(), 2);
    // But what was refused for what it asks for is no reason to end it.
    let mut raw = Raw::connect(pair.proxy.address()).await;
    raw.send(format!("{GOOD}{}{}{GOOD}", target("/v1/../x"), post("content-length: 1", "{"))).await;
    for status in [200, 400, 400, 200] {
        assert_eq!(raw.answer().await.status, status);
    }
}
