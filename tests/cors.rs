//! Which web pages may call, and what they see.

use http::{HeaderMap, Method};
use support::{
    proxy::{Proxy, chat, client, toml},
    upstream::{Answer, Upstream},
};

mod support;

const CLIENTS: &str = "[clients]\nkeys = [\"ck-one\"]\n";
const KEY: (&str, &str) = ("authorization", "Bearer ck-one");
const PAGE: (&str, &str) = ("origin", "https://page.example");

async fn with(sections: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "max_retries = 0", sections)).await;
    (upstream, proxy)
}

async fn ask(proxy: &Proxy, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    let body = if method == Method::POST { chat("m") } else { String::new() };
    let request = headers.iter().fold(client().request(method, proxy.url(path)), |request, (name, value)| {
        request.header(*name, *value)
    });
    let answer = request.body(body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.headers().clone())
}

/// The origin that may read the answer.
fn readable_by(headers: &HeaderMap) -> Option<&str> {
    assert!(headers.get_all("access-control-allow-origin").iter().count() <= 1);
    headers.get("access-control-allow-origin")?.to_str().ok()
}

fn preflight(origin: &str) -> [(&str, &str); 3] {
    [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, content-type, x-stainless-lang"),
    ]
}

#[tokio::test]
async fn a_preflight_is_answered_here_and_needs_no_key() {
    let (upstream, proxy) = with(CLIENTS).await;
    for path in ["/v1/chat/completions", "/chat/completions"] {
        let (status, headers) = ask(&proxy, Method::OPTIONS, path, &preflight("https://page.example")).await;
        assert!((200..300).contains(&status));
        assert_eq!(readable_by(&headers), Some("*"));
        assert_eq!(headers["access-control-allow-methods"], "POST");
        assert_eq!(headers["access-control-allow-headers"], "authorization, content-type, x-stainless-lang");
        assert!(headers.contains_key("access-control-max-age"));
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn errors_can_be_read_by_pages_too() {
    let (upstream, proxy) = with(CLIENTS).await;
    let chat = "/v1/chat/completions";
    assert_eq!(ask(&proxy, Method::POST, chat, &[PAGE, KEY]).await.0, 200);
    for (status, path, headers, refusal) in [
        (401, chat, &[PAGE][..], Answer::ok()),
        (404, "/nowhere", &[PAGE, KEY], Answer::ok()),
        (400, chat, &[PAGE, KEY], Answer::status(400)),
        (502, chat, &[PAGE, KEY], Answer::raw("nonsense\r\n\r\n")),
        (429, chat, &[PAGE, KEY], Answer::status(429).retry_after(100)),
    ] {
        upstream.otherwise(refusal);
        let (got, headers) = ask(&proxy, Method::POST, path, headers).await;
        assert_eq!((got, readable_by(&headers)), (status, Some("*")), "{path}");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        for name in ["x-request-id", "retry-after", "x-should-retry"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
}

#[tokio::test]
async fn without_client_keys_only_pages_of_this_machine_may_call() {
    let (_upstream, proxy) = with("").await;
    for origin in ["http://localhost", "http://localhost:5173", "https://127.0.0.1:8443", "http://[::1]:3000"]
    {
        let (status, headers) = ask(&proxy, Method::GET, "/v1/models", &[("origin", origin)]).await;
        assert_eq!((status, readable_by(&headers)), (200, Some(origin)));
        let (_, headers) = ask(&proxy, Method::OPTIONS, "/v1/models", &preflight(origin)).await;
        assert_eq!(readable_by(&headers), Some(origin));
    }
    for origin in
        ["https://page.example", "http://localhost.page.example", "http://127.0.0.1.page.example", "null"]
    {
        let (_, headers) = ask(&proxy, Method::GET, "/v1/models", &[("origin", origin)]).await;
        assert_eq!(readable_by(&headers), None, "{origin}");
        assert!(
            headers
                .get_all("vary")
                .iter()
                .any(|value| value.to_str().unwrap().eq_ignore_ascii_case("origin"))
        );
        let (_, headers) = ask(&proxy, Method::OPTIONS, "/v1/models", &preflight(origin)).await;
        assert_eq!(
            (readable_by(&headers), headers.get("access-control-allow-methods")),
            (None, None),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn a_configured_list_decides_alone() {
    for (sections, any) in [
        ("[server]\ncors_allowed_origins = [\"https://page.example\"]\n", false),
        (
            "[server]\ncors_allowed_origins = [\"https://page.example\"]\n[clients]\nkeys = [\"ck-one\"]\n",
            false,
        ),
        ("[server]\ncors_allowed_origins = [\"*\"]\n", true),
    ] {
        let (_upstream, proxy) = with(sections).await;
        for (origin, allowed) in
            [("https://page.example", true), ("http://localhost:1", any), ("https://page.example:444", any)]
        {
            let (_, headers) = ask(&proxy, Method::GET, "/v1/models", &[("origin", origin), KEY]).await;
            let expected = allowed.then_some(if any { "*" } else { origin });
            assert_eq!(readable_by(&headers), expected, "{sections} {origin}");
        }
    }
}

#[tokio::test]
async fn what_the_upstream_says_about_pages_is_replaced() {
    let (upstream, proxy) = with("").await;
    let answer = Answer::ok()
        .header("access-control-allow-origin", "https://theirs.example")
        .header("access-control-allow-credentials", "true")
        .header("access-control-expose-headers", "x-theirs")
        .header("access-control-max-age", 5)
        .header("vary", "accept");
    upstream.otherwise(answer);
    let (_, headers) = ask(&proxy, Method::GET, "/v1/models", &[("origin", "http://localhost")]).await;
    assert_eq!(readable_by(&headers), Some("http://localhost"));
    for name in ["access-control-allow-credentials", "access-control-max-age"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(!headers["access-control-expose-headers"].to_str().unwrap().contains("x-theirs"));
    let vary: Vec<_> = headers.get_all("vary").iter().collect();
    assert!(vary.contains(&&"accept".parse().unwrap()) && vary.len() > 1, "{vary:?}");
}

#[tokio::test]
async fn a_page_from_elsewhere_cannot_spend_keys_where_no_client_key_is_asked_for() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-a"]).await;
    let ask = |origin: &'static str| {
        let request = client().post(proxy.url("/v1/chat/completions")).header("origin", origin);
        // What a browser sends without a preflight.
        request.header("content-type", "text/plain").body(chat("gpt-4o")).send()
    };
    for origin in ["https://evil.example", "null"] {
        let answer = ask(origin).await.unwrap();
        assert_eq!(answer.status(), 403, "{origin}");
        assert!(answer.text().await.unwrap().contains("origin_not_allowed"));
    }
    assert_eq!(upstream.total_calls(), 0);
    assert_eq!(ask("http://localhost:5173").await.unwrap().status(), 200);
}
