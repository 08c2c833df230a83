//! What other parsers say, and what the validator says on every instruction set and in every place. Shared by the tests
//! of the json room.

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, Tape, fill_tape_padded};
use tidegate::json::{Level, Lines, Until, Validator, trim_end, trim_start};

/// Nesting allowed in these tests; serde_json allows some more.
pub(crate) const DEPTH: usize = 100;

/// What the others say of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One object.
    Valid,
    /// Anything else.
    Invalid,
    /// They differ where they are known to: see [`Others::judge`].
    Unknown,
}

/// What simd-json says.
#[derive(Clone, Copy, Debug)]
enum Theirs {
    Value {
        is_object: bool,
    },
    NumberRefused,
    /// Deeper than [`DEPTH`], which serde_json does not know.
    TooDeep,
    Refused,
}

/// The other parsers.
pub(crate) struct Others {
    buffers: Buffers,
    scratch: Vec<u8>,
    /// The memory of the last tape.
    tape: Option<Tape<'static>>,
}

impl Others {
    pub(crate) fn new() -> Self {
        let buffers = Buffers::with_max_depth(4096, DEPTH);
        Self { buffers, scratch: Vec::new(), tape: Some(Tape(Vec::new())) }
    }

    /// What simd-json and serde_json agree on.
    ///
    /// simd-json refuses numbers it cannot hold, serde_json does not look at surrogates nor at UTF-8 when it ignores a
    /// text. So serde_json alone is asked for a text whose numbers simd-json refuses, if it escapes no surrogates; with
    /// both there is nobody to ask.
    pub(crate) fn judge(&mut self, text: &[u8]) -> Verdict {
        let theirs = self.simd_json(text);
        let escapes_surrogates = || text.windows(3).any(|bytes| bytes.eq_ignore_ascii_case(b"\\ud"));
        let serde = serde_json(text);
        match theirs {
            Theirs::Value { is_object } => {
                assert_eq!(serde, is_object, "simd-json and serde_json differ on {:?}", String::from_utf8_lossy(text));
                if is_object { Verdict::Valid } else { Verdict::Invalid }
            }
            Theirs::NumberRefused if !serde => Verdict::Invalid,
            Theirs::NumberRefused => {
                if escapes_surrogates() {
                    Verdict::Unknown
                } else {
                    Verdict::Valid
                }
            }
            Theirs::TooDeep => Verdict::Invalid,
            Theirs::Refused => {
                let is_agreed = !serde || escapes_surrogates();
                assert!(is_agreed, "refused by simd-json only: {:?}", String::from_utf8_lossy(text));
                Verdict::Invalid
            }
        }
    }

    fn simd_json(&mut self, text: &[u8]) -> Theirs {
        let begins = text.iter().find(|byte| !b" \t\r\n".contains(byte)) == Some(&b'{');
        if !begins {
            return Theirs::Value { is_object: false };
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(text);
        self.scratch.resize(text.len() + INPUT_PADDING, 0);
        let mut tape = self.tape.take().expect("put back by the last text").reset();
        let theirs = match fill_tape_padded(&mut self.scratch, text.len(), &mut self.buffers, &mut tape) {
            Ok(()) => Theirs::Value { is_object: matches!(tape.0.first(), Some(Node::Object { .. })) },
            Err(error) => match error.error() {
                ErrorType::InvalidNumber | ErrorType::InvalidExponent | ErrorType::Overflow => Theirs::NumberRefused,
                ErrorType::DepthLimitExceeded => Theirs::TooDeep,
                _ => Theirs::Refused,
            },
        };
        self.tape = Some(tape.reset());
        theirs
    }
}

fn serde_json(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let begins = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
    begins && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A validator for each instruction set of this CPU, and two that leave events to the parser: one all of them, one when it
/// has met too many faults.
pub(crate) struct Ours {
    validators: Vec<Validator>,
    resting: [Validator; 2],
    body: Vec<u8>,
}

impl Ours {
    pub(crate) fn new() -> Self {
        let validators =
            Level::all().into_iter().map(|level| Validator::with_level(DEPTH, level).never_resting()).collect();
        let best = Level::all().pop().expect("portable code runs everywhere");
        let resting = [best, Level::parser()].map(|level| Validator::with_level(DEPTH, level));
        Self { validators, resting, body: Vec::new() }
    }

    /// Makes the shape of a valid event known.
    pub(crate) fn learn(&mut self, event: &[u8]) {
        for validator in &mut self.validators {
            validator.validate(event).expect("only valid events are learnt");
        }
    }

    /// Whether `text` is valid: the same alone and as a line, `shift` bytes into a block, on every set. What is valid
    /// was proven by the scan, which never needed the parser for it.
    pub(crate) fn judge(&mut self, text: &[u8], shift: usize) -> bool {
        let mut agreed = None;
        for validator in &mut self.validators {
            let before = validator.counts().parsed;
            let is_valid = validator.validate(text).is_ok();
            let by_parser = validator.counts().parsed != before;
            let shown = String::from_utf8_lossy(text);
            assert_eq!(is_valid, !by_parser, "{}: left to the parser: {shown:?}", validator.level());
            assert_eq!(*agreed.get_or_insert(is_valid), is_valid, "{}: {shown:?}", validator.level());

            // As lines: white space before it moves it through the blocks, and neither the lines before it nor what
            // follows may matter.
            self.body.clear();
            self.body.resize(shift, b' ');
            for part in [text, b"\r\n", text, b"\n\n{\"a\":0}\n", text, b"\n\"\\{\xff\x01"] {
                self.body.extend_from_slice(part);
            }
            let ended = self.body.iter().rposition(|byte| *byte == b'\n').expect("there is a line feed");
            let mut expected =
                self.body[..ended].split(|byte| *byte == b'\n').map(trim).filter(|line| !line.is_empty());
            let mut rest = &self.body[..];
            let mut lines = Lines::new();
            loop {
                let bytes = validator.scan_lines(rest, &mut lines);
                for line in lines.as_slice() {
                    assert_eq!(Some(line.text()), expected.next(), "{}: {shown:?}", validator.level());
                    let before = validator.counts().parsed;
                    let as_line = validator.judge(*line).is_ok();
                    assert_eq!(as_line, validator.counts().parsed == before, "left to the parser: {shown:?}");
                    let is_whole = line.text() == trim(text);
                    let alone = if is_whole { is_valid } else { validator.validate(line.text()).is_ok() };
                    assert_eq!(as_line, alone, "{}: as a line {shift} in: {shown:?}", validator.level());
                }
                rest = &rest[bytes..];
                if bytes == 0 {
                    break;
                }
            }
            assert_eq!((expected.next(), rest.len()), (None, self.body.len() - ended - 1), "{shown:?}");
            self.body.truncate(shift + text.len());
            self.body.extend_from_slice(b"\n\"\\{\xff\x01");
            if is_valid && text.first() == Some(&b'{') {
                self.body.drain(..shift);
                let event = text.trim_ascii_end();
                let scan = validator.scan(&self.body, Until::Brace).expect("a valid object has an end");
                assert_eq!(scan.text(), event, "{}: in an array: {shown:?}", validator.level());
                let before = validator.counts().parsed;
                assert!(validator.judge(scan).is_ok(), "in an array: {shown:?}");
                assert_eq!(validator.counts().parsed, before, "in an array, left to the parser: {shown:?}");
            }
        }
        let agreed = agreed.expect("there is an instruction set");
        for validator in &mut self.resting {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(validator.validate(text).is_ok(), agreed, "{}: {shown:?}", validator.level());
        }
        agreed
    }
}

impl Ours {
    /// Whether each line of `body`, which ends with a line feed, is valid: the same on every set.
    #[allow(dead_code, reason = "one test uses it")]
    pub(crate) fn judge_lines(&mut self, body: &[u8]) -> Vec<bool> {
        let mut agreed: Option<Vec<bool>> = None;
        for validator in self.validators.iter_mut().chain(&mut self.resting) {
            let (mut rest, mut lines, mut verdicts) = (body, Lines::new(), Vec::new());
            while !rest.is_empty() {
                let bytes = validator.scan_lines(rest, &mut lines);
                assert!(bytes > 0, "{}: no line in {:?}", validator.level(), String::from_utf8_lossy(rest));
                verdicts.extend(lines.as_slice().iter().map(|line| validator.judge(*line).is_ok()));
                rest = &rest[bytes..];
            }
            let agreed = agreed.get_or_insert_with(|| verdicts.clone());
            assert_eq!(*agreed, verdicts, "{}: {:?}", validator.level(), String::from_utf8_lossy(body));
        }
        agreed.expect("there is an instruction set")
    }
}

/// Without white space around it.
pub(crate) fn trim(line: &[u8]) -> &[u8] {
    trim_end(trim_start(line))
}
