//! The keys of all sources, united.

use std::{
    collections::HashMap,
    num::{NonZeroU16, NonZeroU32},
};

use http::HeaderValue;

use super::{
    Env,
    problem::Problem,
    reference,
    section::{Ledger, Section},
    tree::Place,
    upstream::{base_url, rate},
};
use crate::{
    rate::Rate,
    types::{AccountId, BaseUrl, Dialect, Fingerprint, Key, KeySettings, ModelSet, PoolName, Secret},
};

/// The variable that holds keys for `upstream.base_url`.
pub(super) const OPENAI_KEYS: &str = "OPENAI_KEYS";

/// What a key has unless its entry says otherwise.
pub(super) struct Defaults<'d> {
    pub(super) base: &'d BaseUrl,
    pub(super) rate: Option<Rate>,
    pub(super) burst: Option<NonZeroU32>,
    /// What its base speaks.
    pub(super) dialect: Dialect,
    pub(super) models: ModelSet,
    /// What stands before it in its header.
    pub(super) prefix: Box<str>,
}

impl<'d> Defaults<'d> {
    /// Those of a key at an OpenAI-compatible base.
    pub(super) fn at(base: &'d BaseUrl) -> Self {
        Self {
            base,
            rate: None,
            burst: None,
            dialect: Dialect::OpenAi,
            models: ModelSet::others(),
            prefix: Box::default(),
        }
    }
}

/// A key as one source has it.
pub(super) struct Entry {
    secret: Secret,
    settings: KeySettings,
    /// The file or the environment: what is told apart when entries repeat.
    source: String,
    /// Where it stands, for a sentence.
    place: String,
}

impl Entry {
    /// A key that this source has at this place.
    pub(super) fn new(secret: Secret, settings: KeySettings, source: String, place: String) -> Self {
        Self { secret, settings, source, place }
    }

    #[cfg(test)]
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// Reads an entry of `[[keys.pool]]` or of `apiKeys`.
pub(super) fn entry(
    place: &Place,
    mut section: Section<'_, '_>,
    defaults: &Defaults<'_>,
    env: &Env,
) -> Option<Entry> {
    let secret = secret(place, &mut section, env);
    let url = section.parsed("url", |text| base_url(text, defaults.dialect));
    let failed = url.is_none() && section.place("url").is_some();
    let settings = KeySettings {
        models: models(&mut section).unwrap_or_else(|| defaults.models.clone()),
        label: section.parsed("label", label),
        account: section.parsed("account", account),
        organization: section.parsed("organization", header),
        project: section.parsed("project", header),
        priority: section.whole("priority", 0..=u8::MAX.into()).unwrap_or_default(),
        weight: section.whole("weight", 1..=65_535).and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
        rate: rate(&mut section, "rps", defaults.burst).unwrap_or(defaults.rate),
        max_in_flight: section.whole("max_in_flight", 1..=u32::MAX.into()).and_then(NonZeroU32::new),
        prefix: defaults.prefix.clone(),
        ..KeySettings::at(url.unwrap_or_else(|| defaults.base.clone()))
    };
    let source = place.source.name.clone();
    secret.filter(|_| !failed).map(|secret| Entry { secret, settings, source, place: place.describe() })
}

/// The keys of `OPENAI_KEYS`.
pub(super) fn of_environment(env: &Env, defaults: &Defaults<'_>, ledger: &mut Ledger) -> Vec<Entry> {
    let settings = KeySettings { rate: defaults.rate, ..KeySettings::at(defaults.base.clone()) };
    let source = Env::describe(OPENAI_KEYS);
    secrets(env, OPENAI_KEYS, ledger)
        .map(|(index, secret)| {
            let place = format!("{source}[{index}]");
            Entry { secret, settings: settings.clone(), source: source.clone(), place }
        })
        .collect()
}

/// The credentials of a variable that holds a comma list, with their places in it.
pub(super) fn secrets<'e>(
    env: &'e Env,
    name: &'e str,
    ledger: &'e mut Ledger,
) -> impl Iterator<Item = (usize, Secret)> + 'e {
    env.list(name).filter_map(move |(index, item)| match Secret::new(item) {
        Ok(secret) => Some((index, secret)),
        Err(error) => {
            let place = format!("{name}[{index}]");
            ledger.problems.push(Problem::new(Env::SOURCE, place, error.to_string()));
            None
        }
    })
}

/// The keys of all sources.
#[derive(Default)]
pub(super) struct United {
    pub(super) keys: Vec<Key>,
    /// Where each was found.
    pub(super) places: Vec<String>,
    /// For each source its keys, as a line says it.
    pub(super) sources: Vec<(String, String)>,
    /// What was repeated.
    pub(super) warnings: Vec<String>,
}

/// Unites `entries`, those of each source together, and gives the keys their ids.
///
/// Within a source an entry is repeated that has the same secret, URL and models as an earlier one; over sources the
/// same secret and URL are enough. The first counts.
pub(super) fn unite(pool: &PoolName, entries: Vec<Entry>) -> United {
    let mut kept: Vec<Entry> = Vec::new();
    let mut same: HashMap<(Fingerprint, BaseUrl), Vec<usize>> = HashMap::new();
    let mut by_source: Vec<(String, Vec<usize>)> = Vec::new();
    let mut repeated: Vec<(String, usize)> = Vec::new();
    for entry in entries {
        if by_source.last().is_none_or(|(source, _)| *source != entry.source) {
            by_source.push((entry.source.clone(), Vec::new()));
        }
        let indices = by_source.last_mut().map(|(_, indices)| indices).expect("pushed if it was empty");
        let alike = same.entry((entry.secret.fingerprint(), entry.settings.base.clone())).or_default();
        let first = alike.iter().copied().find(|&index| {
            let known = &kept[index];
            known.source != entry.source || names(&known.settings.models) == names(&entry.settings.models)
        });
        if let Some(index) = first {
            repeated.push((entry.place, index));
            if !indices.contains(&index) {
                indices.push(index);
            }
        } else {
            alike.push(kept.len());
            indices.push(kept.len());
            kept.push(entry);
        }
    }
    let places: Vec<String> = kept.iter().map(|entry| entry.place.clone()).collect();
    let entries = kept.into_iter().map(|entry| (entry.secret, entry.settings)).collect();
    let keys = Key::pool(pool, entries);
    let warnings = repeated.iter().map(|(place, index)| {
        let (id, first) = (keys[*index].id(), &places[*index]);
        format!("{place} repeats key {id} of {first}: it is one key, as the latter has it")
    });
    let warnings = warnings.collect();
    let sources = by_source.into_iter().map(|(source, indices)| (source, list(&keys, &indices))).collect();
    United { keys, places, sources, warnings }
}

/// How many ids a line shows.
const SHOWN: usize = 8;

fn list(keys: &[Key], indices: &[usize]) -> String {
    let mut ids: Vec<String> =
        indices.iter().take(SHOWN).map(|&index| keys[index].id().to_string()).collect();
    if indices.len() > SHOWN {
        ids.push(format!("and {} more", indices.len() - SHOWN));
    }
    format!("{} ({})", plural(indices.len(), "key"), ids.join(", "))
}

/// So many things.
pub(super) fn plural(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

fn names(models: &ModelSet) -> Vec<String> {
    let mut names: Vec<String> = models.entries().collect();
    names.sort_unstable();
    names
}

fn secret(place: &Place, section: &mut Section<'_, '_>, env: &Env) -> Option<Secret> {
    let text = section.text("key");
    let Some(at) = section.place("key") else {
        section.ledger().problems.push(place.problem("this entry has no `key`"));
        return None;
    };
    let secret = reference::resolve(text?, at, env)
        .and_then(|text| Secret::new(&text).map_err(|error| at.problem(error.to_string())));
    secret.map_err(|problem| section.ledger().problems.push(problem)).ok()
}

pub(super) fn models(section: &mut Section<'_, '_>) -> Option<ModelSet> {
    let texts = section.texts("models")?;
    let mut entries = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        match ModelSet::parse(&[text]) {
            Ok(_) => entries.push(text),
            Err(name) => {
                let reason = format!("{name:?}: a `*` may only stand at the end of a name");
                section.ledger().problems.push(place.problem(reason));
            }
        }
    }
    ModelSet::parse(&entries).ok()
}

fn label(text: &str) -> Result<String, (String, Option<String>)> {
    let text = text.trim();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(("a label is a name for people, without control characters".to_owned(), None));
    }
    Ok(text.to_owned())
}

fn account(text: &str) -> Result<String, (String, Option<String>)> {
    let text = text.trim();
    let is_name = AccountId::declared(text).is_some() && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned()).ok_or_else(|| {
        let reason = "an account is a name that its keys share: up to 256 bytes, without control characters";
        (reason.to_owned(), None)
    })
}

fn header(text: &str) -> Result<HeaderValue, (String, Option<String>)> {
    let text = text.trim();
    let fit = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let value = fit.then(|| HeaderValue::from_str(text).ok()).flatten();
    value
        .ok_or_else(|| ("must be visible ASCII without white space: it is sent as a header".to_owned(), None))
}
