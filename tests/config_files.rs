//! Every file in `tests/config`: what is valid loads, what is not is refused with all its faults.
//!
//! Each file, and each folder of files that are read together, has a sibling `.expect`, whose lines must all occur in
//! what we say of it. Nothing here reads the process's environment or working directory.

use std::path::{Path, PathBuf};

use key_cycle_proxy::config::{Config, Env, Flags, Problems};

/// A file, or a folder whose files are read together, and what is expected to be said of it.
struct Case {
    name: String,
    loaded: Result<Config, Problems>,
    expected: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// Loads everything in `folder`, with `variables`.
fn cases(folder: &str, variables: &[(&str, &str)]) -> Vec<Case> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let env = Env::from_map(variables.collect());
    let mut cases = Vec::new();
    for item in root().join(folder).read_dir().expect("the folder is there") {
        let path = item.expect("the folder can be read").path();
        let file = path.file_name().expect("it stands in a folder");
        let name = format!("{folder}/{}", file.display());
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (flags, dir, expect) = match extension {
            // Relative to the folder above, as a user may name it.
            Some("toml" | "json" | "yaml") => (
                Flags { config: Some(name.clone().into()), bind: None },
                root(),
                path.with_extension("expect"),
            ),
            None if path.join("config.expect").exists() => {
                (Flags::default(), path.clone(), path.join("config.expect"))
            }
            _ => continue,
        };
        let expected =
            std::fs::read_to_string(&expect).unwrap_or_else(|e| panic!("{}: {e}", expect.display()));
        let expected = expected.lines().map(ToOwned::to_owned).collect();
        cases.push(Case { name, loaded: Config::load(&flags, &env, &dir), expected });
    }
    assert!(cases.len() >= 3, "{folder} has {} files", cases.len());
    cases
}

/// What is said of a configuration that was loaded.
fn said(config: &Config) -> String {
    let lines = config.notes.sources.iter().chain(&config.notes.warnings);
    lines.fold(config.render(), |text, line| format!("{text}\n{line}"))
}

fn assert_said(name: &str, said: &str, expected: &[String]) {
    assert!(!expected.is_empty(), "{name} expects nothing");
    for line in expected {
        assert!(said.contains(line.as_str()), "{name} should say {line:?} and says:\n{said}");
    }
}

const VARIABLES: [(&str, &str); 2] = [("OPENAI_KEYS", "environment-key"), ("MY_KEY", "variable-key")];

#[test]
fn what_is_valid_loads() {
    for Case { name, loaded, expected } in cases("valid", &VARIABLES) {
        let config = loaded.unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_said(&name, &said(&config), &expected);
    }
}

#[test]
fn what_users_bring_along_loads() {
    for Case { name, loaded, expected } in cases("legacy", &VARIABLES) {
        let config = loaded.unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_said(&name, &said(&config), &expected);
    }
}

#[test]
fn what_is_invalid_is_refused_with_all_its_faults() {
    for Case { name, loaded, expected } in cases("invalid", &[("PORT", "http")]) {
        let problems = loaded.expect_err(&name);
        let text = problems.to_string();
        assert_said(&name, &text, &expected);
        assert!(text.contains("environment: PORT"), "{name} hides what is wrong elsewhere:\n{text}");
        if name == "invalid/many.toml" {
            assert_eq!(problems.iter().count(), 31, "{text}");
        }
    }
}

#[test]
fn no_key_is_ever_told() {
    let everything: Vec<Case> = ["valid", "legacy", "invalid"]
        .map(|folder| cases(folder, &VARIABLES))
        .into_iter()
        .flatten()
        .collect();
    // What the files of `tests/config` have for credentials.
    let secrets = [
        "environment-key",
        "variable-key",
        "file-key",
        "json-key",
        "shared-key",
        "windows-key",
        "node-key",
        "rust-key",
        "client-1",
        "client-2",
        "many-key",
        "user:password",
        "misplaced",
        "comma-key",
        "naked-key",
        "two words",
        "gemini-key",
        "gemini-admin",
        "gemini-redis",
        "pool-key",
        "yaml-key",
    ];
    for Case { name, loaded, .. } in everything {
        let told = match loaded {
            Ok(config) => format!("{}\n{config:?}", said(&config)),
            Err(problems) => format!("{problems}\n{problems:?}"),
        };
        for secret in secrets {
            assert!(!told.contains(secret), "{name} tells {secret}:\n{told}");
        }
    }
}
