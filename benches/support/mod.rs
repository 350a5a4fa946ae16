//! What the end-to-end bench and the soak share: child processes, what the system says of them, and a client that
//! sees the bytes.
#![cfg_attr(all(), allow(dead_code, unreachable_pub, reason = "each program uses its own part of it"))]

pub mod client;
pub mod daemon;
pub mod proc;
pub mod process;

use std::time::Instant;

use key_cycle_proxy::clock::Clock;

/// What goes wrong here ends the program, with a sentence.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The monotonic clock, read now.
pub fn now() -> Instant {
    Clock::system().now().mono
}

/// Returns when the user or the system asks this program to end, and says so.
pub async fn interruption() -> Box<dyn std::error::Error + Send + Sync> {
    signal().await.map_or_else(Into::into, |()| "interrupted".into())
}

async fn signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            pressed = tokio::signal::ctrl_c() => pressed,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
