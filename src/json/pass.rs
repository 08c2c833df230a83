//! The pass over an event's bytes, block by block: where it ends, and its tokens. Shard thread; pure.
//!
//! Most blocks hold no *rare* byte, which is a backslash, a control character or one above ASCII. For them there is a
//! loop that keeps everything in registers. Blocks with rare bytes, and a last one that is not whole, are looked at in a
//! function of their own, which goes on until a block has none. The line feed that ends a line is met in the loop.

use super::scan::Scanner;
use super::simd::{BLOCK_BYTES, Masks, Numerals, Plain, Simd, TOKENS_MAX, Work};

/// Blocks whose tokens' places are kept for finding fields: events of 16 KiB.
pub(super) const PLACES_MAX: usize = 256;
/// Numbers and literals that may be noted between two spills: not more than tokens and those of a block, rounded up.
pub(super) const SCALARS_MAX: usize = 2 * TOKENS_MAX;
// Indices into these arrays are cut to their range by a mask, which is cheaper than to see that they are in it.
const _: () = assert!(SCALARS_MAX.is_power_of_two() && PLACES_MAX.is_power_of_two());

/// Ends of events, as parameters of a pass: see [`super::Until`].
pub(super) const LINE_FEED: u8 = 0;
pub(super) const BRACE: u8 = 1;
pub(super) const END: u8 = 2;

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
    /// 1 if the last byte was a backslash that escapes the next.
    escape: u64,
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
        escape: 0,
        has_escapes: false,
        first_high: usize::MAX,
        end_high: 0,
        is_spilled: false,
    };
}

/// Where a pass is: what stays in registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress<W> {
    /// Index of the block's first byte.
    at: usize,
    /// Tokens since the start or the last spill, and those of them that wait to be stored.
    pub(super) tokens: usize,
    pub(super) waiting: W,
    /// Numbers and literals left to be looked at one by one.
    pub(super) scalars: usize,
    /// All ones if the last byte was in a string.
    in_string: u64,
    /// 1 if the last byte belonged to a number or literal.
    run: u64,
    /// Braces open, where the end is a brace.
    depth: u32,
}

/// The end of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) bytes: usize,
    /// It is in a string.
    pub(super) is_open: bool,
}

/// Why blocks with rare bytes are looked at no further.
#[derive(Clone, Copy, Debug)]
enum Met {
    /// The next block has none.
    Plain,
    /// The event's end.
    End(End),
    /// The end of the input, where the event has no end.
    Nothing,
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

/// Bits up to and with the brace that closes the object, if it is in this block. `depth` counts braces open from block
/// to block.
#[inline(always)]
fn brace_in<S: Simd>(simd: S, block: S::Block, inside: u64, depth: &mut u32) -> Option<u64> {
    let (open, close) = simd.braces(block);
    let (open, mut close) = (open & !inside, close & !inside);
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

/// Which bits of `whole`, the bytes of whole runs, show that their run is no number without an exponent. Of each such
/// run one bit at least, of others none: RFC 8259 §6, `-`, then `0` or digits that do not begin with it, then perhaps a
/// point and digits.
#[inline(always)]
fn not_numbers(numerals: Numerals, whole: u64, starts: u64) -> u64 {
    let Numerals { digits, zeros, minus, dots } = numerals;
    let (minus, dots) = (minus & whole, dots & whole);
    let strange = whole & !(digits | minus | dots);
    let minus_within = minus & !starts;
    // Whole runs end before the block does: no bit is shifted out.
    let no_digit_after = (minus | dots) << 1 & !digits;
    let no_digit_before = dots & !(digits << 1);
    // A carry runs from each point through the digits behind it, and stops at what ends them.
    let second_dot = (dots << 1).wrapping_add(digits & whole) & dots;
    let first_digits = starts | (minus & starts) << 1;
    let leading_zero = (zeros & whole & first_digits) << 1 & digits;
    strange | minus_within | no_digit_after | no_digit_before | second_dot | leading_zero
}

impl<W: Copy> Progress<W> {
    #[inline(always)]
    fn new(waiting: W) -> Self {
        Self { at: 0, tokens: 0, waiting, scalars: 0, in_string: 0, run: 0, depth: 0 }
    }

    /// Takes the bytes of a block that are in `valid`: all, but for an event's last block. Of those `others` are in no
    /// string and separate nothing, and `found` are tokens, as are the first bytes of others.
    #[inline(always)]
    fn take<S: Simd<Waiting = W>>(&mut self, simd: S, scanner: &mut Scanner, block: S::Block, others: u64, found: u64) {
        let starts = others & !(others << 1 | self.run);
        let found = found | starts;
        self.waiting = simd.append(block, found, self.waiting, self.tokens % TOKENS_MAX, &mut scanner.memory.tokens);
        self.tokens += found.count_ones() as usize;
        scanner.memory.places[self.at / BLOCK_BYTES % PLACES_MAX] = found;
        if others != 0 {
            self.take_scalars(simd.numerals(block), scanner, others, starts);
        }
        self.run = others >> 63;
    }

    /// Looks at the numbers of a block at once. Places of what is not seen to be one are noted: literals, exponents, and
    /// what reaches the end of the block and may go on.
    #[inline(always)]
    fn take_scalars(&mut self, numerals: Numerals, scanner: &mut Scanner, others: u64, starts: u64) {
        // What goes on from the block before was noted there.
        let front = others & !others.wrapping_add(self.run);
        let reaches_end = ((others as i64) >> 63) as u64;
        let last_start = (1 << 63 >> (starts.leading_zeros() % 64)) & starts & reaches_end;
        let whole = others & !front & last_start.wrapping_sub(1);
        let bad = not_numbers(numerals, whole, starts);
        let mut noted = if bad == 0 { last_start } else { starts };
        while noted != 0 {
            scanner.memory.scalars[self.scalars % SCALARS_MAX] = self.at as u32 + noted.trailing_zeros();
            self.scalars += 1;
            noted &= noted - 1;
        }
    }

    #[inline(always)]
    fn take_plain<S: Simd<Waiting = W>>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        plain: &Plain,
        inside: u64,
        valid: u64,
    ) {
        let found = (plain.structural & !inside | plain.quote & inside) & valid;
        self.take(simd, scanner, block, !(inside | plain.separator) & valid, found);
    }

    /// Goes on to the next block, whose first byte is in a string if the last byte of `inside` is.
    #[inline(always)]
    fn advance<S: Simd<Waiting = W>>(&mut self, simd: S, scanner: &mut Scanner, input: &[u8], inside: u64) {
        self.in_string = (inside as i64 >> 63) as u64;
        self.at += BLOCK_BYTES;
        if self.tokens >= TOKENS_MAX {
            simd.store(self.waiting, self.tokens, &mut scanner.memory.tokens);
            scanner.spill(input, self.tokens, self.scalars);
            (self.tokens, self.scalars, self.waiting) = (0, 0, simd.none_waiting());
        }
    }

    /// The event ends with the bytes of the block that are in `valid`.
    #[inline(always)]
    fn end(&self, quotes: u64, valid: u64) -> End {
        let is_open = (self.in_string ^ u64::from((quotes & valid).count_ones())) & 1 == 1;
        End { bytes: self.at + valid.trailing_ones() as usize, is_open }
    }

    /// Takes one block with rare bytes, or one that is not whole. None if it had no end, and there may be another.
    #[inline(always)]
    fn take_rare<S: Simd<Waiting = W>, const UNTIL: u8>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        input: &[u8],
    ) -> Option<Met> {
        let rest = &input[self.at..];
        let (block, within) = match rest.first_chunk::<BLOCK_BYTES>() {
            Some(bytes) => (simd.load(bytes), u64::MAX),
            None => (simd.load_front(rest), (1 << rest.len()) - 1),
        };
        let masks = simd.masks(block);
        let rare = &mut scanner.rare;
        rare.is_any = true;
        let (mut quotes, mut bad_escapes) = (masks.quote, 0);
        if masks.backslash | rare.escape != 0 {
            let escaped = escaped_by(masks.backslash, &mut rare.escape);
            let (letters, unicode) = simd.escapes(block);
            bad_escapes = escaped & !letters;
            quotes &= !escaped;
            rare.unicode |= escaped & unicode;
            rare.has_escapes = true;
        }
        let inside = simd.prefix_xor(quotes) ^ self.in_string;
        // The event's bytes of this block, if they are its last.
        let last = match UNTIL {
            LINE_FEED if masks.line_feed != 0 => Some((masks.line_feed ^ (masks.line_feed - 1)) >> 1),
            LINE_FEED => None,
            BRACE => brace_in(simd, block, inside, &mut self.depth),
            _ if within != u64::MAX => Some(within),
            _ => None,
        };
        if last.is_none() && within != u64::MAX {
            return Some(Met::Nothing);
        }
        let valid = last.unwrap_or(u64::MAX);
        rare.controls |= masks.control & valid;
        rare.faults |= bad_escapes & valid;
        let high = masks.high & valid;
        if high != 0 {
            rare.first_high = rare.first_high.min(self.at + high.trailing_zeros() as usize);
            rare.end_high = self.at + BLOCK_BYTES - high.leading_zeros() as usize;
        }
        self.take_masks(simd, scanner, block, &masks, quotes, inside, valid);
        if last.is_some() {
            return Some(Met::End(self.end(quotes, valid)));
        }
        self.advance(simd, scanner, input, inside);
        None
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all are registers")]
    fn take_masks<S: Simd<Waiting = W>>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        masks: &Masks,
        quotes: u64,
        inside: u64,
        valid: u64,
    ) {
        // A control character in a string is made a token, which is one of no object.
        let in_strings = (quotes | masks.control) & inside;
        let found = (masks.structural & !inside | in_strings) & valid;
        self.take(simd, scanner, block, !(inside | masks.separator) & valid, found);
    }
}

/// One scan, to be compiled for each instruction set and each kind of end. Returns the event's length, if it has an end.
pub(super) struct Pass<'s, 'i, const UNTIL: u8> {
    pub(super) scanner: &'s mut Scanner,
    pub(super) input: &'i [u8],
}

impl<const UNTIL: u8> Work for Pass<'_, '_, UNTIL> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> Option<usize> {
        let Self { scanner, input } = self;
        let mut progress = Progress::new(simd.none_waiting());
        let end = loop {
            if let Some(bytes) = input[progress.at..].first_chunk::<BLOCK_BYTES>() {
                let block = simd.load(bytes);
                let plain = simd.plain(block);
                let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
                if plain.rare == 0 {
                    if UNTIL == BRACE
                        && let Some(valid) = brace_in(simd, block, inside, &mut progress.depth)
                    {
                        progress.take_plain(simd, scanner, block, &plain, inside, valid);
                        break progress.end(plain.quote, valid);
                    }
                    progress.take_plain(simd, scanner, block, &plain, inside, u64::MAX);
                    progress.advance(simd, scanner, input, inside);
                    continue;
                }
                // Most often the first rare byte of a line is the line feed behind it.
                if UNTIL == LINE_FEED && bytes[plain.rare.trailing_zeros() as usize % BLOCK_BYTES] == b'\n' {
                    let before = (plain.rare & plain.rare.wrapping_neg()).wrapping_sub(1);
                    progress.take_plain(simd, scanner, block, &plain, inside, before);
                    break progress.end(plain.quote, before);
                }
            }
            let (after, met) = simd.run(RareBlocks::<S, UNTIL> { simd, scanner, input, progress });
            progress = after;
            match met {
                Met::Plain => {}
                Met::End(end) => break end,
                Met::Nothing => return None,
            }
        };
        scanner.conclude(simd, &input[..end.bytes], input, &progress, end.is_open);
        Some(end.bytes)
    }
}

/// The blocks of a pass from one with rare bytes up to one without.
struct RareBlocks<'s, 'i, T: Simd, const UNTIL: u8> {
    /// That of the pass, which this is compiled for.
    simd: T,
    scanner: &'s mut Scanner,
    input: &'i [u8],
    progress: Progress<T::Waiting>,
}

impl<T: Simd, const UNTIL: u8> Work for RareBlocks<'_, '_, T, UNTIL> {
    type Output = (Progress<T::Waiting>, Met);

    #[inline(always)]
    fn with<S: Simd>(self, _: S) -> Self::Output {
        let Self { simd, scanner, input, mut progress } = self;
        loop {
            if let Some(met) = progress.take_rare::<T, UNTIL>(simd, scanner, input) {
                return (progress, met);
            }
            // No closure: see `simd/avx2.rs`.
            if scanner.rare.escape == 0
                && let Some(bytes) = input[progress.at..].first_chunk::<BLOCK_BYTES>()
                && simd.plain(simd.load(bytes)).rare == 0
            {
                return (progress, Met::Plain);
            }
        }
    }
}
