//! A simulated upstream on a real socket: scripted per key, faulty on demand, and otherwise a small
//! API in the dialect that the path asks for: OpenAI's, Anthropic's, Gemini's, Azure's, or plain REST.
//!
//! ```ignore
//! let up = Upstream::start().await;
//! up.key("sk-a").answers([Answer::status(429).retry_after(3), Answer::ok()]);
//! // … send requests to up.url() …
//! assert_eq!(up.calls("sk-a"), 2);
//! ```
//!
//! It uses nothing of the crate that it tests, so that benches and examples can include it by path.
#![cfg_attr(
    all(),
    allow(dead_code, unreachable_pub, unused_imports, reason = "each program uses its own part of it")
)]

mod anthropic;
mod api;
mod azure;
mod body;
mod chat;
mod dialect;
mod faults;
mod gemini;
mod generic;
mod h2;
mod keys;
mod listen;
mod media;
mod openai_faults;
mod play;
mod record;
mod said;
mod script;
mod tls;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::{JoinHandle, JoinSet};

use listen::{bind, open, reap};

pub use body::{Counter, Gate};
pub use chat::{chat_events, response_events};
pub use dialect::Dialect;
pub use keys::{Character, KeyScript};
pub use record::Recorded;
pub use script::{Answer, error_body};

/// The upstream. Stops when it is dropped; the drop panics if one of its connections did.
pub struct Upstream {
    address: SocketAddr,
    hub: Arc<Hub>,
    door: Mutex<Door>,
}

/// What every connection shares.
struct Hub {
    keys: keys::Keys,
    api: api::Api,
    ledger: Arc<record::Ledger>,
    tls: Option<tls::Identity>,
    connections: Mutex<JoinSet<()>>,
}

/// Whether the port listens. While it does not, it stays bound, so that nobody else gets it.
enum Door {
    Open(JoinHandle<()>),
    Shut(TcpSocket),
    Moving,
}

impl Upstream {
    /// In cleartext on a free port of the loopback: HTTP/1.1, and HTTP/2 with prior knowledge.
    pub async fn start() -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// The same at an address of your choice.
    pub async fn start_on(address: SocketAddr) -> Self {
        Self::listen(address, None)
    }

    /// With TLS for `localhost`, signed by a CA of its own; offers `h2` and `http/1.1`.
    pub async fn start_tls() -> Self {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Some(tls::Identity::generate()))
    }

    fn listen(address: SocketAddr, tls: Option<tls::Identity>) -> Self {
        let hub = Arc::new(Hub {
            keys: keys::Keys::new(),
            api: api::Api::default(),
            ledger: Arc::new(record::Ledger::new()),
            tls,
            connections: Mutex::new(JoinSet::new()),
        });
        let listener = bind(address).and_then(|socket| socket.listen(1024)).expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let door = Mutex::new(Door::Open(open(listener, Arc::clone(&hub))));
        Self { address, hub, door }
    }

    /// Scheme, host and port, without a trailing slash.
    pub fn url(&self) -> String {
        let port = self.address.port();
        if self.hub.tls.is_some() {
            format!("https://localhost:{port}")
        } else {
            format!("http://{}", self.address)
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate authority to trust, in PEM. Only after [`Self::start_tls`].
    pub fn ca_pem(&self) -> String {
        self.hub.tls.as_ref().expect("started by `start_tls`").ca_pem.clone()
    }

    /// What one key gets. The key is known from here on.
    pub fn key(&self, key: &str) -> KeyScript<'_> {
        self.hub.keys.script(key)
    }

    /// What keys without a script get; the realistic API unless said otherwise.
    pub fn otherwise(&self, answer: Answer) {
        self.hub.keys.set_otherwise(answer);
    }

    /// From now on 401 for keys that [`Self::key`] never named.
    pub fn unknown_keys_are_rejected(&self) {
        self.hub.keys.reject_unknown();
    }

    /// Requests so far, in the order in which they were complete.
    pub fn requests(&self) -> Vec<Recorded> {
        self.hub.ledger.book().requests.clone()
    }

    /// The last request.
    pub fn last_request(&self) -> Recorded {
        self.hub.ledger.book().requests.last().cloned().expect("there was a request")
    }

    /// Requests with this key.
    pub fn calls(&self, key: &str) -> usize {
        self.hub.ledger.book().calls.get(key).copied().unwrap_or(0)
    }

    /// Requests with any key or none.
    pub fn total_calls(&self) -> usize {
        self.hub.ledger.book().total
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.hub.ledger.book().accepted
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.hub.ledger.book().links.len()
    }

    /// Requests whose answer is not finished. It may lag behind what the client has read: wait for it.
    pub fn open_requests(&self) -> usize {
        self.hub.ledger.book().open
    }

    /// Requests whose client went away before the answer's end.
    pub fn cancelled(&self) -> usize {
        self.hub.ledger.book().cancelled
    }

    /// Requests whose body never came to its end.
    pub fn incomplete(&self) -> usize {
        self.hub.ledger.book().incomplete
    }

    /// What arrived and was no request.
    pub fn malformed(&self) -> usize {
        self.hub.ledger.book().malformed
    }

    /// Returns once `reached` holds; looks again whenever something changes.
    ///
    /// # Panics
    /// After 20 s of the real clock, with what has happened so far.
    pub async fn wait_for(&self, reached: impl Fn(&Self) -> bool) {
        if reached(self) {
            return;
        }
        let mut changes = self.hub.ledger.changes();
        let mut patience = real_time(Duration::from_secs(20));
        loop {
            changes.mark_unchanged();
            if reached(self) {
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = &mut patience => panic!("never reached; so far {:?}", self.hub.ledger.book()),
            }
        }
    }

    /// Forgets the requests and counts so far; what is open stays open.
    pub fn reset_records(&self) {
        self.hub.ledger.reset();
    }

    /// From now on counts requests without keeping them, for runs of millions.
    pub fn count_only(&self) {
        self.hub.ledger.book().count_only = true;
    }

    /// Closes the connections that carry no request, and returns once they are closed.
    pub async fn kill_idle_connections(&self) {
        let idle = self.hub.ledger.close_links(|link| link.busy == 0);
        self.wait_for(|up| !up.hub.ledger.any_open(&idle)).await;
    }

    /// Refuses connections from now on and closes idle ones. Answers under way go on to their end.
    pub async fn stop(&self) {
        self.shut().await;
        let idle = self.hub.ledger.close_links(|link| link.busy == 0);
        self.hub.ledger.close_links(|_| true);
        self.wait_for(|up| !up.hub.ledger.any_open(&idle)).await;
    }

    /// Refuses connections from now on and breaks every answer under way.
    pub async fn crash(&self) {
        self.shut().await;
        self.hub.ledger.book().crashing = true;
        let mut connections = std::mem::take(&mut *lock(&self.hub.connections));
        connections.shutdown().await;
        self.hub.ledger.close_links(|_| true);
        self.wait_for(|up| up.open_connections() == 0 && up.open_requests() == 0).await;
        self.hub.ledger.book().crashing = false;
    }

    /// Listens again on the same port.
    pub async fn restart(&self) {
        let mut door = lock(&self.door);
        let socket = match std::mem::replace(&mut *door, Door::Moving) {
            Door::Shut(socket) => socket,
            already => return *door = already,
        };
        let listener = socket.listen(1024).expect("the port was kept");
        *door = Door::Open(open(listener, Arc::clone(&self.hub)));
    }

    async fn shut(&self) {
        let door = std::mem::replace(&mut *lock(&self.door), Door::Moving);
        let shut = match door {
            Door::Open(accepting) => {
                accepting.abort();
                let _ = accepting.await;
                Door::Shut(bind(self.address).expect("the port was ours a moment ago"))
            }
            already => already,
        };
        *lock(&self.door) = shut;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Door::Open(accepting) = &*lock(&self.door) {
            accepting.abort();
        }
        let mut connections = lock(&self.hub.connections);
        connections.abort_all();
        let panicked = self.hub.ledger.book().panicked || reap(&mut connections);
        if panicked && !std::thread::panicking() {
            panic!("a connection of the simulated upstream panicked; its message is above");
        }
    }
}

/// Resolves after `time` of the real clock, even where tokio's is paused.
fn real_time(time: Duration) -> tokio::sync::oneshot::Receiver<()> {
    let (done, waiting) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut left = time;
        while !left.is_zero() && !done.is_closed() {
            let nap = left.min(Duration::from_millis(50));
            std::thread::sleep(nap);
            left -= nap;
        }
        let _ = done.send(());
    });
    waiting
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
