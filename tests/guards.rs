//! What must not happen, whatever clients and upstreams do.

use serde_json::json;
use support::{
    proxy::{Proxy, chat, client, keys_toml, toml},
    raw::{Raw, patiently},
    upstream::{Answer, Gate, Upstream},
};

mod support;

fn country() -> Answer {
    let code = "unsupported_country_region_territory";
    Answer::status(403).error("request_forbidden", code, "Country, region, or territory not supported")
}

#[tokio::test]
async fn hosts_that_all_refuse_our_address_are_asked_once_each() {
    let hosts = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let mut config = keys_toml(&hosts[0].url(), &[]);
    for (n, host) in hosts.iter().enumerate() {
        host.otherwise(country());
        config.push_str(&format!("[[keys.pool]]\nkey = \"sk-{n}\"\nurl = \"{}\"\n", host.url()));
    }
    let proxy = Proxy::start(&config).await;
    let got = patiently(proxy.chat("gpt-4o")).await;
    assert_eq!(got.said(), (403, "unsupported_country_region_territory".to_owned()));
    for host in &hosts {
        assert_eq!(host.total_calls(), 1);
    }
}

#[tokio::test]
async fn one_host_that_takes_our_address_is_found() {
    let hosts = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let mut config = keys_toml(&hosts[0].url(), &[]);
    for (n, host) in hosts.iter().enumerate() {
        if n < 2 {
            host.otherwise(country());
        }
        config.push_str(&format!("[[keys.pool]]\nkey = \"sk-{n}\"\nurl = \"{}\"\n", host.url()));
    }
    let proxy = Proxy::start(&config).await;
    assert_eq!(patiently(proxy.chat("gpt-4o")).await.status, 200);
}

#[tokio::test]
async fn a_key_that_the_upstream_repeats_in_a_header_stays_here() {
    for status in [200, 302, 400, 500] {
        let upstream = Upstream::start().await;
        upstream.otherwise(Answer::status(status).header("x-echo", "Bearer sk-canary-1234").json(&json!({})));
        let proxy = Proxy::with_keys(&upstream.url(), &["sk-canary-1234"]).await;
        let got = proxy.chat("gpt-4o").await;
        assert_eq!(got.status, status);
        assert_eq!(got.header("x-echo"), Some("Bearer [redacted]"), "{status}");
    }
}

#[tokio::test]
async fn a_model_longer_than_a_name_is_refused() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-a"]).await;
    let got = proxy.chat(&"m".repeat(257)).await;
    assert_eq!(got.said(), (400, "invalid_request".to_owned()));
    assert_eq!(upstream.total_calls(), 0);
    assert_eq!(proxy.chat(&"m".repeat(256)).await.status, 200);
}

#[tokio::test]
async fn a_refusal_whose_body_hangs_goes_on_to_the_next_key() {
    let upstream = Upstream::start().await;
    let never = Gate::new();
    upstream.key("sk-a").always(Answer::status(429).retry_after(30).body("{\"error\":").gated(&never));
    upstream.key("sk-b").always(Answer::api());
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-a", "sk-b"], "", "")).await;
    for _ in 0..2 {
        assert_eq!(patiently(proxy.chat("gpt-4o")).await.status, 200);
    }
}

#[tokio::test]
async fn bodies_that_are_only_announced_take_no_memory() {
    let upstream = Upstream::start().await;
    let settings = "[server]\nrequest_body_limit_bytes = 1048576\nreplay_memory_bytes = 1048576\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-a"], "", settings)).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut connection = Raw::connect(proxy.address()).await;
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n";
        connection.send(head).await;
        idle.push(connection);
    }
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_they_may() {
    let upstream = Upstream::start().await;
    let settings = "[server]\nrequest_body_limit_bytes = 1048576\nreplay_memory_bytes = 1048576\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-a"], "", settings)).await;
    let half = || async {
        let mut half = Raw::connect(proxy.address()).await;
        half.send("POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n").await;
        half.send(vec![b'x'; 900_000]).await;
        half
    };
    let mut held = half().await;
    let other = || proxy.post("/v1/chat/completions", format!("{{\"pad\":\"{}\"}}", "x".repeat(300_000)));
    // Once those bytes have come there is no room for as many again.
    let refused = async {
        loop {
            let got = other().await;
            if got.status == 429 {
                return got;
            }
            // If the other took the room while those bytes came, it is they that were refused.
            if !held.is_quiet() {
                held = half().await;
            }
        }
    };
    let got = patiently(refused).await;
    assert_eq!((got.code().as_str(), got.retry_after()), ("rate_limit_exceeded", Some(1)));
    // And when their client has left there is.
    drop(held);
    let served = async { while other().await.code() == "rate_limit_exceeded" {} };
    patiently(served).await;
}

#[tokio::test]
async fn a_key_not_configured_for_the_model_of_a_body_is_never_used() {
    let upstream = Upstream::start().await;
    let config = format!("{}\nmodels = [\"only-a\"]\n", keys_toml(&upstream.url(), &["sk-a"]));
    let proxy = Proxy::start(&config).await;
    let post = |media: &'static str, body: String| {
        client().post(proxy.url("/v1/audio/transcriptions")).header("content-type", media).body(body).send()
    };
    let field =
        |value: &str| format!("--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{value}\r\n");
    let form = "multipart/form-data; boundary=b";
    let long = "m".repeat(300);
    for (media, body, status) in [
        (form, format!("{}{}--b--\r\n", field("x1"), field("x2")), 400),
        (form, format!("{}--b--\r\n", field(&long)), 400),
        (form, format!("{}--b--\r\n", field("other")), 404),
        ("application/octet-stream", chat("other"), 404),
    ] {
        assert_eq!(post(media, body.clone()).await.unwrap().status(), status, "{body}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_coded_body_is_understood_and_travels_coded() {
    let upstream = Upstream::start().await;
    let config = format!("{}models = [\"only-a\"]\n", keys_toml(&upstream.url(), &["sk-a"]));
    let proxy = Proxy::start(&config).await;
    let gzip = |text: String| {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut coder, text.as_bytes()).unwrap();
        coder.finish().unwrap()
    };
    let post = |coding: &'static str, body: Vec<u8>| {
        let request = client().post(proxy.url("/v1/chat/completions")).header("content-encoding", coding);
        request.header("content-type", "application/json").body(body).send()
    };
    upstream.otherwise(Answer::ok());
    assert_eq!(post("gzip", gzip(chat("other"))).await.unwrap().status(), 404);
    assert_eq!(post("compress", gzip(chat("only-a"))).await.unwrap().status(), 400);
    assert_eq!(upstream.total_calls(), 0);
    let coded = gzip(chat("only-a"));
    assert_eq!(post("gzip", coded.clone()).await.unwrap().status(), 200);
    assert_eq!(upstream.last_request().body, coded);
}

#[tokio::test]
async fn a_preface_in_two_packets_is_still_http2() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-a"]).await;
    let mut connection = Raw::connect(proxy.address()).await;
    connection.send("PRI * HT").await;
    // Somebody else is served meanwhile.
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    connection.send(b"TP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // An empty SETTINGS frame of the client is acknowledged: type 4, flag 1.
    connection.until("\x04\x01\0\0\0\0").await;
}

#[tokio::test]
async fn every_answer_has_the_requests_id() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-a"]).await;
    let ask = |method: http::Method, path| {
        let request = client().request(method, proxy.url(path)).header("x-request-id", "mine");
        request.header("origin", "http://localhost").header("access-control-request-method", "POST").send()
    };
    for (method, path, status) in [
        (http::Method::GET, "/health", 200),
        (http::Method::POST, "/health", 404),
        (http::Method::OPTIONS, "/v1/models", 204),
        (http::Method::GET, "/nowhere", 404),
    ] {
        let answer = ask(method, path).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["x-request-id"], "mine", "{path}");
    }
}

#[tokio::test]
async fn a_request_that_the_end_of_the_drain_cuts_is_told_and_counted() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::status(200).hang());
    let settings = "[server]\ngraceful_shutdown_seconds = 0\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-a"], "", settings)).await;
    let request = client().post(proxy.url("/v1/chat/completions")).body(chat("gpt-4o")).send();
    let stop = async {
        upstream.wait_for(|upstream| upstream.open_requests() == 1).await;
        proxy.ask_to_stop();
    };
    let (answer, ()) = patiently(async { tokio::join!(request, stop) }).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("shutting_down"));
}
