//! JSON as a tree.

use std::{collections::HashSet, fmt, sync::Arc};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    problem::{Position, Problem},
    tree::{Node, Place, Source, Table, Value, join},
};

/// Reads JSON whose outermost value is an object. A text with an error of syntax gives no tree.
pub(super) fn parse(text: &str, source: &Arc<Source>, problems: &mut Vec<Problem>) -> Option<Table> {
    let mut twice = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let root = Reader { source, path: String::new(), twice: &mut twice };
    match root.deserialize(&mut reader).and_then(|node| reader.end().map(|()| node)) {
        Ok(Node { value: Value::Table(table), .. }) => {
            problems.append(&mut twice);
            return Some(table);
        }
        Ok(Node { place, value }) => {
            problems.push(place.problem(format!("expected an object, found {}", value.kind())));
        }
        Err(error) => {
            let position = position(text, error.line(), error.column());
            // The visitor accepts every value, so the error is serde_json's own and quotes nothing of the text.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            let problem = Problem::new(&source.name, "", format!("not JSON: {reason}"));
            problems.push(problem.at(Some(position)));
        }
    }
    None
}

/// The character that has the byte `column` of its line, counted from 1; serde_json says 0 where a line begins.
fn position(text: &str, line: usize, column: usize) -> Position {
    let before = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default().char_indices();
    Position { line, column: before.take_while(|(at, _)| *at < column).count().max(1) }
}

/// Reads one value. serde_json alone would keep the last of two equal names and say nothing.
struct Reader<'r> {
    source: &'r Arc<Source>,
    path: String,
    twice: &'r mut Vec<Problem>,
}

impl Reader<'_> {
    fn place(&self) -> Place {
        Place { source: Arc::clone(self.source), path: self.path.clone(), position: None }
    }
    fn node<E>(self, value: Value) -> Result<Node, E> {
        Ok(Node { place: self.place(), value })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        self.node(Value::Bool(flag))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Node, E> {
        self.node(Value::Integer(n.into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Node, E> {
        self.node(Value::Integer(n.into()))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Node, E> {
        self.node(Value::Float(x))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        self.node(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            let item = Reader { source: self.source, path, twice: &mut *self.twice };
            match items.next_element_seed(item)? {
                Some(item) => list.push(item),
                None => return self.node(Value::List(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut table = Table::default();
        let mut names = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            // JSON has no comments: a name such as `_comment` is how people write them, also several.
            if name.starts_with('_') {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let path = join(&self.path, &name);
            let place = Place { source: Arc::clone(self.source), path: path.clone(), position: None };
            let value = Reader { source: self.source, path, twice: &mut *self.twice };
            let node = entries.next_value_seed(value)?;
            if names.insert(name.clone()) {
                table.0.push((name, place, node));
            } else {
                self.twice.push(place.problem("this name stands here twice"));
            }
        }
        self.node(Value::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::Format;

    fn problems(text: &str) -> Vec<Problem> {
        let source = Source { name: "config.json".to_owned(), folder: "".into(), format: Format::Json };
        let mut problems = Vec::new();
        let _ = parse(text, &Arc::new(source), &mut problems);
        problems
    }

    #[test]
    fn a_name_that_stands_twice_is_a_problem_and_a_comment_is_not() {
        let text = r#"{"_c": 1, "_c": 2, "apiKeys": [{"key": "sk-canary", "key": "b"}], "a": {}, "_c": {"x": 1, "x": 2}, "a": {}}"#;
        let problems = problems(text);
        let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, ["apiKeys[0].key", "a"]);
        assert!(!format!("{problems:?}").contains("canary"));
    }

    #[test]
    fn an_error_of_syntax_has_a_position_and_quotes_nothing() {
        let second_line = problems("{\n  \"apiKeys\": [\"sk-canary\" \"sk-canary\"]}");
        assert_eq!(second_line[0].position.map(|position| position.line), Some(2));
        assert!(!format!("{second_line:?}").contains("canary"), "{second_line:?}");
        let after_umlauts = problems("{\"äöü\": x}");
        assert_eq!(after_umlauts[0].position, Some(Position { line: 1, column: 9 }));
        let at_the_beginning = problems("{\"a\": 1\n\n");
        assert_eq!(at_the_beginning[0].position, Some(Position { line: 3, column: 1 }));
        for text in ["", "[]", "{} {}", "{\"a\": sk-canary}", "\"sk-canary\"", "{\"a\": 1e999}"] {
            let problems = problems(text);
            assert_eq!(problems.len(), 1, "{text}");
            assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
        }
    }
}
