//! Where an HTTP/1.1 answer ends and what it says: as much of RFC 9112 as a client of one request line needs. Pure.
//!
//! Written for this tool and not shared with any server. An answer that lies whole in one receive is read where it lies;
//! only what is cut is joined. Of a body the first [`BODY_KEPT_BYTES`] are shown, the rest is counted and dropped.

use std::fmt;

use memchr::{memchr, memmem};

/// A head longer than this is not an answer to our requests.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What of a body is kept: the summary of a 202 fits, an echo does not need to.
pub const BODY_KEPT_BYTES: usize = 4 << 10;
/// Digits of a chunk's length.
const CHUNK_DIGITS_MAX: u32 = 12;

/// Bytes that are no HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    /// Does not begin with an HTTP/1 status line.
    StatusLine,
    /// A head beyond the limit.
    HeadTooLong,
    /// A length that is no number, or that is said twice differently.
    Length,
    /// A chunk's line is not a length.
    Chunk,
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatusLine => "no HTTP/1 status line",
            Self::HeadTooLong => "a head of more than 16 KiB",
            Self::Length => "a body length that is no number",
            Self::Chunk => "a chunk without a length",
        })
    }
}

impl std::error::Error for BadResponse {}

/// A complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status code.
    pub status: u16,
    /// Whether it says when to come back.
    pub has_retry_after: bool,
    /// Whether the server closes the connection behind it.
    pub closes: bool,
    /// Length of the body.
    pub body_bytes: u64,
    /// The beginning of the body, up to [`BODY_KEPT_BYTES`].
    pub body: &'a [u8],
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    status: u16,
    has_retry_after: bool,
    closes: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// This many bytes of the body are still to come.
    Body(u64),
    /// The body ends with the connection.
    UntilClose,
    /// In the line of a chunk's length: value and digits so far; `None` digits: behind them, in an extension.
    ChunkLine {
        length: u64,
        digits: u32,
        in_extension: bool,
    },
    /// This many bytes of a chunk are still to come, with the CRLF behind it.
    ChunkData(u64),
    /// In the lines behind the last chunk: whether the current one is empty so far.
    Trailer {
        is_empty: bool,
    },
}

/// Reads the answers of one connection.
#[derive(Debug)]
pub struct Parser {
    state: State,
    head: Head,
    /// A head in pieces, or the kept beginning of a body in pieces.
    pieces: Vec<u8>,
    body_bytes: u64,
    /// The answer was shown; the pieces are to be forgotten.
    finished: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Head, head: Head::default(), pieces: Vec::new(), body_bytes: 0, finished: false }
    }

    /// Forgets everything, for a new connection.
    pub fn reset(&mut self) {
        self.pieces.clear();
        *self = Self { pieces: std::mem::take(&mut self.pieces), ..Self::new() };
    }

    /// The next complete answer; takes its bytes from the front of `input`. `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`BadResponse`]; the connection is then of no further use.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Answer<'s>>, BadResponse> {
        self.forget_finished();
        loop {
            if self.state == State::Head {
                if !self.take_head(input)? {
                    return Ok(None);
                }
                // Informational answers come before the one that counts (RFC 9110, 15.2).
                if (100..200).contains(&self.head.status) {
                    self.state = State::Head;
                    continue;
                }
            }
            return match self.state {
                State::Body(left) if self.pieces.is_empty() && input.len() as u64 >= left => {
                    let (body, rest) = input.split_at(left as usize);
                    *input = rest;
                    self.body_bytes = left;
                    self.finished = true;
                    Ok(Some(self.answer(&body[..body.len().min(BODY_KEPT_BYTES)])))
                }
                _ => {
                    let is_complete = self.take_body(input)?;
                    self.finished = is_complete;
                    Ok(is_complete.then(|| self.answer(&self.pieces)))
                }
            };
        }
    }

    /// The answer that the end of the connection completes, if it does.
    pub fn end(&mut self) -> Option<Answer<'_>> {
        self.forget_finished();
        if self.state != State::UntilClose {
            return None;
        }
        self.finished = true;
        Some(self.answer(&self.pieces))
    }

    /// Whether nothing of an answer has come since the last one. Empty lines are none (RFC 9112, 9.2).
    #[must_use]
    pub fn is_between_answers(&self) -> bool {
        let is_empty = self.pieces.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        self.finished || self.state == State::Head && is_empty
    }

    fn forget_finished(&mut self) {
        if std::mem::take(&mut self.finished) {
            self.pieces.clear();
            self.body_bytes = 0;
            self.state = State::Head;
        }
    }

    fn answer<'a>(&self, body: &'a [u8]) -> Answer<'a> {
        Answer {
            status: self.head.status,
            has_retry_after: self.head.has_retry_after,
            closes: self.head.closes,
            body_bytes: self.body_bytes,
            body,
        }
    }

    /// Takes a head from `input`, joined with what came before; whether it is complete.
    fn take_head(&mut self, input: &mut &[u8]) -> Result<bool, BadResponse> {
        let before = self.pieces.len();
        let end = if before == 0 {
            memmem::find(input, b"\r\n\r\n").map(|at| at + 4)
        } else {
            // The empty line may lie across the cut.
            self.pieces.extend_from_slice(&input[..input.len().min(HEAD_BYTES_MAX)]);
            let from = before.saturating_sub(3);
            memmem::find(&self.pieces[from..], b"\r\n\r\n").map(|at| from + at + 4 - before)
        };
        match end {
            Some(end) => {
                self.head =
                    if before == 0 { parse_head(&input[..end])? } else { parse_head(&self.pieces[..before + end])? };
                *input = &input[end..];
                self.pieces.clear();
                self.state = self.body_state();
                Ok(true)
            }
            None => {
                if before == 0 {
                    self.pieces.extend_from_slice(&input[..input.len().min(HEAD_BYTES_MAX)]);
                }
                *input = &[];
                if self.pieces.len() >= HEAD_BYTES_MAX { Err(BadResponse::HeadTooLong) } else { Ok(false) }
            }
        }
    }

    fn body_state(&self) -> State {
        match self.head {
            // RFC 9112, 6.3: these never have a body, whatever they say.
            Head { status: 204 | 304, .. } => State::Body(0),
            Head { chunked: true, .. } => State::ChunkLine { length: 0, digits: 0, in_extension: false },
            Head { length: Some(length), .. } => State::Body(length),
            _ => State::UntilClose,
        }
    }

    /// Takes what `input` has of the body; whether the body is complete.
    fn take_body(&mut self, input: &mut &[u8]) -> Result<bool, BadResponse> {
        loop {
            match self.state {
                State::Head => unreachable!("the head was taken"),
                State::Body(left) => {
                    let left = left - self.keep(input, left);
                    self.state = State::Body(left);
                    return Ok(left == 0);
                }
                State::UntilClose => {
                    self.keep(input, u64::MAX);
                    return Ok(false);
                }
                State::ChunkData(left) => {
                    // The last two are the CRLF behind the data.
                    let data = self.keep(input, left.saturating_sub(2));
                    let mut left = left - data;
                    if left <= 2 {
                        let line_end = input.len().min(left as usize);
                        *input = &input[line_end..];
                        left -= line_end as u64;
                    }
                    self.state = State::ChunkData(left);
                    if left > 0 {
                        return Ok(false);
                    }
                    self.state = State::ChunkLine { length: 0, digits: 0, in_extension: false };
                }
                State::ChunkLine { .. } | State::Trailer { .. } => {
                    let Some((byte, rest)) = input.split_first() else { return Ok(false) };
                    *input = rest;
                    if self.take_line_byte(*byte)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Takes one byte of a chunk's line or of the trailer; whether the body ends with it.
    fn take_line_byte(&mut self, byte: u8) -> Result<bool, BadResponse> {
        self.state = match self.state {
            State::ChunkLine { length, digits, .. } if byte == b'\n' => match (digits, length) {
                (0, _) => return Err(BadResponse::Chunk),
                (_, 0) => State::Trailer { is_empty: true },
                (_, length) => State::ChunkData(length + 2),
            },
            State::ChunkLine { length, digits, in_extension: false } if byte.is_ascii_hexdigit() => {
                if digits == CHUNK_DIGITS_MAX {
                    return Err(BadResponse::Chunk);
                }
                let digit = (byte as char).to_digit(16).expect("a hexadecimal digit");
                State::ChunkLine { length: length * 16 + u64::from(digit), digits: digits + 1, in_extension: false }
            }
            State::ChunkLine { length, digits, .. } if digits > 0 => {
                State::ChunkLine { length, digits, in_extension: true }
            }
            State::ChunkLine { .. } => return Err(BadResponse::Chunk),
            State::Trailer { is_empty } if byte == b'\n' => {
                if is_empty {
                    return Ok(true);
                }
                State::Trailer { is_empty: true }
            }
            State::Trailer { is_empty } => State::Trailer { is_empty: is_empty && byte == b'\r' },
            state => state,
        };
        Ok(false)
    }

    /// Takes up to `most` bytes of body from `input`; how many.
    fn keep(&mut self, input: &mut &[u8], most: u64) -> u64 {
        let taken = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
        let kept = taken.min(BODY_KEPT_BYTES - self.pieces.len());
        self.pieces.extend_from_slice(&input[..kept]);
        *input = &input[taken..];
        self.body_bytes += taken as u64;
        taken as u64
    }
}

fn parse_head(head: &[u8]) -> Result<Head, BadResponse> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', digits @ ..] = head else {
        return Err(BadResponse::StatusLine);
    };
    let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ' | b'\r', ..] = digits else {
        return Err(BadResponse::StatusLine);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let mut parsed = Head {
        status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
        closes: *minor == b'0',
        ..Head::default()
    };
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        // The names that matter begin with these; the others are not looked at.
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                if let Some(value) = value_of(line, b"content-length") {
                    let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    let length: u64 = length.ok_or(BadResponse::Length)?;
                    if parsed.length.replace(length).is_some_and(|before| before != length) {
                        return Err(BadResponse::Length);
                    }
                } else if let Some(value) = value_of(line, b"connection") {
                    parsed.closes = value.eq_ignore_ascii_case(b"close")
                        || parsed.closes && !value.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Some(b't') => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    parsed.chunked = value.eq_ignore_ascii_case(b"chunked");
                }
            }
            Some(b'r') => parsed.has_retry_after |= value_of(line, b"retry-after").is_some(),
            _ => {}
        }
    }
    Ok(parsed)
}

/// The value of a header line if it has this (lower-case) name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// The number behind `"name":` in a body; `name` comes with its quotes and colon.
#[must_use]
pub fn number_in(body: &[u8], name: &[u8]) -> Option<u64> {
    let at = memmem::find(body, name)? + name.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[at..at + digits]).ok()?.parse().ok()
}

/// The text behind `"name":"` in a body up to the next quote; `name` comes with its quotes and colon.
#[must_use]
pub fn word_in<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let rest = &body[memmem::find(body, name)? + name.len()..];
    std::str::from_utf8(&rest[..memchr(b'"', rest)?]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, body and length of every answer in `bytes`, given in pieces of `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<(u16, Vec<u8>, u64)>, BadResponse> {
        let mut parser = Parser::new();
        let mut answers = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(answer) = parser.next(&mut input)? {
                answers.push((answer.status, answer.body.to_vec(), answer.body_bytes));
            }
            assert!(input.is_empty());
        }
        Ok(answers)
    }

    const THREE: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 204 No Content\r\nserver: x\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;note=1\r\nabcde\r\n0a\r\n0123456789\r\n0\r\nafter: 1\r\n\r\n";

    #[test]
    fn answers_are_the_same_however_they_are_cut() {
        let whole = read(THREE, THREE.len()).unwrap();
        let expected: Vec<(u16, Vec<u8>, u64)> =
            vec![(202, b"hello".to_vec(), 5), (204, vec![], 0), (200, b"abcde0123456789".to_vec(), 15)];
        assert_eq!(whole, expected);
        for piece in 1..THREE.len() {
            assert_eq!(read(THREE, piece).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_the_head_says_is_seen() {
        let mut parser = Parser::new();
        let mut input: &[u8] = b"HTTP/1.1 503 Busy\r\nRETRY-AFTER: 1\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n";
        let answer = parser.next(&mut input).unwrap().unwrap();
        assert!(answer.has_retry_after && answer.closes && answer.status == 503);
        let mut input: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert!(Parser::new().next(&mut input).unwrap().unwrap().closes, "HTTP/1.0 closes unless it says otherwise");
        let mut input: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(Parser::new().next(&mut input).unwrap().unwrap().status, 202);
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let mut parser = Parser::new();
        let mut input: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nall of it";
        assert_eq!(parser.next(&mut input), Ok(None));
        assert_eq!(parser.end().unwrap().body, b"all of it");
        assert_eq!(Parser::new().end(), None, "a connection that ends between answers completes none");
    }

    #[test]
    fn of_a_long_body_the_beginning_is_kept_and_all_is_counted() {
        let body = vec![b'x'; 3 * BODY_KEPT_BYTES];
        let answer = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        for piece in [answer.len(), 1000] {
            let read = read(&answer, piece).unwrap();
            assert_eq!((read[0].1.len(), read[0].2), (BODY_KEPT_BYTES, body.len() as u64));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (bytes, error) in [
            (b"SSH-2.0-x\r\n\r\n".as_slice(), BadResponse::StatusLine),
            (b"HTTP/1.1 2O2 A\r\n\r\n", BadResponse::StatusLine),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n", BadResponse::Length),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", BadResponse::Length),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", BadResponse::Chunk),
            (&[b'a'; HEAD_BYTES_MAX + 1], BadResponse::HeadTooLong),
        ] {
            assert_eq!(read(bytes, bytes.len()), Err(error));
        }
    }

    #[test]
    fn numbers_are_found_by_name() {
        let body = br#"{"success":true,"data":{"accepted":200,"rejected":0}}"#;
        assert_eq!(number_in(body, b"\"accepted\":"), Some(200));
        assert_eq!(number_in(body, b"\"rejected\":"), Some(0));
        assert_eq!(number_in(body, b"\"missing\":"), None);
        assert_eq!(word_in(br#"{"ack":"durable"}"#, b"\"ack\":\""), Some("durable"));
        assert_eq!(word_in(br#"{"ack":"dur"#, b"\"ack\":\""), None);
    }
}
