//! What is sent, and what is made of the answers.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval_at},
};

use crate::{
    events::Numbers,
    support::{
        client::{Connection, Failure},
        now,
    },
    upstream,
};

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where requests go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The process that is measured, if one is.
    pub(crate) pid: Option<u32>,
}

impl Target {
    /// The upstream wants a key of its own. A proxy gets another, which must not come through.
    fn key(&self) -> String {
        if self.pid.is_some() { "sk-client".to_owned() } else { format!("{}client", upstream::KEY) }
    }

    fn request(&self, wanted: Wanted, padding: usize) -> Arc<[u8]> {
        let (answer, stream) = match wanted {
            Wanted::Document => ("document", false),
            Wanted::Events => ("events", true),
            Wanted::Silence => ("silence", true),
        };
        let image = "A".repeat(padding);
        let body = format!(
            "{{\"model\":\"gpt-4o-mini\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\
             \"Give me a short answer to a short question.{image}\"}}]}}"
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\naccept: */*\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n{}: {answer}\r\n\r\n",
            self.address,
            self.key(),
            body.len(),
            upstream::WANTED
        );
        (head + &body).into_bytes().into()
    }
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Document,
    Events,
    Silence,
}

/// What a load came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    /// From the sent request to the end of its answer, or of a stream to its first event.
    pub(crate) times: Vec<Duration>,
    pub(crate) took: Duration,
    /// Events of streams.
    pub(crate) numbers: Numbers,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.times.extend(other.times);
        self.numbers.add(&other.numbers);
    }

    fn failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }
}

/// One request on a connection of its own, to see whether anything is served.
pub(crate) async fn once(address: SocketAddr) -> Result<(), Failure> {
    let target = Target { address, pid: Some(0) };
    let mut connection = Connection::open(address).await?;
    exchange(&mut connection, &target.request(Wanted::Document, 0)).await
}

/// As many requests as `connections` can make one after the other.
pub(crate) async fn closed(target: Target, connections: usize, padding: usize, during: Duration) -> Tally {
    let request = target.request(Wanted::Document, padding);
    let start = now();
    let workers = (0..connections).map(|_| worker(target, Arc::clone(&request), start + during, None));
    gather(workers, start).await
}

/// Requests at a constant rate, however long the answers take. Each worker has its turn in a ring of `workers`
/// milliseconds, so that one is sent every millisecond.
pub(crate) async fn paced(target: Target, workers: u32, during: Duration) -> Tally {
    let request = target.request(Wanted::Document, 0);
    let start = now();
    let turn = Duration::from_millis(1);
    let workers = (0..workers).map(|number| {
        let first = start + turn * number;
        worker(target, Arc::clone(&request), start + during, Some((first, turn * workers)))
    });
    gather(workers, start).await
}

/// So many streams at once, begun a millisecond apart and read to the end.
pub(crate) async fn streams(target: Target, count: u32, events: usize) -> Tally {
    let request = target.request(Wanted::Events, 0);
    let start = now();
    let streams = (0..count).map(|number| {
        let (request, begin) = (Arc::clone(&request), start + Duration::from_millis(1) * number);
        async move {
            let stream = tokio::time::timeout(PATIENCE, stream(target, &request, begin, events)).await;
            stream.unwrap_or(Err(Failure::Cut)).unwrap_or_else(|_| Tally::failure())
        }
    });
    gather(streams, start).await
}

/// So many streams that have begun and then fall silent; they last as long as what is returned.
pub(crate) async fn silent_streams(target: Target, count: usize) -> Result<Vec<Connection>, Failure> {
    let request = target.request(Wanted::Silence, 0);
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(target.address).await?;
        connection.send(&request).await?;
        if connection.head().await? != 200 || connection.piece().await?.is_none() {
            return Err(Failure::Malformed);
        }
        open.push(connection);
    }
    Ok(open)
}

async fn gather<F>(parts: impl Iterator<Item = F>, start: Instant) -> Tally
where
    F: Future<Output = Tally> + Send + 'static,
{
    let mut tasks = parts.collect::<JoinSet<Tally>>();
    let mut all = Tally::default();
    while let Some(part) = tasks.join_next().await {
        all.add(part.unwrap_or_else(|_| Tally::failure()));
    }
    all.took = now().saturating_duration_since(start);
    all
}

/// Sends the same request again and again until `end`: at once after each answer, or with a `beat`.
async fn worker(
    target: Target,
    request: Arc<[u8]>,
    end: Instant,
    beat: Option<(Instant, Duration)>,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let mut beat = beat.map(|(first, every)| {
        let mut beat = interval_at(first.into(), every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat
    });
    loop {
        if let Some(beat) = &mut beat {
            beat.tick().await;
        }
        let sent = now();
        if sent >= end {
            return tally;
        }
        let answer = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(target.address).await?,
            };
            exchange(&mut open, &request).await?;
            Ok::<_, Failure>(open)
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(open)) => {
                tally.answered += 1;
                tally.times.push(now().saturating_duration_since(sent));
                connection = Some(open).filter(Connection::is_reusable);
            }
            _ => tally.failed += 1,
        }
    }
}

/// One request and its answer, which must be good and complete.
async fn exchange(connection: &mut Connection, request: &[u8]) -> Result<(), Failure> {
    connection.send(request).await?;
    let status = connection.head().await?;
    let mut length = 0;
    while let Some(piece) = connection.piece().await? {
        length += piece.len();
    }
    if status == 200 && length == upstream::COMPLETION.len() { Ok(()) } else { Err(Failure::Malformed) }
}

async fn stream(target: Target, request: &[u8], begin: Instant, events: usize) -> Result<Tally, Failure> {
    // Connecting is not what is measured.
    let mut connection = Connection::open(target.address).await?;
    tokio::time::sleep_until(begin.into()).await;
    let sent = now();
    connection.send(request).await?;
    if connection.head().await? != 200 {
        return Err(Failure::Malformed);
    }
    let mut tally = Tally::default();
    while let Some(piece) = connection.piece().await? {
        if tally.times.is_empty() {
            tally.times.push(now().saturating_duration_since(sent));
        }
        tally.numbers.read(piece);
    }
    tally.numbers.end(events);
    tally.answered = 1;
    Ok(tally)
}
