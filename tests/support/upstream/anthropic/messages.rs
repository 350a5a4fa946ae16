//! Messages: whole, or streamed as named events.

use serde_json::{Value, json};

use super::super::api::ok;
use super::super::said::{Choice, Finish, Said, Tool, last_user_text, text_or_hello, words};
use super::super::script::Answer;
use super::{Refused, invalid, served};

pub(super) fn create(body: &Value) -> Result<Answer, Refused> {
    let model = model(body)?;
    if !body["max_tokens"].is_u64() {
        return Err(invalid("max_tokens: Field required"));
    }
    let said = said(body)?;
    if body["stream"] == true {
        return Ok(Answer::sse(stream(model, &said)));
    }
    let mut message = message(model, &json!([block(&said)]), &usage(&said));
    message["stop_reason"] = stop_reason(&said).into();
    Ok(ok(&message))
}

pub(super) fn count_tokens(body: &Value) -> Result<Answer, Refused> {
    model(body)?;
    Ok(ok(&json!({"input_tokens": said(body)?.prompt_tokens})))
}

fn model(body: &Value) -> Result<&str, Refused> {
    let model = body["model"].as_str().ok_or_else(|| invalid("model: Field required"))?;
    served(model)?;
    Ok(model)
}

fn said(body: &Value) -> Result<Said, Refused> {
    let messages = body["messages"].as_array().ok_or_else(|| invalid("messages: Field required"))?;
    let Some(last) = messages.last() else {
        return Err(invalid("messages: at least one message is required"));
    };
    let read = words(&body["messages"]) + body.get("system").map_or(0, words);
    let limit = body["max_tokens"].as_u64();
    let result = last["content"].as_array().into_iter().flatten().find(|part| part["type"] == "tool_result");
    if let Some(result) = result {
        return Ok(Said::new(&text_or_hello(&result["content"]), read, limit));
    }
    let tools: Vec<_> = body["tools"].as_array().into_iter().flatten().filter_map(tool).collect();
    let choice = match body["tool_choice"]["type"].as_str() {
        Some("none") => Choice::Never,
        Some("tool") => Choice::Named(body["tool_choice"]["name"].as_str().unwrap_or_default()),
        _ => Choice::Free,
    };
    Ok(Said::new(&last_user_text(messages), read, limit).or_calls(&tools, &choice))
}

fn tool(tool: &Value) -> Option<Tool<'_>> {
    Some(Tool { name: tool["name"].as_str()?, schema: tool.get("input_schema")? })
}

fn usage(said: &Said) -> Value {
    json!({
        "input_tokens": said.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": said.words.len(), "service_tier": "standard",
    })
}

fn stop_reason(said: &Said) -> &'static str {
    match said.finish() {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Tool => "tool_use",
    }
}

fn block(said: &Said) -> Value {
    match &said.tool {
        Some(name) => {
            json!({"type": "tool_use", "id": "toolu_simulated", "name": name, "input": said.arguments()})
        }
        None => json!({"type": "text", "text": said.text()}),
    }
}

fn message(model: &str, content: &Value, usage: &Value) -> Value {
    json!({
        "id": "msg_simulated", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": null, "stop_sequence": null, "usage": usage,
    })
}

fn stream(model: &str, said: &Said) -> Vec<String> {
    let mut events = Vec::new();
    let mut say = |kind: &str, mut event: Value| {
        event["type"] = kind.into();
        events.push(format!("event: {kind}\ndata: {event}"));
    };
    let mut begun = usage(said);
    begun["output_tokens"] = 1.into();
    let mut empty = block(said);
    let delta = |word: &str| match said.tool {
        Some(_) => json!({"type": "input_json_delta", "partial_json": word}),
        None => json!({"type": "text_delta", "text": word}),
    };
    match said.tool {
        Some(_) => empty["input"] = json!({}),
        None => empty["text"] = "".into(),
    }
    say("message_start", json!({"message": message(model, &json!([]), &begun)}));
    say("content_block_start", json!({"index": 0, "content_block": empty}));
    say("ping", json!({}));
    for word in &said.words {
        say("content_block_delta", json!({"index": 0, "delta": delta(word)}));
    }
    say("content_block_stop", json!({"index": 0}));
    let end = json!({
        "delta": {"stop_reason": stop_reason(said), "stop_sequence": null},
        "usage": {
            "input_tokens": said.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": said.words.len(),
        },
    });
    say("message_delta", end);
    say("message_stop", json!({}));
    events
}
