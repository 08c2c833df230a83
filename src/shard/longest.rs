//! The longest turn of late. Shard thread only; pure.
//!
//! Whoever asks does so every few seconds: a turn is remembered for as long as two scrapes lie apart, and each scrape
//! between sees it.

/// How long a turn is remembered at least; at most twice as long.
const WINDOW_NS: u64 = 60_000_000_000;

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct LongestTurn {
    ends_ns: u64,
    before: u64,
    now: u64,
}

impl LongestTurn {
    /// Counts a turn of `turn_ns` that ended at `now_ns`.
    pub(super) fn turned(&mut self, now_ns: u64, turn_ns: u64) {
        if now_ns >= self.ends_ns {
            self.before = if now_ns >= self.ends_ns + WINDOW_NS { 0 } else { self.now };
            (self.ends_ns, self.now) = (now_ns + WINDOW_NS, 0);
        }
        self.now = self.now.max(turn_ns);
    }

    /// Nanoseconds it took.
    pub(super) fn ns(&self) -> u64 {
        self.now.max(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_turn_is_seen_for_a_minute_and_not_for_ever() {
        let mut longest = LongestTurn::default();
        longest.turned(5, 3);
        longest.turned(WINDOW_NS, 900);
        let mut ns_at = |now_ns| {
            longest.turned(now_ns, 7);
            longest.ns()
        };
        assert_eq!([1, 2, WINDOW_NS - 1].map(|after| ns_at(WINDOW_NS + after)), [900; 3]);
        assert_eq!(ns_at(3 * WINDOW_NS), 7);
        assert_eq!(ns_at(9 * WINDOW_NS), 7, "nothing happened in between");
    }
}
