//! A simulated upstream that misbehaves: on a thread of its own, down to the bytes and the connections.

mod connection;

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use connection::Connection;
use tokio::{net::TcpListener, runtime, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{keys::Key, support::now};

/// What happened here.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicUsize,
    pub(crate) answered: AtomicUsize,
    pub(crate) limited: AtomicUsize,
    pub(crate) rejected: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    /// Connections broken instead of an answer.
    pub(crate) broken_before: AtomicUsize,
    /// Streams broken off, as wished.
    pub(crate) broken_within: AtomicUsize,
    pub(crate) dropped_idle: AtomicUsize,
    /// Requests that are not what the client sent, or bring a key that is not the pool's.
    pub(crate) garbled: AtomicUsize,
}

/// The upstream, from outside.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    counts: Counts,
    keys: Mutex<Vec<Key>>,
    close_idle: Mutex<CancellationToken>,
    is_noting: AtomicBool,
    noted: Mutex<HashSet<u64>>,
}

impl Upstream {
    pub(crate) fn start(seed: u64) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            keys: Mutex::new(Key::all(now())),
            close_idle: Mutex::default(),
            is_noting: AtomicBool::new(false),
            noted: Mutex::default(),
        });
        std::thread::Builder::new().name("upstream".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                // It never returns, unless nobody can connect; then the clients say so.
                let served = runtime.block_on(serve(listener, shared, seed));
                served.unwrap_or_else(|error| eprintln!("the upstream: {error}"));
            }
        })?;
        Ok(Self { address, shared })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Closes the connections on which nothing is under way.
    pub(crate) fn close_idle(&self) {
        let mut token = lock(&self.shared.close_idle);
        std::mem::take(&mut *token).cancel();
    }

    /// From now on remembers which requests came.
    pub(crate) fn note_requests(&self) {
        self.shared.is_noting.store(true, Ordering::Relaxed);
    }

    /// Whether this request came, since they are remembered.
    pub(crate) fn has_seen(&self, id: u64) -> bool {
        lock(&self.shared.noted).contains(&id)
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>, seed: u64) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                count(&shared.counts.connections);
                let connection = Connection::new(socket, Arc::clone(&shared), rng.fork());
                connections.spawn(connection.serve());
            }
            // How one ended is its own affair: most are broken by us or by those who gave up.
            Some(_) = connections.join_next() => {}
        }
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is behind these locks is whole after each statement.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
