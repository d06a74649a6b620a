//! Links between reactors that share one thread: queues so short that room is often wanted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::mesh::{Mesh, ReactorId};

pub struct TestMesh<M> {
    here: ReactorId,
    links: Rc<RefCell<Links<M>>>,
}

struct Links<M> {
    room: usize,
    /// By receiver, then by sender.
    queues: Vec<Vec<VecDeque<M>>>,
    receivers: Vec<Option<Waker>>,
    waiting_for_room: Vec<Waker>,
    turn: usize,
}

impl<M> Clone for TestMesh<M> {
    fn clone(&self) -> Self {
        Self { here: self.here, links: Rc::clone(&self.links) }
    }
}

/// The ends of `reactors` reactors, with room for `room` messages in each link.
pub fn mesh<M>(reactors: u16, room: usize) -> Vec<TestMesh<M>> {
    let n = usize::from(reactors);
    let queues = (0..n).map(|_| (0..n).map(|_| VecDeque::with_capacity(room)).collect()).collect();
    let receivers = vec![None; n];
    let links = Links { room, queues, receivers, waiting_for_room: Vec::with_capacity(64), turn: 0 };
    let links = Rc::new(RefCell::new(links));
    (0..reactors).map(|n| TestMesh { here: ReactorId(n), links: Rc::clone(&links) }).collect()
}

impl<M: Send + 'static> Mesh<M> for TestMesh<M> {
    fn here(&self) -> ReactorId {
        self.here
    }

    fn reactors(&self) -> u16 {
        self.links.borrow().queues.len() as u16
    }

    fn try_send(&self, to: ReactorId, message: M) -> Result<(), M> {
        let mut links = self.links.borrow_mut();
        let room = links.room;
        let queue = &mut links.queues[usize::from(to.0)][usize::from(self.here.0)];
        if queue.len() == room {
            return Err(message);
        }
        queue.push_back(message);
        if let Some(waker) = links.receivers[usize::from(to.0)].take() {
            waker.wake();
        }
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>, to: ReactorId) -> Poll<()> {
        let mut links = self.links.borrow_mut();
        if links.queues[usize::from(to.0)][usize::from(self.here.0)].len() < links.room {
            return Poll::Ready(());
        }
        links.waiting_for_room.push(cx.waker().clone());
        Poll::Pending
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<(ReactorId, M)> {
        let mut links = self.links.borrow_mut();
        let here = usize::from(self.here.0);
        let n = links.queues.len();
        links.turn += 1;
        for from in 0..n {
            let from = (from + links.turn) % n;
            if let Some(message) = links.queues[here][from].pop_front() {
                links.waiting_for_room.drain(..).for_each(Waker::wake);
                return Poll::Ready((ReactorId(from as u16), message));
            }
        }
        links.receivers[here] = Some(cx.waker().clone());
        Poll::Pending
    }
}
