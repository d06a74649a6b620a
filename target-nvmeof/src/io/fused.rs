//! Fused compare-and-write (NVM, section 2.1.1; Base, section 3.4.2).
//!
//! The two commands are paired as their capsules arrive, so that data of other commands that arrive late cannot come
//! between; the first is held until both have their data. Every pair gets two completions.

use ashlar_env::Buf;

use crate::transport::Slot;
use crate::wire::sqe::{Fuse, io};
use crate::wire::{Sqe, Status};

/// The fused commands of one queue that are not executing yet.
#[derive(Default)]
pub struct Fused {
    /// A first command whose second has not arrived.
    first: Option<Half>,
    pairs: Vec<[Half; 2]>,
}

/// A command of a pair.
#[derive(Debug)]
pub struct Half {
    /// Which.
    pub slot: Slot,
    /// What it brought; `None` while it is on its way.
    pub data: Option<Buf>,
}

/// What an arriving command means for fusing.
#[derive(Debug)]
pub enum Arrival {
    /// it is not fused
    Single,
    /// it is held for its pair
    Held,
    /// it is refused, and so is the first of the pair that it completes, if there is one
    Refused {
        /// for both
        status: Status,
        /// the first command
        first: Option<Half>,
    },
}

/// A pair whose data are complete.
#[derive(Debug)]
pub struct Ready {
    /// The Compare.
    pub first: Slot,
    /// The Write.
    pub second: Slot,
    /// What the Compare brought.
    pub expected: Buf,
    /// What the Write brought.
    pub data: Buf,
}

impl Fused {
    /// A first command that the arriving command leaves without its second: to be ended with 0/0Ah.
    pub fn orphan(&mut self, arriving: &Sqe) -> Option<Half> {
        if arriving.fuse() == Fuse::Second { None } else { self.first.take() }
    }

    /// Takes note of a command that arrived in `slot`; `sqe_of` finds the entry of the first command.
    pub fn arrive<'a>(&mut self, slot: Slot, sqe: &Sqe, sqe_of: impl Fn(Slot) -> &'a Sqe) -> Arrival {
        let refused = |status, first| Arrival::Refused { status, first };
        match sqe.fuse() {
            Fuse::None => Arrival::Single,
            Fuse::Reserved => refused(Status::INVALID_FIELD, None),
            Fuse::First if sqe.opcode != io::COMPARE => refused(Status::INVALID_OPCODE, None),
            Fuse::First => {
                self.first = Some(Half { slot, data: None });
                Arrival::Held
            }
            Fuse::Second => {
                let Some(first) = self.first.take() else {
                    return refused(Status::ABORTED_MISSING_FUSED, None);
                };
                if sqe.opcode != io::WRITE {
                    return refused(Status::INVALID_OPCODE, Some(first));
                }
                let compare = sqe_of(first.slot);
                let blocks = |sqe: &Sqe| sqe.cdw12.get() & 0xFFFF;
                let same = compare.nsid == sqe.nsid
                    && compare.cdw10_11() == sqe.cdw10_11()
                    && blocks(compare) == blocks(sqe);
                if !same {
                    return refused(Status::INVALID_FIELD, Some(first));
                }
                self.pairs.push([first, Half { slot, data: None }]);
                Arrival::Held
            }
        }
    }

    /// Whether `slot` is held here.
    #[must_use]
    pub fn holds(&self, slot: Slot) -> bool {
        self.first.iter().chain(self.pairs.iter().flatten()).any(|half| half.slot == slot)
    }

    /// The data of a command held here have come. The pair, once both have theirs.
    pub fn data(&mut self, slot: Slot, data: Buf) -> Option<Ready> {
        let mut halves = self.first.iter_mut().chain(self.pairs.iter_mut().flatten());
        halves.find(|half| half.slot == slot)?.data = Some(data);
        let complete = |pair: &[Half; 2]| pair.iter().all(|half| half.data.is_some());
        let at = self.pairs.iter().position(complete)?;
        let [first, second] = self.pairs.swap_remove(at);
        Some(Ready { first: first.slot, second: second.slot, expected: first.data?, data: second.data? })
    }

    /// The command in `slot` failed before it could execute. The other one of its pair, if it has arrived.
    pub fn fail(&mut self, slot: Slot) -> Option<Half> {
        if self.first.as_ref().is_some_and(|first| first.slot == slot) {
            self.first = None;
            return None;
        }
        let at = self.pairs.iter().position(|pair| pair.iter().any(|half| half.slot == slot))?;
        let [first, second] = self.pairs.swap_remove(at);
        Some(if first.slot == slot { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U32;

    fn sqe(opcode: u8, fuse: u8, lba: u32) -> Sqe {
        let mut sqe = Sqe::zeroed();
        (sqe.opcode, sqe.flags) = (opcode, fuse);
        sqe.cdw10 = U32::new(lba);
        sqe
    }

    #[test]
    fn a_pair_is_ready_when_both_have_their_data_in_any_order() {
        for order in [[0, 1], [1, 0]] {
            let mut fused = Fused::default();
            let (compare, write) = (sqe(io::COMPARE, 1, 8), sqe(io::WRITE, 2, 8));
            assert!(matches!(fused.arrive(Slot(0), &compare, |_| unreachable!()), Arrival::Held));
            assert!(matches!(fused.arrive(Slot(1), &write, |_| &compare), Arrival::Held));
            assert!(fused.data(Slot(order[0]), Buf::from_static(b"x")).is_none());
            let ready = fused.data(Slot(order[1]), Buf::from_static(b"y")).unwrap();
            assert_eq!((ready.first, ready.second), (Slot(0), Slot(1)));
            assert!(!fused.holds(Slot(0)) && !fused.holds(Slot(1)));
        }
    }

    #[test]
    fn the_first_may_have_its_data_before_the_second_arrives() {
        let mut fused = Fused::default();
        let compare = sqe(io::COMPARE, 1, 8);
        fused.arrive(Slot(0), &compare, |_| unreachable!());
        assert!(fused.data(Slot(0), Buf::from_static(b"x")).is_none());
        fused.arrive(Slot(1), &sqe(io::WRITE, 2, 8), |_| &compare);
        assert!(fused.data(Slot(1), Buf::from_static(b"y")).is_some());
    }

    #[test]
    fn orphans_and_mismatches() {
        let mut fused = Fused::default();
        let (compare, write) = (sqe(io::COMPARE, 1, 8), sqe(io::WRITE, 2, 9));
        let missing = fused.arrive(Slot(9), &write, |_| unreachable!());
        assert!(matches!(missing, Arrival::Refused { status: Status::ABORTED_MISSING_FUSED, first: None }));
        fused.arrive(Slot(0), &compare, |_| unreachable!());
        assert_eq!(fused.orphan(&compare).map(|half| half.slot), Some(Slot(0)));
        fused.arrive(Slot(1), &compare, |_| unreachable!());
        assert!(fused.orphan(&write).is_none());
        let Arrival::Refused { status, first: Some(first) } = fused.arrive(Slot(2), &write, |_| &compare)
        else {
            panic!("the ranges differ")
        };
        assert_eq!((status, first.slot), (Status::INVALID_FIELD, Slot(1)));
        let alone = fused.arrive(Slot(3), &sqe(io::WRITE, 1, 8), |_| unreachable!());
        assert!(matches!(alone, Arrival::Refused { status: Status::INVALID_OPCODE, .. }));
    }

    #[test]
    fn a_failed_half_gives_the_other_back() {
        let mut fused = Fused::default();
        let compare = sqe(io::COMPARE, 1, 8);
        fused.arrive(Slot(0), &compare, |_| unreachable!());
        fused.arrive(Slot(1), &sqe(io::WRITE, 2, 8), |_| &compare);
        fused.data(Slot(0), Buf::from_static(b"x"));
        let other = fused.fail(Slot(1)).unwrap();
        assert!(other.slot == Slot(0) && other.data.is_some());
        assert!(!fused.holds(Slot(0)));
    }
}
