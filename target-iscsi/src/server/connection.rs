//! One connection: a task that turns received bytes into commands, commands into operations, and results into bytes to
//! send; as much as there is by each system call.

use std::future::{Future, poll_fn};
use std::io::{IoSlice, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ashlar_env::clock::Instant;
use ashlar_env::mesh::Mesh;
use ashlar_env::net::Stream;
use ashlar_env::slots::Slots;
use ashlar_env::volume::{Issuer, Operation, Volume};
use ashlar_env::{BufMut, Env};

use super::admission::Ticket;
use super::commands::{Commands, Ended, Link, Long};
use super::message::{ConnectionId, Granted, Message, Reply, Request};
use super::{Accepted, Inbox, Server};
use crate::limits::IMMEDIATE_COMMANDS_MAX;
use crate::login::Established;
use crate::scsi::units::MappedUnit;
use crate::scsi::{NexusName, lun, reservation};
use crate::session::{Closed, Event, Management, SEND_SLICES_MAX, Session};
use crate::wire::LoginStatus;
use crate::wire::request::function;
use crate::wire::response::TmfStatus;

/// Receives of one turn, before other tasks get theirs.
const ROUNDS_PER_TURN: usize = 4;
/// How long an initiator may take to close after it was told why.
const LINGER: Duration = Duration::from_secs(5);
/// Receives of one turn while lingering.
const LINGER_RECEIVES: usize = 16;
/// How long initiators may take to log out when the node is about to stop, seconds.
const DRAIN_SECONDS: u16 = 2;

/// How far the connection has come.
enum Stage<V> {
    Fresh,
    /// The registry decides.
    Registering(Box<Established>),
    Discovery,
    Normal(Box<Commands<V>>),
}

/// A future kept over many turns.
type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

struct Connection<E: Env, V: Volume, M, X> {
    server: Server<E, V, M, X>,
    stream: E::Stream,
    session: Session,
    id: ConnectionId,
    inbox: Rc<Inbox>,
    stage: Stage<V>,
    ticket: Ticket,
    /// By when the initiator must have logged out.
    drain_by: Option<Instant>,
    why: Option<Closed>,
    timer: Option<(Instant, Boxed<()>)>,
    buffer: Option<(usize, Boxed<BufMut>)>,
}

/// Serves a connection to its end.
pub(super) async fn serve<E, V, M, X>(
    server: Server<E, V, M, X>,
    stream: E::Stream,
    id: ConnectionId,
    ticket: Ticket,
    inbox: Rc<Inbox>,
) where
    E: Env,
    V: Volume,
    M: From<Message<Accepted<E>>> + Send + 'static,
    X: Mesh<M>,
{
    let env = server.inner.env.clone();
    let (limits, targets) = (&server.inner.limits, server.inner.exports.targets());
    let session = Session::new(limits, targets, stream.local_addr(), env.buffers().clone(), &env, env.now());
    let tasks = usize::from(limits.queue_depth + IMMEDIATE_COMMANDS_MAX);
    let mut connection = Connection {
        server: server.clone(),
        stream,
        session,
        id,
        inbox,
        stage: Stage::Fresh,
        ticket,
        drain_by: None,
        why: None,
        timer: None,
        buffer: None,
    };
    let execute = |volume: &V, issuer: Issuer, operation: Operation| {
        let volume = volume.clone();
        async move { volume.execute(issuer, operation).await }
    };
    let (mut slots, mut longs) = (Slots::new(tasks), Slots::new(tasks));
    poll_fn(|cx| connection.turn(cx, &mut slots, &mut longs, &execute)).await;
    let Connection { stream, session, stage, ticket, why, buffer, .. } = connection;
    let was_told = matches!(why, Some(Closed::ProtocolError | Closed::Refused | Closed::LoggedOut));
    if !was_told {
        stream.shutdown();
    }
    let known = !matches!(stage, Stage::Fresh);
    let ended = match stage {
        Stage::Normal(commands) => Some((commands.nexus, commands.export)),
        _ => None,
    };
    // Replies that nobody will read, and data that came for nothing, have the buffers that operations wait for.
    drop((session, buffer));
    // A session that takes this one's place must find nothing of it under way.
    poll_fn(|cx| {
        while let Poll::Ready(Some(_)) = slots.poll_next(cx) {}
        while let Poll::Ready(Some(_)) = longs.poll_next(cx) {}
        if slots.is_empty() && longs.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    if let Some((nexus, export)) = ended {
        let released = reservation::end_session(&export.units.borrow(), nexus.state());
        released.await;
    }
    if known {
        server.request(id, Request::Gone);
    }
    if was_told {
        linger(&server.inner.env, &stream).await;
        stream.shutdown();
    }
    drop((stream, ticket));
    server.forget(id);
}

/// Reads and forgets what an initiator still sends, until it closes. To close at once would make the kernel answer those
/// bytes with a reset, and the initiator would lose the last thing it was told.
async fn linger<E: Env>(env: &E, stream: &E::Stream) {
    let mut timer = std::pin::pin!(env.sleep_until(env.now().plus(LINGER)));
    let mut scratch = [0; 2048];
    poll_fn(|cx| {
        for _ in 0..LINGER_RECEIVES {
            match stream.poll_recv(cx, &mut [IoSliceMut::new(&mut scratch)]) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.as_mut().poll(cx),
            }
        }
        cx.waker().wake_by_ref();
        timer.as_mut().poll(cx)
    })
    .await;
}

impl<E, V, M, X> Connection<E, V, M, X>
where
    E: Env,
    V: Volume,
    M: From<Message<Accepted<E>>> + Send + 'static,
    X: Mesh<M>,
{
    /// Does what there is to do; ready when the connection is over.
    fn turn<F: Future<Output = Ended>>(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut Slots<F>,
        longs: &mut Slots<Long>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) -> Poll<()> {
        let now = self.server.inner.env.now();
        self.inbox.listen(cx);
        self.take_replies(now);
        let mut alive = true;
        for round in 0.. {
            self.take_events(cx, slots, longs, execute, now);
            if self.poll_buffer(cx, now) {
                continue;
            }
            if let Stage::Normal(commands) = &mut self.stage {
                let session = &mut self.session;
                commands.poll_ended(&mut Link { session, slots, longs, cx, now });
            }
            let congested = self.session.is_congested();
            alive &= self.send(cx, now);
            if alive && congested && !self.session.is_congested() {
                continue;
            }
            if alive && self.start_deferred(cx, slots, longs, execute, now) {
                continue;
            }
            if !alive || self.session.is_over() {
                self.flush_counts();
                return Poll::Ready(());
            }
            if round >= ROUNDS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            match self.receive(cx, now) {
                Poll::Ready(more) => alive = more,
                Poll::Pending => break,
            }
        }
        self.flush_counts();
        self.poll_timer(cx)
    }

    fn flush_counts(&mut self) {
        if let Stage::Normal(commands) = &mut self.stage {
            commands.flush_counts(&self.server.inner.stats);
        }
    }

    /// Starts the commands that waited for room or for their turn. True if there were any.
    fn start_deferred<F: Future<Output = Ended>>(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut Slots<F>,
        longs: &mut Slots<Long>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
        now: Instant,
    ) -> bool {
        let Stage::Normal(commands) = &mut self.stage else { return false };
        let session = &mut self.session;
        commands.start_deferred(&mut Link { session, slots, longs, cx, now }, execute)
    }

    /// Receives once. False when the connection broke.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<bool> {
        if self.session.is_congested() {
            return Poll::Pending;
        }
        let mut slices = self.session.recv_slices();
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Pending;
        }
        match self.stream.poll_recv(cx, &mut slices) {
            Poll::Ready(Ok(n)) => {
                self.session.received(n, now);
                Poll::Ready(true)
            }
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Sends all that the socket takes. False when the connection broke.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        while self.session.has_output() {
            let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
            let count = self.session.send_slices(&mut slices);
            match self.stream.poll_send(cx, &slices[..count]) {
                Poll::Ready(Ok(n)) => self.session.sent(n, now),
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => return true,
            }
        }
        true
    }

    fn take_events<F: Future<Output = Ended>>(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut Slots<F>,
        longs: &mut Slots<Long>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
        now: Instant,
    ) {
        while !self.session.is_congested() {
            let Some(event) = self.session.next_event(now) else { break };
            match (event, &mut self.stage) {
                (Event::Command(id), Stage::Normal(commands)) => {
                    let session = &mut self.session;
                    let link =
                        &mut Link { session, slots: &mut *slots, longs: &mut *longs, cx: &mut *cx, now };
                    commands.arrive(id, link, execute);
                }
                (Event::Data(id, data), Stage::Normal(commands)) => {
                    let session = &mut self.session;
                    let link =
                        &mut Link { session, slots: &mut *slots, longs: &mut *longs, cx: &mut *cx, now };
                    commands.ready(id, data, link, execute);
                }
                (Event::Manage(what), Stage::Normal(_)) => self.manage(what, now),
                (Event::LoggedIn(established), stage) => {
                    *stage = Stage::Registering(established.clone());
                    self.server.request(self.id, Request::Register(established));
                }
                (Event::Quiet(job), _) => self.server.request(self.id, Request::IsQuiet(job)),
                (Event::Closed(why), _) => self.why = Some(why),
                (Event::Command(_) | Event::Data(..) | Event::Manage(_), _) => {
                    unreachable!("a session takes commands when it is established")
                }
            }
        }
    }

    /// A task management function that concerns more than this session.
    fn manage(&mut self, what: Management, now: Instant) {
        let Stage::Normal(commands) = &mut self.stage else { return };
        let of_target = matches!(what.function, function::TARGET_WARM_RESET | function::TARGET_COLD_RESET);
        if !of_target && commands.export.units.borrow().find(what.lun).is_none() {
            return self.session.finish_management(what.tag, TmfStatus::NoUnit, now);
        }
        if what.function == function::ABORT_TASK_SET {
            return self.session.finish_management(what.tag, TmfStatus::Complete, now);
        }
        commands.managing.push(what);
        let lun = if of_target { None } else { lun::decode(what.lun) };
        self.server.request(self.id, Request::Quiet { tag: what.tag, lun });
    }

    /// No command of another session is in execution that came before the function.
    fn all_quiet(&mut self, tag: u32, now: Instant) {
        let Stage::Normal(commands) = &self.stage else { return };
        let Some(what) = commands.managing.iter().find(|what| what.tag == tag) else { return };
        let units = commands.export.units.borrow();
        let concerned = |unit: &&MappedUnit<V>| match what.function {
            function::LOGICAL_UNIT_RESET => lun::decode(what.lun) == Some(unit.lun),
            function::TARGET_WARM_RESET | function::TARGET_COLD_RESET => true,
            _ => false,
        };
        let volumes: Vec<V> = units.iter().filter(concerned).map(|unit| unit.volume.clone()).collect();
        drop(units);
        if volumes.is_empty() {
            return self.managed(tag, now);
        }
        let (issuer, inbox) = (commands.nexus.issuer(), Rc::clone(&self.inbox));
        self.server.inner.env.spawn(async move {
            reservation::reset(volumes, issuer).await;
            inbox.push(Reply::WasReset { tag });
        });
    }

    /// Reservations are reset, where they were to be: all are told, and the function is answered.
    fn managed(&mut self, tag: u32, now: Instant) {
        let Stage::Normal(commands) = &mut self.stage else { return };
        let Some(at) = commands.managing.iter().position(|what| what.tag == tag) else { return };
        let what = commands.managing.swap_remove(at);
        let shared = self.server.inner.exports.shared();
        let units = commands.export.units.borrow();
        match what.function {
            function::LOGICAL_UNIT_RESET => {
                if let Some(unit) = units.find(what.lun) {
                    shared.reset_unit(unit.unit.volume.id);
                }
            }
            function::TARGET_WARM_RESET | function::TARGET_COLD_RESET => {
                shared.reset_target(units.target());
            }
            _ => {}
        }
        drop(units);
        self.session.finish_management(tag, TmfStatus::Complete, now);
        if what.function == function::TARGET_COLD_RESET {
            self.server.request(self.id, Request::EndAll);
        }
    }

    fn take_replies(&mut self, now: Instant) {
        while let Some(reply) = self.inbox.pop() {
            match reply {
                Reply::Registered(Ok(granted)) => self.registered(granted, now),
                Reply::Registered(Err(status)) => self.session.refuse(status, now),
                Reply::Quiet { job, lun: unit } => {
                    let concerns = |of| unit.is_none() || lun::decode(of) == unit;
                    self.session.quiet(job, concerns, now);
                }
                Reply::AllQuiet { tag } => self.all_quiet(tag, now),
                Reply::WasReset { tag } => self.managed(tag, now),
                Reply::End => self.session.end_session(now),
                Reply::Configured => {
                    self.session.set_targets(self.server.inner.exports.targets());
                }
                Reply::Drain => {
                    self.session.ask_for_logout(DRAIN_SECONDS, now);
                    self.drain_by = Some(now.plus(Duration::from_secs(DRAIN_SECONDS.into())));
                }
            }
        }
    }

    fn registered(&mut self, granted: Granted, now: Instant) {
        let Stage::Registering(established) = std::mem::replace(&mut self.stage, Stage::Discovery) else {
            return;
        };
        if let Some(target) = &established.target {
            match self.enter(&established, target, granted) {
                Ok(commands) => self.stage = Stage::Normal(Box::new(commands)),
                Err(status) => return self.session.refuse(status, now),
            }
        }
        self.ticket.logged_in();
        self.session.establish(granted.tsih, now);
    }

    fn enter(
        &self,
        established: &Established,
        target: &str,
        granted: Granted,
    ) -> Result<Commands<V>, LoginStatus> {
        let exports = &self.server.inner.exports;
        let export = exports.target(target).ok_or(LoginStatus::TargetRemoved)?;
        let name = NexusName {
            initiator: established.initiator.clone(),
            isid: established.isid,
            target: target.to_owned(),
            portal_tag: established.portal_tag,
        };
        let units = export.units.borrow();
        let nexus = exports.shared().begin(name, granted.session, units.target());
        drop(units);
        Ok(Commands::new(nexus.ok_or(LoginStatus::InitiatorError)?, export))
    }

    /// Waits for the buffer that the session wants. True when it got one.
    fn poll_buffer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut given = false;
        while let Some(len) = self.session.wants_buffer() {
            let fits = self.buffer.as_ref().is_some_and(|(waited, _)| *waited == len);
            if !fits {
                self.buffer = Some((len, Box::pin(self.server.inner.env.buffers().alloc(len))));
            }
            let Some((_, waiting)) = &mut self.buffer else { return given };
            let Poll::Ready(buf) = waiting.as_mut().poll(cx) else { return given };
            self.buffer = None;
            self.session.give_buffer(buf, now);
            given = true;
        }
        self.buffer = None;
        given
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.session.deadline().min(self.drain_by.unwrap_or(Instant::FAR_FUTURE));
            if self.timer.as_ref().is_none_or(|(armed, _)| deadline < *armed) {
                if deadline == Instant::FAR_FUTURE {
                    return Poll::Pending;
                }
                self.timer = Some((deadline, Box::pin(self.server.inner.env.sleep_until(deadline))));
            }
            let Some((_, sleep)) = &mut self.timer else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            let now = self.server.inner.env.now();
            if self.drain_by.is_some_and(|by| now >= by) {
                self.drain_by = None;
                self.session.end_session(now);
            }
            self.session.handle_timeout(now);
            // What came of it is dealt with by another turn.
            if self.session.is_over() || self.session.has_output() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
