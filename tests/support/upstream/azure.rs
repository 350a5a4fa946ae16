//! Azure's OpenAI: what OpenAI answers, at a deployment's path, with filter results and other errors.

use serde_json::{Value, json};

use super::api::{Api, NO_SUCH_MODEL, Refusal};
use super::dialect::parameter;
use super::faults::Fault;
use super::keys::Standing;
use super::openai_faults::{millis, seconds, with_standing};
use super::record::Recorded;
use super::script::{Answer, Body};

/// What every deployment has been made from.
const MODEL: &str = "gpt-4o-2024-11-20";

pub(super) fn answer(
    api: &Api,
    request: &Recorded,
    account: &str,
    standing: Standing,
    number: u64,
) -> Answer {
    let answer = route(api, request, account).unwrap_or_else(|refusal| *refusal);
    with_standing(with_ids(answer, number), &standing)
        .header("x-ratelimit-limit-tokens", 150_000)
        .header("x-ratelimit-remaining-tokens", 149_900)
        .header("x-ms-deployment-name", deployment(request).unwrap_or_default())
}

fn route(api: &Api, request: &Recorded, account: &str) -> Result<Answer, Refusal> {
    let mut inner = request.clone();
    let body = request.json();
    if let Some(name) = deployment(request) {
        if parameter(&request.target, "api-version").is_none() {
            return Err(resource_not_found());
        }
        let operation = request.path().split_once(&format!("/deployments/{name}/"));
        inner.target = format!("/v1/{}", operation.map_or("", |(_, operation)| operation));
        exists(&name)?;
    } else if request.path().contains("/openai/v1/") {
        exists(body["model"].as_str().unwrap_or_default())?;
    } else {
        return Err(resource_not_found());
    }
    if let Value::Object(mut body) = body {
        if inner.target.ends_with("/chat/completions") {
            body.insert("model".to_owned(), MODEL.into());
        } else if let Some(name) = deployment(request) {
            body.entry("model").or_insert_with(|| name.into());
        }
        inner.body = Value::Object(body).to_string().into();
    }
    let answer = api.route(&inner, account)?;
    Ok(if inner.target.contains("/chat/completions") { filtered(answer) } else { answer })
}

fn deployment(request: &Recorded) -> Option<String> {
    let (_, rest) = request.path().split_once("/openai/deployments/")?;
    rest.split('/').next().map(str::to_owned)
}

fn exists(deployment: &str) -> Result<(), Refusal> {
    if deployment != NO_SUCH_MODEL {
        return Ok(());
    }
    let message = "The API deployment for this resource does not exist. If you created the deployment within the last \
                   5 minutes, please wait a moment and try again.";
    Err(error(404, "DeploymentNotFound", message).into())
}

fn resource_not_found() -> Refusal {
    error(404, "404", "Resource not found").into()
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::status(status).json(&json!({"error": {"code": code, "message": message}}))
}

/// The answer with what the content filter found: nothing.
fn filtered(mut answer: Answer) -> Answer {
    let safe = json!({"filtered": false, "severity": "safe"});
    let results = json!({"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe});
    let prompt = json!([{"prompt_index": 0, "content_filter_results": results}]);
    match &mut answer.body {
        Body::Bytes(body) => {
            let mut chat: Value = serde_json::from_slice(body).unwrap_or_default();
            chat["choices"][0]["content_filter_results"] = results;
            chat["prompt_filter_results"] = prompt;
            *body = chat.to_string().into();
        }
        Body::Events(events) => {
            let first = json!({
                "choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": prompt,
            });
            events.insert(0, format!("data: {first}\n\n").into());
        }
        _ => {}
    }
    answer
}

pub(super) fn fault(fault: Fault, number: u64) -> Answer {
    let answer = match fault {
        Fault::NoKey | Fault::Revoked => error(
            401,
            "401",
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for \
             an active subscription and use a correct regional API endpoint for your resource.",
        ),
        // It bills instead of refusing; what comes nearest is the free tier's allowance of a day.
        Fault::OutOfQuota => limited("token rate", 86400),
        Fault::RateLimited(wait, standing) => {
            let answer = limited("call rate", seconds(wait))
                .retry_after(seconds(wait))
                .header("retry-after-ms", millis(wait));
            match standing {
                Some(standing) => with_standing(answer, &standing),
                None => answer,
            }
        }
        Fault::Overloaded => error(
            503,
            "NoCapacity",
            "The system is currently experiencing high demand and cannot process your request. Your request exceeds \
             the maximum usage size allowed during peak load.",
        ),
        Fault::Failing => error(500, "InternalServerError", "Internal server error"),
    };
    with_ids(answer, number)
}

fn limited(limit: &str, seconds: u64) -> Answer {
    let message = format!(
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded \
         {limit} limit of your current OpenAI S0 pricing tier. Please retry after {seconds} seconds."
    );
    error(429, "429", &message)
}

fn with_ids(answer: Answer, number: u64) -> Answer {
    answer
        .header("apim-request-id", format_args!("{number:08x}-0000-4000-8000-000000000000"))
        .header("x-request-id", format_args!("{number:08x}-1111-4000-8000-000000000000"))
        .header("x-ms-region", "Sweden Central")
}
