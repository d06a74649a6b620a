//! The log's handle and its driver: the task that sends records and applies them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::slots::Slots;
use ashlar_env::{Env, Instant};

use crate::chunks::{Chunk, Chunks, StoreError};
use crate::ids::{Epoch, SegmentKind};
use crate::segment::{Replica, SHARDS_MAX, Segments};

use super::assemble::{Assembler, Pieces};
use super::config::LogConfig;
use super::coordinator::Coordinator;
use super::op::{LogError, Op, Position, Sink};
use super::recover::Recovered;
use super::state::{Item, Open, Queued, Spare, State};
use super::waiters::{Append, Waiters};

/// A lane's log, open for appends. Cloning gives the same log; when the last handle is dropped, what was appended is
/// finished and the log's tasks end.
pub struct Log<E: Env, C: Chunks, S: Sink> {
    handle: Rc<Handle<E, C, S>>,
}

/// What the handles share: its drop closes the log.
struct Handle<E: Env, C: Chunks, S: Sink>(Rc<Shared<E, C, S>>);

/// What handles, driver and background tasks share.
pub(super) struct Shared<E: Env, C: Chunks, S: Sink> {
    pub env: E,
    pub segments: Segments<C>,
    pub coordinator: Rc<dyn Coordinator>,
    pub epoch: Epoch,
    pub config: LogConfig,
    pub align: u32,
    /// Where the room for records ends; behind it is room for the next record.
    pub limit: u32,
    pub sink: S,
    pub state: RefCell<State<C::Chunk>>,
    pub waiters: Rc<RefCell<Waiters>>,
    driver: Cell<Option<Waker>>,
}

/// An append to one replica.
pub(super) struct Attempt<K> {
    pub sequence: u64,
    pub replica: Replica<K>,
    pub offset: u32,
    pub pieces: Pieces,
}

/// An append to one replica that has ended.
pub(super) struct Done {
    pub sequence: u64,
    pub shard: u8,
    pub begun: Instant,
    pub result: Result<(), StoreError>,
}

/// Why the driver stops turning.
enum Stop {
    /// A replica has to be left behind.
    Leave,
    /// All is done and no handle is left.
    Closed,
}

impl<E: Env, C: Chunks, S: Sink> Clone for Log<E, C, S> {
    fn clone(&self) -> Self {
        Self { handle: Rc::clone(&self.handle) }
    }
}

impl<E: Env, C: Chunks, S: Sink> Drop for Handle<E, C, S> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().closed = true;
        self.0.wake();
    }
}

impl<E: Env, C: Chunks, S: Sink> Log<E, C, S> {
    /// Begins the log of a new lane: makes its first segment, on all stores of `segments`. [`Self::position`] is then
    /// where a recovery has to start until there is a checkpoint.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Fenced`] and [`LogError::Failed`].
    pub async fn create(
        env: E,
        segments: Segments<C>,
        coordinator: Rc<dyn Coordinator>,
        epoch: Epoch,
        config: LogConfig,
        sink: S,
    ) -> Result<Self, LogError> {
        let made = segments.create(SegmentKind::Log, epoch, segments.all()).await;
        let (segment, replicas) = made.map_err(|failed| match failed.error {
            StoreError::Full => LogError::Full,
            _ => failed.into(),
        })?;
        let open = Open { segment, replicas, end: 0 };
        let position = Position { segment, ..Position::origin(segments.all()) };
        Ok(Self::start(env, segments, coordinator, epoch, config, sink, open, position))
    }

    /// Opens a log that was recovered, with the same segments, coordinator and epoch.
    #[must_use]
    pub fn resume(
        env: E,
        segments: Segments<C>,
        coordinator: Rc<dyn Coordinator>,
        epoch: Epoch,
        config: LogConfig,
        sink: S,
        recovered: Recovered<C::Chunk>,
    ) -> Self {
        let Recovered { position, replicas } = recovered;
        let open = Open { segment: position.segment, replicas, end: 0 };
        Self::start(env, segments, coordinator, epoch, config, sink, open, position)
    }

    /// Goes on at `position`, the beginning of the segment `open`.
    ///
    /// # Panics
    /// If the window is 0 or above 1024.
    #[expect(clippy::too_many_arguments, reason = "the parts of a log, each once")]
    fn start(
        env: E,
        segments: Segments<C>,
        coordinator: Rc<dyn Coordinator>,
        epoch: Epoch,
        config: LogConfig,
        sink: S,
        open: Open<C::Chunk>,
        position: Position,
    ) -> Self {
        assert!((1..=1024).contains(&config.window), "a window of {} records", config.window);
        let align = segments.align_bytes();
        let bytes = segments.segment_bytes().min(config.segment_bytes_max);
        let limit = bytes - bytes % align - align;
        let state = State {
            queue: Default::default(),
            in_flight: Default::default(),
            current: open,
            spare: Spare::Missing,
            wider: None,
            tries: 0,
            full: false,
            sequence: position.sequence,
            previous: position.previous,
            applied: position,
            failed: None,
            broken: segments.all().without(position.shards),
            breakage: None,
            unsealed: 0,
            settlers: Vec::new(),
            closed: false,
            latency: Default::default(),
            assembler: Assembler::new(align as usize, config.own_bytes_min),
            header: Vec::new(),
            batches: Vec::new(),
        };
        sink.segment_opened(position.segment);
        let shared = Rc::new(Shared {
            env,
            segments,
            coordinator,
            epoch,
            config,
            align,
            limit,
            sink,
            state: RefCell::new(state),
            waiters: Rc::default(),
            driver: Cell::default(),
        });
        shared.make_spare();
        shared.env.spawn(drive(Rc::clone(&shared)));
        Self { handle: Rc::new(Handle(shared)) }
    }

    /// Queues `op` now; the order of calls is the order of the log. The future is ready when the operation's record and
    /// all before it are durable on every replica and the sink has been told. It may be dropped: the operation goes on.
    ///
    /// [`LogError::Invalid`] and [`LogError::Full`] concern this operation alone; after any other error nothing can be
    /// appended any more.
    pub fn append(&self, op: Op) -> Append {
        let shared = &self.handle.0;
        let refused = (!shared.fits(&op)).then_some(LogError::Invalid);
        shared.queue(Item::Op(op), refused)
    }

    /// Goes on in a new segment: nothing appended after this call lies in the present one. Ready when the present one is
    /// sealed.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn roll(&self) -> impl Future<Output = Result<(), LogError>> + use<E, C, S> {
        let rolled = self.handle.0.queue(Item::Roll, None);
        let settled = self.settled();
        async move {
            rolled.await?;
            settled.await.map(|_| ())
        }
    }

    /// The first record that is not applied yet: where a replay has to start to see all that the sink has not been told.
    #[must_use]
    pub fn position(&self) -> Position {
        self.handle.0.state.borrow().applied
    }

    /// Waits for a moment in which every segment before that of [`Self::position`] is sealed, and gives the position of
    /// that moment. Recovery may start there: a checkpoint is cut before the next await.
    ///
    /// # Errors
    /// The log's failure.
    pub fn settled(&self) -> impl Future<Output = Result<Position, LogError>> + use<E, C, S> {
        let shared = Rc::clone(&self.handle.0);
        poll_fn(move |cx| {
            let mut state = shared.state.borrow_mut();
            match &state.failed {
                Some(failed) => Poll::Ready(Err(failed.clone())),
                None if state.unsealed == 0 => Poll::Ready(Ok(state.applied)),
                None => {
                    state.settlers.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    /// Why nothing can be appended any more, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.handle.0.state.borrow().failed.clone()
    }

    /// How many operations are queued or in flight.
    #[must_use]
    pub fn backlog(&self) -> usize {
        let state = self.handle.0.state.borrow();
        state.queue.len() + state.in_flight.iter().map(|record| record.ops.len()).sum::<usize>()
    }

    pub(super) fn shared(&self) -> &Rc<Shared<E, C, S>> {
        &self.handle.0
    }

    /// The sink.
    #[must_use]
    pub fn sink(&self) -> &S {
        &self.handle.0.sink
    }
}

impl<E: Env, C: Chunks, S: Sink> Shared<E, C, S> {
    fn queue(&self, item: Item, refused: Option<LogError>) -> Append {
        let mut state = self.state.borrow_mut();
        let mut waiters = self.waiters.borrow_mut();
        let waiter = waiters.add();
        match state.failed.clone().or(refused) {
            Some(error) => drop(waiters.end(waiter, Err(error))),
            None => state.queue.push_back(Queued { item, waiter }),
        }
        drop((waiters, state));
        self.wake();
        Append::new(&self.waiters, waiter)
    }

    /// Wakes the driver, if it waits.
    pub fn wake(&self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    fn register(&self, cx: &Context<'_>) {
        let waker = self.driver.take().filter(|waker| waker.will_wake(cx.waker()));
        self.driver.set(Some(waker.unwrap_or_else(|| cx.waker().clone())));
    }

    /// Ends waiters in order.
    pub fn end(&self, ended: &mut Vec<Queued>, result: &Result<(), LogError>) {
        for queued in ended.drain(..) {
            let waker = self.waiters.borrow_mut().end(queued.waiter, result.clone());
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// From now on every operation fails with `error`, as do those under way.
    pub fn fail(&self, error: LogError) {
        let mut state = self.state.borrow_mut();
        let error = state.failed.get_or_insert(error).clone();
        let records = std::mem::take(&mut state.in_flight);
        let queue = std::mem::take(&mut state.queue);
        let settlers = std::mem::take(&mut state.settlers);
        drop(state);
        for mut record in records {
            self.end(&mut record.ops, &Err(error.clone()));
        }
        self.end(&mut queue.into(), &Err(error));
        settlers.into_iter().for_each(Waker::wake);
        self.wake();
    }

    /// One turn of the driver: takes what has ended, applies what can be, sends what may be, until nothing moves.
    fn turn<F: Future<Output = Done>, T: Future<Output = ()> + Unpin>(
        self: &Rc<Self>,
        slots: &mut Slots<F>,
        attempt: &impl Fn(Attempt<C::Chunk>) -> F,
        timer: &mut Option<T>,
        sleep: &impl Fn(Instant) -> T,
        cx: &mut Context<'_>,
    ) -> Poll<Stop> {
        self.register(cx);
        loop {
            let mut moved = self.take_ended(slots, cx);
            self.watch(timer, sleep, cx);
            if self.state.borrow().must_leave() {
                return Poll::Ready(Stop::Leave);
            }
            moved |= self.apply();
            moved |= self.send(slots, attempt, cx);
            if !moved {
                break;
            }
        }
        let state = self.state.borrow();
        let idle = state.queue.is_empty() && state.in_flight.is_empty();
        if state.closed && idle { Poll::Ready(Stop::Closed) } else { Poll::Pending }
    }

    /// Takes note of appends that have ended. Whether there were any.
    pub fn take_ended<F: Future<Output = Done>>(&self, slots: &mut Slots<F>, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some((_, done))) = slots.poll_next(cx) {
            self.ended(done);
            any = true;
        }
        any
    }
}

/// How many appends may be in flight together: all replicas of two windows, and those of replicas left behind.
fn slots_max(window: usize) -> usize {
    window * 4 * SHARDS_MAX * SHARDS_MAX
}

async fn drive<E: Env, C: Chunks, S: Sink>(shared: Rc<Shared<E, C, S>>) {
    let mut slots = Slots::new(slots_max(shared.config.window));
    let (env, epoch) = (shared.env.clone(), shared.epoch);
    let attempt = move |attempt: Attempt<C::Chunk>| {
        let begun = env.now();
        async move {
            let Attempt { sequence, replica: Replica { shard, chunk }, offset, pieces } = attempt;
            let append = chunk.append(epoch, offset, &pieces);
            Done { sequence, shard, begun, result: append.await }
        }
    };
    let (clock, mut timer) = (shared.env.clone(), None);
    let sleep = |until| clock.sleep_until(until);
    loop {
        match poll_fn(|cx| shared.turn(&mut slots, &attempt, &mut timer, &sleep, cx)).await {
            Stop::Closed => return,
            Stop::Leave => shared.leave_behind(&mut slots, &mut timer, &sleep).await,
        }
    }
}
