//! The model that a request names, and another put in its place: what stands around it goes on as it came.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use memchr::memmem::find;
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::{
    Inbound,
    coding::decoded,
    meaning::{Kind, media},
    target::{ENCODED, Target},
};
use crate::{
    provider::{model_at_in_form, sniff},
    types::{Dialect, is_version},
};

/// A decoded body may be so many times as long as it came: more is an attack, which was refused when it was read.
const MOST_DECODED: usize = 1 << 30;

/// The model's name can't be changed in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the place where it names its model is unclear")]
pub struct CannotRename;

impl Inbound {
    /// Asks for the model by another name, wherever the request names it. One that names none stays as it is.
    ///
    /// # Errors
    /// [`CannotRename`] if it isn't clear where it does.
    pub(super) fn call_model(&mut self, name: &str) -> Result<(), CannotRename> {
        let spoken = self.spoken();
        let in_path = self.target.model().map(Cow::into_owned);
        if let Some(before) = &in_path {
            self.target = self.target.of_model(name)?;
            // Google's embeddings name the model in the body once more, and it must be the same.
            if spoken != Dialect::Gemini || *before == name || self.body.is_empty() {
                return Ok(());
            }
            let (before, after) = (format!("\"models/{before}\""), format!("\"models/{name}\""));
            if find(&self.body, before.as_bytes()).is_some() {
                self.body = replaced(&self.body, before.as_bytes(), after.as_bytes());
                self.forget_digests();
            }
            return Ok(());
        }
        if self.wish().is_some() {
            self.target = self.target.of_model_in_query(name);
            return Ok(());
        }
        if self.body.is_empty() {
            return Ok(());
        }
        let text = decoded(&self.headers, &self.body, MOST_DECODED).map_err(|_| CannotRename)?;
        let (at, name) = if Kind::of(&self.headers).is_form() {
            (model_at_in_form(media(&self.headers), &text), Cow::Borrowed(name))
        } else {
            let sniffed = sniff(&text).map_err(|_| CannotRename)?;
            let Some(before) = &sniffed.model else { return Ok(()) };
            let has_prefix = spoken == Dialect::Gemini && before.starts_with(MODELS);
            let prefix = if has_prefix { MODELS } else { "" };
            let literal = serde_json::Value::from(format!("{prefix}{name}")).to_string();
            (sniffed.model_at, Cow::Owned(literal))
        };
        let at = at.ok_or(CannotRename)?;
        let mut body = Vec::with_capacity(text.len() + name.len());
        body.extend_from_slice(&text[..at.start]);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&text[at.end..]);
        let was_coded = matches!(text, Cow::Owned(_));
        let body = Bytes::from(body);
        if was_coded {
            // What was short as it came may be long as it is.
            self.hold_more(body.len().saturating_sub(self.body.len())).map_err(|_| CannotRename)?;
            self.headers.remove(CONTENT_ENCODING);
        }
        self.body = body;
        self.forget_digests();
        Ok(())
    }

    /// Takes out what was calculated over the body that was.
    fn forget_digests(&mut self) {
        for name in ["content-md5", "digest", "content-digest", "repr-digest"] {
            self.headers.remove(name);
        }
    }
}

/// What stands before a model's name in Google's API.
pub(super) const MODELS: &str = "models/";

fn replaced(body: &[u8], before: &[u8], after: &[u8]) -> Bytes {
    let (mut text, mut rest) = (Vec::with_capacity(body.len() + after.len()), body);
    while let Some(at) = find(rest, before) {
        text.extend_from_slice(&rest[..at]);
        text.extend_from_slice(after);
        rest = &rest[at + before.len()..];
    }
    text.extend_from_slice(rest);
    text.into()
}

impl Target {
    /// The model that its path names, decoded. Of OpenAI's paths only `/models/{model}` names one.
    #[must_use]
    pub fn model(&self) -> Option<Cow<'_, str>> {
        let at = self.model_at()?;
        percent_decode_str(&self.path()[at]).decode_utf8().ok().filter(|model| !model.is_empty())
    }

    /// The same with another model in its path, if that names one.
    ///
    /// # Errors
    /// [`CannotRename`] if no path could carry that.
    pub fn of_model(&self, model: &str) -> Result<Self, CannotRename> {
        let Some(at) = self.model_at() else { return Ok(self.clone()) };
        let (before, after) = (&self.path()[..at.start], &self.path()[at.end..]);
        // Where a model's name may have slashes, they stand there as they are.
        let name = model.split('/').map(|piece| utf8_percent_encode(piece, ENCODED).to_string());
        let name = name.collect::<Vec<_>>().join("/");
        self.with_path(&format!("{before}{name}{after}")).map_err(|_| CannotRename)
    }

    /// Whether its path alone says that the answer is a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.spoken() == Dialect::Gemini && self.path().ends_with(":streamGenerateContent")
    }

    /// Where in its path the model stands.
    fn model_at(&self) -> Option<Range<usize>> {
        if self.is_nameless() {
            return None;
        }
        let path = self.path();
        let begins_with = |prefix: &str| path.strip_prefix(prefix).map(|rest| (prefix.len(), rest));
        let (start, rest) = match self.spoken() {
            Dialect::OpenAi | Dialect::Anthropic => begins_with("/models/")?,
            Dialect::Gemini => {
                let version = path
                    .split('/')
                    .nth(1)
                    .filter(|first| is_version(first))
                    .map_or(0, |first| first.len() + 1);
                let rest = path[version..].strip_prefix("/models/")?;
                // It ends at its verb; and what belongs to it may be asked for.
                let end = rest.rfind(':').or_else(|| rest.find("/operations")).unwrap_or(rest.len());
                (path.len() - rest.len(), &rest[..end])
            }
            Dialect::Azure => {
                let (start, rest) = begins_with("/openai/deployments/")?;
                (start, rest.split('/').next()?)
            }
            Dialect::Generic => return None,
        };
        (!rest.is_empty()).then(|| start..start + rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(spoken: Dialect, path: &str) -> Target {
        Target::new(path, Some("a=1")).unwrap().spoken_in(spoken)
    }

    #[test]
    fn each_dialect_names_the_model_in_a_place_of_its_own() {
        for (spoken, path, model, other) in [
            (Dialect::OpenAi, "/models/gpt-4o", "gpt-4o", "/models/x%3Ay/z"),
            (Dialect::OpenAi, "/models/meta/llama%203", "meta/llama 3", "/models/x%3Ay/z"),
            (Dialect::Anthropic, "/models/claude", "claude", "/models/x%3Ay/z"),
            (
                Dialect::Gemini,
                "/models/gemini-2.5-pro:generateContent",
                "gemini-2.5-pro",
                "/models/x%3Ay/z:generateContent",
            ),
            (
                Dialect::Gemini,
                "/models/google/gemma:countTokens",
                "google/gemma",
                "/models/x%3Ay/z:countTokens",
            ),
            (Dialect::Gemini, "/v1alpha/models/g", "g", "/v1alpha/models/x%3Ay/z"),
            (
                Dialect::Azure,
                "/openai/deployments/d/chat/completions",
                "d",
                "/openai/deployments/x%3Ay/z/chat/completions",
            ),
        ] {
            let target = target(spoken, path);
            assert_eq!(target.model().as_deref(), Some(model), "{path}");
            assert_eq!(target.of_model("x:y/z").unwrap().path(), other, "{path}");
            for bad in ["a//b", "a/../b"] {
                assert_eq!(target.of_model(bad), Err(CannotRename), "{path} {bad}");
            }
        }
    }

    #[test]
    fn other_paths_name_none() {
        for (spoken, path) in [
            (Dialect::OpenAi, "/chat/completions"),
            (Dialect::OpenAi, "/models"),
            (Dialect::OpenAi, "/models/"),
            (Dialect::Gemini, "/files/models"),
            (Dialect::Gemini, "/models"),
            (Dialect::Azure, "/openai/files"),
            (Dialect::Generic, "/models/x"),
        ] {
            assert_eq!(target(spoken, path).model(), None, "{path}");
            assert_eq!(target(spoken, path).of_model("x").unwrap().path(), path);
        }
    }
}
