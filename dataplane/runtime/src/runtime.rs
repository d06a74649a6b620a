//! Starting, reaching and stopping reactors.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use ashlar_env::buf::PoolPlan;
use ashlar_env::{BufPool, ReactorId, Spawn};
use glommio::{LocalExecutorBuilder, Placement};

use crate::config::{Register, RuntimeConfig};
use crate::doorbell::Doorbell;
use crate::engine::{Engine, RingPlan};
use crate::env::ReactorEnv;
use crate::inbox::{Inbox, Job};
use crate::memory::Slab;
use crate::mesh::{self, Ends, MeshEnd};
use crate::poller::Poller;
use crate::reply::{NoReply, Promise, Reply, reply};
use crate::ring::SlabRange;
use crate::stats::ReactorStats;
use crate::{memory, sys};

/// glommio's own I/O memory, which nothing here uses: the least it takes.
const GLOMMIO_MEMORY_BYTES: usize = 64 << 10;

/// glommio's timer that interrupts a run of tasks: longer than the process lives (34 years). Nothing here needs
/// it, and see `task.rs` for what it does to an executor that is late.
const PREEMPT: Duration = Duration::from_secs(1 << 30);

/// Why a runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// no core was named
    #[error("no core to run on: name at least one")]
    NoCores,
    /// more reactors than can be numbered
    #[error("{0} reactors were asked for; the most is 1024")]
    TooManyCores(usize),
    /// memory for I/O buffers was refused
    #[error("cannot map {bytes} bytes of I/O buffers for each reactor: {source}; lower the buffer size")]
    Memory {
        /// what was asked for
        bytes: usize,
        /// what the kernel said
        source: io::Error,
    },
    /// the kernel refused a descriptor or thread
    #[error("cannot start reactor {reactor}: {source}")]
    Kernel {
        /// its number
        reactor: usize,
        /// what the kernel said
        source: io::Error,
    },
    /// the executor did not start
    #[error(
        "cannot start the executor of reactor {reactor}: {reason}; it needs io_uring and 512 KiB of locked memory \
         (`ulimit -l`)"
    )]
    Executor {
        /// its number
        reactor: usize,
        /// what it said
        reason: String,
    },
}

/// Running reactors, linked by a mesh of messages of type `M`.
pub struct Runtime<M: Send + 'static> {
    handles: Vec<ReactorHandle<M>>,
    threads: Vec<JoinHandle<()>>,
}

/// How other threads reach a reactor. Cloning gives the same reactor.
pub struct ReactorHandle<M: Send + 'static> {
    id: ReactorId,
    inbox: Arc<Inbox<M>>,
    stats: Arc<ReactorStats>,
}

impl<M: Send + 'static> Clone for ReactorHandle<M> {
    fn clone(&self) -> Self {
        Self { id: self.id, inbox: Arc::clone(&self.inbox), stats: Arc::clone(&self.stats) }
    }
}

/// What a reactor's thread is made of.
struct Parts<M: Send + 'static> {
    id: ReactorId,
    core: usize,
    config: Arc<RuntimeConfig>,
    buffers: BufPool,
    ring_plan: RingPlan,
    ends: Ends<M>,
    inbox: Arc<Inbox<M>>,
    doorbell: Arc<Doorbell>,
    stats: Arc<ReactorStats>,
}

impl<M: Send + 'static> Runtime<M> {
    /// Starts a reactor on each core of `config`, and returns when all of them run. A core that the process
    /// may not use is a warning: that reactor runs unpinned.
    ///
    /// A task that panics ends the process, as a reactor in an unknown state must not serve.
    ///
    /// # Errors
    /// [`StartError`]; reactors already started are stopped.
    pub fn start(config: RuntimeConfig) -> Result<Self, StartError> {
        let count = config.cores.len();
        match count {
            0 => return Err(StartError::NoCores),
            1..=1024 => {}
            _ => return Err(StartError::TooManyCores(count)),
        }
        let kernel = |reactor| move |source| StartError::Kernel { reactor, source };
        let bells = (0..count)
            .map(|at| Doorbell::new().map(Arc::new).map_err(kernel(at)))
            .collect::<Result<Vec<_>, _>>()?;
        let config = Arc::new(config);
        let (pools, slabs) = buffers(&config)?;
        let (started, starting) = mpsc::channel();
        let mut runtime = Self { handles: Vec::with_capacity(count), threads: Vec::with_capacity(count) };
        let ends = mesh::links(bells.clone(), config.link_capacity);
        for (at, ((doorbell, ends), buffers)) in bells.into_iter().zip(ends).zip(pools).enumerate() {
            let parts = Parts {
                id: ReactorId(at as u16),
                core: config.cores[at],
                config: Arc::clone(&config),
                buffers,
                ring_plan: RingPlan { depth: config.ring_depth, slabs: Arc::clone(&slabs) },
                ends,
                inbox: Arc::new(Inbox::new(config.inbox_capacity, Arc::clone(&doorbell))),
                doorbell,
                stats: Arc::default(),
            };
            runtime.handles.push(ReactorHandle {
                id: parts.id,
                inbox: Arc::clone(&parts.inbox),
                stats: Arc::clone(&parts.stats),
            });
            let started = started.clone();
            let thread = std::thread::Builder::new()
                .name(format!("reactor-{at}"))
                .spawn(move || guard(|| run_reactor(parts, &started)))
                .map_err(kernel(at))?;
            runtime.threads.push(thread);
        }
        drop(started);
        for _ in 0..count {
            starting.recv().expect("each reactor tells how it started")?;
        }
        Ok(runtime)
    }

    /// The reactors, in the order of their numbers.
    #[must_use]
    pub fn reactors(&self) -> &[ReactorHandle<M>] {
        &self.handles
    }

    /// Stops all reactors and waits for their threads. Tasks are dropped where they stand; disk operations
    /// already in the kernel are waited for.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl<M: Send + 'static> Drop for Runtime<M> {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.inbox.stop();
        }
        for thread in self.threads.drain(..) {
            // A panic on a reactor has ended the process already.
            let _ = thread.join();
        }
    }
}

impl<M: Send + 'static> ReactorHandle<M> {
    /// The reactor's number.
    #[must_use]
    pub fn id(&self) -> ReactorId {
        self.id
    }

    /// What the reactor has done so far.
    #[must_use]
    pub fn stats(&self) -> &ReactorStats {
        &self.stats
    }

    /// Runs `begin` on the reactor, and the future it makes as a task there.
    ///
    /// # Errors
    /// [`NoReply::Busy`] and [`NoReply::Ended`]; nothing was begun then.
    pub fn spawn<F>(
        &self,
        begin: impl FnOnce(ReactorEnv, MeshEnd<M>) -> F + Send + 'static,
    ) -> Result<(), NoReply>
    where
        F: Future<Output = ()> + 'static,
    {
        let job: Job<M> = Box::new(move |env, mesh| env.spawn(begin(env.clone(), mesh.clone())));
        self.inbox.push(job)
    }

    /// Runs `begin` on the reactor, and the future it makes as a task there; its result is the answer. A panic
    /// of this task is reported to the caller alone.
    pub fn call<T, F>(&self, begin: impl FnOnce(ReactorEnv, MeshEnd<M>) -> F + Send + 'static) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (promise, answer) = reply();
        let (refusal, refused) = reply();
        let job: Job<M> = Box::new(move |env, mesh| {
            let (env_there, mesh_there) = (env.clone(), mesh.clone());
            env.spawn(answering(promise, async move { begin(env_there, mesh_there).await }));
        });
        match self.inbox.push(job) {
            Ok(()) => answer,
            Err(reason) => {
                refusal.settle(Err(reason));
                refused
            }
        }
    }
}

/// Runs `task` and settles `promise` with its result, a panic included.
async fn answering<T>(promise: Promise<T>, task: impl Future<Output = T>) {
    let mut task = pin!(task);
    let result = std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(NoReply::Panicked)),
    })
    .await;
    promise.settle(result);
}

/// The pools of all reactors, and what of their memory is to be registered.
fn buffers(config: &RuntimeConfig) -> Result<(Vec<BufPool>, Arc<[SlabRange]>), StartError> {
    let plan = PoolPlan::for_bytes(config.buffer_bytes);
    let bytes = plan.total_bytes();
    let slabs = (0..config.cores.len())
        .map(|_| memory::map(bytes).map_err(|source| StartError::Memory { bytes, source }))
        .collect::<Result<Vec<_>, _>>()?;
    let registers = match config.register {
        Register::Hugepages => slabs.iter().all(|slab| slab.huge),
        Register::Always => true,
        Register::Never => false,
    };
    let ranges = slabs.iter().filter(|_| registers).map(Slab::range).collect();
    let pools = slabs.into_iter().enumerate().map(|(at, slab)| BufPool::on_slab(plan, slab.pages, at as u16));
    Ok((pools.collect(), ranges))
}

/// Ends the process if `body` panics: the panic hook has told why.
fn guard(body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        eprintln!("ashlar: a reactor failed; the process ends so that hosts use another path at once");
        std::process::abort();
    }
}

/// The body of a reactor's thread.
fn run_reactor<M: Send + 'static>(parts: Parts<M>, started: &mpsc::Sender<Result<(), StartError>>) {
    let reactor = usize::from(parts.id.0);
    if let Err(error) = sys::pin_thread(parts.core) {
        tracing::warn!(reactor, core = parts.core, %error, "cannot pin a reactor to its core; it runs unpinned");
    }
    sys::set_timer_slack_least();
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name(&format!("reactor-{reactor}"))
        .io_memory(GLOMMIO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .make();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            let _ = started.send(Err(StartError::Executor { reactor, reason: error.to_string() }));
            parts.inbox.end();
            return;
        }
    };
    let inbox = Arc::clone(&parts.inbox);
    executor.run(async move {
        let engine = match Engine::new(Arc::clone(&parts.doorbell), Arc::clone(&parts.stats), parts.ring_plan)
        {
            Ok(engine) => Rc::new(engine),
            Err(source) => {
                let _ = started.send(Err(StartError::Kernel { reactor, source }));
                return;
            }
        };
        let env = ReactorEnv::new(parts.id, engine, parts.buffers);
        let mesh = MeshEnd::new(parts.ends, parts.stats);
        let poller = Poller::new(env, mesh, parts.inbox, parts.config.spin);
        let _ = started.send(Ok(()));
        poller.await;
    });
    drop(executor);
    inbox.end();
}
