//! The IETF's drafts that put a whole limit into one header.

use std::time::Duration;

use http::HeaderMap;

use super::{Allowance, Refill, count};
use crate::provider::limits;

/// What is left: `limit=100, remaining=50, reset=5` (draft 7), `"default";r=50;t=30` (from draft 8 on).
pub(super) const LEFT: &str = "ratelimit";

/// How much there is: `"default";q=100;w=60`.
const POLICY: &str = "ratelimit-policy";

/// What these headers say of requests. Of several limits the one with the least left counts.
pub(super) fn allowance(headers: &HeaderMap) -> Option<Allowance> {
    let left = headers.get(LEFT)?.to_str().ok()?;
    let policy = headers.get(POLICY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(remaining) = value(left, "remaining") {
        return whole(value(left, "limit"), remaining, value(left, "reset"));
    }
    let limits = left.split(',').filter_map(|limit| {
        let named = policy.split(',').find(|policy| name(policy) == name(limit)).unwrap_or_default();
        // Bytes, say.
        if value(named, "qu").is_some_and(|unit| unit != "\"requests\"") {
            return None;
        }
        whole(value(named, "q"), value(limit, "r")?, value(limit, "t"))
    });
    limits.min_by_key(|limit| limit.remaining)
}

fn whole(limit: Option<&str>, remaining: &str, reset: Option<&str>) -> Option<Allowance> {
    let remaining = count(remaining)?;
    let limit = limit.and_then(count).filter(|limit| *limit >= remaining);
    let reset: Option<Duration> = reset.and_then(limits::seconds);
    Some(Allowance { limit, remaining, reset, refill: Refill::Window })
}

/// The name that a list's member begins with.
fn name(member: &str) -> &str {
    member.split(';').next().unwrap_or_default().trim()
}

/// What stands behind `key=`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut parameters = text.split([',', ';']).filter_map(|parameter| parameter.split_once('='));
    parameters.find_map(|(name, value)| (name.trim() == key).then_some(value.trim()))
}
