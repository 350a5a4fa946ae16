//! The codes of our own errors. Stable: programs compare them.

use http::StatusCode;

/// Why a request gets an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The body says it is JSON and isn't.
    InvalidJson,
    /// The request can't be understood, or not in one way only.
    InvalidRequest,
    /// The client key is missing or wrong.
    InvalidApiKey,
    /// A web page from elsewhere, where no client key is asked for.
    OriginNotAllowed,
    /// No key serves the model.
    ModelNotFound,
    /// No such route.
    NotFound,
    /// The API that is meant doesn't take this method.
    MethodNotAllowed,
    /// Over the limit.
    BodyTooLarge,
    /// A limit of ours is reached.
    RateLimitExceeded,
    /// No key is free within the wait.
    AllKeysCooling,
    /// A fault of ours.
    InternalError,
    /// No connection to any upstream.
    UpstreamUnreachable,
    /// The connection broke before an answer.
    UpstreamBroken,
    /// No key that an upstream accepts.
    NoUsableKey,
    /// The daemon stops.
    ShuttingDown,
    /// No answer in time.
    UpstreamTimeout,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 16] = [
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::InvalidApiKey,
        Self::OriginNotAllowed,
        Self::ModelNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::RateLimitExceeded,
        Self::AllKeysCooling,
        Self::InternalError,
        Self::UpstreamUnreachable,
        Self::UpstreamBroken,
        Self::NoUsableKey,
        Self::ShuttingDown,
        Self::UpstreamTimeout,
    ];

    /// The name in answers and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidApiKey => "invalid_api_key",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::AllKeysCooling => "all_keys_cooling",
            Self::InternalError => "internal_error",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamBroken => "upstream_broken",
            Self::NoUsableKey => "no_usable_key",
            Self::ShuttingDown => "shutting_down",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    /// The status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson | Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::ModelNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimitExceeded | Self::AllKeysCooling => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamUnreachable | Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::NoUsableKey | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_to_operators_with_its_status() {
        let operations = include_str!("../../docs/operations.md");
        for code in ErrorCode::ALL {
            let row = format!("| {} `{}` |", code.status().as_u16(), code.as_str());
            assert_eq!(operations.matches(&row).count(), 1, "{row}");
        }
    }
}
