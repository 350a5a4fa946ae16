//! Keys of providers in variables: `<PROVIDER>_API_KEY`, `<PROVIDER>_API_KEY_<N>`, `<PROVIDER>_API_BASE`.

use std::collections::BTreeMap;

use super::{
    Env,
    keys::{Defaults, Entry},
    pools::{Draft, api_of, base_of},
    problem::Problem,
    section::Ledger,
};
use crate::{
    provider::{KNOWN, Known},
    types::{BaseUrl, Dialect, KeySettings, PoolName, Secret},
};

const KEY: &str = "_API_KEY";
const BASE: &str = "_API_BASE";
/// Azure's `api-version`.
const VERSION: &str = "_API_VERSION";

/// The keys of one provider: those with a number, by it; the one without, which comes first.
#[derive(Default)]
struct Found<'e> {
    numbered: BTreeMap<u64, &'e str>,
    plain: Option<&'e str>,
}

/// Reads them. Names without a number count if `with_plain`; those of client keys and the like never do. A pool that
/// is there `before` under the name of a provider is where its keys go.
pub(super) fn of_environment(
    env: &Env,
    defaults: &Defaults<'_>,
    with_plain: bool,
    before: &[Draft],
    ledger: &mut Ledger,
) -> Vec<Draft> {
    let mut found: BTreeMap<String, Found<'_>> = BTreeMap::new();
    for name in env.names() {
        let Some((provider, number)) = split(name) else { continue };
        let Some(variable) = env.get(name).map(|_| name) else { continue };
        let known = found.entry(canonical(provider)).or_default();
        match number {
            Some(number) => drop(known.numbered.insert(number, variable)),
            None => known.plain = Some(variable),
        }
    }
    let mut drafts: Vec<Draft> = found
        .into_iter()
        .filter_map(|(provider, found)| {
            let there = before.iter().find(|draft| draft.name.as_str() == provider);
            let plain = found.plain.filter(|_| with_plain);
            let variables: Vec<&str> = plain.into_iter().chain(found.numbered.values().copied()).collect();
            if variables.is_empty() {
                None
            } else {
                draft(&provider, &variables, env, defaults, there, ledger)
            }
        })
        .collect();
    let rank = |draft: &Draft| KNOWN.iter().position(|known| known.name == draft.name.as_str());
    drafts.sort_by_key(|draft| rank(draft).unwrap_or(usize::MAX));
    drafts
}

/// The provider of a variable, and the key's number.
fn split(variable: &str) -> Option<(&str, Option<u64>)> {
    let (provider, number) = match variable.strip_suffix(KEY) {
        Some(provider) => (provider, None),
        None => {
            let (rest, number) = variable.rsplit_once('_')?;
            (rest.strip_suffix(KEY)?, Some(number.parse().ok()?))
        }
    };
    let named = !provider.is_empty()
        && provider.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    // The older systems' name for a client key.
    (named && provider != "PROXY").then_some((provider, number))
}

fn canonical(provider: &str) -> String {
    let name = provider.to_ascii_lowercase();
    Known::find(&name).map_or(name, |known| known.name.to_owned())
}

fn draft(
    provider: &str,
    variables: &[&str],
    env: &Env,
    defaults: &Defaults<'_>,
    there: Option<&Draft>,
    ledger: &mut Ledger,
) -> Option<Draft> {
    let known = Known::find(provider);
    let names = || {
        let aliases = known.map_or(&[][..], |known| known.aliases).iter().copied();
        std::iter::once(provider).chain(aliases).map(str::to_ascii_uppercase)
    };
    let setting = |suffix: &str| {
        let mut names = names().map(|name| format!("{name}{suffix}"));
        names.find_map(|name| Some((env.get(&name)?.to_owned(), name)))
    };
    let own = there.map(|there| there.api.dialect);
    let dialect = own.or(known.map(|known| known.dialect)).unwrap_or_default();
    let base = match setting(BASE) {
        Some((text, name)) => match BaseUrl::parse_of(&text, dialect) {
            Ok(base) => base,
            Err(error) => {
                ledger.problems.push(Problem::new(Env::SOURCE, name, error.to_string()));
                return None;
            }
        },
        None => match there.map(|there| there.base.clone()).or_else(|| known.and_then(base_of)) {
            Some(base) => base,
            None => {
                // A shell has many such names.
                tracing::debug!(variables = ?variables, "ignored: no such provider is known, and there is no {}{BASE}", provider.to_ascii_uppercase());
                return None;
            }
        },
    };
    let mut api = api_of(dialect, known.filter(|known| known.dialect == dialect), Some(&base));
    if dialect == Dialect::Azure {
        api.api_version = setting(VERSION).map(|(text, _)| Box::from(text));
    }
    let source = Env::describe(&format!("{}{KEY}", provider.to_ascii_uppercase()));
    let mut entries = Vec::new();
    for variable in variables {
        // Some put several into one.
        for (_, item) in env.list(variable) {
            match Secret::new(item) {
                Ok(secret) => {
                    let prefix = there.map(|there| there.prefix.clone()).unwrap_or_default();
                    let settings =
                        KeySettings { rate: defaults.rate, prefix, ..KeySettings::at(base.clone()) };
                    entries.push(Entry::new(secret, settings, source.clone(), Env::describe(variable)));
                }
                Err(error) => ledger.problems.push(Problem::new(Env::SOURCE, *variable, error.to_string())),
            }
        }
    }
    Some(Draft { name: PoolName::new(provider), api, base, proxies: None, prefix: Box::default(), entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], with_plain: bool) -> (Vec<Draft>, usize) {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (mut ledger, base) = (Ledger::default(), BaseUrl::parse("https://x").unwrap());
        let env = Env::from_map(owned.collect());
        let drafts = of_environment(&env, &Defaults::at(&base), with_plain, &[], &mut ledger);
        (drafts, ledger.problems.len())
    }

    fn shown(drafts: &[Draft]) -> Vec<(&str, &str, Vec<&str>)> {
        let shown = drafts.iter().map(|draft| {
            let secrets = draft.entries.iter().map(|entry| entry.secret().expose()).collect();
            (draft.name.as_str(), draft.base.as_str(), secrets)
        });
        shown.collect()
    }

    #[test]
    fn keys_are_ordered_by_their_numbers() {
        let (drafts, _) = read(
            &[
                ("GROQ_API_KEY_10", "c"),
                ("GROQ_API_KEY_2", "b"),
                ("GROQ_API_KEY", "a"),
                ("PROXY_API_KEY", "p"),
            ],
            true,
        );
        assert_eq!(shown(&drafts), [("groq", "https://api.groq.com/openai/v1", vec!["a", "b", "c"])]);
        let (drafts, _) = read(&[("GROQ_API_KEY", "a"), ("GROQ_API_KEY_1", "b")], false);
        assert_eq!(shown(&drafts)[0].2, ["b"], "a name without a number is somebody else's");
    }

    #[test]
    fn an_alias_is_the_same_provider_and_the_known_come_in_their_order() {
        let (drafts, _) = read(
            &[("GOOGLE_API_KEY_1", "g"), ("OPENAI_API_KEY_1", "o"), ("ANTHROPIC_API_KEY_1", "a")],
            false,
        );
        let names: Vec<_> = drafts.iter().map(|draft| (draft.name.as_str(), draft.api.dialect)).collect();
        assert_eq!(
            names,
            [("openai", Dialect::OpenAi), ("anthropic", Dialect::Anthropic), ("gemini", Dialect::Gemini)]
        );
    }

    #[test]
    fn an_unknown_provider_needs_a_base() {
        assert!(read(&[("ACME_API_KEY_1", "a")], true).0.is_empty());
        let (drafts, _) = read(&[("ACME_API_KEY_1", "a"), ("ACME_API_BASE", "https://acme.example")], true);
        assert_eq!(shown(&drafts), [("acme", "https://acme.example/v1", vec!["a"])]);
        let (drafts, problems) = read(&[("ACME_API_KEY_1", "a"), ("ACME_API_BASE", "acme")], true);
        assert_eq!((drafts.len(), problems), (0, 1));
    }

    #[test]
    fn a_base_of_ones_own_has_only_what_its_dialect_has() {
        let own = ("DEEPSEEK_API_BASE", "https://gateway.example/v1");
        let (drafts, _) = read(&[("DEEPSEEK_API_KEY_1", "a"), own], true);
        assert!(drafts[0].api.also.is_empty());
        let (drafts, _) = read(&[("DEEPSEEK_API_KEY_1", "a")], true);
        assert!(drafts[0].api.speaks(Dialect::Anthropic));
    }
}
