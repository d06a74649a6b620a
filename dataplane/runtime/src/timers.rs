//! Deadlines of a reactor's tasks.

use std::collections::BTreeMap;
use std::task::Waker;

/// The deadlines that tasks wait for, soonest first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// By deadline (ns), then in the order of their making.
    waiting: BTreeMap<(u64, u64), Waker>,
    made: u64,
}

impl Timers {
    /// Adds a deadline; returns the number to name it by.
    pub(crate) fn add(&mut self, deadline_ns: u64, waker: Waker) -> u64 {
        self.made += 1;
        self.waiting.insert((deadline_ns, self.made), waker);
        self.made
    }

    /// Changes who is woken; `false` where the deadline has fired.
    pub(crate) fn update(&mut self, deadline_ns: u64, number: u64, waker: &Waker) -> bool {
        self.waiting.get_mut(&(deadline_ns, number)).map(|old| old.clone_from(waker)).is_some()
    }

    /// Forgets a deadline.
    pub(crate) fn remove(&mut self, deadline_ns: u64, number: u64) -> Option<Waker> {
        self.waiting.remove(&(deadline_ns, number))
    }

    /// The soonest deadline.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes the soonest deadline, if it has come.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<Waker> {
        let entry = self.waiting.first_entry()?;
        if entry.key().0 > now_ns { None } else { Some(entry.remove()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_only_what_is_due() {
        let mut timers = Timers::default();
        let late = timers.add(30, Waker::noop().clone());
        timers.add(10, Waker::noop().clone());
        timers.add(10, Waker::noop().clone());
        assert_eq!(timers.next_ns(), Some(10));
        assert!(timers.pop_due(9).is_none());
        assert!(timers.pop_due(10).is_some());
        assert!(timers.pop_due(29).is_some());
        assert!(timers.pop_due(29).is_none());
        assert!(timers.update(30, late, Waker::noop()));
        assert!(timers.remove(30, late).is_some());
        assert!(!timers.update(30, late, Waker::noop()));
        assert_eq!(timers.next_ns(), None);
    }
}
