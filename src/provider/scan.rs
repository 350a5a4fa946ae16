//! Looking for something in JSON text without reading all of it. What is found is taken at its word only where it
//! cannot be part of a string: quotes inside strings are escaped.

use std::ops::Range;

use memchr::memmem::{Finder, FinderRev};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Where the value begins behind each `key` (which looks for a name with its quotes) in `text`, from the first on.
pub(super) fn values<'a>(text: &'a [u8], key: &'a Finder<'_>) -> impl Iterator<Item = usize> + 'a {
    key.find_iter(text).filter_map(|at| value_behind(text, at, key.needle().len()))
}

/// The same from the last on.
pub(super) fn values_from_the_end<'a>(text: &'a [u8], key: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let finder = FinderRev::new(key);
    let mut end = text.len();
    let places = std::iter::from_fn(move || {
        end = finder.rfind(&text[..end])?;
        Some(end)
    });
    places.filter_map(|at| value_behind(text, at, key.len()))
}

/// Where the value begins, if a key does at `at`.
pub(super) fn value_behind(text: &[u8], at: usize, length: usize) -> Option<usize> {
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

/// Where the value behind a member's name stands; `name` is where that stands, without its quotes.
pub(super) fn value_of(text: &[u8], name: Range<usize>) -> Option<Range<usize>> {
    let start = value_behind(text, name.start.checked_sub(1)?, name.len() + 2)?;
    let mut values = serde_json::Deserializer::from_slice(text.get(start..)?).into_iter();
    let IgnoredAny = values.next()?.ok()?;
    Some(start..start + values.byte_offset())
}

/// The object that begins at `at`, and where it ends.
pub(super) fn object(text: &[u8], at: usize) -> Option<(Value, usize)> {
    let rest = text.get(at..).filter(|rest| rest.first() == Some(&b'{'))?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
    let value = values.next()?.ok()?;
    Some((value, at + values.byte_offset()))
}

/// How deep in brackets a place in JSON text is, told byte by byte.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Depth {
    /// Open brackets, less closed ones.
    pub(super) level: i32,
    /// Whether it is inside a string.
    pub(super) quoted: bool,
    escaped: bool,
}

impl Depth {
    /// Takes one byte more.
    pub(super) const fn step(&mut self, byte: u8) {
        if self.quoted {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.quoted = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' | b'[' => self.level = self.level.saturating_add(1),
            b'}' | b']' => self.level = self.level.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_not_words_in_strings() {
        let text = br#"{"a":"\"usage\":{}","b":"usage","usage" :
            {"x":1},"c":"say \"usage","usage":2}"#;
        let places: Vec<_> = values(text, &Finder::new("\"usage\"")).collect();
        assert_eq!(places.len(), 2);
        assert_eq!(text[places[0]], b'{');
        assert_eq!(text[places[1]], b'2');
        let mut reversed: Vec<_> = values_from_the_end(text, b"\"usage\"").collect();
        reversed.reverse();
        assert_eq!(reversed, places);
        let key = Finder::new("\"usage\"");
        assert_eq!(values(b"\"usage\"", &key).count(), 0);
        assert_eq!(values(b"\"usage\":", &key).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn an_object_ends_where_it_ends() {
        let text = br#"  {"a":[1,"}"]} , more"#;
        assert_eq!(object(text, 2), Some((json!({"a": [1, "}"]}), 15)));
        for (text, at) in [(&b"{\"a\":1"[..], 0), (b"[1]", 0), (b"null", 0), (b"{}", 2), (b"{}", 9)] {
            assert_eq!(object(text, at), None);
        }
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let mut depth = Depth::default();
        for (byte, level) in br#"{["a{\"[\\"]}"#.iter().zip([1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 0]) {
            depth.step(*byte);
            assert_eq!(depth.level, level);
        }
        assert!(!depth.quoted);
    }

    proptest! {
        #[test]
        fn depth_agrees_with_the_tree(text in r#"[\[\]{}"\\,:a]{0,20}"#) {
            if serde_json::from_str::<Value>(&text).is_ok() {
                let mut depth = Depth::default();
                text.bytes().for_each(|byte| depth.step(byte));
                prop_assert!(depth.level == 0 && !depth.quoted);
            }
        }

        #[test]
        fn any_bytes_are_searched_without_panic(text in r#"("usage"|[:{}\[\]"\\ a])*"#) {
            let text = text.as_bytes();
            for at in values(text, &Finder::new("\"usage\"")).chain(values_from_the_end(text, b"\"usage\"")) {
                prop_assert!(at <= text.len());
                let _ = object(text, at);
            }
        }
    }
}
