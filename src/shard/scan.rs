//! Finds the brace that closes an object, 64 bytes at a time. Shard thread; pure.
//!
//! Sixty-four bytes become one word per class of byte: quotes, backslashes, braces. Escaped quotes are struck out, the
//! running XOR of the rest tells what lies inside strings, and only the braces outside are looked at one by one. An
//! event has few of those. Brackets are not counted: in a valid object they pair up between braces, and an invalid
//! one is refused by the validator whatever its end is taken to be.

/// Bytes looked at in one step: one bit of a word each.
const BLOCK_BYTES: usize = 64;

/// A place inside an object, kept between inputs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ObjectScanner {
    /// Braces open; 0 before the first.
    depth: u32,
    /// All ones inside a string.
    in_string: u64,
    /// 1 if the last byte was a backslash that escapes the next.
    escape: u64,
}

impl ObjectScanner {
    /// Goes on through `bytes`; the first byte of an object is its opening brace. Returns the index after the brace
    /// that closes it, or `None` if that has not come yet.
    #[inline]
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
        let mut at = 0;
        for block in &mut blocks {
            let block = block.try_into().expect("blocks are of one size");
            if let Some(end) = self.block(block, BLOCK_BYTES) {
                return Some(at + end);
            }
            at += BLOCK_BYTES;
        }
        let rest = blocks.remainder();
        if rest.is_empty() {
            return None;
        }
        let mut padded = [0; BLOCK_BYTES];
        padded[..rest.len()].copy_from_slice(rest);
        self.block(&padded, rest.len()).map(|end| at + end)
    }

    /// One block of which `len` bytes count; the others are zero.
    #[inline]
    fn block(&mut self, block: &[u8; BLOCK_BYTES], len: usize) -> Option<usize> {
        let masks = Masks::of(block);
        let quotes = masks.quotes & !self.escaped(masks.backslashes, len);
        let strings = prefix_xor(quotes) ^ self.in_string;
        // The last bit, copied to all. Padding has no quotes, so it is the state after byte `len - 1`.
        self.in_string = ((strings as i64) >> 63) as u64;
        let open = masks.open & !strings;
        let mut close = masks.close & !strings;
        if close.count_ones() < self.depth {
            self.depth = self.depth + open.count_ones() - close.count_ones();
            return None;
        }
        // The end may lie here: after each closing brace, what was opened before it and not closed by others before it.
        let mut closed = 0;
        while close != 0 {
            let at = close.trailing_zeros();
            closed += 1;
            if self.depth + (open & ((1 << at) - 1)).count_ones() <= closed {
                return Some(at as usize + 1);
            }
            close &= close - 1;
        }
        self.depth = self.depth + open.count_ones() - closed;
        None
    }

    /// The bytes that a backslash before them escapes. Backslashes are few, so one by one.
    #[inline]
    fn escaped(&mut self, mut backslashes: u64, len: usize) -> u64 {
        let mut escaped = self.escape;
        backslashes &= !self.escape;
        self.escape = 0;
        while backslashes != 0 {
            let at = backslashes.trailing_zeros();
            if at as usize + 1 == len {
                self.escape = 1;
                break;
            }
            // 2 << 63 would be the block after, which `len` excludes.
            let next = 2 << at;
            escaped |= next;
            backslashes &= !(next | (1 << at));
        }
        escaped
    }
}

/// A place inside an array's element that is of no use, kept between inputs. Byte by byte: this is the way of errors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ElementSkipper {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl ElementSkipper {
    /// Index of the comma or closing bracket that ends the element, or `None` if that has not come yet.
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b',' | b']' if self.depth == 0 => return Some(at),
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }
}

/// For each bit the XOR of it and all below: ones from an opening quote up to before the closing one.
#[inline]
const fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

/// One bit per byte of a block.
struct Masks {
    quotes: u64,
    backslashes: u64,
    open: u64,
    close: u64,
}

impl Masks {
    /// Eight bytes in a word at a time. Vector compares would do sixteen, but need unsafe, which has no place in this
    /// room, and this is not where the time goes.
    #[inline]
    fn of(block: &[u8; BLOCK_BYTES]) -> Self {
        const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        // Moves bit 8 * i to bit 56 + i, for each i.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let (words, _) = block.as_chunks::<8>();
        let mut masks = Self { quotes: 0, backslashes: 0, open: 0, close: 0 };
        for (eighth, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            let equal = |wanted: u8| {
                let differing = word ^ (u64::from(wanted) * 0x0101_0101_0101_0101);
                // The top bit of each byte that is zero; adding to the low seven bits carries into no other byte.
                let zero = !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS);
                ((zero >> 7).wrapping_mul(GATHER) >> 56) << (8 * eighth)
            };
            masks.quotes |= equal(b'"');
            masks.backslashes |= equal(b'\\');
            masks.open |= equal(b'{');
            masks.close |= equal(b'}');
        }
        masks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, byte by byte.
    fn reference(bytes: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
        for (at, byte) in bytes.iter().enumerate() {
            let was_escaped = std::mem::take(&mut escaped);
            match byte {
                b'\\' if !was_escaped => escaped = true,
                b'"' if !was_escaped => in_string = !in_string,
                b'{' if !in_string => depth += 1,
                b'}' if !in_string => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn in_pieces(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut scanner = ObjectScanner::default();
        let mut pieces = bytes.chunks(piece).enumerate();
        pieces.find_map(|(index, part)| scanner.find_end(part).map(|end| index * piece + end))
    }

    #[test]
    fn the_closing_brace_is_found_outside_strings_only() {
        for (text, end) in [
            ("{}", Some(2)),
            ("{}}", Some(2)),
            (r#"{"a":"}"} "#, Some(9)),
            (r#"{"a":"\"}"}"#, Some(11)),
            (r#"{"a":"\\"}"}"#, Some(10)),
            (r#"{"a":{"b":{}},"c":[{}]}{"#, Some(23)),
            (r#"{"a":]}"#, Some(7)),
            (r#"{"a":"#, None),
            (r#"{"a":"}"#, None),
        ] {
            assert_eq!(ObjectScanner::default().find_end(text.as_bytes()), end, "{text}");
        }
    }

    #[test]
    fn any_bytes_in_any_pieces_end_where_a_byte_by_byte_scan_ends() {
        let mut state = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
        eprintln!("SEED={state}");
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..if cfg!(miri) { 50 } else { 20_000 } {
            // Few letters, so that quotes and escapes meet in every order, and at every place of a block.
            let letters: &[u8] = if round % 2 == 0 { b"{}\"\\a" } else { b"{}\"\\aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xff" };
            let len = random() % 300;
            let mut bytes = vec![b'{'];
            bytes.extend((0..len).map(|_| letters[random() % letters.len()]));
            let expected = reference(&bytes);
            for piece in [bytes.len(), 1, 63, 64, 65, 1 + random() % bytes.len()] {
                assert_eq!(in_pieces(&bytes, piece), expected, "pieces of {piece} of {bytes:?}");
            }
        }
    }

    #[test]
    fn every_byte_at_every_place_gets_its_bit_and_no_other() {
        for byte in 0..=255u8 {
            for at in 0..BLOCK_BYTES {
                // Neighbours one off: the ones a carry would make look equal.
                let mut block = [byte ^ 1; BLOCK_BYTES];
                block[at] = byte;
                let masks = Masks::of(&block);
                for (mask, wanted) in
                    [(masks.quotes, b'"'), (masks.backslashes, b'\\'), (masks.open, b'{'), (masks.close, b'}')]
                {
                    let expected =
                        (0..BLOCK_BYTES).filter(|at| block[*at] == wanted).fold(0, |bits, at| bits | 1 << at);
                    assert_eq!(mask, expected, "{byte} at {at}");
                }
            }
        }
    }
}
