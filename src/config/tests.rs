//! Config as a whole: files in, settings or problems out. Nothing here reads the process's environment.

mod example;
mod groups;
mod pools;

use std::collections::BTreeMap;

use super::*;
use crate::{rate, types};

const CANARY: &str = "sk-canary-4f7a";

fn env(pairs: &[(&str, &str)]) -> Env {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Env::from_map(pairs.collect::<BTreeMap<_, _>>())
}

/// Loads a folder of these files with these variables.
fn load(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, Problems> {
    load_with(&Flags::default(), files, variables)
}

fn load_with(flags: &Flags, files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    Config::load(flags, &env(variables), dir.path())
}

const KEY: (&str, &str) = ("OPENAI_KEYS", "sk-a");

fn toml(text: &str) -> Config {
    load(&[("config.toml", text)], &[KEY]).unwrap()
}

fn problems(files: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
    load(files, variables).expect_err("there are problems").to_string()
}

fn secrets(config: &Config) -> Vec<&str> {
    config.keys.iter().map(|key| key.secret().expose()).collect()
}

#[test]
fn a_list_of_keys_in_the_environment_is_enough() {
    let config = load(&[], &[("OPENAI_KEYS", " sk-a, ,sk-b ,")]).unwrap();
    assert_eq!(secrets(&config), ["sk-a", "sk-b"]);
    assert_eq!(config.server.bind, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.server.cors, server::CorsOrigins::Loopback);
    assert_eq!(config.base_url.as_str(), "https://api.openai.com/v1");
    assert_eq!(config.notes.warnings, [""; 0]);
    let [line] = config.notes.sources.as_slice() else { panic!("{:?}", config.notes) };
    assert_eq!(
        *line,
        format!("environment OPENAI_KEYS: 2 keys ({}, {})", config.keys[0].id(), config.keys[1].id())
    );
}

#[test]
fn no_key_anywhere_is_a_problem_that_shows_two_ways_out() {
    for variables in [&[][..], &[("OPENAI_KEYS", " , ")]] {
        let text = problems(&[("config.json", r#"{"apiKeys": []}"#)], variables);
        assert!(text.contains("OPENAI_KEYS=") && text.contains(r#"{"apiKeys": [{"key""#), "{text}");
    }
}

#[test]
fn with_client_keys_the_proxy_is_open_to_the_network() {
    let config =
        load(&[], &[KEY, ("PROXY_API_KEY", "ck-1, ck-2"), ("GLOBAL_PROXY_KEYS", "ck-2,ck-3")]).unwrap();
    assert_eq!(config.server.bind, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.server.cors, server::CorsOrigins::Any);
    assert_eq!(config.clients.keys.len(), 3);
    assert_eq!(config.notes.warnings, [""; 0]);
}

#[test]
fn flag_then_environment_then_file_then_default() {
    let file = [(
        "config.toml",
        "[server]\nbind_addr = \"10.0.0.1:1111\"\n[observability]\ntracing_level = \"warn\"\n",
    )];
    let bind = |flags: &Flags, variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables.iter().copied().chain([KEY]).collect();
        load_with(flags, &file, &variables).unwrap().server.bind.to_string()
    };
    let flags = Flags { bind: Some("127.0.0.1:3333".parse().unwrap()), ..Flags::default() };
    assert_eq!(bind(&flags, &[("PORT", "2222")]), "127.0.0.1:3333");
    let address = Flags { bind: Some("0.0.0.0".parse().unwrap()), ..Flags::default() };
    assert_eq!(bind(&address, &[("PORT", "2222")]), "0.0.0.0:2222");
    assert_eq!(bind(&address, &[]), "0.0.0.0:1111");
    assert_eq!(bind(&Flags::default(), &[("PORT", "2222")]), "10.0.0.1:2222");
    assert_eq!(bind(&Flags::default(), &[]), "10.0.0.1:1111");

    let log = |variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables.iter().copied().chain([KEY]).collect();
        load(&file, &variables).unwrap().telemetry.log_filter
    };
    assert_eq!(log(&[("RUST_LOG", "info,a=debug"), ("LOG_LEVEL", "error")]), "info,a=debug");
    assert_eq!(log(&[("LOG_LEVEL", "WARNING")]), "warn");
    assert_eq!(log(&[]), "warn");
}

#[test]
fn bad_variables_are_problems_together() {
    let variables = [KEY, ("PORT", "eighty"), ("RUST_LOG", "a=loud"), ("PROXY_API_KEY", "ck ck")];
    let text = problems(&[], &variables);
    for part in ["environment: PORT", "environment: RUST_LOG", "environment: PROXY_API_KEY[0]"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(problems(&[], &[KEY, ("LOG_LEVEL", "verbose")]).contains("LOG_LEVEL"));
}

#[test]
fn settings_and_keys_may_stand_in_two_files() {
    let toml = "[upstream]\nbase_url = \"https://llm.example.com/api\"\nmax_retries = 7\n";
    let json = r#"{"upstream": {"max_retries": 7, "http2": true}, "apiKeys": [{"key": "sk-b", "models": "o1, o3"}]}"#;
    let config = load(&[("config.toml", toml), ("config.json", json)], &[KEY]).unwrap();
    assert_eq!(secrets(&config), ["sk-b", "sk-a"]);
    assert_eq!((config.policy.max_retries, config.transport.http2), (7, true));
    let settings = config.keys[0].settings();
    assert_eq!(settings.base.as_str(), "https://llm.example.com/api/v1");
    assert_eq!(settings.models.exact(), ["o1", "o3"]);
    assert_eq!(config.notes.sources.len(), 3, "{:?}", config.notes);
    assert_eq!(config.notes.sources[0], "config.toml: settings");
}

#[test]
fn a_key_is_of_the_first_tier_unless_its_entry_says_otherwise() {
    let toml = "[[keys.pool]]\nkey = \"sk-b\"\npriority = 2\n[[keys.pool]]\nkey = \"sk-c\"\n";
    let json = r#"{"apiKeys": [{"key": "sk-d", "priority": 255}, {"key": "sk-e", "priority": null}]}"#;
    let config = load(&[("config.toml", toml), ("config.json", json)], &[KEY]).unwrap();
    let priorities: Vec<_> = config.keys.iter().map(|key| key.settings().priority).collect();
    assert_eq!(priorities, [2, 0, 255, 0, 0]);
}

#[test]
fn a_priority_that_is_none_is_told_with_its_place_and_the_range() {
    for (value, reason) in [
        ("-1", "must be from 0 to 255, found -1"),
        ("256", "must be from 0 to 255, found 256"),
        ("0.5", "expected a whole number, found a number with a fraction"),
        ("\"1\"", "expected a whole number, found a string"),
    ] {
        let toml = format!("[[keys.pool]]\nkey = \"sk-b\"\npriority = {value}\n");
        let json = format!(r#"{{"apiKeys": [{{"key": "sk-c", "priority": {value}}}]}}"#);
        let text = problems(&[("config.toml", &toml), ("config.json", &json)], &[KEY]);
        for place in ["config.toml:3:12: keys.pool[0].priority", "config.json: apiKeys[0].priority"] {
            assert!(text.contains(place) && text.matches(reason).count() == 2, "{text}");
        }
    }
}

#[test]
fn two_files_that_disagree_are_told_both_places() {
    let toml = "[upstream]\nmax_retries = 7\n[clients]\nkeys = [\"ck-a\"]\n";
    let json = r#"{"upstream": {"max_retries": 8}, "clients": {"keys": ["ck-b"]}}"#;
    let text = problems(&[("config.toml", toml), ("config.json", json)], &[KEY]);
    assert!(text.contains("config.json: upstream.max_retries"), "{text}");
    assert!(text.contains("config.toml:2 upstream.max_retries"), "{text}");
    assert!(!text.contains("clients"), "lists of keys add up: {text}");
}

#[test]
fn an_explicit_file_is_the_only_one() {
    let files = [("config.toml", "nonsense"), ("other.json", r#"{"apiKeys": [{"key": "sk-b"}]}"#)];
    let flags = Flags { config: Some("other.json".into()), ..Flags::default() };
    assert_eq!(secrets(&load_with(&flags, &files, &[]).unwrap()), ["sk-b"]);
    assert_eq!(secrets(&load(&files, &[("CONFIG_PATH", "other.json")]).unwrap()), ["sk-b"]);
    let both = load_with(&flags, &files, &[("CONFIG_PATH", "absent.toml")]).unwrap();
    assert_eq!(secrets(&both), ["sk-b"]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let flags = |name: &str| Flags { config: Some(name.into()), ..Flags::default() };
    let text = |name: &str| load_with(&flags(name), &[("a.ini", "")], &[KEY]).unwrap_err().to_string();
    assert!(text("absent.toml").contains("absent.toml\n  there is no such file"), "{}", text("absent.toml"));
    assert!(text("a.ini").contains(".toml, .json"), "{}", text("a.ini"));
    assert!(problems(&[], &[KEY, ("CONFIG_PATH", "absent.toml")]).contains("CONFIG_PATH"));

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("config.toml"), b"a = \"\xff\"").unwrap();
    let text = Config::load(&Flags::default(), &env(&[]), dir.path()).unwrap_err().to_string();
    assert!(text.contains("config.json\n  this is a directory") && text.contains("not UTF-8"), "{text}");
    assert!(!text.contains("there is no key"), "the keys may stand in what could not be read: {text}");
}

#[test]
fn the_older_json_is_read_whatever_stands_beside_the_keys() {
    let json = r#"{"_comment": 1, "port": 3456, "apiKeys": [
        {"_comment": "x", "key": "sk-a", "url": "https://h/", "models": ["m"], "owner": {"a": 1}, "label": null},
        {"key": "sk-a", "url": "https://h/v1", "models": ["n"], "weight": 3},
        {"key": "sk-a", "url": "https://h", "modles": ["n"], "models": ["m"]}]}"#;
    let config = load(&[("config.json", json)], &[]).unwrap();
    let weights: Vec<_> = config.keys.iter().map(|key| key.settings().weight.get()).collect();
    assert_eq!(weights, [1, 3], "other models make a key of its own, the same ones do not");
    let [slip, repeated] = config.notes.warnings.as_slice() else { panic!("{:?}", config.notes) };
    assert!(slip.contains("apiKeys[2].modles") && slip.contains("`models`"), "{slip}");
    assert!(repeated.contains("apiKeys[2] repeats key") && !repeated.contains("sk-a"), "{repeated}");
}

#[test]
fn the_file_beats_the_environment_for_a_key_that_both_have() {
    let text = "[[keys.pool]]\nkey = \"sk-a\"\nlabel = \"one\"\nmodels = [\"m\"]\n";
    let config = load(&[("config.toml", text)], &[("OPENAI_KEYS", "sk-a,sk-b")]).unwrap();
    assert_eq!(secrets(&config), ["sk-a", "sk-b"]);
    assert_eq!(config.keys[0].settings().label.as_deref(), Some("one"));
    let [warning] = config.notes.warnings.as_slice() else { panic!("{:?}", config.notes) };
    assert!(warning.starts_with("environment OPENAI_KEYS[0] repeats key"), "{warning}");
    assert!(warning.contains(config.keys[0].id().as_str()), "{warning}");
}

#[test]
fn a_key_may_stand_in_a_variable_or_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/secret"), "sk-b\n").unwrap();
    std::fs::write(dir.path().join("etc/clients"), "ck-1\n\nck-2\n").unwrap();
    let text = "[[keys.pool]]\nkey = \"env:MY_KEY\"\n[[keys.pool]]\nkey = \"file:secret\"\n\
                [clients]\nkeys = [\"file:clients\", \"env:CLIENTS\", \"ck-4\"]\n";
    std::fs::write(dir.path().join("etc/kcp.toml"), text).unwrap();
    let flags = Flags { config: Some("etc/kcp.toml".into()), ..Flags::default() };
    let variables = env(&[("MY_KEY", " sk-a "), ("CLIENTS", "ck-2,ck-3")]);
    let config = Config::load(&flags, &variables, dir.path()).unwrap();
    assert_eq!(secrets(&config), ["sk-a", "sk-b"]);
    let clients: Vec<_> = config.clients.keys.iter().map(types::Secret::expose).collect();
    assert_eq!(clients, ["ck-1", "ck-2", "ck-3", "ck-4"]);

    let text = Config::load(&flags, &env(&[("CLIENTS", "ck-2")]), dir.path()).unwrap_err().to_string();
    assert!(text.contains("etc/kcp.toml:2:7: keys.pool[0].key"), "{text}");
}

#[test]
fn rates_of_a_key_its_own_or_that_of_all() {
    let config = toml(
        "[rate_limit]\nper_key_rps = 2\nglobal_rps = 0.5\n\
         [[keys.pool]]\nkey = \"sk-1\"\nrps = 0\n[[keys.pool]]\nkey = \"sk-2\"\nrps = 7.5\n",
    );
    let rates: Vec<_> = config.keys.iter().map(|key| key.settings().rate).collect();
    let rate = |rps, burst: u32| rate::Rate::per_second(rps, burst.try_into().unwrap());
    assert_eq!(rates, [None, rate(7.5, 8), rate(2.0, 2)]);
    assert_eq!((config.clients.global_rate, config.clients.per_client_rate), (rate(0.5, 1), None));
    let config = toml("[rate_limit]\nper_key_rps = 2\nburst = 9\n");
    assert_eq!(config.keys[0].settings().rate, rate(2.0, 9));
}

#[test]
fn a_certificate_bundle_is_read_and_rubbish_is_not() {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let text = "[upstream]\nca_file = \"ca.pem\"\n";
    let files = |pem: &str| load(&[("config.toml", text), ("ca.pem", pem)], &[KEY]);
    assert_eq!(files(&authority.cert.pem()).unwrap().transport.extra_roots.len(), 1);
    for rubbish in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let text = files(rubbish).expect_err("no certificate").to_string();
        assert!(text.contains("config.toml:2:11: upstream.ca_file"), "{text}");
    }
    assert!(problems(&[("config.toml", text)], &[KEY]).contains("upstream.ca_file"));
}

#[test]
fn what_works_and_may_not_be_meant_is_a_warning() {
    let config = toml(
        "[server]\nbind_addr = \"0.0.0.0:1\"\nrequest_body_limit_bytes = 262144\n\
         [upstream]\nbase_url = \"http://llm.example.com\"\n",
    );
    assert_eq!(config.server.body_limit, 262_144);
    let warnings = config.notes.warnings.join("\n");
    for part in ["spends the keys", "262144 refuses images", "http://llm.example.com in clear"] {
        assert!(warnings.contains(part), "{warnings}");
    }
    let quiet = toml("[upstream]\nbase_url = \"http://127.0.0.1:8000\"\n[server]\nbind_addr = \"[::1]:1\"\n");
    assert_eq!(quiet.notes.warnings, [""; 0]);
}

#[test]
fn what_is_rendered_shows_ids_and_can_be_read() {
    let text =
        "[rate_limit]\nper_key_rps = 3\nburst = 5\n[[keys.pool]]\nkey = \"sk-1\"\nlabel = \"a \\\"b\\\"\"\n";
    let config = load(&[("config.toml", text)], &[KEY, ("PROXY_API_KEY", "ck-1")]).unwrap();
    let text = config.render();
    for key in &config.keys {
        assert!(text.contains(key.id().as_str()), "{text}");
    }
    for part in ["from config.toml:4 keys.pool[0]", "from environment OPENAI_KEYS[0]", "rps = 3 # burst 5"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.parse::<::toml::Table>().is_ok(), "{text}");
    assert!(!text.contains("sk-") && !text.contains("ck-1"), "{text}");
}

#[test]
fn a_large_number_is_rendered_as_it_can_be_read() {
    let rendered = toml("[keys]\nunhealthy_penalty = 1e300\n").render();
    let read: ::toml::Table = rendered.parse().unwrap();
    assert_eq!(read["keys"]["unhealthy_penalty"].as_float(), Some(1e300), "{rendered}");
}

#[test]
fn a_secret_is_never_told() {
    let bad = format!("{CANARY} {CANARY}");
    let url = format!("https://:{CANARY}@host");
    let good = format!(
        "[clients]\nkeys = [\"{CANARY}-c\"]\n[[keys.pool]]\nkey = \"{CANARY}\"\n[[keys.pool]]\nkey = \"{CANARY}\"\n"
    );
    let config = load(&[("config.toml", &good)], &[("OPENAI_KEYS", CANARY)]).unwrap();
    assert_eq!(config.keys.len(), 1);
    assert!(!format!("{config:?} {} {:?}", config.render(), config.notes).contains("canary"));

    let wrong = format!(
        "[clients]\nkeys = [\"{bad}\", \"env:{CANARY}\"]\nkey = \"{CANARY}\"\n[server]\nmax_connections = \"{CANARY}\"\n\
         [[keys.pool]]\nkey = \"{bad}\"\nurl = \"{url}\"\nweight = \"{CANARY}\"\nsecret = \"{CANARY}\"\n\
         [[keys.pool]]\nkey = \"file:{CANARY}\"\n[[keys.pool]]\nkey = [\"{CANARY}\"]\n[upstream]\nbase_url = \"{url}\"\n"
    );
    let json =
        format!(r#"{{"apiKeys": ["{CANARY}", {{"key": "{bad}", "url": "{CANARY}"}}], "keys": "{CANARY}"}}"#);
    let variables = [("OPENAI_KEYS", bad.as_str()), ("PROXY_API_KEY", &bad)];
    let problems = load(&[("config.toml", &wrong), ("config.json", &json)], &variables).unwrap_err();
    assert!(problems.iter().count() >= 15, "{problems}");
    assert!(!format!("{problems} {problems:?} {:?}", env(&variables)).contains("canary"), "{problems}");
}

#[test]
fn listeners_that_want_one_port_are_a_problem() {
    assert!(problems(&[], &[KEY, ("PORT", "9090")]).contains("observability.metrics_bind"));
    let off = "[observability]\nmetrics_bind = \"off\"\n";
    let config = load(&[("config.toml", off)], &[KEY, ("PORT", "9090")]).unwrap();
    assert_eq!(config.telemetry.metrics_bind, None);
}
