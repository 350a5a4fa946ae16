//! The vocabulary: nouns that every other part shares, with no behaviour beyond construction and display.

mod account;
mod base_url;
mod client;
mod demand;
mod dialect;
mod error_code;
mod headroom;
mod id;
mod key;
mod models;
mod secret;
mod usage;
mod verdict;

pub use account::AccountId;
pub(crate) use base_url::is_version;
pub use base_url::{BaseUrl, BaseUrlError, Origin};
pub use client::ClientId;
pub use demand::Demand;
pub use dialect::{Dialect, UnknownDialect};
pub use error_code::ErrorCode;
pub use headroom::{Allowance, Announced, Refill};
pub use id::{KeyId, KeyIdentity, PoolName, assign_ids};
pub use key::{Key, KeySettings};
pub use models::ModelSet;
pub use secret::{Fingerprint, Secret, SecretError};
pub use usage::{Cost, Usage};
pub use verdict::{Class, Scope, Verdict};
