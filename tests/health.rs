//! What `/health/detailed` says, on a clock that stands still.

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    ask::in_turn_with,
    proxy::{Proxy, client},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

const SECOND: Duration = Duration::from_secs(1);

/// Everything, as it is now.
async fn health(proxy: &Proxy) -> Value {
    let answer = client().get(proxy.url("/health/detailed")).send().await.expect("an answer");
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

/// The key at this place in the file.
fn key(health: &Value, at: usize) -> &Value {
    &health["pools"][0]["keys"][at]
}

/// A number of seconds, without the milliseconds that a test lets pass beside what it means.
fn seconds(value: &Value) -> i64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number")).round() as i64
}

/// Two keys at one upstream, in turn, and a third at another for `spare` alone.
async fn start(lines: &str) -> (Upstream, Upstream, Proxy) {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let entries = [
        "key = \"sk-a\"\nlabel = \"mine\"".to_owned(),
        "key = \"sk-b\"".to_owned(),
        format!("key = \"sk-c\"\nurl = \"{}\"\nmodels = [\"spare\"]", other.url()),
    ];
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, lines)).await;
    (upstream, other, proxy)
}

#[tokio::test]
async fn at_the_start_everything_is_well_and_has_its_name() {
    let clock = StillClock::stop();
    let (upstream, other, proxy) = start("").await;
    clock.pass(SECOND * 5).await;
    let told = health(&proxy).await;
    assert_eq!(seconds(&told["uptime_seconds"]), 5);
    let host = |url: String, openings: u64| json!({"host": url, "available": true, "trouble": null, "breaker_openings": openings});
    let expected = |at: usize, label: Value, url: String| {
        json!({
            "id": key(&told, at)["id"], "label": label, "account": null, "host": url, "state": "ready", "cooldown_seconds": null,
            "health": 1.0, "in_flight": 0, "attempts": 0, "models": [], "headroom": [], "last_error": null,
            "late": false, "last_recheck_age_seconds": null,
        })
    };
    let whole = json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": told["uptime_seconds"],
        "draining": false,
        "requests_waiting": 0,
        "pools": [{
            "name": "default",
            "hosts": [host(upstream.url(), 0), host(other.url(), 0)],
            "keys": [
                expected(0, "mine".into(), upstream.url()),
                expected(1, Value::Null, upstream.url()),
                expected(2, Value::Null, other.url()),
            ],
        }],
    });
    assert_eq!(told, whole);
    let ids: Vec<_> = (0..3).map(|at| key(&told, at)["id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.iter().all(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
    // The id that answers and metrics give the key.
    let got = proxy.chat("gpt-4o").await;
    assert_eq!(got.header("x-key-cycle-key"), Some(ids[0].as_str()));
    assert!(proxy.metrics().await.contains(&format!("key=\"{}\",label=\"mine\"", ids[0])));
    assert_eq!(key(&health(&proxy).await, 0)["attempts"], 1);
}

#[tokio::test]
async fn a_rest_for_one_model_is_the_models_and_runs_out() {
    let clock = StillClock::stop();
    let (upstream, _other, proxy) = start("").await;
    upstream.key("sk-a").answers([Answer::rate_limited(SECOND * 20), Answer::api()]);
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    clock.pass(SECOND * 8).await;
    let told = health(&proxy).await;
    assert_eq!((&told["status"], &key(&told, 0)["state"]), (&"degraded".into(), &"ready".into()));
    let models = &key(&told, 0)["models"];
    assert_eq!((&models[0]["model"], &models[0]["state"]), (&"gpt-4o".into(), &"rate_limited".into()));
    assert_eq!((seconds(&models[0]["cooldown_seconds"]), models.as_array().unwrap().len()), (12, 1));
    assert_eq!(key(&told, 0)["cooldown_seconds"], Value::Null);
    let error = &key(&told, 0)["last_error"];
    assert_eq!((&error["class"], seconds(&error["age_seconds"])), (&"rate_limited".into(), 8));
    assert_eq!((&key(&told, 1)["models"], &key(&told, 1)["last_error"]), (&json!([]), &Value::Null));
    clock.pass(SECOND * 12).await;
    let told = health(&proxy).await;
    assert_eq!((&told["status"], &key(&told, 0)["models"]), (&"ok".into(), &json!([])));
    // What was is remembered.
    assert_eq!(seconds(&key(&told, 0)["last_error"]["age_seconds"]), 20);
}

#[tokio::test]
async fn a_rest_of_a_key_has_its_reason_its_end_and_its_rechecks() {
    let clock = StillClock::stop();
    let (upstream, _other, proxy) = start("").await;
    upstream.key("sk-a").answers([Answer::revoked(), Answer::revoked(), Answer::api()]);
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    clock.pass(SECOND * 10).await;
    let told = health(&proxy).await;
    assert_eq!((&told["status"], &key(&told, 0)["state"]), (&"degraded".into(), &"rejected".into()));
    assert_eq!(seconds(&key(&told, 0)["cooldown_seconds"]), 50);
    assert_eq!(key(&told, 0)["last_error"]["class"], "key_rejected");
    assert_eq!(key(&told, 0)["last_recheck_age_seconds"], Value::Null);
    // The recheck is a request's, and finds it rejected still; it rests for twice as long.
    clock.pass(SECOND * 50).await;
    let told = health(&proxy).await;
    assert_eq!(
        (&key(&told, 0)["state"], seconds(&key(&told, 0)["cooldown_seconds"])),
        (&"rejected".into(), 0)
    );
    let until_tried = async |count: usize| {
        while upstream.calls("sk-a") < count {
            assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        }
    };
    until_tried(2).await;
    clock.pass(SECOND * 3).await;
    let told = health(&proxy).await;
    assert_eq!(seconds(&key(&told, 0)["last_recheck_age_seconds"]), 3);
    assert_eq!(seconds(&key(&told, 0)["last_error"]["age_seconds"]), 3);
    assert_eq!(seconds(&key(&told, 0)["cooldown_seconds"]), 117);
    // The next finds it well.
    clock.pass(SECOND * 120).await;
    until_tried(3).await;
    let told = health(&proxy).await;
    assert_eq!(
        (&key(&told, 0)["state"], &key(&told, 0)["cooldown_seconds"]),
        (&"ready".into(), &Value::Null)
    );
    assert_eq!(seconds(&key(&told, 0)["last_recheck_age_seconds"]), 0);
    assert_eq!(key(&told, 0)["last_error"]["class"], "key_rejected");
}

#[tokio::test]
async fn a_clients_fault_is_no_error_of_the_key() {
    let (upstream, _other, proxy) = start("").await;
    upstream.otherwise(Answer::status(400).error("invalid_request_error", "bad_value", "No."));
    assert_eq!(proxy.chat("gpt-4o").await.status, 400);
    let told = health(&proxy).await;
    assert_eq!((&told["status"], &key(&told, 0)["attempts"]), (&"ok".into(), &1.into()));
    assert_eq!(key(&told, 0)["last_error"], Value::Null);
}

#[tokio::test]
async fn a_host_that_fails_is_not_available_until_it_works_again() {
    let clock = StillClock::stop();
    let (upstream, _other, proxy) = start("max_retries = 0\nmax_wait_ms = 0").await;
    upstream.otherwise(Answer::status(500));
    proxy.chats(5).await;
    let host = |told: &Value, at: usize| {
        let host = &told["pools"][0]["hosts"][at];
        (host["available"].as_bool().unwrap(), host["breaker_openings"].as_u64().unwrap())
    };
    let told = health(&proxy).await;
    assert_eq!((host(&told, 0), host(&told, 1)), ((false, 1), (true, 0)));
    let trouble = |told: &Value| told["pools"][0]["hosts"][0]["trouble"].clone();
    assert_eq!(trouble(&told), "server_error");
    assert_eq!(told["status"], "degraded", "the other host serves");
    assert_eq!(key(&told, 0)["last_error"]["class"], "server_error");
    // Its probe fails, and it is shut for longer.
    clock.pass(SECOND).await;
    proxy.chats(1).await;
    assert_eq!(host(&health(&proxy).await, 0), (false, 2));
    clock.pass(SECOND * 2).await;
    upstream.otherwise(Answer::api());
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    let told = health(&proxy).await;
    assert_eq!((host(&told, 0), trouble(&told)), ((true, 2), Value::Null));
}

#[tokio::test]
async fn without_a_key_that_serves_we_are_down() {
    let (upstream, other, proxy) = start("max_wait_ms = 0").await;
    upstream.otherwise(Answer::revoked());
    proxy.chats(1).await;
    assert_eq!(health(&proxy).await["status"], "degraded", "the spare one is well");
    other.otherwise(Answer::out_of_quota());
    proxy.chat("spare").await;
    let told = health(&proxy).await;
    assert_eq!(told["status"], "down");
    let states: Vec<_> = (0..3).map(|at| key(&told, at)["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["rejected", "rejected", "quota_exhausted"]);
}

#[tokio::test]
async fn what_is_under_way_is_counted() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.otherwise(Answer::api().after(&gate));
    let entries = ["key = \"sk-a\"\nmax_in_flight = 2"];
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "")).await;
    let asked = futures_util::future::join_all((0..3).map(|_| proxy.chat("gpt-4o")));
    let looked = async {
        upstream.wait_for(|up| up.open_requests() == 2).await;
        proxy.until_waiting(1).await;
        let told = health(&proxy).await;
        gate.open();
        told
    };
    let (answers, told) = tokio::join!(asked, looked);
    assert!(answers.iter().all(|got| got.status == 200));
    assert_eq!((&key(&told, 0)["in_flight"], &told["requests_waiting"]), (&2.into(), &1.into()));
    proxy.until_at_rest().await;
    let told = health(&proxy).await;
    assert_eq!((&key(&told, 0)["in_flight"], &told["requests_waiting"]), (&0.into(), &0.into()));
    assert_eq!(key(&told, 0)["attempts"], 3);
}
