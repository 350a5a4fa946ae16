//! Which models there are: one list over all pools, of what their configuration names and what their upstreams list.
//!
//! An upstream is asked where a key serves more than it names. What it said counts for a while, and longer if it can't
//! be asked again: a client that lists models shall not wait for the slowest of many upstreams each time.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Alarm, Attempt, Forwarder, Inbound, Router, Target, body::Rest, routes::PoolIndex};
use crate::{
    pool::Outcome,
    types::{BaseUrl, Class, Dialect, ModelSet, Origin, PoolName},
};

/// What an upstream has listed counts for so long.
const FRESH: Duration = Duration::from_secs(300);
/// One that could not be asked is asked again after this time.
const AGAIN: Duration = Duration::from_secs(30);
/// It is waited for no longer than that.
const PATIENCE: Duration = Duration::from_secs(5);
/// A list is no longer than that.
const LONGEST: usize = 8 << 20;
/// So many keys are asked for it.
const TRIES: usize = 4;
/// A model that no key names, so that whoever serves others is asked.
const ANY_OTHER: &str = "models";

/// A model that a client may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// By this name.
    pub id: String,
    /// Whose it is.
    pub pool: PoolName,
    /// What its upstream says of it, if it was asked.
    pub told: Option<Value>,
}

/// The models that an upstream has listed, by name.
type Models = Arc<[(String, Value)]>;

/// What upstreams have listed. Each has a lock of its own, which is held while it is asked: whoever wants to know the
/// same meanwhile waits for that answer.
#[derive(Debug, Default)]
pub(super) struct Catalog(std::sync::Mutex<HashMap<(PoolIndex, BaseUrl), Place>>);

/// Where a shelf is to stand.
type Place = Arc<Mutex<Option<Shelf>>>;

/// What one upstream has listed.
#[derive(Debug)]
struct Shelf {
    models: Models,
    /// When it should be asked again.
    until: Instant,
}

/// A base of a pool whose keys serve more than they name.
struct Source {
    pool: PoolIndex,
    base: BaseUrl,
    models: Vec<ModelSet>,
}

impl Router {
    /// Whether a list of models is one upstream's alone, which is then passed on as it is.
    #[must_use]
    pub fn lists_one_upstream(&self) -> bool {
        let [pool] = self.pools() else { return false };
        let keys = pool.pool().snapshot().keys;
        let mut bases = keys.iter().map(|key| &key.key.settings().base);
        let first = bases.next();
        self.routes().has_no_aliases()
            && bases.all(|base| Some(base) == first)
            && keys.iter().all(|key| key.key.settings().models == ModelSet::others())
    }

    /// The models that a client who speaks this dialect may ask for, by name.
    pub async fn models(&self, spoken: Dialect) -> Vec<Listed> {
        let speaking = self.routes().pools().filter(|pool| self.routes().speaks(*pool, spoken));
        let speaking: Vec<PoolIndex> = speaking.collect();
        let sources: Vec<Source> = speaking.iter().flat_map(|pool| self.sources(*pool)).collect();
        let shelves = join_all(sources.iter().map(|source| self.shelf(source))).await;
        let mut listed: Vec<Listed> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut add = |id: String, pool: PoolIndex, told: Option<Value>| {
            if seen.insert(id.clone()) {
                listed.push(Listed { id, pool: self.at(pool).pool().name().clone(), told });
            }
        };
        for (source, shelf) in sources.iter().zip(shelves) {
            for (id, told) in shelf.iter() {
                if source.models.iter().any(|models| models.serves_others() || models.names(id)) {
                    add(self.shown(spoken, source.pool, id), source.pool, Some(told.clone()));
                }
            }
        }
        for pool in &speaking {
            let exact = self.names(*pool);
            exact.into_iter().for_each(|id| add(id, *pool, None));
        }
        for (name, pool) in self.routes().aliases(spoken) {
            add(name, pool, None);
        }
        listed
    }

    /// The name by which a client asks for a model that an upstream of `pool` lists.
    fn shown(&self, spoken: Dialect, pool: PoolIndex, id: &str) -> String {
        let name = self.at(pool).pool().name();
        let by_itself = self
            .routes()
            .choose(spoken, Some(id))
            .is_ok_and(|choices| choices.first.pool == pool && choices.first.model.is_none());
        // Where several pools speak a dialect, only the default's models go without a name before them.
        let alone = self.routes().pools().filter(|pool| self.routes().native(*pool) == spoken).count() == 1;
        let named =
            self.at(pool).pool().snapshot().keys.iter().any(|key| key.key.settings().models.names(id));
        if by_itself && (*name == PoolName::default() || named || alone) {
            id.to_owned()
        } else {
            format!("{name}/{id}")
        }
    }

    /// What the keys of a pool name, and its deployments.
    fn names(&self, pool: PoolIndex) -> BTreeSet<String> {
        let pool = self.at(pool);
        let keys = pool.pool().snapshot().keys;
        let exact = keys.iter().flat_map(|key| key.key.settings().models.exact().to_vec());
        let name = pool.pool().name();
        let deployments = pool.api().deployments.keys().map(|model| format!("{name}/{model}"));
        exact.chain(deployments).collect()
    }

    /// The upstreams of a pool that have to be asked.
    fn sources(&self, pool: PoolIndex) -> Vec<Source> {
        let native = self.routes().native(pool);
        // What Azure lists are models and not deployments, and of other APIs nothing is known.
        if matches!(native, Dialect::Azure | Dialect::Generic) {
            return Vec::new();
        }
        let mut sources: Vec<Source> = Vec::new();
        for key in self.at(pool).pool().snapshot().keys {
            let settings = key.key.settings();
            if !settings.models.serves_others() && settings.models.prefixes().is_empty() {
                continue;
            }
            match sources.iter_mut().find(|source| source.base == settings.base) {
                Some(source) => source.models.push(settings.models.clone()),
                None => {
                    let (base, models) = (settings.base.clone(), vec![settings.models.clone()]);
                    sources.push(Source { pool, base, models });
                }
            }
        }
        sources
    }

    /// What an upstream lists: what is remembered, else what it says now.
    async fn shelf(&self, source: &Source) -> Models {
        let shelf = {
            let mut shelves = self.catalog.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(shelves.entry((source.pool, source.base.clone())).or_default())
        };
        let mut shelf = shelf.lock().await;
        if let Some(known) = shelf.as_ref().filter(|shelf| shelf.until > self.clock().mono()) {
            return Arc::clone(&known.models);
        }
        let listed = self.ask_for_models(source).await.map(Models::from);
        let now = self.clock().mono();
        let until = now + if listed.is_some() { FRESH } else { AGAIN };
        // What it said before is better than nothing.
        let models = listed.or_else(|| shelf.take().map(|shelf| shelf.models)).unwrap_or_default();
        *shelf = Some(Shelf { models: Arc::clone(&models), until });
        models
    }

    /// What an upstream says that it has. `None` if it says nothing that we understand.
    async fn ask_for_models(&self, source: &Source) -> Option<Vec<(String, Value)>> {
        let pool = self.at(source.pool);
        let dialect = pool.api().dialect;
        let others = source.models.iter().any(ModelSet::serves_others);
        let prefix = source.models.iter().find_map(|models| models.prefixes().first());
        let model = prefix.filter(|_| !others).map_or(ANY_OTHER, String::as_str);
        let query = match dialect {
            Dialect::Anthropic => Some("limit=1000"),
            Dialect::Gemini => Some("pageSize=1000"),
            _ => None,
        };
        let target = Target::new("/models", query).ok()?.spoken_in(dialect);
        let mut headers = HeaderMap::new();
        if dialect == Dialect::Anthropic {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        let inbound = Inbound::of_ours(Method::GET, target, headers, model);
        let list = pool.fetch(&inbound, &source.base).await?;
        entries(dialect, &serde_json::from_slice(&list).ok()?)
    }
}

/// The models of a list, by name.
fn entries(dialect: Dialect, list: &Value) -> Option<Vec<(String, Value)>> {
    let (list, name) = match dialect {
        Dialect::Gemini => (list.get("models")?, "name"),
        // Some give the bare list.
        _ => (list.get("data").unwrap_or(list), "id"),
    };
    let entry = |entry: &Value| {
        let id = entry.get(name)?.as_str()?;
        Some((id.strip_prefix("models/").unwrap_or(id).to_owned(), entry.clone()))
    };
    Some(list.as_array()?.iter().filter_map(entry).collect())
}

impl Forwarder {
    /// The body of the answer to a request of our own, by a key at `base` that is free.
    async fn fetch(&self, inbound: &Inbound, base: &BaseUrl) -> Option<Bytes> {
        let ask = Arc::new(self.pool.ask(inbound));
        let elsewhere: Vec<Origin> = {
            let keys = self.pool.snapshot().keys;
            let origins = keys.iter().map(|key| key.key.settings().base.origin());
            origins.filter(|origin| *origin != base.origin()).cloned().collect()
        };
        let mut alarm = Alarm::new(self.clock);
        let until = self.clock.mono() + PATIENCE;
        let mut tried = Vec::new();
        for _ in 0..self.pool.keys().min(TRIES) {
            let now = self.clock.mono();
            let mut lease = self.pool.lease(&ask, &tried, &elsewhere, now, || {}).await.ok()?;
            let key = Arc::clone(lease.key());
            if tried.contains(&key.identity()) || now >= until {
                lease.settle(Outcome::Unused);
                return None;
            }
            if key.settings().base != *base {
                // It shares the host with those that are wanted.
                lease.settle(Outcome::Unused);
                tried.push(key.identity());
                continue;
            }
            tried.push(key.identity());
            let limit = until.saturating_duration_since(now);
            match Box::pin(self.attempt(&key, inbound, limit, &mut alarm)).await {
                Err(_) => return None,
                Ok(Attempt::Missed(missed)) => {
                    self.metrics.attempt(missed.verdict.class);
                    // That it doesn't list its models says little of how it serves them.
                    match missed.verdict.class {
                        Class::KeyRejected | Class::QuotaExhausted | Class::RateLimited => {
                            lease.judged(&missed.verdict, &missed.told);
                        }
                        _ => lease.settle(Outcome::Abandoned),
                    }
                    if missed.verdict.class == Class::ClientFault {
                        return None;
                    }
                }
                Ok(Attempt::Passed(passed)) => {
                    self.metrics.attempt(passed.verdict.class);
                    lease.heard(&passed.told);
                    let text = alarm.limit(until, collect(passed.start, passed.rest)).await.flatten();
                    // That it was too long or too slow says nothing of the key.
                    lease.settle(if text.is_some() { Outcome::Good } else { Outcome::Abandoned });
                    return text;
                }
            }
        }
        None
    }
}

async fn collect(start: Bytes, rest: Rest) -> Option<Bytes> {
    let Rest::Coming(body) = rest else { return matches!(rest, Rest::Ended).then_some(start) };
    let rest = match Limited::new(body, LONGEST).collect().await {
        Ok(rest) => rest.to_bytes(),
        Err(error) => {
            let long = error.is::<LengthLimitError>();
            tracing::debug!(long, "a list of models that can't be read");
            return None;
        }
    };
    if start.is_empty() {
        return Some(rest);
    }
    let mut whole = BytesMut::from(start);
    whole.extend_from_slice(&rest);
    Some(whole.freeze())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_dialects_list_is_understood() {
        let names = |dialect, list: Value| {
            let entries = entries(dialect, &list)?;
            Some(entries.into_iter().map(|(id, _)| id).collect::<Vec<_>>())
        };
        let openai = json!({"object": "list", "data": [{"id": "gpt-4o"}, {"no": "id"}]});
        assert_eq!(names(Dialect::OpenAi, openai), Some(vec!["gpt-4o".to_owned()]));
        assert_eq!(names(Dialect::OpenAi, json!([{"id": "a"}])), Some(vec!["a".to_owned()]));
        let gemini = json!({"models": [{"name": "models/gemini-2.5-pro"}]});
        assert_eq!(names(Dialect::Gemini, gemini), Some(vec!["gemini-2.5-pro".to_owned()]));
        assert_eq!(names(Dialect::OpenAi, json!({"error": {}})), None);
    }
}
