//! The official SDKs and what builds on them, once directly at the simulated upstream and once through the daemon: what
//! they return and what they raise is the same.
//!
//! `SDK_PYTHON` names a Python that has the packages and `pytest`, `SDK_NODE` a folder whose `node_modules` has them;
//! `.ci/run` installs both below `target/sdk`, where they are found without these variables. What is not installed is
//! skipped, with a line that says so; with `REQUIRE_SDKS=1` it is a failure.

use std::time::Duration;

use pools::Pools;
use runner::{node, pytest, run_to_its_end};
use support::{
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Gate, Upstream, chat_events},
};
use tokio::process::Command;

#[path = "sdk/pools.rs"]
mod pools;
#[path = "sdk/runner.rs"]
mod runner;
mod support;

/// The client's key, good at the proxy and directly.
const API_KEY: &str = "ck-sdk";
/// The pools that the daemon can serve. An SDK that needs another is only tested directly.
const ROUTED: [&str; 4] = ["openai", "anthropic", "gemini", "azure"];
/// How the keys of the failing upstream fail; the proxy has one for the model of each name.
const FAULTS: [&str; 4] = ["limited", "failing", "breaking", "stalling"];

/// Two upstreams that behave alike, one of them behind the daemon, and one that fails.
struct Stage {
    direct: Upstream,
    /// Kept for as long as the proxy needs it.
    _behind: Upstream,
    faults: Upstream,
    proxy: Proxy,
}

impl Stage {
    async fn set() -> Self {
        let (direct, behind, faults) =
            (Upstream::start().await, Upstream::start().await, Upstream::start().await);
        // One account: what one key makes, such as a file, the other sees.
        let account = "proj_sdk";
        direct.key(API_KEY).account(account);
        direct.unknown_keys_are_rejected();
        behind.key("sk-one").account(account);
        behind.key("sk-two").account(account);
        behind.unknown_keys_are_rejected();
        faults.unknown_keys_are_rejected();
        let mut toml = format!(
            "[upstream]\nbase_url = \"{url}\"\nretry_initial_backoff_ms = 1\nretry_max_backoff_ms = 2\n\
             [clients]\nkeys = [\"{API_KEY}\"]\n\
             [[keys.pool]]\nkey = \"sk-one\"\n[[keys.pool]]\nkey = \"sk-two\"\n",
            url = behind.url()
        );
        for fault in FAULTS {
            for side in ["direct", "sk"] {
                faults.key(&format!("{side}-{fault}")).always(answer(fault));
            }
            let url = faults.url();
            toml +=
                &format!("[[keys.pool]]\nkey = \"sk-{fault}\"\nurl = \"{url}\"\nmodels = [\"{fault}\"]\n");
        }
        let proxy = Proxy::start(&toml).await;
        Self { direct, _behind: behind, faults, proxy }
    }

    /// Runs an SDK's tests to their end.
    async fn run(&self, command: &mut Command) {
        command
            .env("DIRECT_URL", format!("{}/v1", self.direct.url()))
            .env("PROXY_URL", self.proxy.url("/v1"))
            .env("FAULTS_URL", format!("{}/v1", self.faults.url()));
        run_to_its_end(command).await;
        // Known to be limited, the key is not asked again; a stream that was left is cancelled upstream.
        assert_eq!(self.faults.calls("sk-limited"), 1);
        self.faults.wait_for(|faults| faults.open_requests() == 0).await;
    }
}

fn answer(fault: &str) -> Answer {
    match fault {
        "limited" => Answer::rate_limited(Duration::from_secs(120)),
        "failing" => Answer::status(500).error("server_error", "", "The server had an error."),
        "breaking" => Answer::sse(chat_events("one two three")).cut_after(2),
        "stalling" => Answer::sse(chat_events("one two three")).stall_after(2),
        _ => unreachable!("not in the list of faults"),
    }
}

#[tokio::test]
async fn openai_for_python_sees_no_difference() {
    let Some(mut command) = pytest("test_openai.py", &["openai"]).await else { return };
    Stage::set().await.run(&mut command).await;
}

#[tokio::test]
async fn openai_for_python_waits_as_long_as_it_is_told_and_no_longer() {
    let Some(mut command) = pytest("test_waiting.py", &["openai"]).await else { return };
    let clock = StillClock::stop();
    let (upstream, time, gate) = (Upstream::start().await, Upstream::start().await, Gate::new());
    let limited = |seconds| Answer::rate_limited(Duration::from_secs(seconds));
    upstream.key("sk-soon").answers([limited(12), Answer::api()]);
    upstream.key("sk-late").always(limited(120));
    time.otherwise(Answer::ok().after(&gate));
    let url = upstream.url();
    let key =
        |model| format!("[[keys.pool]]\nkey = \"sk-{model}\"\nurl = \"{url}\"\nmodels = [\"{model}\"]\n");
    let proxy =
        Proxy::start(&format!("[clients]\nkeys = [\"{API_KEY}\"]\n{}{}", key("soon"), key("late"))).await;
    command.env("PROXY_URL", proxy.url("/v1")).env("TIME_URL", time.url());
    let passing = async {
        time.wait_for(|time| time.total_calls() == 1).await;
        let seconds = time.last_request().header("x-seconds").and_then(|seconds| seconds.parse().ok());
        clock.pass(Duration::from_secs_f64(seconds.expect("a number"))).await;
        gate.open();
        std::future::pending().await
    };
    tokio::select! {
        () = run_to_its_end(&mut command) => {}
        () = passing => {}
    }
    assert_eq!((upstream.calls("sk-soon"), upstream.calls("sk-late")), (2, 1));
}

#[tokio::test]
async fn openai_for_node_sees_no_difference() {
    let Some(mut command) = node("openai.test.mjs", "openai") else { return };
    Stage::set().await.run(&mut command).await;
}

#[tokio::test]
async fn anthropic_for_python_sees_no_difference() {
    let Some(mut command) = pytest("test_anthropic.py", &["anthropic"]).await else { return };
    Pools::set(&["anthropic"]).await.run(&mut command).await;
}

#[tokio::test]
async fn anthropic_for_node_sees_no_difference() {
    let Some(mut command) = node("anthropic.test.mjs", "@anthropic-ai/sdk") else { return };
    Pools::set(&["anthropic"]).await.run(&mut command).await;
}

#[tokio::test]
async fn google_genai_for_python_sees_no_difference() {
    let Some(mut command) = pytest("test_gemini.py", &["google.genai"]).await else { return };
    Pools::set(&["gemini"]).await.run(&mut command).await;
}

#[tokio::test]
async fn google_genai_for_node_sees_no_difference() {
    let Some(mut command) = node("gemini.test.mjs", "@google/genai") else { return };
    Pools::set(&["gemini"]).await.run(&mut command).await;
}

#[tokio::test]
async fn openai_for_python_reaches_what_is_compatible() {
    let Some(mut command) = pytest("test_compatible.py", &["openai"]).await else { return };
    Pools::set(&["anthropic", "gemini", "azure"]).await.run(&mut command).await;
}

#[tokio::test]
async fn langchain_sees_no_difference() {
    let packages = ["langchain_openai", "langchain_anthropic", "langchain_google_genai"];
    let Some(mut command) = pytest("test_langchain.py", &packages).await else { return };
    Pools::set(&["openai", "anthropic", "gemini"]).await.run(&mut command).await;
}

#[tokio::test]
async fn litellm_sees_no_difference() {
    let Some(mut command) = pytest("test_litellm.py", &["litellm"]).await else { return };
    Pools::set(&["openai", "anthropic", "gemini"]).await.run(&mut command).await;
}
