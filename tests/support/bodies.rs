//! Requests that carry events: every body shape, content encoding and framing of the contract.

use std::io::Write as _;

use super::random::Random;

/// How events stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `application/json`, one object.
    Single,
    /// `application/json`, an array.
    Array,
    /// `application/x-ndjson`.
    Lines,
    /// `application/json` to `/v1/events/batch`, `{"events":[…]}`.
    Batch,
}

/// How the body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By `Content-Length`.
    Length,
    /// By `Transfer-Encoding: chunked`, in chunks of this many bytes.
    Chunked(usize),
}

/// Every shape.
pub(crate) const SHAPES: [Shape; 4] = [Shape::Single, Shape::Array, Shape::Lines, Shape::Batch];
/// Every encoding.
pub(crate) const ENCODINGS: [Encoding; 3] = [Encoding::Identity, Encoding::Gzip, Encoding::Zstd];
/// Both framings, with chunks that cut events and chunks that hold many.
pub(crate) const FRAMINGS: [Framing; 3] = [Framing::Length, Framing::Chunked(7), Framing::Chunked(4000)];

/// How one request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Shape of the body.
    pub(crate) shape: Shape,
    /// Its encoding.
    pub(crate) encoding: Encoding,
    /// Its framing.
    pub(crate) framing: Framing,
}

impl Form {
    /// NDJSON with a length, as most clients send it.
    pub(crate) const PLAIN: Self = Self { shape: Shape::Lines, encoding: Encoding::Identity, framing: Framing::Length };

    /// Any form.
    pub(crate) fn random(random: &mut Random) -> Self {
        Self { shape: *random.pick(&SHAPES), encoding: *random.pick(&ENCODINGS), framing: *random.pick(&FRAMINGS) }
    }

    /// Whether an event may hold raw line feeds in this form.
    pub(crate) fn may_spread(self) -> bool {
        self.shape != Shape::Lines
    }

    /// The whole request. `headers` are more header lines, each with its CRLF.
    pub(crate) fn request(self, events: &[Vec<u8>], headers: &str) -> Vec<u8> {
        let (route, content_type) = match self.shape {
            Shape::Single | Shape::Array => ("/v1/events", "application/json"),
            Shape::Lines => ("/v1/events", "application/x-ndjson"),
            Shape::Batch => ("/v1/events/batch", "application/json"),
        };
        let encoding = match self.encoding {
            Encoding::Identity => "",
            Encoding::Gzip => "Content-Encoding: gzip\r\n",
            Encoding::Zstd => "Content-Encoding: zstd\r\n",
        };
        let body = encode(self.encoding, &body(self.shape, events));
        let head =
            format!("POST {route} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n{encoding}{headers}");
        framed(&head, self.framing, &body)
    }
}

/// The body of `events` in `shape`, uncompressed.
pub(crate) fn body(shape: Shape, events: &[Vec<u8>]) -> Vec<u8> {
    match shape {
        Shape::Single => {
            assert_eq!(events.len(), 1, "a single event is one");
            events[0].clone()
        }
        Shape::Array => [b"[".as_slice(), &events.join(b",\n".as_slice()), b"]"].concat(),
        Shape::Lines => [events.join(b"\n".as_slice()).as_slice(), b"\n"].concat(),
        Shape::Batch => [br#"{"source":"test","events":["#.as_slice(), &events.join(b" , ".as_slice()), b"]}"].concat(),
    }
}

/// `body` compressed.
pub(crate) fn encode(encoding: Encoding, body: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => body.to_vec(),
        Encoding::Gzip => gzip(body),
        Encoding::Zstd => zstd(body),
    }
}

/// `{}` compressed to exactly `bytes` bytes, by members or frames that hold nothing.
pub(crate) fn padded(encoding: Encoding, bytes: usize) -> Vec<u8> {
    let mut body = encode(encoding, b"{}");
    let padding = bytes - body.len();
    if encoding == Encoding::Zstd {
        // A skippable frame: RFC 8878 §3.1.2.
        body.extend_from_slice(&0x184D_2A50_u32.to_le_bytes());
        body.extend_from_slice(&(padding as u32 - 8).to_le_bytes());
        body.resize(bytes, 0);
        return body;
    }
    let members = padding / 1024;
    for member in 0..members {
        // With a long name and an empty last block: RFC 1952 §2.3, RFC 1951 §3.2.6.
        let name_bytes = padding / members + usize::from(member < padding % members) - 21;
        body.extend_from_slice(&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255]);
        body.extend_from_slice(&vec![b'n'; name_bytes]);
        body.extend_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    body
}

/// One gzip member.
pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).expect("compressing to memory");
    encoder.finish().expect("compressing to memory")
}

/// One zstd frame.
pub(crate) fn zstd(body: &[u8]) -> Vec<u8> {
    let mut compressed = vec![0; zstd_safe::compress_bound(body.len())];
    let bytes = zstd_safe::compress(compressed.as_mut_slice(), body, 1).expect("the buffer is long enough");
    compressed.truncate(bytes);
    compressed
}

/// `head` (request line and headers, without the empty line) and `body`, framed.
pub(crate) fn framed(head: &str, framing: Framing, body: &[u8]) -> Vec<u8> {
    let mut request = head.as_bytes().to_vec();
    match framing {
        Framing::Length => {
            request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            request.extend_from_slice(body);
        }
        Framing::Chunked(bytes) => {
            request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(bytes) {
                request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                request.extend_from_slice(chunk);
                request.extend_from_slice(b"\r\n");
            }
            request.extend_from_slice(b"0\r\n\r\n");
        }
    }
    request
}

/// A POST of `body` with a content type and a length.
pub(crate) fn post(route: &str, content_type: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {route} HTTP/1.1\r\nHost: test\r\nContent-Type: {content_type}\r\n{headers}");
    framed(&head, Framing::Length, body)
}

/// A request without a body.
pub(crate) fn bare(method: &str, route: &str, headers: &str) -> Vec<u8> {
    format!("{method} {route} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").into_bytes()
}
