//! The task that drives a reactor's engine.
//!
//! While there is work it takes a turn, lets every other runnable task run, and takes the next. When there has
//! been none for a while it sleeps: it waits for its epoll set to become readable, by which glommio parks the
//! thread. All it looks at is in that set (sockets, a timer, the doorbell), so anything wakes it.

use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use glommio::io::{PollState, PollableFd};

use crate::config::Spin;
use crate::engine::Engine;
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

/// The engine's epoll set as glommio waits for it.
struct EpollSet(Rc<Engine>);

impl AsRawFd for EpollSet {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The poller of one reactor; ends when the runtime stops.
pub(crate) struct Poller<M: Send + 'static> {
    env: ReactorEnv,
    mesh: MeshEnd<M>,
    inbox: Arc<Inbox<M>>,
    epoll: PollableFd<EpollSet>,
    armed: PollState,
    spin: SpinPolicy,
    started: bool,
    /// When the last turn began.
    turn_ns: u64,
    /// When the last work was seen.
    worked_ns: u64,
    slept: bool,
    seen_polls: u64,
    /// When the end was asked for.
    stopping_ns: Option<u64>,
}

impl<M: Send + 'static> Poller<M> {
    /// A poller for the executor it is made on.
    pub(crate) fn new(env: ReactorEnv, mesh: MeshEnd<M>, inbox: Arc<Inbox<M>>, spin: Spin) -> Self {
        let now = env.engine().read_clock();
        let epoll = PollableFd::new(EpollSet(Rc::clone(env.engine()))).expect("an executor runs here");
        Self {
            env,
            mesh,
            inbox,
            epoll,
            armed: PollState::new(),
            spin: SpinPolicy::new(spin),
            started: false,
            turn_ns: now,
            worked_ns: now,
            slept: false,
            seen_polls: 0,
            stopping_ns: None,
        }
    }

    /// Looks at everything once; `true` if there was work, or other tasks had some.
    fn turn(&mut self) -> bool {
        let engine = self.env.engine();
        let others = engine.task_polls() != self.seen_polls;
        self.seen_polls = engine.task_polls();
        let mut worked = engine.fire_timers();
        worked |= engine.ring().is_some_and(Ring::turn);
        worked |= self.mesh.turn();
        worked |= self.inbox.turn(&self.env, &self.mesh);
        worked |= engine.poll_sockets();
        worked | others
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

    /// Goes to sleep unless something came up; `false` then.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let engine = self.env.engine();
        engine.arm_timer();
        engine.doorbell.announce_sleep();
        let stays_awake = self.mesh.has_work()
            || self.inbox.has_work()
            || engine.ring().is_some_and(|ring| !ring.prepare_sleep());
        if stays_awake || self.epoll.poll_readable(cx, &mut self.armed).is_ready() {
            engine.awake();
            return false;
        }
        engine.stats.parks.add(1);
        engine.set_parked(true);
        self.slept = true;
        true
    }

    /// Whether the kernel has let go of all disk operations, or had long enough for it.
    fn drained(&mut self, now_ns: u64) -> bool {
        let running = self.env.engine().ring().map_or(0, Ring::running);
        let since = *self.stopping_ns.get_or_insert(now_ns);
        if running > 0 && now_ns - since < DRAIN_MAX_NS {
            return false;
        }
        if running > 0 {
            tracing::error!(running, "disk operations do not end; the reactor ends without them");
        }
        true
    }

    fn wake_up(&mut self) {
        let engine = self.env.engine();
        if engine.parked() {
            engine.set_parked(false);
            engine.awake();
        }
    }
}

impl<M: Send + 'static> Future for Poller<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.started {
            this.started = true;
            this.env.engine().set_poller(cx.waker().clone());
        }
        this.wake_up();
        let now = this.env.engine().read_clock();
        let worked = this.turn();
        if this.inbox.stopped() && this.drained(now) {
            this.mesh.forget_wakers();
            this.env.engine().forget_wakers();
            return Poll::Ready(());
        }
        let idle_ns = now.saturating_sub(this.worked_ns);
        if worked {
            if this.slept {
                this.slept = false;
                this.spin.slept(idle_ns);
                // Time asleep is idle time.
                this.account(false);
            } else {
                this.account(true);
            }
            this.worked_ns = now;
        } else {
            this.account(false);
            if this.spin.sleeps_after(idle_ns) && this.sleep(cx) {
                return Poll::Pending;
            }
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
