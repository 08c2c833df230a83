//! One text: judged the same by every instruction set, alone, as a line and in an array, and as other parsers judge it.
//!
//! The first byte moves the text through the blocks; then come an event, a zero byte, and the text itself. The event is
//! learnt first if it is valid, so that a text can be like one whose shape is known.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/verdict/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod verdict;

use verdict::{Others, Ours, Verdict};

thread_local! {
    static PARSERS: RefCell<(Ours, Others)> = RefCell::new((Ours::new(), Others::new()));
}

fuzz_target!(|bytes: &[u8]| {
    let [shift, rest @ ..] = bytes else { return };
    let (event, text) = match rest.iter().position(|byte| *byte == 0) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, rest),
    };
    PARSERS.with_borrow_mut(|(ours, others)| {
        for text in [event, text] {
            let expected = others.judge(text);
            let is_valid = ours.judge(text, usize::from(*shift) % 64);
            if expected != Verdict::Unknown {
                assert_eq!(is_valid, expected == Verdict::Valid, "{:?}", String::from_utf8_lossy(text));
            }
        }
    });
});
