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
    /// Follows SIGTERM and SIGINT, for as long as the returned future is polled. SIGHUP, which would end the process,
    /// is only told of.
    ///
    /// # Errors
    /// If the system lets us follow no signals.
    pub fn follow_signals(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut signals = signals()?;
        let this = self.clone();
        Ok(async move {
            for token in [&this.stop, &this.abort] {
                let name = loop {
                    match signals.next().await {
                        HANGUP => {
                            info!(
                                signal = HANGUP,
                                "the configuration is read at the start only; restart to change it"
                            );
                        }
                        name => break name,
                    }
                };
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

/// What daemons take as a wish to read their configuration again.
const HANGUP: &str = "SIGHUP";

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
fn signals() -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    })
}

#[cfg(unix)]
impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => HANGUP,
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
