//! A reactor's side of the traffic between reactors for volumes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::slots::Slots;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Volume, VolumeError};

use super::calls::{CallId, Calls};
use super::{Carries, Remote, VolumeMessage};

/// How many messages are taken in before other tasks have a turn.
const TURN_MESSAGES_MAX: usize = 128;

/// The bounds of a reactor's exchange.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many operations of this reactor may be under way on others; more wait.
    pub calls_max: usize,
    /// How many operations of others are executed here at once; more wait in line.
    pub serving_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls_max: 4096, serving_max: 4096 }
    }
}

/// What the exchange's task has for the rest of the node.
#[derive(Debug)]
pub enum Event<M> {
    /// A message that is not about volumes, and who sent it.
    Other(ReactorId, M),
    /// A volume of which this reactor has a remote has changed (its size, say): hosts are to be told.
    Changed(VolumeInfo),
}

/// A reactor's exchange. Cloning gives the same one.
pub struct Exchange<X, M, V> {
    shared: Rc<Shared<X, M, V>>,
}

impl<X, M, V> Clone for Exchange<X, M, V> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

struct Shared<X, M, V> {
    calls: Rc<Calls<X, M>>,
    volumes: RefCell<BTreeMap<VolumeId, V>>,
    /// What did not fit a link yet, by receiver.
    unsent: RefCell<Vec<VecDeque<M>>>,
    /// The task's.
    waker: Cell<Option<Waker>>,
    limits: Limits,
}

struct Request {
    from: ReactorId,
    call: CallId,
    volume: VolumeId,
    issuer: Issuer,
    operation: Operation,
}

impl<X: Mesh<M>, M: Carries, V: Volume> Exchange<X, M, V> {
    /// The exchange of the reactor whose end of the mesh this is.
    #[must_use]
    pub fn new(mesh: X, limits: Limits) -> Self {
        let unsent = (0..mesh.reactors()).map(|_| VecDeque::new()).collect();
        let shared = Shared {
            calls: Rc::new(Calls::new(mesh, limits.calls_max)),
            volumes: RefCell::default(),
            unsent: RefCell::new(unsent),
            waker: Cell::default(),
            limits,
        };
        Self { shared: Rc::new(shared) }
    }

    /// Serves `volume` to the other reactors.
    pub fn publish(&self, volume: V) {
        let id = volume.info().id;
        self.shared.volumes.borrow_mut().insert(id, volume);
    }

    /// Serves the volume no longer: what comes for it is answered by [`VolumeError::NotHere`]. What is under
    /// way ends as it would have. Gives the volume back, if it was served.
    #[must_use]
    pub fn withdraw(&self, volume: VolumeId) -> Option<V> {
        self.shared.volumes.borrow_mut().remove(&volume)
    }

    /// A volume that is published on `home`.
    #[must_use]
    pub fn remote(&self, home: ReactorId, info: VolumeInfo) -> Remote<X, M> {
        let calls = Rc::clone(&self.shared.calls);
        Remote { home, info: calls.show(info), calls }
    }

    /// Tells the other reactors what a volume of this one has become.
    pub fn announce(&self, info: VolumeInfo) {
        let mesh = self.shared.calls.mesh();
        for to in (0..mesh.reactors()).map(ReactorId).filter(|&to| to != mesh.here()) {
            self.send(to, VolumeMessage::Info(info));
        }
        // Should a link be full, the task has to wait for its room.
        if let Some(waker) = self.shared.waker.take() {
            waker.wake();
        }
    }

    /// How many operations of this reactor are under way on others. For metrics and tests.
    #[must_use]
    pub fn calls_open(&self) -> usize {
        self.shared.calls.open_count()
    }

    /// Receives for this reactor, for ever: executes requests, takes in answers, and hands the rest to
    /// `events`. To be run once, as a task.
    pub async fn run(self, mut events: impl FnMut(Event<M>)) {
        let mut serving = Slots::new(self.shared.limits.serving_max);
        let mut line = VecDeque::new();
        let mut start = |request: Request| {
            let Request { from, call, volume, issuer, operation } = request;
            let volume = self.shared.volumes.borrow().get(&volume).cloned();
            async move {
                let result = match volume {
                    Some(volume) => volume.execute(issuer, operation).await,
                    None => Err(VolumeError::NotHere),
                };
                (from, call, result)
            }
        };
        poll_fn(|cx| self.turn(cx, &mut serving, &mut line, &mut start, &mut events)).await
    }

    /// Everything that can be done now. Never ready.
    fn turn<F>(
        &self,
        cx: &mut Context<'_>,
        serving: &mut Slots<F>,
        line: &mut VecDeque<Request>,
        start: &mut impl FnMut(Request) -> F,
        events: &mut impl FnMut(Event<M>),
    ) -> Poll<()>
    where
        F: Future<Output = (ReactorId, CallId, Result<Outcome, VolumeError>)>,
    {
        self.shared.waker.set(Some(cx.waker().clone()));
        let mut received = 0;
        while let Poll::Ready((from, message)) = self.shared.calls.mesh().poll_recv(cx) {
            self.take_in(from, message, line, events);
            while !serving.is_full()
                && let Some(request) = line.pop_front()
            {
                let id = serving.insert(start(request)).unwrap_or_else(|_| unreachable!("there is room"));
                if let Poll::Ready(done) = serving.poll_one(id, cx) {
                    self.reply(done);
                }
            }
            received += 1;
            if received == TURN_MESSAGES_MAX {
                cx.waker().wake_by_ref();
                break;
            }
        }
        while let Poll::Ready(Some((_, done))) = serving.poll_next(cx) {
            self.reply(done);
            if let Some(request) = line.pop_front() {
                // The next poll starts it.
                serving.insert(start(request)).unwrap_or_else(|_| unreachable!("one has just ended"));
            }
        }
        self.send_rest(cx);
        Poll::Pending
    }

    fn take_in(
        &self,
        from: ReactorId,
        message: M,
        line: &mut VecDeque<Request>,
        events: &mut impl FnMut(Event<M>),
    ) {
        match message.try_into() {
            Ok(VolumeMessage::Request { call, volume, issuer, operation }) => {
                line.push_back(Request { from, call, volume, issuer, operation });
            }
            Ok(VolumeMessage::Reply { call, result }) => self.shared.calls.answer(call, result),
            Ok(VolumeMessage::Info(info)) => {
                if self.shared.calls.update(info) {
                    events(Event::Changed(info));
                }
            }
            Err(other) => events(Event::Other(from, other)),
        }
    }

    fn reply(&self, (to, call, result): (ReactorId, CallId, Result<Outcome, VolumeError>)) {
        self.send(to, VolumeMessage::Reply { call, result });
    }

    /// Sends, or keeps what does not fit for [`Self::send_rest`]; in order either way.
    fn send(&self, to: ReactorId, message: VolumeMessage) {
        let unsent = &mut self.shared.unsent.borrow_mut()[usize::from(to.0)];
        if !unsent.is_empty() {
            unsent.push_back(message.into());
        } else if let Err(back) = self.shared.calls.mesh().try_send(to, message.into()) {
            unsent.push_back(back);
        }
    }

    fn send_rest(&self, cx: &mut Context<'_>) {
        let mesh = self.shared.calls.mesh();
        for (to, unsent) in self.shared.unsent.borrow_mut().iter_mut().enumerate() {
            let to = ReactorId(to as u16);
            while let Some(message) = unsent.pop_front() {
                if let Err(back) = mesh.try_send(to, message) {
                    unsent.push_front(back);
                    if mesh.poll_room(cx, to).is_pending() {
                        break;
                    }
                }
            }
        }
    }
}
