//! What is refused, and in which words. Shard thread; decides on facts, sends nothing.

use super::answer::{Extra, Refusals, Refused};
use super::code::{ErrorCode, HttpError};
use super::context::Context;
use super::door::TurnedAway;
use super::request::{Content, Encoding, Request, Route};
use crate::admit::{Measure, Refusal as Full};
use crate::handoff::WriterState;
use crate::metrics::ShardMetrics;

/// What a refused client is told to wait where nothing is known of how long it takes, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// The pool has no block for what a request needs.
pub(super) const POOL_EXHAUSTED: HttpError =
    HttpError { code: ErrorCode::Backpressure, message: "the shard's memory pool is used up: retry later" };

/// All decompressors of the shard for bodies of this length are taken.
pub(super) const DECODERS_EXHAUSTED: HttpError = HttpError {
    code: ErrorCode::Backpressure,
    message: "all decompressors are in use: retry later, or send at most 64 KiB at a time, or send it uncompressed",
};

/// The log is closed for good.
pub(super) const WRITER_FAILED: HttpError = HttpError {
    code: ErrorCode::Unavailable,
    message: "the log's writer has failed; nothing is acknowledged any more: see the server's log",
};

/// Why a request with a body is refused before that is looked at, whoever sent it; `None` if it is not.
pub(super) fn refusal(request: &Request, ctx: &Context) -> Option<HttpError> {
    let stores = request.route != Route::Echo;
    if request.content == Content::Unsupported {
        return Some(HttpError {
            code: ErrorCode::UnsupportedMediaType,
            message: "Content-Type must be application/json or application/x-ndjson",
        });
    }
    if request.encoding == Encoding::Unsupported {
        return Some(HttpError {
            code: ErrorCode::UnsupportedMediaType,
            message: "Content-Encoding must be gzip, zstd or absent",
        });
    }
    if ctx.draining {
        return Some(HttpError { code: ErrorCode::Draining, message: "the server is shutting down: retry elsewhere" });
    }
    match ctx.writer_state() {
        _ if !stores => None,
        WriterState::Running => None,
        WriterState::Starting => {
            Some(HttpError { code: ErrorCode::Unavailable, message: "the log is not open yet: retry shortly" })
        }
        WriterState::Full => Some(HttpError {
            code: ErrorCode::InsufficientStorage,
            message: "the disk has no room for the next part of the log (space down to reserve_bytes, or inodes): free some or lower retention, then retry",
        }),
        WriterState::Poisoned | WriterState::Stopped => Some(WRITER_FAILED),
    }
}

/// An error without more to say; 503 and 507 say when to come again.
pub(super) fn refused(code: ErrorCode, message: &str) -> Refused<'_> {
    let extra = if matches!(code.status(), 503 | 507) { Extra::RetryAfter(RETRY_AFTER_S) } else { Extra::None };
    Refused { code, message, refusals: Refusals::default(), extra }
}

/// The refusal of a body none of whose events is stored; `None` if some are.
pub(super) fn refused_batch<'a>(request: &Request, refusals: Refusals<'a>, accepted: u32) -> Option<Refused<'a>> {
    if refusals.total == 0 {
        let empty = refused(ErrorCode::EmptyBatch, "the body holds no event: send at least one");
        return (accepted == 0).then_some(empty);
    }
    if accepted > 0 && !request.atomic {
        return None;
    }
    // A batch that is too long is refused for that, whatever else is wrong with it.
    let too_long = refusals.first.iter().any(|refusal| refusal.reason.code() == ErrorCode::PayloadTooLarge);
    let all_too_long = refusals.first.iter().all(|refusal| refusal.reason.code() == ErrorCode::PayloadTooLarge);
    let answer = if (request.atomic && too_long) || all_too_long {
        refused(ErrorCode::PayloadTooLarge, "an event or the atomic batch is over its limit: see data.errors")
    } else if request.atomic && accepted > 0 {
        refused(ErrorCode::InvalidJson, "the atomic batch holds invalid events, so none was stored: see data.errors")
    } else {
        refused(ErrorCode::InvalidJson, "nothing in the body is a valid event: see data.errors")
    };
    Some(Refused { refusals, ..answer })
}

/// Counts an answer that is an error.
pub(super) fn count_refusal(code: ErrorCode, ctx: &Context) {
    let metrics = ctx.metrics();
    match code.status() {
        429 | 503 | 507 => metrics.requests_rejected.add(1),
        _ => metrics.requests_error.add(1),
    }
}

/// Counts by its reason what is refused by nobody at the door. Each request that is counted as rejected is counted by one reason,
/// unless it came over a connection too many: those have a counter of their own.
pub(super) fn count_reason(error: &HttpError, ctx: &mut Context) {
    let metrics = ctx.metrics();
    match error.code {
        ErrorCode::Backpressure if *error == POOL_EXHAUSTED => metrics.refused_pool.add(1),
        ErrorCode::Backpressure if *error == DECODERS_EXHAUSTED => metrics.refused_decoders.add(1),
        ErrorCode::InsufficientStorage => metrics.refused_disk.add(1),
        ErrorCode::Draining => metrics.refused_draining.add(1),
        ErrorCode::Unavailable => metrics.refused_unavailable.add(1),
        _ => return,
    }
    ctx.door.note_refused(ctx.clock.ns());
}

impl TurnedAway {
    /// The answer.
    pub(super) fn answer(&self) -> Refused<'static> {
        match *self {
            Self::Unauthorized => refused(
                ErrorCode::Unauthorized,
                "an API key is needed: send Authorization: Bearer KEY or X-API-Key: KEY, as given to you",
            ),
            Self::Limited(over) => {
                let extra = Extra::RateLimit {
                    limit: over.limit,
                    remaining: over.remaining,
                    reset_s: over.reset_s,
                    retry_after_s: over.retry_after_s,
                };
                let message = match over.of {
                    Measure::Events => "the tenant's limit on events is used up: come again after Retry-After seconds",
                    Measure::Bytes => "the tenant's limit on bytes is used up: come again after Retry-After seconds",
                };
                Refused { extra, ..refused(ErrorCode::RateLimited, message) }
            }
            Self::Full { reason, retry_after_s } => {
                let message = match reason {
                    Full::Utilization => {
                        "the server holds its utilization target: come again after Retry-After seconds"
                    }
                    Full::Lag => "the disk is behind: come again after Retry-After seconds",
                    Full::Concurrency => {
                        "as many requests are in flight as may be (max_ccu): come again after Retry-After seconds"
                    }
                    Full::Share => {
                        "the server is full and others wait for their share: come again after Retry-After seconds"
                    }
                };
                Refused { extra: Extra::RetryAfter(retry_after_s), ..refused(ErrorCode::Backpressure, message) }
            }
        }
    }

    /// Counts it by its reason.
    pub(super) fn count(&self, metrics: &ShardMetrics) {
        let counter = match self {
            Self::Unauthorized => &metrics.refused_unauthorized,
            Self::Limited(_) => &metrics.refused_limited,
            Self::Full { reason: Full::Utilization, .. } => &metrics.refused_utilization,
            Self::Full { reason: Full::Lag, .. } => &metrics.refused_lag,
            Self::Full { reason: Full::Concurrency, .. } => &metrics.refused_concurrency,
            Self::Full { reason: Full::Share, .. } => &metrics.refused_share,
        };
        counter.add(1);
    }
}
