//! Any API over HTTP behind `/proxy/{slug}`: rotation, limits and retries as for the others, and no way out of the base.

use std::time::Duration;

use http::Method;
use support::{
    ask::Got,
    proxy::{Proxy, client},
    upstream::{Answer, Upstream},
};

mod support;

async fn services(upstream: &Upstream, keys: &[&str]) -> Proxy {
    let pool_keys = |prefix: &str| {
        keys.iter().map(|key| format!("[[pools.keys]]\nkey = \"{prefix}{key}\"\n")).collect::<String>()
    };
    let url = upstream.url();
    Proxy::start(&format!(
        "[observability]\ndebug_headers = true\n[upstream]\nretry_initial_backoff_ms = 1\nretry_max_backoff_ms = 2\n\
         [keys]\nrotation_strategy = \"round_robin\"\n[clients]\nkeys = [\"ck\"]\n\
         [[pools]]\nname = \"weather\"\ndialect = \"generic\"\nbase_url = \"{url}/weather\"\n\
         credential = {{ query = \"appid\" }}\nquery = {{ units = \"metric\" }}\nmethods = [\"GET\"]\n{}\
         [[pools]]\nname = \"maps\"\ndialect = \"generic\"\nbase_url = \"{url}/maps/\"\n\
         credential = {{ header = \"Authorization\", prefix = \"ApiKey \" }}\n{}",
        pool_keys("w"),
        pool_keys("m"),
    ))
    .await
}

async fn get(proxy: &Proxy, path: &str) -> Got {
    send(proxy, Method::GET, path, &[]).await
}

async fn send(proxy: &Proxy, method: Method, path: &str, headers: &[(&str, &str)]) -> Got {
    let request = client().request(method, proxy.url(path)).header("x-proxy-key", "ck");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Got::read(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn the_credential_goes_where_the_service_has_it_and_the_fixed_query_stays() {
    let upstream = Upstream::start().await;
    upstream.key("wa");
    upstream.key("ma");
    let proxy = services(&upstream, &["a"]).await;
    let got =
        get(&proxy, "/proxy/weather/current?q=Oslo%20S&appid=stolen&units=standard&%61ppid=x&lang=no").await;
    assert_eq!((got.status, &got.json()["units"]), (200, &"metric".into()), "{}", got.text());
    assert_eq!(upstream.last_request().target, "/weather/current?q=Oslo%20S&lang=no&units=metric&appid=wa");
    let theirs = [("authorization", "ApiKey theirs"), ("cookie", "a=1"), ("accept-language", "no")];
    let got = send(&proxy, Method::GET, "/proxy/maps/geocode?address=x", &theirs).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let request = upstream.last_request();
    assert_eq!(request.target, "/maps/geocode?address=x");
    assert_eq!((request.header("authorization"), request.header("cookie")), (Some("ApiKey ma"), None));
    assert_eq!(request.header("accept-language"), Some("no"));
}

#[tokio::test]
async fn what_may_not_be_sent_is_refused_without_a_call() {
    let upstream = Upstream::start().await;
    upstream.key("wa");
    let proxy = services(&upstream, &["a"]).await;
    let got = send(&proxy, Method::POST, "/proxy/weather/stations", &[]).await;
    assert_eq!(
        (got.status, got.header("allow"), got.code()),
        (405, Some("GET"), "method_not_allowed".to_owned())
    );
    for path in
        ["/proxy/weather/..%2fmaps/geocode", "/proxy/weather/a%2f..%2f..%5cmaps", "/proxy/weather//maps"]
    {
        assert_eq!(get(&proxy, path).await.status, 400, "{path}");
    }
    for path in ["/proxy/nobody/x", "/proxy/", "/proxy"] {
        assert_eq!(get(&proxy, path).await.status, 404, "{path}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn keys_take_turns_and_the_limited_and_the_broken_are_passed_over() {
    let upstream = Upstream::start().await;
    upstream.key("wa").always(Answer::rate_limited(Duration::from_secs(60)));
    upstream.key("wb").always(Answer::status(401).json(&serde_json::json!({"message": "Invalid API key."})));
    upstream.key("wc").answers([Answer::status(500)]);
    upstream.key("wd");
    let proxy = services(&upstream, &["a", "b", "c", "d"]).await;
    for _ in 0..8 {
        let got = get(&proxy, "/proxy/weather/current?q=x").await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    assert_eq!((upstream.calls("wa"), upstream.calls("wb")), (1, 1));
    assert!(upstream.calls("wc") > 1 && upstream.calls("wd") > 1);
}

#[tokio::test]
async fn a_clients_fault_is_told_as_it_came_after_one_call() {
    let upstream = Upstream::start().await;
    upstream.key("wa");
    upstream.key("wb");
    let proxy = services(&upstream, &["a", "b"]).await;
    let got = get(&proxy, "/proxy/weather/current").await;
    assert_eq!((got.status, &got.json()["message"]), (400, &"Missing parameter: q".into()));
    let got = get(&proxy, "/proxy/weather/nowhere").await;
    assert_eq!((got.status, got.attempts()), (404, 1));
    assert_eq!(upstream.total_calls(), 2);
}

#[tokio::test]
async fn no_key_stands_in_a_refusal_that_the_service_words_with_it() {
    let upstream = Upstream::start().await;
    let said = serde_json::json!({"message": "Quota of sk-canary-0123456789 for /weather?appid=sk-canary-0123456789"});
    upstream.key("wsk-canary-0123456789").always(Answer::status(403).json(&said));
    let proxy = services(&upstream, &["sk-canary-0123456789"]).await;
    let got = get(&proxy, "/proxy/weather/current?q=x").await;
    assert!(!got.text().contains("canary"), "{}", got.text());
}

#[tokio::test]
async fn no_key_stands_in_an_answer_that_repeats_its_url() {
    let upstream = Upstream::start().await;
    let link =
        "{\"next\": \"https://api/x?appid=wsk-canary%2B0123&page=2\", \"self\": \"?appid=wsk-canary+0123\"}";
    let (one, two) = link.split_at(40);
    let pieces = Answer::pieces([one.to_owned(), two.to_owned()]).header("content-type", "application/json");
    let moved = Answer::status(301)
        .header("location", "https://api/x?appid=wsk-canary+0123")
        .body("<a href=\"https://api/x?appid=wsk-canary%2B0123\">there</a>");
    upstream.key("wsk-canary+0123").answers([pieces, moved]);
    let proxy = services(&upstream, &["sk-canary+0123"]).await;
    for status in [200, 301] {
        let got = get(&proxy, "/proxy/weather/current?q=x").await;
        assert_eq!(got.status, status, "{}", got.text());
        assert!(!got.text().contains("canary"), "{}", got.text());
        assert!(!format!("{:?}", got.headers).contains("canary"), "{:?}", got.headers);
    }
    assert_eq!(upstream.last_request().header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn what_its_bodies_say_is_its_own_business() {
    let upstream = Upstream::start().await;
    upstream.key("ma");
    upstream.otherwise(Answer::ok());
    let proxy = services(&upstream, &["a"]).await;
    for body in ["{\"model\": 5}", "{\"model\": {\"a\": 1}}", "{\"model\": \"maps/x\"}", "{"] {
        let request = client().post(proxy.url("/proxy/maps/routes")).header("x-proxy-key", "ck");
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let _ = answer.bytes().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&upstream.last_request().body), body);
    }
}

#[tokio::test]
async fn a_post_that_may_have_been_done_is_not_done_again() {
    let upstream = Upstream::start().await;
    upstream.key("ma").always(Answer::status(500));
    upstream.key("mb").always(Answer::status(500));
    let proxy = services(&upstream, &["a", "b"]).await;
    // It is called like one of OpenAI's that may be repeated.
    assert_eq!(send(&proxy, Method::POST, "/proxy/maps/v1/messages", &[]).await.status, 500);
    assert_eq!(upstream.total_calls(), 1);
}
