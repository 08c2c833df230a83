//! Texts to be judged: random ones, and valid ones changed a little in the ways that shapes could be blind to. Shared by
//! the tests of the json room.

use crate::random::Random;

/// Bytes that mean something to JSON or to its encoding, and neighbours of such.
pub(crate) const BYTES: &[u8] = b"{}[]:,\"\\ \t\r\n0-1.eE+tfnxu/\0\x01\x0c\x1a\x1f\x7f\x80\xa0\xa2\xbb\xc3\xdc\xfb\xff";

/// Pieces that JSON is made of, and some that it is not.
pub(crate) const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\"a\"",
    "\"a\":",
    "\"\\\"\"",
    "\\",
    "\\u",
    "\\ud83e\\udd80",
    "\\udd80",
    "0",
    "1",
    "-",
    "12.5",
    "1e5",
    "e",
    ".",
    "+",
    "true",
    "false",
    "null",
    "tru",
    " ",
    "\t",
    "\r",
    "\n",
    "é",
    "日",
    "🦀",
    "\u{0}",
    "\u{c}",
    "\u{1f}",
    "x",
    "00",
    "01",
    "{}",
    "[]",
    "},{",
    "\":\"",
    "\",\"",
    "123456789012345678901234567890",
    "1e999",
];

/// Appends random pieces, most often between braces.
pub(crate) fn pieces(random: &mut Random, text: &mut Vec<u8>) {
    if !random.one_in(8) {
        text.push(b'{');
    }
    for _ in 0..random.below(24) {
        text.extend_from_slice(random.pick(PIECES).as_bytes());
    }
    if random.one_in(2) {
        text.push(b'}');
    }
}

/// Appends up to 200 random bytes: of all, or of those that mean something, and then most often between braces.
pub(crate) fn bytes(random: &mut Random, text: &mut Vec<u8>) {
    let count = random.below(200);
    if random.one_in(4) {
        for _ in 0..count.div_ceil(8) {
            text.extend_from_slice(&random.next().to_le_bytes());
        }
        return;
    }
    if !random.one_in(8) {
        text.push(b'{');
    }
    for _ in 0..count / if random.one_in(2) { 16 } else { 1 } {
        text.push(*random.pick(BYTES));
    }
    if random.one_in(2) {
        text.push(b'}');
    }
}

/// A random value, mostly valid.
fn value(random: &mut Random, depth: u32, out: &mut Vec<u8>) {
    let white = |random: &mut Random, out: &mut Vec<u8>| {
        if random.one_in(12) {
            out.extend_from_slice([&b" "[..], b"\t", b"\r", b"  "][random.below(4) as usize]);
        }
    };
    white(random, out);
    match random.below(if depth == 0 { 6 } else { 8 }) {
        0 => out.extend_from_slice(random.pick(&["true", "false", "null"]).as_bytes()),
        1 => out.extend_from_slice(format!("{}", random.next() as i64 >> random.below(64)).as_bytes()),
        2 => out.extend_from_slice(format!("{}.{}", random.below(1000) as i64 - 500, random.below(1000)).as_bytes()),
        3 => out.extend_from_slice(format!("{}e{}", random.below(10), random.below(40) as i64 - 20).as_bytes()),
        4 | 5 => string(random, out),
        6 => {
            out.push(b'[');
            for at in 0..random.below(4) {
                if at > 0 {
                    out.push(b',');
                }
                value(random, depth - 1, out);
            }
            out.push(b']');
        }
        _ => object(random, depth - 1, out),
    }
    white(random, out);
}

/// Appends a random valid object, `depth` levels deep at most inside it.
pub(crate) fn object(random: &mut Random, depth: u32, out: &mut Vec<u8>) {
    out.push(b'{');
    for at in 0..random.below(6) {
        if at > 0 {
            out.push(b',');
        }
        string(random, out);
        out.push(b':');
        value(random, depth, out);
    }
    out.push(b'}');
}

fn string(random: &mut Random, out: &mut Vec<u8>) {
    out.push(b'"');
    for _ in 0..random.below(random.clone().below(60) + 1) {
        match random.below(24) {
            0 => out.extend_from_slice(
                random.pick(&["\\\"", "\\\\", "\\n", "\\/", "\\u00e9", "\\ud83e\\udd80"]).as_bytes(),
            ),
            1 => out.extend_from_slice(random.pick(&["é", "日", "🦀", "\u{7f}"]).as_bytes()),
            2 => out.push(*random.pick(b"{}[]:, ")),
            _ => out.push(b'a' + random.below(26) as u8),
        }
    }
    out.push(b'"');
}

/// Changes a text in one of the ways that shapes could be blind to.
pub(crate) fn mutate(random: &mut Random, text: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(text.len() as u64 + 1) as usize;
    let byte = if random.one_in(3) { random.next() as u8 } else { *random.pick(BYTES) };
    match random.below(14) {
        // One byte is another, more often than not at a token.
        0..=2 if at < text.len() => text[at] = byte,
        3 | 4 => {
            if let Some(at) = token(random, text) {
                text[at] = byte;
            }
        }
        // One more, one less: tokens are split and merged.
        5 => text.insert(at, byte),
        6 => {
            if let Some(at) = token(random, text) {
                text.insert(at + random.below(2) as usize, byte);
            }
        }
        7 if at < text.len() => drop(text.remove(at)),
        8 => {
            if let Some(at) = token(random, text) {
                text.remove(at);
            }
        }
        // White space in or between tokens.
        9 => text.insert(at, *random.pick(b" \t\r ")),
        // Cut off, most often where a block ends.
        10 => text.truncate(if random.one_in(2) { at / 64 * 64 } else { at }),
        // A bit of another event, or of itself.
        11 => {
            let from = random.below(other.len() as u64 + 1) as usize;
            let to = (from + random.below(20) as usize).min(other.len());
            text.splice(at..at, other[from..to].iter().copied());
        }
        12 => {
            let to = (at + random.below(20) as usize).min(text.len());
            drop(text.drain(at..to));
        }
        // Two bytes change places.
        _ if at + 1 < text.len() => text.swap(at, at + 1),
        _ => {}
    }
}

/// A byte that is a token, or belongs to a scalar or escape, if one is soon found.
fn token(random: &mut Random, text: &[u8]) -> Option<usize> {
    let start = random.below(text.len() as u64 + 1) as usize;
    let is_token = |byte: &u8| b"{}[]:,\"-.0123456789tfn\\".contains(byte);
    text[start..].iter().take(64).position(is_token).map(|bytes| start + bytes)
}

/// Changes a text by one byte, or cuts it at the end of a block: what a known shape must notice or may pass.
pub(crate) fn aim(random: &mut Random, text: &mut Vec<u8>) {
    let byte = if random.one_in(3) { random.next() as u8 } else { *random.pick(BYTES) };
    let at = match token(random, text) {
        Some(at) if random.one_in(2) => at,
        _ => random.below(text.len().max(1) as u64) as usize,
    };
    if at >= text.len() {
        return;
    }
    match random.below(10) {
        0..=4 => text[at] = byte,
        5 => text.insert(at, byte),
        6 => drop(text.remove(at)),
        7 => text.insert(at, *random.pick(b" \t\r\n")),
        8 => text.truncate(at / 64 * 64),
        _ => {
            let to = (at + 1 + random.below(2) as usize).min(text.len() - 1);
            text.swap(at, to);
        }
    }
}
