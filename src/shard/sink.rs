//! What the splitter works with: the shape it is told, the sink it fills, the carry it borrows, and what it refuses.
//! Shard thread; pure.

use std::fmt;

use super::code::ErrorCode;
use super::request::{Content, Route};
use crate::json::{Scan, Validator};

/// How events stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyShape {
    /// NDJSON: one event a line; blank lines are nothing.
    Lines,
    /// One object, or an array of objects.
    Json,
    /// The same, or an envelope: an object with a member `events` that is an array. Its other members are ignored, but
    /// must be valid JSON.
    Batch,
}

impl BodyShape {
    /// The shape of the bodies of a route; `None` if it takes no events or no such content.
    #[must_use]
    pub fn of(route: Route, content: Content) -> Option<Self> {
        match (route, content) {
            (Route::Events | Route::EventsBatch, Content::Ndjson) => Some(Self::Lines),
            (Route::Events, Content::Json) => Some(Self::Json),
            (Route::EventsBatch, Content::Json) => Some(Self::Batch),
            _ => None,
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The sink is done with it, valid or not.
    Taken,
    /// The sink cannot take it now, and will be given it again.
    NoRoom,
}

/// What stands where an event should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventError {
    /// An event longer than `event_bytes_max`.
    TooLong,
    /// The body is neither an object nor an array.
    NotJson,
    /// An element of an array that is no object.
    NotAnObject,
    /// Nothing between two commas, or between a comma and a bracket.
    EmptyElement,
    /// An element that does not follow a comma.
    MissingComma,
    /// Something after the end of the object or array.
    TrailingData,
    /// The body ends within an event, array or envelope.
    Truncated,
    /// An envelope whose members after `events` are not valid JSON.
    BrokenEnvelope,
    /// The event with which an atomic batch outgrows one chunk.
    BatchTooLong,
    /// An envelope with a second array of `events`.
    SecondEvents,
}

impl EventError {
    /// The code it is listed with.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::TooLong | Self::BatchTooLong => ErrorCode::PayloadTooLarge,
            _ => ErrorCode::InvalidJson,
        }
    }

    /// The fault in words. Stable: clients may match on it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooLong => "the event is longer than the server's limit",
            Self::NotJson => "the body must be a JSON object or an array of objects",
            Self::NotAnObject => "an event must be a JSON object",
            Self::EmptyElement => "an element of the array is missing",
            Self::MissingComma => "missing comma between elements of the array",
            Self::TrailingData => "something follows the end of the JSON",
            Self::Truncated => "the body ends before its JSON does",
            Self::BrokenEnvelope => "what follows the events in the envelope is not valid JSON",
            Self::BatchTooLong => {
                "an atomic batch must fit one chunk of 1 MiB: split it, or send it without atomic=true"
            }
            Self::SecondEvents => "the envelope has a second array of events; the first was taken",
        }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Who takes the events.
pub trait EventSink {
    /// Where events end is seen by the validator, which looks at them on the way.
    fn validator(&mut self) -> &mut Validator;
    /// Takes the first of `events`, which the validator has looked at, as many as it can without further ado: all, some or
    /// none. Returns how many; the next one is for [`EventSink::event`].
    #[inline]
    fn events(&mut self, _events: &[Scan<'_>]) -> u32 {
        0
    }
    /// Takes one event, without the white space around it. If the validator has looked at it, `scan` is what it saw.
    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed;
    /// Notes that something that is no event stands where one should.
    fn refuse(&mut self, error: EventError);
}

/// A [`Carry`] that can hold no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarryFull;

/// Keeps the front of an event until its end arrives. Needs to hold `event_bytes_max` bytes at most.
pub trait Carry {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`CarryFull`], with nothing appended.
    fn extend(&mut self, bytes: &[u8]) -> Result<(), CarryFull>;
    /// All bytes since the last [`Carry::clear`].
    fn as_slice(&self) -> &[u8];
    /// Empties it.
    fn clear(&mut self);
}

/// A carry without a bound of its own, for bodies that are all at hand.
impl Carry for Vec<u8> {
    fn extend(&mut self, bytes: &[u8]) -> Result<(), CarryFull> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn as_slice(&self) -> &[u8] {
        self
    }

    fn clear(&mut self) {
        self.truncate(0);
    }
}
