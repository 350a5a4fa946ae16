//! What it costs to understand requests and answers: `cargo bench --bench parsing`.

use std::time::{Duration, SystemTime};

use divan::{Bencher, black_box, counter::BytesCount};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use key_cycle_proxy::{
    forward::{
        Api, Target,
        headers::{add_account, strip_answer, strip_request},
    },
    provider::{
        Answer, Endpoint, judge, limits, sniff,
        stream::{Opening, Watch},
    },
    redact,
    types::{BaseUrl, Dialect, Key, KeySettings, PoolName, Secret},
};

fn main() {
    divan::main();
}

const KIB: usize = 1 << 10;
const SIZES: [usize; 5] = [KIB, 10 * KIB, 100 * KIB, 1 << 20, 10 << 20];

/// A conversation of short messages, as long as `size`.
fn conversation(size: usize) -> String {
    let message = r#"{"role":"user","content":"What is the \"capital\" of France?\nAnd of Österreich?"},"#;
    let messages = message.repeat(size / message.len() + 1);
    format!(r#"{{"messages":[{}],"model":"gpt-4o-mini","stream":true}}"#, messages.trim_end_matches(','))
}

/// One message with an image of that size.
fn image(size: usize) -> String {
    let base64 = "iVBORw0KGgoAAAANSUhEUgAA".repeat(size / 24 + 1);
    format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{base64}"}}}}]}}]}}"#
    )
}

#[divan::bench(args = SIZES)]
fn sniff_conversation(bencher: Bencher<'_, '_>, size: usize) {
    let body = conversation(size);
    bencher.counter(BytesCount::of_str(&body)).bench_local(|| sniff(black_box(body.as_bytes())).is_ok());
}

#[divan::bench(args = SIZES)]
fn sniff_image(bencher: Bencher<'_, '_>, size: usize) {
    let body = image(size);
    bencher.counter(BytesCount::of_str(&body)).bench_local(|| sniff(black_box(body.as_bytes())).is_ok());
}

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// What openai-python sends.
fn request() -> HeaderMap {
    map(&[
        ("host", "127.0.0.1:8080"),
        ("accept-encoding", "gzip, deflate"),
        ("connection", "keep-alive"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 3.52.0"),
        ("x-stainless-lang", "python"),
        ("x-stainless-package-version", "3.52.0"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.11.7"),
        ("authorization", "Bearer anything"),
        ("x-stainless-async", "false"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-read-timeout", "600"),
        ("content-length", "142"),
    ])
}

/// What OpenAI answers.
fn answer() -> HeaderMap {
    map(&[
        ("date", "Wed, 25 Nov 2026 20:53:36 GMT"),
        ("content-type", "application/json"),
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("access-control-expose-headers", "X-Request-ID"),
        ("openai-organization", "org-of-the-key"),
        ("openai-processing-ms", "412"),
        ("openai-project", "proj_of_the_key"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "200000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "199979"),
        ("x-ratelimit-reset-requests", "8.64s"),
        ("x-ratelimit-reset-tokens", "6ms"),
        ("x-request-id", "req_0123456789abcdef0123456789abcdef"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
        ("set-cookie", "__cf_bm=abc; path=/; HttpOnly; Secure"),
        ("server", "cloudflare"),
        ("cf-ray", "0123456789abcdef-FRA"),
        ("alt-svc", "h3=\":443\"; ma=86400"),
    ])
}

fn key() -> Key {
    let base = BaseUrl::parse("https://api.openai.com").expect("a URL");
    let secret = Secret::new("sk-proj-0123456789abcdefghijklmnopqrstuvwxyz0123456789").expect("a secret");
    Key::pool(&PoolName::default(), vec![(secret, KeySettings::at(base))]).remove(0)
}

/// Once per request, and once per attempt.
#[divan::bench]
fn request_headers(bencher: Bencher<'_, '_>) {
    let (key, api) = (key(), Api::default());
    bencher.with_inputs(request).bench_local_values(|mut headers| {
        strip_request(&mut headers);
        let mut sent = headers.clone();
        api.sign(Dialect::OpenAi, &key, &mut sent);
        add_account(&mut sent, &key);
        (headers, sent)
    });
}

#[divan::bench]
fn answer_headers(bencher: Bencher<'_, '_>) {
    let key = key();
    bencher.with_inputs(answer).bench_local_values(|mut headers| {
        strip_answer(StatusCode::OK, &mut headers, key.secret());
        headers
    });
}

#[divan::bench]
fn target(bencher: Bencher<'_, '_>) {
    let base = BaseUrl::parse("https://api.openai.com").expect("a URL");
    bencher.bench_local(|| {
        let target = Target::new(black_box("/v1/files"), Some(black_box("limit=20&after=file-abc")));
        target.map(|target| target.below(3).under(&base))
    });
}

/// The headers of a refusal.
fn refusal(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = answer();
    headers.extend(map(pairs));
    headers
}

#[divan::bench(args = ["retry-after", "retry-after-ms", "date", "resets"])]
fn limit_headers(bencher: Bencher<'_, '_>, kind: &str) {
    let headers = match kind {
        "retry-after" => refusal(&[("retry-after", "12")]),
        "retry-after-ms" => refusal(&[("retry-after-ms", "12345"), ("retry-after", "13")]),
        "date" => refusal(&[("retry-after", "Wed, 25 Nov 2026 20:53:48 GMT")]),
        _ => refusal(&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m12.5s")]),
    };
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_640_016);
    bencher.bench_local(|| limits::wait(black_box(&headers), wall));
}

/// A refusal is understood.
#[divan::bench]
fn judge_refusal(bencher: Bencher<'_, '_>) {
    let body = br#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
    let headers = refusal(&[("retry-after-ms", "2000")]);
    let answer = Answer { status: StatusCode::TOO_MANY_REQUESTS, headers: &headers, body };
    bencher.bench_local(|| judge(black_box(&answer), Endpoint::Inference, SystemTime::UNIX_EPOCH));
}

/// A refusal is cleaned of what looks like a credential.
#[divan::bench]
fn scrub(bencher: Bencher<'_, '_>) {
    let key = key();
    let text = br#"{"error":{"message":"Incorrect API key provided: sk-proj-********************************6789. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;
    bencher.bench_local(|| redact::scrub(black_box(text), &[key.secret()]).len());
}

/// An event of a chat, as most are.
const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1767182400,\
    \"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\
    \"delta\":{\"content\":\" world\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";

#[divan::bench]
fn first_event(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| Opening::new().look(black_box(EVENT)));
}

/// Ends where an event ends, as pieces do as a rule, or in one.
#[divan::bench(args = [0, 100])]
fn event_in_passing(bencher: Bencher<'_, '_>, early: usize) {
    let mut watch = Watch::new();
    let piece = [&EVENT[EVENT.len() - early..], &EVENT[..EVENT.len() - early]].concat();
    watch.push(&EVENT[..EVENT.len() - early]);
    bencher.counter(BytesCount::new(piece.len())).bench_local(|| watch.push(black_box(&piece)));
}
