//! Failures as OpenAI words them.

use std::time::Duration;

use serde_json::Value;

use super::faults::Fault;
use super::keys::Standing;
use super::script::{Answer, error_body};

pub(super) fn fault(fault: Fault) -> Answer {
    match fault {
        Fault::NoKey => {
            Answer::status(401).error("invalid_request_error", "", "You didn't provide an API key.")
        }
        Fault::Revoked => {
            let message = "Incorrect API key provided. You can find your API key in your account settings.";
            Answer::status(401).error("invalid_request_error", "invalid_api_key", message)
        }
        Fault::OutOfQuota => {
            let message = "You exceeded your current quota, please check your plan and billing details.";
            Answer::status(429).error("insufficient_quota", "insufficient_quota", message)
        }
        Fault::RateLimited(wait, standing) => {
            let message =
                format!("Rate limit reached on requests per min. Please try again in {}.", go(wait));
            let answer = Answer::status(429)
                .error("requests", "rate_limit_exceeded", &message)
                .retry_after(seconds(wait))
                .header("retry-after-ms", millis(wait));
            match standing {
                Some(standing) => with_standing(answer, &standing),
                None => answer,
            }
        }
        Fault::Overloaded => Answer::status(503).json(&overload()),
        Fault::Failing => Answer::status(500).error("server_error", "", "The server had an error."),
    }
}

pub(super) fn overload() -> Value {
    let message = "The server is currently overloaded with other requests.";
    error_body("server_error", "server_is_overloaded", message)
}

pub(super) fn with_standing(answer: Answer, standing: &Standing) -> Answer {
    answer
        .header("x-ratelimit-limit-requests", standing.limit)
        .header("x-ratelimit-remaining-requests", standing.remaining)
        .header("x-ratelimit-reset-requests", go(standing.reset))
}

/// Whole seconds, rounded up.
pub(super) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Whole milliseconds, rounded up.
pub(super) const fn millis(time: Duration) -> u128 {
    time.as_nanos().div_ceil(1_000_000)
}

/// A duration as Go prints it, to the millisecond: `20ms`, `1.5s`, `6m0s`.
fn go(time: Duration) -> String {
    let millis = millis(time);
    let (minutes, seconds) = (millis / 60_000, (millis % 60_000) as f64 / 1000.0);
    match millis {
        0 => "0s".to_owned(),
        1..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{seconds}s"),
        60_000..3_600_000 => format!("{minutes}m{seconds}s"),
        _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
    }
}
