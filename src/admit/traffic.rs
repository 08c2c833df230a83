//! Which part of a turn went into refusing. Shard thread; pure.
//!
//! It cannot be clocked: most of refusing is the kernel's, within the same system call that reads what will be served, and
//! the rest is a few hundred nanoseconds here and there. So the turn's time is divided by what it had to do, each part in
//! proportion to what it costs on an undisturbed core. In proportion, and not at a fixed price: a turn that took ten
//! times its usual time, because others ran on its core or its caches were cold, was slow at refusing as well. At a fixed
//! price everything beyond it would count as serving, and a shard with much to refuse would believe that the little it
//! serves fills its target, admit less, and go on believing it.

use super::PPM;

/// What a request costs the kernel besides its bytes, in bytes: a receive and a send of a loopback or network card take
/// some 1.5 µs and a kilobyte some 150 ns.
const KERNEL_REQUEST: u64 = 10 * 1024;
/// Instructions the shard spends on a refused request, on a served one of a small event, and on a byte of a body that is
/// served (stages `shard_refused_300`, `shard_single_300` and `shard_batch_200_on_1` of scripts/instructions, the last
/// divided by its 343 bytes). Skipping a byte costs nothing to speak of.
const REFUSED_REQUEST: u64 = 5_300;
const SERVED_REQUEST: u64 = 7_800;
const SERVED_BYTE: u64 = 7;

/// What came within a turn, and how much of it was refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    requests: u64,
    bytes: u64,
    refused: u64,
    refused_bytes: u64,
}

impl Traffic {
    /// Counts a request, whatever becomes of it.
    pub fn count_request(&mut self) {
        self.requests += 1;
    }

    /// Counts bytes that were received.
    pub fn count_received(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Counts requests that were turned away, or bytes that are dropped because one was.
    pub fn count_refused(&mut self, requests: u64, bytes: u64) {
        self.refused += requests;
        self.refused_bytes += bytes;
    }

    /// The part of a turn that went into refusing, in nanoseconds, if the shard itself took `turn_ns` and the kernel
    /// `kernel_ns`. All of the turn if nothing else came.
    #[must_use]
    pub fn refusing_ns(&self, turn_ns: u64, kernel_ns: u64) -> u64 {
        if self.refused == 0 && self.refused_bytes == 0 {
            return 0;
        }
        // A body may be dropped in a later turn than it came in.
        let served = self.requests.saturating_sub(self.refused);
        let served_bytes = self.bytes.saturating_sub(self.refused_bytes);
        let kernel = share(self.refused_bytes + self.refused * KERNEL_REQUEST, served_bytes + served * KERNEL_REQUEST);
        let own = share(self.refused * REFUSED_REQUEST, served_bytes * SERVED_BYTE + served * SERVED_REQUEST);
        of(turn_ns, own) + of(kernel_ns, kernel)
    }
}

/// Of both, the part that is `refused`, in parts per million.
fn share(refused: u64, served: u64) -> u64 {
    (u128::from(refused) * u128::from(PPM) / u128::from((refused + served).max(1))) as u64
}

fn of(ns: u64, ppm: u64) -> u64 {
    (u128::from(ns) * u128::from(ppm) / u128::from(PPM)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(requests: u64, bytes: u64, refused: u64, refused_bytes: u64) -> Traffic {
        Traffic { requests, bytes, refused, refused_bytes }
    }

    #[test]
    fn refusing_is_its_part_of_the_bytes_and_requests() {
        let some = traffic(4, 40_000, 1, 10_000);
        // Of the kernel's a fourth; of the shard's own 5 300 instructions of 5 300 + 3 × 7 800 + 30 000 × 7.
        assert_eq!(some.refusing_ns(0, 100_000), 25_000);
        assert_eq!(some.refusing_ns(100_000, 0), 2_220);
        assert_eq!(Traffic::default().refusing_ns(100_000, 100_000), 0);
        assert_eq!(traffic(9, 900, 0, 0).refusing_ns(100_000, 100_000), 0);
    }

    #[test]
    fn a_turn_with_nothing_to_serve_served_nothing_however_long_it_took() {
        for turn_ns in [1_000, 1_000_000, 40_000_000] {
            assert_eq!(traffic(64, 6_400, 64, 6_400).refusing_ns(turn_ns, turn_ns), 2 * turn_ns);
            assert_eq!(traffic(0, 0, 0, 500).refusing_ns(0, turn_ns), turn_ns, "dropped bytes of an earlier one");
        }
    }
}
