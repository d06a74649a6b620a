//! One session of the host model: an initiator written from the specification and apart from the target's own session,
//! strict about all it receives.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::{Net, Rng, Spawn, Stream};
use ashlar_iscsi::wire::bhs::FINAL;
use ashlar_iscsi::wire::request::{DataOut, Login, NopOut, ScsiCommand, TaskManagement};
use ashlar_iscsi::wire::response::{
    DataIn, LoginResponse, NopIn, OVERFLOW, R2t, ScsiResponse, TaskManagementResponse, UNDERFLOW,
};
use ashlar_iscsi::wire::{NO_TAG, opcode};
use ashlar_sim::{SimEnv, SimStream};
use zerocopy::FromZeros;
use zerocopy::big_endian::{U16, U32, U64};

use crate::bytes::{self, Digests, Received};

/// What an initiator asks for.
#[derive(Clone, Debug)]
pub struct Options {
    pub digests: Digests,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    pub segment: u32,
    pub burst: u32,
    pub first_burst: u32,
}

/// A session. Dropping it closes the connection.
pub struct Link {
    inner: Rc<Inner>,
}

struct Inner {
    env: SimEnv,
    stream: SimStream,
    options: Options,
    tx: RefCell<VecDeque<u8>>,
    rx: RefCell<Vec<u8>>,
    in_force: Cell<Digests>,
    commands: RefCell<BTreeMap<u32, Command>>,
    login: RefCell<Option<Received>>,
    login_waker: RefCell<Option<Waker>>,
    next_tag: Cell<u32>,
    cmd_sn: Cell<u32>,
    max_cmd_sn: Cell<u32>,
    stat_sn: Cell<Option<u32>>,
    dead: Cell<bool>,
    closing: Cell<bool>,
    pump: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Command {
    out: Vec<u8>,
    into: u32,
    data: Vec<u8>,
    data_sn: u32,
    r2t_sn: u32,
    done: Option<Reply>,
    waker: Option<Waker>,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// SCSI status, or the answer to a task management function.
    pub status: u8,
    pub data: Vec<u8>,
    /// Behind their length.
    pub sense: Vec<u8>,
}

impl Reply {
    pub fn is_good(&self) -> bool {
        self.status == 0
    }

    /// The sense key, and whether there is one.
    pub fn key(&self) -> Option<u8> {
        (self.status == 2).then(|| self.sense.get(4).map_or(0, |key| key & 15))
    }
}

impl Link {
    /// Logs in. `None` where the network, or the target, will not have it.
    pub async fn open(
        env: &SimEnv,
        address: SocketAddr,
        name: &str,
        isid: [u8; 6],
        target: &str,
        options: Options,
    ) -> Option<Self> {
        let stream = env.connect(address).await.ok()?;
        let cmd_sn = if env.random_below(4) == 0 { u32::MAX - 5 } else { env.random_u64() as u32 };
        let inner = Rc::new(Inner {
            env: env.clone(),
            stream,
            options,
            tx: RefCell::default(),
            rx: RefCell::default(),
            in_force: Cell::default(),
            commands: RefCell::default(),
            login: RefCell::default(),
            login_waker: RefCell::default(),
            next_tag: Cell::new(0),
            cmd_sn: Cell::new(cmd_sn),
            max_cmd_sn: Cell::new(cmd_sn),
            stat_sn: Cell::default(),
            dead: Cell::new(false),
            closing: Cell::new(false),
            pump: RefCell::default(),
        });
        let pump = Rc::clone(&inner);
        env.spawn(async move { poll_fn(|cx| pump.turn(cx)).await });
        let link = Self { inner };
        link.log_in(name, isid, target).await.then_some(link)
    }

    async fn log_in(&self, name: &str, isid: [u8; 6], target: &str) -> bool {
        let inner = &self.inner;
        let Options { digests, initial_r2t, immediate_data, segment, burst, first_burst } = &inner.options;
        let yes = |on: &bool| if *on { "Yes" } else { "No" };
        let digest = |on| if on { "CRC32C" } else { "None" };
        let keys = format!(
            "InitiatorName={name} SessionType=Normal TargetName={target} HeaderDigest={} DataDigest={} InitialR2T={} \
             ImmediateData={} MaxRecvDataSegmentLength={segment} MaxBurstLength={burst} FirstBurstLength={first_burst}",
            digest(digests.header),
            digest(digests.data),
            yes(initial_r2t),
            yes(immediate_data),
        );
        let mut header = Login::new_zeroed();
        (header.opcode, header.flags, header.isid) = (0x43, 0x87, isid);
        (header.cid, header.cmd_sn) = (U16::new(1), U32::new(inner.cmd_sn.get()));
        inner.send(&bytes::pdu(Digests::default(), &header, &bytes::text(&keys)));
        inner.wake_pump();
        poll_fn(|cx| {
            if let Some(received) = inner.login.borrow_mut().take() {
                let response: LoginResponse = received.header();
                return Poll::Ready(response.status.get() == 0);
            }
            *inner.login_waker.borrow_mut() = Some(cx.waker().clone());
            if inner.dead.get() { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    pub fn is_dead(&self) -> bool {
        self.inner.dead.get()
    }

    /// Sends a command with `out`, and waits for its response and up to `into` bytes. `None` when the connection ends
    /// first.
    pub async fn call(&self, cdb: [u8; 16], out: Vec<u8>, into: u32) -> Option<Reply> {
        let inner = &self.inner;
        // The window is seldom full: a little patience will do.
        while inner.max_cmd_sn.get().wrapping_sub(inner.cmd_sn.get()) as i32 <= 0 {
            if inner.dead.get() {
                return None;
            }
            ashlar_sim::conformance::sleep(&inner.env, std::time::Duration::from_micros(200)).await;
        }
        let tag = inner.new_tag();
        let mut header = ScsiCommand::new_zeroed();
        let reads = if into > 0 { ScsiCommand::READ } else { 0 };
        let writes = if out.is_empty() { 0 } else { ScsiCommand::WRITE };
        (header.opcode, header.flags) = (opcode::SCSI_COMMAND, FINAL | reads | writes | 1);
        (header.lun, header.itt, header.cdb) = (U64::new(1 << 48), U32::new(tag), cdb);
        header.expected_bytes = U32::new(into.max(out.len() as u32));
        header.cmd_sn = U32::new(inner.cmd_sn.get());
        inner.cmd_sn.set(inner.cmd_sn.get().wrapping_add(1));
        inner.begin(&mut header, &out);
        let command = Command { out, into, ..Command::default() };
        inner.commands.borrow_mut().insert(tag, command);
        inner.wake_pump();
        inner.reply(tag).await
    }

    /// A task management function on the unit.
    pub async fn manage(&self, function: u8) -> Option<u8> {
        let inner = &self.inner;
        let tag = inner.new_tag();
        let mut header = TaskManagement::new_zeroed();
        (header.opcode, header.function) = (opcode::TASK_MANAGEMENT | opcode::IMMEDIATE, FINAL | function);
        (header.lun, header.itt) = (U64::new(1 << 48), U32::new(tag));
        (header.referenced_tag, header.cmd_sn) = (U32::new(NO_TAG), U32::new(inner.cmd_sn.get()));
        inner.commands.borrow_mut().insert(tag, Command::default());
        inner.send(&bytes::pdu(inner.in_force.get(), &header, &[]));
        inner.wake_pump();
        inner.reply(tag).await.map(|reply| reply.status)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inner.closing.set(true);
        self.inner.wake_pump();
    }
}

impl Inner {
    fn new_tag(&self) -> u32 {
        let tag = self.next_tag.get();
        self.next_tag.set(tag + 1);
        tag
    }

    async fn reply(&self, tag: u32) -> Option<Reply> {
        poll_fn(|cx| {
            let mut commands = self.commands.borrow_mut();
            let command = commands.get_mut(&tag).expect("a command is there until its reply is taken");
            if let Some(reply) = command.done.take() {
                commands.remove(&tag);
                return Poll::Ready(Some(reply));
            }
            command.waker = Some(cx.waker().clone());
            if self.dead.get() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    fn wake_pump(&self) {
        if let Some(waker) = self.pump.borrow_mut().take() {
            waker.wake();
        }
    }

    fn send(&self, bytes: &[u8]) {
        self.tx.borrow_mut().extend(bytes);
    }

    /// The command, and the data that may come unasked.
    fn begin(&self, header: &mut ScsiCommand, out: &[u8]) {
        let options = &self.options;
        let most = out.len().min(options.first_burst as usize);
        let immediate = match self.env.random_below(3) {
            _ if !options.immediate_data => 0,
            0 => 0,
            1 => most,
            _ => self.env.random_below(most as u64 + 1) as usize,
        };
        let unsolicited = !options.initial_r2t && immediate < most && self.env.random_below(2) == 0;
        if unsolicited {
            header.flags &= !FINAL;
        }
        let tag = header.itt.get();
        self.send(&bytes::pdu(self.in_force.get(), header, &out[..immediate]));
        if unsolicited {
            self.data_out(tag, NO_TAG, immediate, &out[immediate..most]);
        }
    }

    fn data_out(&self, tag: u32, ttt: u32, mut offset: usize, mut data: &[u8]) {
        let mut number = 0;
        while !data.is_empty() {
            let n = if self.env.random_below(4) == 0 { data.len().min(700) } else { data.len() };
            let (now, later) = data.split_at(n);
            let mut header = DataOut::new_zeroed();
            (header.opcode, header.flags) = (opcode::DATA_OUT, if later.is_empty() { FINAL } else { 0 });
            (header.itt, header.ttt) = (U32::new(tag), U32::new(ttt));
            (header.data_sn, header.offset) = (U32::new(number), U32::new(offset as u32));
            self.send(&bytes::pdu(self.in_force.get(), &header, now));
            (number, offset, data) = (number + 1, offset + n, later);
        }
    }

    /// Moves bytes until there is nothing to do; ready when the connection is over.
    fn turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.pump.borrow_mut() = Some(cx.waker().clone());
        let over = self.closing.get() || !self.flush(cx) || !self.receive(cx) || !self.flush(cx);
        if !over {
            return Poll::Pending;
        }
        self.dead.set(true);
        for command in self.commands.borrow_mut().values_mut() {
            if let Some(waker) = command.waker.take() {
                waker.wake();
            }
        }
        if let Some(waker) = self.login_waker.take() {
            waker.wake();
        }
        Poll::Ready(())
    }

    fn flush(&self, cx: &mut Context<'_>) -> bool {
        let mut tx = self.tx.borrow_mut();
        while !tx.is_empty() {
            let (front, back) = tx.as_slices();
            match self.stream.poll_send(cx, &[IoSlice::new(front), IoSlice::new(back)]) {
                Poll::Ready(Ok(count)) => drop(tx.drain(..count)),
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => return true,
            }
        }
        true
    }

    fn receive(&self, cx: &mut Context<'_>) -> bool {
        let mut bytes = [0; 8192];
        loop {
            match self.stream.poll_recv(cx, &mut [IoSliceMut::new(&mut bytes)]) {
                Poll::Ready(Ok(0) | Err(_)) => return false,
                Poll::Ready(Ok(count)) => self.rx.borrow_mut().extend_from_slice(&bytes[..count]),
                Poll::Pending => return true,
            }
            while let Some(received) = bytes::take(self.in_force.get(), &mut self.rx.borrow_mut()) {
                if let Err(why) = self.pdu(&received) {
                    self.env.fail("wire", format!("{why}: {:?}", received.bhs));
                    return false;
                }
            }
        }
    }

    /// StatSN goes up by one with each status; the window never goes back.
    fn check_numbers(&self, received: &Received) -> Result<(), String> {
        let field =
            |at: usize| u32::from_be_bytes(received.bhs.rest[at..at + 4].try_into().expect("4 bytes"));
        let (stat_sn, max_cmd_sn) = (field(4), field(12));
        let kind = received.bhs.kind();
        let counts = match kind {
            opcode::R2T => false,
            opcode::DATA_IN => received.bhs.flags & DataIn::STATUS != 0,
            opcode::NOP_IN => received.bhs.itt.get() != NO_TAG,
            _ => true,
        };
        if counts {
            let expected = self.stat_sn.get().unwrap_or(stat_sn);
            if stat_sn != expected {
                return Err(format!("StatSN {stat_sn}, not {expected}"));
            }
            self.stat_sn.set(Some(stat_sn.wrapping_add(1)));
        }
        if (max_cmd_sn.wrapping_sub(self.max_cmd_sn.get()) as i32) < 0 && kind != opcode::LOGIN_RESPONSE {
            return Err("MaxCmdSN goes back".into());
        }
        self.max_cmd_sn.set(max_cmd_sn);
        Ok(())
    }

    fn pdu(&self, received: &Received) -> Result<(), String> {
        self.check_numbers(received)?;
        match received.bhs.kind() {
            opcode::LOGIN_RESPONSE => {
                self.in_force.set(self.options.digests);
                *self.login.borrow_mut() = Some(received.clone());
                if let Some(waker) = self.login_waker.take() {
                    waker.wake();
                }
                Ok(())
            }
            opcode::R2T => self.r2t(&received.header()),
            opcode::DATA_IN => self.data_in(&received.header(), &received.data),
            opcode::SCSI_RESPONSE => self.response(&received.header(), &received.data),
            opcode::TASK_MANAGEMENT_RESPONSE => {
                let pdu: TaskManagementResponse = received.header();
                self.finish(pdu.itt.get(), |_| Ok(Reply { status: pdu.response, ..Reply::default() }))
            }
            opcode::NOP_IN => {
                let ping: NopIn = received.header();
                let mut header = NopOut::new_zeroed();
                (header.opcode, header.flags) = (opcode::NOP_OUT | opcode::IMMEDIATE, FINAL);
                (header.itt, header.ttt) = (U32::new(NO_TAG), ping.ttt);
                self.send(&bytes::pdu(self.in_force.get(), &header, &[]));
                Ok(())
            }
            opcode::ASYNC => Ok(()),
            _ => Err("unexpected".into()),
        }
    }

    fn finish(
        &self,
        tag: u32,
        reply: impl FnOnce(&mut Command) -> Result<Reply, String>,
    ) -> Result<(), String> {
        let mut commands = self.commands.borrow_mut();
        let command = commands.get_mut(&tag).filter(|command| command.done.is_none());
        let command = command.ok_or("a response to no command")?;
        command.done = Some(reply(command)?);
        if let Some(waker) = command.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn r2t(&self, pdu: &R2t) -> Result<(), String> {
        let (tag, offset, len) = (pdu.itt.get(), pdu.offset.get() as usize, pdu.wanted_bytes.get() as usize);
        if len == 0 || len > self.options.burst as usize {
            return Err(format!("an R2T of {len} bytes"));
        }
        let data = {
            let mut commands = self.commands.borrow_mut();
            let command = commands.get_mut(&tag).filter(|command| command.done.is_none());
            let command = command.ok_or("an R2T for no command")?;
            if pdu.r2t_sn.get() != command.r2t_sn {
                return Err("R2TSN".into());
            }
            command.r2t_sn += 1;
            command.out.get(offset..offset + len).ok_or("an R2T beyond the data")?.to_vec()
        };
        self.data_out(tag, pdu.ttt.get(), offset, &data);
        Ok(())
    }

    fn data_in(&self, pdu: &DataIn, data: &[u8]) -> Result<(), String> {
        let tag = pdu.itt.get();
        {
            let mut commands = self.commands.borrow_mut();
            let command = commands.get_mut(&tag).filter(|command| command.done.is_none());
            let command = command.ok_or("data for no command")?;
            let in_order =
                pdu.data_sn.get() == command.data_sn && pdu.offset.get() as usize == command.data.len();
            let fits = data.len() <= self.options.segment as usize
                && command.data.len() + data.len() <= command.into as usize;
            if !in_order || !fits {
                return Err("data out of order, or too many".into());
            }
            command.data_sn += 1;
            command.data.extend(data);
        }
        if pdu.flags & DataIn::STATUS == 0 {
            return Ok(());
        }
        self.finish(tag, |command| {
            if command.data.len() != command.into as usize {
                return Err("a status without residual before all data".into());
            }
            Ok(Reply { status: pdu.status, data: std::mem::take(&mut command.data), sense: Vec::new() })
        })
    }

    fn response(&self, pdu: &ScsiResponse, sense: &[u8]) -> Result<(), String> {
        self.finish(pdu.itt.get(), |command| {
            let expected = command.into.max(command.out.len() as u32);
            let residual = pdu.residual.get();
            if pdu.flags & UNDERFLOW != 0 && residual > expected || pdu.flags & OVERFLOW != 0 {
                return Err("residual".into());
            }
            if pdu.status == 0 && command.into > 0 && command.data.len() as u32 + residual != command.into {
                return Err("GOOD with less data than the residual says".into());
            }
            Ok(Reply { status: pdu.status, data: std::mem::take(&mut command.data), sense: sense.to_vec() })
        })
    }
}
