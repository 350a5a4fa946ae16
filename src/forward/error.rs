//! Why a request got no answer from an upstream.

use std::time::Duration;

use super::{inbound::InboundError, naming::CannotRename, routes::Misrouted, target::BadTarget};
use crate::{clock::Now, pool::Causes};

/// What a client is told when there is no answer to give it.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No key is configured for the model.
    #[error("no key serves this model")]
    ModelNotFound {
        /// The model asked for; `None`: the request named none.
        model: Option<Box<str>>,
    },
    /// Keys are configured for the model, and none of them has access to it.
    #[error("no key has access to this model")]
    ModelUnavailable {
        /// The model asked for.
        model: Option<Box<str>>,
    },
    /// The target can't be sent on without changing it.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// No pool is there for the request.
    #[error(transparent)]
    Misrouted(Misrouted),
    /// Its model goes by another name upstream, and that can't be put into the request.
    #[error(transparent)]
    Rename(#[from] CannotRename),
    /// Its upstream failed, and it was to be served elsewhere.
    #[error("the upstream failed")]
    Elsewhere,
    /// The client has spoilt its own body while it was sent on.
    #[error(transparent)]
    Body(#[from] InboundError),
    /// None was free within the wait.
    #[error("all keys are cooling")]
    AllKeysCooling(Unavailable),
    /// Too many wait already.
    #[error("too many requests are waiting for a key")]
    TooManyWaiting(Unavailable),
    /// All are refused by their upstreams.
    #[error("no key is usable")]
    NoUsableKey(Unavailable),
    /// No key may use this kind of endpoint.
    #[error("no key has the permission")]
    NotPermitted {
        /// The first segment of the path.
        purpose: Box<str>,
    },
    /// No upstream could be reached.
    #[error("the upstream cannot be reached")]
    Unreachable(Unavailable),
    /// The connection broke before an answer came.
    #[error("the upstream broke the connection")]
    Broken,
    /// No answer in time.
    #[error("the upstream did not answer in time")]
    TimedOut,
}

impl ForwardError {
    /// Of two pools' refusals the one that a client is told: which makes it wait least, else the later one that is no
    /// matter of the configuration.
    pub(super) fn or_sooner(self, later: Self) -> Self {
        match (self.free_in(), later.free_in()) {
            (Some(one), Some(other)) if one < other => self,
            (_, Some(_)) => later,
            (Some(_), None) => self,
            (None, None) => match later {
                Self::ModelNotFound { .. } | Self::ModelUnavailable { .. } => self,
                later => later,
            },
        }
    }

    fn free_in(&self) -> Option<Duration> {
        match self {
            Self::AllKeysCooling(now) | Self::TooManyWaiting(now) | Self::Unreachable(now) => now.free_in,
            _ => None,
        }
    }
}

/// How things stand with the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// When it is worth asking again. `None`: unknown.
    pub free_in: Option<Duration>,
    /// What each key waits for.
    pub causes: Box<Causes>,
    /// When this was so.
    pub now: Now,
}
