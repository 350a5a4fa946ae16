//! Endpoints that write text: they echo the last user message, word by word, or call the tool they are offered.

use serde_json::{Value, json};

use super::api::{CREATED, Refusal, bad_request, fnv, missing, ok};
use super::said::{Choice, Finish, Said, Tool, last_user_text, text_or_hello, words};
use super::script::Answer;

/// The chunks of a chat stream that says `text`, `[DONE]` included.
pub fn chat_events(text: &str) -> Vec<String> {
    chat_stream("gpt-4o", &Said::new(text, 1, None), false)
}

/// The events of a Responses stream that says `text`.
pub fn response_events(text: &str) -> Vec<String> {
    response_stream(&ResponseObject {
        id: "resp_0",
        model: "gpt-4o",
        said: &Said::new(text, 1, None),
        previous: &Value::Null,
    })
}

pub(super) fn chat(body: &Value) -> Result<Answer, Refusal> {
    let messages = body["messages"].as_array().ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1.";
        return Err(bad_request(message, "messages", Some("empty_array")));
    }
    let said = said(body, messages);
    let model = body["model"].as_str().unwrap_or_default();
    if body["stream"] == true {
        return Ok(Answer::sse(chat_stream(model, &said, body["stream_options"]["include_usage"] == true)));
    }
    let mut message = said.message(&said.text());
    message["annotations"] = json!([]);
    Ok(ok(&json!({
        "id": "chatcmpl-simulated", "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": said.finish_reason()}],
        "usage": said.usage(), "service_tier": "default", "system_fingerprint": "fp_simulated",
    })))
}

pub(super) fn completion(body: &Value) -> Result<Answer, Refusal> {
    let prompt = match &body["prompt"] {
        Value::String(prompt) => prompt.clone(),
        Value::Array(prompts) => prompts.first().and_then(Value::as_str).unwrap_or("Hello!").to_owned(),
        _ => return Err(missing("prompt")),
    };
    let said = Said::new(&prompt, words(&body["prompt"]), body["max_tokens"].as_u64());
    let part = |text: &str, finish_reason: Value, usage: Option<Value>| {
        let choice = json!({"text": text, "index": 0, "logprobs": null, "finish_reason": finish_reason});
        let mut part = json!({
            "id": "cmpl-simulated", "object": "text_completion", "created": CREATED, "model": body["model"],
            "choices": [choice], "system_fingerprint": "fp_simulated",
        });
        if let Some(usage) = usage {
            part["usage"] = usage;
        }
        part
    };
    if body["stream"] != true {
        return Ok(ok(&part(&said.text(), said.finish_reason().into(), Some(said.usage()))));
    }
    let mut events: Vec<_> =
        said.words.iter().map(|word| part(word, Value::Null, None).to_string()).collect();
    events.push(part("", said.finish_reason().into(), None).to_string());
    if body["stream_options"]["include_usage"] == true {
        let mut last = part("", Value::Null, Some(said.usage()));
        last["choices"] = json!([]);
        events.push(last.to_string());
    }
    events.push("[DONE]".to_owned());
    Ok(Answer::sse(events))
}

pub(super) fn response(body: &Value, account: &str) -> Result<Answer, Refusal> {
    let text = match &body["input"] {
        Value::String(text) => text.clone(),
        Value::Array(items) => last_user_text(items),
        _ => return Err(missing("input")),
    };
    let previous = &body["previous_response_id"];
    if previous.as_str().is_some_and(|id| id != response_id(account)) {
        let message = format!("Previous response with id {previous} not found.");
        return Err(bad_request(&message, "previous_response_id", Some("previous_response_not_found")));
    }
    let object = ResponseObject {
        id: &response_id(account),
        model: body["model"].as_str().unwrap_or_default(),
        said: &Said::new(&text, words(&body["input"]), body["max_output_tokens"].as_u64()),
        previous,
    };
    if body["stream"] == true {
        return Ok(Answer::sse(response_stream(&object)));
    }
    Ok(ok(&object.finished()))
}

/// Every account has exactly one response, which the others cannot see.
pub(super) fn stored_response(id: &str, account: &str) -> Result<Answer, Refusal> {
    if id != response_id(account) {
        let message = format!("Response with id '{id}' not found.");
        return Err(Answer::status(404).error("invalid_request_error", "", &message).into());
    }
    let said = Said::new("Hello!", 1, None);
    Ok(ok(&ResponseObject { id, model: "gpt-4o", said: &said, previous: &Value::Null }.finished()))
}

fn response_id(account: &str) -> String {
    format!("resp_{:016x}", fnv(account.as_bytes()))
}

impl Said {
    fn finish_reason(&self) -> &'static str {
        match self.finish() {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Tool => "tool_calls",
        }
    }

    /// As a message, or the first delta of a stream.
    fn message(&self, text: &str) -> Value {
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if let Some(name) = &self.tool {
            let function = json!({"name": name, "arguments": text});
            message["content"] = Value::Null;
            message["tool_calls"] =
                json!([{"id": "call_simulated", "type": "function", "function": function}]);
        }
        message
    }

    fn usage(&self) -> Value {
        let written = self.words.len();
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
            },
        })
    }
}

fn said(body: &Value, messages: &[Value]) -> Said {
    let limit = body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
    let read = words(&body["messages"]);
    if let Some(result) = messages.last().filter(|last| last["role"] == "tool") {
        return Said::new(&text_or_hello(&result["content"]), read, limit);
    }
    let tools: Vec<_> = body["tools"].as_array().into_iter().flatten().filter_map(tool).collect();
    let choice = match &body["tool_choice"] {
        Value::String(choice) if choice == "none" => Choice::Never,
        Value::Object(choice) => Choice::Named(choice["function"]["name"].as_str().unwrap_or_default()),
        _ => Choice::Free,
    };
    Said::new(&last_user_text(messages), read, limit).or_calls(&tools, &choice)
}

fn tool(tool: &Value) -> Option<Tool<'_>> {
    let function = tool.get("function")?;
    Some(Tool { name: function["name"].as_str()?, schema: &function["parameters"] })
}

fn chat_stream(model: &str, said: &Said, with_usage: bool) -> Vec<String> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": "chatcmpl-simulated", "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "service_tier": "default", "system_fingerprint": "fp_simulated", "choices": choices,
        });
        if with_usage {
            chunk["usage"] = usage.unwrap_or_default();
        }
        chunk.to_string()
    };
    let choice = |delta: Value, finish_reason: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]);
    let mut opening = said.message("");
    if said.tool.is_some() {
        opening["tool_calls"][0]["index"] = 0.into();
    }
    let mut events = vec![chunk(choice(opening, Value::Null), None)];
    let delta = |word: &str| match said.tool {
        Some(_) => json!({"tool_calls": [{"index": 0, "function": {"arguments": word}}]}),
        None => json!({"content": word}),
    };
    events.extend(said.words.iter().map(|word| chunk(choice(delta(word), Value::Null), None)));
    events.push(chunk(choice(json!({}), said.finish_reason().into()), None));
    if with_usage {
        events.push(chunk(json!([]), Some(said.usage())));
    }
    events.push("[DONE]".to_owned());
    events
}

struct ResponseObject<'a> {
    id: &'a str,
    model: &'a str,
    said: &'a Said,
    previous: &'a Value,
}

impl ResponseObject<'_> {
    fn part(&self, text: &str) -> Value {
        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    }

    fn item(&self, status: &str, content: &Value) -> Value {
        json!({"id": "msg_simulated", "type": "message", "status": status, "role": "assistant", "content": content})
    }

    fn object(&self, status: &str, output: &Value, usage: &Value) -> Value {
        let incomplete =
            if status == "incomplete" { json!({"reason": "max_output_tokens"}) } else { Value::Null };
        json!({
            "id": self.id, "object": "response", "created_at": CREATED, "status": status, "background": false,
            "error": null, "incomplete_details": incomplete, "instructions": null, "max_output_tokens": null,
            "model": self.model, "output": output, "parallel_tool_calls": true,
            "previous_response_id": self.previous, "reasoning": {"effort": null, "summary": null},
            "service_tier": "default", "store": true, "temperature": 1.0, "text": {"format": {"type": "text"}},
            "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled", "usage": usage,
            "user": null, "metadata": {},
        })
    }

    fn finished(&self) -> Value {
        let (read, written) = (self.said.prompt_tokens, self.said.words.len());
        let status = if self.said.finish() == Finish::Length { "incomplete" } else { "completed" };
        let usage = json!({
            "input_tokens": read, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        });
        self.object(status, &json!([self.item(status, &json!([self.part(&self.said.text())]))]), &usage)
    }
}

fn response_stream(response: &ResponseObject<'_>) -> Vec<String> {
    let mut events = Vec::new();
    let mut say = |kind: &str, mut event: Value| {
        event["type"] = kind.into();
        event["sequence_number"] = events.len().into();
        events.push(format!("event: {kind}\ndata: {event}"));
    };
    let place = |mut event: Value| {
        event["item_id"] = "msg_simulated".into();
        event["output_index"] = 0.into();
        event["content_index"] = 0.into();
        event
    };
    let begun = response.object("in_progress", &json!([]), &Value::Null);
    let text = response.said.text();
    let finished = response.finished();
    let status = finished["status"].as_str().unwrap_or_default();
    let done = response.item(status, &json!([response.part(&text)]));

    say("response.created", json!({"response": begun}));
    say("response.in_progress", json!({"response": begun}));
    let opened = response.item("in_progress", &json!([]));
    say("response.output_item.added", json!({"output_index": 0, "item": opened}));
    say("response.content_part.added", place(json!({"part": response.part("")})));
    for word in &response.said.words {
        say("response.output_text.delta", place(json!({"delta": word, "logprobs": []})));
    }
    say("response.output_text.done", place(json!({"text": text, "logprobs": []})));
    say("response.content_part.done", place(json!({"part": response.part(&text)})));
    say("response.output_item.done", json!({"output_index": 0, "item": done}));
    say(&format!("response.{status}"), json!({"response": finished}));
    events
}
