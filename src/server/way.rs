//! What a path says: how whoever asks speaks, which pool is meant, and what goes below the base.

use http::{HeaderMap, HeaderName};

use crate::{
    forward::{BadTarget, PoolIndex, Routes, Target},
    types::{Dialect, is_version},
};

/// First segments of the OpenAI API: taken without `/v1` too, as older clients send them.
const WITHOUT_VERSION: [&str; 21] = [
    "assistants",
    "audio",
    "batches",
    "chat",
    "completions",
    "containers",
    "conversations",
    "embeddings",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "realtime",
    "rerank",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];
/// First segments that Anthropic's API has alone.
const ANTHROPIC: [&str; 2] = ["messages", "complete"];
/// What may be asked of Gemini's models.
const VERBS: [&str; 9] = [
    "batchEmbedContents",
    "batchGenerateContent",
    "asyncBatchEmbedContent",
    "countTokens",
    "embedContent",
    "generateContent",
    "predict",
    "predictLongRunning",
    "streamGenerateContent",
];
/// Headers that Google's SDKs send.
const GOOGLES: [&str; 2] = ["x-goog-api-client", "x-goog-api-key"];
/// The header that Anthropic's API asks for.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// How whoever asks speaks.
    pub(super) spoken: Dialect,
    pub(super) to: To,
    /// How much of the path names the route, and goes no further.
    cut: usize,
    /// Whether what goes further begins with a version that counts.
    has_version: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// Whichever pool serves the model.
    Any,
    /// This pool.
    Pool(PoolIndex),
    /// A pool that there is not; where its name stands in the path.
    Unknown { start: usize, end: usize },
    /// The names of all pools.
    Providers,
    /// Nowhere.
    Nowhere,
}

impl Way {
    /// The way that a path leads.
    pub(super) fn of(path: &str, headers: &HeaderMap, routes: &Routes) -> Self {
        let way = |spoken, cut| Self { spoken, to: To::Any, cut, has_version: false };
        let mut segments = path.split('/').skip(1);
        let (first, second) = (segments.next().unwrap_or_default(), segments.next());
        match (first, second) {
            ("v1", Some("providers")) if path.len() == "/v1/providers".len() => {
                Self { to: To::Providers, ..way(Dialect::OpenAi, 3) }
            }
            // Google's stable version is called `v1` too; its verbs stand behind a colon.
            ("v1", Some(second)) if comes_from_google(second, segments.next(), headers, routes) => {
                Self { has_version: true, ..way(Dialect::Gemini, 0) }
            }
            ("v1", Some(second)) if ANTHROPIC.contains(&second) => way(Dialect::Anthropic, 3),
            ("v1", _)
                if is_spoken(Dialect::Anthropic, routes) && headers.contains_key(&ANTHROPIC_VERSION) =>
            {
                way(Dialect::Anthropic, 3)
            }
            ("v1", _) => way(Dialect::OpenAi, 3),
            ("v1beta", Some("openai")) => {
                // Google's compatible base, if there is a pool of Google's.
                let pool = routes.pools().find(|pool| routes.native(*pool) == Dialect::Gemini);
                Self { to: pool.map_or(To::Any, To::Pool), ..way(Dialect::OpenAi, "/v1beta/openai".len()) }
            }
            ("v1beta", _) => way(Dialect::Gemini, "/v1beta".len()),
            ("v1alpha", _) | ("upload", Some("v1beta" | "v1alpha")) => {
                Self { has_version: true, ..way(Dialect::Gemini, 0) }
            }
            ("openai", Some("v1")) => way(Dialect::OpenAi, "/openai/v1".len()),
            ("openai", Some(_)) => way(Dialect::Azure, 0),
            ("llm" | "proxy", Some(slug)) => {
                let cut = first.len() + slug.len() + 2;
                match routes.find(slug) {
                    None => {
                        let to = To::Unknown { start: first.len() + 2, end: cut };
                        Self { to, ..way(Dialect::OpenAi, cut) }
                    }
                    Some(pool) => Self::of_pool(&path[cut..], first == "proxy", pool, cut, routes),
                }
            }
            (first, _) if WITHOUT_VERSION.contains(&first) => way(Dialect::OpenAi, 0),
            _ => Self { to: To::Nowhere, ..way(Dialect::OpenAi, 0) },
        }
    }

    /// The way to a pool that is named, for the path behind its name.
    fn of_pool(rest: &str, verbatim: bool, pool: PoolIndex, cut: usize, routes: &Routes) -> Self {
        let way =
            |spoken, more, has_version| Self { spoken, to: To::Pool(pool), cut: cut + more, has_version };
        let mut segments = rest.split('/').skip(1);
        let first = segments.next().unwrap_or_default();
        let version = is_version(first);
        let native = routes.native(pool);
        if verbatim || native == Dialect::Generic {
            return way(Dialect::Generic, 0, version);
        }
        // What a compatible base of Gemini's is called may stand there too.
        let compatible = segments.clone().next() == Some("openai");
        let second = if version { segments.next().unwrap_or_default() } else { first };
        let behind_version = if version { first.len() + 1 } else { 0 };
        match native {
            Dialect::Gemini if first == "openai" => way(Dialect::OpenAi, "/openai".len(), false),
            Dialect::Azure if first == "openai" => way(Dialect::Azure, 0, false),
            Dialect::Gemini if version && compatible => {
                way(Dialect::OpenAi, behind_version + "/openai".len(), false)
            }
            Dialect::Gemini if is_openais_alone(second) => way(Dialect::OpenAi, behind_version, false),
            Dialect::Gemini => way(Dialect::Gemini, 0, version),
            Dialect::Anthropic if is_openais_alone(second) => way(Dialect::OpenAi, behind_version, false),
            Dialect::Anthropic => way(Dialect::Anthropic, behind_version, false),
            _ if ANTHROPIC.contains(&second) && routes.speaks(pool, Dialect::Anthropic) => {
                way(Dialect::Anthropic, behind_version, false)
            }
            _ if version && first != "v1" => way(Dialect::OpenAi, 0, true),
            _ => way(Dialect::OpenAi, behind_version, false),
        }
    }

    /// The target of a request that goes this way.
    ///
    /// # Errors
    /// [`BadTarget`] if its path or query could mean something else to whoever reads it next.
    pub(super) fn target(&self, path: &str, query: Option<&str>) -> Result<Target, BadTarget> {
        // The whole path is looked at.
        let target = Target::new(path, query)?.below(self.cut).spoken_in(self.spoken);
        Ok(if self.has_version { target.with_version() } else { target })
    }

    /// Whether a client may send its key in the query, as Google's SDKs once did.
    pub(super) fn takes_key_in_query(&self) -> bool {
        self.spoken == Dialect::Gemini || matches!(self.to, To::Pool(_) | To::Unknown { .. })
    }

    /// The dialect in which whoever asks understands errors.
    pub(super) fn told_in(&self, routes: &Routes) -> Dialect {
        match self.to {
            To::Pool(pool) if self.spoken == Dialect::Generic => routes.native(pool),
            _ => self.spoken,
        }
    }

    /// Whether it asks which models there are, of all pools.
    pub(super) fn is_catalog(&self, path: &str) -> bool {
        let path = path.get(self.cut..).unwrap_or_default();
        let version = if self.has_version { path.find("/models").unwrap_or_default() } else { 0 };
        self.to == To::Any && matches!(&path[version..], "/models" | "/models/")
    }
}

/// Whether a request below `/v1` is one for Gemini's API, by what only that has or by its headers. Where no pool speaks
/// it, whoever is asked may know what is meant.
fn comes_from_google(second: &str, third: Option<&str>, headers: &HeaderMap, routes: &Routes) -> bool {
    if !is_spoken(Dialect::Gemini, routes) {
        return false;
    }
    let by_headers = || GOOGLES.iter().any(|name| headers.contains_key(*name));
    // Names of models may have colons too.
    let has_verb = |model: &str| model.rsplit_once(':').is_some_and(|(_, verb)| VERBS.contains(&verb));
    match second {
        "models" => third.is_some_and(has_verb) || by_headers(),
        "cachedContents" | "tunedModels" => true,
        second => !WITHOUT_VERSION.contains(&second) && by_headers(),
    }
}

/// Whether some pool speaks a dialect.
fn is_spoken(dialect: Dialect, routes: &Routes) -> bool {
    routes.pools().any(|pool| routes.speaks(pool, dialect))
}

/// Whether a first segment is one of OpenAI's API that the others don't have.
fn is_openais_alone(first: &str) -> bool {
    WITHOUT_VERSION.contains(&first) && !matches!(first, "models" | "files" | "batches")
}
