//! Linearizable registers, checked while the history goes on.
//!
//! **The rule.** For a value v take its write and all reads that returned it: `f(v)` is their earliest finish,
//! `s(v)` their latest start. The history of a unit is linearizable exactly when every read returned a value
//! whose write had begun before the read ended, and no two values u, v have both `f(u) < s(v)` and
//! `f(v) < s(u)`. (Gibbons and Korach 1997, for unique values.)
//!
//! **Unknown outcomes.** A write without a reply has no finish, so it contradicts nothing until a read returns
//! it; then the read gives it one. A write *fenced* at T (abort confirmed, controller gone, error reported,
//! recovery finished) finishes at T where a read returns it at all. So a ghost violates the rule by itself.
//!
//! **Forgetting.** Let L be the earliest start of the unit's outstanding reads, or now. A value *falls* when
//! `f(v) < L` and some other u has `f(u) < L` and `s(u) > f(v)`: no read that ends from now on may return it.
//! A fenced write that was never read falls when some u has `f(u) < L` and `s(u) > T`. A late reply to a
//! fallen write is no violation.
//!
//! **Zeros** may be written many times. A read of zeros is a violation where no write of zeros could have given
//! it; where several could, it is believed and teaches nothing.

use std::collections::{BTreeMap, VecDeque};

use super::{Time, Value, Violation};

/// Names an operation of a [`Checker`] until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(u64);

/// The registers of a volume.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    registers: BTreeMap<u64, Register>,
    next: u64,
    /// Operations under way: their units.
    units: BTreeMap<OperationId, u64>,
    checked: u64,
}

/// One register.
#[derive(Clone, Debug)]
struct Register {
    live: Vec<Entry>,
    /// Outstanding reads and when they began.
    reads: Vec<(OperationId, Time)>,
    /// The values that fell last, to tell a stale read from a phantom in messages.
    fallen: VecDeque<Value>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    value: Value,
    write: Option<OperationId>,
    /// When its write began.
    began: Time,
    /// s(v)
    latest_start: Time,
    /// f(v), `Time::MAX` while nothing has finished.
    earliest_finish: Time,
    /// When the write was fenced off, `Time::MAX` if it was not.
    fenced: Time,
    read: bool,
}

/// How many fallen values a register remembers.
const FALLEN_KEPT: usize = 16;

impl Checker {
    /// A volume whose units are all zeros.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A write of `value` to `unit` has been submitted.
    pub fn begin_write(&mut self, unit: u64, value: Value, at: Time) -> OperationId {
        let id = self.begin(unit);
        self.register(unit).live.push(Entry {
            value,
            write: Some(id),
            began: at,
            latest_start: at,
            earliest_finish: Time::MAX,
            fenced: Time::MAX,
            read: false,
        });
        id
    }

    /// A read of `unit` has been submitted.
    pub fn begin_read(&mut self, unit: u64, at: Time) -> OperationId {
        let id = self.begin(unit);
        self.register(unit).reads.push((id, at));
        id
    }

    /// A write was acknowledged.
    pub fn end_write(&mut self, id: OperationId, at: Time) {
        let Some(register) = self.end(id) else { return };
        if let Some(entry) = register.live.iter_mut().find(|e| e.write == Some(id)) {
            entry.earliest_finish = entry.earliest_finish.min(at);
            entry.write = None;
        }
        register.forget(at);
    }

    /// A write can take effect no more from now on, and whether it did is unknown: it was reported failed or
    /// aborted, or its controller is known to be gone. Other writes may go on without a reply for ever.
    pub fn fence_write(&mut self, id: OperationId, at: Time) {
        let Some(register) = self.end(id) else { return };
        if let Some(entry) = register.live.iter_mut().find(|e| e.write == Some(id)) {
            entry.fenced = at;
            entry.write = None;
            if entry.read {
                entry.earliest_finish = entry.earliest_finish.min(at);
            }
        }
        register.forget(at);
    }

    /// Fences all writes under way: whoever could have executed them is gone.
    pub fn fence_all(&mut self, at: Time) {
        for id in self.units.keys().copied().collect::<Vec<_>>() {
            let unit = self.units[&id];
            if self.register(unit).live.iter().any(|entry| entry.write == Some(id)) {
                self.fence_write(id, at);
            }
        }
    }

    /// A write was refused: it never took effect and never will.
    ///
    /// # Errors
    /// Where a read has seen it.
    pub fn refuse_write(&mut self, id: OperationId, at: Time) -> Result<(), Violation> {
        let Some(register) = self.end(id) else { return Ok(()) };
        let Some(index) = register.live.iter().position(|e| e.write == Some(id)) else { return Ok(()) };
        let entry = register.live.remove(index);
        register.forget(at);
        if entry.read { Err(Violation::Phantom { value: entry.value }) } else { Ok(()) }
    }

    /// A read returned `value`.
    ///
    /// # Errors
    /// The violation.
    pub fn end_read(&mut self, id: OperationId, value: Value, at: Time) -> Result<(), Violation> {
        let Some(register) = self.end(id) else { return Ok(()) };
        let Some(index) = register.reads.iter().position(|&(read, _)| read == id) else { return Ok(()) };
        let (_, began) = register.reads.swap_remove(index);
        let result = register.returned(value, began, at);
        register.forget(at);
        self.checked += 1;
        result
    }

    /// A read ended without data.
    pub fn drop_read(&mut self, id: OperationId, at: Time) {
        let Some(register) = self.end(id) else { return };
        register.reads.retain(|&(read, _)| read != id);
        register.forget(at);
    }

    /// After a power failure that may have taken writes back, `unit` holds one of `allowed`; the first read settles it.
    /// All operations under way on the unit are forgotten. See [`super::crash`].
    pub fn restart(&mut self, unit: u64, allowed: &[Value], at: Time) {
        self.units.retain(|_, of| *of != unit);
        let entry = |&value: &Value| Entry {
            value,
            write: None,
            began: 0,
            latest_start: 0,
            earliest_finish: Time::MAX,
            fenced: at,
            read: false,
        };
        let live: Vec<Entry> = allowed.iter().map(entry).collect();
        self.registers.insert(unit, Register { live, reads: Vec::new(), fallen: VecDeque::new() });
    }

    /// The units that were ever touched, ascending.
    pub fn units(&self) -> impl Iterator<Item = u64> {
        self.registers.keys().copied()
    }

    /// How many reads have been checked.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// How many operations are under way.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.units.len()
    }

    /// How many values are remembered, over all units: what the checker's memory grows with.
    #[must_use]
    pub fn live(&self) -> usize {
        self.registers.values().map(|register| register.live.len()).sum()
    }

    fn begin(&mut self, unit: u64) -> OperationId {
        self.next += 1;
        let id = OperationId(self.next);
        self.units.insert(id, unit);
        id
    }

    fn end(&mut self, id: OperationId) -> Option<&mut Register> {
        let unit = self.units.remove(&id)?;
        self.registers.get_mut(&unit)
    }

    fn register(&mut self, unit: u64) -> &mut Register {
        self.registers.entry(unit).or_insert_with(|| Register {
            live: vec![Entry {
                value: Value::ZERO,
                write: None,
                began: 0,
                latest_start: 0,
                earliest_finish: 0,
                fenced: Time::MAX,
                read: false,
            }],
            reads: Vec::new(),
            fallen: VecDeque::new(),
        })
    }
}

impl Entry {
    /// What becomes of it when a read from `began` to `ended` returned it.
    fn after_read(mut self, began: Time, ended: Time) -> Self {
        self.read = true;
        self.latest_start = self.latest_start.max(began);
        self.earliest_finish = self.earliest_finish.min(ended).min(self.fenced);
        self
    }

    fn contradicts(&self, other: &Self) -> bool {
        self.earliest_finish < other.latest_start && other.earliest_finish < self.latest_start
    }
}

impl Register {
    fn returned(&mut self, value: Value, began: Time, ended: Time) -> Result<(), Violation> {
        let mut possible = Vec::new();
        let mut violation = if self.fallen.contains(&value) {
            Violation::Stale { value }
        } else {
            Violation::Phantom { value }
        };
        for (index, entry) in self.live.iter().enumerate() {
            if entry.value != value || entry.began > ended {
                continue;
            }
            let after = entry.after_read(began, ended);
            let others = self.live.iter().enumerate().filter(|&(other, _)| other != index);
            match others.map(|(_, other)| other).find(|other| after.contradicts(other)) {
                Some(other) => violation = Violation::NoOrder { value, other: other.value },
                None => possible.push((index, after)),
            }
        }
        match possible[..] {
            [] => Err(violation),
            [(index, after)] => {
                self.live[index] = after;
                Ok(())
            }
            // Several writes of zeros: any of them may have been meant.
            _ => Ok(()),
        }
    }

    /// Removes what has fallen.
    fn forget(&mut self, now: Time) {
        let floor = self.reads.iter().map(|&(_, began)| began).min().unwrap_or(now);
        // The latest and the second latest start among the values that finished below the floor.
        let (mut best, mut second) = (None::<(Time, usize)>, None::<Time>);
        for (index, entry) in self.live.iter().enumerate().filter(|(_, e)| e.earliest_finish < floor) {
            if best.is_none_or(|(start, _)| entry.latest_start > start) {
                second = best.map(|(start, _)| start);
                best = Some((entry.latest_start, index));
            } else if second.is_none_or(|start| entry.latest_start > start) {
                second = Some(entry.latest_start);
            }
        }
        let Some((first, owner)) = best else { return };
        let mut index = 0;
        let fallen = &mut self.fallen;
        self.live.retain(|entry| {
            let other_start = if index == owner { second } else { Some(first) };
            index += 1;
            let finish = entry.earliest_finish;
            let ended = if finish < floor { Some(finish) } else { None };
            let fenced = (!entry.read && entry.fenced < Time::MAX).then_some(entry.fenced);
            let limit = ended.or(fenced);
            let falls = limit.zip(other_start).is_some_and(|(limit, start)| start > limit);
            if falls {
                if fallen.len() == FALLEN_KEPT {
                    fallen.pop_front();
                }
                fallen.push_back(entry.value);
            }
            !falls
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Value = Value(1);
    const B: Value = Value(2);

    fn read(checker: &mut Checker, began: Time, ended: Time, value: Value) -> Result<(), Violation> {
        let id = checker.begin_read(0, began);
        checker.end_read(id, value, ended)
    }

    fn write(checker: &mut Checker, began: Time, ended: Time, value: Value) {
        let id = checker.begin_write(0, value, began);
        checker.end_write(id, ended);
    }

    #[test]
    fn a_read_sees_the_last_write() {
        let mut it = Checker::new();
        assert_eq!(read(&mut it, 1, 2, Value::ZERO), Ok(()));
        write(&mut it, 3, 4, A);
        assert_eq!(read(&mut it, 5, 6, A), Ok(()));
        assert_eq!(read(&mut it, 7, 8, Value::ZERO), Err(Violation::Stale { value: Value::ZERO }));
        assert_eq!(read(&mut it, 9, 10, B), Err(Violation::Phantom { value: B }));
    }

    #[test]
    fn nothing_goes_back_from_new_to_old() {
        let mut it = Checker::new();
        let open = it.begin_write(0, A, 1);
        assert_eq!(read(&mut it, 2, 3, A), Ok(()));
        assert!(read(&mut it, 4, 5, Value::ZERO).is_err(), "an unacknowledged write was seen, then not");
        it.end_write(open, 6);
    }

    #[test]
    fn a_write_without_reply_may_come_late_unless_fenced() {
        let mut it = Checker::new();
        let lost = it.begin_write(0, A, 1);
        write(&mut it, 2, 3, B);
        assert_eq!(read(&mut it, 4, 5, B), Ok(()));
        let mut fenced = it.clone();
        assert_eq!(read(&mut it, 6, 7, A), Ok(()));
        fenced.fence_write(lost, 6);
        assert_eq!(read(&mut fenced.clone(), 7, 8, A), Ok(()), "it took effect before the fence");
        assert_eq!(read(&mut fenced, 7, 8, B), Ok(()));
        assert!(read(&mut fenced, 9, 10, A).is_err(), "a ghost");
    }

    #[test]
    fn a_refused_write_is_never_seen() {
        let mut it = Checker::new();
        let refused = it.begin_write(0, A, 1);
        assert_eq!(it.refuse_write(refused, 2), Ok(()));
        assert!(read(&mut it, 3, 4, A).is_err());
        let refused = it.begin_write(0, B, 5);
        assert_eq!(read(&mut it, 6, 7, B), Ok(()));
        assert_eq!(it.refuse_write(refused, 8), Err(Violation::Phantom { value: B }));
    }

    #[test]
    fn zeros_may_be_written_often() {
        let mut it = Checker::new();
        write(&mut it, 1, 2, A);
        write(&mut it, 3, 4, Value::ZERO);
        assert_eq!(read(&mut it, 5, 6, Value::ZERO), Ok(()));
        write(&mut it, 7, 8, B);
        assert!(read(&mut it, 9, 10, Value::ZERO).is_err());
    }

    #[test]
    fn the_first_read_after_a_crash_settles_the_value() {
        let mut it = Checker::new();
        it.restart(0, &[A, B], 10);
        assert_eq!(read(&mut it, 11, 12, B), Ok(()));
        assert!(read(&mut it.clone(), 13, 14, A).is_err());
        assert_eq!(read(&mut it, 13, 14, B), Ok(()));
    }

    #[test]
    fn memory_is_bounded_by_what_is_outstanding() {
        let mut it = Checker::new();
        let mut now = 1;
        for value in 1..10_000 {
            write(&mut it, now, now + 1, Value(value));
            assert_eq!(read(&mut it, now + 2, now + 3, Value(value)), Ok(()));
            now += 4;
            assert!(it.live() <= 2, "{} values live", it.live());
        }
        assert_eq!(it.checked(), 9_999);
    }
}
