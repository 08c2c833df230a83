//! Answers: complete HTTP/1.1 responses into a caller's buffer. Shard thread; pure.
//!
//! Constant pieces are copied and numbers written behind each other; nothing is formatted, nothing allocated. A buffer
//! that is too short is [`Overflow`], with nothing promised about its contents; the `*_bytes_max` functions tell how
//! much is always enough. Every answer is valid JSON whatever clients put into it.

use super::code::ErrorCode;
use super::request::{Request, RequestId};
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

/// Bytes of a `Date` header's value.
pub const DATE_BYTES: usize = 29;

/// The buffer is too short for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// What the answer says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: HTTP/1.1 stays open.
    Kept,
    /// `Connection: keep-alive`, which HTTP/1.0 clients wait for.
    KeptHttp10,
    /// `Connection: close`.
    Closed,
}

impl Persistence {
    /// What `request` asked for.
    #[must_use]
    pub const fn of(request: &Request) -> Self {
        match (request.keep_alive, request.http10) {
            (false, _) => Self::Closed,
            (true, true) => Self::KeptHttp10,
            (true, false) => Self::Kept,
        }
    }
}

/// What every answer carries.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Sent as `X-Request-ID` and in the body.
    pub request_id: &'a RequestId,
    /// The `Date` header's value, from [`imf_fixdate`].
    pub date: &'a [u8; DATE_BYTES],
    /// Now, Unix time in milliseconds.
    pub unix_ms: u64,
    /// Whether the connection stays open.
    pub persistence: Persistence,
    /// The answer to a `HEAD`: without its body.
    pub is_head: bool,
}

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

/// Headers that go with some errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// None. (`WWW-Authenticate` comes with 401 by itself.)
    #[default]
    None,
    /// `Allow`, for 405.
    Allow(&'static str),
    /// `Retry-After`, in seconds, for 503.
    RetryAfter(u32),
    /// `Retry-After` and `X-RateLimit-*`, for 429.
    RateLimit {
        /// Events per second allowed.
        limit: u64,
        /// Events left now.
        remaining: u64,
        /// Seconds until all are allowed again.
        reset_s: u32,
        /// Seconds to wait.
        retry_after_s: u32,
    },
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
        // The position names one event of the log for ever, so no other batch can begin with it. A request's id would
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
            out.refusals(&answer.refusals);
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
            out.refusals(&answer.refusals);
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
    let mut out = Out { buffer, at: 0, overflowed: false };
    out.head(frame, 200, Extra::None);
    out.number(ECHO_PREFIX.len() + body_bytes + ECHO_SUFFIX.len());
    out.put(b"\r\n\r\n");
    out.put(ECHO_PREFIX);
    out.finish()
}

/// Unix time as HTTP writes dates (RFC 9110 §5.6.7), as in `Sun, 06 Nov 1994 08:49:37 GMT`. Years beyond 9999 show their
/// last four digits.
#[must_use]
pub fn imf_fixdate(unix_seconds: u64) -> [u8; DATE_BYTES] {
    const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Leap years repeat every 400 years; so the date is looked for from 1970 on in the first of them.
    let mut year = 1970 + 400 * (days / DAYS_OF_400_YEARS);
    let mut day = days % DAYS_OF_400_YEARS;
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let month_days = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= month_days[month] {
        day -= month_days[month];
        month += 1;
    }
    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    date[..3].copy_from_slice(WEEKDAYS[(days % 7) as usize]);
    date[8..11].copy_from_slice(MONTHS[month]);
    let fields = [
        (5, day + 1),
        (12, year / 100 % 100),
        (14, year % 100),
        (17, second / 3600),
        (20, second / 60 % 60),
        (23, second % 60),
    ];
    for (at, value) in fields {
        date[at] = b'0' + (value / 10) as u8;
        date[at + 1] = b'0' + (value % 10) as u8;
    }
    date
}

/// Head, body, and the body's length in the head. The length is not known before the body is written, and most bodies
/// have three digits of it: so much room is left, and the rest is moved if that was wrong.
#[inline]
fn respond(
    buffer: &mut [u8],
    frame: &Frame<'_>,
    status: u16,
    extra: Extra,
    body: impl FnOnce(&mut Out<'_>),
) -> Result<usize, Overflow> {
    const DIGITS_USUAL: usize = 3;
    let mut out = Out { buffer, at: 0, overflowed: false };
    out.head(frame, status, extra);
    let length_at = out.at;
    out.put(b"000\r\n\r\n");
    let body_at = out.at;
    body(&mut out);
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(out.at - body_at).as_bytes();
    if digits.len() != DIGITS_USUAL {
        out.shift(length_at + DIGITS_USUAL, length_at + digits.len());
    }
    if !out.overflowed {
        out.buffer[length_at..length_at + digits.len()].copy_from_slice(digits);
    }
    if frame.is_head {
        out.at = length_at + digits.len() + b"\r\n\r\n".len();
    }
    out.finish()
}

/// Status line and what every answer's head begins with.
const fn status_line(status: u16) -> &'static [u8] {
    macro_rules! lines {
        ($($status:literal $reason:literal)*) => {
            match status {
                $($status => concat!(
                    "HTTP/1.1 ", $status, " ", $reason, "\r\nContent-Type: application/json\r\nDate: "
                ).as_bytes(),)*
                _ => panic!("a status no answer has"),
            }
        };
    }
    lines! {
        200 "OK"
        202 "Accepted"
        400 "Bad Request"
        401 "Unauthorized"
        404 "Not Found"
        405 "Method Not Allowed"
        408 "Request Timeout"
        413 "Content Too Large"
        415 "Unsupported Media Type"
        429 "Too Many Requests"
        431 "Request Header Fields Too Large"
        503 "Service Unavailable"
        507 "Insufficient Storage"
    }
}

/// Writes behind what was written; past the end, notes that and writes no more.
struct Out<'a> {
    buffer: &'a mut [u8],
    at: usize,
    overflowed: bool,
}

impl Out<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(room) if !self.overflowed => {
                room.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.overflowed = true,
        }
    }

    #[inline]
    fn number(&mut self, number: impl itoa::Integer) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    #[inline]
    fn position(&mut self, position: Position) {
        self.number(position.writer.0);
        self.put(b"-");
        self.number(position.shard.0);
        self.put(b"-");
        self.number(position.seq.0);
        self.put(b"-");
        self.number(position.index);
    }

    /// The inside of a JSON string (RFC 8259 §7).
    fn escaped(&mut self, text: &str) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
            self.put(&rest[..at]);
            match rest[at] {
                byte @ (b'"' | b'\\') => self.put(&[b'\\', byte]),
                byte => {
                    self.put(b"\\u00");
                    self.put(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                }
            }
            rest = &rest[at + 1..];
        }
        self.put(rest);
    }

    /// `"errors":[…],"errors_omitted":N`.
    fn refusals(&mut self, refusals: &Refusals<'_>) {
        let listed = &refusals.first[..refusals.first.len().min(REFUSALS_LISTED_MAX)];
        self.put(b"\"errors\":[");
        for (at, refusal) in listed.iter().enumerate() {
            self.put(if at == 0 { b"{\"index\":" } else { b",{\"index\":" });
            self.number(refusal.index);
            self.put(b",\"code\":\"");
            self.put(refusal.reason.code().name().as_bytes());
            self.put(b"\",\"message\":\"");
            match refusal.reason {
                Reason::Event(error) => self.escaped(error.text()),
                Reason::Json(error) => {
                    self.escaped(error.text());
                    if let Some(offset) = error.offset {
                        self.put(b" at byte ");
                        self.number(offset);
                    }
                }
            }
            self.put(b"\"}");
        }
        self.put(b"],\"errors_omitted\":");
        self.number(u64::from(refusals.total).saturating_sub(listed.len() as u64));
    }

    /// Everything up to the digits of `Content-Length`.
    #[inline]
    fn head(&mut self, frame: &Frame<'_>, status: u16, extra: Extra) {
        self.put(status_line(status));
        self.put(frame.date);
        self.put(b"\r\nX-Request-ID: ");
        self.put(frame.request_id.as_bytes());
        match frame.persistence {
            Persistence::Kept => {}
            Persistence::KeptHttp10 => self.put(b"\r\nConnection: keep-alive"),
            Persistence::Closed => self.put(b"\r\nConnection: close"),
        }
        if status == 401 {
            self.put(b"\r\nWWW-Authenticate: Bearer");
        }
        match extra {
            Extra::None => {}
            Extra::Allow(methods) => {
                self.put(b"\r\nAllow: ");
                self.put(methods.as_bytes());
            }
            Extra::RetryAfter(seconds) => {
                self.put(b"\r\nRetry-After: ");
                self.number(seconds);
            }
            Extra::RateLimit { limit, remaining, reset_s, retry_after_s } => {
                self.put(b"\r\nRetry-After: ");
                self.number(retry_after_s);
                self.put(b"\r\nX-RateLimit-Limit: ");
                self.number(limit);
                self.put(b"\r\nX-RateLimit-Remaining: ");
                self.number(remaining);
                self.put(b"\r\nX-RateLimit-Reset: ");
                self.number(reset_s);
            }
        }
        self.put(b"\r\nContent-Length: ");
    }

    /// Moves everything from `from` on to begin at `to`.
    fn shift(&mut self, from: usize, to: usize) {
        let end = to + self.at.saturating_sub(from);
        if self.overflowed || end > self.buffer.len() {
            self.overflowed = true;
            return;
        }
        self.buffer.copy_within(from..self.at, to);
        self.at = end;
    }

    fn finish(self) -> Result<usize, Overflow> {
        if self.overflowed { Err(Overflow) } else { Ok(self.at) }
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
