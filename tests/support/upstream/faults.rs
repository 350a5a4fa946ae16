//! The failures that every API knows, each in its own words.

use std::time::Duration;

use super::dialect::Dialect;
use super::keys::Standing;
use super::record::Recorded;
use super::script::{Answer, Body};
use super::{anthropic, azure, gemini, generic, openai_faults};

/// What is the matter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// There is no credential where this API looks for one.
    NoKey,
    Revoked,
    OutOfQuota,
    /// Until then; the standing of its bucket, if it is one's.
    RateLimited(Duration, Option<Standing>),
    Overloaded,
    Failing,
}

impl Fault {
    /// As the API words it that was asked. `number` is the request's.
    pub fn answer(self, request: &Recorded, number: u64) -> Answer {
        match Dialect::of_request(request) {
            Dialect::OpenAi => openai_faults::fault(self),
            Dialect::Anthropic => anthropic::fault(self, request, number),
            Dialect::Gemini | Dialect::GeminiCompatible => gemini::fault(self, request),
            Dialect::Azure => azure::fault(self, number),
            Dialect::Generic => generic::fault(self),
        }
    }
}

impl Answer {
    /// 401 for a key that is no longer valid. This and the others below: in the words of the API that was asked.
    pub fn revoked() -> Self {
        Self::fault(401, Fault::Revoked)
    }

    /// 429 that waiting does not cure.
    pub fn out_of_quota() -> Self {
        Self::fault(429, Fault::OutOfQuota)
    }

    /// 429 that waiting cures; the headers tell for how long.
    pub fn rate_limited(wait: Duration) -> Self {
        Self::fault(429, Fault::RateLimited(wait, None))
    }

    /// 503 of a provider under too much load; 529 of Anthropic.
    pub fn overloaded() -> Self {
        Self::fault(503, Fault::Overloaded)
    }

    /// 500 of a provider.
    pub fn failing() -> Self {
        Self::fault(500, Fault::Failing)
    }

    /// What the realistic API streams, up to so many pieces; then that it is overloaded after all.
    pub fn overloaded_after(pieces: usize) -> Self {
        Self { body: Body::ApiUntil(pieces), ..Self::status(200) }
    }

    /// The status is for whoever puts a body in place of the fault's.
    pub(super) fn fault(status: u16, fault: Fault) -> Self {
        Self { body: Body::Fault(fault), ..Self::status(status) }
    }
}

/// The piece that tells of an overload in the middle of a stream.
pub(super) fn overload_event(request: &Recorded, number: u64) -> String {
    match Dialect::of_request(request) {
        Dialect::Anthropic => anthropic::overload_event(number),
        Dialect::Gemini => gemini::overload_event(request),
        Dialect::OpenAi | Dialect::GeminiCompatible | Dialect::Azure | Dialect::Generic => {
            format!("data: {}\n\n", openai_faults::overload())
        }
    }
}
