//! The calls of a reactor that wait for an answer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use ashlar_env::VolumeError;
use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Outcome, VolumeInfo};

type Answer = Result<Outcome, VolumeError>;
type InfoCell = std::cell::Cell<VolumeInfo>;

/// Which call of a reactor an answer belongs to. Not reused until 2^32 calls later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    at: u32,
    generation: u32,
}

/// The asking side of an exchange.
pub(super) struct Calls<X, M> {
    mesh: X,
    table: RefCell<Table>,
    /// What remotes show of their volumes, as long as there are any.
    infos: RefCell<BTreeMap<VolumeId, Weak<InfoCell>>>,
    message: PhantomData<fn() -> M>,
}

struct Table {
    calls: Vec<Call>,
    free: Vec<u32>,
    calls_max: usize,
    /// Those that wait for a call to be free.
    waiting: Vec<Waker>,
}

struct Call {
    generation: u32,
    state: State,
}

enum State {
    Free,
    /// Not sent, or not answered yet.
    Open(Option<Waker>),
    Answered(Answer),
    /// Sent, and nobody waits for the answer any more.
    Abandoned,
}

impl Table {
    fn take(&mut self) -> Option<CallId> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.calls.len() < self.calls_max => {
                self.calls.push(Call { generation: 0, state: State::Free });
                self.free.reserve(self.calls.len());
                self.calls.len() as u32 - 1
            }
            None => return None,
        };
        let call = &mut self.calls[at as usize];
        call.state = State::Open(None);
        Some(CallId { at, generation: call.generation })
    }

    /// Frees the call. Those to wake, who may all try again.
    #[must_use]
    fn free(&mut self, at: u32) -> Vec<Waker> {
        let call = &mut self.calls[at as usize];
        call.generation = call.generation.wrapping_add(1);
        call.state = State::Free;
        self.free.push(at);
        std::mem::take(&mut self.waiting)
    }
}

impl<X: Mesh<M>, M: Send + 'static> Calls<X, M> {
    pub(super) fn new(mesh: X, calls_max: usize) -> Self {
        let table = Table { calls: Vec::new(), free: Vec::new(), calls_max, waiting: Vec::new() };
        Self { mesh, table: RefCell::new(table), infos: RefCell::default(), message: PhantomData }
    }

    pub(super) fn mesh(&self) -> &X {
        &self.mesh
    }

    /// The cell that shows what the volume is, shared by all its remotes here.
    pub(super) fn show(&self, info: VolumeInfo) -> Rc<InfoCell> {
        let mut infos = self.infos.borrow_mut();
        infos.retain(|_, cell| cell.strong_count() > 0);
        if let Some(cell) = infos.get(&info.id).and_then(Weak::upgrade) {
            cell.set(info);
            return cell;
        }
        let cell = Rc::new(InfoCell::new(info));
        infos.insert(info.id, Rc::downgrade(&cell));
        cell
    }

    /// Takes note of what a volume has become. Whether a remote here shows it.
    pub(super) fn update(&self, info: VolumeInfo) -> bool {
        let cell = self.infos.borrow().get(&info.id).and_then(Weak::upgrade);
        if let Some(cell) = &cell {
            cell.set(info);
        }
        cell.is_some()
    }

    /// Opens a call; waits while all are in use.
    pub(super) fn poll_open(&self, cx: &mut Context<'_>) -> Poll<CallId> {
        let mut table = self.table.borrow_mut();
        if let Some(id) = table.take() {
            return Poll::Ready(id);
        }
        table.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    /// Sends what is in `unsent`; waits while the link is full.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, to: ReactorId, unsent: &mut Option<M>) -> Poll<()> {
        while let Some(message) = unsent.take() {
            if let Err(back) = self.mesh.try_send(to, message) {
                *unsent = Some(back);
                ready!(self.mesh.poll_room(cx, to));
            }
        }
        Poll::Ready(())
    }

    /// Waits for the answer to a request that has been sent, and frees the call.
    pub(super) fn poll_answer(&self, cx: &mut Context<'_>, id: CallId) -> Poll<Answer> {
        let mut table = self.table.borrow_mut();
        let state = &mut table.calls[id.at as usize].state;
        match std::mem::replace(state, State::Free) {
            State::Answered(answer) => {
                let wakers = table.free(id.at);
                drop(table);
                wakers.into_iter().for_each(Waker::wake);
                Poll::Ready(answer)
            }
            State::Open(Some(mut waker)) => {
                waker.clone_from(cx.waker());
                *state = State::Open(Some(waker));
                Poll::Pending
            }
            State::Open(None) | State::Free | State::Abandoned => {
                *state = State::Open(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Gives a call up; where its request was sent, the answer still comes and is thrown away.
    pub(super) fn give_up(&self, id: CallId, sent: bool) {
        // What was in the call and who waits for it may run code when dropped or woken: not under the borrow.
        let (_left, wakers) = {
            let mut table = self.table.borrow_mut();
            let state = &mut table.calls[id.at as usize].state;
            let unanswered = sent && matches!(state, State::Open(_));
            let left = std::mem::replace(state, State::Abandoned);
            (left, if unanswered { Vec::new() } else { table.free(id.at) })
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes in the answer to a call.
    pub(super) fn answer(&self, id: CallId, answer: Answer) {
        let mut table = self.table.borrow_mut();
        let Some(call) = table.calls.get_mut(id.at as usize).filter(|call| call.generation == id.generation)
        else {
            return;
        };
        match std::mem::replace(&mut call.state, State::Answered(answer)) {
            State::Open(waker) => {
                drop(table);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Abandoned => {
                let wakers = table.free(id.at);
                drop(table);
                wakers.into_iter().for_each(Waker::wake);
            }
            other @ (State::Free | State::Answered(_)) => call.state = other,
        }
    }

    /// How many calls are open or abandoned. For tests.
    pub(super) fn open_count(&self) -> usize {
        let table = self.table.borrow();
        table.calls.len() - table.free.len()
    }
}
