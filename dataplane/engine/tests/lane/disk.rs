//! A disk of the simulator that does what a test says: it crashes its node at a chosen operation, fails, hangs, becomes
//! slow, gives other bytes than were written, or is not there any more.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Clock, Rng};
use ashlar_sim::{Control, Crash, NodeId, SimDisk, SimEnv};

/// What all disks of a node have in common: operations that change them are counted, and one may be the node's last.
#[derive(Default)]
pub struct Fate {
    /// Writes and flushes issued, from 1.
    pub issued: Cell<u64>,
    /// The one that crashes the node, or fails.
    pub blow: Cell<Option<(u64, Blow)>>,
    /// The rest of the poll in which the node crashed.
    pub is_dead: Cell<bool>,
}

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The node crashes while it is under way.
    Crash(Crash),
    /// It fails, though it may have been done.
    Fail { done: bool },
}

/// What is wrong with a disk.
#[derive(Default)]
pub struct Trouble {
    /// Every write and flush fails.
    pub failing: Cell<bool>,
    /// Every operation fails.
    pub gone: Cell<bool>,
    /// No operation ends before this is taken back.
    pub hangs: Cell<bool>,
    /// Every operation takes so much longer.
    pub slow: Cell<Duration>,
    /// One read in so many comes back with a byte turned over; 0 for none.
    pub rot: Cell<u64>,
    /// How many did.
    pub rotten: Cell<u64>,
}

#[derive(Clone)]
pub struct TestDisk {
    pub disk: SimDisk,
    pub control: Control,
    pub node: NodeId,
    pub env: SimEnv,
    pub fate: Rc<Fate>,
    pub trouble: Rc<Trouble>,
}

/// How often somebody looks whether a disk still hangs.
const LOOK: Duration = Duration::from_millis(1);

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

async fn delay(env: &SimEnv, trouble: &Trouble) {
    if !trouble.slow.get().is_zero() {
        env.sleep_until(env.now().plus(trouble.slow.get())).await;
    }
    while trouble.hangs.get() {
        env.sleep_until(env.now().plus(LOOK)).await;
    }
}

fn failure() -> DiskError {
    DiskError::Medium("made to fail".into())
}

impl TestDisk {
    /// Runs an operation that changes the disk.
    fn change<F: Future<Output = Result<(), DiskError>> + 'static>(
        &self,
        operation: impl FnOnce() -> F,
    ) -> Boxed<Result<(), DiskError>> {
        let fate = &self.fate;
        if fate.is_dead.get() {
            return Box::pin(std::future::pending());
        }
        fate.issued.set(fate.issued.get() + 1);
        let blow = fate.blow.get().filter(|&(at, _)| at == fate.issued.get()).map(|(_, blow)| blow);
        let fails = self.trouble.failing.get() || self.trouble.gone.get();
        let done = !fails && blow != Some(Blow::Fail { done: false });
        let operation = done.then(operation);
        if let Some(Blow::Crash(how)) = blow {
            fate.is_dead.set(true);
            self.control.crash(self.node, how);
        }
        let (env, trouble) = (self.env.clone(), Rc::clone(&self.trouble));
        Box::pin(async move {
            let outcome = match operation {
                Some(operation) => operation.await,
                None => Err(failure()),
            };
            delay(&env, &trouble).await;
            if matches!(blow, Some(Blow::Fail { .. })) { Err(failure()) } else { outcome }
        })
    }
}

impl Disk for TestDisk {
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let gone = self.trouble.gone.get();
        let read = (!gone).then(|| self.disk.read(start, buf));
        let (env, trouble) = (self.env.clone(), Rc::clone(&self.trouble));
        async move {
            let mut data = match read {
                Some(read) => read.await?,
                None => return Err(failure()),
            };
            delay(&env, &trouble).await;
            if trouble.rot.get() > 0 && env.random_below(trouble.rot.get()) == 0 {
                let at = env.random_below(data.len() as u64) as usize;
                data[at] ^= 1 << env.random_below(8);
                trouble.rotten.set(trouble.rotten.get() + 1);
            }
            Ok(data)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.change(|| self.disk.write(start, data, durability))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.change(|| self.disk.flush())
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.disk.discard(range)
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.change(|| self.disk.write_zeroes(range, free, durability))
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.disk.resize(size_bytes)
    }
}
