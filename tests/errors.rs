//! What clients are told when there is no answer for them.

use std::time::Duration;

use support::{
    proxy::{Proxy, chat, client, toml},
    raw::patiently,
    upstream::{Answer, Upstream},
};

mod support;

/// A chat request, and what is always true of an error of ours.
async fn refused(proxy: &Proxy) -> (u16, String, http::HeaderMap, String) {
    let request =
        client().post(proxy.url("/v1/chat/completions")).header("x-request-id", "mine-1").body(chat("m"));
    let answer = patiently(request.send()).await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body: serde_json::Value =
        serde_json::from_str(&answer.text().await.expect("an answer")).expect("JSON");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-request-id"], "mine-1");
    let error = body["error"].as_object().expect("as errors are");
    for name in ["message", "type", "code"] {
        assert!(error[name].is_string(), "{body}");
    }
    assert!(error.contains_key("param"));
    (status, body["error"]["code"].as_str().expect("as errors are").to_owned(), headers, body.to_string())
}

/// No error names a secret or says where the upstream is.
fn assert_discreet(text: &str, upstream: &Upstream) {
    for secret in
        ["sk-one", "sk-two", &upstream.address().to_string(), "client-secret", "http://", "https://"]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn keys_that_may_not_use_an_endpoint_are_asked_once_each() {
    let upstream = Upstream::start().await;
    let message = "You have insufficient permissions for this operation. Missing scopes: model.request.";
    upstream.otherwise(Answer::status(403).error("invalid_request_error", "missing_scope", message));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!(
        (status, code.as_str(), &headers["x-should-retry"]),
        (503, "no_usable_key", &"false".parse().unwrap())
    );
    assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (1, 1));
    assert_discreet(&text, &upstream);
}

#[tokio::test]
async fn rejected_keys_make_503_and_their_refusal_is_not_shown() {
    let upstream = Upstream::start().await;
    let message = "Incorrect API key provided: sk-one. Find yours at https://platform.example/keys.";
    upstream.otherwise(Answer::status(401).error("invalid_request_error", "invalid_api_key", message));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!((status, code.as_str()), (503, "no_usable_key"));
    assert!(text.contains("2 keys rejected"), "{text}");
    assert!(!headers.contains_key("www-authenticate"));
    assert_discreet(&text, &upstream);
}

#[tokio::test]
async fn limited_keys_make_429_whose_retry_after_is_never_early() {
    let upstream = Upstream::start().await;
    upstream.key("sk-one").always(Answer::rate_limited(Duration::from_millis(30_500)));
    upstream.key("sk-two").always(Answer::rate_limited(Duration::from_millis(20_250)));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!((status, code.as_str()), (429, "all_keys_cooling"));
    assert!(text.contains("2 keys rate limited until "), "{text}");
    let number = |name: &str| headers[name].to_str().unwrap().parse::<u64>().unwrap();
    let (seconds, ms) = (number("retry-after"), number("retry-after-ms"));
    assert!((1..=20_250).contains(&ms), "{ms}");
    assert_eq!(seconds, ms.div_ceil(1000));
    assert_eq!(headers["x-should-retry"], "true");
    assert_eq!(upstream.total_calls(), 2);
    assert_discreet(&text, &upstream);
}

#[tokio::test]
async fn an_sdk_is_not_told_to_wait_longer_than_it_would() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::rate_limited(Duration::from_secs(300)));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let (status, _, headers, _) = refused(&proxy).await;
    let seconds: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((200..=300).contains(&seconds), "{seconds}");
    assert_eq!((status, &headers["x-should-retry"]), (429, &"false".parse().unwrap()));
}

#[tokio::test]
async fn a_spent_account_is_no_rate_limit_that_passes() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::out_of_quota());
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!((status, code.as_str()), (503, "no_usable_key"), "{text}");
    assert_eq!(headers["x-should-retry"], "false");
    assert!(text.contains("out of quota"), "{text}");
}

#[tokio::test]
async fn a_model_that_no_key_serves_is_not_found() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", "models = \"gpt-4o\"")).await;
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    assert!(text.contains("`m`"), "{text}");
    assert!(!headers.contains_key("x-should-retry") && !headers.contains_key("retry-after"));
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn an_upstream_that_is_gone_breaks_or_hangs_is_told_apart() {
    let upstream = Upstream::start().await;
    let quick = "max_retries = 1\nrequest_timeout_ms = 200\nmax_wait_ms = 50";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], quick, "")).await;
    upstream.otherwise(Answer::ok().reset_before_head());
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!(
        (status, code.as_str(), &headers["x-should-retry"]),
        (502, "upstream_broken", &"false".parse().unwrap())
    );
    assert_eq!(upstream.total_calls(), 2);
    assert_discreet(&text, &upstream);

    upstream.otherwise(Answer::ok().hang());
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], quick, "")).await;
    let (status, code, headers, text) = refused(&proxy).await;
    assert_eq!(
        (status, code.as_str(), &headers["x-should-retry"]),
        (504, "upstream_timeout", &"false".parse().unwrap())
    );
    assert_eq!(upstream.total_calls(), 4);
    assert_discreet(&text, &upstream);

    upstream.stop().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], quick, "")).await;
    let (status, code, _, text) = refused(&proxy).await;
    assert_eq!((status, code.as_str()), (502, "upstream_unreachable"));
    assert_discreet(&text, &upstream);
}

#[tokio::test]
async fn a_garbled_answer_is_a_broken_upstream() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "max_retries = 0", "")).await;
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
    ] {
        upstream.otherwise(Answer::raw(garbage));
        let (status, code, _, text) = refused(&proxy).await;
        assert_eq!((status, code.as_str()), (502, "upstream_broken"), "{garbage:?}");
        assert_discreet(&text, &upstream);
    }
}

#[tokio::test]
async fn the_upstreams_own_5xx_comes_as_it_is_and_is_not_to_be_multiplied() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::status(500).error("server_error", "", "The server had an error."));
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one", "sk-two"], "max_retries = 2", "")).await;
    let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-should-retry"]),
        (500, &"false".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("The server had an error."));
    assert_eq!(upstream.total_calls(), 3);
}

#[tokio::test]
async fn a_delivered_refusal_never_shows_the_key_it_was_given_to() {
    let upstream = Upstream::start().await;
    for status in [400, 404, 422, 500, 403] {
        let refusal = Answer::status(status)
            .error("odd", "", "It was sk-one, asked with Bearer sk-one.")
            .header("x-odd", "sk-one")
            .header("x-request-id", "req-sk-one");
        upstream.otherwise(refusal);
        let proxy =
            Proxy::start(&toml(&upstream.url(), &["sk-one"], "max_retries = 0\nmax_wait_ms = 1", "")).await;
        let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(!format!("{:?}", answer.headers()).contains("sk-one"), "{:?}", answer.headers());
        let text = answer.text().await.unwrap();
        assert!(!text.contains("sk-one") && text.contains("It was "), "{text}");
    }
}

#[tokio::test]
async fn the_end_named_in_a_message_is_the_one_in_the_header() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::rate_limited(Duration::from_secs(3600)));
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let (_, _, headers, text) = refused(&proxy).await;
    let seconds: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    let date = httpdate::parse_http_date(headers["date"].to_str().unwrap()).unwrap();
    let named = |slack| {
        let end = date + Duration::from_secs(seconds) + Duration::from_secs(slack) - Duration::from_secs(1);
        text.contains(&httpdate::fmt_http_date(end)[17..25])
    };
    assert!((0..3).any(named), "{text} {headers:?}");
}
