//! What the model says or calls: the last user message, word by word, or a tool with arguments that fit.

use serde_json::{Map, Value, json};

/// What the model says.
pub(super) struct Said {
    /// Of the text, or of a call's arguments.
    pub words: Vec<String>,
    pub prompt_tokens: usize,
    /// The tool whose arguments the words are.
    pub tool: Option<String>,
    cut: bool,
}

/// Why it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    Tool,
}

/// A tool that the client offers.
pub(super) struct Tool<'a> {
    pub name: &'a str,
    pub schema: &'a Value,
}

/// Whether the model may call, or must.
pub(super) enum Choice<'a> {
    Never,
    /// With tools on offer it calls the first.
    Free,
    Named(&'a str),
}

impl Said {
    pub fn new(text: &str, prompt_tokens: usize, limit: Option<u64>) -> Self {
        let mut words: Vec<_> = text.split_inclusive(' ').map(str::to_owned).collect();
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let cut = words.len() > limit;
        words.truncate(limit);
        Self { words, prompt_tokens, tool: None, cut }
    }

    /// The same as the arguments of a call, if there is a tool to call.
    pub fn or_calls(self, tools: &[Tool<'_>], choice: &Choice<'_>) -> Self {
        let tool = match choice {
            Choice::Never => None,
            Choice::Free => tools.first(),
            Choice::Named(name) => tools.iter().find(|tool| tool.name == *name),
        };
        let Some(tool) = tool else { return self };
        let arguments = fitting(tool.schema, self.text().trim()).to_string();
        let call = Self::new(&arguments, self.prompt_tokens, None);
        Self { tool: Some(tool.name.to_owned()), ..call }
    }

    pub fn text(&self) -> String {
        self.words.concat()
    }

    /// The arguments of a call.
    pub fn arguments(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap_or_default()
    }

    pub const fn finish(&self) -> Finish {
        match (&self.tool, self.cut) {
            (Some(_), _) => Finish::Tool,
            (None, true) => Finish::Length,
            (None, false) => Finish::Stop,
        }
    }
}

pub(super) fn last_user_text(messages: &[Value]) -> String {
    let last = messages.iter().rev().find(|message| message["role"] == "user");
    text_or_hello(last.map_or(&Value::Null, |message| &message["content"]))
}

/// The texts of a content or of its parts.
pub(super) fn text_or_hello(content: &Value) -> String {
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    };
    if text.is_empty() { "Hello!".to_owned() } else { text }
}

/// As many tokens as there are words in the texts of a prompt.
pub(super) fn words(prompt: &Value) -> usize {
    match prompt {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(message) => {
            ["content", "text", "parts"].iter().find_map(|name| message.get(*name)).map_or(0, words)
        }
        _ => 1,
    }
}

/// A value that fits a JSON schema, with `text` wherever a text is wanted.
fn fitting(schema: &Value, text: &str) -> Value {
    let kind = schema["type"].as_str().unwrap_or("object").to_ascii_lowercase();
    match (kind.as_str(), &schema["enum"]) {
        (_, Value::Array(values)) => values.first().cloned().unwrap_or_default(),
        ("string", _) => text.into(),
        ("integer" | "number", _) => 1.into(),
        ("boolean", _) => true.into(),
        ("array", _) => json!([fitting(&schema["items"], text)]),
        ("object", _) => {
            let Some(properties) = schema["properties"].as_object() else { return json!({}) };
            let value = |(name, schema): (&String, &Value)| (name.clone(), fitting(schema, text));
            properties.iter().map(value).collect::<Map<_, _>>().into()
        }
        _ => Value::Null,
    }
}
