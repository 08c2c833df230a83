//! Events with the fields and sizes of the attribution schema, each known by its lane and number.
//!
//! The bytes of an event are a function of (seed, lane, number), so an oracle needs to keep numbers only. A lane is one
//! connection; numbers ascend in it.

use std::fmt::Write as _;

use super::random::Random;

/// Shortest and longest `attribution` event in bytes.
pub(crate) const ATTRIBUTION_BYTES: std::ops::RangeInclusive<usize> = 233..=319;
/// Mean of `attribution` events in bytes, to within one.
pub(crate) const ATTRIBUTION_BYTES_MEAN: usize = 268;

/// What an event is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 268 bytes on average, 233 to 319.
    Attribution,
    /// About 4.2 KB.
    Large,
}

/// Names one generated event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EventName {
    /// The connection that sends it.
    pub(crate) lane: u32,
    /// Its place in that connection, 0-based.
    pub(crate) number: u64,
}

impl EventName {
    /// The name in a stored line; `None` if the line was not made by this generator.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"event_id\":\"")?;
        let text = std::str::from_utf8(rest.get(..17)?).ok()?;
        let (lane, number) = text.split_once('-')?;
        Some(Self { lane: lane.parse().ok()?, number: number.parse().ok()? })
    }
}

const APPS: [&str; 4] = ["com.example.puzzle", "com.example.racer", "io.sample.shop", "org.test.reader"];
const TYPES: [&str; 4] = ["install", "purchase", "click", "session"];
const NAMES: [&str; 5] = ["level_up", "checkout_done", "banner_tap", "app_open", "tutorial_step"];
const PLATFORMS: [&str; 3] = ["ios", "android", "web"];
const COUNTRIES: [&str; 5] = ["DE", "US", "JP", "BR", "IN"];
const CHANNELS: [&str; 4] = ["organic", "social", "café ☕", "say \\\"hi\\\""];

/// One event, a JSON object on one line without a line feed.
pub(crate) fn event(seed: u64, kind: Kind, name: EventName) -> Vec<u8> {
    let mut random = Random::new(seed ^ (u64::from(name.lane) << 40) ^ name.number);
    let mut text = String::with_capacity(320);
    write!(
        text,
        r#"{{"event_id":"{:06}-{:010}","app_id":"{}","event_type":"{}","event_name":"{}","timestamp":{},"user_id":"u{:08x}","platform":"{}","country":"{}","campaign_id":"c{}","channel":"{}","revenue":{}.{:02}"#,
        name.lane,
        name.number,
        random.pick(&APPS),
        random.pick(&TYPES),
        random.pick(&NAMES),
        1_700_000_000_000 + random.below(100_000_000_000),
        random.next() as u32,
        random.pick(&PLATFORMS),
        random.pick(&COUNTRIES),
        random.below(100_000),
        random.pick(&CHANNELS),
        random.below(1_000),
        random.below(100),
    )
    .expect("writing to a string");
    if random.below(20) < 7 {
        write!(text, r#","session_id":"s{:016x}""#, random.next()).expect("writing to a string");
    }
    if random.one_in(3) {
        write!(text, r#","currency":"EUR""#).expect("writing to a string");
    }
    if kind == Kind::Large {
        text.push_str(r#","custom_params":{"trail":["#);
        for step in 0..106 {
            let comma = if step == 0 { "" } else { "," };
            write!(text, r#"{comma}{{"step":{step},"key":"{:016x}"}}"#, random.next()).expect("writing to a string");
        }
        text.push_str("]}");
    }
    text.push('}');
    text.into_bytes()
}

/// The same event over several lines: what a pretty printer sends.
pub(crate) fn spread(event: &[u8]) -> Vec<u8> {
    let mut spread = Vec::with_capacity(event.len() + 8);
    let comma = event.iter().position(|byte| *byte == b',').expect("an event has two members");
    spread.extend_from_slice(&event[..=comma]);
    spread.extend_from_slice(b"\r\n\t");
    spread.extend_from_slice(&event[comma + 1..event.len() - 1]);
    spread.extend_from_slice(b"\n}");
    spread
}

/// What the log keeps of an event sent as `sent`: each CR and LF is a space.
pub(crate) fn stored(sent: &[u8]) -> Vec<u8> {
    sent.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}
