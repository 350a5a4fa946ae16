//! Pools and the variables that hold their keys.

use super::*;

fn shown(config: &Config) -> Vec<(&str, &str, Vec<&str>)> {
    let shown = config.pools.iter().map(|pool| {
        let secrets = pool.keys.iter().map(|key| key.secret().expose()).collect();
        (pool.name.as_str(), pool.base_url.as_str(), secrets)
    });
    shown.collect()
}

const GROQ: &str = "https://api.groq.com/openai/v1";
const FILE: (&str, &str) = ("config.json", r#"{"apiKeys": [{"key": "sk-a"}]}"#);

#[test]
fn a_numbered_variable_is_a_key_in_any_case() {
    let config = load(&[FILE], &[("GROQ_API_KEY_2", "b"), ("GROQ_API_KEY_1", "a")]).unwrap();
    assert_eq!(shown(&config), [("groq", GROQ, vec!["a", "b"])]);
    assert!(!config.env_keys);
    let line =
        config.notes.sources.iter().find(|line| line.starts_with("environment GROQ_API_KEY: 2 keys ("));
    assert!(line.is_some(), "{:?}", config.notes);
    let alone = load(&[], &[("GROQ_API_KEY_1", "a")]).unwrap();
    assert_eq!((shown(&alone), alone.keys.len()), (vec![("groq", GROQ, vec!["a"])], 0));
}

#[test]
fn a_variable_of_other_programs_is_a_key_only_where_no_file_names_keys() {
    let other = ("OPENAI_API_KEY", "sk-o");
    let names = |config: &Config| config.pools.iter().map(|pool| pool.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&load(&[], &[other]).unwrap()), ["openai"]);
    assert_eq!(
        names(&load(&[("config.toml", "[upstream]\nmax_retries = 1\n")], &[other]).unwrap()),
        ["openai"]
    );
    assert_eq!(names(&load(&[FILE], &[other]).unwrap()), [""; 0]);
    let asked = ("config.toml", "[keys]\nenv_keys = true\n[[keys.pool]]\nkey = \"sk-a\"\n");
    assert_eq!(names(&load(&[asked], &[other]).unwrap()), ["openai"]);
    let declined = ("config.toml", "[keys]\nenv_keys = false\n");
    assert!(problems(&[declined], &[other]).contains("there is no key"));
}

#[test]
fn an_unknown_provider_counts_with_a_base() {
    let key = ("ACME_API_KEY_1", "a");
    assert!(problems(&[], &[key]).contains("there is no key"));
    let config = load(&[], &[key, ("ACME_API_BASE", "https://acme.example")]).unwrap();
    assert_eq!(shown(&config), [("acme", "https://acme.example/v1", vec!["a"])]);
    let told = problems(&[], &[key, ("ACME_API_BASE", "https://u:canary@acme.example")]);
    assert!(told.contains("environment: ACME_API_BASE") && !told.contains("canary"), "{told}");
    assert!(problems(&[], &[("GROQ_API_KEY_1", "two words")]).contains("environment: GROQ_API_KEY_1"));
}

#[test]
fn keys_of_variables_go_to_the_pool_of_their_name() {
    let toml = "[[pools]]\nname = \"groq\"\nbase_url = \"https://gateway.example\"\ncredential = { header = \"x-t\", prefix = \"T \" }\n";
    let config = load(&[("config.toml", toml)], &[("GROQ_API_KEY_1", "a")]).unwrap();
    assert_eq!(shown(&config), [("groq", "https://gateway.example/v1", vec!["a"])]);
    assert_eq!(config.pools[0].keys[0].plain(), "T a");
    // Without it the pool has no key, and is left out.
    let config = load(&[("config.toml", toml)], &[KEY]).unwrap();
    assert_eq!(shown(&config), []);
    assert!(config.notes.warnings.concat().contains("the pool `groq` has no key"), "{:?}", config.notes);
}

#[test]
fn no_pool_takes_the_name_of_that_without_one() {
    let told = problems(
        &[(
            "config.toml",
            "[[pools]]\nname = \"default\"\nprovider = \"groq\"\n[[pools.keys]]\nkey = \"sk-a\"\n",
        )],
        &[],
    );
    assert!(told.contains("pools[0].name\n  this name is taken"), "{told}");
}

#[test]
fn keys_of_pools_are_looked_at_like_those_without_one() {
    let toml = "[clients]\nkeys = [\"k1\"]\n[[pools]]\nname = \"a\"\nbase_url = \"http://llm.example.com\"\n[[pools.keys]]\nkey = \"k1\"\n";
    let warnings = load(&[("config.toml", toml)], &[]).unwrap().notes.warnings.join("\n");
    assert!(
        warnings.contains("http://llm.example.com in clear") && warnings.contains("also a key of a pool"),
        "{warnings}"
    );
}
