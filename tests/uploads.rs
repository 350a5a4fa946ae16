//! Uploads that are too long to be held: they go up once, as they come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use support::{
    by_hand::ByHand,
    proxy::{Proxy, chat, client, keys_toml, toml},
    raw::{End, Heard, Raw, patiently},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

mod support;

/// What is held of a body.
const HELD: usize = 64 << 10;
const MOST: usize = 8 << 20;
const LINE: &str = "line-7";

const LIMITS: &str = "[server]\nrequest_body_limit_bytes = 65536\nmax_upload_bytes = 8388608\n";

async fn limited(keys: &[&str], in_upstream: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(&toml(&upstream.url(), keys, in_upstream, LIMITS)).await;
    (upstream, proxy)
}

fn noise(length: usize) -> Bytes {
    let mut dice = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| dice.u8(..)).collect()
}

fn file(length: usize) -> Bytes {
    let head = format!(
        "--{LINE}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\
         content-type: audio/mpeg\r\n\r\n"
    );
    let mut file = BytesMut::from(head.as_bytes());
    file.extend_from_slice(&noise(length));
    file.extend_from_slice(b"\r\n");
    file.freeze()
}

fn field(name: &str, value: &str) -> Bytes {
    format!("--{LINE}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into()
}

fn form<const N: usize>(parts: [Bytes; N]) -> Bytes {
    parts.into_iter().chain([format!("--{LINE}--\r\n").into()]).flatten().collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framed {
    Declared,
    Chunked,
}

const BOTH: [Framed; 2] = [Framed::Declared, Framed::Chunked];

impl Framed {
    fn head(self, path: &str, media: &str, length: usize) -> String {
        let framing = match self {
            Self::Declared => format!("content-length: {length}"),
            Self::Chunked => "transfer-encoding: chunked".to_owned(),
        };
        format!("POST {path} HTTP/1.1\r\nhost: p\r\ncontent-type: {media}\r\n{framing}\r\n\r\n")
    }

    /// A piece of a body, as it is written.
    fn piece(self, bytes: &[u8]) -> Bytes {
        match self {
            Self::Declared => Bytes::copy_from_slice(bytes),
            Self::Chunked => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat().into(),
        }
    }

    fn end(self) -> &'static str {
        if self == Self::Chunked { "0\r\n\r\n" } else { "" }
    }

    fn whole(self, path: &str, media: &str, body: &[u8]) -> Vec<u8> {
        let mut text = self.head(path, media, body.len()).into_bytes();
        for piece in body.chunks(100_000) {
            text.extend_from_slice(&self.piece(piece));
        }
        text.extend_from_slice(self.end().as_bytes());
        text
    }
}

const FORM: &str = "multipart/form-data; boundary=line-7";
const BYTES: &str = "application/octet-stream";

async fn ask(proxy: &Proxy, request: impl AsRef<[u8]>) -> Heard {
    let mut raw = Raw::connect(proxy.address()).await;
    // Who is refused may be cut off while it writes.
    raw.try_send(request).await;
    raw.answer().await
}

fn assert_refused(answer: &Heard, status: u16, code: &str, words: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    let message = answer.json()["error"]["message"].as_str().expect("as errors are").to_owned();
    assert!(message.contains(words), "{message}");
}

#[tokio::test]
async fn an_upload_that_is_not_held_arrives_byte_for_byte_and_framed_as_it_came() {
    for in_upstream in ["", "http2 = true"] {
        let (upstream, proxy) = limited(&["sk-one"], in_upstream).await;
        let body = form([field("purpose", "batch"), file(5 << 20)]);
        for (path, media, body) in [
            ("/v1/files", FORM, body.clone()),
            ("/v1/uploads/upload_1/parts", FORM, body),
            ("/v1/files/f/content", "video/mp4", noise(HELD + 1)),
            ("/v1/files/f/content", BYTES, noise(MOST)),
        ] {
            upstream.otherwise(Answer::ok());
            for framed in BOTH {
                let answer = ask(&proxy, framed.whole(path, media, &body)).await;
                assert_eq!(answer.status, 200, "{framed:?} {media}: {answer:?}");
                let sent = upstream.last_request();
                assert!(sent.body == body, "{framed:?} {media}: {} of {}", sent.body_len, body.len());
                let length = body.len().to_string();
                let (length, coding) = match framed {
                    Framed::Declared => (Some(length.as_str()), None),
                    Framed::Chunked => (None, Some("chunked")),
                };
                assert_eq!(sent.header("content-length"), length);
                assert_eq!(sent.header("transfer-encoding"), coding);
                assert_eq!(sent.header("authorization"), Some("Bearer sk-one"));
            }
        }
        assert_eq!((upstream.malformed(), upstream.incomplete()), (0, 0));
        proxy.until_at_rest().await;
    }
}

#[tokio::test]
async fn an_upload_over_http_2_is_sent_on_and_refused_as_any_other() {
    let (upstream, proxy) = limited(&["sk-one"], "").await;
    upstream.otherwise(Answer::ok());
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let send = async |body: Bytes, media: &str| {
        let request = http2.post(proxy.url("/v1/files")).header("content-type", media).body(body);
        let answer = patiently(request.send()).await.unwrap();
        (answer.status().as_u16(), patiently(answer.text()).await.unwrap())
    };
    let body = noise(MOST);
    assert_eq!(send(body.clone(), BYTES).await.0, 200);
    assert!(upstream.last_request().body == body);
    let (status, text) = send(noise(MOST + 1), BYTES).await;
    assert!(status == 413 && text.contains("server.max_upload_bytes"), "{text}");
    upstream.otherwise(Answer::status(404).error("invalid_request_error", "", "No.").early());
    let (status, text) = send(body, BYTES).await;
    assert!(status == 404 && text.contains("No."), "{text}");
}

#[tokio::test]
async fn methods_that_seldom_have_a_body_send_theirs() {
    let (upstream, proxy) = limited(&["sk-one"], "").await;
    upstream.otherwise(Answer::ok());
    let body = noise(HELD * 3);
    for method in ["GET", "PUT", "DELETE"] {
        let request = Framed::Chunked.whole("/v1/files/f", BYTES, &body);
        let request = [method.as_bytes(), &request[4..]].concat();
        assert_eq!(ask(&proxy, request).await.status, 200, "{method}");
        assert!(upstream.last_request().body == body, "{method}");
    }
}

#[tokio::test]
async fn trailers_and_expectations_of_an_upload_end_here() {
    let (upstream, proxy) = limited(&["sk-one"], "").await;
    upstream.otherwise(Answer::ok());
    let body = noise(HELD * 2);
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nhost: p\r\ncontent-type: {BYTES}\r\nexpect: 100-continue\r\n\
         transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
    );
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(head).await;
    assert_eq!(raw.head().await.0, 100);
    raw.send(Framed::Chunked.piece(&body)).await;
    raw.send("0\r\nx-sum: 1\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 200);
    let sent = upstream.last_request();
    assert!(sent.body == body);
    for name in ["trailer", "x-sum", "expect"] {
        assert_eq!(sent.header(name), None);
    }
}

#[tokio::test]
async fn each_kind_of_body_has_its_limit_and_the_refusal_names_it() {
    let (upstream, proxy) = limited(&["sk-one"], "").await;
    upstream.otherwise(Answer::ok());
    let json = format!("{{\"model\":\"m\",\"input\":\"{}\"}}", "x".repeat(HELD));
    for framed in BOTH {
        for media in
            ["application/json", "application/x+json", "", "text/plain", "application/x-www-form-urlencoded"]
        {
            let answer = ask(&proxy, framed.whole("/v1/embeddings", media, json.as_bytes())).await;
            assert_refused(&answer, 413, "body_too_large", "server.request_body_limit_bytes");
        }
        for media in [BYTES, FORM, "image/png", "text/plain"] {
            let answer = ask(&proxy, framed.whole("/v1/files", media, &noise(MOST + 1))).await;
            // What is no form is not sent on for long, if it was at all.
            let code = (answer.status, answer.code());
            let is_form = (media, framed) == (FORM, Framed::Chunked);
            let expected = if is_form { (400, "invalid_request") } else { (413, "body_too_large") };
            assert_eq!(code, (expected.0, expected.1.to_owned()), "{framed:?} {media}");
            assert!(is_form || String::from_utf8_lossy(&answer.body).contains("server.max_upload_bytes"));
        }
    }
    assert_eq!(upstream.total_calls(), 0);
    proxy.until_at_rest().await;
    // It is not the key's fault, nor its host's.
    assert_eq!(ask(&proxy, Framed::Declared.whole("/v1/files", BYTES, b"x")).await.status, 200);
    assert_eq!(proxy.metric("key_cycle_attempts_total{verdict=\"broken\"}").await, 0.0);
}

#[tokio::test]
async fn the_smaller_of_two_limits_applies_to_uploads() {
    let upstream = Upstream::start().await;
    let limits = "[server]\nrequest_body_limit_bytes = 65536\nmax_upload_bytes = 1000\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", limits)).await;
    upstream.otherwise(Answer::ok());
    for framed in BOTH {
        assert_eq!(ask(&proxy, framed.whole("/v1/files", BYTES, &noise(1000))).await.status, 200);
        let answer = ask(&proxy, framed.whole("/v1/files", BYTES, &noise(1001))).await;
        assert_refused(&answer, 413, "body_too_large", "server.max_upload_bytes");
        let json = format!("{{\"model\":\"{}\"}}", "m".repeat(200)) + &" ".repeat(2000);
        assert_eq!(
            ask(&proxy, framed.whole("/v1/embeddings", "application/json", json.as_bytes())).await.status,
            200
        );
    }
}

#[tokio::test]
async fn the_model_of_a_form_is_found_wherever_it_stands_if_the_form_is_held_and_before_the_file_if_not() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::ok());
    let keys = keys_toml(&upstream.url(), &["sk-others"]);
    let sound = "[[keys.pool]]\nkey = \"sk-sound\"\nmodels = \"whisper-1\"\n";
    let proxy = Proxy::start(&format!("{keys}{sound}{LIMITS}")).await;
    let model = || field("model", "whisper-1");
    for framed in BOTH {
        for path in ["/v1/audio/transcriptions", "/v1/images/edits"] {
            for body in
                [form([model(), file(1000)]), form([file(1000), model()]), form([model(), file(3 << 20)])]
            {
                let answer = ask(&proxy, framed.whole(path, FORM, &body)).await;
                assert_eq!(answer.status, 200, "{framed:?}: {answer:?}");
                let sent = upstream.last_request();
                assert_eq!(sent.key.as_deref(), Some("sk-sound"), "{framed:?} {path}");
                assert!(sent.body == body);
            }
            upstream.reset_records();
            let late = form([file(3 << 20), model()]);
            let answer = ask(&proxy, framed.whole(path, FORM, &late)).await;
            assert_refused(&answer, 400, "invalid_request", "put `model` before the file");
            assert_eq!(upstream.total_calls(), 0);
        }
        // Whatever is asked for no model goes without one.
        let late = form([file(3 << 20), model()]);
        assert_eq!(ask(&proxy, framed.whole("/v1/files", FORM, &late)).await.status, 200);
    }
}

#[tokio::test]
async fn a_form_is_refused_if_its_model_is_missing_where_it_matters_or_it_is_none() {
    let (upstream, proxy) = limited(&["sk-one"], "").await;
    upstream.otherwise(Answer::ok());
    let ask_for = async |path: &str, media: &str, body: &[u8]| {
        let mut answers = Vec::new();
        for framed in BOTH {
            answers.push(ask(&proxy, framed.whole(path, media, body)).await);
        }
        answers
    };
    let nameless = form([file(100)]);
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        for answer in ask_for(path, FORM, &nameless).await {
            assert_refused(&answer, 400, "invalid_request", "The form names no `model`");
        }
    }
    let two = form([field("model", "a"), file(9), field("model", "b")]);
    for (media, body, words) in [
        ("multipart/form-data", &nameless[..], "boundary"),
        ("multipart/form-data; boundary=other", &nameless, "no form"),
        (FORM, b"{\"model\":\"m\"}", "no form"),
        (FORM, &nameless[..nameless.len() - 6], "has no end"),
        (FORM, &two, "`model` must be given once"),
        (FORM, &form([field("model", "")]), "`model` must be given once"),
    ] {
        for path in ["/v1/audio/transcriptions", "/v1/images/edits", "/v1/files"] {
            for answer in ask_for(path, media, body).await {
                assert_refused(&answer, 400, "invalid_request", words);
            }
        }
    }
    let coded = Framed::Declared.head("/v1/audio/transcriptions", FORM, HELD * 2);
    let coded = coded.replace("content-type", "content-encoding: gzip\r\ncontent-type").into_bytes();
    let answer = ask(&proxy, [coded, noise(HELD * 2).to_vec()].concat()).await;
    assert_refused(&answer, 400, "invalid_request", "without Content-Encoding");
    assert_eq!(upstream.total_calls(), 0);
    for path in ["/v1/images/edits", "/v1/files", "/v1/uploads/u/parts", "/v1/audio/voices"] {
        for answer in ask_for(path, FORM, &nameless).await {
            assert_eq!(answer.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn a_large_broken_form_goes_nowhere() {
    let (upstream, proxy) = limited(&["sk-one"], "").await;
    let whole = form([field("model", "m"), file(1 << 20)]);
    for media in ["multipart/form-data", "multipart/form-data; boundary=other"] {
        for framed in BOTH {
            let answer = ask(&proxy, framed.whole("/v1/files", media, &whole)).await;
            assert_refused(&answer, 400, "invalid_request", "");
        }
    }
    assert_eq!(upstream.total_calls() + upstream.incomplete(), 0);
}

const FILL: &str = "[keys]\nrotation_strategy = \"fill_first\"\n";

async fn in_order(in_upstream: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let sections = format!("{LIMITS}{FILL}");
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one", "sk-two"], in_upstream, &sections)).await;
    upstream.key("sk-two").always(Answer::ok());
    (upstream, proxy)
}

fn refusals() -> [Answer; 3] {
    let limited = Answer::status(429).error("requests", "rate_limit_exceeded", "Slow down.");
    [Answer::revoked(), limited, Answer::out_of_quota()]
}

#[tokio::test]
async fn another_key_is_tried_as_long_as_nothing_of_the_rest_has_gone() {
    for in_upstream in ["", "http2 = true"] {
        for refusal in refusals() {
            let (upstream, proxy) = in_order(in_upstream).await;
            upstream.key("sk-one").always(refusal.early());
            let body = form([field("model", "whisper-1"), file(HELD * 4)]);
            let start = field("model", "whisper-1").len() + LINE.len() + 2;
            let mut raw = Raw::connect(proxy.address()).await;
            raw.send(Framed::Declared.head("/v1/audio/transcriptions", FORM, body.len())).await;
            raw.send(&body[..start]).await;
            upstream.wait_for(|up| up.connections() == 2).await;
            raw.send(&body[start..]).await;
            assert_eq!(raw.answer().await.status, 200);
            assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (1, 1));
            assert!(upstream.last_request().body == body);
        }
    }
}

/// Sends an upload whose first upstream refuses it when much of the rest has gone.
async fn refused_late(upstream: &Upstream, proxy: &Proxy, refusal: Answer) -> Heard {
    let gate = Gate::new();
    upstream.key("sk-one").always(refusal.early().after(&gate));
    let body = noise(MOST);
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(Framed::Declared.head("/v1/files", BYTES, body.len())).await;
    // As much does not fit between us and the proxy.
    let (most, last) = body.split_at(MOST - 1);
    raw.send(most).await;
    upstream.wait_for(|up| up.total_calls() == 1).await;
    gate.open();
    raw.try_send(last).await;
    raw.answer().await
}

#[tokio::test]
async fn a_refusal_is_final_once_some_of_the_rest_has_gone() {
    for in_upstream in ["", "http2 = true"] {
        for refusal in refusals() {
            let (upstream, proxy) = in_order(in_upstream).await;
            let answer = refused_late(&upstream, &proxy, refusal).await;
            // It is about our key; the client may send all of it again.
            assert_refused(&answer, 429, "all_keys_cooling", "");
            assert_eq!((upstream.calls("sk-one"), upstream.calls("sk-two")), (1, 0));
            assert_eq!(proxy.metric("key_cycle_retries_denied_total{reason=\"not_repeatable\"}").await, 1.0);
            let whole = Framed::Declared.whole("/v1/files", BYTES, &noise(MOST));
            assert_eq!(ask(&proxy, whole).await.status, 200);
            assert_eq!(upstream.calls("sk-two"), 1);
        }
        for status in [400, 404, 413, 500] {
            let (upstream, proxy) = in_order(in_upstream).await;
            let refusal = Answer::status(status).error("invalid_request_error", "", "Too large.");
            let answer = refused_late(&upstream, &proxy, refusal).await;
            assert_eq!((answer.status, answer.end), (status, End::Marked), "{answer:?}");
            assert_eq!(answer.json()["error"]["message"], "Too large.");
            assert_eq!(upstream.total_calls(), 1);
        }
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_and_closes_at_once_is_understood() {
    let up = ByHand::start().await;
    let proxy = Proxy::start(&toml(&up.url(), &["sk-one"], "", LIMITS)).await;
    let body = noise(MOST);
    for _ in 0..10 {
        let asking = ask(&proxy, Framed::Declared.whole("/v1/files", BYTES, &body)).await_beside(async {
            let (mut raw, _) = up.request().await;
            raw.send("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlong").await;
            // With most of the body unread, so that it is a reset.
            drop(raw);
        });
        let answer = asking.await;
        assert_eq!((answer.status, &answer.body[..]), (413, &b"long"[..]), "{answer:?}");
    }
}

trait Beside: Future + Sized {
    /// What it comes to, while the other goes on.
    async fn await_beside(self, other: impl Future<Output = ()>) -> Self::Output {
        tokio::join!(self, other).0
    }
}

impl<F: Future> Beside for F {}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_takes_the_call_along_and_no_key_is_blamed() {
    for in_upstream in ["", "http2 = true"] {
        leave_in_the_middle(in_upstream).await;
    }
}

async fn leave_in_the_middle(in_upstream: &str) {
    let (upstream, proxy) = limited(&["sk-one"], in_upstream).await;
    upstream.otherwise(Answer::ok());
    for framed in BOTH {
        for finish in [false, true] {
            upstream.reset_records();
            let mut raw = Raw::connect(proxy.address()).await;
            raw.send(framed.head("/v1/files", BYTES, MOST)).await;
            raw.send(framed.piece(&noise(HELD * 2))).await;
            upstream.wait_for(|up| up.open_connections() > 0).await;
            if finish {
                raw.finish().await;
                assert_refused(&raw.answer().await, 400, "invalid_request", "ended early");
            }
            drop(raw);
            upstream.wait_for(|up| up.open_connections() == 0).await;
            proxy.until_at_rest().await;
            assert_eq!(upstream.total_calls(), 0);
        }
    }
    let metrics = proxy.metrics().await;
    assert!(
        !metrics.lines().any(|line| line.starts_with("key_cycle_attempts_total") && !line.ends_with(" 0")),
        "{metrics}"
    );
    assert_eq!(
        client()
            .post(proxy.url("/v1/chat/completions"))
            .body(chat("m"))
            .send()
            .await
            .expect("an answer")
            .status(),
        200
    );
}

#[tokio::test]
async fn a_client_that_breaks_off_while_it_is_answered_blames_no_key() {
    let up = ByHand::start().await;
    let proxy = Proxy::start(&toml(&up.url(), &["sk-one"], "max_retries = 0", LIMITS)).await;
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(Framed::Chunked.head("/v1/files", BYTES, 0)).await;
    raw.send(Framed::Chunked.piece(&noise(HELD * 2))).await;
    let (mut answering, _) = up.request().await;
    answering.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n").await;
    assert_eq!(raw.head().await.0, 200);
    raw.send("no chunk\r\n").await;
    assert_ne!(raw.rest().await.1, End::Marked);
    proxy.until_at_rest().await;
    assert_ne!(answering.rest().await.1, End::Marked);
    assert_eq!(proxy.metric("key_cycle_attempts_total{verdict=\"broken\"}").await, 0.0);
    assert_eq!(proxy.metric("key_cycle_requests_total{status=\"2xx\",ending=\"client_left\"}").await, 1.0);
}

#[tokio::test]
async fn an_upload_whose_upstream_cannot_be_reached_goes_to_another() {
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::ok());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keys = keys_toml(&format!("http://{dead}"), &["sk-dead"]);
    let live =
        format!("[[keys.pool]]\nkey = \"sk-live\"\nurl = \"{}\"\nmodels = [\"others\"]\n", upstream.url());
    let proxy = Proxy::start(&format!("{keys}{live}{LIMITS}{FILL}")).await;
    let body = form([field("model", "whisper-1"), file(MOST / 2)]);
    for framed in BOTH {
        let answer = ask(&proxy, framed.whole("/v1/audio/transcriptions", FORM, &body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(upstream.last_request().body == body);
    }
    assert!(proxy.metric("key_cycle_attempts_total{verdict=\"unreachable\"}").await >= 1.0);
}

#[tokio::test]
async fn an_upload_that_broke_on_the_way_is_not_sent_again() {
    let up = ByHand::start().await;
    let proxy = Proxy::start(&toml(&up.url(), &["sk-one", "sk-two"], "", LIMITS)).await;
    let body = noise(MOST);
    let asking = ask(&proxy, Framed::Declared.whole("/v1/audio/transcriptions", BYTES, &body));
    let answer = asking.await_beside(async {
        let (mut raw, _) = up.request().await;
        raw.exactly(HELD * 2).await;
    });
    assert_refused(&answer.await, 502, "upstream_broken", "");
    assert!(up.is_quiet());
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    const LARGE: usize = 96 << 20;
    let up = ByHand::start().await;
    let limits = "[server]\nrequest_body_limit_bytes = 65536\n";
    let proxy = Proxy::start(&toml(&up.url(), &["sk-one"], "", limits)).await;
    let (mut socket, _) = Raw::connect(proxy.address()).await.into_parts();
    let body = noise(LARGE);
    let written = Arc::new(AtomicUsize::new(0));
    socket.write_all(Framed::Declared.head("/v1/files", BYTES, LARGE).as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let writing = async {
        for piece in body.chunks(64 << 10) {
            writer.write_all(piece).await.unwrap();
            written.fetch_add(piece.len(), SeqCst);
        }
    };
    let reading = async {
        let (mut raw, head) = up.request().await;
        assert!(head.contains(&format!("content-length: {LARGE}\r\n")), "{head}");
        // Until nothing more goes in. If nothing stops it, all of it has gone by then.
        let mut before = usize::MAX;
        while before != written.load(SeqCst) {
            before = written.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < LARGE / 2, "{before} bytes went into nowhere");
        let (came, _) = raw.exactly(LARGE).await;
        assert!(came == body, "what came is another");
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        raw
    };
    let ((), _raw) = patiently(async { tokio::join!(writing, reading) }).await;
    let mut answer = [0; 12];
    patiently(reader.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn replay_memory_counts_what_is_held() {
    let upstream = Upstream::start().await;
    let limits = "[server]\nrequest_body_limit_bytes = 65536\nreplay_memory_bytes = 131072\nmax_upload_bytes = 8388608\n";
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "", limits)).await;
    upstream.otherwise(Answer::ok());
    let whole = Framed::Declared.whole("/v1/files", BYTES, &noise(MOST));
    assert_eq!(ask(&proxy, whole).await.status, 200);
    let json = format!("{{\"input\":\"{}\"}}", "x".repeat(60_000));
    assert_eq!(
        ask(&proxy, Framed::Declared.whole("/v1/embeddings", "application/json", json.as_bytes()))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn what_is_on_its_way_up_is_not_cut_and_what_hangs_is() {
    let up = ByHand::start().await;
    let settings = "request_timeout_ms = 1000\ntotal_timeout_ms = 3000";
    let proxy = Proxy::start(&toml(&up.url(), &["sk-one"], settings, LIMITS)).await;
    let clock = StillClock::stop();
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(Framed::Chunked.head("/v1/files", BYTES, 0)).await;
    raw.send(Framed::Chunked.piece(&noise(HELD * 2))).await;
    let (mut upstream, _) = up.request().await;
    for n in 0..8 {
        let mark = format!("mark {n}");
        raw.send(Framed::Chunked.piece(mark.as_bytes())).await;
        upstream.until(&mark).await;
        clock.pass(Duration::from_millis(900)).await;
    }
    clock.pass(Duration::from_millis(200)).await;
    assert_ne!(upstream.rest().await.1, End::Marked);
    raw.send(Framed::Chunked.end()).await;
    let answer = raw.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"), "{answer:?}");
}
