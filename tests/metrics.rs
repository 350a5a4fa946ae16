//! What is counted moves when it should, and only then.

use std::time::Duration;

use support::{
    ask::in_turn,
    proxy::{Proxy, chat},
    raw::Raw,
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

const SECOND: Duration = Duration::from_secs(1);
const RETRIES: [&str; 2] =
    [r#"key_cycle_retries_total{kind="rotation"}"#, r#"key_cycle_retries_total{kind="retry"}"#];
const BYTES: &str = "key_cycle_request_bytes_total";
const OPENINGS: &str = "key_cycle_breaker_openings_total";
const CONNECTIONS: &str = "key_cycle_connections";
const REASONS: [&str; 6] =
    ["rate_limited", "quota_exhausted", "rejected", "refused", "failing", "model_unavailable"];

async fn two_keys(lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], lines)).await;
    (upstream, proxy)
}

async fn values<const N: usize>(proxy: &Proxy, names: [&str; N]) -> [f64; N] {
    let mut values = [0.0; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = proxy.metric(name).await;
    }
    values
}

/// How many rests have begun, for each reason.
async fn rests(proxy: &Proxy) -> [f64; 6] {
    let names =
        REASONS.map(|reason| format!(r#"key_cycle_cooldowns_total{{pool="default",reason="{reason}"}}"#));
    values(proxy, names.each_ref().map(String::as_str)).await
}

#[tokio::test]
async fn every_new_family_is_there_from_the_start() {
    let (upstream, proxy) = two_keys("").await;
    let text = proxy.metrics().await;
    let mut lines: Vec<String> = RETRIES.map(|line| format!("{line} 0")).into();
    lines.extend(REASONS.map(|r| format!(r#"key_cycle_cooldowns_total{{pool="default",reason="{r}"}} 0"#)));
    let host = upstream.url();
    lines.extend(
        ["server_error", "overload", "transport", "egress"]
            .map(|trouble| format!(r#"{OPENINGS}{{pool="default",host="{host}",trouble="{trouble}"}} 0"#)),
    );
    lines.push(format!("{BYTES} 0"));
    lines.push("key_cycle_ready 1".to_owned());
    lines.push(format!(r#"key_cycle_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION")));
    lines.push("key_cycle_wait_seconds_count 0".to_owned());
    for line in lines {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for family in ["key_cycle_connections", "key_cycle_tasks", "key_cycle_cooldowns_total"] {
        assert!(
            text.contains(&format!("# TYPE {family} ")) && text.contains(&format!("# HELP {family} ")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_move_to_another_key_is_a_rotation_and_a_pause_makes_a_retry() {
    let (upstream, proxy) = two_keys("").await;
    proxy.chats(4).await;
    assert_eq!(values(&proxy, RETRIES).await, [0.0, 0.0]);
    upstream.key("sk-a").answers([Answer::rate_limited(SECOND * 60), Answer::api()]);
    assert_eq!(proxy.chat("gpt-4o").await.attempts(), 2);
    assert_eq!(values(&proxy, RETRIES).await, [1.0, 0.0]);
    // The upstream fails for both, and then works.
    let (upstream, proxy) = two_keys("").await;
    for key in ["sk-a", "sk-b"] {
        upstream.key(key).answers([Answer::status(500), Answer::api()]);
    }
    assert_eq!(proxy.chat("gpt-4o").await.attempts(), 3);
    assert_eq!(values(&proxy, RETRIES).await, [0.0, 2.0]);
    // What is not tried again is neither.
    for key in ["sk-a", "sk-b"] {
        upstream.key(key).always(Answer::status(500));
    }
    assert_eq!(proxy.post("/v1/batches", "{}").await.status, 500);
    assert_eq!(values(&proxy, RETRIES).await, [0.0, 2.0]);
}

#[tokio::test]
async fn each_rest_that_begins_is_counted_once_by_its_reason() {
    let model = Answer::status(404).error("invalid_request_error", "model_not_found", "No such model.");
    for (refusal, reason) in [
        (Answer::rate_limited(SECOND * 60), 0),
        (Answer::out_of_quota(), 1),
        (Answer::revoked(), 2),
        (Answer::status(403), 3),
        (model, 5),
    ] {
        let (upstream, proxy) = two_keys("max_wait_ms = 0").await;
        upstream.key("sk-a").always(refusal);
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        let mut expected = [0.0; 6];
        expected[reason] = 1.0;
        assert_eq!(rests(&proxy).await, expected);
        proxy.chats(3).await;
        assert_eq!(rests(&proxy).await, expected, "it rests already");
    }
}

#[tokio::test]
async fn a_key_that_fails_alone_rests_and_a_host_that_fails_opens_its_breaker() {
    let (upstream, proxy) = two_keys("").await;
    let opened = format!(r#"{OPENINGS}{{pool="default",host="{}",trouble="server_error"}}"#, upstream.url());
    upstream.key("sk-a").always(Answer::status(500));
    proxy.chats(8).await;
    assert_eq!((rests(&proxy).await, proxy.metric(&opened).await), ([0.0, 0.0, 0.0, 0.0, 1.0, 0.0], 0.0));

    let clock = StillClock::stop();
    let (upstream, proxy) = two_keys("max_retries = 0\nmax_wait_ms = 0").await;
    let opened = format!(r#"{OPENINGS}{{pool="default",host="{}",trouble="server_error"}}"#, upstream.url());
    upstream.otherwise(Answer::status(500));
    proxy.chats(4).await;
    assert_eq!(proxy.metric(&opened).await, 0.0);
    proxy.chats(3).await;
    assert_eq!(proxy.metric(&opened).await, 1.0);
    clock.pass(SECOND).await;
    proxy.chats(3).await;
    assert_eq!(proxy.metric(&opened).await, 2.0, "the probe failed");
}

#[tokio::test]
async fn bytes_of_requests_are_counted_as_they_came_however_often_they_are_sent() {
    let (upstream, proxy) = two_keys("").await;
    let body = chat("gpt-4o");
    upstream.key("sk-a").answers([Answer::rate_limited(SECOND * 60), Answer::api()]);
    assert_eq!(proxy.post("/v1/chat/completions", body.clone()).await.attempts(), 2);
    proxy.until_at_rest().await;
    assert_eq!(proxy.metric(BYTES).await, body.len() as f64);
    // Without a body there are none.
    assert_eq!(proxy.request(http::Method::GET, "/v1/models").await.status, 200);
    proxy.until_at_rest().await;
    assert_eq!(proxy.metric(BYTES).await, body.len() as f64);
}

#[tokio::test]
async fn connections_and_tasks_are_those_there_are() {
    let (_upstream, proxy) = two_keys("").await;
    let until = async |count: f64| while proxy.metric(CONNECTIONS).await != count {};
    until(0.0).await;
    let tasks = proxy.metric("key_cycle_tasks").await;
    assert!(tasks > 0.0);
    let mut connections = Vec::new();
    for n in 1..=8 {
        connections.push(Raw::connect(proxy.address()).await);
        until(f64::from(n)).await;
    }
    assert!(proxy.metric("key_cycle_tasks").await >= tasks + 8.0, "each has a task");
    // Served or not.
    connections[0].send("GET /livez HTTP/1.1\r\nhost: p\r\n\r\n").await;
    assert_eq!(connections[0].answer().await.status, 200);
    assert_eq!(proxy.metric(CONNECTIONS).await, 8.0);
    drop(connections);
    until(0.0).await;
}

#[tokio::test]
async fn a_wait_for_a_key_is_measured_and_a_request_that_has_none_is_not() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").answers([Answer::rate_limited(SECOND * 5), Answer::api()]);
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], "max_wait_ms = 6000")).await;
    let waited = ["key_cycle_wait_seconds_count", "key_cycle_wait_seconds_sum"];
    let asked = async { proxy.chat("gpt-4o").await };
    let time = async {
        proxy.until_waiting(1).await;
        clock.pass(SECOND * 5).await;
    };
    assert_eq!(tokio::join!(asked, time).0.status, 200);
    let [count, sum] = values(&proxy, waited).await;
    assert_eq!((count, sum.round()), (1.0, 5.0));
    let in_bucket = |seconds| format!(r#"key_cycle_wait_seconds_bucket{{le="{seconds}"}}"#);
    assert_eq!(values(&proxy, [&*in_bucket(2.5), &in_bucket(10.0)]).await, [0.0, 1.0]);
    // Whoever has a key at once has not waited.
    proxy.chats(1).await;
    assert_eq!(values(&proxy, waited).await[0], 1.0);
}

#[tokio::test]
async fn what_is_under_way_is_neither_lost_nor_counted_twice() {
    let (upstream, proxy) = two_keys("").await;
    let gate = Gate::new();
    upstream.otherwise(Answer::api().after(&gate));
    let asked = futures_util::future::join_all((0..4).map(|_| proxy.chat("gpt-4o")));
    let looked = async {
        upstream.wait_for(|up| up.open_requests() == 4).await;
        let in_flight = proxy.metric("key_cycle_requests_in_flight").await;
        gate.open();
        in_flight
    };
    assert_eq!(tokio::join!(asked, looked).1, 4.0);
    proxy.until_at_rest().await;
    let ended = proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="complete"}"#).await;
    assert_eq!(ended, 4.0);
}
