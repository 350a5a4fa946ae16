//! What the listener is told.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use http::HeaderValue;
use ipnet::IpNet;

/// The settings of the proxy's listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients connect.
    pub bind: SocketAddr,
    /// The largest request body that is JSON, and the largest that is held to be sent again.
    pub body_limit: usize,
    /// The largest that is no JSON.
    pub upload_limit: u64,
    /// The largest frame of a WebSocket.
    pub frame_limit: u64,
    /// How much memory request bodies may take in all while they may have to be sent again.
    pub replay_memory: usize,
    /// How many connections at once; more wait in the listener's backlog.
    pub max_connections: NonZeroUsize,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which web pages may call us.
    pub cors: CorsOrigins,
    /// Whether answers name the key and the attempts, and why it was that key (`x-key-cycle-key`,
    /// `x-key-cycle-attempts`, `x-key-cycle-why`).
    pub debug_headers: bool,
    /// How long after the signal to stop we still accept.
    pub shutdown_delay: Duration,
    /// How long requests may take to finish after that.
    pub drain: Duration,
}

impl Settings {
    /// The largest request body unless a file says otherwise: 32 MiB.
    pub const DEFAULT_BODY_LIMIT: usize = 32 << 20;

    /// The largest body that is no JSON unless a file says otherwise: 512 MiB.
    pub const DEFAULT_UPLOAD_LIMIT: u64 = 512 << 20;

    /// The largest frame of a WebSocket unless a file says otherwise: 16 MiB.
    pub const DEFAULT_FRAME_LIMIT: u64 = 16 << 20;

    /// The memory for request bodies unless a file says otherwise: 512 MiB.
    pub const DEFAULT_REPLAY_MEMORY: usize = 512 << 20;

    /// The defaults, at an address.
    #[must_use]
    pub fn at(bind: SocketAddr) -> Self {
        Self {
            bind,
            body_limit: Self::DEFAULT_BODY_LIMIT,
            upload_limit: Self::DEFAULT_UPLOAD_LIMIT,
            frame_limit: Self::DEFAULT_FRAME_LIMIT,
            replay_memory: Self::DEFAULT_REPLAY_MEMORY,
            max_connections: NonZeroUsize::new(65_536).expect("not zero"),
            trusted_proxies: Vec::new(),
            cors: CorsOrigins::Loopback,
            debug_headers: false,
            shutdown_delay: Duration::ZERO,
            drain: Duration::from_secs(10),
        }
    }
}

/// Which web pages may call us from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Any: safe where a client key is asked for.
    Any,
    /// Pages served from this machine.
    Loopback,
    /// These.
    List(Vec<HeaderValue>),
}
