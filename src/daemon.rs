//! Everything, wired once: the only file that names every part.

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    client::Clients,
    clock::Clock,
    config::{Config, NamedPool},
    forward::{
        Api, Forwarder, Router, SharedPool, denials,
        transport::{self, TlsError, Transport},
    },
    lifecycle::Lifecycle,
    pool::Pool,
    server::{self, Drained, Listener, Proxy, Stages, Stop},
    telemetry::Metrics,
    types::{BaseUrl, Key, PoolName},
};

/// How often the histograms are folded; between two, each request takes a few bytes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Scrapers and people at once.
const METRICS_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// A daemon whose sockets are bound and which does not serve yet.
#[derive(Debug)]
pub struct Daemon {
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    clients: Listener,
    scrapers: Option<Listener>,
    stages: Stages,
    shutdown_delay: Duration,
    drain: Duration,
}

/// Why a daemon can't start: our fault or the machine's, not the configuration's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be had.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// Why: in use, not permitted, not this machine's.
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error("cannot prepare connections to upstreams: {0}")]
    Transport(#[from] TlsError),
}

impl Daemon {
    /// Binds the sockets and puts the parts together.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left half started.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let Config {
            server,
            telemetry,
            clients,
            pool: settings,
            keys,
            base_url,
            pools: named,
            aliases,
            policy,
            transport: connections,
            env_keys: _,
            notes: _,
        } = config;
        let clock = Clock::system();
        let listen = |address, most, setting| {
            Listener::bind(address, most).map_err(|source| StartError::Bind { address, setting, source })
        };
        let socket = listen(server.bind, server.max_connections, "server.bind_addr")?;
        let scrapers = telemetry
            .metrics_bind
            .map(|address| listen(address, METRICS_CONNECTIONS, "observability.metrics_bind"))
            .transpose()?;
        let metrics = Arc::new(Metrics::new(&denials()));
        let direct = Arc::new(Transport::new(&connections, clock)?);
        let forwarder = |name, keys: Vec<Key>, api, base: &BaseUrl, transport| {
            let keys = keys.into_iter().map(Arc::new).collect();
            let pool = Pool::new(settings.clone(), keys, base.origin(), fastrand::Rng::new());
            let pool = Arc::new(SharedPool::new(name, pool, clock));
            Forwarder::new(pool, transport, policy.clone(), api, clock, Arc::clone(&metrics))
        };
        let by_way_of = |proxies| match proxies {
            None => Ok(Arc::clone(&direct)),
            Some(proxies) => {
                let settings = transport::Settings { proxies: Some(proxies), ..connections.clone() };
                Transport::new(&settings, clock).map(Arc::new)
            }
        };
        let mut pools = Vec::new();
        if !keys.is_empty() {
            pools.push(forwarder(PoolName::default(), keys, Api::default(), &base_url, Arc::clone(&direct)));
        }
        for NamedPool { name, api, base_url, keys, proxies, places: _ } in named {
            pools.push(forwarder(name, keys, api, &base_url, by_way_of(proxies)?));
        }
        let router = Router::new(pools, &aliases, clock);
        let stages = Stages::default();
        let (shutdown_delay, drain) = (server.shutdown_delay, server.drain);
        let clients = Clients::new(&clients);
        let connections = socket.connections();
        let proxy =
            Proxy::new(server, clients, router, Arc::clone(&metrics), clock, stages.clone(), connections);
        Ok(Self { proxy: Arc::new(proxy), metrics, clients: socket, scrapers, stages, shutdown_delay, drain })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.clients.address()
    }

    /// Where Prometheus reads.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn metrics_address(&self) -> io::Result<Option<SocketAddr>> {
        self.scrapers.as_ref().map(Listener::address).transpose()
    }

    /// Serves until `lifecycle` says stop, and then until requests have ended or their time is over.
    pub async fn run(self, lifecycle: Lifecycle) -> Drained {
        let Self { proxy, metrics, clients, scrapers, stages, shutdown_delay, drain } = self;
        let Stages { stopping, last_call } = stages;
        let tasks = TaskTracker::new();
        let accepting = CancellationToken::new();
        let stop = Stop {
            keeping: stopping.clone(),
            accepting: accepting.clone(),
            last_call,
            abort: lifecycle.abort.clone(),
            drain,
        };
        let over = CancellationToken::new();
        tasks.spawn({
            let (metrics, over) = (Arc::clone(&metrics), over.clone());
            async move {
                while tokio::time::timeout(UPKEEP, over.cancelled()).await.is_err() {
                    metrics.upkeep();
                }
            }
        });
        if let Some(scrapers) = scrapers {
            // Metrics are served to the end of the drain.
            let (keeping, accepting, abort) = (over.clone(), over.clone(), over.clone());
            let stop = Stop { keeping, accepting, last_call: over.clone(), abort, drain: Duration::ZERO };
            tasks.spawn(scrapers.serve(server::metrics_routes(Arc::clone(&proxy), metrics), stop));
        }
        tasks.spawn({
            let (stop, abort) = (lifecycle.stop.clone(), lifecycle.abort.clone());
            async move {
                stop.cancelled().await;
                // Whoever balances loads must see it before connections are refused.
                stopping.cancel();
                let _ = tokio::time::timeout(shutdown_delay, abort.cancelled()).await;
                accepting.cancel();
            }
        });
        let drained = clients.serve(proxy, stop).await;
        match drained {
            Drained::All => info!("stopped"),
            Drained::Cut(connections) => warn!(connections, "stopped; the connections left were cut"),
        }
        over.cancel();
        lifecycle.stop.cancel();
        tasks.close();
        tasks.wait().await;
        drained
    }
}
