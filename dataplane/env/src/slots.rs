//! Futures of one type in reusable slots: many operations in flight, and no allocation to start one.
//!
//! A [`Slots`] holds up to its capacity of futures and polls only those that were woken. The memory of a slot
//! and its waker are made when the slot is first used and kept; the lowest slots are used first, so memory
//! follows the greatest depth ever reached. In the steady state starting, waking and ending allocate nothing.
//!
//! The wakers may be called from any thread; everything else belongs to one task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;

const WORD_BITS: usize = u64::BITS as usize;

/// A future's place in its [`Slots`]. It does not name a later future in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    at: u32,
    generation: u32,
}

impl SlotId {
    /// The number of the place, below the capacity. Reused after the future has ended.
    #[must_use]
    pub const fn index(self) -> usize {
        self.at as usize
    }
}

/// A bounded set of futures in flight.
///
/// ```
/// # use ashlar_env::slots::Slots;
/// # use std::task::{Context, Poll, Waker};
/// let mut cx = Context::from_waker(Waker::noop());
/// let mut slots = Slots::new(8);
/// let id = slots.insert(std::future::ready(7)).expect("there is room");
/// assert_eq!(slots.poll_one(id, &mut cx), Poll::Ready(7));
/// assert_eq!(slots.poll_next(&mut cx), Poll::Ready(None));
/// ```
pub struct Slots<F> {
    places: Vec<Place<F>>,
    /// Places made and not in use; the last one is used next, for it is the one most likely in cache.
    free: Vec<u32>,
    capacity: usize,
    len: usize,
    /// The place filled last, if it was not polled yet: the usual way, and cheaper than a mark.
    fresh: Option<u32>,
    /// Bits taken out of `shared.ready[word]` and not polled yet.
    taken: u64,
    word: usize,
    shared: Arc<Shared>,
}

struct Place<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
    generation: u32,
}

struct Shared {
    /// One bit per place: woken since it was last polled.
    ready: Box<[AtomicU64]>,
    /// The task that polls the whole.
    task: AtomicWaker,
}

struct PlaceWaker {
    shared: Arc<Shared>,
    at: u32,
}

impl Shared {
    /// Marks the place ready. Whether it was not.
    fn mark(&self, at: usize) -> bool {
        let bit = 1 << (at % WORD_BITS);
        self.ready[at / WORD_BITS].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    fn unmark(&self, at: usize) {
        if self.is_marked(at) {
            self.ready[at / WORD_BITS].fetch_and(!(1 << (at % WORD_BITS)), Ordering::AcqRel);
        }
    }

    fn any_marked(&self) -> bool {
        self.ready.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    fn is_marked(&self, at: usize) -> bool {
        self.ready[at / WORD_BITS].load(Ordering::Acquire) & (1 << (at % WORD_BITS)) != 0
    }
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.shared.mark(self.at as usize) {
            self.shared.task.wake();
        }
    }
}

impl<F: Future> Slots<F> {
    /// Room for `capacity` futures; their memory comes with their use.
    ///
    /// # Panics
    /// If `capacity` is above 2^32 - 1.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(u32::try_from(capacity).is_ok(), "the number of a slot fits 32 bits");
        let words = capacity.div_ceil(WORD_BITS);
        let ready = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            places: Vec::new(),
            free: Vec::new(),
            capacity,
            len: 0,
            fresh: None,
            taken: 0,
            word: 0,
            shared: Arc::new(Shared { ready, task: AtomicWaker::new() }),
        }
    }

    /// How many futures are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many may be in flight.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether [`Self::insert`] would refuse.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Takes `future` in. It is polled first by [`Self::poll_one`], or by the next [`Self::poll_next`]; the
    /// caller sees to it that one of them follows.
    ///
    /// # Errors
    /// The future itself, where all places are in use.
    pub fn insert(&mut self, future: F) -> Result<SlotId, F> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.places.len() < self.capacity => self.add_place(),
            None => return Err(future),
        };
        let place = &mut self.places[at as usize];
        place.future.as_mut().set(Some(future));
        self.len += 1;
        if let Some(earlier) = self.fresh.replace(at) {
            self.shared.mark(earlier as usize);
        }
        Ok(SlotId { at, generation: place.generation })
    }

    fn add_place(&mut self) -> u32 {
        let at = self.places.len() as u32;
        let waker = Waker::from(Arc::new(PlaceWaker { shared: Arc::clone(&self.shared), at }));
        self.places.push(Place { future: Box::pin(None), waker, generation: 0 });
        // Every place may be free at once: no later push allocates.
        self.free.reserve(self.places.len());
        at
    }

    /// Polls one future; when it is ready, its place is free again. Right after [`Self::insert`] this lets an
    /// operation that need not wait end in line.
    ///
    /// # Panics
    /// If the future has ended or was cancelled.
    pub fn poll_one(&mut self, id: SlotId, cx: &mut Context<'_>) -> Poll<F::Output> {
        assert!(self.holds(id), "a slot is polled until it ends and no longer");
        let at = id.index();
        if self.fresh == Some(id.at) {
            self.fresh = None;
        }
        self.shared.unmark(at);
        if let Poll::Ready(output) = self.poll_place(at) {
            return Poll::Ready(output);
        }
        // Woken before the task was registered: nobody has been told.
        self.shared.task.register(cx.waker());
        if self.shared.is_marked(at) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The next future that ends, with its output; `None` when no future is in flight. Polls those that were
    /// woken, in turn. To be called until it says `Pending`: only then is the task woken as soon as one of them
    /// is.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(SlotId, F::Output)>> {
        if self.len == 0 {
            return Poll::Ready(None);
        }
        if let Some(at) = self.fresh.take() {
            self.shared.mark(at as usize);
        }
        // Once around, and the rest of the word at which the last call stopped.
        for _ in 0..=self.shared.ready.len() {
            while self.taken != 0 {
                let at = self.word * WORD_BITS + self.taken.trailing_zeros() as usize;
                self.taken &= self.taken - 1;
                let Some(place) = self.places.get(at).filter(|place| place.future.is_some()) else {
                    continue;
                };
                let id = SlotId { at: at as u32, generation: place.generation };
                if let Poll::Ready(output) = self.poll_place(at) {
                    return Poll::Ready(Some((id, output)));
                }
            }
            self.word = if self.word + 1 < self.shared.ready.len() { self.word + 1 } else { 0 };
            let ready = &self.shared.ready[self.word];
            if ready.load(Ordering::Acquire) != 0 {
                self.taken = ready.swap(0, Ordering::AcqRel);
            }
        }
        self.shared.task.register(cx.waker());
        if self.taken != 0 || self.shared.any_marked() {
            // Woken before the task was registered, or by one another: the rest of the task goes first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Drops the future, if it has not ended. Whether it had not.
    pub fn cancel(&mut self, id: SlotId) -> bool {
        let held = self.holds(id);
        if held {
            self.vacate(id.index());
        }
        held
    }

    /// Whether the future is in flight.
    #[must_use]
    pub fn holds(&self, id: SlotId) -> bool {
        self.places
            .get(id.index())
            .is_some_and(|place| place.generation == id.generation && place.future.is_some())
    }

    fn poll_place(&mut self, at: usize) -> Poll<F::Output> {
        let place = &mut self.places[at];
        let future = place.future.as_mut().as_pin_mut().expect("the place is in use");
        let output = future.poll(&mut Context::from_waker(&place.waker));
        if output.is_ready() {
            self.vacate(at);
        }
        output
    }

    fn vacate(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.generation = place.generation.wrapping_add(1);
        place.future.as_mut().set(None);
        self.free.push(at as u32);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A future that ends when told, and counts how often it was polled.
    #[derive(Default)]
    struct Gate {
        open: Cell<Option<u32>>,
        waker: RefCell<Option<Waker>>,
        polls: Cell<u32>,
    }

    impl Gate {
        fn open(&self, value: u32) {
            self.open.set(Some(value));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }

        fn wait(self: &Rc<Self>) -> impl Future<Output = u32> + use<> {
            let gate = Rc::clone(self);
            std::future::poll_fn(move |cx| {
                gate.polls.set(gate.polls.get() + 1);
                *gate.waker.borrow_mut() = Some(cx.waker().clone());
                gate.open.get().map_or(Poll::Pending, Poll::Ready)
            })
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_the_woken_are_polled_and_the_task_is_woken_once() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let gates: Vec<_> = (0..200).map(|_| Rc::new(Gate::default())).collect();
        let mut slots = Slots::new(200);
        for gate in &gates {
            slots.insert(gate.wait()).ok().unwrap();
        }
        assert!(slots.poll_next(&mut cx).is_pending());
        gates[3].open(30);
        gates[130].open(1300);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let mut ended = Vec::new();
        while let Poll::Ready(Some((id, value))) = slots.poll_next(&mut cx) {
            ended.push((id.index(), value));
        }
        ended.sort_unstable();
        assert_eq!(ended, [(3, 30), (130, 1300)]);
        assert_eq!(slots.len(), 198);
        let polls: u32 = gates.iter().map(|gate| gate.polls.get()).sum();
        assert_eq!(polls, 202);
    }

    #[test]
    fn a_full_set_gives_the_future_back() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut slots = Slots::new(1);
        let gate = Rc::new(Gate::default());
        let id = slots.insert(gate.wait()).ok().unwrap();
        assert!(slots.is_full() && slots.insert(gate.wait()).is_err());
        assert!(slots.poll_one(id, &mut cx).is_pending());
        gate.open(1);
        assert_eq!(slots.poll_next(&mut cx), Poll::Ready(Some((id, 1))));
        assert_eq!(slots.poll_next(&mut cx), Poll::Ready(None));
    }

    #[test]
    fn a_place_is_reused_under_another_id() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut slots = Slots::new(4);
        let gate = Rc::new(Gate::default());
        let first = slots.insert(gate.wait()).ok().unwrap();
        assert!(slots.poll_one(first, &mut cx).is_pending());
        assert!(slots.cancel(first) && !slots.cancel(first));
        let second = slots.insert(gate.wait()).ok().unwrap();
        assert_eq!(first.index(), second.index());
        assert!(!slots.holds(first) && slots.holds(second));
        // A waker left over from the first future reaches the second as a needless poll, no more.
        gate.open(5);
        assert_eq!(slots.poll_next(&mut cx), Poll::Ready(Some((second, 5))));
    }

    #[test]
    fn a_wake_between_the_poll_and_the_registration_is_not_lost() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut slots = Slots::new(1);
        let id = slots.insert(crate::spawn::yield_now()).ok().unwrap();
        assert!(slots.poll_one(id, &mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(slots.poll_next(&mut cx), Poll::Ready(Some((id, ()))));
    }

    #[test]
    fn one_that_wakes_itself_for_ever_starves_nobody() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let gate = Rc::new(Gate::default());
        let busy = || -> Pin<Box<dyn Future<Output = u32>>> {
            Box::pin(std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Pending
            }))
        };
        let mut slots = Slots::new(3);
        slots.insert(busy()).ok().unwrap();
        let quiet = slots.insert(Box::pin(gate.wait())).ok().unwrap();
        slots.insert(busy()).ok().unwrap();
        for _ in 0..3 {
            let before = count.0.load(Ordering::SeqCst);
            assert!(slots.poll_next(&mut cx).is_pending());
            assert!(count.0.load(Ordering::SeqCst) > before, "the task is to be polled again");
        }
        gate.open(9);
        assert_eq!(slots.poll_next(&mut cx), Poll::Ready(Some((quiet, 9))));
    }

    #[test]
    fn wakers_work_from_other_threads() {
        let pool = crate::buf::BufPool::on_heap(crate::buf::PoolPlan { limits: [1, 0, 0, 0, 0] });
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut slots = Slots::new(2);
        let held = pool.try_alloc(1).unwrap();
        slots.insert(pool.alloc(1)).ok().unwrap();
        assert!(slots.poll_next(&mut cx).is_pending());
        std::thread::spawn(move || drop(held)).join().unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(matches!(slots.poll_next(&mut cx), Poll::Ready(Some(_))));
    }

    #[test]
    fn random_starts_ends_and_cancels_keep_the_books() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut slots = Slots::new(70);
        let mut live: Vec<(SlotId, Rc<Gate>)> = Vec::new();
        let mut state = 1_u64;
        let mut ended = 0;
        for step in 0..20_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = (state >> 33) as usize;
            match draw % 4 {
                0 | 1 if live.len() < 70 => {
                    let gate = Rc::new(Gate::default());
                    live.push((slots.insert(gate.wait()).ok().unwrap(), gate));
                }
                2 if !live.is_empty() => live[draw / 4 % live.len()].1.open(step),
                3 if !live.is_empty() && draw.is_multiple_of(5) => {
                    let (id, _) = live.swap_remove(draw / 4 % live.len());
                    assert!(slots.cancel(id));
                }
                _ => {}
            }
            while let Poll::Ready(Some((id, value))) = slots.poll_next(&mut cx) {
                let at = live.iter().position(|(live, _)| *live == id).expect("it was in flight");
                assert_eq!(live.swap_remove(at).1.open.get(), Some(value));
                ended += 1;
            }
            assert_eq!(slots.len(), live.len());
        }
        assert!(ended > 1000);
    }
}
