//! The simulated upstream's ways to fail, in every dialect.

mod support;

use reqwest::Method;
use support::{
    dialects::{
        ALL, ANTHROPIC, AZURE, BEARER, DEPLOYMENT, GEMINI, GENERATE, Headers, STREAM, anything, post,
        try_send, with,
    },
    upstream::{Character, Upstream},
};

#[tokio::test]
async fn every_dialect_fails_with_its_own_status_and_shape() {
    let cases: [(Character, [u16; 7]); 5] = [
        (Character::Revoked, [401, 401, 400, 400, 401, 401, 401]),
        (Character::OutOfQuota, [429, 400, 429, 429, 429, 402, 402]),
        (Character::Overloaded, [503, 529, 503, 503, 503, 503, 503]),
        (Character::Failing, [500; 7]),
        (Character::RateLimited { rps: 0.001, burst: 0 }, [429; 7]),
    ];
    for (character, expected) in cases {
        let up = Upstream::start().await;
        up.key("sk-a").is(character);
        for ((path, headers), status) in ALL.into_iter().zip(expected) {
            let reply = post(&up, path, headers, anything()).await;
            assert_eq!(reply.status, status, "{character:?} {path}");
            let body = reply.json();
            let error = match path {
                "/v1/messages" => &body["error"]["type"],
                GENERATE => &body["error"]["status"],
                "/v1beta/openai/chat/completions" => &body[0]["error"]["status"],
                DEPLOYMENT => &body["error"]["code"],
                "/v1/chat/completions" => &body["error"]["type"],
                _ => &body["cod"],
            };
            assert!(!error.is_null(), "{character:?} {path}: {body}");
            let waits = status == 429 && !path.starts_with("/v1beta/");
            if matches!(character, Character::RateLimited { .. }) {
                assert_eq!(reply.headers.contains_key("retry-after"), waits, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn unknown_keys_are_rejected_in_every_dialect() {
    let up = Upstream::start().await;
    for (path, headers) in ALL {
        assert!(post(&up, path, headers, anything()).await.status < 300, "{path}");
    }
    up.unknown_keys_are_rejected();
    for (path, headers) in ALL {
        assert!(post(&up, path, headers, anything()).await.status >= 400, "{path}");
    }
}

/// Streams of every dialect that has them.
fn streams() -> [(String, Headers<'static>, &'static str); 5] {
    [
        ("/v1/chat/completions".to_owned(), BEARER, "server_is_overloaded"),
        ("/v1/messages".to_owned(), ANTHROPIC, "event: error\ndata: {"),
        (format!("{STREAM}?alt=sse"), GEMINI, "\"status\":\"UNAVAILABLE\""),
        (STREAM.to_owned(), GEMINI, "\"status\": \"UNAVAILABLE\""),
        (DEPLOYMENT.to_owned(), AZURE, "server_is_overloaded"),
    ]
}

#[tokio::test]
async fn streams_break_and_fail_later_in_every_dialect() {
    let up = Upstream::start().await;
    let wish = with(anything(), "stream", true.into());
    for (path, headers, error) in streams() {
        up.key("sk-a").is(Character::Breaking);
        assert!(try_send(&up, Method::POST, &path, headers, &wish).await.is_err(), "{path}");
        up.key("sk-a").is(Character::OverloadedLater);
        let reply = post(&up, &path, headers, wish.clone()).await;
        assert_eq!(reply.status, 200);
        assert!(reply.text.contains(error), "{path}: {}", reply.text);
        if path == STREAM {
            assert_eq!(reply.json()[3]["error"]["code"], 503);
        }
    }
}
