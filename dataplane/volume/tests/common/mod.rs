//! A small world for the tests of volumes: an executor that picks the next task at random, and a disk that
//! moves one block at a time, in random order, so that whatever is not kept apart gets torn.
#![allow(dead_code, reason = "each test uses a part")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ashlar_env::buf::{Buf, BufMut, BufPool, PoolPlan};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::net::NetError;
use ashlar_env::reservation::HostId;
use ashlar_env::units::{BlockRange, BlockSize, ByteRange, Lba, VolumeId};
use ashlar_env::volume::Issuer;
use ashlar_env::{Clock, Env, Instant, Net, Rng, Spawn};
use ashlar_volume::{NoStore, PassThrough, ReservationStore, Reservations, Settings, scratch_pool};

pub mod mesh;
pub mod no_net;
use no_net::{NoListener, NoStream};

/// A pass-through volume over a fresh disk.
pub fn serve(
    env: &TestEnv,
    info: DiskInfo,
    block_size: BlockSize,
) -> (PassThrough<TestEnv, MemoryDisk>, MemoryDisk) {
    serve_with(env, info, block_size, Reservations::default(), NoStore)
}

/// The same, with reservations.
pub fn serve_with<S: ReservationStore>(
    env: &TestEnv,
    info: DiskInfo,
    block_size: BlockSize,
    reservations: Reservations,
    store: S,
) -> (PassThrough<TestEnv, MemoryDisk, S>, MemoryDisk) {
    let disk = env.disk(info);
    let volume = PassThrough::new(env.clone(), disk.clone(), settings(block_size, reservations), store);
    (volume.unwrap(), disk)
}

pub fn settings(block_size: BlockSize, reservations: Reservations) -> Settings {
    Settings { id: volume_id(1), block_size, read_only: false, reservations, scratch: scratch_pool() }
}

/// A buffer of the reactor with these bytes.
pub fn filled(env: &TestEnv, bytes: &[u8]) -> Buf {
    let mut buf = env.buffers().try_alloc(bytes.len()).unwrap();
    buf.copy_from_slice(bytes);
    buf.freeze()
}

pub fn range(first: u64, blocks: u64) -> BlockRange {
    BlockRange::new(Lba(first), blocks).unwrap()
}

pub fn volume_id(n: u128) -> VolumeId {
    VolumeId(uuid::Uuid::from_u128(n))
}

pub fn host(n: u8) -> HostId {
    HostId([n; 16])
}

pub fn issuer(n: u8) -> Issuer {
    Issuer { host: host(n), session: u64::from(n) }
}

/// A generator of numbers (splitmix64).
pub struct Dice(Cell<u64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Flag>,
}

struct World {
    dice: Dice,
    pool: BufPool,
    spawned: RefCell<Vec<Task>>,
    disks: RefCell<Vec<MemoryDisk>>,
}

#[derive(Clone)]
pub struct TestEnv(Rc<World>);

impl TestEnv {
    pub fn new(seed: u64) -> Self {
        Self::with_pool(seed, BufPool::on_heap(PoolPlan { limits: [16, 8, 4, 4, 4] }))
    }

    pub fn with_pool(seed: u64, pool: BufPool) -> Self {
        Self(Rc::new(World {
            dice: Dice::new(seed),
            pool,
            spawned: RefCell::default(),
            disks: RefCell::default(),
        }))
    }

    pub fn disk(&self, info: DiskInfo) -> MemoryDisk {
        let disk = MemoryDisk::new(info);
        self.0.disks.borrow_mut().push(disk.clone());
        disk
    }

    pub fn dice(&self) -> &Dice {
        &self.0.dice
    }

    /// Runs everything, by turns at random, until `main` ends.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let main_woken = Arc::new(Flag(AtomicBool::new(true)));
        let mut tasks: Vec<Task> = Vec::new();
        let mut idle = 0;
        loop {
            tasks.append(&mut self.0.spawned.borrow_mut());
            let pick = self.0.dice.below(tasks.len() as u64 + 2) as usize;
            let mut progress = false;
            if pick == tasks.len() {
                if main_woken.0.swap(false, Ordering::SeqCst) {
                    progress = true;
                    let waker = Waker::from(Arc::clone(&main_woken));
                    if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        self.0.spawned.borrow_mut().append(&mut tasks);
                        return output;
                    }
                }
            } else if pick > tasks.len() {
                for disk in &*self.0.disks.borrow() {
                    progress |= disk.step(&self.0.dice);
                }
            } else if tasks[pick].woken.0.swap(false, Ordering::SeqCst) {
                progress = true;
                let waker = Waker::from(Arc::clone(&tasks[pick].woken));
                if tasks[pick].future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    drop(tasks.swap_remove(pick));
                }
            }
            idle = if progress { 0 } else { idle + 1 };
            assert!(idle < 100_000, "deadlock: nothing has been able to go on for long");
        }
    }
}

impl Spawn for TestEnv {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        self.0.spawned.borrow_mut().push(Task { future: Box::pin(task), woken });
    }
}

impl Clock for TestEnv {
    fn now(&self) -> Instant {
        Instant(0)
    }

    fn wall_ms(&self) -> u64 {
        0
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Unpin + 'static {
        ready(())
    }
}

impl Rng for TestEnv {
    fn random_u64(&self) -> u64 {
        self.0.dice.next()
    }
}

impl Net for TestEnv {
    type Stream = NoStream;
    type Listener = NoListener;
    type Accepted = ();

    fn listen(&self, _: SocketAddr) -> Result<NoListener, NetError> {
        Err(NetError::Other("no network here".into()))
    }

    fn adopt(&self, (): ()) -> Result<NoStream, NetError> {
        Err(NetError::Reset)
    }

    fn connect(&self, _: SocketAddr) -> impl Future<Output = Result<NoStream, NetError>> {
        ready(Err(NetError::Reset))
    }
}

impl Env for TestEnv {
    fn buffers(&self) -> &BufPool {
        &self.0.pool
    }
}

/// Properties of a disk of 64 KiB blocks times `blocks`.
pub fn disk_info(size_bytes: u64, block_bytes: u32) -> DiskInfo {
    DiskInfo {
        size_bytes,
        block_bytes,
        physical_block_bytes: 4096,
        volatile_cache: true,
        read_only: false,
        discard_granularity_bytes: 4096,
        discard_zeroes: true,
        atomic_write_bytes: 0,
    }
}

enum Work {
    Read(BufMut),
    Write(Buf),
    Zero,
    Garbage,
    Flush,
}

struct Pending {
    ticket: u64,
    start: u64,
    len: u64,
    done: u64,
    work: Work,
}

type Finished = Result<Option<BufMut>, DiskError>;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    pending: Vec<Pending>,
    finished: BTreeMap<u64, Finished>,
    wakers: BTreeMap<u64, Waker>,
    next_ticket: u64,
    zeroes_unsupported: bool,
    resizable: bool,
    fail_next: Option<DiskError>,
    log: Vec<&'static str>,
}

/// Memory as a disk. An operation goes on without its future.
#[derive(Clone)]
pub struct MemoryDisk {
    info: Rc<Cell<DiskInfo>>,
    state: Rc<RefCell<State>>,
}

impl MemoryDisk {
    fn new(info: DiskInfo) -> Self {
        let bytes = vec![0; info.size_bytes as usize];
        let state = State { bytes, resizable: true, ..State::default() };
        Self { info: Rc::new(Cell::new(info)), state: Rc::new(RefCell::new(state)) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state.borrow().bytes.clone()
    }

    pub fn set_info(&self, info: DiskInfo) {
        self.info.set(info);
        self.state.borrow_mut().bytes.resize(info.size_bytes as usize, 0);
    }

    pub fn fix_size(&self) {
        self.state.borrow_mut().resizable = false;
    }

    pub fn forbid_zeroes(&self) {
        self.state.borrow_mut().zeroes_unsupported = true;
    }

    pub fn fail_next(&self, error: DiskError) {
        self.state.borrow_mut().fail_next = Some(error);
    }

    /// What was asked of the disk since the last call, reads left out.
    pub fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state.borrow_mut().log)
    }

    fn submit(&self, start: u64, len: u64, work: Work) -> impl Future<Output = Finished> + use<> {
        let block = u64::from(self.info.get().block_bytes);
        let mut state = self.state.borrow_mut();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let aligned = start.is_multiple_of(block) && len.is_multiple_of(block);
        if let Some(error) = state.fail_next.take() {
            state.finished.insert(ticket, Err(error));
        } else if !aligned || start + len > state.bytes.len() as u64 {
            state.finished.insert(ticket, Err(DiskError::OutOfRange));
        } else {
            state.pending.push(Pending { ticket, start, len, done: 0, work });
        }
        let shared = Rc::clone(&self.state);
        poll_fn(move |cx| {
            let mut state = shared.borrow_mut();
            if let Some(finished) = state.finished.remove(&ticket) {
                return Poll::Ready(finished);
            }
            state.wakers.insert(ticket, cx.waker().clone());
            Poll::Pending
        })
    }

    fn submit_unit(
        &self,
        start: u64,
        len: u64,
        work: Work,
    ) -> impl Future<Output = Result<(), DiskError>> + use<> {
        let submitted = self.submit(start, len, work);
        async move { submitted.await.map(|_| ()) }
    }

    /// Moves one block of one operation.
    fn step(&self, dice: &Dice) -> bool {
        let block = u64::from(self.info.get().block_bytes);
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if state.pending.is_empty() {
            return false;
        }
        let at = dice.below(state.pending.len() as u64) as usize;
        let op = &mut state.pending[at];
        if op.done < op.len {
            let done = op.done as usize;
            let disk = &mut state.bytes[(op.start + op.done) as usize..][..block as usize];
            match &mut op.work {
                Work::Read(buf) => buf[done..][..block as usize].copy_from_slice(disk),
                Work::Write(data) => disk.copy_from_slice(&data[done..][..block as usize]),
                Work::Zero => disk.fill(0),
                Work::Garbage => disk.fill(0xdb),
                Work::Flush => {}
            }
            op.done += block;
        }
        if op.done >= op.len {
            let op = state.pending.swap_remove(at);
            let buf = if let Work::Read(buf) = op.work { Some(buf) } else { None };
            state.finished.insert(op.ticket, Ok(buf));
            let waker = state.wakers.remove(&op.ticket);
            drop(guard);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        true
    }
}

impl Disk for MemoryDisk {
    fn info(&self) -> DiskInfo {
        self.info.get()
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let len = buf.len() as u64;
        let read = self.submit(start, len, Work::Read(buf));
        async move { read.await.map(|buf| buf.expect("a read gives its buffer back")) }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.state.borrow_mut().log.push(if durability == Durability::Fua { "write fua" } else { "write" });
        let len = data.len() as u64;
        self.submit_unit(start, len, Work::Write(data))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.state.borrow_mut().log.push("flush");
        self.submit_unit(0, 0, Work::Flush)
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.state.borrow_mut().log.push("discard");
        let zeroes = self.info.get().discard_zeroes;
        self.submit_unit(range.start, range.len, if zeroes { Work::Zero } else { Work::Garbage })
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let unsupported = self.state.borrow().zeroes_unsupported;
        let done = if unsupported {
            None
        } else {
            self.state.borrow_mut().log.push(if free { "zero and free" } else { "zero" });
            Some(self.submit_unit(range.start, range.len, Work::Zero))
        };
        async move {
            match done {
                Some(done) => done.await,
                None => Err(DiskError::Unsupported),
            }
        }
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        if self.state.borrow().resizable {
            self.set_info(DiskInfo { size_bytes, ..self.info.get() });
        }
        ready(Ok(()))
    }
}
