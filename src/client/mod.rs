//! Who is calling us, and how often.

use crate::{rate::Rate, types::Secret};

/// The keys that we issued, and the limits that are ours.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Client keys. None: anyone who reaches us is served.
    pub keys: Vec<Secret>,
    /// How many requests a second we take in all.
    pub global_rate: Option<Rate>,
    /// How many requests a second we take from one address.
    pub per_client_rate: Option<Rate>,
}
