//! What the body of a refusal says, whatever shape it has.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::limits;

/// A refusal in its own words: the same few facts out of every shape of error body.
///
/// The shapes: OpenAI's `{"error":{message,type,param,code}}`; the same without the envelope (vLLM, Mistral);
/// `{"error":"text"}` (xAI, Ollama); Google's `{"error":{code,status,details}}`, also in an array; Anthropic's
/// `{"type":"error","error":{type,message}}`; `{"errors":[…]}` (Cloudflare); `{"message":…}`, `{"detail":…}`
/// (FastAPI); plain text and HTML.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    /// `code`, where it is a word.
    pub(super) code: Option<String>,
    /// `code` (or `status`, `status_code`), where it is a number, also in quotes: a status, or a private series. It tells
    /// nothing where there is a status.
    pub(super) number: Option<u16>,
    /// Google's `status`.
    pub(super) status: Option<String>,
    /// `type`.
    pub(super) kind: Option<String>,
    /// `param`.
    pub(super) param: Option<String>,
    /// The text, in lower case: providers change capitals more often than words.
    pub(super) message: String,
    /// Google's `details`.
    pub(super) details: Vec<Value>,
    /// OpenRouter's `metadata`.
    pub(super) metadata: Value,
}

impl Complaint {
    /// Reads `body`. What isn't JSON, or was cut off, is taken as text.
    pub(super) fn read(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(root) => Self::of(unwrapped(root)),
            Err(_) => Self { message: String::from_utf8_lossy(body).to_lowercase(), ..Self::default() },
        }
    }

    /// Reads a body that was parsed.
    pub(super) fn of(mut root: Value) -> Self {
        let mut inner = root.get_mut("error").map(Value::take).unwrap_or_default();
        let message = match &inner {
            Value::String(text) => Some(text.to_lowercase()),
            _ => None,
        };
        let outside = root.get("status").and_then(number);
        // Without an object called `error`, the facts stand beside the text or make up the whole.
        let facts = if inner.is_object() { &mut inner } else { &mut root };
        Self {
            message: message.unwrap_or_else(|| text_in(facts).to_lowercase()),
            code: word(facts, "code"),
            number: ["code", "status_code", "status"]
                .iter()
                .find_map(|name| number(facts.get(name)?))
                .or(outside),
            status: word(facts, "status"),
            kind: word(facts, "type"),
            param: word(facts, "param"),
            details: match facts.get_mut("details").map(Value::take) {
                Some(Value::Array(details)) => details,
                _ => Vec::new(),
            },
            metadata: facts.get_mut("metadata").map(Value::take).unwrap_or_default(),
        }
    }

    /// Whether the text contains one of `phrases` (in lower case).
    pub(super) fn mentions(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.message.contains(phrase))
    }

    /// Whether the text begins with one of `phrases` (in lower case). Stronger than a mention: what a provider
    /// quotes from a request stands further back.
    pub(super) fn begins(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.message.starts_with(phrase))
    }

    /// How long the text asks us to wait: OpenAI and Groq "try again in 9m38.016s", Gemini "retry in 22.5s",
    /// Azure "retry after 26 seconds".
    pub(super) fn wait_in_words(&self) -> Option<Duration> {
        const BEFORE_THE_TIME: [&str; 4] = ["try again in ", "retry in ", "retry after ", "try again after "];
        let rest = BEFORE_THE_TIME.iter().find_map(|words| Some(self.message.split_once(words)?.1))?;
        let mut words = rest.split_ascii_whitespace();
        let number = words.next()?.trim_end_matches(['.', ',', ';']);
        let wait = match words.next().unwrap_or_default() {
            unit if unit.starts_with("second") => limits::seconds(number),
            unit if unit.starts_with("minute") => limits::go_duration(&format!("{number}m")),
            unit if unit.starts_with("millisecond") => limits::go_duration(&format!("{number}ms")),
            _ => limits::go_duration(number),
        };
        wait.map(limits::capped)
    }

    /// The headers that OpenRouter quotes in `metadata.headers`: those of the limit that was hit.
    pub(super) fn quoted_headers(&self) -> HeaderMap {
        let quoted = self.metadata.get("headers").and_then(Value::as_object);
        let pairs = quoted.into_iter().flatten().filter_map(|(name, value)| {
            let text = match value {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                Value::Number(number) => Cow::Owned(number.to_string()),
                _ => return None,
            };
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(text.as_ref()).ok()?))
        });
        pairs.collect()
    }
}

/// The object that matters: the first of an array, at the top (Gemini's compatible base) or under `errors`.
pub(super) fn unwrapped(root: Value) -> Value {
    let first = |list: Vec<Value>| list.into_iter().next().unwrap_or_default();
    match root {
        Value::Array(list) => first(list),
        Value::Object(mut object) if !object.contains_key("error") => match object.remove("errors") {
            Some(Value::Array(list)) if list.first().is_some_and(Value::is_object) => first(list),
            _ => Value::Object(object),
        },
        other => other,
    }
}

/// A text field that is a word and not a number in quotes.
fn word(facts: &Value, name: &str) -> Option<String> {
    let text = facts.get(name)?.as_str()?;
    (!text.is_empty() && !text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.to_owned())
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::String(digits) => digits.parse().ok(),
        number => u16::try_from(number.as_u64()?).ok(),
    }
}

/// The text of the complaint: `message` or `detail`, as text or with the text inside.
fn text_in(facts: &Value) -> String {
    let told = ["message", "detail", "error_description", "msg"].iter().find_map(|name| facts.get(name));
    match told {
        Some(Value::String(text)) => text.clone(),
        Some(structured) => structured.to_string(),
        None => facts.as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_gives_up_its_text() {
        for body in [
            r#"{"error":{"message":"No.","type":"t","param":"p","code":"c"}}"#,
            r#"{"error":"No.","code":"c","type":"t","param":"p"}"#,
            r#"{"object":"error","message":"No.","type":"t","param":"p","code":"c"}"#,
            r#"[{"error":{"message":"No.","type":"t","param":"p","code":"c"}}]"#,
            r#"{"errors":[{"message":"No.","type":"t","param":"p","code":"c"}]}"#,
            r#"{"detail":"No.","type":"t","param":"p","code":"c"}"#,
        ] {
            let says = Complaint::read(body.as_bytes());
            assert_eq!(says.message, "no.", "{body}");
            assert_eq!((says.code.as_deref(), says.kind.as_deref()), (Some("c"), Some("t")), "{body}");
            assert_eq!(says.param.as_deref(), Some("p"));
        }
    }

    #[test]
    fn numbers_are_no_codes() {
        for code in ["429", "\"429\"", "null", "\"\""] {
            let says =
                Complaint::read(format!(r#"{{"error":{{"message":"No.","code":{code}}}}}"#).as_bytes());
            assert_eq!(says.code, None, "{code}");
            assert_eq!(says.number, code.contains("429").then_some(429), "{code}");
        }
    }

    #[test]
    fn odd_bodies_are_read_without_complaint() {
        for (body, text) in [
            ("", ""),
            ("<html>No.</html>", "<html>no.</html>"),
            ("\"No.\"", "no."),
            ("[]", ""),
            ("null", ""),
            ("17", ""),
            (r#"{"error":null}"#, ""),
            (r#"{"error":{"message":"cut o"#, r#"{"error":{"message":"cut o"#),
        ] {
            assert_eq!(Complaint::read(body.as_bytes()).message, text, "{body}");
        }
        assert!(Complaint::read(br#"{"detail":[{"msg":"Field required"}]}"#).mentions(&["field required"]));
        assert_eq!(Complaint::read(b"\xff\xfe").message, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_wait_may_stand_in_the_text() {
        for (text, millis) in [
            ("Please try again in 9m38.016s. Need more tokens?", Some(578_016)),
            ("Please try again in 120ms.", Some(120)),
            ("Please retry in 22.512409s.", Some(22_512)),
            ("Please retry after 26 seconds.", Some(26_000)),
            ("Try again after 2 minutes", Some(120_000)),
            ("Please try again later.", None),
            ("try again in a moment", None),
            ("try again in", None),
        ] {
            let says = Complaint { message: text.to_lowercase(), ..Complaint::default() };
            let wait = says.wait_in_words().map(|wait| wait.as_millis());
            assert_eq!(wait, millis, "{text}");
        }
    }
}
