//! What a request that waits for a key takes of memory.

use support::{
    ask::{Got, in_turn_with},
    proxy::{Proxy, chat, client},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

mod support;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const WAITERS: usize = 1000;
/// Beyond its body.
const MOST: usize = 2 << 10;

fn held() -> usize {
    dhat::HeapStats::get().curr_bytes
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut length = 0;
    loop {
        length += stream.read(&mut buffer[length..]).await.expect("an answer");
        let text = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (_, rest) = head.split_once("content-length: ").expect("its length is told");
        let expected: usize = rest.lines().next().and_then(|line| line.parse().ok()).expect("a number");
        if body.len() >= expected {
            return;
        }
    }
}

/// In the process are the proxy, the upstream, which is not called meanwhile, and the clients' sockets, which hold what
/// they write nowhere. What grows is the proxy's.
#[tokio::test]
async fn a_request_that_waits_takes_no_more_than_two_kibibytes_beyond_its_body() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let _clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.key("sk-a").always(Answer::api());
    let file = in_turn_with(&upstream, &["key = \"sk-a\"\nmax_in_flight = 1"], "max_wait_ms = 600000");
    let proxy = Proxy::start(&file.replace("debug_headers = true", "debug_headers = false")).await;

    // Idle connections, each of which has been used.
    let body = chat("gpt-4o");
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer any\r\n\
         content-type: application/json\r\naccept: application/json\r\nuser-agent: OpenAI/Python 2.8.1\r\n\
         x-stainless-lang: python\r\nx-stainless-package-version: 2.8.1\r\nx-stainless-os: Linux\r\n\
         x-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\nx-stainless-runtime-version: 3.13.1\r\n\
         x-stainless-async: false\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n\
         accept-encoding: gzip, deflate\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut streams = Vec::with_capacity(WAITERS);
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..WAITERS {
        let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it is read");
        read_answer(&mut stream, &mut buffer).await;
        streams.push(stream);
    }
    upstream.key("sk-a").always(Answer::api().after(&gate));
    let first = client().post(proxy.url("/v1/chat/completions")).body(chat("gpt-4o"));
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let first = tokio::spawn(async move { Got::read(first.send().await.expect("the proxy answers")).await });
    upstream.wait_for(|up| up.total_calls() == WAITERS + 1).await;
    proxy.until_waiting(0).await;
    let before = held();
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).await.expect("it is read");
    }
    proxy.until_waiting(WAITERS).await;
    let each = (held() - before) / WAITERS;
    println!("{each} bytes for each of {WAITERS} that wait, {} of them its body", body.len());
    assert!(each <= MOST + body.len(), "{each} bytes, {} of them the body", body.len());
    gate.open();
    for stream in &mut streams {
        read_answer(stream, &mut buffer).await;
    }
    assert_eq!(first.await.expect("it did not panic").status, 200);
}
