//! Each production of RFC 8259, and each trap that JSON parsers are known to fall into: what is accepted and what is not.
//!
//! A case is a value. It is tried as the member of an object, nested, among others, and with its object at every place of
//! a block, so that every byte of it comes to lie across the border of two.

mod verdict;

use verdict::{Others, Ours, Verdict};

/// A production or trap, its accepted forms and its refused ones.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const VALUES: &[Row] = &[
    (
        "literals",
        &["true", "false", "null"],
        &["True", "tru", "truee", "nul", "nulll", "falsE", "undefined", "NaN", "t", "n"],
    ),
    (
        "integers",
        &["0", "-0", "7", "-12", "1234567890123456789"],
        &["-", "+1", "--1", "01", "-01", "00", "1 2", "0x10", "1_000", "１"],
    ),
    (
        "fractions",
        &["0.5", "-0.0", "1.25", "10.000000000000000000000001"],
        &[".5", "1.", "-.5", "1..2", "1.2.3", "0.", "1,5.", "1.e1"],
    ),
    (
        "exponents",
        &["1e5", "1E5", "1e+5", "1E-05", "0e0", "-1.5e+10"],
        &["1e", "1e+", "e5", "1e1.5", "1e5e5", "1e 5", "1ee5", "1e+-5", "1-5"],
    ),
    (
        "numbers beyond any machine",
        &["1e999", "-1e-999", "123456789012345678901234567890", "0.1e309"],
        &["1e999x", "01e999", "1e999."],
    ),
    (
        "numbers that programs print",
        &[],
        &["Infinity", "-Infinity", "nan", "-nan", "1f", "1d", "1L", "1n", "0b1", "0o7"],
    ),
    (
        "strings",
        &[r#""""#, r#""a""#, r#"" ""#, "\"\u{7f}\"", "\"\u{80}\"", r#""{[,:]}""#],
        &[r#"""#, r#""a"#, "'a'", "a", "`a`", r#""a"b"#, r#""a""b""#],
    ),
    (
        "short escapes",
        &[r#""\"""#, r#""\\""#, r#""\/\b\f\n\r\t""#, r#""\\\\\"""#],
        &[
            r#""\""#,
            r#""\a""#,
            r#""\'""#,
            r#""\0""#,
            r#""\v""#,
            r#""\x41""#,
            r#""\ ""#,
            r#""\N""#,
            r#""\\\""#,
            "\"\\\u{e9}\"",
        ],
    ),
    (
        "unicode escapes",
        &[r#""\u0000""#, r#""\u00e9\u00E9""#, r#""\uFFFF""#, r#""\\u12""#],
        &[
            r#""\u""#,
            r#""\u1""#,
            r#""\u12""#,
            r#""\u123""#,
            r#""\u123g""#,
            r#""\U0041""#,
            r#""\u+041""#,
            r#""\u 041""#,
            r#""\u00"41""#,
            r#""\u{41}""#,
        ],
    ),
    (
        "surrogates",
        &[r#""\ud83e\udd80""#, r#""\uD800\uDC00""#, r#""\udbff\udfff""#],
        &[
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800\u0041""#,
            r#""\ud800x""#,
            r#""\udc00\ud800""#,
            r#""\ud83e\\udd80""#,
            r#""\ud83e \udd80""#,
        ],
    ),
    (
        "control characters in strings",
        &[],
        &["\"\0\"", "\"\t\"", "\"\n\"", "\"\r\"", "\"\u{1f}\"", "\"a\u{b}b\"", "\"\\\n\"", "\"\u{1}"],
    ),
    (
        "UTF-8",
        &["\"é\"", "\"日本\"", "\"🦀\"", "\"\u{10ffff}\"", "\"\u{feff}\"", "\"\u{fffe}\"", "\"\u{2028}\u{2029}\""],
        &["é", "🦀", "\u{a0}1", "\u{2003}1", "\u{feff}1"],
    ),
    (
        "arrays",
        &["[]", "[ ]", "[1]", "[1,2]", "[[],[[]]]", r#"["a",{},null]"#],
        &["[", "]", "[1", "[1,]", "[,1]", "[,]", "[1,,2]", "[1 2]", "[1;2]", "[1:2]", "(1)", "[}", "[1}", "[[]", "[]]"],
    ),
    (
        "objects",
        &["{}", "{ }", r#"{"a":1}"#, r#"{"":0}"#, r#"{"a":1,"a":2}"#, r#"{"a":{"a":{}}}"#],
        &[
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{:1}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1,,\"b\":2}",
            "{a:1}",
            "{1:1}",
            "{null:1}",
            "{'a':1}",
            "{\"a\" 1}",
            "{\"a\"::1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1:2}",
            "{\"a\",1}",
            "{[]:1}",
            "{\"a\":1",
            "{\"a\":1]",
            "{\"a\"=1}",
        ],
    ),
    (
        "white space",
        &[" 1 ", "\t1\t", "\r1", " [ \t1\r ,\t2 ] ", " { \"a\" : 1 } "],
        &["\u{c}1", "\u{b}1", "1\0", "\0", "\u{85}1", "\u{200b}1", "1\u{1a}", "[1\u{c},2]", "1\u{7f}"],
    ),
    ("comments", &[], &["1/*c*/", "/*c*/1", "1//c", "#c", "[1,/**/2]", "<!--1-->", "/"]),
    (
        "what runs together",
        &[],
        &[
            "truefalse",
            "1true",
            "true1",
            "null0",
            "\"a\"1",
            "1\"a\"",
            "\"a\"true",
            "true\"a\"",
            "[]1",
            "1[]",
            "{}1",
            "[][]",
            "{}{}",
            "\"\"\"\"",
            "\"a\" \"b\"",
            "1 true",
            "-\"a\"",
            "\\",
            "\\\"a\\\"",
            "1\\",
            "\"a\"\\",
        ],
    ),
    ("nothing", &[], &["", " ", ",", ":"]),
];

/// Bytes that are no `str`.
const NOT_UTF8: &[(&str, &[u8])] = &[
    ("a lone continuation byte", b"\"\x80\""),
    ("an overlong slash", b"\"\xc0\xaf\""),
    ("an overlong NUL", b"\"\xc0\x80\""),
    ("an overlong quote", b"\"\xc0\xa2\""),
    ("overlong in three", b"\"\xe0\x80\xaf\""),
    ("overlong in four", b"\"\xf0\x80\x80\xaf\""),
    ("an encoded high surrogate", b"\"\xed\xa0\x80\""),
    ("an encoded low surrogate", b"\"\xed\xb0\x80\""),
    ("an encoded pair (CESU-8)", b"\"\xed\xa0\xbe\xed\xb6\x80\""),
    ("above U+10FFFF", b"\"\xf4\x90\x80\x80\""),
    ("a first byte of five", b"\"\xf8\x88\x80\x80\x80\""),
    ("a first byte of six", b"\"\xfc\x84\x80\x80\x80\x80\""),
    ("0xfe", b"\"\xfe\""),
    ("0xff", b"\"\xff\""),
    ("cut after one of two", b"\"\xc3\""),
    ("cut after two of three", b"\"\xe6\x97\""),
    ("cut after three of four", b"\"\xf0\x9f\xa6\""),
    ("Latin-1", b"\"caf\xe9\""),
    ("a quote taken for a continuation", b"\"\xc3\"a\""),
    ("UTF-16", b"\"\0a\0\""),
    ("above ASCII outside of strings, low bits a digit", b"\xb1"),
    ("above ASCII outside of strings, low bits a brace", b"\xfb\xfd"),
    ("above ASCII outside of strings, low bits a space", b"1\xa0"),
    ("above ASCII outside of strings, low bits a quote", b"\xa2a\xa2"),
    ("above ASCII in a number", b"1\xb12"),
];

/// Whole texts, not values.
const TEXTS: &[Row] = &[
    (
        "an object",
        &["{}", " {} ", "\t\r{}\r"],
        &[
            "", " ", "[]", "1", "\"\"", "null", "[{}]", "\"{}\"", "{}{}", "{} {}", "{},", "{},{}", "{}x", "x{}", "{}]",
            "{}}", "[{}", "{};", "{}\0", "\0{}", "{}\u{c}",
        ],
    ),
    ("a byte order mark", &[], &["\u{feff}{}", "{}\u{feff}", "\u{feff}"]),
    ("JSON with a frame", &[], &["callback({})", ")]}',\n{}", "while(1);{}", "\u{1e}{}", "data: {}"]),
];

/// The values in objects of several forms, and at each place of a block.
fn try_value(value: &[u8], expected: bool, name: &str, ours: &mut Ours, others: &mut Others) {
    let frames: [(&[u8], &[u8]); 5] = [
        (b"{\"a\":", b"}"),
        (b"{\"a\":[", b"]}"),
        (b"{\"a\":[0,", b",\"b\"]}"),
        (b"{\"x\":{\"y\":[{\"a\":", b"}]},\"z\":null}"),
        (b"{ \"a\" :\t", b" , \"b\" : \"\\\"\" }"),
    ];
    for (before, after) in frames {
        let text = [before, value, after].concat();
        // In some frames a refused value becomes a fine one: `1,"b":2` is one in an object. The other parsers know.
        let verdict = others.judge(&text);
        if before == frames[0].0 {
            assert_eq!(
                verdict == Verdict::Valid,
                expected,
                "{name}: other parsers on {:?}",
                String::from_utf8_lossy(value)
            );
        }
        for shift in 0..64 {
            let is_valid = ours.judge(&text, shift);
            assert_eq!(is_valid, verdict == Verdict::Valid, "{name}: {:?}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn every_production_and_every_trap_is_judged_as_the_rfc_has_it() {
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for (name, accepted, refused) in VALUES {
        for value in *accepted {
            try_value(value.as_bytes(), true, name, &mut ours, &mut others);
        }
        for value in *refused {
            try_value(value.as_bytes(), false, name, &mut ours, &mut others);
        }
    }
}

#[test]
fn what_is_not_utf8_is_refused_wherever_it_stands() {
    let (mut ours, mut others) = (Ours::new(), Others::new());
    // The same shapes, valid: whatever is refused next is refused although its shape is known.
    for (_, bytes) in NOT_UTF8 {
        let ascii: Vec<u8> = bytes.iter().map(|byte| if *byte >= 0x80 { b'x' } else { *byte }).collect();
        if ascii.first() == Some(&b'"') && others.judge(&[b"{\"a\":", &ascii[..], b"}"].concat()) == Verdict::Valid {
            ours.learn(&[b"{\"a\":", &ascii[..], b"}"].concat());
        }
    }
    for (name, bytes) in NOT_UTF8 {
        try_value(bytes, false, name, &mut ours, &mut others);
    }
}

#[test]
fn only_one_object_is_an_event() {
    let (mut ours, mut others) = (Ours::new(), Others::new());
    for (name, accepted, refused) in TEXTS {
        for (texts, expected) in [(accepted, true), (refused, false)] {
            for text in *texts {
                assert_eq!(others.judge(text.as_bytes()) == Verdict::Valid, expected, "{name}: {text:?}");
                for shift in 0..64 {
                    assert_eq!(ours.judge(text.as_bytes(), shift), expected, "{name}: {text:?}");
                }
            }
        }
    }
}

#[test]
fn nesting_is_allowed_up_to_the_limit_and_not_beyond() {
    let (mut ours, mut others) = (Ours::new(), Others::new());
    let forms: [(&str, &str, &str); 4] =
        [("[", "", "]"), ("[", "1", "]"), ("{\"a\":", "{}", "}"), ("[{\"a\":", "[\"b\"]", "}]")];
    for (open, inner, close) in forms {
        for levels in (0..10).chain(verdict::DEPTH / 2 - 5..verdict::DEPTH + 5) {
            let text = format!("{{\"a\":{}{inner}{}}}", open.repeat(levels), close.repeat(levels));
            let Some(expected) = (match others.judge(text.as_bytes()) {
                Verdict::Unknown => None,
                verdict => Some(verdict == Verdict::Valid),
            }) else {
                continue;
            };
            assert_eq!(ours.judge(text.as_bytes(), levels % 64), expected, "{levels} times {open}");
        }
    }
}

#[test]
fn an_event_cut_off_anywhere_is_refused() {
    let (mut ours, mut others) = (Ours::new(), Others::new());
    let event = format!(
        r#"{{"id":"a\"b\\","text":"{}é日🦀","n":[-1.5e+3,0,{{"k":null}}],"t":true,"pad":"{}"}}"#,
        "x".repeat(50),
        "y".repeat(90)
    );
    ours.learn(event.as_bytes());
    for cut in 0..event.len() {
        let front = &event.as_bytes()[..cut];
        assert_eq!(others.judge(front), Verdict::Invalid);
        for shift in [0, 1, 31, 63, (64 - cut % 64) % 64] {
            assert!(!ours.judge(front, shift), "cut at {cut}");
        }
    }
    assert!(ours.judge(event.as_bytes(), 0));
}
