//! Where the elements of an array end, block by block, as long as one object follows another. Shard thread; pure.
//!
//! An element ends with the brace that closes its first one; brackets are not counted ([`super::pass`]). Behind it a comma and
//! another object are looked for, with white space around the comma and nothing else: whatever else comes, the pass stops, and
//! the caller is to see to it. So what lies between elements holds no quote, brace or backslash that could mean anything.

use super::is_white_space;
use super::lines::{LINES_MAX, LineEnds};
use super::pass::{PLACES_MAX, Progress, block_at, brace_in, braces_outside};
use super::scan::Scanner;
use super::simd::{BLOCK_BYTES, Simd, Work};

/// Finds the ends of elements, and their tokens. Returns how far it came, and how many ended.
pub(super) struct ElementEnds<'s, 'i> {
    pub(super) scanner: &'s mut Scanner,
    /// Begins with the brace of one.
    pub(super) input: &'i [u8],
    /// Elements to be looked at most.
    pub(super) limit: usize,
}

impl Work for ElementEnds<'_, '_> {
    type Output = (Progress, usize);

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> Self::Output {
        let Self { scanner, input, limit } = self;
        let (mut progress, mut elements, mut ended) = (Progress::START, Elements::START, 0);
        let lines = &mut scanner.memory.lines;
        (lines.open, lines.with_rare, lines.starts[0]) = (0, 0, 0);
        let bytes_max = input.len().min(PLACES_MAX * BLOCK_BYTES);
        while progress.at < bytes_max && !elements.is_over {
            let (block, valid) = block_at(simd, input, progress.at);
            let plain = simd.plain(block);
            if plain.rare | progress.escape == 0 {
                let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
                let braces = braces_outside(simd, block, inside);
                let memory = &mut *scanner.memory;
                let (mut ends, within) =
                    elements.in_block((input, progress.at), braces, &mut memory.lines, (ended, limit));
                let found = (plain.structural & !inside | plain.quote & inside) & within;
                progress.take(simd, memory, block, !(inside | plain.separator) & within, found);
                while ends != 0 {
                    let end = progress.at + ends.trailing_zeros() as usize;
                    memory.lines.note(ended, end, false, &mut scanner.rare);
                    ended += 1;
                    ends &= ends - 1;
                }
                progress.in_string = (inside as i64 >> 63) as u64;
            } else {
                let masks = simd.masks(block);
                let strings = progress.strings(simd, &mut scanner.rare, block, &masks, valid);
                let braces = braces_outside(simd, block, strings.inside);
                let lines = &mut scanner.memory.lines;
                let (ends, within) = elements.in_block((input, progress.at), braces, lines, (ended, limit));
                let parts = (ends, within & valid);
                ended = progress.take_rare_with_ends(simd, scanner, block, (&masks, &strings), parts, (ended, limit));
                progress.in_string = (strings.inside as i64 >> 63) as u64;
            }
            progress.at += BLOCK_BYTES;
        }
        (progress, ended)
    }
}

/// How far the elements have been followed.
struct Elements {
    /// Braces open.
    depth: u32,
    /// Index of the first byte of the element that goes on or comes next.
    from: usize,
    /// No element follows that is to be looked at.
    is_over: bool,
}

impl Elements {
    /// Before the brace that an input begins with.
    const START: Self = Self { depth: 0, from: 0, is_over: false };

    /// The ends of elements in the block at `at` of `input`, one bit each, and the bytes of the block that belong to
    /// elements. `open` and `close` are its braces outside of strings. Of `ended` elements the ends are known; no more than
    /// `limit` are looked for.
    #[inline(always)]
    fn in_block(
        &mut self,
        (input, at): (&[u8], usize),
        (mut open, mut close): (u64, u64),
        lines: &mut LineEnds,
        (mut ended, limit): (usize, usize),
    ) -> (u64, u64) {
        let (mut ends, mut within) = (0, from_bit(self.from.saturating_sub(at)));
        while let Some(below) = brace_in(open, close, &mut self.depth) {
            ends |= below & !(below >> 1);
            self.depth = 0;
            ended += 1;
            let end = at + BLOCK_BYTES - below.leading_zeros() as usize;
            let next = if ended < limit { next_element(input, end) } else { None };
            let Some(from) = next else {
                self.is_over = true;
                return (ends, within & below);
            };
            self.from = from;
            lines.starts[ended % LINES_MAX] = from as u32;
            within &= below | from_bit(from - at);
            (open, close) = (open & !below, close & !below);
        }
        (ends, within)
    }
}

/// All bits but the first `bit`.
#[inline(always)]
fn from_bit(bit: usize) -> u64 {
    if bit < BLOCK_BYTES { u64::MAX << bit } else { 0 }
}

/// Index of the brace of the object that follows an element and a comma, if one does.
#[inline(always)]
fn next_element(input: &[u8], end: usize) -> Option<usize> {
    if input.get(end..end + 2) == Some(b",{") {
        return Some(end + 1);
    }
    next_over_space(input, end)
}

#[inline(never)]
fn next_over_space(input: &[u8], end: usize) -> Option<usize> {
    let solid = |from: usize| input[from..].iter().position(|byte| !is_white_space(*byte)).map(|bytes| from + bytes);
    let comma = solid(end).filter(|at| input[*at] == b',')?;
    solid(comma + 1).filter(|at| input[*at] == b'{')
}
