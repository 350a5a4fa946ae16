//! Reading `model` out of an upload form (audio, images).

use std::convert::Infallible;
use std::task::Poll;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use multer::{Constraints, Field, Multipart, SizeLimit};

/// No model's name is longer. A field that is, is no model, and isn't worth the memory.
const MAX_MODEL: u64 = 256;

/// How much of the form the parser is given at a time. It copies what it is given, and forms carry whole recordings.
const PIECE: usize = 64 * 1024;

/// `model` is there and does not say clearly which model is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`model` must be given once, as a name")]
pub struct UnclearModel;

/// The value of the simple field `model` in a `multipart/form-data` body.
///
/// `None` if there is none, or the form is broken: then upstream will say so.
///
/// # Errors
/// [`UnclearModel`] if it is no name, or if two such fields differ (upstream might take another one than we do).
pub fn model_in_form(content_type: &str, body: &Bytes) -> Result<Option<String>, UnclearModel> {
    let Ok(boundary) = multer::parse_boundary(content_type) else { return Ok(None) };
    let limits = Constraints::new().size_limit(SizeLimit::new().for_field("model", MAX_MODEL));
    let mut form = Multipart::with_constraints(piecewise(body.clone()), boundary, limits);
    // Each poll takes in one more piece. A few are spent on boundaries and on the end.
    let mut polls = body.len() / PIECE + 16;
    let mut model: Option<String> = None;
    loop {
        let Some(field) = form.next_field().now_or_never() else {
            let Some(left) = polls.checked_sub(1) else { return Ok(None) };
            polls = left;
            continue;
        };
        let Ok(field) = field else { return Ok(None) };
        let Some(field) = field else { return Ok(model) };
        if field.name() != Some("model") || field.file_name().is_some() {
            continue;
        }
        let value = match text(field, &mut polls) {
            Ok(Some(value)) => value,
            Ok(None) | Err(multer::Error::FieldSizeExceeded { .. }) => return Err(UnclearModel),
            Err(_) => return Ok(None),
        };
        if model.as_ref().is_some_and(|earlier| *earlier != value) {
            return Err(UnclearModel);
        }
        model = Some(value);
    }
}

/// `None`: it is no name.
fn text(mut field: Field<'_>, polls: &mut usize) -> Result<Option<String>, multer::Error> {
    let mut bytes = Vec::new();
    loop {
        match field.chunk().now_or_never() {
            Some(chunk) => match chunk? {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => return Ok(String::from_utf8(bytes).ok().filter(|text| !text.is_empty())),
            },
            None => match polls.checked_sub(1) {
                Some(left) => *polls = left,
                None => return Err(multer::Error::IncompleteStream),
            },
        }
    }
}

/// `body` in pieces, with a pause after each: the parser takes in what is ready before it looks at any of it.
fn piecewise(mut body: Bytes) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    let mut pause = false;
    stream::poll_fn(move |_| {
        pause = !pause;
        match (body.is_empty(), pause) {
            (true, _) => Poll::Ready(None),
            (false, false) => Poll::Pending,
            (false, true) => Poll::Ready(Some(Ok(body.split_to(body.len().min(PIECE))))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"line-7\"";

    fn form(fields: &[(&str, &[u8])]) -> Bytes {
        let mut body = Vec::new();
        for (disposition, value) in fields {
            body.extend_from_slice(b"--line-7\r\nContent-Disposition: form-data; ");
            body.extend_from_slice(disposition.as_bytes());
            body.extend_from_slice(b"\r\n\r\n");
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--line-7--\r\n");
        body.into()
    }

    #[test]
    fn finds_the_model_before_and_after_a_large_file() {
        let file = vec![b'\r'; 3 * PIECE + 5];
        let (file, model) =
            ((r#"name="file"; filename="a.mp3""#, &file[..]), (r#"name="model""#, &b"whisper-1"[..]));
        for fields in [[file, model], [model, file]] {
            assert_eq!(model_in_form(TYPE, &form(&fields)).unwrap().as_deref(), Some("whisper-1"));
        }
    }

    #[test]
    fn a_model_across_pieces_is_whole() {
        for length in PIECE - 160..PIECE + 8 {
            let file = vec![b'x'; length];
            let body = form(&[(r#"name="file"; filename="a""#, &file), (r#"name="model""#, b"whisper-1")]);
            assert_eq!(model_in_form(TYPE, &body).unwrap().as_deref(), Some("whisper-1"), "{length}");
        }
    }

    #[test]
    fn what_is_no_model_is_none() {
        let long = [b'm'; 257];
        for fields in [
            &[][..],
            &[(r#"name="model"; filename="model""#, &b"whisper-1"[..])],
            &[(r#"name="models""#, b"whisper-1")],
        ] {
            assert_eq!(model_in_form(TYPE, &form(fields)), Ok(None));
        }
        for fields in [
            &[(r#"name="model""#, &long[..])][..],
            &[(r#"name="model""#, b"")],
            &[(r#"name="model""#, b"\xff")],
            &[(r#"name="model""#, b"a"), (r#"name="model""#, b"b")],
        ] {
            assert_eq!(model_in_form(TYPE, &form(fields)), Err(UnclearModel));
        }
        let agreed = form(&[(r#"name="model""#, b"a"), (r#"name="model""#, b"a")]);
        assert_eq!(model_in_form(TYPE, &agreed).unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn broken_forms_end() {
        let whole = form(&[(r#"name="file"; filename="a""#, b"data"), (r#"name="model""#, b"whisper-1")]);
        for end in 0..whole.len() - 4 {
            assert_eq!(model_in_form(TYPE, &whole.slice(..end)), Ok(None), "{end}");
        }
        assert_eq!(model_in_form("multipart/form-data", &whole), Ok(None));
        assert_eq!(model_in_form("application/json", &whole), Ok(None));
        assert_eq!(model_in_form("multipart/form-data; boundary=other", &whole), Ok(None));
    }
}
