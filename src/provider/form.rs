//! Reading `model` out of an upload form (audio, images).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use multer::{Constraints, Field, Multipart, SizeLimit};

/// No model's name is longer. A field that is, is no model, and isn't worth the memory.
const MAX_MODEL: u64 = 256;

/// How much of the form the parser is given at a time. It copies what it is given, and forms carry whole recordings.
const PIECE: usize = 64 * 1024;

/// The parser pauses between two of its steps now and then. After so many pauses it has nothing left to do.
const PAUSES: usize = 8;

/// Why a form is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadForm {
    /// `model` is there and does not say clearly which model is meant: upstream might take another one than we do.
    #[error("`model` must be given once, as a name of at most {MAX_MODEL} bytes")]
    UnclearModel,
    /// Nothing says how its parts are told apart.
    #[error("its Content-Type names no boundary; let your HTTP library set that header")]
    NoBoundary,
    /// It is not built as a form is.
    #[error("the body is no form with the boundary that its Content-Type names, or has no end")]
    Malformed,
}

/// The value of the simple field `model` in a whole `multipart/form-data` body; `None` if there is none.
///
/// # Errors
/// [`BadForm`] if the form is broken, or `model` in it is no name or given twice with different values.
pub fn model_in_form(content_type: &str, body: &Bytes) -> Result<Option<String>, BadForm> {
    let mut form = FormReader::new(content_type)?;
    form.push(body.clone())?;
    form.end()
}

/// Reads a form as it comes.
#[derive(Debug)]
pub struct FormReader {
    /// What stands before each part; empty once the first has been seen.
    mark: Vec<u8>,
    start: Vec<u8>,
    form: Multipart<'static>,
    feed: Arc<Mutex<Feed>>,
    /// The field `model` while it is read, and so much of its value.
    field: Option<(Field<'static>, Vec<u8>)>,
    model: Option<String>,
    ended: bool,
}

/// What the parser has yet to see.
#[derive(Debug, Default)]
struct Feed {
    pieces: Bytes,
    pause: bool,
    last: bool,
}

impl FormReader {
    /// Begins to read a form of this type.
    ///
    /// # Errors
    /// [`BadForm::NoBoundary`].
    pub fn new(content_type: &str) -> Result<Self, BadForm> {
        let boundary = multer::parse_boundary(content_type).map_err(|_| BadForm::NoBoundary)?;
        if boundary.is_empty() {
            return Err(BadForm::NoBoundary);
        }
        let limits = Constraints::new().size_limit(SizeLimit::new().for_field("model", MAX_MODEL));
        let feed = Arc::<Mutex<Feed>>::default();
        let mark = format!("--{boundary}").into_bytes();
        let form = Multipart::with_constraints(piecewise(Arc::clone(&feed)), boundary, limits);
        Ok(Self { mark, start: Vec::new(), form, feed, field: None, model: None, ended: false })
    }

    /// The value of `model`, once it has come.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Takes in more of it.
    ///
    /// # Errors
    /// [`BadForm`].
    pub fn push(&mut self, piece: Bytes) -> Result<(), BadForm> {
        self.begins(&piece)?;
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).pieces = piece;
        self.look()
    }

    /// It has ended: the value of `model`, if there is one.
    ///
    /// # Errors
    /// [`BadForm`], also if it has no end.
    pub fn end(mut self) -> Result<Option<String>, BadForm> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).last = true;
        self.look()?;
        if self.ended { Ok(self.model) } else { Err(BadForm::Malformed) }
    }

    /// The parser would look for the first part in all that comes, again and again. What is in front of it, if anything,
    /// is a line's end.
    fn begins(&mut self, piece: &[u8]) -> Result<(), BadForm> {
        if self.mark.is_empty() {
            return Ok(());
        }
        let most = self.mark.len() + 2;
        self.start.extend_from_slice(&piece[..piece.len().min(most)]);
        let start = self.start.strip_prefix(b"\r\n").unwrap_or(&self.start);
        if start.starts_with(&self.mark) {
            (self.mark, self.start) = (Vec::new(), Vec::new());
        } else if self.start.len() >= most || !self.mark.starts_with(start) && start != b"\r" {
            return Err(BadForm::Malformed);
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), BadForm> {
        let mut pauses = 0;
        while !self.ended && pauses < PAUSES {
            let moved = match &mut self.field {
                Some((field, value)) => match field.chunk().now_or_never() {
                    None => false,
                    Some(Ok(Some(chunk))) => {
                        value.extend_from_slice(&chunk);
                        true
                    }
                    Some(Ok(None)) => self.found()?,
                    Some(Err(error)) => return Err(told(&error)),
                },
                None => match self.form.next_field().now_or_never() {
                    None => false,
                    Some(Ok(None)) => {
                        self.ended = true;
                        true
                    }
                    Some(Ok(Some(field))) => {
                        if field.name() == Some("model") && field.file_name().is_none() {
                            self.field = Some((field, Vec::new()));
                        }
                        true
                    }
                    Some(Err(error)) => return Err(told(&error)),
                },
            };
            let fed = self.feed.lock().unwrap_or_else(PoisonError::into_inner).pieces.is_empty();
            pauses = if moved || !fed { 0 } else { pauses + 1 };
        }
        Ok(())
    }

    fn found(&mut self) -> Result<bool, BadForm> {
        let value = self.field.take().map(|(_, value)| value).unwrap_or_default();
        let value = String::from_utf8(value).ok().filter(|value| !value.is_empty());
        let value = value.ok_or(BadForm::UnclearModel)?;
        if self.model.as_ref().is_some_and(|earlier| *earlier != value) {
            return Err(BadForm::UnclearModel);
        }
        self.model = Some(value);
        Ok(true)
    }
}

fn told(error: &multer::Error) -> BadForm {
    match error {
        // Of no other field is the length limited.
        multer::Error::FieldSizeExceeded { .. } => BadForm::UnclearModel,
        _ => BadForm::Malformed,
    }
}

/// What is fed, in pieces, with a pause after each: the parser takes in what is ready before it looks at any of it.
fn piecewise(feed: Arc<Mutex<Feed>>) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::poll_fn(move |_| {
        let Feed { pieces, pause, last } = &mut *feed.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = !*pause;
        match (pieces.is_empty(), *pause) {
            (true, _) if *last => Poll::Ready(None),
            (false, true) => Poll::Ready(Some(Ok(pieces.split_to(pieces.len().min(PIECE))))),
            _ => Poll::Pending,
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
            assert_eq!(model_in_form(TYPE, &form(fields)), Err(BadForm::UnclearModel));
        }
        let agreed = form(&[(r#"name="model""#, b"a"), (r#"name="model""#, b"a")]);
        assert_eq!(model_in_form(TYPE, &agreed).unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn broken_forms_are_told_apart() {
        let whole = form(&[(r#"name="file"; filename="a""#, b"data"), (r#"name="model""#, b"whisper-1")]);
        for end in 0..whole.len() - 4 {
            assert_eq!(model_in_form(TYPE, &whole.slice(..end)), Err(BadForm::Malformed), "{end}");
        }
        for boundary in ["other", "line-77", "line"] {
            let other = format!("multipart/form-data; boundary={boundary}");
            assert_eq!(model_in_form(&other, &whole), Err(BadForm::Malformed), "{boundary}");
        }
        for none in ["multipart/form-data", "multipart/form-data; boundary=", "application/json"] {
            assert_eq!(model_in_form(none, &whole), Err(BadForm::NoBoundary), "{none}");
        }
        for body in [&b""[..], b"model=whisper-1", b"\r\n", b"\r\n\r\n--line-7--", b"--line-7x\r\n"] {
            assert_eq!(model_in_form(TYPE, &Bytes::from(body)), Err(BadForm::Malformed), "{body:?}");
        }
        assert_eq!(model_in_form(TYPE, &Bytes::from_static(b"\r\n--line-7--")), Ok(None));
    }

    #[test]
    fn a_form_in_pieces_tells_its_model_as_soon_as_that_is_whole() {
        let fields = [(r#"name="model""#, &b"whisper-1"[..]), (r#"name="file"; filename="a""#, &[b'x'; 999])];
        let whole = form(&fields);
        let known = memchr::memmem::find(&whole, b"whisper-1\r\n--line-7").unwrap() + 19;
        for size in [1, 2, 7, 100, 5000] {
            let mut reader = FormReader::new(TYPE).unwrap();
            let mut seen = 0;
            for piece in whole.chunks(size) {
                reader.push(Bytes::copy_from_slice(piece)).unwrap();
                seen += piece.len();
                assert_eq!(reader.model().is_some(), seen >= known, "{size}: {seen}");
            }
            assert_eq!(reader.end().unwrap().as_deref(), Some("whisper-1"));
        }
    }
}
