//! The parser that has the last word: simd-json's tape over a padded copy, with every buffer reused. Shard thread.
//!
//! What the scan cannot prove comes here: events that are not valid, which are told apart and located, and whatever the
//! scan might be too strict for.
//!
//! Where simd-json 0.19 and RFC 8259 part, and what is done about it:
//!
//! | text | simd-json | here |
//! |---|---|---|
//! | integers beyond 64 bits, `1e999` | refused | accepted, see [`super::numbers`] |
//! | an escaped surrogate without its pair | refused | refused: RFC 8259 §8.2 calls its meaning unpredictable |
//! | duplicate keys | all kept | accepted; the first one wins in [`super::Event::field`] |
//! | a byte order mark | refused | refused, as RFC 8259 §8.1 allows |
//! | a value that is no object | accepted | refused |

use std::mem;

use simd_json::{Buffers, INPUT_PADDING, Node, Tape, fill_tape_padded};

use super::{JsonError, JsonErrorKind, is_white_space, numbers};

/// Buffers start large enough for an event of this size, so that usual events never allocate.
const EVENT_BYTES_USUAL: usize = 16 << 10;

/// A tape longer than this is given back before the next event. A node takes 24 bytes and a hostile event has one per
/// byte: 1 MiB of `[[[[…` would otherwise hold 24 MiB for good. An honest event of 1 MiB has a node per 8 bytes or so,
/// half of this.
const TAPE_NODES_KEPT_MAX: usize = 256 << 10;

/// Parses events one after the other. Allocates until its buffers have seen the longest usual event, then no more.
pub(super) struct Parser {
    buffers: Buffers,
    tape: Tape<'static>,
    /// The event and at least [`INPUT_PADDING`] bytes after it.
    scratch: Vec<u8>,
    /// The same with its numbers blanked. Apart from `scratch`, which the first attempt's tape may still borrow.
    blanked: Vec<u8>,
    depth_max: usize,
}

impl Parser {
    /// A parser that allows `depth_max` objects and arrays inside each other.
    pub(super) fn new(depth_max: usize) -> Self {
        Self {
            buffers: Buffers::with_max_depth(EVENT_BYTES_USUAL, depth_max),
            tape: Tape(Vec::with_capacity(EVENT_BYTES_USUAL / 8)),
            scratch: vec![0; EVENT_BYTES_USUAL + INPUT_PADDING],
            blanked: Vec::new(),
            depth_max,
        }
    }

    /// Parses `event`. Returns the number of its members if it is one JSON object.
    pub(super) fn parse(&mut self, event: &[u8]) -> Result<usize, JsonError> {
        let start = event.iter().position(|byte| !is_white_space(*byte)).unwrap_or(event.len());
        if event.get(start) != Some(&b'{') {
            return Err(JsonError::at(JsonErrorKind::NotAnObject, start));
        }
        if self.tape.0.capacity() > TAPE_NODES_KEPT_MAX {
            self.shrink();
        }
        let Self { buffers, tape: home, scratch, blanked, .. } = self;
        // The tape borrows `scratch` while it is filled; its memory goes home when it is emptied.
        let mut tape = mem::replace(home, Tape(Vec::new())).reset();
        let first = fill_tape_padded(padded(scratch, event), event.len(), buffers, &mut tape);
        let first = first.map(|()| members(&tape)).map_err(|error| JsonError::from_parser(&error));
        let mut tape = tape.reset();
        let result = match first {
            Err(error) if error.kind == JsonErrorKind::BadNumber => {
                numbers::blank(&mut padded(blanked, event)[..event.len()]);
                let second = fill_tape_padded(blanked, event.len(), buffers, &mut tape);
                second.map(|()| members(&tape)).map_err(|error| JsonError::from_parser(&error))
            }
            first => first,
        };
        *home = tape.reset();
        result
    }

    #[cold]
    fn shrink(&mut self) {
        self.tape = Tape(Vec::with_capacity(EVENT_BYTES_USUAL / 8));
        self.buffers = Buffers::with_max_depth(EVENT_BYTES_USUAL, self.depth_max);
    }
}

/// Members of the object that the tape begins with.
fn members(tape: &Tape<'_>) -> usize {
    match tape.0.first() {
        Some(Node::Object { len, .. }) => *len,
        _ => 0,
    }
}

/// Copies `event` to the front of `scratch`, with room for the parser's vector loads behind it.
fn padded<'a>(scratch: &'a mut Vec<u8>, event: &[u8]) -> &'a mut [u8] {
    let needed = event.len() + INPUT_PADDING;
    if scratch.len() < needed {
        scratch.resize(needed, 0);
    }
    scratch[..event.len()].copy_from_slice(event);
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "a quarter of a million nodes take Miri minutes")]
    fn a_hostile_event_does_not_keep_its_memory() {
        let mut parser = Parser::new(8);
        let hostile = format!("{{\"a\":[{}1]}}", "1,".repeat(TAPE_NODES_KEPT_MAX));
        assert_eq!(parser.parse(hostile.as_bytes()), Ok(1));
        assert!(parser.tape.0.capacity() > TAPE_NODES_KEPT_MAX);
        assert!(parser.parse(b"{}").is_ok());
        assert!(parser.tape.0.capacity() <= TAPE_NODES_KEPT_MAX);
    }
}
