//! What may be sent twice, for each kind of endpoint and each way to fail.

use std::time::Duration;

use http::Method;
use support::{
    ask::{Got, in_turn},
    proxy::{Proxy, client},
    still::StillClock,
    upstream::{Answer, Upstream},
};

mod support;

/// What clients ask for: method, path, body.
type Ask = (Method, &'static str, &'static str);

const INFERENCE: [&str; 13] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/moderations",
    "/v1/models/gemini-2.5-pro:generateContent",
];

const CREATING: [&str; 9] = [
    "/v1/files",
    "/v1/uploads",
    "/v1/batches",
    "/v1/fine_tuning/jobs",
    "/v1/vector_stores",
    "/v1/threads",
    "/v1/threads/thread_1/runs",
    "/v1/assistants",
    "/v1/something/new",
];

/// How the first key fails after it may have acted.
fn late_faults() -> Vec<(&'static str, Answer)> {
    let error = |status| Answer::status(status).error("server_error", "", "The server had an error.");
    vec![
        ("500", error(500)),
        ("503", error(503)),
        ("529", error(529)),
        ("reset", Answer::ok().reset_before_head()),
        ("close", Answer::ok().close_before_head()),
        ("hang", Answer::ok().hang()),
    ]
}

/// How the first key refuses in so many words.
fn refusals() -> Vec<(&'static str, Answer)> {
    let unnamed = |status| Answer::status(status).error("odd", "", "You may not.");
    vec![
        ("401", Answer::revoked()),
        ("401 unnamed", unnamed(401)),
        ("402", unnamed(402)),
        ("403", unnamed(403)),
        ("429", Answer::rate_limited(Duration::from_secs(30))),
        ("429 quota", Answer::out_of_quota()),
    ]
}

/// One request whose first key gets `fault`, and how many upstream calls it made.
async fn calls(ask: &Ask, header: Option<(&str, &str)>, fault: &Answer) -> (Got, usize) {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::ok());
    upstream.key("sk-a").always(fault.clone());
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "request_timeout_ms = 20000")).await;
    let got = async { clock.trickle(send(&proxy, ask, header)).await };
    let time = async {
        upstream.wait_for(|up| up.total_calls() >= 1).await;
        clock.pass(Duration::from_secs(20)).await;
    };
    let (got, ()) = tokio::join!(got, time);
    tokio::time::resume();
    (got, upstream.total_calls())
}

async fn send(proxy: &Proxy, (method, path, body): &Ask, header: Option<(&str, &str)>) -> Got {
    let mut request = client().request(method.clone(), proxy.url(path)).body(*body);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    Got::read(request.send().await.expect("the proxy answers")).await
}

fn post(path: &'static str) -> Ask {
    (Method::POST, path, r#"{"model":"m"}"#)
}

/// Asserts that each of `asks` is repeated, or not, after each of `faults`.
async fn assert_calls(
    asks: &[Ask],
    header: Option<(&str, &str)>,
    faults: Vec<(&'static str, Answer)>,
    expected: usize,
) {
    for (fault, answer) in faults {
        for ask in asks {
            let (got, made) = calls(ask, header, &answer).await;
            assert_eq!(made, expected, "{} {} after {fault}: {}", ask.0, ask.1, got.status);
            assert_eq!(got.status == 200, expected == 2, "{} {} after {fault}", ask.0, ask.1);
        }
    }
}

fn inference() -> Vec<Ask> {
    INFERENCE.map(post).to_vec()
}

fn creating() -> Vec<Ask> {
    CREATING.map(post).to_vec()
}

fn reading() -> Vec<Ask> {
    vec![
        (Method::GET, "/v1/models", ""),
        (Method::GET, "/v1/files/file-1/content", ""),
        (Method::HEAD, "/v1/models", ""),
    ]
}

fn changing() -> Vec<Ask> {
    vec![
        (Method::DELETE, "/v1/files/file-1", ""),
        (Method::PUT, "/v1/things/1", "{}"),
        (Method::PATCH, "/v1/things/1", "{}"),
        (Method::POST, "/v1/responses/resp_1/cancel", ""),
    ]
}

#[tokio::test]
async fn inference_is_repeated_whatever_happened() {
    assert_calls(&inference(), None, late_faults(), 2).await;
}

#[tokio::test]
async fn inference_is_repeated_after_a_refusal() {
    assert_calls(&inference()[..2], None, refusals(), 2).await;
}

#[tokio::test]
async fn reading_is_repeated_whatever_happened() {
    assert_calls(&reading(), None, late_faults(), 2).await;
    assert_calls(&reading(), None, refusals(), 2).await;
}

#[tokio::test]
async fn what_creates_an_object_is_not_repeated_when_it_may_have_been_created() {
    assert_calls(&creating(), None, late_faults(), 1).await;
}

#[tokio::test]
async fn what_creates_an_object_is_repeated_after_a_refusal() {
    assert_calls(&creating(), None, refusals(), 2).await;
}

#[tokio::test]
async fn what_changes_an_object_is_repeated_after_a_refusal_only() {
    assert_calls(&changing(), None, late_faults(), 1).await;
    assert_calls(&changing(), None, refusals(), 2).await;
}

#[tokio::test]
async fn an_idempotency_key_makes_anything_repeatable() {
    let header = Some(("idempotency-key", "1b4e28ba"));
    assert_calls(&[creating(), changing()].concat(), header, late_faults(), 2).await;
}

#[tokio::test]
async fn anything_is_repeated_after_a_refused_connection() {
    for ask in [inference(), creating(), reading(), changing()].concat() {
        let clock = StillClock::stop();
        let upstream = Upstream::start().await;
        upstream.otherwise(Answer::ok());
        upstream.stop().await;
        let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "")).await;
        // With the clock stopped, the pause before the second attempt lasts until the upstream is back.
        let back = async {
            while proxy.judged("unreachable").await == 0 {}
            upstream.restart().await;
        };
        let (got, ()) = tokio::join!(send(&proxy, &ask, None), async {
            back.await;
            clock.trickle(upstream.wait_for(|up| up.total_calls() == 1)).await;
        });
        tokio::time::resume();
        let made = [upstream.calls("sk-a"), upstream.calls("sk-b")];
        assert_eq!((got.status, made), (200, [0, 1]), "{} {}", ask.0, ask.1);
    }
}
