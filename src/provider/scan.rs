//! Looking for something in JSON text without reading all of it. What is found is taken at its word only where it
//! cannot be part of a string: quotes inside strings are escaped.

use memchr::memmem::Finder;
use serde_json::Value;

/// Where the value begins behind each `key` (which looks for a name with its quotes) in `text`.
pub(super) fn values<'a>(text: &'a [u8], key: &'a Finder<'_>) -> impl Iterator<Item = usize> + 'a {
    key.find_iter(text).filter_map(|at| value_behind(text, at, key.needle().len()))
}

/// Where the value begins, if a key does at `at`.
fn value_behind(text: &[u8], at: usize, length: usize) -> Option<usize> {
    // `\"` is a quote inside a string.
    if at > 0 && text[at - 1] == b'\\' {
        return None;
    }
    let colon = skip_space(text, at + length);
    (text.get(colon) == Some(&b':')).then(|| skip_space(text, colon + 1))
}

/// The first place from `at` on that isn't white space.
fn skip_space(text: &[u8], at: usize) -> usize {
    let space = text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    at + space
}

/// The object that begins at `at`, and where it ends.
pub(super) fn object(text: &[u8], at: usize) -> Option<(Value, usize)> {
    let rest = text.get(at..).filter(|rest| rest.first() == Some(&b'{'))?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
    let value = values.next()?.ok()?;
    Some((value, at + values.byte_offset()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_not_words_in_strings() {
        let text = br#"{"a":"\"error\":{}","b":"error","error" :
            {"x":1},"c":"say \"error","error":2}"#;
        let places: Vec<_> = values(text, &Finder::new("\"error\"")).map(|at| text[at]).collect();
        assert_eq!(places, [b'{', b'2']);
        let key = Finder::new("\"error\"");
        assert_eq!(values(b"\"error\"", &key).count(), 0);
        assert_eq!(values(b"\"error\":", &key).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn an_object_ends_where_it_ends() {
        let text = br#"  {"a":[1,"}"]} , more"#;
        assert_eq!(object(text, 2), Some((json!({"a": [1, "}"]}), 15)));
        for (text, at) in [(&b"{\"a\":1"[..], 0), (b"[1]", 0), (b"null", 0), (b"{}", 2), (b"{}", 9)] {
            assert_eq!(object(text, at), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched_without_panic(text in r#"("error"|[:{}\[\]"\\ a])*"#) {
            let text = text.as_bytes();
            for at in values(text, &Finder::new("\"error\"")) {
                prop_assert!(at <= text.len());
                let _ = object(text, at);
            }
        }
    }
}
