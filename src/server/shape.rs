//! How an error of ours is worded in each dialect, so that an SDK raises its own exception.

use http::StatusCode;
use serde_json::{Value, json};

use crate::types::{Dialect, ErrorCode};

/// The body of an error. `id` is that of the request, `retry` the seconds until it is worth trying again.
pub(super) fn body(spoken: Dialect, code: ErrorCode, message: &str, id: &str, retry: Option<u64>) -> Value {
    match spoken {
        // https://platform.claude.com/docs/en/api/errors
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {"type": anthropic(code.status()), "message": message, "code": code.as_str()},
            "request_id": id,
        }),
        // https://cloud.google.com/apis/design/errors
        Dialect::Gemini => {
            let reason = code.as_str().to_ascii_uppercase();
            let mut details = vec![json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "key-cycle-proxy",
            })];
            if let Some(seconds) = retry {
                details.push(json!({
                    "@type": "type.googleapis.com/google.rpc.RetryInfo",
                    "retryDelay": format!("{seconds}s"),
                }));
            }
            let status = code.status();
            json!({"error": {
                "code": status.as_u16(),
                "message": message,
                "status": google(status),
                "details": details,
            }})
        }
        // Azure's and what is compatible; of other APIs nothing is known, and this is as good as any.
        Dialect::OpenAi | Dialect::Azure | Dialect::Generic => {
            json!({"error": {"message": message, "type": openai(code.status()), "param": null, "code": code.as_str()}})
        }
    }
}

fn openai(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// The name of `google.rpc.Code`.
fn google(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
        StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
        StatusCode::INTERNAL_SERVER_ERROR => "INTERNAL",
        StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
        status if status.is_client_error() => "INVALID_ARGUMENT",
        _ => "UNAVAILABLE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_in_every_dialect() {
        for code in ErrorCode::ALL {
            let say = |spoken| body(spoken, code, "why", "req_1", Some(3));
            let name = code.as_str();
            assert_eq!(say(Dialect::OpenAi)["error"]["code"], name);
            assert_eq!(say(Dialect::Azure), say(Dialect::OpenAi));
            assert_eq!(say(Dialect::Anthropic)["error"]["code"], name);
            assert_eq!(say(Dialect::Anthropic)["request_id"], "req_1");
            let gemini = say(Dialect::Gemini);
            assert_eq!(gemini["error"]["code"], code.status().as_u16());
            assert_eq!(gemini["error"]["details"][0]["reason"], name.to_ascii_uppercase());
            assert_eq!(gemini["error"]["details"][1]["retryDelay"], "3s");
        }
    }
}
