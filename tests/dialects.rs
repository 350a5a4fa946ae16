//! Pools of several dialects behind one address: which path goes where, with which credential, and how errors are told.

use http::Method;
use serde_json::json;
use support::{
    ask::Got,
    forward_proxy::ForwardProxy,
    proxy::{Proxy, client},
    upstream::{Answer, Recorded, Upstream},
};

mod support;

/// A pool of each dialect at one upstream, and the default.
async fn all(upstream: &Upstream) -> Proxy {
    let url = upstream.url();
    let pool = |name: &str, more: &str| {
        format!(
            "[[pools]]\nname = \"{name}\"\nbase_url = \"{url}\"\n{more}[[pools.keys]]\nkey = \"sk-{name}\"\n"
        )
    };
    let toml = [
        format!(
            "[upstream]\nbase_url = \"{url}\"\n[clients]\nkeys = [\"ck\"]\n[[keys.pool]]\nkey = \"sk-default\"\n"
        ),
        pool("groq", ""),
        pool("anthropic", ""),
        pool("gemini", ""),
        pool("azure", "api_version = \"2024-10-21\"\ndeployments = { gpt-4o = \"my gpt\" }\n"),
        pool("azure-v1", "dialect = \"azure\"\ndeployments = { gpt-4o = \"my-gpt\" }\n"),
    ];
    for key in ["default", "groq", "anthropic", "gemini", "azure", "azure-v1"] {
        upstream.key(&format!("sk-{key}"));
    }
    upstream.otherwise(Answer::ok());
    Proxy::start(&toml.concat()).await
}

async fn send(proxy: &Proxy, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
    let request = client().request(method, proxy.url(path)).body(body.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Got::read(request.send().await.expect("an answer")).await
}

async fn post(proxy: &Proxy, path: &str, body: &serde_json::Value) -> Got {
    let headers = [("authorization", "Bearer ck"), ("content-type", "application/json")];
    send(proxy, Method::POST, path, &headers, &body.to_string()).await
}

/// Where a request arrived, and the credentials that it had.
fn arrived(request: &Recorded) -> (String, Vec<String>) {
    let names = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
    let credentials = names.iter().filter_map(|name| Some(format!("{name}: {}", request.header(name)?)));
    (request.target.clone(), credentials.collect())
}

#[tokio::test]
async fn every_path_leads_to_its_pool_and_the_credential_stands_where_its_api_has_it() {
    let upstream = Upstream::start().await;
    let proxy = all(&upstream).await;
    for (path, model, target, credential) in [
        ("/v1/chat/completions", "gpt-4o", "/v1/chat/completions", "authorization: Bearer sk-default"),
        ("/chat/completions", "gpt-4o", "/v1/chat/completions", "authorization: Bearer sk-default"),
        ("/v1/chat/completions", "unknown/model", "/v1/chat/completions", "authorization: Bearer sk-default"),
        ("/v1/chat/completions", "groq/llama", "/v1/chat/completions", "authorization: Bearer sk-groq"),
        (
            "/v1/chat/completions",
            "anthropic/claude",
            "/v1/chat/completions",
            "authorization: Bearer sk-anthropic",
        ),
        (
            "/v1/chat/completions",
            "gemini/g",
            "/v1beta/openai/chat/completions",
            "authorization: Bearer sk-gemini",
        ),
        (
            "/v1beta/openai/chat/completions",
            "gemini/g",
            "/v1beta/openai/chat/completions",
            "authorization: Bearer sk-gemini",
        ),
        (
            "/v1/chat/completions",
            "azure/gpt-4o",
            "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
            "api-key: sk-azure",
        ),
        (
            "/v1/chat/completions",
            "azure/o3",
            "/openai/deployments/o3/chat/completions?api-version=2024-10-21",
            "api-key: sk-azure",
        ),
        ("/v1/chat/completions", "azure-v1/gpt-4o", "/openai/v1/chat/completions", "api-key: sk-azure-v1"),
        (
            "/openai/deployments/d/chat/completions?api-version=1",
            "",
            "/openai/deployments/d/chat/completions?api-version=1",
            "api-key: sk-azure",
        ),
        ("/v1/messages", "claude", "/v1/messages", "x-api-key: sk-anthropic"),
        (
            "/v1/messages/count_tokens?beta=true",
            "claude",
            "/v1/messages/count_tokens?beta=true",
            "x-api-key: sk-anthropic",
        ),
        (
            "/v1beta/models/g:generateContent",
            "",
            "/v1beta/models/g:generateContent",
            "x-goog-api-key: sk-gemini",
        ),
        (
            "/v1beta/models/gemini/g:streamGenerateContent?alt=sse",
            "",
            "/v1beta/models/g:streamGenerateContent?alt=sse",
            "x-goog-api-key: sk-gemini",
        ),
        (
            "/v1alpha/models/g:generateContent",
            "",
            "/v1alpha/models/g:generateContent",
            "x-goog-api-key: sk-gemini",
        ),
        ("/v1/models/g:generateContent", "", "/v1/models/g:generateContent", "x-goog-api-key: sk-gemini"),
        (
            "/upload/v1beta/files?uploadType=media",
            "",
            "/upload/v1beta/files?uploadType=media",
            "x-goog-api-key: sk-gemini",
        ),
        ("/llm/groq/v1/chat/completions", "llama", "/v1/chat/completions", "authorization: Bearer sk-groq"),
        ("/llm/groq/chat/completions", "llama", "/v1/chat/completions", "authorization: Bearer sk-groq"),
        ("/llm/anthropic/v1/messages", "claude", "/v1/messages", "x-api-key: sk-anthropic"),
        (
            "/llm/anthropic/v1/chat/completions",
            "claude",
            "/v1/chat/completions",
            "authorization: Bearer sk-anthropic",
        ),
        (
            "/llm/gemini/v1beta/models/g:generateContent",
            "",
            "/v1beta/models/g:generateContent",
            "x-goog-api-key: sk-gemini",
        ),
        (
            "/llm/gemini/v1beta/openai/chat/completions",
            "g",
            "/v1beta/openai/chat/completions",
            "authorization: Bearer sk-gemini",
        ),
        (
            "/llm/gemini/v1/chat/completions",
            "g",
            "/v1beta/openai/chat/completions",
            "authorization: Bearer sk-gemini",
        ),
        (
            "/llm/azure/openai/deployments/d/chat/completions",
            "",
            "/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "api-key: sk-azure",
        ),
        (
            "/llm/azure/v1/chat/completions",
            "gpt-4o",
            "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
            "api-key: sk-azure",
        ),
        ("/proxy/groq/v1/anything", "", "/v1/anything", "authorization: Bearer sk-groq"),
        ("/proxy/groq/anything?a=1", "", "/v1/anything?a=1", "authorization: Bearer sk-groq"),
    ] {
        let body =
            if model.is_empty() { json!({"contents": []}) } else { json!({"model": model, "messages": []}) };
        post(&proxy, path, &body).await;
        let (at, credentials) = arrived(&upstream.last_request());
        assert_eq!((&*at, credentials), (target, vec![credential.to_owned()]), "{path} {model}");
    }
}

#[tokio::test]
async fn the_body_is_as_it_came_but_for_the_models_name() {
    let upstream = Upstream::start().await;
    let proxy = all(&upstream).await;
    for (model, sent) in
        [("groq/llama-3\\u002e1", "llama-3.1"), ("azure-v1/gpt-4o", "my-gpt"), ("azure-v1/o3", "o3")]
    {
        let body = |model: &str| {
            format!("{{ \"n\": 1.50,\t\"model\" : \"{model}\",\n \"messages\": [\"ü\\u00fc\"] }} ")
        };
        let headers = [("authorization", "Bearer ck"), ("content-type", "application/json")];
        send(&proxy, Method::POST, "/v1/chat/completions", &headers, &body(model)).await;
        assert_eq!(String::from_utf8_lossy(&upstream.last_request().body), body(sent));
    }
    let form = |model: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nmodel\r\n--b\r\n\
             Content-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n"
        )
    };
    let headers = [("authorization", "Bearer ck"), ("content-type", "multipart/form-data; boundary=b")];
    send(&proxy, Method::POST, "/v1/audio/transcriptions", &headers, &form("groq/whisper")).await;
    let request = upstream.last_request();
    assert_eq!(String::from_utf8_lossy(&request.body), form("whisper"));
    assert_eq!(request.header("content-length"), Some(&*form("whisper").len().to_string()));
}

#[tokio::test]
async fn a_clients_key_is_taken_where_its_dialect_has_it_and_goes_nowhere() {
    let upstream = Upstream::start().await;
    let proxy = all(&upstream).await;
    let generate = "/v1beta/models/g:generateContent";
    for (path, header) in [
        (generate, Some(("x-goog-api-key", "ck"))),
        ("/v1beta/models/g:generateContent?alt=sse&key=ck", None),
        ("/llm/groq/v1/chat/completions?key=ck", None),
        ("/v1/messages", Some(("x-api-key", "ck"))),
        ("/openai/deployments/d/chat/completions?api-version=1", Some(("api-key", "ck"))),
        ("/proxy/groq/x", Some(("x-proxy-key", "ck"))),
    ] {
        let headers: Vec<_> = header.into_iter().chain([("content-type", "application/json")]).collect();
        let got = send(&proxy, Method::POST, path, &headers, "{}").await;
        assert_ne!(got.status, 401, "{path}: {}", got.text());
        let request = upstream.last_request();
        assert!(!format!("{} {:?}", request.target, request.headers).contains("ck"), "{path}: {request:?}");
    }
    let calls = upstream.total_calls();
    // In the query of another API it would stand in logs for nothing; and of two that differ none is sure.
    for (path, headers) in [
        ("/v1/chat/completions?key=ck", &[][..]),
        ("/v1beta/models/g:generateContent?key=ck", &[("x-goog-api-key", "other")]),
        ("/v1/messages", &[("x-api-key", "ck"), ("authorization", "Bearer other")]),
    ] {
        assert_eq!(send(&proxy, Method::POST, path, headers, "{}").await.status, 401, "{path}");
    }
    assert_eq!(upstream.total_calls(), calls);
}

#[tokio::test]
async fn our_own_errors_are_told_in_the_dialect_of_who_asks() {
    let upstream = Upstream::start().await;
    let proxy = all(&upstream).await;
    let told = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let got = send(&proxy, Method::POST, path, headers, body).await;
        (got.status, got.json())
    };
    let json = [("content-type", "application/json"), ("authorization", "Bearer ck")];
    let (status, error) = told("/v1/messages", &[], "{}").await;
    assert_eq!(
        (status, &error["type"], &error["error"]["type"]),
        (401, &"error".into(), &"authentication_error".into())
    );
    assert!(error["request_id"].is_string());
    let (status, error) = told("/v1beta/models/g:generateContent", &json, "{").await;
    assert_eq!((status, &error["error"]["status"]), (400, &"INVALID_ARGUMENT".into()));
    assert_eq!(error["error"]["details"][0]["reason"], "INVALID_JSON");
    let (status, error) = told("/llm/nobody/v1/chat/completions", &json, "{}").await;
    assert_eq!((status, &error["error"]["code"]), (404, &"not_found".into()));
    assert!(error["error"]["message"].as_str().unwrap().contains("/v1/providers"), "{error}");
    // What another dialect has is named, with the way there.
    for (path, body, way) in [
        ("/v1/messages", json!({"model": "gemini/g"}), "/v1beta/models/"),
        ("/v1beta/models/groq%2Fllama:generateContent", json!({}), "/v1/chat/completions"),
        ("/v1beta/models/anthropic%2Fclaude:generateContent", json!({}), "/v1/messages"),
    ] {
        let (status, error) = told(path, &json, &body.to_string()).await;
        assert_eq!(status, 400, "{path}: {error}");
        assert!(error["error"]["message"].as_str().unwrap().contains(way), "{path}: {error}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn a_dialect_that_no_pool_speaks_is_told_so() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&format!("[[keys.pool]]\nkey = \"sk-a\"\nurl = \"{}\"\n", upstream.url())).await;
    let got = proxy.post("/v1beta/models/g:generateContent", "{}").await;
    assert_eq!((got.status, &got.json()["error"]["status"]), (404, &"NOT_FOUND".into()));
    assert_eq!(upstream.total_calls(), 0);
    // What is compatible with OpenAI's API takes Anthropic's messages as often as not.
    proxy.post("/v1/messages", "{\"model\": \"claude\"}").await;
    assert_eq!(upstream.last_request().header("authorization"), Some("Bearer sk-a"));
}

#[tokio::test]
async fn keys_of_providers_come_from_variables() {
    let upstream = Upstream::start().await;
    for key in ["sk-1", "sk-2", "sk-acme"] {
        upstream.key(key);
    }
    let url = upstream.url();
    let proxy = Proxy::start_with(
        "",
        &[
            ("GROQ_API_KEY_2", "sk-2"),
            ("GROQ_API_KEY_1", "sk-1"),
            ("GROQ_API_BASE", &url),
            ("ACME_API_KEY", "sk-acme"),
            ("ACME_API_BASE", &url),
        ],
    )
    .await;
    for _ in 0..2 {
        assert_eq!(proxy.chat("groq/llama").await.status, 200);
    }
    assert_eq!(proxy.chat("acme/m").await.status, 200);
    assert_eq!([upstream.calls("sk-1"), upstream.calls("sk-2"), upstream.calls("sk-acme")], [1, 1, 1]);
    let missing = proxy.chat("mistral/m").await;
    assert_eq!(missing.said(), (404, "model_not_found".to_owned()));
    assert!(missing.text().contains("MISTRAL_API_KEY_1"), "{}", missing.text());
}

#[tokio::test]
async fn a_pool_has_headers_of_its_own_and_a_way_of_its_own() {
    let upstream = Upstream::start().await;
    let forward = ForwardProxy::start(upstream.address()).await;
    upstream.key("sk-a");
    let proxy = Proxy::start(&format!(
        "[[pools]]\nname = \"acme\"\nbase_url = \"{}\"\nproxy_url = \"{}\"\nheaders = {{ X-Title = \"ours\" }}\n\
         [[pools.keys]]\nkey = \"sk-a\"\n",
        upstream.url(),
        forward.url("http", "")
    ))
    .await;
    let headers = [("content-type", "application/json"), ("x-title", "theirs")];
    let got =
        send(&proxy, Method::POST, "/v1/chat/completions", &headers, &support::proxy::chat("acme/m")).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert_eq!(upstream.last_request().header("x-title"), Some("ours"));
    assert_eq!(forward.asked().len(), 1);
}
