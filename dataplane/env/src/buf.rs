//! I/O buffers: reference-counted, 4 KiB aligned, from a bounded pool of their reactor.
//!
//! A [`BufMut`] is unique and writable; [`BufMut::freeze`] makes it a [`Buf`], which is shared and read-only
//! and may be narrowed to a window. Both may cross to another reactor; the memory returns to the pool it came
//! from when the last reference is dropped, wherever that happens, without a lock.
//!
//! Memory comes in size classes, each with a limit, so that a pool is bounded and does not fragment. It is
//! carved from one slab that the runtime maps (from hugepages where the host has them) and registers with
//! io_uring, or from the heap for tests and simulation. A used buffer keeps its old bytes: whoever hands one
//! out to a peer fills it whole ([`Disk::read`](crate::Disk::read) does) or asks for zeros.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::{ArrayQueue, SegQueue};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The alignment of every buffer, in bytes.
pub const ALIGN_BYTES: usize = 4096;

/// The largest buffer, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The size classes, in bytes, ascending.
pub const CLASS_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, MAX_BYTES];

const _: () = assert!(CLASS_BYTES[0].is_multiple_of(ALIGN_BYTES));
const _: () = assert!(CLASS_BYTES[CLASS_BYTES.len() - 1] == MAX_BYTES);

/// A page of buffer memory; its alignment is what aligns the buffers.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Page([u8; ALIGN_BYTES]);

impl Page {
    /// A page of zeros.
    pub const ZERO: Self = Self([0; ALIGN_BYTES]);
}

static ZEROES: [Page; MAX_BYTES / ALIGN_BYTES] = [Page::ZERO; MAX_BYTES / ALIGN_BYTES];

/// How many buffers of each class a pool may have, in the order of [`CLASS_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// The limit per class.
    pub limits: [usize; CLASS_BYTES.len()],
}

impl PoolPlan {
    /// Divides `bytes` over the classes: an eighth each to the two small ones, a quarter each to the rest, and
    /// at least two of the largest and 16 of the others.
    #[must_use]
    pub fn for_bytes(bytes: usize) -> Self {
        let share = [8, 8, 4, 4, 4];
        let mut limits = [0; CLASS_BYTES.len()];
        for (class, limit) in limits.iter_mut().enumerate() {
            let least = if CLASS_BYTES[class] == MAX_BYTES { 2 } else { 16 };
            *limit = (bytes / share[class] / CLASS_BYTES[class]).max(least);
        }
        Self { limits }
    }

    /// The memory the plan takes, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.limits.iter().zip(CLASS_BYTES).map(|(n, bytes)| n * bytes).sum()
    }
}

/// A reactor's pool of buffers. Cloning shares it.
#[derive(Clone)]
pub struct BufPool {
    inner: Arc<Pool>,
}

struct Pool {
    classes: [Class; CLASS_BYTES.len()],
    waiting: SegQueue<Waker>,
    waiting_count: AtomicUsize,
}

/// The free chunks of one size.
struct Class {
    /// The one given back last is taken first: it is still in the processor's cache. Nobody ever waits for this
    /// lock: whoever finds it taken goes to `returned`.
    free: Mutex<Vec<Arc<Chunk>>>,
    /// Given back while another thread held the lock.
    returned: ArrayQueue<Arc<Chunk>>,
    /// Chunks that may still be made on the heap. Always 0 for a pool over a slab.
    unmade: AtomicUsize,
}

/// The memory of one buffer.
struct Chunk {
    memory: Memory,
    class: u8,
    slab: Option<u16>,
    pool: Weak<Pool>,
}

enum Memory {
    Slab(&'static mut [Page]),
    Heap(Box<[Page]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Slab(pages) => pages.as_bytes(),
            Memory::Heap(pages) => pages.as_bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Slab(pages) => pages.as_mut_bytes(),
            Memory::Heap(pages) => pages.as_mut_bytes(),
        }
    }
}

impl Drop for Chunk {
    /// Reached when a pool goes, or when two threads drop the last two references at once and neither sees
    /// that it is the last: then the memory finds its way back here.
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let memory = std::mem::replace(&mut self.memory, Memory::Heap(Box::new([])));
            let chunk = Self { memory, class: self.class, slab: self.slab, pool: self.pool.clone() };
            pool.put(Arc::new(chunk));
        }
    }
}

impl Class {
    fn pop(&self) -> Option<Arc<Chunk>> {
        let hot = self.free.try_lock().ok().and_then(|mut free| free.pop());
        hot.or_else(|| self.returned.pop())
    }

    fn push(&self, chunk: Arc<Chunk>) {
        match self.free.try_lock() {
            Ok(mut free) => free.push(chunk),
            Err(_) => {
                assert!(self.returned.push(chunk).is_ok(), "a pool holds no more chunks than it made");
            }
        }
    }

    fn len(&self) -> usize {
        self.free.lock().map_or(0, |free| free.len()) + self.returned.len()
    }
}

impl Pool {
    fn take(self: &Arc<Self>, class: usize) -> Option<Arc<Chunk>> {
        for (at, class) in self.classes.iter().enumerate().skip(class) {
            if let Some(chunk) = class.pop() {
                return Some(chunk);
            }
            if class.unmade.load(Ordering::Relaxed) > 0
                && class
                    .unmade
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
            {
                let memory = vec![Page::ZERO; CLASS_BYTES[at] / ALIGN_BYTES].into_boxed_slice();
                let pool = Arc::downgrade(self);
                return Some(Arc::new(Chunk {
                    memory: Memory::Heap(memory),
                    class: at as u8,
                    slab: None,
                    pool,
                }));
            }
        }
        None
    }

    fn put(&self, chunk: Arc<Chunk>) {
        self.classes[usize::from(chunk.class)].push(chunk);
        if self.waiting_count.load(Ordering::SeqCst) > 0 {
            while let Some(waker) = self.waiting.pop() {
                self.waiting_count.fetch_sub(1, Ordering::SeqCst);
                waker.wake();
            }
        }
    }
}

/// Gives up a reference, and the memory with it if it was the last.
fn release(pool: &Arc<Pool>, mut chunk: Arc<Chunk>) {
    if Arc::get_mut(&mut chunk).is_some() {
        pool.put(chunk);
    }
}

fn class_for(len: usize) -> Option<usize> {
    CLASS_BYTES.iter().position(|&bytes| len <= bytes)
}

impl BufPool {
    /// A pool whose memory comes from the heap, on demand, up to `plan`.
    #[must_use]
    pub fn on_heap(plan: PoolPlan) -> Self {
        Self::build(plan, true)
    }

    /// A pool over `slab`, which must hold [`PoolPlan::total_bytes`]. `number` is the slab's number in the
    /// node: the index under which reactors register it.
    ///
    /// # Panics
    /// If the slab is too small.
    #[must_use]
    pub fn on_slab(plan: PoolPlan, slab: &'static mut [Page], number: u16) -> Self {
        let pool = Self::build(plan, false);
        let mut rest = slab;
        for (class, limit) in plan.limits.iter().enumerate() {
            for _ in 0..*limit {
                let (pages, tail) = rest.split_at_mut(CLASS_BYTES[class] / ALIGN_BYTES);
                rest = tail;
                pool.inner.put(Arc::new(Chunk {
                    memory: Memory::Slab(pages),
                    class: class as u8,
                    slab: Some(number),
                    pool: Arc::downgrade(&pool.inner),
                }));
            }
        }
        pool
    }

    fn build(plan: PoolPlan, on_demand: bool) -> Self {
        let classes = plan.limits.map(|limit| Class {
            free: Mutex::new(Vec::with_capacity(if on_demand { 0 } else { limit })),
            returned: ArrayQueue::new(limit.max(1)),
            unmade: AtomicUsize::new(if on_demand { limit } else { 0 }),
        });
        let inner = Pool { classes, waiting: SegQueue::new(), waiting_count: AtomicUsize::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// A buffer of `len` bytes with unspecified contents, or `None` where `len` is above [`MAX_BYTES`] or the
    /// pool is exhausted.
    #[must_use]
    pub fn try_alloc(&self, len: usize) -> Option<BufMut> {
        let chunk = self.inner.take(class_for(len)?)?;
        Some(BufMut { chunk: Some(chunk), pool: Arc::clone(&self.inner), len })
    }

    /// A buffer of `len` bytes of zeros; `None` as for [`Self::try_alloc`].
    #[must_use]
    pub fn try_zeroed(&self, len: usize) -> Option<BufMut> {
        let mut buf = self.try_alloc(len)?;
        buf.fill(0);
        Some(buf)
    }

    /// A buffer of `len` bytes with unspecified contents; waits while the pool is exhausted. Whoever waits here
    /// must not hold another buffer, or all of them might wait for ever.
    ///
    /// # Panics
    /// If `len` is above [`MAX_BYTES`].
    pub fn alloc(&self, len: usize) -> impl Future<Output = BufMut> + use<> {
        assert!(len <= MAX_BYTES, "no buffer is that large");
        Alloc { pool: self.clone(), len }
    }

    /// How many buffers are free or not made yet, over all classes. For tests and metrics.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.inner.classes.iter().map(|c| c.len() + c.unmade.load(Ordering::Relaxed)).sum()
    }
}

struct Alloc {
    pool: BufPool,
    len: usize,
}

impl Future for Alloc {
    type Output = BufMut;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BufMut> {
        if let Some(buf) = self.pool.try_alloc(self.len) {
            return Poll::Ready(buf);
        }
        let pool = &self.pool.inner;
        pool.waiting_count.fetch_add(1, Ordering::SeqCst);
        pool.waiting.push(cx.waker().clone());
        // A buffer that came back since the first look has woken nobody.
        self.pool.try_alloc(self.len).map_or(Poll::Pending, Poll::Ready)
    }
}

/// A unique, writable buffer.
pub struct BufMut {
    /// `None` only while the buffer is being frozen or dropped.
    chunk: Option<Arc<Chunk>>,
    pool: Arc<Pool>,
    len: usize,
}

impl BufMut {
    /// Makes the buffer shared and read-only.
    #[must_use]
    pub fn freeze(mut self) -> Buf {
        let chunk = self.chunk.take().expect("a buffer has its memory until it is dropped");
        let len = self.len;
        Buf { inner: Inner::Pooled { chunk: Some(chunk), pool: Arc::clone(&self.pool) }, start: 0, len }
    }

    /// Shortens the buffer to `len` bytes; no effect where it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The number of the slab the memory lies in, if it lies in one.
    #[must_use]
    pub fn slab(&self) -> Option<u16> {
        self.chunk.as_ref().and_then(|chunk| chunk.slab)
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let chunk = self.chunk.as_ref().expect("a buffer has its memory until it is dropped");
        &chunk.bytes()[..self.len]
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        let chunk = self.chunk.as_mut().expect("a buffer has its memory until it is dropped");
        &mut Arc::get_mut(chunk).expect("a writable buffer is unique").bytes_mut()[..self.len]
    }
}

impl Drop for BufMut {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            release(&self.pool, chunk);
        }
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({} bytes)", self.len)
    }
}

/// A shared, read-only window of a buffer, or of memory that lives for ever.
pub struct Buf {
    inner: Inner,
    start: usize,
    len: usize,
}

enum Inner {
    Pooled {
        /// `None` only while the buffer is being dropped.
        chunk: Option<Arc<Chunk>>,
        pool: Arc<Pool>,
    },
    Static(&'static [u8]),
    Heap(Arc<[u8]>),
}

impl Buf {
    /// `len` zeros, which take no memory of a pool.
    ///
    /// # Panics
    /// If `len` is above [`MAX_BYTES`].
    #[must_use]
    pub fn zeroes(len: usize) -> Self {
        assert!(len <= MAX_BYTES, "no buffer is that large");
        Self { inner: Inner::Static(ZEROES.as_bytes()), start: 0, len }
    }

    /// Bytes that live for ever.
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self { inner: Inner::Static(bytes), start: 0, len: bytes.len() }
    }

    /// Bytes of the heap: for what is not I/O, as the answers to admin commands.
    #[must_use]
    pub fn from_heap(bytes: Arc<[u8]>) -> Self {
        let len = bytes.len();
        Self { inner: Inner::Heap(bytes), start: 0, len }
    }

    /// The window of `len` bytes from `start` of this one.
    ///
    /// # Panics
    /// If it reaches beyond this one.
    #[must_use]
    pub fn slice(&self, start: usize, len: usize) -> Self {
        assert!(start <= self.len && len <= self.len - start, "a window lies within its buffer");
        let mut window = self.clone();
        window.start += start;
        window.len = len;
        window
    }

    /// The number of the slab the memory lies in, if it lies in one.
    #[must_use]
    pub fn slab(&self) -> Option<u16> {
        match &self.inner {
            Inner::Pooled { chunk, .. } => chunk.as_ref().and_then(|chunk| chunk.slab),
            Inner::Static(_) | Inner::Heap(_) => None,
        }
    }
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        let inner = match &self.inner {
            Inner::Pooled { chunk, pool } => Inner::Pooled { chunk: chunk.clone(), pool: Arc::clone(pool) },
            Inner::Static(bytes) => Inner::Static(bytes),
            Inner::Heap(bytes) => Inner::Heap(Arc::clone(bytes)),
        };
        Self { inner, start: self.start, len: self.len }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all = match &self.inner {
            Inner::Pooled { chunk, .. } => {
                chunk.as_ref().expect("a buffer has its memory until it is dropped").bytes()
            }
            Inner::Static(bytes) => bytes,
            Inner::Heap(bytes) => bytes,
        };
        &all[self.start..self.start + self.len]
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Inner::Pooled { chunk, pool } = &mut self.inner
            && let Some(chunk) = chunk.take()
        {
            release(pool, chunk);
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> BufPool {
        BufPool::on_heap(PoolPlan { limits: [2, 0, 0, 0, 1] })
    }

    #[test]
    fn buffers_are_aligned_and_bounded() {
        let pool = tiny();
        let a = pool.try_alloc(1).unwrap();
        let b = pool.try_alloc(4096).unwrap();
        let c = pool.try_alloc(4096).unwrap();
        assert!([&a, &b, &c].iter().all(|buf| buf.as_ptr().addr().is_multiple_of(ALIGN_BYTES)));
        assert!(pool.try_alloc(1).is_none());
        assert!(pool.try_alloc(MAX_BYTES + 1).is_none());
        drop(b);
        assert!(pool.try_alloc(4096).is_some());
    }

    #[test]
    fn memory_returns_with_the_last_reference_even_from_another_thread() {
        let pool = tiny();
        let mut buf = pool.try_alloc(4096).unwrap();
        buf.fill(7);
        let shared = buf.freeze();
        let window = shared.slice(100, 10);
        drop(shared);
        assert_eq!(pool.free_count(), 2);
        assert_eq!(&window[..], &[7; 10]);
        std::thread::spawn(move || drop(window)).join().unwrap();
        assert_eq!(pool.free_count(), 3);
    }

    #[test]
    fn two_threads_that_drop_the_last_two_references_at_once_lose_nothing() {
        let pool = tiny();
        for _ in 0..2000 {
            let a = pool.try_alloc(4096).unwrap().freeze();
            let b = a.clone();
            let other = std::thread::spawn(move || drop(b));
            drop(a);
            other.join().unwrap();
            assert_eq!(pool.free_count(), 3);
        }
    }

    #[test]
    fn a_pool_over_a_slab_uses_its_memory() {
        let plan = PoolPlan { limits: [4, 0, 0, 0, 0] };
        let slab: &'static mut [Page] = Box::leak(vec![Page::ZERO; 4].into_boxed_slice());
        let range = slab.as_ptr_range();
        let (low, high) = (range.start.addr(), range.end.addr());
        let pool = BufPool::on_slab(plan, slab, 3);
        let bufs: Vec<_> = (0..4).map(|_| pool.try_alloc(4096).unwrap()).collect();
        assert!(bufs.iter().all(|b| (low..high).contains(&b.as_ptr().addr()) && b.slab() == Some(3)));
        assert!(pool.try_alloc(1).is_none());
    }

    #[test]
    fn a_waiter_gets_the_buffer_that_comes_back() {
        let pool = BufPool::on_heap(PoolPlan { limits: [1, 0, 0, 0, 0] });
        let held = pool.try_alloc(1).unwrap();
        let mut waiting = Box::pin(pool.alloc(1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn zeroes_cost_nothing() {
        let zeroes = Buf::zeroes(MAX_BYTES);
        assert!(zeroes.iter().all(|&b| b == 0));
    }
}
