//! What is known of an event after one pass over its bytes: where it ends, and whether it is a JSON object. Shard
//! thread; pure.
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

use super::credit::Credit;
use super::escapes;
use super::fields::Tokens as TokenPlaces;
use super::grammar::Grammar;
use super::lines::{ELEMENTS, LINES, LINES_MAX, LineEnds, Lines, LinesPass, unscanned_lines};
use super::pass::{BRACE, END, EventPass, PLACES_MAX, Places, Progress, Rare, trimmed};
use super::scalars::is_scalar;
use super::shapes::{KeyList, SHAPE_TOKENS_MAX, Shapes, Slot};
use super::simd::{BLOCK_BYTES, Level, Portable, Simd, TOKENS_MAX, TOKENS_ROOM, Tokens};
use super::utf8;

/// Where an event ends. For lines there is [`super::Validator::scan_lines`], for elements of an array
/// [`super::Validator::scan_elements`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After the brace that closes the one the input begins with.
    Brace,
    /// At the end of the input.
    End,
}

/// An event that was scanned, and what is known of it. Its bytes are borrowed as long as that is of use.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'i> {
    text: &'i [u8],
    /// That of the call that scanned it.
    number: u64,
    /// Index of its first byte in the input of that call.
    start: usize,
    /// Its shape, if that is remembered.
    slot: Option<Slot>,
    /// It is a valid object. If not, the parser is to be asked.
    is_proven: bool,
    /// It was looked at. If not, nothing is known of it but where it is.
    is_scanned: bool,
    has_escapes: bool,
    has_controls: bool,
}

impl<'i> Scan<'i> {
    /// Of no event.
    pub(super) const NOTHING: Self = Self {
        text: &[],
        number: 0,
        start: 0,
        slot: None,
        is_proven: false,
        is_scanned: false,
        has_escapes: false,
        has_controls: false,
    };

    /// Of an event that was not looked at.
    pub(super) fn unscanned(text: &'i [u8]) -> Self {
        Self { text, ..Self::NOTHING }
    }

    /// The event: of a line, without white space around it.
    #[inline]
    #[must_use]
    pub fn text(&self) -> &'i [u8] {
        self.text
    }

    /// Its shape is known.
    #[inline(always)]
    pub(super) fn prove_by(&mut self, slot: Slot) {
        (self.slot, self.is_proven) = (Some(slot), true);
    }

    #[inline]
    pub(super) fn is_scanned(&self) -> bool {
        self.is_scanned
    }

    /// Whether it was seen to be a valid object. If so, [`super::Validator::judge`] accepts it without asking the parser.
    #[inline]
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Whether there may be a CR or LF in it, as white space. If not, there is none.
    #[inline]
    #[must_use]
    pub fn may_have_line_ends(&self) -> bool {
        // Of what was not proven here nothing is known.
        self.has_controls || !self.is_proven
    }
}

/// How events were judged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By a remembered shape.
    pub known_shapes: u64,
    /// By a walk over the grammar: shapes that were new, forgotten, or too long to remember.
    pub walked: u64,
    /// By the parser: events that are not valid, as far as is known, and those of the next line.
    pub parsed: u64,
    /// By the parser without having been looked at, since most of those before were not valid, or as
    /// [`Level::parser`] has it.
    pub unscanned: u64,
    /// Bytes that were looked at, some of them twice: those of a line whose end has not come yet.
    pub scanned_bytes: u64,
}

/// Where tokens lie that begin a number or literal: every other byte at most, since something is between two.
pub(super) type Scalars = [u32; TOKENS_MAX / 2 + BLOCK_BYTES];

/// What a pass fills.
pub(super) struct Memory {
    /// Tokens since the start or the last spill.
    pub(super) tokens: Tokens,
    /// Where those of them lie that begin a number or literal.
    pub(super) scalars: Scalars,
    /// One for each block.
    pub(super) places: [Places; PLACES_MAX],
    /// Lines that have ended.
    pub(super) lines: LineEnds,
}

/// What is kept from one scan to the next, and while one goes on.
pub(super) struct Scanner {
    level: Level,
    pub(super) memory: Box<Memory>,
    pub(super) rare: Rare,
    grammar: Grammar,
    pub(super) shapes: Shapes,
    /// Most lines of the last call were of the shape of the line before.
    pub(super) is_steady: bool,
    /// Calls so far: what was found out of places is of one call.
    number: u64,
    pub(super) credit: Credit,
    pub(super) counts: Counts,
}

impl Scanner {
    pub(super) fn new(level: Level, depth_max: usize) -> Self {
        Self {
            level,
            memory: Box::new(Memory {
                tokens: [0; TOKENS_ROOM],
                scalars: [0; TOKENS_MAX / 2 + BLOCK_BYTES],
                places: [Places::NONE; PLACES_MAX],
                lines: LineEnds::NONE,
            }),
            rare: Rare::NONE,
            grammar: Grammar::new(depth_max),
            shapes: Shapes::new(),
            is_steady: false,
            number: 0,
            credit: if level == Level::parser() { Credit::NONE } else { Credit::NEW },
            counts: Counts::default(),
        }
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The first event of `input`; `None` if its end is not in it.
    #[inline]
    pub(super) fn scan<'i>(&mut self, input: &'i [u8], until: Until) -> Option<Scan<'i>> {
        if until == Until::End && self.credit.events() == 0 {
            return Some(Scan::unscanned(input));
        }
        self.begin();
        let level = self.level;
        let scan = match until {
            Until::Brace => level.run(EventPass::<BRACE> { scanner: self, input }),
            Until::End => level.run(EventPass::<END> { scanner: self, input }),
        };
        self.counts.scanned_bytes += scan.map_or(input.len(), |scan| scan.text.len()) as u64;
        if let Some(scan) = &scan {
            self.credit.settle(usize::from(scan.is_proven), usize::from(!scan.is_proven));
        }
        scan
    }

    /// The first lines of `input`. Returns the bytes up to the end of the last one scanned.
    #[inline]
    pub(super) fn scan_lines<'i>(&mut self, input: &'i [u8], lines: &mut Lines<'i>) -> usize {
        self.begin();
        lines.clear();
        let limit = self.credit.events().min(LINES_MAX);
        if limit == 0 {
            return unscanned_lines(input, lines);
        }
        let bytes = self.level.run(LinesPass::<LINES> { scanner: self, input, lines, limit });
        if bytes > 0 || input.len() < PLACES_MAX * BLOCK_BYTES {
            return bytes;
        }
        // The first line may be too long to be kept; then it is scanned alone.
        let Some(end) = memchr::memchr(b'\n', input) else { return 0 };
        let (from, to) = trimmed(input, 0, end);
        if from < to {
            *lines.push() = self.scan(&input[from..to], Until::End).expect("the end of the input is in it");
        }
        end + 1
    }

    /// The first elements of an array, of which `input` begins with one's brace. Returns the bytes up to the end of the last
    /// one scanned.
    #[inline]
    pub(super) fn scan_elements<'i>(&mut self, input: &'i [u8], elements: &mut Lines<'i>) -> usize {
        self.begin();
        elements.clear();
        let level = self.level;
        let limit = LINES_MAX;
        let bytes = level.run(LinesPass::<ELEMENTS> { scanner: self, input, lines: elements, limit });
        if bytes > 0 || input.len() < PLACES_MAX * BLOCK_BYTES {
            return bytes;
        }
        // The first may be too long to be kept; then it is scanned alone.
        let Some(scan) = self.scan(input, Until::Brace) else { return 0 };
        *elements.push() = scan;
        scan.text.len()
    }

    #[inline]
    fn begin(&mut self) {
        self.number += 1;
        // A scan that met no end has left something.
        self.rare = Rare::NONE;
    }

    /// Keys of the outermost object, and the tokens of the event; `None` if they are not known any more, or there are
    /// escapes, which keys could be written with.
    pub(super) fn places<'s>(&'s self, scan: &Scan<'_>) -> Option<(&'s [u16], TokenPlaces<'s>)> {
        let end = scan.start + scan.text.len();
        if !scan.is_proven || scan.has_escapes || scan.number != self.number || end > PLACES_MAX * BLOCK_BYTES {
            return None;
        }
        Some((self.shapes.keys_of(scan.slot?)?, TokenPlaces::new(&self.memory.places, scan.start)))
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

    /// What is known of the event at `start..end` of `input`, after a pass over it alone.
    #[inline(always)]
    pub(super) fn conclude<'i, S: Simd>(
        &mut self,
        simd: S,
        input: &'i [u8],
        end: usize,
        progress: &Progress,
        is_open: bool,
    ) -> Scan<'i> {
        let mut scan = Scan::NOTHING;
        self.begin_scan(&mut scan, input, (0, end));
        let are_scalars = !is_open && self.are_scalars(simd, input, progress.scalars);
        let rare = self.rare;
        if rare.is_spilled {
            scan.is_proven = are_scalars && self.is_object_at_last(progress.tokens);
        } else if are_scalars {
            let hash = simd.hash(&self.memory.tokens, progress.tokens);
            self.prove(simd, (0, progress.tokens), hash, &mut scan);
        }
        if rare.is_any {
            rare.judge(input, &mut scan);
        }
        scan
    }

    /// Writes down what a scan begins with, each field in its place: what is written in pieces elsewhere and copied here
    /// as a whole would wait for the pieces to reach the cache.
    #[inline(always)]
    pub(super) fn begin_scan<'i>(&self, scan: &mut Scan<'i>, input: &'i [u8], (start, end): (usize, usize)) {
        scan.text = &input[start..end];
        scan.number = self.number;
        scan.start = start;
        scan.slot = None;
        (scan.is_proven, scan.is_scanned, scan.has_escapes, scan.has_controls) = (false, true, false, false);
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

    /// Notes whether the tokens `first..end`, whose hash is known, are those of one object, and its shape.
    #[inline(always)]
    pub(super) fn prove<S: Simd>(&mut self, simd: S, (first, end): (usize, usize), hash: u32, scan: &mut Scan<'_>) {
        if first == end {
            return;
        }
        scan.slot = self.shapes.find(simd, &self.memory.tokens[first..], end - first, hash);
        if scan.slot.is_some() {
            self.counts.known_shapes += 1;
            scan.is_proven = true;
        } else {
            (scan.is_proven, scan.slot) = self.walk((first, end), hash);
        }
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
    fn walk(&mut self, (first, end): (usize, usize), hash: u32) -> (bool, Option<Slot>) {
        self.counts.walked += 1;
        let tokens = &self.memory.tokens[first..end];
        let mut keys = KeyList::new();
        self.grammar.restart();
        let is_object = self.grammar.feed(tokens, |at| keys.push(at)) && self.grammar.is_complete();
        // A shape may be one token too long to be remembered, and not spilled yet.
        let is_kept = is_object && tokens.len() <= SHAPE_TOKENS_MAX;
        (is_object, if is_kept { Some(self.shapes.insert(tokens, hash, &keys)) } else { None })
    }
}

impl Rare {
    /// Whether rare bytes could stand where they do in an event.
    #[inline(never)]
    pub(super) fn judge(&self, input: &[u8], scan: &mut Scan<'_>) {
        let Self { faults, unicode, first_high, end_high, .. } = *self;
        scan.has_escapes = self.has_escapes;
        scan.has_controls = self.controls != 0;
        scan.is_proven = scan.is_proven
            && faults == 0
            && (end_high == 0 || utf8::is_valid(&input[first_high..end_high]))
            && (unicode == 0 || escapes::unicode_is_valid(scan.text));
    }
}
