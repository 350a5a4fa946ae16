//! Finds the SDKs and runs their tests.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use super::API_KEY;

/// Longer than the tests of an SDK take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What an SDK would take from the environment of whoever runs the tests.
const FOREIGN: [&str; 14] = [
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_API_VERSION",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    "PROXY_URL",
];

/// A command without what it must not see.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("API_KEY", API_KEY).env("NO_PROXY", "127.0.0.1").env("LANGSMITH_TRACING", "false");
    command.kill_on_drop(true);
    command
}

/// Runs the tests of an SDK, which must pass.
pub(crate) async fn run_to_its_end(command: &mut Command) {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends");
    let output = output.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    print!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}", output.status);
}

/// Pytest with one of the files for it, if the packages it imports are installed.
pub(crate) async fn pytest(file: &str, packages: &[&str]) -> Option<Command> {
    let python = variable("SDK_PYTHON").map_or_else(|| installed("python/bin/python"), PathBuf::from);
    let python = if python.exists() { python } else { "python3".into() };
    let look = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))";
    let check = command(&python).args(["-c", look, "pytest"]).args(packages).output().await;
    if !check.is_ok_and(|output| output.status.success()) {
        skip(&format!("{} for Python", packages.join(", ")));
        return None;
    }
    let mut command = command(python);
    command.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(source("python").join(file));
    Some(command)
}

/// Node's runner with one of the files for it, if the package it imports is installed.
pub(crate) fn node(file: &str, package: &str) -> Option<Command> {
    let folder = variable("SDK_NODE").map_or_else(|| installed("node"), PathBuf::from);
    if !folder.join("node_modules").join(package).exists() {
        skip(&format!("{package} for Node"));
        return None;
    }
    // A module is resolved from where the file stands that imports it.
    let copied = |file: &str| {
        let copy = folder.join(file);
        std::fs::copy(source("node").join(file), &copy).expect("the folder can be written to");
        copy
    };
    copied("both.mjs");
    let mut command = command("node");
    command.arg("--test").arg(copied(file));
    Some(command)
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
