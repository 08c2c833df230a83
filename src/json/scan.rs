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

use super::escapes;
use super::grammar::Grammar;
use super::pass::{BRACE, END, LINE_FEED, PLACES_MAX, Pass, Progress, Rare, SCALARS_MAX};
use super::scalars::is_scalar;
use super::shapes::{KeyList, Shapes, Slot};
use super::simd::{BLOCK_BYTES, Level, Portable, Simd, TOKENS_MAX, TOKENS_ROOM, Tokens};
use super::utf8;

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
    number: u64,
}

/// What is known of the event last scanned.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// That of the scan, and of no other in five hundred years.
    number: u64,
    /// Address of its first byte.
    address: usize,
    bytes: usize,
    /// It is a valid object. If not, the parser is to be asked.
    is_proven: bool,
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

/// What a pass fills.
pub(super) struct Memory {
    /// Tokens since the start or the last spill.
    pub(super) tokens: Tokens,
    /// Where numbers and literals lie that are left to be looked at.
    pub(super) scalars: [u32; SCALARS_MAX],
    /// One word per block, a bit for each token.
    pub(super) places: [u64; PLACES_MAX],
}

/// What is kept from one scan to the next, and while one goes on.
pub(super) struct Scanner {
    level: Level,
    pub(super) memory: Box<Memory>,
    pub(super) rare: Rare,
    grammar: Grammar,
    shapes: Shapes,
    known: Known,
    pub(super) counts: Counts,
}

impl Scanner {
    pub(super) fn new(level: Level, depth_max: usize) -> Self {
        Self {
            level,
            memory: Box::new(Memory { tokens: [0; TOKENS_ROOM], scalars: [0; SCALARS_MAX], places: [0; PLACES_MAX] }),
            rare: Rare::NONE,
            grammar: Grammar::new(depth_max),
            shapes: Shapes::new(),
            known: Known { number: 0, address: 0, bytes: 0, is_proven: false, slot: None },
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
        self.known.number += 1;
        if self.rare.is_any {
            self.rare = Rare::NONE;
        }
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
        self.rare.controls != 0
    }

    /// Keys of the outermost object of the event last scanned, and a word per 64 of its bytes with a bit for each token;
    /// `None` if they are not known, or there are escapes, which keys could be written with.
    #[inline]
    pub(super) fn places(&self) -> Option<(&[u16], &[u64])> {
        let known = &self.known;
        if self.rare.has_escapes || known.bytes > PLACES_MAX * BLOCK_BYTES {
            return None;
        }
        Some((self.shapes.keys_of(known.slot?)?, &self.memory.places[..known.bytes.div_ceil(BLOCK_BYTES)]))
    }

    /// Walks what tokens and scalars there are when there is no room for more.
    #[cold]
    #[inline(never)]
    pub(super) fn spill(&mut self, input: &[u8], tokens: usize, scalars: usize) {
        if !self.rare.is_spilled {
            self.grammar.restart();
        }
        (self.rare.is_any, self.rare.is_spilled) = (true, true);
        let are_scalars = self.are_scalars(Portable, input, scalars);
        if !are_scalars || !self.grammar.feed(&self.memory.tokens[..tokens], |_| ()) {
            self.rare.faults = u64::MAX;
        }
    }

    /// Notes what is known of the event. `input` begins with it, and may go on.
    #[inline(always)]
    pub(super) fn conclude<S: Simd>(
        &mut self,
        simd: S,
        event: &[u8],
        input: &[u8],
        progress: &Progress<S::Waiting>,
        is_open: bool,
    ) {
        simd.store(progress.waiting, progress.tokens, &mut self.memory.tokens);
        self.known.address = event.as_ptr() as usize;
        self.known.bytes = event.len();
        self.known.slot = None;
        self.known.is_proven = !is_open
            && self.are_scalars(simd, input, progress.scalars)
            && self.is_object(simd, progress.tokens)
            && (!self.rare.is_any || self.are_rare_bytes_valid(event));
    }

    /// Whether what begins at the first `count` noted places is a number or literal each.
    #[inline(always)]
    fn are_scalars<S: Simd>(&self, simd: S, input: &[u8], count: usize) -> bool {
        // A loop and no closure: see `simd/avx2.rs`.
        for at in &self.memory.scalars[..count] {
            if !is_scalar(simd, input, *at as usize) {
                return false;
            }
        }
        true
    }

    /// Whether the tokens are those of one object.
    #[inline(always)]
    fn is_object<S: Simd>(&mut self, simd: S, tokens: usize) -> bool {
        if self.rare.is_spilled {
            return self.is_object_at_last(tokens);
        }
        let hash = simd.hash(&self.memory.tokens, tokens);
        self.known.slot = self.shapes.find(simd, &self.memory.tokens, tokens, hash);
        if self.known.slot.is_some() {
            self.counts.known_shapes += 1;
            return true;
        }
        self.walk(tokens, hash)
    }

    /// Walks over the last tokens of an event that had too many.
    #[cold]
    #[inline(never)]
    fn is_object_at_last(&mut self, tokens: usize) -> bool {
        self.counts.walked += 1;
        self.grammar.feed(&self.memory.tokens[..tokens], |_| ()) && self.grammar.is_complete()
    }

    /// Walks over an unknown shape, and remembers it if it is an object's.
    #[cold]
    #[inline(never)]
    fn walk(&mut self, tokens: usize, hash: u32) -> bool {
        self.counts.walked += 1;
        let tokens = &self.memory.tokens[..tokens];
        let mut keys = KeyList::new();
        self.grammar.restart();
        let is_object = self.grammar.feed(tokens, |at| keys.push(at)) && self.grammar.is_complete();
        // A shape may be one token too long to be remembered, and not spilled yet.
        if is_object && tokens.len() <= TOKENS_MAX {
            self.known.slot = Some(self.shapes.insert(tokens, hash, &keys));
        }
        is_object
    }

    /// Whether what rare bytes there were could stand where they do.
    #[inline(never)]
    fn are_rare_bytes_valid(&self, event: &[u8]) -> bool {
        let Rare { faults, unicode, first_high, end_high, .. } = self.rare;
        faults == 0
            && (end_high == 0 || utf8::is_valid(&event[first_high..end_high]))
            && (unicode == 0 || escapes::unicode_is_valid(event))
    }
}
