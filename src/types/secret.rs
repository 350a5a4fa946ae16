//! Credentials that cannot be printed.

use std::fmt;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A credential: an upstream key or a client key.
///
/// It has no `Display`, no `Serialize` and no `Deref`, its `Debug` shows nothing of it, and its memory is wiped
/// when it goes. [`Secret::expose`] is the one way to the text; grep for it in review.
#[derive(Clone)]
pub struct Secret(SecretString);

/// Why a text cannot be a credential. Never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing but white space.
    #[error("the key is empty")]
    Empty,
    /// White space or a control or non-ASCII character inside: no HTTP header could carry it.
    #[error("the key contains white space, a control character or a character outside ASCII")]
    Unsendable,
}

impl Secret {
    /// Takes a credential; white space around it is dropped.
    ///
    /// # Errors
    /// [`SecretError`] if it is empty or could not travel in a header.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SecretError::Unsendable);
        }
        Ok(Self(SecretString::from(text)))
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A hash that tells credentials apart and gives nothing away.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&[b"secret", self.expose().as_bytes()])
    }

    /// A header value of `prefix` and the credential, marked sensitive.
    #[must_use]
    pub fn header_value(&self, prefix: &str) -> HeaderValue {
        let text = secrecy::zeroize::Zeroizing::new(format!("{prefix}{}", self.expose()));
        let mut value = HeaderValue::from_str(&text).expect("`new` admits only visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The first 128 bits of a SHA-256 over length-prefixed parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Hashes `parts`; each is prefixed by its length, so that ("ab", "c") and ("a", "bc") differ.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(bytes)
    }

    /// All 32 hex digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(32), |mut text, byte| {
            use fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", &self.to_hex()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let secret = Secret::new("  sk-canary-123 \n").unwrap();
        assert_eq!(secret.expose(), "sk-canary-123");
        assert!(!format!("{secret:?}").contains("canary"));
        assert!(!format!("{:?}", secret.header_value("Bearer ")).contains("canary"));
    }

    #[test]
    fn what_no_header_can_carry_is_no_secret() {
        assert_eq!(Secret::new(" \t").unwrap_err(), SecretError::Empty);
        for bad in ["sk-a b", "sk-\u{7f}", "sk-é", "sk-a\nb"] {
            assert_eq!(Secret::new(bad).unwrap_err(), SecretError::Unsendable, "{bad:?}");
        }
    }

    #[test]
    fn fingerprints_keep_parts_apart() {
        assert_ne!(Fingerprint::of(&[b"ab", b"c"]), Fingerprint::of(&[b"a", b"bc"]));
    }
}
