//! Everything fixed about one upstream credential.

use std::num::{NonZeroU16, NonZeroU32};

use http::HeaderValue;

use super::{BaseUrl, Fingerprint, KeyId, KeyIdentity, ModelSet, PoolName, Secret};
use crate::rate::Rate;

/// One upstream credential and what it is for. What changes about it lives in the pool.
#[derive(Debug)]
pub struct Key {
    id: KeyId,
    identity: KeyIdentity,
    fingerprint: Fingerprint,
    secret: Secret,
    bearer: HeaderValue,
    plain: HeaderValue,
    settings: KeySettings,
}

/// What a key's entry in a file says beside the secret.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Where its API lives.
    pub base: BaseUrl,
    /// What it serves.
    pub models: ModelSet,
    /// A name for people.
    pub label: Option<String>,
    /// The account that its limits are counted against, where the configuration says so.
    pub account: Option<String>,
    /// Sent as `OpenAI-Organization` with this key.
    pub organization: Option<HeaderValue>,
    /// Sent as `OpenAI-Project` with this key.
    pub project: Option<HeaderValue>,
    /// Its tier: lower numbers serve first, and the others only what those can't take.
    pub priority: u8,
    /// Its share of the rotation, relative to those of the others in its tier.
    pub weight: NonZeroU16,
    /// How many requests a second it may be sent.
    pub rate: Option<Rate>,
    /// How many requests it may serve at once.
    pub max_in_flight: Option<NonZeroU32>,
    /// What stands before the credential in a header of its own.
    pub prefix: Box<str>,
}

impl KeySettings {
    /// A key at `base` that serves `others`, in the first tier, with weight 1 and no limits of its own.
    #[must_use]
    pub fn at(base: BaseUrl) -> Self {
        Self {
            base,
            models: ModelSet::others(),
            label: None,
            account: None,
            organization: None,
            project: None,
            priority: 0,
            weight: NonZeroU16::MIN,
            rate: None,
            max_in_flight: None,
            prefix: Box::default(),
        }
    }
}

impl Key {
    /// Makes the keys of one pool, with ids unique among them.
    #[must_use]
    pub fn pool(pool: &PoolName, entries: Vec<(Secret, KeySettings)>) -> Vec<Self> {
        let mut repeated = std::collections::HashMap::new();
        let identities: Vec<_> = entries
            .iter()
            .map(|(secret, settings)| {
                let ordinal = repeated.entry((secret.fingerprint(), settings.base.clone())).or_insert(0_u32);
                let identity = KeyIdentity::new(pool, &settings.base, secret, *ordinal);
                *ordinal += 1;
                identity
            })
            .collect();
        let ids = super::assign_ids(&identities);
        entries
            .into_iter()
            .zip(identities.into_iter().zip(ids))
            .map(|((secret, settings), (identity, id))| Self {
                id,
                identity,
                fingerprint: secret.fingerprint(),
                bearer: secret.header_value("Bearer "),
                plain: secret.header_value(&settings.prefix),
                secret,
                settings,
            })
            .collect()
    }

    /// How it is shown.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What it is.
    #[must_use]
    pub fn identity(&self) -> KeyIdentity {
        self.identity
    }

    /// What its credential is: equal for two keys with one secret, which share limits and faults.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The credential.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The credential as `Authorization: Bearer …` carries it, made once, marked sensitive.
    #[must_use]
    pub fn bearer(&self) -> &HeaderValue {
        &self.bearer
    }

    /// The credential as a header of its own carries it, behind its prefix if it has one; marked sensitive.
    #[must_use]
    pub fn plain(&self) -> &HeaderValue {
        &self.plain
    }

    /// Everything else its entry says.
    #[must_use]
    pub fn settings(&self) -> &KeySettings {
        &self.settings
    }
}

/// Two keys are the same when their identities are.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Key {}
