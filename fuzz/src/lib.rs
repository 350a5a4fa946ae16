//! What several fuzz targets share: messages written as in HTTP/1, so that seeds can be read and written by people.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first line of `text`, and what comes after it.
#[must_use]
pub fn first_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[]),
    }
}

/// The header lines at the beginning of `text`, up to an empty one, and the body after it.
///
/// Lines that no HTTP parser would let through are left out; a name may repeat.
#[must_use]
pub fn headers(mut text: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    while !text.is_empty() {
        let (line, rest) = first_line(text);
        text = rest;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_headers_an_empty_line_and_a_body() {
        let (headers, body) = headers(b"a: 1\nno colon\n: no name\nA:  2 \nb: \xff\n\nbody\n\n");
        let read: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(read, [("a", &b"1"[..]), ("a", b"2"), ("b", b"\xff")]);
        assert_eq!(body, b"body\n\n");
    }
}
