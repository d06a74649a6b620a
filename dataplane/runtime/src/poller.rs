//! The task that drives a reactor's engine.
//!
//! While there is work it takes a turn, lets every other runnable task run, and takes the next. When there has
//! been none for a while, and no task is runnable, it blocks the thread in its epoll set. All it looks at is in
//! that set (sockets, the ring's event, the doorbell) or is its time-out, so anything wakes it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::config::Spin;
use crate::env::ReactorEnv;
use crate::inbox::Inbox;
use crate::mesh::MeshEnd;
use crate::ring::Ring;

/// Below this, spinning is given up altogether.
const SPIN_MIN_NS: u64 = 1_000;

/// How long a reactor that ends waits for its disk operations.
const DRAIN_MAX_NS: u64 = 5_000_000_000;

/// How long to spin before sleeping, learned from how long the reactor was idle each time.
#[derive(Debug)]
struct SpinPolicy {
    max_ns: u64,
    now_ns: u64,
    always: bool,
}

impl SpinPolicy {
    fn new(spin: Spin) -> Self {
        match spin {
            Spin::Always => Self { max_ns: 0, now_ns: 0, always: true },
            Spin::Adaptive(max) => {
                let max_ns = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
                Self { max_ns, now_ns: max_ns, always: false }
            }
        }
    }

    fn sleeps_after(&self, idle_ns: u64) -> bool {
        !self.always && idle_ns >= self.now_ns
    }

    /// Learns that it slept, and that work came when it had been idle for `idle_ns` in all. Had it come within
    /// the longest spin, spinning would have caught it. If not, the spin was for nothing, and becomes shorter.
    fn slept(&mut self, idle_ns: u64) {
        if idle_ns <= self.max_ns {
            self.now_ns = self.max_ns;
        } else {
            self.now_ns /= 2;
            if self.now_ns < SPIN_MIN_NS {
                self.now_ns = 0;
            }
        }
    }
}

/// The poller of one reactor; ends when the runtime stops.
pub(crate) struct Poller<M: Send + 'static> {
    env: ReactorEnv,
    mesh: MeshEnd<M>,
    inbox: Arc<Inbox<M>>,
    spin: SpinPolicy,
    /// When the last turn began.
    turn_ns: u64,
    /// When the last work was seen.
    worked_ns: u64,
    /// Whether it has slept since.
    slept: bool,
    /// How often tasks had been polled at the last turn.
    seen_polls: u64,
    /// When the end was asked for.
    stopping_ns: Option<u64>,
}

impl<M: Send + 'static> Poller<M> {
    /// A poller for the executor it is made on.
    pub(crate) fn new(env: ReactorEnv, mesh: MeshEnd<M>, inbox: Arc<Inbox<M>>, spin: Spin) -> Self {
        let now = env.engine().read_clock();
        Self {
            env,
            mesh,
            inbox,
            spin: SpinPolicy::new(spin),
            turn_ns: now,
            worked_ns: now,
            slept: false,
            seen_polls: 0,
            stopping_ns: None,
        }
    }

    /// Looks at everything once; `true` if there was work, or tasks had or have some.
    fn turn(&mut self) -> bool {
        let engine = self.env.engine();
        let polls = engine.tasks.polls();
        let mut worked = std::mem::replace(&mut self.seen_polls, polls) != polls;
        worked |= engine.fire_timers();
        worked |= engine.ring().is_some_and(Ring::turn);
        worked |= engine.foreign.turn();
        worked |= self.mesh.turn();
        worked |= self.inbox.turn(&self.env, &self.mesh);
        worked |= engine.poll_sockets();
        worked || engine.tasks.runnable() > 0
    }

    /// Accounts for the time since the last turn.
    fn account(&mut self, worked: bool) {
        let engine = self.env.engine();
        let now = engine.now_ns();
        let passed = now.saturating_sub(self.turn_ns);
        self.turn_ns = now;
        engine.stats.turns.add(1);
        if worked {
            engine.stats.busy_ns.add(passed);
        } else {
            engine.stats.idle_ns.add(passed);
        }
    }

    /// Sleeps until there is something to do, unless there is already.
    fn sleep(&mut self) {
        let engine = self.env.engine();
        engine.doorbell.announce_sleep();
        let stays_awake = !engine.foreign.is_empty()
            || self.mesh.has_work()
            || self.inbox.has_work()
            || engine.ring().is_some_and(|ring| !ring.prepare_sleep());
        if !stays_awake {
            engine.sleep();
            self.slept = true;
            if let Some(ring) = engine.ring() {
                ring.awake();
            }
        }
        engine.doorbell.awake();
    }

    /// Ends all tasks. `true` once they are gone and the kernel has let go of the disk operations they left, or
    /// had long enough for it.
    fn ended(&mut self, now_ns: u64) -> bool {
        let engine = self.env.engine();
        if self.stopping_ns.is_none() {
            self.stopping_ns = Some(now_ns);
            engine.tasks.end();
        }
        let running = engine.ring().map_or(0, Ring::running);
        if engine.stats.tasks.get() == 0 && running == 0 {
            return true;
        }
        let late = self.stopping_ns.is_some_and(|since| now_ns - since >= DRAIN_MAX_NS);
        if late {
            tracing::error!(running, "disk operations do not end; the reactor ends without them");
        }
        late
    }
}

impl<M: Send + 'static> Future for Poller<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let now = this.env.engine().read_clock();
        let worked = this.turn();
        if this.inbox.stopped() && this.ended(now) {
            return Poll::Ready(());
        }
        // Time asleep is idle time.
        this.account(worked && !this.slept);
        let idle_ns = now.saturating_sub(this.worked_ns);
        if worked {
            this.worked_ns = now;
            if std::mem::take(&mut this.slept) {
                this.spin.slept(idle_ns);
            }
        } else if this.spin.sleeps_after(idle_ns) {
            this.sleep();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rare_work_ends_the_spinning_and_frequent_work_brings_it_back() {
        let mut spin = SpinPolicy::new(Spin::Adaptive(Duration::from_micros(50)));
        assert!(!spin.sleeps_after(49_999));
        assert!(spin.sleeps_after(50_000));
        for _ in 0..8 {
            spin.slept(1_000_000);
        }
        assert!(spin.sleeps_after(0), "no spinning for work that comes once in a millisecond");
        spin.slept(20_000);
        assert!(!spin.sleeps_after(49_999));
        assert!(!SpinPolicy::new(Spin::Always).sleeps_after(u64::MAX));
        assert!(SpinPolicy::new(Spin::NEVER).sleeps_after(0));
    }
}
