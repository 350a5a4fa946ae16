//! The binary as a child process: a folder of its own, an empty environment, its log read line by line.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::mpsc,
};

/// Longer than anything here takes: a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A working directory.
pub struct Folder(TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }

    /// With one file.
    pub fn with(name: &str, text: &str) -> Self {
        Self::new().and(name, text)
    }

    /// With one more file.
    pub fn and(self, name: &str, text: &str) -> Self {
        std::fs::write(self.0.path().join(name), text).expect("the test's own file");
        self
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("temporary folders have plain names").to_owned()
    }

    /// The binary with these arguments and nothing in its environment, to be started here.
    pub fn command(&self, arguments: &[&str]) -> Start {
        let mut command = Command::new(env!("CARGO_BIN_EXE_key-cycle-proxy"));
        command.args(arguments).current_dir(self.0.path()).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Start(command)
    }
}

/// The binary, about to be started.
pub struct Start(Command);

/// What a process said, and how it ended.
pub struct Told {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Start {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// With no more file descriptors than that, until it asks for more.
    pub fn descriptors(self, soft_limit: u32) -> Self {
        let inner = self.0.as_std();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -Sn {soft_limit} && exec \"$0\" \"$@\"")]);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear().kill_on_drop(true);
        command.current_dir(inner.get_current_dir().expect("it has a folder of its own"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> Told {
        let output = tokio::time::timeout(PATIENCE, self.0.output()).await.expect("it ends");
        let output = output.expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let code = output.status.code().expect("it exits, and is not killed");
        Told { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Starts it and waits until it tells its address.
    pub async fn serve(mut self) -> Running {
        let mut child = self.0.spawn().expect("the binary starts");
        let log = follow(child.stderr.take().expect("piped"));
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Running { child, log, told: String::new(), address };
        running.address = address_in(&running.wait_for("listening").await);
        running
    }
}

/// A running daemon. Killed when dropped.
pub struct Running {
    child: Child,
    log: mpsc::UnboundedReceiver<String>,
    told: String,
    address: SocketAddr,
}

impl Running {
    /// Where it says that it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` of the daemon, reached on loopback.
    pub fn url(&self, path: &str) -> String {
        let ip = if self.address.ip().is_unspecified() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            self.address.ip()
        };
        format!("http://{}{path}", SocketAddr::new(ip, self.address.port()))
    }

    /// Where it says that its metrics are. They must be on.
    pub async fn metrics_address(&mut self) -> SocketAddr {
        address_in(&self.wait_for("metrics at /metrics").await)
    }

    /// What it has logged, as far as it has been waited for.
    pub fn log(&self) -> &str {
        &self.told
    }

    /// Reads its log up to a line that has `text`, and returns that line.
    pub async fn wait_for(&mut self, text: &str) -> String {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.log.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("{text:?} was never logged, only\n{}", self.told));
            let line = line.unwrap_or_else(|| panic!("it ended without {text:?} after\n{}", self.told));
            self.told.push_str(&line);
            self.told.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// What Linux tells of it in `/proc`.
    pub fn told_by_linux(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id().expect("it runs"));
        std::fs::read_to_string(path).expect("Linux tells it")
    }

    /// Sends it a signal, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([name, &id]).status().expect("kill is there");
        assert!(sent.success(), "kill {name} {id}");
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Told {
        let end = async {
            while let Some(line) = self.log.recv().await {
                self.told.push_str(&line);
                self.told.push('\n');
            }
            let mut stdout = String::new();
            self.child.stdout.take().expect("piped").read_to_string(&mut stdout).await.expect("text");
            let status = self.child.wait().await.expect("it is our child");
            Told { code: status.code().expect("it exits"), stdout, stderr: std::mem::take(&mut self.told) }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("it ends")
    }
}

/// The address that a line of the log names, in either format.
fn address_in(line: &str) -> SocketAddr {
    let address = ["address=", "\"address\":\""].iter().find_map(|before| line.split_once(before));
    let address = address.and_then(|(_, rest)| rest.split([' ', '"']).next());
    address.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// Reads a log all the time, so that its writer never waits.
fn follow(stderr: ChildStderr) -> mpsc::UnboundedReceiver<String> {
    let (told, log) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "it ends with the process that it follows")]
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await.expect("the log is text") {
            // Whoever has dropped the receiver wants no more lines, but the process must not block.
            let _ = told.send(line);
        }
    });
    log
}
