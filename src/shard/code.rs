//! The error codes of the contract and the one error type of a request that cannot be served. Any thread; pure.

use std::fmt;

/// Why a request or an event was refused, as the contract names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Nothing in the body was a valid event, or one event was not.
    InvalidJson,
    /// The body held no event at all.
    EmptyBatch,
    /// More events than one request may hold.
    BatchTooLarge,
    /// Malformed HTTP, or a header or query whose value makes no sense.
    BadRequest,
    /// No key, or a wrong one.
    Unauthorized,
    /// No such route.
    NotFound,
    /// The route exists, for other methods.
    MethodNotAllowed,
    /// Head or body came too slowly.
    RequestTimeout,
    /// Body or event over its limit.
    PayloadTooLarge,
    /// Head over its limit.
    HeadersTooLarge,
    /// Content type or content encoding that is not served.
    UnsupportedMediaType,
    /// The tenant's rate is used up.
    RateLimited,
    /// The server holds its utilization target or its buffers are full.
    Backpressure,
    /// The server is shutting down.
    Draining,
    /// The writer has failed, or a bounded resource is used up.
    Unavailable,
    /// The disk reserve is reached.
    InsufficientStorage,
}

impl ErrorCode {
    /// Every code, in the contract's order.
    pub const ALL: [Self; 16] = [
        Self::InvalidJson,
        Self::EmptyBatch,
        Self::BatchTooLarge,
        Self::BadRequest,
        Self::Unauthorized,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::HeadersTooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::Backpressure,
        Self::Draining,
        Self::Unavailable,
        Self::InsufficientStorage,
    ];

    /// The HTTP status it is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidJson | Self::EmptyBatch | Self::BatchTooLarge | Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::Backpressure | Self::Draining | Self::Unavailable => 503,
            Self::InsufficientStorage => 507,
        }
    }

    /// The value of `"code"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidJson => "INVALID_JSON",
            Self::EmptyBatch => "EMPTY_BATCH",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::BadRequest => "BAD_REQUEST",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::HeadersTooLarge => "HEADERS_TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Backpressure => "BACKPRESSURE",
            Self::Draining => "DRAINING",
            Self::Unavailable => "UNAVAILABLE",
            Self::InsufficientStorage => "INSUFFICIENT_STORAGE",
        }
    }

    /// The value of `"error"`: the name in lower case, but for `BACKPRESSURE`, which the contract calls
    /// `capacity_exceeded`.
    #[must_use]
    pub const fn error(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::EmptyBatch => "empty_batch",
            Self::BatchTooLarge => "batch_too_large",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited => "rate_limited",
            Self::Backpressure => "capacity_exceeded",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
            Self::InsufficientStorage => "insufficient_storage",
        }
    }
}

/// A request that cannot be read on. Where its head or framing broke, nobody knows where the next request starts: the
/// answer closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// What to answer.
    pub code: ErrorCode,
    /// What is wrong and how to fix it, for the answer.
    pub message: &'static str,
}

impl HttpError {
    pub(super) const fn bad_request(message: &'static str) -> Self {
        Self { code: ErrorCode::BadRequest, message }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code.status(), self.code.name(), self.message)
    }
}

impl std::error::Error for HttpError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_the_code_in_lower_case_but_for_backpressure() {
        for code in ErrorCode::ALL {
            let expected = if code == ErrorCode::Backpressure {
                "capacity_exceeded".to_owned()
            } else {
                code.name().to_ascii_lowercase()
            };
            assert_eq!(code.error(), expected);
            assert!((400..600).contains(&code.status()));
        }
    }
}
