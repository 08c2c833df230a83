//! Copies of one kind's images in the memory that is sent from: taken, patched, sent, given back. Generator thread.
//!
//! A copy belongs to a send from its taking until the send has completed, not until the answer: the kernel has the bytes
//! by then. So a few copies serve many connections, and stay in the cache; more are made only when all are being sent.
//!
//! A lane that *repeats* makes each copy's body once, numbers and compression included, and sends it again and again: what
//! a request costs the generator is then a small part of what it costs any server.

use std::collections::VecDeque;
use std::io;

use super::compress::{Compressor, Encoding};
use super::image::Image;
use crate::sys::memory::Area;
use crate::sys::ring::Part;

/// Copies are aligned to cache lines.
const ALIGNMENT: usize = 64;
/// What the copies that are made beforehand take at most; then they are used in turn, so all templates are seen, and
/// are still in the core's second-level cache when their turn comes again.
const WARM_BYTES: usize = 512 << 10;

/// The copies of one kind.
pub struct Lane {
    images: Vec<Image>,
    encoding: Encoding,
    repeats: bool,
    base: usize,
    stride: usize,
    copies_max: usize,
    copies: usize,
    free: VecDeque<u32>,
    /// Patched and still uncompressed.
    scratch: Vec<u8>,
    /// Of each copy whose body is made once, its bytes.
    made_bytes: Vec<usize>,
}

/// What a request is patched with.
pub struct Patch<'a> {
    /// Number of its first event.
    pub first: u64,
    /// The API key and the width of its field.
    pub key: Option<(&'a [u8], usize)>,
    /// Whether the connection ends with it.
    pub closes: bool,
}

impl Lane {
    /// Bytes of memory that a lane of `copies_max` copies needs.
    #[must_use]
    pub fn bytes(images: &[Image], encoding: Encoding, copies_max: usize) -> usize {
        Self::stride(images, encoding) * copies_max
    }

    /// A lane in the memory from `base` on, which makes bodies anew for each send or `repeats` them.
    #[must_use]
    pub fn new(images: Vec<Image>, encoding: Encoding, repeats: bool, base: usize, copies_max: usize) -> Self {
        let stride = Self::stride(&images, encoding);
        // Compressed bodies are not patched in place, so a GET is not compressed but has no body to patch either.
        let longest = images.iter().map(|image| image.bytes.len()).max().expect("at least one image");
        Self {
            encoding,
            repeats,
            base,
            stride,
            copies_max,
            copies: 0,
            free: VecDeque::with_capacity(copies_max),
            images,
            scratch: Vec::with_capacity(longest),
            made_bytes: if repeats { vec![0; copies_max] } else { Vec::new() },
        }
    }

    fn stride(images: &[Image], encoding: Encoding) -> usize {
        let bytes = |image: &Image| image.body_at + encoding.bytes_max(image.bytes.len() - image.body_at);
        images.iter().map(bytes).max().expect("at least one image").next_multiple_of(ALIGNMENT)
    }

    /// Makes the copies that will be used in turn.
    pub(crate) fn warm(&mut self, area: &mut Area) {
        let count = self.images.len().max(WARM_BYTES / self.stride).min(self.copies_max).max(1);
        while self.copies < count {
            let copy = self.make(area);
            self.free.push_back(copy);
        }
    }

    fn make(&mut self, area: &mut Area) -> u32 {
        assert!(self.copies < self.copies_max, "more sends under way than connections allow");
        let copy = self.copies;
        self.copies += 1;
        let image = &self.images[copy % self.images.len()];
        let at = self.base + copy * self.stride;
        area.slice_mut(at, image.bytes.len().min(self.stride))
            .copy_from_slice(&image.bytes[..image.bytes.len().min(self.stride)]);
        copy as u32
    }

    /// A patched request: its copy, to be given back after the send, and its bytes.
    ///
    /// # Errors
    /// If it could not be compressed.
    pub(crate) fn take(
        &mut self,
        area: &mut Area,
        patch: &Patch<'_>,
        compressor: &mut Compressor,
    ) -> io::Result<(u32, Part)> {
        let copy = match self.free.pop_front() {
            Some(copy) => copy,
            None => self.make(area),
        };
        let offset = self.base + copy as usize * self.stride;
        let image = &self.images[copy as usize % self.images.len()];
        if let Some(made) = self.made_bytes.get(copy as usize).filter(|made| **made > 0) {
            patch.apply_to_head(image, area.slice_mut(offset, image.body_at));
            return Ok((copy, Part { offset, bytes: *made }));
        }
        let part = self.build(copy, offset, area, patch, compressor)?;
        if self.repeats {
            self.made_bytes[copy as usize] = part.bytes;
        }
        Ok((copy, part))
    }

    fn build(
        &mut self,
        copy: u32,
        offset: usize,
        area: &mut Area,
        patch: &Patch<'_>,
        compressor: &mut Compressor,
    ) -> io::Result<Part> {
        let image = &self.images[copy as usize % self.images.len()];
        let has_body = image.body_at < image.bytes.len();
        if self.encoding == Encoding::Identity || !has_body {
            let bytes = area.slice_mut(offset, image.bytes.len());
            patch.apply(image, bytes);
            return Ok(Part { offset, bytes: image.bytes.len() });
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&image.bytes);
        patch.apply(image, &mut self.scratch);
        let bytes = area.slice_mut(offset, self.stride);
        let body_bytes = compressor.compress(&self.scratch[image.body_at..], &mut bytes[image.body_at..])?;
        image.write_length(&mut self.scratch, body_bytes);
        bytes[..image.body_at].copy_from_slice(&self.scratch[..image.body_at]);
        Ok(Part { offset, bytes: image.body_at + body_bytes })
    }

    /// Gives a copy back whose send has completed.
    pub fn give_back(&mut self, copy: u32) {
        debug_assert!((copy as usize) < self.copies);
        self.free.push_back(copy);
    }
}

impl Patch<'_> {
    fn apply(&self, image: &Image, bytes: &mut [u8]) {
        image.write_numbers(bytes, self.first);
        self.apply_to_head(image, bytes);
    }

    fn apply_to_head(&self, image: &Image, bytes: &mut [u8]) {
        if let Some((key, width)) = self.key {
            image.write_key(bytes, key, width);
        }
        image.write_connection(bytes, self.closes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Run, TemplateKind, Templates};
    use crate::request::{Format, HeadOptions, Kind, KindOptions, images};

    fn lane(encoding: Encoding, copies_max: usize) -> (Lane, Area) {
        lane_that(false, encoding, copies_max)
    }

    fn lane_that(repeats: bool, encoding: Encoding, copies_max: usize) -> (Lane, Area) {
        let options = KindOptions {
            kind: Kind::Events,
            batch: 3,
            format: Format::Ndjson,
            path: None,
            content_type: None,
            echo_bytes: 0,
        };
        let head = HeadOptions { encoding, repeats, key_bytes: 4, may_close: true, ..HeadOptions::default() };
        let images = images(&options, &head, &Templates::generated(TemplateKind::Attribution, Run(1), 1));
        let area = Area::map(Lane::bytes(&images, encoding, copies_max)).unwrap();
        (Lane::new(images, encoding, repeats, 0, copies_max), area)
    }

    #[test]
    fn copies_under_way_are_never_patched_again() {
        let (mut lane, mut area) = lane(Encoding::Identity, 40);
        let mut compressor = Compressor::new(Encoding::Identity);
        lane.warm(&mut area);
        let mut under_way = Vec::new();
        for first in 0..40 {
            let patch = Patch { first: first * 3, key: None, closes: false };
            under_way.push((first * 3, lane.take(&mut area, &patch, &mut compressor).unwrap()));
        }
        for (first, (copy, part)) in under_way {
            let text = String::from_utf8_lossy(area.slice(part.offset, part.bytes)).into_owned();
            assert!(text.contains(&format!("-{first:016}\"")) && text.contains(&format!("-{:016}\"", first + 2)));
            lane.give_back(copy);
        }
    }

    #[test]
    fn a_compressed_request_says_its_length_and_holds_its_numbers() {
        use std::io::Read;
        let (mut lane, mut area) = lane(Encoding::Gzip, 4);
        let mut compressor = Compressor::new(Encoding::Gzip);
        let patch = Patch { first: 70, key: None, closes: false };
        let (_, part) = lane.take(&mut area, &patch, &mut compressor).unwrap();
        let bytes = area.slice(part.offset, part.bytes);
        let body_at = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&bytes[..body_at]).into_owned();
        assert!(head.contains(&format!("Content-Length: {:>8}\r\n", part.bytes - body_at)), "{head}");
        let mut body = String::new();
        flate2::read::GzDecoder::new(&bytes[body_at..]).read_to_string(&mut body).unwrap();
        assert!(body.contains("-0000000000000072\"") && body.lines().count() == 3);
    }

    #[test]
    fn a_repeated_body_is_made_once_and_its_head_still_says_whose_it_is() {
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let (mut lane, mut area) = lane_that(true, encoding, 1);
            let mut compressor = Compressor::new(encoding);
            let mut send = |first, key: &[u8], closes| {
                let patch = Patch { first, key: Some((key, 4)), closes };
                let (copy, part) = lane.take(&mut area, &patch, &mut compressor).unwrap();
                lane.give_back(copy);
                let bytes = area.slice(part.offset, part.bytes).to_vec();
                let body_at = memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap() + 4;
                (String::from_utf8(bytes[..body_at].to_vec()).unwrap(), bytes[body_at..].to_vec())
            };
            let ((one_head, one_body), (other_head, other_body)) = (send(3, b"one", false), send(6, b"two", true));
            assert_eq!(one_body, other_body);
            assert!(one_head.contains("X-API-Key: one \r\n") && one_head.contains("keep-alive"), "{one_head}");
            assert!(other_head.contains("X-API-Key: two \r\n") && other_head.contains("close"), "{other_head}");
        }
    }
}
