//! One line per request, one per failed attempt. Key ids only.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, Method};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Metrics;
use crate::{
    clock::Clock,
    types::{Class, Cost, ErrorCode, KeyId, PoolName, Verdict},
};

/// The target of both: `RUST_LOG=key_cycle_proxy::proxy=debug`.
const TARGET: &str = "key_cycle_proxy::proxy";

/// As much of a path as is logged.
const LONGEST_PATH: usize = 512;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client got an answer to its end.
    Complete,
    /// The upstream broke off.
    Broken,
    /// The upstream fell silent.
    Silent,
    /// The upstream reported an error inside an answer that had begun well.
    Failed,
    /// The client went away.
    ClientLeft,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 5] = [Self::Complete, Self::Broken, Self::Silent, Self::Failed, Self::ClientLeft];

    /// The name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Failed => "failed",
            Self::ClientLeft => "client_left",
        }
    }
}

/// How a connection ended on which another protocol was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// As the protocol ends.
    Closed,
    /// The client went away.
    ClientLeft,
    /// The upstream went away.
    UpstreamLeft,
    /// Either sent a frame that is too large.
    FrameTooLarge,
    /// We stop.
    Shutdown,
}

impl TunnelEnd {
    /// The name in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientLeft => "client_left",
            Self::UpstreamLeft => "upstream_left",
            Self::FrameTooLarge => "frame_too_large",
            Self::Shutdown => "shutdown",
        }
    }

    /// The ending of its request.
    #[must_use]
    pub const fn ending(self) -> Ending {
        match self {
            Self::Closed | Self::FrameTooLarge | Self::Shutdown => Ending::Complete,
            Self::ClientLeft => Ending::ClientLeft,
            Self::UpstreamLeft => Ending::Broken,
        }
    }
}

/// What is remembered about a request until it ends. Logged and counted when dropped: once, however it ended.
#[derive(Debug)]
pub struct Access(Box<Line>);

#[derive(Debug)]
struct Line {
    metrics: Arc<Metrics>,
    clock: Clock,
    started: Instant,
    id: HeaderValue,
    method: Method,
    path: Box<str>,
    client: Option<IpAddr>,
    model: Option<Box<str>>,
    status: Option<u16>,
    code: Option<ErrorCode>,
    key: Option<KeyId>,
    attempts: u32,
    head: Option<Duration>,
    received: u64,
    /// What is received by now, of a body that comes while it is sent on.
    receiving: Option<Arc<AtomicU64>>,
    sent: u64,
    /// How it ended and what came from the client, where another protocol was spoken.
    tunnel: Option<(TunnelEnd, u64)>,
    ending: Ending,
    /// What the error inside the answer means.
    failure: Option<Class>,
    /// What it has cost, where that can be told.
    cost: Option<Box<Cost>>,
    /// Why it was which key, where the client is told; empty: not known yet.
    why: Option<Box<str>>,
    /// Cancelled when the time to finish requests is over.
    last_call: CancellationToken,
}

impl Line {
    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }
}

impl Access {
    /// A request that has just come. Its id is visible ASCII.
    #[must_use]
    pub fn begin(
        metrics: Arc<Metrics>,
        clock: Clock,
        id: HeaderValue,
        method: Method,
        path: &str,
        client: Option<IpAddr>,
        last_call: CancellationToken,
    ) -> Self {
        metrics.in_flight.increment(1.0);
        Self(Box::new(Line {
            metrics,
            clock,
            started: clock.mono(),
            id,
            method,
            path: Box::from(&path[..path.floor_char_boundary(LONGEST_PATH)]),
            client,
            model: None,
            status: None,
            code: None,
            key: None,
            attempts: 0,
            head: None,
            received: 0,
            receiving: None,
            sent: 0,
            tunnel: None,
            ending: Ending::ClientLeft,
            failure: None,
            cost: None,
            why: None,
            last_call,
        }))
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// It was read: the model it names, and the length of its body.
    pub fn read(&mut self, model: Option<&str>, length: usize) {
        self.0.model = model.map(Box::from);
        self.0.received = length as u64;
    }

    /// Its body goes on to come, and this counts it.
    pub fn reads_on(&mut self, counter: Arc<AtomicU64>) {
        self.0.receiving = Some(counter);
    }

    /// An attempt is made with this key.
    pub fn attempt(&mut self, key: &KeyId) {
        self.0.attempts += 1;
        self.0.key = Some(key.clone());
    }

    /// Of two attempts at once it is the one with this key that counts.
    pub fn is_answered_by(&mut self, key: &KeyId) {
        self.0.key = Some(key.clone());
    }

    /// The key of the last attempt, and how many there were.
    #[must_use]
    pub fn attempts(&self) -> (Option<&KeyId>, u32) {
        (self.0.key.as_ref(), self.0.attempts)
    }

    /// The client is to be told why it was which key.
    pub fn tell_why(&mut self) {
        self.0.why = Some(Box::default());
    }

    /// Whether it is.
    #[must_use]
    pub fn tells_why(&self) -> bool {
        self.0.why.is_some()
    }

    /// Why it was which key, if the client is told.
    pub fn say_why(&mut self, why: impl FnOnce() -> String) {
        if let Some(told) = &mut self.0.why {
            *told = why().into_boxed_str();
        }
    }

    /// Why it was which key, if the client is told and that is known.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.0.why.as_deref().filter(|why| !why.is_empty())
    }

    /// The head of the answer goes to the client.
    pub fn head(&mut self, status: u16) {
        let line = &mut self.0;
        line.status = Some(status);
        line.head = Some(line.clock.mono().saturating_duration_since(line.started));
    }

    /// The answer is one of our own, with this code.
    pub fn refused(&mut self, code: ErrorCode) {
        self.0.code = Some(code);
        self.head(code.status().as_u16());
        self.ended(Ending::Complete);
    }

    /// So many bytes of the answer go to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.0.sent += bytes as u64;
    }

    /// Another protocol was spoken, which ended so after so many bytes from the client and to it.
    pub fn tunneled(&mut self, end: TunnelEnd, up: u64, down: u64) {
        self.0.tunnel = Some((end, up));
        self.0.sent = down;
    }

    /// The answer that goes to the client tells of an error, though its status is good.
    pub fn failed(&mut self, verdict: &Verdict) {
        self.0.failure = Some(verdict.class);
        self.0.ending = Ending::Failed;
    }

    /// The same, of an answer whose attempt was counted as a success when it began.
    pub fn failed_inside(&mut self, verdict: &Verdict) {
        self.0.metrics.failed_inside(verdict.class);
        self.failed(verdict);
    }

    /// What the answer has cost.
    pub fn cost(&mut self, cost: Cost) {
        self.0.cost = Some(Box::new(cost));
    }

    /// How it ended; unsaid, the client left. After an error in the answer nothing else counts.
    pub fn ended(&mut self, ending: Ending) {
        if self.0.ending != Ending::Failed {
            self.0.ending = ending;
        }
    }

    /// Logs an attempt that was not delivered.
    pub fn failed_attempt(
        &self,
        pool: &PoolName,
        verdict: &Verdict,
        status: Option<u16>,
        took: Duration,
        next: &str,
    ) {
        self.log_failure(pool, self.0.key.as_ref(), verdict, status, took, next);
    }

    /// The same, of an attempt with `key` beside which there was another.
    pub fn failed_beside(
        &self,
        pool: &PoolName,
        key: &KeyId,
        verdict: &Verdict,
        status: Option<u16>,
        took: Duration,
    ) {
        self.log_failure(pool, Some(key), verdict, status, took, "the other of two");
    }

    fn log_failure(
        &self,
        pool: &PoolName,
        key: Option<&KeyId>,
        verdict: &Verdict,
        status: Option<u16>,
        took: Duration,
        next: &str,
    ) {
        let Line { attempts, model, .. } = &*self.0;
        debug!(
            target: TARGET,
            attempt = attempts,
            request.id = self.id(),
            %pool,
            key.id = key.map(KeyId::as_str),
            model = model.as_deref(),
            verdict = verdict.class.as_str(),
            status,
            duration_ms = took.as_secs_f64() * 1e3,
            next,
            "attempt failed"
        );
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.0.status.is_none() {
            // Whoever ends a request in one of these ways answers it so.
            if std::thread::panicking() {
                self.refused(ErrorCode::InternalError);
            } else if self.0.last_call.is_cancelled() {
                self.refused(ErrorCode::ShuttingDown);
            }
        }
        let line = &*self.0;
        let mut digits = [0; LONGEST_V4];
        let client = line.client.as_ref().map(|client| client_text(client, &mut digits));
        let took = line.clock.mono().saturating_duration_since(line.started);
        if let Some(cost) = &line.cost {
            line.metrics.cost(cost);
        }
        let receiving = line.receiving.as_ref().map(|counter| counter.load(Ordering::Relaxed));
        let received = receiving.unwrap_or(line.received);
        // What went through a tunnel has been counted as it went.
        let sent = if line.tunnel.is_some() { 0 } else { line.sent };
        line.metrics.request_ended(line.status, line.ending, line.head, took, received, sent);
        macro_rules! log {
            ($level:ident, $message:literal) => {
                $level!(
                    target: TARGET,
                    method = line.method.as_str(),
                    request.id = line.id(),
                    path = &*line.path,
                    client = client.as_deref(),
                    model = line.model.as_deref(),
                    status = line.status,
                    code = line.code.map(ErrorCode::as_str),
                    key.id = line.key.as_ref().map(KeyId::as_str),
                    attempts = line.attempts,
                    head_ms = line.head.map(|head| head.as_secs_f64() * 1e3),
                    duration_ms = took.as_secs_f64() * 1e3,
                    bytes = line.sent,
                    bytes_up = line.tunnel.map(|(_, up)| up),
                    tunnel = line.tunnel.map(|(end, _)| end.as_str()),
                    input_tokens = line.cost.as_ref().map(|cost| cost.usage().input),
                    cached_input_tokens = line.cost.as_ref().map(|cost| cost.usage().cached_input).filter(|cached| *cached > 0),
                    output_tokens = line.cost.as_ref().map(|cost| cost.usage().output),
                    tokens = line.cost.as_ref().map(|cost| cost.as_str()),
                    ending = line.ending.as_str(),
                    verdict = line.failure.map(Class::as_str),
                    $message
                )
            };
        }
        match line.ending {
            Ending::Broken | Ending::Silent => log!(warn, "answer broken off"),
            Ending::Failed => log!(warn, "answer failed"),
            Ending::Complete | Ending::ClientLeft => log!(info, "request"),
        }
    }
}

/// `255.255.255.255`.
const LONGEST_V4: usize = 15;

/// An address as text, without the formatter's ceremony for the usual kind: it stands in every line.
fn client_text<'d>(client: &IpAddr, digits: &'d mut [u8; LONGEST_V4]) -> Cow<'d, str> {
    let IpAddr::V4(client) = client else { return client.to_string().into() };
    let mut end = 0;
    let mut push = |byte| {
        digits[end] = byte;
        end += 1;
    };
    for (n, octet) in client.octets().into_iter().enumerate() {
        if n > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    String::from_utf8_lossy(&digits[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_library_writes_it() {
        for text in ["0.0.0.0", "127.0.0.1", "10.20.100.9", "255.255.255.255", "::1", "2001:db8::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(client_text(&address, &mut [0; LONGEST_V4]), text);
        }
    }
}
