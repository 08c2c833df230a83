//! The HTTP around an answer: status line, headers, the body's length; and the pen it is all written with. Shard
//! thread; pure.

use super::request::{Request, RequestId};
use crate::base::Position;

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

/// Head, body, and the body's length in the head. The length is not known before the body is written, and most bodies
/// have three digits of it: so much room is left, and the rest is moved if that was wrong.
#[inline]
pub(super) fn respond(
    buffer: &mut [u8],
    frame: &Frame<'_>,
    status: u16,
    extra: Extra,
    body: impl FnOnce(&mut Out<'_>),
) -> Result<usize, Overflow> {
    const DIGITS_USUAL: usize = 3;
    let mut out = Out::new(buffer);
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

/// A head for a body of `body_bytes` bytes, of which only `prefix` is written. 200.
pub(super) fn front(buffer: &mut [u8], frame: &Frame<'_>, body_bytes: usize, prefix: &[u8]) -> Result<usize, Overflow> {
    let mut out = Out::new(buffer);
    out.head(frame, 200, Extra::None);
    out.number(body_bytes);
    out.put(b"\r\n\r\n");
    out.put(prefix);
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
pub(super) struct Out<'a> {
    buffer: &'a mut [u8],
    at: usize,
    overflowed: bool,
}

impl<'a> Out<'a> {
    fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0, overflowed: false }
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(room) if !self.overflowed => {
                room.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            _ => self.overflowed = true,
        }
    }

    #[inline]
    pub(super) fn number(&mut self, number: impl itoa::Integer) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    #[inline]
    pub(super) fn position(&mut self, position: Position) {
        self.number(position.writer.0);
        self.put(b"-");
        self.number(position.shard.0);
        self.put(b"-");
        self.number(position.seq.0);
        self.put(b"-");
        self.number(position.index);
    }

    /// The inside of a JSON string (RFC 8259 §7).
    pub(super) fn escaped(&mut self, text: &str) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
        let mut rest = text.as_bytes();
        // Nearly all text is plain, and all of it at once is looked at by the vector.
        let plain = !rest.iter().fold(false, |any, byte| any | special(*byte));
        while !plain && let Some(at) = rest.iter().position(|byte| special(*byte)) {
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
