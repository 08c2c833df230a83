//! Events of the real sizes for the benches: the generator of the tests, by size.

#[path = "../../tests/support/events.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod events;
#[path = "../../tests/support/random.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
pub(crate) mod random;

#[allow(dead_code, reason = "one bench uses it")]
pub(crate) mod documents;
#[allow(dead_code, reason = "one bench uses it")]
pub(crate) mod streams;

use events::{EventName, Kind};

/// A size of event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// 268 bytes on average: the attribution schema.
    Mean268,
    /// 343 bytes: the events of the figures.
    Bytes343,
    /// About 4.2 KB: what reports of the older systems speak of.
    Large4200,
}

/// Every size.
#[allow(dead_code, reason = "one bench names its sizes")]
pub(crate) const SIZES: [Size; 3] = [Size::Mean268, Size::Bytes343, Size::Large4200];

/// `count` different events of a size.
pub(crate) fn events_of(size: Size, count: u64) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            let name = EventName { lane: 1, number };
            match size {
                Size::Mean268 => events::event(1, Kind::Attribution, name),
                Size::Large4200 => events::event(1, Kind::Large, name),
                Size::Bytes343 => {
                    let mut event = events::event(1, Kind::Attribution, name);
                    let (front, back) = (br#","note":""#, br#""}"#);
                    event.pop();
                    event.extend_from_slice(front);
                    event.resize(343 - back.len(), b'x');
                    event.extend_from_slice(back);
                    event
                }
            }
        })
        .collect()
}
