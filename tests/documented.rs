//! What docs/operations.md says is all there is, and there is all that it says.

use std::collections::BTreeSet;

use key_cycle_proxy::types::Class;
use support::{
    binary::Folder,
    proxy::{Proxy, chat, client, toml},
    upstream::{Answer, Upstream},
};

mod support;

const OPERATIONS: &str = include_str!("../docs/operations.md");

/// Names in `code font` that begin like this.
fn named(start: &str) -> BTreeSet<&'static str> {
    let names = OPERATIONS.split('`').skip(1).step_by(2);
    names.filter(|name| name.starts_with(start) && !name.contains([' ', ':'])).collect()
}

#[tokio::test]
async fn every_metric_is_explained_and_none_that_is_not_there() {
    let upstream = Upstream::start().await;
    upstream.key("sk-a").answers([Answer::revoked()]);
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-a", "sk-b"], "", "")).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    let text = proxy.metrics().await;
    let families: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(families.len() > 20, "{text}");
    assert_eq!(named("key_cycle_"), families);
}

#[test]
fn every_verdict_is_explained() {
    for class in Class::ALL {
        let row = format!("\n| `{}` |", class.as_str());
        assert_eq!(OPERATIONS.matches(&row).count(), 1, "{row}");
    }
}

#[tokio::test]
async fn every_field_of_the_log_is_explained() {
    let upstream = Upstream::start().await;
    upstream.key("sk-a").answers([Answer::revoked()]);
    let settings = format!(
        "[server]\nbind_addr = \"127.0.0.1:0\"\n[upstream]\nbase_url = \"{}\"\n\
         [observability]\nmetrics_bind = \"off\"\nlog_format = \"json\"\n\
         tracing_level = \"info,key_cycle_proxy::proxy=debug\"\n\
         [[keys.pool]]\nkey = \"sk-a\"\n[[keys.pool]]\nkey = \"sk-b\"\n",
        upstream.url()
    );
    let mut proxy = Folder::with("config.toml", &settings).command(&[]).serve().await;
    for body in [chat("gpt-4o"), "{".to_owned()] {
        let request = client().post(proxy.url("/v1/chat/completions")).body(body);
        request.header("content-type", "application/json").send().await.expect("an answer");
    }
    let mut fields = BTreeSet::new();
    for text in ["attempt failed", "invalid_json"] {
        let line = proxy.wait_for(text).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("an object");
        assert_eq!(line["target"], "key_cycle_proxy::proxy");
        fields.extend(line.as_object().expect("an object").keys().cloned());
    }
    for field in fields {
        let everyones = ["timestamp", "level", "target", "message"].contains(&&*field);
        assert!(everyones || OPERATIONS.contains(&format!("`{field}`")), "{field}");
    }
}
