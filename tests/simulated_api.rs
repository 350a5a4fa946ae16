//! The realistic API of the simulated upstream, as the official SDKs expect it.

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::upstream::Upstream;

struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).expect("JSON")).collect()
    }
}

async fn send(up: &Upstream, key: &str, method: Method, path: &str, body: (&str, String)) -> Reply {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.request(method, format!("{}{path}", up.url())).bearer_auth(key);
    let answer = request.header("content-type", body.0).body(body.1).send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Reply {
        status,
        headers,
        text: String::from_utf8_lossy(&answer.bytes().await.expect("a body")).into_owned(),
    }
}

async fn post(up: &Upstream, path: &str, body: Value) -> Reply {
    send(up, "sk-a", Method::POST, path, ("application/json", body.to_string())).await
}

async fn get(up: &Upstream, key: &str, path: &str) -> Reply {
    send(up, key, Method::GET, path, ("text/plain", String::new())).await
}

async fn post_form(up: &Upstream, path: &str, fields: &[(&str, &str)], file: &str) -> Reply {
    let mut form = String::new();
    for (name, value) in fields {
        form += &format!("--b7\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    form += "--b7\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n";
    form += &format!("Content-Type: application/octet-stream\r\n\r\n{file}\r\n--b7--\r\n");
    send(up, "sk-a", Method::POST, path, ("multipart/form-data; boundary=b7", form)).await
}

fn hello() -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "say three words"}]})
}

#[tokio::test]
async fn a_chat_echoes_the_last_user_message() {
    let up = Upstream::start().await;
    let reply = post(&up, "/v1/chat/completions", hello()).await;
    let answer = reply.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "say three words");
    assert_eq!(answer["usage"]["total_tokens"], 6);
    for header in ["x-request-id", "openai-organization", "openai-project", "openai-processing-ms"] {
        assert!(reply.headers.contains_key(header), "{header}");
    }
    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
    assert!(!format!("{:?}", reply.headers).contains("sk-a"));
}

#[tokio::test]
async fn two_equal_requests_get_equal_answers() {
    let up = Upstream::start().await;
    let (one, two) =
        (post(&up, "/v1/chat/completions", hello()).await, post(&up, "/v1/chat/completions", hello()).await);
    assert_eq!(one.text, two.text);
    assert_ne!(one.headers["x-request-id"], two.headers["x-request-id"]);
}

#[tokio::test]
async fn a_streamed_chat_says_the_same_word_by_word() {
    let up = Upstream::start().await;
    let mut question = hello();
    question["stream"] = true.into();
    question["stream_options"] = json!({"include_usage": true});
    let reply = post(&up, "/v1/chat/completions", question).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    assert!(reply.text.ends_with("data: [DONE]\n\n"));
    let events = reply.events();
    let said: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "say three words");
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 3);
    assert_eq!(events.last().unwrap()["choices"], json!([]));
}

#[tokio::test]
async fn a_limit_on_tokens_cuts_the_answer() {
    let up = Upstream::start().await;
    let mut question = hello();
    question["max_tokens"] = 2.into();
    let choice = post(&up, "/v1/chat/completions", question).await.json()["choices"][0].take();
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("say three "), &json!("length"))
    );
}

#[tokio::test]
async fn completions_come_whole_or_streamed() {
    let up = Upstream::start().await;
    let whole = post(&up, "/v1/completions", json!({"model": "m", "prompt": "a b"})).await;
    assert_eq!(whole.json()["choices"][0]["text"], "a b");
    let streamed = post(&up, "/v1/completions", json!({"model": "m", "prompt": "a b", "stream": true})).await;
    let text: String = streamed.events().iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "a b");
}

#[tokio::test]
async fn a_response_comes_whole_or_as_named_events() {
    let up = Upstream::start().await;
    let whole = post(&up, "/v1/responses", json!({"model": "m", "input": "a b"})).await.json();
    assert_eq!(whole["output"][0]["content"][0]["text"], "a b");
    let streamed = post(&up, "/v1/responses", json!({"model": "m", "input": "a b", "stream": true})).await;
    let events = streamed.events();
    assert!(streamed.text.starts_with("event: response.created\ndata: {"));
    assert!(events.iter().enumerate().all(|(n, event)| event["sequence_number"] == n));
    assert_eq!(events.last().unwrap()["response"], whole);
}

#[tokio::test]
async fn responses_belong_to_an_account() {
    let up = Upstream::start().await;
    up.key("sk-b").account("proj_other");
    let made = post(&up, "/v1/responses", json!({"model": "m", "input": "a"})).await.json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(get(&up, "sk-a", &path).await.status, 200);
    assert_eq!(get(&up, "sk-b", &path).await.status, 404);
    let next = json!({"model": "m", "input": "a", "previous_response_id": made["id"]});
    assert_eq!(post(&up, "/v1/responses", next).await.json()["previous_response_id"], made["id"]);
    let lost =
        post(&up, "/v1/responses", json!({"model": "m", "input": "a", "previous_response_id": "resp_x"}))
            .await;
    assert_eq!((lost.status, &lost.json()["error"]["code"]), (400, &json!("previous_response_not_found")));
}

#[tokio::test]
async fn models_are_listed_under_every_prefix() {
    let up = Upstream::start().await;
    for path in ["/v1/models", "/openai/v1/models", "/v1beta/openai/models"] {
        assert_eq!(get(&up, "sk-a", path).await.json()["object"], "list", "{path}");
    }
    assert_eq!(get(&up, "sk-a", "/v1/models/org/name").await.json()["id"], "org/name");
    assert_eq!(get(&up, "sk-a", "/v1/v1/models").await.status, 404);
}

#[tokio::test]
async fn refusals_name_their_cause() {
    let up = Upstream::start().await;
    let cases = [
        (
            post(&up, "/v1/chat/completions", json!({"model": "gpt-4o"})).await,
            400,
            "missing_required_parameter",
        ),
        (get(&up, "sk-a", "/v1/models/no-such-model").await, 404, "model_not_found"),
        (
            post(&up, "/v1/embeddings", json!({"model": "no-such-model", "input": ""})).await,
            404,
            "model_not_found",
        ),
    ];
    for (reply, status, code) in cases {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)));
    }
    assert_eq!(post(&up, "/v1/chat/completions", json!("no object")).await.status, 400);
    assert_eq!(get(&up, "sk-a", "/v1/nowhere").await.status, 404);
}

#[tokio::test]
async fn embeddings_are_the_same_in_both_encodings() {
    let up = Upstream::start().await;
    let ask =
        |format: &str| json!({"model": "m", "input": ["a", "b"], "dimensions": 2, "encoding_format": format});
    let floats = post(&up, "/v1/embeddings", ask("float")).await.json();
    let coded = post(&up, "/v1/embeddings", ask("base64")).await.json();
    assert_eq!(floats["data"].as_array().unwrap().len(), 2);
    assert_ne!(floats["data"][0]["embedding"], floats["data"][1]["embedding"]);
    let first = floats["data"][0]["embedding"][0].as_f64().unwrap() as f32;
    let letters = coded["data"][0]["embedding"].as_str().unwrap();
    assert_eq!((letters.len(), &letters[11..]), (12, "="));
    assert_eq!(first_float(letters), first);
}

fn first_float(base64: &str) -> f32 {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |letter| LETTERS.find(letter).expect("a letter of base64") as u64;
    let bits = base64.chars().take(6).fold(0, |bits, letter| bits << 6 | value(letter)) >> 4;
    f32::from_bits(u32::try_from(bits).expect("32 bits").swap_bytes())
}

#[tokio::test]
async fn moderations_images_and_speech_have_their_shapes() {
    let up = Upstream::start().await;
    let judged = post(&up, "/v1/moderations", json!({"input": ["peace", "violence"]})).await.json();
    assert_eq!(
        (&judged["results"][0]["flagged"], &judged["results"][1]["flagged"]),
        (&json!(false), &json!(true))
    );
    let images = post(&up, "/v1/images/generations", json!({"prompt": "grey", "n": 2})).await.json();
    assert!(images["data"][1]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    let speech =
        post(&up, "/v1/audio/speech", json!({"model": "tts-1", "input": "a", "voice": "alloy"})).await;
    assert_eq!(speech.headers["content-type"], "audio/mpeg");
}

#[tokio::test]
async fn a_transcription_says_how_large_the_file_was() {
    let up = Upstream::start().await;
    let path = "/v1/audio/transcriptions";
    let reply = post_form(&up, path, &[("model", "whisper-1")], "12345").await;
    assert_eq!(reply.json()["text"], "5 bytes of sound");
    let plain = post_form(&up, path, &[("model", "whisper-1"), ("response_format", "text")], "").await;
    assert_eq!(plain.text, "0 bytes of sound\n");
    assert_eq!(post_form(&up, path, &[("model", "no-such-model")], "1").await.status, 404);
}

#[tokio::test]
async fn files_live_and_die_with_their_account() {
    let up = Upstream::start().await;
    let file = post_form(&up, "/v1/files", &[("purpose", "batch")], "content\r\n").await.json();
    assert_eq!((&file["bytes"], &file["filename"]), (&json!(9), &json!("a.bin")));
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(get(&up, "sk-a", &path).await.json(), file);
    assert_eq!(get(&up, "sk-a", &format!("{path}/content")).await.text, "content\r\n");
    assert_eq!(get(&up, "sk-a", "/v1/files").await.json()["data"], json!([file]));
    assert_eq!(get(&up, "sk-b", "/v1/files").await.json()["data"], json!([]));
    assert_eq!(get(&up, "sk-b", &path).await.status, 404);
    let deleted = send(&up, "sk-a", Method::DELETE, &path, ("text/plain", String::new())).await;
    assert_eq!(deleted.json()["deleted"], true);
    assert_eq!(get(&up, "sk-a", &path).await.status, 404);
}
