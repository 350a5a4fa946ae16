//! What the words of a refusal say, as data: codes, types, reasons, and the phrases of those who give none of them.

/// What a word or phrase says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The credential is dead.
    KeyDead,
    /// The whole account is.
    AccountDead,
    /// The credential may not do this.
    Forbidden,
    /// Our address or country is refused.
    WrongPlace,
    /// The request itself is refused.
    BadRequest,
    /// The credential has no access to the model.
    NoModel,
    /// The account has no money left, or may spend no more.
    AccountSpent,
    /// The credential may spend no more.
    KeySpent,
    /// The day's allowance is used up.
    DaySpent,
    /// Too much for now.
    Limited,
    /// Too much for the provider.
    Busy,
}

use Meaning::*;

/// What stands in `code`, `type` or Google's `reason`. Compared without case and separators, since providers spell
/// one word as `invalid_api_key`, `InvalidApiKey` and `INVALID-API-KEY`.
const WORDS: &[(&str, Meaning)] = &[
    // OpenAI, Groq, Together and most others; DashScope. Gemini: also for expired keys, with status 400.
    ("invalid_api_key", KeyDead),
    ("api_key_invalid", KeyDead),
    ("api_key_revoked", KeyDead),
    ("revoked_api_key", KeyDead),
    ("api_key_expired", KeyDead),
    ("expired_api_key", KeyDead),
    ("api_key_deactivated", KeyDead),
    ("deactivated_api_key", KeyDead),
    ("api_key_disabled", KeyDead),
    ("account_deactivated", AccountDead),
    ("organization_deactivated", AccountDead),
    ("organization_restricted", AccountDead),
    ("account_suspended", AccountDead),
    ("consumer_suspended", AccountDead),
    ("insufficient_permissions", Forbidden),
    ("missing_scope", Forbidden),
    ("missing_scopes", Forbidden),
    ("permission_error", Forbidden),
    // Google: the key or its project isn't set up for this API. The credential itself is good.
    ("service_disabled", Forbidden),
    ("api_key_service_blocked", Forbidden),
    ("api_key_http_referrer_blocked", Forbidden),
    ("api_key_android_app_blocked", Forbidden),
    ("api_key_ios_app_blocked", Forbidden),
    ("access_token_scope_insufficient", Forbidden),
    ("ip_not_authorized", WrongPlace),
    ("ip_not_allowed", WrongPlace),
    ("unauthorized_ip", WrongPlace),
    ("api_key_ip_address_blocked", WrongPlace),
    ("unsupported_country_region_territory", WrongPlace),
    // Headers of the client or of the configuration that name an account which isn't the key's.
    ("mismatched_organization", BadRequest),
    ("mismatched_project", BadRequest),
    ("content_filter", BadRequest),
    ("content_policy_violation", BadRequest),
    ("moderation_blocked", BadRequest),
    ("context_length_exceeded", BadRequest),
    ("model_not_found", NoModel),
    ("DeploymentNotFound", NoModel),
    ("model_permission_blocked_org", NoModel),
    ("model_permission_blocked_project", NoModel),
    ("insufficient_quota", AccountSpent),
    ("insufficient_credits", AccountSpent),
    ("insufficient_balance", AccountSpent),
    ("credit_balance_exhausted", AccountSpent),
    ("organization_spend_limit_exceeded", AccountSpent),
    ("project_spend_limit_exceeded", AccountSpent),
    ("organization_usage_limit_exceeded", AccountSpent),
    ("billing_hard_limit_reached", AccountSpent),
    ("billing_not_active", AccountSpent),
    ("billing_error", AccountSpent),
    ("billing_disabled", AccountSpent),
    ("access_terminated", AccountSpent),
    ("spend_limit_reached", AccountSpent),
    // Groq, with status 400: the organization's own limit.
    ("blocked_api_access", AccountSpent),
    // Moonshot; DashScope.
    ("exceeded_current_quota_error", AccountSpent),
    ("arrearage", AccountSpent),
    ("rate_limit_exceeded", Limited),
    ("rate_limit_error", Limited),
    ("rate_limit_reached_error", Limited),
    ("too_many_requests", Limited),
    ("slow_down", Busy),
    ("server_is_overloaded", Busy),
    ("overloaded_error", Busy),
    ("engine_overloaded_error", Busy),
    // Groq's flex tier, status 498; Azure.
    ("capacity_exceeded", Busy),
    ("NoCapacity", Busy),
];

/// Phrases that begin a refusal for the key's own sake, from providers that give it no code: OpenAI and xAI (with
/// status 400), DeepSeek, Anthropic, Gemini (a leaked key).
pub(super) const KEY_DEAD: [&str; 6] = [
    "incorrect api key provided",
    "authentication fails, your api key",
    "invalid x-api-key",
    "your api key was reported as leaked",
    "api key expired",
    "api key not valid",
];
/// The same for the whole account: Anthropic (with status 400), OpenAI where `code` is null.
pub(super) const ACCOUNT_DEAD: [&str; 3] = [
    "this organization has been disabled",
    "your openai account has been deactivated",
    "the openai account associated with this api key has been deactivated",
];
/// OpenAI's restricted keys: `code` is null.
pub(super) const FORBIDDEN: [&str; 2] = ["missing scopes", "insufficient permissions for this operation"];
/// OpenAI's allow lists, Azure's networks, Groq's and Cloudflare's blocks, Anthropic's countries.
pub(super) const WRONG_PLACE: [&str; 10] = [
    "ip not authorized",
    "ip address is not",
    "ip is not authorized",
    "region, or territory not supported",
    "virtual network/firewall rules",
    "a virtual network is configured for this resource",
    "request not allowed",
    "check your network settings",
    "sorry, you have been blocked",
    "user location is not supported",
];
/// Cloudflare limits addresses, not keys.
pub(super) const ADDRESS_LIMITED: [&str; 2] = ["error code: 1015", "you are being rate limited"];
/// A free account of Gemini's that this country isn't offered; a paid one may pass.
pub(super) const FREE_TIER_ABROAD: [&str; 1] =
    ["user location is not supported for the api use without a billing account"];
/// OpenRouter's allowance of one key; the account may have more.
pub(super) const KEY_SPENT: [&str; 1] = ["key limit exceeded"];
/// Anthropic's bills, with status 400. Only where they begin the text, since a 400 may quote the request.
pub(super) const ACCOUNT_SPENT_400: [&str; 3] = [
    "your credit balance is too low",
    "you have reached your specified api usage limits",
    "you have reached your specified workspace api usage limits",
];
/// xAI, Fireworks, Gemini's spend-based limits, Anthropic, DeepSeek. "Check your plan and billing" isn't among
/// them: Gemini says it of a limit per minute.
pub(super) const ACCOUNT_SPENT: [&str; 8] = [
    "spending limit",
    "spend limit",
    "spending cap",
    "monthly usage limit",
    "used all available credits",
    "doesn't have any credits",
    "credit balance is too low",
    "insufficient balance",
];
/// OpenRouter's moderation, where it doesn't quote what it refuses.
pub(super) const FLAGGED: [&str; 2] = ["your input was flagged", "requires moderation"];
/// A limit per day: OpenAI and Groq, OpenRouter's free models, others.
pub(super) const PER_DAY: [&str; 5] = ["(tpd)", "(rpd)", "per day", "per-day", "daily"];
/// One request over the limit of a whole minute. No wait helps it, and it says nothing about smaller ones.
pub(super) const TOO_LARGE: [&str; 1] = ["request too large"];
/// 404 without a code: OpenRouter, also of what the account's settings leave out; OpenAI of a model that needs a
/// verified organization.
pub(super) const NO_MODEL: [&str; 3] =
    ["no endpoints found", "no allowed providers are available", "your organization must be verified"];
/// 503 of Gemini, Groq, Azure and others.
pub(super) const BUSY: [&str; 3] = ["overloaded", "over capacity", "experiencing high demand"];

/// The statuses of words that only repeat one: Anthropic's and OpenAI's types, OpenAI's codes of images and prompts
/// that the responses API finds wanting after it has begun, and Google's statuses.
const STATUSES: &[(&str, u16)] = &[
    ("invalid_request_error", 400),
    ("invalid_prompt", 400),
    ("invalid_image", 400),
    ("invalid_image_format", 400),
    ("invalid_image_mode", 400),
    ("invalid_image_url", 400),
    ("invalid_base64_image", 400),
    ("image_content_policy_violation", 400),
    ("image_file_not_found", 400),
    ("image_file_too_large", 400),
    ("image_parse_error", 400),
    ("image_too_large", 400),
    ("image_too_small", 400),
    ("empty_image_file", 400),
    ("failed_to_download_image", 400),
    ("unsupported_image_media_type", 400),
    ("invalid_argument", 400),
    ("failed_precondition", 400),
    ("out_of_range", 400),
    ("authentication_error", 401),
    ("unauthenticated", 401),
    ("permission_denied", 403),
    ("not_found_error", 404),
    ("not_found", 404),
    ("request_too_large", 413),
    ("resource_exhausted", 429),
    ("timeout_error", 504),
    ("deadline_exceeded", 504),
    ("unavailable", 503),
];

/// The status that a refusal with this word has, where it has one.
pub(super) fn status_of(word: &str) -> Option<u16> {
    let Some(meaning) = meaning_of(word) else {
        return STATUSES.iter().find(|(known, _)| same(known, word)).map(|(_, status)| *status);
    };
    Some(match meaning {
        KeyDead | AccountDead => 401,
        Forbidden | WrongPlace => 403,
        BadRequest => 400,
        NoModel => 404,
        AccountSpent | KeySpent | DaySpent | Limited => 429,
        Busy => 503,
    })
}

/// What `word` says, if we know it.
pub(super) fn meaning_of(word: &str) -> Option<Meaning> {
    WORDS.iter().find(|(known, _)| same(known, word)).map(|(_, meaning)| *meaning)
}

fn same(known: &str, word: &str) -> bool {
    letters(known).eq(letters(word))
}

fn letters(word: &str) -> impl Iterator<Item = u8> {
    word.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_in_any_spelling() {
        for word in ["invalid_api_key", "InvalidApiKey", "INVALID-API-KEY"] {
            assert_eq!(meaning_of(word), Some(KeyDead), "{word}");
        }
        assert_eq!(meaning_of(""), None);
        assert_eq!(meaning_of("invalid_api"), None);
    }

    #[test]
    fn no_word_has_two_meanings() {
        for (word, meaning) in WORDS {
            assert_eq!(meaning_of(word), Some(*meaning), "{word}");
        }
        for (word, status) in STATUSES {
            assert_eq!((meaning_of(word), status_of(word)), (None, Some(*status)), "{word}");
        }
    }
}
