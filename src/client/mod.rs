//! Who is calling us, and how often. Pure: the time is passed in.

mod limits;

use std::{net::IpAddr, sync::Mutex, time::Instant};

use limits::Limits;
pub use limits::{Limit, Limited};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

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

/// Everyone who may call us.
#[derive(Debug)]
pub struct Clients {
    /// Hashes of the client keys: of one length, so that comparing them tells nothing by its time.
    digests: Vec<[u8; 32]>,
    limits: Mutex<Limits>,
}

impl Clients {
    /// The clients that the settings name.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let digests = settings.keys.iter().map(|key| digest(key.expose().as_bytes())).collect();
        Self { digests, limits: Mutex::new(Limits::new(settings.global_rate, settings.per_client_rate)) }
    }

    /// Whether anyone is served.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether one of the credentials that a request presents is a client key. Takes the same time whichever it is.
    #[must_use]
    pub fn admits<'a>(&self, presented: impl Iterator<Item = &'a [u8]>) -> bool {
        self.is_open() || presented.fold(Choice::from(0), |known, one| known | self.knows(one)).into()
    }

    /// Whether a text is a client key.
    #[must_use]
    pub fn has(&self, text: &[u8]) -> bool {
        self.knows(text).into()
    }

    fn knows(&self, credential: &[u8]) -> Choice {
        let digest = digest(credential);
        self.digests.iter().fold(Choice::from(0), |known, client| known | digest.ct_eq(client))
    }

    /// Counts a request from `address`.
    ///
    /// # Errors
    /// [`Limited`] if a limit of ours is reached.
    pub fn count(&self, now: Instant, address: Option<IpAddr>) -> Result<(), Limited> {
        self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).count(now, address)
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(keys: &[&str]) -> Clients {
        let keys = keys.iter().map(|key| Secret::new(key).unwrap()).collect();
        Clients::new(&Settings { keys, ..Settings::default() })
    }

    #[test]
    fn without_client_keys_anyone_is_served() {
        assert!(clients(&[]).admits(std::iter::empty()));
    }

    #[test]
    fn any_of_the_presented_credentials_may_be_a_client_key() {
        let clients = clients(&["one", "two"]);
        assert!(clients.admits([&b"wrong"[..], b"two"].into_iter()));
        assert!(!clients.admits([&b"wrong"[..], b"tw", b"two "].into_iter()));
        assert!(!clients.admits(std::iter::empty()));
        assert!(clients.has(b"one") && !clients.has(b"on"));
    }
}
