//! The pass over the lines of an input, all together, and what is known of each afterwards. Shard thread; pure.
//!
//! The elements of an array go the same way: only what ends them differs ([`super::elements`]).
//!
//! First the bytes: blocks follow each other at 64 bytes over all lines, so that no line waits for the end of the one
//! before, and where lines end is noted on the way. Then the numbers and literals of all lines, and then each line's
//! tokens are looked up. Apart, these get by with the registers there are, what was stored has arrived when it is read,
//! and no step waits for the branches of another: how long lines are and what is in them is not to be foreseen, and
//! at every such branch the CPU guesses wrong half the time.

use super::elements::ElementEnds;
use super::pass::{PLACES_MAX, Places, Progress, Rare, Strings, trimmed};
use super::scalars::is_scalar;
use super::scan::{Memory, Scan, Scanner};
use super::simd::{BLOCK_BYTES, Masks, Simd, Work};

/// Lines that are scanned at once: one bit of a word each.
pub(super) const LINES_MAX: usize = 64;

/// A stream is steady if no more than one in so many lines is of another shape than the line before: then it is that
/// shape's tokens that a line's are compared with first, without a hash. The CPU foresees that this succeeds; where it
/// often did not, the wrong guesses would cost more than the hashes.
const CHANGES_PART_MAX: usize = 16;

/// What the events of a pass are, as a parameter of it.
pub(super) const LINES: u8 = 0;
pub(super) const ELEMENTS: u8 = 1;

/// The lines of an input, or elements of an array in it, as many as were scanned at once.
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

    /// The lines last scanned that are not blank, in order; or the elements.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[Scan<'i>] {
        &self.scans[..self.count]
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Room for one more.
    #[inline(always)]
    pub(super) fn push(&mut self) -> &mut Scan<'i> {
        self.count += 1;
        &mut self.scans[(self.count - 1) % LINES_MAX]
    }
}

impl Default for Lines<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where lines have ended.
pub(super) struct LineEnds {
    /// Index of each line's line feed, or of the brace that ends an element.
    ends: [u32; LINES_MAX],
    /// Index of each element's first byte.
    pub(super) starts: [u32; LINES_MAX],
    /// Tokens up to the end, of all lines, and a hash of the line's.
    tokens: [u32; LINES_MAX],
    hashes: [u32; LINES_MAX],
    /// Lines that end in a string, one bit each, and lines with rare bytes.
    pub(super) open: u64,
    pub(super) with_rare: u64,
    /// What the rare bytes of a line have left, if it has any.
    rares: [Rare; LINES_MAX],
}

impl LineEnds {
    pub(super) const NONE: Self = Self {
        ends: [0; LINES_MAX],
        starts: [0; LINES_MAX],
        tokens: [0; LINES_MAX],
        hashes: [0; LINES_MAX],
        open: 0,
        with_rare: 0,
        rares: [Rare::NONE; LINES_MAX],
    };

    /// Notes the end of line `at`. `rare` is what has come together since the line before.
    #[inline(always)]
    pub(super) fn note(&mut self, at: usize, end: usize, is_open: bool, rare: &mut Rare) {
        self.ends[at % LINES_MAX] = end as u32;
        self.open |= u64::from(is_open) << at;
        if rare.is_any {
            self.with_rare |= 1 << at;
            self.rares[at % LINES_MAX] = std::mem::replace(rare, Rare::NONE);
        }
    }
}

/// The first lines of `input`, not looked at. Returns the bytes up to the end of the last one.
#[inline(never)]
pub(super) fn unscanned_lines<'i>(input: &'i [u8], lines: &mut Lines<'i>) -> usize {
    let mut start = 0;
    while lines.count < LINES_MAX
        && let Some(bytes) = memchr::memchr(b'\n', &input[start..])
    {
        let (from, to) = trimmed(input, start, start + bytes);
        if from < to {
            *lines.push() = Scan::unscanned(&input[from..to]);
        }
        start += bytes + 1;
    }
    start
}

/// The scan of whole lines, or of elements from the brace of the first on, at most as many as there is room for. Returns the
/// bytes of the input up to the end of the last.
pub(super) struct LinesPass<'s, 'i, 'l, const OF: u8> {
    pub(super) scanner: &'s mut Scanner,
    pub(super) input: &'i [u8],
    pub(super) lines: &'l mut Lines<'i>,
    /// Lines to be scanned at most.
    pub(super) limit: usize,
}

impl<'i, const OF: u8> Work for LinesPass<'_, 'i, '_, OF> {
    type Output = usize;

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> usize {
        let Self { scanner, input, lines, limit } = self;
        let limit = limit.min(LINES_MAX);
        let (progress, ended) = if OF == LINES {
            simd.run(Ends { scanner, input, limit })
        } else {
            simd.run(ElementEnds { scanner, input, limit })
        };
        scanner.counts.scanned_bytes += progress.at.min(input.len()) as u64;
        let Some(last) = ended.checked_sub(1) else { return 0 };
        scanner.conclude_lines::<S, OF>(simd, input, (ended, progress.scalars), lines);
        scanner.memory.lines.ends[last] as usize + 1
    }
}

/// Finds the ends of lines, and their tokens. Returns how far it came, and how many lines ended. Elements have a loop of
/// their own ([`ElementEnds`]): one loop for both took 2 % more instructions for lines, by registers saved and restored.
struct Ends<'s, 'i> {
    scanner: &'s mut Scanner,
    input: &'i [u8],
    limit: usize,
}

impl Work for Ends<'_, '_> {
    type Output = (Progress, usize);

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> Self::Output {
        let Self { scanner, input, limit } = self;
        let mut progress = Progress::START;
        let mut ended = 0;
        (scanner.memory.lines.open, scanner.memory.lines.with_rare) = (0, 0);
        let (blocks, rest) = input[..input.len().min(PLACES_MAX * BLOCK_BYTES)].as_chunks::<BLOCK_BYTES>();
        for bytes in blocks {
            let block = simd.load(bytes);
            let plain = simd.plain(block);
            let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
            // Of rare bytes only a line feed is a separator. One in a string ends it, and the next line is outside again:
            // seen to apart, as all rare ones but those that end lines are.
            let mut feeds = plain.rare;
            if feeds & (inside | !plain.separator) | progress.escape == 0 {
                let memory = &mut *scanner.memory;
                let found = plain.structural & !inside | plain.quote & inside;
                progress.take(simd, memory, block, !(inside | plain.separator), found);
                while feeds != 0 && ended < limit {
                    let end = progress.at + feeds.trailing_zeros() as usize;
                    memory.lines.note(ended, end, false, &mut scanner.rare);
                    ended += 1;
                    feeds &= feeds - 1;
                }
                progress.in_string = (inside as i64 >> 63) as u64;
                progress.at += BLOCK_BYTES;
            } else {
                ended = progress.take_rare_of_lines(simd, scanner, (block, u64::MAX), (ended, limit));
            }
            if ended == limit {
                return (progress, ended);
            }
        }
        if !rest.is_empty() {
            let block = (simd.load_front(rest), (1 << rest.len()) - 1);
            ended = progress.take_rare_of_lines(simd, scanner, block, (ended, limit));
        }
        (progress, ended)
    }
}

impl Progress {
    /// Takes a block of lines, rare bytes among them. Of `ended` lines the ends are noted; returns of how many then, at
    /// most `limit`.
    #[inline(always)]
    fn take_rare_of_lines<S: Simd>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        (block, within): (S::Block, u64),
        (ended, limit): (usize, usize),
    ) -> usize {
        let masks = simd.masks(block);
        let feeds = masks.line_feed & within;
        // That a line feed may be escaped does not matter: a line that ends in a backslash is no event.
        let mut strings = self.strings(simd, &mut scanner.rare, block, &masks, within);
        if feeds & strings.inside != 0 {
            strings.inside = inside_of_lines(simd, strings.quotes, self.in_string, feeds);
        }
        let ended = self.take_rare_with_ends(
            simd,
            scanner,
            block,
            (&masks, &strings),
            (feeds, within & !feeds),
            (ended, limit),
        );
        // A line feed ends a string even as the last byte of a block.
        self.in_string = ((strings.inside & !feeds) as i64 >> 63) as u64;
        self.at += BLOCK_BYTES;
        ended
    }

    /// Takes the bytes of a block that are `within` lines or elements, of which some have their `ends` in it, and notes these.
    #[inline(always)]
    pub(super) fn take_rare_with_ends<S: Simd>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        (masks, strings): (&Masks, &Strings),
        (ends, within): (u64, u64),
        (mut ended, limit): (usize, usize),
    ) -> usize {
        let inside = strings.inside;
        let in_strings = (strings.quotes | masks.control) & inside;
        let found = (masks.structural & !inside | in_strings) & within;
        self.take(simd, &mut scanner.memory, block, !(inside | masks.separator) & within, found);
        let (mut before, mut left) = (0, ends);
        loop {
            let below = if left == 0 { u64::MAX } else { left ^ (left - 1) };
            let valid = below & !before & within;
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
                return ended;
            }
            let is_open = inside & left & left.wrapping_neg() != 0;
            let end = self.at + left.trailing_zeros() as usize;
            scanner.memory.lines.note(ended, end, is_open, &mut scanner.rare);
            ended += 1;
            if ended == limit {
                return ended;
            }
            before = below;
            left &= left - 1;
        }
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

impl Scanner {
    /// What is known of the first `count` lines of `input`, which have ended. `scalars` were noted in them and behind.
    #[inline(always)]
    fn conclude_lines<'i, S: Simd, const OF: u8>(
        &mut self,
        simd: S,
        input: &'i [u8],
        (count, scalars): (usize, usize),
        lines: &mut Lines<'i>,
    ) {
        let count = count.min(LINES_MAX);
        let is_steady = self.is_steady;
        self.count_tokens::<S, OF>(simd, count, is_steady);
        let mut changes = 0;
        let doubtful = self.lines_with_bad_scalars(simd, input, (count, scalars)) | self.memory.lines.open;
        let (mut start, mut first_token) = (0, 0);
        for line in 0..count {
            let LineEnds { ends, starts, tokens, hashes, with_rare, .. } = &self.memory.lines;
            let (end, tokens, hash) = (ends[line] as usize, tokens[line] as usize, hashes[line]);
            let has_rare = with_rare >> line & 1 == 1;
            let (from, to) = if OF == LINES { trimmed(input, start, end) } else { (starts[line] as usize, end + 1) };
            start = end + 1;
            if from == to {
                continue;
            }
            let scan = lines.push();
            self.begin_scan(scan, input, (from, to));
            if doubtful >> line & 1 == 0 {
                let is_change = self.look_up(simd, (first_token, tokens), (is_steady, hash), scan);
                changes += usize::from(is_change);
            }
            first_token = tokens;
            if has_rare {
                self.memory.lines.rares[line].judge(input, scan);
            }
        }
        self.is_steady = changes * CHANGES_PART_MAX <= count;
        let proven = lines.as_slice().iter().map(|scan| usize::from(scan.is_proven())).sum();
        self.credit.settle(proven, lines.count - proven);
    }

    /// Looks up the shape of a line with the tokens `first..end`. Whether it is not that of the line before. The hash is
    /// known but in a steady stream.
    #[inline(always)]
    fn look_up<S: Simd>(
        &mut self,
        simd: S,
        (first, end): (usize, usize),
        (is_steady, hash): (bool, u32),
        scan: &mut Scan<'_>,
    ) -> bool {
        let tokens = &self.memory.tokens[first..];
        if is_steady && let Some(slot) = self.shapes.last_if_equal(simd, tokens, end - first) {
            self.counts.known_shapes += 1;
            scan.prove_by(slot);
            return false;
        }
        let hash = if is_steady { simd.hash(tokens, end - first) } else { hash };
        let before = self.shapes.last();
        self.prove(simd, (first, end), hash, scan);
        self.shapes.last() != before
    }

    /// Counts the tokens of the first `count` lines, and hashes them but in a steady stream. One line's hash does not wait
    /// for another's, nor for what is done with it afterwards.
    #[inline(always)]
    fn count_tokens<S: Simd, const OF: u8>(&mut self, simd: S, count: usize, is_steady: bool) {
        let Memory { tokens, places, lines, .. } = &mut *self.memory;
        let mut first = 0;
        for line in 0..count {
            let end = lines.ends[line] as usize;
            let Places { tokens: of_block, before } = places[end / BLOCK_BYTES % PLACES_MAX];
            let here = (of_block & ((1 << (end % BLOCK_BYTES)) - 1)).count_ones() as usize;
            // A brace that ends an element is one of its tokens.
            let next = before as usize + here + usize::from(OF == ELEMENTS);
            lines.tokens[line] = next as u32;
            if !is_steady {
                lines.hashes[line] = simd.hash(&tokens[first..], next - first);
            }
            first = next;
        }
    }

    /// The lines, one bit each, in which something begins at one of the first `scalars` noted places that is no number or
    /// literal.
    #[inline(always)]
    fn lines_with_bad_scalars<S: Simd>(&self, simd: S, input: &[u8], (count, scalars): (usize, usize)) -> u64 {
        let (mut bad, mut line) = (0, 0);
        for at in &self.memory.scalars[..scalars] {
            if is_scalar(simd, input, *at as usize) {
                continue;
            }
            let ends = &self.memory.lines.ends[line..count];
            line += ends.iter().position(|end| end > at).unwrap_or(ends.len());
            if line == count {
                break;
            }
            bad |= 1 << line;
        }
        bad
    }
}
