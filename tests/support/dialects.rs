//! Requests to the simulated upstream in each of its dialects.

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

use super::upstream::Upstream;

pub type Headers<'a> = &'a [(&'a str, &'a str)];

pub const ANTHROPIC: Headers<'_> = &[("x-api-key", "sk-a"), ("anthropic-version", "2023-06-01")];
pub const GEMINI: Headers<'_> = &[("x-goog-api-key", "sk-a")];
pub const AZURE: Headers<'_> = &[("api-key", "sk-a")];
pub const BEARER: Headers<'_> = &[("authorization", "Bearer sk-a")];
pub const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
pub const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
pub const DEPLOYMENT: &str = "/openai/deployments/my-gpt4o/chat/completions?api-version=2024-10-21";
/// One request of each dialect that has errors of its own.
pub const ALL: [(&str, Headers<'_>); 7] = [
    ("/v1/chat/completions", BEARER),
    ("/v1/messages", ANTHROPIC),
    (GENERATE, GEMINI),
    ("/v1beta/openai/chat/completions", BEARER),
    (DEPLOYMENT, AZURE),
    ("/weather/stations?appid=sk-a", &[]),
    ("/maps/routes", &[("authorization", "ApiKey sk-a")]),
];

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).expect("JSON")).collect()
    }
}

pub async fn try_send(
    up: &Upstream,
    method: Method,
    path: &str,
    headers: Headers<'_>,
    body: &Value,
) -> reqwest::Result<Reply> {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.request(method, format!("{}{path}", up.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_null() {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = String::from_utf8(answer.bytes().await?.to_vec()).expect("text");
    Ok(Reply { status, headers, text })
}

pub async fn post(up: &Upstream, path: &str, headers: Headers<'_>, body: Value) -> Reply {
    try_send(up, Method::POST, path, headers, &body).await.expect("an answer")
}

pub async fn get(up: &Upstream, path: &str, headers: Headers<'_>) -> Reply {
    try_send(up, Method::GET, path, headers, &Value::Null).await.expect("an answer")
}

pub fn message() -> Value {
    json!({
        "model": "claude-sonnet-4-5", "max_tokens": 100,
        "messages": [{"role": "user", "content": "say three words"}],
    })
}

pub fn contents() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "say three words"}]}]})
}

/// What every API of [`ALL`] takes for a request.
pub fn anything() -> Value {
    let mut all = message();
    all["contents"] = contents()["contents"].take();
    all
}

pub fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

pub fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})
}
