//! The program itself as a child: a folder of its own, an empty environment, free ports, its log read to the end.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, PipeReader},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{process::Command, sync::oneshot};

use super::{Result, client::Connection, process::Process};

/// Longer than a start takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is kept of the log.
const LAST_LINES: usize = 20;

/// A running daemon.
pub struct Daemon {
    pub process: Process,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where Prometheus reads.
    pub metrics: SocketAddr,
    log: Arc<Log>,
    _folder: TempDir,
}

/// What matters of a log.
#[derive(Default)]
struct Log {
    last: Mutex<VecDeque<String>>,
    panics: AtomicUsize,
}

impl Daemon {
    /// Starts `binary` with this configuration and these variables and waits until it says where it listens.
    pub async fn start(binary: &Path, config: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("config.toml"), config)?;
        // It starts in a folder of its own.
        let mut command = Command::new(std::path::absolute(binary)?);
        command.args(["--config", "config.toml", "--bind", "127.0.0.1:0"]).current_dir(folder.path());
        command.env_clear().envs(variables.iter().copied());
        let (stderr, theirs) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(theirs);
        let process =
            Process::start(&mut command).map_err(|error| format!("{}: {error}", binary.display()))?;
        // It holds their end of the pipe, which must close with the process.
        drop(command);
        let log = Arc::new(Log::default());
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new().name("log".to_owned()).spawn({
            let log = Arc::clone(&log);
            // A thread, since whoever reads a log must never keep its writer waiting.
            move || log.follow(stderr, tell)
        })?;
        let addresses = tokio::time::timeout(PATIENCE, told).await;
        let Ok(Ok((address, metrics))) = addresses else {
            return Err(format!("{} did not start:\n{}", binary.display(), log.last()).into());
        };
        Ok(Self { process, address, metrics, log, _folder: folder })
    }

    /// How many lines of its log tell of a panic.
    pub fn panics(&self) -> usize {
        self.log.panics.load(Ordering::Relaxed)
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        self.log.last()
    }

    /// What Prometheus would read now.
    pub async fn metrics(&self) -> Result<String> {
        let mut connection = Connection::open(self.metrics).await?;
        connection.send(b"GET /metrics HTTP/1.1\r\nhost: metrics\r\nconnection: close\r\n\r\n").await?;
        let status = connection.head().await?;
        let text = String::from_utf8(connection.body().await?)?;
        if status == 200 { Ok(text) } else { Err(format!("metrics answer {status}: {text}").into()) }
    }
}

impl Log {
    fn follow(&self, pipe: PipeReader, tell: oneshot::Sender<(SocketAddr, SocketAddr)>) {
        let mut tell = Some(tell);
        let (mut address, mut metrics) = (None, None);
        let mut pipe = BufReader::with_capacity(64 << 10, pipe);
        let mut line = Vec::new();
        while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line);
            if tell.is_some() {
                let told =
                    text.split_once("address=").and_then(|(_, rest)| rest.trim_end().split(' ').next());
                let told = told.and_then(|text| text.parse().ok());
                if text.contains("metrics at") {
                    metrics = told;
                } else if text.contains("listening") {
                    address = told;
                }
                if let (Some(address), Some(metrics)) = (address, metrics)
                    && let Some(tell) = tell.take()
                {
                    // Whoever no longer waits has given up.
                    let _ = tell.send((address, metrics));
                }
            }
            if memchr::memmem::find(&line, b"panicked").is_some() {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(text.into_owned());
            drop(last);
            line.clear();
        }
    }

    fn last(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().map(String::as_str).collect()
    }
}
