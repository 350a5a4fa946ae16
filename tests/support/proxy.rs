//! The real daemon on loopback, in this process: real files' text, real sockets, port 0.

use std::{net::SocketAddr, time::Duration};

use key_cycle_proxy::{
    config::{Config, Env, Flags},
    daemon::Daemon,
    lifecycle::Lifecycle,
    server::Drained,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A running daemon. Dropped, it is cut off.
pub struct Proxy {
    address: SocketAddr,
    metrics: SocketAddr,
    lifecycle: Lifecycle,
    task: JoinHandle<Drained>,
    _folder: TempDir,
}

impl Proxy {
    /// Starts a daemon from the text of a `config.toml`. `server.bind_addr` and `observability.metrics_bind` are given
    /// by the harness, as are short backoffs unless the text has its own `[upstream]` section.
    pub async fn start(toml: &str) -> Self {
        Self::start_with(toml, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(toml: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, with_port_zero(toml)).expect("the test's own file");
        let flags = Flags { config: Some(file), bind: Some(SocketAddr::from(([127, 0, 0, 1], 0)).into()) };
        let env = Env::from_map(
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        );
        let config =
            Config::load(&flags, &env, folder.path()).unwrap_or_else(|problems| panic!("{problems}"));
        Self::run(config, folder)
    }

    /// Starts a daemon with `keys` at `upstream`, default settings otherwise.
    pub async fn with_keys(upstream: &str, keys: &[&str]) -> Self {
        Self::start(&keys_toml(upstream, keys)).await
    }

    /// Starts a daemon in a folder with these files, which it finds by itself, and environment variables.
    pub async fn start_in(files: &[(&str, &str)], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("the test's own file");
        }
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let flags = Flags { config: None, bind: Some(loopback.into()) };
        let env = Env::from_map(
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        );
        let mut config =
            Config::load(&flags, &env, folder.path()).unwrap_or_else(|problems| panic!("{problems}"));
        config.telemetry.metrics_bind = Some(loopback);
        Self::run(config, folder)
    }

    fn run(config: Config, folder: TempDir) -> Self {
        let daemon = Daemon::bind(config).expect("loopback has free ports");
        let address = daemon.address().expect("bound");
        let metrics = daemon.metrics_address().expect("bound").expect("metrics are on in tests");
        let lifecycle = Lifecycle::default();
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let task = tokio::spawn(daemon.run(lifecycle.clone()));
        Self { address, metrics, lifecycle, task, _folder: folder }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where Prometheus reads.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What Prometheus would read now.
    pub async fn metrics(&self) -> String {
        let answer =
            client().get(format!("http://{}/metrics", self.metrics)).send().await.expect("metrics answer");
        answer.text().await.expect("metrics are text")
    }

    /// The value of one line of the metrics, by its name and labels as they are printed; 0 if it is not there.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = self.metrics().await;
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Asks it to stop, as SIGTERM does.
    pub fn ask_to_stop(&self) {
        self.lifecycle.stop.cancel();
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(self) -> Drained {
        self.lifecycle.stop.cancel();
        let mut this = self;
        (&mut this.task).await.expect("the daemon did not panic")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lifecycle.stop.cancel();
        self.lifecycle.abort.cancel();
    }
}

/// `[[keys.pool]]` entries for `keys` at `upstream`, which is `upstream.base_url` too.
pub fn keys_toml(upstream: &str, keys: &[&str]) -> String {
    let mut text = format!(
        "[upstream]\nbase_url = \"{upstream}\"\nretry_initial_backoff_ms = 1\nretry_max_backoff_ms = 5\n"
    );
    for key in keys {
        text.push_str(&format!("[[keys.pool]]\nkey = \"{key}\"\n"));
    }
    text
}

/// The same with further lines in `[upstream]`, and further sections.
pub fn toml(upstream: &str, keys: &[&str], in_upstream: &str, sections: &str) -> String {
    let text = keys_toml(upstream, keys).replacen("[upstream]\n", &format!("[upstream]\n{in_upstream}\n"), 1);
    format!("{text}{sections}\n")
}

/// Adds what the harness decides to the text of a file.
fn with_port_zero(toml: &str) -> String {
    const SECTION: &str = "[observability]";
    const METRICS: &str = "metrics_bind = \"127.0.0.1:0\"";
    if toml.contains("metrics_bind") {
        toml.to_owned()
    } else if toml.contains(SECTION) {
        toml.replacen(SECTION, &format!("{SECTION}\n{METRICS}"), 1)
    } else {
        format!("{toml}\n{SECTION}\n{METRICS}\n")
    }
}

/// A client that follows no redirect, uses no proxy, and gives up after a time that no test needs.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}

/// The body of a chat request.
pub fn chat(model: &str) -> String {
    serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hello there"}]}).to_string()
}

/// The same, asking for a stream.
pub fn streamed_chat(model: &str) -> String {
    let message = serde_json::json!([{"role": "user", "content": "hello there"}]);
    serde_json::json!({"model": model, "messages": message, "stream": true}).to_string()
}
