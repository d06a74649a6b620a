//! The tasks of a session: a table by slot.

use super::TaskId;
use super::incoming::Incoming;
use crate::scsi::Request;
use crate::wire::NO_TAG;

/// A command from its arrival to its response.
///
/// ```text
/// Arrived -+-> Executing -> (free)                 nothing to fetch
///          +-> Incoming --> Executing -> (free)    Data-Out, with the command or asked for
/// ```
pub(super) enum State {
    Free,
    /// Announced; the data that came with it wait in the stream.
    Arrived,
    /// Data-Out is on its way.
    Incoming(Incoming),
    Executing,
}

pub(super) struct Task {
    pub request: Request,
    pub state: State,
    /// Not of the window.
    pub immediate: bool,
    /// F was not set: unsolicited Data-Out follows.
    pub unsolicited: bool,
    /// How much Data-Out the command wants, whatever the initiator has.
    pub wanted: u32,
    /// Its execution has begun.
    pub begun: bool,
    /// Aborted: no response is due.
    pub aborted: bool,
    /// Aborted by another session before it began: the initiator is told so.
    pub cleared: bool,
}

/// Slots are reused last in, first out.
pub(super) struct Tasks {
    /// The initiator task tag of each slot; [`NO_TAG`] where it is free. Beside the tasks, to be searched fast.
    tags: Vec<u32>,
    tasks: Vec<Task>,
    free: Vec<u16>,
    max: usize,
    immediate: u16,
}

impl Tasks {
    pub fn new(max: usize) -> Self {
        Self { tags: Vec::new(), tasks: Vec::new(), free: Vec::new(), max, immediate: 0 }
    }

    pub fn insert(&mut self, tag: u32, task: Task) -> Option<TaskId> {
        self.immediate += u16::from(task.immediate);
        if let Some(slot) = self.free.pop() {
            self.tags[usize::from(slot)] = tag;
            self.tasks[usize::from(slot)] = task;
            return Some(TaskId(slot));
        }
        if self.tasks.len() == self.max {
            self.immediate -= u16::from(task.immediate);
            return None;
        }
        self.tags.push(tag);
        self.tasks.push(task);
        Some(TaskId((self.tasks.len() - 1) as u16))
    }

    pub fn find(&self, tag: u32) -> Option<TaskId> {
        if tag == NO_TAG {
            return None;
        }
        self.tags.iter().position(|of| *of == tag).map(|slot| TaskId(slot as u16))
    }

    /// The task in a slot that the initiator named, if it has this tag.
    pub fn at(&self, slot: u16, tag: u32) -> Option<TaskId> {
        (tag != NO_TAG && self.tags.get(usize::from(slot)) == Some(&tag)).then_some(TaskId(slot))
    }

    pub fn tag(&self, id: TaskId) -> u32 {
        self.tags[usize::from(id.0)]
    }

    pub fn get(&self, id: TaskId) -> &Task {
        &self.tasks[usize::from(id.0)]
    }

    pub fn get_mut(&mut self, id: TaskId) -> &mut Task {
        &mut self.tasks[usize::from(id.0)]
    }

    pub fn incoming(&mut self, id: TaskId) -> Option<&mut Incoming> {
        match &mut self.get_mut(id).state {
            State::Incoming(incoming) => Some(incoming),
            _ => None,
        }
    }

    /// Frees the slot; gives its state.
    pub fn release(&mut self, id: TaskId) -> State {
        let task = self.get_mut(id);
        let immediate = task.immediate;
        let state = std::mem::replace(&mut task.state, State::Free);
        assert!(!matches!(state, State::Free), "a task ends once");
        self.immediate -= u16::from(immediate);
        self.tags[usize::from(id.0)] = NO_TAG;
        self.free.push(id.0);
        state
    }

    /// The tasks there are.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let live = self.tasks.iter().enumerate().filter(|(_, task)| !matches!(task.state, State::Free));
        live.map(|(slot, task)| (TaskId(slot as u16), task))
    }

    pub fn len(&self) -> usize {
        self.tasks.len() - self.free.len()
    }

    pub fn immediate(&self) -> u16 {
        self.immediate
    }
}
