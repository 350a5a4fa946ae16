//! YAML as a tree: values, places, and what is refused.

use super::*;
use crate::config::tree::Format;

fn read(text: &str) -> (Option<Table>, Vec<Problem>) {
    let source = Source { name: "config.yaml".to_owned(), folder: "".into(), format: Format::Yaml };
    let mut problems = Vec::new();
    (parse(text, &Arc::new(source), &mut problems), problems)
}

fn table(text: &str) -> Table {
    let (table, problems) = read(text);
    assert_eq!(problems, [], "{text}");
    table.unwrap_or_else(|| panic!("no tree of {text}"))
}

/// What is wrong, each as line, column, place and reason.
fn wrong(text: &str) -> Vec<String> {
    let (_, problems) = read(text);
    let told = problems.iter().map(|problem| {
        let Position { line, column } = problem.position.expect("YAML tells positions");
        format!("{line}:{column} {} {}", problem.place, problem.reason)
    });
    told.collect()
}

/// The tree as text.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Float(x) => format!("{x:?}"),
        Value::Text(text) => format!("{text:?}"),
        Value::Moment => "moment".to_owned(),
        Value::List(list) => {
            format!("[{}]", list.iter().map(|item| shown(&item.value)).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => {
            let entries = table.0.iter().map(|(name, _, node)| format!("{name}: {}", shown(&node.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn node<'n>(table: &'n Table, name: &str) -> &'n Node {
    table.get(name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn values_have_the_types_of_the_core_schema() {
    for (text, value) in [
        ("a: ", "null"),
        ("a: ~", "null"),
        ("a: True", "true"),
        ("a: yes", "\"yes\""),
        ("a: '1'", "\"1\""),
        ("a: 0x1F", "31"),
        ("a: 99999999999999999999", "99999999999999999999"),
        ("a: 1.5e3", "1500.0"),
        ("a: .inf", "inf"),
        ("a: 2024-10-21", "\"2024-10-21\""),
        ("a: !!str 5", "\"5\""),
        ("a: [1, {b: c}]", "[1, {b: \"c\"}]"),
        ("a: |\n  x\n  y\n", "\"x\\ny\\n\""),
        ("{\"a\": [true]}", "[true]"),
        ("a: http://h:1/p # why", "\"http://h:1/p\""),
    ] {
        assert_eq!(shown(&node(&table(text), "a").value), value, "{text}");
    }
}

#[test]
fn a_text_without_content_sets_nothing() {
    for text in ["", "# why\n", "---\n", "--- ~\n...\n", "\n\n"] {
        assert_eq!(table(text).0.len(), 0, "{text:?}");
    }
}

#[test]
fn values_know_where_they_stand() {
    for end in ["\n", "\r\n"] {
        let text = ["# é", "\"ä\": 1", "groups:", "- name: x", "- {api_keys: [a, b]}", ""].join(end);
        let table = table(&text);
        let Value::List(groups) = &node(&table, "groups").value else { panic!("no list") };
        let Value::Table(second) = &groups[1].value else { panic!("no table") };
        let Value::List(keys) = &node(second, "api_keys").value else { panic!("no list") };
        assert_eq!(keys[1].place.describe(), "config.yaml:5 groups[1].api_keys[1]");
        assert_eq!(keys[1].place.position, Some(Position { line: 5, column: 18 }));
        let (_, place, _) = table.0.iter().find(|(name, ..)| name == "groups").unwrap();
        assert_eq!(place.position, Some(Position { line: 3, column: 1 }));
    }
}

#[test]
fn an_alias_is_what_it_stands_for_at_a_place_of_its_own() {
    let text = "a: &x {b: [1], c: 2}\nd: *x\ne: {<<: *x, c: 3}\nf: {<<: [{g: 4}, *x]}\n";
    let table = table(text);
    let all = shown(&Value::Table(table.clone()));
    assert_eq!(all, "{a: {b: [1], c: 2}, d: {b: [1], c: 2}, e: {c: 3, b: [1]}, f: {g: 4, b: [1], c: 2}}");
    let Value::Table(d) = &node(&table, "d").value else { panic!("no table") };
    let c = node(d, "c");
    assert_eq!((c.place.path.as_str(), c.place.position.unwrap().line), ("d.c", 1));
    let Value::Table(e) = &node(&table, "e").value else { panic!("no table") };
    assert_eq!(node(e, "b").place.path, "e.b");
}

#[test]
fn what_is_refused_has_a_position_and_quotes_nothing() {
    for (text, told) in [
        ("a: 1\nb: sk-canary\na: sk-canary\nb: 2\n", &["3:1 a this name stands here twice", "4:1 b"][..]),
        ("a: 1\n---\na: sk-canary\n", &["2:1  a second document"]),
        ("- sk-canary\n", &["1:1  expected a table, found a list"]),
        ("sk-canary", &["1:1  expected a table, found a string"]),
        ("[sk-canary]: 1\n", &["1:1  a list can't be the name"]),
        ("a: *sk-canary\n", &["1:4  not YAML"]),
        ("a: &x [*x]\n", &["1:8 a[0] an alias inside"]),
        ("a: !!int sk-canary\n", &["1:4 a not what its tag says"]),
        ("a: {<<: sk-canary}\n", &["1:9 a.\"<<\" expected a table"]),
        ("a: [sk-canary\n", &["2:1  not YAML"]),
        ("a: \"sk-canary\nb: 1\n", &["not YAML"]),
        ("a:\n  b: 1\n c: sk-canary\n", &["3:2  not YAML"]),
        ("a:\n\tb: sk-canary\n", &["2:"]),
        ("a: b: sk-canary\n", &["not YAML"]),
        ("a: @sk-canary\n", &["1:4  not YAML"]),
        ("a: %sk-canary\n", &["1:4  not YAML"]),
    ] {
        let found = wrong(text);
        assert_eq!(found.len(), told.len(), "{text}: {found:?}");
        for (found, told) in found.iter().zip(told) {
            assert!(found.contains(told), "{text}: {found:?} is not {told:?}");
        }
        let (_, problems) = read(text);
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
    }
    let (_, problems) = read("a:\n\tb: 1\n");
    assert_eq!(problems[0].hint.as_deref(), Some("indent with spaces"), "{problems:?}");
}

#[test]
fn a_few_lines_cannot_stand_for_billions() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let before = n - 1;
        text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
    }
    assert!(wrong(&text).concat().contains("aliases stand for too much"));
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(wrong(&deep).concat().contains("nested too deeply"));
}

proptest::proptest! {
    /// Whatever is wrong with a text, it is told with a place in the text.
    #[test]
    fn any_text_is_read_or_refused_at_a_place_in_it(text in "([a-b]|[-:,?&*!|>'\"%@`\\[\\]{}#~ \t\r\n]|<<: |é){0,40}") {
        let (_, problems) = read(&text);
        for problem in problems {
            let Position { line, column } = problem.position.unwrap();
            let line = text.split('\n').nth(line - 1).unwrap();
            proptest::prop_assert!((1..=line.chars().count() + 1).contains(&column), "{problem:?} in {text:?}");
        }
    }
}
