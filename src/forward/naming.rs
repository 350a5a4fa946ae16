//! The model that a request names, and another put in its place: what stands around it goes on as it came.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::{
    Inbound,
    coding::decoded,
    inbound::essence,
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
        if let Some(target) = self.target.of_model(name) {
            self.target = target;
            return Ok(());
        }
        if self.body.is_empty() {
            return Ok(());
        }
        let text = decoded(&self.headers, &self.body, MOST_DECODED).map_err(|_| CannotRename)?;
        let media = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = essence(media) == "multipart/form-data";
        let (at, name) = if is_form {
            (model_at_in_form(media, &text), Cow::Borrowed(name))
        } else {
            let sniffed = sniff(&text).map_err(|_| CannotRename)?;
            if sniffed.model.is_none() {
                return Ok(());
            }
            (sniffed.model_at, Cow::Owned(serde_json::Value::from(name).to_string()))
        };
        let at = at.ok_or(CannotRename)?;
        let mut body = Vec::with_capacity(text.len() + name.len());
        body.extend_from_slice(&text[..at.start]);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&text[at.end..]);
        let was_coded = matches!(text, Cow::Owned(_));
        self.body = Bytes::from(body);
        if was_coded {
            self.headers.remove(CONTENT_ENCODING);
        }
        Ok(())
    }
}

impl Target {
    /// The model that its path names, decoded. Of OpenAI's paths only `/models/{model}` names one.
    #[must_use]
    pub fn model(&self) -> Option<Cow<'_, str>> {
        let at = self.model_at()?;
        percent_decode_str(&self.path()[at]).decode_utf8().ok().filter(|model| !model.is_empty())
    }

    /// The same with another model in its path, if it names one.
    #[must_use]
    pub fn of_model(&self, model: &str) -> Option<Self> {
        let at = self.model_at()?;
        let (before, after) = (&self.path()[..at.start], &self.path()[at.end..]);
        // Where a model's name may have slashes, they stand there as they are.
        let name = model.split('/').map(|piece| utf8_percent_encode(piece, ENCODED).to_string());
        let name = name.collect::<Vec<_>>().join("/");
        Some(self.with_path(&format!("{before}{name}{after}")))
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
                let end = rest.find([':', '/']).unwrap_or(rest.len());
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
            assert_eq!(target(spoken, path).of_model("x"), None, "{path}");
        }
    }
}
