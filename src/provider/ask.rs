//! Asking for the usage of a stream on the client's behalf: OpenAI's tell it only where `stream_options.include_usage`
//! says so.
//!
//! The body is edited where it must be, and nowhere else. What comes of it is taken out of the stream again by
//! [`Extra`](super::stream::Extra).

use std::{fmt, ops::Range};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{
    Place, Sniffed,
    sniff::{Leaf, Named},
};

/// `body`, of which `sniffed` was read, with the question for its usage. `None` where it isn't asked: the client asks
/// itself, doesn't ask for a stream, or says something odd, which is upstream's to refuse.
#[must_use]
pub fn with_usage_asked(body: &[u8], sniffed: &Sniffed<'_>) -> Option<Vec<u8>> {
    const OPTION: &str = "\"include_usage\":true";
    if !sniffed.stream {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    match &sniffed.stream_options {
        // It has at least a `stream` to be set apart from.
        Place::Absent => {
            let inside = text.find('{')? + 1;
            Some(spliced(body, inside..inside, &format!("\"stream_options\":{{{OPTION}}},")))
        }
        Place::At(at) => {
            let options = text.get(at.clone())?;
            if options == "null" {
                return Some(spliced(body, at.clone(), &format!("{{{OPTION}}}")));
            }
            let inside = options.strip_prefix('{')?;
            let mut reader = serde_json::Deserializer::from_str(options);
            let (named, value) = Asked.deserialize(&mut reader).ok()?;
            match named.place(options) {
                Place::Absent => {
                    let comma = if inside.trim_ascii_start().starts_with('}') { "" } else { "," };
                    Some(spliced(body, at.start + 1..at.start + 1, &format!("{OPTION}{comma}")))
                }
                // Said, and not wanted: then what comes of it is not delivered.
                Place::At(value_at) if matches!(value, Some(Value::No)) => {
                    let at = at.start + value_at.start..at.start + value_at.end;
                    Some(spliced(body, at, "true"))
                }
                Place::At(_) | Place::Unclear => None,
            }
        }
        Place::Unclear => None,
    }
}

fn spliced(body: &[u8], at: Range<usize>, text: &str) -> Vec<u8> {
    let mut edited = Vec::with_capacity(body.len() + text.len());
    edited.extend_from_slice(&body[..at.start]);
    edited.extend_from_slice(text.as_bytes());
    edited.extend_from_slice(&body[at.end..]);
    edited
}

/// What `include_usage` says.
enum Value {
    /// False or null.
    No,
    Other,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Leaf::deserialize(deserializer)? {
            Leaf::Null | Leaf::False => Self::No,
            _ => Self::Other,
        })
    }
}

/// Reads the options: where `include_usage` stands, and what it says.
struct Asked;

impl<'de> DeserializeSeed<'de> for Asked {
    type Value = (Named<'de>, Option<Value>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Asked {
    type Value = (Named<'de>, Option<Value>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("options")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut named, mut value) = (Named::default(), None);
        while let Some(name) = map.next_key()? {
            match name {
                // Only a name without escapes can be read where it stands.
                Leaf::Text(name) if name == "include_usage" => {
                    named.again(if let std::borrow::Cow::Borrowed(name) = name { Some(name) } else { None });
                    value = Some(map.next_value()?);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((named, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::provider::sniff;

    fn asked(body: &str) -> Option<String> {
        let edited = with_usage_asked(body.as_bytes(), &sniff(body.as_bytes()).unwrap())?;
        Some(String::from_utf8(edited).unwrap())
    }

    #[test]
    fn it_is_asked_where_the_client_does_not() {
        for (body, edited) in [
            (r#"{"stream":true}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
            (
                " {\n \"model\" : \"m\" , \"stream\":true }\n",
                " {\"stream_options\":{\"include_usage\":true},\n \"model\" : \"m\" , \"stream\":true }\n",
            ),
            (
                r#"{"stream_options": null ,"stream":true}"#,
                r#"{"stream_options": {"include_usage":true} ,"stream":true}"#,
            ),
            (
                r#"{"stream_options":{ },"stream":true}"#,
                r#"{"stream_options":{"include_usage":true },"stream":true}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"a":{"include_usage":true},"include_usage" : false }}"#,
                r#"{"stream":true,"stream_options":{"a":{"include_usage":true},"include_usage" : true }}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        ] {
            assert_eq!(asked(body).as_deref(), Some(edited), "{body}");
            assert_eq!(asked(edited), None, "it is asked now");
        }
    }

    #[test]
    fn nothing_is_edited_where_it_is_asked_not_streamed_or_odd() {
        for body in [
            "{}",
            r#"{"stream":false}"#,
            r#"{"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":"false"}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_us\u0061ge":false}}"#,
            r#"{"stream":true,"stream_options":{},"stream_options":{}}"#,
            r#"{"stream":true,"stream_option\u0073":{}}"#,
            r#"{"stream":true,"stream_options":[]}"#,
            r#"{"stream":true,"stream_options":"on"}"#,
            r#"{"stream":true,"stream_options":7}"#,
        ] {
            assert_eq!(asked(body), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn the_body_says_what_it_said_and_asks(
            options in prop_oneof![
                Just(None),
                Just(Some(json!(null))),
                Just(Some(json!({}))),
                Just(Some(json!({"include_usage": false}))),
                Just(Some(json!({"a": [1], "include_usage": null, "z": {"include_usage": 1}}))),
            ],
            text in ".{0,12}",
            pretty in any::<bool>(),
        ) {
            let mut value = json!({"model": text, "stream": true, "messages": [{"stream_options": {}}]});
            if let Some(options) = options {
                value["stream_options"] = options;
            }
            let body = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let edited: serde_json::Value = serde_json::from_str(&asked(&body.unwrap()).unwrap()).unwrap();
            if value["stream_options"].is_null() {
                value["stream_options"] = json!({});
            }
            value["stream_options"]["include_usage"] = json!(true);
            prop_assert_eq!(edited, value);
        }
    }
}
