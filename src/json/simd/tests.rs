//! Every instruction set gives what a loop over bytes gives.

use super::*;

/// The tests' numbers: a seed makes them the same everywhere.
fn random_from(seed: u64) -> impl FnMut() -> u64 {
    let mut state = std::env::var("TIDEGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed);
    eprintln!("TIDEGATE_TEST_SEED={state}");
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn bits(block: &[u8; BLOCK_BYTES], class: impl Fn(u8) -> bool) -> u64 {
    block.iter().enumerate().fold(0, |bits, (at, byte)| bits | u64::from(class(*byte)) << at)
}

fn masks_by_byte(block: &[u8; BLOCK_BYTES]) -> Masks {
    Masks {
        quote: bits(block, |byte| byte == b'"'),
        backslash: bits(block, |byte| byte == b'\\'),
        control: bits(block, |byte| byte < 0x20),
        separator: bits(block, |byte| b" \t\n\r{}[]:,\"".contains(&byte)),
        structural: bits(block, |byte| b"{}[]:,".contains(&byte)),
        high: bits(block, |byte| byte >= 0x80),
        line_feed: bits(block, |byte| byte == b'\n'),
    }
}

fn gathered_by_byte(block: &[u8; BLOCK_BYTES], wanted: u64) -> Vec<u8> {
    let bytes = block.iter().enumerate().filter(|(at, _)| wanted >> at & 1 == 1).map(|(_, byte)| *byte);
    bytes.map(|byte| if byte.is_ascii_digit() || byte == b'-' { b'0' } else { byte }).collect()
}

/// Everything a set does with one block and one word of bits.
struct Check<'a> {
    block: &'a [u8; BLOCK_BYTES],
    wanted: u64,
    name: &'static str,
}

impl Work for Check<'_> {
    type Output = ();

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) {
        let Self { block: bytes, wanted, name } = self;
        let block = simd.load(bytes);
        assert_eq!(simd.masks(block), masks_by_byte(bytes), "{name}: {bytes:?}");
        let masks = masks_by_byte(bytes);
        let is_plain = masks.backslash | masks.control | masks.high == 0;
        let Masks { quote, separator, structural, .. } = masks;
        let plain = is_plain.then_some(Plain { quote, separator, structural });
        assert_eq!(simd.plain(block), plain, "{name}: {bytes:?}");
        let braces = (bits(bytes, |byte| byte == b'{'), bits(bytes, |byte| byte == b'}'));
        assert_eq!(simd.braces(block), braces, "{name}: {bytes:?}");
        let letters = bits(bytes, |byte| b"\"\\/bfnrtu".contains(&byte));
        assert_eq!(simd.escapes(block), (letters, bits(bytes, |byte| byte == b'u')), "{name}: {bytes:?}");
        let expected = gathered_by_byte(bytes, wanted);
        let mut out = [0xee; BLOCK_BYTES];
        simd.gather(block, wanted, &mut out);
        let out: Vec<u8> = out[..expected.len()]
            .iter()
            .zip(&expected)
            .map(|(byte, expected)| {
                // What a byte above ASCII becomes is a set's own affair, as long as it is no token.
                if *expected >= 0x80 && !b"{}[]:,\"0tfn".contains(byte) { *expected } else { *byte }
            })
            .collect();
        assert_eq!(out, expected, "{name}: {wanted:#x} of {bytes:?}");
        let mut parity = 0;
        let running = (0..64).fold(0, |bits, at| {
            parity ^= wanted >> at & 1;
            bits | parity << at
        });
        assert_eq!(simd.prefix_xor(wanted), running, "{name}: {wanted:#x}");
        let len = (wanted % BLOCK_BYTES as u64) as usize;
        let mut front = [0; BLOCK_BYTES];
        front[..len].copy_from_slice(&bytes[..len]);
        let of_front = simd.masks(simd.load_front(&bytes[..len]));
        assert_eq!(of_front, masks_by_byte(&front), "{name}: {len} of {bytes:?}");
        assert!(simd.equal(&bytes[..len], &front[..len]), "{name}");
    }
}

fn check(block: &[u8; BLOCK_BYTES], wanted: u64) {
    for level in Level::all() {
        level.run(Check { block, wanted, name: level.name() });
    }
}

#[test]
fn every_byte_at_every_place_gets_its_bits_and_no_others() {
    for byte in 0..=255u8 {
        for at in (0..BLOCK_BYTES).step_by(if cfg!(miri) { 21 } else { 1 }) {
            // Neighbours one off: the ones a carry would make look equal.
            for neighbour in [byte ^ 1, byte ^ 0x80, byte.wrapping_add(1), 0, 0xff] {
                let mut block = [neighbour; BLOCK_BYTES];
                block[at] = byte;
                check(&block, 1 << at);
            }
            if cfg!(miri) && byte % 16 != 2 {
                break;
            }
        }
    }
}

#[test]
fn random_blocks_at_every_alignment_are_the_same_to_every_set() {
    let mut random = random_from(0x51d);
    for round in 0..if cfg!(miri) { 10 } else { 20_000 } {
        let letters: &[u8] =
            if round % 2 == 0 { b"{}[]:,\"\\ \t\r\nu019-.eEtfnx\0\x0c\x1a\x1f\x7f\x80\xc3\xff" } else { &[] };
        let bytes: Vec<u8> = (0..2 * BLOCK_BYTES)
            .map(|_| {
                let number = random() as usize;
                if letters.is_empty() { number as u8 } else { letters[number % letters.len()] }
            })
            .collect();
        let start = round % BLOCK_BYTES;
        let wanted = random() << 33 ^ random() << 16 ^ random();
        let block = bytes[start..].first_chunk().expect("two blocks are there");
        for wanted in [wanted, wanted & random() << 20, 0, u64::MAX] {
            check(block, wanted);
        }
    }
}

/// Whether two strings of tokens are equal.
struct Equal<'a>(&'a [u8], &'a [u8]);

impl Work for Equal<'_> {
    type Output = bool;

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> bool {
        simd.equal(self.0, self.1)
    }
}

#[test]
fn one_byte_of_difference_anywhere_is_seen() {
    for len in (0..300).step_by(if cfg!(miri) { 67 } else { 1 }) {
        let left: Vec<u8> = (0..len).map(|at| at as u8).collect();
        for level in Level::all() {
            assert!(level.run(Equal(&left, &left)), "{level}: {len} bytes");
            for at in 0..len {
                let mut right = left.clone();
                right[at] ^= 1 << (at % 8);
                assert!(!level.run(Equal(&left, &right)), "{level}: byte {at} of {len}");
            }
        }
    }
}

#[test]
fn the_best_level_is_one_this_cpu_has() {
    let all = Level::all();
    assert_eq!(all[0], Level::portable());
    assert_eq!(Some(&Level::best()), all.last());
    let names: Vec<String> = all.iter().map(Level::to_string).collect();
    eprintln!("tested: {}", names.join(", "));
}
