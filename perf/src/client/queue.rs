//! One queue pair over one connection.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ashlar_codec::crc32c;
use ashlar_nvmeof::wire::pdu::{CapsuleCmd, DataPdu, Header, IcReq, IcResp, R2t, flags, kind};
use ashlar_nvmeof::wire::{Cqe, Sqe, Status};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::error::protocol;
use super::fabrics::{sgl_in_capsule, sgl_transport};
use super::rx::{CARRY_BYTES_MAX, Rx, Sink};
use super::tx::Tx;
use super::{ClientError, Digests, Result};

/// The bits of a CID that number the slot; the others count its uses, so that an answer that comes twice or
/// too late is noticed.
const SLOT_BITS: u32 = 12;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;

/// How a queue is made.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Commands in flight, at most: 1 to 4096.
    pub depth: u16,
    /// The largest transfer of one command, in bytes. Each slot has a payload of this size.
    pub payload_bytes: usize,
    /// The largest data sent in a command capsule, in bytes; larger data wait for R2T.
    pub in_capsule_bytes: u32,
    /// The digests to ask for.
    pub digests: Digests,
    /// HPDA: data from the controller are to be aligned to (HPDA + 1) * 4 bytes.
    pub hpda: u8,
    /// Copy what reads return into the payload; otherwise it is passed over.
    pub keep_read_data: bool,
}

/// What a command transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    None,
    /// So many bytes from the controller.
    FromController(u32),
    /// The first so many bytes of the slot's payload, to the controller.
    ToController(u32),
}

/// A finished command.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The slot it had, free again.
    pub slot: u16,
    /// Its status. A wrong data digest shows as Transient Transport Error.
    pub status: Status,
    /// Dword 0 of the completion.
    pub dw0: u32,
    /// Dword 1 of the completion.
    pub dw1: u32,
    /// SQHD as the controller sent it; 0 where the SUCCESS flag stood for the completion.
    pub sq_head: u16,
}

/// What [`Queue::call`] returns.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The completion.
    pub completion: Completion,
    /// What the controller sent.
    pub data: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Slot {
    cid: u16,
    busy: bool,
    data: Data,
    /// Bytes received or asked for with R2T so far.
    moved: u32,
    digest_wrong: bool,
}

/// How the controller's R2T and data PDUs may look.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The digests agreed.
    pub digests: Digests,
    /// MAXH2CDATA: the largest data of one H2CData, in bytes.
    pub h2c_data_bytes_max: u32,
}

/// A queue pair.
pub struct Queue {
    stream: TcpStream,
    rx: Rx,
    carry: [u8; CARRY_BYTES_MAX],
    carry_len: usize,
    state: State,
}

/// What a write sends as long as nobody says otherwise: bytes that neither compress nor read as nothing, since a target
/// may see to either.
fn noise(bytes: usize, seed: u64) -> Box<[u8]> {
    // Vigna's splitmix64.
    let mut state = seed.wrapping_mul(0xA076_1D64_78BD_642F);
    let mut word = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let mut words = Vec::with_capacity(bytes.next_multiple_of(8));
    while words.len() < bytes {
        words.extend_from_slice(&word().to_le_bytes());
    }
    words.truncate(bytes);
    words.into_boxed_slice()
}

/// All of a queue but its socket and parser: what the parser reports to.
struct State {
    tx: Tx,
    options: QueueOptions,
    shape: Option<Shape>,
    slots: Vec<Slot>,
    payloads: Vec<Box<[u8]>>,
    free: Vec<u16>,
    done: Vec<Completion>,
}

impl Queue {
    /// A queue over `stream`, after ICReq and ICResp.
    ///
    /// # Errors
    /// The options are impossible, the controller does not answer in `timeout`, or not as it must.
    pub fn open(stream: TcpStream, options: QueueOptions, timeout: Duration) -> Result<Self> {
        let mut queue = Self::new(stream, options)?;
        let mut request = IcReq::new_zeroed();
        request.header = Header { kind: kind::IC_REQ, flags: 0, hlen: 128, pdo: 0, plen: U32::new(128) };
        request.hpda = options.hpda;
        request.dgst = options.digests.field();
        queue.state.tx.header(request.as_bytes());
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; 4096];
        while queue.state.shape.is_none() {
            queue.flush()?;
            queue.poll(&mut buffer, &mut Vec::new())?;
            wait_until(deadline, "ICReq")?;
        }
        Ok(queue)
    }

    /// A queue over `stream` to a peer with which nothing is negotiated, as [`echo`](crate::echo) is.
    ///
    /// # Errors
    /// The options are impossible or the socket refuses to be non-blocking.
    pub fn open_unnegotiated(stream: TcpStream, options: QueueOptions) -> Result<Self> {
        let mut queue = Self::new(stream, options)?;
        queue.state.shape = Some(Shape { digests: options.digests, h2c_data_bytes_max: u32::MAX });
        Ok(queue)
    }

    fn new(stream: TcpStream, options: QueueOptions) -> Result<Self> {
        if options.depth == 0 || options.depth > SLOT_MASK + 1 {
            return Err(ClientError::Setup(format!("a queue depth of {} is not 1 to 4096", options.depth)));
        }
        stream.set_nonblocking(true)?;
        let depth = usize::from(options.depth);
        let slot = Slot { cid: 0, busy: false, data: Data::None, moved: 0, digest_wrong: false };
        let slots = (0..options.depth).map(|cid| Slot { cid, ..slot }).collect();
        let state = State {
            tx: Tx::default(),
            options,
            shape: None,
            slots,
            payloads: (0..depth as u64).map(|slot| noise(options.payload_bytes, slot)).collect(),
            free: (0..options.depth).rev().collect(),
            done: Vec::with_capacity(depth),
        };
        let rx = Rx::new(options.digests);
        Ok(Self { stream, rx, carry: [0; CARRY_BYTES_MAX], carry_len: 0, state })
    }

    /// Sets how much data may go in a command capsule, in bytes.
    pub fn set_in_capsule_bytes(&mut self, bytes: u32) {
        self.state.options.in_capsule_bytes = bytes;
    }

    /// How many commands may still be submitted.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.state.free.len()
    }

    /// The slot that the next command will get, if any.
    #[must_use]
    pub fn next_slot(&self) -> Option<u16> {
        self.state.free.last().copied()
    }

    /// The payload of `slot`: what a write sends, or what a read brought.
    #[must_use]
    pub fn payload(&self, slot: u16) -> &[u8] {
        &self.state.payloads[usize::from(slot)]
    }

    /// The payload of `slot`, to be filled before a write is submitted.
    pub fn payload_mut(&mut self, slot: u16) -> &mut [u8] {
        &mut self.state.payloads[usize::from(slot)]
    }

    /// What was agreed when the connection was set up.
    ///
    /// # Panics
    /// Never: a queue is handed out only after it was agreed.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.state.shape.expect("the connection is set up")
    }

    /// Lays `sqe` ready to be sent by the next [`flush`](Self::flush); CID and SGL are set here. None if no slot
    /// is free. Returns the slot.
    ///
    /// # Panics
    /// If `data` are more than the payload of a slot.
    #[inline]
    pub fn submit(&mut self, sqe: Sqe, data: Data) -> Option<u16> {
        self.state.submit(sqe, data)
    }

    /// Sends what lies ready. True if all of it went.
    ///
    /// # Errors
    /// The connection failed.
    #[inline]
    pub fn flush(&mut self) -> Result<bool> {
        if self.state.tx.is_empty() {
            return Ok(true);
        }
        self.state.tx.flush(&self.stream, &self.state.payloads)
    }

    /// Receives once into `buffer` (any contents, [`RX_BYTES`](super::RX_BYTES) long for speed, 4096 at least)
    /// and appends what finished to `done`. Returns the bytes received, 0 if there are none now.
    ///
    /// # Errors
    /// The connection failed or the controller broke the protocol.
    #[inline]
    pub fn poll(&mut self, buffer: &mut [u8], done: &mut Vec<Completion>) -> Result<usize> {
        let carried = self.carry_len;
        buffer[..carried].copy_from_slice(&self.carry[..carried]);
        let received = match (&self.stream).read(&mut buffer[carried..]) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = &buffer[..carried + received];
        let used = self.rx.parse(bytes, &mut self.state)?;
        let rest = &bytes[used..];
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carry_len = rest.len();
        done.append(&mut self.state.done);
        Ok(received)
    }

    /// Sends one command with `payload` and waits for its end. Completions of other commands are dropped, so
    /// this is for queues that do nothing else meanwhile.
    ///
    /// # Errors
    /// No slot is free, the connection fails, or `timeout` passes. A status is not an error here.
    pub fn call(&mut self, sqe: Sqe, data: Data, payload: &[u8], timeout: Duration) -> Result<Reply> {
        let Some(slot) = self.next_slot() else {
            return Err(ClientError::Setup("all slots of the queue are in use".into()));
        };
        self.payload_mut(slot)[..payload.len()].copy_from_slice(payload);
        self.submit(sqe, data);
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; 16 << 10];
        let mut done = Vec::new();
        loop {
            self.flush()?;
            self.poll(&mut buffer, &mut done)?;
            if let Some(completion) = done.drain(..).find(|completion| completion.slot == slot) {
                let len = match data {
                    Data::FromController(len) => len as usize,
                    Data::None | Data::ToController(_) => 0,
                };
                return Ok(Reply { completion, data: self.payload(slot)[..len].to_vec() });
            }
            wait_until(deadline, "a command")?;
        }
    }
}

fn wait_until(deadline: Instant, what: &'static str) -> Result<()> {
    if Instant::now() > deadline {
        return Err(ClientError::Timeout(what));
    }
    std::thread::yield_now();
    Ok(())
}

impl State {
    #[inline]
    fn submit(&mut self, mut sqe: Sqe, data: Data) -> Option<u16> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        slot.cid = slot.cid.wrapping_add(1 << SLOT_BITS);
        (slot.busy, slot.data, slot.moved, slot.digest_wrong) = (true, data, 0, false);
        sqe.cid = U16::new(slot.cid);
        let mut in_capsule = 0;
        match data {
            Data::None => {}
            Data::FromController(bytes) => sqe.sgl = sgl_transport(bytes),
            Data::ToController(bytes) if bytes <= self.options.in_capsule_bytes => {
                sqe.sgl = sgl_in_capsule(bytes);
                in_capsule = bytes;
                slot.moved = bytes;
            }
            Data::ToController(bytes) => sqe.sgl = sgl_transport(bytes),
        }
        self.send_capsule(&sqe, index, in_capsule);
        Some(index)
    }

    #[inline]
    fn send_capsule(&mut self, sqe: &Sqe, slot: u16, in_capsule: u32) {
        let digests = self.options.digests;
        let hlen = size_of::<CapsuleCmd>();
        let pdo = hlen + digests.header_bytes();
        let mut header = Header {
            kind: kind::CAPSULE_CMD,
            flags: if digests.header { flags::HDGST } else { 0 },
            hlen: hlen as u8,
            pdo: 0,
            plen: U32::new(pdo as u32),
        };
        if in_capsule > 0 {
            header.flags |= if digests.data { flags::DDGST } else { 0 };
            header.pdo = pdo as u8;
            header.plen = U32::new((pdo + in_capsule as usize + digests.data_bytes()) as u32);
        }
        let capsule = CapsuleCmd { header, sqe: *sqe };
        self.send_header(capsule.as_bytes());
        if in_capsule > 0 {
            self.send_data(slot, 0, in_capsule);
        }
    }

    #[inline]
    fn send_header(&mut self, bytes: &[u8]) {
        self.tx.header(bytes);
        if self.options.digests.header {
            self.tx.header(&crc32c(bytes).to_le_bytes());
        }
    }

    #[inline]
    fn send_data(&mut self, slot: u16, offset: u32, len: u32) {
        self.tx.payload(slot, offset, len);
        if self.options.digests.data {
            let data = &self.payloads[usize::from(slot)][offset as usize..(offset + len) as usize];
            self.tx.header(&crc32c(data).to_le_bytes());
        }
    }

    /// The slot of outstanding command `cid`.
    #[inline]
    fn slot_of(&self, cid: u16, what: &str) -> Result<u16> {
        let index = cid & SLOT_MASK;
        match self.slots.get(usize::from(index)) {
            Some(slot) if slot.busy && slot.cid == cid => Ok(index),
            _ => protocol(format!("{what} for command {cid:#06x}, which is not outstanding")),
        }
    }
}

impl Sink for State {
    fn ic_resp(&mut self, resp: &IcResp) -> Result<()> {
        if self.shape.is_some() {
            return protocol("a second ICResp");
        }
        if resp.pfv.get() != 0 || resp.cpda != 0 {
            return protocol(format!("ICResp with PFV {} and CPDA {}", resp.pfv, resp.cpda));
        }
        if resp.dgst != self.options.digests.field() {
            return protocol(format!(
                "ICResp with digests {:#x} where {:#x} were asked for",
                resp.dgst,
                self.options.digests.field()
            ));
        }
        let max = resp.max_h2c_data.get();
        if max < 4096 || !max.is_multiple_of(4) {
            return protocol(format!("ICResp with MAXH2CDATA {max}"));
        }
        self.shape = Some(Shape { digests: self.options.digests, h2c_data_bytes_max: max });
        Ok(())
    }

    #[inline]
    fn data_begins(&mut self, cid: u16, offset: u32, length: u32, last: bool) -> Result<u16> {
        let index = self.slot_of(cid, "C2HData")?;
        let slot = &mut self.slots[usize::from(index)];
        let Data::FromController(total) = slot.data else {
            return protocol(format!("C2HData for command {cid:#06x}, which reads nothing"));
        };
        let end = u64::from(offset) + u64::from(length);
        if offset != slot.moved || end > u64::from(total) {
            return protocol(format!(
                "C2HData at {offset} of {length} bytes for command {cid:#06x} that has {} of {total}",
                slot.moved
            ));
        }
        if last && end != u64::from(total) {
            return protocol(format!("the last C2HData of command {cid:#06x} ends at {end} of {total}"));
        }
        slot.moved = end as u32;
        Ok(index)
    }

    #[inline]
    fn data(&mut self, slot: u16, offset: u32, bytes: &[u8]) {
        if self.options.keep_read_data {
            let at = offset as usize;
            self.payloads[usize::from(slot)][at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn data_digest_wrong(&mut self, slot: u16) {
        self.slots[usize::from(slot)].digest_wrong = true;
    }

    #[inline]
    fn completion(&mut self, cqe: &Cqe) -> Result<()> {
        let cid = cqe.cid.get();
        let index = self.slot_of(cid, "a completion")?;
        let slot = &mut self.slots[usize::from(index)];
        let mut status = Status::from_field(cqe.status.get());
        if status.is_success()
            && let Data::FromController(total) = slot.data
            && slot.moved != total
        {
            return protocol(format!("command {cid:#06x} succeeded with {} of {total} bytes", slot.moved));
        }
        if slot.digest_wrong && status.is_success() {
            status = Status::TRANSIENT_TRANSPORT;
        }
        slot.busy = false;
        self.free.push(index);
        let (dw0, dw1, sq_head) = (cqe.dw0.get(), cqe.dw1.get(), cqe.sq_head.get());
        self.done.push(Completion { slot: index, status, dw0, dw1, sq_head });
        Ok(())
    }

    fn r2t(&mut self, r2t: &R2t) -> Result<()> {
        let cid = r2t.cccid.get();
        let index = self.slot_of(cid, "R2T")?;
        let slot = &mut self.slots[usize::from(index)];
        let Data::ToController(total) = slot.data else {
            return protocol(format!("R2T for command {cid:#06x}, which writes nothing"));
        };
        let (offset, length) = (r2t.offset.get(), r2t.length.get());
        let end = u64::from(offset) + u64::from(length);
        if length == 0 || offset != slot.moved || end > u64::from(total) {
            return protocol(format!(
                "R2T at {offset} of {length} bytes for command {cid:#06x} that sent {} of {total}",
                slot.moved
            ));
        }
        slot.moved = end as u32;
        self.send_h2c_data(index, r2t);
        Ok(())
    }
}

impl State {
    /// Answers `r2t` with as many H2CData as the controller's limit asks for.
    fn send_h2c_data(&mut self, slot: u16, r2t: &R2t) {
        let max = self.shape.map_or(u32::MAX, |shape| shape.h2c_data_bytes_max);
        let digests = self.options.digests;
        let pdo = size_of::<DataPdu>() + digests.header_bytes();
        let end = r2t.offset.get() + r2t.length.get();
        let mut offset = r2t.offset.get();
        while offset < end {
            let length = (end - offset).min(max);
            let mut bits = if offset + length == end { flags::LAST } else { 0 };
            bits |= if digests.header { flags::HDGST } else { 0 };
            bits |= if digests.data { flags::DDGST } else { 0 };
            let header = Header {
                kind: kind::H2C_DATA,
                flags: bits,
                hlen: size_of::<DataPdu>() as u8,
                pdo: pdo as u8,
                plen: U32::new((pdo + length as usize + digests.data_bytes()) as u32),
            };
            let pdu = DataPdu {
                header,
                cccid: r2t.cccid,
                ttag: r2t.ttag,
                offset: U32::new(offset),
                length: U32::new(length),
                reserved: [0; 4],
            };
            self.send_header(pdu.as_bytes());
            self.send_data(slot, offset, length);
            offset += length;
        }
    }
}
