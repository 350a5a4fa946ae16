//! What is the host's, or our address's, and no key's; and keys that let requests wait.

use std::time::Duration;

use serde_json::Value;
use support::{
    ask::in_turn,
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Upstream},
};

mod support;

const SECOND: Duration = Duration::from_secs(1);

async fn many(count: usize, lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..count).map(|n| format!("sk-{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&in_turn(&upstream, &keys, lines)).await;
    (upstream, proxy)
}

async fn told(proxy: &Proxy) -> Value {
    proxy.request(http::Method::GET, "/health/detailed").await.json()["pools"][0].clone()
}

/// Every key is ready and none has a failure to its name.
async fn no_key_has_paid(proxy: &Proxy, keys: usize) {
    assert_eq!(proxy.keys_in("ready").await, keys);
    assert_eq!(proxy.healths().await, vec![1.0; keys]);
}

#[tokio::test]
async fn an_address_that_is_refused_is_found_out_with_three_keys_of_fifty() {
    let clock = StillClock::stop();
    let (upstream, proxy) = many(50, "max_wait_ms = 0").await;
    let code = "unsupported_country_region_territory";
    upstream.otherwise(Answer::status(403).error("request_forbidden", code, "Country not supported"));
    for calls in 1..=3 {
        assert_eq!(proxy.chat("gpt-4o").await.said(), (403, code.to_owned()));
        assert_eq!(upstream.total_calls(), calls);
    }
    for _ in 0..20 {
        let got = proxy.chat("gpt-4o").await;
        assert_eq!((got.said(), got.attempts()), ((502, "upstream_unreachable".to_owned()), 0));
    }
    let host = told(&proxy).await["hosts"][0].clone();
    assert_eq!((&host["available"], &host["trouble"]), (&Value::Bool(false), &"egress".into()));
    let openings = format!(
        r#"key_cycle_breaker_openings_total{{pool="default",host="{}",trouble="egress"}}"#,
        upstream.url()
    );
    assert_eq!(proxy.metric(&openings).await, 1.0);

    upstream.otherwise(Answer::api());
    clock.pass(SECOND).await;
    proxy.chats(60).await;
    no_key_has_paid(&proxy, 50).await;
    assert_eq!(told(&proxy).await["hosts"][0]["trouble"], Value::Null);
}

#[tokio::test]
async fn an_outage_of_every_kind_costs_no_key_anything() {
    let faults = [
        ("server_error", Answer::status(500).error("server_error", "", "The server had an error.")),
        ("overload", Answer::overloaded()),
        ("transport", Answer::ok().reset_before_head()),
    ];
    let clock = StillClock::stop();
    for (trouble, fault) in faults {
        let (upstream, proxy) = many(10, "max_retries = 0\nmax_wait_ms = 0").await;
        proxy.chats(20).await;
        clock.pass(SECOND * 2).await;
        upstream.otherwise(fault);
        for _ in 0..3 {
            assert_ne!(proxy.chat("gpt-4o").await.status, 200);
        }
        assert_eq!(upstream.total_calls(), 23, "{trouble}");
        assert_eq!(told(&proxy).await["hosts"][0]["trouble"], trouble);
        assert_eq!(proxy.chat("gpt-4o").await.attempts(), 0);
        upstream.otherwise(Answer::api());
        clock.pass(SECOND).await;
        proxy.chats(20).await;
        no_key_has_paid(&proxy, 10).await;
    }
}

#[tokio::test]
async fn one_living_key_among_dead_ones_keeps_serving() {
    let (upstream, proxy) = many(30, "").await;
    for n in 0..29 {
        let dead = [Answer::revoked(), Answer::out_of_quota(), Answer::rate_limited(SECOND * 60)];
        upstream.key(&format!("sk-{n}")).always(dead[n % 3].clone());
    }
    for _ in 0..50 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        assert_eq!(proxy.open_hosts().await, [true]);
    }
}

#[tokio::test]
async fn a_key_that_hangs_is_left_alone_long_before_its_requests_time_out() {
    let clock = StillClock::stop();
    let (upstream, proxy) = many(3, "").await;
    proxy.chats(30).await;
    upstream.key("sk-1").always(Answer::ok().hang());
    let chats = futures_util::future::join_all((0..60).map(|_| proxy.chat("gpt-4o")));
    let looked = async {
        upstream.wait_for(|up| up.total_calls() == 90).await;
        while proxy.judged("success").await < 70 {}
        clock.pass(Duration::from_millis(200)).await;
        let before = upstream.calls("sk-1");
        // It has been silent for 200 ms, twenty times over; the others answer at once.
        proxy.chats(40).await;
        assert_eq!(upstream.calls("sk-1"), before);
        let keys = told(&proxy).await["keys"].clone();
        assert_eq!([0, 1, 2].map(|at| keys[at]["late"].as_bool().unwrap()), [false, true, false]);
        assert_eq!(proxy.metric(&late(keys[1]["id"].as_str().unwrap())).await, 1.0);
    };
    tokio::select! {
        _ = chats => panic!("a third of them hangs"),
        () = looked => {}
    }
}

fn late(key: &str) -> String {
    format!(r#"key_cycle_key_late{{pool="default",key="{key}"}}"#)
}
