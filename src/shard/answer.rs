//! Answers: complete HTTP/1.1 responses into a caller's buffer. Shard thread; pure.
//!
//! Constant pieces are copied and numbers written behind each other; nothing is formatted, nothing allocated. A buffer
//! that is too short is [`Overflow`], with nothing promised about its contents; the `*_bytes_max` functions tell how
//! much is always enough. Every answer is valid JSON whatever clients put into it.

use super::code::ErrorCode;
use super::response::{self, Out, respond};
pub use super::response::{DATE_BYTES, Extra, Frame, Overflow, Persistence, imf_fixdate};
use super::sink::EventError;
use crate::base::{AckLevel, Position};
use crate::json::JsonError;

/// Sent when a client waits for leave to send its body (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What follows the echoed body.
pub const ECHO_SUFFIX: &[u8] = b",\"message\":\"Echo successful\"}";

const ECHO_PREFIX: &[u8] = b"{\"echo\":";

/// Refused events listed in one answer; the rest is counted in `errors_omitted`.
pub const REFUSALS_LISTED_MAX: usize = 100;

/// Why one event of a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not valid JSON.
    Json(JsonError),
    /// The splitter found something else in its place.
    Event(EventError),
}

impl Reason {
    /// The code it is listed with.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Json(_) => ErrorCode::InvalidJson,
            Self::Event(error) => error.code(),
        }
    }
}

/// One refused event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its index in the request, 0-based.
    pub index: u32,
    /// What is wrong with it.
    pub reason: Reason,
}

/// The refused events of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals<'a> {
    /// The first of them; [`REFUSALS_LISTED_MAX`] are listed, whatever more there is here.
    pub first: &'a [Refusal],
    /// All of them.
    pub total: u32,
}

/// Whether the request was one event or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent<'a> {
    /// A body that was one object: the answer names it, by its own `event_id` if it has one.
    Single {
        /// The event's own id, unescaped.
        event_id: Option<&'a str>,
    },
    /// An array, envelope or NDJSON.
    Batch,
}

/// A request whose events are as safe as its ack level says.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Events stored.
    pub accepted: u32,
    /// Events refused.
    pub refusals: Refusals<'a>,
    /// Position of the first event stored. The batch's name is made of it and of `accepted`.
    pub position: Position,
    /// How safe they are.
    pub ack: AckLevel,
    /// One event or several.
    pub extent: Extent<'a>,
}

/// A request refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Status and code.
    pub code: ErrorCode,
    /// What is wrong and how to fix it.
    pub message: &'a str,
    /// The events that were the reason; none for most errors.
    pub refusals: Refusals<'a>,
    /// Headers that go with it.
    pub extra: Extra,
}

/// Bytes that [`accepted`] needs at most, for so many listed refusals and so long an id.
#[must_use]
pub const fn accepted_bytes_max(refusals: usize, event_id_bytes: usize) -> usize {
    FIXED_BYTES_MAX + refusals * REFUSAL_BYTES_MAX + event_id_bytes * ESCAPED_BYTES_MAX
}

/// Bytes that [`refused`] needs at most, for so many listed refusals and so long a message.
#[must_use]
pub const fn refused_bytes_max(refusals: usize, message_bytes: usize) -> usize {
    FIXED_BYTES_MAX + refusals * REFUSAL_BYTES_MAX + message_bytes * ESCAPED_BYTES_MAX
}

/// Headers, fixed keys and numbers of an answer, with room to spare.
const FIXED_BYTES_MAX: usize = 1024;
/// `{"index":4294967295,"code":"…","message":"… at byte 4294967295"},` with the longest code and message.
const REFUSAL_BYTES_MAX: usize = 192;
/// `\u001f`.
const ESCAPED_BYTES_MAX: usize = 6;

/// The 202: writes it to the front of `buffer` and returns its bytes.
///
/// # Errors
/// [`Overflow`]; [`accepted_bytes_max`] bytes are always enough.
pub fn accepted(buffer: &mut [u8], frame: &Frame<'_>, answer: &Accepted<'_>) -> Result<usize, Overflow> {
    respond(buffer, frame, 202, Extra::None, |out| {
        out.put(b"{\"success\":true,\"message\":\"");
        match (answer.extent, answer.accepted) {
            (Extent::Single { .. }, _) => out.put(b"Event accepted"),
            (Extent::Batch, 1) => out.put(b"1 event accepted"),
            (Extent::Batch, events) => {
                out.number(events);
                out.put(b" events accepted");
            }
        }
        if answer.refusals.total > 0 {
            out.put(b", ");
            out.number(answer.refusals.total);
            out.put(b" rejected");
        }
        out.put(b"\",\"data\":{\"accepted\":");
        out.number(answer.accepted);
        out.put(b",\"rejected\":");
        out.number(answer.refusals.total);
        out.put(b",\"events_count\":");
        out.number(answer.accepted);
        // The position names one place in the log, so no other batch that was stored can begin with it. A request's id would
        // not do: clients choose those and may repeat them.
        out.put(b",\"batch_id\":\"");
        out.position(answer.position);
        out.put(b"+");
        out.number(answer.accepted);
        out.put(b"\",\"position\":\"");
        out.position(answer.position);
        out.put(b"\",\"ack\":\"");
        out.put(answer.ack.name().as_bytes());
        match answer.extent {
            Extent::Batch => out.put(b"\""),
            Extent::Single { event_id } => {
                out.put(b"\",\"event_id\":\"");
                match event_id {
                    Some(event_id) => out.escaped(event_id),
                    None => out.position(answer.position),
                }
                out.put(b"\"");
            }
        }
        if answer.refusals.total > 0 {
            out.put(b",");
            put_refusals(out, &answer.refusals);
        }
        out.put(b"},\"timestamp\":");
        out.number(frame.unix_ms);
        out.put(b",\"request_id\":\"");
        out.put(frame.request_id.as_bytes());
        out.put(b"\"}");
    })
}

/// An error: writes it to the front of `buffer` and returns its bytes.
///
/// # Errors
/// [`Overflow`]; [`refused_bytes_max`] bytes are always enough.
pub fn refused(buffer: &mut [u8], frame: &Frame<'_>, answer: &Refused<'_>) -> Result<usize, Overflow> {
    respond(buffer, frame, answer.code.status(), answer.extra, |out| {
        out.put(b"{\"success\":false,\"error\":\"");
        out.put(answer.code.error().as_bytes());
        out.put(b"\",\"code\":\"");
        out.put(answer.code.name().as_bytes());
        out.put(b"\",\"message\":\"");
        out.escaped(answer.message);
        out.put(b"\"");
        if answer.refusals.total > 0 {
            out.put(b",\"data\":{");
            put_refusals(out, &answer.refusals);
            out.put(b"}");
        }
        out.put(b",\"request_id\":\"");
        out.put(frame.request_id.as_bytes());
        out.put(b"\"}");
    })
}

/// `GET /health`: 200 as long as somebody is there to write it.
///
/// # Errors
/// [`Overflow`].
pub fn health(buffer: &mut [u8], frame: &Frame<'_>) -> Result<usize, Overflow> {
    respond(buffer, frame, 200, Extra::None, |out| {
        out.put(b"{\"status\":\"healthy\",\"service\":\"tidegate\",\"timestamp\":");
        out.number(frame.unix_ms);
        out.put(b"}");
    })
}

/// `GET /ready`: 200 or 503 with a body that is JSON already.
///
/// # Errors
/// [`Overflow`].
pub fn ready(buffer: &mut [u8], frame: &Frame<'_>, ready: bool, body: &[u8]) -> Result<usize, Overflow> {
    respond(buffer, frame, if ready { 200 } else { 503 }, Extra::None, |out| out.put(body))
}

/// 200 with a body that is JSON already.
///
/// # Errors
/// [`Overflow`].
pub fn json_body(buffer: &mut [u8], frame: &Frame<'_>, body: &[u8]) -> Result<usize, Overflow> {
    respond(buffer, frame, 200, Extra::None, |out| out.put(body))
}

/// The front of an echo: head and prefix, for a body of `body_bytes` bytes. The caller sends the body and
/// [`ECHO_SUFFIX`] after it.
///
/// # Errors
/// [`Overflow`].
pub fn echo_front(buffer: &mut [u8], frame: &Frame<'_>, body_bytes: usize) -> Result<usize, Overflow> {
    let body_bytes = ECHO_PREFIX.len() + body_bytes + ECHO_SUFFIX.len();
    response::front(buffer, frame, body_bytes, ECHO_PREFIX)
}

/// `"errors":[…],"errors_omitted":N`.
fn put_refusals(out: &mut Out<'_>, refusals: &Refusals<'_>) {
    let listed = &refusals.first[..refusals.first.len().min(REFUSALS_LISTED_MAX)];
    out.put(b"\"errors\":[");
    for (at, refusal) in listed.iter().enumerate() {
        out.put(if at == 0 { b"{\"index\":" } else { b",{\"index\":" });
        out.number(refusal.index);
        out.put(b",\"code\":\"");
        out.put(refusal.reason.code().name().as_bytes());
        out.put(b"\",\"message\":\"");
        match refusal.reason {
            Reason::Event(error) => out.escaped(error.text()),
            Reason::Json(error) => {
                out.escaped(error.text());
                if let Some(offset) = error.offset {
                    out.put(b" at byte ");
                    out.number(offset);
                }
            }
        }
        out.put(b"\"}");
    }
    out.put(b"],\"errors_omitted\":");
    out.number(u64::from(refusals.total).saturating_sub(listed.len() as u64));
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
