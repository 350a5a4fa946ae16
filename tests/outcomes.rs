//! What clients get for everything that can happen upstream: `docs/outcomes.md` is made of what happens here.

use std::{fmt::Write as _, time::Duration};

use support::{
    ask::{Got, in_turn_with},
    proxy::{Proxy, chat, streamed_chat},
    still::StillClock,
    upstream::{Answer, Upstream, error_body},
};

mod support;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/outcomes.md");
const KEYS: [&str; 3] = ["sk-a", "sk-b", "sk-c"];
/// Long enough that no answer on its way is taken for a hang.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

const INTRODUCTION: &str = "\
# What your program gets when the upstream fails

When a key is limited, rejected or out of money, the proxy moves on to the next key that serves the model, at once; \
when the upstream itself fails, it tries again on another key, after a short pause and at most `max_retries` times. \
Your program sees one answer and, as long as a single key works, usually a good one. What your program itself got \
wrong (a malformed request, a file that does not exist) is answered as the upstream answered it, after one call: no \
other key would say anything else.

The table shows each thing that can go wrong, on one of three keys, on two of them, and on all three: the status, the \
code of the error, whether there is a `Retry-After` header, and how many upstream calls one chat request took. It \
holds for a fresh start, the keys in turn, `max_retries = 3`, and `max_wait_ms = 0`: with the usual `max_wait_ms` a \
request whose keys are all limited first waits up to ten seconds for one of them. Codes in `code font` are the \
proxy's own; a code in *italics* came from the upstream. In the rows of streams the upstream's status is 200, and the \
error is the first event that says anything: until then nothing is delivered. What your program gets of such an error \
is the stream as it came, with status 200.
";

/// How a key fails.
#[derive(Clone)]
enum Fault {
    Answers(Box<Answer>),
    /// The same, to a request for a stream.
    Streams(Box<Answer>),
    Hangs,
    Refuses,
}

/// Every row, in the order of the page.
fn faults() -> Vec<(&'static str, Fault)> {
    let answers = |answer| Fault::Answers(Box::new(answer));
    let error =
        |status, kind, code| answers(Answer::status(status).error(kind, code, "The upstream's own words."));
    let streams = |kind, code| {
        let event = error_body(kind, code, "The upstream's own words.").to_string();
        Fault::Streams(Box::new(Answer::sse([event])))
    };
    let limited = Answer::status(429).error("requests", "rate_limit_exceeded", "Slow down.");
    vec![
        ("429 with Retry-After", answers(limited.clone().retry_after(20))),
        ("429 without Retry-After", answers(limited)),
        ("429, quota spent", answers(Answer::out_of_quota())),
        ("401, key invalid", answers(Answer::revoked())),
        ("401 for no named reason", error(401, "odd", "")),
        ("402", error(402, "billing", "")),
        ("403 for no named reason", error(403, "odd", "")),
        ("404, model not on this key", error(404, "invalid_request_error", "model_not_found")),
        ("404, something else", error(404, "invalid_request_error", "no_such_file")),
        ("400", error(400, "invalid_request_error", "bad_value")),
        ("500", error(500, "server_error", "")),
        ("503", error(503, "server_error", "")),
        ("529, overloaded", error(529, "overloaded_error", "")),
        ("a stream that begins with a limit", streams("requests", "rate_limit_exceeded")),
        (
            "a stream that begins with a spent quota",
            streams("insufficient_quota", "credit_balance_exhausted"),
        ),
        ("a stream that begins with overload", streams("overloaded_error", "")),
        ("a stream that begins with a failure", streams("server_error", "")),
        ("a stream that begins with the request's fault", streams("invalid_request_error", "bad_value")),
        ("connection reset", answers(Answer::ok().reset_before_head())),
        ("no answer in time", Fault::Hangs),
        ("connection refused", Fault::Refuses),
    ]
}

/// One chat request while the first `failing` of three keys have `fault`.
async fn outcome(fault: &Fault, failing: usize) -> Got {
    let clock = StillClock::stop();
    let (upstream, dead) = (Upstream::start().await, Upstream::start().await);
    dead.stop().await;
    for key in &KEYS[..failing] {
        match fault {
            Fault::Answers(answer) | Fault::Streams(answer) => upstream.key(key).always((**answer).clone()),
            Fault::Hangs => upstream.key(key).always(Answer::ok().hang()),
            Fault::Refuses => continue,
        };
    }
    let url = |at: usize| match fault {
        Fault::Refuses if at < failing => dead.url(),
        _ => upstream.url(),
    };
    let entries: Vec<String> =
        KEYS.iter().enumerate().map(|(at, key)| format!("key = \"{key}\"\nurl = \"{}\"", url(at))).collect();
    let lines =
        format!("max_retries = 3\nmax_wait_ms = 0\nrequest_timeout_ms = {}", HEAD_TIMEOUT.as_millis());
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, &lines)).await;
    let body = match fault {
        Fault::Streams(_) => streamed_chat("gpt-4o"),
        Fault::Answers(_) | Fault::Hangs | Fault::Refuses => chat("gpt-4o"),
    };
    let chat = async { clock.trickle(proxy.post("/v1/chat/completions", body)).await };
    let time = async {
        // A hang is repeated once.
        for calls in 1..=failing.min(2) {
            upstream.wait_for(|up| up.total_calls() >= calls).await;
            clock.pass(HEAD_TIMEOUT).await;
        }
    };
    let got = match fault {
        Fault::Hangs => tokio::join!(chat, time).0,
        Fault::Answers(_) | Fault::Streams(_) | Fault::Refuses => chat.await,
    };
    tokio::time::resume();
    if !matches!(fault, Fault::Refuses) {
        assert_eq!(upstream.total_calls(), got.attempts() as usize, "an attempt is one upstream call");
    }
    got
}

/// `429 \`all_keys_cooling\`, Retry-After, 3 calls`
fn cell(got: &Got) -> String {
    let ours =
        ["all_keys_cooling", "no_usable_key", "upstream_unreachable", "upstream_broken", "upstream_timeout"];
    let mut text = got.status.to_string();
    if got.status == 200 && got.text().contains("\"error\"") {
        text.push_str(" with the error");
    }
    let code = got.code();
    if ours.contains(&code.as_str()) {
        let _ = write!(text, " `{code}`");
    } else if !code.is_empty() {
        let _ = write!(text, " *{code}*");
    }
    if got.header("retry-after").is_some() {
        text.push_str(", Retry-After");
    }
    let calls = got.attempts();
    let _ = write!(text, ", {calls} call{}", if calls == 1 { "" } else { "s" });
    text
}

#[tokio::test]
async fn the_page_of_outcomes_says_what_happens() {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n| the upstream's answer | on one key of three | on two of three | on all three |\n");
    page.push_str("|---|---|---|---|\n");
    for (name, fault) in faults() {
        let _ = write!(page, "| {name} |");
        for failing in 1..=3 {
            let _ = write!(page, " {} |", cell(&outcome(&fault, failing).await));
        }
        page.push('\n');
    }
    #[expect(clippy::disallowed_methods, reason = "asked by whoever runs the test, not by the daemon")]
    let update = std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1");
    if update {
        std::fs::write(PAGE, &page).expect("docs/ can be written to");
        return;
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        written == page,
        "docs/outcomes.md is not what happens. If what happens is right, update the page with\n\n    \
         UPDATE_DOCS=1 cargo test --test outcomes\n\nWhat happens:\n\n{page}"
    );
}
