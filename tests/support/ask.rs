//! Requests to a proxy in one line, and what they got.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use super::{
    proxy::{Proxy, chat, client},
    upstream::Upstream,
};

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    /// Reads an answer to its end.
    pub async fn read(answer: reqwest::Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, body: answer.bytes().await.expect("the answer has an end") }
    }

    /// The `code` of an error as OpenAI words it; empty if there is none.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The seconds of Retry-After.
    pub fn retry_after(&self) -> Option<u64> {
        self.header("retry-after")?.parse().ok()
    }

    /// How many attempts it took, with `debug_headers`.
    pub fn attempts(&self) -> u32 {
        let text = self.header("x-key-cycle-attempts").expect("debug_headers is on");
        text.parse().expect("a number")
    }

    /// Status and code, for one assertion.
    pub fn said(&self) -> (u16, String) {
        (self.status, self.code())
    }
}

impl Proxy {
    /// A chat request.
    pub async fn chat(&self, model: &str) -> Got {
        self.post("/v1/chat/completions", chat(model)).await
    }

    /// So many chat requests, one after the other, whatever they get.
    pub async fn chats(&self, count: usize) {
        for _ in 0..count {
            self.chat("gpt-4o").await;
        }
    }

    /// A POST of JSON.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Got {
        let request = client().post(self.url(path)).header("content-type", "application/json").body(body);
        Got::read(request.send().await.expect("the proxy answers")).await
    }

    /// A request without a body.
    pub async fn request(&self, method: Method, path: &str) -> Got {
        let request = client().request(method, self.url(path));
        Got::read(request.send().await.expect("the proxy answers")).await
    }

    /// How many keys are in this state: `ready` or the reason of a rest.
    pub async fn keys_in(&self, state: &str) -> usize {
        self.metric(&format!(r#"key_cycle_keys{{pool="default",state="{state}"}}"#)).await as usize
    }

    /// The health of each key, in no order.
    pub async fn healths(&self) -> Vec<f64> {
        self.values("key_cycle_key_health{").await
    }

    /// Whether requests are sent to each host, in no order.
    pub async fn open_hosts(&self) -> Vec<bool> {
        self.values("key_cycle_host_available{").await.into_iter().map(|open| open == 1.0).collect()
    }

    /// How many upstream calls were judged so.
    pub async fn judged(&self, verdict: &str) -> usize {
        self.metric(&format!(r#"key_cycle_attempts_total{{verdict="{verdict}"}}"#)).await as usize
    }

    /// How many requests wait for a key.
    pub async fn waiting(&self) -> usize {
        self.metric("key_cycle_requests_waiting").await as usize
    }

    /// Returns when so many requests wait for a key.
    pub async fn until_waiting(&self, count: usize) {
        for _ in 0..5_000 {
            if self.waiting().await == count {
                return;
            }
        }
        panic!("there were never {count} waiting, but {}", self.waiting().await);
    }

    /// Returns when nothing is counted as under way.
    pub async fn until_at_rest(&self) {
        let mut text = String::new();
        for _ in 0..1000 {
            text = self.metrics().await;
            let busy = |line: &str| {
                let counted =
                    ["key_cycle_requests_in_flight", "key_cycle_key_in_flight", "key_cycle_requests_waiting"];
                counted.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0")
            };
            if !text.lines().any(busy) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{text}");
    }

    async fn values(&self, start: &str) -> Vec<f64> {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.map(|line| line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a number")).collect()
    }
}

/// A file whose keys take turns in this order; `lines` go into its `[upstream]` section.
pub fn in_turn(upstream: &Upstream, keys: &[&str], lines: &str) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("key = \"{key}\"")).collect();
    in_turn_with(upstream, &keys, lines)
}

/// The same, of whole entries of `[[keys.pool]]`.
pub fn in_turn_with(upstream: &Upstream, entries: &[impl AsRef<str>], lines: &str) -> String {
    let mut text = format!(
        "[upstream]\nbase_url = \"{}\"\nretry_initial_backoff_ms = 1\nretry_max_backoff_ms = 2\n{lines}\n\
         [keys]\nrotation_strategy = \"round_robin\"\n[observability]\ndebug_headers = true\n",
        upstream.url()
    );
    for entry in entries {
        text.push_str(&format!("[[keys.pool]]\n{}\n", entry.as_ref()));
    }
    text
}
