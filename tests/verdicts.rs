//! Every recorded answer in `fixtures/openai` is judged as its file expects, and with the recorded streams they show
//! every row of the table of answers, for each provider that gives such an answer.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, SystemTime},
};

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
    #[serde(rename = "row")]
    _row: String,
    endpoint: String,
    status: u16,
    headers: BTreeMap<String, String>,
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
    let mut providers = BTreeSet::new();
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

#[test]
fn what_came_from_a_compatible_base_means_the_same_at_the_provider_s_own_paths() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openai");
    let own = BTreeMap::from([
        ("Anthropic", vec!["/messages", "/v1/messages"]),
        ("Gemini", vec!["/v1beta/models/m:generateContent", "/v1/models/m:generateContent"]),
    ]);
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut fixture: Fixture = serde_json::from_str(&text).unwrap();
        for path in own.get(fixture.from.as_str()).into_iter().flatten() {
            fixture.endpoint = format!("POST {path}");
            // Gemini puts an error into an array on its compatible base only.
            if let Some(error) = fixture.body.get_mut(0) {
                fixture.body = error.take();
            }
            let judged = fixture.judged();
            if judged != fixture.expect {
                wrong.push(format!("{} at {path}: {judged:?}, not {:?}", fixture.name, fixture.expect));
            }
            seen += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen >= 70, "saw only {seen} answers");
}

/// The providers whose answers are recorded for every row.
const PROVIDERS: [&str; 6] = ["OpenAI", "Anthropic", "Gemini", "Azure", "Groq", "OpenRouter"];

/// What can come back, what it means, and which of [`PROVIDERS`] is known to answer so. Failures without an answer
/// (connect, timeout, a broken connection) are no provider's: `provider` tests them beside the code.
const ROWS: [(&str, &str, &[&str], &str); 17] = [
    ("success", "success", &["client"], "xxxxxx"),
    ("client's fault", "client_fault", &["client"], "xxxxxx"),
    // The others refuse such input with 400.
    ("moderation", "client_fault", &["client"], "-----x"),
    ("account header", "client_fault", &["client"], "x-----"),
    // Azure and OpenRouter give no reason that is theirs alone; Gemini's status is 400.
    ("key rejected", "key_rejected", &["key"], "xx--x-"),
    ("key rejected with 400", "key_rejected", &["key"], "--x---"),
    ("leaked or suspended", "key_rejected", &["key", "account"], "xxx-x-"),
    ("not permitted", "not_permitted", &["key"], "xxx---"),
    ("unknown refusal", "unknown_refusal", &["key"], "xxxx-x"),
    ("egress", "egress_refused", &["egress"], "xxxxx-"),
    ("model unavailable", "model_unavailable", &["key_model"], "xxxxxx"),
    // Azure sends a bill.
    ("billing", "quota_exhausted", &["account", "key"], "xxx-xx"),
    ("rate limit", "rate_limited", &["account_model", "account"], "xxxxxx"),
    ("per day", "quota_exhausted", &["account_model"], "x-x-xx"),
    ("overloaded", "overloaded", &["host"], "xxxxxx"),
    ("server error", "server_error", &["host"], "xxxxxx"),
    // Whatever it means.
    ("error later", "", &[], "xxxxxx"),
];

#[test]
fn every_row_of_the_table_is_shown_by_every_provider_that_has_it() {
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for folder in ["openai", "streams"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let fixture: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let row = ROWS.iter().find(|(row, ..)| fixture["row"] == *row);
            let (row, class, scopes, _) = row.unwrap_or_else(|| panic!("{}: no such row", path.display()));
            // Of a stream: what its error means, if it has one.
            let expect = &fixture["expect"];
            let meant = if expect["opened"].is_null() { expect } else { &expect["error"] };
            if !class.is_empty() && !meant.is_null() {
                let scope = meant["scope"].as_str().unwrap();
                assert!(meant["class"] == *class && scopes.contains(&scope), "{}: {row}", path.display());
            }
            shown.entry(row).or_default().insert(fixture["from"].as_str().unwrap().to_owned());
        }
    }
    for (row, _, _, having) in ROWS {
        let shown = &shown[row];
        let providers = PROVIDERS.map(|provider| if shown.contains(provider) { 'x' } else { '-' });
        assert_eq!(String::from_iter(providers), having, "{row} of {PROVIDERS:?}");
    }
}
