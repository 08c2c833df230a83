//! The grammar of an envelope, `{"events":[…], …}`, checked byte by byte with the array left out. Shard thread; pure.
//!
//! The members beside `events` are ignored but must be valid JSON, or a body cut or garbled in them would be taken for
//! whole. Checking them as they pass needs no copy and so no limit on their length; what they mean is nobody's concern,
//! so surrogates need no pairing and numbers no range. The key is known by its plain spelling; written with escapes
//! it is another key.

use crate::json::{DEPTH_MAX, is_white_space};

/// The key whose array makes an object an envelope.
const KEY: &[u8] = b"events";

/// Key bytes matched so far; this for a key that is another one.
const OTHER_KEY: u8 = u8::MAX;

/// What [`Skeleton::feed`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// The end of the bytes, with nothing wrong.
    Nothing,
    /// The opening bracket of the array of `events`, at this index. The bytes after its closing bracket come next.
    Events(usize),
    /// The end of the object, before this index.
    End(usize),
    /// A byte that cannot stand here. Nothing more can be fed.
    Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The object's opening brace.
    Start,
    /// A key, or the closing brace of an empty object.
    KeyOrEnd,
    /// A key, after a comma.
    Key,
    /// In a string; after the first bytes of a character, how many are missing and the bounds of the next.
    String { is_key: bool, missing: u8, low: u8, high: u8 },
    /// After a backslash.
    Escape { is_key: bool },
    /// Hexadecimal digits of an escape, so many missing.
    Hex { is_key: bool, missing: u8 },
    /// The colon after a key.
    Colon,
    /// A value.
    Value,
    /// A value, or the closing bracket of an empty array.
    ValueOrEnd,
    /// What is missing of `true`, `false` or `null`.
    Literal(&'static [u8]),
    /// After `-`.
    Minus,
    /// After a leading zero.
    Zero,
    /// In the integer part.
    Integer,
    /// After the decimal point.
    Point,
    /// In the fraction.
    Fraction,
    /// After `e`.
    Exponent,
    /// After the sign of the exponent.
    ExponentSign,
    /// In the exponent.
    ExponentDigits,
    /// A comma or a closing bracket.
    AfterValue,
}

/// In a string, at the start of a character.
const fn in_string(is_key: bool) -> State {
    State::String { is_key, missing: 0, low: 0x80, high: 0xbf }
}

/// See the module text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skeleton {
    state: State,
    depth: usize,
    /// One bit per depth: an array, not an object.
    is_array: [u64; DEPTH_MAX / 64],
    key_matched: u8,
}

impl Skeleton {
    pub(super) fn new() -> Self {
        Self { state: State::Start, depth: 0, is_array: [0; DEPTH_MAX / 64], key_matched: OTHER_KEY }
    }

    /// Goes on through `bytes`, the first of which is the object's opening brace or what follows the last bytes fed.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Met {
        for (at, byte) in bytes.iter().enumerate() {
            let is_events = self.depth == 1 && usize::from(self.key_matched) == KEY.len();
            if *byte == b'[' && self.state == State::Value && is_events && !self.in_array() {
                self.state = State::AfterValue;
                return Met::Events(at);
            }
            match self.byte(*byte) {
                Some(_) if self.depth == 0 => return Met::End(at + 1),
                Some(state) => self.state = state,
                None => return Met::Fault,
            }
        }
        Met::Nothing
    }

    fn in_array(&self) -> bool {
        let level = self.depth - 1;
        self.is_array[level / 64] >> (level % 64) & 1 == 1
    }

    fn open(&mut self, is_array: bool) -> Option<State> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        self.depth += 1;
        if is_array {
            self.is_array[word] |= bit;
            Some(State::ValueOrEnd)
        } else {
            self.is_array[word] &= !bit;
            Some(State::KeyOrEnd)
        }
    }

    fn close(&mut self, is_array: bool) -> Option<State> {
        if self.in_array() != is_array {
            return None;
        }
        self.depth -= 1;
        Some(State::AfterValue)
    }

    /// The state after `byte`; `None` if it cannot stand here.
    fn byte(&mut self, byte: u8) -> Option<State> {
        match self.state {
            State::String { is_key, missing, low, high } => self.string_byte(byte, is_key, missing, low, high),
            State::Escape { is_key } => match byte {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(in_string(is_key)),
                b'u' => Some(State::Hex { is_key, missing: 4 }),
                _ => None,
            },
            State::Hex { is_key, missing } => byte.is_ascii_hexdigit().then_some(match missing {
                1 => in_string(is_key),
                _ => State::Hex { is_key, missing: missing - 1 },
            }),
            State::Literal([next, rest @ ..]) => {
                (byte == *next).then_some(if rest.is_empty() { State::AfterValue } else { State::Literal(rest) })
            }
            State::Literal([]) => unreachable!("a literal ends with its last byte"),
            State::Minus => match byte {
                b'0' => Some(State::Zero),
                b'1'..=b'9' => Some(State::Integer),
                _ => None,
            },
            State::Point => byte.is_ascii_digit().then_some(State::Fraction),
            State::Exponent if matches!(byte, b'+' | b'-') => Some(State::ExponentSign),
            State::Exponent | State::ExponentSign => byte.is_ascii_digit().then_some(State::ExponentDigits),
            State::Zero | State::Integer if byte == b'.' => Some(State::Point),
            State::Zero | State::Integer | State::Fraction if matches!(byte, b'e' | b'E') => Some(State::Exponent),
            State::Integer | State::Fraction | State::ExponentDigits if byte.is_ascii_digit() => Some(self.state),
            // A number ends where something else begins.
            State::Zero | State::Integer | State::Fraction | State::ExponentDigits => {
                self.between(State::AfterValue, byte)
            }
            between => self.between(between, byte),
        }
    }

    /// States between tokens, where white space may stand.
    fn between(&mut self, state: State, byte: u8) -> Option<State> {
        match (state, byte) {
            (State::Start, b'{') => self.open(false),
            (State::Start, _) => None,
            (_, _) if is_white_space(byte) => Some(state),
            (State::KeyOrEnd, b'}') => self.close(false),
            (State::KeyOrEnd | State::Key, b'"') => {
                self.key_matched = 0;
                Some(in_string(true))
            }
            (State::Colon, b':') => Some(State::Value),
            (State::ValueOrEnd, b']') => self.close(true),
            (State::Value | State::ValueOrEnd, _) => match byte {
                b'{' => self.open(false),
                b'[' => self.open(true),
                b'"' => Some(in_string(false)),
                b't' => Some(State::Literal(b"rue")),
                b'f' => Some(State::Literal(b"alse")),
                b'n' => Some(State::Literal(b"ull")),
                b'-' => Some(State::Minus),
                b'0' => Some(State::Zero),
                b'1'..=b'9' => Some(State::Integer),
                _ => None,
            },
            (State::AfterValue, b',') => Some(if self.in_array() { State::Value } else { State::Key }),
            (State::AfterValue, b'}') => self.close(false),
            (State::AfterValue, b']') => self.close(true),
            _ => None,
        }
    }

    fn string_byte(&mut self, byte: u8, is_key: bool, missing: u8, low: u8, high: u8) -> Option<State> {
        if missing > 0 {
            let next = State::String { is_key, missing: missing - 1, low: 0x80, high: 0xbf };
            return (low..=high).contains(&byte).then_some(next);
        }
        if is_key && byte != b'"' {
            let matches = KEY.get(usize::from(self.key_matched)) == Some(&byte);
            self.key_matched = if matches { self.key_matched + 1 } else { OTHER_KEY };
        }
        // First bytes of characters and the bounds of the second: Unicode 16, table 3-7.
        let (missing, low, high) = match byte {
            b'"' => return Some(if is_key { State::Colon } else { State::AfterValue }),
            b'\\' => return Some(State::Escape { is_key }),
            0x20..=0x7f => return Some(in_string(is_key)),
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return None,
        };
        Some(State::String { is_key, missing, low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(text: &[u8]) -> Met {
        Skeleton::new().feed(text)
    }

    #[test]
    fn the_events_array_is_met_at_the_top_level_only() {
        for (text, met) in [
            (r#"{"events":[1]}"#, Met::Events(10)),
            ("{ \"events\"\n:\t[", Met::Events(13)),
            (r#"{"a":{"events":[1]},"b":[[]],"events":["#, Met::Events(38)),
            (r#"{"events":5,"events":["#, Met::Events(21)),
            (r#"{"events":{}}"#, Met::End(13)),
            (r#"{"events":null} x"#, Met::End(15)),
            (r#"{"event":[1],"eventsx":[2],"xevents":[3],"Events":[4]}"#, Met::End(54)),
            (r#"{"\u0065vents":[1]}"#, Met::End(19)),
            (r#"{"a":["events",[1]]}"#, Met::End(20)),
            (r#"{"a":[{"events":[1]}]}"#, Met::End(22)),
            (r#"{"a":"events"}"#, Met::End(14)),
            (r#"{"events" [1]}"#, Met::Fault),
            (r#"{"events":"#, Met::Nothing),
            ("{}", Met::End(2)),
        ] {
            assert_eq!(feed(text.as_bytes()), met, "{text}");
        }
    }

    #[test]
    fn what_follows_the_array_is_checked_too() {
        for (rest, met) in [
            ("}", Met::End(1)),
            (r#" , "n" : 1.5e3 } "#, Met::End(16)),
            (r#","events":["#, Met::Events(10)),
            ("]", Met::Fault),
            (",}", Met::Fault),
            ("1}", Met::Fault),
            (",\"a\":tru}", Met::Fault),
            (",\"a\"", Met::Nothing),
        ] {
            let mut skeleton = Skeleton::new();
            assert_eq!(skeleton.feed(br#"{"events":["#), Met::Events(10));
            assert_eq!(skeleton.feed(rest.as_bytes()), met, "{rest}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(matches!(feed(nested(DEPTH_MAX - 1).as_bytes()), Met::End(_)));
        assert_eq!(feed(nested(DEPTH_MAX).as_bytes()), Met::Fault);
    }

    /// Whether another parser takes the text for one object and nothing else.
    fn oracle(text: &[u8]) -> bool {
        let text = std::str::from_utf8(text).ok().filter(|text| text.starts_with('{'));
        text.is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
    }

    #[test]
    fn every_one_byte_change_is_judged_as_another_parser_judges_it() {
        let seed =
            r#"{"k":"a\"\\\u00e9é日🦀","n":[-0,1.5e+3,20E-1,0.0],"t":true,"f":false,"z":null,"o":{"k":[],"l":{}}}"#;
        let bytes: Vec<u8> = if cfg!(miri) { b"{\"\\1\xff".to_vec() } else { (0..=255).collect() };
        for at in 0..seed.len() {
            for byte in &bytes {
                let mut replaced = seed.as_bytes().to_vec();
                replaced[at] = *byte;
                let mut inserted = seed.as_bytes().to_vec();
                inserted.insert(at, *byte);
                for text in [replaced, inserted] {
                    // Only white space may follow the object's end; that is the splitter's business.
                    let whole = |end: usize| text[end..].iter().all(|byte| is_white_space(*byte));
                    let ours = matches!(feed(&text), Met::End(end) if whole(end));
                    assert_eq!(ours, oracle(&text), "{}", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}
