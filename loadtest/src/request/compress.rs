//! Compression of a patched body. Generator thread; its state is made once.
//!
//! A compressed body cannot be patched, so it is compressed for each send. That costs the generator several times what
//! it costs a server to undo: its busy fraction says when it is the limit.

use std::io;

use flate2::{Compress, Compression, FlushCompress, Status};
use serde::{Deserialize, Serialize};

/// zstd's fastest ordinary level: what clients that send events choose.
const ZSTD_LEVEL: i32 = 1;
/// Bits of gzip's window: all of it.
const GZIP_WINDOW_BITS: u8 = 15;

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip (RFC 1952), fastest level.
    Gzip,
    /// zstd (RFC 8878), level 1.
    Zstd,
}

impl Encoding {
    /// Value of `Content-Encoding`; `None` for none.
    #[must_use]
    pub fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The longest that a body of `bytes` can become.
    #[must_use]
    pub fn bytes_max(self, bytes: usize) -> usize {
        match self {
            Self::Identity => bytes,
            // At its fastest level zlib may spend 9 bits on a byte; header and trailer are 18 bytes.
            Self::Gzip => bytes + bytes / 7 + 64,
            Self::Zstd => zstd_safe::compress_bound(bytes),
        }
    }
}

/// Compresses bodies one after the other.
pub struct Compressor {
    method: Method,
}

enum Method {
    Identity,
    Gzip(Compress),
    Zstd(zstd_safe::CCtx<'static>),
}

impl Compressor {
    /// One for an encoding.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        let method = match encoding {
            Encoding::Identity => Method::Identity,
            Encoding::Gzip => Method::Gzip(Compress::new_gzip(Compression::fast(), GZIP_WINDOW_BITS)),
            Encoding::Zstd => Method::Zstd(zstd_safe::CCtx::create()),
        };
        Self { method }
    }

    /// Compresses `body` to the front of `out`, which holds [`Encoding::bytes_max`]; its length.
    ///
    /// # Errors
    /// If it does not fit, which the bound excludes.
    pub fn compress(&mut self, body: &[u8], out: &mut [u8]) -> io::Result<usize> {
        match &mut self.method {
            Method::Identity => {
                out[..body.len()].copy_from_slice(body);
                Ok(body.len())
            }
            Method::Gzip(gzip) => {
                gzip.reset();
                match gzip.compress(body, out, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => Ok(gzip.total_out() as usize),
                    other => Err(io::Error::other(format!("gzip: {other:?}"))),
                }
            }
            Method::Zstd(zstd) => zstd
                .compress(out, body, ZSTD_LEVEL)
                .map_err(|code| io::Error::other(format!("zstd: {}", zstd_safe::get_error_name(code)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_compressed_is_what_comes_back_again_and_again() {
        let mut random = Random::new(5, 1);
        let noise: Vec<u8> = (0..50_000).map(|_| random.next_u64() as u8).collect();
        let text = br#"{"event_id":"x","n":1}"#.repeat(3000);
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
            let mut compressor = Compressor::new(encoding);
            for body in [text.as_slice(), &noise, b"{}", &text] {
                let mut out = vec![0; encoding.bytes_max(body.len())];
                let bytes = compressor.compress(body, &mut out).unwrap();
                let back = match encoding {
                    Encoding::Identity => out[..bytes].to_vec(),
                    Encoding::Gzip => {
                        let mut back = Vec::new();
                        flate2::read::GzDecoder::new(&out[..bytes]).read_to_end(&mut back).unwrap();
                        back
                    }
                    Encoding::Zstd => {
                        let mut back = vec![0; body.len()];
                        zstd_safe::decompress(back.as_mut_slice(), &out[..bytes]).unwrap();
                        back
                    }
                };
                assert!(back == body, "{encoding:?}, {} bytes", body.len());
            }
        }
    }
}
