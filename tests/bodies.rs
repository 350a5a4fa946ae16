//! Request bodies: how large, how understood, and what becomes of the connection when they are refused.

use support::{
    proxy::{Proxy, chat, client, toml},
    raw::{Heard, Raw, patiently},
    upstream::{Answer, Upstream},
};

mod support;

const LIMIT: usize = 4096;

async fn limited() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let server = format!("[server]\nrequest_body_limit_bytes = {LIMIT}\n");
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", &server)).await;
    (upstream, proxy)
}

/// A valid chat request of so many bytes.
fn of_length(length: usize) -> String {
    let bare = r#"{"model":"m","messages":[{"role":"user","content":""}]}"#;
    bare.replacen("\"\"", &format!("\"{}\"", "x".repeat(length - bare.len())), 1)
}

fn declared(body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chunked(body: &str) -> String {
    let mut text = "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for part in body.as_bytes().chunks(1000) {
        let part = std::str::from_utf8(part).expect("ASCII");
        text.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
    }
    text + "0\r\n\r\n"
}

fn assert_too_large(answer: &Heard) {
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "{answer:?}");
    let message = answer.json()["error"]["message"].as_str().expect("as errors are").to_owned();
    assert!(message.contains("server.request_body_limit_bytes") && message.contains("4096"), "{message}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
    let (upstream, proxy) = limited().await;
    for framed in [declared, chunked] {
        assert_eq!(Raw::ask(proxy.address(), framed(&of_length(LIMIT))).await.status, 200);
        assert_eq!(upstream.last_request().body_len, LIMIT as u64);
        upstream.reset_records();
        assert_too_large(&Raw::ask(proxy.address(), framed(&of_length(LIMIT + 1))).await);
        assert_eq!(upstream.total_calls(), 0);
    }
}

#[tokio::test]
async fn a_refused_body_is_not_waited_for() {
    let (upstream, proxy) = limited().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\nexpect: 100-continue\r\ncontent-length: 1000000000000\r\n\r\n";
    // No byte of it is asked for.
    assert_too_large(&Raw::ask(proxy.address(), head).await);
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_client_that_writes_a_large_body_in_one_go_still_reads_the_refusal() {
    let (upstream, proxy) = limited().await;
    let large = of_length(24 << 20);
    for round in 0..5 {
        for framed in [declared, chunked] {
            let mut raw = Raw::connect(proxy.address()).await;
            assert!(raw.try_send(framed(&large)).await, "{round}: cut off while writing");
            assert_too_large(&raw.answer().await);
        }
    }
    for _ in 0..3 {
        let answer =
            client().post(proxy.url("/v1/chat/completions")).body(large.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 413);
    }
    assert_eq!(upstream.total_calls(), 0);
    let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn the_connection_lives_on_after_every_refusal_whose_body_was_read() {
    let (upstream, proxy) = limited().await;
    let mut raw = Raw::connect(proxy.address()).await;
    for body in ["{", "{\"model\":1}", "[1,2", "{\"model\":\"a\",\"model\":\"b\"}", "not json", "\u{feff}{}"]
    {
        for framed in [declared, chunked] {
            raw.send(framed(body)).await;
            let answer = raw.answer().await;
            assert_eq!(answer.status, 400, "{body}");
            assert!(matches!(answer.code().as_str(), "invalid_json" | "invalid_request"), "{body}");
            assert!(!answer.json()["error"]["message"].as_str().unwrap().contains("not json\""));
        }
    }
    assert_eq!(upstream.total_calls(), 0);
    raw.send(declared(&chat("m"))).await;
    assert_eq!(raw.answer().await.status, 200);
}

#[tokio::test]
async fn what_says_json_and_is_none_is_told_apart_from_what_names_no_model() {
    let (upstream, proxy) = limited().await;
    for (body, code) in [
        ("{", "invalid_json"),
        ("{\"model\":\"m\",}", "invalid_json"),
        ("{} {}", "invalid_json"),
        ("{'model':'m'}", "invalid_json"),
        ("{\"model\":\"m\"", "invalid_json"),
        ("{\"model\":\"m\"} // x", "invalid_json"),
        ("{\"model\":\"\\ud800\"}", "invalid_json"),
        ("{\"model\":\"m\",\"n\":NaN}", "invalid_json"),
        ("{\"model\":\"m\",\"n\":\"\u{1}\"}", "invalid_json"),
        ("model=m", "invalid_json"),
        ("\0", "invalid_json"),
        (" ", "invalid_json"),
        ("{\"model\":7}", "invalid_request"),
        ("{\"model\":[\"m\"]}", "invalid_request"),
        ("{\"model\":{}}", "invalid_request"),
        ("{\"model\":true}", "invalid_request"),
        ("{\"model\":1.5e3}", "invalid_request"),
        ("{\"mod\\u0065l\":7}", "invalid_request"),
        ("{\"model\":\"a\",\"mod\\u0065l\":\"b\"}", "invalid_request"),
        ("{\"model\":\"a\",\"model\":null}", "invalid_request"),
        ("{\"model\":\"a\",\"model\":\"b\"}", "invalid_request"),
    ] {
        let answer = Raw::ask(proxy.address(), declared(body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    assert_eq!(upstream.total_calls(), 0);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-type: application/vnd.x+json\r\n";
    let latin = [head.as_bytes(), b"content-length: 13\r\n\r\n{\"model\":\"\xe9\"}"].concat();
    assert_eq!(Raw::ask(proxy.address(), latin).await.code(), "invalid_json");
    // These are the upstream's to judge.
    upstream.otherwise(Answer::ok());
    for body in ["{}", "{\"model\":null}", "[]", "{\"model\":\"\"}", " {\"model\":\"m\",\"model\":\"m\"} "] {
        assert_eq!(Raw::ask(proxy.address(), declared(body)).await.status, 200, "{body}");
        assert_eq!(upstream.last_request().body, body);
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_never_sent_on() {
    let (upstream, proxy) = limited().await;
    for text in [
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-length: 100\r\n\r\n{\"model\":",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"model\":\r\n",
    ] {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.send(text).await;
        drop(raw);
    }
    proxy.until_at_rest().await;
    assert_eq!(upstream.total_calls() + upstream.incomplete(), 0);
}

#[tokio::test]
async fn a_picture_of_5_mib_passes_by_default() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let picture = format!("data:image/png;base64,{}", "iVBORw0K".repeat(5 << 17));
    let content = serde_json::json!([{"type": "image_url", "image_url": {"url": picture}}]);
    let body =
        serde_json::json!({"messages": [{"role": "user", "content": content}], "model": "m"}).to_string();
    assert!(body.len() > 5 << 20);
    let request = client().post(proxy.url("/v1/chat/completions")).header("content-type", "application/json");
    assert_eq!(request.body(body.clone()).send().await.unwrap().status(), 200);
    assert!(upstream.last_request().body == body);
}

#[tokio::test]
async fn a_large_body_is_sent_again_whole() {
    let upstream = Upstream::start().await;
    upstream.key("sk-one").always(Answer::revoked());
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    let body = of_length(2 << 20);
    for _ in 0..2 {
        let answer =
            client().post(proxy.url("/v1/chat/completions")).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let sent = upstream.requests();
    assert_eq!((sent.len(), upstream.calls("sk-one")), (3, 1));
    assert!(sent.iter().all(|request| request.body == body));
}

#[tokio::test]
async fn an_upstream_that_refuses_before_it_has_read_the_body_is_understood() {
    let upstream = Upstream::start().await;
    upstream.key("sk-one").always(Answer::revoked().early());
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    let body = of_length(4 << 20);
    for _ in 0..2 {
        let request = client().post(proxy.url("/v1/chat/completions")).body(body.clone());
        assert_eq!(patiently(request.send()).await.unwrap().status(), 200);
    }
    assert_eq!(upstream.calls("sk-two"), 2);
}
