//! The pass over events' bytes, block by block: where they end, and their tokens. Shard thread; pure.
//!
//! Most blocks hold no *rare* byte, which is a backslash, a control character or one above ASCII. For them there is a
//! short way; a last block that is not whole takes the long one too. Line feeds that end lines are met on the short way:
//! blocks follow each other at 64 bytes over all lines of an input, so that no line waits for the end of the one before.

use super::is_white_space;
use super::scan::{Scan, Scanner};
use super::simd::{BLOCK_BYTES, Masks, Plain, Simd, TOKENS_MAX, Work};

/// Blocks whose tokens' places are kept for finding fields: 64 KiB.
pub(super) const PLACES_MAX: usize = 1024;
// An index below it is cut to its range by a mask, which is cheaper than to see that it is in it.
const _: () = assert!(TOKENS_MAX.is_power_of_two());

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
pub(super) struct Progress<W> {
    /// Index of the block's first byte.
    at: usize,
    /// Tokens since the event's start or the last spill, and those of them that wait to be stored.
    pub(super) tokens: usize,
    pub(super) waiting: W,
    /// Numbers and literals noted: not more than tokens.
    pub(super) scalars: usize,
    /// All ones if the last byte was in a string.
    in_string: u64,
    /// 1 if the last byte was a backslash that escapes the next.
    escape: u64,
    /// 1 if the last byte belonged to a number or literal.
    run: u64,
    /// Braces open, where the end is a brace.
    depth: u32,
}

/// What lies in strings of a block with rare bytes.
#[derive(Clone, Copy)]
struct Strings {
    /// Quotes that are not escaped.
    quotes: u64,
    /// Bytes from an opening quote up to before the closing one.
    inside: u64,
    /// What a backslash escapes and cannot, and `u`.
    bad_escapes: u64,
    unicode: u64,
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

impl<W: Copy> Progress<W> {
    #[inline(always)]
    fn at(at: usize, waiting: W) -> Self {
        Self { at, tokens: 0, waiting, scalars: 0, in_string: 0, escape: 0, run: 0, depth: 0 }
    }

    /// Takes bytes of a block, those in `others` in no string and separating nothing, and the tokens `found`. Returns
    /// these with the first ones of others.
    #[inline(always)]
    fn take<S: Simd<Waiting = W>>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        others: u64,
        found: u64,
    ) -> u64 {
        let starts = others & !(others << 1 | self.run);
        let found = found | starts;
        self.waiting = simd.append(block, found, self.waiting, self.tokens % TOKENS_MAX, &mut scanner.memory.tokens);
        self.tokens += found.count_ones() as usize;
        // One place is there for all that is not kept.
        scanner.memory.places[(self.at / BLOCK_BYTES).min(PLACES_MAX)] = found;
        self.run = others >> 63;
        self.note_scalars(scanner, starts);
        found
    }

    /// Notes where numbers and literals begin.
    #[inline(always)]
    fn note_scalars(&mut self, scanner: &mut Scanner, mut starts: u64) {
        let scalars = &mut scanner.memory.scalars[self.scalars % TOKENS_MAX..];
        let scalars: &mut [u32; BLOCK_BYTES] = scalars.first_chunk_mut().expect("room for one more block");
        self.scalars += starts.count_ones() as usize;
        // Two without a branch, since most blocks have no more and it is not to be foreseen how many.
        for place in &mut scalars[..2] {
            *place = self.at as u32 + starts.trailing_zeros();
            starts &= starts.wrapping_sub(1);
        }
        let mut more = 2;
        while starts != 0 {
            scalars[more % BLOCK_BYTES] = self.at as u32 + starts.trailing_zeros();
            starts &= starts - 1;
            more += 1;
        }
    }

    /// Takes the bytes of a block that are in `valid`, none of which is rare.
    #[inline(always)]
    fn take_plain<S: Simd<Waiting = W>>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        plain: &Plain,
        (inside, valid): (u64, u64),
    ) {
        let found = (plain.structural & !inside | plain.quote & inside) & valid;
        self.take(simd, scanner, block, !(inside | plain.separator) & valid, found);
    }

    /// Takes the bytes of a block that are in `valid`, rare ones among them.
    #[inline(always)]
    fn take_rare<S: Simd<Waiting = W>>(
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
        self.take(simd, scanner, block, !(strings.inside | masks.separator) & valid, found);
    }

    /// Strings of a block with rare bytes, of which those in `within` count.
    #[inline(always)]
    fn strings<S: Simd>(&mut self, simd: S, rare: &mut Rare, block: S::Block, masks: &Masks, within: u64) -> Strings {
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
        End { bytes: self.at + BLOCK_BYTES - valid.leading_zeros() as usize, is_open }
    }
}

/// The block at `at` and the bits of its bytes: fewer than 64 at the end of the input.
#[inline(always)]
fn block_at<S: Simd>(simd: S, input: &[u8], at: usize) -> (S::Block, u64) {
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
        let mut progress = Progress::at(0, simd.none_waiting());
        let end = loop {
            if let Some(bytes) = input[progress.at..].first_chunk::<BLOCK_BYTES>() {
                let block = simd.load(bytes);
                let plain = simd.plain(block);
                if plain.rare | progress.escape == 0 {
                    let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
                    if UNTIL == BRACE
                        && let Some(valid) = brace_in(simd, block, inside, &mut progress.depth)
                    {
                        progress.take_plain(simd, scanner, block, &plain, (inside, valid));
                        break progress.end(plain.quote, valid);
                    }
                    progress.take_plain(simd, scanner, block, &plain, (inside, u64::MAX));
                    progress.advance(simd, scanner, input, inside);
                    continue;
                }
            }
            let (block, within) = block_at(simd, input, progress.at);
            let masks = simd.masks(block);
            let strings = progress.strings(simd, &mut scanner.rare, block, &masks, within);
            let is_last = within != u64::MAX;
            let last = match UNTIL {
                BRACE => brace_in(simd, block, strings.inside, &mut progress.depth),
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
            progress.advance(simd, scanner, input, strings.inside);
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

/// Lines that are scanned at once.
pub(super) const LINES_MAX: usize = 64;

/// The lines of an input, as many as were scanned at once.
#[derive(Debug)]
pub struct Lines<'i> {
    scans: [Scan<'i>; LINES_MAX],
    count: usize,
}

impl<'i> Lines<'i> {
    /// No lines.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self { scans: [Scan::NOTHING; LINES_MAX], count: 0 }
    }

    /// The lines last scanned that are not blank, in order.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[Scan<'i>] {
        &self.scans[..self.count]
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    #[inline(always)]
    pub(super) fn push(&mut self, scan: Scan<'i>) {
        self.scans[self.count % LINES_MAX] = scan;
        self.count += 1;
    }
}

impl Default for Lines<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a line has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineEnd {
    /// Index of the line feed.
    pub(super) end: u32,
    /// Tokens before it, of all lines.
    pub(super) tokens: u32,
    /// It is in a string.
    pub(super) is_open: bool,
    /// There are rare bytes in the line.
    pub(super) has_rare: bool,
}

impl LineEnd {
    pub(super) const NONE: Self = Self { end: 0, tokens: 0, is_open: false, has_rare: false };
}

impl Scanner {
    /// Notes the end of a line that has `tokens` tokens before its end, with all lines before it.
    #[inline(always)]
    fn note_line(&mut self, at: usize, end: usize, tokens: usize, is_open: bool) {
        let has_rare = self.rare.is_any;
        if has_rare {
            self.memory.rares[at % LINES_MAX] = self.rare;
            self.rare = Rare::NONE;
        }
        self.memory.line_ends[at % LINES_MAX] = LineEnd { end: end as u32, tokens: tokens as u32, is_open, has_rare };
    }
}

/// The scan of whole lines, as many as there is room for. Returns the bytes of the input up to the end of the last.
///
/// First the bytes are looked at, all lines together, and where they end is noted; then each line's tokens are looked up.
/// Apart, the two get by with the registers there are, and what was stored has arrived when it is read.
pub(super) struct LinesPass<'s, 'i, 'l> {
    pub(super) scanner: &'s mut Scanner,
    pub(super) input: &'i [u8],
    pub(super) lines: &'l mut Lines<'i>,
}

impl<'i> Work for LinesPass<'_, 'i, '_> {
    type Output = usize;

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> usize {
        let Self { scanner, input, lines } = self;
        let (progress, ended) = simd.run(Ends { simd, scanner, input });
        simd.store(progress.waiting, progress.tokens, &mut scanner.memory.tokens);
        let Some(last) = ended.checked_sub(1) else { return 0 };
        scanner.conclude_lines(simd, input, (ended, progress.scalars), lines);
        scanner.memory.line_ends[last].end as usize + 1
    }
}

/// Finds the ends of lines, and their tokens.
struct Ends<'s, 'i, T: Simd> {
    /// That of the pass, which this is compiled for.
    simd: T,
    scanner: &'s mut Scanner,
    input: &'i [u8],
}

impl<T: Simd> Work for Ends<'_, '_, T> {
    /// How far it came, and how many lines ended.
    type Output = (Progress<T::Waiting>, usize);

    #[inline(always)]
    fn with<S: Simd>(self, _: S) -> Self::Output {
        let Self { simd, scanner, input } = self;
        let mut progress = Progress::at(0, simd.none_waiting());
        let mut ended = 0;
        while progress.at < PLACES_MAX * BLOCK_BYTES && progress.tokens < TOKENS_MAX {
            if let Some(bytes) = input[progress.at..].first_chunk::<BLOCK_BYTES>() {
                let block = simd.load(bytes);
                let plain = simd.plain(block);
                let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
                let mut feeds = 0;
                if plain.rare != 0 {
                    feeds = simd.line_feeds(block);
                }
                // A line feed in a string ends it, so that the next line is outside again: seen to apart.
                if plain.rare == feeds && feeds & inside | progress.escape == 0 {
                    let found = (plain.structural & !inside | plain.quote & inside) & !feeds;
                    let others = !(inside | plain.separator | feeds);
                    let before = progress.tokens;
                    let found = progress.take(simd, scanner, block, others, found);
                    while feeds != 0 {
                        let tokens = before + (found & (feeds ^ (feeds - 1))).count_ones() as usize;
                        scanner.note_line(ended, progress.at + feeds.trailing_zeros() as usize, tokens, false);
                        ended += 1;
                        if ended == LINES_MAX {
                            return (progress, ended);
                        }
                        feeds &= feeds - 1;
                    }
                    progress.in_string = (inside as i64 >> 63) as u64;
                    progress.at += BLOCK_BYTES;
                    continue;
                }
            }
            let (block, within) = block_at(simd, input, progress.at);
            ended = progress.take_rare_of_lines(simd, scanner, block, within, ended);
            if within != u64::MAX || ended == LINES_MAX {
                break;
            }
        }
        (progress, ended)
    }
}

impl<W: Copy> Progress<W> {
    /// Takes a block of lines, rare bytes among them. Of `ended` lines the ends are noted; returns of how many then.
    #[inline(always)]
    fn take_rare_of_lines<S: Simd<Waiting = W>>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        within: u64,
        mut ended: usize,
    ) -> usize {
        let masks = simd.masks(block);
        let feeds = masks.line_feed & within;
        // That a line feed may be escaped does not matter: a line that ends in a backslash is no event.
        let strings = self.strings(simd, &mut scanner.rare, block, &masks, within);
        let mut inside = strings.inside;
        if feeds & inside != 0 {
            inside = inside_of_lines(simd, strings.quotes, self.in_string, feeds);
        }
        let in_strings = (strings.quotes | masks.control) & inside;
        let found = (masks.structural & !inside | in_strings) & !feeds & within;
        let others = !(inside | masks.separator) & within;
        let tokens_before = self.tokens;
        let found = self.take(simd, scanner, block, others, found);
        let (mut before, mut left) = (0, feeds);
        loop {
            let below = if left == 0 { within } else { left ^ (left - 1) };
            let valid = below & !before & !feeds;
            let rare = &mut scanner.rare;
            rare.is_any = true;
            rare.controls |= masks.control & valid;
            rare.faults |= strings.bad_escapes & valid;
            rare.unicode |= strings.unicode & valid;
            rare.has_escapes |= masks.backslash & valid != 0;
            let high = masks.high & valid;
            if high != 0 {
                rare.first_high = rare.first_high.min(self.at + high.trailing_zeros() as usize);
                rare.end_high = self.at + BLOCK_BYTES - high.leading_zeros() as usize;
            }
            if left == 0 {
                break;
            }
            let tokens = tokens_before + (found & below).count_ones() as usize;
            let is_open = inside & left & left.wrapping_neg() != 0;
            scanner.note_line(ended, self.at + left.trailing_zeros() as usize, tokens, is_open);
            ended += 1;
            if ended == LINES_MAX {
                return ended;
            }
            before = below;
            left &= left - 1;
        }
        // A line feed ends a string even as the last byte of a block.
        self.in_string = ((inside & !feeds) as i64 >> 63) as u64;
        self.at += BLOCK_BYTES;
        ended
    }
}

/// What is inside of strings, if strings end with their lines.
#[inline(always)]
fn inside_of_lines<S: Simd>(simd: S, quotes: u64, mut in_string: u64, mut feeds: u64) -> u64 {
    let (mut inside, mut before) = (0, 0);
    loop {
        let below = if feeds == 0 { u64::MAX } else { feeds ^ (feeds - 1) };
        let of_line = below & !before;
        inside |= (simd.prefix_xor(quotes & of_line) ^ in_string) & of_line;
        if feeds == 0 {
            return inside;
        }
        (in_string, before) = (0, below);
        feeds &= feeds - 1;
    }
}
