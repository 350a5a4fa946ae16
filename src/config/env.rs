//! The environment, read once.

use std::{collections::BTreeMap, fmt, io::ErrorKind, path::Path};

use super::problem::{Position, Problem};

/// The environment variables, with those of a `.env` file beneath them.
///
/// Its `Debug` shows names only: values are credentials as often as not.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
    /// What was wrong with reading them; reported with everything else that is wrong.
    problems: Vec<Problem>,
}

impl Env {
    /// The name under which problems with a variable are reported.
    pub(super) const SOURCE: &'static str = "environment";
    const DOTENV: &'static str = ".env";

    /// A variable, for a sentence.
    pub(super) fn describe(name: &str) -> String {
        format!("{} {name}", Self::SOURCE)
    }

    /// Reads the environment of the process, and the `.env` file of `dir` if there is one, whose variables count where
    /// the environment has none of that name.
    ///
    /// What cannot be read is told by [`Config::load`](super::Config::load), with everything else that is wrong.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place the ban points to")]
    pub fn from_process(dir: &Path) -> Self {
        // A value that is not Unicode is none of ours: our names hold ASCII.
        let real = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let mut env = Self::default();
        for (name, value) in real {
            match value.into_string() {
                Ok(value) => drop(env.variables.insert(name, value)),
                Err(_) if super::resolve::VARIABLES.contains(&name.as_str()) => {
                    env.problems.push(Problem::new(Self::SOURCE, name, "not valid Unicode"));
                }
                Err(_) => {}
            }
        }
        env.add_dotenv(dir);
        env
    }

    /// An environment of these variables alone.
    #[must_use]
    pub fn from_map(variables: BTreeMap<String, String>) -> Self {
        Self { variables, problems: Vec::new() }
    }

    /// The value of a variable, trimmed. One that is empty counts as unset.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The items of a comma list, with their places in it, trimmed; empty ones are skipped.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = (usize, &str)> {
        let items = self.get(name).unwrap_or_default().split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).enumerate()
    }

    /// What was wrong with reading the variables.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Adds the variables of `dir`'s `.env` that are not set yet.
    fn add_dotenv(&mut self, dir: &Path) {
        let text = match std::fs::read(dir.join(Self::DOTENV)).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => return self.problems.push(Problem::new(Self::DOTENV, "", "not UTF-8")),
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                let reason = format!("cannot be read: {error}");
                return self.problems.push(Problem::new(Self::DOTENV, "", reason));
            }
        };
        let text = text.trim_start_matches('\u{feff}');
        for item in dotenvy::from_read_iter(text.as_bytes()) {
            match item {
                Ok((name, value)) => drop(self.variables.entry(name).or_insert(value)),
                // The error's own text quotes the line, or a part of it, which may hold a key.
                Err(dotenvy::Error::LineParse(part, _)) => self.problems.push(
                    Problem::new(Self::DOTENV, "", "a line is not understood")
                        .at(position(text, &part))
                        .hint("NAME=value, with quotes around a value that has spaces"),
                ),
                Err(_) => self.problems.push(Problem::new(Self::DOTENV, "", "cannot be read")),
            }
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Env").field(&self.variables.keys().collect::<Vec<_>>()).finish()
    }
}

/// The first line of `text` that has `part`, a piece of a line or of several.
fn position(text: &str, part: &str) -> Option<Position> {
    let part = part.lines().next().filter(|part| !part.trim().is_empty())?;
    let index = text.lines().position(|line| line.contains(part))?;
    Some(Position { line: index + 1, column: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::from_map(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_real_environment_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "\u{feff}A=file\nexport B='from the file' # why\nB=again\n")
            .unwrap();
        let mut env = env(&[("A", "real")]);
        env.add_dotenv(dir.path());
        assert_eq!((env.get("A"), env.get("B")), (Some("real"), Some("from the file")));
        assert_eq!(env.problems(), []);
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "A=1\nOPENAI_KEYS=sk-canary sk-canary\nB=2\n").unwrap();
        let mut env = env(&[]);
        env.add_dotenv(dir.path());
        let [problem] = env.problems() else { panic!("{:?}", env.problems()) };
        assert_eq!(problem.position, Some(Position { line: 2, column: 1 }));
        assert!(!format!("{problem} {problem:?} {env:?}").contains("canary"));
        assert_eq!((env.get("A"), env.get("B")), (Some("1"), Some("2")));
    }

    #[test]
    fn lists_are_trimmed_and_empty_means_unset() {
        let env = env(&[("KEYS", " a, ,b ,"), ("NONE", " , "), ("EMPTY", "  ")]);
        assert_eq!(env.list("KEYS").collect::<Vec<_>>(), [(0, "a"), (1, "b")]);
        assert_eq!(env.list("NONE").count() + env.list("ABSENT").count(), 0);
        assert_eq!(env.get("EMPTY"), None);
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", env(&[("OPENAI_KEYS", "sk-canary")])), r#"Env(["OPENAI_KEYS"])"#);
    }
}
