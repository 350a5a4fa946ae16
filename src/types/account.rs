//! What providers count limits against.

use std::fmt;

use super::Fingerprint;

/// An organization, project or workspace: a hash of its name, so that no name is kept, logged or shown.
///
/// It tells accounts apart at one host: a relay may pass on the names of its own upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId {
    exactness: Exactness,
    name: Fingerprint,
}

/// How exact a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Exactness {
    /// An organization in the text of a refusal: it may be written otherwise than in headers.
    Mentioned,
    /// An organization, which may have several projects with limits of their own.
    Organization,
    /// A project.
    Project,
    /// What the configuration says.
    Declared,
}

/// No name of an account is longer.
const LONGEST_NAME: usize = 256;

impl AccountId {
    fn new(exactness: Exactness, kind: &str, name: &str) -> Option<Self> {
        let name = name.trim();
        let named = !name.is_empty() && name.len() <= LONGEST_NAME;
        named.then(|| Self { exactness, name: Fingerprint::of(&[kind.as_bytes(), name.as_bytes()]) })
    }

    /// The account that the configuration calls so. `None`: that is no name.
    #[must_use]
    pub fn declared(name: &str) -> Option<Self> {
        Self::new(Exactness::Declared, "declared", name)
    }

    /// The project of that name, at a provider of this kind.
    #[must_use]
    pub fn project(kind: &str, name: &str) -> Option<Self> {
        Self::new(Exactness::Project, kind, name)
    }

    /// The organization of that name, at a provider of this kind.
    #[must_use]
    pub fn organization(kind: &str, name: &str) -> Option<Self> {
        Self::new(Exactness::Organization, kind, name)
    }

    /// The organization that a refusal mentions.
    #[must_use]
    pub fn mentioned(name: &str) -> Option<Self> {
        Self::new(Exactness::Mentioned, "mentioned", name)
    }

    /// Whether it says less exactly than `other` which account is meant. OpenAI leaves the project out of some answers,
    /// and a key doesn't leave its project by that.
    #[must_use]
    pub fn is_coarser_than(&self, other: &Self) -> bool {
        self.exactness < other.exactness
    }

    /// Whether the configuration says so.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        self.exactness == Exactness::Declared
    }
}

impl fmt::Display for AccountId {
    /// Eight hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.to_hex().get(..8).unwrap_or_default())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountId({:?}, {self})", self.exactness)
    }
}
