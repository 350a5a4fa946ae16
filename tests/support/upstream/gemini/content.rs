//! Contents, streams of them, vectors and counts.

use serde_json::{Value, json};

use super::super::media::vector;
use super::super::said::{Choice, Finish, Said, Tool, text_or_hello, words};
use super::{Refused, invalid};

pub(super) fn generate(model: &str, body: &Value) -> Result<Value, Refused> {
    let said = said(body)?;
    Ok(response(model, &json!([part(&said, &said.text())]), &said, Some(said.words.len())))
}

/// A piece for each word, the last with the reason to finish; a call comes in one piece.
pub(super) fn stream(model: &str, body: &Value) -> Result<Vec<Value>, Refused> {
    let said = said(body)?;
    if said.tool.is_some() || said.words.is_empty() {
        return Ok(vec![generate(model, body)?]);
    }
    let last = said.words.len();
    let piece = |(place, word): (usize, &String)| {
        let written = (place + 1 == last).then_some(last);
        response(model, &json!([part(&said, word)]), &said, written)
    };
    Ok(said.words.iter().enumerate().map(piece).collect())
}

pub(super) fn count_tokens(body: &Value) -> Value {
    let inner = get(body, "generateContentRequest").unwrap_or(body);
    let tokens = words(&inner["contents"]);
    json!({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})
}

pub(super) fn embedding(request: &Value) -> Result<Value, Refused> {
    if !request["content"]["parts"].is_array() {
        return Err(invalid("EmbedContentRequest.content: content is not specified"));
    }
    let settings = get(request, "embedContentConfig").unwrap_or(request);
    let dimensions = get(settings, "outputDimensionality").and_then(Value::as_u64).unwrap_or(16);
    Ok(json!({"values": vector(&request["content"]["parts"].to_string(), dimensions)}))
}

fn said(body: &Value) -> Result<Said, Refused> {
    let last = body["contents"].as_array().and_then(|contents| contents.last());
    let Some(last) = last else {
        return Err(invalid("* GenerateContentRequest.contents: contents is not specified\n"));
    };
    let read = words(&body["contents"]) + get(body, "systemInstruction").map_or(0, words);
    let limit = get(body, "generationConfig").and_then(|config| get(config, "maxOutputTokens"));
    if limit.and_then(Value::as_i64).is_some_and(|limit| limit <= 0) {
        return Err(invalid("max_output_tokens must be positive."));
    }
    let limit = limit.and_then(Value::as_u64);
    let result =
        last["parts"].as_array().into_iter().flatten().find_map(|part| get(part, "functionResponse"));
    if let Some(result) = result {
        let response = &result["response"];
        let text = ["result", "output"].iter().find_map(|name| response[*name].as_str());
        return Ok(Said::new(&text.map_or_else(|| response.to_string(), str::to_owned), read, limit));
    }
    let tools = body["tools"].as_array().into_iter().flatten();
    let tools = tools.filter_map(|tool| get(tool, "functionDeclarations")?.as_array()).flatten();
    let tools: Vec<_> = tools.filter_map(tool).collect();
    let calling = get(body, "toolConfig").and_then(|config| get(config, "functionCallingConfig"));
    let calling = calling.unwrap_or(&Value::Null);
    let choice = match (calling["mode"].as_str(), get(calling, "allowedFunctionNames")) {
        (Some("NONE"), _) => Choice::Never,
        (Some("ANY"), Some(Value::Array(names))) => {
            names.first().and_then(Value::as_str).map_or(Choice::Free, Choice::Named)
        }
        _ => Choice::Free,
    };
    Ok(Said::new(&text_or_hello(&last["parts"]), read, limit).or_calls(&tools, &choice))
}

fn tool(tool: &Value) -> Option<Tool<'_>> {
    let schema = get(tool, "parametersJsonSchema").or_else(|| tool.get("parameters"));
    Some(Tool { name: tool["name"].as_str()?, schema: schema.unwrap_or(&Value::Null) })
}

/// A field under its name, or under the same in words with underscores, which Google's APIs take as well.
fn get<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| {
        let underscored = name.chars().fold(String::new(), |mut text, letter| {
            if letter.is_ascii_uppercase() {
                text.push('_');
            }
            text.push(letter.to_ascii_lowercase());
            text
        });
        value.get(&underscored)
    })
}

fn part(said: &Said, text: &str) -> Value {
    match &said.tool {
        Some(name) => json!({"functionCall": {"name": name, "args": said.arguments()}}),
        None => json!({"text": text}),
    }
}

/// `written` is told with the end.
fn response(model: &str, parts: &Value, said: &Said, written: Option<usize>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    let mut usage = json!({
        "promptTokenCount": said.prompt_tokens, "totalTokenCount": said.prompt_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": said.prompt_tokens}],
    });
    if let Some(written) = written {
        let length = said.finish() == Finish::Length;
        candidate["finishReason"] = if length { "MAX_TOKENS" } else { "STOP" }.into();
        usage["candidatesTokenCount"] = written.into();
        usage["totalTokenCount"] = (said.prompt_tokens + written).into();
    }
    json!({
        "candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "simulated",
    })
}
