//! How the upstreams of a pool are spoken to: where a request goes below a key's base, and where the credential stands.
//!
//! A pool has one dialect, and may speak others at the same host: most providers have an OpenAI-compatible base. A
//! request is never translated: it is sent in the dialect that it came in, to the base that speaks it.

use std::collections::HashMap;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT_ENCODING, AUTHORIZATION},
    uri::PathAndQuery,
};
use percent_encoding::utf8_percent_encode;

use super::{
    target::{BadTarget, ENCODED, Parameter, Place, Target, check_path},
    transport::Needles,
};
use crate::types::{Dialect, Key, Secret};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Where a credential stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A header of its own, behind the key's prefix if it has one.
    Header(HeaderName),
    /// A parameter of the query.
    Query(Box<str>),
}

impl Credential {
    /// Where `dialect` has it.
    #[must_use]
    pub const fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi | Dialect::Generic => Self::Bearer,
            Dialect::Anthropic => Self::Header(X_API_KEY),
            // Never in the query, where Google takes it too: URLs are logged.
            Dialect::Gemini => Self::Header(X_GOOG_API_KEY),
            Dialect::Azure => Self::Header(API_KEY),
        }
    }
}

/// How the upstreams of a pool are spoken to.
#[derive(Debug, Clone)]
pub struct Api {
    /// What they speak.
    pub dialect: Dialect,
    /// Where they take a credential.
    pub credential: Credential,
    /// What else they speak, each below a path of the same host.
    pub also: Vec<(Dialect, Box<str>)>,
    /// Headers that each request gets, in place of the client's.
    pub headers: HeaderMap,
    /// Parameters that each request gets, in place of the client's.
    pub query: Vec<Parameter>,
    /// What of these is a credential: no answer tells it.
    pub secrets: Vec<Secret>,
    /// The only methods that are sent. None: every one.
    pub methods: Vec<Method>,
    /// Azure's `api-version`, for requests that name none. `None`: the API without versions is used.
    pub api_version: Option<Box<str>>,
    /// The names of Azure's deployments of models, where they differ from these.
    pub deployments: HashMap<Box<str>, Box<str>>,
}

impl Default for Api {
    fn default() -> Self {
        Self::of(Dialect::OpenAi)
    }
}

impl Api {
    /// An API that speaks `dialect` in the usual way.
    #[must_use]
    pub fn of(dialect: Dialect) -> Self {
        Self {
            dialect,
            credential: Credential::of(dialect),
            also: Vec::new(),
            headers: HeaderMap::new(),
            query: Vec::new(),
            secrets: Vec::new(),
            methods: Vec::new(),
            api_version: None,
            deployments: HashMap::new(),
        }
    }

    /// Whether a request that came in this dialect can be sent as it is.
    #[must_use]
    pub fn speaks(&self, spoken: Dialect) -> bool {
        let has_compatible_base =
            matches!(self.dialect, Dialect::Anthropic | Dialect::Gemini | Dialect::Azure);
        spoken == self.dialect
            || spoken == Dialect::Generic
            || (spoken == Dialect::OpenAi && has_compatible_base)
            || self.path_of(spoken).is_some()
    }

    fn path_of(&self, spoken: Dialect) -> Option<&str> {
        self.also.iter().find(|(dialect, _)| *dialect == spoken).map(|(_, path)| &**path)
    }

    /// Whether a request with this method is sent at all.
    #[must_use]
    pub fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// The name by which `model` is asked for in a request's body or path, where that differs.
    #[must_use]
    pub fn name_of(&self, model: &str) -> Option<&str> {
        self.deployments.get(model).map(|name| &**name)
    }

    /// Path and query of a request that came in the dialect `spoken`, for the host of `key`.
    ///
    /// # Errors
    /// [`BadTarget::Unsafe`] if no request line could carry it.
    pub fn target(
        &self,
        spoken: Dialect,
        key: &Key,
        target: &Target,
        model: Option<&str>,
    ) -> Result<PathAndQuery, BadTarget> {
        let base = &key.settings().base;
        let native = spoken == self.dialect || spoken == Dialect::Generic;
        let mut place = Place { below: [base.path(), ""], ..Place::default() };
        let deployment;
        match self.path_of(spoken).filter(|_| !native) {
            Some(path) => place.below = [path, ""],
            // A version is not doubled; one that counts takes the place of the base's.
            None if target.has_version()
                && (spoken != Dialect::Generic || target.repeats_version_of(base)) =>
            {
                place.below = [base.root(), ""];
            }
            None => match (self.dialect, spoken) {
                (Dialect::Gemini, Dialect::OpenAi) => place.below[1] = "/openai",
                (Dialect::Azure, Dialect::OpenAi) => {
                    // A model's name comes from whoever asks.
                    deployment = self.deployment(model);
                    check_path(&deployment)?;
                    place.below[1] = &deployment;
                }
                _ => {}
            },
        }
        place.set = &self.query;
        // Azure's API without versions refuses one.
        let has_none = target.path().starts_with("/openai/v1");
        let version = self.api_version.as_deref().filter(|_| !has_none);
        place.default = version.map(|version| ("api-version", version));
        if let Credential::Query(name) = self.credential_of(spoken) {
            place.credential = Some((name, key.secret()));
        }
        target.at(&place)
    }

    /// Where a request of this dialect has its credential.
    fn credential_of(&self, spoken: Dialect) -> &Credential {
        match (self.dialect, spoken) {
            // Compatible bases take what the API that they are compatible with takes.
            (Dialect::Anthropic | Dialect::Gemini, Dialect::OpenAi) => &Credential::Bearer,
            _ => &self.credential,
        }
    }

    /// What an answer to a request with `key` may have in it because it was in its URL, or is no matter of clients.
    pub(super) fn told_by_answers(&self, spoken: Dialect, key: &Key) -> Option<Needles> {
        let in_url = matches!(self.credential_of(spoken), Credential::Query(_)).then(|| key.secret());
        if in_url.is_none() && self.secrets.is_empty() {
            return None;
        }
        let texts = in_url.into_iter().chain(&self.secrets).map(Secret::expose);
        Needles::of(texts.map(|text| (text, utf8_percent_encode(text, ENCODED).to_string())))
    }

    /// What stands before the path of an OpenAI request at Azure.
    fn deployment(&self, model: Option<&str>) -> String {
        match (&self.api_version, model) {
            (None, _) => "/openai/v1".to_owned(),
            (Some(_), None) => "/openai".to_owned(),
            (Some(_), Some(model)) => {
                let name = self.name_of(model).unwrap_or(model);
                format!("/openai/deployments/{}", utf8_percent_encode(name, ENCODED))
            }
        }
    }

    /// Adds what goes with `key` to a request that came in the dialect `spoken`.
    pub fn sign(&self, spoken: Dialect, key: &Key, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        match self.credential_of(spoken) {
            Credential::Bearer if key.settings().prefix.is_empty() => {
                drop(headers.insert(AUTHORIZATION, key.bearer().clone()))
            }
            Credential::Bearer => drop(headers.insert(AUTHORIZATION, key.plain().clone())),
            Credential::Header(name) => drop(headers.insert(name, key.plain().clone())),
            // What it answers has to be read.
            Credential::Query(_) => {
                drop(headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
            }
        }
    }
}
