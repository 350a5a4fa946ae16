//! A small OpenAI-compatible API, and the way to the others. Two equal requests get equal answers, but for `x-request-id`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};

use super::dialect::Dialect;
use super::keys::Standing;
use super::media::StoredFile;
use super::openai_faults::with_standing;
use super::record::Recorded;
use super::script::Answer;
use super::{anthropic, azure, chat, gemini, generic, media};

/// When everything here was made.
pub(super) const CREATED: u64 = 1_750_000_000;

/// The models on the list. Every other name is served too, except [`NO_SUCH_MODEL`].
const MODELS: [&str; 6] =
    ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "whisper-1", "tts-1", "omni-moderation-latest"];
pub(super) const NO_SUCH_MODEL: &str = "no-such-model";

/// An answer that `?` hands back.
pub(super) type Refusal = Box<Answer>;

#[derive(Default)]
pub(super) struct Api {
    served: AtomicU64,
    pub uploads: AtomicU64,
    /// By account and id.
    pub files: Mutex<BTreeMap<(String, String), StoredFile>>,
    pub batches: anthropic::Batches,
}

impl Api {
    /// The number of a request, for its id.
    pub fn number(&self) -> u64 {
        self.served.fetch_add(1, Ordering::Relaxed)
    }

    /// The answer to a request of this account.
    pub fn answer(&self, dialect: Dialect, request: &Recorded, account: &str, standing: Standing) -> Answer {
        let number = self.number();
        let openai = || self.route(request, account).unwrap_or_else(|refusal| *refusal);
        match dialect {
            Dialect::OpenAi => with_headers(openai(), account, &standing, number),
            Dialect::Anthropic => anthropic::answer(self, request, account, standing, number),
            Dialect::Gemini => gemini::answer(request),
            Dialect::GeminiCompatible => gemini::compatible(openai(), request),
            Dialect::Azure => azure::answer(self, request, account, standing, number),
            Dialect::Generic => generic::answer(request),
        }
    }

    /// The answer of OpenAI's API, which others are compatible with.
    pub fn route(&self, request: &Recorded, account: &str) -> Result<Answer, Refusal> {
        let path = request.path();
        let place = path.split_once("/v1/").or_else(|| path.split_once("/v1beta/openai/"));
        let segments: Vec<_> = place.map_or("", |(_, rest)| rest).split('/').collect();
        match (&request.method, segments.as_slice()) {
            (&Method::GET, ["models"]) => {
                let models: Vec<_> = MODELS.iter().map(|name| model(name)).collect();
                Ok(ok(&json!({"object": "list", "data": models})))
            }
            (&Method::GET, ["models", id @ ..]) => {
                let id = id.join("/");
                served(&id)?;
                Ok(ok(&model(&id)))
            }
            (&Method::POST, ["chat", "completions"]) => chat::chat(&body(request)?),
            (&Method::POST, ["completions"]) => chat::completion(&body(request)?),
            (&Method::POST, ["responses"]) => chat::response(&body(request)?, account),
            (&Method::GET, ["responses", id]) => chat::stored_response(id, account),
            (&Method::POST, ["embeddings"]) => media::embeddings(&body(request)?),
            (&Method::POST, ["moderations"]) => media::moderation(&body_or_default_model(request)?),
            (&Method::POST, ["images", "generations"]) => media::image(&body_or_default_model(request)?),
            (&Method::POST, ["audio", "speech"]) => media::speech(&body(request)?),
            (&Method::POST, ["audio", "transcriptions" | "translations"]) => media::transcription(request),
            (method, ["files", rest @ ..]) => self.files(method, rest, request, account),
            _ => Err(unknown_url(request)),
        }
    }
}

fn with_headers(answer: Answer, account: &str, standing: &Standing, number: u64) -> Answer {
    let answer = answer
        .header("x-request-id", format_args!("req_{number:032x}"))
        .header("openai-organization", "org-simulated")
        .header("openai-project", account)
        .header("openai-processing-ms", 7)
        .header("openai-version", "2020-10-01")
        .header("x-ratelimit-limit-tokens", 2_000_000)
        .header("x-ratelimit-remaining-tokens", 1_999_900)
        .header("x-ratelimit-reset-tokens", "3ms")
        .header("set-cookie", format_args!("__cf_bm={number:x}; path=/; HttpOnly; Secure; SameSite=None"))
        .header("set-cookie", format_args!("_cfuvid={number:x}; path=/; HttpOnly; Secure; SameSite=None"));
    with_standing(answer, standing)
}

pub(super) fn ok(value: &Value) -> Answer {
    Answer::status(200).json(value)
}

/// Refuses the one model that does not exist.
pub(super) fn served(model: &str) -> Result<(), Refusal> {
    if model != NO_SUCH_MODEL {
        return Ok(());
    }
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    Err(Answer::status(404).error("invalid_request_error", "model_not_found", &message).into())
}

pub(super) fn bad_request(message: &str, param: &str, code: Option<&str>) -> Refusal {
    let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
    Answer::status(400).json(&json!({"error": error})).into()
}

pub(super) fn missing(param: &str) -> Refusal {
    bad_request(&format!("Missing required parameter: '{param}'."), param, Some("missing_required_parameter"))
}

pub(super) fn unknown_url(request: &Recorded) -> Refusal {
    let message = format!("Invalid URL ({} {})", request.method, request.path());
    Answer::status(404).error("invalid_request_error", "", &message).into()
}

/// A hash that stays the same from run to run.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "simulated"})
}

/// The JSON body, which must name a model.
fn body(request: &Recorded) -> Result<Value, Refusal> {
    let body = body_or_default_model(request)?;
    match body["model"].as_str() {
        Some(_) => Ok(body),
        None => Err(bad_request("you must provide a model parameter", "model", None)),
    }
}

fn body_or_default_model(request: &Recorded) -> Result<Value, Refusal> {
    let Ok(body @ Value::Object(_)) = serde_json::from_slice(&request.body) else {
        let message = "We could not parse the JSON body of your request.";
        return Err(Answer::status(400).error("invalid_request_error", "", message).into());
    };
    served(body["model"].as_str().unwrap_or_default())?;
    Ok(body)
}
