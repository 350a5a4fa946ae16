//! What goes into a pool and what comes out of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{cooling::Reason, headroom::Charge, lateness::Part};
use crate::types::{Class, ClientId, Demand, Key, KeyIdentity, Origin, Scope, Verdict};

/// A request's place in the order of arrival, and whose it is; given by [`Pool::arrive`](super::Pool::arrive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arrival {
    pub(super) number: u64,
    pub(super) client: ClientId,
}

/// What a request wants a key for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// When it came.
    pub arrival: Arrival,
    /// The model it names.
    pub model: Option<&'a str>,
    /// The kind of endpoint, as permissions of keys know them: the first segment of the path.
    pub purpose: &'a str,
    /// Whether it asks for a stream, whose head comes before the work is done.
    pub stream: bool,
    /// Keys that were tried: taken again only when nothing else is free.
    pub tried: &'a [KeyIdentity],
    /// Hosts that failed it: taken again only when no other is free.
    pub failed_hosts: &'a [Origin],
    /// The tokens it will cost.
    pub demand: Demand,
}

impl Want<'_> {
    /// Whether it has had an attempt.
    pub(super) fn has_returned(&self) -> bool {
        !self.tried.is_empty()
    }
}

/// The right to use one key for one attempt. Give it back with [`Pool::settle`](super::Pool::settle), once.
#[must_use]
#[derive(Debug)]
pub struct Ticket {
    pub(super) id: u64,
    pub(super) slot: u32,
    /// The model set it was picked from.
    pub(super) set: u32,
    /// The account it counts against; its key may be known to be of another one later.
    pub(super) account: u32,
    pub(super) started: Instant,
    /// What it was charged of what its account has left for the model; `None` if nothing is known of that.
    pub(super) charge: Option<Charge>,
    /// Whether its head has come.
    pub(super) heard: bool,
    pub(super) part: Part,
    pub(super) probes: Probes,
}

/// What an attempt is the probe of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Probes {
    /// The key's rest.
    pub(super) key: bool,
    /// The key's, for the model.
    pub(super) member: bool,
    /// The account's.
    pub(super) account: bool,
    /// The account's, for the model.
    pub(super) limit: bool,
    /// The host's breaker.
    pub(super) host: bool,
}

impl Probes {
    /// Whether it is the probe of anybody's rest.
    pub(super) fn any_rest(self) -> bool {
        self.key || self.member || self.account || self.limit
    }
}

/// A key, and the right to use it.
#[must_use]
#[derive(Debug)]
pub struct Grant {
    /// The key.
    pub key: Arc<Key>,
    /// The right to use it once.
    pub ticket: Ticket,
}

/// What the pool is told of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It worked to its end.
    Good,
    /// An answer that says nothing against anybody.
    Harmless,
    /// The key must rest.
    Rest {
        /// Why.
        reason: Reason,
        /// Whose rest it is.
        of: Rests,
        /// How long the upstream asked for.
        named: Option<Duration>,
    },
    /// The key may not use this kind of endpoint.
    Denied,
    /// The host failed, or the key on it.
    Failed(Trouble),
    /// The host is overloaded or out of reach, or refuses our address; the key has no part in it.
    HostFailed(Trouble),
    /// Nobody waited for the answer.
    Abandoned,
    /// Nothing was sent.
    Unused,
}

/// In what way a host fails, or our way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It answers with server errors.
    ServerError,
    /// It says that it is overloaded.
    Overload,
    /// It can't be reached, falls silent, or breaks off.
    Transport,
    /// It refuses our address or country.
    Egress,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::ServerError, Self::Overload, Self::Transport, Self::Egress];

    /// The name in logs, metrics and health pages; a closed set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "server_error",
            Self::Overload => "overload",
            Self::Transport => "transport",
            Self::Egress => "egress",
        }
    }
}

/// Whose rest a refusal begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rests {
    /// The credential's, wherever it stands.
    Key,
    /// This entry's, for the request's model alone.
    KeyForModel,
    /// That of all keys of the account.
    Account,
    /// The same, for the request's model alone.
    AccountForModel,
}

impl Outcome {
    /// What a verdict means for the pool.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let rest = |reason| {
            let of = match verdict.scope {
                Scope::KeyModel => Rests::KeyForModel,
                Scope::Account => Rests::Account,
                Scope::AccountModel => Rests::AccountForModel,
                Scope::Client | Scope::Key | Scope::Host | Scope::Egress => Rests::Key,
            };
            Self::Rest { reason, of, named: verdict.wait }
        };
        match verdict.class {
            Class::Success => Self::Good,
            Class::ClientFault => Self::Harmless,
            Class::KeyRejected => rest(Reason::Rejected),
            Class::NotPermitted => Self::Denied,
            Class::UnknownRefusal => rest(Reason::Refused),
            Class::ModelUnavailable => rest(Reason::ModelUnavailable),
            Class::QuotaExhausted => rest(Reason::QuotaExhausted),
            Class::RateLimited => rest(Reason::RateLimited),
            Class::ServerError => Self::Failed(Trouble::ServerError),
            Class::TimedOut | Class::Broken => Self::Failed(Trouble::Transport),
            Class::Overloaded => Self::HostFailed(Trouble::Overload),
            Class::Unreachable => Self::HostFailed(Trouble::Transport),
            Class::EgressRefused => Self::HostFailed(Trouble::Egress),
        }
    }
}

/// Why no key could be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// What stands in the way.
    pub why: Why,
    /// When the first turn comes that is not promised to those who wait. `None`: unknown.
    pub free_at: Option<Instant>,
    /// Whether one may come sooner, when a full key or a trial gives its place back.
    pub sooner: bool,
}

/// What stands in the way of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No key is configured for the model.
    NoKeyForModel,
    /// Others came first.
    InLine,
    /// None is free now.
    NoneFree,
}

/// Something about a key or a host changed that an operator wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// A key went to rest.
    Resting {
        /// Which.
        key: Arc<Key>,
        /// The only model it rests for; `None`: all.
        model: Option<Box<str>>,
        /// Why.
        reason: Reason,
        /// Until when, unless a probe fails.
        until: Instant,
        /// How many other keys rest with it, since they are of the same account.
        with: usize,
    },
    /// A key is back.
    Recovered {
        /// Which.
        key: Arc<Key>,
    },
    /// A host's breaker opened.
    HostOpened {
        /// Which.
        host: Origin,
        /// Why.
        trouble: Trouble,
        /// Until when nothing is sent there.
        until: Instant,
    },
    /// A host's breaker closed.
    HostClosed {
        /// Which.
        host: Origin,
    },
}

/// What has to be done after a change.
#[must_use]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// What changed.
    pub transitions: Vec<Transition>,
    /// Who should ask again, for its wait may have become shorter.
    pub wake: Vec<Arrival>,
}
