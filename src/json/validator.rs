//! The validator: a scan that proves most events at memory speed, and behind it a parser for the rest. Shard thread.

use super::fields::Event;
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
    /// A validator that allows `depth_max` objects and arrays inside each other, the event itself included, on the
    /// fastest instructions this CPU has.
    ///
    /// # Panics
    /// If `depth_max` is over [`DEPTH_MAX`].
    #[must_use]
    pub fn new(depth_max: usize) -> Self {
        Self::with_level(depth_max, Level::best())
    }

    /// The same on instructions of a choice, for tests and measurements.
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

    /// Accepts `event` if it is one JSON object in UTF-8, with or without white space around it, nested no deeper than
    /// the limit. The bytes are not changed.
    ///
    /// # Errors
    /// [`JsonError`] with the first fault found and, where known, its offset in `event`.
    #[inline]
    pub fn validate<'a>(&'a mut self, event: &'a [u8]) -> Result<Event<'a>, JsonError> {
        let scan = self.scan(event, Until::End).expect("the end of the input is in it");
        self.judge(event, scan)
    }

    /// Finds the end of the first event of `input` and looks at all of it on the way; `None` if its end has not come yet.
    /// [`Validator::judge`] tells what was seen. Between the two the bytes must stay as and where they are.
    ///
    /// ```
    /// use tidegate::json::{Until, Validator};
    /// let mut validator = Validator::new(128);
    /// let body = b"{\"a\":1}\n{\"b\":}\n{\"c\"";
    /// let mut rest = &body[..];
    /// let mut verdicts = Vec::new();
    /// while let Some(scan) = validator.scan(rest, Until::LineFeed) {
    ///     let (event, after) = rest.split_at(scan.bytes);
    ///     verdicts.push(validator.judge(event, scan).is_ok());
    ///     rest = &after[1..];
    /// }
    /// assert_eq!((verdicts, rest), (vec![true, false], &b"{\"c\""[..]));
    /// ```
    #[inline]
    pub fn scan(&mut self, input: &[u8], until: Until) -> Option<Scan> {
        self.scanner.scan(input, until)
    }

    /// The verdict on an event that was scanned: `event` is what was scanned, or that without white space behind it.
    ///
    /// # Errors
    /// [`JsonError`] with the first fault found and, where known, its offset in `event`.
    ///
    /// # Panics
    /// If another scan came in between, or `event` is not where it was scanned.
    #[inline]
    pub fn judge<'a>(&'a mut self, event: &'a [u8], scan: Scan) -> Result<Event<'a>, JsonError> {
        let Self { scanner, parser, unescaped, .. } = self;
        if !scanner.is_proven(event, scan) {
            scanner.counts.parsed += 1;
            parser.parse(event)?;
            return Ok(Event { text: event, may_have_line_ends: true, places: None, unescaped });
        }
        let may_have_line_ends = scanner.has_controls();
        Ok(Event { text: event, may_have_line_ends, places: scanner.places(), unescaped })
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

    /// The instructions in use.
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
