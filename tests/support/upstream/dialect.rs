//! Which API a request is for, and where that API takes its credential.

use http::HeaderMap;

use super::record::Recorded;

/// How the upstream speaks, told by the path: one upstream speaks them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
    /// The OpenAI-compatible base of Gemini, with errors of its own.
    GeminiCompatible,
    Azure,
    /// `/weather/…` with `?appid=`, `/maps/…` with `Authorization: ApiKey …` or `X-Api-Token`.
    Generic,
}

const VERBS: [&str; 5] =
    [":generateContent", ":streamGenerateContent", ":embedContent", ":batchEmbedContents", ":countTokens"];

impl Dialect {
    pub(super) fn of(headers: &HeaderMap, target: &str) -> Self {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let has = |name: &str| headers.contains_key(name);
        let models = path.ends_with("/v1/models") || path.contains("/v1/models/");
        if path.contains("/v1beta/openai/") {
            Self::GeminiCompatible
        } else if path.contains("/v1beta/")
            || VERBS.iter().any(|verb| path.ends_with(verb))
            // Google's newer SDKs ask `v1` rather than `v1beta`.
            || (models && has("x-goog-api-key"))
        {
            Self::Gemini
        } else if path.contains("/openai/deployments/") || (path.contains("/openai/") && has("api-key")) {
            Self::Azure
        } else if path.contains("/v1/messages") || (models && (has("anthropic-version") || has("x-api-key")))
        {
            Self::Anthropic
        } else if path.starts_with("/weather/") || path.starts_with("/maps/") {
            Self::Generic
        } else {
            Self::OpenAi
        }
    }

    pub(super) fn of_request(request: &Recorded) -> Self {
        Self::of(&request.headers, &request.target)
    }

    /// The credential where this API looks for it, and nowhere else.
    pub(super) fn own_key(self, headers: &HeaderMap, target: &str) -> Option<String> {
        let header = |name| text(headers, name).map(str::to_owned);
        match self {
            Self::OpenAi | Self::GeminiCompatible => authorization(headers, &["Bearer "]),
            // Anthropic's newer SDKs send their key as a bearer.
            Self::Anthropic => header("x-api-key").or_else(|| authorization(headers, &["Bearer "])),
            Self::Gemini => header("x-goog-api-key").or_else(|| parameter(target, "key")),
            Self::Azure => header("api-key"),
            Self::Generic if target.starts_with("/weather/") => parameter(target, "appid"),
            Self::Generic => header("x-api-token")
                .map(|token| token.strip_prefix("Token ").unwrap_or(&token).to_owned())
                .or_else(|| authorization(headers, &["ApiKey "])),
        }
    }
}

/// The credential, in whichever place of any API it stood; first in the request's own.
pub(super) fn key_of(headers: &HeaderMap, target: &str) -> Option<String> {
    let header = |name| text(headers, name).map(str::to_owned);
    Dialect::of(headers, target)
        .own_key(headers, target)
        .or_else(|| authorization(headers, &["Bearer ", "ApiKey ", ""]))
        .or_else(|| ["x-api-key", "api-key", "x-goog-api-key", "x-api-token"].into_iter().find_map(header))
        .or_else(|| parameter(target, "key"))
        .or_else(|| parameter(target, "appid"))
}

/// The value of a name in the query, decoded.
pub(super) fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(other, value)| (other == name).then(|| value.into_owned()))
}

fn authorization(headers: &HeaderMap, schemes: &[&str]) -> Option<String> {
    let value = text(headers, "authorization")?;
    schemes.iter().find_map(|scheme| value.strip_prefix(scheme)).map(str::to_owned)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
