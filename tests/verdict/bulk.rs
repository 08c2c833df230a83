//! Texts judged by the hundred thousand a second: as lines, alone and in arrays, on every instruction set, each against one
//! verdict of the other parsers.
//!
//! What [`crate::verdict::Ours`] does for one text in every way, this does for dozens in one, and asks the scan alone what it has
//! proven: it must prove exactly what is valid. So the parser behind it parses each refused text once, and not for each set.

use std::borrow::Cow;

use tidegate::base::Limits;
use tidegate::json::{Level, Lines, Scan, Until, Validator};
use tidegate::shard::split::{BodyShape, Carry, CarryFull, EventError, EventSink, Placed, Splitter};

use crate::mutants;
use crate::random::Random;
use crate::verdict::{DEPTH, Others, Verdict, trim};

/// How texts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Random bytes and random pieces of JSON.
    Bytes,
    /// Real events and random objects, changed in up to three ways.
    Grammar,
    /// Events of one shape that is known, most of them changed by a byte or cut off at the end of a block.
    Cache,
}

/// Every family.
pub(crate) const FAMILIES: [Family; 3] = [Family::Bytes, Family::Grammar, Family::Cache];

/// Texts that are made and judged together.
const TEXTS: usize = 56;

/// How texts are given to the validators.
#[derive(Clone, Copy, Debug)]
enum Way {
    Lines,
    Alone,
    Array,
}

/// What a splitter did with a part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Where an event begins and how long it is, and whether it is proven.
    Event(usize, usize, bool),
    Refused(EventError),
}

/// See the module text.
pub(crate) struct Bulk {
    random: Random,
    validators: Vec<Validator>,
    /// Leaves everything to its parser.
    parser: Validator,
    others: Others,
    real: Vec<Vec<u8>>,
    text: Vec<u8>,
    body: Vec<u8>,
    /// Where texts end in the body, if they do not lie in lines or arrays.
    ends: Vec<usize>,
    verdicts: Vec<Verdict>,
    calls: [Vec<Call>; 2],
}

impl Bulk {
    /// Texts made of `real` events, from `seed`.
    pub(crate) fn new(seed: u64, real: &[Vec<u8>]) -> Self {
        let endless = |level| Validator::with_level(DEPTH, level).never_resting();
        Self {
            random: Random::new(seed),
            validators: Level::all().into_iter().map(endless).collect(),
            parser: Validator::with_level(DEPTH, Level::parser()),
            others: Others::new(),
            real: real.to_vec(),
            text: Vec::new(),
            body: Vec::new(),
            ends: Vec::new(),
            verdicts: Vec::new(),
            calls: [Vec::new(), Vec::new()],
        }
    }

    /// Makes and judges some dozens of texts of a family. Returns how many were judged.
    pub(crate) fn judge_some(&mut self, family: Family) -> u64 {
        self.body.clear();
        self.ends.clear();
        let way = match self.random.below(8) {
            0..=3 => Way::Lines,
            4 | 5 => Way::Alone,
            _ => Way::Array,
        };
        if matches!(way, Way::Lines) {
            self.body.resize(self.random.below(64) as usize, b' ');
        }
        self.make(family, way);
        match way {
            Way::Lines => self.judge_lines(),
            Way::Alone => self.judge_alone(),
            Way::Array => self.judge_array(),
        }
    }

    fn make(&mut self, family: Family, way: Way) {
        let Self { random, real, text, body, ends, .. } = self;
        let base = random.below(real.len() as u64) as usize;
        let mut is_random = false;
        if family == Family::Cache && random.one_in(2) {
            // A short one, of which texts are judged faster.
            is_random = true;
            text.clear();
            mutants::object(random, 2, text);
            real.push(text.clone());
        }
        if matches!(way, Way::Array) {
            body.extend_from_slice(if random.one_in(2) { b"[" } else { b" [\r\n" });
        }
        for number in 0..TEXTS {
            text.clear();
            match family {
                Family::Bytes if random.one_in(2) => mutants::bytes(random, text),
                Family::Bytes => mutants::pieces(random, text),
                Family::Grammar => {
                    if random.one_in(4) {
                        mutants::object(random, 4, text);
                    } else {
                        text.extend_from_slice(random.pick::<Vec<u8>>(real));
                    }
                    for _ in 0..random.below(4) {
                        let other = random.below(real.len() as u64) as usize;
                        mutants::mutate(random, text, &real[other]);
                    }
                }
                Family::Cache => {
                    text.extend_from_slice(&real[if is_random { real.len() - 1 } else { base }]);
                    if number > 0 && !random.one_in(4) {
                        mutants::aim(random, text);
                    }
                }
            }
            body.extend_from_slice(text);
            match way {
                Way::Lines => body.extend_from_slice(if random.one_in(16) { b"\r\n" } else { b"\n" }),
                Way::Alone => ends.push(body.len()),
                Way::Array => match random.below(64) {
                    0..4 => body.extend_from_slice(b" ,\n"),
                    4 => body.push(*random.pick(mutants::BYTES)),
                    5 => body.extend_from_slice(random.pick(&[",,", "", ", 1,", "]", ",\"{\","]).as_bytes()),
                    _ => body.push(b','),
                },
            }
        }
        if matches!(way, Way::Array) {
            if body.last() == Some(&b',') {
                body.pop();
            }
            body.push(b']');
        }
        if is_random {
            real.pop();
        }
    }

    fn judge_lines(&mut self) -> u64 {
        let Self { validators, parser, others, body, verdicts, .. } = self;
        verdicts.clear();
        for line in body.split(|byte| *byte == b'\n').map(trim).filter(|line| !line.is_empty()) {
            verdicts.push(verdict_of(parser, others, line));
        }
        for validator in validators {
            let (mut rest, mut lines, mut next) = (&body[..], Lines::new(), 0);
            let mut texts = body.split(|byte| *byte == b'\n').map(trim).filter(|line| !line.is_empty());
            while !rest.is_empty() {
                let bytes = validator.scan_lines(rest, &mut lines);
                assert!(bytes > 0, "{}: no line in {:?}", validator.level(), shown(rest));
                for scan in lines.as_slice() {
                    let text = texts.next();
                    assert_eq!(Some(scan.text()), text, "{}: a line begins or ends elsewhere", validator.level());
                    agree(validator.level(), scan, &mut verdicts[next], body);
                    next += 1;
                }
                rest = &rest[bytes..];
            }
            assert_eq!(next, verdicts.len(), "{}: lines", validator.level());
        }
        verdicts.len() as u64
    }

    fn judge_alone(&mut self) -> u64 {
        let Self { validators, parser, others, body, ends, .. } = self;
        let mut start = 0;
        for end in ends.iter() {
            let text = &body[start..*end];
            start = *end;
            let mut verdict = verdict_of(parser, others, text);
            for validator in validators.iter_mut() {
                let scan = validator.scan(text, Until::End).expect("the end of the input is in it");
                agree(validator.level(), &scan, &mut verdict, text);
            }
        }
        ends.len() as u64
    }

    /// The elements of an array, found as for the parser alone, which gets them one by one.
    fn judge_array(&mut self) -> u64 {
        let Self { validators, parser, others, body, calls: [expected, calls], .. } = self;
        split(parser, body, expected);
        let (mut judged, mut end_before) = (0, None);
        for call in expected.iter_mut() {
            let Call::Event(start, len, is_valid) = call else {
                end_before = None;
                continue;
            };
            if let Some(end) = end_before.replace(*start + *len) {
                assert_eq!(trim(&body[end..*start]), b",", "between two elements of {:?}", shown(body));
            }
            let text = &body[*start..*start + *len];
            assert_eq!(*len, end_of_object(text), "an element ends elsewhere: {:?}", shown(text));
            let verdict = verdict_of(parser, others, text);
            let is_proven = |validator: &mut Validator| {
                validator.scan(text, Until::End).expect("the end of the input is in it").is_proven()
            };
            // Where there is nobody to ask, all must say what the last instruction set says of it alone.
            *is_valid = match verdict {
                Verdict::Unknown => is_proven(validators.last_mut().expect("portable code runs everywhere")),
                known => known == Verdict::Valid,
            };
            judged += 1;
        }
        for validator in validators {
            split(validator, body, calls);
            assert_eq!(calls, expected, "{}: elements of {:?}", validator.level(), shown(body));
        }
        judged
    }
}

/// What the other parsers say of a text, and what this one's parser says of it if they refuse it.
fn verdict_of(parser: &mut Validator, others: &mut Others, text: &[u8]) -> Verdict {
    let verdict = others.judge(text);
    if verdict == Verdict::Invalid {
        assert!(parser.validate(text).is_err(), "accepted by the parser: {:?}", shown(text));
    }
    verdict
}

/// What is proven is valid, and the other way round. Where nobody knows, the first to be asked does.
fn agree(level: Level, scan: &Scan<'_>, verdict: &mut Verdict, body: &[u8]) {
    let proven = if scan.is_proven() { Verdict::Valid } else { Verdict::Invalid };
    if *verdict == Verdict::Unknown {
        *verdict = proven;
    }
    assert_eq!(proven, *verdict, "{level}: {:?}\nin {:?}", shown(scan.text()), shown(body));
}

fn shown(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// The end of an object, or of the text, byte by byte. A backslash takes its meaning from quotes and backslashes only, wherever it
/// stands: in an object it stands in strings, where braces have none.
fn end_of_object(text: &[u8]) -> usize {
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' if !is_escaped => in_string = !in_string,
            b'{' if !in_string => depth += 1,
            b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        is_escaped = *byte == b'\\' && !is_escaped;
    }
    text.len()
}

/// Notes what the splitter finds in an array.
struct Notes<'a> {
    validator: &'a mut Validator,
    body: usize,
    calls: &'a mut Vec<Call>,
}

impl EventSink for Notes<'_> {
    fn validator(&mut self) -> &mut Validator {
        self.validator
    }

    fn event(&mut self, event: &[u8], scan: Option<Scan<'_>>) -> Placed {
        let is_proven = scan.is_some_and(|scan| scan.is_proven());
        self.calls.push(Call::Event(event.as_ptr() as usize - self.body, event.len(), is_proven));
        Placed::Taken
    }

    fn refuse(&mut self, error: EventError) {
        self.calls.push(Call::Refused(error));
    }
}

/// Nothing is carried from one input to the next: there is one.
struct NoCarry;

impl Carry for NoCarry {
    fn extend(&mut self, _: &[u8]) -> Result<(), CarryFull> {
        Ok(())
    }

    fn as_slice(&self) -> &[u8] {
        &[]
    }

    fn clear(&mut self) {}
}

fn split(validator: &mut Validator, body: &[u8], calls: &mut Vec<Call>) {
    calls.clear();
    let mut sink = Notes { validator, body: body.as_ptr() as usize, calls };
    let fed = Splitter::new(BodyShape::Json, &Limits::default()).feed_last(body, &mut NoCarry, &mut sink);
    assert_eq!((fed.consumed, fed.stop), (body.len(), None));
}
