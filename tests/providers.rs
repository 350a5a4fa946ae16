//! Every provider that is known by name: the URLs that requests go to, and the header in which the credential stands.
//!
//! `tests/fixtures/providers.txt` is written by hand, from the providers' documentation. A provider that isn't in it
//! fails, as does a line that nobody asks for.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use key_cycle_proxy::{
    config::{Config, Env, Flags, NamedPool},
    forward::Target,
    provider::{KNOWN, Known},
    types::Dialect,
};

const TABLE: &str = include_str!("fixtures/providers.txt");
const SECRET: &str = "sk-of-the-table";

/// The pool of a provider, of its variables alone.
fn pool(known: &Known) -> NamedPool {
    let name = known.name.to_uppercase();
    let mut variables = BTreeMap::from([(format!("{name}_API_KEY_1"), SECRET.to_owned())]);
    if known.base.is_none() {
        variables.insert(format!("{name}_API_BASE"), "https://resource.example".to_owned());
    }
    let dir = tempfile::tempdir().expect("a folder without files");
    let config = Config::load(&Flags::default(), &Env::from_map(variables), dir.path());
    let mut pools = config.unwrap_or_else(|problems| panic!("{}: {problems}", known.name)).pools;
    assert_eq!(pools.len(), 1, "{}", known.name);
    pools.remove(0)
}

/// One line of the table.
fn line(pool: &NamedPool, what: &str, target: &Target, model: Option<&str>) -> String {
    let key = &pool.keys[0];
    let spoken = target.spoken();
    let path = pool.api.target(spoken, key, target, model).expect("it can be sent");
    let mut headers = HeaderMap::new();
    pool.api.sign(spoken, key, &mut headers);
    let mut credentials = headers.iter().filter_map(|(name, value)| {
        let value = value.to_str().expect("credentials are ASCII");
        value.contains(SECRET).then(|| format!("{name}: {}", value.replace(SECRET, "KEY")))
    });
    let credential = credentials.next().expect("a credential is sent");
    assert_eq!(credentials.next(), None, "{} has several credentials", pool.name);
    format!("{} {what} {}{path} {credential}", pool.name, pool.base_url.origin())
}

fn target(spoken: Dialect, path: &str) -> Target {
    Target::new(path, None).expect("a sound path").spoken_in(spoken)
}

/// What is asked of every provider.
fn lines(known: &Known) -> Vec<String> {
    let pool = pool(known);
    let speaks = |dialect| pool.api.speaks(dialect);
    let mut lines = Vec::new();
    assert!(speaks(Dialect::OpenAi), "{}", known.name);
    let chat = target(Dialect::OpenAi, "/chat/completions");
    lines.push(line(&pool, "chat", &chat, Some("m")));
    if speaks(Dialect::Anthropic) {
        lines.push(line(&pool, "messages", &target(Dialect::Anthropic, "/messages"), Some("m")));
    }
    if speaks(Dialect::Gemini) {
        let path = "/models/m:generateContent";
        lines.push(line(&pool, "generate", &target(Dialect::Gemini, path), Some("m")));
    }
    if speaks(Dialect::Azure) {
        let path = "/openai/deployments/m/chat/completions";
        lines.push(line(&pool, "deployment", &target(Dialect::Azure, path), Some("m")));
    }
    // Asked for in what the provider speaks itself.
    let models = match known.dialect {
        Dialect::Azure => target(Dialect::OpenAi, "/models"),
        dialect => target(dialect, "/models"),
    };
    lines.push(line(&pool, "models", &models, None));
    lines
}

#[test]
fn requests_go_where_the_providers_documentation_says() {
    let asked: BTreeSet<String> = KNOWN.iter().flat_map(lines).collect();
    let told = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let told: BTreeSet<String> = told.map(ToOwned::to_owned).collect();
    let differ =
        |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        asked == told,
        "not in the table:\n{}\nonly there:\n{}",
        differ(&asked, &told),
        differ(&told, &asked)
    );
}

#[test]
fn every_alias_of_a_provider_stands_for_it_in_variables() {
    for known in KNOWN {
        for alias in known.aliases {
            let as_named = Known { name: alias, ..*known };
            assert_eq!(pool(&as_named).name.as_str(), known.name, "{alias}");
        }
    }
}
