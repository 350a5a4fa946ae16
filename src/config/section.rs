//! Takes settings out of a table by name and type, and reports what nobody took.
//!
//! A name is known because a reader asks for it: nothing can be accepted that nothing reads.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use super::{
    problem::Problem,
    tree::{Format, Node, Place, Table, Value},
};

/// What was found out while reading: kept to the end, so that everything wrong is told at once.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// Every name that a reader asked for, by section.
    pub(super) known: BTreeSet<(&'static str, &'static str)>,
    strangers: Vec<Stranger>,
}

/// A name that nobody asked for.
struct Stranger {
    section: &'static str,
    name: String,
    place: Place,
    tolerated: bool,
}

impl Ledger {
    /// Tells of the names that nobody asked for. To be called when every section was read.
    pub(super) fn report_strangers(&mut self) {
        for Stranger { section, name, place, tolerated } in std::mem::take(&mut self.strangers) {
            let near =
                nearest(&name, self.known.iter().filter(|(at, _)| *at == section).map(|(_, name)| *name));
            if tolerated {
                // A stranger is a comment here, unless it looks like a slip of the pen.
                if let Some(near) = near {
                    let place = place.describe();
                    self.warnings.push(format!("{place} is ignored; did you mean `{near}`?"));
                }
                continue;
            }
            let mut elsewhere = self.known.iter().filter(|(_, known)| *known == name);
            let hint = match (near, elsewhere.next()) {
                (Some(near), _) => Some(format!("did you mean `{near}`?")),
                (None, Some((at, _))) => Some(format!("`{name}` belongs in {}", heading(at))),
                (None, None) => None,
            };
            self.problems.push(Problem { hint, ..place.problem("unknown name") });
        }
    }
}

/// A section as its heading is written.
fn heading(section: &str) -> String {
    match section {
        "" => "the file itself, outside of any section".to_owned(),
        "keys.pool" | "pools" | "pools.keys" | "models" => format!("[[{section}]]"),
        "groups" => "one of `groups`".to_owned(),
        "pools.credential" => "`credential` of [[pools]]".to_owned(),
        section => format!("[{section}]"),
    }
}

/// The known name that `name` was probably meant to be.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = name.to_ascii_lowercase();
    let distance = |known: &str| match known.strip_prefix(&lower) {
        // A name cut short, such as one without its unit.
        Some(rest) if rest.starts_with('_') => 1,
        _ => strsim::osa_distance(&lower, &known.to_ascii_lowercase()),
    };
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    known.map(|known| (distance(known), known)).filter(|(d, _)| *d <= allowed).min().map(|(_, known)| known)
}

/// A table being read. A section that no file has reads as one that sets nothing.
pub(super) struct Section<'t, 'l> {
    table: Option<&'t Table>,
    /// Its name, the same for each element of a list.
    name: &'static str,
    /// Whether unknown names of JSON files are comments here.
    tolerant: bool,
    taken: Vec<&'static str>,
    ledger: &'l mut Ledger,
}

impl<'t, 'l> Section<'t, 'l> {
    /// The outermost table.
    pub(super) fn root(table: &'t Table, ledger: &'l mut Ledger) -> Self {
        Self { table: Some(table), name: "", tolerant: true, taken: Vec::new(), ledger }
    }

    /// The section `name`; `path` is its full name.
    pub(super) fn section(&mut self, name: &'static str, path: &'static str) -> Section<'t, '_> {
        let table = self.read(name, "a table", |node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        Section { table, name: path, tolerant: false, taken: Vec::new(), ledger: self.ledger }
    }

    /// Each table of the list `name`, with its place, given to `read` as a section known as `path`.
    ///
    /// A `tolerant` list comes from the older `config.json`, whose entries hold comments.
    pub(super) fn each(
        &mut self,
        name: &'static str,
        path: &'static str,
        tolerant: bool,
        mut read: impl FnMut(&'t Place, Section<'t, '_>),
    ) {
        let list = self.read(name, "a list of tables", |node| match &node.value {
            Value::List(list) => Some(list),
            _ => None,
        });
        for node in list.into_iter().flatten() {
            match &node.value {
                Value::Table(table) => {
                    let ledger = &mut *self.ledger;
                    let section =
                        Section { table: Some(table), name: path, tolerant, taken: Vec::new(), ledger };
                    read(&node.place, section);
                }
                other => self.ledger.problems.push(mismatch(&node.place, "a table", other)),
            }
        }
    }

    /// Where `name` is set, if it is.
    pub(super) fn place(&self, name: &str) -> Option<&'t Place> {
        self.node(name).map(|node| &node.place)
    }

    /// Takes `name`, whatever it is set to.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<&'t Node> {
        self.ledger.known.insert((self.name, name));
        self.taken.push(name);
        self.node(name)
    }

    /// Takes `name` without reading it: what is wrong with it was told.
    pub(super) fn pass(&mut self, name: &'static str) {
        self.taken.push(name);
    }

    /// Where problems go.
    pub(super) fn ledger(&mut self) -> &mut Ledger {
        self.ledger
    }

    /// A string.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'t str> {
        self.read(name, "a string", text)
    }

    /// A string that means something: `parse` says what is wrong with it, and gives advice.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&'t str) -> Result<T, (String, Option<String>)>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err((reason, hint)) => {
                let place = self.place(name)?;
                self.ledger.problems.push(Problem { hint, ..place.problem(reason) });
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "true or false", |node| match node.value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A whole number in `range`.
    pub(super) fn whole<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let n = self.read(name, "a whole number", |node| match node.value {
            Value::Integer(n) => Some(n),
            _ => None,
        })?;
        let inside = u64::try_from(n).ok().filter(|n| range.contains(n)).and_then(|n| T::try_from(n).ok());
        if inside.is_none() {
            let bounds = match (*range.start(), *range.end()) {
                (start, u64::MAX) => format!("at least {start}"),
                (start, end) => format!("from {start} to {end}"),
            };
            self.refuse(name, format!("must be {bounds}, found {n}"));
        }
        inside
    }

    /// A number that is `good`; `bounds` says which are.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        bounds: &str,
        good: impl FnOnce(f64) -> bool,
    ) -> Option<f64> {
        let x = self.read(name, "a number", |node| match node.value {
            Value::Integer(n) => Some(n as f64),
            Value::Float(x) => Some(x),
            _ => None,
        })?;
        if x.is_finite() && good(x) {
            return Some(x);
        }
        self.refuse(name, format!("must be {bounds}, found {x}"));
        None
    }

    /// So many milliseconds, up to a day.
    pub(super) fn millis(&mut self, name: &'static str, least: u64) -> Option<Duration> {
        self.whole(name, least..=DAY.as_secs() * 1000).map(Duration::from_millis)
    }

    /// So many seconds, up to a day; perhaps none.
    pub(super) fn seconds(&mut self, name: &'static str) -> Option<Duration> {
        self.whole(name, 0..=DAY.as_secs()).map(Duration::from_secs)
    }

    /// A list of strings, each with its place. A lone string is a list of one.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<(&'t str, &'t Place)>> {
        let items = self.read(name, "a list of strings", |node| match &node.value {
            Value::Text(_) => Some(std::slice::from_ref(node)),
            Value::List(list) => Some(list.as_slice()),
            _ => None,
        })?;
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match text(item) {
                Some(text) => texts.push((text, &item.place)),
                None => self.ledger.problems.push(mismatch(&item.place, "a string", &item.value)),
            }
        }
        Some(texts)
    }

    /// A table of strings under names that are the user's, with the place of each.
    pub(super) fn map(&mut self, name: &'static str) -> Vec<(&'t str, &'t str, &'t Place)> {
        let table = self.read(name, "a table of strings", |node| match &node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        let mut pairs = Vec::new();
        for (name, _, node) in table.into_iter().flat_map(|table| &table.0) {
            match text(node) {
                Some(text) => pairs.push((name.as_str(), text, &node.place)),
                None => self.ledger.problems.push(mismatch(&node.place, "a string", &node.value)),
            }
        }
        pairs
    }

    /// A string of the table `name`, which is read elsewhere.
    pub(super) fn peek(&self, name: &str, inner: &str) -> Option<&'t str> {
        match &self.node(name)?.value {
            Value::Table(table) => text(table.get(inner)?),
            _ => None,
        }
    }

    /// Records that what `name` is set to won't do.
    pub(super) fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        if let Some(place) = self.place(name) {
            self.ledger.problems.push(place.problem(reason));
        }
    }

    /// Takes `name`; what `convert` declines is a problem.
    fn read<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        convert: impl FnOnce(&'t Node) -> Option<T>,
    ) -> Option<T> {
        self.ledger.known.insert((self.name, name));
        self.taken.push(name);
        let node = self.node(name)?;
        let converted = convert(node);
        if converted.is_none() {
            self.ledger.problems.push(mismatch(&node.place, expected, &node.value));
        }
        converted
    }

    /// What `name` is set to. In the older `config.json`, and in YAML, `null` sets nothing.
    fn node(&self, name: &str) -> Option<&'t Node> {
        let is_unset = |node: &Node| {
            let tolerant = self.tolerant || node.place.source.format == Format::Yaml;
            tolerant && matches!(node.value, Value::Null)
        };
        self.table?.get(name).filter(|node| !is_unset(node))
    }
}

/// The end of a section: what nobody took is a stranger.
impl Drop for Section<'_, '_> {
    fn drop(&mut self) {
        for (name, place, _) in self.table.into_iter().flat_map(|table| &table.0) {
            if !self.taken.contains(&name.as_str()) {
                let (section, name, place) = (self.name, name.clone(), place.clone());
                let tolerated = self.tolerant && place.source.format == Format::Json;
                self.ledger.strangers.push(Stranger { section, name, place, tolerated });
            }
        }
    }
}

/// The longest time that any setting may name.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// A value of the wrong type. The value is not shown: it may be a credential in the wrong place.
fn mismatch(place: &Place, expected: &str, found: &Value) -> Problem {
    let problem = place.problem(format!("expected {expected}, found {}", found.kind()));
    match (expected, found) {
        ("true or false", Value::Text(_)) if place.source.format == Format::Yaml => {
            problem.hint("true or false, without quotes; yes and on are strings")
        }
        ("a whole number" | "a number" | "true or false", Value::Text(_)) => problem.hint("no quotes"),
        ("a string", Value::Integer(_) | Value::Float(_)) => problem.hint("put it in quotes"),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near_or_none() {
        let known = ["bind_addr", "request_body_limit_bytes", "cors_allowed_origins"];
        let nearest = |name| nearest(name, known.into_iter());
        assert_eq!(nearest("bind_adr"), Some("bind_addr"));
        assert_eq!(nearest("bindAddr"), Some("bind_addr"));
        assert_eq!(nearest("cors_origins"), None);
        assert_eq!(nearest("request_body_limit"), Some("request_body_limit_bytes"));
        assert_eq!(nearest("port"), None);
    }
}
