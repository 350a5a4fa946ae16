//! Who is let in, and what every answer carries.

use std::collections::HashSet;

use http::HeaderMap;
use support::{
    proxy::{Proxy, chat, client, toml},
    raw::Raw,
    upstream::{Answer, Upstream},
};

mod support;

const CLIENTS: &str = "[clients]\nkeys = [\"ck-first\", \"ck-second\"]\n";

async fn with(sections: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", sections)).await;
    (upstream, proxy)
}

async fn get(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = headers
        .iter()
        .fold(client().get(proxy.url(path)), |request, (name, value)| request.header(*name, *value));
    request.send().await.expect("an answer")
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[tokio::test]
async fn a_client_key_is_taken_wherever_an_sdk_puts_it() {
    let (upstream, proxy) = with(CLIENTS).await;
    for header in [
        ("authorization", "Bearer ck-first"),
        ("authorization", "bearer  ck-second"),
        ("x-api-key", "ck-first"),
        ("api-key", "ck-second"),
        ("x-goog-api-key", "ck-first"),
        ("x-proxy-key", "ck-second"),
    ] {
        assert_eq!(get(&proxy, "/v1/models", &[header]).await.status(), 200, "{header:?}");
        let sent = upstream.last_request();
        assert_eq!(sent.header("authorization"), Some("Bearer sk-one"));
        assert!(!format!("{:?}", sent.headers).contains("ck-"), "{:?}", sent.headers);
    }
    // The same in two places is one.
    let both = [("authorization", "Bearer ck-first"), ("x-api-key", "ck-first")];
    assert_eq!(get(&proxy, "/v1/models", &both).await.status(), 200);
    // Our own header says which it is.
    let ours = [("authorization", "Bearer theirs"), ("x-proxy-key", "ck-first")];
    assert_eq!(get(&proxy, "/v1/models", &ours).await.status(), 200);
}

#[tokio::test]
async fn who_has_no_client_key_is_refused_in_the_shape_of_the_api() {
    let (upstream, proxy) = with(CLIENTS).await;
    for headers in [
        &[][..],
        &[("authorization", "Bearer guessed")],
        &[("authorization", "Bearer ")],
        &[("authorization", "ck-first")],
        &[("authorization", "Basic ck-first")],
        &[("authorization", "Bearer ck-firs")],
        &[("authorization", "Bearer ck-first2")],
        &[("authorization", "Bearer CK-FIRST")],
        &[("x-api-key", "")],
        &[("cookie", "key=ck-first")],
        // A key of the pool is no client key.
        &[("authorization", "Bearer sk-one")],
        // Of two that differ nobody knows which is meant.
        &[("authorization", "Bearer unused"), ("x-api-key", "ck-first")],
        &[("authorization", "Bearer ck-second"), ("x-api-key", "ck-first")],
    ] {
        let answer = get(&proxy, "/v1/models", headers).await;
        assert_eq!(
            (answer.status().as_u16(), text(answer.headers(), "www-authenticate")),
            (401, Some("Bearer")),
            "{headers:?}"
        );
        assert_eq!(text(answer.headers(), "content-type"), Some("application/json"));
        assert!(text(answer.headers(), "x-request-id").is_some());
        let body = answer.text().await.unwrap();
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["type"]),
            (&"invalid_api_key".into(), &"invalid_request_error".into())
        );
        assert!(error["error"]["message"].is_string() && error["error"]["param"].is_null());
        assert!(!body.contains("ck-") && !body.contains("sk-") && !body.contains("guessed"), "{body}");
    }
    // A key in the query would stand in every log on the way.
    assert_eq!(get(&proxy, "/v1/models?key=ck-first", &[]).await.status(), 401);
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_stranger_learns_nothing_about_paths() {
    let (_upstream, proxy) = with(CLIENTS).await;
    for path in ["/v1/models", "/nowhere", "/v1/a//b", "/"] {
        assert_eq!(get(&proxy, path, &[]).await.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn without_client_keys_anyone_on_this_machine_is_served() {
    let (_upstream, proxy) = with("").await;
    for headers in [&[][..], &[("authorization", "Bearer whatever")]] {
        assert_eq!(get(&proxy, "/v1/models", headers).await.status(), 200);
    }
}

#[tokio::test]
async fn health_is_for_everyone_and_calls_nobody() {
    let (upstream, proxy) = with(CLIENTS).await;
    let answer = get(&proxy, "/health", &[]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "OK");
    assert_eq!(client().head(proxy.url("/health")).send().await.unwrap().status(), 200);
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn metrics_are_not_on_the_clients_port() {
    let (_upstream, proxy) = with("").await;
    assert_eq!(get(&proxy, "/metrics", &[]).await.status(), 404);
    assert!(proxy.metrics().await.contains("key_cycle_requests_total"));
}

#[tokio::test]
async fn the_clients_request_id_is_taken_over_in_answers_and_errors() {
    let (upstream, proxy) = with("").await;
    for path in ["/v1/models", "/nowhere", "/v1/../x", "/v1/nothing/here"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: p\r\nx-request-id: my-id:1/2\r\n\r\n");
        assert_eq!(
            Raw::ask(proxy.address(), request).await.header("x-request-id"),
            Some("my-id:1/2"),
            "{path}"
        );
    }
    upstream.otherwise(Answer::ok().header("x-request-id", "req_up"));
    let answer = get(&proxy, "/v1/models", &[("x-request-id", "mine")]).await;
    assert_eq!(text(answer.headers(), "x-request-id"), Some("mine"));
    assert_eq!(text(answer.headers(), "x-upstream-request-id"), Some("req_up"));
    assert_eq!(answer.headers().get_all("x-request-id").iter().count(), 1);
}

#[tokio::test]
async fn a_request_without_a_usable_id_gets_one() {
    let (_upstream, proxy) = with("").await;
    let (long, mut made) = ("x".repeat(129), HashSet::new());
    for id in [None, None, Some(""), Some("two words"), Some(long.as_str())] {
        let headers: Vec<_> = id.into_iter().map(|id| ("x-request-id", id)).collect();
        let answer = get(&proxy, "/v1/models", &headers).await;
        let given = text(answer.headers(), "x-request-id").unwrap().to_owned();
        assert!(given.starts_with("req_") && Some(given.as_str()) != id, "{given}");
        assert!(made.insert(given));
    }
}

#[tokio::test]
async fn debug_headers_name_the_key_id_and_the_attempts_only_when_asked_for() {
    let upstream = Upstream::start().await;
    upstream.key("sk-one").always(Answer::revoked());
    let keys = |sections| toml(&upstream.url(), &["sk-one", "sk-two"], "", sections);
    let proxy = Proxy::start(&keys("[observability]\ndebug_headers = true\n")).await;
    let mut attempts = Vec::new();
    for _ in 0..2 {
        let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
        attempts.push(text(answer.headers(), "x-key-cycle-attempts").unwrap().to_owned());
        let id = text(answer.headers(), "x-key-cycle-key").unwrap();
        assert!(id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(proxy.metrics().await.contains(&format!("key=\"{id}\"")));
    }
    attempts.sort();
    assert_eq!(attempts, ["1", "2"]);
    // An error tells it too; one before any attempt has no key to name.
    upstream.key("sk-two").always(Answer::revoked());
    let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), text(answer.headers(), "x-key-cycle-attempts")), (503, Some("1")));
    let answer = get(&proxy, "/nowhere", &[]).await;
    assert_eq!(
        (text(answer.headers(), "x-key-cycle-attempts"), text(answer.headers(), "x-key-cycle-key")),
        (Some("0"), None)
    );

    let proxy = Proxy::start(&keys("")).await;
    let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
    assert!(
        answer.headers().keys().all(|name| !name.as_str().starts_with("x-key-cycle")),
        "{:?}",
        answer.headers()
    );
}

#[tokio::test]
async fn no_key_stands_in_the_metrics() {
    let (upstream, proxy) = with(CLIENTS).await;
    upstream.otherwise(Answer::revoked());
    get(&proxy, "/v1/models?key=ck-first", &[("authorization", "Bearer ck-first")]).await;
    let metrics = proxy.metrics().await;
    assert!(!metrics.contains("sk-one") && !metrics.contains("ck-first"), "{metrics}");
}
