//! Any configuration: it loads, or is told what is wrong with it and where, and no credential is ever told.
//!
//! The input is several files in one, each after a line such as `-- config.json --`; what stands before the first of
//! these is `config.toml`. `environment` holds variables (`NAME=value`), `bind` what the command line says.

#![no_main]

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::LazyLock};

use key_cycle_proxy::{
    config::{Config, Env, Flags, Problems},
    types::{Key, Secret},
};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// What no input has and every credential of the environment begins with.
const CANARY: &str = "canary";
const FILES: [&str; 3] = ["config.toml", "config.json", "config.yaml"];
/// The variables that mean something. `CONFIG_PATH` is none of them: it would lead out of the folder.
const SETTINGS: [&str; 3] = ["PORT", "RUST_LOG", "LOG_LEVEL"];
const CREDENTIALS: [&str; 6] =
    ["OPENAI_KEYS", "PROXY_API_KEY", "GLOBAL_PROXY_KEYS", "MY_KEY", "OPENAI_API_KEY", "GROQ_API_KEY_1"];

/// Where the files of this process are.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is room for some files");
    std::fs::write(folder.path().join("key.txt"), format!("{CANARY}-of-a-file\n")).expect("as above");
    folder
});

fuzz_target!(|input: &str| {
    // A file may be named, and some devices never end.
    if [CANARY, "/dev", "/proc", "/sys"].iter().any(|word| input.contains(word)) {
        return;
    }
    let sources = Sources::read(input);
    let loaded = sources.load();
    let told = told(&loaded);
    assert!(!told.contains(CANARY), "a credential is told:\n{told}");
    match loaded {
        Ok(config) => {
            sound(&config);
            no_key_of_a_file_is_told(&config, input);
            if !sources.variables.contains_key("RUST_LOG") {
                rendered_and_read_again(&config);
            }
        }
        Err(problems) => placed(&problems, &sources),
    }
});

#[derive(Default)]
struct Sources<'i> {
    files: BTreeMap<&'i str, String>,
    variables: BTreeMap<String, String>,
    flags: Flags,
}

impl<'i> Sources<'i> {
    fn read(input: &'i str) -> Self {
        let mut sources = Self::default();
        let mut name = FILES[0];
        for line in input.split_inclusive('\n') {
            let heading = line.trim_end().strip_prefix("-- ").and_then(|line| line.strip_suffix(" --"));
            if let Some(next) = heading {
                name = next;
            } else if FILES.contains(&name) {
                sources.files.entry(name).or_default().push_str(line);
            } else if name == "bind" {
                sources.flags.bind = line.trim().parse().ok();
            } else if let Some((name, value)) = line.trim_end().split_once('=') {
                sources.set(name, value);
            }
        }
        sources
    }

    fn set(&mut self, name: &str, value: &str) {
        if CREDENTIALS.contains(&name) {
            let value: Vec<_> = value.split(',').map(|item| format!("{CANARY}{item}")).collect();
            self.variables.insert(name.to_owned(), value.join(","));
        } else if SETTINGS.contains(&name) {
            self.variables.insert(name.to_owned(), value.to_owned());
        }
    }

    fn load(&self) -> Result<Config, Problems> {
        for name in FILES {
            let path = FOLDER.path().join(name);
            match self.files.get(name) {
                Some(text) => std::fs::write(path, text).expect("there is room for some files"),
                None => drop(std::fs::remove_file(path)),
            }
        }
        Config::load(&self.flags, &Env::from_map(self.variables.clone()), FOLDER.path())
    }
}

/// Everything that is ever said of a configuration.
fn told(loaded: &Result<Config, Problems>) -> String {
    match loaded {
        Ok(config) => format!("{config:?}\n{}\n{:?}", config.render(), config.notes),
        Err(problems) => format!("{problems}\n{problems:?}"),
    }
}

fn sound(config: &Config) {
    assert!(keys(config).next().is_some(), "no key");
    assert!(config.pools.iter().all(|pool| pool.keys.len() == pool.places.len() && !pool.keys.is_empty()));
    assert_eq!(config.keys.len(), config.notes.keys.len());
    let text = config.render();
    assert!(keys(config).all(|key| text.contains(key.id().as_str())), "a key is missing:\n{text}");
}

/// Those of all pools, in the order in which they are shown.
fn keys(config: &Config) -> impl Iterator<Item = &Key> {
    config.keys.iter().chain(config.pools.iter().flat_map(|pool| &pool.keys))
}

fn secrets(config: &Config) -> impl Iterator<Item = &Secret> {
    keys(config).map(Key::secret).chain(&config.clients.keys)
}

/// Other credentials in the same places are not told either. (Those that are there may be words that are told anyway.)
fn no_key_of_a_file_is_told(config: &Config, input: &str) {
    let mut text = input.to_owned();
    let mut canaries = Vec::new();
    for secret in secrets(config).map(Secret::expose) {
        if text.matches(secret).count() == 1 {
            let canary = format!("{CANARY}-{}", canaries.len());
            text = text.replace(secret, &canary);
            canaries.push(canary);
        }
    }
    if canaries.is_empty() {
        return;
    }
    let loaded = Sources::read(&text).load();
    let Ok(config) = &loaded else { return };
    let in_place = |canary: &String| secrets(config).any(|secret| secret.expose() == canary);
    if canaries.iter().all(in_place) {
        let told = told(&loaded);
        assert!(!told.contains(CANARY), "a credential is told:\n{told}");
    }
}

/// What is shown can be read, and means what was shown.
fn rendered_and_read_again(config: &Config) {
    let mut shown = keys(config);
    let rendered = config.render();
    let mut sources = Sources::default();
    let mut text = String::new();
    for line in rendered.lines() {
        let _ = writeln!(text, "{line}");
        if matches!(line, "[[keys.pool]]" | "[[pools.keys]]") {
            let name = format!("KEY_{}", sources.variables.len());
            let secret = shown.next().expect("as many keys as are shown").secret();
            let _ = writeln!(text, "key = \"env:{name}\"");
            sources.variables.insert(name, secret.expose().to_owned());
        }
    }
    sources.files.insert(FILES[0], text);
    if !config.clients.keys.is_empty() {
        sources.variables.insert("PROXY_API_KEY".to_owned(), "client".to_owned());
    }
    match sources.load() {
        Ok(again) => assert_eq!(settings(&again.render()), settings(&rendered)),
        Err(problems) => panic!("what is rendered is refused: {problems}\n{rendered}"),
    }
}

/// The lines of `text` that set something, without what is remarked at their ends.
fn settings(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(" # burst ").map_or(line, |(line, _)| line)).collect()
}

fn placed(problems: &Problems, sources: &Sources<'_>) {
    assert!(problems.iter().next().is_some());
    for problem in problems {
        assert!(problem.file.is_some() || !problem.place.is_empty(), "{problem:?}");
        assert!(!problem.reason.is_empty());
        let Some(position) = problem.position else { continue };
        let file = problem.file.as_deref().and_then(|name| sources.files.get(name));
        let text = file.expect("only a file has positions").trim_start_matches('\u{feff}');
        // The end of a text may be a line of its own.
        let line = text.split('\n').nth(position.line - 1).expect("so many lines");
        assert!((1..=line.chars().count() + 1).contains(&position.column), "{problem:?} in {line:?}");
        assert!(Path::new(problem.file.as_deref().unwrap_or_default()).extension().is_some());
    }
}
