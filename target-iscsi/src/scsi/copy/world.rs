//! What copies and tokens need of the environment.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use ashlar_env::{Env, Instant};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The time, randomness and tasks of a reactor, as values: the device server has no type of environment otherwise.
#[derive(Clone)]
pub struct World {
    now: Rc<dyn Fn() -> Instant>,
    random: Rc<dyn Fn() -> u64>,
    spawn: Rc<dyn Fn(Task)>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl World {
    /// That of an environment.
    #[must_use]
    pub fn of<E: Env>(env: &E) -> Self {
        let (clock, dice, tasks) = (env.clone(), env.clone(), env.clone());
        Self::new(move || clock.now(), move || dice.random_u64(), move |task| tasks.spawn(task))
    }

    /// One made of its parts.
    #[must_use]
    pub fn new(
        now: impl Fn() -> Instant + 'static,
        random: impl Fn() -> u64 + 'static,
        spawn: impl Fn(Task) + 'static,
    ) -> Self {
        Self { now: Rc::new(now), random: Rc::new(random), spawn: Rc::new(spawn) }
    }

    /// The monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.now)()
    }

    /// Bytes that no peer can foresee.
    pub fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = (self.random)().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    /// Runs a task to its end, whatever becomes of who started it.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        (self.spawn)(Box::pin(task));
    }
}
