//! The validator: a scan that proves most events at memory speed, and behind it a parser for the rest. Shard thread.

use super::credit::Credit;
use super::fields::Event;
use super::lines::Lines;
use super::parser::Parser;
use super::scan::{Counts, Scan, Scanner, Until};
use super::simd::Level;
use super::{DEPTH_MAX, JsonError, JsonErrorKind};

/// Checks events one after the other. Allocates until its buffers have seen the longest usual event, then no more.
pub struct Validator {
    scanner: Scanner,
    parser: Parser,
    /// What a string means whose text has escapes, for [`Event::string_field`].
    unescaped: Vec<u8>,
    /// A value as the member of an object, for [`Validator::validate_value`].
    wrapped: Vec<u8>,
}

impl Validator {
    /// A validator that allows `depth_max` objects and arrays inside each other, the event itself included, in the way that
    /// is fastest on this CPU: [`Level::best`].
    ///
    /// # Panics
    /// If `depth_max` is over [`DEPTH_MAX`].
    #[must_use]
    pub fn new(depth_max: usize) -> Self {
        Self::with_level(depth_max, Level::best())
    }

    /// The same in a way of choice, for tests and measurements.
    ///
    /// # Panics
    /// If `depth_max` is over [`DEPTH_MAX`].
    #[must_use]
    pub fn with_level(depth_max: usize, level: Level) -> Self {
        assert!(depth_max <= DEPTH_MAX, "json_depth_max is {depth_max}; at most {DEPTH_MAX} can be followed");
        Self {
            scanner: Scanner::new(level, depth_max),
            parser: Parser::new(depth_max),
            unescaped: Vec::new(),
            wrapped: Vec::new(),
        }
    }

    /// The same, but it looks at every event before it parses one, however many of those before were not valid. For tests:
    /// else a stream of faults would soon test the parser only.
    #[must_use]
    pub fn never_resting(mut self) -> Self {
        if self.level() != Level::parser() {
            self.scanner.credit = Credit::ENDLESS;
        }
        self
    }

    /// Accepts `event` if it is one JSON object in UTF-8, with or without white space around it, nested no deeper than
    /// the limit. The bytes are not changed.
    ///
    /// # Errors
    /// [`JsonError`] with the first fault found and, where known, its offset in `event`.
    #[inline]
    pub fn validate<'a>(&'a mut self, event: &'a [u8]) -> Result<Event<'a>, JsonError> {
        let scan = self.scan_whole(event);
        self.judge(scan)
    }

    /// Looks at `event`, which is all there is.
    #[inline]
    pub fn scan_whole<'i>(&mut self, event: &'i [u8]) -> Scan<'i> {
        self.scan(event, Until::End).expect("the end of the input is in it")
    }

    /// Finds the end of the event that `input` begins with and looks at all of it on the way; `None` if its end has not
    /// come yet. [`Validator::judge`] tells what was seen.
    #[inline]
    pub fn scan<'i>(&mut self, input: &'i [u8], until: Until) -> Option<Scan<'i>> {
        self.scanner.scan(input, until)
    }

    /// Does the same with the lines that `input` begins with, one event each, some dozens at once: until `lines` is full,
    /// or no more of them end in `input`, or, where many before were not valid, after some. Blank lines are left out. Returns the bytes of `input` up to after the line
    /// feed of the last one; 0 if there is none.
    ///
    /// ```
    /// use tidegate::json::{Lines, Validator};
    /// let mut validator = Validator::new(128);
    /// let body = b"{\"a\":1}\n{\"b\":}\n\n{\"c\"";
    /// let mut lines = Lines::new();
    /// let bytes = validator.scan_lines(body, &mut lines);
    /// let verdicts: Vec<bool> = lines.as_slice().iter().map(|scan| validator.judge(*scan).is_ok()).collect();
    /// assert_eq!((verdicts, &body[bytes..]), (vec![true, false], &b"{\"c\""[..]));
    /// ```
    #[inline]
    pub fn scan_lines<'i>(&mut self, input: &'i [u8], lines: &mut Lines<'i>) -> usize {
        self.scanner.scan_lines(input, lines)
    }

    /// Does the same with elements of an array: `input` begins with the brace of one. It stops where anything else follows an
    /// element than a comma and another object. Returns the bytes of `input` up to after the brace that ends the last one; 0 if
    /// none ends in it.
    ///
    /// ```
    /// use tidegate::json::{Lines, Validator};
    /// let mut validator = Validator::new(128);
    /// let body = b"[{\"a\":1}, {\"b\":},{\"c\":2},3]";
    /// let mut elements = Lines::new();
    /// let bytes = validator.scan_elements(&body[1..], &mut elements);
    /// let verdicts: Vec<bool> = elements.as_slice().iter().map(|scan| validator.judge(*scan).is_ok()).collect();
    /// assert_eq!((verdicts, &body[1 + bytes..]), (vec![true, false, true], &b",3]"[..]));
    /// ```
    #[inline]
    pub fn scan_elements<'i>(&mut self, input: &'i [u8], elements: &mut Lines<'i>) -> usize {
        self.scanner.scan_elements(input, elements)
    }

    /// The verdict on an event that this validator has scanned.
    ///
    /// # Errors
    /// [`JsonError`] with the first fault found and, where known, its offset in the event.
    // Inlined with the event it returns: handed back through memory, it is read again before the wide stores it was
    // written with have arrived, 20 ns for each event.
    #[inline(always)]
    pub fn judge<'a>(&'a mut self, scan: Scan<'a>) -> Result<Event<'a>, JsonError> {
        if !scan.is_proven() {
            self.parse(&scan)?;
        }
        let Self { scanner, unescaped, .. } = self;
        Ok(Event { scan, scanner, unescaped })
    }

    /// The parser's verdict on what a scan has not proven.
    #[inline(never)]
    fn parse(&mut self, scan: &Scan<'_>) -> Result<(), JsonError> {
        let Self { scanner, parser, .. } = self;
        scanner.counts.parsed += 1;
        scanner.counts.unscanned += u64::from(!scan.is_scanned());
        parser.parse(scan.text())?;
        if !scan.is_scanned() {
            scanner.credit.earn();
        }
        Ok(())
    }

    /// Accepts `value` if it is one JSON value of any kind in UTF-8, nested at most one level less than the limit.
    ///
    /// The value is checked as the one member of an object: what makes that object valid makes the value valid, unless it
    /// brings members of its own, which the parser counts. For bodies that are no events: nothing here is fast.
    ///
    /// # Errors
    /// [`JsonError`] with the first fault found.
    pub fn validate_value(&mut self, value: &[u8]) -> Result<(), JsonError> {
        const BEFORE: &[u8] = b"{\"\":";
        self.wrapped.clear();
        self.wrapped.extend_from_slice(BEFORE);
        self.wrapped.extend_from_slice(value);
        self.wrapped.push(b'}');
        match self.parser.parse(&self.wrapped) {
            Ok(1) => Ok(()),
            Ok(_) => Err(JsonError { kind: JsonErrorKind::TrailingData, offset: None }),
            Err(error) => {
                let offset = error.offset.map(|offset| offset.saturating_sub(BEFORE.len() as u32));
                Err(JsonError { offset, ..error })
            }
        }
    }

    /// How it validates.
    #[must_use]
    pub fn level(&self) -> Level {
        self.scanner.level()
    }

    /// How events were judged so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.scanner.counts
    }
}

#[cfg(test)]
#[path = "validator_tests.rs"]
mod tests;
