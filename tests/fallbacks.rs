//! Names for models, and what serves a model where its own keys can't.

use std::time::Duration;

use support::{
    proxy::Proxy,
    upstream::{Answer, Upstream},
};

mod support;

/// Two pools at two upstreams, the models of `[[models]]`.
async fn chain(one: &Upstream, two: &Upstream, models: &str) -> Proxy {
    for (upstream, key) in [(one, "sk-one"), (two, "sk-two")] {
        upstream.key(key);
    }
    Proxy::start(&format!(
        "[observability]\ndebug_headers = true\n[upstream]\nbase_url = \"{}\"\nmax_retries = 0\n\
         [[keys.pool]]\nkey = \"sk-one\"\n\
         [[pools]]\nname = \"acme\"\nbase_url = \"{}\"\n[[pools.keys]]\nkey = \"sk-two\"\n{models}",
        one.url(),
        two.url()
    ))
    .await
}

const CHAIN: &str = "[[models]]\nname = \"gpt-4o\"\nfallbacks = [\"acme/*\", \"acme/small\"]\n";

fn model_of(upstream: &Upstream) -> String {
    upstream.last_request().json()["model"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_alias_is_asked_for_by_its_upstreams_name() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = chain(&one, &two, "[[models]]\nname = \"fast\"\ntarget = \"acme/llama/8b\"\n").await;
    assert_eq!(proxy.chat("fast").await.status, 200);
    assert_eq!((model_of(&two), one.total_calls()), ("llama/8b".to_owned(), 0));
}

#[tokio::test]
async fn the_next_serves_what_the_first_cannot_whatever_keeps_it() {
    for failure in [
        Answer::rate_limited(Duration::from_secs(30)),
        Answer::revoked(),
        Answer::status(500),
        Answer::status(404).error("invalid_request_error", "model_not_found", "The model does not exist."),
        Answer::status(529),
    ] {
        let (one, two) = (Upstream::start().await, Upstream::start().await);
        let proxy = chain(&one, &two, CHAIN).await;
        one.key("sk-one").always(failure.clone());
        let got = proxy.chat("gpt-4o").await;
        assert_eq!((got.status, got.attempts()), (200, 2), "{}", got.text());
        assert_eq!(model_of(&two), "gpt-4o");
    }
}

#[tokio::test]
async fn it_waits_for_nobody_while_another_can_serve() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = chain(&one, &two, CHAIN).await;
    one.key("sk-one").always(Answer::rate_limited(Duration::from_secs(5)));
    for _ in 0..3 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((one.total_calls(), two.total_calls()), (1, 3), "who rests is not asked");
}

#[tokio::test]
async fn a_clients_fault_is_not_taken_elsewhere() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = chain(&one, &two, CHAIN).await;
    one.key("sk-one").always(Answer::status(400).error("invalid_request_error", "bad", "Bad."));
    assert_eq!(proxy.chat("gpt-4o").await.status, 400);
    assert_eq!(two.total_calls(), 0);
}

#[tokio::test]
async fn where_nobody_can_serve_the_soonest_is_told() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = chain(&one, &two, CHAIN).await;
    one.key("sk-one").always(Answer::rate_limited(Duration::from_secs(20)));
    two.key("sk-two").always(Answer::rate_limited(Duration::from_secs(50)));
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.said(), got.retry_after()), ((429, "all_keys_cooling".to_owned()), Some(20)));
    // Of the second pool both names were refused.
    assert_eq!((one.total_calls(), two.total_calls()), (1, 2));
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_stays_where_it_was_sent() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = chain(&one, &two, CHAIN).await;
    one.key("sk-one").always(Answer::status(500));
    let got = proxy.post("/v1/threads/runs", "{\"model\": \"gpt-4o\"}").await;
    assert_eq!((got.status, two.total_calls()), (500, 0));
}

#[tokio::test]
async fn whoever_is_asked_next_is_asked_by_the_name_that_it_knows() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    one.key("sk-one").always(Answer::status(500));
    two.key("sk-two");
    let proxy = Proxy::start(&format!(
        "[upstream]\nbase_url = \"{}\"\nmax_retries = 0\n[[keys.pool]]\nkey = \"sk-one\"\n\
         [[pools]]\nname = \"acme\"\nbase_url = \"{}\"\n[[pools.keys]]\nkey = \"sk-two\"\n\
         [[models]]\nname = \"gpt-4o\"\ntarget = \"mine\"\nfallbacks = [\"acme/gpt-4o\"]\n",
        one.url(),
        two.url()
    ))
    .await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    assert_eq!((model_of(&one), model_of(&two)), ("mine".to_owned(), "gpt-4o".to_owned()));
}
