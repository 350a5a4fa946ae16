//! What answers cost: counted of every answer of a model, in every dialect, also when it goes no further; and asked for on
//! the client's behalf.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::{
    proxy::{Proxy, chat, client, streamed_chat, toml},
    upstream::{Answer, Gate, Upstream},
};

mod support;

const CHATS: &str = "/v1/chat/completions";
const ASK: &str = "ask_for_usage = true";

async fn with_one_key(settings: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], settings, "")).await;
    (upstream, proxy)
}

/// All that has been counted: input, cached input and output, of each source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tokens {
    told: [u64; 3],
    estimated: [u64; 3],
}

async fn tokens(proxy: &Proxy) -> Tokens {
    proxy.until_at_rest().await;
    let mut tokens = Tokens::default();
    for (source, counts) in [("told", &mut tokens.told), ("estimated", &mut tokens.estimated)] {
        for (kind, count) in ["input", "cached_input", "output"].into_iter().zip(counts) {
            let line = format!("key_cycle_tokens_total{{kind=\"{kind}\",source=\"{source}\"}}");
            *count = proxy.metric(&line).await as u64;
        }
    }
    tokens
}

fn told(counts: [u64; 3]) -> Tokens {
    Tokens { told: counts, ..Tokens::default() }
}

/// A stream that is written in these pieces, byte for byte.
fn stream<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Answer {
    let pieces = pieces.into_iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes()));
    Answer::pieces(pieces).header("content-type", "text/event-stream")
}

fn events(data: &[Value]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

fn chunk(content: &str) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": content}}]})
}

fn usage_chunk() -> String {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11});
    events(&[json!({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage})])
}

const DONE: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn every_answer_of_a_model_is_counted_in_every_dialect() {
    let openai = json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4}});
    let responses = json!({"input_tokens": 9, "output_tokens": 2, "total_tokens": 11,
        "input_tokens_details": {"cached_tokens": 4}});
    let anthropic = json!({"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2,
        "output_tokens": 2});
    let gemini = json!({"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1,
        "thoughtsTokenCount": 1, "cachedContentTokenCount": 4}});
    let message_start = json!({"type": "message_start", "message": {"id": "m", "usage": anthropic}});
    let cases = [
        (CHATS, Answer::ok().json(&json!({"choices": [{"message": {"content": "Yes."}}], "usage": openai}))),
        ("/v1/completions", Answer::ok().json(&json!({"choices": [{"text": "Yes."}], "usage": openai}))),
        ("/v1/responses", Answer::ok().json(&json!({"object": "response", "usage": responses}))),
        ("/v1/images/generations", Answer::ok().json(&json!({"data": [], "usage": responses}))),
        ("/v1/audio/transcriptions", Answer::ok().json(&json!({"text": "Yes.", "usage": responses}))),
        ("/v1/messages", Answer::ok().json(&json!({"content": [], "usage": anthropic}))),
        (CHATS, Answer::ok().json(&gemini)),
        (CHATS, Answer::ok().json(&json!([gemini, gemini]))),
        (CHATS, Answer::ok().json(&json!({"id": "mistral", "usage": openai, "z": "a".repeat(9000)}))),
        (CHATS, stream([&*events(&[chunk("Yes."), json!({"choices": [], "usage": openai})]), DONE])),
        (CHATS, stream([&*events(&[json!({"choices": [], "x_groq": {"usage": openai}})]), DONE])),
        (CHATS, stream([&*events(&[gemini.clone(), gemini.clone()])])),
        (
            "/v1/responses",
            stream([&*events(&[json!({"type": "response.completed", "response": {"usage": responses}})])]),
        ),
        (
            "/v1/messages",
            stream([&*events(&[
                message_start,
                json!({"type": "content_block_delta", "delta": {"text": "Yes."}}),
                json!({"type": "message_delta", "usage": {"output_tokens": 2}}),
                json!({"type": "message_stop"}),
            ])]),
        ),
    ];
    let (upstream, proxy) = with_one_key("").await;
    let mut before = 0;
    for (at, (path, answer)) in cases.into_iter().enumerate() {
        upstream.key("sk-one").always(answer);
        assert_eq!(proxy.post(path, chat("m")).await.status, 200, "{at}");
        before += 1;
        let counts = tokens(&proxy).await;
        assert_eq!(counts, told([9 * before, 4 * before, 2 * before]), "{at} {path}");
    }
    let cohere = json!({"usage": {"billed_units": {"input_tokens": 1}, "tokens": {"input_tokens": 9, "output_tokens": 2}}});
    let embedding = json!({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}});
    for (path, answer, output) in [(CHATS, cohere, 2), ("/v1/embeddings", embedding, 0)] {
        let earlier = tokens(&proxy).await.told;
        upstream.key("sk-one").always(Answer::ok().json(&answer));
        proxy.post(path, chat("m")).await;
        let [input, cached, out] = earlier;
        assert_eq!(tokens(&proxy).await, told([input + 9, cached, out + output]), "{path}");
    }
}

#[tokio::test]
async fn what_costs_nothing_or_is_no_answer_is_not_counted() {
    let (upstream, proxy) = with_one_key("").await;
    upstream.key("sk-one").always(Answer::ok().json(&json!({"input_tokens": 900})));
    for path in ["/v1/messages/count_tokens", "/v1/responses/input_tokens"] {
        assert_eq!(proxy.post(path, chat("m")).await.status, 200);
    }
    proxy.request(http::Method::GET, "/v1/models").await;
    upstream
        .key("sk-one")
        .always(Answer::status(400).json(&json!({"error": {}, "usage": {"prompt_tokens": 9}})));
    assert_eq!(proxy.chat("m").await.status, 400);
    assert_eq!(tokens(&proxy).await, Tokens::default());
}

#[tokio::test]
async fn what_is_not_told_is_estimated() {
    let (upstream, proxy) = with_one_key("").await;
    let words = vec![chunk("a"); 50];
    upstream.key("sk-one").always(stream([&*events(&words), DONE]));
    proxy.post(CHATS, streamed_chat("m")).await;
    let counts = tokens(&proxy).await;
    assert_eq!((counts.told, counts.estimated[2]), ([0; 3], 51));
    assert!((10..40).contains(&counts.estimated[0]), "{counts:?}");
    upstream.key("sk-one").always(Answer::ok().json(&json!({"data": [{"embedding": vec![0.5; 1000]}]})));
    proxy.post("/v1/embeddings", chat("m")).await;
    let after = tokens(&proxy).await;
    assert_eq!(after.estimated[2], 51, "an embedding is no text");
    assert!(after.estimated[0] > counts.estimated[0]);
}

#[tokio::test]
async fn a_client_that_leaves_has_spent_what_was_counted_until_then() {
    let start = json!({"type": "message_start", "message": {"usage": {"input_tokens": 70, "cache_read_input_tokens": 7, "output_tokens": 1}}});
    let delta = json!({"type": "content_block_delta", "delta": {"text": "Yes."}});
    let end = json!({"type": "message_delta", "usage": {"output_tokens": 15}});
    let gemini = json!({"candidates": [{"content": {}}], "usageMetadata": {"promptTokenCount": 70, "candidatesTokenCount": 5}});
    let cases = [
        (
            vec![start.clone(), delta.clone(), delta.clone()],
            Tokens { estimated: [77, 7, 3], ..Tokens::default() },
        ),
        (vec![start, delta, end], told([77, 7, 15])),
        (vec![gemini], Tokens { estimated: [70, 0, 5], ..Tokens::default() }),
    ];
    for (data, expected) in cases {
        let (upstream, proxy) = with_one_key("").await;
        let gate = Gate::new();
        gate.release(data.len());
        let pieces: Vec<_> = data.iter().map(|data| events(std::slice::from_ref(data))).collect();
        let all = pieces.concat();
        let answer = stream(pieces.iter().map(String::as_str).chain(["data: never\n\n"]));
        upstream.key("sk-one").always(answer.gated(&gate));
        let answer = client().post(proxy.url("/v1/messages")).body(streamed_chat("m")).send().await;
        let mut answer = answer.expect("an answer");
        let mut read = Vec::new();
        while read.len() < all.len() {
            read.extend(answer.chunk().await.expect("it comes").expect("it goes on"));
        }
        drop(answer);
        assert_eq!(tokens(&proxy).await, expected, "{all}");
    }
}

#[tokio::test]
async fn streams_that_break_or_fail_have_cost_what_was_counted_until_then() {
    let (upstream, proxy) = with_one_key("").await;
    let start =
        json!({"type": "message_start", "message": {"usage": {"input_tokens": 70, "output_tokens": 1}}});
    let start = events(&[start, json!({"type": "content_block_delta", "delta": {"text": "Yes."}})]);
    upstream.key("sk-one").always(stream([&*start, "data: never\n\n"]).cut_after(1));
    let answer = client().post(proxy.url("/v1/messages")).body(streamed_chat("m")).send().await;
    assert!(answer.expect("it begins").bytes().await.is_err());
    assert_eq!(tokens(&proxy).await.estimated, [70, 0, 2]);
    let error = events(&[json!({"type": "error", "error": {"type": "overloaded_error", "message": "No."}})]);
    upstream.key("sk-one").always(stream([&*start, &error]));
    proxy.post("/v1/messages", streamed_chat("m")).await;
    assert_eq!(tokens(&proxy).await, Tokens { estimated: [140, 0, 5], ..Tokens::default() });
}

#[tokio::test]
async fn the_usage_of_a_stream_is_asked_for_and_kept_from_who_has_not_asked() {
    let (upstream, proxy) = with_one_key(ASK).await;
    let word = events(&[chunk("Yes.")]);
    let usage = usage_chunk();
    let answers = [
        stream([&*word, &word, &usage, DONE]),
        stream([&*format!("{word}{word}{usage}{DONE}")]),
        stream([&*format!("{word}{word}{}", &usage[..30]), &usage[30..90], &usage[90..], DONE]),
        // What is known to be shorter than it comes would end too soon.
        Answer::status(200)
            .header("content-type", "text/event-stream")
            .body(format!("{word}{word}{usage}{DONE}")),
    ];
    for (at, answer) in (1..).zip(answers) {
        upstream.key("sk-one").always(answer);
        let got = proxy.post(CHATS, streamed_chat("m")).await;
        assert_eq!((got.status, got.text()), (200, format!("{word}{word}{DONE}")), "{at}");
        assert_eq!(tokens(&proxy).await, told([9 * at, 0, 2 * at]));
        let sent = upstream.last_request();
        let mut expected: Value = serde_json::from_str(&streamed_chat("m")).expect("JSON");
        expected["stream_options"] = json!({"include_usage": true});
        assert_eq!((sent.json(), sent.header("accept-encoding")), (expected, Some("identity")));
    }
    for options in [json!({"include_usage": false}), json!(null), json!({"include_obfuscation": false})] {
        let mut body: Value = serde_json::from_str(&streamed_chat("m")).expect("JSON");
        body["stream_options"] = options;
        let got = proxy.post(CHATS, body.to_string()).await;
        assert_eq!(got.text(), format!("{word}{word}{DONE}"));
        assert_eq!(upstream.last_request().json()["stream_options"]["include_usage"], true);
    }
}

#[tokio::test]
async fn who_asks_gets_the_usage_and_nothing_is_edited() {
    let (upstream, proxy) = with_one_key(ASK).await;
    let all = format!("{}{}{DONE}", events(&[chunk("Yes.")]), usage_chunk());
    upstream.key("sk-one").always(stream([&*all]));
    let asking = streamed_chat("m").replacen('{', "{\"stream_options\": {\"include_usage\" :true},", 1);
    let streamed = streamed_chat("m");
    for (path, body) in [
        (CHATS, asking),
        (CHATS, chat("m")),
        // These have no such option.
        ("/v1/responses", streamed.clone()),
        ("/v1/messages", streamed.clone()),
    ] {
        let got = proxy.post(path, body.clone()).await;
        assert_eq!(got.text(), all, "{path} {body}");
        assert_eq!(upstream.last_request().body, body.as_bytes());
    }
    // A digest is of the bytes that the client sends.
    let request =
        client().post(proxy.url(CHATS)).header("content-digest", "sha-256=:x:").body(streamed.clone());
    assert_eq!(request.send().await.expect("an answer").text().await.expect("text"), all);
    assert_eq!(upstream.last_request().body, streamed.as_bytes());
    // Nor is it asked where nobody has said that it should be.
    let (upstream, proxy) = with_one_key("").await;
    upstream.key("sk-one").always(stream([&*all]));
    assert_eq!(proxy.post(CHATS, streamed.clone()).await.text(), all);
    assert_eq!(upstream.last_request().body, streamed.as_bytes());
}

#[tokio::test]
async fn whoever_ignores_the_question_is_delivered_byte_for_byte() {
    let (upstream, proxy) = with_one_key(ASK).await;
    let openers = events(&[json!({"choices": [], "prompt_filter_results": []}), chunk("Yes.")]);
    let mut last = chunk("");
    last["usage"] = json!({"prompt_tokens": 9, "completion_tokens": 2});
    for all in [
        format!("{openers}{DONE}"),
        format!("{openers}{}{DONE}", events(&[last])).replace('\n', "\r\n"),
        format!(": ping\n\n{openers}data: {{\"choices\":[],\"us"),
        format!("{openers}data: {{\"choices\":[],\"usage\":null}}\n\n"),
    ] {
        upstream.key("sk-one").always(stream([&*all]));
        assert_eq!(proxy.post(CHATS, streamed_chat("m")).await.text(), all);
    }
    let json = json!({"choices": [], "usage": {"prompt_tokens": 9}});
    upstream.key("sk-one").always(Answer::ok().json(&json));
    assert_eq!(proxy.post(CHATS, streamed_chat("m")).await.text(), json.to_string());
}

#[tokio::test]
async fn what_is_held_back_of_a_stream_that_breaks_off_still_comes() {
    let (upstream, proxy) = with_one_key(ASK).await;
    let (word, half) = (events(&[chunk("Yes.")]), "data: {\"choices\":[],\"usa");
    upstream.key("sk-one").always(stream([&*word, half, "never"]).cut_after(2));
    let answer = client().post(proxy.url(CHATS)).body(streamed_chat("m")).send().await.expect("it begins");
    let mut body = http::Response::from(answer).into_body();
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        read.extend(frame.into_data().expect("data"));
    }
    assert_eq!(String::from_utf8_lossy(&read), format!("{word}{half}"));
    let counts = tokens(&proxy).await;
    assert_eq!((counts.told, counts.estimated[2]), ([0; 3], 1));
}
