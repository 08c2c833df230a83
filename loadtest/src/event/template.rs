//! What events look like: generated in the shapes that ingestion systems see, or the user's own lines.

use std::fmt;
use std::fmt::Write as _;

use serde::de::IgnoredAny;

use super::{Name, NameKey, Run, TEMPLATES_MAX};
use crate::random::Random;

/// Different events of a generated shape. Enough that a parser's branch predictor cannot learn them all, few enough that
/// the images of requests stay in the cache of the core that sends them.
const GENERATED: usize = 512;
/// As above for events of 4.2 KB.
const GENERATED_LARGE: usize = 128;
/// A line of the user's longer than this is not an event: the servers in question refuse it.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What generated events are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateKind {
    /// Attribution events of 266 bytes on average, 237 to 319.
    #[default]
    Attribution,
    /// Attribution events with nested parameters, about 4.2 KB.
    Large,
    /// Notifications as payment and delivery services send them, about 630 bytes, nested.
    Webhook,
}

/// Lines that cannot be events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A line is not a JSON object; its number, from 1, and why.
    NotAnObject(usize, String),
    /// A line is too long; its number, from 1.
    TooLong(usize),
    /// There is no line.
    Empty,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject(line, why) => write!(f, "line {line} is not a JSON object: {why}"),
            Self::TooLong(line) => write!(f, "line {line} is longer than 1 MiB"),
            Self::Empty => f.write_str("there is no event in it"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// One event whose number is still zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its bytes: one line of JSON.
    pub bytes: Vec<u8>,
    /// Where the digits of its number stand.
    pub number_at: usize,
}

/// All events of a run, by template number.
#[derive(Clone, Debug)]
pub struct Templates {
    run: Run,
    templates: Vec<Template>,
}

impl Templates {
    /// Events of a shape, from a seed.
    #[must_use]
    pub fn generated(kind: TemplateKind, run: Run, seed: u64) -> Self {
        let count = if kind == TemplateKind::Large { GENERATED_LARGE } else { GENERATED };
        let templates = (0..count as u32)
            .map(|template| {
                let mut random = Random::new(seed, 0x7e3a_0000 + u64::from(template));
                let (mut bytes, number_at) = Name::blank(NameKey::EventId, run, template);
                let mut members = String::with_capacity(4500);
                match kind {
                    TemplateKind::Attribution => attribution(&mut members, &mut random),
                    TemplateKind::Large => {
                        attribution(&mut members, &mut random);
                        trail(&mut members, &mut random);
                    }
                    TemplateKind::Webhook => webhook(&mut members, &mut random),
                }
                bytes.extend_from_slice(members.as_bytes());
                bytes.push(b'}');
                Template { bytes, number_at }
            })
            .collect();
        Self { run, templates }
    }

    /// The user's lines, each with a `load_id` in front of its own members. Empty lines are left out, and lines beyond
    /// the millionth.
    ///
    /// # Errors
    /// [`TemplateError`] for the first line that is no event.
    pub fn of_lines<'a>(lines: impl Iterator<Item = &'a [u8]>, run: Run) -> Result<Self, TemplateError> {
        let mut templates = Vec::new();
        for (at, line) in lines.enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if templates.len() == TEMPLATES_MAX {
                break;
            }
            if line.len() > LINE_BYTES_MAX {
                return Err(TemplateError::TooLong(at + 1));
            }
            check_object(line).map_err(|why| TemplateError::NotAnObject(at + 1, why))?;
            let (mut bytes, number_at) = Name::blank(NameKey::LoadId, run, templates.len() as u32);
            let is_empty = line[1..].trim_ascii_start() == b"}";
            if !is_empty {
                bytes.push(b',');
            }
            bytes.extend_from_slice(&line[1..]);
            templates.push(Template { bytes, number_at });
        }
        if templates.is_empty() { Err(TemplateError::Empty) } else { Ok(Self { run, templates }) }
    }

    /// The run they belong to.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run
    }

    /// How many there are; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// A template by its number.
    #[must_use]
    pub fn get(&self, template: usize) -> Option<&Template> {
        self.templates.get(template)
    }

    /// The most bytes that so many events in a row have.
    #[must_use]
    pub fn bytes_at_most(&self, count: usize) -> u64 {
        let all = || self.templates.iter().map(|template| template.bytes.len() as u64);
        let (sum, longest, rounds) = (all().sum::<u64>(), all().max().unwrap_or(0), count / self.len());
        rounds as u64 * sum + ((count % self.len()) as u64 * longest).min(sum)
    }

    /// Bytes of an event on average.
    #[must_use]
    pub fn bytes_mean(&self) -> f64 {
        self.templates.iter().map(|template| template.bytes.len()).sum::<usize>() as f64 / self.templates.len() as f64
    }
}

/// Whether a line is a JSON object by its grammar alone (RFC 8259), which bounds neither numbers nor nesting, and lets
/// an escape name half a surrogate pair: servers take such events, and reading values would refuse them.
fn check_object(line: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        let told = error.to_string();
        format!("{} at byte {}", told.split(" at line ").next().unwrap_or(&told), error.column())
    })?;
    if line.starts_with(b"{") { Ok(()) } else { Err("it is another value".into()) }
}

const APPS: [&str; 4] = ["com.acme.quest", "com.acme.drift", "io.shop.mobile", "org.reader.app"];
const TYPES: [&str; 5] = ["install", "purchase", "click", "session", "view"];
const NAMES: [&str; 5] = ["level_up", "checkout_done", "banner_tap", "app_open", "tutorial_step"];
const PLATFORMS: [&str; 3] = ["ios", "android", "web"];
const COUNTRIES: [&str; 6] = ["DE", "US", "JP", "BR", "IN", "FR"];
const CHANNELS: [&str; 4] = ["organic", "paid_social", "caf\u{e9}", "say \\\"hi\\\""];

fn attribution(text: &mut String, random: &mut Random) {
    write!(
        text,
        r#","app_id":"{}","event_type":"{}","event_name":"{}","timestamp":{},"user_id":"u{:07x}","platform":"{}","country":"{}","campaign_id":"c{}""#,
        random.pick(&APPS),
        random.pick(&TYPES),
        random.pick(&NAMES),
        1_700_000_000_000 + random.below(100_000_000_000),
        random.below(1 << 28),
        random.pick(&PLATFORMS),
        random.pick(&COUNTRIES),
        random.below(100_000),
    )
    .expect("writing to a string");
    let has_session = random.below(5) < 2;
    if !has_session || random.below(2) == 0 {
        write!(text, r#","channel":"{}""#, random.pick(&CHANNELS)).expect("writing to a string");
    }
    if has_session {
        write!(text, r#","session_id":"s{:012x}""#, random.below(1 << 48)).expect("writing to a string");
    }
    if random.below(5) < 2 {
        let (whole, cents) = (random.below(1000), random.below(100));
        write!(text, r#","revenue":{whole}.{cents:02},"currency":"EUR""#).expect("writing to a string");
    }
}

/// About 3.9 KB of nested parameters.
fn trail(text: &mut String, random: &mut Random) {
    text.push_str(r#","custom_params":{"trail":["#);
    for step in 0..107 {
        let comma = if step == 0 { "" } else { "," };
        write!(text, r#"{comma}{{"step":{step},"key":"{:016x}"}}"#, random.next_u64()).expect("writing to a string");
    }
    text.push_str("]}");
}

fn webhook(text: &mut String, random: &mut Random) {
    write!(
        text,
        r#","type":"payment.{}","created":{},"livemode":true,"api_version":"2026-01-15","data":{{"object":{{"id":"pay_{:016x}","amount":{},"currency":"eur","status":"{}","customer":{{"id":"cus_{:012x}","email":"user{}@example.com","address":{{"city":"K\u00f6ln","country":"{}","postal_code":"{:05}"}}}},"items":["#,
        random.pick(&["succeeded", "failed", "refunded"]),
        1_700_000_000 + random.below(100_000_000),
        random.next_u64(),
        random.below(1_000_000),
        random.pick(&["settled", "pending", "disputed"]),
        random.below(1 << 48),
        random.below(1_000_000),
        random.pick(&COUNTRIES),
        random.below(100_000),
    )
    .expect("writing to a string");
    for item in 0..1 + random.below(5) {
        let comma = if item == 0 { "" } else { "," };
        let (sku, quantity, price) = (random.below(1 << 32), 1 + random.below(9), random.below(100_000));
        write!(text, r#"{comma}{{"sku":"sku-{sku:08x}","quantity":{quantity},"unit_price":{price},"gift":null}}"#)
            .expect("writing to a string");
    }
    write!(text, r#"]}}}},"request":{{"id":"req_{:016x}","attempt":{}}}"#, random.next_u64(), 1 + random.below(3))
        .expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(kind: TemplateKind) -> (usize, f64, usize) {
        let templates = Templates::generated(kind, Run(1), 1);
        let bytes: Vec<usize> = templates.templates.iter().map(|template| template.bytes.len()).collect();
        (*bytes.iter().min().unwrap(), templates.bytes_mean(), *bytes.iter().max().unwrap())
    }

    #[test]
    fn generated_events_have_the_sizes_of_their_names() {
        let (least, mean, most) = lengths(TemplateKind::Attribution);
        assert!(least >= 237 && most <= 319 && (mean - 266.0).abs() < 3.0, "{least} to {most}, mean {mean}");
        let (_, mean, _) = lengths(TemplateKind::Large);
        assert!((mean - 4200.0).abs() < 100.0, "{mean}");
        let (_, mean, _) = lengths(TemplateKind::Webhook);
        assert!((600.0..800.0).contains(&mean), "{mean}");
    }

    #[test]
    fn every_generated_event_is_one_line_of_valid_json_under_its_own_name() {
        for kind in [TemplateKind::Attribution, TemplateKind::Large, TemplateKind::Webhook] {
            let templates = Templates::generated(kind, Run(7), 3);
            for (number, template) in templates.templates.iter().enumerate() {
                let value: serde_json::Value = serde_json::from_slice(&template.bytes).unwrap();
                assert!(value.is_object() && !template.bytes.contains(&b'\n'));
                let name = Name::of_line(&template.bytes).unwrap();
                assert_eq!((name.run, name.template), (Run(7), number as u32));
                assert_eq!(&template.bytes[template.number_at..][..16], b"0000000000000000");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_events_again() {
        let of = |seed| Templates::generated(TemplateKind::Webhook, Run(1), seed).templates;
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn lines_keep_their_own_bytes_behind_the_name() {
        let lines = [br#" {"event_id": "mine", "n":1.0e2}"#.as_slice(), b"", b"{}\r"];
        let templates = Templates::of_lines(lines.into_iter(), Run(1)).unwrap();
        assert_eq!(templates.len(), 2);
        let first = String::from_utf8(templates.get(0).unwrap().bytes.clone()).unwrap();
        assert_eq!(first, r#"{"load_id":"00000001-000000-0000000000000000","event_id": "mine", "n":1.0e2}"#);
        let second = String::from_utf8(templates.get(1).unwrap().bytes.clone()).unwrap();
        assert_eq!(second, r#"{"load_id":"00000001-000001-0000000000000000"}"#);
    }

    #[test]
    fn lines_that_are_no_events_are_refused_by_number() {
        let of = |lines: &[&'static str]| Templates::of_lines(lines.iter().map(|line| line.as_bytes()), Run(1)).err();
        let told = |lines: &[&'static str]| of(lines).map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(of(&["{}", "[1]"]), Some(TemplateError::NotAnObject(2, "it is another value".into())));
        assert_eq!(told(&["{\"a\":}"]), "line 1 is not a JSON object: expected value at byte 6");
        for wrong in ["{\"a\":01}", "{\"a\":1}}", "{\"a\":\"\\x\"}", "{\"a\":1,}", "{a:1}", "{\"a\":\"\t\"}", "{"] {
            assert!(told(&["{}", "", wrong]).starts_with("line 3 is not a JSON object: "), "{wrong}");
        }
        let not_text = Templates::of_lines([b"{\"a\":\"\xff\"}".as_slice()].into_iter(), Run(1)).unwrap_err();
        assert!(not_text.to_string().contains("byte 7 is not UTF-8"), "{not_text}");
        assert_eq!(of(&["", ""]), Some(TemplateError::Empty));
    }

    /// A log may hold them, so a replay has to take them.
    #[test]
    fn what_the_grammar_allows_is_taken_whatever_it_means() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
        let lines = [
            r#"{"a":1e999}"#,
            r#"{"a":-1E-9999,"b":123456789012345678901234567890}"#,
            r#"{"a\ud800":"\udc00"}"#,
            &deep,
            "{ }",
        ];
        let templates = Templates::of_lines(lines.iter().map(|line| line.as_bytes()), Run(1)).unwrap();
        assert_eq!(templates.len(), lines.len());
        assert!(templates.get(0).unwrap().bytes.ends_with(br#"","a":1e999}"#));
        assert!(templates.get(4).unwrap().bytes.ends_with(br#"" }"#));
    }

    #[test]
    fn events_in_a_row_are_at_most_as_long_as_it_is_said() {
        let lines = [b"{\"a\":1}".as_slice(), b"{}", b"{\"long\":\"long\"}"];
        let templates = Templates::of_lines(lines.into_iter(), Run(1)).unwrap();
        let lengths: Vec<u64> = templates.templates.iter().map(|template| template.bytes.len() as u64).collect();
        for count in 0..10 {
            for first in 0..3 {
                let bytes: u64 = (first..first + count).map(|at| lengths[at % 3]).sum();
                assert!(bytes <= templates.bytes_at_most(count), "{count} from {first}");
            }
        }
        assert_eq!(templates.bytes_at_most(300), lengths.iter().sum::<u64>() * 100);
    }
}
