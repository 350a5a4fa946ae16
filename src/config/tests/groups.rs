//! An older `config.yaml`, and our own names in YAML.

use super::*;
use crate::types::Dialect;

fn yaml(text: &str) -> Config {
    load(&[("config.yaml", text)], &[]).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn wrong(text: &str) -> String {
    problems(&[("config.yaml", text)], &[])
}

/// A file with one group, to which `more` is added.
fn group(more: &str) -> String {
    format!("groups:\n- name: g\n  api_keys: [k1]\n{more}")
}

#[test]
fn a_group_is_a_pool_of_what_its_host_speaks() {
    for (target, dialect, base) in [
        (None, Dialect::Gemini, "https://generativelanguage.googleapis.com/v1beta"),
        (
            Some("https://generativelanguage.googleapis.com"),
            Dialect::Gemini,
            "https://generativelanguage.googleapis.com/v1beta",
        ),
        (
            Some("https://generativelanguage.googleapis.com/v1beta/openai/"),
            Dialect::Gemini,
            "https://generativelanguage.googleapis.com/v1beta",
        ),
        (
            Some("https://generativelanguage.googleapis.com/v1"),
            Dialect::Gemini,
            "https://generativelanguage.googleapis.com/v1",
        ),
        (Some("https://api.anthropic.com/"), Dialect::Anthropic, "https://api.anthropic.com/v1"),
        (Some("https://api.groq.com"), Dialect::OpenAi, "https://api.groq.com/openai/v1"),
        (Some("https://api.deepseek.com"), Dialect::OpenAi, "https://api.deepseek.com/v1"),
        (Some("http://10.0.0.1:9/x"), Dialect::OpenAi, "http://10.0.0.1:9/x/v1"),
    ] {
        let line = target.map(|target| format!("  target_url: {target}\n")).unwrap_or_default();
        let config = yaml(&group(&line));
        let [pool] = config.pools.as_slice() else { panic!("{:?}", config.pools) };
        assert_eq!((pool.api.dialect, pool.base_url.as_str()), (dialect, base), "{target:?}");
        assert_eq!(pool.keys[0].settings().base.as_str(), base, "{target:?}");
        assert_eq!(
            pool.api.speaks(Dialect::Anthropic),
            matches!(target, Some(t) if t.contains("anthropic") || t.contains("deepseek"))
        );
    }
}

#[test]
fn its_aliases_are_the_models_of_its_keys() {
    let config = yaml(&group("  model_aliases: [gemini-2.5-pro, gemini-2.5-flash]\n"));
    assert_eq!(config.pools[0].keys[0].settings().models.exact(), ["gemini-2.5-pro", "gemini-2.5-flash"]);
    for none in ["  model_aliases: []\n", "  model_aliases:\n", ""] {
        let config = yaml(&group(none));
        assert_eq!(config.pools[0].keys[0].settings().models, types::ModelSet::others(), "{none}");
    }
}

#[test]
fn a_name_that_is_no_slug_becomes_one_and_that_is_told() {
    let config = yaml("groups:\n- {name: Group 2 (EU), api_keys: [k1]}\n- {name: Default, api_keys: [k2]}\n");
    assert_eq!(config.pools[0].name.as_str(), "group-2--eu-");
    let second = &config.pools[1];
    assert_eq!((second.name.as_str(), second.api.dialect), ("default-group", Dialect::Gemini));
    assert_eq!(second.base_url.as_str(), "https://generativelanguage.googleapis.com/v1beta");
    let warnings = config.notes.warnings.join("\n");
    assert!(
        warnings.contains("config.yaml:2 groups[0].name: the pool is called `group-2--eu-`"),
        "{warnings}"
    );
    assert!(
        warnings.contains("config.yaml:3 groups[1].name: the pool is called `default-group`"),
        "{warnings}"
    );
    assert!(wrong("groups:\n- {name: ' ', api_keys: [k1]}\n").contains("not a name for a pool"));
    let twice = "groups:\n- {name: A, api_keys: [k1]}\n- {name: a, api_keys: [k1]}\n";
    assert!(wrong(twice).contains("a pool of this name is at config.yaml:2 groups[0]"), "{}", wrong(twice));
}

#[test]
fn a_forward_proxy_is_the_groups_own() {
    let text = "groups:\n- {name: a, api_keys: [k1], proxy_url: 'http://p:1'}\n- {name: b, api_keys: [k2], proxy_url: 'socks5://p:1'}\n- {name: c, api_keys: [k3], proxy_url: null}\n";
    let config = yaml(text);
    let has: Vec<_> = config.pools.iter().map(|pool| pool.proxies.is_some()).collect();
    assert_eq!(has, [true, true, false]);
    let told = wrong(&group("  proxy_url: ftp://user:canary@p\n"));
    assert!(told.contains("config.yaml:4:14: groups[0].proxy_url") && !told.contains("canary"), "{told}");
}

#[test]
fn times_and_rates_are_ours_in_other_units() {
    let text = group(
        "server: {port: 4806, connect_timeout_secs: 7, request_timeout_secs: 90}\nrate_limit: {requests_per_minute: 90, burst_size: 20}\n",
    );
    let config = yaml(&text);
    assert_eq!(config.server.bind, "127.0.0.1:4806".parse().unwrap());
    assert_eq!(config.transport.connect_timeout.as_secs(), 7);
    assert_eq!(config.policy.head_timeout.as_secs(), 90);
    assert_eq!(config.clients.global_rate, rate::Rate::per_second(1.5, 20.try_into().unwrap()));
    assert_eq!(config.pools[0].keys[0].settings().rate, None);
    assert_eq!(config.notes.warnings, [""; 0]);
    for none in ["{requests_per_minute: 0, burst_size: 0}", "{requests_per_minute: 0}", "{}", ""] {
        assert_eq!(yaml(&group(&format!("rate_limit: {none}\n"))).clients.global_rate, None, "{none}");
    }
    let without_burst = yaml(&group("rate_limit: {requests_per_minute: 90}\n"));
    assert_eq!(without_burst.clients.global_rate, rate::Rate::per_second(1.5, 2.try_into().unwrap()));
}

#[test]
fn a_port_yields_to_the_variable_and_contradicts_no_address() {
    let with = |more: &str| group(&format!("server: {{port: 4806{more}}}\n"));
    let bind = |variables: &[(&str, &str)], more: &str| {
        load(&[("config.yaml", &with(more))], variables).unwrap().server.bind.to_string()
    };
    assert_eq!(bind(&[("PORT", "1")], ""), "127.0.0.1:1");
    assert_eq!(bind(&[("PROXY_API_KEY", "ck")], ""), "0.0.0.0:4806");
    assert_eq!(bind(&[], ", bind_addr: '10.0.0.1:4806'"), "10.0.0.1:4806");
    assert!(wrong(&with(", bind_addr: '10.0.0.1:1'")).contains("its port is another one than `port`"));
}

#[test]
fn what_has_no_counterpart_is_told_once_each() {
    let text = group(
        "  top_p: 0.5\nserver: {admin_token: canary, top_p: 1, test_mode: false, max_tokens_per_request: 5}\n\
         redis_url: 'redis://:canary@h'\nredis_key_prefix: p\nmax_failures_threshold: 3\ntemporary_block_minutes: 5\n\
         circuit_breaker: {failure_threshold: 5, recovery_timeout_secs: 60, half_open_max_calls: 3}\n\
         max_tokens_per_request: 250000\ninternal_retries: 2\nsafety_multiplier: 1.2\n",
    );
    let config = yaml(&text);
    for name in [
        "config.yaml:4 groups[0].top_p",
        "server.admin_token",
        "server.top_p",
        "server.test_mode",
        "server.max_tokens_per_request",
        "redis_url",
        "redis_key_prefix",
        "max_failures_threshold",
        "temporary_block_minutes",
        "circuit_breaker",
        "internal_retries",
        "safety_multiplier",
    ] {
        let lines =
            config.notes.warnings.iter().filter(|line| line.contains(&format!("{name} has no effect: ")));
        let most = if name == "max_tokens_per_request" { 2 } else { 1 };
        assert!((1..=most).contains(&lines.count()), "{name}: {:?}", config.notes.warnings);
    }
    assert_eq!(config.notes.warnings.len(), 13, "{:?}", config.notes.warnings);
    assert!(!format!("{config:?}{}", config.render()).contains("canary"));
    // Nothing is said of what is not set.
    let unset = group("  top_p:\nserver: {admin_token: ~}\nredis_url:\ncircuit_breaker:\n");
    assert_eq!(yaml(&unset).notes.warnings, [""; 0]);
}

#[test]
fn without_groups_its_names_are_unknown() {
    let told = wrong("keys: {pool: [{key: k}]}\nserver: {port: 1}\nredis_url: canary\ncircuit_breaker: {}\n");
    for name in ["server.port", "redis_url", "circuit_breaker"] {
        assert!(told.contains(name), "{told}");
    }
    assert!(!told.contains("canary") && told.matches("unknown name").count() == 3, "{told}");
    let toml = problems(&[("config.toml", "[[groups]]\nname = \"g\"\n")], &[KEY]);
    assert!(toml.contains("groups\n  unknown name"), "{toml}");
}

#[test]
fn a_group_beside_another_files_pools_joins_them() {
    let toml = "[[pools]]\nname = \"groq\"\n[[pools.keys]]\nkey = \"k9\"\n";
    let config = load(&[("config.toml", toml), ("config.yml", &group(""))], &[]).unwrap();
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["groq", "g"]);
    assert_eq!(config.notes.sources.len(), 2, "{:?}", config.notes);
}

#[test]
fn our_own_names_are_understood_in_yaml() {
    let config = yaml(
        "server:\n  bind_addr: 127.0.0.1:7\nupstream:\n  base_url: http://localhost:1\n  max_retries: 9\n\
         keys:\n  pool:\n  - key: k1\n    models: [m, others]\napiKeys:\n- key: k2\n\
         pools:\n- name: groq\n  keys:\n  - {key: k3, weight: 2}\nmodels:\n- {name: fast, target: groq/llama}\nclients:\n",
    );
    assert_eq!(config.server.bind, "127.0.0.1:7".parse().unwrap());
    assert_eq!((config.policy.max_retries, secrets(&config)), (9, vec!["k1", "k2"]));
    assert_eq!(config.pools[0].keys[0].settings().weight.get(), 2);
    assert_eq!(config.aliases.len(), 1);
    assert_eq!(config.notes.sources.len(), 1, "{:?}", config.notes);
    let told = wrong("server:\n  bind_adr: x\nupstream:\n  http2: yes\nkeys:\n  pool:\n  - key: 5\n");
    for part in [
        "config.yaml:2:3: server.bind_adr",
        "did you mean `bind_addr`?",
        "config.yaml:4:10: upstream.http2",
        "yes and on are strings",
        "config.yaml:7:10: keys.pool[0].key",
        "put it in quotes",
    ] {
        assert!(told.contains(part), "{part} not in {told}");
    }
}
