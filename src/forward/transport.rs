//! The way to the upstream.

use std::time::Duration;

/// How connections to upstreams are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a connect (DNS, TCP, TLS) may take.
    pub connect_timeout: Duration,
    /// Further certificate authorities, beside the system's.
    pub extra_roots: Vec<reqwest::Certificate>,
    /// Whether HTTP/2 is offered to upstreams.
    pub http2: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), extra_roots: Vec::new(), http2: false }
    }
}
