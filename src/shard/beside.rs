//! How long a chunk must be to be offered while a group of this shard is still under way. Shard thread only; pure.
//!
//! A chunk offered beside a group is written while that one is synced: its requests wait less. But every group costs the
//! writer's core and the device the same again, whatever is in it, and what those spend on short groups, clients and
//! shards wait for as well. Which of the two counts for more depends on how much there is to fill groups with. Few
//! clients: nearly all of them wait for the disk, and a chunk held back for more is a disk that idles. Many clients: there
//! is always more to come, and longer groups carry it with less.
//!
//! So a chunk goes when it holds what a quarter of the clients send: about four groups are then on their way round, one
//! synced, one written, one filled and one at the clients. The clients are counted: connections that were answered in the
//! last window. Below [`BYTES_MIN`] a write costs next to nothing beside its sync, and joining the next group is as
//! good; beyond [`BYTES_MAX`] a longer one saves nothing that could still be measured.
//!
//! It never delays a chunk that an idle writer could take.

use crate::base::KIB;

/// The shortest chunk that goes beside a group.
pub(super) const BYTES_MIN: usize = 64 * KIB;
/// A chunk that goes beside a group however many clients there are.
pub(super) const BYTES_MAX: usize = 256 * KIB;
/// The share of the clients that a chunk is to hold the requests of: a quarter, less what headers and padding add.
const CLIENTS_SHARE: (u64, u64) = (7, 32);
/// How long clients are counted: several rounds of a disk that syncs in a millisecond. On a slower one some are missed, and
/// chunks go sooner.
const WINDOW_NS: u64 = 10_000_000;

/// The last window in which a connection was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LastAnswered(u64);

/// See the module text.
#[derive(Debug)]
pub(super) struct Beside {
    /// Number of the present window, from 1, and when it ends.
    window: u64,
    ends_ns: u64,
    /// Connections and requests answered in it, and the log's position when it began.
    clients: u64,
    answered: u64,
    from: u64,
    bytes: usize,
}

impl Beside {
    /// Nothing known yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { window: 1, ends_ns: 0, clients: 0, answered: 0, from: 0, bytes: BYTES_MIN }
    }

    /// A request that waited for its chunk was answered, on a connection that was last answered in `last`.
    #[inline]
    pub(super) fn answered(&mut self, last: &mut LastAnswered) {
        self.answered += 1;
        if last.0 != self.window {
            last.0 = self.window;
            self.clients += 1;
        }
    }

    /// Bytes a chunk must hold to be offered beside a group. `position` is that of the log in bytes, which only grows.
    #[inline]
    pub(super) fn bytes(&mut self, now_ns: u64, position: u64) -> usize {
        if now_ns >= self.ends_ns {
            self.begin_window(now_ns, position);
        }
        self.bytes
    }

    fn begin_window(&mut self, now_ns: u64, position: u64) {
        let stored = position - self.from;
        let of_a_part = match self.answered {
            // Nobody waits for what is stored.
            0 if stored > 0 => u64::MAX,
            0 => 0,
            answered => {
                let (part, of) = CLIENTS_SHARE;
                (u128::from(stored) * u128::from(self.clients * part) / u128::from(answered * of)) as u64
            }
        };
        self.bytes = of_a_part.clamp(BYTES_MIN as u64, BYTES_MAX as u64) as usize;
        self.window += 1;
        (self.ends_ns, self.clients, self.answered, self.from) = (now_ns + WINDOW_NS, 0, 0, position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked of a chunk after a window in which each of `clients` had `rounds` requests of `bytes` answered.
    fn after(clients: usize, rounds: usize, bytes: usize) -> usize {
        let mut beside = Beside::new();
        let mut marks = vec![LastAnswered::default(); clients];
        assert_eq!(beside.bytes(1, 0), BYTES_MIN, "nothing is known");
        for _ in 0..rounds {
            marks.iter_mut().for_each(|mark| beside.answered(mark));
        }
        assert_eq!(beside.bytes(WINDOW_NS, 77), BYTES_MIN, "the window is not over");
        beside.bytes(1 + WINDOW_NS, (clients * rounds * bytes) as u64)
    }

    #[test]
    fn a_chunk_is_to_hold_what_a_quarter_of_the_clients_send_however_often() {
        for rounds in [1, 2, 30] {
            // Two of eight and not one, although chunks are padded; three are not waited for.
            let bytes = after(8, rounds, 72 * KIB);
            assert!((68 * KIB..2 * 68 * KIB).contains(&bytes), "{bytes}");
            assert_eq!(after(64, rounds, 16 * KIB), 14 * 16 * KIB);
        }
    }

    #[test]
    fn it_is_bounded_both_ways() {
        assert_eq!(after(8, 20, 300), BYTES_MIN);
        assert_eq!(after(1, 20, 200 * KIB), BYTES_MIN);
        assert_eq!(after(16, 3, 73 * KIB), 255 * KIB + KIB / 2);
        assert_eq!(after(16, 3, 74 * KIB), BYTES_MAX);
        assert_eq!(after(5000, 1, 900 * KIB), BYTES_MAX);
    }

    #[test]
    fn what_nobody_waits_for_goes_in_long_chunks_and_clients_that_have_gone_are_forgotten() {
        let mut beside = Beside::new();
        let mut now_ns = 1;
        beside.bytes(now_ns, 0);
        now_ns += WINDOW_NS;
        assert_eq!(beside.bytes(now_ns, 100), BYTES_MAX);
        now_ns += WINDOW_NS;
        assert_eq!(beside.bytes(now_ns, 100), BYTES_MIN, "nothing came");
        let mut marks = [LastAnswered::default(); 16];
        marks.iter_mut().for_each(|mark| beside.answered(mark));
        now_ns += WINDOW_NS;
        assert_eq!(beside.bytes(now_ns, 100 + (2 << 20)), BYTES_MAX);
        marks[..4].iter_mut().for_each(|mark| beside.answered(mark));
        now_ns += WINDOW_NS;
        assert_eq!(beside.bytes(now_ns, 100 + (2 << 20) + 512 * KIB as u64), 112 * KIB);
    }
}
