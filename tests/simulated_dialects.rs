//! The simulated upstream in the words of Anthropic, Gemini, Azure and plain REST services.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{
    dialects::{
        ANTHROPIC, AZURE, BEARER, DEPLOYMENT, GEMINI, GENERATE, Headers, STREAM, contents, get, message,
        post, schema, with,
    },
    upstream::{Answer, Character, Upstream},
};

#[tokio::test]
async fn a_message_echoes_the_last_user_message() {
    let up = Upstream::start().await;
    let reply = post(&up, "/v1/messages", ANTHROPIC, message()).await;
    let answer = reply.json();
    assert_eq!(answer["content"], json!([{"type": "text", "text": "say three words"}]));
    assert_eq!((&answer["stop_reason"], &answer["usage"]["output_tokens"]), (&json!("end_turn"), &json!(3)));
    for name in ["request-id", "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-input-tokens-limit"]
    {
        assert!(reply.headers.contains_key(name), "{name}");
    }
    let cut = post(&up, "/v1/messages", ANTHROPIC, with(message(), "max_tokens", 2.into())).await.json();
    assert_eq!(
        (&cut["content"][0]["text"], &cut["stop_reason"]),
        (&json!("say three "), &json!("max_tokens"))
    );
}

#[tokio::test]
async fn a_streamed_message_says_the_same_in_named_events() {
    let up = Upstream::start().await;
    let reply = post(&up, "/v1/messages", ANTHROPIC, with(message(), "stream", true.into())).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let events = reply.events();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    let names = reply.text.lines().filter_map(|line| line.strip_prefix("event: "));
    assert!(names.eq(kinds.iter().copied()));
    let delta = "content_block_delta";
    let expected = [
        "message_start",
        "content_block_start",
        "ping",
        delta,
        delta,
        delta,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds, expected);
    let said: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(said, "say three words");
    assert_eq!(
        (&events[0]["message"]["usage"]["output_tokens"], &events[7]["usage"]["output_tokens"]),
        (&json!(1), &json!(3))
    );
}

#[tokio::test]
async fn tools_are_called_with_arguments_that_fit_until_there_is_a_result() {
    let up = Upstream::start().await;
    let fitting = json!({"city": "say three words", "days": 1});

    let offered = with(message(), "tools", json!([{"name": "weather", "input_schema": schema()}]));
    let answer = post(&up, "/v1/messages", ANTHROPIC, offered.clone()).await.json();
    assert_eq!((&answer["content"][0]["input"], &answer["stop_reason"]), (&fitting, &json!("tool_use")));
    let events =
        post(&up, "/v1/messages", ANTHROPIC, with(offered.clone(), "stream", true.into())).await.events();
    let json: String = events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), fitting);
    let result = json!([{"type": "tool_result", "tool_use_id": "toolu_simulated", "content": "fine"}]);
    let messages = json!([{"role": "user", "content": result}]);
    let told = post(&up, "/v1/messages", ANTHROPIC, with(offered, "messages", messages)).await.json();
    assert_eq!(told["content"][0]["text"], "fine");

    let declared = json!([{"functionDeclarations": [{"name": "weather", "parameters": schema()}]}]);
    let underscored =
        json!([{"function_declarations": [{"name": "weather", "parameters_json_schema": schema()}]}]);
    let offered = with(contents(), "tools", underscored);
    let the_same = post(&up, GENERATE, GEMINI, offered).await.json();
    let offered = with(contents(), "tools", declared);
    let answer = post(&up, GENERATE, GEMINI, offered.clone()).await.json();
    assert_eq!(answer, the_same);
    let called = json!({"functionCall": {"name": "weather", "args": fitting}});
    assert_eq!(answer["candidates"][0]["content"]["parts"], json!([called]));
    let none = with(offered, "toolConfig", json!({"functionCallingConfig": {"mode": "NONE"}}));
    let answer = post(&up, GENERATE, GEMINI, none).await.json();
    assert_eq!(answer["candidates"][0]["content"]["parts"][0]["text"], "say three words");

    let function = json!({"type": "function", "function": {"name": "weather", "parameters": schema()}});
    let offered = with(message(), "tools", json!([function]));
    let answer = post(&up, "/v1/chat/completions", BEARER, offered.clone()).await.json();
    let arguments = &answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"];
    assert_eq!(*arguments, json!(fitting.to_string()));
    let streamed = post(&up, "/v1/chat/completions", BEARER, with(offered, "stream", true.into())).await;
    let calls = streamed.text.matches("\"arguments\":").count();
    assert_eq!(calls, 1 + fitting.to_string().split_inclusive(' ').count());
}

#[tokio::test]
async fn anthropic_wants_its_version_and_a_key_in_either_header() {
    let up = Upstream::start().await;
    let version = ("anthropic-version", "2023-06-01");
    let refused = post(&up, "/v1/messages", &[("x-api-key", "sk-a")], message()).await;
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    let refused = post(&up, "/v1/messages", &[("api-key", "sk-a"), version], message()).await;
    let error = refused.json();
    assert_eq!((refused.status, &error["error"]["type"]), (401, &json!("authentication_error")));
    assert_eq!(refused.headers["request-id"], *error["request_id"].as_str().expect("an id"));
    for own in [("x-api-key", "sk-a"), ("authorization", "Bearer sk-a")] {
        assert_eq!(post(&up, "/v1/messages", &[own, version], message()).await.status, 200);
        assert_eq!(get(&up, "/v1/models", &[own, version]).await.json()["data"][0]["type"], "model");
    }
    assert_eq!(post(&up, "/v1/chat/completions", BEARER, message()).await.status, 200);
    assert_eq!(post(&up, "/v1/chat/completions", &[("x-api-key", "sk-a")], message()).await.status, 401);
}

#[tokio::test]
async fn anthropic_refuses_what_is_missing_or_unknown() {
    let up = Upstream::start().await;
    for (name, value, status) in [
        ("max_tokens", Value::Null, 400),
        ("model", Value::Null, 400),
        ("messages", json!([]), 400),
        ("model", "no-such-model".into(), 404),
    ] {
        let refused = post(&up, "/v1/messages", ANTHROPIC, with(message(), name, value)).await;
        assert_eq!((refused.status, &refused.json()["type"]), (status, &json!("error")), "{name}");
    }
    assert_eq!(get(&up, "/v1/messages", ANTHROPIC).await.status, 405);
}

#[tokio::test]
async fn anthropic_counts_lists_and_batches() {
    let up = Upstream::start().await;
    let counted = post(&up, "/v1/messages/count_tokens", ANTHROPIC, message()).await.json();
    assert_eq!(counted, json!({"input_tokens": 3}));
    let first = get(&up, "/v1/models?limit=2", ANTHROPIC).await.json();
    assert_eq!((first["data"].as_array().map(Vec::len), &first["has_more"]), (Some(2), &json!(true)));
    let last = first["last_id"].as_str().expect("an id");
    let second = get(&up, &format!("/v1/models?limit=2&after_id={last}"), ANTHROPIC).await.json();
    assert_eq!((second["data"].as_array().map(Vec::len), &second["has_more"]), (Some(1), &json!(false)));
    assert_eq!(get(&up, &format!("/v1/models/{last}"), ANTHROPIC).await.json()["type"], "model");

    let requests = json!({"requests": [{"custom_id": "one", "params": message()}]});
    let batch = post(&up, "/v1/messages/batches", ANTHROPIC, requests).await.json();
    let path = format!("/v1/messages/batches/{}", batch["id"].as_str().expect("an id"));
    assert_eq!(get(&up, &path, ANTHROPIC).await.json(), batch);
    let results = get(&up, &format!("{path}/results"), ANTHROPIC).await.json();
    assert_eq!(results["result"]["message"]["content"][0]["text"], "say three words");
    let stranger: Headers<'_> = &[("x-api-key", "sk-b"), ("anthropic-version", "2023-06-01")];
    assert_eq!(get(&up, &path, stranger).await.status, 404);
}

#[tokio::test]
async fn gemini_generates_whole_as_events_and_as_an_array() {
    let up = Upstream::start().await;
    let whole = post(&up, GENERATE, GEMINI, contents()).await;
    assert_eq!(whole.headers["content-type"], "application/json; charset=UTF-8");
    let whole = whole.json();
    assert_eq!(whole["candidates"][0]["content"]["parts"][0]["text"], "say three words");
    assert_eq!(whole["usageMetadata"]["totalTokenCount"], 6);

    let events = post(&up, &format!("{STREAM}?alt=sse"), GEMINI, contents()).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert!(events.text.ends_with("}\r\n\r\n"));
    let array = post(&up, STREAM, GEMINI, contents()).await;
    let pieces = array.json();
    assert_eq!(*pieces.as_array().expect("an array"), events.events());
    let texts =
        |piece: &Value| piece["candidates"][0]["content"]["parts"][0]["text"].as_str().map(str::to_owned);
    assert_eq!(events.events().iter().filter_map(texts).collect::<String>(), "say three words");
    assert_eq!(pieces[2]["candidates"][0]["finishReason"], "STOP");
    assert_eq!(pieces[2]["usageMetadata"], whole["usageMetadata"]);
}

#[tokio::test]
async fn gemini_embeds_counts_and_lists() {
    let up = Upstream::start().await;
    let one = json!({"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 4});
    let embedded = post(&up, "/v1beta/models/e:embedContent", GEMINI, one.clone()).await.json();
    let both = json!({"requests": [one, {"content": {"parts": [{"text": "b"}]}, "outputDimensionality": 4}]});
    let batch = post(&up, "/v1beta/models/e:batchEmbedContents", GEMINI, both).await.json();
    assert_eq!(batch["embeddings"][0], embedded["embedding"]);
    assert_ne!(batch["embeddings"][1], embedded["embedding"]);
    assert_eq!(embedded["embedding"]["values"].as_array().map(Vec::len), Some(4));
    let counted = post(&up, "/v1beta/models/m:countTokens", GEMINI, contents()).await.json();
    assert_eq!(counted["totalTokens"], 3);
    let list = get(&up, "/v1beta/models?pageSize=2", GEMINI).await.json();
    let next =
        format!("/v1beta/models?pageSize=2&pageToken={}", list["nextPageToken"].as_str().expect("more"));
    let rest = get(&up, &next, GEMINI).await.json();
    assert_eq!((rest["models"].as_array().map(Vec::len), &rest["nextPageToken"]), (Some(1), &Value::Null));
    assert_eq!(get(&up, "/v1beta/models/m", GEMINI).await.json()["name"], "models/m");
    assert_eq!(get(&up, "/v1/models", GEMINI).await.json()["models"][0]["name"], "models/gemini-2.5-flash");
    assert_eq!(post(&up, "/v1/models/m:countTokens", GEMINI, contents()).await.json(), counted);
    assert_eq!(get(&up, "/v1beta/openai/models", BEARER).await.json()["object"], "list");
}

#[tokio::test]
async fn gemini_takes_a_key_from_its_header_or_the_query_and_records_which() {
    let up = Upstream::start().await;
    assert_eq!(post(&up, &format!("{GENERATE}?key=sk-a"), &[], contents()).await.status, 200);
    let recorded = up.last_request();
    assert_eq!((recorded.query(), recorded.key.as_deref()), (Some("key=sk-a"), Some("sk-a")));
    assert_eq!(post(&up, GENERATE, GEMINI, contents()).await.status, 200);
    assert_eq!(up.last_request().query(), None);
    assert_eq!(post(&up, GENERATE, BEARER, contents()).await.status, 401);
    assert_eq!(post(&up, GENERATE, &[], contents()).await.status, 403);
}

#[tokio::test]
async fn gemini_refuses_in_an_array_where_a_stream_would_have_been_one() {
    let up = Upstream::start().await;
    up.key("sk-a").is(Character::Revoked);
    let bad = |error: &Value| {
        let reason = &error["details"][0]["reason"];
        (error["code"].as_u64(), error["status"].clone(), reason.clone())
            == (Some(400), json!("INVALID_ARGUMENT"), json!("API_KEY_INVALID"))
    };
    for path in [GENERATE, &format!("{STREAM}?alt=sse")] {
        assert!(bad(&post(&up, path, GEMINI, contents()).await.json()["error"]), "{path}");
    }
    assert!(bad(&post(&up, STREAM, GEMINI, contents()).await.json()[0]["error"]));
    let compatible = post(&up, "/v1beta/openai/chat/completions", BEARER, message()).await.json();
    assert!(bad(&compatible[0]["error"]));
    up.key("sk-a").is(Character::Good);
    let unknown = post(&up, "/v1beta/models/no-such-model:generateContent", GEMINI, contents()).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["status"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn gemini_tells_its_limits_in_the_body() {
    let up = Upstream::start().await;
    up.key("sk-a").answers([Answer::rate_limited(Duration::from_secs(46)), Answer::out_of_quota()]);
    for (quota, delay) in [("PerMinute", "46s"), ("PerDay", "22s")] {
        let reply = post(&up, GENERATE, GEMINI, contents()).await;
        assert!(!reply.headers.contains_key("retry-after"));
        let details = reply.json()["error"]["details"].take();
        let id = details[1]["violations"][0]["quotaId"].as_str().expect("an id").to_owned();
        assert!(id.contains(quota), "{id}");
        assert_eq!((reply.status, &details[2]["retryDelay"]), (429, &json!(delay)));
    }
}

#[tokio::test]
async fn azure_answers_at_a_deployment_with_filter_results() {
    let up = Upstream::start().await;
    let whole = post(&up, DEPLOYMENT, AZURE, message()).await;
    let answer = whole.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "say three words");
    assert_eq!(
        (&answer["model"], &answer["prompt_filter_results"][0]["prompt_index"]),
        (&json!("gpt-4o-2024-11-20"), &json!(0))
    );
    assert_eq!(whole.headers["x-ms-deployment-name"], "my-gpt4o");
    let streamed = post(&up, DEPLOYMENT, AZURE, with(message(), "stream", true.into())).await;
    assert!(streamed.text.starts_with("data: {\"choices\":[]"), "{}", streamed.text);
    assert!(streamed.text.ends_with("data: [DONE]\n\n"));
    let embedded = "/openai/deployments/e/embeddings?api-version=2024-10-21";
    assert_eq!(post(&up, embedded, AZURE, json!({"input": "a"})).await.json()["data"][0]["index"], 0);
    assert_eq!(post(&up, "/openai/v1/chat/completions", AZURE, message()).await.status, 200);
}

#[tokio::test]
async fn azure_knows_neither_a_path_without_version_nor_every_deployment() {
    let up = Upstream::start().await;
    for (path, code) in [
        ("/openai/deployments/my-gpt4o/chat/completions", "404"),
        ("/openai/deployments/no-such-model/chat/completions?api-version=1", "DeploymentNotFound"),
    ] {
        let refused = post(&up, path, AZURE, message()).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!(code)));
    }
    let refused = post(&up, DEPLOYMENT, BEARER, message()).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("401")));
}

#[tokio::test]
async fn plain_services_take_their_keys_where_each_has_them() {
    let up = Upstream::start().await;
    let weather = get(&up, "/weather/current?q=New%20York&units=metric&appid=sk-a", &[]).await.json();
    assert_eq!((&weather["name"], &weather["units"]), (&json!("New York"), &json!("metric")));
    assert_eq!(get(&up, "/weather/current?q=Rome", &[("authorization", "Bearer sk-a")]).await.status, 401);
    assert_eq!(get(&up, "/weather/current?appid=sk-a", &[]).await.status, 400);
    for header in [("authorization", "ApiKey sk-a"), ("x-api-token", "sk-a"), ("x-api-token", "Token sk-a")] {
        let found = get(&up, "/maps/geocode?address=here", &[header]).await.json();
        assert_eq!(found["results"][0]["address"], "here");
        assert_eq!(up.last_request().key.as_deref(), Some("sk-a"));
    }
    assert_eq!(get(&up, "/maps/geocode?address=here", BEARER).await.status, 401);
    let token: Headers<'_> = &[("x-api-token", "sk-a")];
    let route = post(&up, "/maps/routes", token, json!({"origin": "a", "destination": "b"})).await.json();
    assert_eq!((&route["from"], &route["to"]), (&json!("a"), &json!("b")));
    let refused = post(&up, "/maps/geocode?address=here", token, json!({})).await;
    assert_eq!((refused.status, &refused.headers["allow"]), (405, &"GET".parse().expect("a value")));
}
