//! Why an event is not valid: small, `Copy`, formatted only when an answer lists it.

use std::fmt;

use simd_json::ErrorType;

/// What is wrong with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// Its first byte is not `{`: a number, string, array, or nothing at all.
    NotAnObject,
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// More objects and arrays inside each other than the limit allows.
    TooDeep,
    /// Something follows the object.
    TrailingData,
    /// A number that RFC 8259 §6 does not allow, such as `01`, `.5` or `+1`.
    BadNumber,
    /// An escape that RFC 8259 §7 does not allow, or a surrogate without its other half.
    BadEscape,
    /// A misspelt `true`, `false` or `null`.
    BadLiteral,
    /// A string without an end, or a raw control character in one.
    BadString,
    /// Anything else: a missing colon, comma, key, value or bracket.
    BadStructure,
}

/// Why an event was refused, and where if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Bytes before the fault, counted from the start of the event; `None` where the parser does not tell.
    pub offset: Option<u32>,
}

impl JsonError {
    pub(super) fn at(kind: JsonErrorKind, offset: usize) -> Self {
        Self { kind, offset: u32::try_from(offset).ok() }
    }

    /// The fault in words, without its place. Stable: clients may match on it.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        match self.kind {
            JsonErrorKind::NotAnObject => "an event must be a JSON object",
            JsonErrorKind::NotUtf8 => "not valid UTF-8",
            JsonErrorKind::TooDeep => "nested deeper than the server's limit",
            JsonErrorKind::TrailingData => "something follows the object",
            JsonErrorKind::BadNumber => "malformed number",
            JsonErrorKind::BadEscape => "malformed escape or unpaired surrogate in a string",
            JsonErrorKind::BadLiteral => "expected true, false or null",
            JsonErrorKind::BadString => "unterminated string or raw control character in one",
            JsonErrorKind::BadStructure => "missing or unexpected bracket, comma, colon, key or value",
        }
    }

    pub(super) fn from_parser(error: &simd_json::Error) -> Self {
        let kind = match error.error() {
            ErrorType::InvalidUtf8 => JsonErrorKind::NotUtf8,
            ErrorType::DepthLimitExceeded => JsonErrorKind::TooDeep,
            ErrorType::TrailingData => JsonErrorKind::TrailingData,
            ErrorType::InvalidNumber | ErrorType::InvalidExponent | ErrorType::Overflow => JsonErrorKind::BadNumber,
            ErrorType::InvalidEscape | ErrorType::InvalidUnicodeEscape | ErrorType::InvalidUnicodeCodepoint => {
                JsonErrorKind::BadEscape
            }
            ErrorType::ExpectedTrue | ErrorType::ExpectedFalse | ErrorType::ExpectedNull => JsonErrorKind::BadLiteral,
            // The first pass, which knows no places, says Syntax only for these two.
            ErrorType::Syntax if error.character().is_none() => JsonErrorKind::BadString,
            _ => JsonErrorKind::BadStructure,
        };
        // A fault in an escape comes with an offset into its string on some CPUs and into the event on others.
        let known = error.character().is_some() && kind != JsonErrorKind::BadEscape;
        Self { kind, offset: known.then(|| u32::try_from(error.index()).ok()).flatten() }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self.offset {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JsonError {}
