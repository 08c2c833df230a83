//! What [`super::Validator`] promises: verdicts, errors and fields.

use super::*;

const DEPTH: usize = 8;

fn check(text: impl AsRef<[u8]>) -> Result<(), JsonErrorKind> {
    Validator::new(DEPTH).validate(text.as_ref()).map(|_| ()).map_err(|error| error.kind)
}

#[test]
fn objects_are_accepted() {
    for text in [
        "{}",
        " \t\r\n{ } \n",
        r#"{"a":1,"b":[true,false,null],"c":{"d":"e"}}"#,
        r#"{"a":-0,"b":0.5,"c":1E+2,"d":1e-2,"e":0e1}"#,
        r#"{"":""}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"grüße":"日本 🦀","esc":"\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80"}"#,
        "{\n\"a\"\r:\t[ ]\n}",
        "{\"del\":\"\u{7f}\"}",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_not_one_object_is_refused() {
    use JsonErrorKind::{
        BadEscape, BadLiteral, BadNumber, BadString, BadStructure, NotAnObject, NotUtf8, TooDeep, TrailingData,
    };
    let table: &[(&[u8], &[JsonErrorKind])] = &[
        (b"", &[NotAnObject]),
        (b"  ", &[NotAnObject]),
        (b"[]", &[NotAnObject]),
        (b"1", &[NotAnObject]),
        (b"\"{}\"", &[NotAnObject]),
        (b"\xef\xbb\xbf{}", &[NotAnObject]),
        (b"\x0b{}", &[NotAnObject]),
        (b"{", &[BadStructure]),
        (b"{]", &[BadStructure]),
        (b"{\"a\"}", &[BadStructure]),
        (b"{\"a\":}", &[BadStructure]),
        (b"{\"a\":1,}", &[BadStructure]),
        (b"{,}", &[BadStructure]),
        (b"{\"a\" 1}", &[BadStructure]),
        (b"{a:1}", &[BadStructure]),
        (b"{'a':1}", &[BadStructure]),
        (b"{1:1}", &[BadStructure]),
        (b"{\"a\":[1,]}", &[BadStructure]),
        (b"{\"a\":[1 2]}", &[BadStructure]),
        (b"{\"a\":[1}", &[BadStructure]),
        (b"{\"a\":1]", &[BadStructure]),
        (b"{\"a\":1", &[BadStructure]),
        (b"{}{}", &[TrailingData, BadStructure]),
        (b"{} x", &[TrailingData, BadStructure]),
        (b"{},", &[TrailingData, BadStructure]),
        (b"{\"a\":tru}", &[BadLiteral]),
        (b"{\"a\":truex}", &[BadLiteral]),
        (b"{\"a\":nul", &[BadLiteral]),
        (b"{\"a\":True}", &[BadStructure]),
        (b"{\"a\":NaN}", &[BadStructure]),
        (b"{\"a\":Infinity}", &[BadStructure]),
        (b"{\"a\":-Infinity}", &[BadNumber]),
        (b"{\"a\":01}", &[BadNumber]),
        (b"{\"a\":1.}", &[BadNumber]),
        (b"{\"a\":.5}", &[BadStructure]),
        (b"{\"a\":+1}", &[BadStructure]),
        (b"{\"a\":-}", &[BadNumber]),
        (b"{\"a\":1e}", &[BadNumber]),
        (b"{\"a\":0x1}", &[BadNumber]),
        (b"{\"a\":1_0}", &[BadNumber]),
        (b"{\"a\":\"\\x\"}", &[BadEscape]),
        (b"{\"a\":\"\\u12g4\"}", &[BadEscape]),
        (b"{\"a\":\"\\ud800\"}", &[BadEscape]),
        (b"{\"a\":\"\\udc00\\ud800\"}", &[BadEscape]),
        (b"{\"a\":\"\\ud800\\u0041\"}", &[BadEscape]),
        (b"{\"a\":\"x", &[BadString]),
        (b"{\"a\":\"x\\\"}", &[BadString]),
        (b"{\"a\":\"x\ny\"}", &[BadString]),
        (b"{\"a\":\"x\0y\"}", &[BadString]),
        (b"{\"a\":1}\0", &[TrailingData, BadStructure]),
        (b"{\"a\"\x0c:1}", &[BadStructure]),
        (b"{\"a\":\"\xff\"}", &[NotUtf8]),
        (b"{\"a\":\"\xc0\x80\"}", &[NotUtf8]),
        (b"{\"a\":\"\xed\xa0\x80\"}", &[NotUtf8]),
        (b"{\"a\":\"\xf0\x9f\xa6\"}", &[NotUtf8]),
        (b"{\"a\":[[[[[[[[]]]]]]]]}", &[TooDeep]),
    ];
    for (text, kinds) in table {
        let result = check(text);
        let shown = String::from_utf8_lossy(text);
        assert!(result.is_err_and(|kind| kinds.contains(&kind)), "{shown}: {result:?}, expected {kinds:?}");
    }
}

#[test]
fn depth_is_allowed_up_to_its_limit() {
    for inner in [DEPTH - 1, DEPTH] {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner));
        assert_eq!(check(&text).is_ok(), inner < DEPTH, "{text}");
    }
}

#[test]
fn numbers_of_any_size_are_accepted_and_leave_fields_readable() {
    let mut validator = Validator::new(DEPTH);
    for number in [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        "1e999",
        "-1E+400",
        "0.1e309",
        "1e-999",
        &format!("1{}", "0".repeat(400)),
        &format!("0.{}1", "0".repeat(400)),
    ] {
        let text = format!(r#"{{"esc":"\"1\\","n":{number},"event_id":"e\n7","deep":[{number},{number}]}}"#);
        let mut event = validator.validate(text.as_bytes()).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(event.string_field("event_id"), Some("e\n7"));
        let broken = text.replace("deep\":", "deep\" ");
        assert!(validator.validate(broken.as_bytes()).is_err(), "{broken}");
    }
    assert!(validator.validate(br#"{"a":1e999,"b":01}"#).is_err());
    assert!(validator.validate(br#"{"a":1e999,"b":"\ud800"}"#).is_err());
}

#[test]
fn the_first_top_level_string_of_a_name_is_found() {
    let mut validator = Validator::new(DEPTH);
    let text = br#"{"x":{"event_id":"inner"},"y":[{"event_id":"inner"},1],"z":{},"e\u0076ent_id":"first \u00e9",
        "event_id":"second","n":5}"#;
    let mut event = validator.validate(text).unwrap();
    assert_eq!(event.string_field("event_id"), Some("first é"));
    assert_eq!(event.string_field("n"), None, "a number is no string");
    assert_eq!(event.string_field("absent"), None);
    assert_eq!(validator.validate(b"{}").unwrap().string_field("event_id"), None);
}

#[test]
fn errors_name_the_byte_where_it_is_known() {
    let mut validator = Validator::new(DEPTH);
    let mut message = |text: &str| validator.validate(text.as_bytes()).err().map(|error| error.to_string());
    assert_eq!(message(r#" ["a"]"#).as_deref(), Some("an event must be a JSON object at byte 1"));
    assert_eq!(message(r#"{"a":tru}"#).as_deref(), Some("expected true, false or null at byte 5"));
    assert_eq!(message(r#"{"a":"\q"}"#).as_deref(), Some("malformed escape or unpaired surrogate in a string"));
    assert_eq!(message("{}"), None);
}

/// Another parser's grammar, with what it leaves out: UTF-8 and surrogate pairs.
fn oracle(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    object && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() && !has_lone_surrogate(text)
}

/// For text whose escapes are well-formed.
fn has_lone_surrogate(text: &str) -> bool {
    let unit = |at: usize| text.get(at..at + 6).and_then(|escape| u16::from_str_radix(&escape[2..], 16).ok());
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        if text.as_bytes()[at + 1] != b'u' {
            at += 2;
            continue;
        }
        let high = unit(at).expect("well-formed");
        at += 6;
        match high {
            0xd800..0xdc00 => {
                let paired = text[at..].starts_with("\\u") && matches!(unit(at), Some(0xdc00..0xe000));
                if !paired {
                    return true;
                }
                at += 6;
            }
            0xdc00..0xe000 => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn every_one_byte_change_is_judged_as_another_parser_judges_it() {
    let seeds = [
        r#"{"event_id":"a\"b\\","n":-12.5e+3,"t":true,"f":false,"z":null,"o":{"k":[1,{"q":"\ud83e\udd80é"}]}}"#,
        r#" { "a" : [ ] , "b" : 0 , "c" : "" } "#,
        r#"{"long":"0123456789012345678901234567890123456789012345678901234567890123456789","x":12345678901234567890}"#,
    ];
    let bytes: Vec<u8> = if cfg!(miri) { b"\"\xff".to_vec() } else { (0..=255).collect() };
    let mut validator = Validator::new(DEPTH);
    for seed in seeds {
        for at in (0..seed.len()).step_by(if cfg!(miri) { 37 } else { 1 }) {
            for byte in &bytes {
                let mut replaced = seed.as_bytes().to_vec();
                replaced[at] = *byte;
                let mut inserted = seed.as_bytes().to_vec();
                inserted.insert(at, *byte);
                let mut removed = seed.as_bytes().to_vec();
                removed.remove(at);
                for text in [replaced, inserted, removed, seed.as_bytes()[..at].to_vec()] {
                    let ours = validator.validate(&text).map(|_| ()).map_err(|error| error.to_string());
                    assert_eq!(ours.is_ok(), oracle(&text), "{}: {ours:?}", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}

#[test]
fn one_value_of_any_kind_and_nothing_else() {
    let mut validator = Validator::new(8);
    for good in ["1", "\"a\"", "null", "[1,{}]", " {\"a\":[]} ", "-0.5e3"] {
        assert_eq!(validator.validate_value(good.as_bytes()), Ok(()), "{good}");
    }
    for bad in ["", " ", "1,\"a\":2", "1 2", "1}", "{\"a\":1", "nul", "\"a\":1", "1,", ",1"] {
        assert!(validator.validate_value(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(validator.validate_value(b"[[[[[[[]]]]]]]").is_ok(), "seven levels in the object make eight");
    assert_eq!(validator.validate_value(b"[[[[[[[[]]]]]]]]").unwrap_err().kind, JsonErrorKind::TooDeep);
}

/// Found by a random test: the string went on in the next line when its line ended with a block.
#[test]
fn a_string_left_open_ends_with_its_line_wherever_that_is() {
    let mut validator = Validator::new(DEPTH).never_resting();
    for before in (0..130).step_by(if cfg!(miri) { 43 } else { 1 }) {
        let body = format!("{}{{\"a\":\"\r\n{{\"b\":\"c\"}}\nd{{\"{{}}\n{{\"e\":[]}}\n", " ".repeat(before));
        let mut lines = super::super::Lines::new();
        assert_eq!(validator.scan_lines(body.as_bytes(), &mut lines), body.len());
        let verdicts: Vec<bool> = lines.as_slice().iter().map(|line| validator.judge(*line).is_ok()).collect();
        assert_eq!(verdicts, [false, true, false, true], "{before} bytes before it");
    }
}
