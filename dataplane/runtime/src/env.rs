//! The environment of one reactor, as the traits of `ashlar-env`.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use ashlar_env::{BufPool, Clock, Env, Instant, ReactorId, Rng, Spawn};

use crate::engine::Engine;
use crate::stats::ReactorStats;
use crate::task;

/// What a task on a reactor is handed. Cloning is a reference count.
#[derive(Clone)]
pub struct ReactorEnv {
    inner: Rc<Inner>,
}

struct Inner {
    id: ReactorId,
    engine: Rc<Engine>,
    buffers: BufPool,
}

impl ReactorEnv {
    pub(crate) fn new(id: ReactorId, engine: Rc<Engine>, buffers: BufPool) -> Self {
        Self { inner: Rc::new(Inner { id, engine, buffers }) }
    }

    /// The number of this reactor.
    #[must_use]
    pub fn id(&self) -> ReactorId {
        self.inner.id
    }

    /// What this reactor has done so far.
    #[must_use]
    pub fn stats(&self) -> &Arc<ReactorStats> {
        &self.inner.engine.stats
    }

    pub(crate) fn engine(&self) -> &Rc<Engine> {
        &self.inner.engine
    }
}

impl Env for ReactorEnv {
    fn buffers(&self) -> &BufPool {
        &self.inner.buffers
    }
}

impl Rng for ReactorEnv {
    fn random_u64(&self) -> u64 {
        self.inner.engine.random_u64()
    }
}

impl Spawn for ReactorEnv {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        task::spawn(&self.inner.engine, task);
    }
}

impl Clock for ReactorEnv {
    fn now(&self) -> Instant {
        Instant(self.inner.engine.now_ns())
    }

    fn wall_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Unpin + 'static {
        Sleep { engine: Rc::clone(&self.inner.engine), deadline_ns: deadline.0, number: None }
    }
}

struct Sleep {
    engine: Rc<Engine>,
    deadline_ns: u64,
    /// The number of the timer, once there is one.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline_ns;
        if self.engine.now_ns() >= deadline {
            return Poll::Ready(());
        }
        let kept = self.number.is_some_and(|number| self.engine.update_timer(deadline, number, cx.waker()));
        if !kept {
            self.number = Some(self.engine.add_timer(deadline, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.engine.remove_timer(self.deadline_ns, number);
        }
    }
}
