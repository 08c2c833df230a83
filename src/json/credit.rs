//! When it is given up to look at events before they are parsed, and when it is taken up again. Shard thread; pure.
//!
//! Looking at an event that is not valid is in vain: the parser has to name its fault all the same. That costs a third of a
//! parse at most (AVX2), and what is saved on a valid event is two thirds at least. So a stream that is mostly valid
//! earns, and one that is mostly not goes to the parser at once, until it has valid events again.

use super::lines::LINES_MAX;

/// What looking at an event in vain costs, and what a valid one earns that was looked at. One that was not earns 1: it has
/// saved nothing. So a stream made to be expensive has two such events for each looked at in vain, and costs a ninth
/// more than the parser.
const PRICE: usize = 2;
/// Beyond this nothing is earned: a stream that was valid for long may look at so many lines in vain.
const POINTS_MAX: usize = PRICE * LINES_MAX;

/// How many events may yet be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit {
    points: usize,
    /// Nothing is earned or paid.
    is_fixed: bool,
}

impl Credit {
    /// A new validator's.
    pub(super) const NEW: Self = Self { points: POINTS_MAX, is_fixed: false };
    /// Every event is looked at.
    pub(super) const ENDLESS: Self = Self { points: POINTS_MAX, is_fixed: true };
    /// No event is.
    pub(super) const NONE: Self = Self { points: 0, is_fixed: true };

    /// Events that may be looked at before the next [`Credit::settle`]: at most [`LINES_MAX`].
    #[inline]
    pub(super) fn events(self) -> usize {
        self.points / PRICE
    }

    /// Takes into account how many events were looked at and proven, and how many in vain.
    #[inline]
    pub(super) fn settle(&mut self, proven: usize, in_vain: usize) {
        self.change(PRICE * proven, PRICE * in_vain);
    }

    /// Takes into account a valid event that was not looked at.
    #[inline]
    pub(super) fn earn(&mut self) {
        self.change(1, 0);
    }

    #[inline]
    fn change(&mut self, earned: usize, paid: usize) {
        if !self.is_fixed {
            self.points = (self.points + earned).saturating_sub(paid).min(POINTS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_events_use_it_up_and_valid_ones_restore_it() {
        let mut credit = Credit::NEW;
        credit.settle(0, LINES_MAX);
        assert_eq!(credit.events(), 0);
        credit.earn();
        assert_eq!(credit.events(), 0, "one valid event that was parsed does not pay for one that is not valid");
        credit.earn();
        assert_eq!(credit.events(), 1);
        credit.settle(10 * LINES_MAX, 0);
        assert_eq!(credit, Credit::NEW, "it does not grow beyond its bound");
    }

    #[test]
    fn no_more_are_looked_at_in_vain_than_is_earned() {
        let mut credit = Credit::NEW;
        let (mut state, mut proven, mut parsed, mut in_vain) = (0x7e57_u64, 0, 0, 0);
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let looked_at = credit.events().min((state >> 60) as usize);
            let valid = looked_at * usize::from(state >> 50 & 3 == 0);
            credit.settle(valid, looked_at - valid);
            (proven, in_vain) = (proven + valid, in_vain + looked_at - valid);
            if looked_at == 0 && state >> 40 & 1 == 1 {
                credit.earn();
                parsed += 1;
            }
            assert!(2 * in_vain <= 2 * proven + parsed + POINTS_MAX, "{in_vain} of {proven} and {parsed}");
        }
        assert!(in_vain > LINES_MAX && parsed > LINES_MAX, "{in_vain} of {proven} and {parsed}");
    }

    #[test]
    fn what_is_fixed_stays() {
        let (mut endless, mut none) = (Credit::ENDLESS, Credit::NONE);
        endless.settle(0, 1000);
        none.settle(1000, 0);
        none.earn();
        assert_eq!((endless.events(), none.events()), (LINES_MAX, 0));
    }
}
