//! Thousands of requests, good ones and bad ones, spoilt by chance. Whatever they have become, no task panics, nothing
//! of ours is at fault, what goes up is sound, and the daemon serves on with nothing left under way.

use std::io::Write as _;

use fastrand::Rng;
use flate2::{Compression, write::GzEncoder};
use support::{
    frames::{
        DATA, END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
        frame, request,
    },
    pair::{GOOD, Pair, shown},
    proxy::{chat, streamed_chat},
    raw::Raw,
};

mod support;

/// How many connections are open at once.
const BATCH: usize = 50;
const LARGEST: usize = 64 << 10;

/// What is put in by chance: whatever ends, begins or confuses something.
const PIECES: [&[u8]; 40] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\"",
    b"\xff\xfe",
    b"\xf0\x9f\xa6\x80",
    b"0",
    b"-1",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"18446744073709551615",
    b"../",
    b"%2e%2e/",
    b"//",
    b"\\",
    b"%00",
    b"#",
    b"?key=x&",
    b"http://evil.example/v1/",
    b"*",
    b"HTTP/1.0\r\n",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: identity\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"expect: 100-continue\r\n",
    b"content-encoding: gzip\r\n",
    b"content-type: application/json\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: p\r\n\r\n",
    b"{\"model\":",
    b"\"model\":\"m\",",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"--line-7",
];

fn post(path: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: p\r\n{lines}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Requests of HTTP/1.1 of every kind that is treated in its own way.
fn texts() -> Vec<Vec<u8>> {
    let chat = chat("m");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(chat.as_bytes()).expect("a vector takes all");
    let gzip = gzip.finish().expect("a vector takes all");
    let zstd =
        ruzstd::encoding::compress_to_vec(chat.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let form = "--line-7\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nsound\r\n\
                --line-7\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--line-7--\r\n";
    let chunks = format!("{:x};ext=1\r\n{chat}\r\n0\r\nx-trailer: 1\r\n\r\n", chat.len());
    let chunked = "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n";
    let completions = "/v1/chat/completions";
    let json = "content-type: application/json\r\n";
    vec![
        b"GET /v1/models?limit=2&after=a%20b HTTP/1.1\r\nhost: p\r\naccept: */*\r\n\r\n".to_vec(),
        b"HEAD /v1/models HTTP/1.1\r\nhost: p\r\n\r\n".to_vec(),
        b"GET /v1/models HTTP/1.0\r\n\r\n".to_vec(),
        b"GET http://p/v1/models HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n".to_vec(),
        b"OPTIONS /v1/models HTTP/1.1\r\nhost: p\r\norigin: http://localhost\r\naccess-control-request-method: GET\r\n\r\n"
            .to_vec(),
        b"DELETE /v1/files/file-1 HTTP/1.1\r\nhost: p\r\nx-request-id: mine\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nhost: p\r\n\r\n".repeat(3),
        b"GET /v1/x HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello".to_vec(),
        post(completions, json, chat.as_bytes()),
        post(completions, json, streamed_chat("m").as_bytes()),
        post("/chat/completions", "authorization: Bearer x\r\nx-api-key: y\r\n", chat.as_bytes()),
        post(completions, "content-type: application/json\r\ncontent-encoding: gzip\r\n", &gzip),
        post(completions, "content-type: application/json\r\ncontent-encoding: deflate\r\n", &gzip[10..]),
        post(completions, "content-type: application/json\r\ncontent-encoding: zstd\r\n", &zstd),
        post(completions, "content-type: application/json\r\ncontent-encoding: br\r\n", &brotli(chat.as_bytes())),
        post("/v1/audio/transcriptions", "content-type: multipart/form-data; boundary=line-7\r\n", form.as_bytes()),
        post("/v1/files", "expect: 100-continue\r\n", b"hello"),
        post("/v1/embeddings", json, br#"{"model":"\u006d","input":["a",[1,2.5e3,null,true]],"model":"m"}"#),
        format!("{chunked}{json}\r\n{chunks}").into_bytes(),
        format!("{chunked}content-length: 4\r\n\r\n{chunks}").into_bytes(),
        format!("{chunked}transfer-encoding: gzip, chunked\r\n\r\n{chunks}GET /v1/x HTTP/1.1\r\n\r\n").into_bytes(),
    ]
}

/// A stream with one block that is stored as it is (RFC 7932 §9.2).
fn brotli(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len() - 1).expect("it is short");
    [&(length << 4 | 1 << 20).to_le_bytes()[..3], text, &[3]].concat()
}

/// Connections of HTTP/2.
fn streams() -> Vec<Vec<u8>> {
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let post =
        [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions"), (":authority", "p")];
    let head = |stream| frame(HEADERS, END_HEADERS, stream, &block(&post));
    let body = |stream| frame(DATA, END_STREAM, stream, chat("m").as_bytes());
    let fields = [&GET[..], &[("x-a", "1"), ("te", "trailers"), ("cookie", "a=b")]].concat();
    vec![
        [hello.clone(), request(1, &GET), request(3, &fields), request(5, &GET)].concat(),
        [hello.clone(), head(1), body(1), head(3), body(3)].concat(),
        [hello.clone(), head(1), frame(DATA, 0, 1, b"{"), frame(RST_STREAM, 0, 1, &[0; 4]), request(3, &GET)]
            .concat(),
        [
            hello.clone(),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
            head(1),
            frame(HEADERS, 5, 1, &block(&[("x", "y")])),
        ]
        .concat(),
        [
            hello,
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1, 0, 3, 0, 0, 0, 1]),
            request(1, &GET),
            head(3),
            body(3),
        ]
        .concat(),
    ]
}

/// One of these after a few accidents.
fn spoilt(dice: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[dice.usize(..corpus.len())].clone();
    for _ in 0..dice.usize(1..=5) {
        let at = dice.usize(..=bytes.len());
        let end = (at + dice.usize(..=24)).min(bytes.len());
        match dice.u8(..9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.u8(..8),
            1 if at < bytes.len() => bytes[at] = dice.u8(..),
            2 | 3 => drop(bytes.splice(at..at, dice.choice(PIECES).expect("there are some").iter().copied())),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].repeat(dice.usize(1..=50));
                bytes.splice(at..at, again);
            }
            6 => {
                let other = &corpus[dice.usize(..corpus.len())];
                bytes.splice(at.., other[dice.usize(..other.len())..].iter().copied());
            }
            7 => bytes.truncate(at),
            // Another digit: most of them are a part of some length.
            _ => {
                if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + dice.u8(..10);
                }
            }
        }
    }
    bytes.truncate(LARGEST);
    bytes
}

/// Sends so many of them, a batch at a time.
async fn survives(corpus: &[Vec<u8>], seed: u64, batches: usize) {
    let pair = Pair::start().await;
    let mut dice = Rng::with_seed(seed);
    for _ in 0..batches {
        let mut open = Vec::new();
        for _ in 0..BATCH {
            let bytes = spoilt(&mut dice, corpus);
            let mut raw = Raw::connect(pair.proxy.address()).await;
            raw.try_send(&bytes).await;
            open.push((bytes, raw));
        }
        // What can be answered is answered meanwhile. The rest waits for more, which never comes.
        for _ in 0..2 {
            assert_eq!(Raw::ask(pair.proxy.address(), GOOD).await.status, 200);
        }
        for (bytes, mut raw) in open {
            // Shown if it panics.
            println!("{}", bytes.escape_ascii());
            raw.finish().await;
            let (answers, _) = raw.rest().await;
            let fault = memchr::memmem::find(&answers, b"internal_error");
            assert_eq!(fault, None, "{}", shown(&answers));
        }
        for sent in pair.upstream.requests() {
            pair.assert_ours(&sent);
        }
        assert_eq!(pair.upstream.malformed(), 0);
        pair.upstream.reset_records();
    }
    pair.proxy.until_at_rest().await;
    for ending in ["complete", "broken", "silent", "client_left"] {
        let faults = format!(r#"key_cycle_requests_total{{status="5xx",ending="{ending}"}}"#);
        assert_eq!(pair.proxy.metric(&faults).await, 0.0, "{ending}");
    }
    assert_eq!(pair.proxy.keys_in("ready").await, 1);
    assert_eq!(pair.proxy.chat("m").await.status, 200);
}

#[tokio::test]
async fn no_spoilt_request_does_any_harm() {
    survives(&texts(), 1, 60).await;
}

#[tokio::test]
async fn no_spoilt_connection_of_http2_does_any_harm() {
    survives(&streams(), 2, 30).await;
}
