//! What a request's attempts have come to so far.

use std::{ops::Deref, sync::Arc};

use super::{Attempt, refusal::Refusal, transport::Fault};
use crate::{
    provider::{self, Told},
    types::{Class, Key, KeyIdentity, Origin, Verdict},
};

/// What an attempt came to that was not delivered at once.
pub(super) struct Missed {
    pub(super) key: Arc<Key>,
    pub(super) verdict: Verdict,
    /// What the answer tells of its account.
    pub(super) told: Told,
    pub(super) refusal: Option<Refusal>,
}

impl Attempt {
    /// Without a head, because of `fault`, or because none came in time.
    pub(super) fn without_answer(key: &Arc<Key>, fault: Option<&Fault>) -> Self {
        if let Some(fault) = fault {
            tracing::debug!(key.id = %key.id(), %fault, "no answer");
        }
        let verdict = provider::judge_fault(match fault {
            Some(Fault::Unreachable(_)) => provider::Fault::Connect,
            Some(Fault::Broken(_)) => provider::Fault::Broken,
            None => provider::Fault::HeadTimeout,
        });
        Self::Missed(Missed { key: Arc::clone(key), verdict, told: Told::default(), refusal: None })
    }
}

/// The attempts of a request that missed. Most requests have none, so nothing is held for them.
#[derive(Default)]
pub(super) struct Tries {
    tried: Option<Box<Tried>>,
    pub(super) last: Option<Box<Missed>>,
}

/// Keys and hosts that were tried in vain.
#[derive(Default)]
pub(super) struct Tried {
    /// The keys, in order.
    pub(super) keys: Vec<KeyIdentity>,
    /// Those of them that refused without naming a reason.
    pub(super) unknown: Vec<KeyIdentity>,
    /// Those that may not use this kind of endpoint.
    pub(super) denied: Vec<KeyIdentity>,
    pub(super) failed_hosts: Vec<Origin>,
    /// Hosts none of whose keys is worth another attempt.
    shunned: Vec<Origin>,
}

static NOTHING: Tried = Tried {
    keys: Vec::new(),
    unknown: Vec::new(),
    denied: Vec::new(),
    failed_hosts: Vec::new(),
    shunned: Vec::new(),
};

impl Deref for Tries {
    type Target = Tried;

    fn deref(&self) -> &Tried {
        self.tried.as_deref().unwrap_or(&NOTHING)
    }
}

impl Tries {
    pub(super) fn count(&mut self, key: &Key, verdict: &Verdict) {
        let tried = self.tried.get_or_insert_default();
        let identity = key.identity();
        tried.keys.push(identity);
        match verdict.class {
            Class::UnknownRefusal => tried.unknown.push(identity),
            Class::NotPermitted => tried.denied.push(identity),
            _ => {}
        }
        let host = key.settings().base.origin();
        if verdict.is_the_hosts() && !tried.failed_hosts.contains(host) {
            tried.failed_hosts.push(host.clone());
        }
    }

    /// No key at the host of this one is worth another attempt.
    pub(super) fn shun_host_of(&mut self, key: &Key) {
        self.tried.get_or_insert_default().shunned.push(key.settings().base.origin().clone());
    }
}

impl Tried {
    /// Whether every key so far refuses this request: waiting for one of them would be refused again.
    pub(super) fn all_refuse(&self) -> bool {
        !self.keys.is_empty() && self.unknown.len() + self.denied.len() == self.keys.len()
    }

    /// Whether nothing is to be expected of this key.
    pub(super) fn rules_out(&self, key: &Key) -> bool {
        self.shunned.contains(key.settings().base.origin()) || self.denied.contains(&key.identity())
    }
}
