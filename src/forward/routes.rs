//! Which pool serves a request, and by which name it asks for the model.
//!
//! In this order: a model that somebody gave a name of its own, the pool whose keys name the model, `pool/model`, and
//! then whoever serves others: the pool `default`, a pool whose own dialect the request speaks, any that speaks it too.

use std::collections::HashMap;

use http::Method;

use super::Forwarder;
use crate::{
    provider::{KNOWN, Known},
    types::{Dialect, PoolName},
};

/// A provider's name.
const OPENAI: &str = "openai";

/// One pool of several, by its place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolIndex(u16);

impl PoolIndex {
    fn new(at: usize) -> Self {
        Self(u16::try_from(at).expect("nobody has so many pools"))
    }

    /// Its place.
    #[must_use]
    pub fn get(self) -> usize {
        self.0.into()
    }
}

/// A pool that may serve a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub pool: PoolIndex,
    /// The model as this pool's keys know it, where the client calls it otherwise.
    pub model: Option<Box<str>>,
}

/// The pools that may serve a request, the first before the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// Who is asked first.
    pub first: Choice,
    /// Who is asked where those before can't serve it.
    pub others: Box<[Choice]>,
}

/// Why no pool may serve a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misrouted {
    /// None speaks its dialect.
    #[error("no pool speaks this dialect")]
    NotSpoken {
        /// Which.
        dialect: Dialect,
    },
    /// The pool that is meant speaks another dialect.
    #[error("the pool speaks another dialect")]
    SpeaksOtherwise {
        /// Which.
        pool: PoolName,
        /// What it speaks.
        dialect: Dialect,
    },
    /// The pool that is meant takes other methods only.
    #[error("the method is not allowed")]
    Method {
        /// Which.
        pool: PoolName,
        /// What it takes.
        allowed: Vec<Method>,
    },
    /// `provider/model` of a provider that we know and have no key of.
    #[error("no key of this provider is configured")]
    NoKeyOf {
        /// Which.
        provider: Box<str>,
    },
}

/// What a name that clients use for a model stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: Box<str>,
    /// What it stands for; where that can't serve a request, the next. Never empty.
    pub targets: Vec<Aim>,
}

/// A model, perhaps of one pool only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// The pool; `None`: whichever serves the model.
    pub pool: Option<PoolName>,
    /// The model.
    pub model: Box<str>,
}

/// Which pool serves which request.
#[derive(Debug, Default)]
pub struct Routes {
    names: Vec<PoolName>,
    apis: Vec<Spoken>,
    by_name: HashMap<Box<str>, PoolIndex>,
    exact: HashMap<Box<str>, Vec<PoolIndex>>,
    prefixes: Vec<(Box<str>, PoolIndex)>,
    default: Option<PoolIndex>,
    aliases: HashMap<Box<str>, Vec<Target>>,
    /// Whether the default's upstream is OpenAI's own, which has no models with a provider before them.
    default_is_openais: bool,
}

/// What an alias stands for: a model, perhaps of one pool only.
type Target = (Option<PoolIndex>, Box<str>);

/// What the routes need to know of a pool.
#[derive(Debug)]
struct Spoken {
    native: Dialect,
    dialects: Vec<Dialect>,
    serves_others: bool,
}

impl Routes {
    /// Routes to these pools.
    #[must_use]
    pub fn new(pools: &[Forwarder], aliases: &[Alias]) -> Self {
        let mut routes = Self::default();
        for (at, forwarder) in pools.iter().enumerate() {
            let at = PoolIndex::new(at);
            let (name, api) = (forwarder.pool().name(), forwarder.api());
            let (mut serves_others, mut is_openais) = (false, true);
            for key in forwarder.pool().snapshot().keys {
                let models = &key.key.settings().models;
                is_openais &= Known::at(key.key.settings().base.origin()) == Some(OPENAI);
                serves_others |= models.serves_others();
                for model in models.exact() {
                    let pools = routes.exact.entry(Box::from(model.as_str())).or_default();
                    if !pools.contains(&at) {
                        pools.push(at);
                    }
                }
                for prefix in models.prefixes() {
                    let prefix = (Box::from(prefix.as_str()), at);
                    if !routes.prefixes.contains(&prefix) {
                        routes.prefixes.push(prefix);
                    }
                }
            }
            let dialects = Dialect::NAMES.iter().map(|(_, dialect)| *dialect);
            let dialects = dialects.filter(|dialect| api.speaks(*dialect)).collect();
            routes.apis.push(Spoken { native: api.dialect, dialects, serves_others });
            routes.by_name.insert(Box::from(name.as_str()), at);
            if *name == PoolName::default() {
                routes.default_is_openais = is_openais;
            }
            routes.names.push(name.clone());
        }
        routes.default = routes.by_name.get(PoolName::DEFAULT).copied();
        for known in KNOWN {
            // Whatever a provider is called, it is the same one.
            if let Some(pool) = routes.by_name.get(known.name).copied() {
                for alias in known.aliases {
                    routes.by_name.entry(Box::from(*alias)).or_insert(pool);
                }
            }
        }
        if let Some(default) = routes.default.filter(|_| routes.default_is_openais) {
            routes.by_name.entry(Box::from(OPENAI)).or_insert(default);
        }
        for Alias { name, targets } in aliases {
            let targets = targets.iter().filter_map(|aim| {
                let pool = match &aim.pool {
                    None => None,
                    Some(name) => Some(routes.find(name.as_str())?),
                };
                Some((pool, aim.model.clone()))
            });
            let targets = targets.collect();
            routes.aliases.insert(name.clone(), targets);
        }
        routes
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = PoolIndex> + '_ {
        (0..self.names.len()).map(PoolIndex::new)
    }

    /// The pool of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PoolIndex> {
        self.by_name.get(name).copied()
    }

    /// Whether models go by their own names only.
    #[must_use]
    pub fn has_no_aliases(&self) -> bool {
        self.aliases.is_empty()
    }

    /// The names that stand for models which can be asked for in this dialect, with the pools that serve these first.
    pub fn aliases(&self, spoken: Dialect) -> impl Iterator<Item = (String, PoolIndex)> + '_ {
        self.aliases.keys().filter_map(move |name| {
            let choices = self.choose(spoken, Some(name)).ok()?;
            Some((name.to_string(), choices.first.pool))
        })
    }

    /// Whether a key of the pool names the model.
    #[must_use]
    pub fn names(&self, pool: PoolIndex, model: &str) -> bool {
        self.exact.get(model).is_some_and(|pools| pools.contains(&pool))
            || self.prefixes.iter().any(|(prefix, of)| *of == pool && model.starts_with(&**prefix))
    }

    /// The model that is meant by a name for a pool that is named itself: `groq/llama` is `llama` at `groq`.
    pub(super) fn at<'m>(&self, pool: PoolIndex, model: &'m str) -> Option<&'m str> {
        let (name, rest) = model.split_once('/')?;
        (!rest.is_empty() && self.find(name) == Some(pool) && !self.names(pool, model)).then_some(rest)
    }

    /// What a pool speaks of its own accord.
    #[must_use]
    pub fn native(&self, pool: PoolIndex) -> Dialect {
        self.apis[pool.get()].native
    }

    /// Whether a pool takes requests of this dialect.
    #[must_use]
    pub fn speaks(&self, pool: PoolIndex, spoken: Dialect) -> bool {
        self.apis[pool.get()].dialects.contains(&spoken)
    }

    /// Who may serve a request that speaks this dialect, names this model, and leaves the choice of the pool to us.
    ///
    /// # Errors
    /// [`Misrouted`] if nobody may.
    pub fn choose(&self, spoken: Dialect, model: Option<&str>) -> Result<Choices, Misrouted> {
        let Some(targets) = model.and_then(|model| self.aliases.get(model)) else {
            return self.one(spoken, model).map(|first| Choices { first, others: Box::default() });
        };
        let mut failed = None;
        let mut choices = targets.iter().filter_map(|(pool, target)| {
            // Who was asked before may have been asked for another.
            let renamed = Some(target.clone());
            let choice = match *pool {
                Some(pool) if self.speaks(pool, spoken) => Ok(Choice { pool, model: renamed }),
                Some(pool) => Err(self.speaks_otherwise(pool)),
                None => self
                    .one(spoken, Some(target))
                    .map(|choice| Choice { model: choice.model.or(renamed), ..choice }),
            };
            choice.map_err(|error| failed = failed.take().or(Some(error))).ok()
        });
        match choices.next() {
            Some(first) => Ok(Choices { first, others: choices.collect() }),
            None => Err(failed.unwrap_or(Misrouted::NotSpoken { dialect: spoken })),
        }
    }

    /// The pool that serves `model`, as it is written.
    fn one(&self, spoken: Dialect, model: Option<&str>) -> Result<Choice, Misrouted> {
        if let ([only], Some(pool)) = (&self.apis[..], self.default)
            && only.dialects.contains(&spoken)
        {
            return Ok(Choice { pool, model: None });
        }
        let speaks = |pool: &PoolIndex| self.speaks(*pool, spoken);
        let mut named = None;
        if let Some(model) = model {
            let exact = self.exact.get(model).into_iter().flatten().copied();
            let by_prefix = self.prefixes.iter().filter(|(prefix, _)| model.starts_with(&**prefix));
            for pool in exact.chain(by_prefix.map(|(_, pool)| *pool)) {
                if speaks(&pool) {
                    return Ok(Choice { pool, model: None });
                }
                named = named.or(Some(pool));
            }
            if let Some((provider, rest)) = model.split_once('/').filter(|(_, rest)| !rest.is_empty()) {
                match self.find(provider) {
                    Some(pool) if speaks(&pool) => return Ok(Choice { pool, model: Some(Box::from(rest)) }),
                    Some(pool) => return Err(self.speaks_otherwise(pool)),
                    // Where there is a default, its upstream may have names with slashes.
                    None if (self.default.is_none() || self.default_is_openais)
                        && Known::find(provider).is_some() =>
                    {
                        return Err(Misrouted::NoKeyOf { provider: Box::from(provider) });
                    }
                    None => {}
                }
            }
        }
        let pools = || self.pools().filter(speaks);
        let native = || pools().filter(|pool| self.native(*pool) == spoken);
        let by_rank = || self.default.filter(speaks).into_iter().chain(native()).chain(pools());
        let serves = |pool: &PoolIndex| model.is_none() || self.apis[pool.get()].serves_others;
        if let Some(pool) = by_rank().find(serves) {
            return Ok(Choice { pool, model: None });
        }
        if let Some(pool) = named.filter(|pool| self.stand_in(spoken) != Some(*pool)) {
            return Err(self.speaks_otherwise(pool));
        }
        // It says itself that it doesn't serve the model.
        let pool = by_rank().next().or_else(|| self.stand_in(spoken));
        pool.map(|pool| Choice { pool, model: None }).ok_or(Misrouted::NotSpoken { dialect: spoken })
    }

    /// Of servers that are compatible with OpenAI's many take Anthropic's messages too.
    fn stand_in(&self, spoken: Dialect) -> Option<PoolIndex> {
        let openai = |pool: &PoolIndex| self.native(*pool) == Dialect::OpenAi;
        self.default.filter(openai).filter(|_| spoken == Dialect::Anthropic)
    }

    fn speaks_otherwise(&self, pool: PoolIndex) -> Misrouted {
        Misrouted::SpeaksOtherwise { pool: self.names[pool.get()].clone(), dialect: self.native(pool) }
    }
}
