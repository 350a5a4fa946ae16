//! Any answer, as an upstream may send it: what it asks us to wait, and what it means.
//!
//! The input is an answer as in HTTP/1, with status, kind of endpoint and wall clock (seconds since 1970) in the first
//! line: `429 inference 784111777`.

#![no_main]

use std::time::{Duration, SystemTime};

use common::{first_line, headers};
use http::{HeaderMap, StatusCode};
use key_cycle_proxy::{
    pool::Outcome,
    provider::{
        self, Answer, Endpoint,
        limits::{MAX_WAIT, go_duration, retry_after, wait},
    },
    types::{Class, Scope, Verdict},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (first, rest) = first_line(input);
    let mut facts = str::from_utf8(first).unwrap_or_default().split(' ');
    let status = facts.next().and_then(|status| status.parse().ok()).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let endpoint = match facts.next() {
        Some("create") => Endpoint::Create,
        Some("read") => Endpoint::Read,
        Some("change") => Endpoint::Change,
        _ => Endpoint::Inference,
    };
    // As far as a clock may be off, but not so far that no clock can count it.
    let seconds = facts.next().and_then(|wall| wall.parse::<i64>().ok()).unwrap_or_default();
    let off = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let wall = if seconds < 0 { epoch.checked_sub(off) } else { epoch.checked_add(off) }.unwrap_or(epoch);
    let (headers, body) = headers(rest);

    read_waits(&headers, wall);
    for text in headers.values().filter_map(|value| value.to_str().ok()).chain(str::from_utf8(body)) {
        read_duration(text);
    }
    judge(&Answer { status, headers: &headers, body }, endpoint, wall);
});

fn read_waits(headers: &HeaderMap, wall: SystemTime) {
    let (outright, asked) = (retry_after(headers, wall), wait(headers, wall));
    assert!(asked.is_none_or(|wait| wait <= MAX_WAIT), "endless");
    if outright.is_some() {
        assert_eq!(outright, asked, "what is said outright counts");
    }
    let exhausted = headers
        .keys()
        .map(http::HeaderName::as_str)
        .any(|name| name.contains("ratelimit-") && name.contains("remaining"));
    assert!(asked.is_none() || outright.is_some() || exhausted, "a wait from nowhere");
    // An hour later a date is nearer, and a number is what it was.
    let later = retry_after(headers, wall + Duration::from_secs(3600));
    assert_eq!(later.is_some(), outright.is_some());
    assert!(later <= outright, "the later, the longer");
}

fn read_duration(text: &str) {
    let Some(duration) = go_duration(text) else { return };
    let written = written_by_go(duration);
    assert_eq!(go_duration(&written), Some(duration), "{text} is {written}");
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+".contains(&byte) || byte > 127);
    assert!(plain && !text.is_empty());
}

/// A duration as `time.Duration.String` of Go has it: `1h2m3.5s`, and the largest unit alone below a second.
fn written_by_go(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let decimals = |whole: u64, part: u32, digits: usize| {
        let text = format!("{whole}.{part:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match (seconds, nanos) {
        (0, 0) => "0s".to_owned(),
        (0, ..1_000) => format!("{nanos}ns"),
        (0, ..1_000_000) => format!("{}µs", decimals(u64::from(nanos / 1_000), nanos % 1_000, 3)),
        (0, _) => format!("{}ms", decimals(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        _ => {
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let hours = if hours > 0 { format!("{hours}h") } else { String::new() };
            let minutes = if seconds >= 60 { format!("{minutes}m") } else { String::new() };
            format!("{hours}{minutes}{}s", decimals(seconds % 60, nanos, 9))
        }
    }
}

fn judge(answer: &Answer<'_>, endpoint: Endpoint, wall: SystemTime) {
    let verdict = provider::judge(answer, endpoint, wall);
    let Verdict { class, scope, wait } = verdict;
    let status = answer.status.as_u16();
    assert!(wait.is_none_or(|wait| wait <= MAX_WAIT), "endless");
    assert_eq!(class == Class::Success, status < 300 || status == 304);
    assert_eq!(scope == Scope::Client, matches!(class, Class::Success | Class::ClientFault));
    assert!(provider::reads_body(answer.status) || matches!(class, Class::Success | Class::ClientFault));
    let allowed = match class {
        Class::Success => status < 400,
        Class::ClientFault => (300..500).contains(&status) && status != 408,
        // Only what is named retires a key or spends an account, and never an answer of a server that fails.
        Class::KeyRejected | Class::NotPermitted => matches!(status, 400 | 401 | 403),
        Class::UnknownRefusal => matches!(status, 401 | 403),
        Class::ModelUnavailable => matches!(status, 400 | 403 | 404 | 429),
        Class::QuotaExhausted => matches!(status, 400..=403 | 412 | 429),
        Class::RateLimited => matches!(status, 402 | 429),
        Class::EgressRefused => matches!(status, 400 | 401 | 403 | 407 | 429),
        Class::Overloaded => status >= 400,
        Class::ServerError => status == 408 || status >= 500,
        Class::Unreachable | Class::TimedOut | Class::Broken => false,
    };
    assert!(allowed, "{verdict:?} for {status}");
    if status == 408 || status >= 500 {
        assert_eq!(scope, Scope::Host);
    }
    if let Outcome::Rest { named, .. } = Outcome::of(&verdict) {
        assert_eq!(named, wait);
    }
}
