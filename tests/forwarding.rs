//! Methods, paths and queries travel as they are, to where the user meant.

use http::Method;
use support::{
    proxy::{Proxy, chat, client, keys_toml},
    raw::Raw,
    upstream::{Answer, Upstream},
};

mod support;

async fn echoing() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::echo());
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    (upstream, proxy)
}

/// Sends a target that no client library would leave as it is.
async fn get(proxy: &Proxy, target: &str) -> support::raw::Heard {
    Raw::ask(proxy.address(), format!("GET {target} HTTP/1.1\r\nhost: proxy\r\n\r\n")).await
}

#[tokio::test]
async fn a_chat_request_is_answered_with_a_key_of_the_pool() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    for _ in 0..4 {
        let answer = client()
            .post(proxy.url("/v1/chat/completions"))
            .header("authorization", "Bearer sk-of-the-client")
            .header("content-type", "application/json")
            .body(chat("gpt-4o-mini"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().contains("chat.completion"));
    }
    assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (2, 2));
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="complete"}"#).await, 4.0);
}

#[tokio::test]
async fn every_method_is_forwarded_with_its_body() {
    let (upstream, proxy) = echoing().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "REPORT"] {
        let method: Method = method.parse().unwrap();
        let answer = client()
            .request(method.clone(), proxy.url("/v1/anything/at/all"))
            .body("plain words")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{method}");
        let sent = upstream.last_request();
        assert_eq!((&sent.method, sent.target.as_str()), (&method, "/v1/anything/at/all"));
        assert_eq!(sent.body, "plain words", "{method}");
        assert_eq!(sent.key.as_deref(), Some("sk-one"), "{method}");
    }
    assert_eq!(upstream.total_calls(), 8);
}

#[tokio::test]
async fn only_a_preflight_is_answered_here() {
    let (upstream, proxy) = echoing().await;
    let options = |origin: &'static str| {
        client().request(Method::OPTIONS, proxy.url("/v1/models")).header("origin", origin)
    };
    let preflight = options("http://localhost:3000").header("access-control-request-method", "POST");
    assert_eq!(
        preflight.send().await.unwrap().headers()["access-control-allow-origin"],
        "http://localhost:3000"
    );
    assert_eq!(upstream.total_calls(), 0);
    // RFC 9110 §9.3.7: a question about the resource, which only the upstream can answer.
    let answer = options("http://localhost:3000").send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert!(answer.text().await.unwrap().contains("OPTIONS"));
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn paths_and_queries_keep_every_byte() {
    let (upstream, proxy) = echoing().await;
    for target in [
        "/v1/files?purpose=batch&limit=20&after=file%2Dabc",
        "/v1/files/a%2Fb%20c%C3%A4:d@e!$&'()*+,;=~",
        "/v1/models/ft:gpt-4o:org::abc%41",
        "/v1/files/",
        "/v1",
        "/v1/files?a=1&a=2&b&=c&&d=+%2B%20",
        "/v1/files?include[]=x&filter={a|b}&q=a/b?c:d@e",
        "/v1/files/...",
        "/v1/files/a..b",
        "/v1/files/%252e%252e/x",
    ] {
        assert_eq!(get(&proxy, target).await.status, 200, "{target}");
        assert_eq!(upstream.last_request().target, target);
    }
}

#[tokio::test]
async fn a_key_in_the_query_stays_here_and_the_rest_goes_on() {
    let (upstream, proxy) = echoing().await;
    for (target, sent) in [
        ("/v1/models?key=client", "/v1/models"),
        ("/v1/models?a=%20&key=client&b=2&%6bey=client", "/v1/models?a=%20&b=2"),
        ("/v1/models?keys=1&apikey=2", "/v1/models?keys=1&apikey=2"),
    ] {
        assert_eq!(get(&proxy, target).await.status, 200, "{target}");
        assert_eq!(upstream.last_request().target, sent);
    }
}

#[tokio::test]
async fn every_way_to_write_a_base_url_leads_to_the_same_place() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::echo());
    for (base, path) in [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai", "/openai/v1/chat/completions"),
        ("/openai/v1/", "/openai/v1/chat/completions"),
        ("/a/b", "/a/b/v1/chat/completions"),
        ("/v1beta/openai", "/v1beta/openai/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("/api/paas/v4", "/api/paas/v4/chat/completions"),
    ] {
        let proxy = Proxy::with_keys(&format!("{}{base}", upstream.url()), &["sk-one"]).await;
        for asked in ["/v1/chat/completions", "/chat/completions"] {
            let answer = client().post(proxy.url(asked)).body(chat("m")).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{base} {asked}");
            assert_eq!(upstream.last_request().target, path, "{base} {asked}");
        }
    }
}

#[tokio::test]
async fn a_keys_own_url_goes_before_the_common_one() {
    let (common, own) = (Upstream::start().await, Upstream::start().await);
    let keys = format!("{}url = \"{}/prefix/v1/\"\n", keys_toml(&common.url(), &["sk-one"]), own.url());
    own.otherwise(Answer::echo());
    let proxy = Proxy::start(&keys).await;
    assert_eq!(client().get(proxy.url("/v1/models")).send().await.unwrap().status(), 200);
    assert_eq!(own.last_request().target, "/prefix/v1/models");
    assert_eq!(own.last_request().header("host"), Some(own.address().to_string().as_str()));
    assert_eq!(common.total_calls(), 0);
}

#[tokio::test]
async fn known_paths_are_taken_without_their_version_and_others_are_not_found() {
    let (upstream, proxy) = echoing().await;
    for path in
        ["/models", "/models/gpt-4o", "/embeddings", "/files/f/content", "/images/edits", "/responses?a=1"]
    {
        assert_eq!(get(&proxy, path).await.status, 200, "{path}");
        assert_eq!(upstream.last_request().target, format!("/v1{path}"));
    }
    let calls = upstream.total_calls();
    for path in ["/", "/v2/models", "/v1x/models", "/modelsx", "/index.html", "/metrics", "/V1/models"] {
        let answer = get(&proxy, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    assert_eq!(upstream.total_calls(), calls);
}

#[tokio::test]
async fn no_path_leaves_the_base() {
    let (upstream, proxy) = echoing().await;
    for target in [
        "/v1/../admin",
        "/v1/..",
        "/v1/files/../../admin",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/.%2e/admin",
        "/v1/./models",
        "/v1/%2e/models",
        "/v1/..\\admin",
        "/v1/files\\..\\admin",
        "/v1/..%5cadmin",
        "/v1/%2f..%2fadmin",
        "/v1/a%2f..%2f..%2f..%2fadmin",
        "/v1/files/..;/admin",
        "/v1//admin",
        "//v1/models",
        "/v1/files//",
        "/../v1/models",
        "/chat/../../admin",
    ] {
        let answer = get(&proxy, target).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{target}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_refused_target_leaves_the_connection_usable() {
    let (upstream, proxy) = echoing().await;
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send("GET /v1/../x HTTP/1.1\r\nhost: proxy\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 400);
    raw.send("GET /v1/models HTTP/1.1\r\nhost: proxy\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn an_absolute_target_is_ours_whatever_host_it_names() {
    let (upstream, proxy) = echoing().await;
    let request = "GET http://elsewhere.example:81/v1/models?a=1 HTTP/1.1\r\nhost: elsewhere.example\r\n\r\n";
    assert_eq!(Raw::ask(proxy.address(), request).await.status, 200);
    let sent = upstream.last_request();
    assert_eq!(sent.target, "/v1/models?a=1");
    assert_eq!(sent.header("host"), Some(upstream.address().to_string().as_str()));
    let tunnel = "CONNECT elsewhere.example:443 HTTP/1.1\r\nhost: elsewhere.example\r\n\r\n";
    assert_eq!(Raw::ask(proxy.address(), tunnel).await.status, 404);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn a_redirect_is_delivered_and_never_followed() {
    let (upstream, proxy) = echoing().await;
    let elsewhere = Upstream::start().await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("{}/v1/stolen", elsewhere.url());
        upstream
            .key("sk-one")
            .always(Answer::status(status).header("location", &location).body("over there"));
        let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["location"], location.as_str());
        assert_eq!(answer.text().await.unwrap(), "over there");
    }
    assert_eq!((upstream.total_calls(), elsewhere.total_calls()), (5, 0));
}
