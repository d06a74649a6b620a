//! One queue of the host model: an NVMe/TCP connection, written from the specification and apart from the
//! target's own transport, strict about all it receives.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_codec::crc32c;
use ashlar_env::{Net, Rng, Spawn, Stream};
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, Header, IcReq, IcResp, R2t, flags, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT};
use ashlar_nvmeof::wire::{Cqe, Sqe, Status};
use ashlar_sim::conformance::{receive, send_all};
use ashlar_sim::{SimEnv, SimStream};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Data that may go in the capsule, as the target's Identify says.
const IN_CAPSULE_BYTES: usize = 8192;

/// What a host asks for when it sets a connection up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub header_digest: bool,
    pub data_digest: bool,
    pub hpda: u8,
    pub max_r2t: u32,
}

/// The host's end of a queue. Dropping it closes the connection.
pub struct Queue {
    inner: Rc<Inner>,
}

struct Inner {
    env: SimEnv,
    stream: SimStream,
    options: Options,
    max_h2c: usize,
    tx: RefCell<VecDeque<u8>>,
    rx: RefCell<Vec<u8>>,
    commands: RefCell<BTreeMap<u16, Command>>,
    next_cid: Cell<u16>,
    /// The connection is over.
    dead: Cell<bool>,
    closing: Cell<bool>,
    pump: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Command {
    out: Vec<u8>,
    into: Vec<u8>,
    received: usize,
    last_seen: bool,
    cqe: Option<Cqe>,
    waker: Option<Waker>,
}

/// A completion and the data that came before it.
pub struct Reply {
    pub cqe: Cqe,
    pub data: Vec<u8>,
}

impl Reply {
    pub fn status(&self) -> Status {
        Status::from_field(self.cqe.status.get())
    }
}

impl Queue {
    /// Connects and exchanges ICReq and ICResp. `None` where the network will not have it.
    pub async fn open(env: &SimEnv, address: SocketAddr, options: Options) -> Option<Self> {
        let stream = env.connect(address).await.ok()?;
        let mut request = IcReq::new_zeroed();
        request.header = Header { kind: kind::IC_REQ, flags: 0, hlen: 128, pdo: 0, plen: U32::new(128) };
        request.hpda = options.hpda;
        request.dgst = u8::from(options.header_digest) | u8::from(options.data_digest) << 1;
        request.max_r2t = U32::new(options.max_r2t);
        send_all(&stream, request.as_bytes()).await.ok()?;
        let mut bytes = [0; 128];
        (receive(&stream, &mut bytes).await.ok()? == 128).then_some(())?;
        let response = IcResp::read_from_bytes(&bytes).expect("128 bytes are an ICResp");
        if response.header.kind != kind::IC_RESP || response.dgst != request.dgst || response.cpda != 0 {
            env.fail("wire", format!("ICResp {response:?}"));
            return None;
        }
        let inner = Rc::new(Inner {
            env: env.clone(),
            stream,
            options,
            max_h2c: response.max_h2c_data.get() as usize,
            tx: RefCell::default(),
            rx: RefCell::default(),
            commands: RefCell::default(),
            next_cid: Cell::new(env.random_u64() as u16),
            dead: Cell::new(false),
            closing: Cell::new(false),
            pump: RefCell::default(),
        });
        let pump = Rc::clone(&inner);
        env.spawn(async move { poll_fn(|cx| pump.turn(cx)).await });
        Some(Self { inner })
    }

    pub fn is_dead(&self) -> bool {
        self.inner.dead.get()
    }

    /// Sends a command with `out` and waits for its completion and up to `into` bytes. `None` when the
    /// connection ends first.
    pub async fn call(&self, sqe: Sqe, out: Vec<u8>, into: usize) -> Option<Reply> {
        let cid = self.submit(sqe, out, into);
        self.reply(cid).await
    }

    /// Sends two commands one right after the other, as a fused pair must be.
    pub async fn call_pair(&self, calls: [(Sqe, Vec<u8>); 2]) -> [Option<Reply>; 2] {
        let [first, second] = calls.map(|(sqe, out)| self.submit(sqe, out, 0));
        [self.reply(first).await, self.reply(second).await]
    }

    fn submit(&self, mut sqe: Sqe, out: Vec<u8>, into: usize) -> u16 {
        let inner = &self.inner;
        let cid = loop {
            let cid = inner.next_cid.get();
            inner.next_cid.set(cid.wrapping_add(1));
            if !inner.commands.borrow().contains_key(&cid) {
                break cid;
            }
        };
        sqe.cid = U16::new(cid);
        sqe.flags |= 0x40;
        let fabrics = sqe.opcode == 0x7F;
        let fits = !out.is_empty() && out.len() <= IN_CAPSULE_BYTES;
        let in_capsule = fits && (fabrics || inner.env.random_below(2) == 0);
        let bytes = out.len().max(into) as u32;
        sqe.sgl.length = U32::new(bytes);
        sqe.sgl.identifier = if in_capsule { SGL_IN_CAPSULE } else { SGL_TRANSPORT };
        inner.send_pdu(kind::CAPSULE_CMD, 0, sqe.as_bytes(), if in_capsule { &out } else { &[] });
        let command = Command { out, into: vec![0; into], ..Command::default() };
        inner.commands.borrow_mut().insert(cid, command);
        inner.wake_pump();
        cid
    }

    async fn reply(&self, cid: u16) -> Option<Reply> {
        poll_fn(|cx| {
            let mut commands = self.inner.commands.borrow_mut();
            let command = commands.get_mut(&cid).expect("a command is there until its reply is taken");
            if let Some(cqe) = command.cqe {
                let mut data = std::mem::take(&mut command.into);
                data.truncate(command.received);
                commands.remove(&cid);
                return Poll::Ready(Some(Reply { cqe, data }));
            }
            if self.inner.dead.get() {
                return Poll::Ready(None);
            }
            command.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.inner.closing.set(true);
        self.inner.wake_pump();
    }
}

impl Inner {
    fn wake_pump(&self) {
        if let Some(waker) = self.pump.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Puts a PDU with `header` after the common header and `data` into the send queue.
    fn send_pdu(&self, kind: u8, more_flags: u8, header: &[u8], data: &[u8]) {
        let hlen = 8 + header.len();
        let digest = if self.options.header_digest { 4 } else { 0 };
        let pdo = if data.is_empty() { 0 } else { hlen + digest };
        let data_digest = !data.is_empty() && self.options.data_digest;
        let plen = hlen + digest + data.len() + if data_digest { 4 } else { 0 };
        let mut flags = more_flags;
        flags |= if self.options.header_digest { flags::HDGST } else { 0 };
        flags |= if data_digest { flags::DDGST } else { 0 };
        let common = Header { kind, flags, hlen: hlen as u8, pdo: pdo as u8, plen: U32::new(plen as u32) };
        let mut bytes = [common.as_bytes(), header].concat();
        if self.options.header_digest {
            bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        }
        let mut tx = self.tx.borrow_mut();
        tx.extend(bytes);
        tx.extend(data);
        if data_digest {
            tx.extend(crc32c(data).to_le_bytes());
        }
    }

    /// Moves bytes until there is nothing to do; ready when the connection is over.
    fn turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.pump.borrow_mut() = Some(cx.waker().clone());
        let over = self.closing.get() || !self.send(cx) || !self.receive(cx) || !self.send(cx);
        if !over {
            return Poll::Pending;
        }
        self.dead.set(true);
        for command in self.commands.borrow_mut().values_mut() {
            if let Some(waker) = command.waker.take() {
                waker.wake();
            }
        }
        Poll::Ready(())
    }

    fn send(&self, cx: &mut Context<'_>) -> bool {
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
            let result = self.parse();
            if let Err(why) = result {
                self.env.fail("wire", why);
                return false;
            }
        }
    }

    fn parse(&self) -> Result<(), String> {
        let mut rx = self.rx.borrow_mut();
        let mut at = 0;
        while let Ok((header, _)) = Header::read_from_prefix(&rx[at..]) {
            let plen = header.plen.get() as usize;
            if !(24..=2 << 20).contains(&plen) {
                return Err(format!("a PDU of {plen} bytes: {header:?}"));
            }
            if rx.len() - at < plen {
                break;
            }
            self.pdu(header, &rx[at..at + plen])?;
            at += plen;
        }
        rx.drain(..at);
        Ok(())
    }

    fn pdu(&self, header: Header, pdu: &[u8]) -> Result<(), String> {
        if header.kind == kind::C2H_TERM {
            return Err(format!("the target terminates the connection: {pdu:?}"));
        }
        let digest = if self.options.header_digest { 4 } else { 0 };
        if header.hlen != 24 || (header.flags & flags::HDGST != 0) != self.options.header_digest {
            return Err(format!("header {header:?}"));
        }
        if digest > 0 && pdu.get(24..28) != Some(&crc32c(&pdu[..24]).to_le_bytes()[..]) {
            return Err(format!("header digest of {header:?}"));
        }
        match header.kind {
            kind::CAPSULE_RESP if pdu.len() == 24 + digest => {
                let response = CapsuleResp::read_from_bytes(&pdu[..24]).expect("24 bytes");
                self.complete(response.cqe)
            }
            kind::R2T if pdu.len() == 24 + digest => {
                self.r2t(R2t::read_from_bytes(&pdu[..24]).expect("24 bytes"))
            }
            kind::C2H_DATA => self.data(DataPdu::read_from_bytes(&pdu[..24]).expect("24 bytes"), pdu, digest),
            _ => Err(format!("PDU {header:?}")),
        }
    }

    fn complete(&self, cqe: Cqe) -> Result<(), String> {
        let mut commands = self.commands.borrow_mut();
        let cid = cqe.cid.get();
        let command = commands.get_mut(&cid).ok_or_else(|| format!("completion of no command: {cqe:?}"))?;
        if command.cqe.is_some() {
            return Err(format!("a second completion: {cqe:?}"));
        }
        let success = Status::from_field(cqe.status.get()).is_success();
        if success && !command.into.is_empty() && !command.last_seen {
            return Err(format!("success without the last data: {cqe:?}"));
        }
        command.cqe = Some(cqe);
        if let Some(waker) = command.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn r2t(&self, r2t: R2t) -> Result<(), String> {
        let data = {
            let commands = self.commands.borrow();
            let wanted = r2t.offset.get() as usize..(r2t.offset.get() + r2t.length.get()) as usize;
            let command = commands.get(&r2t.cccid.get()).filter(|command| command.cqe.is_none());
            let data = command.and_then(|command| command.out.get(wanted));
            data.ok_or_else(|| format!("{r2t:?}"))?.to_vec()
        };
        let mut offset = 0;
        while offset < data.len() {
            let most = (data.len() - offset).min(self.max_h2c);
            let take = if self.env.random_below(4) == 0 { most.min(1024) } else { most };
            let last = if offset + take == data.len() { flags::LAST } else { 0 };
            let mut header = [0; 16];
            header[0..2].copy_from_slice(r2t.cccid.as_bytes());
            header[2..4].copy_from_slice(r2t.ttag.as_bytes());
            header[4..8].copy_from_slice(&(r2t.offset.get() + offset as u32).to_le_bytes());
            header[8..12].copy_from_slice(&(take as u32).to_le_bytes());
            self.send_pdu(kind::H2C_DATA, last, &header, &data[offset..offset + take]);
            offset += take;
        }
        Ok(())
    }

    fn data(&self, data: DataPdu, pdu: &[u8], digest: usize) -> Result<(), String> {
        let wrong = || format!("C2HData {data:?}");
        let (pdo, length) = (usize::from(data.header.pdo), data.length.get() as usize);
        let data_digest = if self.options.data_digest { 4 } else { 0 };
        let unit = 4 * (usize::from(self.options.hpda) + 1);
        let shaped = pdo >= 24 + digest
            && pdo.is_multiple_of(unit)
            && pdu.len() == pdo + length + data_digest
            && (data.header.flags & flags::DDGST != 0) == self.options.data_digest;
        if !shaped {
            return Err(wrong());
        }
        let bytes = &pdu[pdo..pdo + length];
        if self.options.data_digest && pdu[pdo + length..] != crc32c(bytes).to_le_bytes() {
            return Err(format!("data digest of {data:?}"));
        }
        let cid = data.cccid.get();
        let success = data.header.flags & flags::SUCCESS != 0;
        {
            let mut commands = self.commands.borrow_mut();
            let command = commands.get_mut(&cid).filter(|c| c.cqe.is_none() && !c.last_seen);
            let command = command.ok_or_else(wrong)?;
            let offset = data.offset.get() as usize;
            if offset != command.received {
                return Err(wrong());
            }
            command.into.get_mut(offset..offset + length).ok_or_else(wrong)?.copy_from_slice(bytes);
            command.received += length;
            command.last_seen = data.header.flags & flags::LAST != 0;
            if success && !command.last_seen {
                return Err(wrong());
            }
        }
        if success { self.complete(Cqe::new(cid, Status::SUCCESS, 0, 0)) } else { Ok(()) }
    }
}
