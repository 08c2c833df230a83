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

pub use error::{JsonError, JsonErrorKind};
pub use validator::{Event, Validator};

/// White space as RFC 8259 §2 has it: space, tab, line feed, carriage return, and nothing else.
#[inline]
#[must_use]
pub const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Cuts JSON white space off both ends.
#[inline]
#[must_use]
pub const fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest
        && is_white_space(*first)
    {
        rest = tail;
    }
    while let [head @ .., last] = rest
        && is_white_space(*last)
    {
        rest = head;
    }
    rest
}
