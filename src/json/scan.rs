//! One pass over an event's bytes: where it ends, and whether it is a JSON object. Shard thread; pure.
//!
//! Sixty-four bytes become one word per class of byte ([`super::simd`]); quotes that are not escaped, by a running XOR,
//! tell what lies inside strings. What lies outside becomes tokens: structural characters, strings by their opening
//! quote, and the first byte of each run of other bytes. Their string is the event's *shape*. If the shape was seen in
//! an event before, the grammar holds; else the grammar is walked and the shape remembered. What is left is looked at
//! in place: numbers and literals, control characters and escapes in strings, UTF-8.
//!
//! `docs/JSON.md` says why that is all there is to a JSON object.
//!
//! A scan that does not prove an event says nothing against it: the caller asks the parser.

use std::num::NonZeroU64;

use super::grammar::Grammar;
use super::scalars::is_scalar;
use super::shapes::{KeyList, SHAPE_TOKENS_MAX, Shapes, Slot, hash_of};
use super::simd::{BLOCK_BYTES, Level, Masks, Plain, Simd, Work};
use super::{escapes, utf8};

/// Blocks whose tokens' places are kept for finding fields: events of 16 KiB.
const PLACES_MAX: usize = 256;
// Indices into these arrays are cut to their range by a mask, which is cheaper than to see that they are in it.
const _: () = assert!(SHAPE_TOKENS_MAX.is_power_of_two() && PLACES_MAX.is_power_of_two());

/// Where an event ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Before the first line feed, whatever the line looks like. The input begins with the line.
    LineFeed,
    /// After the brace that closes the one the input begins with.
    Brace,
    /// At the end of the input.
    End,
}

/// What [`super::Validator::scan`] found: where an event ends, and by its number what is known of it. Two words, so that
/// it travels in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bytes from the start of the input to the event's end. A line feed that ends it is not counted.
    pub bytes: usize,
    number: NonZeroU64,
}

/// What is known of the event last scanned.
#[derive(Clone, Copy, Debug)]
struct Known {
    number: NonZeroU64,
    /// Address of its first byte.
    address: usize,
    bytes: usize,
    /// It is a valid object. If not, the parser is to be asked.
    is_proven: bool,
    /// There is a backslash in it.
    has_escapes: bool,
    /// There is a control character in it.
    has_controls: bool,
    /// Its shape, if that is remembered.
    slot: Option<Slot>,
}

/// How events were judged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By a remembered shape.
    pub known_shapes: u64,
    /// By a walk over the grammar: shapes that were new, forgotten, or too long to remember.
    pub walked: u64,
    /// By the parser: events that are not valid, as far as is known.
    pub parsed: u64,
}

/// What is kept from one scan to the next, and while one goes on.
pub(super) struct Scanner {
    level: Level,
    /// Tokens since the start or the last spill, with room for one more block of them.
    tokens: Box<[u8; SHAPE_TOKENS_MAX + BLOCK_BYTES]>,
    /// Where those of them lie that begin a number or literal.
    scalars: Box<[u32; SHAPE_TOKENS_MAX + BLOCK_BYTES]>,
    /// One word per block, a bit for each token.
    places: Box<[u64; PLACES_MAX]>,
    grammar: Grammar,
    shapes: Shapes,
    known: Known,
    pub(super) counts: Counts,
}

impl Scanner {
    pub(super) fn new(level: Level, depth_max: usize) -> Self {
        Self {
            level,
            tokens: Box::new([0; SHAPE_TOKENS_MAX + BLOCK_BYTES]),
            scalars: Box::new([0; SHAPE_TOKENS_MAX + BLOCK_BYTES]),
            places: Box::new([0; PLACES_MAX]),
            grammar: Grammar::new(depth_max),
            shapes: Shapes::new(),
            known: Known {
                number: NonZeroU64::MIN,
                address: 0,
                bytes: 0,
                is_proven: false,
                has_escapes: false,
                has_controls: false,
                slot: None,
            },
            counts: Counts::default(),
        }
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The first event of `input`; `None` if its end is not in it.
    #[inline]
    pub(super) fn scan(&mut self, input: &[u8], until: Until) -> Option<Scan> {
        // What was known is known no more, even if nothing comes of this.
        self.known.number = self.known.number.checked_add(1).expect("five hundred years of scans");
        let level = self.level;
        let bytes = match until {
            Until::LineFeed => level.run(Pass::<LINE_FEED> { scanner: self, input }),
            Until::Brace => level.run(Pass::<BRACE> { scanner: self, input }),
            Until::End => level.run(Pass::<END> { scanner: self, input }),
        }?;
        Some(Scan { bytes, number: self.known.number })
    }

    /// Whether `scan` was the last one and proved `event`, which is what it scanned or that without white space behind.
    ///
    /// # Panics
    /// If another scan came in between, or `event` is not where it was scanned.
    #[inline]
    pub(super) fn is_proven(&self, event: &[u8], scan: Scan) -> bool {
        let known = &self.known;
        let is_last = scan.number == known.number;
        let is_there = event.as_ptr() as usize == known.address && event.len() <= known.bytes;
        assert!(is_last && is_there, "a verdict is on the bytes that were scanned last");
        known.is_proven
    }

    /// Whether a control character was seen in the event last scanned or behind it: in a valid one a line end or tab.
    #[inline]
    pub(super) fn has_controls(&self) -> bool {
        self.known.has_controls
    }

    /// Keys of the outermost object of the event last scanned, and a word per 64 of its bytes with a bit for each token;
    /// `None` if they are not known, or there are escapes, which keys could be written with.
    #[inline]
    pub(super) fn places(&self) -> Option<(&[u16], &[u64])> {
        let known = &self.known;
        if known.has_escapes || known.bytes > PLACES_MAX * BLOCK_BYTES {
            return None;
        }
        Some((self.shapes.keys_of(known.slot?)?, &self.places[..known.bytes.div_ceil(BLOCK_BYTES)]))
    }
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

/// Where an object ends: braces open, counted from block to block.
#[derive(Clone, Copy, Default)]
struct Braces {
    depth: u32,
}

impl Braces {
    /// Bits up to and with the brace that closes the object, if it is in this block.
    #[inline(always)]
    fn close(&mut self, open: u64, mut close: u64) -> Option<u64> {
        if close.count_ones() < self.depth {
            self.depth = self.depth + open.count_ones() - close.count_ones();
            return None;
        }
        // The end may lie here: after each closing brace, what was opened before it and not closed by others before it.
        let mut closed = 0;
        while close != 0 {
            let below = close ^ (close - 1);
            closed += 1;
            if self.depth + (open & below).count_ones() <= closed {
                return Some(below);
            }
            close &= close - 1;
        }
        self.depth = self.depth + open.count_ones() - closed;
        None
    }
}

const LINE_FEED: u8 = 0;
const BRACE: u8 = 1;
const END: u8 = 2;

/// One scan, to be compiled for each instruction set and each kind of end.
struct Pass<'s, 'i, const UNTIL: u8> {
    scanner: &'s mut Scanner,
    input: &'i [u8],
}

/// Where a pass is, and what it has added up.
struct Progress {
    /// Index of the block's first byte.
    at: usize,
    /// Tokens and scalars noted since the start or the last spill.
    tokens: usize,
    scalars: usize,
    /// All ones if the last byte was in a string.
    in_string: u64,
    /// 1 if the last byte was a backslash that escapes the next.
    escape: u64,
    /// 1 if the last byte belonged to a number or literal.
    run: u64,
    /// Letters that cannot follow a backslash; spilled tokens that cannot stand where they do.
    faults: u64,
    controls: u64,
    /// The letter of a `\u`.
    unicode: u64,
    has_escapes: bool,
    /// First byte above ASCII, and the one after the last.
    first_high: usize,
    end_high: usize,
    is_spilled: bool,
}

/// What lies in strings of one block.
#[derive(Clone, Copy)]
struct Strings {
    /// Quotes that are not escaped.
    quotes: u64,
    /// Bytes from an opening quote up to before the closing one.
    inside: u64,
    bad_escapes: u64,
}

impl Progress {
    #[inline(always)]
    fn strings<S: Simd>(&mut self, simd: S, block: S::Block, masks: &Masks) -> Strings {
        let (mut quotes, mut bad_escapes) = (masks.quote, 0);
        if masks.backslash | self.escape != 0 {
            let escaped = escaped_by(masks.backslash, &mut self.escape);
            let (letters, unicode) = simd.escapes(block);
            bad_escapes = escaped & !letters;
            quotes &= !escaped;
            self.unicode |= escaped & unicode;
            self.has_escapes = true;
        }
        Strings { quotes, inside: simd.prefix_xor(quotes) ^ self.in_string, bad_escapes }
    }

    /// Takes the bytes of a block that are in `valid`: all, but for an event's last block.
    #[inline(always)]
    fn take<S: Simd>(
        &mut self,
        simd: S,
        scanner: &mut Scanner,
        block: S::Block,
        masks: &Masks,
        strings: Strings,
        valid: u64,
    ) {
        let others = !(strings.inside | masks.separator) & valid;
        let starts = others & !(others << 1 | self.run);
        self.run = others >> 63;
        // A control character in a string is made a token, which is one of no object.
        let in_strings = (strings.quotes | masks.control) & strings.inside;
        let found = (masks.structural & !strings.inside | in_strings) & valid | starts;
        self.controls |= masks.control & valid;
        self.faults |= strings.bad_escapes & valid;
        if masks.high & valid != 0 {
            let high = masks.high & valid;
            self.first_high = self.first_high.min(self.at + high.trailing_zeros() as usize);
            self.end_high = self.at + BLOCK_BYTES - high.leading_zeros() as usize;
        }
        self.note(simd, scanner, block, found, starts);
    }

    /// The same for a whole block without backslashes, control characters and bytes above ASCII: most blocks.
    #[inline(always)]
    fn take_plain<S: Simd>(&mut self, simd: S, scanner: &mut Scanner, block: S::Block, plain: &Plain, inside: u64) {
        let others = !(inside | plain.separator);
        let starts = others & !(others << 1 | self.run);
        self.run = others >> 63;
        let found = plain.structural & !inside | plain.quote & inside | starts;
        self.note(simd, scanner, block, found, starts);
    }

    /// Notes the tokens `found` in a block, and where those in `starts` lie.
    #[inline(always)]
    fn note<S: Simd>(&mut self, simd: S, scanner: &mut Scanner, block: S::Block, found: u64, mut starts: u64) {
        let tokens = &mut scanner.tokens[self.tokens % SHAPE_TOKENS_MAX..];
        simd.gather(block, found, tokens.first_chunk_mut().expect("room for one more block"));
        self.tokens += found.count_ones() as usize;
        scanner.places[self.at / BLOCK_BYTES % PLACES_MAX] = found;
        let scalars = &mut scanner.scalars[self.scalars % SHAPE_TOKENS_MAX..];
        let scalars: &mut [u32; BLOCK_BYTES] = scalars.first_chunk_mut().expect("room for one more block");
        self.scalars += starts.count_ones() as usize;
        // Two without a branch, since most blocks have no more.
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
}

impl<const UNTIL: u8> Work for Pass<'_, '_, UNTIL> {
    type Output = Option<usize>;

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> Option<usize> {
        let Self { scanner, input } = self;
        let mut progress = Progress {
            at: 0,
            tokens: 0,
            scalars: 0,
            in_string: 0,
            escape: 0,
            run: 0,
            faults: 0,
            controls: 0,
            unicode: 0,
            has_escapes: false,
            first_high: usize::MAX,
            end_high: 0,
            is_spilled: false,
        };
        let mut braces = Braces::default();
        loop {
            let rest = &input[progress.at..];
            let (block, within) = match rest.first_chunk::<BLOCK_BYTES>() {
                Some(bytes) => {
                    let block = simd.load(bytes);
                    if UNTIL != BRACE
                        && progress.escape == 0
                        && let Some(plain) = simd.plain(block)
                    {
                        let inside = simd.prefix_xor(plain.quote) ^ progress.in_string;
                        progress.take_plain(simd, scanner, block, &plain, inside);
                        progress.in_string = (inside as i64 >> 63) as u64;
                        progress.at += BLOCK_BYTES;
                        if progress.tokens >= SHAPE_TOKENS_MAX {
                            progress = scanner.spill(input, progress);
                        }
                        continue;
                    }
                    (block, u64::MAX)
                }
                None => (simd.load_front(rest), (1 << rest.len()) - 1),
            };
            let masks = simd.masks(block);
            let strings = progress.strings(simd, block, &masks);
            // The event's bytes of this block, if they are its last.
            let last = match UNTIL {
                LINE_FEED => {
                    let line_feeds = masks.line_feed;
                    (line_feeds != 0).then(|| (line_feeds ^ (line_feeds - 1)) >> 1)
                }
                BRACE => {
                    let (open, close) = simd.braces(block);
                    braces.close(open & !strings.inside, close & !strings.inside)
                }
                _ => (within != u64::MAX).then_some(within),
            };
            if let Some(valid) = last {
                progress.take(simd, scanner, block, &masks, strings, valid);
                // Zeros behind the end are no quotes, so counting is all that is needed.
                let is_open = (progress.in_string ^ u64::from((strings.quotes & valid).count_ones())) & 1 == 1;
                let bytes = progress.at + valid.trailing_ones() as usize;
                scanner.conclude(simd, &input[..bytes], input, &progress, is_open);
                return Some(bytes);
            }
            if within != u64::MAX {
                return None;
            }
            progress.take(simd, scanner, block, &masks, strings, u64::MAX);
            progress.in_string = (strings.inside as i64 >> 63) as u64;
            progress.at += BLOCK_BYTES;
            if progress.tokens >= SHAPE_TOKENS_MAX {
                progress = scanner.spill(input, progress);
            }
        }
    }
}

impl Scanner {
    /// Walks what tokens and scalars there are when there is no room for more. Takes and returns the progress whole: by
    /// reference, the loop would keep it in memory.
    #[cold]
    #[inline(never)]
    fn spill(&mut self, input: &[u8], mut progress: Progress) -> Progress {
        if !progress.is_spilled {
            self.grammar.restart();
            progress.is_spilled = true;
        }
        let are_scalars = self.scalars[..progress.scalars].iter().all(|at| is_scalar(input, *at as usize));
        if !are_scalars || !self.grammar.feed(&self.tokens[..progress.tokens], |_| ()) {
            progress.faults = u64::MAX;
        }
        (progress.tokens, progress.scalars) = (0, 0);
        progress
    }

    /// Notes what is known of the event. `input` begins with it, and may go on.
    #[inline(always)]
    fn conclude<S: Simd>(&mut self, simd: S, event: &[u8], input: &[u8], progress: &Progress, is_open: bool) {
        self.known.address = event.as_ptr() as usize;
        self.known.bytes = event.len();
        self.known.has_escapes = progress.has_escapes;
        self.known.has_controls = progress.controls != 0;
        self.known.slot = None;
        self.known.is_proven = progress.faults == 0
            && !is_open
            && self.scalars[..progress.scalars].iter().all(|at| is_scalar(input, *at as usize))
            && self.is_object(simd, progress)
            && (progress.end_high == 0 || utf8::is_valid(&event[progress.first_high..progress.end_high]))
            && (progress.unicode == 0 || escapes::unicode_is_valid(event));
    }

    /// Whether the tokens are those of one object.
    #[inline(always)]
    fn is_object<S: Simd>(&mut self, simd: S, progress: &Progress) -> bool {
        if progress.is_spilled {
            self.counts.walked += 1;
            return self.grammar.feed(&self.tokens[..progress.tokens], |_| ()) && self.grammar.is_complete();
        }
        let tokens = &self.tokens[..progress.tokens];
        let hash = hash_of(tokens);
        self.known.slot = self.shapes.find(simd, tokens, hash);
        if self.known.slot.is_some() {
            self.counts.known_shapes += 1;
            return true;
        }
        self.walk(progress.tokens, hash)
    }

    /// Walks over an unknown shape, and remembers it if it is an object's.
    #[cold]
    #[inline(never)]
    fn walk(&mut self, tokens: usize, hash: u32) -> bool {
        self.counts.walked += 1;
        let tokens = &self.tokens[..tokens];
        let mut keys = KeyList::new();
        self.grammar.restart();
        let is_object = self.grammar.feed(tokens, |at| keys.push(at)) && self.grammar.is_complete();
        // A shape may be one token too long to be remembered, and not spilled yet.
        if is_object && tokens.len() <= SHAPE_TOKENS_MAX {
            self.known.slot = Some(self.shapes.insert(tokens, hash, &keys));
        }
        is_object
    }
}
