//! What an answer tells beside its own matter: whom it counted against, and what is left there.

use std::time::SystemTime;

use http::HeaderMap;

use super::{account::account, headroom::announced};
use crate::types::{AccountId, Announced};

/// What an answer tells of the account of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Which account it counted against.
    pub account: Option<AccountId>,
    /// What is left of its limits.
    pub left: Announced,
}

/// Reads it from the headers, and of a refusal from its body too.
#[must_use]
pub fn told(headers: &HeaderMap, body: &[u8], wall: SystemTime) -> Told {
    Told { account: account(headers, body), left: announced(headers, wall) }
}
