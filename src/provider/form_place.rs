//! Where an upload form names its model, for putting another name there.

use std::ops::Range;

use memchr::memmem::{Finder, find};

/// Where the value of the field `model` stands in a `multipart/form-data` body (RFC 7578), which
/// [`model_in_form`](super::model_in_form) has understood, or in the beginning of one. `None` if there isn't one such
/// field.
#[must_use]
pub fn model_at_in_form(content_type: &str, body: &[u8]) -> Option<Range<usize>> {
    let boundary = multer::parse_boundary(content_type).ok()?;
    let delimiter = format!("\r\n--{boundary}");
    let next = Finder::new(delimiter.as_bytes());
    // The first delimiter may stand at the very beginning (RFC 2046 §5.1.1).
    let mut at = if body.starts_with(&delimiter.as_bytes()[2..]) {
        delimiter.len() - 2
    } else {
        next.find(body)? + delimiter.len()
    };
    let mut found = None;
    loop {
        // Of a beginning, the last part is cut off.
        let Some(end) = next.find(&body[at..]).map(|end| at + end) else { return found };
        let part = &body[at..end];
        let head = find(part, b"\r\n\r\n")?;
        if is_model(&part[..head]) && found.replace(at + head + 4..end).is_some() {
            return None;
        }
        at = end + delimiter.len();
        if body[at..].starts_with(b"--") {
            return found;
        }
    }
}

/// Whether the head of a part is that of the simple field `model`.
fn is_model(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let disposition = head.lines().find(|line| line.starts_with("content-disposition:")).unwrap_or_default();
    let mut parameters = disposition.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let is = |name: &str| name.trim() == "name";
    let (mut named, mut is_file) = (false, false);
    parameters.by_ref().for_each(|(name, value)| {
        named |= is(name) && value.trim().trim_matches('"') == "model";
        is_file |= name.trim().starts_with("filename");
    });
    named && !is_file
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";
    const FILE: &str =
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nname=\"model\"\r\n";
    const MODEL: &str = "--b\r\ncontent-type: text/plain\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n";

    fn found(body: &str) -> Option<&str> {
        model_at_in_form(TYPE, body.as_bytes()).map(|at| &body[at])
    }

    #[test]
    fn the_one_field_is_found_wherever_it_stands() {
        assert_eq!(found(&format!("{FILE}{MODEL}--b--\r\n")), Some("whisper-1"));
        assert_eq!(found(&format!("{MODEL}{FILE}--b--")), Some("whisper-1"));
        assert_eq!(found(&format!("preamble\r\n{MODEL}--b--")), Some("whisper-1"));
        assert_eq!(found(&format!("{MODEL}{FILE}")), Some("whisper-1"), "the beginning of one");
    }

    #[test]
    fn none_or_several_are_none() {
        assert_eq!(found(&format!("{FILE}--b--\r\n")), None);
        assert_eq!(found(&format!("{MODEL}{MODEL}--b--\r\n")), None);
        assert_eq!(found(MODEL.trim_end()), None, "without its end");
        assert_eq!(found("nothing"), None);
    }
}
