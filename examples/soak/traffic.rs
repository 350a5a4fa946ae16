//! The clients: many at once, each with one request after the other, of every kind.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    client::{Client, Trouble},
    wish::{Answer, Wish},
};

/// No request may take longer, whatever happens to it: the daemon lets one wait for a key for ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many failures each client remembers.
const REMEMBERED: usize = 10;

/// What a client does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Plain,
    Slow,
    OwnConnection,
    Chunked,
    LargeRequest,
    SlowReader,
    Stream,
    BrokenStream,
    InvalidJson,
    LeaveInBody,
    LeaveBeforeHead,
    LeaveInStream,
}

impl Kind {
    /// Each with its share of a thousand requests, and in words.
    const ALL: [(Self, u32, &'static str); 12] = [
        (Self::Plain, 600, "small documents"),
        (Self::Slow, 20, "documents that take a while"),
        (Self::OwnConnection, 90, "on a connection of their own"),
        (Self::Chunked, 20, "with a chunked body"),
        (Self::LargeRequest, 5, "with a large body"),
        (Self::SlowReader, 10, "large documents, read slowly"),
        (Self::Stream, 150, "streams"),
        (Self::BrokenStream, 15, "streams that the upstream breaks off"),
        (Self::InvalidJson, 10, "invalid JSON, refused"),
        (Self::LeaveInBody, 10, "client leaves within its request"),
        (Self::LeaveBeforeHead, 35, "client leaves before the answer"),
        (Self::LeaveInStream, 35, "client leaves within a stream"),
    ];

    fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut at = rng.u32(0..Self::ALL.iter().map(|(_, share, _)| share).sum());
        for (kind, share, _) in Self::ALL {
            match at.checked_sub(share) {
                Some(less) => at = less,
                None => return kind,
            }
        }
        Self::Plain
    }

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., words)| words)
    }
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many of each kind went as they should.
    pub(crate) well: BTreeMap<Kind, u64>,
    pub(crate) failed: u64,
    /// The first of those, in words.
    pub(crate) told: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        for (kind, count) in other.well {
            *self.well.entry(kind).or_default() += count;
        }
        self.failed += other.failed;
        self.told.extend(other.told);
        self.told.truncate(REMEMBERED);
    }

    fn count(&mut self, id: u64, kind: Kind, outcome: Result<(), Trouble>) {
        match outcome {
            Ok(()) => *self.well.entry(kind).or_default() += 1,
            Err(trouble) => {
                self.failed += 1;
                if self.told.len() < REMEMBERED {
                    self.told.push(format!("request {id}, {}: {trouble}", kind.as_str()));
                }
            }
        }
    }
}

/// Requests are numbered through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers(Arc<AtomicU64>);

impl Numbers {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Sends requests up to number `end`, by so many `clients` at once, and closes their connections.
pub(crate) async fn send(
    address: SocketAddr,
    clients: usize,
    numbers: &Numbers,
    end: u64,
    rng: &mut fastrand::Rng,
) -> Tally {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (numbers, mut rng) = (numbers.clone(), rng.fork());
        tasks.spawn(async move {
            let (mut client, mut tally) = (Client::new(address), Tally::default());
            loop {
                let id = numbers.next();
                if id >= end {
                    return tally;
                }
                let kind = Kind::draw(&mut rng);
                let outcome = tokio::time::timeout(PATIENCE, perform(&mut client, id, kind, &mut rng)).await;
                tally.count(id, kind, outcome.unwrap_or(Err(Trouble::Hung)));
            }
        });
    }
    // Each has taken one number too many; the next round begins where this one was to end.
    let tally = collect(tasks).await;
    numbers.0.store(end, Ordering::Relaxed);
    tally
}

async fn collect(mut tasks: JoinSet<Tally>) -> Tally {
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(tally.unwrap_or_else(|error| Tally {
            failed: 1,
            told: vec![format!("a client: {error}")],
            ..Tally::default()
        }));
    }
    all
}

async fn perform(client: &mut Client, id: u64, kind: Kind, rng: &mut fastrand::Rng) -> Result<(), Trouble> {
    let millis = Duration::from_millis;
    let wish = |answer, delay| Wish { id, delay: millis(delay), answer };
    let document = |padding| Answer::Document { padding };
    let small = wish(document(256), 0);
    match kind {
        Kind::Plain => client.whole(&wish(document(rng.usize(0..2048)), 0)).await,
        Kind::Slow => client.whole(&wish(document(256), rng.u64(5..30))).await,
        Kind::OwnConnection => client.on_its_own(&small).await,
        Kind::Chunked => client.chunked(&small).await,
        Kind::LargeRequest => client.large(&small, rng.usize(64 << 10..1 << 20)).await,
        Kind::SlowReader => client.read_slowly(&wish(document(rng.usize(128 << 10..1 << 20)), 0)).await,
        Kind::Stream => {
            let pause = millis(if rng.u32(0..8) == 0 { 2 } else { 0 });
            client.whole(&wish(Answer::Stream { events: rng.usize(1..30), pause }, 0)).await
        }
        // After one event at least: a stream that breaks off before is asked for again.
        Kind::BrokenStream => client.broken(&wish(Answer::Broken { events: rng.usize(2..30) }, 0)).await,
        Kind::InvalidJson => client.refused(id).await,
        Kind::LeaveInBody => client.leave_in_body(&small).await,
        Kind::LeaveBeforeHead => {
            client.leave_before_head(&wish(document(256), 20), millis(rng.u64(0..10))).await
        }
        Kind::LeaveInStream => {
            client.leave_in_stream(&wish(Answer::Stream { events: 50, pause: millis(2) }, 0)).await
        }
    }
}
