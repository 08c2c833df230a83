//! Random texts judged by the validator and by two other parsers: they never disagree.
//!
//! Most texts are valid events changed a little, after their shapes have become known: what is refused then is refused in
//! spite of a shape that was seen before. `TIDEGATE_JSON_CASES` sets the number of cases per test.

#[path = "support/events.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod events;
#[path = "support/random.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod random;
mod verdict;

use events::{EventName, Kind};
use random::Random;
use verdict::{Others, Ours, Verdict};

fn cases() -> u64 {
    std::env::var("TIDEGATE_JSON_CASES").map_or(6_000, |text| text.parse().expect("a number of cases"))
}

/// Judges a text on all sides.
fn check(text: &[u8], random: &mut Random, ours: &mut Ours, others: &mut Others) {
    let verdict = others.judge(text);
    let is_valid = ours.judge(text, random.below(64) as usize);
    if verdict != Verdict::Unknown {
        assert_eq!(is_valid, verdict == Verdict::Valid, "{:?}\n{text:?}", String::from_utf8_lossy(text));
    }
}

/// Pieces that JSON is made of, and some that it is not.
const PIECES: &[&str] = &[
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

fn object(random: &mut Random, depth: u32, out: &mut Vec<u8>) {
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
fn mutate(random: &mut Random, text: &mut Vec<u8>, other: &[u8]) {
    const BYTES: &[u8] = b"{}[]:,\"\\ \t\r\n0-1.eE+tfnxu/\0\x01\x0c\x1a\x1f\x7f\x80\xa0\xa2\xbb\xc3\xdc\xfb\xff";
    let len = text.len() as u64;
    let at = random.below(len + 1) as usize;
    let byte = if random.one_in(3) { random.next() as u8 } else { *random.pick(BYTES) };
    match random.below(12) {
        // One byte is another, more often than not at a token.
        0..=2 if at < text.len() => text[at] = byte,
        3 => {
            let tokens: Vec<usize> =
                (0..text.len()).filter(|at| b"{}[]:,\"-0123456789tfn\\".contains(&text[*at])).collect();
            if let Some(at) = tokens.get(random.below(tokens.len().max(1) as u64) as usize) {
                text[*at] = byte;
            }
        }
        // One more, one less: tokens are split and merged.
        4 | 5 => text.insert(at, byte),
        6 if at < text.len() => drop(text.remove(at)),
        // White space in or between tokens.
        7 => text.insert(at, *random.pick(b" \t\r ")),
        // Cut off, most often where a block ends.
        8 => text.truncate(if random.one_in(2) { at / 64 * 64 } else { at }),
        // A bit of another event, or of itself.
        9 => {
            let from = random.below(other.len() as u64 + 1) as usize;
            let to = (from + random.below(20) as usize).min(other.len());
            text.splice(at..at, other[from..to].iter().copied());
        }
        10 => {
            let to = (at + random.below(20) as usize).min(text.len());
            drop(text.drain(at..to));
        }
        // Two bytes change places.
        _ if at + 1 < text.len() => text.swap(at, at + 1),
        _ => {}
    }
}

#[test]
fn random_pieces_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("random_pieces"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for _ in 0..cases() {
        let mut text = Vec::new();
        if !random.one_in(8) {
            text.push(b'{');
        }
        for _ in 0..random.below(24) {
            text.extend_from_slice(random.pick(PIECES).as_bytes());
        }
        if random.one_in(2) {
            text.push(b'}');
        }
        check(&text, &mut random, &mut ours, &mut others);
    }
}

#[test]
fn random_bytes_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("random_bytes"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for _ in 0..cases() {
        let text: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        check(&text, &mut random, &mut ours, &mut others);
    }
}

#[test]
fn random_objects_and_their_mutants_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("random_objects"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    let mut before = b"{}".to_vec();
    for _ in 0..cases() / 4 {
        let mut text = Vec::new();
        object(&mut random, 4, &mut text);
        check(&text, &mut random, &mut ours, &mut others);
        for _ in 0..3 {
            mutate(&mut random, &mut text, &before);
            check(&text, &mut random, &mut ours, &mut others);
        }
        before = text;
    }
}

#[test]
fn mutants_of_real_events_whose_shape_is_known_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("mutants"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    let real: Vec<Vec<u8>> =
        (0..64).map(|number| events::event(3, Kind::Attribution, EventName { lane: 1, number })).collect();
    for event in &real {
        ours.learn(event);
    }
    for _ in 0..cases() {
        let mut text = random.pick(&real).clone();
        for _ in 0..1 + random.below(3) {
            let other = random.pick(&real).clone();
            mutate(&mut random, &mut text, &other);
        }
        check(&text, &mut random, &mut ours, &mut others);
    }
}

/// Between lines that are all of one shape a line is compared with that shape before all else: mutants among them.
#[test]
fn mutants_among_lines_of_one_shape_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("one_shape"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for _ in 0..cases() / 8 {
        let kind = if random.one_in(8) { Kind::Large } else { Kind::Attribution };
        let number = random.below(64);
        let event = events::event(3, kind, EventName { lane: 1, number });
        let other = events::event(3, Kind::Attribution, EventName { lane: 1, number: number + 1 });
        let mut lines = vec![event.clone(); 36];
        ours.judge_lines(&[&lines.join(&b'\n'), &b"\n"[..]].concat());
        for _ in 0..random.below(4) {
            let at = random.below(36) as usize;
            mutate(&mut random, &mut lines[at], &other);
        }
        let body = [&lines.join(&b'\n'), &b"\n"[..]].concat();
        let verdicts = ours.judge_lines(&body);
        let texts = body.split(|byte| *byte == b'\n').map(verdict::trim).filter(|text| !text.is_empty());
        let mut count = 0;
        for (text, is_valid) in texts.zip(&verdicts) {
            count += 1;
            match others.judge(text) {
                Verdict::Unknown => {}
                verdict => assert_eq!(*is_valid, verdict == Verdict::Valid, "{:?}", String::from_utf8_lossy(text)),
            }
        }
        assert_eq!(count, verdicts.len());
    }
}

/// Every byte of a known event replaced by every byte.
#[test]
fn no_byte_of_a_known_event_can_be_another_unnoticed() {
    let mut random = Random::new(0);
    let (mut ours, mut others) = (Ours::new(), Others::new());
    let event = br#"{"id":"a\"b\\\u00e9","n":[-1.5e+3,0],"s":"x{y","t":true,"o":{"k":null},"pad":"0123456789","u":12}"#;
    ours.learn(event);
    for at in 0..event.len() {
        for byte in 0..=255 {
            let mut text = event.to_vec();
            text[at] = byte;
            check(&text, &mut random, &mut ours, &mut others);
        }
    }
}

/// Events larger than what the scan keeps at once, and more shapes than it remembers.
#[test]
fn long_events_and_ever_new_shapes_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("long_events"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for _ in 0..cases() / 200 {
        let mut text = b"{\"list\":[0".to_vec();
        // Around the 4096 tokens that are kept, and well beyond.
        for _ in 0..random.below(4_000) {
            text.extend_from_slice(
                random.pick(&[",1", ",\"a\"", ",-2.5", ",[]", ",true", ", null", ",{\"k\":0}"]).as_bytes(),
            );
        }
        text.extend_from_slice(b"]}");
        check(&text, &mut random, &mut ours, &mut others);
        let other = text.clone();
        mutate(&mut random, &mut text, &other);
        check(&text, &mut random, &mut ours, &mut others);
    }
}
