//! How we are: for people and for orchestrators. Nothing in it comes from a key but its id and its label.

use std::time::Instant;

use serde::Serialize;

use super::Proxy;
use crate::{
    pool::{HostView, KeyView, Room, Snapshot, State, Trouble},
    types::PoolName,
};

/// Below this a key is not well, though it may serve.
const WELL: f64 = 0.75;

/// Why no requests should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unready {
    Draining,
    NoUsableKey,
}

impl Unready {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NoUsableKey => "no usable key",
        }
    }
}

/// Why no requests should be sent here. A key that only has to wait for its limit is usable: elsewhere it would have
/// to wait too.
pub(super) fn unready(proxy: &Proxy, pools: &[(PoolName, Snapshot)]) -> Option<Unready> {
    if proxy.is_stopping() {
        return Some(Unready::Draining);
    }
    let usable = pools.iter().any(|(_, snapshot)| snapshot.is_usable(proxy.now()));
    (!usable).then_some(Unready::NoUsableKey)
}

/// Everything at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: Status,
    version: &'static str,
    uptime_seconds: f64,
    draining: bool,
    requests_waiting: usize,
    pools: Vec<PoolHealth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Every key and every upstream is well.
    Ok,
    /// Some are not.
    Degraded,
    /// No request can be served now.
    Down,
}

#[derive(Debug, Serialize)]
struct PoolHealth {
    name: String,
    hosts: Vec<HostHealth>,
    keys: Vec<KeyHealth>,
}

#[derive(Debug, Serialize)]
struct HostHealth {
    host: String,
    available: bool,
    /// Why it is not available.
    trouble: Option<&'static str>,
    breaker_openings: u64,
}

#[derive(Debug, Serialize)]
struct KeyHealth {
    id: String,
    label: Option<String>,
    /// Keys with the same share their limits. The declared name, or a hash of the one that an answer told.
    account: Option<String>,
    host: String,
    state: &'static str,
    /// How long it rests yet.
    cooldown_seconds: Option<f64>,
    health: f64,
    in_flight: u32,
    attempts: u64,
    /// Rests for single models.
    models: Vec<ModelHealth>,
    /// What its account has left for single models, as answers announced, less what has gone out since.
    headroom: Vec<Headroom>,
    last_error: Option<ErrorHealth>,
    /// Whether it lets requests wait while others answer.
    late: bool,
    /// When it was last sent on trial.
    last_recheck_age_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ModelHealth {
    model: String,
    state: &'static str,
    cooldown_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Headroom {
    model: String,
    requests: Option<RoomHealth>,
    tokens: Option<RoomHealth>,
}

#[derive(Debug, Serialize)]
struct RoomHealth {
    left: f64,
    limit: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ErrorHealth {
    class: &'static str,
    age_seconds: f64,
}

impl Health {
    pub(super) fn of(proxy: &Proxy) -> Self {
        let now = proxy.now();
        let pools = proxy.snapshots();
        Self {
            status: Status::of(&pools),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: seconds(proxy.started(), now),
            draining: proxy.is_stopping(),
            requests_waiting: pools.iter().map(|(_, snapshot)| snapshot.waiting).sum(),
            pools: pools
                .iter()
                .map(|(name, snapshot)| PoolHealth {
                    name: name.to_string(),
                    hosts: snapshot.hosts.iter().map(HostHealth::of).collect(),
                    keys: snapshot.keys.iter().map(|key| KeyHealth::of(key, now)).collect(),
                })
                .collect(),
        }
    }
}

impl Status {
    fn of(pools: &[(PoolName, Snapshot)]) -> Self {
        let is_open = |snapshot: &Snapshot, key: &KeyView| {
            let host = key.key.settings().base.origin();
            snapshot.hosts.iter().any(|view| view.origin == *host && view.open)
        };
        let keys =
            || pools.iter().flat_map(|(_, snapshot)| snapshot.keys.iter().map(move |key| (snapshot, key)));
        let serves =
            |(snapshot, key): (&Snapshot, &KeyView)| key.state == State::Ready && is_open(snapshot, key);
        let is_well = |(snapshot, key): (&Snapshot, &KeyView)| {
            serves((snapshot, key)) && key.health >= WELL && key.model_rests.is_empty()
        };
        if !keys().any(serves) {
            Self::Down
        } else if keys().all(is_well) {
            Self::Ok
        } else {
            Self::Degraded
        }
    }
}

impl HostHealth {
    fn of(host: &HostView) -> Self {
        Self {
            host: host.origin.to_string(),
            available: host.open,
            trouble: host.trouble.map(Trouble::as_str),
            breaker_openings: host.openings.iter().map(|(_, count)| count).sum(),
        }
    }
}

impl KeyHealth {
    fn of(view: &KeyView, now: Instant) -> Self {
        let settings = view.key.settings();
        let left = |until: Instant| seconds(now, until);
        Self {
            id: view.key.id().to_string(),
            label: settings.label.clone(),
            account: view.account.map(|id| {
                let declared = settings.account.clone().filter(|_| id.is_declared());
                declared.unwrap_or_else(|| id.to_string())
            }),
            host: settings.base.origin().to_string(),
            state: view.state.as_str(),
            cooldown_seconds: match view.state {
                State::Ready => None,
                State::Resting(_, until) => Some(left(until)),
            },
            health: view.health,
            in_flight: view.in_flight,
            attempts: view.used,
            models: view
                .model_rests
                .iter()
                .map(|rest| ModelHealth {
                    model: rest.model.to_string(),
                    state: rest.reason.as_str(),
                    cooldown_seconds: left(rest.until),
                })
                .collect(),
            headroom: view
                .rooms
                .iter()
                .map(|room| Headroom {
                    model: room.model.to_string(),
                    requests: room.requests.map(RoomHealth::of),
                    tokens: room.tokens.map(RoomHealth::of),
                })
                .collect(),
            last_error: view
                .last_error
                .map(|(class, at)| ErrorHealth { class: class.as_str(), age_seconds: seconds(at, now) }),
            late: view.late,
            last_recheck_age_seconds: view.last_trial.map(|at| seconds(at, now)),
        }
    }
}

impl RoomHealth {
    fn of(room: Room) -> Self {
        // What was given out beyond the limit is nothing that is left.
        Self { left: room.left.max(0.0).floor(), limit: room.limit }
    }
}

/// From one moment to another, to the millisecond; 0 if it is over.
fn seconds(from: Instant, to: Instant) -> f64 {
    let millis = to.saturating_duration_since(from).as_millis();
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 milliseconds")]
    let millis = millis as f64;
    millis / 1e3
}
