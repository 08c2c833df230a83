//! Streams of events: as honest sources send them, and as someone would who wants the validator to be slow.

use std::fmt::Write as _;

use super::random::Random;

/// Events of a stream, so that branches are not learnt by heart.
const EVENTS: u64 = 1024;

/// One event of the schema that the figures use, `bytes` long: other values, one shape.
fn purchase(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut text = String::with_capacity(bytes);
    write!(
        text,
        r#"{{"event_id":"fig-{:08}","app_id":"com.example.puzzle","event_type":"purchase","event_name":"checkout_done","timestamp":{},"user_id":"u{:08x}","platform":"android","country":"DE","campaign_id":"c{}","revenue":{}.99,"currency":"EUR","custom_params":{{"note":""#,
        random.below(100_000_000),
        1_700_000_000_000 + random.below(100_000_000_000),
        random.next() as u32,
        random.below(100_000),
        random.below(1_000),
    )
    .expect("writing to a string");
    while text.len() + 3 < bytes {
        text.push('x');
    }
    text.push_str("\"}}");
    text.into_bytes()
}

/// Events of one shape, `bytes` long.
pub(crate) fn one_shape(bytes: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(1);
    (0..EVENTS).map(|_| purchase(&mut random, bytes)).collect()
}

/// An object of random members, of 150 to 450 bytes. Its shape is a function of `shape`.
fn object_of(shape: u64, random: &mut Random) -> Vec<u8> {
    let mut form = Random::new(shape);
    let mut text = String::from("{");
    for member in 0..8 + form.below(12) {
        let comma = if member == 0 { "" } else { "," };
        write!(text, r#"{comma}"member_{:x}":"#, form.below(1 << 20)).expect("writing to a string");
        match form.below(8) {
            0..=3 => write!(text, r#""{:x}""#, random.next() >> random.below(40)),
            4 | 5 => write!(text, "{}", random.next() >> (14 + random.below(40))),
            6 => write!(text, "{}", random.one_in(2)),
            _ => write!(text, r#"{{"low":{}.5,"high":[{},{}]}}"#, random.below(90), random.below(90), random.below(9)),
        }
        .expect("writing to a string");
    }
    text.push('}');
    text.into_bytes()
}

fn objects_of(count: u64, shapes: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(16);
    (0..count)
        .map(|_| {
            let shape = random.below(shapes);
            object_of(shape, &mut random)
        })
        .collect()
}

/// Sixteen shapes at random.
pub(crate) fn sixteen_shapes() -> Vec<Vec<u8>> {
    objects_of(EVENTS, 16)
}

/// Every event another shape, and so many that none comes back while it is remembered.
pub(crate) fn ever_new_shapes() -> Vec<Vec<u8>> {
    let mut random = Random::new(17);
    (0..4 * EVENTS).map(|shape| object_of(shape, &mut random)).collect()
}

/// Twice as many shapes as are remembered, one after the other.
pub(crate) fn more_shapes_than_fit() -> Vec<Vec<u8>> {
    let mut random = Random::new(18);
    (0..EVENTS).map(|number| object_of(number % 256, &mut random)).collect()
}

/// Just as long as a shape may be, and each one another.
pub(crate) fn huge_shapes() -> Vec<Vec<u8>> {
    let mut random = Random::new(19);
    (0..64)
        .map(|_| {
            let mut text = b"{\"\":[0".to_vec();
            for _ in 0..1020 {
                text.extend_from_slice(random.pick::<&[u8]>(&[b",[]", b",{}", b",1", b",\"\""]));
            }
            text.extend_from_slice(b"]}");
            text
        })
        .collect()
}

/// Numbers of every form.
pub(crate) fn numbers() -> Vec<Vec<u8>> {
    let mut random = Random::new(20);
    (0..64)
        .map(|_| {
            let mut text = String::from("{\"n\":[0");
            for _ in 0..100 {
                match random.below(4) {
                    0 => write!(text, ",{}", random.below(9)),
                    1 => write!(text, ",-{}", random.next() >> (1 + random.below(60))),
                    2 => write!(text, ",{}.{}", random.below(999), random.below(999_999)),
                    _ => write!(text, ",{}.{}e-{}", random.below(9), random.below(99), random.below(9)),
                }
                .expect("writing to a string");
            }
            text.push_str("]}");
            text.into_bytes()
        })
        .collect()
}

/// Strings of escapes.
pub(crate) fn escapes() -> Vec<Vec<u8>> {
    let mut random = Random::new(21);
    (0..EVENTS)
        .map(|_| {
            let mut text = String::from("{\"a\":\"");
            for _ in 0..60 {
                text.push_str(random.pick::<&str>(&["\\n", "\\\"", "\\u00e9", "\\\\", "a", "\\ud83e\\udd80", "é"]));
            }
            text.push_str("\"}");
            text.into_bytes()
        })
        .collect()
}

/// The smallest events, of a few shapes.
pub(crate) fn tiny() -> Vec<Vec<u8>> {
    let mut random = Random::new(22);
    (0..EVENTS)
        .map(|_| random.pick::<&[u8]>(&[b"{}", b"{\"a\":1}", b"{\"a\":\"b\"}", b"{\"a\":[]}"]).to_vec())
        .collect()
}

/// Every event ends in what no event ends in.
pub(crate) fn all_broken() -> Vec<Vec<u8>> {
    let mut events = one_shape(343);
    events.iter_mut().for_each(|event| event.push(b']'));
    events
}

/// Every other event ends in what no event ends in: looked at in vain before it is parsed.
pub(crate) fn half_broken() -> Vec<Vec<u8>> {
    let mut events = one_shape(343);
    for event in events.iter_mut().step_by(2) {
        event.push(b']');
    }
    events
}
