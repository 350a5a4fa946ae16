//! Anthropic's own API: messages, tokens, models and batches.

mod batches;
mod messages;

use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::api::{Api, NO_SUCH_MODEL, Refusal, ok};
use super::dialect::parameter;
use super::faults::Fault;
use super::keys::Standing;
use super::openai_faults::seconds;
use super::record::Recorded;
use super::script::Answer;

pub(super) use batches::Batches;

/// The models on the list, newest first. Every other name is served too, except [`NO_SUCH_MODEL`].
const MODELS: [(&str, &str); 3] = [
    ("claude-opus-4-5-20251101", "Claude Opus 4.5"),
    ("claude-haiku-4-5-20251001", "Claude Haiku 4.5"),
    ("claude-sonnet-4-5-20250929", "Claude Sonnet 4.5"),
];

pub(super) fn answer(
    api: &Api,
    request: &Recorded,
    account: &str,
    standing: Standing,
    number: u64,
) -> Answer {
    let answer = route(api, request, account).unwrap_or_else(|refusal| refusal.answer(number));
    let answer = with_standing(answer, &standing)
        .header("request-id", id(number))
        .header("anthropic-organization-id", account);
    [("tokens", 480_000), ("input-tokens", 400_000), ("output-tokens", 80_000)].iter().fold(
        answer,
        |answer, (name, limit)| {
            with_limit(answer, name, &Standing { limit: *limit, remaining: *limit, reset: Duration::ZERO })
        },
    )
}

/// An error that does not know its request's id yet.
struct Refused {
    status: u16,
    kind: &'static str,
    message: String,
}

impl Refused {
    fn answer(&self, number: u64) -> Answer {
        Answer::status(self.status).json(&json!({
            "type": "error", "error": {"type": self.kind, "message": self.message}, "request_id": id(number),
        }))
    }
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused { status: 400, kind: "invalid_request_error", message: message.into() }
}

fn not_found(message: impl Into<String>) -> Refused {
    Refused { status: 404, kind: "not_found_error", message: message.into() }
}

fn route(api: &Api, request: &Recorded, account: &str) -> Result<Answer, Refused> {
    if request.header("anthropic-version").is_none() {
        return Err(invalid("anthropic-version: header is required"));
    }
    let rest = request.path().split_once("/v1/").map_or("", |(_, rest)| rest);
    let segments: Vec<_> = rest.split('/').collect();
    match (&request.method, segments.as_slice()) {
        (&Method::POST, ["messages"]) => messages::create(&body(request)?),
        (&Method::POST, ["messages", "count_tokens"]) => messages::count_tokens(&body(request)?),
        (method, ["messages", "batches", rest @ ..]) => api.batches.answer(method, rest, request, account),
        (&Method::GET, ["models"]) => Ok(models(request)),
        (&Method::GET, ["models", id]) => {
            served(id)?;
            Ok(ok(&model(id)))
        }
        (_, ["messages" | "models", ..]) => Err(Refused {
            status: 405,
            kind: "invalid_request_error",
            message: "Method Not Allowed".to_owned(),
        }),
        _ => Err(not_found("Not Found")),
    }
}

fn body(request: &Recorded) -> Result<Value, Refused> {
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(body)) => Ok(body.into()),
        _ => Err(invalid("The request body is not valid JSON.")),
    }
}

fn served(model: &str) -> Result<(), Refused> {
    if model == NO_SUCH_MODEL { Err(not_found(format!("model: {model}"))) } else { Ok(()) }
}

/// A page of the list, after the id that the client names.
fn models(request: &Recorded) -> Answer {
    let limit = parameter(&request.target, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
    let after = parameter(&request.target, "after_id");
    let from = MODELS.iter().position(|(id, _)| after.as_deref() == Some(*id)).map_or(0, |place| place + 1);
    let page: Vec<_> = MODELS.iter().skip(from).take(limit).map(|(id, _)| model(id)).collect();
    let end = |model: Option<&Value>| model.map(|model| model["id"].clone());
    ok(&json!({
        "data": page, "has_more": from + page.len() < MODELS.len(),
        "first_id": end(page.first()), "last_id": end(page.last()),
    }))
}

fn model(id: &str) -> Value {
    let name = MODELS.iter().find(|(known, _)| *known == id).map_or(id, |(_, name)| name);
    json!({"type": "model", "id": id, "display_name": name, "created_at": "2025-06-15T15:06:40Z"})
}

pub(super) fn fault(fault: Fault, request: &Recorded, number: u64) -> Answer {
    let (status, kind, message) = match fault {
        Fault::NoKey => (401, "authentication_error", "x-api-key header is required"),
        Fault::Revoked if request.headers.contains_key("x-api-key") => {
            (401, "authentication_error", "invalid x-api-key")
        }
        Fault::Revoked => (401, "authentication_error", "Invalid bearer token"),
        Fault::OutOfQuota => (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or \
             purchase credits.",
        ),
        Fault::RateLimited(..) => (
            429,
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 50 requests per minute.",
        ),
        Fault::Overloaded => (529, "overloaded_error", "Overloaded"),
        Fault::Failing => (500, "api_error", "Internal server error"),
    };
    let refused = Refused { status, kind, message: message.to_owned() };
    let answer = refused.answer(number).header("request-id", id(number));
    match fault {
        Fault::RateLimited(wait, standing) => {
            let standing = standing.unwrap_or(Standing { limit: 50, remaining: 0, reset: wait });
            with_standing(answer.retry_after(seconds(wait)), &standing).header("x-should-retry", true)
        }
        Fault::Overloaded | Fault::Failing => answer.header("x-should-retry", true),
        _ => answer.header("x-should-retry", false),
    }
}

pub(super) fn overload_event(number: u64) -> String {
    let error = json!({
        "type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": id(number),
    });
    format!("event: error\ndata: {error}\n\n")
}

fn id(number: u64) -> String {
    format!("req_{number:024x}")
}

fn with_standing(answer: Answer, standing: &Standing) -> Answer {
    with_limit(answer, "requests", standing)
}

fn with_limit(answer: Answer, name: &str, standing: &Standing) -> Answer {
    answer
        .header(&format!("anthropic-ratelimit-{name}-limit"), standing.limit)
        .header(&format!("anthropic-ratelimit-{name}-remaining"), standing.remaining)
        .header(&format!("anthropic-ratelimit-{name}-reset"), rfc3339(standing.reset))
}

/// The time after this long, to the second.
#[expect(clippy::disallowed_methods, reason = "this upstream tells the time of day as the real one does")]
fn rfc3339(wait: Duration) -> String {
    let at = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(seconds(wait)));
    let (date, time) = (at.date(), at.time());
    let month = u8::from(date.month());
    let (hour, minute, second) = time.as_hms();
    format!("{}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year(), date.day())
}
