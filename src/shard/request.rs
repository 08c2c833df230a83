//! What one request asks for: the head boiled down to a small `Copy` value that borrows nothing. Shard thread.

use crate::admit::Priority;
use crate::base::AckLevel;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /v1/events`.
    Events,
    /// `POST /v1/events/batch`.
    EventsBatch,
    /// `POST /api/echo`.
    Echo,
    /// `GET /health`.
    Health,
    /// `GET /ready`.
    Ready,
    /// `GET /api/metrics`.
    Metrics,
    /// No such path.
    NotFound,
    /// The path exists, the method does not fit.
    MethodNotAllowed {
        /// Value of the `Allow` header.
        allow: &'static str,
    },
}

impl Route {
    /// Whether it takes a body and does something with it: what needs a key and is admitted or not.
    #[must_use]
    pub const fn stores_or_echoes(self) -> bool {
        matches!(self, Self::Events | Self::EventsBatch | Self::Echo)
    }
}

/// How the end of the body is known (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl Framing {
    /// Bytes of the body, as far as the head says: of a chunked one it says nothing.
    #[must_use]
    pub const fn announced_bytes(self) -> u64 {
        match self {
            Self::Length(bytes) => bytes,
            Self::None | Self::Chunked => 0,
        }
    }
}

/// What the body is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `application/json`, or not said.
    Json,
    /// `application/x-ndjson`, `application/jsonl` or `application/json-lines`.
    Ndjson,
    /// Anything else: 415.
    Unsupported,
}

/// How the body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// `gzip` or `x-gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
    /// Anything else, several codings included: 415.
    Unsupported,
}

/// A request's name, its own or made here, as it is echoed: 1 to 64 bytes of visible ASCII without `"` and `\`, so it
/// can stand in a header and in a JSON string as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    len: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl RequestId {
    /// Longer names are ignored.
    pub const BYTES_MAX: usize = 64;

    /// Takes a client's name; `None` if it is empty, too long or holds a byte that would need escaping.
    #[must_use]
    pub fn from_client(name: &[u8]) -> Option<Self> {
        let plain = |byte: &u8| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'\\');
        if name.is_empty() || name.len() > Self::BYTES_MAX || !name.iter().all(plain) {
            return None;
        }
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Some(Self { len: name.len() as u8, bytes })
    }

    /// Makes a name: `origin` (random per process and shard) and `count` (per shard) as 16 hexadecimal digits each.
    #[must_use]
    pub fn made(origin: u64, count: u64) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..16].copy_from_slice(&hexadecimal(origin));
        bytes[16..32].copy_from_slice(&hexadecimal(count));
        Self { len: 32, bytes }
    }

    /// The name.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestId({})", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// The sixteen digits of `number`, all at once: digit by digit it took 320 instructions for a made id, a thirtieth of all that
/// a request of one event takes in the shard; so it takes 80.
const fn hexadecimal(number: u64) -> [u8; 16] {
    const EACH: u128 = u128::from_ne_bytes([1; 16]);
    let mut digits = number as u128;
    // Halves apart, then their halves, until each four bits have a byte of their own.
    digits = (digits | digits << 32) & 0x0000_0000_FFFF_FFFF_0000_0000_FFFF_FFFF;
    digits = (digits | digits << 16) & 0x0000_FFFF_0000_FFFF_0000_FFFF_0000_FFFF;
    digits = (digits | digits << 8) & 0x00FF_00FF_00FF_00FF_00FF_00FF_00FF_00FF;
    digits = (digits | digits << 4) & 0x0F0F_0F0F_0F0F_0F0F_0F0F_0F0F_0F0F_0F0F;
    // 10 and more carry into the high four bits when 6 is added, and are letters.
    let letters = (digits + 6 * EACH) >> 4 & EACH;
    (digits + EACH * b'0' as u128 + letters * (b'a' - b'9' - 1) as u128).to_be_bytes()
}

/// Where in a head the client's key stands: kept as a place, so that a request carries no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// Offset from the front of the head as it was parsed, empty lines before it included.
    pub start: u32,
    /// Bytes.
    pub bytes: u32,
}

impl KeyPlace {
    /// The key in `head`.
    ///
    /// # Panics
    /// If `head` is not the one it was found in.
    #[must_use]
    pub fn of<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..][..self.bytes as usize]
    }
}

/// One request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it goes.
    pub route: Route,
    /// `HEAD`: answer as to `GET`, without the body.
    pub is_head: bool,
    /// HTTP/1.0: a kept connection must be said in the answer, and no `100 Continue` be sent.
    pub http10: bool,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// How the body ends.
    pub framing: Framing,
    /// What the body is.
    pub content: Content,
    /// How the body is compressed.
    pub encoding: Encoding,
    /// Ack level asked for by `X-Ack`.
    pub ack: Option<AckLevel>,
    /// `?atomic=true`: one invalid event refuses the whole batch.
    pub atomic: bool,
    /// The client's key, from `Authorization: Bearer` or `X-API-Key`.
    pub key: Option<KeyPlace>,
    /// How important the client says it is, by `X-Priority`.
    pub priority: Priority,
    /// The client's `X-Request-ID`, if it can be echoed.
    pub request_id: Option<RequestId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_no_escaping_are_echoed() {
        let longest = [b'x'; RequestId::BYTES_MAX];
        for good in [&b"a"[..], b"7f-3.~!", &longest] {
            assert_eq!(RequestId::from_client(good).unwrap().as_bytes(), good);
        }
        for bad in [&b""[..], b"a b", b"a\"b", b"a\\b", b"a\x7f", b"\xc3\xa9", b"a\0", &[b'x'; 65]] {
            assert_eq!(RequestId::from_client(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn made_names_are_distinct_and_plain() {
        let first = RequestId::made(0x0123_4567_89ab_cdef, 10);
        assert_eq!(first.as_bytes(), b"0123456789abcdef000000000000000a");
        assert_eq!(hexadecimal(u64::MAX / 7), *format!("{:016x}", u64::MAX / 7).as_bytes().first_chunk().unwrap());
        assert_ne!(first, RequestId::made(0x0123_4567_89ab_cdef, 11));
        assert_eq!(RequestId::from_client(first.as_bytes()), Some(first));
    }
}
