//! A disk whose writes of data can be held up or spoilt, and that remembers where was written.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use ashlar_env::Clock;
use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::ByteRange;
use ashlar_sim::{SimDisk, SimEnv};

/// What the gate does. All but pages of 4096 bytes, which headers and fences are, counts as data.
#[derive(Default)]
pub struct Switch {
    /// Writes of data wait.
    pub hold: Cell<bool>,
    /// Writes of data change a byte.
    pub spoil: Cell<bool>,
    /// Where was written, in order of issue.
    pub writes: RefCell<Vec<u64>>,
}

#[derive(Clone)]
pub struct Gate {
    pub env: SimEnv,
    pub disk: SimDisk,
    pub switch: Rc<Switch>,
}

impl Gate {
    pub fn new(env: &SimEnv, disk: SimDisk) -> Self {
        Self { env: env.clone(), disk, switch: Rc::default() }
    }
}

impl Disk for Gate {
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        self.disk.read(start, buf)
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let it = self.clone();
        it.switch.writes.borrow_mut().push(start);
        async move {
            let mut data = data;
            if data.len() != 4096 {
                while it.switch.hold.get() {
                    it.env.sleep_until(it.env.now().plus(Duration::from_millis(1))).await;
                }
                if it.switch.spoil.get() {
                    let mut bytes = data.to_vec();
                    bytes[data.len() / 2] ^= 1;
                    data = Buf::from_heap(bytes.into());
                }
            }
            it.disk.write(start, data, durability).await
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.disk.flush()
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
        self.disk.write_zeroes(range, free, durability)
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.disk.resize(size_bytes)
    }
}
