//! Names that are safe to log.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{BaseUrl, Fingerprint, Secret};

/// The name of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolName(Arc<str>);

impl PoolName {
    /// The name of the pool that answers `/v1/*`.
    pub const DEFAULT: &'static str = "default";

    /// A pool's name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for PoolName {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key *is*: a 128-bit hash of its pool, base URL, secret, and which repetition of these it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyIdentity(Fingerprint);

impl KeyIdentity {
    /// The identity of the `ordinal`-th key of `pool` with this base URL and secret.
    #[must_use]
    pub fn new(pool: &PoolName, base: &BaseUrl, secret: &Secret, ordinal: u32) -> Self {
        Self(Fingerprint::of(&[
            b"key",
            pool.0.as_bytes(),
            base.as_str().as_bytes(),
            secret.expose().as_bytes(),
            &ordinal.to_be_bytes(),
        ]))
    }
}

/// How a key is shown everywhere: the first hex digits of its identity, at least eight, as many as make it unique.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    const SHORTEST: usize = 8;

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

/// Gives each identity its key id, in the order given: the shortest prefix, from eight digits on, that no other shares.
#[must_use]
pub fn assign_ids(identities: &[KeyIdentity]) -> Vec<KeyId> {
    let digits: Vec<String> = identities.iter().map(|identity| identity.0.to_hex()).collect();
    let mut length = vec![KeyId::SHORTEST; digits.len()];
    loop {
        let mut seen: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, text) in digits.iter().enumerate() {
            seen.entry(&text[..length[index]]).or_default().push(index);
        }
        let mut grew = false;
        for same in seen.values().filter(|same| same.len() > 1) {
            for &index in same {
                if length[index] < digits[index].len() {
                    length[index] += 1;
                    grew = true;
                }
            }
        }
        if !grew {
            return digits.iter().zip(length).map(|(text, n)| KeyId(Arc::from(&text[..n]))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(secret: &str, ordinal: u32) -> KeyIdentity {
        let base = BaseUrl::parse("https://api.openai.com").unwrap();
        KeyIdentity::new(&PoolName::default(), &base, &Secret::new(secret).unwrap(), ordinal)
    }

    #[test]
    fn ids_are_eight_digits_and_unique() {
        let identities: Vec<_> = (0..2000).map(|n| identity(&format!("sk-{n}"), 0)).collect();
        let ids = assign_ids(&identities);
        assert!(ids.iter().all(|id| id.as_str().len() >= 8));
        let unique: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn the_ordinal_tells_repetitions_apart() {
        assert_ne!(identity("sk-a", 0), identity("sk-a", 1));
    }
}
