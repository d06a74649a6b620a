//! Tasks of a reactor and their wakers.
//!
//! A task is woken through a waker of ours. On its own reactor that passes the wake on to glommio, and counts the
//! runnable tasks: so the poller knows when the reactor may sleep. On another thread it queues the wake and rings
//! the reactor's doorbell; the poller passes it on.
//!
//! glommio's own way for wakes from other threads, and its parking, are not used. A busy executor would not look
//! at such wakes, and the timer that would make it look can send one to sleep while it has runnable tasks (it
//! takes a timer that expires before the first task was run for having nothing to run). And a sleep of its own
//! takes eight system calls.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_queue::SegQueue;
use glommio::TaskQueueHandle;

use crate::doorbell::Doorbell;
use crate::engine::Engine;

/// Tells threads apart; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ThreadNumber(u64);

impl ThreadNumber {
    fn here() -> Self {
        static GIVEN: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static HERE: Cell<u64> = const { Cell::new(0) };
        }
        HERE.with(|here| {
            if here.get() == 0 {
                here.set(GIVEN.fetch_add(1, Ordering::Relaxed) + 1);
            }
            Self(here.get())
        })
    }
}

/// The wakes that other threads ask a reactor for. Each task is in it once at most.
pub(crate) struct ForeignWakes {
    queue: SegQueue<Arc<TaskWaker>>,
    doorbell: Arc<Doorbell>,
}

impl ForeignWakes {
    pub(crate) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self { queue: SegQueue::new(), doorbell }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Passes the wakes on; `true` if there were any.
    pub(crate) fn turn(&self) -> bool {
        let mut worked = false;
        while let Some(waker) = self.queue.pop() {
            waker.queued.store(false, Ordering::SeqCst);
            waker.wake_here();
            worked = true;
        }
        worked
    }
}

/// What only the owner's thread knows of a task.
struct Local {
    /// glommio's waker, from the first poll on; a task is runnable until then.
    waker: Option<Waker>,
    /// Whether it is runnable, and counted as such.
    runnable: bool,
    count: Rc<Cell<usize>>,
}

impl Local {
    fn set_runnable(&mut self, runnable: bool) {
        if self.runnable != runnable {
            self.runnable = runnable;
            let count = self.count.get();
            self.count.set(if runnable { count + 1 } else { count - 1 });
        }
    }
}

/// Wakes one task.
pub(crate) struct TaskWaker {
    owner: ThreadNumber,
    /// Touched by the owner's thread alone. Empty when the task has ended.
    local: UnsafeCell<Option<Local>>,
    queued: AtomicBool,
    foreign: Arc<ForeignWakes>,
}

// SAFETY: `local` is touched on the owner's thread alone, which every access checks; it is empty when the last
// reference goes on another thread, as the task's end has emptied it. The rest is `Sync` by itself.
unsafe impl Send for TaskWaker {}
// SAFETY: as above.
unsafe impl Sync for TaskWaker {}

impl TaskWaker {
    /// The waker of a task of this thread that is about to be started.
    fn new(foreign: Arc<ForeignWakes>, count: Rc<Cell<usize>>) -> Self {
        let mut local = Local { waker: None, runnable: false, count };
        local.set_runnable(true);
        Self {
            owner: ThreadNumber::here(),
            local: UnsafeCell::new(Some(local)),
            queued: AtomicBool::new(false),
            foreign,
        }
    }

    /// What only the owner's thread may touch; `None` after the task's end.
    fn with_local<T>(&self, touch: impl FnOnce(&mut Option<Local>) -> T) -> T {
        assert_eq!(self.owner, ThreadNumber::here(), "a task stays on its reactor");
        // SAFETY: this is the owner's thread, and no other reference to the contents is alive: what is done with
        // one (below) neither runs a task nor drops one, so it does not come back here.
        touch(unsafe { &mut *self.local.get() })
    }

    /// The task is about to be polled, with `waker` of glommio.
    fn begins(&self, waker: &Waker) {
        self.with_local(|local| {
            let local = local.as_mut().expect("a task that has ended is not polled");
            local.set_runnable(false);
            if local.waker.is_none() {
                local.waker = Some(waker.clone());
            }
        });
    }

    /// The task has ended.
    fn ends(&self) {
        let ended = self.with_local(|local| {
            if let Some(local) = local {
                local.set_runnable(false);
            }
            local.take()
        });
        // Outside: it may be the last reference to glommio's part of the task.
        drop(ended);
    }

    /// On the owner's thread: wakes the task, unless it has ended or is runnable anyway.
    fn wake_here(&self) {
        self.with_local(|local| {
            if let Some(Local { waker: Some(waker), runnable: false, .. }) = local {
                waker.wake_by_ref();
                local.as_mut().expect("it was there").set_runnable(true);
            }
        });
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.owner == ThreadNumber::here() {
            self.wake_here();
        } else if !self.queued.swap(true, Ordering::SeqCst) {
            self.foreign.queue.push(Arc::clone(self));
            self.foreign.doorbell.ring();
        }
    }
}

/// The tasks of a reactor, so that all can be ended.
#[derive(Default)]
pub(crate) struct Tasks {
    all: RefCell<Vec<Option<Arc<TaskWaker>>>>,
    free: RefCell<Vec<usize>>,
    runnable: Rc<Cell<usize>>,
    polls: Cell<u64>,
    ending: Cell<bool>,
}

impl Tasks {
    fn add(&self, waker: Arc<TaskWaker>) -> usize {
        let mut all = self.all.borrow_mut();
        let at = self.free.borrow_mut().pop().unwrap_or_else(|| {
            all.push(None);
            all.len() - 1
        });
        all[at] = Some(waker);
        at
    }

    fn remove(&self, at: usize) {
        let waker = self.all.borrow_mut()[at].take();
        self.free.borrow_mut().push(at);
        drop(waker);
    }

    /// How many tasks are runnable.
    pub(crate) fn runnable(&self) -> usize {
        self.runnable.get()
    }

    /// How often tasks were polled: whoever looks twice sees whether any was.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Ends all tasks: each is dropped where it stands, in its next turn.
    pub(crate) fn end(&self) {
        self.ending.set(true);
        let wakers: Vec<_> = self.all.borrow().iter().flatten().cloned().collect();
        for waker in wakers {
            waker.wake_here();
        }
    }
}

/// Starts a task of the present executor, whose engine is `engine`. It first runs after the one that starts it
/// awaits something.
pub(crate) fn spawn(engine: &Rc<Engine>, task: impl Future<Output = ()> + 'static) {
    if engine.tasks.ending.get() {
        return;
    }
    let this = Running::new(engine);
    let watched = async move {
        let waker = Waker::from(Arc::clone(&this.waker));
        let mut task = pin!(task);
        poll_fn(|cx| {
            this.waker.begins(cx.waker());
            let tasks = &this.engine.tasks;
            tasks.polls.set(tasks.polls.get().wrapping_add(1));
            if tasks.ending.get() {
                return Poll::Ready(());
            }
            task.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await;
    };
    // Not glommio's plain spawn: that one runs the task at once, in the midst of the one that starts it.
    glommio::executor()
        .spawn_local_into(watched, TaskQueueHandle::default())
        .expect("each executor has its default queue")
        .detach();
}

/// A task, while it lives.
struct Running {
    engine: Rc<Engine>,
    waker: Arc<TaskWaker>,
    at: usize,
}

impl Running {
    fn new(engine: &Rc<Engine>) -> Self {
        let count = Rc::clone(&engine.tasks.runnable);
        let waker = Arc::new(TaskWaker::new(Arc::clone(&engine.foreign), count));
        let at = engine.tasks.add(Arc::clone(&waker));
        engine.stats.tasks_spawned.add(1);
        engine.stats.tasks.add(1);
        Self { engine: Rc::clone(engine), waker, at }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.waker.ends();
        self.engine.tasks.remove(self.at);
        self.engine.stats.tasks.sub_one();
    }
}
