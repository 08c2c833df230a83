//! Validation of events and access to their top-level fields, over slices. Shard thread; pure.
//!
//! [`Validator`] promises: what it accepts is exactly one RFC 8259 object in UTF-8, nested no deeper than the limit. The
//! event's bytes are read only. How it does that in a tenth of a parser's time is told in `docs/JSON.md`:
//!
//! ```text
//! validator ─┬─ scan ─┬─ pass      where the event ends, and its tokens
//!            │        ├─ lines     the same of many lines at once, or of many elements of an array
//!            │        ├─ elements  where these end
//!            │        ├─ simd      64 bytes → one bit per byte and class; one file per instruction set
//!            │        ├─ shapes    tokens seen before: the grammar is known to hold
//!            │        ├─ grammar   tokens not seen before
//!            │        └─ scalars, escapes, utf8: what tokens do not tell
//!            ├─ credit             whether it pays to look at an event before it is parsed
//!            └─ parser, numbers    the last word on what the scan cannot prove
//! ```
//!
//! This room is the one interface behind which all of that may change. It knows nothing of HTTP, shards or storage.

mod credit;
mod elements;
mod error;
mod escapes;
mod fields;
mod grammar;
mod lines;
mod numbers;
mod parser;
mod pass;
mod scalars;
mod scan;
mod shapes;
mod simd;
mod utf8;
mod validator;

pub use error::{JsonError, JsonErrorKind};
pub use fields::Event;
pub use lines::Lines;

pub use scan::{Counts, Scan, Until};
pub use simd::Level;
pub use validator::Validator;

/// Objects and arrays inside each other that any part of the server can follow: the upper bound of the configured
/// depth. A multiple of 64.
pub const DEPTH_MAX: usize = 1024;

/// White space as RFC 8259 §2 has it: space, tab, line feed, carriage return, and nothing else.
#[inline]
#[must_use]
pub const fn is_white_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// `bytes` without the JSON white space before them. (`trim_ascii` would take form feeds too.)
#[inline]
#[must_use]
pub fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_white_space(*byte)).unwrap_or(bytes.len());
    &bytes[start..]
}

/// `bytes` without the JSON white space after them.
#[inline]
#[must_use]
pub fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !is_white_space(*byte)).map_or(0, |last| last + 1);
    &bytes[..end]
}
