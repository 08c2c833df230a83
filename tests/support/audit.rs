//! The oracle: what clients sent and were promised, held against what the log gives back.

use std::collections::HashMap;
use std::fmt;

use super::events::{self, EventName, Kind};

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2xx at a level that survives a crash of the process.
    Acked,
    /// 2xx at level `memory`, which promises nothing across a crash.
    AckedInMemory,
    /// An error: its events may be stored or not.
    Refused,
    /// No answer came: its events may be stored or not, but only after all before them.
    Unanswered,
}

/// One request of a lane: a run of event numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Number of its first event.
    pub(crate) first: u64,
    /// How many events it carried.
    pub(crate) count: u64,
    /// Whether its events were spread over lines.
    pub(crate) spread: bool,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// All that one connection sent.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The connection's number, unique in a test.
    pub(crate) lane: u32,
    /// What its events are like.
    pub(crate) kind: Kind,
    /// Its requests in the order they were sent.
    pub(crate) requests: Vec<Sent>,
}

impl Lane {
    /// The events of a request as they go over the wire.
    pub(crate) fn events(seed: u64, lane: u32, kind: Kind, sent: Sent) -> Vec<Vec<u8>> {
        (sent.first..sent.first + sent.count)
            .map(|number| {
                let event = events::event(seed, kind, EventName { lane, number });
                if sent.spread { events::spread(&event) } else { event }
            })
            .collect()
    }

    /// The request that carried event `number`.
    fn request_of(&self, number: u64) -> Option<Sent> {
        let after = self.requests.partition_point(|sent| sent.first <= number);
        let sent = *self.requests.get(after.checked_sub(1)?)?;
        (number < sent.first + sent.count).then_some(sent)
    }
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Events acknowledged at a level that survives.
    pub(crate) acked: u64,
    /// Lines in the log.
    pub(crate) stored: u64,
    /// Acknowledged and not in the log.
    pub(crate) lost: Vec<EventName>,
    /// In the log more than once.
    pub(crate) duplicated: Vec<EventName>,
    /// In the log with other bytes than were sent.
    pub(crate) corrupted: Vec<EventName>,
    /// In the log before an event that its connection sent earlier.
    pub(crate) out_of_order: Vec<EventName>,
    /// Not in the log although a later event of its connection is.
    pub(crate) skipped: Vec<EventName>,
    /// Lines that nobody sent.
    pub(crate) unknown: Vec<String>,
    /// In the log without having been acknowledged: allowed, since the answer may have been lost.
    pub(crate) stored_not_acked: u64,
}

impl Audit {
    /// Compares what `lanes` sent with the `lines` of the log.
    pub(crate) fn of(seed: u64, lanes: &[Lane], lines: &[Vec<u8>]) -> Self {
        let mut audit = Self { stored: lines.len() as u64, ..Self::default() };
        let by_lane: HashMap<u32, &Lane> = lanes.iter().map(|lane| (lane.lane, lane)).collect();
        assert_eq!(by_lane.len(), lanes.len(), "two connections share a lane");
        let mut seen: HashMap<u32, Vec<u64>> = HashMap::new();
        for line in lines {
            let known = EventName::of_line(line).and_then(|name| {
                let lane = by_lane.get(&name.lane)?;
                Some((name, lane.kind, lane.request_of(name.number)?))
            });
            let Some((name, kind, sent)) = known else {
                audit.unknown.push(String::from_utf8_lossy(line).into_owned());
                continue;
            };
            let event = events::event(seed, kind, name);
            let event = if sent.spread { events::spread(&event) } else { event };
            if events::stored(&event) != *line {
                audit.corrupted.push(name);
            }
            seen.entry(name.lane).or_default().push(name.number);
        }
        for lane in lanes {
            audit.check_lane(lane, seen.get(&lane.lane).map_or(&[], Vec::as_slice));
        }
        audit
    }

    fn check_lane(&mut self, lane: &Lane, stored: &[u64]) {
        let name = |number| EventName { lane: lane.lane, number };
        for pair in stored.windows(2) {
            if pair[1] < pair[0] {
                self.out_of_order.push(name(pair[1]));
            }
        }
        let mut sorted = stored.to_vec();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            if pair[0] == pair[1] {
                self.duplicated.push(name(pair[0]));
            }
        }
        let last_stored = sorted.last().copied();
        for sent in &lane.requests {
            for number in sent.first..sent.first + sent.count {
                let is_stored = sorted.binary_search(&number).is_ok();
                match sent.outcome {
                    Outcome::Acked => {
                        self.acked += 1;
                        if !is_stored {
                            self.lost.push(name(number));
                        }
                    }
                    Outcome::AckedInMemory | Outcome::Unanswered => {
                        self.stored_not_acked += u64::from(is_stored && sent.outcome == Outcome::Unanswered);
                        if !is_stored && last_stored > Some(number) {
                            self.skipped.push(name(number));
                        }
                    }
                    Outcome::Refused => self.stored_not_acked += u64::from(is_stored),
                }
            }
        }
    }

    /// Asserts that nothing is lost, doubled, damaged, made up or out of order.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let sound = self.lost.is_empty()
            && self.duplicated.is_empty()
            && self.corrupted.is_empty()
            && self.out_of_order.is_empty()
            && self.skipped.is_empty()
            && self.unknown.is_empty();
        assert!(sound, "{self}");
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acked {}, stored {}, stored but not acked {}", self.acked, self.stored, self.stored_not_acked)?;
        for (what, names) in [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("corrupted", &self.corrupted),
            ("out of order", &self.out_of_order),
            ("skipped", &self.skipped),
        ] {
            write!(f, ", {what} {}", names.len())?;
            if let Some(first) = names.first() {
                write!(f, " (first: lane {} number {})", first.lane, first.number)?;
            }
        }
        write!(f, ", unknown {}", self.unknown.len())?;
        self.unknown.first().map_or(Ok(()), |first| write!(f, " (first: {first:.200})"))
    }
}
