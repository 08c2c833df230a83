//! Validation of one event and access to its top-level fields, over slices. Shard thread; pure.
//!
//! [`Validator`] promises: what it accepts is exactly one RFC 8259 object in UTF-8, nested no deeper than the limit.
//! The event's bytes are read only: the parser under it unescapes strings in place, so it works on a copy, which
//! it would have to make anyway for the padding its vector loads need.
//!
//! This room is the one interface behind which the parser may change. It knows nothing of HTTP, shards or storage.

mod error;
mod numbers;
mod validator;
mod value;

pub use error::{JsonError, JsonErrorKind};
pub use validator::{Event, Validator};

/// Objects and arrays inside each other that any part of the server can follow: the upper bound of the configured
/// depth. A multiple of 64.
pub const DEPTH_MAX: usize = 1024;

/// White space as RFC 8259 §2 has it: space, tab, line feed, carriage return, and nothing else.
#[inline]
#[must_use]
pub const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
