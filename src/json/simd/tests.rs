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

/// Bytes that are tokens themselves.
fn is_kept(byte: u8) -> bool {
    byte < 0x20 || b"{}[]:,\"".contains(&byte)
}

fn gathered_by_byte(block: &[u8; BLOCK_BYTES], wanted: u64) -> Vec<u8> {
    let bytes = block.iter().enumerate().filter(|(at, _)| wanted >> at & 1 == 1).map(|(_, byte)| *byte);
    bytes.map(|byte| if is_kept(byte) { byte } else { b'0' }).collect()
}

/// Everything a set does with one block and one word of bits.
struct Check<'a> {
    block: &'a [u8; BLOCK_BYTES],
    wanted: u64,
    name: &'static str,
    /// Where it stores tokens.
    tokens: &'a mut Tokens,
}

impl Work for Check<'_> {
    type Output = ();

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) {
        let Self { block: bytes, wanted, name, tokens } = self;
        let block = simd.load(bytes);
        assert_eq!(simd.masks(block), masks_by_byte(bytes), "{name}: {bytes:?}");
        let masks = masks_by_byte(bytes);
        let plain = simd.plain(block);
        assert_eq!(plain.rare, masks.backslash | masks.control | masks.high, "{name}: {bytes:?}");
        assert_eq!(plain.separator & plain.rare, masks.line_feed, "{name}: {bytes:?}");
        for (ours, expected) in
            [(plain.quote, masks.quote), (plain.separator, masks.separator), (plain.structural, masks.structural)]
        {
            assert_eq!((ours ^ expected) & !plain.rare, 0, "{name}: {bytes:?}");
        }
        let window = bytes.first_chunk::<WINDOW_BYTES>().expect("a window is shorter");
        let digits = bits(bytes, |byte| byte.is_ascii_digit()) & ((1 << WINDOW_BYTES) - 1);
        assert_eq!(simd.digits(window), digits, "{name}: {bytes:?}");
        let braces = (bits(bytes, |byte| byte == b'{'), bits(bytes, |byte| byte == b'}'));
        assert_eq!(simd.braces(block), braces, "{name}: {bytes:?}");
        let letters = bits(bytes, |byte| b"\"\\/bfnrtu".contains(&byte));
        assert_eq!(simd.escapes(block), (letters, bits(bytes, |byte| byte == b'u')), "{name}: {bytes:?}");
        let tokens_wanted = wanted & !bits(bytes, |byte| byte == b' ');
        let expected = gathered_by_byte(bytes, tokens_wanted);
        simd.append(block, tokens_wanted, 0, tokens);
        assert_eq!(&tokens[..expected.len()], expected, "{name}: {wanted:#x} of {bytes:?}");
        // Of neighbours only one begins something.
        let (starts, mut places) = (wanted & !(wanted << 1), [0; BLOCK_BYTES / 2]);
        simd.note(starts, starts.count_ones() as usize, 1000, &mut places);
        let expected: Vec<u32> = (0..64).filter(|at| starts >> at & 1 == 1).map(|at| 1000 + at).collect();
        assert_eq!(&places[..expected.len()], expected, "{name}: {starts:#x}");
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
    }
}

fn check(block: &[u8; BLOCK_BYTES], wanted: u64, tokens: &mut Tokens) {
    for level in Level::all() {
        level.run(Check { block, wanted, name: level.name(), tokens });
    }
}

#[test]
fn every_byte_at_every_place_gets_its_bits_and_no_others() {
    let mut tokens = Box::new([0; TOKENS_ROOM]);
    // An interpreter is slow, and portable code takes bytes one like the other: few of them, at few places.
    for byte in (0..=255u8).step_by(if cfg!(miri) { 29 } else { 1 }) {
        for at in (0..BLOCK_BYTES).step_by(if cfg!(miri) { 63 } else { 1 }) {
            // Neighbours one off: the ones a carry would make look equal.
            let neighbours = [byte ^ 1, byte ^ 0x80, byte.wrapping_add(1), 0, 0xff];
            for neighbour in &neighbours[..if cfg!(miri) { 1 } else { 5 }] {
                let mut block = [*neighbour; BLOCK_BYTES];
                block[at] = byte;
                check(&block, 1 << at, &mut tokens);
            }
        }
    }
}

#[test]
fn random_blocks_at_every_alignment_are_the_same_to_every_set() {
    let mut random = random_from(0x51d);
    let mut tokens = Box::new([0; TOKENS_ROOM]);
    for round in 0..if cfg!(miri) { 4 } else { 20_000 } {
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
        for wanted in [wanted, wanted & random() << 20, 0, u64::MAX, 0x5555_5555_5555_5555] {
            check(block, wanted, &mut tokens);
        }
    }
}

/// Appends to tokens from blocks with as many wanted as a test likes.
struct Gather<'a> {
    blocks: &'a [([u8; BLOCK_BYTES], u64)],
    name: &'static str,
}

impl Work for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) {
        let Self { blocks, name } = self;
        let mut tokens = [0xee; TOKENS_ROOM];
        let (mut count, mut expected) = (0, Vec::new());
        for (bytes, wanted) in blocks {
            simd.append(simd.load(bytes), *wanted, count, &mut tokens);
            count += wanted.count_ones() as usize;
            expected.extend(gathered_by_byte(bytes, *wanted));
            assert_eq!(&tokens[..count], expected, "{name}");
        }
    }
}

#[test]
fn tokens_of_many_blocks_stand_in_their_order() {
    let mut random = random_from(0x70c);
    for round in 0..if cfg!(miri) { 2 } else { 200 } {
        let blocks: Vec<([u8; BLOCK_BYTES], u64)> = (0..if cfg!(miri) { 4 } else { 64 })
            .map(|_| {
                let mut block = [0; BLOCK_BYTES];
                for byte in &mut block {
                    *byte = random() as u8;
                }
                let wanted = (random() << 33 ^ random() << 16 ^ random()) & !bits(&block, |byte| byte == b' ');
                // None, few, half, all.
                let few = wanted & random() << 20 & random() << 7;
                let all = !bits(&block, |byte| byte == b' ');
                (block, [0, few, wanted, all][(random() as usize + round) % 4])
            })
            .collect();
        for level in Level::all() {
            level.run(Gather { blocks: &blocks, name: level.name() });
        }
    }
}

/// Whether two strings of tokens are equal, and their hashes.
struct Equal<'a>(&'a [u8], &'a [u8], usize);

impl Work for Equal<'_> {
    type Output = (bool, bool);

    #[inline(always)]
    fn with<S: Simd>(self, simd: S) -> (bool, bool) {
        let Self(left, right, count) = self;
        (simd.equal(left, right, count), simd.hash(left, count) == simd.hash(right, count))
    }
}

#[test]
fn one_byte_of_difference_anywhere_is_seen_and_what_is_behind_is_not() {
    let longest = if cfg!(miri) { 300 } else { 4096 };
    let mut left = vec![0; longest + COMPARED_AT_ONCE];
    for (at, byte) in left.iter_mut().enumerate() {
        // Nothing that is folded.
        *byte = b'a' + (at % 16) as u8;
    }
    for len in (1..300).step_by(if cfg!(miri) { 131 } else { 1 }).chain(if cfg!(miri) { None } else { Some(longest) }) {
        for level in Level::all() {
            let mut right = left.clone();
            right[len..].fill(0xee);
            assert_eq!(level.run(Equal(&left, &right, len)), (true, true), "{level}: {len} bytes");
            for at in (0..len).step_by(if len < 300 && !cfg!(miri) { 1 } else { 61 }) {
                right[at] ^= 1 << (at % 3);
                // The hash need not tell them apart, but should where it looks.
                let (is_equal, same_hash) = level.run(Equal(&left, &right, len));
                assert!(!is_equal, "{level}: byte {at} of {len}");
                assert!(!same_hash || at >= 512, "{level}: byte {at} of {len}");
                right[at] = left[at];
            }
        }
    }
}

#[test]
fn the_widest_set_is_best_and_without_one_the_parser_if_it_has_vectors() {
    let all = Level::all();
    assert_eq!(all[0], Level::portable());
    for parser_has_vectors in [false, true] {
        let without = if parser_has_vectors { Level::parser() } else { Level::portable() };
        assert_eq!(Level::best_of(&[Level::portable()], parser_has_vectors), without);
        for end in 2..=all.len() {
            assert_eq!(Level::best_of(&all[..end], parser_has_vectors), all[end - 1]);
        }
    }
    if all.len() > 1 {
        assert_eq!(Some(&Level::best()), all.last());
    }
    let names: Vec<String> = all.iter().map(Level::to_string).collect();
    eprintln!("tested: {}", names.join(", "));
}
