//! Decisions about segments: their names, how many to keep ready, which to retire, whether there is room. Writer
//! thread; pure: sizes and times in, answers out.
//!
//! ```text
//! (disk) → N.preparing → N.ready → EPOCH.segment → EPOCH.retired → N.ready, or removed
//!           zero-filled   synced     active, live     by retention
//! ```

use std::time::Duration;

use crate::base::{Epoch, PAGE_BYTES, align_up};
use crate::record::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// What a file of a writer's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// Being filled with zeros: worth nothing after a restart.
    Preparing(u64),
    /// Filled and synced, or recycled: may become a segment.
    Ready(u64),
    /// A segment.
    Segment(Epoch),
    /// A segment that retention was about to recycle or remove.
    Retired(Epoch),
}

impl FileName {
    /// The name.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Preparing(number) => format!("{number:016x}.preparing"),
            Self::Ready(number) => format!("{number:016x}.ready"),
            Self::Segment(epoch) => format!("{:016x}.segment", epoch.0),
            Self::Retired(epoch) => format!("{:016x}.retired", epoch.0),
        }
    }

    /// Reads a name written by [`FileName::text`]; `None` for every other file.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, suffix) = name.split_once('.')?;
        let is_canonical = stem.len() == 16 && stem.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_canonical {
            return None;
        }
        // The upper half is no name of ours, and keeps the number after the highest from overflowing.
        let number = u64::from_str_radix(stem, 16).ok().filter(|number| *number <= u64::MAX / 2)?;
        match suffix {
            "preparing" => Some(Self::Preparing(number)),
            "ready" => Some(Self::Ready(number)),
            "segment" => Some(Self::Segment(Epoch(number))),
            "retired" => Some(Self::Retired(Epoch(number))),
            _ => None,
        }
    }
}

/// A segment that holds events, or may soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its length.
    pub bytes: u64,
    /// Where its chunks end; of the active one, where they began.
    pub end: u64,
    /// What it takes of the disk: its length, or less once its unused end was given back.
    pub disk_bytes: u64,
    /// When it was begun, Unix time in nanoseconds, as the clock then said.
    pub created_unix_ns: u64,
    /// The latest time known of it: when its last chunk was closed, or when it was last the active one; as the clock then said.
    /// 0 if nothing is known.
    pub newest_unix_ns: u64,
}

impl Live {
    /// The segment that a header begins, with nothing in it.
    #[must_use]
    pub fn begun(header: &SegmentHeader) -> Self {
        Self {
            epoch: header.epoch,
            bytes: header.segment_bytes,
            end: SEGMENT_HEADER_BYTES as u64,
            disk_bytes: header.segment_bytes,
            created_unix_ns: header.created_unix_ns,
            newest_unix_ns: header.created_unix_ns,
        }
    }

    /// Where the unused end of a segment that is no longer written to begins, if it is long enough to be given back. One that
    /// was filled has less than a chunk of it; one that a process was stopped in, or killed, nearly its length.
    #[must_use]
    pub fn unused_from(&self) -> Option<u64> {
        let from = align_up(self.end as usize, PAGE_BYTES) as u64;
        (self.bytes.saturating_sub(from) >= self.bytes / 4).then_some(from)
    }

    /// Whether its file can become a new segment of `segment_bytes`: one with a hole would be allocated while it is written to.
    #[must_use]
    pub fn is_recyclable(&self, segment_bytes: u64) -> bool {
        self.bytes == segment_bytes && self.unused_from().is_none()
    }
}

/// How long segments are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What all segments may take of the disk; the oldest go when they take more.
    pub bytes: Option<u64>,
    /// Age of a segment's youngest event; older segments go.
    pub age: Option<Duration>,
}

/// How many of the oldest segments to retire when `extra_bytes` more were live: never the active (last) one, never one
/// that a follower needs.
#[must_use]
pub fn retire_count(
    live: &[Live],
    extra_bytes: u64,
    retention: Retention,
    now_unix_ns: u64,
    followers_need: Option<Epoch>,
) -> usize {
    let mut total: u64 = live.iter().map(|segment| segment.disk_bytes).sum::<u64>().saturating_add(extra_bytes);
    let mut count = 0;
    let mut ends = Ends { live, now_unix_ns, begun_unix_ns: 0 };
    for (index, segment) in live.iter().enumerate().take(live.len().saturating_sub(1)) {
        let end_unix_ns = ends.of(index);
        let too_many = retention.bytes.is_some_and(|bytes| total > bytes);
        let age = Duration::from_nanos(now_unix_ns.saturating_sub(end_unix_ns));
        let too_old = retention.age.is_some_and(|limit| age > limit);
        let needed = followers_need.is_some_and(|oldest| segment.epoch >= oldest);
        if needed || !(too_many || too_old) {
            break;
        }
        total -= segment.disk_bytes;
        count += 1;
    }
    count
}

/// How many segments' room the oldest `retired` of `live` make when they go: those recycled one each, of the others what they
/// take of the disk.
#[must_use]
pub fn recyclable(live: &[Live], retired: usize, segment_bytes: u64) -> u64 {
    let (whole, others): (Vec<&Live>, _) =
        live[..retired].iter().partition(|segment| segment.is_recyclable(segment_bytes));
    whole.len() as u64 + others.iter().map(|segment| segment.disk_bytes).sum::<u64>() / segment_bytes
}

/// When segments ended, of which nothing is on disk but what the clock said when they and others were begun, and what it said
/// in those that were read. It may have been wrong: at one start far behind, before the time came from the network, or ahead.
/// Then segments are kept longer, as far as it can be known, and never for ever:
///
/// * a time in the future is nobody's: it was ahead;
/// * a segment begun before the one before it was, says nothing about when that one ended: it was behind.
struct Ends<'a> {
    live: &'a [Live],
    now_unix_ns: u64,
    /// The latest time known of the segments asked for so far.
    begun_unix_ns: u64,
}

impl Ends<'_> {
    /// No event of the segment at `index` is younger than this. To be asked for one segment after another.
    fn of(&mut self, index: usize) -> u64 {
        let (segment, now) = (self.live[index], self.now_unix_ns);
        let known = [segment.created_unix_ns, segment.newest_unix_ns].into_iter().filter(|time| *time <= now);
        self.begun_unix_ns = known.fold(self.begun_unix_ns, u64::max);
        // No event of a segment is younger than the segments after it; of those, the first to be believed.
        let after = self.live[index + 1..].iter().map(|next| next.created_unix_ns);
        after.into_iter().find(|time| (self.begun_unix_ns..=now).contains(time)).unwrap_or(now)
    }
}

/// Room on disk as the writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Length of a segment.
    pub segment_bytes: u64,
    /// Longest chunk: as much of each segment's end may stay unused.
    pub chunk_bytes_max: u64,
    /// Where in the active segment the next chunk goes.
    pub active_offset: u64,
    /// Segments ready or being prepared, whose bytes are no longer among the free ones.
    pub ready: u64,
    /// Segments that would be retired, and so recycled, as the log grows.
    pub recyclable: u64,
    /// Bytes free on the filesystem.
    pub free_bytes: u64,
    /// Bytes of it that are to stay free.
    pub reserve_bytes: u64,
}

impl Room {
    /// Bytes of chunks that are certain to fit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let usable = self.segment_bytes - SEGMENT_HEADER_BYTES as u64 - self.chunk_bytes_max;
        let active = (self.segment_bytes - self.active_offset).saturating_sub(self.chunk_bytes_max);
        let preparable = self.free_bytes.saturating_sub(self.reserve_bytes) / self.segment_bytes;
        active + (self.ready + self.recyclable + preparable).saturating_mul(usable)
    }

    /// Whether `buffered_bytes`, everything the log buffers can hold, would still fit when this is next looked at: one
    /// more segment may be filled until then.
    #[must_use]
    pub fn is_enough_for(&self, buffered_bytes: u64) -> bool {
        self.bytes() >= buffered_bytes + self.segment_bytes
    }

    /// Whether one more segment may be prepared without touching the reserve.
    #[must_use]
    pub fn may_prepare(&self) -> bool {
        self.free_bytes >= self.reserve_bytes + self.segment_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn names_read_back_and_strangers_are_left_alone() {
        for name in [
            FileName::Preparing(3),
            FileName::Ready(0),
            FileName::Segment(Epoch(u64::MAX / 2)),
            FileName::Retired(Epoch(1)),
        ] {
            assert_eq!(FileName::parse(&name.text()), Some(name));
        }
        assert_eq!(FileName::Segment(Epoch(0x2A)).text(), "000000000000002a.segment");
        for stranger in [
            "durable",
            "2a.segment",
            "8000000000000000.segment",
            "000000000000002A.segment",
            "000000000000002a.segment.bak",
            "x.ready",
        ] {
            assert_eq!(FileName::parse(stranger), None, "{stranger}");
        }
    }

    fn live(count: u64) -> Vec<Live> {
        begun_at(&(1..=count).collect::<Vec<_>>())
    }

    /// Segments begun at these seconds, and nothing else known of them.
    fn begun_at(seconds: &[u64]) -> Vec<Live> {
        let live = |(epoch, second): (u64, &u64)| Live {
            epoch: Epoch(epoch),
            bytes: 10 * MIB,
            end: 10 * MIB,
            disk_bytes: 10 * MIB,
            created_unix_ns: second * SECOND,
            newest_unix_ns: 0,
        };
        (1..).zip(seconds).map(live).collect()
    }

    #[test]
    fn the_oldest_go_first_and_the_active_one_never() {
        let by_bytes = |bytes| Retention { bytes: Some(bytes), age: None };
        assert_eq!(retire_count(&live(5), 0, by_bytes(50 * MIB), 0, None), 0);
        assert_eq!(retire_count(&live(5), 0, by_bytes(49 * MIB), 0, None), 1);
        assert_eq!(retire_count(&live(5), 10 * MIB, by_bytes(40 * MIB), 0, None), 2);
        assert_eq!(retire_count(&live(5), 0, by_bytes(0), 0, None), 4);
        assert_eq!(retire_count(&live(1), 0, by_bytes(0), 0, None), 0);
        assert_eq!(retire_count(&[], 0, by_bytes(0), 0, None), 0);
        assert_eq!(retire_count(&live(5), u64::MAX, Retention::default(), u64::MAX, None), 0, "kept for ever");
    }

    #[test]
    fn a_segment_that_ended_early_counts_what_is_in_it() {
        let mut live = live(5);
        assert_eq!(live[0].unused_from(), None);
        for (end, unused_from) in [(4096, Some(4096)), (4097, Some(8192)), (15 * MIB / 2, Some(15 * MIB / 2))] {
            live[0].end = end;
            assert_eq!((live[0].unused_from(), live[0].is_recyclable(10 * MIB)), (unused_from, false), "{end}");
        }
        live[0].end = 15 * MIB / 2 + 1;
        assert_eq!(
            (live[0].unused_from(), live[0].is_recyclable(10 * MIB)),
            (None, true),
            "less than a quarter unused"
        );
        assert!(!live[0].is_recyclable(20 * MIB), "of another length");
        for segment in &mut live[..3] {
            (segment.end, segment.disk_bytes) = (4096, 4096);
        }
        let by_bytes = |bytes| Retention { bytes: Some(bytes), age: None };
        assert_eq!(retire_count(&live, 0, by_bytes(20 * MIB + 3 * 4096), 0, None), 0);
        assert_eq!(retire_count(&live, 0, by_bytes(20 * MIB + 3 * 4096 - 1), 0, None), 1);
        assert_eq!(recyclable(&live, 3, 10 * MIB), 0, "three pages make no room");
        assert_eq!(recyclable(&live, 4, 10 * MIB), 1);
        assert_eq!(recyclable(&live, 5, 5 * MIB), 4, "two of 10 MiB are removed and make room for four");
    }

    #[test]
    fn age_is_that_of_the_youngest_event_in_the_segment() {
        let by_age = Retention { bytes: None, age: Some(Duration::from_secs(2)) };
        // Segment 1 ended when segment 2 began, at second 2.
        assert_eq!(retire_count(&live(5), 0, by_age, 4_000_000_000, None), 0);
        assert_eq!(retire_count(&live(5), 0, by_age, 4_000_000_001, None), 1);
        assert_eq!(retire_count(&live(5), 0, by_age, u64::MAX, None), 4);
        assert_eq!(retire_count(&live(5), 0, by_age, 0, None), 0, "a clock that went back retires nothing");
    }

    /// Retired at `second`, being kept for 100 seconds.
    fn old_at(live: &[Live], second: u64) -> usize {
        let by_age = Retention { bytes: None, age: Some(Duration::from_secs(100)) };
        retire_count(live, 0, by_age, second * SECOND, None)
    }

    #[test]
    fn a_clock_once_behind_retires_nothing_that_is_young() {
        // One start with a clock that stood at second 10; events of seconds 1000 to 1010 are in the first segment.
        let live = begun_at(&[1000, 10, 1010]);
        assert_eq!(old_at(&live, 1020), 0);
        assert_eq!(old_at(&live, 1110), 0, "as old as it may get");
        assert_eq!(old_at(&live, 1111), 2, "both ended when the third began");
        assert_eq!(old_at(&begun_at(&[1000, 10]), 5000), 0, "nobody knows when it ended: not before there is a third");
        assert_eq!(old_at(&begun_at(&[1000, 10, 11, 12, 1010, 1020]), 1115), 4);
        // Behind, yet later than the segment before was begun: only what is in that one tells.
        let mut live = begun_at(&[10, 500, 1010, 1020]);
        assert_eq!(old_at(&live, 1020), 1);
        live[0].newest_unix_ns = 1005 * SECOND;
        assert_eq!(old_at(&live, 1020), 0);
        assert_eq!(old_at(&live, 1111), 2);
    }

    #[test]
    fn a_clock_once_ahead_does_not_end_retention() {
        let live = begun_at(&[1000, 900_000, 1010, 1020, 1030]);
        assert_eq!(old_at(&live, 1100), 0);
        assert_eq!(old_at(&live, 1111), 2);
        assert_eq!(old_at(&live, 1200), 4);
        let mut live = begun_at(&[1000, 900_000, 900_010, 1020]);
        live[0].newest_unix_ns = 900_000 * SECOND;
        live[1].newest_unix_ns = 900_010 * SECOND;
        assert_eq!(old_at(&live, 1121), 3);
        assert_eq!(old_at(&begun_at(&[1000, 900_000]), 5000), 0, "until a segment is begun with the right time");
        // Once that time has come it is believed again: kept too long, by as much as the clock was ahead at most.
        assert_eq!(old_at(&begun_at(&[1000, 2000, 1010, 1020]), 2050), 0);
        assert_eq!(old_at(&begun_at(&[1000, 2000, 1010, 1020, 2060]), 2161), 4);
    }

    #[test]
    fn a_clock_that_is_behind_now_retires_nothing() {
        assert_eq!(old_at(&begun_at(&[1000, 1010, 1020]), 50), 0);
        assert_eq!(old_at(&begun_at(&[1000, 1010, 50]), 60), 0);
    }

    #[test]
    fn what_a_follower_needs_stays() {
        let all = Retention { bytes: Some(0), age: Some(Duration::ZERO) };
        assert_eq!(retire_count(&live(5), 0, all, u64::MAX, Some(Epoch(3))), 2);
        assert_eq!(retire_count(&live(5), 0, all, u64::MAX, Some(Epoch(0))), 0);
        assert_eq!(retire_count(&live(5), 0, all, u64::MAX, Some(Epoch(99))), 4);
    }

    #[test]
    fn room_counts_only_what_is_certain() {
        let mut room = Room {
            segment_bytes: 8 * MIB,
            chunk_bytes_max: MIB,
            active_offset: 8 * MIB,
            ready: 0,
            recyclable: 0,
            free_bytes: 0,
            reserve_bytes: 16 * MIB,
        };
        assert_eq!(room.bytes(), 0);
        room.active_offset = 7 * MIB + 4096;
        assert_eq!(room.bytes(), 0, "the last chunk may not fit");
        room.active_offset = 4096;
        let usable = 7 * MIB - 4096;
        assert_eq!(room.bytes(), usable);
        room.ready = 2;
        room.recyclable = 1;
        assert_eq!(room.bytes(), 4 * usable);
        room.free_bytes = 16 * MIB + 8 * MIB - 1;
        assert_eq!((room.bytes(), room.may_prepare()), (4 * usable, false), "the reserve is not room");
        room.free_bytes += 1;
        assert_eq!((room.bytes(), room.may_prepare()), (5 * usable, true));
        assert!(room.is_enough_for(5 * usable - 8 * MIB) && !room.is_enough_for(5 * usable - 8 * MIB + 1));
    }
}
