//! The glue between the sans-IO parts and the environment: it moves bytes and messages, and decides nothing.
//!
//! One [`Server`] per reactor. Connections are accepted on one reactor and spread over all in turn. The [`Registry`] of
//! sessions lives on one reactor; connections reach it by messages, at login and logout, for task management, and when
//! the configuration changes. A connection is one task that owns its socket, its [`Session`](crate::session::Session)
//! and the operations it has in flight.

pub mod admission;
mod commands;
mod connection;
pub mod exports;
pub mod message;
mod outbox;
pub mod registry;
pub mod stats;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use ashlar_env::Env;
use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::net::{Listener, Net, NetError};
use ashlar_env::units::VolumeId;
use ashlar_env::volume::Volume;

use crate::limits::Limits;
use crate::scsi::Shared;
use crate::scsi::copy::world::World;
use crate::view::Targets;
use admission::{Admission, Ticket};
use exports::Exports;
use message::{ConnectionId, Message, Reply, Request};
use outbox::Outbox;
use registry::Registry;
pub use registry::SessionReport;
use stats::{IoStats, VolumeCounts};

/// How long the acceptor waits when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The target on one reactor. Cloning shares it.
///
/// `M` is the node's message type, of which the target's messages are a part; `X` the mesh that carries it.
pub struct Server<E: Env, V: Volume, M, X> {
    inner: Rc<Inner<E, V, M, X>>,
}

impl<E: Env, V: Volume, M, X> Clone for Server<E, V, M, X> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

struct Inner<E: Env, V: Volume, M, X> {
    env: E,
    outbox: Outbox<M, X>,
    limits: Limits,
    registry_at: ReactorId,
    registry: Option<RefCell<Registry>>,
    exports: Exports<V>,
    connections: RefCell<BTreeMap<u64, Rc<Inbox>>>,
    next_number: Cell<u64>,
    admission: RefCell<Admission>,
    next_reactor: Cell<u16>,
    draining: Cell<bool>,
    stats: Arc<IoStats>,
}

type Accepted<E> = <E as Net>::Accepted;

/// What a connection is told, until it listens.
#[derive(Default)]
struct Inbox {
    replies: RefCell<VecDeque<Reply>>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    fn push(&self, reply: Reply) {
        self.replies.borrow_mut().push_back(reply);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn pop(&self) -> Option<Reply> {
        self.replies.borrow_mut().pop_front()
    }
}

impl<E, V, M, X> Server<E, V, M, X>
where
    E: Env,
    V: Volume,
    M: From<Message<Accepted<E>>> + Send + 'static,
    X: Mesh<M>,
{
    /// The target on the reactor of `env`. The registry of sessions lives on the reactor `registry_at`. `shared` is one
    /// for all reactors of the node; sessions are numbered from `first_session`, which must be above all numbers of
    /// earlier lives of the node.
    pub fn new(
        env: E,
        mesh: X,
        limits: Limits,
        registry_at: ReactorId,
        shared: Arc<Shared>,
        first_session: u64,
    ) -> Self {
        let outbox = Outbox::new(mesh, &env);
        let here = outbox.here() == registry_at;
        let registry = here.then(|| RefCell::new(Registry::new(&limits, first_session)));
        let admission = RefCell::new(Admission::new(&limits));
        let exports = Exports::new(shared, World::of(&env));
        Self {
            inner: Rc::new(Inner {
                env,
                outbox,
                limits,
                registry_at,
                registry,
                exports,
                connections: RefCell::default(),
                next_number: Cell::new(1),
                admission,
                next_reactor: Cell::new(0),
                draining: Cell::new(false),
                stats: Arc::default(),
            }),
        }
    }

    /// Counters of the I/O of this reactor.
    #[must_use]
    pub fn stats(&self) -> Arc<IoStats> {
        Arc::clone(&self.inner.stats)
    }

    /// Follows the configuration; `open` gives this reactor's handle of a volume.
    pub fn set_targets(&self, targets: &Arc<Targets>, open: impl Fn(VolumeId) -> Option<V>) {
        self.inner.exports.update(targets, open);
        if let Some(registry) = &self.inner.registry {
            registry.borrow_mut().set_targets(Arc::clone(targets));
        }
        self.carry_out();
        self.tell_all(|| Reply::Configured);
    }

    /// The sessions of the node, where the registry is here.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionReport> {
        self.inner.registry.as_ref().map(|registry| registry.borrow().report()).unwrap_or_default()
    }

    /// What was done to each volume through this reactor's sessions.
    #[must_use]
    pub fn volume_counts(&self) -> Vec<(VolumeId, VolumeCounts)> {
        self.inner.exports.counts()
    }

    /// A volume was deleted, and no target exports it any more: what was counted of it goes, too.
    pub fn forget_volume(&self, volume: VolumeId) {
        self.inner.exports.forget(volume);
    }

    /// How many connections this reactor serves.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.connections.borrow().len()
    }

    /// Listens at `address` and starts to accept.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn listen(&self, address: SocketAddr) -> Result<SocketAddr, NetError> {
        let listener = self.inner.env.listen(address)?;
        let address = listener.local_addr();
        self.inner.env.spawn(self.clone().accept(listener));
        Ok(address)
    }

    /// Stops accepting, asks initiators to log out, and closes every connection here soon: once what it has in flight is
    /// done.
    pub fn drain(&self) {
        self.inner.draining.set(true);
        self.tell_all(|| Reply::Drain);
    }

    fn tell_all(&self, what: impl Fn() -> Reply) {
        for inbox in self.inner.connections.borrow().values() {
            inbox.push(what());
        }
    }

    /// Takes a message that the mesh brought for the target.
    pub fn deliver(&self, message: Message<Accepted<E>>) {
        match message {
            Message::Adopt { accepted, ticket } => self.adopt(accepted, ticket),
            Message::Request(from, request) => self.request(from, request),
            Message::Reply(number, reply) => self.reply_here(number, reply),
        }
    }

    fn reply_here(&self, number: u64, reply: Reply) {
        if let Some(inbox) = self.inner.connections.borrow().get(&number) {
            inbox.push(reply);
        }
    }

    async fn accept(self, listener: E::Listener) {
        while !self.inner.draining.get() {
            match listener.accept().await {
                Ok((accepted, peer)) => self.place(accepted, peer),
                Err(_) => {
                    let pause = self.inner.env.now().plus(EXHAUSTED_PAUSE);
                    self.inner.env.sleep_until(pause).await;
                }
            }
        }
    }

    /// Gives an accepted connection to the next reactor in turn, or drops it where the limits forbid it.
    fn place(&self, accepted: Accepted<E>, peer: SocketAddr) {
        let address: IpAddr = peer.ip().to_canonical();
        let Some(ticket) = self.inner.admission.borrow_mut().admit(address) else {
            self.inner.stats.refused_connections(1);
            return;
        };
        let to = ReactorId(self.inner.next_reactor.get() % self.inner.outbox.reactors());
        self.inner.next_reactor.set(to.0 + 1);
        if to == self.inner.outbox.here() {
            self.adopt(accepted, ticket);
        } else {
            self.inner.outbox.send(to, Message::Adopt { accepted, ticket }.into());
        }
    }

    fn adopt(&self, accepted: Accepted<E>, ticket: Ticket) {
        if self.inner.draining.get() {
            return;
        }
        let Ok(stream) = self.inner.env.adopt(accepted) else { return };
        let number = self.inner.next_number.get();
        self.inner.next_number.set(number + 1);
        let inbox = Rc::new(Inbox::default());
        self.inner.connections.borrow_mut().insert(number, Rc::clone(&inbox));
        self.inner.stats.accepted_connections(1);
        let id = ConnectionId { reactor: self.inner.outbox.here(), number };
        self.inner.env.spawn(connection::serve(self.clone(), stream, id, ticket, inbox));
    }

    fn forget(&self, id: ConnectionId) {
        self.inner.connections.borrow_mut().remove(&id.number);
    }

    /// Asks the registry.
    fn request(&self, from: ConnectionId, request: Request) {
        match &self.inner.registry {
            Some(registry) => {
                registry.borrow_mut().request(from, request, self.inner.env.now());
                self.carry_out();
            }
            None => self.inner.outbox.send(self.inner.registry_at, Message::Request(from, request).into()),
        }
    }

    /// Tells connections what the registry has for them.
    fn carry_out(&self) {
        let Some(registry) = &self.inner.registry else { return };
        while let Some((to, reply)) = registry.borrow_mut().poll_effect() {
            if to.reactor == self.inner.outbox.here() {
                self.reply_here(to.number, reply);
            } else {
                self.inner.outbox.send(to.reactor, Message::Reply(to.number, reply).into());
            }
        }
    }
}
