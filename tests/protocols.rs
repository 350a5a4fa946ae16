//! HTTP/2 and TLS, and connections that end when nobody looks.

use std::io::Write as _;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Version;
use support::{
    proxy::{Proxy, chat, client, streamed_chat, toml},
    raw::patiently,
    upstream::{Answer, Gate, Upstream},
};
use tempfile::NamedTempFile;

mod support;

/// A client that begins with HTTP/2's preface.
fn h2_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client")
}

fn ca_file(upstream: &Upstream) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file for the test");
    file.write_all(upstream.ca_pem().as_bytes()).expect("the test's own file");
    file
}

async fn post(client: &reqwest::Client, proxy: &Proxy, path: &str) -> reqwest::Response {
    patiently(client.post(proxy.url(path)).body(chat("m")).send()).await.expect("an answer")
}

/// Attempts that were not answered.
async fn failed_attempts(proxy: &Proxy) -> f64 {
    proxy.metric(r#"key_cycle_attempts_total{verdict="broken"}"#).await
        + proxy.metric(r#"key_cycle_attempts_total{verdict="unreachable"}"#).await
}

#[tokio::test]
async fn many_streams_share_an_http2_connection() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let gate = Gate::new();
    upstream.otherwise(Answer::pieces(["one", "two"]).gated(&gate));
    let client = h2_client();
    let asked =
        (0..50).map(|_| client.post(proxy.url("/v1/chat/completions")).body(streamed_chat("m")).send());
    let mut answers: Vec<_> = patiently(join_all(asked)).await.into_iter().map(Result::unwrap).collect();
    upstream.wait_for(|up| up.open_requests() == 50).await;
    gate.release(50);
    for answer in &mut answers {
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
        assert_eq!(patiently(answer.chunk()).await.unwrap().unwrap(), "one");
    }
    gate.open();
    for answer in answers {
        assert_eq!(patiently(answer.bytes()).await.unwrap(), Bytes::from("two"));
    }
    let sent = upstream.last_request();
    assert_eq!((sent.version, sent.key.as_deref()), (Version::HTTP_11, Some("sk-one")));
    assert_eq!(sent.header("host"), Some(upstream.address().to_string().as_str()));
}

#[tokio::test]
async fn errors_reach_http2_clients_too() {
    let upstream = Upstream::start().await;
    let limit = "[server]\nrequest_body_limit_bytes = 100\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", limit)).await;
    let client = h2_client();
    let large = client.post(proxy.url("/v1/chat/completions")).body("x".repeat(1 << 20));
    assert_eq!(patiently(large.send()).await.unwrap().status(), 413);
    assert_eq!(post(&client, &proxy, "/nowhere").await.status(), 404);
    assert_eq!(post(&client, &proxy, "/v1/chat/completions").await.status(), 200);
    assert_eq!(upstream.total_calls(), 1);
}

#[tokio::test]
async fn an_upstream_with_a_private_authority_is_trusted_when_told_to() {
    let upstream = Upstream::start_tls().await;
    let file = ca_file(&upstream);
    let ca = format!("ca_file = \"{}\"", file.path().display());
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], &ca, "")).await;
    for _ in 0..3 {
        assert_eq!(post(&client(), &proxy, "/v1/chat/completions").await.status(), 200);
    }
    assert_eq!(upstream.last_request().version, Version::HTTP_11);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_upstream_with_an_unknown_authority_gets_nothing_and_few_knocks() {
    let upstream = Upstream::start_tls().await;
    let settings = "max_retries = 2\nmax_wait_ms = 100";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one", "sk-two"], settings, "")).await;
    let answer = post(&client(), &proxy, "/v1/chat/completions").await;
    assert_eq!(answer.status(), 502);
    let text = answer.text().await.unwrap();
    assert!(text.contains("upstream_unreachable") && !text.contains("localhost"), "{text}");
    assert!((1..=3).contains(&upstream.connections()), "{}", upstream.connections());
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn http2_to_upstreams_is_spoken_only_when_configured() {
    let upstream = Upstream::start_tls().await;
    let file = ca_file(&upstream);
    for (http2, version) in [(true, Version::HTTP_2), (false, Version::HTTP_11)] {
        let settings = format!("http2 = {http2}\nca_file = \"{}\"", file.path().display());
        let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], &settings, "")).await;
        upstream.otherwise(Answer::api());
        assert_eq!(post(&client(), &proxy, "/v1/chat/completions").await.status(), 200);
        let sent = upstream.last_request();
        assert_eq!((sent.version, sent.key.as_deref()), (version, Some("sk-one")));
        assert_eq!(sent.header("host"), Some(format!("localhost:{}", upstream.address().port()).as_str()));
        // A stream, and one that breaks.
        upstream.otherwise(Answer::sse(["one", "two"]));
        let whole =
            client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("m")).send().await.unwrap();
        assert_eq!(whole.text().await.unwrap(), "data: one\n\ndata: two\n\n");
        upstream.otherwise(Answer::sse(["one", "two"]).cut_after(1));
        let broken =
            client().post(proxy.url("/v1/chat/completions")).body(streamed_chat("m")).send().await.unwrap();
        assert!(patiently(broken.bytes()).await.is_err());
        // A departure.
        upstream.reset_records();
        upstream.otherwise(Answer::ok().hang());
        let leaving = client().get(proxy.url("/v1/models")).send();
        tokio::select! {
            answer = leaving => panic!("{answer:?}"),
            () = upstream.wait_for(|up| up.open_requests() == 1) => {}
        }
        upstream.wait_for(|up| up.cancelled() == 1).await;
    }
}

#[tokio::test]
async fn many_requests_to_an_http2_upstream_are_answered_over_few_connections() {
    let upstream = Upstream::start_tls().await;
    let file = ca_file(&upstream);
    let settings = format!("http2 = true\nca_file = \"{}\"", file.path().display());
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], &settings, "")).await;
    let client = client();
    // The first of each connection.
    for _ in 0..4 {
        assert_eq!(post(&client, &proxy, "/v1/chat/completions").await.status(), 200);
    }
    let answers = join_all((0..100).map(|_| post(&client, &proxy, "/v1/chat/completions"))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(upstream.connections(), 4);
}

#[tokio::test]
async fn connections_to_upstreams_are_used_again() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    for _ in 0..6 {
        assert!(post(&client(), &proxy, "/v1/chat/completions").await.bytes().await.is_ok());
        upstream.wait_for(|up| up.open_requests() == 0).await;
    }
    assert_eq!((upstream.total_calls(), upstream.connections()), (6, 1));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced_unseen() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    for round in 1..=5 {
        // One that creates an object may not be sent twice, and needs not be.
        upstream.otherwise(if round % 2 == 0 { Answer::ok().then_close() } else { Answer::ok() });
        let answer = client().post(proxy.url("/v1/batches")).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{round}");
        answer.bytes().await.unwrap();
        upstream.wait_for(|up| up.open_requests() == 0).await;
        upstream.kill_idle_connections().await;
        upstream.wait_for(|up| up.open_connections() == 0).await;
    }
    assert_eq!((upstream.total_calls(), upstream.connections()), (5, 5));
    assert_eq!(failed_attempts(&proxy).await, 0.0);
}

#[tokio::test]
async fn a_connection_that_dies_under_a_request_costs_only_what_may_be_repeated_a_second_try() {
    let upstream = Upstream::start().await;
    for (path, status, attempts) in [("/v1/chat/completions", 200, 3.0), ("/v1/batches", 502, 2.0)] {
        upstream.reset_records();
        upstream.otherwise(Answer::ok().then_reset_next());
        let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
        let first = client().post(proxy.url(path)).body("{}").send().await.unwrap();
        assert_eq!(first.status(), 200);
        first.bytes().await.unwrap();
        upstream.wait_for(|up| up.open_requests() == 0).await;
        let second = patiently(client().post(proxy.url(path)).body("{}").send()).await.unwrap();
        assert_eq!(second.status(), status, "{path}");
        let text = second.text().await.unwrap();
        assert_eq!(text.contains("upstream_broken"), status == 502, "{text}");
        let answered = proxy.metric(r#"key_cycle_attempts_total{verdict="success"}"#).await;
        assert_eq!((failed_attempts(&proxy).await, answered + 1.0), (1.0, attempts), "{path}");
        if status == 200 {
            // The first went to one key, the second's second try not to the one that had just failed.
            assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (2, 0));
        }
    }
}
