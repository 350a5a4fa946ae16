//! How many tokens a request will cost, estimated as providers do it at admission: from the length of its text.

use memchr::{memchr, memmem::Finder};

use crate::types::Demand;

/// Bytes of a token, in English prose.
const BYTES_PER_TOKEN: u64 = 4;
/// What stands before a picture, a file or a recording that is part of a body.
const MARKS: [&str; 2] = ["base64", "\"input_audio\""];
/// Strings from this length on may be such a thing.
const LARGE: usize = 1024;
/// No word of a text is longer.
const WORD: usize = 64;
/// So many strings behind a mark are looked at.
const NEAR: usize = 12;
/// What such a thing costs, whatever its length: providers scale pictures down.
const TOKENS_PER_THING: u64 = 1000;

/// The estimate for a request with this body, of which so many tokens at most are to be generated.
#[must_use]
pub fn demand(body: &[u8], output: Option<u64>) -> Demand {
    let mut text = body.len() as u64;
    let mut things = 0;
    if body.len() > LARGE {
        for mark in MARKS.map(Finder::new) {
            let mut from = 0;
            while let Some(at) = mark.find(&body[from..]) {
                from += at + mark.needle().len();
                let Some((start, length)) = large_string(&body[from..]) else {
                    // The next mark in the same string would find the same.
                    from = memchr(b'"', &body[from..]).map_or(body.len(), |quote| from + quote);
                    continue;
                };
                text = text.saturating_sub(length as u64);
                things += 1;
                from += start + length;
            }
        }
    }
    let count = |tokens| u32::try_from(tokens).unwrap_or(u32::MAX);
    let input = text.div_ceil(BYTES_PER_TOKEN) + things * TOKENS_PER_THING;
    Demand { input: count(input), output: output.map(count) }
}

/// The first of the next few strings that is large: where it begins, and how long it is.
fn large_string(text: &[u8]) -> Option<(usize, usize)> {
    let mut start = 0;
    for _ in 0..NEAR {
        let length = memchr(b'"', text.get(start..)?)?;
        let is_text = || text[start..start + WORD].contains(&b' ');
        if length >= LARGE && !is_text() {
            return Some((start, length));
        }
        start += length + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_counts_by_its_length() {
        assert_eq!(demand(b"", None), Demand { input: 0, output: None });
        assert_eq!(demand(&[b'a'; 401], Some(7)), Demand { input: 101, output: Some(7) });
        assert_eq!(demand(&[b'a'; 1_000_000], None).input, 250_000);
    }

    #[test]
    fn pictures_and_recordings_count_once() {
        let picture = "iVBORw0KGgo".repeat(100_000);
        for body in [
            format!(r#"{{"image_url":{{"url":"data:image/png;base64,{picture}"}}}}"#),
            format!(r#"{{"source":{{"type":"base64","media_type":"image/png","data":"{picture}"}}}}"#),
            format!(r#"{{"type":"input_audio","input_audio":{{"data":"{picture}","format":"wav"}}}}"#),
        ] {
            for times in 1..4 {
                let input = demand(body.repeat(times).as_bytes(), None).input;
                let expected = 1000 * times as u32;
                assert!((expected..expected + 50 * times as u32).contains(&input), "{times}: {input}");
            }
        }
        for prose in ["what base64 is, and \\\"input_audio\\\". ", "what base64 is. "] {
            // Each mark in it must not be a reason to read on to the end.
            let prose = prose.repeat(100_000);
            assert_eq!(demand(prose.as_bytes(), None).input, (prose.len() as u32).div_ceil(4));
        }
    }

    proptest! {
        #[test]
        fn any_body_is_estimated(body in r#"(base64|"input_audio"|"|a{500}|,|[a-z])*"#) {
            let input = u64::from(demand(body.as_bytes(), None).input);
            prop_assert!(input <= (body.len() as u64).div_ceil(4) + 1000 * body.matches("base64").count() as u64
                + 1000 * body.matches("\"input_audio\"").count() as u64);
        }
    }
}
