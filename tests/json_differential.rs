//! Random texts judged by the validator and by two other parsers: they never disagree.
//!
//! Most texts are valid events changed a little, after their shapes have become known: what is refused then is refused in
//! spite of a shape that was seen before. `TIDEGATE_JSON_CASES` sets the number of cases per test. `tests/verdict/long.rs`
//! judges as many as there is time for.

#[path = "verdict/bulk.rs"]
mod bulk;
#[path = "support/events.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod events;
#[path = "verdict/mutants.rs"]
mod mutants;
#[path = "support/random.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod random;
mod verdict;

use bulk::{Bulk, FAMILIES};
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

#[test]
fn random_pieces_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("random_pieces"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for _ in 0..cases() {
        let mut text = Vec::new();
        mutants::pieces(&mut random, &mut text);
        check(&text, &mut random, &mut ours, &mut others);
    }
}

#[test]
fn random_bytes_are_judged_as_other_parsers_judge_them() {
    let mut random = Random::new(random::seed("random_bytes"));
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for _ in 0..cases() {
        let mut text = Vec::new();
        mutants::bytes(&mut random, &mut text);
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
        mutants::object(&mut random, 4, &mut text);
        check(&text, &mut random, &mut ours, &mut others);
        for _ in 0..3 {
            mutants::mutate(&mut random, &mut text, &before);
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
            mutants::mutate(&mut random, &mut text, &other);
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
            mutants::mutate(&mut random, &mut lines[at], &other);
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

/// The way of the long run: texts by the dozen, as lines, alone or in an array, and of each what the scan alone has proven.
#[test]
fn what_is_proven_is_what_other_parsers_accept() {
    let seed = random::seed("bulk");
    let real: Vec<Vec<u8>> =
        (0..64).map(|number| events::event(3, Kind::Attribution, EventName { lane: 1, number })).collect();
    let mut bulk = Bulk::new(seed, &real);
    for family in FAMILIES {
        let mut judged = 0;
        while judged < cases() {
            judged += bulk.judge_some(family);
        }
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
        mutants::mutate(&mut random, &mut text, &other);
        check(&text, &mut random, &mut ours, &mut others);
    }
}
