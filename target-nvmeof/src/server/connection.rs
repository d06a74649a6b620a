//! One connection: a task that turns received bytes into commands, commands into operations or requests to the hub,
//! and results into bytes to send; as much as there is by each system call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{IoSlice, IoSliceMut};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ashlar_env::clock::Instant;
use ashlar_env::mesh::Mesh;
use ashlar_env::net::Stream;
use ashlar_env::slots::Slots;
use ashlar_env::volume::{Issuer, Operation, Outcome, Volume};
use ashlar_env::{Buf, BufMut, Env};

use super::admission::Ticket;
use super::io_queue::{Ended, IoQueue, Link};
use super::message::{Message, Reply, Request};
use super::{Accepted, Server};
use crate::hub::{self, ConnectionId, Granted, QueueKind};
use crate::io::completion;
use crate::transport::{Admission, Closed, Event, SEND_SLICES_MAX, Slot, Transfer, Transport};
use crate::wire::sqe::admin;
use crate::wire::{Cqe, Sqe, Status};

/// Receives of one turn, before other tasks get theirs.
const ROUNDS_PER_TURN: usize = 4;
/// How long a host may take to close after a terminate request.
const LINGER: Duration = Duration::from_secs(5);
/// Receives of one turn while lingering.
const LINGER_RECEIVES: usize = 16;

/// What the hub tells a connection, until the connection takes it.
#[derive(Default)]
pub(super) struct Inbox {
    replies: RefCell<VecDeque<Reply>>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    pub fn push(&self, reply: Reply) {
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

/// How far the connection has come.
enum Stage<V> {
    /// Connect has not come, or was refused.
    Fresh,
    /// The hub decides on the Connect in this slot.
    Connecting(Slot),
    /// An admin queue.
    Admin(Arc<Granted>),
    /// An I/O queue.
    Io(Arc<Granted>, Box<IoQueue<V>>),
}

/// A future kept over many turns.
type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

struct Connection<E: Env, V: Volume, M, X> {
    server: Server<E, V, M, X>,
    stream: E::Stream,
    transport: Transport,
    id: ConnectionId,
    inbox: Rc<Inbox>,
    stage: Stage<V>,
    ticket: Ticket,
    /// The hub or the node wants the connection gone.
    closing: bool,
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
    let transport = Transport::new(&server.inner.limits, env.buffers().clone(), env.now());
    let stage = Stage::Fresh;
    let (timer, buffer) = (None, None);
    let mut connection = Connection {
        server: server.clone(),
        stream,
        transport,
        id,
        inbox,
        stage,
        ticket,
        closing: false,
        why: None,
        timer,
        buffer,
    };
    let execute = |volume: &V, issuer: Issuer, operation: Operation| {
        let volume = volume.clone();
        async move { volume.execute(issuer, operation).await }
    };
    let mut slots = Slots::new(usize::from(server.inner.limits.io_queue_entries_max));
    poll_fn(|cx| connection.turn(cx, &mut slots, &execute)).await;
    let Connection { stream, transport, id, stage, ticket, why, buffer, .. } = connection;
    let terminated = matches!(why, Some(Closed::ProtocolError(_)));
    if !terminated {
        stream.shutdown();
    }
    let known_to_hub = !matches!(stage, Stage::Fresh);
    // Replies that nobody will read, and data that came for nothing, have the buffers that operations wait for.
    drop((transport, stage, buffer));
    // Nothing of a queue that the host was told is gone may take effect later: its operations end first.
    poll_fn(|cx| {
        while let Poll::Ready(Some((_, ended))) = slots.poll_next(cx) {
            // Whom a reservation concerns is told, though the host that changed it hears no more.
            if let Ok(Outcome::Reservation { notices, .. }) = ended
                && !notices.is_empty()
            {
                server.tell_all(notices);
            }
        }
        if slots.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    if known_to_hub {
        server.request(Request::Disconnected { connection: id });
    }
    if terminated {
        linger(&server.inner.env, &stream).await;
        stream.shutdown();
    }
    drop((stream, ticket));
    server.forget(id);
}

/// Reads and forgets what a host still sends that was told of its error, until it closes. To close at once would
/// make the kernel answer those bytes with a reset, and the host would lose the terminate request.
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
        execute: &impl Fn(&V, Issuer, Operation) -> F,
    ) -> Poll<()> {
        let now = self.server.inner.env.now();
        self.inbox.listen(cx);
        self.take_replies(now);
        let mut alive = true;
        for round in 0.. {
            self.take_events(cx, slots, execute, now);
            if self.poll_buffer(cx, now) {
                continue;
            }
            if let Stage::Io(_, queue) = &mut self.stage {
                let link =
                    &mut Link { transport: &mut self.transport, slots: &mut *slots, cx: &mut *cx, now };
                queue.poll_ended(link);
            }
            let congested = self.transport.is_congested();
            alive &= self.send(cx, now);
            if alive && congested && !self.transport.is_congested() {
                continue;
            }
            if alive && self.start_deferred(cx, slots, execute, now) {
                continue;
            }
            if !alive || self.transport.is_over() || self.is_drained(slots) {
                self.report();
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
        self.report();
        self.poll_timer(cx)
    }

    /// Starts the reads that waited for room. True if there were any.
    fn start_deferred<F: Future<Output = Ended>>(
        &mut self,
        cx: &mut Context<'_>,
        slots: &mut Slots<F>,
        execute: &impl Fn(&V, Issuer, Operation) -> F,
        now: Instant,
    ) -> bool {
        let Stage::Io(_, queue) = &mut self.stage else { return false };
        let link = &mut Link { transport: &mut self.transport, slots, cx, now };
        queue.start_deferred(link, execute)
    }

    /// Whether a connection that must end has nothing left to do.
    fn is_drained<F: Future>(&self, slots: &Slots<F>) -> bool {
        let waits = matches!(&self.stage, Stage::Io(_, queue) if queue.has_deferred());
        self.closing && !waits && slots.is_empty() && !self.transport.has_output()
    }

    /// Receives once. False when the connection broke.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<bool> {
        if self.closing || self.transport.is_congested() || matches!(self.stage, Stage::Connecting(_)) {
            return Poll::Pending;
        }
        let mut slices = self.transport.recv_slices();
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Pending;
        }
        match self.stream.poll_recv(cx, &mut slices) {
            Poll::Ready(Ok(n)) => {
                self.transport.received(n, now);
                self.note_traffic();
                Poll::Ready(true)
            }
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }

    fn note_traffic(&self) {
        if let Stage::Admin(granted) | Stage::Io(granted, _) = &self.stage {
            granted.shared.traffic.store(true, Ordering::Relaxed);
        }
    }

    /// Sends all that the socket takes. False when the connection broke.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        while self.transport.has_output() {
            let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
            let count = self.transport.send_slices(&mut slices);
            match self.stream.poll_send(cx, &slices[..count]) {
                Poll::Ready(Ok(n)) => self.transport.sent(n, now),
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
        execute: &impl Fn(&V, Issuer, Operation) -> F,
        now: Instant,
    ) {
        while !self.closing && !self.transport.is_congested() && !matches!(self.stage, Stage::Connecting(_)) {
            let Some(event) = self.transport.next_event(now) else { break };
            if let Event::Closed(why) = event {
                self.why = Some(why);
                break;
            }
            if let Stage::Io(_, queue) = &mut self.stage {
                let link =
                    &mut Link { transport: &mut self.transport, slots: &mut *slots, cx: &mut *cx, now };
                match event {
                    Event::Command(slot) if link.transport.sqe(slot).opcode != admin::FABRICS => {
                        queue.arrive(slot, link, execute);
                        continue;
                    }
                    Event::Data(slot, data) if link.transport.sqe(slot).opcode != admin::FABRICS => {
                        queue.ready(slot, Some(data), link, execute);
                        continue;
                    }
                    Event::BadData(slot) => {
                        queue.bad_data(slot, link);
                        continue;
                    }
                    _ => {}
                }
            }
            self.control_event(event, now);
        }
    }

    /// An event of a command that the hub answers.
    fn control_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Command(slot) => {
                let sqe = *self.transport.sqe(slot);
                let planned = self.plan(&sqe);
                let admission = match planned {
                    Ok(planned) => self.transport.admit(slot, planned, now),
                    Err(status) => Admission::Refused(status),
                };
                match admission {
                    Admission::Ready(data) => self.ask_hub(slot, data, now),
                    Admission::Waiting => {}
                    Admission::Refused(status) => {
                        self.transport.complete(slot, completion(status), None, now);
                    }
                }
            }
            Event::Data(slot, data) => self.ask_hub(slot, Some(data), now),
            Event::BadData(slot) => {
                self.transport.complete(slot, completion(Status::TRANSIENT_TRANSPORT), None, now);
            }
            Event::Closed(why) => self.why = Some(why),
        }
    }

    fn plan(&self, sqe: &Sqe) -> Result<Transfer, Status> {
        let kind = match &self.stage {
            Stage::Fresh | Stage::Connecting(_) => QueueKind::Unconnected,
            Stage::Admin(_) => QueueKind::Admin,
            Stage::Io(..) => QueueKind::Io,
        };
        hub::data_plan(sqe, kind, &self.server.inner.limits)
    }

    fn ask_hub(&mut self, slot: Slot, data: Option<Buf>, now: Instant) {
        let sqe = Box::new(*self.transport.sqe(slot));
        let data: Box<[u8]> = data.as_deref().unwrap_or_default().into();
        let connection = self.id;
        match &self.stage {
            Stage::Fresh => {
                self.stage = Stage::Connecting(slot);
                let local = self.stream.local_addr();
                self.server.request(Request::Connect { connection, local, sqe, data });
            }
            Stage::Connecting(_) => {
                self.transport.complete(slot, completion(Status::COMMAND_SEQUENCE_ERROR), None, now);
            }
            Stage::Admin(_) | Stage::Io(..) => {
                self.server.request(Request::Command { connection, sqe, data });
            }
        }
    }

    fn take_replies(&mut self, now: Instant) {
        while let Some(reply) = self.inbox.pop() {
            match reply {
                Reply::Connected(result) => self.connected(result, now),
                Reply::Complete { cid, cqe, data } => {
                    if let Some(slot) = self.transport.find(cid) {
                        self.transport.complete(slot, cqe, data.map(Buf::from_heap), now);
                    }
                }
                Reply::Close => self.closing = true,
            }
        }
    }

    fn connected(&mut self, result: Result<Arc<Granted>, hub::Refused>, now: Instant) {
        let Stage::Connecting(slot) = std::mem::replace(&mut self.stage, Stage::Fresh) else { return };
        match result {
            Ok(granted) => {
                let io = granted.qid != 0;
                let dw0 = granted.dw0;
                self.transport.connected(granted.queue_entries, granted.sq_flow_control_disabled, io);
                self.ticket.connected();
                self.stage = self.stage_for(granted);
                self.transport.complete(slot, Cqe::new(0, Status::SUCCESS, dw0, 0), None, now);
            }
            Err(refused) => {
                self.transport.complete(slot, Cqe::new(0, refused.status, refused.dw0, 0), None, now);
            }
        }
    }

    fn stage_for(&mut self, granted: Arc<Granted>) -> Stage<V> {
        if granted.qid == 0 {
            return Stage::Admin(granted);
        }
        let Some(namespaces) = self.server.inner.exports.subsystem(&granted.subsystem) else {
            // The subsystem went while the host connected; the hub will close the connection.
            self.closing = true;
            return Stage::Admin(granted);
        };
        let max_transfer_bytes = self.server.inner.limits.max_transfer_bytes;
        let queue = Box::new(IoQueue::new(Arc::clone(&granted), namespaces, max_transfer_bytes));
        Stage::Io(granted, queue)
    }

    /// Tells the hub and the counters what the turn brought.
    fn report(&mut self) {
        let Stage::Io(_, queue) = &mut self.stage else { return };
        queue.flush_counts(&self.server.inner.stats);
        let connection = self.id;
        if !queue.notices.is_empty() {
            let notices = std::mem::take(&mut queue.notices).into_boxed_slice();
            self.server.tell_all(notices);
        }
        for error in queue.errors.drain(..) {
            self.server.request(Request::IoError { connection, error });
        }
    }

    /// Waits for the buffer that the transport wants. True when it got one.
    fn poll_buffer(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut given = false;
        while let Some(len) = self.transport.wants_buffer() {
            let fits = self.buffer.as_ref().is_some_and(|(waited, _)| *waited == len);
            if !fits {
                self.buffer = Some((len, Box::pin(self.server.inner.env.buffers().alloc(len))));
            }
            let Some((_, waiting)) = &mut self.buffer else { return given };
            let Poll::Ready(buf) = waiting.as_mut().poll(cx) else { return given };
            self.buffer = None;
            self.transport.give_buffer(buf, now);
            given = true;
        }
        self.buffer = None;
        given
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.transport.deadline();
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
            self.transport.handle_timeout(self.server.inner.env.now());
            if self.transport.is_over() {
                return Poll::Ready(());
            }
        }
    }
}
