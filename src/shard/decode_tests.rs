//! What [`super::Decoder`] promises: the same bytes in pieces of any size, and no damage unnoticed.

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
    (0..2000).flat_map(|index: u32| format!("{{\"event_id\":\"e-{}\"}}\n", index * 7919 % 2000).into_bytes()).collect()
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
