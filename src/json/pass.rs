//! The pass over events' bytes, block by block: where they end, and their tokens. Shard thread; pure.
//!
//! Most blocks hold no *rare* byte, which is a backslash, a control character or one above ASCII. For them there is a
//! short way; a last block that is not whole takes the long one too. This is the pass over one event; what it does with a
//! block is also what the one over many lines does ([`super::lines`]).

use super::is_white_space;
use super::scan::{Memory, Scan, Scanner};
use super::simd::{BLOCK_BYTES, Masks, Plain, Simd, TOKENS_MAX, Work};

/// Blocks whose tokens' places are kept for finding fields, and of lines that are looked at together: 64 KiB.
pub(super) const PLACES_MAX: usize = 1024;
// Lines have no more tokens than bytes, so that there is room for theirs.
const _: () = assert!(PLACES_MAX * BLOCK_BYTES <= TOKENS_MAX);
// An index below it is cut to its range by a mask, which is cheaper than to see that it is in it.
const _: () = assert!(TOKENS_MAX.is_power_of_two());

/// Tokens of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Where they lie, a bit each.
    pub(super) tokens: u64,
    /// How many there were before the block.
    pub(super) before: u64,
}

impl Places {
    pub(super) const NONE: Self = Self { tokens: 0, before: 0 };
}

/// Ends of an event, as parameters of a pass: see [`super::Until`].
pub(super) const BRACE: u8 = 0;
pub(super) const END: u8 = 1;

/// What rare bytes leave behind; all that is not kept in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rare {
    /// There were rare bytes, or tokens were spilled: what follows is not as it was at the start.
    pub(super) is_any: bool,
    /// Letters that cannot follow a backslash; spilled tokens that cannot stand where they do.
    pub(super) faults: u64,
    pub(super) controls: u64,
    /// The letter of a `\u`.
    pub(super) unicode: u64,
    pub(super) has_escapes: bool,
    /// First byte above ASCII, and the one after the last.
    pub(super) first_high: usize,
    pub(super) end_high: usize,
    pub(super) is_spilled: bool,
}

impl Rare {
    pub(super) const NONE: Self = Self {
        is_any: false,
        faults: 0,
        controls: 0,
        unicode: 0,
        has_escapes: false,
        first_high: usize::MAX,
        end_high: 0,
        is_spilled: false,
    };
}

/// Where a pass is: what stays in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Index of the block's first byte.
    pub(super) at: usize,
    /// Tokens since the event's start or the last spill.
    pub(super) tokens: usize,
    /// Numbers and literals noted: not more than tokens.
    pub(super) scalars: usize,
    /// All ones if the last byte was in a string.
    pub(super) in_string: u64,
    /// 1 if the last byte was a backslash that escapes the next.
    pub(super) escape: u64,
    /// 1 if the last byte belonged to a number or literal.
    run: u64,
    /// Braces open, where the end is a brace.
    depth: u32,
}

/// What lies in strings of a block with rare bytes.
#[derive(Clone, Copy)]
pub(super) struct Strings {
    /// Quotes that are not escaped.
    pub(super) quotes: u64,
    /// Bytes from an opening quote up to before the closing one.
    pub(super) inside: u64,
    /// What a backslash escapes and cannot, and `u`.
    pub(super) bad_escapes: u64,
    pub(super) unicode: u64,
}

/// The end of an event.
#[derive(Clone, Copy, Debug)]
struct End {
    bytes: usize,
    /// It is in a string.
    is_open: bool,
}

/// The escaped bytes of a block. `carry` is 1 if the byte before it is a backslash that escapes its first byte, and
/// becomes 1 if the last one escapes the byte after it.
#[inline(always)]
fn escaped_by(backslashes: u64, carry: &mut u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let escaping = backslashes & !*carry;
    // In each run of backslashes every second one escapes, from the first on. Subtracting the run from the bits after its
    // bytes and all odd ones borrows through the run, and leaves bits alternating from where it began.
    let alternating = ((escaping << 1 | ODD).wrapping_sub(escaping)) ^ ODD;
    let escaped = alternating ^ (backslashes | *carry);
    *carry = (alternating & backslashes) >> 63;
    escaped
}

/// Bits up to and with the brace that closes the object, if it is in this block, whose braces outside of strings are `open`
/// and `close`. `depth` counts braces open from block to block.
#[inline(always)]
pub(super) fn brace_in(open: u64, mut close: u64, depth: &mut u32) -> Option<u64> {
    if close.count_ones() < *depth {
        *depth = *depth + open.count_ones() - close.count_ones();
        return None;
    }
    // The end may lie here: after each closing brace, what was opened before it and not closed by others before it.
    let mut closed = 0;
    while close != 0 {
        let below = close ^ (close - 1);
        closed += 1;
        if *depth + (open & below).count_ones() <= closed {
            return Some(below);
        }
        close &= close - 1;
    }
    *depth = *depth + open.count_ones() - closed;
    None
}

/// The opening and closing braces of a block that are not inside of strings.
#[inline(always)]
pub(super) fn braces_outside<S: Simd>(simd: S, block: S::Block, inside: u64) -> (u64, u64) {
    let (open, close) = simd.braces(block);
    (open & !inside, close & !inside)
}

impl Progress {
    /// At the start of an input.
    pub(super) const START: Self = Self { at: 0, tokens: 0, scalars: 0, in_string: 0, escape: 0, run: 0, depth: 0 };

    /// Takes bytes of a block: those in `others`, in no string and separating nothing, and the tokens `found`.
    #[inline(always)]
    pub(super) fn take<S: Simd>(&mut self, simd: S, memory: &mut Memory, block: S::Block, others: u64, found: u64) {
        let starts = others & !(others << 1 | self.run);
        let found = found | starts;
        simd.append(block, found, self.tokens % TOKENS_MAX, &mut memory.tokens);
        // Of longer events nobody asks for places: they may overwrite their own.
        memory.places[self.at / BLOCK_BYTES % PLACES_MAX] = Places { tokens: found, before: self.tokens as u64 };
        self.tokens += found.count_ones() as usize;
        self.run = others >> 63;
        let out = memory.scalars[self.scalars % (TOKENS_MAX / 2)..].first_chunk_mut().expect("room for one more block");
        let count = starts.count_ones() as usize;
        simd.note(starts, count, self.at as u32, out);
        self.scalars += count;
    }

    /// Takes the bytes of a block that are in `valid`, none of which is rare.
    #[inline(always)]
    fn take_plain<S: Simd>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        plain: &Plain,
        (inside, valid): (u64, u64),
    ) {
        let found = (plain.structural & !inside | plain.quote & inside) & valid;
        self.take(simd, &mut scanner.memory, block, !(inside | plain.separator) & valid, found);
    }

    /// Takes the bytes of a block that are in `valid`, rare ones among them.
    #[inline(always)]
    fn take_rare<S: Simd>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        (masks, strings): (&Masks, &Strings),
        valid: u64,
    ) {
        let rare = &mut scanner.rare;
        rare.controls |= masks.control & valid;
        rare.faults |= strings.bad_escapes & valid;
        rare.unicode |= strings.unicode & valid;
        let high = masks.high & valid;
        if high != 0 {
            rare.first_high = rare.first_high.min(self.at + high.trailing_zeros() as usize);
            rare.end_high = self.at + BLOCK_BYTES - high.leading_zeros() as usize;
        }
        // A control character in a string is made a token, which is one of no object.
        let in_strings = (strings.quotes | masks.control) & strings.inside;
        let found = (masks.structural & !strings.inside | in_strings) & valid;
        self.take(simd, &mut scanner.memory, block, !(strings.inside | masks.separator) & valid, found);
    }

    /// Strings of a block with rare bytes, of which those in `within` count.
    #[inline(always)]
    pub(super) fn strings<S: Simd>(
        &mut self,
        simd: S,
        rare: &mut Rare,
        block: S::Block,
        masks: &Masks,
        within: u64,
    ) -> Strings {
        rare.is_any = true;
        let (mut quotes, mut bad_escapes, mut unicode) = (masks.quote & within, 0, 0);
        let backslashes = masks.backslash & within;
        if backslashes | self.escape != 0 {
            let escaped = escaped_by(backslashes, &mut self.escape);
            let (letters, u) = simd.escapes(block);
            bad_escapes = escaped & !letters;
            unicode = escaped & u;
            quotes &= !escaped;
            rare.has_escapes = true;
        }
        Strings { quotes, inside: simd.prefix_xor(quotes) ^ self.in_string, bad_escapes, unicode }
    }

    /// Goes on to the next block, whose first byte is in a string if the last byte of `inside` is.
    #[inline(always)]
    fn advance(&mut self, scanner: &mut Scanner, input: &[u8], inside: u64) {
        self.in_string = (inside as i64 >> 63) as u64;
        self.at += BLOCK_BYTES;
        if self.tokens >= TOKENS_MAX {
            scanner.spill(input, self.tokens, self.scalars);
            (self.tokens, self.scalars) = (0, 0);
        }
    }

    /// The event ends with the bytes of the block that are in `valid`.
    #[inline(always)]
    fn end(&self, quotes: u64, valid: u64) -> End {
        let is_open = (self.in_string ^ u64::from((quotes & valid).count_ones())) & 1 == 1;
        End { bytes: self.at + BLOCK_BYTES - valid.leading_zeros() as usize, is_open }
    }
}

/// The block at `at` and the bits of its bytes: fewer than 64 at the end of the input.
#[inline(always)]
pub(super) fn block_at<S: Simd>(simd: S, input: &[u8], at: usize) -> (S::Block, u64) {
    let rest = &input[at..];
    match rest.first_chunk::<BLOCK_BYTES>() {
        Some(bytes) => (simd.load(bytes), u64::MAX),
        None => (simd.load_front(rest), (1 << rest.len()) - 1),
    }
}

/// The scan of one event up to `UNTIL`.
pub(super) struct EventPass<'s, 'i, const UNTIL: u8> {
    pub(super) scanner: &'s mut Scanner,
    pub(super) input: &'i [u8],
}

impl<'i, const UNTIL: u8> Work for EventPass<'_, 'i, UNTIL> {
    type Output = Option<Scan<'i>>;

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> Self::Output {
        let Self { scanner, input } = self;
        let mut progress = Progress::START;
        let end = loop {
            if let Some(bytes) = input[progress.at..].first_chunk::<BLOCK_BYTES>() {
                let block = simd.load(bytes);
                let plain = simd.plain(block);
                if plain.rare | progress.escape == 0 {
                    let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
                    if UNTIL == BRACE {
                        let (open, close) = braces_outside(simd, block, inside);
                        if let Some(valid) = brace_in(open, close, &mut progress.depth) {
                            progress.take_plain(simd, scanner, block, &plain, (inside, valid));
                            break progress.end(plain.quote, valid);
                        }
                    }
                    progress.take_plain(simd, scanner, block, &plain, (inside, u64::MAX));
                    progress.advance(scanner, input, inside);
                    continue;
                }
            }
            let (block, within) = block_at(simd, input, progress.at);
            let masks = simd.masks(block);
            let strings = progress.strings(simd, &mut scanner.rare, block, &masks, within);
            let is_last = within != u64::MAX;
            let last = match UNTIL {
                BRACE => {
                    let (open, close) = braces_outside(simd, block, strings.inside);
                    brace_in(open, close, &mut progress.depth)
                }
                _ if is_last => Some(within),
                _ => None,
            };
            if last.is_none() && is_last {
                return None;
            }
            let valid = last.unwrap_or(u64::MAX);
            progress.take_rare(simd, scanner, block, (&masks, &strings), valid);
            if last.is_some() {
                break progress.end(strings.quotes, valid);
            }
            progress.advance(scanner, input, strings.inside);
        };
        Some(scanner.conclude(simd, input, end.bytes, &progress, end.is_open))
    }
}

/// The range without white space at its ends.
#[inline(always)]
pub(super) fn trimmed(input: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    while start < end && is_white_space(input[start]) {
        start += 1;
    }
    while start < end && is_white_space(input[end - 1]) {
        end -= 1;
    }
    (start, end)
}
