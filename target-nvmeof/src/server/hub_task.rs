//! The hub on its reactor: requests in, effects out to the connections' reactors, and its timers.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use ashlar_env::Env;
use ashlar_env::clock::Instant;
use ashlar_env::mesh::Mesh;
use ashlar_env::reservation::ReservationAction;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Issuer, Operation, Outcome, Volume, VolumeError};

use super::message::{Message, Reply, Request};
use super::{Accepted, Server};
use crate::hub::{ConnectionId, ControllerReport, Effect, Hub, HubConfig};

/// The hub and what wakes its timer task.
pub(super) struct HubTask {
    hub: RefCell<Hub>,
    /// Until when the timer task sleeps.
    armed: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

impl HubTask {
    pub fn new(config: HubConfig, now: Instant) -> Self {
        let hub = RefCell::new(Hub::new(config, now));
        Self { hub, armed: Cell::new(Instant::FAR_FUTURE), waker: RefCell::new(None) }
    }

    pub fn report(&self) -> Vec<ControllerReport> {
        self.hub.borrow().report()
    }
}

impl<E, V, M, X> Server<E, V, M, X>
where
    E: Env,
    V: Volume,
    M: From<Message<Accepted<E>>> + Send + 'static,
    X: Mesh<M>,
{
    /// Lets `act` work on the hub, if it lives here, and carries out what comes of it.
    pub(super) fn with_hub(&self, act: impl FnOnce(&mut Hub, Instant)) {
        let Some(task) = &self.inner.hub else { return };
        let mut hub = task.hub.borrow_mut();
        act(&mut hub, self.inner.env.now());
        while let Some(effect) = hub.poll_effect() {
            match effect {
                Effect::Complete { connection, cid, cqe, data } => {
                    let data = data.map(Arc::from);
                    self.reply(connection, Reply::Complete { cid, cqe, data });
                }
                Effect::Close { connection } => self.reply(connection, Reply::Close),
                Effect::Reserve { connection, cid, volume, issuer, action } => {
                    self.reserve(connection, cid, volume, issuer, action);
                }
            }
        }
        if hub.next_deadline() < task.armed.get()
            && let Some(waker) = task.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Executes a reservation action that an admin command asked for, and tells the hub.
    fn reserve(
        &self,
        connection: ConnectionId,
        cid: u16,
        volume: VolumeId,
        issuer: Issuer,
        action: ReservationAction,
    ) {
        let server = self.clone();
        let volume = self.inner.exports.volume(volume);
        self.inner.env.spawn(async move {
            let ended = match volume {
                Some(volume) => volume.execute(issuer, Operation::Reserve(action)).await,
                None => Err(VolumeError::NotHere),
            };
            if let Ok(Outcome::Reservation { notices, .. }) = &ended {
                server.tell_others(notices);
            }
            let result = ended.map_err(|error| crate::io::status(&error));
            server.with_hub(|hub, now| hub.reserved(connection, cid, result, now));
        });
    }

    fn reply(&self, connection: ConnectionId, reply: Reply) {
        let message = Message::Reply(connection.number, reply);
        if connection.reactor == self.inner.outbox.here() {
            self.deliver(message);
        } else {
            self.inner.outbox.send(connection.reactor, message.into());
        }
    }

    pub(super) fn request_arrived(&self, request: Request) {
        let mut connected = None;
        self.with_hub(|hub, now| match request {
            Request::Connect { connection, local, sqe, data } => {
                connected = Some((connection, hub.connect(connection, local, &sqe, &data, now)));
            }
            Request::Command { connection, sqe, data } => hub.command(connection, &sqe, &data, now),
            Request::Disconnected { connection } => hub.disconnected(connection),
            Request::Notices(notices) => hub.reservation_notices(&notices, now),
            Request::IoError { connection, error } => hub.io_error(connection, error, now),
        });
        if let Some((connection, result)) = connected {
            self.reply(connection, Reply::Connected(result));
        }
    }

    /// Wakes the hub at its deadlines.
    pub(super) async fn tick(self) {
        let Some(task) = &self.inner.hub else { return };
        let mut sleep: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
        loop {
            poll_fn(|cx| {
                *task.waker.borrow_mut() = Some(cx.waker().clone());
                let deadline = task.hub.borrow().next_deadline();
                if deadline < task.armed.get() || sleep.is_none() {
                    task.armed.set(deadline);
                    let far = deadline == Instant::FAR_FUTURE;
                    sleep = (!far).then(|| Box::pin(self.inner.env.sleep_until(deadline)) as _);
                }
                match &mut sleep {
                    Some(sleep) => sleep.as_mut().poll(cx),
                    None => Poll::Pending,
                }
            })
            .await;
            sleep = None;
            task.armed.set(Instant::FAR_FUTURE);
            self.with_hub(|hub, now| hub.tick(now));
        }
    }
}
