//! Who is calling us, and how often. Pure: the time is passed in.

mod limits;

use std::{collections::hash_map::RandomState, net::IpAddr, sync::Mutex, time::Instant};

pub use limits::{Limit, Limited};
use limits::{Limits, household};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq};

use crate::{
    rate::Rate,
    types::{ClientId, Secret},
};

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

/// Why somebody may not call us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It presents no client key.
    #[error("no client key")]
    Unknown,
    /// It presents two credentials that differ.
    #[error("two credentials that differ")]
    TwoCredentials,
}

/// Everyone who may call us.
#[derive(Debug)]
pub struct Clients {
    /// Hashes of the client keys: of one length, so that comparing them tells nothing by its time.
    digests: Vec<[u8; 32]>,
    limits: Mutex<Limits>,
    /// Tells clients apart.
    seed: RandomState,
}

impl Clients {
    /// The clients that the settings name.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let digests = settings.keys.iter().map(|key| digest(key.expose().as_bytes())).collect();
        let limits = Mutex::new(Limits::new(settings.global_rate, settings.per_client_rate));
        Self { digests, limits, seed: RandomState::new() }
    }

    /// Whether anyone is served.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.digests.is_empty()
    }

    /// Who calls: whose key is the credential that a request presents, perhaps in several places; where no keys are
    /// issued, who is at that address. Takes the same time whichever key it is.
    ///
    /// # Errors
    /// [`Stranger`]: nobody who may.
    pub fn admit<T: AsRef<[u8]>>(
        &self,
        presented: impl Iterator<Item = T>,
        address: IpAddr,
    ) -> Result<ClientId, Stranger> {
        if self.is_open() {
            return Ok(ClientId::of(&self.seed, household(address)));
        }
        let mut number = 0;
        let mut first: Option<[u8; 32]> = None;
        for credential in presented {
            let digest = digest(credential.as_ref());
            // Whoever sends two means one of them, and we can't know which.
            if first.is_some_and(|first| !bool::from(first.ct_eq(&digest))) {
                return Err(Stranger::TwoCredentials);
            }
            first = Some(digest);
            for (known, at) in self.digests.iter().zip(1_u32..) {
                number.conditional_assign(&at, digest.ct_eq(known));
            }
        }
        if number > 0 { Ok(ClientId::of(&self.seed, number)) } else { Err(Stranger::Unknown) }
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
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn clients(keys: &[&str]) -> Clients {
        let keys = keys.iter().map(|key| Secret::new(key).unwrap()).collect();
        Clients::new(&Settings { keys, ..Settings::default() })
    }

    #[test]
    fn without_client_keys_anyone_is_served() {
        assert!(clients(&[]).admit(std::iter::empty::<&[u8]>(), HERE).is_ok());
    }

    #[test]
    fn one_credential_is_presented_wherever_it_stands() {
        let clients = clients(&["one", "two"]);
        let admit = |presented: &[&str]| clients.admit(presented.iter(), HERE).map(drop);
        assert_eq!(admit(&["two"]), Ok(()));
        assert_eq!(admit(&["two", "two"]), Ok(()));
        for both in [["one", "two"], ["wrong", "two"], ["two", "wrong"]] {
            assert_eq!(admit(&both), Err(Stranger::TwoCredentials));
        }
        for unknown in [&["tw"][..], &["two "], &[]] {
            assert_eq!(admit(unknown), Err(Stranger::Unknown));
        }
        assert!(clients.has(b"one") && !clients.has(b"on"));
    }
    #[test]
    fn a_client_is_its_key_or_where_there_are_none_its_address() {
        let elsewhere = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let clients = clients(&["one", "two"]);
        let who = |key: &'static [u8], address| clients.admit([key].into_iter(), address);
        assert_eq!(who(b"one", HERE), who(b"one", elsewhere(1)));
        assert_ne!(who(b"one", HERE), who(b"two", HERE));
        let open = Clients::new(&Settings::default());
        let who = |address| open.admit(std::iter::empty::<&[u8]>(), address);
        assert_eq!(who(elsewhere(1)), who(elsewhere(1)));
        assert_ne!(who(elsewhere(1)), who(elsewhere(2)));
        let v6 = |text: &str| who(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::2"), "one household");
    }
}
