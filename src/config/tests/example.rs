//! The example files: valid, complete, and every name in them does something.

use std::collections::BTreeSet;

use super::*;

const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// Another value for every setting.
const OTHERS: [(&str, &str, &str); 65] = [
    ("server", "bind_addr", "\"127.0.0.1:81\""),
    ("server", "request_body_limit_bytes", "1"),
    ("server", "max_upload_bytes", "1"),
    ("server", "max_frame_bytes", "125"),
    ("server", "graceful_shutdown_seconds", "0"),
    ("server", "shutdown_delay_seconds", "1"),
    ("server", "max_connections", "1"),
    ("server", "replay_memory_bytes", "67108864"),
    ("server", "trusted_proxies", "[\"10.0.0.1\"]"),
    ("server", "cors_allowed_origins", "[\"*\"]"),
    ("upstream", "base_url", "\"http://localhost\""),
    ("upstream", "ca_file", "\"ca.pem\""),
    ("upstream", "http2", "true"),
    ("upstream", "connect_timeout_ms", "1"),
    ("upstream", "request_timeout_ms", "1"),
    ("upstream", "first_byte_timeout_ms", "1"),
    ("upstream", "idle_timeout_ms", "1"),
    ("upstream", "total_timeout_ms", "1"),
    ("upstream", "max_retries", "0"),
    ("upstream", "retry_initial_backoff_ms", "1"),
    ("upstream", "retry_max_backoff_ms", "2001"),
    ("upstream", "hedge_after_ms", "2500"),
    ("upstream", "ask_for_usage", "true"),
    ("upstream", "max_wait_ms", "0"),
    ("upstream", "max_waiting", "1"),
    ("keys", "rotation_strategy", "\"random\""),
    ("keys", "unhealthy_penalty", "1"),
    ("keys", "others_step_in", "true"),
    ("keys", "env_keys", "false"),
    ("keys.pool", "key", "\"sk-other\""),
    ("keys.pool", "url", "\"https://h\""),
    ("keys.pool", "models", "\"m\""),
    ("keys.pool", "label", "\"l\""),
    ("keys.pool", "account", "\"work\""),
    ("keys.pool", "organization", "\"o\""),
    ("keys.pool", "project", "\"p\""),
    ("keys.pool", "priority", "1"),
    ("keys.pool", "weight", "2"),
    ("keys.pool", "rps", "1"),
    ("keys.pool", "max_in_flight", "1"),
    ("pools", "name", "\"other\""),
    ("pools", "provider", "\"openrouter\""),
    ("pools", "dialect", "\"azure\""),
    ("pools", "base_url", "\"https://h\""),
    ("pools", "models", "\"m\""),
    ("pools", "proxy_url", "\"socks5://h:1\""),
    ("pools", "headers", "{ x-a = \"b\" }"),
    ("pools", "query", "{ a = \"b\" }"),
    ("pools", "credential", "{ query = \"k\" }"),
    ("pools", "methods", "[\"GET\"]"),
    ("pools", "api_version", "\"v1\""),
    ("pools", "deployments", "{ m = \"d\" }"),
    ("pools.keys", "key", "\"sk-other\""),
    ("models", "name", "\"other\""),
    ("models", "target", "\"m\""),
    ("models", "fallbacks", "[\"m\"]"),
    ("clients", "keys", "[\"ck\"]"),
    ("rate_limit", "per_key_rps", "1"),
    ("rate_limit", "global_rps", "1"),
    ("rate_limit", "per_client_rps", "1"),
    ("rate_limit", "burst", "7"),
    ("observability", "metrics_bind", "\"off\""),
    ("observability", "tracing_level", "\"debug\""),
    ("observability", "log_format", "\"json\""),
    ("observability", "debug_headers", "true"),
];

/// A pool and a model to be changed.
const POOL: &str = "[[pools]]\nname = \"p\"\ndialect = \"openai\"\nbase_url = \"https://openrouter.ai/api/v1\"\nprovider = \"openai\"\n\
                    [[pools.keys]]\nkey = \"sk-p\"\n";
const MODEL: &str = "[[models]]\nname = \"a\"\ntarget = \"b\"\nfallbacks = [\"c\"]\n";

/// The example's settings as (section, name, whole line), whether or not they are commented out.
fn settings() -> Vec<(String, String, String)> {
    let (mut section, mut settings) = (String::new(), Vec::new());
    for line in EXAMPLE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some(heading) = bare.strip_prefix('[') {
            section = heading.trim_matches(['[', ']']).to_owned();
        } else if let Some((name, _)) = bare.split_once(" = ").filter(|(name, _)| !name.contains([' ', '`']))
        {
            settings.push((section.clone(), name.to_owned(), line.to_owned()));
        }
    }
    settings
}

fn load(text: &str) -> Config {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = [("config.toml", text), ("ca.pem", &authority.cert.pem())];
    super::load(&files, &[KEY]).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

#[test]
fn the_example_is_valid_and_says_what_is_the_default() {
    let (example, default) = (load(EXAMPLE), load(""));
    assert_eq!(example.render(), default.render());
    let json = include_str!("../../../config.example.json");
    let config = super::load(&[("config.json", json)], &[]).unwrap();
    assert_eq!(secrets(&config), ["sk-replace-me-1", "sk-replace-me-2"]);
    assert_eq!(config.notes.warnings, [""; 0]);
}

#[test]
fn all_of_the_example_may_be_uncommented() {
    let lines = EXAMPLE.lines().map(|line| {
        let setting = settings().iter().any(|(.., known)| known == line) || line.starts_with("# [[");
        if setting { line.trim_start_matches("# ") } else { line }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let text = text.replace("env:MY_KEY", "sk-b").replace("env:GROQ_KEY", "sk-c");
    // It shows what belongs to another dialect.
    let azures = |line: &&str| !line.starts_with("api_version") && !line.starts_with("deployments");
    let config = load(&text.lines().filter(azures).collect::<Vec<_>>().join("\n"));
    assert_eq!((config.keys.len(), config.pools.len(), config.aliases.len()), (2, 1, 1));
}

#[test]
fn every_name_that_is_read_stands_in_the_example() {
    let mut ledger = section::Ledger::default();
    let dir = tempfile::tempdir().unwrap();
    let text = "[[keys.pool]]\nkey = \"sk-a\"\n[[pools]]\nname = \"groq\"\n[[pools.keys]]\nkey = \"sk-b\"\n\
                [[models]]\nname = \"m\"\ntarget = \"n\"\n";
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let files = read::files(&Flags::default(), &env(&[]), dir.path(), &mut ledger);
    let _ = resolve::read(&files, &Flags::default(), &env(&[]), &mut ledger);
    let shown: BTreeSet<_> = settings().into_iter().map(|(section, name, _)| (section, name)).collect();
    let read = ledger.known.iter().map(|(section, name)| ((*section).to_owned(), (*name).to_owned()));
    let is_setting = |(section, name): &(String, String)| {
        let is_list = section == "keys" && name == "pool" || section == "pools" && name == "keys";
        // What a key of a pool takes, and what is in braces, is told in a sentence.
        let is_told = section == "pools.keys" && name != "key" || section == "pools.credential";
        !section.is_empty() && !is_list && !is_told
    };
    let read: BTreeSet<_> = read.filter(is_setting).collect();
    assert_eq!(shown, read);
}

#[test]
fn every_name_in_the_example_changes_something() {
    let settings = settings();
    assert!(settings.len() >= 42, "{settings:?}");
    for (section, name, line) in settings {
        let other = OTHERS.iter().find(|other| (other.0, other.1) == (section.as_str(), name.as_str()));
        let (_, _, value) = other.unwrap_or_else(|| panic!("no other value for {section}.{name}"));
        let base = match section.as_str() {
            "keys.pool" => format!("{EXAMPLE}\n[[keys.pool]]\nkey = \"sk-b\"\n"),
            "pools" | "pools.keys" => format!("{EXAMPLE}\n{POOL}"),
            "models" => format!("{EXAMPLE}\n{MODEL}"),
            // A burst says something of a rate.
            "rate_limit" if name == "burst" => EXAMPLE.replace("per_key_rps = 0", "per_key_rps = 1"),
            _ => EXAMPLE.to_owned(),
        };
        let changed = match (section.as_str(), name.as_str()) {
            ("keys.pool", "key") => base.replace("\"sk-b\"", value),
            ("keys.pool", _) => format!("{base}{name} = {value}\n"),
            ("pools.keys", _) => base.replace("\"sk-p\"", value),
            ("pools" | "models", _) => {
                let (before, table) =
                    base.rsplit_once("\n[[pools]]\n").or(base.rsplit_once("\n[[models]]\n")).unwrap();
                let heading = if section == "pools" { "[[pools]]" } else { "[[models]]" };
                let others = table.lines().filter(|line| !line.starts_with(&format!("{name} = ")));
                let others = others.collect::<Vec<_>>().join("\n");
                let azure = matches!(name.as_str(), "api_version" | "deployments");
                let others = if azure { others.replace("openai", "azure") } else { others };
                format!("{before}\n{heading}\n{name} = {value}\n{others}\n")
            }
            _ => base.replace(&format!("{line}\n"), &format!("{name} = {value}\n")),
        };
        assert_ne!(base, changed, "{section}.{name}");
        let (before, after) = (load(&base), load(&changed));
        assert_ne!(format!("{before:?}"), format!("{after:?}"), "{section}.{name} has no effect");
        assert_ne!(before.render(), after.render(), "{section}.{name} is not shown");
    }
}
