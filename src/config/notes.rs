//! What is said at the start: what came from where, and what to mind.

use std::collections::{BTreeSet, HashSet};

use url::{Host, Url};

use super::{
    Config, Env,
    keys::plural,
    listen::{BACKEND_PORT, PORT},
    log::{LOG_LEVEL, RUST_LOG},
    read::Files,
    resolve::{ClientKey, GLOBAL_PROXY_KEYS, PROXY_API_KEY},
};

/// The older systems' limit of a request body, which many files repeat.
const OLDER_BODY_LIMIT: usize = 262_144;

/// One line for each file, and for each variable that counted.
pub(super) fn sources(
    files: &Files,
    env: &Env,
    keys: &[(String, String)],
    clients: &[ClientKey],
) -> Vec<String> {
    let line = |source: &str| {
        let keys = keys.iter().filter(|(of, _)| of == source).map(|(_, keys)| keys.clone());
        let clients = clients.iter().filter(|key| key.source == source).count();
        let clients = (clients > 0).then(|| plural(clients, "client key"));
        let what: Vec<String> = keys.chain(clients).collect();
        (!what.is_empty()).then(|| format!("{source}: {}", what.join(", ")))
    };
    let of_files = files
        .sources
        .iter()
        .map(|source| line(&source.name).unwrap_or_else(|| format!("{}: settings", source.name)));
    let variables = [super::keys::OPENAI_KEYS, PROXY_API_KEY, GLOBAL_PROXY_KEYS];
    let variables = variables.map(Env::describe);
    // Those of providers, each once.
    let mut providers: Vec<&String> = Vec::new();
    for (source, _) in keys {
        let is_file = files.sources.iter().any(|file| file.name == *source);
        if !is_file && !variables.contains(source) && !providers.contains(&source) {
            providers.push(source);
        }
    }
    let keys = variables.iter().chain(providers).filter_map(|source| line(source));
    let log = if env.get(RUST_LOG).is_some() { RUST_LOG } else { LOG_LEVEL };
    let port = if env.get(PORT).is_some() { PORT } else { BACKEND_PORT };
    let settings = [(port, "the port"), (log, "the log filter")];
    let settings = settings.into_iter().filter(|(name, _)| env.get(name).is_some());
    let settings = settings.map(|(name, what)| format!("{}: {what}", Env::describe(name)));
    let keys: Vec<String> = keys.collect();
    of_files.chain(keys).chain(settings).collect()
}

/// What works and may not be meant.
pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    let bind = config.server.bind;
    if config.clients.keys.is_empty() && !bind.ip().to_canonical().is_loopback() {
        warnings.push(format!(
            "no client key is configured and {bind} is open to other machines: whoever reaches it spends the keys \
             (set PROXY_API_KEY, or [clients] keys)"
        ));
    }
    if config.server.body_limit == OLDER_BODY_LIMIT {
        warnings.push(format!(
            "request_body_limit_bytes = {OLDER_BODY_LIMIT} refuses images and long contexts; without it the limit is \
             {} MiB",
            crate::server::Settings::DEFAULT_BODY_LIMIT >> 20
        ));
    }
    let secrets: HashSet<_> = config.all_keys().map(crate::types::Key::fingerprint).collect();
    if config.clients.keys.iter().any(|key| secrets.contains(&key.fingerprint())) {
        warnings.push(
            "a client key is also a key of a pool: whoever has it can go upstream without us".to_owned(),
        );
    }
    let bases = config.all_keys().map(|key| &key.settings().base);
    let clear: BTreeSet<_> =
        bases.filter(|base| goes_in_clear(base.as_str())).map(|base| base.origin()).collect();
    warnings.extend(
        clear.into_iter().map(|origin| format!("keys travel to {origin} in clear: it is no https URL")),
    );
}

/// Whether a key sent to `base` can be read on the way.
fn goes_in_clear(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_be_reached_in_clear() {
        for base in
            ["https://a", "http://localhost:1/v1", "http://a.localhost", "http://127.9.9.9", "http://[::1]:2"]
        {
            assert!(!goes_in_clear(base), "{base}");
        }
        for base in ["http://a", "http://10.0.0.1/v1", "http://localhost.example.com"] {
            assert!(goes_in_clear(base), "{base}");
        }
    }
}
