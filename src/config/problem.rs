//! What is wrong with a configuration, told to the one who wrote it.

use std::fmt;

/// One thing that is wrong, and where.
///
/// No secret is ever part of it: values are shown only where the setting cannot hold one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user named it, or another source such as `environment`. `None`: no one place is at fault.
    pub file: Option<String>,
    /// Line and column in the file, both from 1, where the format tells.
    pub position: Option<Position>,
    /// The setting's dotted path, such as `keys.pool[2].url`. Lists count from 0. Empty: the file as a whole.
    pub place: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A place in a text; both numbers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Problem {
    /// A problem with `place` of `file`.
    pub(super) fn new(file: &str, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            file: Some(file.to_owned()),
            position: None,
            place: place.into(),
            reason: reason.into(),
            hint: None,
        }
    }

    /// The same, at a position.
    pub(super) fn at(mut self, position: Option<Position>) -> Self {
        self.position = position;
        self
    }

    /// The same, with advice.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = self.file.clone().unwrap_or_default();
        if let Some(Position { line, column }) = self.position {
            head.push_str(&format!(":{line}:{column}"));
        }
        if !self.place.is_empty() {
            head.push_str(if head.is_empty() { "" } else { ": " });
            head.push_str(&self.place);
        }
        write!(f, "{head}\n  {}", self.reason)?;
        self.hint.iter().flat_map(|hint| hint.lines()).try_for_each(|line| write!(f, "\n  hint: {line}"))
    }
}

/// Everything that is wrong with a configuration, over all files and the environment. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// All of `problems`, in the order of the files and of the lines in them; `None` if there is none.
    pub(super) fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by(|a, b| (&a.file, a.position).cmp(&(&b.file, b.position)));
        problems.dedup();
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'p> IntoIterator for &'p Problems {
    type Item = &'p Problem;
    type IntoIter = std::slice::Iter<'p, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "the configuration has a problem")?,
            n => write!(f, "the configuration has {n} problems")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n\n{problem}"))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_block_of_place_reason_and_hint() {
        let problem = Problem::new("config.toml", "server.bind_adr", "unknown name")
            .at(Some(Position { line: 3, column: 1 }))
            .hint("did you mean `bind_addr`?");
        let text = "config.toml:3:1: server.bind_adr\n  unknown name\n  hint: did you mean `bind_addr`?";
        assert_eq!(problem.to_string(), text);
    }

    #[test]
    fn problems_come_in_the_order_of_the_lines() {
        let at = |line| Problem::new("a", "", line_name(line)).at(Some(Position { line, column: 1 }));
        let problems = Problems::of(vec![at(9), at(2), at(9)]).unwrap();
        assert_eq!(problems.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>(), ["line 2", "line 9"]);
        assert_eq!(Problems::of(Vec::new()), None);
    }

    fn line_name(line: usize) -> String {
        format!("line {line}")
    }
}
