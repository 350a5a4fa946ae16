//! WebSockets and other protocols that HTTP is switched to.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use support::{
    binary::Folder,
    by_hand::ByHand,
    forward_proxy::ForwardProxy,
    proxy::{Proxy, keys_toml, toml},
    raw::{Raw, patiently},
    upstream::{Answer, Upstream},
    websocket::{ACCEPTED, BINARY, CLOSE, Echo, Socket, TEXT, frame, handshake},
};
use tokio::io::AsyncWriteExt as _;

mod support;

const TARGET: &str = "/v1/realtime?model=gpt-realtime";
const FILL: &str = "[keys]\nrotation_strategy = \"fill_first\"\n";

/// A client whose handshake was accepted, and the head that said so.
async fn connect(proxy: &Proxy, target: &str, lines: &str) -> (Socket, http::HeaderMap) {
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(handshake(target, lines)).await;
    let (status, headers) = raw.head().await;
    assert_eq!(status, 101, "{headers:?}");
    (Socket::over(raw, true), headers)
}

/// The same, and the upstream's side.
async fn both(proxy: &Proxy, up: &ByHand) -> (Socket, Socket) {
    let (client, upstream) = tokio::join!(connect(proxy, TARGET, ""), async {
        let (mut raw, _) = up.request().await;
        raw.send(format!("{ACCEPTED}\r\n")).await;
        Socket::over(raw, false)
    });
    (client.0, upstream)
}

async fn by_hand(sections: &str) -> (ByHand, Proxy) {
    let up = ByHand::start().await;
    let proxy = Proxy::start(&toml(&up.url(), &["sk-one", "sk-two"], "", sections)).await;
    (up, proxy)
}

/// Waits until no tunnel is open.
async fn until_closed(proxy: &Proxy) {
    for _ in 0..2000 {
        if proxy.metric("key_cycle_tunnels").await == 0.0 {
            return proxy.until_at_rest().await;
        }
        tokio::task::yield_now().await;
    }
    panic!("a tunnel stays open");
}

#[tokio::test]
async fn frames_go_both_ways_in_order_and_the_handshake_is_the_upstreams() {
    let echo = Echo::start(
        "sec-websocket-protocol: realtime\r\nsec-websocket-extensions: permessage-deflate\r\n\
         set-cookie: a=b\r\nopenai-organization: org\r\nx-request-id: req_up\r\nx-echo: Bearer sk-sound\r\n",
    )
    .await;
    let keys = keys_toml(echo.url(), &["sk-others"]);
    let proxy =
        Proxy::start(&format!("{keys}[[keys.pool]]\nkey = \"sk-sound\"\nmodels = \"gpt-real time\"\n")).await;
    let lines = "sec-websocket-protocol: realtime, openai-beta.realtime-v1\r\n\
                 sec-websocket-extensions: permessage-deflate\r\nopenai-beta: realtime=v1\r\ncookie: c\r\n\
                 authorization: Bearer client\r\n";
    let (mut client, head) = connect(&proxy, "/v1/realtime?model=gpt%2Dreal+time&x=1", lines).await;
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "realtime"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("x-upstream-request-id", "req_up"),
        ("x-echo", "Bearer [redacted]"),
    ] {
        assert_eq!(head[name], value, "{name}");
    }
    for name in ["set-cookie", "openai-organization", "content-length", "transfer-encoding"] {
        assert!(!head.contains_key(name), "{name}");
    }
    assert_eq!(proxy.metric("key_cycle_tunnels").await, 1.0);
    assert_eq!(proxy.metric("key_cycle_requests_in_flight").await, 1.0);
    for length in [0, 1, 125, 126, 65535, 65536, 300_000] {
        let payload: Vec<u8> = (0..length).map(|n: usize| n as u8).collect();
        client.send(BINARY, &payload).await;
        client.send(TEXT, b"between").await;
        assert_eq!(client.frame().await.unwrap(), (BINARY, payload.into(), false));
        assert_eq!(client.frame().await.unwrap(), (TEXT, "between".into(), false));
    }
    client.send(CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(client.goodbye().await, 1000);
    assert_eq!(client.frame().await, None);
    until_closed(&proxy).await;
    let sent = echo.heads().remove(0).to_ascii_lowercase();
    let expected = [
        "get /v1/realtime?model=gpt%2dreal+time&x=1 http/1.1",
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==",
        "authorization: bearer sk-sound",
        "sec-websocket-protocol: realtime, openai-beta.realtime-v1",
        "openai-beta: realtime=v1",
        "sec-websocket-extensions: permessage-deflate",
    ];
    for line in expected {
        assert_eq!(sent.matches(&format!("{line}\r\n")).count(), 1, "{line}: {sent}");
    }
    assert!(
        !sent.contains("client") && !sent.contains("cookie") && !sent.contains("content-length"),
        "{sent}"
    );
    let metrics = proxy.metrics().await;
    assert!(metrics.contains("key_cycle_requests_total{status=\"1xx\",ending=\"complete\"} 1"), "{metrics}");
    for way in ["up", "down"] {
        assert!(
            proxy.metric(&format!("key_cycle_tunnel_bytes_total{{direction=\"{way}\"}}")).await > 431_000.0
        );
    }
    assert_eq!(proxy.metric("key_cycle_attempts_total{verdict=\"success\"}").await, 1.0);
}

#[tokio::test]
async fn a_key_among_the_subprotocols_is_the_clients_and_stays_here() {
    let echo = Echo::start("sec-websocket-protocol: realtime\r\n").await;
    let file = toml(echo.url(), &["sk-canary-pool"], "", "[clients]\nkeys = [\"ck-canary-one\"]\n");
    let proxy = Proxy::start(&file).await;
    let offered = |key: &str| {
        format!(
            "sec-websocket-protocol: realtime, openai-insecure-api-key.{key}, openai-organization.org-x,\
             openai-project.proj-x, openai-beta.realtime-v1\r\n"
        )
    };
    for wrong in [offered("ck-canary-two"), offered(""), String::new()] {
        let answer = Raw::ask(proxy.address(), handshake(TARGET, &wrong)).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"));
    }
    assert!(echo.heads().is_empty());
    let (mut client, head) = connect(&proxy, TARGET, &offered("ck-canary-one")).await;
    client.send(TEXT, b"hello").await;
    assert_eq!(client.frame().await.unwrap().1, "hello");
    let sent = echo.heads().remove(0);
    assert!(sent.contains("sec-websocket-protocol: realtime, openai-beta.realtime-v1\r\n"), "{sent}");
    for secret in ["ck-canary", "org-x", "proj-x"] {
        assert!(!sent.contains(secret), "{sent}");
    }
    assert!(!format!("{head:?}").contains("canary"), "{head:?}");
}

#[tokio::test]
async fn a_refusal_before_the_switch_goes_to_the_next_key() {
    let limited = "HTTP/1.1 429 Too Many\r\ncontent-type: application/json\r\ncontent-length: 39\r\n\r\n\
                   {\"error\":{\"code\":\"rate_limit_exceeded\"}}";
    let rejected = "HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: 35\r\n\r\n\
                    {\"error\":{\"code\":\"invalid_api_key\"}}";
    let failed = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    for refusal in [limited, rejected, failed, ""] {
        for in_upstream in ["", "http2 = true"] {
            let up = ByHand::start().await;
            let proxy = Proxy::start(&toml(&up.url(), &["sk-one", "sk-two"], in_upstream, FILL)).await;
            let upstream = async {
                let (mut raw, head) = up.request().await;
                assert!(head.contains("Bearer sk-one"), "{head}");
                raw.send(refusal).await;
                drop(raw);
                let (mut raw, head) = up.request().await;
                assert!(head.contains("Bearer sk-two"), "{head}");
                raw.send(format!("{ACCEPTED}\r\n")).await;
                Socket::over(raw, false)
            };
            let ((mut client, _), mut upstream) = tokio::join!(connect(&proxy, TARGET, ""), upstream);
            client.send(TEXT, b"up").await;
            assert_eq!(upstream.frame().await.unwrap(), (TEXT, "up".into(), true));
            upstream.send(TEXT, b"down").await;
            assert_eq!(client.frame().await.unwrap(), (TEXT, "down".into(), false));
        }
    }
}

#[tokio::test]
async fn what_an_upstream_says_in_place_of_a_switch_is_delivered_as_a_plain_answer() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let mut raw = Raw::connect(proxy.address()).await;
    for (status, answer) in [
        (200, Answer::ok()),
        (404, Answer::status(404).error("invalid_request_error", "", "No.")),
        (426, Answer::status(426).header("sec-websocket-version", "13").body("old")),
    ] {
        upstream.key("sk-one").always(answer);
        raw.send(handshake(TARGET, "")).await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.header("upgrade")), (status, None), "{answer:?}");
    }
    assert_eq!(upstream.total_calls(), 3);
    upstream.key("sk-one").always(Answer::status(503).body("later"));
    raw.send(handshake(TARGET, "")).await;
    assert_eq!(raw.answer().await.status, 503);
    upstream.stop().await;
    raw.send(handshake(TARGET, "")).await;
    assert_eq!(raw.answer().await.code(), "upstream_unreachable");
}

#[tokio::test]
async fn a_switch_to_what_nobody_asked_for_is_a_fault() {
    for answer in [
        "HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: telnet\r\n\r\n",
        "HTTP/1.1 101 S\r\nconnection: upgrade\r\n\r\n",
    ] {
        let upstream = Upstream::start().await;
        let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], "max_retries = 0", "")).await;
        upstream.otherwise(Answer::raw(answer));
        let answer = Raw::ask(proxy.address(), handshake(TARGET, "")).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_broken"));
    }
}

#[tokio::test]
async fn nothing_of_the_clients_goes_up_before_the_switch_and_nothing_is_lost() {
    let (up, proxy) = by_hand("").await;
    let mut raw = Raw::connect(proxy.address()).await;
    let early = [handshake(TARGET, "").as_bytes(), &frame(TEXT, b"early", true)].concat();
    raw.send(early).await;
    let (mut upstream, _) = up.request().await;
    assert!(upstream.is_quiet() && raw.is_quiet());
    // What it says at once comes through too.
    upstream.send([format!("{ACCEPTED}\r\n").as_bytes(), &frame(TEXT, b"first", false)].concat()).await;
    let mut upstream = Socket::over(upstream, false);
    assert_eq!(upstream.frame().await.unwrap(), (TEXT, "early".into(), true));
    assert_eq!(raw.head().await.0, 101);
    assert_eq!(Socket::over(raw, true).frame().await.unwrap(), (TEXT, "first".into(), false));
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_upstream_along_and_frees_the_key() {
    let up = ByHand::start().await;
    let keys = "[upstream]\nbase_url = \"URL\"\n[[keys.pool]]\nkey = \"sk-one\"\nmax_in_flight = 1\n";
    let proxy = Proxy::start(&keys.replace("URL", &up.url())).await;
    let (client, mut upstream) = both(&proxy, &up).await;
    // The key is taken as long as the tunnel is open.
    let mut second = Raw::connect(proxy.address()).await;
    second.send(handshake(TARGET, "")).await;
    proxy.until_waiting(1).await;
    assert!(up.is_quiet());
    drop(client);
    assert_eq!(upstream.frame().await, None);
    let (mut raw, _) = up.request().await;
    raw.send(format!("{ACCEPTED}\r\n")).await;
    assert_eq!(second.head().await.0, 101);
    assert_eq!(proxy.metric("key_cycle_requests_total{status=\"1xx\",ending=\"client_left\"}").await, 1.0);
    drop(second);
    until_closed(&proxy).await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_ends_the_client_without_a_goodbye() {
    let (up, proxy) = by_hand("").await;
    for reset in [false, true] {
        let (mut client, mut upstream) = both(&proxy, &up).await;
        upstream.send(TEXT, b"last words").await;
        // Half a frame: what was said of it comes too.
        assert_eq!(client.frame().await.unwrap().1, "last words");
        if reset {
            upstream.stream.set_zero_linger().unwrap();
        }
        drop(upstream);
        assert_eq!(client.frame().await, None);
        drop(client);
        until_closed(&proxy).await;
    }
    assert_eq!(proxy.metric("key_cycle_requests_total{status=\"1xx\",ending=\"broken\"}").await, 2.0);
    // The keys did what was asked.
    assert_eq!(proxy.metric("key_cycle_attempts_total{verdict=\"broken\"}").await, 0.0);
}

#[tokio::test]
async fn shutdown_says_goodbye_to_both_between_two_frames_and_ends_within_the_drain() {
    let (up, proxy) = by_hand("[server]\ngraceful_shutdown_seconds = 4\n").await;
    let (mut client, mut upstream) = both(&proxy, &up).await;
    let (mut silent, _silent_upstream) = both(&proxy, &up).await;
    let whole = frame(TEXT, b"half and half", true);
    let (half, rest) = whole.split_at(9);
    client.stream.write_all(half).await.unwrap();
    proxy.ask_to_stop();
    let stopping = proxy.stop();
    let talking = async {
        assert_eq!(client.goodbye().await, 1001);
        client.stream.write_all(rest).await.unwrap();
        assert_eq!(upstream.frame().await.unwrap(), (TEXT, "half and half".into(), true));
        assert_eq!(upstream.goodbye().await, 1001);
        client.send(CLOSE, &1001_u16.to_be_bytes()).await;
        upstream.send(CLOSE, &1001_u16.to_be_bytes()).await;
        assert_eq!((client.frame().await, upstream.frame().await), (None, None));
        // Who says nothing is cut.
        assert_eq!(silent.goodbye().await, 1001);
        assert_eq!(silent.frame().await, None);
    };
    let (drained, ()) = patiently(async { tokio::join!(stopping, talking) }).await;
    assert_eq!(drained, key_cycle_proxy::server::Drained::All);
}

#[tokio::test]
async fn without_time_for_a_drain_goodbye_is_said_at_once() {
    let (up, proxy) = by_hand("[server]\ngraceful_shutdown_seconds = 0\n").await;
    let (mut client, mut upstream) = both(&proxy, &up).await;
    let stopping = proxy.stop();
    let hearing = async {
        assert_eq!((client.goodbye().await, upstream.goodbye().await), (1001, 1001));
        assert_eq!((client.frame().await, upstream.frame().await), (None, None));
    };
    let (drained, ()) = patiently(async { tokio::join!(stopping, hearing) }).await;
    assert_eq!(drained, key_cycle_proxy::server::Drained::All);
}

#[tokio::test]
async fn the_log_tells_of_a_tunnel_at_its_end() {
    let echo = Echo::start("").await;
    let settings = format!(
        "[server]\nbind_addr = \"127.0.0.1:0\"\n[upstream]\nbase_url = \"{}\"\n\
         [observability]\nmetrics_bind = \"off\"\nlog_format = \"json\"\n[[keys.pool]]\nkey = \"sk-a\"\n",
        echo.url()
    );
    let mut proxy = Folder::with("config.toml", &settings).command(&[]).serve().await;
    let address = proxy.url("").strip_prefix("http://").unwrap().parse().unwrap();
    let mut raw = Raw::connect(address).await;
    raw.send(handshake(TARGET, "")).await;
    assert_eq!(raw.head().await.0, 101);
    let mut client = Socket::over(raw, true);
    client.send(TEXT, b"hello").await;
    client.frame().await.unwrap();
    client.send(CLOSE, b"").await;
    client.frame().await.unwrap();
    assert_eq!(client.frame().await, None);
    drop(client);
    let line: serde_json::Value = serde_json::from_str(&proxy.wait_for("\"tunnel\"").await).unwrap();
    for (field, value) in [("tunnel", "closed"), ("ending", "complete"), ("model", "gpt-realtime")] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(
        (line["status"].as_u64(), line["bytes"].as_u64(), line["bytes_up"].as_u64()),
        (Some(101), Some(9), Some(17))
    );
    assert!(line["duration_ms"].is_number());
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_it_for_both() {
    let (up, proxy) = by_hand("[server]\nmax_frame_bytes = 1000\n").await;
    for from_client in [true, false] {
        let (mut client, mut upstream) = both(&proxy, &up).await;
        let (large, just) = (vec![b'x'; 1001], vec![b'y'; 1000]);
        let (from, to) =
            if from_client { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        from.send(BINARY, &just).await;
        from.send(BINARY, &large).await;
        assert_eq!(to.frame().await.unwrap().1, just);
        assert_eq!(to.goodbye().await, 1009);
        assert_eq!(from.goodbye().await, 1009);
        drop(upstream);
        assert_eq!(client.frame().await, None);
        drop(client);
        until_closed(&proxy).await;
    }
}

#[tokio::test]
async fn any_other_protocol_goes_through_as_bytes() {
    let (up, proxy) = by_hand("[server]\nmax_frame_bytes = 125\n").await;
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send(
        "POST /v1/x HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: tcp\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let (mut upstream, head) = up.request().await;
    assert!(head.contains("upgrade: tcp\r\n") && head.starts_with("POST /v1/x "), "{head}");
    upstream.send("HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: TCP\r\n\r\nhello").await;
    let (status, headers) = raw.head().await;
    assert_eq!((status, headers["upgrade"].as_bytes()), (101, &b"TCP"[..]));
    assert_eq!(raw.exactly(5).await.0, "hello");
    let noise = [0xff_u8; 4096];
    raw.send(noise).await;
    assert_eq!(upstream.exactly(4096).await.0, noise[..]);
    drop(upstream);
    raw.rest().await;
    drop(raw);
    until_closed(&proxy).await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_with_what_to_do() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    let upgrade = "host: p\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    for (text, words) in [
        (format!("GET {TARGET} HTTP/1.1\r\n{upgrade}\r\n"), "Sec-WebSocket-Key"),
        (
            format!("POST {TARGET} HTTP/1.1\r\n{upgrade}sec-websocket-key: x\r\ncontent-length: 0\r\n\r\n"),
            "GET",
        ),
        (
            format!("GET {TARGET} HTTP/1.1\r\n{upgrade}sec-websocket-key: x\r\ncontent-length: 2\r\n\r\nhi"),
            "no body",
        ),
        (
            format!(
                "GET {TARGET} HTTP/1.1\r\n{upgrade}sec-websocket-key: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            "no body",
        ),
        (handshake("/v1/realtime?model=a&model=b", ""), "more than one `model`"),
    ] {
        let answer = Raw::ask(proxy.address(), &text).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{text}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(upstream.total_calls(), 0);
}

#[tokio::test]
async fn the_way_to_the_upstream_is_that_of_every_request() {
    // Through TLS, where HTTP/2 would be spoken otherwise.
    let upstream = Upstream::start_tls().await;
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(upstream.ca_pem().as_bytes()).unwrap();
    let switched = [format!("{ACCEPTED}\r\n").as_bytes(), &frame(TEXT, b"hello", false)].concat();
    upstream.otherwise(Answer::raw(switched));
    let trusting = format!("http2 = true\nca_file = \"{}\"", authority.path().display());
    let proxy = Proxy::start(&toml(&upstream.url(), &["sk-one"], &trusting, "")).await;
    let (mut client, _) = connect(&proxy, TARGET, "").await;
    assert_eq!(client.frame().await.unwrap().1, "hello");
    assert_eq!(upstream.last_request().version, http::Version::HTTP_11);
    // Through a forward proxy, which is asked for a tunnel: it would not understand.
    let echo = Echo::start("").await;
    let address = echo.url().strip_prefix("http://").unwrap().parse().unwrap();
    let forward = ForwardProxy::start(address).await;
    let env = [("HTTP_PROXY", forward.url("http", "")), ("http_proxy", forward.url("http", ""))];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let proxy = Proxy::start_with(&toml("http://llm.test:81", &["sk-one"], "", ""), &env).await;
    let (mut client, _) = connect(&proxy, TARGET, "").await;
    client.send(TEXT, b"through").await;
    assert_eq!(client.frame().await.unwrap().1, "through");
    assert!(echo.heads()[0].contains("host: llm.test:81\r\n"), "{:?}", echo.heads());
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    const LARGE: usize = 64 << 20;
    let (up, proxy) = by_hand("[server]\nmax_frame_bytes = 100000000\n").await;
    let (client, mut upstream) = both(&proxy, &up).await;
    let whole = frame(BINARY, &vec![7; LARGE], true);
    let written = Arc::new(AtomicUsize::new(0));
    let (_reader, mut writer) = client.stream.into_split();
    let writing = async {
        for piece in whole.chunks(64 << 10) {
            writer.write_all(piece).await.unwrap();
            written.fetch_add(piece.len(), SeqCst);
        }
    };
    let reading = async {
        // Until nothing more goes in. If nothing stops it, all of it has gone by then.
        let mut before = usize::MAX;
        while before != written.load(SeqCst) {
            before = written.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(before < LARGE / 2, "{before} bytes went into nowhere");
        assert_eq!(upstream.frame().await.unwrap().1.len(), LARGE);
    };
    patiently(async { tokio::join!(writing, reading) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sockets_echo_in_order_and_close_cleanly() {
    const SOCKETS: usize = 1000;
    let echo = Echo::start("").await;
    let proxy = Arc::new(Proxy::with_keys(echo.url(), &["sk-one", "sk-two"]).await);
    let mut sockets = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        sockets.push(connect(&proxy, TARGET, "").await.0);
    }
    assert_eq!(proxy.metric("key_cycle_tunnels").await, SOCKETS as f64);
    assert_eq!(proxy.metric("key_cycle_connections").await, SOCKETS as f64);
    for round in 0..3 {
        for (n, socket) in sockets.iter_mut().enumerate() {
            for part in 0..4 {
                socket.send(TEXT, format!("{n} {round} {part}").as_bytes()).await;
            }
        }
        for (n, socket) in sockets.iter_mut().enumerate() {
            for part in 0..4 {
                assert_eq!(socket.frame().await.unwrap().1, format!("{n} {round} {part}"));
            }
        }
    }
    for socket in &mut sockets {
        socket.send(CLOSE, &1000_u16.to_be_bytes()).await;
        assert_eq!(socket.goodbye().await, 1000);
        assert_eq!(socket.frame().await, None);
    }
    until_closed(&proxy).await;
    assert_eq!(
        proxy.metric("key_cycle_requests_total{status=\"1xx\",ending=\"complete\"}").await,
        SOCKETS as f64
    );
    assert_eq!(proxy.metric("key_cycle_connections").await, 0.0);
}
