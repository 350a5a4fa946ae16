//! Any body: what is read out of it without a tree is what a tree would show.

#![no_main]

use std::{fmt, ops::Range};

use common::first_line;
use key_cycle_proxy::provider::{BadForm, Place, SniffError, Sniffed, model_in_form, sniff};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    json(input);
    form(input);
});

fn json(body: &[u8]) {
    let sniffed = sniff(body);
    if let Err(SniffError::NotJson { line, column }) = sniffed {
        let lines = body.iter().filter(|byte| **byte == b'\n').count() + 1;
        assert!((1..=lines).contains(&line) && column <= body.len() + 1, "the place is outside of the body");
    }
    let pairs = serde_json::from_slice::<Pairs>(body);
    let expected = match &pairs {
        Ok(pairs) => from_pairs(pairs),
        // Not an object, or no JSON.
        Err(_) => match serde_json::from_slice::<Value>(body) {
            Ok(_) => Ok(Sniffed::default()),
            Err(error) if is_stricter(&error) => return,
            Err(_) => {
                assert!(matches!(sniffed, Err(SniffError::NotJson { .. })), "{sniffed:?} of what is no JSON");
                return;
            }
        },
    };
    if let Ok(sniffed) = &sniffed {
        places(body, sniffed, pairs.as_ref().map_or(&[], |Pairs(pairs)| pairs));
    }
    // Where they stand is no matter of values.
    let sniffed = sniffed.map(|sniffed| Sniffed { model_at: None, stream_options: Place::Absent, ..sniffed });
    assert_eq!(sniffed, expected);
}

/// Where a value is said to stand, it stands, and it is the only one with its name.
fn places(body: &[u8], sniffed: &Sniffed<'_>, pairs: &[(String, Value)]) {
    let of =
        |wanted: &'static str| pairs.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value);
    let at = |place: &Range<usize>| {
        let text = &body[place.clone()];
        assert_eq!(text.trim_ascii(), text, "white space is no part of a value");
        serde_json::from_slice::<Value>(text).expect("a value")
    };
    if let Some(place) = &sniffed.model_at {
        assert!(of("model").eq([&at(place)]) && of("model").all(Value::is_string));
    }
    match &sniffed.stream_options {
        Place::Absent => assert_eq!(of("stream_options").count(), 0),
        Place::At(place) => assert!(of("stream_options").eq([&at(place)])),
        Place::Unclear => {
            // Escapes in a name make it unclear too.
            assert!(
                of("stream_options").count() > 1
                    || body.contains(&b'\\') && of("stream_options").count() == 1
            );
        }
    }
}

/// A tree can't hold what JSON allows: numbers beyond all bounds, halves of surrogate pairs, deep nesting. Nobody needs
/// a tree to send such a body on.
fn is_stricter(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    ["number out of range", "recursion limit exceeded", "surrogate", "unexpected end of hex escape"]
        .iter()
        .any(|reason| text.contains(reason))
}

fn from_pairs(Pairs(pairs): &Pairs) -> Result<Sniffed<'_>, SniffError> {
    let of =
        |wanted: &'static str| pairs.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value);
    let models: Vec<Option<&Value>> =
        of("model").map(|value| Some(value).filter(|it| !it.is_null())).collect();
    // Values that are no names are all alike.
    let same = |a: &Option<&Value>, b: &Option<&Value>| match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => a == b,
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a == b,
        (Some(Value::Bool(true)), Some(_)) | (Some(_), Some(Value::Bool(true))) => false,
        (Some(a), Some(b)) => !a.is_string() && !b.is_string(),
        (a, b) => a == b,
    };
    if models.windows(2).any(|pair| !same(&pair[0], &pair[1])) {
        return Err(SniffError::ModelAmbiguous);
    }
    let model = match models.last() {
        None | Some(None) => None,
        Some(Some(Value::String(name))) => Some(name.as_str().into()),
        Some(Some(_)) => return Err(SniffError::ModelNotAString),
    };
    let largest =
        |names: &[&'static str]| names.iter().flat_map(|name| of(name)).filter_map(Value::as_u64).max();
    let output = largest(&["max_tokens", "max_completion_tokens", "max_output_tokens"]);
    let output = output.map(|output| output.saturating_mul(largest(&["n", "best_of"]).unwrap_or(1).max(1)));
    Ok(Sniffed {
        model,
        stream: of("stream").next_back() == Some(&Value::Bool(true)),
        output,
        ..Sniffed::default()
    })
}

/// An object with every pair that it has: a map would forget the first of two with one name.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(All)
    }
}

fn form(input: &[u8]) {
    // Whatever is sent as a form: any content type, and any body for a boundary that is known.
    let (content_type, body) = first_line(input);
    if let Ok(content_type) = str::from_utf8(content_type) {
        let _ = model_in_form(content_type, &body.to_vec().into());
    }
    const TYPE: &str = "multipart/form-data; boundary=b";
    if let Ok(Some(model)) = model_in_form(TYPE, &input.to_vec().into()) {
        assert!((1..=256).contains(&model.len()));
        assert!(
            input.windows(model.len()).any(|part| part == model.as_bytes()),
            "{model} is not in the body"
        );
    }
    // A whole form with this value for a model, between two files.
    const FILE: &[u8] =
        b"--b\r\nContent-Disposition: form-data; name=\"model\"; filename=\"a\"\r\n\r\nno model\r\n";
    const MODEL: &[u8] = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
    let whole = [FILE, MODEL, input, b"\r\n", FILE, b"--b--\r\n"].concat();
    if !input.windows(5).any(|part| part == b"\r\n--b") {
        let name = str::from_utf8(input).ok().filter(|name| (1..=256).contains(&name.len()));
        let expected = name.map(|name| Some(name.to_owned())).ok_or(BadForm::UnclearModel);
        assert_eq!(model_in_form(TYPE, &whole.into()), expected);
    }
}
