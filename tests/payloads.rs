//! Bodies travel byte for byte, whatever they are and however they are framed.

use std::io::Read as _;

use support::{
    proxy::{Proxy, chat, client, keys_toml},
    raw::{End, Raw},
    upstream::{Answer, Upstream, error_body},
};

mod support;

/// Every byte, a few times.
fn noise(length: usize) -> Vec<u8> {
    let mut dice = fastrand::Rng::with_seed(7);
    (0..length).map(|_| dice.u8(..)).collect()
}

async fn with_one_key() -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-one"]).await;
    (upstream, proxy)
}

#[tokio::test]
async fn a_coded_answer_passes_as_it_is() {
    let (upstream, proxy) = with_one_key().await;
    let plain = "hello ".repeat(500);
    upstream
        .key("sk-one")
        .always(Answer::status(200).header("content-type", "text/plain").body(plain.clone()).gzip());
    let get =
        |accepts: &'static str| client().get(proxy.url("/v1/models")).header("accept-encoding", accepts);
    for accepts in ["gzip", "identity", "br"] {
        let answer = get(accepts).send().await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        let coded = answer.bytes().await.unwrap();
        assert_eq!(coded[..2], [0x1f, 0x8b]);
        let mut decoded = String::new();
        flate2::read::GzDecoder::new(&coded[..]).read_to_string(&mut decoded).unwrap();
        assert_eq!(decoded, plain);
        assert_eq!(upstream.last_request().header("accept-encoding"), Some(accepts));
    }
}

#[tokio::test]
async fn a_coded_refusal_is_understood_and_the_next_key_asked() {
    let upstream = Upstream::start().await;
    let quota = error_body("insufficient_quota", "insufficient_quota", "You exceeded your current quota.");
    for (key, refusal) in [
        ("sk-revoked", Answer::revoked().gzip()),
        ("sk-spent", Answer::status(429).json(&quota).gzip().chunked()),
    ] {
        upstream.key(key).always(refusal);
    }
    let proxy = Proxy::with_keys(&upstream.url(), &["sk-revoked", "sk-spent", "sk-good"]).await;
    for _ in 0..3 {
        let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    // Read as plain text these would be an unknown refusal and a rate limit.
    assert_eq!(proxy.metric(r#"key_cycle_attempts_total{verdict="key_rejected"}"#).await, 1.0);
    assert_eq!(proxy.metric(r#"key_cycle_attempts_total{verdict="quota_exhausted"}"#).await, 1.0);
}

#[tokio::test]
async fn a_coded_refusal_that_is_the_clients_passes_as_it_is() {
    let (upstream, proxy) = with_one_key().await;
    let refusal = Answer::status(400).error("invalid_request_error", "", "No.").gzip();
    upstream.key("sk-one").always(refusal);
    let answer = client().post(proxy.url("/v1/chat/completions")).body(chat("m")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-encoding"].to_str().unwrap()),
        (400, "gzip")
    );
    let mut decoded = String::new();
    flate2::read::GzDecoder::new(&answer.bytes().await.unwrap()[..]).read_to_string(&mut decoded).unwrap();
    assert_eq!(decoded, error_body("invalid_request_error", "", "No.").to_string());
}

#[tokio::test]
async fn binary_answers_are_equal_byte_for_byte() {
    let (upstream, proxy) = with_one_key().await;
    let sound = client()
        .post(proxy.url("/v1/audio/speech"))
        .body(r#"{"model":"tts-1","input":"hi","voice":"alloy"}"#);
    let sound = sound.send().await.unwrap();
    assert_eq!(sound.headers()["content-type"], "audio/mpeg");
    let expected: Vec<u8> = (0..=255).cycle().take(8192).collect();
    assert_eq!(sound.bytes().await.unwrap(), expected);
    let noise = noise(3 << 20);
    for answer in [
        Answer::status(200).body(noise.clone()),
        Answer::status(200).body(noise.clone()).chunked().dribble(7919),
    ] {
        upstream.key("sk-one").always(answer.header("content-type", "application/octet-stream"));
        let answer = client().get(proxy.url("/v1/files/f/content")).send().await.unwrap();
        assert!(answer.bytes().await.unwrap() == noise);
    }
}

#[tokio::test]
async fn a_form_is_equal_byte_for_byte_and_goes_where_its_model_is_served() {
    let upstream = Upstream::start().await;
    let keys = keys_toml(&upstream.url(), &["sk-others"]);
    let proxy =
        Proxy::start(&format!("{keys}[[keys.pool]]\nkey = \"sk-sound\"\nmodels = \"whisper-1\"\n")).await;
    let mut form = b"--line-7\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\
        content-type: audio/mpeg\r\n\r\n"
        .to_vec();
    form.extend_from_slice(&noise(200_000));
    form.extend_from_slice(
        b"\r\n--line-7\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--line-7--\r\n",
    );
    for _ in 0..3 {
        let answer = client()
            .post(proxy.url("/v1/audio/transcriptions"))
            .header("content-type", "multipart/form-data; boundary=line-7")
            .body(form.clone())
            .send()
            .await
            .unwrap();
        assert!(answer.text().await.unwrap().contains("200000 bytes of sound"));
        let sent = upstream.last_request();
        assert!(sent.body == form);
        assert_eq!(sent.header("content-type"), Some("multipart/form-data; boundary=line-7"));
        assert_eq!(sent.key.as_deref(), Some("sk-sound"));
    }
}

#[tokio::test]
async fn empty_bodies_stay_empty() {
    let (upstream, proxy) = with_one_key().await;
    upstream.key("sk-one").always(Answer::status(200));
    for (method, length) in [("GET", None), ("DELETE", None), ("POST", Some("0")), ("PUT", Some("0"))] {
        let request = format!("{method} /v1/files/f HTTP/1.1\r\nhost: p\r\ncontent-length: 0\r\n\r\n");
        let answer = Raw::ask(proxy.address(), request).await;
        assert_eq!((answer.status, answer.body.len(), answer.end), (200, 0, End::Marked), "{method}");
        assert_eq!(answer.header("content-length"), Some("0"));
        assert_eq!(upstream.last_request().header("content-length"), length, "{method}");
        assert_eq!(upstream.last_request().body_len, 0);
        assert_eq!(upstream.last_request().header("content-type"), None);
    }
}

#[tokio::test]
async fn a_body_without_a_content_type_is_still_routed_by_its_model() {
    let upstream = Upstream::start().await;
    let keys = keys_toml(&upstream.url(), &["sk-others"]);
    let proxy = Proxy::start(&format!("{keys}[[keys.pool]]\nkey = \"sk-named\"\nmodels = \"m\"\n")).await;
    for content_type in
        [None, Some("text/plain"), Some("application/json; charset=utf-8"), Some("application/vnd.x+json")]
    {
        let request = client().post(proxy.url("/v1/chat/completions")).body(chat("m"));
        let request =
            content_type.into_iter().fold(request, |request, value| request.header("content-type", value));
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(upstream.last_request().key.as_deref(), Some("sk-named"), "{content_type:?}");
        assert_eq!(upstream.last_request().header("content-type"), content_type);
    }
    // What isn't JSON and doesn't say so is nobody's business here.
    let answer = client().post(proxy.url("/v1/whatever")).body("{ not json").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(upstream.last_request().body, "{ not json");
}

#[tokio::test]
async fn a_head_answer_keeps_its_headers_and_has_no_body() {
    let (upstream, proxy) = with_one_key().await;
    upstream.key("sk-one").answers([Answer::ok().header("etag", "\"x\""), Answer::revoked()]);
    let mut raw = Raw::connect(proxy.address()).await;
    for _ in 0..2 {
        raw.send("HEAD /v1/models HTTP/1.1\r\nhost: p\r\n\r\n").await;
        let answer = raw.bodiless_answer().await;
        if upstream.total_calls() == 1 {
            assert_eq!(
                (answer.status, answer.header("content-length"), answer.header("etag")),
                (200, Some("11"), Some("\"x\""))
            );
        } else {
            assert!(answer.status >= 400, "{answer:?}");
        }
    }
    assert_eq!(proxy.metric(r#"key_cycle_requests_total{status="2xx",ending="complete"}"#).await, 1.0);
}

#[tokio::test]
async fn answers_without_a_body_end_at_their_head() {
    let (upstream, proxy) = with_one_key().await;
    let mut raw = Raw::connect(proxy.address()).await;
    for status in [204, 304, 204, 200] {
        upstream.key("sk-one").always(Answer::status(status).header("etag", "\"x\""));
        raw.send("GET /v1/files/f HTTP/1.1\r\nhost: p\r\nif-none-match: \"x\"\r\n\r\n").await;
        let answer = raw.answer().await;
        assert_eq!((answer.status, answer.header("etag"), answer.body.len()), (status, Some("\"x\""), 0));
        assert_eq!(upstream.last_request().header("if-none-match"), Some("\"x\""));
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_an_answer_that_ends_with_the_connection() {
    let (upstream, proxy) = with_one_key().await;
    for answer in [Answer::status(200).body("whole"), Answer::pieces(["wh", "ole"])] {
        upstream.key("sk-one").always(answer);
        let mut raw = Raw::connect(proxy.address()).await;
        raw.send("GET /v1/models HTTP/1.0\r\n\r\n").await;
        let (status, headers) = raw.head().await;
        assert_eq!(status, 200);
        assert!(!headers.contains_key("transfer-encoding"));
        let (body, end) = raw.rest().await;
        assert_eq!((&body[..], end), (&b"whole"[..], End::Closed));
    }
    assert_eq!(upstream.last_request().version, http::Version::HTTP_11);
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let (upstream, proxy) = with_one_key().await;
    let body = chat("m");
    let mut raw = Raw::connect(proxy.address()).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw.send(head).await;
    assert_eq!(raw.head().await.0, 100);
    raw.send(body).await;
    assert_eq!(raw.answer().await.status, 200);
    assert_eq!(upstream.last_request().header("expect"), None);
}

#[tokio::test]
async fn a_chunked_request_goes_up_whole() {
    let (upstream, proxy) = with_one_key().await;
    let body = chat("m");
    let (first, second) = body.split_at(10);
    let mut raw = Raw::connect(proxy.address()).await;
    raw.send("POST /v1/chat/completions HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for part in [first, second] {
        raw.send(format!("{:x};ext=1\r\n{part}\r\n", part.len())).await;
    }
    raw.send("0\r\nx-trailer: 1\r\n\r\n").await;
    assert_eq!(raw.answer().await.status, 200);
    let sent = upstream.last_request();
    assert_eq!(sent.body, body);
    assert_eq!(sent.header("content-length"), Some(body.len().to_string().as_str()));
    assert_eq!((sent.header("transfer-encoding"), sent.header("x-trailer")), (None, None));
}
