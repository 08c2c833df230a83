//! Escapes in strings: which are allowed, and what they mean. Shard thread; pure.
//!
//! RFC 8259 §7 gives the forms. §8.2 leaves open what an escaped surrogate without its other half means; it is refused
//! here, since no UTF-8 can hold it.

/// Whether every `\u` of `text` is followed by four hexadecimal digits, and every escaped surrogate by its other half.
/// In `text`, every backslash that is not escaped itself stands in a string, before a letter that may follow it.
pub(super) fn unicode_is_valid(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &text[at..]) {
        at += found;
        match unicode_at(&text[at..]) {
            Unicode::None => at += 2,
            Unicode::Char(_, bytes) => at += bytes,
            Unicode::Invalid => return false,
        }
        if at > text.len() {
            return false;
        }
    }
    true
}

/// What an escape stands for.
enum Unicode {
    /// It is one of the short ones.
    None,
    /// A character, written in so many bytes.
    Char(char, usize),
    /// A digit is missing, or half a surrogate pair.
    Invalid,
}

/// The escape at the start of `text`, a backslash.
fn unicode_at(text: &[u8]) -> Unicode {
    if text.get(1) != Some(&b'u') {
        return Unicode::None;
    }
    let Some(first) = hex_at(text, 2) else { return Unicode::Invalid };
    if let Some(char) = char::from_u32(first) {
        return Unicode::Char(char, 6);
    }
    // Not a character, so a surrogate: a high one goes with a low one behind it.
    let low = if text.get(6..8) == Some(b"\\u") { hex_at(text, 8) } else { None };
    match (first, low) {
        (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) => {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
            Unicode::Char(char::from_u32(code).expect("a pair of surrogates is a character"), 12)
        }
        _ => Unicode::Invalid,
    }
}

fn hex_at(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends to `out` what `content`, the inside of a valid string, stands for.
pub(super) fn unescape(content: &[u8], out: &mut Vec<u8>) {
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let bytes = match unicode_at(rest) {
            Unicode::Char(char, bytes) => {
                out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                bytes
            }
            Unicode::None | Unicode::Invalid => {
                out.push(short_escape(rest.get(1).copied()));
                2
            }
        };
        rest = rest.get(bytes..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// Whether `content`, the inside of a valid string, stands for `meant`.
pub(super) fn stands_for(content: &[u8], meant: &str) -> bool {
    let (mut rest, mut meant) = (content, meant.as_bytes());
    while !rest.is_empty() {
        let mut buffer = [0; 4];
        let (bytes, char): (usize, &[u8]) = match (rest[0], unicode_at(rest)) {
            (b'\\', Unicode::Char(char, bytes)) => (bytes, char.encode_utf8(&mut buffer).as_bytes()),
            (b'\\', _) => {
                buffer[0] = short_escape(rest.get(1).copied());
                (2, &buffer[..1])
            }
            _ => (1, &rest[..1]),
        };
        let Some(left) = meant.strip_prefix(char) else { return false };
        meant = left;
        rest = rest.get(bytes..).unwrap_or_default();
    }
    meant.is_empty()
}

/// What a backslash and `letter` stand for.
fn short_escape(letter: Option<u8>) -> u8 {
    match letter {
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(itself) => itself,
        None => b'\\',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_come_in_pairs_and_digits_in_fours() {
        for good in [
            "",
            r#"{"\u0000":"\uffFF"}"#,
            r#""\ud83e\udd80""#,
            r#""\uD800\uDC00\uDBFF\uDFFF""#,
            r#""\\ud800""#,
            r#""\\\\u""#,
            r#""\"\u0041""#,
        ] {
            assert!(unicode_is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            r#""\u""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\u+123""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800\n""#,
            r#""\ud800x\udc00""#,
            r#""\ud800\\udc00""#,
            r#""\udc00\ud800""#,
            r#""\\\ud800""#,
            r"\u123",
        ] {
            assert!(!unicode_is_valid(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn every_code_unit_is_judged() {
        for unit in (0..=0xffffu32).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let text = format!("\"\\u{unit:04x}\"");
            assert_eq!(unicode_is_valid(text.as_bytes()), char::from_u32(unit).is_some(), "{text}");
        }
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        for (content, meant) in [
            ("plain é", "plain é"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"a\u00e9b\ud83e\udd80c", "aéb🦀c"),
            (r"\\u0041", r"\u0041"),
        ] {
            let mut out = Vec::new();
            unescape(content.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), meant, "{content}");
            assert!(stands_for(content.as_bytes(), meant), "{content}");
            assert!(!stands_for(content.as_bytes(), &meant[..1]), "{content}");
            assert!(!stands_for(content.as_bytes(), &format!("{meant}x")), "{content}");
        }
    }
}
