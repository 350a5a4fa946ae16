//! Every recorded answer in `fixtures/openai` is judged as its file expects.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::path::Path;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use key_cycle_proxy::provider::{Answer, classify, judge, reads_body};
use serde::Deserialize;
use serde_json::Value;

/// 2025-12-31 12:00:00 UTC, four in the morning in California.
const WALL: Duration = Duration::from_secs(1_767_182_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    name: String,
    from: String,
    endpoint: String,
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
    body: Value,
    expect: Expected,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Expected {
    class: String,
    scope: String,
    wait_ms: Option<u64>,
}

impl Fixture {
    fn judged(&self) -> Expected {
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let status = StatusCode::from_u16(self.status).unwrap();
        let body = match &self.body {
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        assert!(reads_body(status) || body.is_empty(), "{} is judged without a body", self.name);
        let (method, path) = self.endpoint.split_once(' ').unwrap();
        let endpoint = classify(&method.parse::<Method>().unwrap(), path);
        let answer = Answer { status, headers: &headers, body: body.as_bytes() };
        let verdict = judge(&answer, endpoint, SystemTime::UNIX_EPOCH + WALL);
        Expected {
            class: verdict.class.as_str().to_owned(),
            scope: verdict.scope.as_str().to_owned(),
            wait_ms: verdict.wait.map(|wait| wait.as_millis().try_into().unwrap()),
        }
    }
}

#[test]
fn recorded_answers_are_judged_as_they_should_be() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openai");
    let mut seen = 0;
    let mut providers = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let fixture: Fixture = serde_json::from_str(&text).unwrap();
        let judged = fixture.judged();
        if judged != fixture.expect {
            wrong.push(format!("{}: {}: {judged:?}, not {:?}", fixture.from, fixture.name, fixture.expect));
        }
        seen += 1;
        providers.insert(fixture.from);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= 100, "saw only {seen} answers");
    assert!(providers.len() >= 6, "saw only {providers:?}");
}
