//! What is measured of one contender in one round, and what remains of all rounds.

use std::time::Duration;

use crate::{
    load::{self, Tally, Target},
    support::{Result, proc},
};

/// Connections that send small requests.
const CONNECTIONS: usize = 32;
/// Connections that send large ones.
const LARGE_CONNECTIONS: usize = 8;
const LARGE: usize = 1 << 20;
/// Workers of the load with a constant rate of 1,000 requests a second.
const PACED_WORKERS: u32 = 32;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rounds: usize,
    /// How long each load but the streams lasts.
    pub(crate) during: Duration,
    pub(crate) streams: u32,
    pub(crate) events: usize,
    pub(crate) silent_streams: usize,
}

/// One round of one contender, or the medians of several. `None`: cannot be measured here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) per_second: Option<f64>,
    pub(crate) cpu_us: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) first_event_ms: Option<f64>,
    pub(crate) cpu_us_per_event: Option<f64>,
    pub(crate) large_cpu_us: Option<f64>,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    pub(crate) failed: usize,
}

/// The memory of one contender.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) idle_kib: Option<f64>,
    pub(crate) per_stream_kib: Option<f64>,
}

/// Sends a little of everything, so that connections are there and code is warm. Returns how much of it failed.
pub(crate) async fn warm_up(target: Target, size: Size) -> usize {
    let small = load::closed(target, CONNECTIONS, 0, size.during / 4).await;
    let large = load::closed(target, LARGE_CONNECTIONS, LARGE, size.during / 8).await;
    small.failed + large.failed
}

pub(crate) async fn round(target: Target, size: Size) -> Figures {
    let (small, small_cpu) = with_cpu(target, load::closed(target, CONNECTIONS, 0, size.during)).await;
    let paced = load::paced(target, PACED_WORKERS, size.during).await;
    let (streams, stream_cpu) = with_cpu(target, load::streams(target, size.streams, size.events)).await;
    let (large, large_cpu) =
        with_cpu(target, load::closed(target, LARGE_CONNECTIONS, LARGE, size.during)).await;
    let failed = [&small, &paced, &streams, &large].map(|tally| tally.failed).into_iter().sum();
    Figures {
        per_second: Some(small.answered as f64 / small.took.as_secs_f64()),
        cpu_us: per(small_cpu, small.answered),
        p50_ms: percentile(&paced.times, 0.50),
        p99_ms: percentile(&paced.times, 0.99),
        first_event_ms: percentile(&streams.times, 0.50),
        cpu_us_per_event: per(stream_cpu, streams.numbers.seen),
        large_cpu_us: per(large_cpu, large.answered),
        lost: streams.numbers.lost,
        repeated: streams.numbers.repeated,
        failed,
    }
}

/// The memory of a process that has just been started: after one request, and what open streams add.
pub(crate) async fn memory(target: Target, size: Size) -> Result<Memory> {
    let Some(pid) = target.pid else { return Ok(Memory::default()) };
    load::once(target.address).await?;
    let idle = proc::rss_kib(pid).map(|kib| kib as f64);
    let open = load::silent_streams(target, size.silent_streams).await?;
    let loaded = proc::rss_kib(pid).map(|kib| kib as f64);
    let added = loaded.zip(idle).map(|(loaded, idle)| loaded - idle);
    Ok(Memory { idle_kib: idle, per_stream_kib: added.map(|kib| kib / open.len() as f64) })
}

/// The median of each figure; failures add up. The system counts processor time in ticks, of which the streams of one
/// round take too few: theirs is the mean.
pub(crate) fn summary(rounds: &[Figures]) -> Figures {
    let middle = |figure: fn(&Figures) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
    let sum = |count: fn(&Figures) -> usize| rounds.iter().map(count).sum();
    Figures {
        per_second: middle(|round| round.per_second),
        cpu_us: middle(|round| round.cpu_us),
        p50_ms: middle(|round| round.p50_ms),
        p99_ms: middle(|round| round.p99_ms),
        first_event_ms: middle(|round| round.first_event_ms),
        cpu_us_per_event: mean(rounds.iter().filter_map(|round| round.cpu_us_per_event)),
        large_cpu_us: middle(|round| round.large_cpu_us),
        lost: sum(|round| round.lost),
        repeated: sum(|round| round.repeated),
        failed: sum(|round| round.failed),
    }
}

async fn with_cpu(target: Target, load: impl Future<Output = Tally>) -> (Tally, Option<Duration>) {
    let used = || target.pid.and_then(proc::cpu);
    let before = used();
    let tally = load.await;
    (tally, used().zip(before).map(|(after, before)| after.saturating_sub(before)))
}

/// Microseconds each.
fn per(time: Option<Duration>, count: usize) -> Option<f64> {
    (count > 0).then_some(time?.as_secs_f64() * 1e6 / count as f64)
}

fn percentile(times: &[Duration], part: f64) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    Some(sorted.get(rank)?.as_secs_f64() * 1e3)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}
