//! A disk in memory whose operations end when the script says so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn, ready};
use std::rc::Rc;
use std::task::{Poll, Waker};

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::ByteRange;

/// An operation that waits: how it shall end, once that is decided, and who waits.
#[derive(Default)]
struct Gate {
    verdict: RefCell<Option<Result<(), DiskError>>>,
    waker: RefCell<Option<Waker>>,
}

/// The disk. Cloning shares it.
#[derive(Clone)]
pub struct ScriptDisk {
    bytes: Rc<RefCell<Vec<u8>>>,
    waiting: Rc<RefCell<VecDeque<Rc<Gate>>>>,
    held: Rc<Cell<bool>>,
}

impl ScriptDisk {
    /// A disk of `len` zeros; with `held`, nothing ends by itself.
    #[must_use]
    pub fn new(len: usize, held: bool) -> Self {
        Self {
            bytes: Rc::new(RefCell::new(vec![0; len])),
            waiting: Rc::default(),
            held: Rc::new(Cell::new(held)),
        }
    }

    /// Ends one of the operations that wait.
    pub fn end_one(&self, which: usize, verdict: Result<(), DiskError>) {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len();
        if let Some(gate) = waiting.remove(which % count.max(1)) {
            *gate.verdict.borrow_mut() = Some(verdict);
            gate.waker.borrow_mut().take().into_iter().for_each(Waker::wake);
        }
    }

    /// Ends all that waits, well, and from now on everything at once.
    pub fn release(&self) {
        self.held.set(false);
        while !self.waiting.borrow().is_empty() {
            self.end_one(0, Ok(()));
        }
    }

    /// Waits for the verdict on an operation. It takes its place in the queue now.
    fn pass(&self) -> impl Future<Output = Result<(), DiskError>> + 'static + use<> {
        let gate = Rc::new(Gate::default());
        if self.held.get() {
            self.waiting.borrow_mut().push_back(Rc::clone(&gate));
        } else {
            *gate.verdict.borrow_mut() = Some(Ok(()));
        }
        poll_fn(move |cx| match gate.verdict.borrow_mut().take() {
            Some(verdict) => Poll::Ready(verdict),
            None => {
                *gate.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }

    fn zero(&self, range: ByteRange) {
        self.bytes.borrow_mut()[range.start as usize..range.end() as usize].fill(0);
    }
}

impl Disk for ScriptDisk {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            size_bytes: self.bytes.borrow().len() as u64,
            block_bytes: 512,
            physical_block_bytes: 4096,
            volatile_cache: true,
            read_only: false,
            discard_granularity_bytes: 4096,
            discard_zeroes: true,
            atomic_write_bytes: 0,
        }
    }

    fn read(&self, start: u64, mut buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let (this, pass) = (self.clone(), self.pass());
        async move {
            pass.await?;
            let len = buf.len();
            buf.copy_from_slice(&this.bytes.borrow()[start as usize..][..len]);
            Ok(buf)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let (this, pass) = (self.clone(), self.pass());
        async move {
            pass.await?;
            this.bytes.borrow_mut()[start as usize..][..data.len()].copy_from_slice(&data);
            Ok(())
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.pass()
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let (this, pass) = (self.clone(), self.pass());
        async move {
            pass.await?;
            this.zero(range);
            Ok(())
        }
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        _: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let (this, pass) = (self.clone(), self.pass());
        async move {
            pass.await?;
            this.zero(range);
            Ok(())
        }
    }

    fn resize(&self, _: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }
}
