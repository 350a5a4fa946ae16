//! When the process is asked to stop.

use std::io;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Two requests to stop: the first gently, the second at once.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Asked to stop.
    pub stop: CancellationToken,
    /// Asked again.
    pub abort: CancellationToken,
}

impl Lifecycle {
    /// Follows SIGTERM and SIGINT, for as long as the returned future is polled.
    ///
    /// # Errors
    /// If the system lets us follow no signals.
    pub fn follow_signals(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut signals = signals()?;
        let this = self.clone();
        Ok(async move {
            for token in [&this.stop, &this.abort] {
                let name = signals.next().await;
                if this.stop.is_cancelled() {
                    warn!(signal = name, "asked to stop again: connections are cut");
                } else {
                    info!(signal = name, "asked to stop");
                }
                token.cancel();
            }
        })
    }
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn signals() -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

#[cfg(unix)]
impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
fn signals() -> io::Result<Signals> {
    Ok(Signals)
}

#[cfg(not(unix))]
impl Signals {
    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
