//! Gemini's own API, and the errors of its OpenAI-compatible base.

mod content;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::api::NO_SUCH_MODEL;
use super::dialect::{Dialect, parameter};
use super::faults::Fault;
use super::openai_faults::seconds;
use super::record::Recorded;
use super::script::{Answer, Body};

/// The models on the list. Every other name is served too, except [`NO_SUCH_MODEL`].
const MODELS: [(&str, &str); 3] = [
    ("gemini-2.5-flash", "generateContent"),
    ("gemini-2.5-pro", "generateContent"),
    ("gemini-embedding-001", "embedContent"),
];
const JSON: &str = "application/json; charset=UTF-8";

/// An error as Google's APIs have it.
struct Refused {
    code: u16,
    status: &'static str,
    message: String,
    details: Vec<Value>,
}

impl Refused {
    fn new(code: u16, status: &'static str, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), details: Vec::new() }
    }

    fn because(mut self, reason: &str) -> Self {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }));
        self
    }

    fn body(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message, "status": self.status});
        if !self.details.is_empty() {
            error["details"] = self.details.clone().into();
        }
        json!({"error": error})
    }

    /// One object; an array where the answer would have been a stream without events, and on the compatible base.
    fn answer(&self, request: &Recorded) -> Answer {
        let body = if in_an_array(request) { json!([self.body()]) } else { self.body() };
        google(Answer::status(self.code).json(&body))
    }
}

fn in_an_array(request: &Recorded) -> bool {
    let compatible = Dialect::of_request(request) == Dialect::GeminiCompatible;
    compatible || (request.path().ends_with(":streamGenerateContent") && !wants_events(request))
}

fn wants_events(request: &Recorded) -> bool {
    parameter(&request.target, "alt").as_deref() == Some("sse")
}

fn google(answer: Answer) -> Answer {
    answer
        .header("content-type", JSON)
        .header("vary", "Origin")
        .header("vary", "X-Origin")
        .header("vary", "Referer")
        .header("server", "scaffolding on HTTPServer2")
        .header("x-xss-protection", 0)
        .header("x-frame-options", "SAMEORIGIN")
        .header("x-content-type-options", "nosniff")
        .header("server-timing", "gfet4t7; dur=7")
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused::new(400, "INVALID_ARGUMENT", message)
}

pub(super) fn answer(request: &Recorded) -> Answer {
    route(request).unwrap_or_else(|refused| refused.answer(request))
}

fn ok(value: &Value) -> Answer {
    google(Answer::status(200).json(value))
}

fn not_found() -> Refused {
    Refused::new(404, "NOT_FOUND", "Requested entity was not found.")
}

fn route(request: &Recorded) -> Result<Answer, Refused> {
    let path = request.path();
    let place = path.split_once("/v1beta/").or_else(|| path.split_once("/v1/"));
    let rest = place.map_or("", |(_, rest)| rest);
    if request.method == Method::GET {
        return match rest.split('/').collect::<Vec<_>>().as_slice() {
            ["models"] => Ok(ok(&models(request))),
            ["models", name] => {
                served(name)?;
                Ok(ok(&model(name, "generateContent")))
            }
            _ => Err(not_found()),
        };
    }
    let call = rest.strip_prefix("models/").and_then(|call| call.rsplit_once(':'));
    let Some((name, verb)) = call.filter(|_| request.method == Method::POST) else {
        return Err(not_found());
    };
    served(name)?;
    let body = match serde_json::from_slice(&request.body) {
        Ok(Value::Object(body)) => Value::Object(body),
        _ => return Err(invalid("Invalid JSON payload received. Unexpected token.")),
    };
    Ok(match verb {
        "generateContent" => ok(&content::generate(name, &body)?),
        "streamGenerateContent" if wants_events(request) => events(&content::stream(name, &body)?),
        "streamGenerateContent" => array(&content::stream(name, &body)?),
        "countTokens" => ok(&content::count_tokens(&body)),
        "embedContent" => ok(&json!({"embedding": content::embedding(&body)?})),
        "batchEmbedContents" => {
            let requests = body["requests"].as_array().into_iter().flatten();
            let embeddings = requests.map(content::embedding).collect::<Result<Vec<_>, _>>()?;
            ok(&json!({"embeddings": embeddings}))
        }
        _ => return Err(not_found()),
    })
}

fn events(pieces: &[Value]) -> Answer {
    let answer = Answer::pieces(pieces.iter().map(|piece| format!("data: {piece}\r\n\r\n")));
    google(answer).header("content-type", "text/event-stream")
}

fn array(pieces: &[Value]) -> Answer {
    let mut texts: Vec<_> = pieces.iter().map(|piece| format!(",\r\n{piece:#}")).collect();
    if let Some(first) = texts.first_mut() {
        first.replace_range(..",\r\n".len(), "[");
    }
    texts.push("]".to_owned());
    google(Answer::pieces(texts))
}

fn served(model: &str) -> Result<(), Refused> {
    if model != NO_SUCH_MODEL {
        return Ok(());
    }
    let message = format!(
        "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels \
         to see the list of available models and their supported methods."
    );
    Err(Refused::new(404, "NOT_FOUND", message))
}

/// A page of the list; its token is the place where the next begins.
fn models(request: &Recorded) -> Value {
    let number = |name| parameter(&request.target, name).and_then(|text| text.parse::<usize>().ok());
    let (from, size) = (number("pageToken").unwrap_or(0), number("pageSize").unwrap_or(50));
    let page: Vec<_> =
        MODELS.iter().skip(from).take(size).map(|(name, method)| model(name, method)).collect();
    let next = from + page.len();
    let mut list = json!({"models": page});
    if next < MODELS.len() {
        list["nextPageToken"] = next.to_string().into();
    }
    list
}

fn model(name: &str, method: &str) -> Value {
    json!({
        "name": format!("models/{name}"), "version": "001", "displayName": name, "description": "Simulated",
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65536,
        "supportedGenerationMethods": [method, "countTokens"], "temperature": 1, "topP": 0.95, "topK": 64,
    })
}

/// What the compatible base answers in place of what OpenAI answers: other headers, other errors.
pub(super) fn compatible(answer: Answer, request: &Recorded) -> Answer {
    if answer.status.is_success() {
        let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let kind = kind.filter(|kind| kind != "application/json").unwrap_or_else(|| JSON.to_owned());
        return google(answer).header("content-type", kind);
    }
    let message = match &answer.body {
        Body::Bytes(body) => {
            serde_json::from_slice::<Value>(body).unwrap_or_default()["error"]["message"].take()
        }
        _ => Value::Null,
    };
    let message = message.as_str().unwrap_or_default();
    let status = if answer.status == 404 { "NOT_FOUND" } else { "INVALID_ARGUMENT" };
    Refused::new(answer.status.as_u16(), status, message).answer(request)
}

pub(super) fn fault(fault: Fault, request: &Recorded) -> Answer {
    let refused = match fault {
        Fault::NoKey if request.headers.contains_key("authorization") => {
            let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login \
                           cookie or other valid authentication credential.";
            Refused::new(401, "UNAUTHENTICATED", message).because("ACCESS_TOKEN_TYPE_UNSUPPORTED")
        }
        Fault::NoKey => {
            let message = "Method doesn't allow unregistered callers (callers without established identity). Please \
                           use API Key or other form of API consumer identity to call this API.";
            Refused::new(403, "PERMISSION_DENIED", message)
        }
        Fault::Revoked => {
            let message = "API key not valid. Please pass a valid API key.";
            let mut refused = invalid(message).because("API_KEY_INVALID");
            refused.details.push(json!({
                "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message,
            }));
            refused
        }
        Fault::OutOfQuota => exhausted("Day", Duration::from_secs(22), request),
        Fault::RateLimited(wait, _) => exhausted("Minute", wait, request),
        Fault::Overloaded => overload(),
        Fault::Failing => Refused::new(500, "INTERNAL", "An internal error has occurred."),
    };
    refused.answer(request)
}

/// The delay is no header, and after a day's allowance it is a lie.
fn exhausted(per: &str, wait: Duration, request: &Recorded) -> Refused {
    let body = request.json();
    let from_path = request.path().rsplit('/').next().and_then(|call| call.split(':').next());
    let model = body["model"].as_str().or(from_path).unwrap_or_default();
    let metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests";
    let seconds = seconds(wait);
    let message = format!(
        "You exceeded your current quota, please check your plan and billing details. For more information on this \
         error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: {metric}, \
         limit: 20, model: {model}\nPlease retry in {seconds}s."
    );
    let mut refused = Refused::new(429, "RESOURCE_EXHAUSTED", message);
    refused.details = vec![
        json!({
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{
                "description": "Learn more about Gemini API quotas",
                "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
            }],
        }),
        json!({
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{
                "quotaMetric": metric,
                "quotaId": format!("GenerateRequestsPer{per}PerProjectPerModel-FreeTier"),
                "quotaDimensions": {"location": "global", "model": model},
                "quotaValue": "20",
            }],
        }),
        json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{seconds}s")}),
    ];
    refused
}

fn overload() -> Refused {
    Refused::new(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
}

pub(super) fn overload_event(request: &Recorded) -> String {
    let error = overload().body();
    if wants_events(request) { format!("data: {error}\r\n\r\n") } else { format!(",\r\n{error:#}\r\n]") }
}
