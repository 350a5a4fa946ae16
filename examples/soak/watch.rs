//! What the daemon holds while nothing is under way.

use std::time::Duration;

use crate::support::{Result, daemon::Daemon, now, proc};

/// How long the last requests' traces may take to vanish.
const PATIENCE: Duration = Duration::from_secs(10);
/// Neither the metrics nor the system tell of a change.
const GLANCE: Duration = Duration::from_millis(20);

/// The daemon at one moment. `None`: not known on this system, or to this version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) at: String,
    pub(crate) rss_kib: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) in_flight: u64,
    pub(crate) waiting: u64,
    /// Over all keys.
    pub(crate) key_in_flight: u64,
    pub(crate) tasks: Option<u64>,
}

impl Sample {
    /// The daemon as it is now.
    pub(crate) async fn take(daemon: &Daemon, at: &str) -> Result<Self> {
        let pid = daemon.process.pid();
        // Before the metrics are asked for, which takes a connection.
        let (rss_kib, descriptors, threads) =
            (proc::rss_kib(pid), proc::descriptors(pid), proc::threads(pid));
        let metrics = daemon.metrics().await?;
        let gauge = |name| sum(&metrics, name);
        Ok(Self {
            at: at.to_owned(),
            rss_kib,
            descriptors,
            threads,
            in_flight: gauge("key_cycle_requests_in_flight").ok_or("no requests in flight in the metrics")?,
            waiting: gauge("key_cycle_requests_waiting").ok_or("no requests waiting in the metrics")?,
            key_in_flight: gauge("key_cycle_key_in_flight").ok_or("no keys in the metrics")?,
            tasks: gauge("key_cycle_tasks"),
        })
    }

    /// The daemon when it `has_settled`, or when it has had the time to.
    pub(crate) async fn when(daemon: &Daemon, at: &str, has_settled: impl Fn(&Self) -> bool) -> Result<Self> {
        let until = now() + PATIENCE;
        loop {
            let sample = Self::take(daemon, at).await?;
            if has_settled(&sample) || now() >= until {
                return Ok(sample);
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        (self.in_flight, self.waiting, self.key_in_flight) == (0, 0, 0)
    }

    pub(crate) fn holds_more_than(&self, before: &Self) -> bool {
        self.descriptors > before.descriptors || self.tasks > before.tasks
    }
}

/// The values of a family, added up; `None` if it is not there.
fn sum(metrics: &str, family: &str) -> Option<u64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(family)?;
        let value = rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next())??;
        // A gauge that fell below zero must not pass for zero.
        value.parse::<f64>().ok().map(|value| value.abs() as u64)
    });
    values.reduce(|sum, value| sum + value)
}

/// All of them, one a line.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut text = "| | RSS, KiB | descriptors | threads | in flight | waiting | keys in flight | tasks |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for sample in samples {
        let or = |value: Option<u64>| value.map_or_else(|| "n/a".to_owned(), |value| value.to_string());
        let Sample { at, in_flight, waiting, key_in_flight, .. } = sample;
        text += &format!(
            "| {at} | {} | {} | {} | {in_flight} | {waiting} | {key_in_flight} | {} |\n",
            or(sample.rss_kib),
            or(sample.descriptors),
            or(sample.threads),
            or(sample.tasks)
        );
    }
    text
}
