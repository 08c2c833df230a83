//! Where a request's body lies in the bytes of its connection: `Content-Length` and chunked. Shard thread; pure.
//!
//! A decoder of a few integers: it points at body bytes in the caller's input and copies none. It promises the same
//! body for every way of cutting the same bytes, and never to point past the body: what follows belongs to the next
//! request. Chunk extensions and trailers are checked for form, bounded, and thrown away.

use super::code::{ErrorCode, HttpError};
use super::request::Framing;

/// Bytes of chunk extensions in one body. No client sends any; one byte of body with a page of extension is an attack
/// on the receiver's CPU.
const EXTENSION_BYTES_MAX: u32 = 4096;

/// Bytes of trailer lines in one body.
const TRAILER_BYTES_MAX: u32 = 4096;

/// Digits of a chunk size. Sixteen hexadecimal digits fill a `u64`; leading zeros count, so they are bounded too.
const SIZE_DIGITS_MAX: u32 = 16;

const TOO_LARGE: HttpError =
    HttpError { code: ErrorCode::PayloadTooLarge, message: "the body is over the limit: send fewer events at a time" };

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// After `skip` bytes of framing come `len > 0` bytes of body. Call again with what follows them.
    Data {
        /// Bytes to skip.
        skip: usize,
        /// Bytes of body after them.
        len: usize,
    },
    /// All `consumed` bytes of the input were framing; the body goes on in the next input.
    NeedMore {
        /// Always the whole input.
        consumed: usize,
    },
    /// The body is over after `consumed` more bytes of framing.
    Done {
        /// Bytes to skip to the next request.
        consumed: usize,
    },
}

/// Which byte comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Body of known length; `remaining` bytes of it.
    Length,
    /// A digit of a chunk's size; so many were seen.
    Size(u32),
    /// White space after the size: only an extension may follow.
    AfterSize,
    /// An extension, up to its CR.
    Extension,
    /// LF after the size line.
    SizeLf,
    /// Chunk data; `remaining` bytes of it.
    Data,
    /// CR after the data.
    DataCr,
    /// LF after the data.
    DataLf,
    /// First byte of a trailer line, or the CR of the last, empty line.
    TrailerStart,
    /// Name of a trailer, up to its colon.
    TrailerName,
    /// Value of a trailer, up to its CR.
    TrailerValue,
    /// LF after a trailer line.
    TrailerLf,
    /// LF after the empty line.
    EndLf,
    /// Over.
    Done,
}

/// Decodes one body. See the module text.
#[derive(Clone, Copy, Debug)]
pub struct BodyFraming {
    state: State,
    /// Bytes left of the body or of the chunk.
    remaining: u64,
    /// Bytes the body may still grow by.
    allowance: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
}

impl BodyFraming {
    /// A decoder for the body that `framing` announces, of at most `body_bytes_max` bytes.
    ///
    /// # Errors
    /// 413 if a `Content-Length` is over the limit.
    pub fn new(framing: Framing, body_bytes_max: u64) -> Result<Self, HttpError> {
        let (state, remaining) = match framing {
            Framing::None => (State::Done, 0),
            Framing::Length(bytes) if bytes > body_bytes_max => return Err(TOO_LARGE),
            Framing::Length(0) => (State::Done, 0),
            Framing::Length(bytes) => (State::Length, bytes),
            Framing::Chunked => (State::Size(0), 0),
        };
        Ok(Self { state, remaining, allowance: body_bytes_max, extension_bytes: 0, trailer_bytes: 0 })
    }

    /// Whether the body is over: the next byte of the connection belongs to the next request.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at the next bytes of the connection. `input` starts where the last step ended.
    ///
    /// # Errors
    /// 400 for broken chunks, 413 for a body over its limit, 431 for too many bytes of trailers. The decoder is of no
    /// use after that, nor is the connection.
    #[inline]
    pub fn next(&mut self, input: &[u8]) -> Result<Step, HttpError> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Length | State::Data => {
                    let len =
                        usize::try_from(self.remaining).map_or(input.len() - at, |left| left.min(input.len() - at));
                    self.remaining -= len as u64;
                    if self.remaining == 0 {
                        self.state = if self.state == State::Length { State::Done } else { State::DataCr };
                    }
                    return Ok(Step::Data { skip: at, len });
                }
                State::Done => break,
                _ => {
                    self.state = self.chunk_byte(input[at])?;
                    at += 1;
                }
            }
        }
        if self.state == State::Done { Ok(Step::Done { consumed: at }) } else { Ok(Step::NeedMore { consumed: at }) }
    }

    /// Takes back the last `bytes` of the last [`Step::Data`]: the caller could not use them and will pass them again.
    ///
    /// # Panics
    /// If no data came last.
    pub fn give_back(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.state = match self.state {
            State::Data | State::DataCr => State::Data,
            State::Length | State::Done => State::Length,
            other => panic!("body bytes given back in {other:?}, where none came last"),
        };
        self.remaining += bytes as u64;
    }

    /// One byte of chunk framing (RFC 9112 §7.1).
    fn chunk_byte(&mut self, byte: u8) -> Result<State, HttpError> {
        let refused = |message| Err(HttpError::bad_request(message));
        match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return refused("a chunk size has too many digits");
                }
                // 15 digits leave the top four bits free; the check above keeps the 16th from overflowing.
                self.remaining = self.remaining << 4 | u64::from(hex_value(byte));
                Ok(State::Size(digits + 1))
            }
            (State::Size(1..), b'\r') | (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size(1..) | State::AfterSize, b';') => self.extension_byte().map(|()| State::Extension),
            (State::Size(1..) | State::AfterSize, b' ' | b'\t') => self.extension_byte().map(|()| State::AfterSize),
            (State::Size(_) | State::AfterSize, _) => refused("a chunk size must be hexadecimal digits"),
            (State::Extension, _) if is_field_byte(byte) => self.extension_byte().map(|()| State::Extension),
            (State::Extension, _) => refused("a chunk extension holds a control character"),
            (State::SizeLf, b'\n') if self.remaining == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => {
                self.allowance = self.allowance.checked_sub(self.remaining).ok_or(TOO_LARGE)?;
                Ok(State::Data)
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size(0)),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.trailer_byte().map(|()| State::TrailerName)
            }
            (State::TrailerName, b':') => self.trailer_byte().map(|()| State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_field_byte(byte) => self.trailer_byte().map(|()| State::TrailerValue),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => refused("malformed trailer"),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::DataCr | State::DataLf, _) => {
                refused("chunk data must be as long as its size says and end in CR LF")
            }
            (State::SizeLf | State::TrailerLf | State::EndLf, _) => {
                refused("a CR in the body's framing must be followed by LF")
            }
            (State::Length | State::Data | State::Done, _) => unreachable!("data is not framing"),
        }
    }

    fn extension_byte(&mut self) -> Result<(), HttpError> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(HttpError::bad_request("too many bytes of chunk extensions"));
        }
        Ok(())
    }

    fn trailer_byte(&mut self) -> Result<(), HttpError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(HttpError { code: ErrorCode::HeadersTooLarge, message: "too many bytes of trailers" });
        }
        Ok(())
    }
}

const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// What a header value may hold (RFC 9110 §5.5): no CR, LF or NUL, nor any other control character but the tab.
const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// What a header name may hold (RFC 9110 §5.6.2).
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100;

    /// Decodes `input` cut at `cuts`; the body, and the bytes left over after its end (`None` if it has not ended).
    fn decode(framing: Framing, input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Option<usize>), HttpError> {
        let mut decoder = BodyFraming::new(framing, LIMIT)?;
        let mut body = Vec::new();
        let mut at = 0;
        for end in cuts.iter().copied().chain([input.len()]) {
            loop {
                match decoder.next(&input[at..end])? {
                    Step::Data { skip, len } => {
                        assert!(len > 0);
                        body.extend_from_slice(&input[at + skip..at + skip + len]);
                        at += skip + len;
                    }
                    Step::NeedMore { consumed } => {
                        at += consumed;
                        assert_eq!(at, end, "NeedMore takes the whole input");
                        break;
                    }
                    Step::Done { consumed } => {
                        assert!(decoder.is_done());
                        return Ok((body, Some(input.len() - at - consumed)));
                    }
                }
            }
        }
        Ok((body, None))
    }

    /// The outcome, the same for no cut, every single cut, and a cut at every byte.
    fn decode_every_way(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, Option<usize>), HttpError> {
        let whole = decode(framing, input, &[]);
        for cut in 0..=input.len() {
            assert_eq!(decode(framing, input, &[cut]), whole, "cut at {cut} of {:?}", String::from_utf8_lossy(input));
        }
        let every: Vec<usize> = (0..input.len()).collect();
        assert_eq!(decode(framing, input, &every), whole);
        whole
    }

    #[test]
    fn a_body_of_known_length_ends_there() {
        assert_eq!(decode_every_way(Framing::Length(5), b"helloGET /"), Ok((b"hello".to_vec(), Some(5))));
        assert_eq!(decode_every_way(Framing::Length(5), b"hell"), Ok((b"hell".to_vec(), None)));
        for empty in [Framing::None, Framing::Length(0)] {
            assert_eq!(decode_every_way(empty, b"GET /"), Ok((Vec::new(), Some(5))));
        }
        assert!(BodyFraming::new(Framing::Length(LIMIT), LIMIT).is_ok());
        for over in [LIMIT + 1, u64::MAX] {
            assert_eq!(BodyFraming::new(Framing::Length(over), LIMIT).unwrap_err(), TOO_LARGE);
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        let table: &[(&[u8], &[u8], Option<usize>)] = &[
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", Some(3)),
            (b"0\r\n\r\n", b"", Some(0)),
            (b"000\r\n\r\n", b"", Some(0)),
            (b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", Some(0)),
            (b"00000000000000Aa", b"", None),
            (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", Some(0)),
            (b"A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n\r\n\r\n\r\n", Some(0)),
            (b"2;x=y\r\nhi\r\n0;last \t;q=\"a;b\"\r\n\r\n", b"hi", Some(0)),
            (b"2 \t;x\r\nhi\r\n0\r\n\r\n", b"hi", Some(0)),
            (b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nEmpty:\r\n\r\nrest", b"hi", Some(4)),
            (b"5\r\nhel", b"hel", None),
            (b"5\r\nhello\r\n0\r\n", b"hello", None),
        ];
        for (input, body, left) in table {
            let expected = Ok((body.to_vec(), *left));
            assert_eq!(decode_every_way(Framing::Chunked, input), expected, "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        let table: &[&[u8]] = &[
            b"\r\n",
            b"\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\n",
            b"0x1\r\n",
            b"1 \r\n",
            b"1\nx\r\n",
            b"1\rx",
            b"1 x\r\n",
            b"1;\n",
            b"1;a\nb\r\n",
            b"1;a\0\r\n",
            b"1;a\rb\r\n",
            b"1,x\r\n",
            b";x\r\n",
            b"1\r\nxy\r\n",
            b"2\r\nx\r\n\r\n",
            b"1\r\nx\n0\r\n\r\n",
            b"1\r\nx\r\r\n",
            b"1\r\nx0\r\n\r\n",
            b"00000000000000001\r\n",
            b"10000000000000000\r\n",
            b"0\r\n\n",
            b"0\n\r\n",
            b"0\r\n\rX",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX: y\r\r\n",
            b"0\r\nX: y\r\n folded\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n: y\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: \0\r\n\r\n",
            b"0\r\nPOST /v1/events HTTP/1.1\r\n\r\n",
        ];
        for input in table {
            let result = decode_every_way(Framing::Chunked, input);
            let shown = String::from_utf8_lossy(input);
            assert!(result.as_ref().is_err_and(|error| error.code == ErrorCode::BadRequest), "{shown:?}: {result:?}");
        }
    }

    #[test]
    fn a_chunked_body_is_bounded() {
        let chunks = |sizes: &[usize]| {
            let mut input: Vec<u8> = Vec::new();
            for size in sizes {
                input.extend_from_slice(format!("{size:x}\r\n{}\r\n", "x".repeat(*size)).as_bytes());
            }
            decode(Framing::Chunked, &[&input[..], b"0\r\n\r\n"].concat(), &[]).map(|(body, _)| body.len())
        };
        assert_eq!(chunks(&[60, 40]), Ok(100));
        assert_eq!(chunks(&[60, 41]), Err(TOO_LARGE));
        assert_eq!(chunks(&[101]), Err(TOO_LARGE));
        assert_eq!(decode_every_way(Framing::Chunked, b"ffffffffffffffff\r\n"), Err(TOO_LARGE), "before any data");
    }

    #[test]
    fn extensions_and_trailers_are_bounded_over_the_whole_body() {
        let extended = |bytes: usize| {
            let half = "e".repeat(bytes / 2 - 1);
            let input = format!("1;{half}\r\nx\r\n0;{half}\r\n\r\n");
            decode(Framing::Chunked, input.as_bytes(), &[]).map(|(body, _)| body.len()).map_err(|error| error.code)
        };
        assert_eq!(extended(EXTENSION_BYTES_MAX as usize), Ok(1));
        assert_eq!(extended(EXTENSION_BYTES_MAX as usize + 2), Err(ErrorCode::BadRequest));
        let trailed = |bytes: usize| {
            let input = format!("0\r\n{}{}\r\n\r\n", "a:b\r\n".repeat(10), "t:".to_owned() + &"t".repeat(bytes - 32));
            decode(Framing::Chunked, input.as_bytes(), &[]).map(|(body, _)| body.len()).map_err(|error| error.code)
        };
        assert_eq!(trailed(TRAILER_BYTES_MAX as usize), Ok(0));
        assert_eq!(trailed(TRAILER_BYTES_MAX as usize + 1), Err(ErrorCode::HeadersTooLarge));
    }

    #[test]
    fn bytes_given_back_come_again() {
        for (framing, input) in
            [(Framing::Length(5), &b"hello"[..]), (Framing::Chunked, &b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"[..])]
        {
            let mut decoder = BodyFraming::new(framing, LIMIT).unwrap();
            let (mut body, mut at, mut steps) = (Vec::new(), 0, 0);
            loop {
                match decoder.next(&input[at..]).unwrap() {
                    Step::Data { skip, len } => {
                        // Each piece is used byte by byte; every other time nothing of it.
                        steps += 1;
                        let used = steps % 2;
                        body.extend_from_slice(&input[at + skip..at + skip + used]);
                        at += skip + used;
                        decoder.give_back(len - used);
                        assert!(!decoder.is_done() || used == len);
                    }
                    Step::Done { consumed } => break assert_eq!(at + consumed, input.len()),
                    Step::NeedMore { .. } => unreachable!("all input is there"),
                }
            }
            assert_eq!(body, b"hello");
        }
    }
}
