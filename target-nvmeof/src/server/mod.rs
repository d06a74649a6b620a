//! The glue between the sans-IO parts and the environment: it moves bytes and messages, and decides nothing.
//!
//! One [`Server`] per reactor. Connections are accepted on one reactor and spread over all in turn. The
//! [`Hub`](crate::hub::Hub) lives on one reactor; connections reach it by messages. A connection is one task that
//! owns its socket, its [`Transport`](crate::transport::Transport) and the operations it has in flight.

pub mod admission;
mod connection;
pub mod exports;
mod hub_task;
mod io_queue;
pub mod message;
mod outbox;
pub mod stats;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::Env;
use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::net::{Listener, Net, NetError};
use ashlar_env::reservation::Notice;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::Volume;

use crate::hub::{ConnectionId, ControllerReport, HubConfig};
use crate::limits::Limits;
use crate::view::Targets;
use admission::{Admission, Ticket};
use connection::Inbox;
use exports::Exports;
use hub_task::HubTask;
use message::{Message, Reply, Request};
use outbox::Outbox;
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
    hub_at: ReactorId,
    hub: Option<HubTask>,
    exports: Exports<V>,
    connections: RefCell<BTreeMap<u64, Rc<Inbox>>>,
    next_number: Cell<u64>,
    admission: RefCell<Admission>,
    next_reactor: Cell<u16>,
    draining: Cell<bool>,
    stats: Arc<IoStats>,
    carrier: RefCell<Option<Carrier>>,
}

/// Carries notices to the hosts of other protocols.
type Carrier = Rc<dyn Fn(&[Notice])>;

type Accepted<E> = <E as Net>::Accepted;

impl<E, V, M, X> Server<E, V, M, X>
where
    E: Env,
    V: Volume,
    M: From<Message<Accepted<E>>> + Send + 'static,
    X: Mesh<M>,
{
    /// The target on the reactor of `env`. `hub` is given on the reactor `hub_at`, where the hub lives.
    pub fn new(env: E, mesh: X, limits: Limits, hub_at: ReactorId, hub: Option<HubConfig>) -> Self {
        let outbox = Outbox::new(mesh, &env);
        let hub = hub.map(|config| HubTask::new(config, env.now()));
        let admission = RefCell::new(Admission::new(&limits));
        let server = Self {
            inner: Rc::new(Inner {
                env: env.clone(),
                outbox,
                limits,
                hub_at,
                hub,
                exports: Exports::new(),
                connections: RefCell::default(),
                next_number: Cell::new(1),
                admission,
                next_reactor: Cell::new(0),
                draining: Cell::new(false),
                stats: Arc::default(),
                carrier: RefCell::default(),
            }),
        };
        if server.inner.hub.is_some() {
            env.spawn(server.clone().tick());
        }
        server
    }

    /// Counters of the I/O of this reactor.
    #[must_use]
    pub fn stats(&self) -> Arc<IoStats> {
        Arc::clone(&self.inner.stats)
    }

    /// Follows the configuration; `open` gives this reactor's handle of a volume.
    pub fn set_targets(&self, targets: &Arc<Targets>, open: impl Fn(VolumeId) -> Option<V>) {
        self.inner.exports.update(targets, open);
        self.with_hub(|hub, now| hub.set_targets(Arc::clone(targets), now));
    }

    /// The live controllers, where the hub is here.
    #[must_use]
    pub fn controllers(&self) -> Vec<ControllerReport> {
        self.inner.hub.as_ref().map(HubTask::report).unwrap_or_default()
    }

    /// What was done to each volume through this reactor's connections.
    #[must_use]
    pub fn volume_counts(&self) -> Vec<(VolumeId, VolumeCounts)> {
        self.inner.exports.counts()
    }

    /// A volume was deleted, and no subsystem exports it any more: what was counted of it goes, too.
    pub fn forget_volume(&self, volume: VolumeId) {
        self.inner.exports.forget(volume);
    }

    /// Sets what carries notices of commands that came to this reactor to the hosts of other protocols. It must not
    /// wait.
    pub fn carry_notices(&self, carrier: impl Fn(&[Notice]) + 'static) {
        self.inner.carrier.replace(Some(Rc::new(carrier)));
    }

    /// Tells hosts of what a command of another protocol did to reservations. Those that are no host here are passed
    /// over.
    pub fn tell(&self, notices: &[Notice]) {
        self.request(Request::Notices(notices.into()));
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

    /// Stops accepting and closes every connection here once what it has in flight is done.
    pub fn drain(&self) {
        self.inner.draining.set(true);
        for inbox in self.inner.connections.borrow().values() {
            inbox.push(Reply::Close);
        }
    }

    /// Takes a message that the mesh brought for the target.
    pub fn deliver(&self, message: Message<Accepted<E>>) {
        match message {
            Message::Adopt { accepted, ticket } => self.adopt(accepted, ticket),
            Message::Request(request) => self.request_arrived(request),
            Message::Reply(number, reply) => {
                if let Some(inbox) = self.inner.connections.borrow().get(&number) {
                    inbox.push(reply);
                }
            }
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
        let id = ConnectionId { reactor: self.inner.outbox.here(), number };
        let task = connection::serve(self.clone(), stream, id, ticket, inbox);
        self.inner.env.spawn(task);
    }

    /// Tells hosts of what a command did to reservations, whatever protocol they use.
    fn tell_all(&self, notices: Box<[Notice]>) {
        self.tell_others(&notices);
        self.request(Request::Notices(notices));
    }

    fn tell_others(&self, notices: &[Notice]) {
        let carrier = self.inner.carrier.borrow().clone();
        if let Some(carrier) = carrier.filter(|_| !notices.is_empty()) {
            carrier(notices);
        }
    }

    fn forget(&self, id: ConnectionId) {
        self.inner.connections.borrow_mut().remove(&id.number);
    }

    /// Asks the hub.
    fn request(&self, request: Request) {
        if self.inner.hub.is_some() {
            self.request_arrived(request);
        } else {
            self.inner.outbox.send(self.inner.hub_at, Message::Request(request).into());
        }
    }
}
