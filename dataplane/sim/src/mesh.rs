//! Links between the reactors of a node: bounded, first-in first-out, each message with a delay of its own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::{Mesh, ReactorId};

use crate::event::Kind;
use crate::node::SimEnv;
use crate::rng::Prng;

/// One reactor's end of the links of its node.
pub struct SimMesh<M> {
    env: SimEnv,
    links: Rc<RefCell<Links<M>>>,
}

impl<M> Clone for SimMesh<M> {
    fn clone(&self) -> Self {
        Self { env: self.env.clone(), links: Rc::clone(&self.links) }
    }
}

struct Links<M> {
    reactors: u16,
    /// By sender times `reactors` plus receiver.
    all: Vec<Link<M>>,
    receivers: Vec<Option<Waker>>,
    rng: Prng,
}

struct Link<M> {
    queue: VecDeque<M>,
    /// How many of the queue have arrived.
    arrived: usize,
    /// When the last one arrives, in nanoseconds.
    last_ns: u64,
    sent: u64,
    received: u64,
    senders: Vec<Waker>,
}

impl<M: Send + 'static> SimMesh<M> {
    pub(crate) fn ends(envs: Vec<SimEnv>) -> Vec<Self> {
        let reactors = envs.len() as u16;
        let world = Rc::clone(envs[0].world());
        let number = u64::from(envs[0].node().0) << 32 | u64::from(envs[0].incarnation());
        let link = || Link {
            queue: VecDeque::new(),
            arrived: 0,
            last_ns: 0,
            sent: 0,
            received: 0,
            senders: Vec::new(),
        };
        let links = Rc::new(RefCell::new(Links {
            reactors,
            all: (0..usize::from(reactors) * usize::from(reactors)).map(|_| link()).collect(),
            receivers: vec![None; usize::from(reactors)],
            rng: Prng::split(world.seed, "mesh", number),
        }));
        envs.into_iter().map(|env| Self { env, links: Rc::clone(&links) }).collect()
    }

    /// The index of the link between two reactors, and how the log names it.
    fn link(&self, from: u16, to: u16) -> (usize, u64) {
        let reactors = self.links.borrow().reactors;
        assert!(to < reactors, "the node has {reactors} reactors");
        (usize::from(from) * usize::from(reactors) + usize::from(to), u64::from(from) << 16 | u64::from(to))
    }
}

impl<M: Send + 'static> Mesh<M> for SimMesh<M> {
    fn here(&self) -> ReactorId {
        ReactorId(self.env.reactor())
    }

    fn reactors(&self) -> u16 {
        self.links.borrow().reactors
    }

    fn try_send(&self, to: ReactorId, message: M) -> Result<(), M> {
        if !self.env.is_alive() {
            return Err(message);
        }
        let world = self.env.world();
        let (at, name) = self.link(self.env.reactor(), to.0);
        let mut links = self.links.borrow_mut();
        let delay = links.rng.tail(world.profile.mesh_delay_mean.as_nanos() as u64);
        let link = &mut links.all[at];
        if link.queue.len() >= world.profile.mesh_capacity {
            world.marks.hit("mesh: link full");
            return Err(message);
        }
        link.queue.push_back(message);
        link.sent += 1;
        link.last_ns = link.last_ns.max(world.now.get().saturating_add(delay));
        let (sent, due) = (link.sent, link.last_ns);
        drop(links);
        world.log(Kind::MeshSend, u64::from(self.env.node().0), name, sent);
        let shared = Rc::clone(&self.links);
        // All of one link that fall due at one time arrive together, so their order does not matter here.
        world.after(due - world.now.get(), move |_| {
            let waker = {
                let mut links = shared.borrow_mut();
                links.all[at].arrived += 1;
                links.receivers[usize::from(to.0)].take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>, to: ReactorId) -> Poll<()> {
        let (at, _) = self.link(self.env.reactor(), to.0);
        let link = &mut self.links.borrow_mut().all[at];
        if link.queue.len() < self.env.world().profile.mesh_capacity {
            return Poll::Ready(());
        }
        if !link.senders.iter().any(|waker| waker.will_wake(cx.waker())) {
            link.senders.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<(ReactorId, M)> {
        let here = self.env.reactor();
        let mut links = self.links.borrow_mut();
        let reactors = links.reactors;
        let index = |from: u16| usize::from(from) * usize::from(reactors) + usize::from(here);
        let full: Vec<u16> = (0..reactors).filter(|&from| links.all[index(from)].arrived > 0).collect();
        if full.is_empty() {
            links.receivers[usize::from(here)] = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let from = full[links.rng.index(full.len())];
        let link = &mut links.all[index(from)];
        link.arrived -= 1;
        link.received += 1;
        let message = link.queue.pop_front().expect("what has arrived is in the queue");
        let (received, senders) = (link.received, std::mem::take(&mut link.senders));
        drop(links);
        for waker in senders {
            waker.wake();
        }
        let name = u64::from(from) << 16 | u64::from(here);
        self.env.world().log(Kind::MeshReceive, u64::from(self.env.node().0), name, received);
        Poll::Ready((ReactorId(from), message))
    }
}
