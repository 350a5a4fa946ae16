//! One list of models over all upstreams, in the dialect of whoever asks, and the names of the pools.

use support::{
    ask::Got,
    proxy::{Proxy, client},
    upstream::{Answer, Upstream},
};

mod support;

async fn get(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Got {
    let request = client().get(proxy.url(path));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Got::read(request.send().await.expect("an answer")).await
}

/// The names in a list of OpenAI's or Anthropic's.
fn ids(list: &Got) -> Vec<String> {
    let list = list.json();
    let ids = list["data"].as_array().expect("a list").iter();
    ids.map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
}

fn list(ids: &[&str]) -> Answer {
    let data: Vec<_> =
        ids.iter().map(|id| serde_json::json!({"id": id, "object": "model", "more": 1})).collect();
    Answer::ok().json(&serde_json::json!({"object": "list", "data": data}))
}

#[tokio::test]
async fn all_upstreams_are_one_list_under_the_names_that_lead_to_them() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    one.key("sk-one").always(list(&["gpt-4o", "gpt-4o-mini"]));
    two.key("sk-two").always(list(&["llama", "mixtral"]));
    let proxy = Proxy::start(&format!(
        "[[keys.pool]]\nkey = \"sk-one\"\nurl = \"{}\"\n[[keys.pool]]\nkey = \"sk-named\"\nmodels = [\"o3\"]\n\
         [[pools]]\nname = \"acme\"\nbase_url = \"{}\"\nmodels = [\"lla*\"]\n[[pools.keys]]\nkey = \"sk-two\"\n\
         [[models]]\nname = \"fast\"\ntarget = \"acme/llama\"\n",
        one.url(),
        two.url()
    ))
    .await;
    let got = get(&proxy, "/v1/models", &[]).await;
    assert_eq!(ids(&got), ["gpt-4o", "gpt-4o-mini", "llama", "o3", "fast"]);
    let first = &got.json()["data"][0];
    assert_eq!(
        (&first["more"], &first["object"]),
        (&1.into(), &"model".into()),
        "what an upstream says is kept"
    );
    // It is remembered.
    assert_eq!(ids(&get(&proxy, "/models", &[]).await).len(), 5);
    assert_eq!((one.calls("sk-one"), two.calls("sk-two")), (1, 1));
    // Each leads where it says.
    for (model, key, sent) in
        [("llama", "sk-two", "llama"), ("acme/llama-x", "sk-two", "llama-x"), ("fast", "sk-two", "llama")]
    {
        let got = get(&proxy, &format!("/v1/models/{model}"), &[]).await;
        assert_eq!(got.status, 200, "{model}: {}", got.text());
        let request = two.last_request();
        assert_eq!(
            (request.header("authorization"), request.path()),
            (Some(&*format!("Bearer {key}")), &*format!("/v1/models/{sent}"))
        );
    }
    let pools = get(&proxy, "/v1/providers", &[]).await;
    assert_eq!(pools.json(), serde_json::json!(["default", "acme"]));
}

#[tokio::test]
async fn an_upstream_that_fails_leaves_the_others_on_the_list() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    one.key("sk-one").always(list(&["gpt-4o"]));
    two.key("sk-two").always(Answer::status(500));
    let proxy = Proxy::start(&format!(
        "[[keys.pool]]\nkey = \"sk-one\"\nurl = \"{}\"\n[[pools]]\nname = \"acme\"\nbase_url = \"{}\"\n\
         [[pools.keys]]\nkey = \"sk-two\"\n",
        one.url(),
        two.url()
    ))
    .await;
    assert_eq!(ids(&get(&proxy, "/v1/models", &[]).await), ["gpt-4o"]);
}

#[tokio::test]
async fn each_dialect_has_its_own_list() {
    let upstream = Upstream::start().await;
    for key in ["sk-a", "sk-g"] {
        upstream.key(key);
    }
    let url = upstream.url();
    let proxy = Proxy::start(&format!(
        "[[pools]]\nname = \"anthropic\"\nbase_url = \"{url}\"\n[[pools.keys]]\nkey = \"sk-a\"\n\
         [[pools]]\nname = \"gemini\"\nbase_url = \"{url}\"\n[[pools.keys]]\nkey = \"sk-g\"\n"
    ))
    .await;
    let anthropic = get(&proxy, "/v1/models", &[("anthropic-version", "2023-06-01")]).await;
    assert!(ids(&anthropic).iter().all(|id| id.starts_with("claude-")), "{}", anthropic.text());
    assert_eq!(anthropic.json()["has_more"], false);
    let gemini = get(&proxy, "/v1beta/models", &[]).await;
    let models = gemini.json();
    assert_eq!(models["models"].as_array().map(Vec::len), Some(3), "{models}");
    assert_eq!(models["models"][0]["name"], "models/gemini-2.5-flash", "{models}");
    // On OpenAI's path both are there, each behind its pool's name.
    let all = ids(&get(&proxy, "/v1/models", &[]).await);
    assert!(all.contains(&"gemini/gemini-2.5-pro".to_owned()), "{all:?}");
    assert!(all.iter().any(|id| id.starts_with("anthropic/claude-")), "{all:?}");
    assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
}
