//! Logs and metrics: handles usable from floor 1 up.

pub mod access;
mod line;
mod log;
mod metrics;
mod sink;

use std::net::SocketAddr;

pub use access::TunnelEnd;
pub use log::{LogError, init};
pub use metrics::{Hedged, Metrics, Process, Retried};
pub use sink::Flush;

/// What is logged and measured, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where Prometheus reads. `None`: nowhere.
    pub metrics_bind: Option<SocketAddr>,
    /// Directives of `tracing_subscriber::EnvFilter`; checked.
    pub log_filter: String,
    /// How a log line looks.
    pub log_format: LogFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metrics_bind: Some(SocketAddr::from(([0, 0, 0, 0], 9090))),
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
