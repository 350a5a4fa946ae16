//! When no key is free: who waits, in which order, for how long, and who is told to come back.

use std::time::Duration;

use support::{
    ask::{Got, in_turn, in_turn_with},
    proxy::{Proxy, chat, client},
    still::StillClock,
    upstream::{Answer, Gate, Upstream},
};
use tokio::task::JoinHandle;

mod support;

const SECOND: Duration = Duration::from_secs(1);

/// A chat request under way.
fn send(proxy: &Proxy, model: &str) -> JoinHandle<Got> {
    let request = client().post(proxy.url("/v1/chat/completions")).body(chat(model));
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    tokio::spawn(async move { Got::read(request.send().await.expect("the proxy answers")).await })
}

async fn ended(request: JoinHandle<Got>) -> Got {
    request.await.expect("it did not panic")
}

/// One key that is limited for `seconds` and then answers.
async fn limited_once(seconds: u64, lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start().await;
    upstream.key("sk-a").answers([Answer::rate_limited(SECOND * seconds as u32), Answer::api()]);
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a"], lines)).await;
    (upstream, proxy)
}

#[tokio::test]
async fn a_request_waits_for_a_limited_key_within_max_wait_and_succeeds() {
    let clock = StillClock::stop();
    let (upstream, proxy) = limited_once(5, "max_wait_ms = 5500").await;
    let request = send(&proxy, "gpt-4o");
    proxy.until_waiting(1).await;
    clock.pass(SECOND * 5).await;
    assert_eq!((ended(request).await.status, upstream.total_calls()), (200, 2));
    assert_eq!(proxy.waiting().await, 0);
}

#[tokio::test]
async fn a_request_does_not_wait_longer_than_max_wait_and_is_told_the_truth_at_once() {
    let _clock = StillClock::stop();
    let (upstream, proxy) = limited_once(5, "max_wait_ms = 4000").await;
    for _ in 0..3 {
        let got = proxy.chat("gpt-4o").await;
        assert_eq!((got.said(), got.retry_after()), ((429, "all_keys_cooling".to_owned()), Some(5)));
        assert_eq!(got.header("retry-after-ms"), Some("5000"));
    }
    assert_eq!(upstream.total_calls(), 1, "a refusal of ours costs no upstream call");
}

#[tokio::test]
async fn with_max_wait_zero_nobody_waits() {
    let clock = StillClock::stop();
    let (upstream, proxy) = limited_once(1, "max_wait_ms = 0").await;
    assert_eq!(proxy.chat("gpt-4o").await.retry_after(), Some(1));
    clock.pass(SECOND).await;
    assert_eq!((proxy.chat("gpt-4o").await.status, upstream.total_calls()), (200, 2));
}

#[tokio::test]
async fn retry_after_shrinks_as_time_passes_and_is_kept() {
    let clock = StillClock::stop();
    let (_upstream, proxy) = limited_once(30, "").await;
    assert_eq!(proxy.chat("gpt-4o").await.retry_after(), Some(30));
    clock.pass(SECOND * 12).await;
    assert_eq!(proxy.chat("gpt-4o").await.retry_after(), Some(18));
    clock.pass(SECOND * 18).await;
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
}

/// A proxy with one key that serves one request at a time, and the gate that holds its answers.
async fn one_at_a_time(lines: &str) -> (Upstream, Proxy, Gate) {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.otherwise(Answer::api().after(&gate));
    let proxy = Proxy::start(&in_turn_with(&upstream, &["key = \"sk-a\"\nmax_in_flight = 1"], lines)).await;
    (upstream, proxy, gate)
}

#[tokio::test]
async fn waiting_requests_are_served_in_the_order_of_arrival() {
    let _clock = StillClock::stop();
    let (upstream, proxy, gate) = one_at_a_time("").await;
    let mut requests = vec![send(&proxy, "model-0")];
    upstream.wait_for(|up| up.total_calls() == 1).await;
    for n in 1..=8 {
        requests.push(send(&proxy, &format!("model-{n}")));
        proxy.until_waiting(n).await;
    }
    for n in 1..=8 {
        gate.release(1);
        upstream.wait_for(|up| up.total_calls() == n + 1).await;
        assert_eq!(upstream.open_requests(), 1, "max_in_flight = 1");
    }
    gate.open();
    for request in requests {
        assert_eq!(ended(request).await.status, 200);
    }
    let order: Vec<_> =
        upstream.requests().iter().map(|request| request.json()["model"].to_string()).collect();
    assert!(order.is_sorted() && order.len() == 9, "{order:?}");
}

#[tokio::test]
async fn no_more_than_max_waiting_wait() {
    let _clock = StillClock::stop();
    let (upstream, proxy, gate) = one_at_a_time("max_waiting = 2").await;
    let first = send(&proxy, "m");
    upstream.wait_for(|up| up.total_calls() == 1).await;
    let waiting = [send(&proxy, "m"), send(&proxy, "m")];
    proxy.until_waiting(2).await;
    let got = proxy.chat("m").await;
    assert_eq!(got.said(), (429, "all_keys_cooling".to_owned()));
    assert_eq!((got.attempts(), got.header("x-should-retry")), (0, Some("false")), "nobody knows when");
    gate.open();
    for request in [first].into_iter().chain(waiting) {
        assert_eq!(ended(request).await.status, 200);
    }
    assert_eq!(upstream.total_calls(), 3);
}

#[tokio::test]
async fn a_full_key_is_waited_for_though_another_rests_for_longer_than_anyone_waits() {
    let _clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.key("sk-rests").answers([Answer::rate_limited(SECOND * 60)]);
    upstream.key("sk-full").answers([Answer::api().after(&gate), Answer::api()]);
    let keys = ["key = \"sk-rests\"", "key = \"sk-full\"\nmax_in_flight = 1"];
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "")).await;
    let first = send(&proxy, "gpt-4o");
    upstream.wait_for(|up| up.total_calls() == 2).await;
    let second = send(&proxy, "gpt-4o");
    proxy.until_waiting(1).await;
    gate.open();
    assert_eq!((ended(first).await.status, ended(second).await.status), (200, 200));
}

#[tokio::test]
async fn a_waiting_client_that_leaves_gives_up_its_place() {
    let _clock = StillClock::stop();
    let (upstream, proxy, gate) = one_at_a_time("max_waiting = 2").await;
    let first = send(&proxy, "first");
    upstream.wait_for(|up| up.total_calls() == 1).await;
    let leaves = send(&proxy, "leaves");
    proxy.until_waiting(1).await;
    let stays = send(&proxy, "stays");
    proxy.until_waiting(2).await;
    leaves.abort();
    proxy.until_waiting(1).await;
    let comes = send(&proxy, "comes");
    proxy.until_waiting(2).await;
    gate.open();
    for request in [first, stays, comes] {
        assert_eq!(ended(request).await.status, 200);
    }
    let order: Vec<_> = upstream.requests().iter().map(|request| request.json()["model"].clone()).collect();
    assert_eq!(order, ["first", "stays", "comes"]);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_served_frees_the_key_for_who_waits() {
    let _clock = StillClock::stop();
    let (upstream, proxy, gate) = one_at_a_time("").await;
    let leaves = send(&proxy, "leaves");
    upstream.wait_for(|up| up.total_calls() == 1).await;
    let waits = send(&proxy, "waits");
    proxy.until_waiting(1).await;
    leaves.abort();
    upstream.wait_for(|up| up.cancelled() == 1 && up.total_calls() == 2).await;
    gate.open();
    assert_eq!(ended(waits).await.status, 200);
    assert_eq!(proxy.healths().await, [1.0]);
}

/// Twenty requests at once at five a second: as many as may be pass at each moment, and no more.
async fn keeps_the_rate(file: impl Fn(&Upstream) -> String, keys: usize) {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    for key in ["sk-a", "sk-b"] {
        upstream.key(key).limit(5.0, 2).always(Answer::api());
    }
    let proxy = Proxy::start(&file(&upstream)).await;
    let requests: Vec<_> = (0..20).map(|_| send(&proxy, "gpt-4o")).collect();
    let mut served = 2 * keys;
    upstream.wait_for(|up| up.total_calls() == served).await;
    proxy.until_waiting(20 - served).await;
    while served < 20 {
        clock.pass(SECOND / 5).await;
        served = (served + keys).min(20);
        upstream.wait_for(|up| up.total_calls() >= served).await;
        proxy.until_waiting(20 - served).await;
        assert_eq!(upstream.total_calls(), served);
    }
    for request in requests {
        assert_eq!(ended(request).await.status, 200);
    }
    assert_eq!(proxy.judged("rate_limited").await, 0, "upstream never had to refuse");
}

#[tokio::test]
async fn per_key_rps_is_kept_and_used_to_the_full() {
    let file = |upstream: &Upstream| {
        in_turn(upstream, &["sk-a"], "max_wait_ms = 30000") + "[rate_limit]\nper_key_rps = 5\nburst = 2\n"
    };
    keeps_the_rate(file, 1).await;
}

#[tokio::test]
async fn two_keys_have_twice_the_rate_of_one() {
    let file = |upstream: &Upstream| {
        in_turn(upstream, &["sk-a", "sk-b"], "max_wait_ms = 30000")
            + "[rate_limit]\nper_key_rps = 5\nburst = 2\n"
    };
    keeps_the_rate(file, 2).await;
}

#[tokio::test]
async fn a_keys_own_rps_counts_before_per_key_rps() {
    let file = |upstream: &Upstream| {
        let entry = ["key = \"sk-a\"\nrps = 5"];
        in_turn_with(upstream, &entry, "max_wait_ms = 30000")
            + "[rate_limit]\nper_key_rps = 1000\nburst = 2\n"
    };
    keeps_the_rate(file, 1).await;
}

#[tokio::test]
async fn a_key_at_its_rate_passes_on_to_one_that_is_not() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let entries = ["key = \"sk-a\"\nrps = 1", "key = \"sk-b\""];
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "max_wait_ms = 0")).await;
    for _ in 0..6 {
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
    }
    assert_eq!((upstream.calls("sk-a"), upstream.calls("sk-b")), (1, 5));
}

#[tokio::test]
async fn limits_of_our_own_refuse_without_an_upstream_call() {
    for limit in ["global_rps", "per_client_rps"] {
        let clock = StillClock::stop();
        let upstream = Upstream::start().await;
        let file = in_turn(&upstream, &["sk-a"], "") + &format!("[rate_limit]\n{limit} = 0.5\nburst = 1\n");
        let proxy = Proxy::start(&file).await;
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        let got = proxy.chat("gpt-4o").await;
        assert_eq!((got.said(), got.retry_after()), ((429, "rate_limit_exceeded".to_owned()), Some(2)));
        assert_eq!(upstream.total_calls(), 1);
        clock.pass(SECOND * 2).await;
        assert_eq!(proxy.chat("gpt-4o").await.status, 200);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn where_every_key_is_dead_nobody_waits_for_the_next_trial() {
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    upstream.otherwise(Answer::revoked());
    let proxy = Proxy::start(&in_turn(&upstream, &["sk-a", "sk-b"], "max_wait_ms = 120000")).await;
    assert_eq!(proxy.chat("gpt-4o").await.said(), (503, "no_usable_key".to_owned()));
    let got = clock.trickle(proxy.chat("gpt-4o")).await;
    assert_eq!((got.said(), got.attempts()), ((503, "no_usable_key".to_owned()), 0));
    assert_eq!((got.header("x-should-retry"), got.retry_after()), (Some("false"), None));
    // The first to come when one is due is the trial.
    clock.pass(SECOND * 60).await;
    upstream.otherwise(Answer::api());
    assert_eq!(proxy.chat("gpt-4o").await.status, 200);
}

#[tokio::test]
async fn when_the_last_hope_of_those_who_wait_dies_they_are_all_told_at_once() {
    let clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.key("sk-dead").always(Answer::revoked());
    upstream.key("sk-busy").always(Answer::revoked().after(&gate));
    let keys = ["key = \"sk-dead\"", "key = \"sk-busy\"\nmax_in_flight = 1"];
    let proxy = Proxy::start(&in_turn_with(&upstream, &keys, "max_wait_ms = 120000")).await;
    let mut requests = vec![send(&proxy, "m")];
    upstream.wait_for(|up| up.total_calls() == 2).await;
    requests.extend((0..5).map(|_| send(&proxy, "m")));
    proxy.until_waiting(5).await;
    gate.open();
    for request in requests {
        let got = clock.trickle(ended(request)).await;
        assert_eq!(got.said(), (503, "no_usable_key".to_owned()), "{}", got.text());
    }
    assert_eq!(upstream.total_calls(), 2, "no upstream call is made for that");
}

#[tokio::test]
async fn causes_are_told_by_account_and_by_key() {
    let _clock = StillClock::stop();
    let upstream = Upstream::start().await;
    let mut entries = Vec::new();
    for (key, account) in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "2"), ("e", "3"), ("f", "3"), ("g", "3")]
    {
        upstream.key(&format!("sk-{key}")).always(Answer::rate_limited(SECOND * 40));
        entries.push(format!("key = \"sk-{key}\"\naccount = \"account {account}\""));
    }
    upstream.key("sk-dead").always(Answer::revoked());
    entries.push("key = \"sk-dead\"".to_owned());
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "")).await;
    let got = proxy.chat("gpt-4o").await;
    assert_eq!((got.said(), got.attempts()), ((429, "all_keys_cooling".to_owned()), 4));
    let text = got.json()["error"]["message"].as_str().expect("a message").to_owned();
    let (before, after) = text.split_once("3 accounts rate limited until ").expect(&text);
    assert_eq!((before, &after[8..]), ("No key is free now: ", " UTC, 1 key rejected."), "{text}");
    assert!(!text.contains("account 1"), "no name is shown");

    upstream.key("sk-alone").always(Answer::rate_limited(SECOND * 50));
    entries.push("key = \"sk-alone\"".to_owned());
    let proxy = Proxy::start(&in_turn_with(&upstream, &entries, "")).await;
    let text = proxy.chat("gpt-4o").await.text();
    assert!(text.contains("3 accounts and 1 key rate limited until "), "{text}");
}

/// Jain's index: 1 where all got the same, `1 / n` where one of `n` got everything.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

#[tokio::test]
async fn a_thousand_of_ten_clients_wait_for_a_reset_and_share_what_comes_then() {
    const CLIENTS: usize = 10;
    const KEYS: [&str; 4] = ["sk-a", "sk-b", "sk-c", "sk-d"];
    let clock = StillClock::stop();
    let upstream = Upstream::start().await;
    for key in KEYS {
        upstream.key(key).answers([Answer::rate_limited(SECOND * 5), Answer::api()]).limit(50.0, 10);
    }
    let names: Vec<String> = (0..CLIENTS).map(|n| format!("ck-{n}")).collect();
    let file = in_turn(&upstream, &KEYS, "max_wait_ms = 30000")
        + &format!("[clients]\nkeys = {names:?}\n[rate_limit]\nper_key_rps = 50\nburst = 10\n");
    let proxy = Proxy::start(&file).await;
    let http = client();
    let send = |who: usize| {
        let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "user": who.to_string()});
        let request = http.post(proxy.url("/v1/chat/completions")).body(body.to_string());
        let request = request.bearer_auth(&names[who]);
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        tokio::spawn(async move { Got::read(request.send().await.expect("the proxy answers")).await })
    };
    // The first finds out that all keys are limited.
    let mut requests = vec![send(0)];
    proxy.until_waiting(1).await;
    // One client has ten times the requests of each of the nine others, and all of them in line before those come.
    requests.extend((1..523).map(|_| send(0)));
    proxy.until_waiting(523).await;
    requests.extend((523..1000).map(|n| send(1 + n % 9)));
    proxy.until_waiting(1000).await;
    let refused = proxy.judged("rate_limited").await;
    assert_eq!((upstream.total_calls(), refused), (KEYS.len(), KEYS.len()));
    clock.pass(SECOND * 5).await;
    let mut served = KEYS.len() * 10;
    loop {
        let left = 1000_usize.saturating_sub(served);
        proxy.until_waiting(left).await;
        if left == 0 {
            break;
        }
        clock.pass(SECOND / 5).await;
        served += KEYS.len() * 10;
    }
    let mut good = 0;
    for request in requests {
        good += usize::from(ended(request).await.status == 200);
    }
    assert_eq!(good, 1000, "served");
    assert_eq!(proxy.judged("rate_limited").await, refused, "no 429 after the wake");

    let calls = upstream.requests();
    let mut shares = [0.0; CLIENTS];
    for request in &calls[KEYS.len()..][..500] {
        let who = request.json()["user"].as_str().and_then(|who| who.parse::<usize>().ok());
        shares[who.expect("a number")] += 1.0;
    }
    assert!(jain(&shares) >= 0.95, "while all have demand: {shares:?}");
}

#[tokio::test]
async fn in_a_full_line_the_client_with_most_makes_room_for_one_with_fewer() {
    let clock = StillClock::stop();
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    upstream.otherwise(Answer::api().after(&gate));
    let file = in_turn_with(&upstream, &["key = \"sk-a\"\nmax_in_flight = 1"], "max_waiting = 2");
    let proxy = Proxy::start(&(file + "[clients]\nkeys = [\"ck-heavy\", \"ck-light\"]\n")).await;
    let send = |key: &str| {
        let request = client().post(proxy.url("/v1/chat/completions")).bearer_auth(key).body(chat("m"));
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        tokio::spawn(async move { Got::read(request.send().await.expect("the proxy answers")).await })
    };
    let first = send("ck-heavy");
    upstream.wait_for(|up| up.total_calls() == 1).await;
    let second = send("ck-heavy");
    proxy.until_waiting(1).await;
    let third = send("ck-heavy");
    proxy.until_waiting(2).await;
    // Its own next is refused; another's takes the place of its last, which is told at once.
    let own = clock.trickle(ended(send("ck-heavy"))).await;
    assert_eq!(own.said(), (429, "all_keys_cooling".to_owned()));
    let light = send("ck-light");
    let gone = clock.trickle(ended(third)).await;
    assert_eq!(gone.said(), (429, "all_keys_cooling".to_owned()));
    assert!(gone.text().contains("Too many requests are waiting"), "{}", gone.text());
    proxy.until_waiting(2).await;
    gate.open();
    for request in [first, second, light] {
        assert_eq!(ended(request).await.status, 200);
    }
    assert_eq!(upstream.total_calls(), 3);
}
