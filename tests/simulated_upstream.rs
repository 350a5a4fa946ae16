//! The furniture itself: every answer does on the wire what it says.

mod support;

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use support::upstream::{Answer, Character, Counter, Gate, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends one request on a connection of its own and leaves it open.
async fn ask(up: &Upstream, key: &str) -> TcpStream {
    let mut socket = TcpStream::connect(up.address()).await.expect("it listens");
    say(&mut socket, &format!("GET /v1/models HTTP/1.1\r\nhost: up\r\nauthorization: Bearer {key}\r\n\r\n"))
        .await;
    socket
}

async fn say(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.expect("the upstream reads");
}

/// Reads until `end` has come.
async fn until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(socket.read_u8().await.expect("more to come"));
    }
    String::from_utf8(text).expect("text")
}

/// Reads to the end of the connection.
async fn rest(socket: &mut TcpStream) -> (String, io::Result<usize>) {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).await;
    (String::from_utf8(bytes).expect("text"), end)
}

/// All that `answer` puts on the wire, to the end of the connection.
async fn wire(answer: Answer) -> (String, io::Result<usize>) {
    let up = Upstream::start().await;
    up.otherwise(answer);
    let mut socket = TcpStream::connect(up.address()).await.expect("it listens");
    say(&mut socket, "GET / HTTP/1.1\r\nhost: up\r\nconnection: close\r\n\r\n").await;
    rest(&mut socket).await
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy()
}

async fn get(client: &reqwest::Client, up: &Upstream, key: &str) -> reqwest::Result<reqwest::Response> {
    client.get(format!("{}/v1/models", up.url())).bearer_auth(key).send().await
}

async fn status(up: &Upstream, key: &str) -> u16 {
    let client = client().build().expect("a client");
    get(&client, up, key).await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_script_runs_in_order_and_its_last_answer_repeats() {
    let up = Upstream::start().await;
    up.key("sk-a").answers([Answer::status(429).retry_after(3), Answer::status(500), Answer::ok()]);
    up.otherwise(Answer::status(418));
    for expected in [429, 500, 200, 200] {
        assert_eq!(status(&up, "sk-a").await, expected);
    }
    assert_eq!(status(&up, "sk-b").await, 418);
    assert_eq!((up.calls("sk-a"), up.calls("sk-b"), up.total_calls()), (4, 1, 5));
}

#[tokio::test]
async fn unknown_keys_are_rejected_if_asked() {
    let up = Upstream::start().await;
    up.unknown_keys_are_rejected();
    up.key("sk-a").is(Character::Good);
    assert_eq!(status(&up, "sk-a").await, 200);
    assert_eq!(status(&up, "sk-b").await, 401);
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_refuses_until_it_has_refilled() {
    let up = Upstream::start().await;
    up.key("sk-a").limit(0.4, 1).answers([Answer::ok(), Answer::status(201)]);
    assert_eq!(status(&up, "sk-a").await, 200);
    let (refused, _) = {
        let mut socket = ask(&up, "sk-a").await;
        (until(&mut socket, "\r\n\r\n").await, socket)
    };
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    for header in ["retry-after: 3", "retry-after-ms: 2500", "x-ratelimit-limit-requests: 1"] {
        assert!(refused.contains(&format!("\r\n{header}\r\n")), "{header} in {refused}");
    }
    assert!(refused.contains("\r\nx-ratelimit-reset-requests: 2.5s\r\n"), "{refused}");
    tokio::time::advance(Duration::from_millis(2500)).await;
    assert_eq!(status(&up, "sk-a").await, 201);
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_account_share_its_limit() {
    let up = Upstream::start().await;
    up.key("sk-a").account("proj_one").limit(1.0, 1);
    up.key("sk-b").account("proj_one");
    assert_eq!(status(&up, "sk-a").await, 200);
    assert_eq!(status(&up, "sk-b").await, 429);
    assert_eq!(status(&up, "sk-c").await, 200);
}

#[tokio::test]
async fn characters_play_their_parts() {
    let up = Upstream::start().await;
    up.key("sk-revoked").is(Character::Revoked);
    up.key("sk-poor").is(Character::OutOfQuota);
    up.key("sk-flaky").is(Character::Flaky { probability: 1.0, seed: 7 });
    assert_eq!(status(&up, "sk-revoked").await, 401);
    assert_eq!(status(&up, "sk-poor").await, 429);
    let client = client().build().unwrap();
    let answer = get(&client, &up, "sk-flaky").await;
    assert!(answer.map_or(true, |answer| answer.status() == 500));
}

#[tokio::test]
async fn requests_are_recorded_as_they_arrived() {
    let up = Upstream::start().await;
    let mut socket = TcpStream::connect(up.address()).await.unwrap();
    let head = "POST /v1/x%2Fy?b=1&a=%20 HTTP/1.1\r\nhost: up\r\nx-api-key: sk-a\r\nx-two: 1\r\nx-two: 2\r\n";
    say(&mut socket, head).await;
    say(&mut socket, "transfer-encoding: chunked\r\n\r\n3\r\nab").await;
    say(&mut socket, "c\r\n2;note=1\r\nde\r\n0\r\ntrailer: x\r\n\r\n").await;
    up.wait_for(|up| up.total_calls() == 1).await;
    let request = up.last_request();
    assert_eq!(request.key.as_deref(), Some("sk-a"));
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/x%2Fy?b=1&a=%20"));
    assert_eq!((request.path(), request.query()), ("/v1/x%2Fy", Some("b=1&a=%20")));
    assert_eq!(request.headers.get_all("x-two").iter().count(), 2);
    assert_eq!((&request.body[..], request.body_len), (&b"abcde"[..], 5));
    up.reset_records();
    assert_eq!((up.total_calls(), up.requests().len(), up.open_connections()), (0, 0, 1));
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_incomplete() {
    let up = Upstream::start().await;
    let mut socket = TcpStream::connect(up.address()).await.unwrap();
    say(&mut socket, "POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhalf").await;
    drop(socket);
    up.wait_for(|up| up.incomplete() == 1).await;
    assert_eq!((up.total_calls(), up.cancelled()), (0, 0));
}

#[tokio::test]
async fn a_client_that_expects_continue_is_told_to() {
    let up = Upstream::start().await;
    let mut socket = TcpStream::connect(up.address()).await.unwrap();
    say(&mut socket, "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    assert_eq!(until(&mut socket, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&mut socket, "ok").await;
    up.wait_for(|up| up.total_calls() == 1).await;
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body() {
    let up = Upstream::start().await;
    up.otherwise(Answer::status(413).early());
    let mut socket = TcpStream::connect(up.address()).await.unwrap();
    say(&mut socket, "POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\nbeginning").await;
    let (text, end) = rest(&mut socket).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && end.is_ok(), "{text}");
}

#[tokio::test]
async fn a_whole_stream_ends_with_the_last_chunk() {
    let (text, end) = wire(Answer::sse([": OPENROUTER PROCESSING", "1", "event: ping\ndata: {}"])).await;
    let chunks = "19\r\n: OPENROUTER PROCESSING\n\n\r\n9\r\ndata: 1\n\n\r\n16\r\nevent: ping\ndata: {}\n\n\r\n0\r\n\r\n";
    assert!(text.ends_with(chunks) && end.is_ok(), "{text}");
}

#[tokio::test]
async fn a_cut_leaves_the_chunked_body_without_its_end() {
    let (text, end) = wire(Answer::sse(["1", "2", "3"]).cut_after(2)).await;
    assert!(text.contains("transfer-encoding: chunked\r\n"));
    assert!(text.ends_with("9\r\ndata: 2\n\n\r\n") && end.is_ok(), "{text}");
}

#[tokio::test]
async fn a_bad_chunk_has_no_number_for_a_size() {
    let (text, _) = wire(Answer::sse(["1", "2"]).bad_chunk_after(1)).await;
    assert!(text.ends_with("9\r\ndata: 1\n\n\r\nno-number\r\n"), "{text}");
}

#[tokio::test]
async fn half_a_body_is_shorter_than_announced() {
    let (text, end) = wire(Answer::status(200).body("whole body").half_body()).await;
    assert!(text.contains("content-length: 10\r\n") && text.ends_with("\r\n\r\nwhole"), "{text}");
    assert!(end.is_ok());
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_close_is_an_end() {
    let (text, end) = wire(Answer::ok().reset_before_head()).await;
    assert_eq!((text.as_str(), end.unwrap_err().kind()), ("", io::ErrorKind::ConnectionReset));
    let (text, end) = wire(Answer::ok().close_before_head()).await;
    assert_eq!((text.as_str(), end.unwrap()), ("", 0));
}

#[tokio::test]
async fn raw_bytes_go_out_as_they_are() {
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxyz";
    assert_eq!(wire(Answer::raw(broken)).await.0, broken);
}

#[tokio::test]
async fn a_close_delimited_body_has_neither_length_nor_chunks() {
    let (text, _) = wire(Answer::sse(["1"]).close_delimited()).await;
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
    let (text, _) = wire(Answer::status(200).body("abc").chunked()).await;
    assert_eq!(text, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_dribble_splits_anywhere() {
    let (text, _) = wire(Answer::sse(["é"]).dribble(7).close_delimited()).await;
    assert!(text.ends_with("\r\n\r\ndata: é\n\n"));
    let (text, _) = wire(Answer::sse(["1"]).dribble(4)).await;
    assert!(text.ends_with("4\r\ndata\r\n4\r\n: 1\n\r\n1\r\n\n\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_gzip_refusal_says_so() {
    let up = Upstream::start().await;
    up.otherwise(Answer::status(400).error("invalid_request_error", "", "no").gzip());
    let client = client().build().unwrap();
    let answer = get(&client, &up, "sk-a").await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let coded = answer.bytes().await.unwrap();
    let plain: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&coded[..])).unwrap();
    assert_eq!(plain["error"]["message"], "no");
}

#[tokio::test]
async fn redirect_echo_and_computed_answers_are_what_they_say() {
    let up = Upstream::start().await;
    up.key("sk-r").always(Answer::redirect("http://elsewhere.example/"));
    up.key("sk-e").always(Answer::echo().header("x-more", 1));
    up.key("sk-w").always(Answer::with(|request| Answer::status(200).body(request.target.clone())));
    let client = client().build().unwrap();
    assert_eq!(get(&client, &up, "sk-r").await.unwrap().headers()["location"], "http://elsewhere.example/");
    let echo = get(&client, &up, "sk-e").await.unwrap();
    assert_eq!(echo.headers()["x-more"], "1");
    let echo: Value = serde_json::from_slice(&echo.bytes().await.unwrap()).unwrap();
    assert_eq!(echo["headers"]["authorization"], json!(["Bearer sk-e"]));
    assert_eq!(get(&client, &up, "sk-w").await.unwrap().text().await.unwrap(), "/v1/models");
}

#[tokio::test]
async fn a_client_that_leaves_a_hanging_request_cancels_it() {
    let up = Upstream::start().await;
    up.otherwise(Answer::ok().hang());
    let socket = ask(&up, "sk-a").await;
    up.wait_for(|up| up.open_requests() == 1).await;
    drop(socket);
    up.wait_for(|up| up.open_requests() == 0).await;
    assert_eq!(up.cancelled(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_a_stalled_stream_cancels_it() {
    let up = Upstream::start().await;
    up.otherwise(Answer::sse(["1", "2"]).stall_after(1));
    let mut socket = ask(&up, "sk-a").await;
    assert!(until(&mut socket, "data: 1\n\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!((up.open_requests(), up.cancelled()), (1, 0));
    drop(socket);
    up.wait_for(|up| up.cancelled() == 1).await;
}

#[tokio::test]
async fn a_gate_lets_pass_what_it_was_told_to() {
    let up = Upstream::start().await;
    let (head, pieces) = (Gate::new(), Gate::new());
    up.otherwise(Answer::sse(["1", "2", "3"]).after(&head).gated(&pieces));
    let mut socket = ask(&up, "sk-a").await;
    up.wait_for(|up| up.open_requests() == 1).await;
    let nothing_yet = socket.try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing_yet.kind(), io::ErrorKind::WouldBlock);
    head.release(1);
    assert!(until(&mut socket, "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    pieces.release(1);
    assert_eq!(until(&mut socket, "\n\n\r\n").await, "9\r\ndata: 1\n\n\r\n");
    pieces.open();
    assert!(until(&mut socket, "0\r\n\r\n").await.contains("data: 3"));
    up.wait_for(|up| up.open_requests() == 0).await;
    assert_eq!(up.cancelled(), 0);
}

#[tokio::test(start_paused = true)]
async fn delays_and_gaps_follow_the_clock_of_the_test() {
    let up = Upstream::start().await;
    let long = Duration::from_secs(3600);
    up.otherwise(Answer::sse(["1", "2", "3"]).delay(long).gap(long));
    let begun = tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>());
    assert!(begun.await.is_err());
    let mut socket = ask(&up, "sk-a").await;
    assert!(until(&mut socket, "0\r\n\r\n").await.contains("data: 3"));
}

#[tokio::test]
async fn an_endless_body_waits_for_its_reader() {
    let up = Upstream::start().await;
    let counter = Counter::new();
    up.otherwise(Answer::endless(vec![b'x'; 64 << 10], &counter));
    let mut socket = ask(&up, "sk-a").await;
    counter.until_blocked().await;
    let before = counter.bytes();
    let mut some = vec![0; usize::try_from(before).unwrap()];
    socket.read_exact(&mut some).await.unwrap();
    socket.read_exact(&mut some).await.unwrap();
    assert!(counter.bytes() > before);
    drop(socket);
    up.wait_for(|up| up.cancelled() == 1).await;
}

#[tokio::test]
async fn a_connection_may_close_unannounced_after_the_answer() {
    let up = Upstream::start().await;
    up.otherwise(Answer::status(200).body("x").then_close());
    let (text, end) = rest(&mut ask(&up, "sk-a").await).await;
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx");
    assert!(end.is_ok());
}

#[tokio::test]
async fn a_connection_may_look_alive_and_reset_at_the_next_request() {
    let up = Upstream::start().await;
    up.otherwise(Answer::status(200).body("x").then_reset_next());
    let mut socket = ask(&up, "sk-a").await;
    until(&mut socket, "\r\n\r\nx").await;
    say(&mut socket, "GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(rest(&mut socket).await.1.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(up.total_calls(), 1);
}

#[tokio::test]
async fn idle_connections_can_be_killed_and_busy_ones_live() {
    let up = Upstream::start().await;
    let gate = Gate::new();
    up.key("sk-idle").always(Answer::status(200));
    up.key("sk-busy").always(Answer::status(204).after(&gate));
    let (mut idle, mut busy) = (ask(&up, "sk-idle").await, ask(&up, "sk-busy").await);
    until(&mut idle, "\r\n\r\n").await;
    up.wait_for(|up| up.calls("sk-busy") == 1 && up.open_requests() == 1).await;
    up.kill_idle_connections().await;
    assert_eq!(rest(&mut idle).await.1.unwrap(), 0);
    gate.open();
    assert!(until(&mut busy, "\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
    assert_eq!((up.connections(), up.open_connections()), (2, 1));
}

#[tokio::test]
async fn connections_are_kept_for_further_requests() {
    let up = Upstream::start().await;
    up.otherwise(Answer::ok());
    let client = client().build().unwrap();
    for _ in 0..3 {
        get(&client, &up, "sk-a").await.unwrap().bytes().await.unwrap();
    }
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn a_stopped_upstream_refuses_and_finishes_what_runs() {
    let up = Upstream::start().await;
    let gate = Gate::new();
    up.otherwise(Answer::status(200).body("done").after(&gate));
    let mut socket = ask(&up, "sk-a").await;
    up.wait_for(|up| up.open_requests() == 1).await;
    up.stop().await;
    let refused = TcpStream::connect(up.address()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    gate.open();
    assert!(rest(&mut socket).await.0.ends_with("done"));
    up.restart().await;
    assert_eq!(status(&up, "sk-a").await, 200);
}

#[tokio::test]
async fn a_crash_breaks_what_runs_and_blames_no_client() {
    let up = Upstream::start().await;
    up.otherwise(Answer::sse(["1"]).stall_after(1));
    let mut socket = ask(&up, "sk-a").await;
    until(&mut socket, "data: 1\n\n\r\n").await;
    up.crash().await;
    assert_eq!((rest(&mut socket).await.0.as_str(), up.cancelled(), up.open_connections()), ("", 0, 0));
    up.restart().await;
    up.otherwise(Answer::ok());
    assert_eq!(status(&up, "sk-a").await, 200);
}

#[tokio::test]
#[should_panic(expected = "a connection of the simulated upstream panicked")]
async fn a_panic_in_a_computed_answer_fails_the_test() {
    let up = Upstream::start().await;
    up.otherwise(Answer::with(|_| panic!("on purpose")));
    let _ = rest(&mut ask(&up, "sk-a").await).await;
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let up = Upstream::start().await;
    up.key("sk-a").always(Answer::ok());
    up.key("sk-cut").always(Answer::sse(["1", "2"]).cut_after(1));
    up.key("sk-reset").always(Answer::ok().reset_before_head());
    let client = client().http2_prior_knowledge().build().unwrap();
    assert_eq!(get(&client, &up, "sk-a").await.unwrap().text().await.unwrap(), r#"{"ok":true}"#);
    assert_eq!(up.last_request().version, http::Version::HTTP_2);
    let mut cut = get(&client, &up, "sk-cut").await.unwrap();
    assert_eq!(cut.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    assert!(cut.chunk().await.is_err());
    assert!(get(&client, &up, "sk-reset").await.is_err());
    assert_eq!((up.connections(), up.cancelled()), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_an_http2_stream_cancels_it() {
    let up = Upstream::start().await;
    up.otherwise(Answer::sse(["1"]).stall_after(1));
    let client = client().http2_prior_knowledge().build().unwrap();
    let mut answer = get(&client, &up, "sk-a").await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    drop(answer);
    up.wait_for(|up| up.cancelled() == 1 && up.open_requests() == 0).await;
    assert_eq!(up.open_connections(), 1);
    up.kill_idle_connections().await;
    up.crash().await;
}

#[tokio::test]
async fn a_crash_ends_http2_streams_too() {
    let up = Upstream::start().await;
    up.otherwise(Answer::ok().hang());
    let client = client().http2_prior_knowledge().build().unwrap();
    let asking = get(&client, &up, "sk-a");
    let crashing = async {
        up.wait_for(|up| up.open_requests() == 1).await;
        up.crash().await;
    };
    let (answer, ()) = tokio::join!(asking, crashing);
    assert!(answer.is_err());
    assert_eq!((up.open_requests(), up.cancelled()), (0, 0));
}

#[tokio::test]
async fn tls_offers_both_versions_under_its_own_authority() {
    let up = Upstream::start_tls().await;
    up.otherwise(Answer::ok());
    let trusting = || {
        let authority = reqwest::Certificate::from_pem(up.ca_pem().as_bytes()).unwrap();
        client().tls_certs_only([authority])
    };
    let modern = trusting().build().unwrap();
    assert_eq!(get(&modern, &up, "sk-a").await.unwrap().version(), http::Version::HTTP_2);
    let older = trusting().http1_only().build().unwrap();
    assert_eq!(get(&older, &up, "sk-a").await.unwrap().status(), 200);
    let versions: Vec<_> = up.requests().iter().map(|request| request.version).collect();
    assert_eq!(versions, [http::Version::HTTP_2, http::Version::HTTP_11]);
    let stranger = client().build().unwrap();
    assert!(get(&stranger, &up, "sk-a").await.is_err());
}
