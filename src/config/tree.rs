//! What a file says, whatever its format: values that know where they stand.

use std::{path::PathBuf, sync::Arc};

use super::problem::{Position, Problem};

/// A file that was read.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) name: String,
    /// Its folder: what a path inside it is relative to.
    pub(super) folder: PathBuf,
    pub(super) format: Format,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    /// Tolerates names that it doesn't know in the places where the older `config.json` had comments.
    Json,
    /// A name without a value sets nothing.
    Yaml,
}

/// Where a value stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    /// The dotted path.
    pub(super) path: String,
    pub(super) position: Option<Position>,
}

impl Place {
    /// A problem here.
    pub(super) fn problem(&self, reason: impl Into<String>) -> Problem {
        Problem::new(&self.source.name, self.path.clone(), reason).at(self.position)
    }

    /// File, line and path, for a sentence.
    pub(super) fn describe(&self) -> String {
        match self.position {
            Some(Position { line, .. }) => format!("{}:{line} {}", self.source.name, self.path),
            None => format!("{} {}", self.source.name, self.path),
        }
    }
}

/// A value and its place. No `Debug`: it may hold credentials.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Moment,
    List(Vec<Node>),
    Table(Table),
}

/// The names of a table, in the order of the file, with the places where they are written.
#[derive(Clone, Default)]
pub(super) struct Table(pub(super) Vec<(String, Place, Node)>);

impl Table {
    /// What `name` is set to.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(known, ..)| known == name).map(|(.., node)| node)
    }
}

impl Value {
    /// What it is, for a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a string",
            Self::Moment => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// Whether both say the same.
    fn same(&self, other: &Self) -> bool {
        let number = |value: &Self| match value {
            Self::Integer(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        };
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.value.same(&b.value))
            }
            (a, b) => number(a).is_some_and(|a| number(b) == Some(a)),
        }
    }
}

/// The lists in which several files add to each other; any other setting has one value.
const UNITED: [&str; 4] = ["keys.pool", "clients.keys", "pools", "models"];

/// Adds what `other` says to `table`. What both set, and set differently, is a problem.
pub(super) fn merge(table: &mut Table, other: Table, problems: &mut Vec<Problem>) {
    for (name, place, node) in other.0 {
        let Some((.., known)) = table.0.iter_mut().find(|(known, ..)| *known == name) else {
            table.0.push((name, place, node));
            continue;
        };
        match (&mut known.value, node.value) {
            (Value::Table(known), Value::Table(node)) => merge(known, node, problems),
            (Value::List(known), Value::List(node)) if UNITED.contains(&place.path.as_str()) => {
                known.extend(node);
            }
            (value, other) if value.same(&other) => {}
            _ => {
                let reason = format!("set here and, differently, at {}", known.place.describe());
                problems.push(place.problem(reason).hint("keep one of them"));
            }
        }
    }
}

/// `path`, and `name` in it.
pub(super) fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_owned() } else { format!("\"{}\"", name.escape_debug()) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}
