//! Units, identifiers and limits that every room shares. Any thread; no syscalls, no state.

mod ids;
mod limits;
mod units;

pub use ids::{AckLevel, Epoch, ParsePositionError, Position, Seq, ShardId, TenantId, WriterId};
pub use limits::{BODY_BYTES_MAX, CHUNK_BYTES_MAX, EVENT_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Limits};
pub use units::{KIB, MIB, PAGE_BYTES, align_down, align_up};
