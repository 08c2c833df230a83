//! Compressed bodies, as streams: gzip (RFC 1952) and zstd (RFC 8878). Shard thread; pure.
//!
//! A [`Decoder`] turns pieces of input into pieces of output, both the caller's: it never holds a body. Its memory is
//! bounded by its kind (gzip 32 KiB of window, zstd [`ZSTD_WINDOW_LOG_MAX`]) and reused by [`Decoder::reset`], so a pool
//! of decoders allocates until it is warm and then no more. The size of what comes out is the caller's to bound.
//!
//! gzip is taken apart here, around a raw inflate: the backend's reset knows zlib and raw streams only, and bodies may
//! have several members. Checksums and lengths are checked; whatever follows the last member or frame and is none is
//! refused, and so is a body that ends within one.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::code::HttpError;
use super::request::Encoding;

/// Largest zstd window served, as a power of two: 8 MiB, what RFC 8878 §3.1.1.1.2 recommends every decoder to support.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes of name, comment and extra field in one gzip header.
const GZIP_HEADER_BYTES_MAX: u32 = 4096;

/// What one call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input used up.
    pub consumed: usize,
    /// Bytes of the output filled.
    pub produced: usize,
    /// A member or frame has ended here: the body may end too.
    pub at_end: bool,
}

/// Why a body cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The body, or what follows a member or frame, does not begin like one.
    BadHeader,
    /// The compressed data makes no sense.
    Corrupt,
    /// The data does not match its checksum or length.
    Checksum,
    /// A zstd frame that needs more memory than allowed.
    WindowTooLarge,
    /// The body ends within a member or frame.
    Truncated,
}

impl DecodeError {
    /// The fault in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BadHeader => "the body is not compressed as its Content-Encoding says, or something follows its end",
            Self::Corrupt => "the compressed body is corrupt",
            Self::Checksum => "the compressed body does not match its checksum",
            Self::WindowTooLarge => "the zstd window is over 8 MiB: compress without --long or --ultra",
            Self::Truncated => "the compressed body is cut off",
        }
    }
}

impl From<DecodeError> for HttpError {
    fn from(error: DecodeError) -> Self {
        Self::bad_request(error.text())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for DecodeError {}

/// Decompresses one body after the other. See the module text.
pub struct Decoder {
    kind: Kind,
}

enum Kind {
    Gzip(Gzip),
    Zstd(Zstd),
}

impl Decoder {
    /// A decoder for `encoding`; `None` if that needs none or none exists.
    ///
    /// # Panics
    /// If zstd cannot allocate its context.
    #[must_use]
    pub fn new(encoding: Encoding) -> Option<Self> {
        let kind = match encoding {
            Encoding::Gzip => Kind::Gzip(Gzip::new()),
            Encoding::Zstd => Kind::Zstd(Zstd::new()),
            Encoding::Identity | Encoding::Unsupported => return None,
        };
        Some(Self { kind })
    }

    /// Makes ready for another body, whatever became of the last one.
    pub fn reset(&mut self) {
        match &mut self.kind {
            Kind::Gzip(gzip) => gzip.reset(),
            Kind::Zstd(zstd) => zstd.reset(),
        }
    }

    /// Decompresses from the front of `input` to the front of `output` until one of them is used up. When `output` was
    /// filled there may be more to come of the same input: call again with what is left of it, even if that is nothing,
    /// until `produced < output.len()`.
    ///
    /// # Errors
    /// [`DecodeError`]; the decoder is of no use then until it is reset.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Decoded, DecodeError> {
        match &mut self.kind {
            Kind::Gzip(gzip) => gzip.decode(input, output),
            Kind::Zstd(zstd) => zstd.decode(input, output),
        }
    }

    /// Whether the body may end here. If it does and this is false, it is [`DecodeError::Truncated`].
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.kind {
            Kind::Gzip(gzip) => gzip.part == Part::Boundary,
            Kind::Zstd(zstd) => zstd.at_boundary,
        }
    }
}

/// Where in a gzip member the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The ten bytes every header has; so many were seen.
    Fixed(u8),
    /// Length of the extra field; so many bytes were seen.
    ExtraLen(u8),
    /// The extra field, so many bytes left.
    Extra(u16),
    /// The file name, up to its zero.
    Name,
    /// The comment, up to its zero.
    Comment,
    /// Checksum of the header; so many bytes were seen.
    HeaderCrc(u8),
    /// Compressed data.
    Body,
    /// Checksum and length of the data; so many bytes were seen.
    Trailer(u8),
    /// After a member.
    Boundary,
}

// Flags of a gzip header (RFC 1952 §2.3.1). Bit 0 says "probably text" and means nothing.
const HAS_HEADER_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

struct Gzip {
    inflate: Decompress,
    part: Part,
    flags: u8,
    header_bytes: u32,
    /// Of the header until the data begins, then of the data.
    crc: Crc,
    /// A little-endian number on its way.
    number: u64,
}

impl Gzip {
    fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            part: Part::Fixed(0),
            flags: 0,
            header_bytes: 0,
            crc: Crc::new(),
            number: 0,
        }
    }

    fn reset(&mut self) {
        self.inflate.reset(false);
        self.part = Part::Fixed(0);
        self.header_bytes = 0;
        self.crc.reset();
        self.number = 0;
    }

    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Decoded, DecodeError> {
        let (mut consumed, mut produced) = (0, 0);
        loop {
            if self.part == Part::Body {
                let (taken, made) = self.inflate(&input[consumed..], &mut output[produced..])?;
                consumed += taken;
                produced += made;
                if self.part == Part::Body {
                    // Input or output is used up.
                    break;
                }
            } else if let Some(byte) = input.get(consumed) {
                if self.part == Part::Boundary {
                    self.reset();
                }
                self.part = self.framing_byte(*byte)?;
                consumed += 1;
            } else {
                break;
            }
        }
        Ok(Decoded { consumed, produced, at_end: self.part == Part::Boundary })
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), DecodeError> {
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, output, FlushDecompress::None).map_err(|_| DecodeError::Corrupt)?;
        let taken = (self.inflate.total_in() - in_before) as usize;
        let made = (self.inflate.total_out() - out_before) as usize;
        self.crc.update(&output[..made]);
        if status == Status::StreamEnd {
            self.part = Part::Trailer(0);
            self.number = 0;
        }
        Ok((taken, made))
    }

    /// One byte of header or trailer; returns where the next one lies.
    fn framing_byte(&mut self, byte: u8) -> Result<Part, DecodeError> {
        let part = self.part;
        if !matches!(part, Part::Trailer(_) | Part::HeaderCrc(_)) {
            self.crc.update(&[byte]);
        }
        match part {
            Part::Fixed(at) => {
                match at {
                    0 if byte != 0x1f => return Err(DecodeError::BadHeader),
                    1 if byte != 0x8b => return Err(DecodeError::BadHeader),
                    // Deflate is the only method there is.
                    2 if byte != 8 => return Err(DecodeError::BadHeader),
                    3 if byte & RESERVED != 0 => return Err(DecodeError::BadHeader),
                    3 => self.flags = byte,
                    _ => {}
                }
                Ok(if at < 9 { Part::Fixed(at + 1) } else { self.after(HAS_EXTRA) })
            }
            Part::ExtraLen(0) => {
                self.number = u64::from(byte);
                Ok(Part::ExtraLen(1))
            }
            Part::ExtraLen(_) => Ok(match self.number as u16 | u16::from(byte) << 8 {
                0 => self.after(HAS_NAME),
                bytes => Part::Extra(bytes),
            }),
            Part::Extra(left) => {
                self.header_byte()?;
                Ok(if left > 1 { Part::Extra(left - 1) } else { self.after(HAS_NAME) })
            }
            Part::Name => {
                self.header_byte()?;
                Ok(if byte == 0 { self.after(HAS_COMMENT) } else { Part::Name })
            }
            Part::Comment => {
                self.header_byte()?;
                Ok(if byte == 0 { self.after(HAS_HEADER_CRC) } else { Part::Comment })
            }
            Part::HeaderCrc(0) => {
                self.number = u64::from(byte);
                Ok(Part::HeaderCrc(1))
            }
            Part::HeaderCrc(_) => {
                let claimed = self.number as u16 | u16::from(byte) << 8;
                if claimed != self.crc.sum() as u16 {
                    return Err(DecodeError::Checksum);
                }
                Ok(self.begin_body())
            }
            Part::Trailer(at) => {
                self.number |= u64::from(byte) << (8 * at);
                if at < 7 {
                    return Ok(Part::Trailer(at + 1));
                }
                // CRC32, then the length modulo 2^32.
                let intact = self.number as u32 == self.crc.sum()
                    && (self.number >> 32) as u32 == self.inflate.total_out() as u32;
                if intact { Ok(Part::Boundary) } else { Err(DecodeError::Checksum) }
            }
            Part::Body | Part::Boundary => unreachable!("{part:?} is not framing"),
        }
    }

    /// The first part of the header that is there, from the one `flag` stands for.
    fn after(&mut self, flag: u8) -> Part {
        let order = [
            (HAS_EXTRA, Part::ExtraLen(0)),
            (HAS_NAME, Part::Name),
            (HAS_COMMENT, Part::Comment),
            (HAS_HEADER_CRC, Part::HeaderCrc(0)),
        ];
        let mut rest = order.into_iter().skip_while(|(known, _)| *known != flag);
        match rest.find(|(known, _)| self.flags & known != 0) {
            Some((_, part)) => part,
            None => self.begin_body(),
        }
    }

    fn begin_body(&mut self) -> Part {
        self.crc.reset();
        Part::Body
    }

    fn header_byte(&mut self) -> Result<(), DecodeError> {
        self.header_bytes += 1;
        if self.header_bytes > GZIP_HEADER_BYTES_MAX { Err(DecodeError::BadHeader) } else { Ok(()) }
    }
}

struct Zstd {
    context: DCtx<'static>,
    /// A frame has ended and its last byte was handed out.
    at_boundary: bool,
    /// The last call filled its output: zstd may hold more.
    output_was_full: bool,
}

impl Zstd {
    fn new() -> Self {
        let mut context = DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).expect("a window log zstd knows");
        Self { context, at_boundary: false, output_was_full: false }
    }

    fn reset(&mut self) {
        self.context.reset(ResetDirective::SessionOnly).expect("a session can always be ended");
        self.at_boundary = false;
        self.output_was_full = false;
    }

    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Decoded, DecodeError> {
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(output);
        // Asked for more with nothing to give, zstd would wait for the next frame at a boundary, and count the call as
        // one without progress elsewhere.
        while target.pos() < target.capacity()
            && (source.pos() < input.len() || (self.output_was_full && !self.at_boundary))
        {
            let hint = self.context.decompress_stream(&mut target, &mut source).map_err(zstd_error)?;
            self.at_boundary = hint == 0;
            self.output_was_full = target.pos() == target.capacity();
        }
        Ok(Decoded { consumed: source.pos(), produced: target.pos(), at_end: self.at_boundary })
    }
}

fn zstd_error(code: usize) -> DecodeError {
    match zstd_safe::get_error_name(code) {
        "Unknown frame descriptor" => DecodeError::BadHeader,
        "Frame requires too much memory for decoding" => DecodeError::WindowTooLarge,
        "Restored data doesn't match checksum" => DecodeError::Checksum,
        _ => DecodeError::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_with(data: &[u8], window_log: u32) -> Vec<u8> {
        let mut context = zstd_safe::CCtx::create();
        context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
        context.set_parameter(zstd_safe::CParameter::WindowLog(window_log)).unwrap();
        let mut frame = vec![0; zstd_safe::compress_bound(data.len())];
        // As a stream of unknown length, so that the frame states its window.
        let (mut input, mut output) = (InBuffer::around(data), OutBuffer::around(&mut frame[..]));
        while input.pos() < data.len() {
            context.compress_stream(&mut output, &mut input).unwrap();
        }
        assert_eq!(context.end_stream(&mut output).unwrap(), 0);
        let bytes = output.pos();
        frame.truncate(bytes);
        frame
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd_with(data, 17)
    }

    /// Decodes with inputs and outputs of at most these sizes.
    fn decode(decoder: &mut Decoder, body: &[u8], input: usize, output: usize) -> Result<Vec<u8>, DecodeError> {
        decoder.reset();
        let mut buffer = vec![0; output];
        let mut data = Vec::new();
        for mut piece in body.chunks(input) {
            loop {
                let step = decoder.decode(piece, &mut buffer)?;
                data.extend_from_slice(&buffer[..step.produced]);
                piece = &piece[step.consumed..];
                assert_eq!(step.at_end, decoder.is_complete());
                if step.produced < output {
                    assert!(piece.is_empty(), "all input is used unless the output is full");
                    break;
                }
            }
        }
        if decoder.is_complete() { Ok(data) } else { Err(DecodeError::Truncated) }
    }

    const SIZES: [(usize, usize); 6] = [(usize::MAX, 1 << 20), (1, 1), (1, 1000), (1000, 1), (7, 13), (4096, 4096)];

    fn sample() -> Vec<u8> {
        (0..2000)
            .flat_map(|index: u32| format!("{{\"event_id\":\"e-{}\"}}\n", index * 7919 % 2000).into_bytes())
            .collect()
    }

    #[test]
    fn both_codings_come_back_in_pieces_of_any_size_from_a_reused_decoder() {
        let sample = sample();
        for (encoding, compress) in
            [(Encoding::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Encoding::Zstd, zstd as fn(&[u8]) -> Vec<u8>)]
        {
            let mut decoder = Decoder::new(encoding).unwrap();
            let (whole, empty, small) = (compress(&sample), compress(b""), compress(b"{}"));
            for (input, output) in SIZES {
                assert_eq!(decode(&mut decoder, &whole, input, output).as_ref(), Ok(&sample), "{encoding:?}");
                assert_eq!(decode(&mut decoder, &empty, input, output), Ok(vec![]), "{encoding:?}");
                let several = [&small[..], &empty, &whole, &small].concat();
                let expected = [b"{}", &sample[..], b"{}"].concat();
                assert_eq!(decode(&mut decoder, &several, input, output).as_ref(), Ok(&expected), "{encoding:?}");
            }
        }
        assert!(Decoder::new(Encoding::Identity).is_none() && Decoder::new(Encoding::Unsupported).is_none());
    }

    #[test]
    fn a_body_cut_anywhere_is_truncated_and_the_decoder_recovers() {
        for (encoding, body) in [(Encoding::Gzip, gzip(b"{\"a\":1}")), (Encoding::Zstd, zstd(b"{\"a\":1}"))] {
            let mut decoder = Decoder::new(encoding).unwrap();
            for end in 0..body.len() {
                assert_eq!(decode(&mut decoder, &body[..end], usize::MAX, 100), Err(DecodeError::Truncated), "{end}");
            }
            assert_eq!(decode(&mut decoder, &body, 3, 100).unwrap(), b"{\"a\":1}");
        }
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let data = b"{\"event_id\":\"0123456789\",\"a\":[1,2,3]}";
        for (encoding, body) in [(Encoding::Gzip, gzip(data)), (Encoding::Zstd, zstd(data))] {
            let mut decoder = Decoder::new(encoding).unwrap();
            for bit in 0..8 * body.len() {
                let mut flipped = body.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // Bytes 4 to 9 of gzip are time and origin, and bit 0 of the flags means nothing.
                let harmless = encoding == Encoding::Gzip && (bit == 24 || (32..80).contains(&bit));
                match decode(&mut decoder, &flipped, usize::MAX, 1000) {
                    Ok(decoded) if harmless => assert_eq!(decoded, data),
                    Ok(decoded) => assert_eq!(decoded, data, "{encoding:?} bit {bit} changed the data unnoticed"),
                    Err(_) => assert!(!harmless, "bit {bit}"),
                }
            }
        }
    }

    #[test]
    fn what_follows_the_end_is_refused() {
        for (encoding, body) in [(Encoding::Gzip, gzip(b"{}")), (Encoding::Zstd, zstd(b"{}"))] {
            let mut decoder = Decoder::new(encoding).unwrap();
            for (input, output) in SIZES {
                let garbage = [&body[..], b"garbage"].concat();
                assert_eq!(decode(&mut decoder, &garbage, input, output), Err(DecodeError::BadHeader));
                let zeros = [&body[..], &[0; 8]].concat();
                assert_eq!(decode(&mut decoder, &zeros, input, output), Err(DecodeError::BadHeader));
                let one = [&body[..], b"\x1f"].concat();
                assert!(decode(&mut decoder, &one, input, output).is_err());
            }
            assert_eq!(decode(&mut decoder, b"{\"a\":1}", 100, 100), Err(DecodeError::BadHeader), "not compressed");
        }
    }

    /// A header with every optional part, as RFC 1952 lays it out.
    fn full_header(name_bytes: usize) -> Vec<u8> {
        let flags = HAS_HEADER_CRC | HAS_EXTRA | HAS_NAME | HAS_COMMENT;
        let mut header = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3];
        header.extend_from_slice(b"\x03\0abc");
        header.extend(std::iter::repeat_n(b'n', name_bytes));
        header.extend_from_slice(b"\0comment\0");
        let mut crc = Crc::new();
        crc.update(&header);
        header.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
        header
    }

    #[test]
    fn optional_parts_of_a_gzip_header_are_skipped_checked_and_bounded() {
        let mut decoder = Decoder::new(Encoding::Gzip).unwrap();
        let plain = gzip(b"{}");
        let mut body = [&full_header(10)[..], &plain[10..]].concat();
        for (input, output) in SIZES {
            assert_eq!(decode(&mut decoder, &body, input, output).unwrap(), b"{}");
        }
        body[16] ^= 1;
        assert_eq!(decode(&mut decoder, &body, 100, 100), Err(DecodeError::Checksum));
        let mut no_extra = plain.clone();
        no_extra[3] = HAS_EXTRA;
        let no_extra = [&no_extra[..10], b"\0\0", &plain[10..]].concat();
        assert_eq!(decode(&mut decoder, &no_extra, 1, 1).unwrap(), b"{}");
        let long = [&full_header(GZIP_HEADER_BYTES_MAX as usize)[..], &plain[10..]].concat();
        assert_eq!(decode(&mut decoder, &long, 100, 100), Err(DecodeError::BadHeader));
        for (at, byte) in [(2, 7), (3, 0x20)] {
            let mut odd = plain.clone();
            odd[at] = byte;
            assert_eq!(decode(&mut decoder, &odd, 100, 100), Err(DecodeError::BadHeader));
        }
    }

    #[test]
    fn a_zstd_window_over_the_limit_is_refused_before_memory_is_taken() {
        let mut decoder = Decoder::new(Encoding::Zstd).unwrap();
        let within = zstd_with(b"{}", ZSTD_WINDOW_LOG_MAX);
        let over = zstd_with(b"{}", ZSTD_WINDOW_LOG_MAX + 1);
        assert_eq!(decode(&mut decoder, &within, 100, 100).unwrap(), b"{}");
        assert_eq!(decode(&mut decoder, &over, 100, 100), Err(DecodeError::WindowTooLarge));
    }

    #[test]
    fn a_bomb_comes_out_in_pieces_the_caller_can_count() {
        let zeros = vec![b' '; 8 << 20];
        for (encoding, body) in [(Encoding::Gzip, gzip(&zeros)), (Encoding::Zstd, zstd(&zeros))] {
            assert!(body.len() < zeros.len() / 500);
            let mut decoder = Decoder::new(encoding).unwrap();
            let mut output = [0; 4096];
            let step = decoder.decode(&body, &mut output).unwrap();
            assert_eq!((step.produced, step.at_end), (output.len(), false), "{encoding:?}");
        }
    }
}
