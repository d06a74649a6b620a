//! A queue of the host model: one connection, its commands, and a task that moves the bytes. Everything the target
//! sends is checked against the transport's rules.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ashlar_env::{Net, Rng, Spawn, Stream};
use ashlar_nvmeof::wire::pdu::{IcResp, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT, admin, fabrics};
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_sim::conformance::{receive, send_all, sleep, within};
use ashlar_sim::{SimEnv, SimStream};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use crate::bytes::{self, Digests};

/// What a command capsule may carry (IOCCSZ).
const IN_CAPSULE_BYTES: usize = 8192;
/// Command identifiers come from below this, so that they are used again soon.
pub const IDENTIFIERS: u64 = 48;

/// How a host behaves on its connections.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub digests: Digests,
    /// HPDA: data to the host are aligned to four times this and one.
    pub alignment: u8,
    /// Entries of an I/O queue.
    pub entries: u16,
    pub no_flow_control: bool,
    /// How long the host sometimes leaves what it was sent unread.
    pub rest_max: Duration,
}

/// A command was not answered, and will not be: the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The answer to a command.
#[derive(Debug)]
pub struct Reply {
    pub status: Status,
    pub dw0: u32,
    pub data: Vec<u8>,
}

/// See the module. Cloning gives the same one.
#[derive(Clone)]
pub struct Queue {
    pub(super) inner: Rc<Inner>,
}

pub(super) struct Inner {
    pub env: SimEnv,
    pub manners: Manners,
    /// MAXH2CDATA, in bytes.
    pub data_bytes_max: usize,
    pub state: RefCell<State>,
}

pub(super) struct State {
    pub out: VecDeque<u8>,
    /// Bytes ever put into `out`, and ever sent.
    pub queued: u64,
    pub sent: u64,
    pub input: Vec<u8>,
    pub pending: BTreeMap<u16, Pending>,
    /// Identifiers that were outstanding when an earlier connection broke.
    haunted: BTreeSet<u16>,
    pump: Option<Waker>,
    pub closed: bool,
    /// The host sends no keep-alive any more.
    pub silent: bool,
}

/// A command under way.
pub(super) struct Pending {
    /// Where its capsule ends among the bytes sent.
    capsule_end: u64,
    /// Connect, whose refusal comes before the queue is what was asked for.
    pub connect: bool,
    /// The first of a fused pair; its second comes right behind.
    fused_first: bool,
    /// Data for the target to fetch, and how far it has asked for them.
    pub output: Vec<u8>,
    pub asked: usize,
    pub asked_end: u64,
    /// Data from the target, and how far they have come.
    pub input: Vec<u8>,
    pub filled: usize,
    pub ended: Option<Result<Reply, Lost>>,
    pub waker: Option<Waker>,
}

enum Turn {
    Over,
    Rest(Duration),
}

impl Queue {
    /// Connects and agrees on the transport's parameters.
    pub async fn open(
        env: &SimEnv,
        address: SocketAddr,
        manners: Manners,
        haunted: BTreeSet<u16>,
    ) -> Option<Self> {
        let stream = within(env, Duration::from_secs(60), env.connect(address)).await?.ok()?;
        let greet = async {
            let mut request = bytes::ic_req(manners.digests);
            request[10] = manners.alignment;
            request[12] = env.random_below(4) as u8;
            send_all(&stream, &request).await.ok()?;
            let mut response = [0; 128];
            (receive(&stream, &mut response).await.ok()? == 128).then_some(response)
        };
        let response = within(env, Duration::from_secs(30), greet).await??;
        let response = IcResp::read_from_bytes(&response).expect("128 bytes");
        let digests = Digests::of_field(response.dgst);
        let sound = response.header.kind == kind::IC_RESP
            && response.header.plen.get() == 128
            && response.pfv.get() == 0
            && response.cpda == 0
            && digests == manners.digests
            && response.max_h2c_data.get() >= 4096;
        if !sound {
            env.fail("wire", format!("the answer to ICReq is {response:?}"));
            return None;
        }
        let state = State {
            out: VecDeque::new(),
            queued: 0,
            sent: 0,
            input: Vec::new(),
            pending: BTreeMap::new(),
            haunted,
            pump: None,
            closed: false,
            silent: false,
        };
        let inner = Inner {
            env: env.clone(),
            manners,
            data_bytes_max: response.max_h2c_data.get() as usize,
            state: RefCell::new(state),
        };
        let queue = Self { inner: Rc::new(inner) };
        env.spawn(queue.clone().pump(stream));
        Some(queue)
    }

    pub fn is_closed(&self) -> bool {
        self.inner.state.borrow().closed
    }

    /// Ends the connection: commands under way are lost.
    pub fn close(&self) {
        let mut state = self.inner.state.borrow_mut();
        state.closed = true;
        if let Some(waker) = state.pump.take() {
            waker.wake();
        }
    }

    /// The identifiers of commands that were lost with the connection.
    pub fn haunted(&self) -> BTreeSet<u16> {
        self.inner.state.borrow().haunted.clone()
    }

    /// Sends a command with its data and gives its identifier. `input_bytes` are to come back.
    pub fn start(&self, mut sqe: Sqe, output: Vec<u8>, input_bytes: usize) -> Result<u16, Lost> {
        let env = &self.inner.env;
        let in_capsule = output.len() <= IN_CAPSULE_BYTES && !output.is_empty();
        let in_capsule = in_capsule && (env.random_below(2) == 0 || sqe.opcode == admin::FABRICS);
        let mut state = self.inner.state.borrow_mut();
        if state.closed {
            return Err(Lost);
        }
        let cid = (0..).map(|_| env.random_below(IDENTIFIERS) as u16);
        let cid = cid.into_iter().find(|cid| !state.pending.contains_key(cid)).expect("few are outstanding");
        if state.haunted.remove(&cid) {
            env.marks().hit("host: command identifier of a lost command used again");
        }
        sqe.cid = U16::new(cid);
        sqe.flags |= 0x40;
        sqe.sgl.identifier = if in_capsule { SGL_IN_CAPSULE } else { SGL_TRANSPORT };
        sqe.sgl.length = U32::new((output.len() + input_bytes) as u32);
        let inline = if in_capsule { &output[..] } else { &[] };
        let capsule = bytes::capsule(self.inner.manners.digests, &sqe, inline);
        state.send(&capsule);
        let pending = Pending {
            capsule_end: state.queued,
            connect: sqe.opcode == admin::FABRICS && sqe.fabrics_type() == fabrics::CONNECT,
            fused_first: sqe.flags & 3 == 1,
            asked: if in_capsule { output.len() } else { 0 },
            asked_end: 0,
            output,
            input: vec![0; input_bytes],
            filled: 0,
            ended: None,
            waker: None,
        };
        state.pending.insert(cid, pending);
        Ok(cid)
    }

    /// Waits for the answer to a command.
    pub async fn finish(&self, cid: u16) -> Result<Reply, Lost> {
        let answer = poll_fn(|cx| {
            let state = &mut *self.inner.state.borrow_mut();
            let Some(pending) = state.pending.get_mut(&cid) else { return Poll::Ready(Err(Lost)) };
            if let Some(ended) = pending.ended.take() {
                state.pending.remove(&cid);
                return Poll::Ready(ended);
            }
            pending.waker = Some(cx.waker().clone());
            Poll::Pending
        });
        let patience = Duration::from_secs(90);
        match within(&self.inner.env, patience, answer).await {
            Some(answer) => answer,
            None => {
                self.inner.env.marks().hit("host: command timed out");
                self.close();
                Err(Lost)
            }
        }
    }

    /// Sends a command and waits for its answer.
    pub async fn execute(&self, sqe: Sqe, output: Vec<u8>, input_bytes: usize) -> Result<Reply, Lost> {
        let cid = self.start(sqe, output, input_bytes)?;
        self.finish(cid).await
    }

    async fn pump(self, stream: SimStream) {
        loop {
            match poll_fn(|cx| self.turn(cx, &stream)).await {
                Turn::Over => break,
                Turn::Rest(time) => sleep(&self.inner.env, time).await,
            }
        }
        stream.shutdown();
        drop(stream);
        self.lose();
    }

    /// The connection is gone: every command is lost.
    fn lose(&self) {
        let marks = self.inner.env.marks();
        let state = &mut *self.inner.state.borrow_mut();
        state.closed = true;
        let sent = state.sent;
        for (cid, pending) in &mut state.pending {
            if pending.ended.is_some() {
                continue;
            }
            if pending.asked_end > sent {
                marks.hit("host: connection lost within the data of an R2T");
            }
            if pending.fused_first && pending.capsule_end <= sent && sent < state.queued {
                marks.hit("host: connection lost within a fused pair");
            }
            state.haunted.insert(*cid);
            pending.ended = Some(Err(Lost));
            if let Some(waker) = pending.waker.take() {
                waker.wake();
            }
        }
    }

    fn turn(&self, cx: &Context<'_>, stream: &SimStream) -> Poll<Turn> {
        let mut cx = Context::from_waker(cx.waker());
        let state = &mut *self.inner.state.borrow_mut();
        state.pump = Some(cx.waker().clone());
        if state.closed {
            return Poll::Ready(Turn::Over);
        }
        loop {
            let mut buffer = [0; 8192];
            match stream.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut buffer)]) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Turn::Over),
                Poll::Ready(Ok(n)) => {
                    state.input.extend_from_slice(&buffer[..n]);
                    if let Err(what) = self.inner.take_in(state) {
                        self.inner.env.fail("wire", what);
                        return Poll::Ready(Turn::Over);
                    }
                    if let Some(time) = self.rest() {
                        return Poll::Ready(Turn::Rest(time));
                    }
                }
                Poll::Pending => break,
            }
        }
        while !state.out.is_empty() {
            let (front, back) = state.out.as_slices();
            match stream.poll_send(&mut cx, &[IoSlice::new(front), IoSlice::new(back)]) {
                Poll::Ready(Ok(n)) => {
                    state.out.drain(..n);
                    state.sent += n as u64;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn rest(&self) -> Option<Duration> {
        let env = &self.inner.env;
        let longest = self.inner.manners.rest_max.as_micros() as u64;
        if longest == 0 || env.random_below(16) > 0 {
            return None;
        }
        // The long ones are rare, else nothing would get done.
        let most = if env.random_below(16) == 0 { longest } else { longest.min(10_000) };
        Some(Duration::from_micros(env.random_below(most)))
    }
}

impl State {
    /// Puts bytes in line to be sent.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
        self.queued += bytes.len() as u64;
        if let Some(waker) = self.pump.take() {
            waker.wake();
        }
    }
}
