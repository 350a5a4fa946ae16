//! The official SDKs, once directly at the simulated upstream and once through the daemon: what they return and what
//! they raise is the same.
//!
//! `SDK_PYTHON` names a Python that has `openai` and `pytest`, `SDK_NODE` a folder whose `node_modules` has `openai`;
//! `.ci/run` installs both below `target/sdk`, where they are found without these variables. What is not installed is
//! skipped, with a line that says so; with `REQUIRE_SDKS=1` it is a failure.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use support::{
    proxy::Proxy,
    still::StillClock,
    upstream::{Answer, Gate, Upstream, chat_events},
};
use tokio::process::Command;

mod support;

/// The client's key, good at the proxy and directly.
const API_KEY: &str = "ck-sdk";
/// Longer than the tests of an SDK take.
const PATIENCE: Duration = Duration::from_secs(300);
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

async fn run_to_its_end(command: &mut Command) {
    command.env("API_KEY", API_KEY).env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
    for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"] {
        command.env_remove(name);
    }
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends");
    let output = output.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}", output.status);
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

#[expect(clippy::disallowed_methods, reason = "it is the test that is configured so, not the proxy")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where `.ci/run` installs the SDKs: `target/sdk`.
fn installed(below: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk").join(below)
}

fn source(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(below)
}

/// Says on the terminal, and not only where a test fails, what was not tested.
fn skip(what: &str) {
    assert!(variable("REQUIRE_SDKS").is_none_or(|value| value == "0"), "{what} is not installed");
    writeln!(std::io::stderr(), "skipped: {what} is not installed").expect("standard error is open");
}

/// Pytest with one of the files for it, if the SDK is installed.
async fn pytest(file: &str) -> Option<Command> {
    let python = variable("SDK_PYTHON").map_or_else(|| installed("python/bin/python"), PathBuf::from);
    let python = if python.exists() { python } else { "python3".into() };
    let check = Command::new(&python).args(["-c", "import openai, pytest"]).output().await;
    if !check.is_ok_and(|output| output.status.success()) {
        skip("openai for Python");
        return None;
    }
    let mut command = Command::new(python);
    command.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(source(file));
    Some(command)
}

#[tokio::test]
async fn openai_for_python_sees_no_difference() {
    let Some(mut command) = pytest("python/test_openai.py").await else { return };
    Stage::set().await.run(&mut command).await;
}

#[tokio::test]
async fn openai_for_python_waits_as_long_as_it_is_told_and_no_longer() {
    let Some(mut command) = pytest("python/test_waiting.py").await else { return };
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
    let folder = variable("SDK_NODE").map_or_else(|| installed("node"), PathBuf::from);
    if !folder.join("node_modules/openai").exists() {
        return skip("openai for Node");
    }
    // A module is resolved from where the file stands that imports it.
    let tests = folder.join("openai.test.mjs");
    std::fs::copy(source("node/openai.test.mjs"), &tests).expect("the folder can be written to");
    let mut command = Command::new("node");
    command.arg("--test").arg(tests);
    Stage::set().await.run(&mut command).await;
}
