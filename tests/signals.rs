//! How the program stops, and what it does about signals meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use support::{
    binary::{Folder, PATIENCE, Running},
    frames::{self, Fate, Frames, request},
    proxy::{chat, client, streamed_chat},
    raw::{End, Raw, patiently},
    upstream::{Answer, Gate, Upstream, chat_events},
};
use tokio::net::TcpStream;

mod support;

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n";
/// Longer than anything here takes.
const LONG: &str = "graceful_shutdown_seconds = 600";

/// A daemon with a key at `upstream`, and these lines in its `[server]` section.
async fn serve(upstream: &Upstream, server: &str) -> Running {
    let toml = format!(
        "[upstream]\nbase_url = \"{}\"\n[observability]\nmetrics_bind = \"off\"\n[[keys.pool]]\nkey = \"sk-a\"\n\
         [server]\n{server}\n",
        upstream.url()
    );
    Folder::with("config.toml", &toml).command(&["--bind", "127.0.0.1:0"]).serve().await
}

/// A daemon with a stream under way, of which the client has the first piece.
async fn with_a_stream(server: &str) -> (Upstream, Running, Gate, reqwest::Response) {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.key("sk-a").always(Answer::sse(chat_events("one two three")).gated(&gate));
    let proxy = serve(&upstream, server).await;
    let request = client().post(proxy.url("/v1/chat/completions")).header("content-type", "application/json");
    // The first names the role and is held back until the second comes.
    gate.release(2);
    let mut stream = request.body(streamed_chat("gpt-4o")).send().await.expect("an answer");
    let piece = stream.chunk().await.expect("a whole piece").expect("the first piece");
    assert!(piece.starts_with(b"data: "), "{piece:?}");
    (upstream, proxy, gate, stream)
}

/// Status and text.
async fn get(proxy: &Running, path: &str) -> (u16, String) {
    let answer = client().get(proxy.url(path)).send().await.expect("the proxy answers");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

async fn ask(proxy: &Running) -> reqwest::Response {
    let request = client().post(proxy.url("/v1/chat/completions")).header("content-type", "application/json");
    request.body(chat("gpt-4o")).send().await.expect("the proxy answers")
}

/// Returns when no connection is accepted any more.
async fn until_refused(proxy: &Running) {
    let refused = async { while TcpStream::connect(proxy.address()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("the listener closes");
}

/// The rest of a stream, and whether it came to its end.
async fn rest(mut stream: reqwest::Response) -> (String, bool) {
    let mut text = String::new();
    loop {
        match stream.chunk().await {
            Ok(Some(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
            Ok(None) => return (text, true),
            Err(_) => return (text, false),
        }
    }
}

#[tokio::test]
async fn sigterm_lets_a_stream_finish_and_refuses_connections() {
    for signal in ["-TERM", "-INT"] {
        let (_upstream, mut proxy, gate, stream) = with_a_stream(LONG).await;
        proxy.signal(signal);
        proxy.wait_for("asked to stop").await;
        until_refused(&proxy).await;
        gate.open();
        let (text, whole) = rest(stream).await;
        assert!(whole && text.contains("three") && text.ends_with("data: [DONE]\n\n"), "{signal}: {text}");
        let ended = proxy.ended().await;
        assert_eq!(ended.code, 0, "{signal}: {}", ended.stderr);
        assert!(ended.stderr.contains("stopped") && !ended.stderr.contains("cut"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_second_sigterm_cuts_at_once() {
    let (_upstream, mut proxy, _gate, stream) = with_a_stream(LONG).await;
    proxy.signal("-TERM");
    proxy.wait_for("asked to stop").await;
    proxy.signal("-TERM");
    let (text, whole) = rest(stream).await;
    assert!(!whole && !text.contains("[DONE]"), "{text}");
    let ended = proxy.ended().await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("asked to stop again"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_limit_of_the_drain_cuts_what_goes_on() {
    let (_upstream, proxy, _gate, stream) = with_a_stream("graceful_shutdown_seconds = 0").await;
    proxy.signal("-TERM");
    let (text, whole) = rest(stream).await;
    assert!(!whole && !text.contains("[DONE]"), "{text}");
    let ended = proxy.ended().await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("the connections left were cut"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_request_without_an_answer_is_told_when_the_drain_is_over() {
    let upstream = Upstream::start().await;
    upstream.key("sk-a").always(Answer::ok().hang());
    let proxy = serve(&upstream, "graceful_shutdown_seconds = 0").await;
    let signalled = async {
        upstream.wait_for(|upstream| upstream.open_requests() == 1).await;
        proxy.signal("-TERM");
    };
    let url = proxy.url("/v1/chat/completions");
    let request = client().post(url).header("content-type", "application/json").body(chat("gpt-4o"));
    let (answer, ()) = tokio::join!(request.send(), signalled);
    let answer = answer.expect("an answer, not a cut connection");
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("shutting_down"));
    assert_eq!(proxy.ended().await.code, 0);
}

#[tokio::test]
async fn sighup_is_told_of_and_changes_nothing() {
    let (upstream, mut proxy, gate, stream) = with_a_stream(LONG).await;
    upstream.key("sk-a").always(Answer::api());
    for _ in 0..3 {
        proxy.signal("-HUP");
        let line = proxy.wait_for("SIGHUP").await;
        assert!(line.contains(" INFO ") && line.contains("read at the start only"), "{line}");
        assert_eq!(ask(&proxy).await.status(), 200);
    }
    proxy.signal("-TERM");
    proxy.wait_for("asked to stop").await;
    until_refused(&proxy).await;
    // It is no second wish to stop.
    proxy.signal("-HUP");
    proxy.wait_for("SIGHUP").await;
    gate.open();
    let (text, whole) = rest(stream).await;
    assert!(whole && text.ends_with("data: [DONE]\n\n"), "{text}");
    let ended = proxy.ended().await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("again") && !ended.stderr.contains("cut"), "{}", ended.stderr);
}

#[tokio::test]
async fn readiness_ends_first_then_accepting_then_what_is_under_way() {
    let (upstream, mut proxy, gate, stream) =
        with_a_stream(&format!("shutdown_delay_seconds = 2\n{LONG}")).await;
    upstream.key("sk-a").always(Answer::api());
    assert_eq!(get(&proxy, "/readyz").await, (200, "ready".to_owned()));
    proxy.signal("-TERM");
    proxy.wait_for("asked to stop").await;
    // Still accepted and served, but no longer recommended.
    while get(&proxy, "/readyz").await != (503, "draining".to_owned()) {}
    assert_eq!(get(&proxy, "/livez").await.0, 200);
    assert_eq!(ask(&proxy).await.status(), 200);
    until_refused(&proxy).await;
    gate.open();
    let (text, whole) = rest(stream).await;
    assert!(whole && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(proxy.ended().await.code, 0);
}

#[tokio::test]
async fn a_second_sigterm_ends_the_delay_too() {
    let (_upstream, mut proxy, _gate, stream) =
        with_a_stream(&format!("shutdown_delay_seconds = 600\n{LONG}")).await;
    proxy.signal("-TERM");
    proxy.wait_for("asked to stop").await;
    proxy.signal("-INT");
    assert!(!rest(stream).await.1);
    assert_eq!(proxy.ended().await.code, 0);
}

/// What became of requests.
#[derive(Debug, Default)]
struct Fates {
    answered: usize,
    /// The connection was kept from an answer before, or had just been made; then it brought no answer, or half of one.
    lost_on_kept: Vec<String>,
    lost_on_new: Vec<String>,
}

/// Asks one request after another, on one connection for as long as it is kept or on a new one each time, until no
/// connection is made any more.
async fn asks_on(proxy: &Running, client: usize, keeps: bool) -> Fates {
    let mut fates = Fates::default();
    let mut kept: Option<Raw> = None;
    for n in 0.. {
        let is_new = kept.is_none();
        let mut raw = match kept.take() {
            Some(raw) => raw,
            None => match TcpStream::connect(proxy.address()).await {
                Ok(socket) => Raw::over(socket),
                Err(_) => break,
            },
        };
        let (id, body) = (format!("load-{client}-{n}."), chat("m"));
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\nx-request-id: {id}\r\n");
        raw.try_send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
        match raw.answer_if_any().await {
            Some(heard) if heard.end == End::Marked && heard.status == 200 => {
                fates.answered += 1;
                kept = Some(raw).filter(|_| keeps && heard.header("connection") != Some("close"));
            }
            _ if is_new => fates.lost_on_new.push(id),
            _ => fates.lost_on_kept.push(id),
        }
    }
    fates
}

#[tokio::test]
async fn under_load_every_request_on_an_accepted_connection_is_answered() {
    for server in [LONG, "shutdown_delay_seconds = 1"] {
        let upstream = Upstream::start().await;
        upstream.key("sk-a").always(Answer::ok().delay(Duration::from_millis(2)));
        let proxy = serve(&upstream, server).await;
        let clients = join_all((0..64).map(|client| asks_on(&proxy, client, client % 4 != 0)));
        let stop = async {
            upstream.wait_for(|up| up.total_calls() > 2000).await;
            proxy.signal("-TERM");
        };
        let (fates, ()) = patiently(async { tokio::join!(clients, stop) }).await;
        let ended = proxy.ended().await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(fates.iter().map(|fates| fates.answered).sum::<usize>() > 2000);
        let lost = |of: fn(&Fates) -> &Vec<String>| -> Vec<_> { fates.iter().flat_map(of).collect() };
        assert_eq!(lost(|fates| &fates.lost_on_kept), [""; 0], "{server}");
        // Between the last look at who waits to be accepted and the end of the socket is a moment in which the kernel
        // still makes connections. Nobody has heard of these.
        let lost = lost(|fates| &fates.lost_on_new);
        assert!(lost.len() <= 2 && !lost.iter().any(|id| ended.stderr.contains(*id)), "{server}: {lost:?}");
    }
}

#[tokio::test]
async fn answers_end_their_connections_from_the_signal_on() {
    let (upstream, mut proxy, _gate, _stream) =
        with_a_stream(&format!("shutdown_delay_seconds = 600\n{LONG}")).await;
    upstream.key("sk-a").always(Answer::api());
    let mut kept = Raw::over(TcpStream::connect(proxy.address()).await.unwrap());
    kept.send(GET).await;
    assert_eq!(kept.answer().await.header("connection"), None);
    proxy.signal("-TERM");
    proxy.wait_for("asked to stop").await;
    while get(&proxy, "/readyz").await.0 != 503 {}
    for mut raw in [kept, Raw::over(TcpStream::connect(proxy.address()).await.unwrap())] {
        raw.send(GET).await;
        let heard = raw.answer().await;
        assert_eq!((heard.status, heard.header("connection")), (200, Some("close")));
        assert_eq!(raw.rest().await.1, End::Closed);
    }
}

#[tokio::test]
async fn an_http2_client_is_told_to_go_and_gets_what_it_has_asked_for() {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.key("sk-a").always(Answer::ok().after(&gate));
    let proxy = serve(&upstream, LONG).await;
    let mut frames = Frames::connect(proxy.address()).await;
    frames.send(request(1, &frames::GET)).await;
    upstream.wait_for(|up| up.open_requests() == 1).await;
    proxy.signal("-TERM");
    assert_eq!(frames.fate(1).await, Fate::GoneAway(0));
    gate.open();
    loop {
        match frames.fate(1).await {
            Fate::GoneAway(0) => {}
            fate => break assert_eq!(fate, Fate::Answered(200)),
        }
    }
    frames.end().await;
    assert_eq!(proxy.ended().await.code, 0);
}
