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
    types::{BaseUrl, Dialect, KeySettings, ModelSet, PoolName, Secret},
};

pub(super) const KEY: &str = "_API_KEY";
const BASE: &str = "_API_BASE";
/// Azure's `api-version`.
const VERSION: &str = "_API_VERSION";

/// The keys of one provider: those with a number, by it; the one without, which comes first.
#[derive(Default)]
struct Found<'e> {
    numbered: Vec<(u64, &'e str)>,
    plain: Vec<&'e str>,
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
            Some(number) => known.numbered.push((number, variable)),
            None => known.plain.push(variable),
        }
    }
    let mut drafts: Vec<Draft> = found
        .into_iter()
        .filter_map(|(provider, mut found)| {
            found.numbered.sort();
            let there = before.iter().find(|draft| draft.name.as_str() == provider);
            let plain = found.plain.into_iter().filter(|_| with_plain);
            let variables: Vec<&str> = plain.chain(found.numbered.iter().map(|(_, name)| *name)).collect();
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
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            // Beyond what counts they come last.
            (rest.strip_suffix(KEY).filter(|_| digits)?, Some(number.parse().unwrap_or(u64::MAX)))
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
    let own = there.map(|there| there.api.dialect);
    let dialect = own.or(known.map(|known| known.dialect)).unwrap_or_default();
    let base = base_url(provider, dialect, env, ledger);
    let Some(base) =
        base.or_else(|| there.map(|there| there.base.clone())).or_else(|| known.and_then(base_of))
    else {
        // A shell has many such names.
        tracing::debug!(variables = ?variables, "ignored: no such provider is known, and there is no {}{BASE}", provider.to_ascii_uppercase());
        return None;
    };
    let mut api = api_of(dialect, known.filter(|known| known.dialect == dialect), Some(&base));
    if dialect == Dialect::Azure {
        api.api_version = setting(provider, VERSION, env).map(|(_, text)| Box::from(text));
    }
    let source = Env::describe(&format!("{}{KEY}", provider.to_ascii_uppercase()));
    let mut entries = Vec::new();
    for variable in variables {
        // Some put several into one.
        for (_, item) in env.list(variable) {
            match Secret::new(item) {
                Ok(secret) => {
                    let prefix = there.map(|there| there.prefix.clone()).unwrap_or_default();
                    let models = there.map_or_else(ModelSet::others, |there| there.models.clone());
                    let settings =
                        KeySettings { rate: defaults.rate, prefix, models, ..KeySettings::at(base.clone()) };
                    entries.push(Entry::new(secret, settings, source.clone(), Env::describe(variable)));
                }
                Err(error) => ledger.problems.push(Problem::new(Env::SOURCE, *variable, error.to_string())),
            }
        }
    }
    Some(Draft {
        name: PoolName::new(provider),
        api,
        base,
        proxies: None,
        prefix: Box::default(),
        models: ModelSet::others(),
        entries,
    })
}

/// What a variable of the provider with this suffix says, under whichever of its names, and that variable's name.
fn setting<'e>(provider: &str, suffix: &str, env: &'e Env) -> Option<(String, &'e str)> {
    let aliases = Known::find(provider).map_or(&[][..], |known| known.aliases).iter().copied();
    let mut names = std::iter::once(provider).chain(aliases);
    names.find_map(|name| {
        let variable = format!("{}{suffix}", name.to_ascii_uppercase().replace(['-', '.'], "_"));
        let text = env.get(&variable)?;
        Some((variable, text))
    })
}

/// The base URL that a variable has for a provider.
pub(super) fn base_url(provider: &str, dialect: Dialect, env: &Env, ledger: &mut Ledger) -> Option<BaseUrl> {
    let (variable, text) = setting(provider, BASE, env)?;
    let base = BaseUrl::parse_of(text, dialect);
    base.map_err(|error| ledger.problems.push(Problem::new(Env::SOURCE, variable, error.to_string()))).ok()
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
