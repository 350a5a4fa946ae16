//! Answers of our own, in the dialect of whoever asks. Nothing in them comes from a key.

use std::time::Duration;

use super::{AnswerBody, shape};
use crate::{
    client::{Limit, Limited},
    forward::{BadTarget, BodyLimit, ForwardError, InboundError, Misrouted, SHOULD_RETRY, Unavailable},
    pool::{Causes, Reason},
    provider::SniffError,
    types::{Dialect, ErrorCode},
};
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};

/// For so long a time of day says enough.
const SAME_DAY: Duration = Duration::from_secs(12 * 60 * 60);
/// Up to this wait an SDK may try again by itself: longer ones it would not honour.
const SDK_PATIENCE: Duration = Duration::from_secs(60);

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    code: ErrorCode,
    message: String,
    retry: Retry,
    /// The methods that would do.
    allowed: Option<HeaderValue>,
    /// Whether the connection ends with it.
    last: bool,
}

/// Whether it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Not without another request: the SDKs don't for such a status.
    Unsaid,
    /// From then on.
    After(Duration),
    /// Nobody knows when.
    Unknown,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Unsaid, allowed: None, last: false }
    }

    fn retry(mut self, after: Option<Duration>) -> Self {
        self.retry = after.map_or(Retry::Unknown, Retry::After);
        self
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.code
    }

    pub(super) fn internal() -> Self {
        let message = "This request ran into a fault of the proxy; other requests are not affected.";
        Self::new(ErrorCode::InternalError, message).retry(None)
    }

    pub(super) fn unauthorized() -> Self {
        let message = "Missing or wrong client key. Send one of this proxy's client keys as `Authorization: Bearer …` \
                       (or x-api-key, x-goog-api-key, api-key, X-Proxy-Key; in the query, as `key`, with Gemini's API \
                       only).";
        Self::new(ErrorCode::InvalidApiKey, message)
    }

    pub(super) fn foreign_page() -> Self {
        let message = "This proxy asks for no client key, so web pages from elsewhere may not use it. Add the page's \
                       origin to server.cors_allowed_origins, or set client keys.";
        Self::new(ErrorCode::OriginNotAllowed, message)
    }

    pub(super) fn two_credentials() -> Self {
        let message = "Two different credentials were sent, and only one can be the client key. Send one (as \
                       `Authorization: Bearer …`, x-api-key, x-goog-api-key or api-key), or name it in X-Proxy-Key, \
                       which alone counts.";
        Self::new(ErrorCode::InvalidApiKey, message)
    }

    pub(super) fn no_such_route() -> Self {
        let message = "No such route. The API is below /v1/; point your SDK's base_url at this proxy's /v1 (Anthropic \
                       and Gemini SDKs: at its root).";
        Self::new(ErrorCode::NotFound, message)
    }

    pub(super) fn no_such_pool(slug: &str) -> Self {
        let message = format!("No pool is called `{slug}`. GET /v1/providers lists those that there are.");
        Self::new(ErrorCode::NotFound, message)
    }

    pub(super) fn bad_host() -> Self {
        Self::new(ErrorCode::InvalidRequest, "A request must have one valid Host header.")
    }

    pub(super) fn unknown_transfer_coding() -> Self {
        let message = "The only Transfer-Encoding that is understood is `chunked`, once.";
        Self { last: true, ..Self::new(ErrorCode::InvalidRequest, message) }
    }

    pub(super) fn shutting_down() -> Self {
        Self::new(ErrorCode::ShuttingDown, "This proxy is shutting down.").retry(None)
    }
}

impl From<Limited> for Refusal {
    fn from(limited: Limited) -> Self {
        let message = match limited.limit {
            Limit::Global => "This proxy's limit of requests per second (rate_limit.global_rps) is reached.",
            Limit::Client => "Your limit of requests per second (rate_limit.per_client_rps) is reached.",
        };
        Self::new(ErrorCode::RateLimitExceeded, message).retry(Some(limited.free_in))
    }
}

impl From<BadTarget> for Refusal {
    fn from(bad: BadTarget) -> Self {
        let message = format!("This request's target is not forwarded: {bad}.");
        Self::new(ErrorCode::InvalidRequest, message)
    }
}

impl From<InboundError> for Refusal {
    fn from(error: InboundError) -> Self {
        let bad = |code, message: String| Self::new(code, message);
        match error {
            InboundError::TooLarge { limit, by } => {
                let setting = match by {
                    BodyLimit::Bodies => "server.request_body_limit_bytes",
                    BodyLimit::Uploads => "server.max_upload_bytes",
                };
                let message =
                    format!("The request body is larger than {limit} bytes; {setting} sets this limit.");
                Self::new(ErrorCode::BodyTooLarge, message)
            }
            InboundError::NoMemory => {
                let message = "This proxy holds as many request bodies as it may; try again shortly.";
                let soon = Duration::from_secs(1);
                Self::new(ErrorCode::RateLimitExceeded, message).retry(Some(soon))
            }
            InboundError::Json(error) => {
                let code = match error {
                    SniffError::NotJson { .. } => ErrorCode::InvalidJson,
                    SniffError::ModelNotAString | SniffError::ModelAmbiguous => ErrorCode::InvalidRequest,
                };
                bad(code, format!("The request body is not understood: {error}."))
            }
            InboundError::NoModel => bad(
                ErrorCode::InvalidRequest,
                "The form names no `model`. Add a field `model` with the model's name.".to_owned(),
            ),
            error @ (InboundError::Coding
            | InboundError::ModelTooLong
            | InboundError::Form(_)
            | InboundError::ModelBehindFile
            | InboundError::CodedForm
            | InboundError::TwoModels
            | InboundError::Upgrade(_)) => {
                bad(ErrorCode::InvalidRequest, format!("The request is not understood: {error}."))
            }
            InboundError::Stalled => {
                bad(ErrorCode::InvalidRequest, "The request body stopped coming.".to_owned())
            }
            InboundError::Broken => {
                bad(ErrorCode::InvalidRequest, "The request body ended early or is badly framed.".to_owned())
            }
        }
    }
}

impl From<Misrouted> for Refusal {
    fn from(misrouted: Misrouted) -> Self {
        match misrouted {
            Misrouted::NotSpoken { dialect } => {
                let message = format!(
                    "No pool speaks this dialect ({dialect}): configure keys of a provider that does, or ask for the \
                     model by an API that is configured (GET /v1/providers)."
                );
                Self::new(ErrorCode::NotFound, message)
            }
            Misrouted::SpeaksOtherwise { pool, dialect } => {
                let route = match dialect {
                    Dialect::OpenAi => "/v1/chat/completions".to_owned(),
                    Dialect::Anthropic => "/v1/messages".to_owned(),
                    Dialect::Gemini => "/v1beta/models/…:generateContent".to_owned(),
                    Dialect::Azure => format!("/llm/{pool}/openai/…"),
                    Dialect::Generic => format!("/proxy/{pool}/…"),
                };
                let message = format!(
                    "The model belongs to the pool `{pool}`, which speaks another dialect ({dialect}): ask for it at \
                     {route}."
                );
                Self::new(ErrorCode::InvalidRequest, message)
            }
            Misrouted::NoKeyOf { provider } => {
                let variable = provider.to_ascii_uppercase();
                let message = format!(
                    "No key of the provider `{provider}` is configured. Whoever runs this proxy can set \
                     {variable}_API_KEY_1."
                );
                Self::new(ErrorCode::ModelNotFound, message)
            }
            Misrouted::Method { pool, allowed } => {
                let names = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                let message = format!("The pool `{pool}` takes these methods only: {names}.");
                let allowed = HeaderValue::try_from(names).ok();
                Self { allowed, ..Self::new(ErrorCode::MethodNotAllowed, message) }
            }
        }
    }
}

impl From<ForwardError> for Refusal {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::ModelNotFound { model } => {
                let message = match model {
                    Some(model) => format!(
                        "The model `{model}` is not served: no key is configured for it, and none for `others`."
                    ),
                    None => {
                        "The request names no model, and no key is configured for such requests.".to_owned()
                    }
                };
                Self::new(ErrorCode::ModelNotFound, message)
            }
            ForwardError::ModelUnavailable { model } => {
                let model = model.unwrap_or_default();
                let message =
                    format!("The model `{model}` does not exist, or none of the keys has access to it.");
                Self::new(ErrorCode::ModelNotFound, message)
            }
            ForwardError::Target(bad) => bad.into(),
            ForwardError::Misrouted(misrouted) => misrouted.into(),
            error @ ForwardError::Rename(_) => {
                let message =
                    format!("The model goes by another name upstream, and can't be renamed here: {error}.");
                Self::new(ErrorCode::InvalidRequest, message)
            }
            ForwardError::Elsewhere => {
                let message = "The upstream failed, and no alternative of the model could serve.";
                Self::new(ErrorCode::UpstreamBroken, message).retry(None)
            }
            ForwardError::Body(error) => error.into(),
            ForwardError::AllKeysCooling(now) => {
                let message = format!("No key is free now: {}.", explain(&now));
                Self::new(ErrorCode::AllKeysCooling, message).retry(now.free_in)
            }
            ForwardError::TooManyWaiting(now) => {
                let message = format!("Too many requests are waiting for a key: {}.", explain(&now));
                Self::new(ErrorCode::AllKeysCooling, message).retry(now.free_in)
            }
            ForwardError::NoUsableKey(now) => {
                let message = format!(
                    "No key is usable: {}. Whoever runs this proxy must replace or fund them.",
                    explain(&now)
                );
                // When a key is asked again is known, not that it will serve.
                Self::new(ErrorCode::NoUsableKey, message).retry(None)
            }
            ForwardError::NotPermitted { purpose } => {
                let message = format!(
                    "No key is usable for this: the upstream says that none has the permission for `{purpose}`. \
                     Whoever runs this proxy must grant it to them."
                );
                Self::new(ErrorCode::NoUsableKey, message).retry(None)
            }
            ForwardError::Unreachable(now) => {
                let message = if now.causes.host_down > 0 {
                    format!("The upstream cannot be reached: {}.", explain(&now))
                } else {
                    "The upstream cannot be reached.".to_owned()
                };
                Self::new(ErrorCode::UpstreamUnreachable, message).retry(now.free_in)
            }
            ForwardError::Broken => {
                let message = "The upstream broke the connection before it answered.";
                Self::new(ErrorCode::UpstreamBroken, message).retry(None)
            }
            ForwardError::TimedOut => {
                let message = "The upstream did not answer in time.";
                Self::new(ErrorCode::UpstreamTimeout, message).retry(None)
            }
        }
    }
}

/// "3 accounts rate limited until 12:00:04 UTC, 1 key rejected".
fn explain(unavailable: &Unavailable) -> String {
    let Unavailable { causes, now, .. } = unavailable;
    let Causes { resting, busy, host_down, free, .. } = &**causes;
    let keys = |count: usize| if count == 1 { "1 key".to_owned() } else { format!("{count} keys") };
    let mut parts: Vec<String> = resting
        .iter()
        .map(|rest| {
            let accounts = match rest.accounts {
                0 => None,
                1 => Some("1 account".to_owned()),
                many => Some(format!("{many} accounts")),
            };
            let alone = rest.keys - rest.of_accounts;
            let who = accounts.into_iter().chain((alone > 0).then(|| keys(alone)));
            let who = who.collect::<Vec<_>>().join(" and ");
            let (what, ends) = match rest.reason {
                Reason::RateLimited => ("rate limited", true),
                Reason::QuotaExhausted => ("out of quota", true),
                Reason::Failing => ("failing", true),
                // When they are tried again is known, not that they will serve.
                Reason::Rejected => ("rejected", false),
                Reason::Refused => ("refused", false),
                Reason::ModelUnavailable => ("without access to the model", false),
            };
            if !ends {
                return format!("{who} {what}");
            }
            let until = now.wall + rest.until.saturating_duration_since(now.mono);
            // An IMF-fixdate ends in "hh:mm:ss GMT" (RFC 9110 §5.6.7).
            let date = httpdate::fmt_http_date(until);
            let soon = until.duration_since(now.wall).is_ok_and(|wait| wait < SAME_DAY);
            let time = if soon { date.get(17..25) } else { date.get(5..25) }.unwrap_or_default();
            format!("{who} {what} until {time} UTC")
        })
        .collect();
    for (count, what) in [(*host_down, "at an upstream that fails"), (*busy, "at their configured limits")] {
        if count > 0 {
            parts.push(format!("{} {what}", keys(count)));
        }
    }
    if parts.is_empty() { format!("{} free again", keys(*free)) } else { parts.join(", ") }
}

impl Refusal {
    /// The answer, to a client that speaks this dialect.
    pub(super) fn answer(self, spoken: Dialect, id: &HeaderValue) -> Response<AnswerBody> {
        let status = self.code.status();
        let seconds = match self.retry {
            Retry::After(wait) => Some(whole_seconds(wait)),
            Retry::Unsaid | Retry::Unknown => None,
        };
        let id = id.to_str().unwrap_or_default();
        let error = shape::body(spoken, self.code, &self.message, id, seconds);
        let mut response = Response::new(AnswerBody::Own(error.to_string().into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.retry {
            Retry::Unsaid => {}
            Retry::Unknown => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::After(wait) => {
                let ms = wait.as_nanos().div_ceil(1_000_000);
                headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
                headers.insert("retry-after-ms", HeaderValue::from(u64::try_from(ms).unwrap_or(u64::MAX)));
                let worth_it = if wait <= SDK_PATIENCE { "true" } else { "false" };
                headers.insert(SHOULD_RETRY, HeaderValue::from_static(worth_it));
            }
        }
        if let Some(allowed) = self.allowed {
            headers.insert(ALLOW, allowed);
        }
        if self.last {
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Never earlier than the moment meant.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
