//! Reading `model`, `stream` and bounds of the output out of a JSON body without building a tree.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a request's body says that we need to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sniffed<'a> {
    /// The top-level `model`; `None` if it is absent or null, or the body is no object.
    pub model: Option<Cow<'a, str>>,
    /// Whether the top-level `stream` is `true`.
    pub stream: bool,
    /// The most tokens it asks to be generated, over all answers that it asks for; `None` if it sets no bound.
    pub output: Option<u64>,
}

/// Why a body can't be sent on. Says where, and nothing of what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SniffError {
    /// It isn't JSON.
    #[error("the body is not valid JSON (line {line}, column {column})")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Bytes, counted from 1; 0 at the very beginning of a line.
        column: usize,
    },
    /// `model` is there and is neither text nor null.
    #[error("`model` must be a string")]
    ModelNotAString,
    /// `model` is there more than once, with different values. Upstream might take another one than we do.
    #[error("`model` is given more than once")]
    ModelAmbiguous,
}

/// Reads a JSON body from end to end, and takes from it what we need.
///
/// # Errors
/// [`SniffError`] if it isn't one JSON value, or doesn't say clearly which model it means.
pub fn sniff(body: &[u8]) -> Result<Sniffed<'_>, SniffError> {
    // serde_json lets what it skips be any bytes, but JSON is UTF-8, and upstream will insist.
    let text = std::str::from_utf8(body).map_err(|error| just_after(&body[..error.valid_up_to()]))?;
    let read = if text.trim_ascii_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(text).map(|IgnoredAny| Object::default())
    };
    let object = read.map_err(|error| SniffError::NotJson { line: error.line(), column: error.column() })?;
    if object.ambiguous {
        return Err(SniffError::ModelAmbiguous);
    }
    let model = match object.model {
        None | Some(Leaf::Null) => None,
        Some(Leaf::Text(name)) => Some(name),
        Some(Leaf::True | Leaf::Count(_) | Leaf::Other) => return Err(SniffError::ModelNotAString),
    };
    let output = object.output.map(|output| output.saturating_mul(object.answers.unwrap_or(1).max(1)));
    Ok(Sniffed { model, stream: object.stream, output })
}

/// The place after `before`.
fn just_after(before: &[u8]) -> SniffError {
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    SniffError::NotJson { line, column: before.len() - line_start + 1 }
}

/// What of a JSON object is kept.
#[derive(Default)]
struct Object<'a> {
    model: Option<Leaf<'a>>,
    ambiguous: bool,
    stream: bool,
    output: Option<u64>,
    answers: Option<u64>,
}

/// A JSON value as far as it could be the one or the other.
#[derive(PartialEq)]
enum Leaf<'a> {
    Null,
    True,
    Text(Cow<'a, str>),
    Count(u64),
    Other,
}

enum Name {
    Model,
    Stream,
    /// `max_tokens`, as it is called in chats, responses and messages.
    Output,
    /// `n`.
    Answers,
    Other,
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key()? {
            match name {
                Name::Model => {
                    let model = match map.next_value()? {
                        Leaf::Count(_) => Leaf::Other,
                        model => model,
                    };
                    object.ambiguous |= object.model.as_ref().is_some_and(|earlier| *earlier != model);
                    object.model = Some(model);
                }
                Name::Stream => object.stream = map.next_value::<Leaf<'_>>()? == Leaf::True,
                // Of several the largest is asked for, or refused.
                Name::Output => object.output = object.output.max(count(&map.next_value()?)),
                Name::Answers => object.answers = object.answers.max(count(&map.next_value()?)),
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(object)
    }
}

fn count(leaf: &Leaf<'_>) -> Option<u64> {
    if let Leaf::Count(count) = leaf { Some(*count) } else { None }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "model" => Name::Model,
            "stream" => Name::Stream,
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Name::Output,
            "n" | "best_of" => Name::Answers,
            _ => Name::Other,
        })
    }
}

impl<'de> Deserialize<'de> for Leaf<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor)
    }
}

struct LeafVisitor;

impl<'de> Visitor<'de> for LeafVisitor {
    type Value = Leaf<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Leaf<'de>, E> {
        Ok(if value { Leaf::True } else { Leaf::Other })
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Other)
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Count(count))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Leaf<'de>, E> {
        Ok(Leaf::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Leaf<'de>, A::Error> {
        IgnoredAny.visit_seq(seq).map(|IgnoredAny| Leaf::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Leaf<'de>, A::Error> {
        IgnoredAny.visit_map(map).map(|IgnoredAny| Leaf::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn model(body: &str) -> Result<Option<Cow<'_, str>>, SniffError> {
        sniff(body.as_bytes()).map(|sniffed| sniffed.model)
    }

    #[test]
    fn finds_what_we_need_at_the_top_only() {
        let body =
            br#" {"messages":[{"model":"inner","stream":true}],"stream":true,"model":"gpt-4o","n":1} "#;
        let sniffed = sniff(body).unwrap();
        assert!(matches!(sniffed.model, Some(Cow::Borrowed("gpt-4o"))));
        assert!(sniffed.stream);
        assert_eq!(sniff(br#"{"a":{"model":"x","stream":true}}"#).unwrap(), Sniffed::default());
    }

    #[test]
    fn bounds_of_the_output() {
        for (body, output) in [
            (r#"{"max_tokens":100}"#, Some(100)),
            (r#"{"max_completion_tokens":100,"max_tokens":null}"#, Some(100)),
            (r#"{"max_output_tokens":100,"n":null}"#, Some(100)),
            (r#"{"n":3,"max_tokens":100}"#, Some(300)),
            (r#"{"max_tokens":18446744073709551615,"n":2}"#, Some(u64::MAX)),
            (r#"{"max_tokens":-1}"#, None),
            (r#"{"max_tokens":"100"}"#, None),
            (r#"{"n":3}"#, None),
            (r#"{"a":{"max_tokens":100}}"#, None),
        ] {
            assert_eq!(sniff(body.as_bytes()).unwrap().output, output, "{body}");
        }
    }

    #[test]
    fn names_and_values_may_be_escaped() {
        assert_eq!(model(r#"{"mod\u0065l":"gpt-\u0034"}"#).unwrap().unwrap(), "gpt-4");
    }

    #[test]
    fn only_true_streams() {
        for value in ["false", "null", "1", "\"true\"", "[true]", "{\"a\":true}", "1.5", "-1"] {
            assert!(!sniff(format!(r#"{{"stream":{value}}}"#).as_bytes()).unwrap().stream, "{value}");
        }
    }

    #[test]
    fn a_model_is_a_string_or_absent() {
        assert_eq!(model(r#"{"model":null}"#), Ok(None));
        for value in ["1", "-1", "1.5", "true", "false", "[]", r#"["gpt-4o"]"#, r#"{"name":"gpt-4o"}"#] {
            assert_eq!(
                model(&format!(r#"{{"model":{value}}}"#)),
                Err(SniffError::ModelNotAString),
                "{value}"
            );
        }
    }

    #[test]
    fn two_models_are_one_too_many() {
        assert_eq!(model(r#"{"model":"a","model":"a"}"#).unwrap().unwrap(), "a");
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"model":"a","model":"b","model":"b"}"#,
            r#"{"model":null,"model":"b"}"#,
            r#"{"model":1,"model":"b"}"#,
        ] {
            assert_eq!(model(body), Err(SniffError::ModelAmbiguous), "{body}");
        }
    }

    #[test]
    fn what_is_no_object_has_no_model() {
        for body in ["[]", r#"[{"model":"a"}]"#, "\"text\"", "17", "-1.5", "true", "null"] {
            assert_eq!(sniff(body.as_bytes()), Ok(Sniffed::default()), "{body}");
        }
    }

    #[test]
    fn the_whole_body_must_be_json() {
        for (body, line, column) in [
            (&b""[..], 1, 0),
            (b"   ", 1, 3),
            (b"model=gpt-4o", 1, 1),
            (br#"{"model":"gpt-4o"} x"#, 1, 20),
            (br#"{"model":"gpt-4o"}{"model":"b"}"#, 1, 19),
            (b"{\"model\":\"gpt-4o\",\n\"a\":tru}", 2, 8),
            (b"{\"model\":\"gpt-4o\",\n\"a\":\"\xff\"}", 2, 6),
            (b"{\"model\":\"gpt-4o\"", 1, 17),
        ] {
            let expected = Err(SniffError::NotJson { line, column });
            assert_eq!(sniff(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn deep_nesting_is_no_trouble() {
        let body = format!("{{\"a\":{}{},\"model\":\"m\"}}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(model(&body).unwrap().unwrap(), "m");
        let bomb = "[".repeat(1_000_000);
        assert!(sniff(format!("{{\"model\":{bomb}").as_bytes()).is_err());
        assert!(sniff(bomb.as_bytes()).is_err());
    }

    #[test]
    fn errors_show_nothing_of_the_body() {
        let error = sniff(b"{\"secret\": canary}").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let name = prop_oneof![Just("model".to_owned()), Just("stream".to_owned()), ".{0,6}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((name, inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_tree(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let sniffed = sniff(text.as_bytes());
            match value.get("model") {
                None | Some(Value::Null) => prop_assert_eq!(sniffed.unwrap().model, None),
                Some(Value::String(name)) => {
                    let sniffed = sniffed.unwrap();
                    prop_assert_eq!(sniffed.model.as_deref(), Some(name.as_str()));
                    prop_assert_eq!(sniffed.stream, value.get("stream") == Some(&Value::Bool(true)));
                }
                Some(_) => prop_assert_eq!(sniffed, Err(SniffError::ModelNotAString)),
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let sniffed = sniff(&body);
            prop_assert!(sniffed.is_err() || std::str::from_utf8(&body).is_ok());
        }

        #[test]
        fn whatever_a_tree_can_be_read_from_can_be_sniffed(body in r#"[{}\[\]":,a0-9. eE\\un\-]{0,24}"#) {
            if serde_json::from_str::<Value>(&body).is_ok() {
                let refused = matches!(sniff(body.as_bytes()), Err(SniffError::NotJson { .. }));
                prop_assert!(!refused);
            }
        }
    }
}
