//! What the parts of the simulator share: tasks, time, the log.
//!
//! One thread owns all of it. No borrow is held while a task is polled, dropped or woken, or while a due
//! event runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::disk::Disks;
use crate::event::{Event, EventLog, Kind};
use crate::faults::Profile;
use crate::marks::Marks;
use crate::net::NetState;
use crate::node::{NodeId, Nodes};
use crate::planted::Planted;
use crate::rng::Prng;

/// The number of a task; never used twice.
pub(crate) type TaskId = u64;

/// Where a due event stands in the order of time: nanoseconds, a seeded tie-break, a sequence number.
pub(crate) type DueKey = (u64, u64, u64);

/// What the world does by itself.
type Action = Box<dyn FnOnce(&Rc<World>)>;

/// What happens when its time has come.
pub(crate) enum Due {
    /// somebody is woken
    Wake(Waker),
    /// the world acts
    Act(Action),
}

pub(crate) struct Task {
    /// `None` while the task is being polled.
    pub future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    pub node: NodeId,
    pub reactor: u16,
    /// Whether the run waits for it.
    pub goal: bool,
    pub wake: Arc<TaskWake>,
}

/// A task's waker: it puts the task into the inbox, once.
pub(crate) struct TaskWake {
    id: TaskId,
    inbox: Arc<Inbox>,
    pub queued: AtomicBool,
}

/// Where wakers put what became runnable. The only state behind a lock, because a waker must be `Send`.
#[derive(Default)]
pub(crate) struct Inbox {
    pub woken: Mutex<Vec<TaskId>>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.inbox.woken.lock().expect("no waker panics").push(self.id);
        }
    }
}

/// Tasks and time.
pub(crate) struct Tasks {
    pub all: BTreeMap<TaskId, Task>,
    pub ready: Vec<TaskId>,
    pub due: BTreeMap<DueKey, Due>,
    pub goals: usize,
    next_task: TaskId,
    next_due: u64,
    tie: Prng,
}

/// The simulated world.
pub(crate) struct World {
    pub seed: u64,
    pub profile: Profile,
    pub planted: Planted,
    pub now: Cell<u64>,
    pub steps: Cell<u64>,
    pub tasks: RefCell<Tasks>,
    pub inbox: Arc<Inbox>,
    pub scheduler: RefCell<Prng>,
    pub nodes: RefCell<Nodes>,
    pub net: RefCell<NetState>,
    pub disks: RefCell<Disks>,
    pub log: RefCell<EventLog>,
    pub marks: Marks,
    /// The first failure that a checker or a task reported: check and message.
    pub failed: RefCell<Option<(String, String)>>,
}

impl World {
    pub fn new(seed: u64, profile: Profile, planted: Planted) -> Rc<Self> {
        let tasks = Tasks {
            all: BTreeMap::new(),
            ready: Vec::new(),
            due: BTreeMap::new(),
            goals: 0,
            next_task: 1,
            next_due: 0,
            tie: Prng::split(seed, "tie", 0),
        };
        Rc::new(Self {
            seed,
            profile,
            planted,
            now: Cell::new(0),
            steps: Cell::new(0),
            tasks: RefCell::new(tasks),
            inbox: Arc::default(),
            scheduler: RefCell::new(Prng::split(seed, "scheduler", 0)),
            nodes: RefCell::default(),
            net: RefCell::new(NetState::new(seed)),
            disks: RefCell::default(),
            log: RefCell::default(),
            marks: Marks::default(),
            failed: RefCell::default(),
        })
    }

    pub fn log(&self, kind: Kind, a: u64, b: u64, c: u64) {
        self.log.borrow_mut().push(Event { at_ns: self.now.get(), kind, numbers: [a, b, c] });
    }

    pub fn fail(&self, check: &str, message: String) {
        self.failed.borrow_mut().get_or_insert((check.to_owned(), message));
    }

    /// Lets `due` happen at `at_ns`, or now where that has passed.
    pub fn at(&self, at_ns: u64, due: Due) -> DueKey {
        let mut tasks = self.tasks.borrow_mut();
        let tie = tasks.tie.next_u64();
        tasks.next_due += 1;
        let key = (at_ns.max(self.now.get()), tie, tasks.next_due);
        tasks.due.insert(key, due);
        key
    }

    /// Lets the world act `delay_ns` from now.
    pub fn after(&self, delay_ns: u64, act: impl FnOnce(&Rc<Self>) + 'static) {
        self.at(self.now.get().saturating_add(delay_ns), Due::Act(Box::new(act)));
    }

    pub fn cancel(&self, key: DueKey) {
        let due = self.tasks.borrow_mut().due.remove(&key);
        drop(due);
    }

    pub fn spawn(&self, node: NodeId, reactor: u16, goal: bool, future: Pin<Box<dyn Future<Output = ()>>>) {
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.next_task;
        tasks.next_task += 1;
        let wake = Arc::new(TaskWake { id, inbox: Arc::clone(&self.inbox), queued: AtomicBool::new(false) });
        wake.wake_by_ref();
        tasks.goals += usize::from(goal);
        tasks.all.insert(id, Task { future: Some(future), node, reactor, goal, wake });
        drop(tasks);
        self.log(Kind::Spawn, id, u64::from(node.0), u64::from(reactor));
    }

    /// Removes all tasks of `node`; they do nothing any more, since their environment is dead already.
    pub fn drop_tasks_of(&self, node: NodeId) {
        let gone: Vec<Task> = {
            let mut tasks = self.tasks.borrow_mut();
            let ids: Vec<TaskId> =
                tasks.all.iter().filter(|(_, t)| t.node == node).map(|(&id, _)| id).collect();
            ids.iter().filter_map(|id| tasks.remove(*id)).collect()
        };
        drop(gone);
    }

    /// Drops all tasks and events, so that the world's reference cycles end.
    pub fn tear_down(&self) {
        self.nodes.borrow_mut().kill_all();
        loop {
            let (all, due) = {
                let mut tasks = self.tasks.borrow_mut();
                (std::mem::take(&mut tasks.all), std::mem::take(&mut tasks.due))
            };
            if all.is_empty() && due.is_empty() {
                break;
            }
        }
    }
}

impl Tasks {
    pub fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.all.remove(&id)?;
        self.goals -= usize::from(task.goal);
        Some(task)
    }
}
