//! Reading `model`, `stream` and bounds of the output out of a JSON body without building a tree, and where the body
//! could be edited.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scan;

/// What a request's body says that we need to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sniffed<'a> {
    /// The top-level `model`; `None` if it is absent or null, or the body is no object.
    pub model: Option<Cow<'a, str>>,
    /// Whether the top-level `stream` is `true`.
    pub stream: bool,
    /// The most tokens it asks to be generated, over all answers that it asks for; `None` if it sets no bound.
    pub output: Option<u64>,
    /// Where `model`'s value stands, with its quotes. `None` if there is no model, or if no single place says which: it
    /// is given more than once, or under a name with escapes.
    pub model_at: Option<Range<usize>>,
    /// Where the value of the top-level `stream_options` stands, whatever it is.
    pub stream_options: Place,
}

/// Where the value of a member stands in a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Place {
    /// There is no such member.
    #[default]
    Absent,
    /// Here, from its first byte to its last.
    At(Range<usize>),
    /// There is, but more than once, or under a name with escapes: whoever edits one value may not edit the one that
    /// counts.
    Unclear,
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
        Some(Leaf::True | Leaf::False | Leaf::Count(_) | Leaf::Other) => {
            return Err(SniffError::ModelNotAString);
        }
    };
    let output = object.output.map(|output| output.saturating_mul(object.answers.unwrap_or(1).max(1)));
    let model_at = match (&model, object.models) {
        // Without escapes it stands there as it is.
        (Some(Cow::Borrowed(name)), Named::Once(_)) => {
            offset(text, name).map(|start| start - 1..start + name.len() + 1)
        }
        (Some(Cow::Owned(_)), models) => match models.place(text) {
            Place::At(at) => Some(at),
            Place::Absent | Place::Unclear => None,
        },
        _ => None,
    };
    let stream_options = object.stream_options.place(text);
    Ok(Sniffed { model, stream: object.stream, output, model_at, stream_options })
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
    models: Named<'a>,
    stream_options: Named<'a>,
}

/// Where a name stands before a value.
#[derive(Clone, Copy, Default)]
pub(super) enum Named<'a> {
    #[default]
    Nowhere,
    /// This part of the body.
    Once(&'a str),
    Unclear,
}

impl<'a> Named<'a> {
    /// A further one, as it stands in the body; `None`: it doesn't stand there like that.
    pub(super) fn again(&mut self, name: Option<&'a str>) {
        *self = match (*self, name) {
            (Self::Nowhere, Some(name)) => Self::Once(name),
            _ => Self::Unclear,
        };
    }

    /// The place of its value.
    pub(super) fn place(self, body: &str) -> Place {
        let Self::Once(name) = self else {
            return if matches!(self, Self::Nowhere) { Place::Absent } else { Place::Unclear };
        };
        let value =
            offset(body, name).and_then(|start| scan::value_of(body.as_bytes(), start..start + name.len()));
        value.map_or(Place::Unclear, Place::At)
    }
}

/// Where `part` of `body` begins.
fn offset(body: &str, part: &str) -> Option<usize> {
    part.as_ptr().addr().checked_sub(body.as_ptr().addr())
}

/// A JSON value as far as it could be the one or the other.
#[derive(PartialEq)]
pub(super) enum Leaf<'a> {
    Null,
    True,
    False,
    Text(Cow<'a, str>),
    Count(u64),
    Other,
}

enum Name<'a> {
    Model(Option<&'a str>),
    Stream,
    StreamOptions(Option<&'a str>),
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
                Name::Model(name) => {
                    object.models.again(name);
                    let model = match map.next_value()? {
                        Leaf::Count(_) | Leaf::False => Leaf::Other,
                        model => model,
                    };
                    object.ambiguous |= object.model.as_ref().is_some_and(|earlier| *earlier != model);
                    object.model = Some(model);
                }
                Name::Stream => object.stream = map.next_value::<Leaf<'_>>()? == Leaf::True,
                Name::StreamOptions(name) => {
                    object.stream_options.again(name);
                    map.next_value::<IgnoredAny>()?;
                }
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

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(NameVisitor)
    }
}

impl<'a> Name<'a> {
    /// `place` is the same name as a part of the body.
    fn of(name: &str, place: Option<&'a str>) -> Self {
        match name {
            "model" => Self::Model(place),
            "stream" => Self::Stream,
            "stream_options" => Self::StreamOptions(place),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Self::Output,
            "n" | "best_of" => Self::Answers,
            _ => Self::Other,
        }
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name::of(name, Some(name)))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name::of(name, None))
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
        Ok(if value { Leaf::True } else { Leaf::False })
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
mod tests;
