//! How often clients may ask, and how many may be connected.

use std::net::IpAddr;

use support::{
    proxy::{Proxy, toml},
    raw::{Heard, Raw, patiently},
    upstream::{Answer, Gate, Upstream},
};

mod support;

/// A rate at which nothing comes back while a test runs.
const SLOW: &str = "0.001";

async fn with(sections: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", sections)).await;
    (upstream, proxy)
}

async fn ask_from(proxy: &Proxy, last: u8, forwarded_for: Option<&str>) -> Heard {
    let mut raw = Raw::connect_from(IpAddr::from([127, 0, 0, last]), proxy.address()).await;
    let forwarded: String =
        forwarded_for.into_iter().map(|value| format!("x-forwarded-for: {value}\r\n")).collect();
    raw.send(format!("GET /v1/models HTTP/1.1\r\nhost: p\r\n{forwarded}\r\n")).await;
    raw.answer().await
}

fn assert_limited(answer: &Heard, setting: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limit_exceeded"), "{answer:?}");
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    assert!(
        answer.json()["error"]["message"].as_str().expect("as errors are").contains(setting),
        "{answer:?}"
    );
    let number = |name| answer.header(name).expect("the header").parse::<u64>().expect("a number");
    assert!(number("retry-after-ms") > 0);
    assert_eq!(number("retry-after"), number("retry-after-ms").div_ceil(1000));
    let expected = if number("retry-after-ms") <= 60_000 { "true" } else { "false" };
    assert_eq!(answer.header("x-should-retry"), Some(expected));
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn the_global_rate_holds_for_all_clients_together() {
    let (upstream, proxy) = with(&format!("[rate_limit]\nglobal_rps = {SLOW}\nburst = 3\n")).await;
    for last in 1..=3 {
        assert_eq!(ask_from(&proxy, last, None).await.status, 200);
    }
    for last in 1..=4 {
        assert_limited(&ask_from(&proxy, last, None).await, "rate_limit.global_rps");
    }
    assert_eq!(upstream.total_calls(), 3);
}

#[tokio::test]
async fn a_clients_rate_is_its_own() {
    let (upstream, proxy) = with(&format!("[rate_limit]\nper_client_rps = {SLOW}\nburst = 2\n")).await;
    for last in [1, 2] {
        assert_eq!(ask_from(&proxy, last, None).await.status, 200);
        assert_eq!(ask_from(&proxy, last, None).await.status, 200);
        assert_limited(&ask_from(&proxy, last, None).await, "rate_limit.per_client_rps");
    }
    // Whom nobody trusts is believed nothing.
    assert_limited(&ask_from(&proxy, 1, Some("192.0.2.1")).await, "per_client_rps");
    assert_eq!(upstream.total_calls(), 4);
}

#[tokio::test]
async fn without_a_burst_a_second_may_come_at_once() {
    let (_upstream, proxy) = with("[rate_limit]\nper_client_rps = 2\n").await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = ask_from(&proxy, 1, None).await;
        if answer.status == 429 {
            assert_limited(&answer, "per_client_rps");
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..2], [200, 200]);
}

#[tokio::test]
async fn the_wait_that_is_named_is_long_enough() {
    let (_upstream, proxy) = with("[rate_limit]\nglobal_rps = 5\nburst = 1\n").await;
    assert_eq!(ask_from(&proxy, 1, None).await.status, 200);
    loop {
        let answer = ask_from(&proxy, 1, None).await;
        if answer.status == 200 {
            // The machine was slower than the limit: again.
            continue;
        }
        let wait = answer.header("retry-after-ms").unwrap().parse().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        assert_eq!(ask_from(&proxy, 1, None).await.status, 200);
        return;
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_a_client_is_who_that_says() {
    let server = "[server]\ntrusted_proxies = [\"127.0.0.9\", \"10.0.0.0/8\"]\n";
    let (_upstream, proxy) =
        with(&format!("{server}[rate_limit]\nper_client_rps = {SLOW}\nburst = 1\n")).await;
    for client in
        ["192.0.2.1", "192.0.2.2", "203.0.113.9, 192.0.2.3, 10.1.2.3", "2001:db8:1::1", "[2001:db8:2::1]:443"]
    {
        assert_eq!(ask_from(&proxy, 9, Some(client)).await.status, 200, "{client}");
        assert_limited(&ask_from(&proxy, 9, Some(client)).await, "per_client_rps");
    }
    // What stands before the last address that is not trusted, anybody may have written.
    assert_limited(&ask_from(&proxy, 9, Some("198.51.100.7, 192.0.2.3")).await, "per_client_rps");
    // One household has one /64.
    assert_limited(&ask_from(&proxy, 9, Some("2001:db8:1::2")).await, "per_client_rps");
    // Another peer's word counts for nothing.
    assert_eq!(ask_from(&proxy, 8, Some("192.0.2.200")).await.status, 200);
    assert_limited(&ask_from(&proxy, 8, Some("192.0.2.201")).await, "per_client_rps");
}

#[tokio::test]
async fn who_is_refused_uses_up_nothing() {
    let sections = format!("[rate_limit]\nglobal_rps = {SLOW}\nburst = 1\n[clients]\nkeys = [\"ck-one\"]\n");
    let (_upstream, proxy) = with(&sections).await;
    for _ in 0..3 {
        assert_eq!(ask_from(&proxy, 1, None).await.status, 401);
    }
    let ask = |path: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nhost: p\r\nx-api-key: ck-one\r\n\r\n");
        let address = proxy.address();
        async move { Raw::ask(address, text).await }
    };
    assert_eq!(ask("/nowhere").await.status, 404);
    assert_eq!(ask("/health").await.status, 200);
    assert_eq!(ask("/v1/models").await.status, 200);
    assert_limited(&ask("/v1/models").await, "global_rps");
    assert_eq!(ask("/health").await.status, 200);
}

#[tokio::test]
async fn a_limited_connection_can_be_used_again() {
    let (_upstream, proxy) = with(&format!("[rate_limit]\nglobal_rps = {SLOW}\nburst = 1\n")).await;
    let mut raw = Raw::connect(proxy.address()).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let body = support::proxy::chat("m");
        raw.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        statuses.push(raw.answer().await.status);
    }
    assert_eq!(statuses, [200, 429, 429]);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_one_to_end() {
    let (upstream, proxy) = with("[server]\nmax_connections = 2\n").await;
    let gate = Gate::new();
    upstream.otherwise(Answer::ok().after(&gate));
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.send("GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
        connections.push(raw);
    }
    upstream.wait_for(|up| up.open_requests() == 2).await;
    gate.release(2);
    let mut third = connections.pop().unwrap();
    for raw in &mut connections {
        assert_eq!(raw.answer().await.status, 200);
    }
    // Both stay connected, so the third is still waiting.
    assert_eq!(upstream.total_calls(), 2);
    drop(connections);
    gate.release(1);
    assert_eq!(patiently(third.answer()).await.status, 200);
}
