//! Numbers, `true`, `false` and `null`, checked where they lie. Shard thread; pure.

use super::simd::{BLOCK_BYTES, Simd, WINDOW_BYTES};

/// White space, structural characters and quotes: what may follow a number or literal, as far as it is concerned.
static DELIMITERS: [bool; 256] = {
    let mut delimiters = [false; 256];
    let mut byte = 0;
    while byte < delimiters.len() {
        delimiters[byte] =
            matches!(byte as u8, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'}' | b'[' | b']' | b':' | b',' | b'"');
        byte += 1;
    }
    delimiters
};

/// Whether a whole number or literal begins at byte `at` of `text` and ends at a delimiter or the end of the text.
#[inline(always)]
pub(super) fn is_scalar<S: Simd>(simd: S, text: &[u8], at: usize) -> bool {
    let is_usual = match text[at..].first_chunk::<BLOCK_BYTES>() {
        Some(window) => is_usual(simd, window),
        None => false,
    };
    is_usual || is_any(text, at)
}

/// Any number or literal.
#[inline(never)]
fn is_any(text: &[u8], at: usize) -> bool {
    match text[at] {
        b't' => is_literal(text, at, b"true"),
        b'f' => is_literal(text, at, b"false"),
        b'n' => is_literal(text, at, b"null"),
        _ => is_number(text, at),
    }
}

/// What a word of eight bytes is compared with, of those bits in the mask, and the bytes that these are.
struct Literal {
    word: u64,
    mask: u64,
    bytes: usize,
}

/// Literals by the low half of their first byte. The others are of none: no word without any bits is 1.
static LITERALS: [Literal; 16] = {
    const NONE: Literal = Literal { word: 1, mask: 0, bytes: 0 };
    let mut literals = [NONE; 16];
    literals[b't' as usize % 16] =
        Literal { word: u64::from_le_bytes(*b"true\0\0\0\0"), mask: u64::MAX >> 32, bytes: 4 };
    literals[b'f' as usize % 16] =
        Literal { word: u64::from_le_bytes(*b"false\0\0\0"), mask: u64::MAX >> 24, bytes: 5 };
    literals[b'n' as usize % 16] =
        Literal { word: u64::from_le_bytes(*b"null\0\0\0\0"), mask: u64::MAX >> 32, bytes: 4 };
    literals
};

/// Whether it is a literal, or a number without exponent of at most 32 bytes, with as many bytes to look at. Which of them
/// it is and how many digits it has decide no branch: that differs from event to event, and a wrong guess costs more
/// than all of this.
#[inline(always)]
fn is_usual<S: Simd>(simd: S, window: &[u8; BLOCK_BYTES]) -> bool {
    let digits = simd.digits(window.first_chunk::<WINDOW_BYTES>().expect("a window is shorter than a block"));
    let minus = usize::from(window[0] == b'-');
    let whole = (digits >> minus).trailing_ones() as usize;
    let has_leading_zero = (window[minus] == b'0') & (whole > 1);
    // At most the window's length, and one more for the point.
    let end = minus + whole;
    let fraction = (digits >> (end + 1)).trailing_ones() as usize;
    let end_of_fraction = end + 1 + fraction;
    let is_fraction = (window[end % BLOCK_BYTES] == b'.') & (fraction > 0);
    let end_of_number = if is_fraction { end_of_fraction } else { end };
    let is_number = (whole > 0) & !has_leading_zero & is_delimiter(window[end_of_number % BLOCK_BYTES]);

    let word = u64::from_le_bytes(*window.first_chunk().expect("a word is shorter than a block"));
    let literal = &LITERALS[usize::from(window[0] % 16)];
    let is_literal = (word & literal.mask == literal.word) & is_delimiter(window[literal.bytes % BLOCK_BYTES]);
    is_number | is_literal
}

#[inline(always)]
fn is_literal(text: &[u8], at: usize, literal: &[u8]) -> bool {
    text[at..].starts_with(literal) && ends(text, at + literal.len())
}

/// RFC 8259 §6, any length and value, up to the end of the text.
fn is_number(text: &[u8], at: usize) -> bool {
    let start = at + usize::from(text[at] == b'-');
    let digits = digits_at(text, start);
    let has_leading_zero = digits > 1 && text[start] == b'0';
    let at = start + digits;
    if digits == 0 || has_leading_zero {
        return false;
    }
    ends(text, at) || is_number_tail(text, at)
}

/// Fraction and exponent, one of them at least.
fn is_number_tail(text: &[u8], mut at: usize) -> bool {
    if text[at] == b'.' {
        let digits = digits_at(text, at + 1);
        at += 1 + digits;
        if digits == 0 {
            return false;
        }
        if ends(text, at) {
            return true;
        }
    }
    if !matches!(text[at], b'e' | b'E') {
        return false;
    }
    let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
    let digits = digits_at(text, at + 1 + sign);
    digits > 0 && ends(text, at + 1 + sign + digits)
}

#[inline(always)]
fn ends(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| is_delimiter(*byte))
}

#[inline(always)]
fn is_delimiter(byte: u8) -> bool {
    DELIMITERS[usize::from(byte)]
}

/// Digits from byte `at` on, eight at a time.
fn digits_at(text: &[u8], at: usize) -> usize {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    /// Ten, as far from the top bit of a byte as the first value that is no digit.
    const TO_TOP_BIT: u64 = 0x7676_7676_7676_7676;
    let mut count = 0;
    while let Some(word) = text.get(at + count..).and_then(|rest| rest.first_chunk::<8>()) {
        // Digits become 0 to 9, and what is more reaches the top bit. No byte carries into the next.
        let values = u64::from_le_bytes(*word) ^ 0x3030_3030_3030_3030;
        let others = (((values & LOW_BITS) + TO_TOP_BIT) | values) & !LOW_BITS;
        if others != 0 {
            return count + others.trailing_zeros() as usize / 8;
        }
        count += 8;
    }
    let rest = text.get(at + count..).unwrap_or_default();
    count + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, Work};
    use super::*;

    struct Check<'a>(&'a [u8]);

    impl Work for Check<'_> {
        type Output = bool;

        #[inline(always)]
        fn with<S: Simd>(self, simd: S) -> bool {
            super::is_scalar(simd, self.0, 0)
        }
    }

    /// What every instruction set says.
    fn is_valid(text: &[u8]) -> bool {
        let best = Level::best().run(Check(text));
        assert_eq!(best, Level::portable().run(Check(text)), "{}", String::from_utf8_lossy(text));
        best
    }

    /// The grammar of RFC 8259 §6, written as it stands there.
    fn reference(text: &[u8]) -> bool {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let split = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let (int, rest) = text.split_at(split);
        if int.is_empty() || int.len() > 1 && int[0] == b'0' {
            return false;
        }
        let rest = match rest.strip_prefix(b".") {
            None => rest,
            Some(frac) => {
                let split = frac.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(frac.len());
                if split == 0 {
                    return false;
                }
                &frac[split..]
            }
        };
        let Some((b'e' | b'E', exp)) = rest.split_first() else { return rest.is_empty() };
        let exp = exp.strip_prefix(b"+").or(exp.strip_prefix(b"-")).unwrap_or(exp);
        !exp.is_empty() && exp.iter().all(u8::is_ascii_digit)
    }

    /// Every string of up to six of the bytes of numbers, followed by every kind of end.
    #[test]
    fn every_short_number_is_judged_by_the_grammar() {
        const BYTES: &[u8] = b"-+.eE019";
        for len in 1..=if cfg!(miri) { 2 } else { 6 } {
            for number in 0..BYTES.len().pow(len) {
                let mut rest = number;
                let mut text = Vec::new();
                for _ in 0..len {
                    text.push(BYTES[rest % BYTES.len()]);
                    rest /= BYTES.len();
                }
                let expected = reference(&text);
                let shown = String::from_utf8_lossy(&text).into_owned();
                assert_eq!(is_valid(&text), expected, "{shown} at the end of the text");
                // Long enough for whole windows to be read.
                text.extend_from_slice(b",0123456789,0123456789,0123456789,0123456789,0123456789,0123456789");
                assert_eq!(is_valid(&text), expected, "{shown}");
            }
        }
    }

    #[test]
    fn long_numbers_are_followed_to_their_end() {
        for digits in 1..40 {
            let run = "1".repeat(digits);
            for (text, expected) in [
                (format!("{run},"), true),
                (format!("-{run}.{run}e-{run}]"), true),
                (format!("{run}.{run}"), true),
                (format!("0{run},"), false),
                (format!("{run}x"), false),
                (format!("{run}.,"), false),
                (format!("{run}.{run}."), false),
                (format!("{run}e+{run}-"), false),
                (format!("{run}\u{0661}"), false),
            ] {
                assert_eq!(is_valid(text.as_bytes()), expected, "{text}");
                // In a longer text, where a number may still go on.
                let goes_on = text.ends_with(|last: char| last.is_ascii_digit() || last == '.' || last == '-');
                let text = text + if goes_on { "," } else { "" } + &" ".repeat(70);
                assert_eq!(is_valid(text.as_bytes()), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_may_follow_a_scalar_is_a_delimiter_and_nothing_else() {
        for byte in 0..=255u8 {
            let delimits = b" \t\r\n{}[]:,\"".contains(&byte);
            for scalar in ["true", "false", "null", "0", "-1", "1.5", "2e3"] {
                let mut text = scalar.as_bytes().to_vec();
                text.push(byte);
                // Of what goes on as a number the grammar of numbers is to judge.
                let expected = delimits || reference(&text);
                assert_eq!(is_valid(&text), expected, "{scalar} and {byte:#x}");
            }
        }
    }

    #[test]
    fn literals_have_one_spelling() {
        for text in ["tru", "True", "TRUE", "truee", "fals", "falsey", "nul", "nil", "nulL", "x", "\u{feff}", "\0"] {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
    }
}
