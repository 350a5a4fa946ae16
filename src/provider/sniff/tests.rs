use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn model(body: &str) -> Result<Option<Cow<'_, str>>, SniffError> {
    sniff(body.as_bytes()).map(|sniffed| sniffed.model)
}

#[test]
fn finds_what_we_need_at_the_top_only() {
    let body = br#" {"messages":[{"model":"inner","stream":true}],"stream":true,"model":"gpt-4o","n":1} "#;
    let sniffed = sniff(body).unwrap();
    assert!(matches!(sniffed.model, Some(Cow::Borrowed("gpt-4o"))));
    assert!(sniffed.stream);
    assert_eq!(sniff(br#"{"a":{"model":"x","stream":true}}"#).unwrap(), Sniffed::default());
}

#[test]
fn where_a_body_could_be_edited() {
    let at = |body: &str| {
        let sniffed = sniff(body.as_bytes()).unwrap();
        let options = match sniffed.stream_options {
            Place::At(at) => body[at].to_owned(),
            other => format!("{other:?}"),
        };
        (sniffed.model_at.map(|at| body[at].to_owned()), options)
    };
    let model = |text: &str| Some(text.to_owned());
    for (body, expected) in [
        (r#"{"model":"a"}"#, (model("\"a\""), "Absent")),
        ("{ \"model\" :\n\t\"a\\u0062 \\\"}\" , \"x\":1}", (model("\"a\\u0062 \\\"}\""), "Absent")),
        (
            r#" {"a":{"model":"b","stream_options":1},"stream_options": {"b":["}"]} ,"model":"ä"} "#,
            (model("\"ä\""), r#"{"b":["}"]}"#),
        ),
        (r#"{"stream_options":null,"model":null}"#, (None, "null")),
        (r#"{"stream_options":-1.5e3}"#, (None, "-1.5e3")),
        (r#"{"stream_options":[]}"#, (None, "[]")),
        (r#"{"stream_options":{},"stream_options":{}}"#, (None, "Unclear")),
        (r#"{"stream_option\u0073":{}}"#, (None, "Unclear")),
        (r#"{"model":"a","model":"a"}"#, (None, "Absent")),
        (r#"{"model":"a","mod\u0065l":"a"}"#, (None, "Absent")),
        (r#"{"mod\u0065l":"a"}"#, (None, "Absent")),
        (r#"["model","stream_options"]"#, (None, "Absent")),
        ("{}", (None, "Absent")),
    ] {
        assert_eq!(at(body), (expected.0, expected.1.to_owned()), "{body}");
    }
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
        assert_eq!(model(&format!(r#"{{"model":{value}}}"#)), Err(SniffError::ModelNotAString), "{value}");
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
        let name = prop_oneof![
            Just("model".to_owned()),
            Just("stream".to_owned()),
            Just("stream_options".to_owned()),
            ".{0,6}"
        ];
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
        // Not every number comes back as it was written.
        let value: Value = serde_json::from_str(&text).unwrap();
        let sniffed = sniff(text.as_bytes());
        if let Ok(sniffed) = &sniffed {
            let at = |at: &Range<usize>| serde_json::from_str::<Value>(&text[at.clone()]).unwrap();
            // Nothing else stands there, not even white space.
            let tight = |at: &Range<usize>| text[at.clone()].trim().len() == at.len();
            match (value.get("stream_options"), &sniffed.stream_options) {
                (None, Place::Absent) => {}
                (Some(options), Place::At(place)) => prop_assert!(at(place) == *options && tight(place)),
                other => prop_assert!(false, "{:?}", other),
            }
            let model = value.get("model").filter(|model| !model.is_null());
            prop_assert_eq!(sniffed.model_at.as_ref().map(at), model.cloned());
            prop_assert!(sniffed.model_at.as_ref().is_none_or(tight));
        }
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
