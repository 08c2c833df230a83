//! Members of a valid object, found where they lie. Shard thread; pure.
//!
//! Two ways to the same answer. If the event's shape is known, so is which of its tokens are keys of the outermost object:
//! the places of tokens are bits of words, and only the keys are looked at. Otherwise the text is walked from its
//! brace. Of several members of one name the first counts, both ways.

use std::fmt;

use super::pass::Places;
use super::scan::{Scan, Scanner};
use super::{escapes, is_white_space};

/// A valid event.
pub struct Event<'a> {
    pub(super) scan: Scan<'a>,
    pub(super) scanner: &'a Scanner,
    /// What a string means whose text has escapes.
    pub(super) unescaped: &'a mut Vec<u8>,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("scan", &self.scan).finish_non_exhaustive()
    }
}

impl<'a> Event<'a> {
    /// Its text.
    #[inline]
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.scan.text()
    }

    /// Whether there may be a CR or LF in its text, as white space. If not, there is none.
    #[inline]
    #[must_use]
    pub fn may_have_line_ends(&self) -> bool {
        self.scan.may_have_line_ends()
    }

    /// The text of a top-level member's value; `None` if there is none of that name. Of several the first counts.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let text = self.text();
        let value = match self.scanner.places(&self.scan) {
            Some((keys, tokens)) => field_by_token(text, keys, tokens, name.as_bytes()),
            None => Members::of(text).find(|(key, _)| is_key(key, name)).map(|(_, value)| value),
        }?;
        text.get(value..end_of_value(text, value))
    }

    /// The unescaped value of a top-level member; `None` if there is none of that name or its value is no string. Of
    /// several members of one name the first counts.
    #[must_use]
    pub fn string_field(&mut self, name: &str) -> Option<&str> {
        let content = self.field(name)?.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let content = if content.contains(&b'\\') {
            self.unescaped.clear();
            escapes::unescape(content, self.unescaped);
            self.unescaped.as_slice()
        } else {
            content
        };
        std::str::from_utf8(content).ok()
    }
}

/// Where the value of the first key `name` begins.
fn field_by_token(text: &[u8], keys: &[u16], mut tokens: Tokens<'_>, name: &[u8]) -> Option<usize> {
    for key in keys {
        let quote = tokens.place_of(usize::from(*key))?;
        let content = text.get(quote + 1..)?;
        if content.starts_with(name) && content.get(name.len()) == Some(&b'"') {
            // The colon is the next token, and the value's first the one after.
            return tokens.place_of(usize::from(*key) + 2);
        }
    }
    None
}

/// Finds the places of ascending tokens of an event.
pub(super) struct Tokens<'a> {
    /// Those of this event and others beside it.
    places: &'a [Places],
    /// The event's first byte.
    start: usize,
    word: usize,
    /// Tokens of the event in words before this one.
    before: usize,
}

impl<'a> Tokens<'a> {
    /// Of the event that begins at byte `start` of what `places` are of.
    pub(super) fn new(places: &'a [Places], start: usize) -> Self {
        Self { places, start, word: start / 64, before: 0 }
    }

    /// Where a token of the event lies in it.
    fn place_of(&mut self, token: usize) -> Option<usize> {
        loop {
            let mut bits = self.places.get(self.word)?.tokens;
            if self.word == self.start / 64 {
                bits &= u64::MAX << (self.start % 64);
            }
            let count = bits.count_ones() as usize;
            if token < self.before + count {
                for _ in self.before..token {
                    bits &= bits - 1;
                }
                return Some(self.word * 64 + bits.trailing_zeros() as usize - self.start);
            }
            self.before += count;
            self.word += 1;
        }
    }
}

/// Whether the inside of a key's quotes stands for `name`.
fn is_key(key: &[u8], name: &str) -> bool {
    if !key.contains(&b'\\') {
        return key == name.as_bytes();
    }
    escapes::stands_for(key, name)
}

/// Walks over the members of a valid object: the inside of each key's quotes, and where its value begins.
struct Members<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    fn of(text: &'a [u8]) -> Self {
        let brace = text.iter().position(|byte| *byte == b'{').unwrap_or(text.len());
        Self { text, at: brace + 1 }
    }

    /// The next byte that is neither white space nor `separator`.
    fn skip(&mut self, separator: u8) -> Option<u8> {
        let rest = self.text.get(self.at..)?;
        let bytes = rest.iter().position(|byte| !is_white_space(*byte) && *byte != separator)?;
        self.at += bytes;
        Some(rest[bytes])
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], usize);

    fn next(&mut self) -> Option<Self::Item> {
        if self.skip(b',')? != b'"' {
            return None;
        }
        let key_end = end_of_value(self.text, self.at);
        let key = self.text.get(self.at + 1..key_end - 1)?;
        self.at = key_end;
        self.skip(b':')?;
        let value = self.at;
        self.at = end_of_value(self.text, value);
        Some((key, value))
    }
}

/// Index after the value that begins at `at` in a valid text.
fn end_of_value(text: &[u8], at: usize) -> usize {
    let mut at = at;
    let mut depth = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = end_of_string(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => {
                let rest = &text[at..];
                let ends = |byte: &u8| is_white_space(*byte) || matches!(byte, b',' | b'}' | b']');
                return at + rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Index after the string that begins at `start` in a valid text.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}
