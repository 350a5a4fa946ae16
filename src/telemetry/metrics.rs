//! Prometheus metrics. Labels come from closed sets: classes, endings, reasons, and the key ids of the configuration.

use std::{fmt, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::access::Ending;
use crate::{
    pool::{Snapshot, State},
    types::{Class, Cost, PoolName},
};

const META: Metadata<'static> = Metadata::new("key_cycle_proxy", Level::INFO, None);
/// Upper bounds in seconds, from a refusal of ours to a long completion.
const SECONDS: [f64; 14] =
    [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Kinds of tokens.
const TOKENS: [&str; 3] = ["input", "cached_input", "output"];

/// Why a request is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// Its key was limited or refused, or failed alone: another one, at once.
    Rotation,
    /// Its upstream failed: after a pause.
    Retry,
}

impl Retried {
    const ALL: [Self; 2] = [Self::Rotation, Self::Retry];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Rotation => "rotation",
            Self::Retry => "retry",
        }
    }
}

/// What became of a second attempt beside a first without a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedged {
    /// It brought the answer.
    Won,
    /// The first did after all.
    Lost,
    /// Neither did.
    Failed,
    /// There was none: no key was free.
    NoKey,
    /// There was none: so many have been made already.
    Budget,
}

impl Hedged {
    const ALL: [Self; 5] = [Self::Won, Self::Lost, Self::Failed, Self::NoKey, Self::Budget];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::NoKey => "no_key",
            Self::Budget => "budget",
        }
    }
}

/// The process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Connections of clients.
    pub connections: usize,
    /// Tasks of the runtime.
    pub tasks: usize,
    /// Whether it is ready for requests.
    pub ready: bool,
}

/// Handles to everything that is counted.
pub struct Metrics {
    recorder: PrometheusRecorder,
    /// Per class of status and ending.
    requests: Vec<Counter>,
    attempts: Vec<(Class, Counter)>,
    stream_errors: Vec<(Class, Counter)>,
    denied: Vec<(&'static str, Counter)>,
    /// In the order of [`Retried::ALL`].
    retries: [Counter; 2],
    /// In the order of [`Hedged::ALL`].
    hedges: [Counter; 5],
    received: Counter,
    waited: Histogram,
    first_byte: Histogram,
    duration: Histogram,
    bytes: Counter,
    /// In the order of [`Cost::SOURCES`], and in each of [`TOKENS`].
    tokens: [[Counter; 3]; 2],
    pub(super) in_flight: Gauge,
    waiting: Gauge,
    tunnels: Gauge,
    /// From clients, and to them.
    tunneled: [Counter; 2],
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every family. `denials` are the reasons for which a retry can be denied.
    #[must_use]
    pub fn new(denials: &[&'static str]) -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .expect("the bounds are not empty")
            .build_recorder();
        for (name, unit, help) in [
            ("key_cycle_requests_total", Unit::Count, "Requests that ended, by class of status and ending"),
            ("key_cycle_attempts_total", Unit::Count, "Upstream calls, by verdict"),
            (
                "key_cycle_stream_errors_total",
                Unit::Count,
                "Errors inside streams that had begun, by verdict",
            ),
            ("key_cycle_retries_total", Unit::Count, "Further upstream calls for a request, by kind"),
            ("key_cycle_retries_denied_total", Unit::Count, "Failures that were not tried again, by reason"),
            (
                "key_cycle_hedges_total",
                Unit::Count,
                "Requests whose head was late enough for a second attempt, by result",
            ),
            ("key_cycle_cooldowns_total", Unit::Count, "Rests that began, by reason"),
            (
                "key_cycle_breaker_openings_total",
                Unit::Count,
                "How often the breaker of a host opened, by trouble",
            ),
            ("key_cycle_request_bytes_total", Unit::Bytes, "Bytes of request bodies that were read"),
            ("key_cycle_answer_bytes_total", Unit::Bytes, "Bytes of answers sent to clients"),
            (
                "key_cycle_tokens_total",
                Unit::Count,
                "Tokens that answers have cost, by kind, as they say or as is estimated",
            ),
            ("key_cycle_key_attempts_total", Unit::Count, "Upstream calls per key"),
            ("key_cycle_tunnel_bytes_total", Unit::Bytes, "Bytes that went through tunnels, by direction"),
        ] {
            recorder.describe_counter(name.into(), Some(unit), help.into());
        }
        for (name, unit, help) in [
            ("key_cycle_requests_in_flight", Unit::Count, "Requests being served"),
            ("key_cycle_requests_waiting", Unit::Count, "Requests waiting for a key"),
            (
                "key_cycle_tunnels",
                Unit::Count,
                "Open connections on which WebSocket or another protocol is spoken",
            ),
            ("key_cycle_keys", Unit::Count, "Keys by state"),
            (
                "key_cycle_model_rests",
                Unit::Count,
                "Keys that rest for one model alone, per such model, by reason",
            ),
            ("key_cycle_key_health", Unit::Count, "Health of a key, 0 to 1"),
            ("key_cycle_key_in_flight", Unit::Count, "Requests that a key is serving"),
            ("key_cycle_key_late", Unit::Count, "1 while a key lets requests wait and others answer"),
            ("key_cycle_key_usable", Unit::Count, "1 while a key does not rest"),
            ("key_cycle_host_available", Unit::Count, "1 while requests are sent to a host"),
            ("key_cycle_connections", Unit::Count, "Connections of clients that are open"),
            ("key_cycle_tasks", Unit::Count, "Tasks of the runtime"),
            ("key_cycle_ready", Unit::Count, "1 while /readyz says so"),
            ("key_cycle_build_info", Unit::Count, "1, with the version"),
        ] {
            recorder.describe_gauge(name.into(), Some(unit), help.into());
        }
        for (name, help) in [
            ("key_cycle_first_byte_seconds", "From a request's head to its answer's head"),
            ("key_cycle_request_seconds", "From a request's head to its answer's end"),
            ("key_cycle_wait_seconds", "How long requests waited for a key that had to"),
        ] {
            recorder.describe_histogram(name.into(), Some(Unit::Seconds), help.into());
        }
        let counter = |name: &'static str, labels: Vec<(&'static str, &'static str)>| {
            recorder.register_counter(&key(name, labels), &META)
        };
        let requests = STATUS_CLASSES
            .iter()
            .flat_map(|status| Ending::ALL.map(|ending| (*status, ending)))
            .map(|(status, ending)| {
                counter("key_cycle_requests_total", vec![("status", status), ("ending", ending.as_str())])
            })
            .collect();
        let by_class =
            |name| Class::ALL.map(|class| (class, counter(name, vec![("verdict", class.as_str())]))).into();
        let denied = denials
            .iter()
            .map(|reason| (*reason, counter("key_cycle_retries_denied_total", vec![("reason", *reason)])))
            .collect();
        let retries =
            Retried::ALL.map(|kind| counter("key_cycle_retries_total", vec![("kind", kind.as_str())]));
        let hedges =
            Hedged::ALL.map(|result| counter("key_cycle_hedges_total", vec![("result", result.as_str())]));
        let tokens = Cost::SOURCES.map(|source| {
            TOKENS.map(|kind| counter("key_cycle_tokens_total", vec![("kind", kind), ("source", source)]))
        });
        let bytes = counter("key_cycle_answer_bytes_total", vec![]);
        let histogram = |name| recorder.register_histogram(&key(name, vec![]), &META);
        let gauge = |name| recorder.register_gauge(&key(name, vec![]), &META);
        Self {
            requests,
            attempts: by_class("key_cycle_attempts_total"),
            stream_errors: by_class("key_cycle_stream_errors_total"),
            denied,
            retries,
            hedges,
            received: counter("key_cycle_request_bytes_total", vec![]),
            waited: histogram("key_cycle_wait_seconds"),
            first_byte: histogram("key_cycle_first_byte_seconds"),
            duration: histogram("key_cycle_request_seconds"),
            bytes,
            tokens,
            in_flight: gauge("key_cycle_requests_in_flight"),
            waiting: gauge("key_cycle_requests_waiting"),
            tunnels: gauge("key_cycle_tunnels"),
            tunneled: ["up", "down"]
                .map(|way| counter("key_cycle_tunnel_bytes_total", vec![("direction", way)])),
            recorder,
        }
    }

    /// An upstream call was judged.
    pub fn attempt(&self, class: Class) {
        count(&self.attempts, class);
    }

    /// A stream that had begun reported an error.
    pub fn failed_inside(&self, class: Class) {
        count(&self.stream_errors, class);
    }

    /// A request is sent once more.
    pub fn retried(&self, kind: Retried) {
        self.retries[kind as usize].increment(1);
    }

    /// A head was late, and a second attempt came to this.
    pub fn hedged(&self, result: Hedged) {
        self.hedges[result as usize].increment(1);
    }

    /// A request had to wait so long for a key.
    pub fn waited(&self, time: Duration) {
        self.waited.record(time.as_secs_f64());
    }

    /// Another protocol is spoken on a connection.
    pub fn tunnel_opened(&self) {
        self.tunnels.increment(1.0);
    }

    /// No more.
    pub fn tunnel_closed(&self) {
        self.tunnels.decrement(1.0);
    }

    /// So many bytes of it went from a client, and to it.
    pub fn tunneled(&self, up: u64, down: u64) {
        self.tunneled[0].increment(up);
        self.tunneled[1].increment(down);
    }

    /// A failure was not tried again.
    pub fn retry_denied(&self, reason: &str) {
        if let Some((_, counter)) = self.denied.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }

    /// An answer has cost so much.
    pub(super) fn cost(&self, cost: &Cost) {
        let usage = cost.usage();
        let source = usize::from(matches!(cost, Cost::Estimated(_)));
        let counts = [usage.input, usage.cached_input, usage.output];
        for (counter, count) in self.tokens[source].iter().zip(counts) {
            counter.increment(count);
        }
    }

    pub(super) fn request_ended(
        &self,
        status: Option<u16>,
        ending: Ending,
        head: Option<Duration>,
        took: Duration,
        received: u64,
        sent: u64,
    ) {
        let class = status.map_or(0, |status| usize::from(status / 100).min(STATUS_CLASSES.len() - 1));
        let ending = Ending::ALL.iter().position(|known| *known == ending).unwrap_or_default();
        self.requests[class * Ending::ALL.len() + ending].increment(1);
        self.in_flight.decrement(1.0);
        if let Some(head) = head {
            self.first_byte.record(head.as_secs_f64());
        }
        self.duration.record(took.as_secs_f64());
        self.received.increment(received);
        self.bytes.increment(sent);
    }

    /// Everything as Prometheus text, with the pools and the process as they are now.
    #[must_use]
    pub fn render(&self, pools: &[(PoolName, Snapshot)], process: Process) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a gauge of fewer than 2^53")]
        let float = |count: usize| count as f64;
        let gauge = |name: &'static str, labels: Vec<Label>, value: f64| {
            self.recorder.register_gauge(&Key::from_parts(name, labels), &META).set(value);
        };
        self.waiting.set(float(pools.iter().map(|(_, snapshot)| snapshot.waiting).sum()));
        gauge("key_cycle_connections", vec![], float(process.connections));
        gauge("key_cycle_tasks", vec![], float(process.tasks));
        gauge("key_cycle_ready", vec![], f64::from(u8::from(process.ready)));
        gauge("key_cycle_build_info", vec![Label::new("version", env!("CARGO_PKG_VERSION"))], 1.0);
        for (pool, snapshot) in pools {
            self.show(pool, snapshot);
        }
        self.recorder.handle().render()
    }

    /// Sets what is told of one pool.
    fn show(&self, pool: &PoolName, snapshot: &Snapshot) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge of fewer than 2^53")]
        let float = |count: usize| count as f64;
        let gauge = |name: &'static str, labels: Vec<Label>, value: f64| {
            self.recorder.register_gauge(&Key::from_parts(name, labels), &META).set(value);
        };
        let pool = || Label::new("pool", pool.to_string());
        for state in State::NAMES {
            let count = snapshot.keys.iter().filter(|key| key.state.as_str() == state).count();
            gauge("key_cycle_keys", vec![pool(), Label::new("state", state)], float(count));
        }
        for (reason, count) in &snapshot.model_rests {
            let labels = vec![pool(), Label::new("reason", reason.as_str())];
            gauge("key_cycle_model_rests", labels, float(*count));
        }
        for (reason, count) in &snapshot.rests_begun {
            let rests = vec![pool(), Label::new("reason", reason.as_str())];
            let rests = Key::from_parts("key_cycle_cooldowns_total", rests);
            self.recorder.register_counter(&rests, &META).absolute(*count);
        }
        for key in &snapshot.keys {
            let labels = || {
                let label = key.key.settings().label.as_ref();
                let label = label.map(|label| Label::new("label", label.clone()));
                [pool(), Label::new("key", key.key.id().to_string())].into_iter().chain(label).collect()
            };
            gauge("key_cycle_key_health", labels(), key.health);
            gauge("key_cycle_key_in_flight", labels(), f64::from(key.in_flight));
            gauge("key_cycle_key_late", labels(), f64::from(u8::from(key.late)));
            gauge("key_cycle_key_usable", labels(), f64::from(u8::from(key.state == State::Ready)));
            let attempts = Key::from_parts("key_cycle_key_attempts_total", labels());
            self.recorder.register_counter(&attempts, &META).absolute(key.used);
        }
        for host in &snapshot.hosts {
            let labels = || vec![pool(), Label::new("host", host.origin.to_string())];
            gauge("key_cycle_host_available", labels(), f64::from(u8::from(host.open)));
            for (trouble, count) in &host.openings {
                let labels = [labels(), vec![Label::new("trouble", trouble.as_str())]].concat();
                let openings = Key::from_parts("key_cycle_breaker_openings_total", labels);
                self.recorder.register_counter(&openings, &META).absolute(*count);
            }
        }
    }

    /// Folds what was recorded into the histograms; without it they would keep each value until the next scrape.
    pub fn upkeep(&self) {
        self.recorder.handle().run_upkeep();
    }
}

fn count(by_class: &[(Class, Counter)], class: Class) {
    if let Some((_, counter)) = by_class.iter().find(|(known, _)| *known == class) {
        counter.increment(1);
    }
}

fn key(name: &'static str, labels: Vec<(&'static str, &'static str)>) -> Key {
    let labels: Vec<Label> = labels
        .into_iter()
        .map(|(name, value)| Label::new(SharedString::const_str(name), SharedString::const_str(value)))
        .collect();
    Key::from_parts(name, labels)
}
