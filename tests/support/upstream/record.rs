//! What has happened so far, and who wants to know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The credential, in whichever of the usual places it stood.
    pub key: Option<String>,
    pub method: Method,
    /// Path and query as they stood in the request line.
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    /// Up to the first 64 MiB.
    pub body: Bytes,
    /// All of it.
    pub body_len: u64,
    /// Which connection brought it: 0 for the first accepted.
    pub connection: usize,
}

impl Recorded {
    /// The target up to the question mark.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The target from the question mark on.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(super) struct Ledger {
    book: Mutex<Book>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub requests: Vec<Recorded>,
    pub calls: HashMap<String, usize>,
    pub total: usize,
    pub accepted: usize,
    pub open: usize,
    pub cancelled: usize,
    pub incomplete: usize,
    pub malformed: usize,
    pub links: HashMap<usize, LinkState>,
    pub count_only: bool,
    pub crashing: bool,
    pub panicked: bool,
}

#[derive(Debug)]
pub(super) struct LinkState {
    /// Requests that this connection carries now.
    pub busy: usize,
    closing: CancellationToken,
}

impl Ledger {
    pub fn new() -> Self {
        Self { book: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        super::lock(&self.book)
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub fn reset(&self) {
        self.change(|book| {
            book.requests.clear();
            book.calls.clear();
            (book.total, book.accepted, book.cancelled) = (0, 0, 0);
            (book.incomplete, book.malformed) = (0, 0);
        });
    }

    /// Notes a new connection.
    pub fn link(self: &Arc<Self>) -> Link {
        let closing = CancellationToken::new();
        let id = self.change(|book| {
            let id = book.links.keys().max().map_or(book.accepted, |last| book.accepted.max(last + 1));
            book.accepted += 1;
            book.links.insert(id, LinkState { busy: 0, closing: closing.clone() });
            id
        });
        Link { id, closing, ledger: Arc::clone(self) }
    }

    /// Asks connections to close when idle; returns which.
    pub fn close_links(&self, which: impl Fn(&LinkState) -> bool) -> Vec<usize> {
        let mut ids = Vec::new();
        for (id, link) in self.book().links.iter().filter(|(_, link)| which(link)) {
            link.closing.cancel();
            ids.push(*id);
        }
        ids
    }

    pub fn any_open(&self, ids: &[usize]) -> bool {
        let book = self.book();
        ids.iter().any(|id| book.links.contains_key(id))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let result = change(&mut self.book());
        self.changed.send_replace(());
        result
    }
}

/// One connection's page; the connection is over when this is dropped.
pub(super) struct Link {
    pub id: usize,
    closing: CancellationToken,
    ledger: Arc<Ledger>,
}

impl Link {
    /// Resolves when the connection should close once idle.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// What came is no request.
    pub fn malformed(&self) {
        self.ledger.change(|book| book.malformed += 1);
    }

    /// From here on the connection is not idle.
    pub fn begin(&self) -> Receiving {
        let ledger = Arc::clone(&self.ledger);
        ledger.change(|book| book.links.get_mut(&self.id).expect("open as long as its link").busy += 1);
        Receiving { call: Some(Call { link: self.id, ledger, counted: false, finished: false }) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ledger.change(|book| book.links.remove(&self.id));
    }
}

/// A request whose body is on its way. Dropped, it never came to its end.
pub(super) struct Receiving {
    call: Option<Call>,
}

impl Receiving {
    /// The request is complete.
    pub fn record(mut self, request: &Recorded) -> Call {
        let mut call = self.call.take().expect("taken only here");
        call.counted = true;
        call.ledger.change(|book| {
            book.open += 1;
            book.total += 1;
            if let Some(key) = &request.key {
                *book.calls.entry(key.clone()).or_default() += 1;
            }
            if !book.count_only {
                book.requests.push(request.clone());
            }
        });
        call
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.ledger.change(|book| book.incomplete += 1);
        }
    }
}

/// A request whose answer is not finished. Dropped unfinished, its client went away.
pub(super) struct Call {
    link: usize,
    ledger: Arc<Ledger>,
    counted: bool,
    finished: bool,
}

impl Call {
    /// The answer ended as its script says.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ledger.change(|book| {
            if let Some(link) = book.links.get_mut(&self.link) {
                link.busy -= 1;
            }
            if self.counted {
                book.open -= 1;
                book.cancelled += usize::from(!self.finished && !book.crashing);
            }
        });
    }
}
