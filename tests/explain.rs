//! Why it was which key: the header `x-key-cycle-why` and the log of each pick.

use std::time::Duration;

use support::{
    ask::{Got, in_turn_with},
    binary::Folder,
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};

mod support;

/// Stands in every secret of the last test.
const CANARY: &str = "sk-canary-7f3a9b21c4";
const SECOND: Duration = Duration::from_secs(1);

/// What is told, with `[key]` in place of each key's id.
fn why(got: &Got) -> String {
    let told = got.header("x-key-cycle-why").expect("debug_headers is on");
    let is_id = |word: &str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    told.split(' ').map(|word| if is_id(word) { "[key]" } else { word }).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn an_answer_says_which_key_why_and_what_was_passed_over() {
    let _clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.key("sk-a").always(Answer::rate_limited(SECOND * 50));
    upstream.key("sk-b").always(Answer::revoked());
    upstream.key("sk-c").always(Answer::api().after(&gate));
    let keys = ["key = \"sk-a\"", "key = \"sk-b\"", "key = \"sk-c\"\nmax_in_flight = 1", "key = \"sk-d\""];
    let mut keys = keys.map(str::to_owned).to_vec();
    keys.push("key = \"sk-e\"\npriority = 1".to_owned());
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "")).await;
    let request = support::proxy::client().post(proxy.url("/v1/chat/completions"));
    let request = request.body(support::proxy::chat("gpt-4o"));
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let first = tokio::spawn(async move { Got::read(request.send().await.expect("it answers")).await });
    upstream.wait_for(|up| up.total_calls() == 3).await;
    let second = proxy.chat("gpt-4o").await;
    assert_eq!(
        why(&second),
        "[key] round_robin turn; passed over: 1 rate_limited, 1 rejected, 1 busy, 1 lower_priority"
    );
    assert!(second.header("x-key-cycle-why").unwrap().starts_with(second.header("x-key-cycle-key").unwrap()));
    gate.open();
    assert_eq!(
        why(&first.await.expect("it did not panic")),
        "[key] round_robin turn; passed over: 1 rate_limited, 1 rejected, 1 lower_priority; \
         tried: [key] rate_limited 429, [key] key_rejected 401"
    );
}

#[tokio::test]
async fn a_refusal_of_ours_says_what_stands_in_the_way() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.key("sk-a").always(Answer::rate_limited(SECOND * 50));
    upstream.key("sk-b").always(Answer::revoked());
    let keys = ["key = \"sk-a\"\nmodels = [\"m\"]", "key = \"sk-b\"\nmodels = [\"m\"]"];
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "")).await;
    let got = proxy.chat("m").await;
    assert_eq!(got.status, 429);
    assert_eq!(
        why(&got),
        "none none_free; passed over: 1 rate_limited, 1 rejected; \
         tried: [key] rate_limited 429, [key] key_rejected 401"
    );
    let got = proxy.chat("m").await;
    assert_eq!(why(&got), "none none_free; passed over: 1 rate_limited, 1 rejected");
    let got = proxy.chat("unknown").await;
    assert_eq!((got.status, why(&got)), (404, "none no_key_for_model".to_owned()));
    // What is refused before a key is asked for has no reason to name.
    assert_eq!(proxy.post("/v1/chat/completions", "{").await.header("x-key-cycle-why"), None);
    // After its rest the key is free; the rejected one is due for a trial when a minute has passed.
    upstream.key("sk-a").always(Answer::api());
    clock.pass(SECOND * 50).await;
    assert_eq!(why(&proxy.chat("m").await), "[key] round_robin turn; passed over: 1 rejected");
    clock.pass(SECOND * 10).await;
    let got = proxy.chat("m").await;
    assert_eq!(why(&got), "[key] round_robin turn; passed over: 1 rejected; tried: [key] key_rejected 401");
}

#[tokio::test]
async fn a_full_line_is_a_reason_too() {
    let _clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.otherwise(Answer::api().after(&gate));
    let keys = ["key = \"sk-a\"\nmax_in_flight = 1"];
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "max_waiting = 1")).await;
    let send = || {
        let request = support::proxy::client().post(proxy.url("/v1/chat/completions"));
        let request = request.body(support::proxy::chat("m"));
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        tokio::spawn(async move { Got::read(request.send().await.expect("it answers")).await })
    };
    let first = send();
    upstream.wait_for(|up| up.total_calls() == 1).await;
    let second = send();
    proxy.until_waiting(1).await;
    assert_eq!(why(&proxy.chat("m").await), "none line_full; passed over: 1 busy");
    gate.open();
    for request in [first, second] {
        assert_eq!(why(&request.await.expect("it did not panic")), "[key] round_robin turn");
    }
}

#[tokio::test]
async fn many_attempts_make_no_long_header_and_no_secret_stands_in_it() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::revoked());
    let keys: Vec<_> = (0..100).map(|n| format!("key = \"{CANARY}-{n}\"")).collect();
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "")).await;
    let got = proxy.chat("m").await;
    assert_eq!((got.status, got.attempts()), (503, 100));
    let told = got.header("x-key-cycle-why").expect("debug_headers is on");
    assert!(told.starts_with("none none_free; passed over: 100 rejected; tried: "), "{told}");
    assert!(told.ends_with(", 92 more") && told.len() < 512, "{told}");
    assert!(!told.contains(CANARY) && !told.contains("canary"), "{told}");
    let silent = Proxy::start(&in_turn_with(&upstream, &keys, "").replace("debug_headers = true", "")).await;
    assert_eq!(silent.chat("m").await.header("x-key-cycle-why"), None);
}

#[tokio::test]
async fn each_pick_is_logged_where_the_log_is_asked_for_it() {
    let upstream = Upstream::start().await;
    upstream.key(CANARY).always(Answer::rate_limited(SECOND * 50));
    let entries = [format!("key = \"{CANARY}\""), format!("key = \"{CANARY}-2\"")];
    let file = in_turn_with(&upstream, &entries, "") + "[server]\nbind_addr = \"127.0.0.1:0\"\n";
    let file = file.replace("debug_headers = true", "metrics_bind = \"off\"");
    let command = Folder::with("config.toml", &file);
    let level = "info,key_cycle_proxy::pool=debug";
    let mut proxy = command.command(&["serve"]).env("RUST_LOG", level).serve().await;
    let request = support::proxy::client().post(proxy.url("/v1/chat/completions"));
    let answer = request.body(support::proxy::chat("m")).send().await.expect("it answers");
    assert_eq!((answer.status().as_u16(), answer.headers().get("x-key-cycle-why")), (200, None));
    proxy.wait_for("attempt=2").await;
    let picks: Vec<&str> = proxy.log().lines().filter(|line| line.contains("key picked")).collect();
    assert_eq!(picks.len(), 2, "{}", proxy.log());
    for fact in
        ["strategy=round_robin", "turn=turn", "passed_over=\"1 rate_limited\"", "request.id=", "key.id="]
    {
        assert!(picks[1].contains(fact), "{fact}: {}", picks[1]);
    }
    assert!(!proxy.log().contains(CANARY), "a secret is shown");
}
