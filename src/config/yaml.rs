//! YAML as a tree.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use super::{
    problem::{Position, Problem},
    tree::{Node, Place, Source, Table, Value, join},
};

/// Deeper than any configuration, and not too deep for the stack.
const DEEPEST: usize = 64;

/// So many values may come of aliases: a few lines of them can stand for billions.
const MOST_COPIES: usize = 100_000;

/// The name under which a table takes in what others have.
const MERGE: &str = "<<";

/// Reads YAML whose one document is a table, or empty. An error of syntax ends the reading, and then there is no tree.
pub(super) fn parse(text: &str, source: &Arc<Source>, problems: &mut Vec<Problem>) -> Option<Table> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        lines: Lines::of(text),
        source,
        anchors: HashMap::new(),
        copies: 0,
        twice: Vec::new(),
    };
    match reader.document() {
        Ok(table) => {
            problems.append(&mut reader.twice);
            Some(table)
        }
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    lines: Lines,
    source: &'t Arc<Source>,
    /// What has a name for aliases.
    anchors: HashMap<usize, Node>,
    copies: usize,
    twice: Vec<Problem>,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Table, Problem> {
        let mut table = Table::default();
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(table),
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if documents > 0 => {
                    let problem = self.place("", span).problem("a second document begins here");
                    return Err(problem.hint("one document a file, without a line of --- in it"));
                }
                Event::DocumentStart(_) => documents += 1,
                event => match self.node(event, span, "", 0)? {
                    Node { value: Value::Table(root), .. } => table = root,
                    Node { value: Value::Null, .. } => {}
                    Node { place, value } => {
                        return Err(place.problem(format!("expected a table, found {}", value.kind())));
                    }
                },
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                // It says which rule is broken, and quotes a single character at most.
                let reason = format!("not YAML: {}", error.info());
                let position = Some(self.lines.position(*error.marker()));
                let problem = Problem::new(&self.source.name, "", reason).at(position);
                let is_tab = error.info().contains("tab");
                Err(if is_tab { problem.hint("indent with spaces") } else { problem })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: Event<'t>, span: Span, path: &str, depth: usize) -> Result<Node, Problem> {
        let place = self.place(path, span);
        if depth > DEEPEST {
            return Err(place.problem("nested too deeply"));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.copy_of(anchor, &place),
            Event::Scalar(text, style, anchor, tag) => {
                // Scalar has 64 bits; what is larger would become a fraction.
                let whole =
                    (style == ScalarStyle::Plain && tag.is_none()).then(|| text.parse().ok()).flatten();
                let value = match whole {
                    Some(n) => Value::Integer(n),
                    None => match Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref()) {
                        Some(scalar) => scalar.into(),
                        None => return Err(place.problem("not what its tag says")),
                    },
                };
                (anchor, value)
            }
            Event::SequenceStart(anchor, _) => (anchor, Value::List(self.list(path, depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Value::Table(self.table(path, depth)?)),
            _ => return Err(place.problem("not YAML: a value is missing")),
        };
        let node = Node { place, value };
        // Anchors count from 1.
        if anchor > 0 {
            let copy = self.copy(&node, path)?;
            self.anchors.insert(anchor, copy);
        }
        Ok(node)
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(list),
                (event, span) => {
                    let path = format!("{path}[{}]", list.len());
                    list.push(self.node(event, span, &path, depth + 1)?);
                }
            }
        }
    }

    fn table(&mut self, path: &str, depth: usize) -> Result<Table, Problem> {
        let mut table = Table::default();
        let (mut names, mut merged) = (HashSet::new(), Vec::new());
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merges = matches!(&event, Event::Scalar(name, ScalarStyle::Plain, ..) if name == MERGE);
            let name = self.name(event, span, path, depth)?;
            let inner = join(path, &name);
            let place = self.place(&inner, span);
            let (event, span) = self.next()?;
            let node = self.node(event, span, &inner, depth + 1)?;
            if !names.insert(name.clone()) {
                self.twice.push(place.problem("this name stands here twice"));
            } else if merges {
                merged.push(node);
            } else {
                table.0.push((name, place, node));
            }
        }
        for node in merged {
            let tables = match node.value {
                Value::List(tables) => tables,
                _ => vec![node],
            };
            for Node { place, value } in tables {
                let Value::Table(other) = value else {
                    return Err(place.problem(format!("expected a table, found {}", value.kind())));
                };
                for (name, place, node) in other.0 {
                    if names.insert(name.clone()) {
                        let path = join(path, &name);
                        let node = self.copy(&node, &path)?;
                        table.0.push((name, Place { path, ..place }, node));
                    }
                }
            }
        }
        Ok(table)
    }

    fn name(&mut self, event: Event<'t>, span: Span, path: &str, depth: usize) -> Result<String, Problem> {
        match event {
            // As it is written: `1` and `true` are names too.
            Event::Scalar(name, ..) => Ok(name.into_owned()),
            event => match self.node(event, span, path, depth + 1)? {
                Node { value: Value::Text(name), .. } => Ok(name),
                Node { place, value } => {
                    Err(place.problem(format!("{} can't be the name of a setting", value.kind())))
                }
            },
        }
    }

    /// What the alias at `place` stands for. It keeps the positions of where it is written.
    fn copy_of(&mut self, anchor: usize, place: &Place) -> Result<Node, Problem> {
        let Some(node) = self.anchors.remove(&anchor) else {
            return Err(place.problem("an alias inside of what it stands for"));
        };
        let copy = self.copy(&node, &place.path);
        self.anchors.insert(anchor, node);
        copy
    }

    fn copy(&mut self, node: &Node, path: &str) -> Result<Node, Problem> {
        self.copies += 1;
        if self.copies > MOST_COPIES {
            return Err(node.place.problem("aliases stand for too much"));
        }
        let value = match &node.value {
            Value::Null => Value::Null,
            Value::Bool(flag) => Value::Bool(*flag),
            Value::Integer(n) => Value::Integer(*n),
            Value::Float(x) => Value::Float(*x),
            Value::Text(text) => Value::Text(text.clone()),
            Value::Moment => Value::Moment,
            Value::List(list) => {
                let items = list.iter().enumerate();
                let copies = items.map(|(n, item)| self.copy(item, &format!("{path}[{n}]")));
                Value::List(copies.collect::<Result<_, _>>()?)
            }
            Value::Table(table) => {
                let copies = table.0.iter().map(|(name, place, node)| {
                    let path = join(path, name);
                    let node = self.copy(node, &path)?;
                    Ok((name.clone(), Place { path, ..place.clone() }, node))
                });
                Value::Table(Table(copies.collect::<Result<_, _>>()?))
            }
        };
        Ok(Node { place: Place { path: path.to_owned(), ..node.place.clone() }, value })
    }

    fn place(&self, path: &str, span: Span) -> Place {
        let position = Some(self.lines.position(span.start));
        Place { source: Arc::clone(self.source), path: path.to_owned(), position }
    }
}

impl From<Scalar<'_>> for Value {
    fn from(scalar: Scalar<'_>) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Boolean(flag) => Self::Bool(flag),
            Scalar::Integer(n) => Self::Integer(n.into()),
            Scalar::FloatingPoint(x) => Self::Float(x.into_inner()),
            Scalar::String(text) => Self::Text(text.into_owned()),
        }
    }
}

/// The number of the character with which each line begins. To YAML a carriage return alone ends a line, to editors it
/// doesn't.
struct Lines {
    starts: Vec<usize>,
    end: usize,
}

impl Lines {
    fn of(text: &str) -> Self {
        let after = text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(after).collect(), end: text.chars().count() }
    }

    fn position(&self, marker: Marker) -> Position {
        let at = marker.index().min(self.end);
        let line = self.starts.partition_point(|start| *start <= at);
        Position { line, column: at - self.starts[line - 1] + 1 }
    }
}

#[cfg(test)]
mod tests;
