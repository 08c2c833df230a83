//! Whether a string of tokens is one JSON object: the grammar of RFC 8259 §2–5 without its scalars. Shard thread; pure.
//!
//! A token is a byte: a structural character, `"` for a whole string, `0` for the first byte of a number or literal, and of
//! whatever else stands outside strings. White space has no token. Whether it is a number or literal is
//! [`super::scalars`]' to say. A control character in a string is a token too, and one of no object.

use super::DEPTH_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The object itself.
    Object,
    /// A key, or the closing brace of an empty object.
    KeyOrEnd,
    /// A key, after a comma.
    Key,
    /// The colon after a key.
    Colon,
    /// A value.
    Value,
    /// A value, or the closing bracket of an empty array.
    ValueOrEnd,
    /// A comma or a closing bracket.
    CommaOrEnd,
    /// Nothing.
    Nothing,
}

/// Walks over the tokens of one object, in as many pieces as they come.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    expect: Expect,
    depth: usize,
    depth_max: usize,
    /// One bit per level: an array, not an object.
    is_array: [u64; DEPTH_MAX / 64],
}

impl Grammar {
    /// A walk that allows `depth_max` objects and arrays inside each other.
    pub(super) fn new(depth_max: usize) -> Self {
        Self { expect: Expect::Object, depth: 0, depth_max, is_array: [0; DEPTH_MAX / 64] }
    }

    /// Before the first token of an object.
    pub(super) fn restart(&mut self) {
        self.expect = Expect::Object;
        self.depth = 0;
    }

    /// The object is whole.
    pub(super) fn is_complete(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// Goes on through `tokens`. `key` is called with the index of each key of the outermost object. False if a token
    /// cannot stand where it does; then nothing more can be fed.
    pub(super) fn feed(&mut self, tokens: &[u8], mut key: impl FnMut(usize)) -> bool {
        for (at, token) in tokens.iter().enumerate() {
            let next = match (self.expect, token) {
                (Expect::KeyOrEnd | Expect::Key, b'"') => {
                    if self.depth == 1 {
                        key(at);
                    }
                    Some(Expect::Colon)
                }
                (Expect::Colon, b':') => Some(Expect::Value),
                (Expect::Value | Expect::ValueOrEnd, b'"' | b'0') => Some(Expect::CommaOrEnd),
                (Expect::Value | Expect::ValueOrEnd | Expect::Object, b'{') => self.open(false),
                (Expect::Value | Expect::ValueOrEnd, b'[') => self.open(true),
                (Expect::CommaOrEnd, b',') => Some(if self.in_array() { Expect::Value } else { Expect::Key }),
                (Expect::CommaOrEnd | Expect::KeyOrEnd, b'}') => self.close(false),
                (Expect::CommaOrEnd | Expect::ValueOrEnd, b']') => self.close(true),
                _ => None,
            };
            match next {
                Some(next) => self.expect = next,
                None => return false,
            }
        }
        true
    }

    /// Whether the innermost level is an array. There is one: outside of the object nothing but a brace is expected.
    fn in_array(&self) -> bool {
        let level = self.depth - 1;
        self.is_array[level / 64] >> (level % 64) & 1 == 1
    }

    fn open(&mut self, is_array: bool) -> Option<Expect> {
        if self.depth == self.depth_max {
            return None;
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        self.depth += 1;
        if is_array {
            self.is_array[word] |= bit;
            Some(Expect::ValueOrEnd)
        } else {
            self.is_array[word] &= !bit;
            Some(Expect::KeyOrEnd)
        }
    }

    fn close(&mut self, is_array: bool) -> Option<Expect> {
        if self.in_array() != is_array {
            return None;
        }
        self.depth -= 1;
        Some(if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: usize = 4;

    fn walk(tokens: &[u8]) -> bool {
        let mut grammar = Grammar::new(DEPTH);
        grammar.feed(tokens, |_| ()) && grammar.is_complete()
    }

    /// The text that the tokens stand for.
    fn text_of(tokens: &[u8]) -> String {
        let texts = tokens.iter().map(|token| match token {
            b'"' => "\"\"",
            b'0' => "0",
            other => std::str::from_utf8(std::slice::from_ref(other)).expect("ASCII"),
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    /// The walk, fed in two pieces to see that it goes on where it stopped, accepts exactly what another parser accepts of
    /// the text: every short string of tokens, alone and as what follows a first key.
    #[test]
    fn every_short_string_of_tokens_is_judged_as_another_parser_judges_its_text() {
        const TOKENS: &[u8] = b"{}[]:,\"0";
        let longest = if cfg!(miri) { 3 } else { 6 };
        let mut accepted = 0;
        for (begin, len) in (0..=longest).flat_map(|len| [(&b""[..], len), (b"{\":", len)]) {
            for number in 0..TOKENS.len().pow(len) {
                let mut rest = number;
                let mut tokens = begin.to_vec();
                for _ in 0..len {
                    tokens.push(TOKENS[rest % TOKENS.len()]);
                    rest /= TOKENS.len();
                }
                let mut grammar = Grammar::new(DEPTH);
                let (front, back) = tokens.split_at(tokens.len() / 2);
                let ours = grammar.feed(front, |_| ()) && grammar.feed(back, |_| ()) && grammar.is_complete();
                // Only an object is wanted: what does not begin as one is refused without asking.
                let theirs = tokens.first() == Some(&b'{')
                    && serde_json::from_str::<serde::de::IgnoredAny>(&text_of(&tokens)).is_ok();
                assert_eq!(ours, theirs, "{}", text_of(&tokens));
                accepted += u32::from(ours);
            }
        }
        assert!(accepted >= 5, "{accepted} accepted");
    }

    #[test]
    fn values_are_strings_and_scalars_and_no_other_byte() {
        for byte in 0..=255u8 {
            let expected = b"\"0".contains(&byte);
            assert_eq!(walk(&[b'{', b'"', b':', byte, b'}']), expected, "{byte}");
        }
    }

    #[test]
    fn levels_are_counted_and_told_apart() {
        assert!(walk(b"{\":[[{}]]}"));
        assert!(!walk(b"{\":[[[[]]]]}"), "five levels");
        assert!(!walk(b"{\":[}]"));
        assert!(walk(b"{\":[[],[]],\":{\":{},\":0}}"), "levels are counted, not brackets");
    }

    #[test]
    fn keys_of_the_outermost_object_are_told() {
        let mut keys = Vec::new();
        let mut grammar = Grammar::new(DEPTH);
        assert!(grammar.feed(b"{\":\",\":{\":0},\":[\"]}", |at| keys.push(at)));
        assert_eq!(keys, [1, 5, 13]);
    }
}
