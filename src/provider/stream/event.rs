//! What one server-sent event is.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::provider::scan;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// It says nothing of the answer itself: a sign of life, or a beginning that another attempt would repeat.
    Preamble,
    /// Part of the answer, or something unknown.
    Content,
    /// It went wrong.
    Failed,
}

/// Types of events that may be held back.
///
/// Signs of life (Anthropic's `ping`, others' `keepalive`) say nothing. `response.created`, `response.queued`,
/// `response.in_progress` and `message_start` name an answer that has no content yet: its id, its model, what was asked.
/// Nobody has acted on it, and if another key is tried, that one's answer begins with the same events. OpenAI reports
/// overload right behind them. From the first output item or content block on, the model has spoken.
pub(super) const PREAMBLES: [&str; 6] =
    ["ping", "keepalive", "response.created", "response.queued", "response.in_progress", "message_start"];

/// What a piece of text stands in: chat completions and Gemini's and Anthropic's contents; completions; responses.
static TEXTS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["\"content\"", "\"text\"", "\"delta\""].map(Finder::new));

/// The event's top level, as far as it decides something.
#[derive(Deserialize, Default)]
struct Top {
    #[serde(rename = "type", default)]
    kind: Value,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    choices: Value,
    #[serde(default)]
    usage: Option<IgnoredAny>,
}

/// What the event `name` (which may be empty) with `data` is.
pub(super) fn read(name: &[u8], data: &[u8]) -> Event {
    if name == b"error" {
        return Event::Failed;
    }
    if data.is_empty() {
        return Event::Preamble;
    }
    // As good as every event: text, and not a word of errors.
    if memmem::find(data, b"error").is_none() && has_text(data) {
        return Event::Content;
    }
    // Gemini's compatible base puts its errors into an array.
    let top = match data.first() {
        Some(b'[') => serde_json::from_slice(data).map(|[top]: [Top; 1]| top),
        _ => serde_json::from_slice(data),
    };
    let Ok(top) = top else { return Event::Content };
    top.event(top.kind.as_str().or_else(|| std::str::from_utf8(name).ok()).unwrap_or_default())
}

/// Whether a text that isn't empty stands in it, where texts of an answer do.
fn has_text(data: &[u8]) -> bool {
    let begins = |at: usize| data[at..].starts_with(b"\"") && !data[at..].starts_with(b"\"\"");
    TEXTS.iter().any(|key| scan::values(data, key).any(begins))
}

impl Top {
    fn event(&self, kind: &str) -> Event {
        let choices = self.choices.as_array();
        let failed = |choice: &Value| choice["finish_reason"] == "error" || is_told(&choice["error"]);
        if matches!(kind, "error" | "response.failed")
            || self.object == "error"
            || is_told(&self.error)
            || choices.is_some_and(|choices| choices.iter().any(failed))
        {
            return Event::Failed;
        }
        let preamble = match choices.map(Vec::as_slice) {
            // Azure begins with what its filter thinks of the prompt. With a usage it would be the end.
            Some([]) => self.usage.is_none(),
            Some(choices) => choices.iter().all(only_names_the_role),
            None => PREAMBLES.contains(&kind),
        };
        if preamble { Event::Preamble } else { Event::Content }
    }
}

/// Whether a choice says no more than who speaks, as the first of a chat does: some send it before they have asked the
/// model.
fn only_names_the_role(choice: &Value) -> bool {
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    let delta = choice.get("delta").and_then(Value::as_object);
    choice["finish_reason"].is_null()
        && delta.is_some_and(|delta| delta.iter().all(|(name, value)| name == "role" || says_nothing(value)))
}

/// Whether an `error` says something: some put an empty one into every event.
pub(super) fn is_told(error: &Value) -> bool {
    match error {
        Value::Object(facts) => facts.values().any(|fact| !fact.is_null() && fact != ""),
        Value::String(text) => !text.is_empty(),
        other => *other == Value::Bool(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_every_kind() {
        use Event::{Content, Failed, Preamble};
        for (name, data, event) in [
            ("", "", Preamble),
            ("ping", r#"{"type": "ping"}"#, Preamble),
            ("", r#"{"type":"keepalive","sequence_number":3}"#, Preamble),
            ("", r#"{"type":"response.created","response":{"error":null}}"#, Preamble),
            ("response.queued", "{}", Preamble),
            ("", r#"{"response":{},"type":"response.in_progress"}"#, Preamble),
            ("", r#"{"type":"response.output_item.added"}"#, Content),
            ("", r#"{"type":"response.output_text.delta","delta":"Hello"}"#, Content),
            ("", r#"{"type":"response.incomplete"}"#, Content),
            ("message_start", r#"{"type":"message_start"}"#, Preamble),
            ("", r#"{"type":"content_block_start"}"#, Content),
            ("", r#"{"choices":[],"prompt_filter_results":[{}]}"#, Preamble),
            ("", r#"{"choices":[],"usage":null}"#, Preamble),
            ("", r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, Content),
            ("", r#"{"choices":[{"delta":{"role":"assistant"},"finish_reason":null}]}"#, Preamble),
            ("", r#"{"choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}"#, Preamble),
            ("", r#"{"choices":[{"delta":{"role":"assistant","content":"","tool_calls":[]}}]}"#, Preamble),
            ("", r#"{"choices":[{"delta":{"role":"assistant","content": "Hello"}}]}"#, Content),
            ("", r#"{"choices":[{"delta":{"role":"assistant","reasoning_content":"Hm"}}]}"#, Content),
            ("", r#"{"choices":[{"delta":{"tool_calls":[{"id":"c"}]}}]}"#, Content),
            ("", r#"{"choices":[{"delta":{"role":"assistant"}},{"delta":{"content":"b"}}]}"#, Content),
            ("", r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, Content),
            ("", r#"{"choices":[{"text":"","finish_reason":null}]}"#, Content),
            ("", r#"{"choices":[{"delta":{"content":"error"}}],"error":null}"#, Content),
            ("", r#"{"choices":[{"content_filter_result":{"error":{"code":"x"}}}]}"#, Content),
            ("", r#"{"candidates":[]}"#, Content),
            ("", r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, Content),
            ("", "[DONE]", Content),
            ("", "not JSON", Content),
            ("", "[]", Content),
            ("", r#"[{"error":{"message":"No."}}]"#, Failed),
            ("", r#"{"error":{"message":"No."}}"#, Failed),
            ("", r#"{"error":"No."}"#, Failed),
            ("", r#"{"error":true}"#, Failed),
            ("", r#"{"error":{"message":null,"code":""}}"#, Content),
            ("", r#"{"error":{}}"#, Content),
            ("", r#"{"error":""}"#, Content),
            ("", r#"{"error":false}"#, Content),
            ("error", "No.", Failed),
            ("", r#"{"type":"error","message":"No."}"#, Failed),
            ("", r#"{"type":"response.failed","response":{}}"#, Failed),
            ("", r#"{"object":"error","message":"No."}"#, Failed),
            ("response.failed", "{}", Failed),
            ("", r#"{"choices":[{"finish_reason":"error"}]}"#, Failed),
            ("", r#"{"choices":[{"error":{"code":502}}]}"#, Failed),
        ] {
            assert_eq!(read(name.as_bytes(), data.as_bytes()), event, "{name} {data}");
        }
    }
}
