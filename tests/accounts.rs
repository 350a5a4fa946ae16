//! Keys that share an account share its limits, and answers tell which do.

use std::time::Duration;

use http::Method;
use serde_json::json;
use support::{
    ask::in_turn_with,
    proxy::{Proxy, keys_toml},
    still::StillClock,
    upstream::{Answer, Upstream},
};

mod support;

const KEYS: [&str; 6] = ["sk-a", "sk-b", "sk-c", "sk-d", "sk-e", "sk-f"];
const WAIT: Duration = Duration::from_secs(20);

/// An upstream that names the project of each key in its answers.
async fn two_projects() -> Upstream {
    let upstream = Upstream::start().await;
    for (at, key) in KEYS.iter().enumerate() {
        upstream.key(key).account(if at < 3 { "proj_one" } else { "proj_two" });
    }
    upstream
}

fn calls(upstream: &Upstream) -> usize {
    KEYS.iter().map(|key| upstream.calls(key)).sum()
}

async fn accounts(proxy: &Proxy) -> Vec<Option<String>> {
    let health = proxy.request(Method::GET, "/health/detailed").await.json();
    let keys = health["pools"][0]["keys"].as_array().expect("the keys").clone();
    keys.iter().map(|key| key["account"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn six_keys_of_two_projects_are_grouped_by_one_answer_each_and_rest_together() {
    let _clock = StillClock::stop();
    let upstream = two_projects().await;
    let proxy = Proxy::start(&keys_toml(&upstream.url(), &KEYS)).await;
    assert_eq!(accounts(&proxy).await, [const { None }; 6]);
    for _ in KEYS {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!(calls(&upstream), 6, "one request for each key");
    let told = accounts(&proxy).await;
    assert!(told[..3].iter().all(|one| *one == told[0]) && told[3..].iter().all(|one| *one == told[3]));
    assert!(told[0].is_some() && told[3].is_some() && told[0] != told[3]);
    assert!(!format!("{told:?}").contains("proj"), "no name is shown");

    // Every key of the first project would be refused: one is, and the others are spared.
    for key in &KEYS[..3] {
        upstream.key(key).always(Answer::rate_limited(WAIT));
    }
    let before: usize = KEYS[..3].iter().map(|key| upstream.calls(key)).sum();
    for _ in 0..30 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    let after: usize = KEYS[..3].iter().map(|key| upstream.calls(key)).sum();
    assert_eq!(after - before, 1);
    // Limits are counted per model.
    for key in &KEYS[..3] {
        upstream.key(key).always(Answer::api());
    }
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o-mini").await.status, 200);
    }
    assert_eq!(KEYS[..3].iter().map(|key| upstream.calls(key)).sum::<usize>() - after, 3);
}

#[tokio::test]
async fn a_declared_account_rests_as_one_when_it_has_no_money() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let account = |key: &str| if key < "sk-d" { "work" } else { "play" };
    let entries: Vec<_> =
        KEYS.iter().map(|key| format!("key = \"{key}\"\naccount = \"{}\"", account(key))).collect();
    upstream.key("sk-b").always(Answer::out_of_quota());
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "")).await;
    for _ in 0..20 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    let counts = KEYS.map(|key| upstream.calls(key));
    assert_eq!((counts[0], counts[1], counts[2]), (1, 1, 0), "{counts:?}");
    assert_eq!(proxy.keys_in("quota_exhausted").await, 3);
    assert_eq!(
        accounts(&proxy).await[..4],
        ["work", "work", "work", "play"].map(|name| Some(name.to_owned()))
    );
}

#[tokio::test]
async fn googles_errors_tell_the_project_of_a_key() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let refusal = || {
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED",
            "metadata": {"consumer": "projects/123", "service": "generativelanguage.googleapis.com"},
        });
        let retry = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20s"});
        let error = json!({
            "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded.", "details": [info, retry],
        });
        Answer::status(429).body(json!([{ "error": error }]).to_string())
    };
    for key in ["sk-a", "sk-b"] {
        upstream.key(key).always(refusal());
    }
    upstream.key("sk-c").always(Answer::ok());
    let proxy = Proxy::start(&keys_toml(&upstream.url(), &["sk-a", "sk-b", "sk-c"])).await;
    for model in ["gemini-a", "gemini-a", "gemini-b", "gemini-b", "gemini-b"] {
        assert_eq!(proxy.chat(model).await.status, 200);
    }
    let told = accounts(&proxy).await;
    assert!(told[0].is_some() && told[0] == told[1] && told[2].is_none(), "{told:?}");
    // Both had to be refused once to be known; after that one refusal is enough for both.
    assert_eq!(upstream.calls("sk-a") + upstream.calls("sk-b"), 3);
}
