//! HTTP/2 with bad input: no header, path or body that HTTP/1.1 would read otherwise goes up, and no flood takes the
//! daemon from others.

use support::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, GET, HEADERS, PING, PUSH_PROMISE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
    },
    pair::{GOOD, Pair},
    proxy::chat,
    raw::{Raw, patiently},
    upstream::Answer,
};

mod support;

/// Reasons (RFC 9113 §7).
const PROTOCOL_ERROR: u32 = 1;
const CALM_DOWN: u32 = 11;

type Fields<'f> = Vec<(&'f str, &'f str)>;

/// The good request with one field more, or with another value for one.
fn with<'f>(name: &'f str, value: &'f str) -> Fields<'f> {
    let mut fields = GET.to_vec();
    match fields.iter_mut().find(|field| field.0 == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

fn without(name: &str) -> Fields<'static> {
    GET.into_iter().filter(|field| field.0 != name).collect()
}

/// Sends a request whose fate is this. Nothing of it goes up, and others are served, on the same connection too unless
/// it had to end.
async fn ends(pair: &Pair, bytes: &[u8], fate: Fate) {
    println!("{}", support::pair::shown(bytes));
    let mut frames = Frames::connect(pair.proxy.address()).await;
    frames.send(bytes).await;
    assert_eq!(frames.fate(1).await, fate);
    let mut asked = 1;
    if matches!(fate, Fate::Answered(_) | Fate::Reset(_)) {
        frames.send(request(3, &GET)).await;
        assert_eq!(frames.fate(3).await, Fate::Answered(200));
        asked += 1;
    } else {
        frames.end().await;
    }
    assert_eq!(Raw::ask(pair.proxy.address(), GOOD).await.status, 200);
    assert_eq!(
        (pair.upstream.total_calls(), pair.upstream.malformed(), pair.upstream.incomplete()),
        (asked, 0, 0)
    );
    pair.upstream.reset_records();
}

#[tokio::test]
async fn a_request_without_a_sound_target_is_refused() {
    let pair = Pair::start().await;
    let malformed = Fate::Reset(PROTOCOL_ERROR);
    for (fields, fate) in [
        (with(":path", "v1/models"), malformed),
        (with(":path", ""), malformed),
        (with(":path", "http://evil.example/v1/models"), malformed),
        (with(":path", "/v1/mod els"), malformed),
        (with(":path", "/v1/models HTTP/1.1\r\nhost: q\r\n\r\nGET /v1/smuggled"), malformed),
        (with(":path", "/v1/mo\0dels"), malformed),
        (with(":authority", "a b"), malformed),
        (with(":scheme", "ht tp"), malformed),
        (without(":path"), malformed),
        (without(":method"), malformed),
        (without(":scheme"), malformed),
        ([GET.to_vec(), vec![(":method", "POST")]].concat(), malformed),
        ([GET.to_vec(), vec![(":path", "/v1/files")]].concat(), malformed),
        ([vec![("x", "y")], GET.to_vec()].concat(), malformed),
        (with(":status", "200"), malformed),
        (with(":unknown", "x"), Fate::GoneAway(PROTOCOL_ERROR)),
        // These are sound, and ours to refuse.
        (with(":path", "*"), Fate::Answered(400)),
        (
            vec![(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "p")],
            Fate::Answered(400),
        ),
        (with(":path", "/v1/../admin"), Fate::Answered(400)),
        (with(":path", "//evil.example/v1/models"), Fate::Answered(400)),
        (with(":path", "/v1\\..\\admin"), Fate::Answered(400)),
        (with(":path", "/nowhere"), Fate::Answered(404)),
    ] {
        ends(&pair, &request(1, &fields), fate).await;
    }
}

#[tokio::test]
async fn no_method_that_is_meant_for_a_proxy_on_the_way_is_forwarded() {
    let pair = Pair::start().await;
    for (fields, fate) in [
        (vec![(":method", "CONNECT"), (":authority", "evil.example:443")], Fate::Answered(404)),
        (with(":method", "CONNECT"), Fate::Reset(PROTOCOL_ERROR)),
        // The start of a WebSocket (RFC 8441), which we have not offered.
        (
            [with(":method", "CONNECT"), vec![(":protocol", "websocket")]].concat(),
            Fate::Reset(PROTOCOL_ERROR),
        ),
        (with(":method", "TRACE"), Fate::Answered(404)),
    ] {
        ends(&pair, &request(1, &fields), fate).await;
    }
}

#[tokio::test]
async fn a_request_with_two_hosts_is_refused() {
    let pair = Pair::start().await;
    let fields = [without(":authority"), vec![("host", "p"), ("host", "q")]].concat();
    ends(&pair, &request(1, &fields), Fate::Answered(400)).await;
}

/// What would end a line, a head or a body of HTTP/1.1.
#[tokio::test]
async fn no_field_that_means_something_to_http1_goes_up() {
    let pair = Pair::start().await;
    for fields in [
        with("connection", "keep-alive"),
        with("keep-alive", "5"),
        with("proxy-connection", "keep-alive"),
        with("transfer-encoding", "chunked"),
        with("upgrade", "websocket"),
        with("te", "gzip"),
        with("content-length", "nonsense"),
        with("content-length", "5"),
        with("content-length", "0, 0"),
        [with("content-length", "0"), vec![("content-length", "5")]].concat(),
    ] {
        ends(&pair, &request(1, &fields), Fate::Reset(PROTOCOL_ERROR)).await;
    }
    for fields in [
        with("x", "a\r\nauthorization: Bearer x"),
        with("x", "a\nb"),
        with("x", "a\0b"),
        with("x\r\ny", "a"),
        with("x:y", "a"),
        with("X-Upper", "a"),
        with("", "a"),
        with(":method", "GET /v1/x HTTP/1.1\r\n"),
        with(":method", "GET x"),
    ] {
        ends(&pair, &request(1, &fields), Fate::GoneAway(PROTOCOL_ERROR)).await;
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_refused() {
    let pair = Pair::start().await;
    for (length, body) in [("3", "hello"), ("9", "hello"), ("0", "hello"), ("-5", "hello")] {
        let fields = [with(":method", "POST"), vec![("content-length", length)]].concat();
        let head = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        let bytes = [head, frame(DATA, END_STREAM, 1, body.as_bytes())].concat();
        ends(&pair, &bytes, Fate::Reset(PROTOCOL_ERROR)).await;
    }
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_connection() {
    let pair = Pair::start().await;
    for bytes in [
        // Streams that a client can't begin, or not so.
        frame(DATA, END_STREAM, 1, b"x"),
        frame(CONTINUATION, END_HEADERS, 1, &block(&GET)),
        request(2, &GET),
        request(0, &GET),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        // Blocks that can't be read.
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0, 127]),
        // Windows that stand still or overflow.
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        // Frames of a wrong length.
        frame(DATA, 0, 1, &[0; 20_000]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(PING, 0, 0, &[0; 7]),
    ] {
        let mut frames = Frames::connect(pair.proxy.address()).await;
        frames.send(&bytes).await;
        assert!(matches!(frames.fate(1).await, Fate::GoneAway(1..)), "{}", support::pair::shown(&bytes));
        frames.end().await;
        assert_eq!(pair.upstream.total_calls(), 0);
        assert_eq!(Raw::ask(pair.proxy.address(), GOOD).await.status, 200);
        pair.upstream.reset_records();
    }
}

#[tokio::test]
async fn a_flood_of_fields_is_refused() {
    let pair = Pair::start().await;
    let long = "x".repeat(100);
    // More than a list may have, and so much more that it is no oversight.
    let list = |count: usize| block(&[GET.to_vec(), vec![("x", long.as_str()); count]].concat());
    ends(&pair, &request_of(&list(150)), Fate::Answered(431)).await;
    ends(&pair, &request_of(&list(5_000)), Fate::GoneAway(CALM_DOWN)).await;
    // A head that never ends.
    for piece in [block(&[("x", "y")]), Vec::new()] {
        let head = frame(HEADERS, END_STREAM, 1, &block(&GET));
        let flood = [head, frame(CONTINUATION, 0, 1, &piece).repeat(5_000)].concat();
        ends(&pair, &flood, Fate::GoneAway(CALM_DOWN)).await;
    }
}

/// A request whose header block is this, in as many frames as it takes.
fn request_of(block: &[u8]) -> Vec<u8> {
    let pieces: Vec<_> = block.chunks(16_000).collect();
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().map(|(n, piece)| {
        let end = if n == last { END_HEADERS } else { 0 };
        if n == 0 { frame(HEADERS, END_STREAM | end, 1, piece) } else { frame(CONTINUATION, end, 1, piece) }
    });
    frames.collect::<Vec<_>>().concat()
}

/// CVE-2023-44487: each request costs the daemon more than its end costs the client.
#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let pair = Pair::start().await;
    let body = chat("m");
    let post =
        [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions"), (":authority", "p")];
    for (reason, whole) in [(8, true), (0, true), (8, false)] {
        let mut frames = Frames::connect(pair.proxy.address()).await;
        let flood: Vec<u8> = (0..5_000)
            .flat_map(|n| {
                let stream = 2 * n + 1;
                let ask = if whole {
                    request(stream, &GET)
                } else {
                    let head = frame(HEADERS, END_HEADERS, stream, &block(&post));
                    [head, frame(DATA, 0, stream, body.as_bytes())].concat()
                };
                [ask, frame(RST_STREAM, 0, stream, &u32::to_be_bytes(reason))].concat()
            })
            .collect();
        frames.send(flood).await;
        assert_eq!(frames.fate(u32::MAX).await, Fate::GoneAway(CALM_DOWN));
        assert_eq!(Raw::ask(pair.proxy.address(), GOOD).await.status, 200);
        pair.proxy.until_at_rest().await;
    }
    assert_eq!(pair.upstream.malformed(), 0);
}

/// The same a little at a time, so that each is under way when it is taken back.
#[tokio::test]
async fn requests_that_are_taken_back_under_way_leave_nothing_behind() {
    let pair = Pair::start().await;
    pair.upstream.otherwise(Answer::ok().hang());
    let mut frames = Frames::connect(pair.proxy.address()).await;
    for n in 0..200 {
        let stream = 2 * n + 1;
        frames.send(request(stream, &GET)).await;
        pair.upstream.wait_for(|up| up.open_requests() == 1).await;
        frames.send(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
        pair.upstream.wait_for(|up| up.open_requests() == 0).await;
    }
    pair.upstream.otherwise(Answer::ok());
    frames.send(request(401, &GET)).await;
    assert_eq!(frames.fate(401).await, Fate::Answered(200));
    pair.proxy.until_at_rest().await;
}

#[tokio::test]
async fn floods_that_ask_for_nothing_take_nothing_from_others() {
    let pair = Pair::start().await;
    for flood in [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, b""),
        // A type that nobody knows is to be ignored (RFC 9113 §5.5).
        frame(99, 0, 0, b"12345678"),
        // Priorities, which nobody heeds any more.
        frame(2, 0, 1, &[0, 0, 0, 0, 16]),
    ] {
        let mut frames = Frames::connect(pair.proxy.address()).await;
        frames.send(flood.repeat(20_000)).await;
        assert_eq!(Raw::ask(pair.proxy.address(), GOOD).await.status, 200);
        frames.send(request(1, &GET)).await;
        assert_eq!(patiently(frames.fate(1)).await, Fate::Answered(200));
    }
    pair.upstream.reset_records();
    let head = frame(HEADERS, END_HEADERS, 1, &block(&with(":method", "POST")));
    let empty = [head, frame(DATA, 0, 1, b"").repeat(20_000)].concat();
    ends(&pair, &empty, Fate::GoneAway(CALM_DOWN)).await;
}

#[tokio::test]
async fn whatever_authority_is_named_the_pools_upstream_is_asked() {
    let pair = Pair::start().await;
    for fields in [
        with(":authority", "evil.example:99"),
        with(":authority", "user:password@evil.example"),
        without(":authority"),
        with("host", "evil.example"),
        with(":scheme", "https"),
        with("te", "trailers"),
    ] {
        let mut frames = Frames::connect(pair.proxy.address()).await;
        frames.send(request(1, &fields)).await;
        assert_eq!(frames.fate(1).await, Fate::Answered(200), "{fields:?}");
        pair.assert_ours(&pair.upstream.last_request());
    }
    assert_eq!(pair.upstream.total_calls(), 6);
}
