//! What a body says of the request: its model, whether a stream is asked for, what it will cost.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    coding::{UnknownCoding, decoded},
    inbound::{BodyLimit, BodyLimits, InboundError, LONGEST_MODEL},
};
use crate::{
    provider::{BadForm, FormReader, SniffError, demand, model_in_form, sniff, with_usage_asked},
    types::Demand,
};

/// What a body is, as its headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// JSON.
    Json,
    /// An upload form.
    Form,
    /// Something that programs say who send JSON and say nothing of it.
    Unsaid {
        /// Nothing is said at all.
        silent: bool,
    },
    /// Sound, pictures, files.
    Other,
    /// Whatever an API has that we don't know.
    Unknown,
}

impl Kind {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let essence = media(headers).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "" => Self::Unsaid { silent: true },
            "application/json" => Self::Json,
            "multipart/form-data" => Self::Form,
            "application/x-www-form-urlencoded" | "text/plain" => Self::Unsaid { silent: false },
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Other,
        }
    }

    pub(super) fn is_form(self) -> bool {
        self == Self::Form
    }

    /// The limit that it is held against.
    pub(super) fn limit(self) -> BodyLimit {
        match self {
            Self::Json | Self::Unsaid { silent: true } => BodyLimit::Bodies,
            Self::Form | Self::Other | Self::Unknown | Self::Unsaid { silent: false } => BodyLimit::Uploads,
        }
    }

    /// Who reads it as it comes, if it is a form that can be read so.
    pub(super) fn form(self, headers: &HeaderMap) -> Result<Option<FormReader>, BadForm> {
        let is_plain = headers
            .get(CONTENT_ENCODING)
            .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        if self.is_form() && is_plain { FormReader::new(media(headers)).map(Some) } else { Ok(None) }
    }
}

pub(super) fn media(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What a body says.
#[derive(Default)]
pub(super) struct Meaning {
    pub(super) model: Option<Box<str>>,
    /// Whether a stream is asked for.
    pub(super) stream: bool,
    pub(super) demand: Demand,
    /// The body with the question for its usage.
    pub(super) asking: Option<Vec<u8>>,
}

impl Meaning {
    fn of_model(model: Option<&str>) -> Self {
        Self { model: model.map(Box::from), ..Self::default() }
    }

    /// Of a whole body. If it `may_ask`, its usage is asked for.
    pub(super) fn of(
        kind: Kind,
        headers: &HeaderMap,
        body: &Bytes,
        limits: BodyLimits,
        may_ask: bool,
    ) -> Result<Self, InboundError> {
        if body.is_empty() || kind == Kind::Unknown {
            return Ok(Self::default());
        }
        let limit = limits.held;
        let text =
            decoded(headers, body, limit.saturating_add(1)).map_err(|UnknownCoding| InboundError::Coding)?;
        if text.len() > limit {
            if kind == Kind::Other {
                return Ok(Self::default());
            }
            return Err(InboundError::TooLarge { limit: limit as u64, by: BodyLimit::Bodies });
        }
        let body = &match text {
            Cow::Borrowed(_) => body.clone(),
            Cow::Owned(text) => Bytes::from(text),
        };
        let sniffed = match kind {
            Kind::Form => return Ok(Self::of_model(model_in_form(media(headers), body)?.as_deref())),
            Kind::Json => sniff(body)?,
            // Some post JSON without saying so, and then it counts all the same.
            Kind::Unsaid { .. } | Kind::Other if begins_as_json(body) => match sniff(body) {
                Err(SniffError::NotJson { .. }) => return Ok(Self::default()),
                sniffed => sniffed?,
            },
            Kind::Unsaid { .. } | Kind::Other | Kind::Unknown => return Ok(Self::default()),
        };
        if sniffed.model.as_ref().is_some_and(|model| model.len() > LONGEST_MODEL) {
            return Err(InboundError::ModelTooLong);
        }
        Ok(Self {
            asking: if may_ask { with_usage_asked(body, &sniffed) } else { None },
            model: sniffed.model.map(Cow::into_owned).map(String::into_boxed_str),
            stream: sniffed.stream,
            demand: demand(body, sniffed.output),
        })
    }

    /// Of a body that is not held, by its beginning.
    pub(super) fn of_beginning(
        kind: &Kind,
        beginning: &[u8],
        form: Option<&FormReader>,
        limits: BodyLimits,
    ) -> Result<Self, InboundError> {
        // JSON is not sent on before it is understood.
        if matches!(kind, Kind::Unsaid { .. }) && begins_as_json(beginning) {
            return Err(InboundError::TooLarge { limit: limits.held as u64, by: BodyLimit::Bodies });
        }
        Ok(Self::of_model(form.and_then(FormReader::model)))
    }
}

fn begins_as_json(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}
