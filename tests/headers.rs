//! What of the headers travels, and what never does.

use http::HeaderMap;
use support::{
    proxy::{Proxy, client, toml},
    raw::Raw,
    upstream::{Answer, Upstream},
};

mod support;

/// Every value of a header.
fn values<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

#[tokio::test]
async fn unknown_and_repeated_headers_reach_the_upstream_with_every_value() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let answer = client()
        .get(proxy.url("/v1/models"))
        .header("openai-beta", "assistants=v2")
        .header("openai-beta", "realtime=v1")
        .header("x-stainless-lang", "python")
        .header("idempotency-key", "k-1")
        .header("x-client-request-id", "mine")
        .header("accept", "text/event-stream")
        .header("accept-encoding", "gzip, br")
        .header("user-agent", "OpenAI/Python 1.0")
        .header("referer", "https://page.example/")
        .header("x-empty", "")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let sent = upstream.last_request().headers;
    for (name, expected) in [
        ("openai-beta", &["assistants=v2", "realtime=v1"][..]),
        ("x-stainless-lang", &["python"]),
        ("idempotency-key", &["k-1"]),
        ("x-client-request-id", &["mine"]),
        ("accept", &["text/event-stream"]),
        ("accept-encoding", &["gzip, br"]),
        ("user-agent", &["OpenAI/Python 1.0"]),
        ("referer", &["https://page.example/"]),
        ("x-empty", &[""]),
        ("host", &[&upstream.address().to_string()]),
        ("authorization", &["Bearer sk-one"]),
    ] {
        assert_eq!(values(&sent, name), expected, "{name}");
    }
    assert!(!sent.contains_key("transfer-encoding") && !sent.contains_key("content-length"));
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_request_end_here() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let request = "GET /v1/models HTTP/1.1\r\nhost: proxy.example\r\nconnection: keep-alive, X-Hop\r\nConnection: x-hop-2\r\n\
                   x-hop: 1\r\nx-hop-2: 2\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: trailers\r\n\
                   trailer: x-sum\r\nupgrade: websocket\r\nproxy-authorization: Basic abc\r\nhttp2-settings: AAMAAABk\r\n\
                   x-end-to-end: stays\r\n\r\n";
    assert_eq!(Raw::ask(proxy.address(), request).await.status, 200);
    let sent = upstream.last_request().headers;
    for name in [
        "connection",
        "x-hop",
        "x-hop-2",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "proxy-authorization",
        "http2-settings",
    ] {
        assert!(!sent.contains_key(name), "{name}");
    }
    assert_eq!(sent["x-end-to-end"], "stays");
    assert_eq!(values(&sent, "host"), [upstream.address().to_string()]);
}

#[tokio::test]
async fn no_credential_of_the_client_goes_upstream_and_ours_is_set_once() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let answer = client()
        .get(proxy.url("/v1/models?key=client-secret&a=1"))
        .header("authorization", "Bearer client-secret")
        .header("authorization", "Basic client-secret")
        .header("x-api-key", "client-secret")
        .header("api-key", "client-secret")
        .header("x-goog-api-key", "client-secret")
        .header("x-proxy-key", "client-secret")
        .header("cookie", "session=client-secret")
        .header("cookie", "other=client-secret")
        .header("sec-websocket-protocol", "realtime, openai-insecure-api-key.client-secret")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let sent = upstream.last_request();
    assert_eq!(values(&sent.headers, "authorization"), ["Bearer sk-one"]);
    assert_eq!(sent.target, "/v1/models?a=1");
    let all: Vec<_> = sent.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    assert!(!all.iter().any(|line| line.contains("client-secret")), "{all:?}");
}

#[tokio::test]
async fn the_clients_account_and_network_stay_here() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let names = [
        "openai-organization",
        "openai-project",
        "x-goog-user-project",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-real-ip",
    ];
    let request = names.iter().fold(client().get(proxy.url("/v1/models")), |request, name| {
        request.header(*name, "192.0.2.1").header(*name, "again")
    });
    assert_eq!(request.send().await.unwrap().status(), 200);
    let sent = upstream.last_request().headers;
    for name in names {
        assert!(!sent.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_key_sends_its_own_organization_and_project() {
    let upstream = Upstream::start().await;
    let own = "organization = \"org-ours\"\nproject = \"proj-ours\"\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", own)).await;
    let answer = client()
        .get(proxy.url("/v1/models"))
        .header("openai-organization", "org-theirs")
        .header("openai-project", "proj-theirs")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let sent = upstream.last_request().headers;
    assert_eq!(values(&sent, "openai-organization"), ["org-ours"]);
    assert_eq!(values(&sent, "openai-project"), ["proj-ours"]);
}

#[tokio::test]
async fn an_answers_headers_keep_every_value_and_name_no_account_of_ours() {
    let upstream = Upstream::start().await;
    let answer = Answer::ok()
        .header("vary", "accept")
        .header("vary", "accept-language")
        .header("warning", "199 - \"a\"")
        .header("warning", "199 - \"b\"")
        .header("x-ratelimit-remaining-requests", 41)
        .header("server", "simulated")
        .header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .header("etag", "\"x\"")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("openai-organization", "org-ours")
        .header("openai-project", "proj-ours")
        .header("alt-svc", "h3=\":443\"")
        .header("x-request-id", "req_theirs");
    upstream.key("sk-one").always(answer);
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let answer = client().get(proxy.url("/v1/models")).send().await.unwrap();
    let heard = answer.headers();
    assert_eq!(values(heard, "vary")[..2], ["accept", "accept-language"]);
    assert_eq!(values(heard, "warning"), ["199 - \"a\"", "199 - \"b\""]);
    for (name, value) in [
        ("x-ratelimit-remaining-requests", "41"),
        ("server", "simulated"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("etag", "\"x\""),
        ("x-upstream-request-id", "req_theirs"),
    ] {
        assert_eq!(values(heard, name), [value], "{name}");
    }
    for name in ["set-cookie", "openai-organization", "openai-project", "alt-svc"] {
        assert!(!heard.contains_key(name), "{name}");
    }
    assert_ne!(heard["x-request-id"], "req_theirs");
}

#[tokio::test]
async fn hop_by_hop_headers_of_an_answer_end_here() {
    let upstream = Upstream::start().await;
    let raw = "HTTP/1.1 200 OK\r\nconnection: close, X-Hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
               upgrade: h2c\r\ntrailer: x-sum\r\nx-end-to-end: stays\r\ncontent-length: 2\r\n\r\nok";
    upstream.key("sk-one").always(Answer::raw(raw));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let mut client = Raw::connect(proxy.address()).await;
    for _ in 0..2 {
        // The upstream's connection ends; the client's goes on.
        client.send("GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        for name in ["connection", "x-hop", "keep-alive", "proxy-authenticate", "upgrade", "trailer"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_eq!(answer.header("x-end-to-end"), Some("stays"));
    }
}

#[tokio::test]
async fn a_refusal_that_is_delivered_names_no_account_of_ours_either() {
    let upstream = Upstream::start().await;
    let refusal = Answer::status(400)
        .error("invalid_request_error", "", "No.")
        .header("set-cookie", "a=1")
        .header("openai-organization", "org-ours")
        .header("x-hop", "1")
        .header("connection", "x-hop")
        .header("vary", "a")
        .header("vary", "b");
    upstream.key("sk-one").always(refusal);
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let answer = client().get(proxy.url("/v1/models")).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(values(answer.headers(), "vary")[..2], ["a", "b"]);
    for name in ["set-cookie", "openai-organization", "x-hop"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
}
