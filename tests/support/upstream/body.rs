//! Bodies as they are produced: piece by piece, held, slowed, broken off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

/// Lets a test release an answer piece by piece. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets `pieces` more pass.
    pub fn release(&self, pieces: usize) {
        self.0.add_permits(pieces);
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.0.close();
    }

    pub(super) async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Watches how much of a body was produced. Clones are the same counter.
#[derive(Debug, Clone)]
pub struct Counter(Arc<Produced>);

#[derive(Debug)]
struct Produced {
    bytes: AtomicU64,
    blocked: watch::Sender<bool>,
}

impl Counter {
    /// At zero.
    pub fn new() -> Self {
        Self(Arc::new(Produced { bytes: AtomicU64::new(0), blocked: watch::Sender::new(false) }))
    }

    /// Bytes produced so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::SeqCst)
    }

    /// Returns once the socket takes no more for the moment (HTTP/1.1 only).
    pub async fn until_blocked(&self) {
        let mut blocked = self.0.blocked.subscribe();
        let _ = blocked.wait_for(|blocked| *blocked).await;
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.0.blocked.send_if_modified(|now| std::mem::replace(now, blocked) != blocked);
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// When pieces go out, and how cut up.
#[derive(Clone, Default)]
pub(super) struct Pace {
    pub gap: Option<Duration>,
    pub gate: Option<Gate>,
    pub dribble: Option<usize>,
}

/// How a body ends.
#[derive(Clone, Copy, Default)]
pub(super) enum Ending {
    #[default]
    Whole,
    CutAfter(usize),
    StallAfter(usize),
    BadChunkAfter(usize),
}

pub(super) enum Source {
    Queue(VecDeque<Bytes>),
    Endless { piece: Bytes, counter: Counter },
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    Data(Bytes),
    End,
    Cut,
    BadChunk,
}

pub(super) struct Pieces {
    source: Source,
    pace: Pace,
    ending: Ending,
    begun: usize,
    rest: Bytes,
}

impl Pieces {
    pub fn new(source: Source, pace: Pace, ending: Ending) -> Self {
        Self { source, pace, ending, begun: 0, rest: Bytes::new() }
    }

    pub async fn next(&mut self) -> Step {
        if !self.rest.is_empty() {
            tokio::task::yield_now().await;
            return Step::Data(self.morsel());
        }
        match self.ending {
            Ending::CutAfter(n) if self.begun == n => return Step::Cut,
            Ending::BadChunkAfter(n) if self.begun == n => return Step::BadChunk,
            Ending::StallAfter(n) if self.begun == n => return std::future::pending().await,
            _ => {}
        }
        let piece = match &mut self.source {
            Source::Queue(queue) => match queue.pop_front() {
                Some(piece) => piece,
                None => return Step::End,
            },
            Source::Endless { piece, .. } => piece.clone(),
        };
        if let (Some(gap), 1..) = (self.pace.gap, self.begun) {
            tokio::time::sleep(gap).await;
        }
        if let Some(gate) = &self.pace.gate {
            gate.pass().await;
        }
        if let Source::Endless { counter, .. } = &self.source {
            counter.add(piece.len());
        }
        self.begun += 1;
        self.rest = piece;
        Step::Data(self.morsel())
    }

    /// The counter of an endless body.
    pub fn counter(&self) -> Option<Counter> {
        match &self.source {
            Source::Endless { counter, .. } => Some(counter.clone()),
            Source::Queue(_) => None,
        }
    }

    fn morsel(&mut self) -> Bytes {
        let size = self.pace.dribble.unwrap_or(usize::MAX).min(self.rest.len());
        self.rest.split_to(size)
    }
}
