//! Who may ask how we are, where, and what they are told.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use serde_json::Value;
use support::{
    ask::{in_turn, in_turn_with},
    frames::{Fate, Frames, request},
    pair::Pair,
    proxy::{Proxy, client},
    raw::{Heard, Raw},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

const SECOND: Duration = Duration::from_secs(1);
const PROBES: [&str; 4] = ["/health", "/livez", "/readyz", "/health/detailed"];

/// A request with these lines after the first, over a connection of its own.
async fn ask(address: SocketAddr, method: &str, path: &str, lines: &str) -> Heard {
    let mut raw = Raw::connect(address).await;
    raw.send(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n")).await;
    if method == "HEAD" { raw.bodiless_answer().await } else { raw.answer().await }
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let heard = ask(address, "GET", path, "host: localhost\r\n").await;
    (heard.status, String::from_utf8_lossy(&heard.body).into_owned())
}

/// What both listeners say about being ready.
async fn ready(proxy: &Proxy) -> (u16, String) {
    let told = get(proxy.address(), "/readyz").await;
    assert_eq!(get(proxy.metrics_address(), "/readyz").await, told);
    assert_eq!(proxy.metric("key_cycle_ready").await, if told.0 == 200 { 1.0 } else { 0.0 });
    told
}

fn is_ready() -> (u16, String) {
    (200, "ready".to_owned())
}

fn has_no_usable_key() -> (u16, String) {
    (503, "no usable key".to_owned())
}

#[tokio::test]
async fn probes_are_answered_on_both_listeners_without_an_upstream_call() {
    let pair = Pair::with("[clients]\nkeys = [\"client-one\"]\n").await;
    for address in [pair.proxy.address(), pair.proxy.metrics_address()] {
        for (path, text) in [("/health", "OK"), ("/livez", "OK"), ("/readyz", "ready")] {
            assert_eq!(get(address, path).await, (200, text.to_owned()), "{path}");
            let head = ask(address, "HEAD", path, "host: p\r\n").await;
            assert_eq!((head.status, head.header("content-length")), (200, Some(&*text.len().to_string())));
        }
        let (status, text) = get(address, "/health/detailed").await;
        let told: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((status, &told["status"]), (200, &"ok".into()));
        let head = ask(address, "HEAD", "/health/detailed", "host: localhost\r\n").await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
    }
    assert_eq!(pair.upstream.total_calls(), 0);
}

#[tokio::test]
async fn to_anything_but_get_and_head_a_probe_is_no_route() {
    let pair = Pair::start().await;
    for path in PROBES {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let heard = ask(pair.proxy.address(), method, path, "host: localhost\r\n").await;
            assert_eq!((heard.status, heard.code().as_str()), (404, "not_found"), "{method} {path}");
            assert!(heard.header("x-request-id").is_some());
            // Nobody's SDK reads what stands beside the metrics.
            let heard = ask(pair.proxy.metrics_address(), method, path, "host: localhost\r\n").await;
            assert_eq!(heard.status, 405, "{method} {path}");
        }
    }
    for path in ["/metrics", "/health/", "/healthz", "/readyz/x"] {
        let heard = ask(pair.proxy.address(), "GET", path, "host: localhost\r\n").await;
        assert_eq!((heard.status, heard.code().as_str()), (404, "not_found"), "{path}");
    }
    assert_eq!(pair.upstream.total_calls(), 0);
}

#[tokio::test]
async fn details_are_for_somebody_on_this_machine_who_asks_for_himself() {
    let pair = Pair::with("[clients]\nkeys = [\"client-one\"]\n").await;
    let status = async |lines: &str| {
        let heard = ask(pair.proxy.address(), "GET", "/health/detailed", lines).await;
        assert!(heard.status == 200 || heard.code() == "not_found", "{heard:?}");
        heard.status
    };
    for lines in [
        "host: localhost\r\n",
        "host: localhost:8080\r\n",
        "host: 127.0.0.1\r\n",
        "host: [::1]:8080\r\n",
        "host: localhost\r\norigin: http://localhost:5173\r\n",
        "host: localhost\r\nauthorization: Bearer wrong\r\n",
    ] {
        assert_eq!(status(lines).await, 200, "{lines}");
    }
    for lines in [
        "host: rebound.example\r\n",
        "host: localhost.example\r\n",
        "host: 192.0.2.1\r\n",
        "host:\r\n",
        "host: localhost\r\nx-forwarded-for: 127.0.0.1\r\n",
        "host: localhost\r\nx-forwarded-for:\r\n",
        "host: localhost\r\nforwarded: for=127.0.0.1\r\n",
        "host: localhost\r\nvia: 1.1 somebody\r\n",
        "host: localhost\r\nx-real-ip: 127.0.0.1\r\n",
        // Where client keys are asked for, any page may read our answers.
        "host: localhost\r\norigin: https://elsewhere.example\r\n",
        "host: localhost\r\norigin: null\r\n",
        "host: localhost\r\norigin: http://localhost\r\nx-forwarded-for: 127.0.0.1\r\n",
    ] {
        assert_eq!(status(lines).await, 404, "{lines}");
        // What is no secret is for them too, and on the other listener everything is.
        assert_eq!(ask(pair.proxy.address(), "GET", "/readyz", lines).await.status, 200, "{lines}");
        if lines != "host:\r\n" {
            let heard = ask(pair.proxy.metrics_address(), "GET", "/health/detailed", lines).await;
            assert_eq!(heard.status, 200, "{lines}");
        }
    }
    // The host that counts is the target's.
    let absolute = "http://elsewhere.example/health/detailed";
    let heard = ask(pair.proxy.address(), "GET", absolute, "host: localhost\r\n").await;
    assert_eq!(heard.status, 404);
}

#[tokio::test]
async fn over_http2_the_host_is_part_of_the_target() {
    let pair = Pair::start().await;
    for (authority, status) in [("localhost:1", 200), ("127.0.0.1", 200), ("rebound.example", 404)] {
        let mut frames = Frames::connect(pair.proxy.address()).await;
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/health/detailed"),
            (":authority", authority),
        ];
        frames.send(request(1, &fields)).await;
        assert_eq!(frames.fate(1).await, Fate::Answered(status), "{authority}");
    }
}

#[tokio::test]
async fn without_a_usable_key_we_are_not_ready() {
    for refusal in [Answer::revoked(), Answer::out_of_quota(), Answer::status(402)] {
        let upstream = Upstream::start().await;
        let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "max_wait_ms = 0")).await;
        assert_eq!(ready(&proxy).await, is_ready());
        upstream.key("sk-a").always(refusal.clone());
        proxy.chats(2).await;
        assert_eq!(ready(&proxy).await, is_ready(), "one is left");
        upstream.key("sk-b").always(refusal);
        proxy.chats(1).await;
        assert_eq!(ready(&proxy).await, has_no_usable_key());
        assert_eq!(get(proxy.address(), "/health").await.0, 200, "the process lives all the same");
        assert_eq!(ask(proxy.address(), "HEAD", "/readyz", "host: p\r\n").await.status, 503);
    }
}

#[tokio::test]
async fn keys_that_only_have_to_wait_are_usable() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::rate_limited(SECOND * 3600));
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "max_wait_ms = 0")).await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!(got.said(), (429, "all_keys_cooling".to_owned()));
    assert_eq!(ready(&proxy).await, is_ready());
    // One of them is rejected; the other still only has to wait.
    upstream.key("sk-a").always(Answer::revoked());
    proxy.chat("another-model").await;
    assert_eq!((proxy.keys_in("rejected").await, ready(&proxy).await), (1, is_ready()));
}

#[tokio::test]
async fn an_upstream_that_fails_does_not_make_us_unready() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::status(500));
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "max_wait_ms = 0")).await;
    proxy.chats(4).await;
    assert_eq!(proxy.open_hosts().await, [false]);
    assert_eq!(ready(&proxy).await, is_ready());
}

/// Whoever is not ready gets no requests, and nothing but a request tries a key again.
#[tokio::test]
async fn keys_that_are_due_for_another_try_make_us_ready_for_it() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").answers([Answer::revoked(), Answer::revoked(), Answer::api()]);
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "max_wait_ms = 0")).await;
    for rest in [60, 120] {
        assert_eq!(proxy.chat("gpt-4o").await.said(), (503, "no_usable_key".to_owned()));
        assert_eq!(ready(&proxy).await, has_no_usable_key());
        clock.pass(SECOND * (rest - 1)).await;
        assert_eq!(ready(&proxy).await, has_no_usable_key());
        clock.pass(SECOND).await;
        assert_eq!(ready(&proxy).await, is_ready());
    }
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    assert_eq!(ready(&proxy).await, is_ready());
}

#[tokio::test]
async fn whoever_is_asked_to_stop_is_not_ready_and_serves_until_the_delay_is_over() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.otherwise(Answer::api().after(&gate));
    let file = in_turn_with(&upstream, &["key = \"sk-a\""], "")
        + "[server]\nshutdown_delay_seconds = 30\ngraceful_shutdown_seconds = 60\n";
    let proxy = Proxy::start(&file).await;
    let under_way = client().get(proxy.url("/v1/models")).send();
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let under_way = tokio::spawn(under_way);
    upstream.wait_for(|up| up.open_requests() == 1).await;
    proxy.ask_to_stop();
    let draining = (503, "draining".to_owned());
    while ready(&proxy).await != draining {}
    clock.pass(SECOND * 29).await;
    gate.release(1);
    assert_eq!(under_way.await.unwrap().unwrap().status(), 200);
    for path in ["/health", "/livez"] {
        assert_eq!(get(proxy.address(), path).await, (200, "OK".to_owned()));
    }
    let (_, text) = get(proxy.address(), "/health/detailed").await;
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&told["draining"], &told["status"]), (&true.into(), &"ok".into()));
    gate.release(1);
    assert_eq!(proxy.request(Method::GET, "/v1/models").await.status, 200, "it is accepted and served");
    // One more, which lasts into the drain.
    let mut last = Raw::connect(proxy.address()).await;
    last.send("GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
    upstream.wait_for(|up| up.total_calls() == 3).await;
    clock.pass(SECOND).await;
    while tokio::net::TcpStream::connect(proxy.address()).await.is_ok() {}
    assert_eq!(get(proxy.metrics_address(), "/readyz").await, draining, "and is told to the end");
    gate.open();
    assert_eq!(last.answer().await.status, 200);
    clock.trickle(proxy.stop()).await;
}
