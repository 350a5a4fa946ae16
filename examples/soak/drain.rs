//! The stop under load: what was accepted is finished.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet};

use crate::{
    client::{Client, Trouble},
    support::{Result, client::Failure, daemon::Daemon, now},
    traffic::Numbers,
    upstream::Upstream,
    wish::{Answer, Wish},
};

/// How many answers there are before the signal.
const BEFORE: usize = 300;
/// The daemon's own time to finish requests, unless its configuration says otherwise.
const DRAIN: Duration = Duration::from_secs(10);
/// Between an answer and the next request.
const THOUGHT: Duration = Duration::from_millis(5);
/// What it may take beyond that to end.
const MARGIN: Duration = Duration::from_secs(3);

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Stopped {
    pub(crate) answered: usize,
    /// Requests that were written to a connection that closed before they were read.
    pub(crate) turned_away: usize,
    pub(crate) failures: Vec<String>,
    /// Over the daemon's whole life.
    pub(crate) panics: usize,
    pub(crate) took: Duration,
    pub(crate) ending: String,
}

/// Puts load on the daemon, asks it to stop, and waits until it has.
pub(crate) async fn stop(
    mut daemon: Daemon,
    upstream: &Upstream,
    clients: usize,
    numbers: &Numbers,
    rng: &mut fastrand::Rng,
) -> Result<Stopped> {
    upstream.note_requests();
    let answered = Arc::new(Answered::default());
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (numbers, rng, answered) = (numbers.clone(), rng.fork(), Arc::clone(&answered));
        tasks.spawn(client(daemon.address, numbers, rng, answered));
    }
    let mut stopped = Stopped::default();
    tokio::select! {
        () = answered.enough.notified() => {}
        Some(client) = tasks.join_next() => {
            let (id, trouble) = client?;
            stopped.failures.push(format!("request {id}, before SIGTERM: {trouble}"));
        }
    }
    daemon.process.terminate().await?;
    let asked = now();
    let ended = tokio::time::timeout(DRAIN + MARGIN, daemon.process.ended()).await;
    stopped.took = now().saturating_duration_since(asked);
    match ended {
        Ok(status) => {
            let status = status?;
            stopped.ending = status.to_string();
            if !status.success() {
                stopped.failures.push(format!("the daemon ended with {status}:\n{}", daemon.last_words()));
            }
        }
        Err(_) => {
            stopped.ending = "still running".to_owned();
            stopped.failures.push(format!("the daemon runs {} s after SIGTERM", stopped.took.as_secs()));
            daemon.process.stop().await?;
        }
    }
    stopped.panics = daemon.panics();
    while let Some(client) = tasks.join_next().await {
        let (id, trouble) = client?;
        match trouble {
            Trouble::Failure(Failure::Connect) => {}
            Trouble::Failure(Failure::Unanswered) if !upstream.has_seen(id) => stopped.turned_away += 1,
            trouble => stopped.failures.push(format!("request {id}: {trouble}")),
        }
    }
    stopped.answered = answered.count.load(Ordering::Relaxed);
    Ok(stopped)
}

#[derive(Debug, Default)]
struct Answered {
    count: AtomicUsize,
    enough: Notify,
}

/// Asks on and on; returns the request that was not answered, and why.
async fn client(
    address: SocketAddr,
    numbers: Numbers,
    mut rng: fastrand::Rng,
    answered: Arc<Answered>,
) -> (u64, Trouble) {
    let mut client = Client::new(address);
    loop {
        let millis = Duration::from_millis;
        // Long streams among short documents, so that the signal meets all of it half done.
        let answer = if rng.u32(0..4) == 0 {
            Answer::Stream { events: 20, pause: millis(rng.u64(20..100)) }
        } else {
            Answer::Document { padding: 256 }
        };
        let wish = Wish { id: numbers.next(), delay: millis(rng.u64(0..100)), answer };
        if let Err(trouble) = client.whole(&wish).await {
            return (wish.id, trouble);
        }
        if answered.count.fetch_add(1, Ordering::Relaxed) + 1 == BEFORE {
            answered.enough.notify_one();
        }
        // A stream's head may have promised a connection that a stop then closes.
        client.pause(THOUGHT).await;
    }
}
