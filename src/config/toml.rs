//! TOML as a tree.

use std::{ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    problem::{Position, Problem},
    tree::{Node, Place, Source, Table, Value, join},
};

/// Reads TOML; a text with an error of syntax gives all of these, one a line, and no tree.
pub(super) fn parse(text: &str, source: &Arc<Source>, problems: &mut Vec<Problem>) -> Option<Table> {
    let reader = Reader { lines: Lines::of(text), source };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(reader.table(table.into_inner(), ""));
    }
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| {
            let position = error.span().map(|span| reader.lines.position(span.start));
            // `message` and not `Display`, which quotes the line.
            Problem::new(&source.name, "", format!("not TOML: {}", error.message())).at(position)
        })
        .collect();
    found.dedup_by_key(|problem| problem.position.map(|position| position.line));
    problems.append(&mut found);
    None
}

struct Reader<'s> {
    lines: Lines<'s>,
    source: &'s Arc<Source>,
}

impl Reader<'_> {
    fn table(&self, table: DeTable<'_>, path: &str) -> Table {
        let entries = table.into_iter().map(|(name, value)| {
            let path = join(path, name.get_ref());
            let place = self.place(&path, name.span());
            (name.into_inner().into_owned(), place, self.node(value, &path))
        });
        Table(entries.collect())
    }

    fn node(&self, value: Spanned<DeValue<'_>>, path: &str) -> Node {
        let place = self.place(path, value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            // Too large for 128 bits is too large for any setting.
            DeValue::Integer(n) => {
                Value::Integer(i128::from_str_radix(n.as_str(), n.radix()).unwrap_or(i128::MAX))
            }
            DeValue::Float(x) => Value::Float(x.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Bool(flag),
            DeValue::Datetime(_) => Value::Moment,
            DeValue::Array(items) => {
                let items = items.into_iter().enumerate();
                Value::List(items.map(|(n, item)| self.node(item, &format!("{path}[{n}]"))).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table, path)),
        };
        Node { place, value }
    }

    fn place(&self, path: &str, span: Range<usize>) -> Place {
        let position = Some(self.lines.position(span.start));
        Place { source: Arc::clone(self.source), path: path.to_owned(), position }
    }
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self.text.get(self.starts[line - 1]..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Format;

    fn source() -> Arc<Source> {
        Arc::new(Source { name: "config.toml".to_owned(), folder: "".into(), format: Format::Toml })
    }

    #[test]
    fn values_know_where_they_stand() {
        let text = "# é\n[server]\n\"ä\" = 1\nbind_addr = \"x\"\n[[keys.pool]]\n[[keys.pool]]\nurl = 1_000\n";
        let table = parse(text, &source(), &mut Vec::new()).unwrap();
        let Some(Value::Table(keys)) = table.get("keys").map(|node| &node.value) else { panic!("no table") };
        let Some(Value::List(pool)) = keys.get("pool").map(|node| &node.value) else { panic!("no list") };
        let Value::Table(second) = &pool[1].value else { panic!("no table") };
        let url = second.get("url").unwrap();
        assert_eq!(url.place.describe(), "config.toml:7 keys.pool[1].url");
        assert_eq!(url.place.position, Some(Position { line: 7, column: 7 }));
        assert!(matches!(url.value, Value::Integer(1000)));
    }

    #[test]
    fn every_line_with_an_error_of_syntax_is_named_and_none_is_quoted() {
        let text = "a = sk-canary\nb = 1\nc = \"sk-canary\nd = 2\n[e\nsk-canary\nd = \"sk-canary\"\n";
        let mut problems = Vec::new();
        assert!(parse(text, &source(), &mut problems).is_none());
        let lines: Vec<_> = problems.iter().filter_map(|problem| Some(problem.position?.line)).collect();
        assert!(lines.contains(&1) && lines.contains(&3) && lines.contains(&5), "{problems:?}");
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
}
