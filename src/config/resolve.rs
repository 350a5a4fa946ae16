//! What was written, turned into what is meant: every section read, precedence, defaults.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
};

use super::{
    Config, Env, Flags, NamedPool, Notes, aliases,
    keys::{self, Defaults, Entry, OPENAI_KEYS, secrets},
    listen::{self, BACKEND_PORT, PORT},
    log::{LOG_LEVEL, RUST_LOG},
    notes, pools,
    problem::{Problem, Problems},
    providers,
    read::{CONFIG_PATH, Files},
    reference,
    section::{Ledger, Section},
    tree::{Format, Place},
    upstream::{self, rate},
};
use crate::{
    client,
    pool::{self, Strategy},
    rate::Rate,
    types::{BaseUrl, Fingerprint, Key, PoolName, Secret},
};

/// The variables that are read.
pub(super) const VARIABLES: [&str; 8] =
    [OPENAI_KEYS, PROXY_API_KEY, GLOBAL_PROXY_KEYS, PORT, BACKEND_PORT, CONFIG_PATH, RUST_LOG, LOG_LEVEL];

/// The variables that hold client keys.
pub(super) const PROXY_API_KEY: &str = "PROXY_API_KEY";
pub(super) const GLOBAL_PROXY_KEYS: &str = "GLOBAL_PROXY_KEYS";

/// Makes the configuration of what `files`, `flags` and `env` say, unless there are problems, here or in the `ledger`.
pub(super) fn resolve(
    files: &Files,
    flags: &Flags,
    env: &Env,
    mut ledger: Ledger,
) -> Result<Config, Problems> {
    let Draft { mut config, keys, pools, clients } = read(files, flags, env, &mut ledger);
    ledger.report_strangers();
    if let Some(problems) = Problems::of(ledger.problems) {
        return Err(problems);
    }
    let united = keys::unite(&PoolName::default(), keys);
    let mut warnings = ledger.warnings;
    warnings.extend(united.warnings);
    config.keys = united.keys;
    let mut key_sources = united.sources;
    let mut known: HashMap<(Fingerprint, BaseUrl), PoolName> = HashMap::new();
    note_repeated(&PoolName::default(), &config.keys, &mut known, &mut warnings);
    for pool in pools {
        let united = keys::unite(&pool.name, pool.entries);
        warnings.extend(united.warnings);
        key_sources.extend(united.sources);
        note_repeated(&pool.name, &united.keys, &mut known, &mut warnings);
        config.pools.push(NamedPool {
            name: pool.name,
            api: pool.api,
            base_url: pool.base,
            keys: united.keys,
            places: united.places,
            proxies: pool.proxies,
        });
    }
    notes::warn(&config, &mut warnings);
    let sources = notes::sources(files, env, &key_sources, &clients);
    config.notes = Notes { sources, warnings, keys: united.places };
    Ok(config)
}

/// Says which credentials stand in another pool already.
fn note_repeated(
    pool: &PoolName,
    keys: &[Key],
    known: &mut HashMap<(Fingerprint, BaseUrl), PoolName>,
    warnings: &mut Vec<String>,
) {
    for key in keys {
        let credential = (key.fingerprint(), key.settings().base.clone());
        match known.get(&credential).filter(|first| *first != pool) {
            Some(first) => warnings.push(format!(
                "key {} of the pool `{pool}` is one of `{first}` too: each learns of its limits by itself",
                key.id()
            )),
            None => drop(known.insert(credential, pool.clone())),
        }
    }
}

/// A configuration without its keys.
pub(super) struct Draft {
    config: Config,
    keys: Vec<Entry>,
    pools: Vec<pools::Draft>,
    clients: Vec<ClientKey>,
}

/// A client key and the source that has it.
pub(super) struct ClientKey {
    pub(super) secret: Secret,
    pub(super) source: String,
}

/// Reads every section. What fails is a problem, and its default goes on, so that all problems are found.
pub(super) fn read(files: &Files, flags: &Flags, env: &Env, ledger: &mut Ledger) -> Draft {
    let mut root = Section::root(&files.root, ledger);
    let client_keys = client_keys(root.section("clients", "clients"), env);
    let (per_key, burst, clients) =
        limits(root.section("rate_limit", "rate_limit"), &client_keys, files.older.global_burst);
    let upstream = upstream::upstream(root.section("upstream", "upstream"), env);
    let defaults = Defaults { rate: per_key, burst, ..Defaults::at(&upstream.base) };
    let Keys { settings: mut pool, entries, pools, env_keys } =
        keys_of(&mut root, &defaults, env, files.complete);
    let mut names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    names.push(PoolName::DEFAULT);
    let aliases = aliases::aliases(&mut root, &names);
    pool.max_waiting = upstream.max_waiting.unwrap_or(pool.max_waiting);
    let open = clients.keys.is_empty();
    let mut server = listen::server(root.section("server", "server"), open, files.older.port, flags, env);
    let section = root.section("observability", "observability");
    let (telemetry, debug_headers) = listen::observability(section, env, server.bind);
    server.debug_headers = debug_headers;
    let config = Config {
        server,
        telemetry,
        clients,
        pool,
        keys: Vec::new(),
        env_keys,
        base_url: upstream.base,
        pools: Vec::new(),
        aliases,
        policy: upstream.policy,
        transport: upstream.transport,
        notes: Notes::default(),
    };
    Draft { config, keys: entries, pools, clients: client_keys }
}

/// Reads `[clients]`, and the variables that hold client keys.
fn client_keys(mut section: Section<'_, '_>, env: &Env) -> Vec<ClientKey> {
    let mut keys = Vec::new();
    for (text, place) in section.texts("keys").unwrap_or_default() {
        let found = reference::resolve(text, place, env).and_then(|found| {
            // A variable or a file may hold several.
            let several = reference::is_reference(text);
            let items: Vec<&str> = if several { found.split([',', '\n']).collect() } else { vec![&found] };
            let filled = items.into_iter().filter(|item| !several || !item.trim().is_empty());
            filled
                .map(Secret::new)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| place.problem(error.to_string()))
        });
        let source = &place.source.name;
        match found {
            Ok(found) => {
                keys.extend(found.into_iter().map(|secret| ClientKey { secret, source: source.clone() }));
            }
            Err(problem) => section.ledger().problems.push(problem),
        }
    }
    for name in [PROXY_API_KEY, GLOBAL_PROXY_KEYS] {
        let found = secrets(env, name, section.ledger());
        keys.extend(found.map(|(_, secret)| ClientKey { secret, source: Env::describe(name) }));
    }
    keys
}

/// Reads `[rate_limit]`: the rate of a key without one of its own, the burst, and the limits that are ours.
fn limits(
    mut section: Section<'_, '_>,
    keys: &[ClientKey],
    global_burst: Option<NonZeroU32>,
) -> (Option<Rate>, Option<NonZeroU32>, client::Settings) {
    let burst = section.whole("burst", 1..=u32::MAX.into()).and_then(NonZeroU32::new);
    let mut rate = |name, burst| rate(&mut section, name, burst).flatten();
    let per_key = rate("per_key_rps", burst);
    let global_rate = rate("global_rps", global_burst.or(burst));
    let per_client_rate = rate("per_client_rps", burst);
    let mut seen = HashSet::new();
    let keys = keys.iter().map(|key| key.secret.clone());
    let keys = keys.filter(|secret| seen.insert(secret.fingerprint())).collect();
    (per_key, burst, client::Settings { keys, global_rate, per_client_rate })
}

/// What all sources say of keys.
struct Keys {
    settings: pool::Settings,
    /// Those of the pool `default`.
    entries: Vec<Entry>,
    /// The other pools.
    pools: Vec<pools::Draft>,
    /// Whether variables without a number count.
    env_keys: bool,
}

/// Reads `[keys]`, `apiKeys`, `[[pools]]` and the variables that hold keys.
fn keys_of(root: &mut Section<'_, '_>, defaults: &Defaults<'_>, env: &Env, complete: bool) -> Keys {
    let (mut keys, mut written) = (Vec::new(), false);
    let mut read = |place: &Place, section: Section<'_, '_>| {
        written = true;
        keys.extend(keys::entry(place, section, defaults, env));
    };
    let mut section = root.section("keys", "keys");
    section.each("pool", "keys.pool", false, &mut read);
    let settings = pool::Settings {
        strategy: section.parsed("rotation_strategy", strategy).unwrap_or_default(),
        unhealthy_penalty: section
            .number("unhealthy_penalty", "at least 1", |penalty| penalty >= 1.0)
            .unwrap_or(pool::Settings::default().unhealthy_penalty),
        others_step_in: section.flag("others_step_in").unwrap_or_default(),
        ..pool::Settings::default()
    };
    let env_keys = section.flag("env_keys");
    drop(section);
    match root.place("apiKeys") {
        Some(place) if place.source.format == Format::Toml => {
            let problem = place.problem("unknown name").hint("in TOML, keys are tables: [[keys.pool]]");
            root.pass("apiKeys");
            root.ledger().problems.push(problem);
        }
        _ => root.each("apiKeys", "keys.pool", true, &mut read),
    }
    let problems = root.ledger().problems.len();
    let mut pools = pools::pools(root, defaults, env);
    // Where a file names keys, a variable that is there for other programs means nothing.
    let env_keys = env_keys.unwrap_or(!written && pools.is_empty());
    let of_providers = providers::of_environment(env, defaults, env_keys, &pools, root.ledger());
    pools::join(&mut pools, of_providers);
    pools::drop_empty(&mut pools, root.ledger());
    // What is wrong with a pool has been told.
    written |= !pools.is_empty() || root.ledger().problems.len() > problems;
    // Entries repeat in the order of the files.
    written |= env.list(OPENAI_KEYS).next().is_some();
    keys.extend(keys::of_environment(env, defaults, root.ledger()));
    if !written && complete {
        root.ledger().problems.push(no_key());
    }
    Keys { settings, entries: keys, pools, env_keys }
}

fn strategy(name: &str) -> Result<Strategy, (String, Option<String>)> {
    name.parse().map_err(|_| {
        let names = Strategy::NAMES.map(|(name, _)| name).join(", ");
        (format!("{name:?} is no rotation strategy"), Some(format!("one of {names}")))
    })
}

fn no_key() -> Problem {
    Problem {
        file: None,
        position: None,
        place: "keys".to_owned(),
        reason: "there is no key".to_owned(),
        hint: Some(
            "set the variable OPENAI_KEYS=sk-first,sk-second, or write a config.json such as\n\
             {\"apiKeys\": [{\"key\": \"sk-first\", \"url\": \"https://api.openai.com/v1\", \"models\": [\"others\"]}]}"
                .to_owned(),
        ),
    }
}
