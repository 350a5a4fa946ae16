//! Requests and answers travel as they are: paths, headers, bodies.

use support::{
    proxy::{Proxy, chat, client},
    upstream::Upstream,
};

mod support;

#[tokio::test]
async fn a_chat_request_is_answered_with_a_key_of_the_pool() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one", "sk-two"]).await;
    for _ in 0..4 {
        let answer = client()
            .post(proxy.url("/v1/chat/completions"))
            .header("authorization", "Bearer sk-of-the-client")
            .header("content-type", "application/json")
            .body(chat("gpt-4o-mini"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().contains("chat.completion"));
    }
    assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (2, 2));
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="complete"}"#).await, 4.0);
}
