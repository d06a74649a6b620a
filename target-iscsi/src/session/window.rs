//! The command window: which CmdSN may come (RFC 7143, section 4.2.2.1).
//!
//! A session has one connection, on which commands come in order, so nothing is ever held back to be put in order: a
//! number that was skipped, or whose command was rejected, may still come, and what came after it is not kept waiting.
//! Some initiators send such a command again under its number, others go on with the next.

use crate::wire::before;

pub(super) struct Window {
    /// The next number expected.
    expected: u32,
    /// The last number that may come, as the initiator was told. It never goes back.
    last: u32,
    depth: u16,
    /// Commands of the window in execution.
    outstanding: u16,
    /// Bit `n`: the number `expected - 1 - n` has not come.
    missing: u128,
}

impl Window {
    pub fn new(first: u32, depth: u16) -> Self {
        let last = first.wrapping_add(u32::from(depth)).wrapping_sub(1);
        Self { expected: first, last, depth, outstanding: 0, missing: 0 }
    }

    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// The last number that the initiator is told it may use.
    pub fn last(&mut self) -> u32 {
        let free = self.depth.saturating_sub(self.outstanding);
        let last = self.expected.wrapping_add(u32::from(free)).wrapping_sub(1);
        if before(self.last, last) {
            self.last = last;
        }
        self.last
    }

    /// A PDU with this number came. Whether it is to be dealt with; if not, it is to be ignored.
    pub fn arrives(&mut self, number: u32) -> bool {
        if before(self.last, number) {
            return false;
        }
        if before(number, self.expected) {
            let back = self.expected.wrapping_sub(1).wrapping_sub(number);
            let bit = 1_u128.checked_shl(back).unwrap_or(0);
            let was_missing = self.missing & bit != 0;
            self.missing &= !bit;
            return was_missing;
        }
        let skipped = number.wrapping_sub(self.expected);
        let gap = 1_u128.checked_shl(skipped).map_or(u128::MAX, |bit| bit - 1);
        self.missing = self.missing.checked_shl(skipped + 1).unwrap_or(0) | gap << 1;
        self.expected = number.wrapping_add(1);
        true
    }

    /// The PDU with this number was rejected: the number is free again.
    pub fn rejected(&mut self, number: u32) {
        let back = self.expected.wrapping_sub(1).wrapping_sub(number);
        self.missing |= 1_u128.checked_shl(back).unwrap_or(0);
    }

    /// A command that came is a task now.
    pub fn begins(&mut self) {
        self.outstanding += 1;
    }

    /// A task ended.
    pub fn ends(&mut self) {
        self.outstanding -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i15a_numbers_outside_the_window_are_ignored() {
        let mut window = Window::new(100, 8);
        assert_eq!((window.expected(), window.last()), (100, 107));
        for number in [108, 99, 100_u32.wrapping_add(1 << 31), 0] {
            assert!(!window.arrives(number), "{number}");
        }
        assert!(window.arrives(100));
        assert!(!window.arrives(100), "twice");
    }

    #[test]
    fn i15b_numbers_go_through_zero() {
        let mut window = Window::new(u32::MAX - 2, 4);
        for number in [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1, 2] {
            assert!(window.arrives(number));
            window.begins();
            window.ends();
            window.last();
        }
        assert_eq!((window.expected(), window.last()), (3, 6));
    }

    #[test]
    fn tasks_close_the_window_and_open_it_again() {
        let mut window = Window::new(0, 3);
        for number in 0..3 {
            assert!(window.arrives(number));
            window.begins();
        }
        assert_eq!((window.expected(), window.last()), (3, 2));
        window.ends();
        assert_eq!(window.last(), 3);
    }

    #[test]
    fn a_number_that_was_skipped_or_rejected_may_still_come_once() {
        let mut window = Window::new(0, 100);
        assert!(window.arrives(3));
        assert!(window.arrives(1) && !window.arrives(1));
        assert!(window.arrives(4));
        assert!(window.arrives(0) && window.arrives(2) && !window.arrives(3));
        window.rejected(4);
        assert!(window.arrives(4) && !window.arrives(4));
    }

    proptest::proptest! {
        #[test]
        fn each_number_is_taken_once(steps in proptest::collection::vec(0..20_u32, 1..300), first: u32) {
            let mut window = Window::new(first, 16);
            let mut taken = std::collections::BTreeSet::new();
            let mut running = 0;
            for step in steps {
                let number = window.expected().wrapping_add(step).wrapping_sub(4);
                let last = window.last();
                if window.arrives(number) {
                    proptest::prop_assert!(taken.insert(number));
                    proptest::prop_assert!(!before(last, number));
                    window.begins();
                    running += 1;
                }
                if running > 12 {
                    window.ends();
                    running -= 1;
                }
                proptest::prop_assert!(!before(window.last(), last));
            }
        }
    }
}
