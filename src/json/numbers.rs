//! Numbers that JSON allows and machines cannot hold.
//!
//! RFC 8259 §6 puts no bound on a number, only on what a receiver may make of it. Events are stored as they came, so
//! nothing here needs the value, but the parser refuses `1e999` and integers beyond 64 bits. This is the way round:
//! each well-formed number of a copy is overwritten by a `0` and spaces, which changes neither the structure nor the
//! validity of the text, and the copy is parsed again. Twice the work, for events that hold such a number only.

use super::is_white_space;

/// Overwrites every well-formed number outside strings by a `0` and spaces. Malformed ones stay, to be refused.
pub(super) fn blank(text: &mut [u8]) {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = string_end(text, at),
            b'-' | b'0'..=b'9' if at == 0 || is_delimiter(text[at - 1]) => {
                let len = number_len(&text[at..]);
                let end = at + len;
                if len > 0 && text.get(end).is_none_or(|byte| is_delimiter(*byte)) {
                    text[at] = b'0';
                    text[at + 1..end].fill(b' ');
                }
                at = end.max(at + 1);
            }
            _ => at += 1,
        }
    }
}

/// Index after the string that begins at `start`, or the end of a text that ends within it.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

const fn is_delimiter(byte: u8) -> bool {
    is_white_space(byte) || matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b',')
}

/// Bytes of the longest number of RFC 8259 §6 at the start of `text`; 0 if there is none.
fn number_len(text: &[u8]) -> usize {
    let digits = |from: usize| text[from.min(text.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at) {
        Some(b'0') => 1,
        Some(b'1'..=b'9') => digits(at),
        _ => return 0,
    };
    if text.get(at) == Some(&b'.') && digits(at + 1) > 0 {
        at += 1 + digits(at + 1);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        if digits(at + 1 + sign) > 0 {
            at += 1 + sign + digits(at + 1 + sign);
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_numbers_outside_strings_are_blanked() {
        for (text, blanked) in [
            (r#"{"a":12,"b":-1.5e+9}"#, r#"{"a":0 ,"b":0      }"#),
            (r#"[1e999,0,-0, 3 ]"#, r#"[0    ,0,0 , 0 ]"#),
            (r#"{"1":"2 3","\"4":5}"#, r#"{"1":"2 3","\"4":0}"#),
            ("[01,1.,.5,+1,1e,-,1x,a1,1.5.5]", "[01,1.,.5,+1,1e,-,1x,a1,1.5.5]"),
            ("77", "0 "),
            (r#"["12\"#, r#"["12\"#),
            ("-", "-"),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            blank(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), blanked, "{text}");
        }
    }
}
