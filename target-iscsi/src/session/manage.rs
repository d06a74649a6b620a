//! Task management (RFC 7143, section 11.5).
//!
//! An operation of a volume goes on to its end, and a command that was aborted must not take effect once the initiator
//! has been told so. So the answer to a function waits until the operations of the commands concerned have ended; they
//! get no response. Commands that still wait for data end at once.

use ashlar_env::clock::Instant;
use zerocopy::{FromBytes, IntoBytes};

use super::reply::Reply;
use super::tasks::{State, Task};
use super::{Event, Management, Session, TaskId};
use crate::limits::TASK_MANAGEMENT_MAX;
use crate::scsi::{Answer, Data, Status};
use crate::wire::bhs::FINAL;
use crate::wire::request::{TaskManagement, function};
use crate::wire::response::{RejectReason, TmfStatus};

/// Tasks whose end somebody waits for.
pub(super) struct Drain {
    whom: Whom,
    tasks: Vec<TaskId>,
}

enum Whom {
    /// The initiator: the function's tag, and its answer once it is known.
    Initiator { tag: u32, status: Option<TmfStatus> },
    /// Another session's function.
    Other(u64),
}

/// A CmdSN so far behind or ahead belongs to no task of this session.
const PLAUSIBLE: u32 = 1 << 16;

const ABORTED: Answer = Answer { status: Status::TaskAborted, sense: None, data: Data::None };

impl Session {
    pub(super) fn task_management(&mut self, now: Instant) {
        let pdu = TaskManagement::read_from_bytes(self.current.as_bytes()).expect("headers have one size");
        if !self.in_window(pdu.cmd_sn.get()) {
            return;
        }
        let (tag, lun) = (pdu.itt.get(), pdu.lun.get());
        if self.drains.len() >= TASK_MANAGEMENT_MAX {
            return self.reject_numbered(pdu.cmd_sn.get(), RejectReason::ImmediateRejected, now);
        }
        let which = pdu.function & !FINAL;
        match which {
            function::ABORT_TASK => self.abort_task(&pdu, now),
            function::ABORT_TASK_SET | function::CLEAR_TASK_SET | function::LOGICAL_UNIT_RESET => {
                let tasks = self.select(|task| task.request.lun == lun);
                self.abort(tag, None, tasks, now);
                self.events.push_back(Event::Manage(Management { tag, function: which, lun }));
            }
            function::TARGET_WARM_RESET | function::TARGET_COLD_RESET => {
                let tasks = self.select(|_| true);
                self.abort(tag, None, tasks, now);
                self.events.push_back(Event::Manage(Management { tag, function: which, lun }));
            }
            function::TASK_REASSIGN => self.answer(tag, TmfStatus::ReassignNotSupported, now),
            _ => self.answer(tag, TmfStatus::NotSupported, now),
        }
    }

    fn answer(&mut self, tag: u32, status: TmfStatus, now: Instant) {
        self.push(Reply::TaskManagement { tag, status }, now);
    }

    fn abort_task(&mut self, pdu: &TaskManagement, now: Instant) {
        let (tag, referenced) = (pdu.itt.get(), pdu.referenced_tag.get());
        if let Some(id) = self.tasks.find(referenced).filter(|_| referenced != tag) {
            return self.abort(tag, Some(TmfStatus::Complete), vec![id], now);
        }
        // A task that has ended, or never came (section 11.6.1): to deny it makes some initiators reset the target.
        let back = self.window.expected().wrapping_sub(pdu.referenced_cmd_sn.get());
        let was_there = referenced != tag && (back < PLAUSIBLE || back.wrapping_neg() < PLAUSIBLE);
        self.answer(tag, if was_there { TmfStatus::Complete } else { TmfStatus::NoTask }, now);
    }

    /// Whether the command must not begin: what to complete it with instead.
    #[must_use]
    pub fn halted(&self, id: TaskId) -> Option<Answer> {
        let task = self.tasks.get(id);
        match (task.aborted, task.cleared) {
            // Nobody hears of it.
            (true, _) => Some(Answer::good(Data::None)),
            (false, true) => Some(ABORTED),
            (false, false) => None,
        }
    }

    /// The execution of a command begins.
    pub fn begin(&mut self, id: TaskId) {
        self.tasks.get_mut(id).begun = true;
    }

    fn select(&self, concerns: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        self.tasks.iter().filter(|(_, task)| concerns(task)).map(|(id, _)| id).collect()
    }

    /// Aborts tasks for a function, whose answer waits for them.
    fn abort(&mut self, tag: u32, status: Option<TmfStatus>, mut tasks: Vec<TaskId>, now: Instant) {
        tasks.retain(|&id| {
            let executes = matches!(self.tasks.get(id).state, State::Executing);
            if executes {
                self.tasks.get_mut(id).aborted = true;
            } else {
                self.drop_unready(id, now);
            }
            executes
        });
        self.drains.push(Drain { whom: Whom::Initiator { tag, status }, tasks });
        self.settle(now);
    }

    /// Drops a task that does not execute yet, without a response.
    fn drop_unready(&mut self, id: TaskId, now: Instant) {
        self.events.retain(|event| !matches!(event, Event::Command(of) if *of == id));
        self.release(id);
        self.task_gone(id, now);
    }

    /// Drops all tasks that do not execute yet: the initiator has logged out.
    pub(super) fn abort_unready(&mut self, now: Instant) {
        for id in self.select(|task| !matches!(task.state, State::Executing)) {
            self.drop_unready(id, now);
        }
    }

    /// What concerned others than this session is done, or there was no such unit: the function may be answered.
    pub fn finish_management(&mut self, tag: u32, status: TmfStatus, now: Instant) {
        for drain in &mut self.drains {
            if let Whom::Initiator { tag: of, status: answer @ None } = &mut drain.whom
                && *of == tag
            {
                *answer = Some(status);
                break;
            }
        }
        self.settle(now);
    }

    /// Another session's function concerns this session's tasks: those for which `concerns` says so of their LUN. What
    /// has not begun ends with TASK ABORTED; [`Event::Quiet`] comes when what executes has ended as usual.
    pub fn quiet(&mut self, job: u64, concerns: impl Fn(u64) -> bool, now: Instant) {
        let mut tasks = self.select(|task| concerns(task.request.lun));
        tasks.retain(|&id| match &self.tasks.get(id).state {
            State::Executing => {
                let task = self.tasks.get_mut(id);
                task.cleared = !task.begun;
                task.begun
            }
            State::Incoming(_) => {
                self.fail(id, ABORTED, now);
                false
            }
            // Not even admitted: it comes after the function.
            State::Arrived | State::Free => false,
        });
        self.drains.push(Drain { whom: Whom::Other(job), tasks });
        self.settle(now);
    }

    /// A task ended: whoever waits for it is told.
    pub(super) fn task_gone(&mut self, id: TaskId, now: Instant) {
        if !self.drains.is_empty() {
            self.drains.iter_mut().for_each(|drain| drain.tasks.retain(|task| *task != id));
            self.settle(now);
        }
        self.request_waiting(now);
        self.maybe_logged_out(now);
    }

    /// Answers what no task is waited for any more.
    fn settle(&mut self, now: Instant) {
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.drains).into_iter().partition(|drain| {
                drain.tasks.is_empty() && !matches!(drain.whom, Whom::Initiator { status: None, .. })
            });
        self.drains = left;
        for drain in done {
            match drain.whom {
                Whom::Initiator { tag, status } => {
                    self.answer(tag, status.unwrap_or(TmfStatus::Complete), now);
                }
                Whom::Other(job) => self.events.push_back(Event::Quiet(job)),
            }
        }
    }
}
