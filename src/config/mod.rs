//! Files, environment and older formats, turned into the settings of each part.
//!
//! ```text
//! read (which files) → toml, json, yaml (→ groups) → tree (values and their places; two files merged)
//!     → section (takes settings by name, reports what nobody took) → resolve, keys → Config
//! ```
//!
//! Everything wrong is told at once, each with its place. Precedence of settings: flag, environment, file, default;
//! keys are united.

mod aliases;
mod env;
mod groups;
mod json;
mod keys;
mod listen;
mod log;
mod notes;
mod pools;
mod problem;
mod providers;
mod proxies;
mod read;
mod reference;
mod render;
mod resolve;
mod section;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod upstream;
mod yaml;

use std::{
    net::{AddrParseError, IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

pub use env::Env;
use hyper_util::client::proxy::matcher::Matcher;
pub use problem::{Position, Problem, Problems};

use crate::{
    client,
    forward::{self, Alias, Api},
    pool, server, telemetry,
    types::{BaseUrl, Key, PoolName},
};

/// What the command line says beside the files.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The file to read, and the only one. Relative to the working directory.
    pub config: Option<PathBuf>,
    /// Where clients connect, whatever the files say.
    pub bind: Option<Bind>,
}

/// An address to listen on, as the command line gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// Address and port.
    Socket(SocketAddr),
    /// The address alone: the port is what variables and files say.
    Address(IpAddr),
}

impl FromStr for Bind {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse().map(Self::Socket).or_else(|_| text.parse().map(Self::Address))
    }
}

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// The settings of every part, complete and valid.
#[derive(Debug)]
pub struct Config {
    /// The listener that clients talk to.
    pub server: server::Settings,
    /// Logs and metrics.
    pub telemetry: telemetry::Settings,
    /// Client keys and the limits that are ours.
    pub clients: client::Settings,
    /// How the pool chooses.
    pub pool: pool::Settings,
    /// The keys of the pool `default`. Empty only where there are other pools.
    pub keys: Vec<Key>,
    /// Whether variables such as `OPENAI_API_KEY`, which other programs read too, hold keys for us.
    pub env_keys: bool,
    /// `upstream.base_url`: requests without a model go to this host's keys.
    pub base_url: BaseUrl,
    /// The other pools.
    pub pools: Vec<NamedPool>,
    /// Names that clients use for models.
    pub aliases: Vec<Alias>,
    /// How long and how often a request is tried.
    pub policy: forward::Policy,
    /// How connections to upstreams are made.
    pub transport: forward::transport::Settings,
    /// What to say about all this at the start.
    pub notes: Notes,
}

/// A pool beside `default`.
#[derive(Debug)]
pub struct NamedPool {
    /// Its name.
    pub name: PoolName,
    /// How its upstreams are spoken to.
    pub api: Api,
    /// Requests without a model go to this host's keys.
    pub base_url: BaseUrl,
    /// Its keys. Never empty.
    pub keys: Vec<Key>,
    /// Where each key was found.
    pub places: Vec<String>,
    /// The forward proxy on the way there, where it has one of its own.
    pub proxies: Option<Arc<Matcher>>,
}

/// What to say at the start: what came from where, and what to mind. No secrets in it.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// One line for each source that set something.
    pub sources: Vec<String>,
    /// What works and may not be meant.
    pub warnings: Vec<String>,
    /// Where each key was found, in the order of [`Config::keys`].
    pub keys: Vec<String>,
}

impl Config {
    /// Reads the files that `flags` or `env` name, else `config.toml`, `config.json`, `config.yaml` and `config.yml` of
    /// `dir`, and the environment.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(flags: &Flags, env: &Env, dir: &Path) -> Result<Self, Problems> {
        let mut ledger = section::Ledger::default();
        ledger.problems = env.problems().to_vec();
        let files = read::files(flags, env, dir, &mut ledger);
        resolve::resolve(&files, flags, env, ledger)
    }

    /// The keys of all pools.
    pub fn all_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().chain(self.pools.iter().flat_map(|pool| &pool.keys))
    }

    /// The effective configuration, for people: like the TOML that would give it, with key ids in place of secrets,
    /// and for each key where it was found. [`Config::notes`] are not part of it.
    #[must_use]
    pub fn render(&self) -> String {
        render::render(self)
    }
}
