//! A panic in one request is that request's alone.
//!
//! No request is known that makes the daemon panic, so the tests bring the cause: a log that panics over the lines of
//! certain requests. Lines are written where it hurts most: between two attempts, with a key on loan, and at an
//! answer's end, when nothing but the connection's own task is there to catch it.

use std::fmt;

use key_cycle_proxy::server::Drained;
use support::{
    frames::{DATA, END_HEADERS, END_STREAM, Fate, Frames, GET, HEADERS, block, frame, request},
    pair::GOOD,
    panics::panics,
    proxy::{Proxy, chat, toml},
    raw::Raw,
    upstream::{Answer, Gate, Upstream},
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry,
};

mod support;

/// The model of requests that panic between two attempts, and of those that panic at their end.
const BETWEEN: &str = "panics-between-attempts";
const AT_THE_END: &str = "panics-at-the-end";

/// Panics over lines about requests (README, Logs): one per failed attempt, `debug`, and one per request, `info`.
struct Panics;

impl<S: Subscriber> Layer<S> for Panics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "key_cycle_proxy::proxy" {
            return;
        }
        let mut model = Model(String::new());
        event.record(&mut model);
        match *event.metadata().level() {
            Level::DEBUG if model.0 == BETWEEN => panic!("between two attempts, as the test wants it"),
            Level::INFO if model.0 == AT_THE_END => panic!("at a request's end, as the test wants it"),
            _ => {}
        }
    }
}

/// The value of `model`.
struct Model(String);

impl Visit for Model {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "model" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Holds for this thread, on which everything in a test runs.
fn panicking_log() -> DefaultGuard {
    assert_eq!(panics(), 0);
    tracing::subscriber::set_default(registry().with(Panics))
}

async fn start() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one", "sk-two"], "", "")).await;
    (upstream, proxy)
}

fn post(model: &str) -> String {
    let body = chat(model);
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// There were so many panics. Everything is served, nothing is left under way, and the daemon stops as it should.
async fn assert_unharmed(proxy: Proxy, after: usize) {
    assert_eq!(panics(), after);
    for _ in 0..3 {
        assert_eq!(Raw::ask(proxy.address(), GOOD).await.status, 200);
        assert_eq!(Raw::ask(proxy.address(), post("m")).await.status, 200);
    }
    proxy.until_at_rest().await;
    assert_eq!(proxy.stop().await, Drained::All);
}

#[tokio::test]
async fn a_panic_between_two_attempts_is_answered_and_nobody_elses() {
    let _log = panicking_log();
    let (upstream, proxy) = start().await;
    // Somebody else's request is under way all the time.
    let gate = Gate::new();
    upstream.otherwise(Answer::ok().after(&gate));
    let mut other = Raw::connect(proxy.address()).await;
    other.send(post("m")).await;
    upstream.wait_for(|up| up.open_requests() == 1).await;
    upstream.otherwise(Answer::status(500));
    let mut raw = Raw::connect(proxy.address()).await;
    for n in 1..=5 {
        raw.send(post(BETWEEN)).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "internal_error"));
        assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
        assert!(!String::from_utf8_lossy(&answer.body).contains("as the test wants it"));
        assert_eq!(upstream.total_calls(), 1 + n);
    }
    upstream.otherwise(Answer::ok());
    raw.send(GOOD).await;
    assert_eq!(raw.answer().await.status, 200, "on the same connection");
    gate.open();
    assert_eq!(other.answer().await.status, 200);
    assert_unharmed(proxy, 5).await;
}

#[tokio::test]
async fn a_panic_at_an_answers_end_ends_that_connection_alone() {
    let _log = panicking_log();
    let (upstream, proxy) = start().await;
    let gate = Gate::new();
    upstream.otherwise(Answer::sse(["one", "two"]).gated(&gate));
    let mut other = Raw::connect(proxy.address()).await;
    other.send(post("m")).await;
    gate.release(1);
    other.until("data: one\n\n").await;
    for answer in [Answer::ok(), Answer::sse(["one"]), Answer::status(400)] {
        upstream.otherwise(answer);
        let mut raw = Raw::connect(proxy.address()).await;
        raw.send(post(AT_THE_END)).await;
        raw.rest().await;
    }
    upstream.otherwise(Answer::ok());
    gate.open();
    other.until("data: two\n\n").await;
    other.until("0\r\n\r\n").await;
    assert_unharmed(proxy, 3).await;
}

#[tokio::test]
async fn a_panic_on_http2_ends_that_stream_alone() {
    let _log = panicking_log();
    let (upstream, proxy) = start().await;
    let fields =
        [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions"), (":authority", "p")];
    let ask = |stream, model| {
        let head = frame(HEADERS, END_HEADERS, stream, &block(&fields));
        [head, frame(DATA, END_STREAM, stream, chat(model).as_bytes())].concat()
    };
    let gate = Gate::new();
    upstream.otherwise(Answer::ok().after(&gate));
    let mut frames = Frames::connect(proxy.address()).await;
    frames.send(ask(1, "m")).await;
    upstream.wait_for(|up| up.open_requests() == 1).await;
    upstream.otherwise(Answer::status(500));
    frames.send(ask(3, BETWEEN)).await;
    assert_eq!(frames.fate(3).await, Fate::Answered(500));
    upstream.otherwise(Answer::ok());
    frames.send(ask(5, AT_THE_END)).await;
    // Its head may have gone out before.
    assert!(matches!(frames.fate(5).await, Fate::Answered(200) | Fate::Reset(_)));
    frames.send(request(7, &GET)).await;
    assert_eq!(frames.fate(7).await, Fate::Answered(200));
    gate.open();
    assert_eq!(frames.fate(1).await, Fate::Answered(200));
    drop(frames);
    assert_unharmed(proxy, 2).await;
}

/// What the tests above prove holds only where a panic unwinds.
#[test]
fn no_profile_turns_a_panic_into_the_end_of_the_process() {
    let manifest: ::toml::Table = include_str!("../Cargo.toml").parse().expect("cargo reads it too");
    let profiles = manifest["profile"].as_table().expect("there are some");
    for (name, profile) in profiles {
        assert!(profile.get("panic").is_none_or(|panic| panic.as_str() == Some("unwind")), "{name}");
    }
}
