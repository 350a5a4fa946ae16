//! The vocabulary: nouns that every other part shares, with no behaviour beyond construction and display.

mod account;
mod base_url;
mod client;
mod error_code;
mod id;
mod key;
mod models;
mod secret;
mod verdict;

pub use account::AccountId;
pub use base_url::{BaseUrl, BaseUrlError, Origin};
pub use client::ClientId;
pub use error_code::ErrorCode;
pub use id::{KeyId, KeyIdentity, PoolName, assign_ids};
pub use key::{Key, KeySettings};
pub use models::ModelSet;
pub use secret::{Fingerprint, Secret, SecretError};
pub use verdict::{Class, Scope, Verdict};
