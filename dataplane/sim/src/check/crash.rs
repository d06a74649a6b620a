//! What a unit may hold after a power failure.
//!
//! A write is *covered* when it is durable for certain: completed with FUA, completed on a volume without a
//! volatile cache, or completed before a flush was submitted that then succeeded. After a power failure a unit may hold
//! any value that no covered write has surely overwritten: the last covered one, any completed since, any that
//! was under way. Without a volatile cache this is {last acknowledged} and {unacknowledged}. The first
//! observation settles the unit for ever. The death of a process alone takes nothing back: what had completed
//! rests in the device's cache still, to be lost by a later power failure perhaps.

use std::collections::BTreeMap;

use super::{Time, Value, Violation};

/// Names a write of an [`Oracle`] until the next crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(u64);

/// What a flush will cover if it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushId(u64);

#[derive(Clone, Copy, Debug)]
struct Write {
    id: WriteId,
    value: Value,
    began: Time,
    /// `Time::MAX` while it is under way.
    ended: Time,
    /// Its place in the order of completions.
    completion: Option<u64>,
    covered: bool,
    /// One of those that may have survived the last crash; exactly one of them did.
    survivor: bool,
}

/// The oracle of one volume.
#[derive(Clone, Debug)]
pub struct Oracle {
    volatile_cache: bool,
    units: BTreeMap<u64, Vec<Write>>,
    /// The units of the writes under way.
    open: BTreeMap<WriteId, u64>,
    next: u64,
    completions: u64,
}

impl Oracle {
    /// A volume of zeros. `volatile_cache` as the volume reports it.
    #[must_use]
    pub fn new(volatile_cache: bool) -> Self {
        Self { volatile_cache, units: BTreeMap::new(), open: BTreeMap::new(), next: 0, completions: 0 }
    }

    /// A write of `value` to `unit` has been submitted.
    pub fn begin_write(&mut self, unit: u64, value: Value, at: Time) -> WriteId {
        self.next += 1;
        let id = WriteId(self.next);
        self.open.insert(id, unit);
        let write = Write {
            id,
            value,
            began: at,
            ended: Time::MAX,
            completion: None,
            covered: false,
            survivor: false,
        };
        self.unit(unit).push(write);
        id
    }

    /// A write was acknowledged; `fua` if it was sent with force unit access.
    pub fn end_write(&mut self, id: WriteId, fua: bool, at: Time) {
        let Some(unit) = self.open.remove(&id) else { return };
        self.completions += 1;
        let (completion, durable) = (self.completions, fua || !self.volatile_cache);
        let writes = self.unit(unit);
        if let Some(write) = writes.iter_mut().find(|write| write.id == id) {
            write.ended = at;
            write.completion = Some(completion);
            write.covered |= durable;
        }
        forget(writes);
    }

    /// A write was reported failed or aborted: it has taken effect by now or never will.
    pub fn fence_write(&mut self, id: WriteId, at: Time) {
        let Some(unit) = self.open.remove(&id) else { return };
        if let Some(write) = self.unit(unit).iter_mut().find(|write| write.id == id) {
            write.ended = at;
        }
    }

    /// A write was refused: it never took effect and never will.
    pub fn refuse_write(&mut self, id: WriteId) {
        if let Some(unit) = self.open.remove(&id) {
            self.unit(unit).retain(|write| write.id != id);
        }
    }

    /// A flush has been submitted.
    #[must_use]
    pub fn begin_flush(&self) -> FlushId {
        FlushId(self.completions)
    }

    /// That flush was acknowledged.
    pub fn end_flush(&mut self, flush: FlushId) {
        for writes in self.units.values_mut() {
            for write in writes.iter_mut().filter(|w| w.completion.is_some_and(|c| c <= flush.0)) {
                write.covered = true;
            }
            forget(writes);
        }
    }

    /// The process died, the device did not: nothing that completed is lost, and what was under way has happened
    /// by now or never will. See [`Checker::fence_all`](super::register::Checker::fence_all).
    pub fn process_died(&mut self, at: Time) {
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            self.fence_write(id, at);
        }
    }

    /// The power failed: what each unit that was ever written may hold now. Give it to
    /// [`Checker::restart`](super::register::Checker::restart).
    pub fn power_failed(&mut self, at: Time) -> Vec<(u64, Vec<Value>)> {
        self.open.clear();
        for write in self.units.values_mut().flatten() {
            // Which one survived is unknown, so none of them counts as later than another any more.
            *write = Write {
                began: 0,
                ended: write.ended.min(at),
                completion: None,
                covered: false,
                survivor: true,
                ..*write
            };
        }
        let allowed = |writes: &[Write]| writes.iter().map(|write| write.value).collect();
        self.units.iter().map(|(&unit, writes)| (unit, allowed(writes))).collect()
    }

    /// After a crash, before any new write to the unit: `unit` was found to hold `value`, and does so for ever.
    ///
    /// # Errors
    /// [`Violation::NotAllowedAfterCrash`].
    pub fn observe(&mut self, unit: u64, value: Value) -> Result<(), Violation> {
        let writes = self.unit(unit);
        if writes.iter().all(|write| write.value != value) {
            let allowed = writes.iter().map(|write| write.value).collect();
            return Err(Violation::NotAllowedAfterCrash { value, allowed });
        }
        self.settle(unit, value);
        Ok(())
    }

    /// A read of `unit` that was submitted after the last crash returned `value`: if that is one of those that
    /// may have survived, no other did. Whether the read was right is for the register checker to say.
    pub fn settle(&mut self, unit: u64, value: Value) {
        let writes = self.unit(unit);
        let mut of_value = writes.iter().filter(|write| write.value == value).peekable();
        // Zeros may have been written again since, and then tell nothing.
        if of_value.peek().is_some() && of_value.all(|write| write.survivor) {
            writes.retain(|write| !write.survivor || write.value == value);
        }
    }

    fn unit(&mut self, unit: u64) -> &mut Vec<Write> {
        self.units.entry(unit).or_insert_with(|| {
            let id = WriteId(0);
            let (value, completion) = (Value::ZERO, Some(0));
            vec![Write { id, value, began: 0, ended: 0, completion, covered: true, survivor: false }]
        })
    }
}

/// Removes what a covered write has surely overwritten.
fn forget(writes: &mut Vec<Write>) {
    let last = writes.iter().filter(|write| write.covered).map(|write| write.began).max();
    if let Some(last) = last {
        writes.retain(|write| write.ended >= last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Value = Value(1);
    const B: Value = Value(2);
    const C: Value = Value(3);

    fn allowed(oracle: &mut Oracle, at: Time) -> Vec<Value> {
        oracle.power_failed(at).remove(0).1
    }

    #[test]
    fn without_a_cache_the_last_acknowledged_and_the_unacknowledged_remain() {
        let mut it = Oracle::new(false);
        let a = it.begin_write(0, A, 1);
        it.end_write(a, false, 2);
        let b = it.begin_write(0, B, 3);
        it.end_write(b, false, 4);
        it.begin_write(0, C, 5);
        assert_eq!(allowed(&mut it, 6), [B, C]);
        assert!(it.clone().observe(0, A).is_err());
        assert_eq!(it.observe(0, C), Ok(()));
        assert!(it.observe(0, B).is_err(), "the first observation settles it");
        assert_eq!(allowed(&mut it, 9), [C], "a second crash changes nothing");
    }

    #[test]
    fn with_a_cache_only_flush_and_fua_cover() {
        let mut it = Oracle::new(true);
        let a = it.begin_write(0, A, 1);
        it.end_write(a, false, 2);
        let flush = it.begin_flush();
        let b = it.begin_write(0, B, 3);
        it.end_write(b, false, 4);
        assert_eq!(allowed(&mut it.clone(), 5), [Value::ZERO, A, B]);
        it.end_flush(flush);
        assert_eq!(allowed(&mut it.clone(), 5), [A, B], "the flush was submitted before B completed");
        let c = it.begin_write(0, C, 6);
        it.end_write(c, true, 7);
        assert_eq!(allowed(&mut it, 8), [C]);
    }

    #[test]
    fn concurrent_writes_both_remain() {
        let mut it = Oracle::new(false);
        let a = it.begin_write(0, A, 1);
        let b = it.begin_write(0, B, 2);
        it.end_write(a, false, 3);
        it.end_write(b, false, 4);
        assert_eq!(allowed(&mut it, 5), [A, B]);
    }

    #[test]
    fn a_fenced_write_is_overwritten_like_any_other() {
        let mut it = Oracle::new(false);
        let a = it.begin_write(0, A, 1);
        it.fence_write(a, 2);
        assert_eq!(allowed(&mut it.clone(), 3), [Value::ZERO, A]);
        let b = it.begin_write(0, B, 3);
        it.end_write(b, false, 4);
        assert_eq!(allowed(&mut it, 5), [B]);
    }

    #[test]
    fn a_flush_after_the_crash_does_not_choose_the_survivor() {
        let mut it = Oracle::new(true);
        for (value, at) in [(A, 1), (B, 3)] {
            let write = it.begin_write(0, value, at);
            it.end_write(write, false, at + 1);
        }
        let before = it.begin_flush();
        assert_eq!(allowed(&mut it, 5), [Value::ZERO, A, B]);
        it.end_flush(before);
        let after = it.begin_flush();
        it.end_flush(after);
        assert_eq!(allowed(&mut it.clone(), 6), [Value::ZERO, A, B]);
        it.settle(0, A);
        assert_eq!(allowed(&mut it, 7), [A]);
    }

    #[test]
    fn zeros_written_since_do_not_choose_the_survivor() {
        let mut it = Oracle::new(true);
        let a = it.begin_write(0, A, 1);
        it.end_write(a, false, 2);
        assert_eq!(allowed(&mut it, 3), [Value::ZERO, A]);
        let zero = it.begin_write(0, Value::ZERO, 4);
        it.end_write(zero, false, 5);
        it.settle(0, Value::ZERO);
        assert_eq!(allowed(&mut it, 6), [Value::ZERO, A, Value::ZERO], "A may be what the cache hides");
    }
}
