//! Whole histories of one register, judged three ways that must agree: by the rule, by the streaming checker,
//! and by trying every order (Wing and Gong).

use super::register::{Checker, OperationId};
use super::{Time, Value};

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// wrote this value and was acknowledged
    Write(Value),
    /// may have written this value: there was no reply. It is fenced where `ended` is a time, else it may still
    /// take effect.
    Lost(Value),
    /// returned this value
    Read(Value),
}

/// An operation on the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// when it was submitted, at least 1
    pub began: Time,
    /// when it was acknowledged, or fenced off; `None` only for [`Action::Lost`]
    pub ended: Option<Time>,
    /// what it did
    pub action: Action,
}

impl Operation {
    fn end(&self) -> Time {
        self.ended.unwrap_or(Time::MAX)
    }
}

/// Whether the history is linearizable, by the rule of [`super::register`], all at once. Values must be unique.
#[must_use]
pub fn obeys_rule(history: &[Operation]) -> bool {
    let mut spans: Vec<(Time, Time)> = Vec::new();
    let mut values = vec![(Value::ZERO, 0, 0)];
    for operation in history {
        match operation.action {
            Action::Write(value) => values.push((value, operation.began, operation.end())),
            Action::Lost(value) => values.push((value, operation.began, Time::MAX)),
            Action::Read(_) => {}
        }
    }
    for operation in history {
        if let Action::Read(value) = operation.action {
            let written = values.iter().any(|&(v, began, _)| v == value && began <= operation.end());
            if !written {
                return false;
            }
        }
    }
    for (value, began, ended) in values {
        let (mut start, mut finish) = (began, ended);
        let reads = history.iter().filter(|o| o.action == Action::Read(value));
        let mut was_read = false;
        for read in reads {
            was_read = true;
            start = start.max(read.began);
            finish = finish.min(read.end());
        }
        if was_read && let Some(lost) = history.iter().find(|o| o.action == Action::Lost(value)) {
            finish = finish.min(lost.end());
        }
        spans.push((start, finish));
    }
    let contradict = |a: &(Time, Time), b: &(Time, Time)| a.1 < b.0 && b.1 < a.0;
    !spans.iter().enumerate().any(|(i, a)| spans[..i].iter().any(|b| contradict(a, b)))
}

/// Whether some order of the operations explains the history: every order is tried. For up to 64 operations,
/// in time that grows with their factorial.
///
/// # Panics
/// If there are more.
#[must_use]
pub fn has_linearization(history: &[Operation]) -> bool {
    assert!(history.len() <= 64, "the search is for small histories");
    search(history, all_of(history), Value::ZERO)
}

fn all_of(history: &[Operation]) -> u64 {
    if history.len() == 64 { u64::MAX } else { (1 << history.len()) - 1 }
}

/// Whether the operations in `left` can follow, when the register holds `value`.
fn search(history: &[Operation], left: u64, value: Value) -> bool {
    let remaining = || (0..history.len()).filter(move |i| left & (1 << i) != 0);
    let optional = |i: usize| matches!(history[i].action, Action::Lost(_));
    if remaining().all(optional) {
        return true;
    }
    remaining().any(|next| {
        let chosen = history[next];
        let mut rest = left & !(1 << next);
        for other in remaining().filter(|&other| other != next && history[other].end() < chosen.began) {
            if !optional(other) {
                return false;
            }
            // What was fenced off before this began never happened.
            rest &= !(1 << other);
        }
        match chosen.action {
            Action::Write(new) | Action::Lost(new) => search(history, rest, new),
            Action::Read(seen) => seen == value && search(history, rest, value),
        }
    })
}

/// Whether the streaming checker finds nothing when it is fed the history event by event.
#[must_use]
pub fn passes_checker(history: &[Operation]) -> bool {
    let mut events: Vec<(Time, bool, usize)> = Vec::new();
    for (index, operation) in history.iter().enumerate() {
        events.push((operation.began, false, index));
        events.extend(operation.ended.map(|ended| (ended, true, index)));
    }
    events.sort_unstable();
    let mut checker = Checker::new();
    let mut ids: Vec<Option<OperationId>> = vec![None; history.len()];
    for (at, is_end, index) in events {
        match (history[index].action, ids[index].filter(|_| is_end)) {
            (Action::Write(value) | Action::Lost(value), None) => {
                ids[index] = Some(checker.begin_write(0, value, at));
            }
            (Action::Read(_), None) => ids[index] = Some(checker.begin_read(0, at)),
            (Action::Write(_), Some(id)) => checker.end_write(id, at),
            (Action::Lost(_), Some(id)) => checker.fence_write(id, at),
            (Action::Read(value), Some(id)) => {
                if checker.end_read(id, value, at).is_err() {
                    return false;
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Prng;

    /// Up to seven operations at random, distinct times; reads return what might have been there.
    fn random_history(rng: &mut Prng) -> Vec<Operation> {
        let count = 1 + rng.index(7);
        let mut times: Vec<Time> = (1..=2 * count as Time).collect();
        let mut history: Vec<Operation> = Vec::new();
        let writes = rng.index(count + 1);
        for number in 0..count {
            let mut draw = || times.swap_remove(rng.index(times.len()));
            let (a, b) = (draw(), draw());
            let (began, ended) = (a.min(b), Some(a.max(b)));
            let own = Value(number as u64 + 1);
            history.push(if number >= writes {
                Operation { began, ended, action: Action::Read(Value(rng.below(writes as u64 + 1))) }
            } else {
                match rng.below(4) {
                    0 => Operation { began, ended: None, action: Action::Lost(own) },
                    1 => Operation { began, ended, action: Action::Lost(own) },
                    _ => Operation { began, ended, action: Action::Write(own) },
                }
            });
        }
        history
    }

    #[test]
    fn three_ways_to_judge_agree() {
        let mut rng = Prng::new(0x0A51_1A12);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..60_000 {
            let history = random_history(&mut rng);
            let truth = has_linearization(&history);
            assert_eq!(obeys_rule(&history), truth, "the rule: {history:#?}");
            assert_eq!(passes_checker(&history), truth, "the streaming checker: {history:#?}");
            if truth {
                good += 1;
            } else {
                bad += 1;
            }
        }
        assert!(good > 5_000 && bad > 5_000, "{good} good and {bad} bad histories are a poor mixture");
    }

    /// With zeros written often the streaming checker may miss, but never accuses wrongly.
    #[test]
    fn repeated_zeros_are_never_accused_wrongly() {
        let mut rng = Prng::new(0x0A51_1A13);
        let (mut missed, mut found) = (0, 0);
        for _ in 0..30_000 {
            let mut history = random_history(&mut rng);
            for operation in &mut history {
                if let Action::Write(value) = &mut operation.action
                    && rng.below(3) == 0
                {
                    *value = Value::ZERO;
                }
            }
            match (has_linearization(&history), passes_checker(&history)) {
                (true, passes) => assert!(passes, "wrongly accused: {history:#?}"),
                (false, true) => missed += 1,
                (false, false) => found += 1,
            }
        }
        assert!(found > 20 * missed, "found {found}, missed {missed}");
    }
}
