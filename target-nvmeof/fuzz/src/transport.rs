//! The transport against a host that sends anything in any pieces, with a dispatcher that obeys the rules and
//! checks what comes out.
//!
//! The first byte says how the connection begins: bits 1:0 the digests, bit 2 no handshake, bit 3 no Connect,
//! bit 4 flow control of the queue on, bits 7:5 the queue's size. The second is the size of received pieces.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::time::Duration;

use ashlar_env::buf::{MAX_BYTES, PoolPlan};
use ashlar_env::clock::Instant;
use ashlar_env::{Buf, BufMut, BufPool};
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::transport::{
    Admission, Event, STAGING_BYTES_BEFORE_CONNECT, STAGING_BYTES_IO, Slot, Transfer, Transport,
};
use ashlar_nvmeof::wire::{Cqe, Sqe, Status};

use crate::bytes::{self, Digests};
use crate::output::{Output, Told};
use crate::script::Script;

/// What the records of a script do.
pub mod op {
    /// Bytes arrive as they are.
    pub const RAW: u8 = 0;
    /// A capsule arrives: its entry, then its data; lengths and digests are made right.
    pub const CAPSULE: u8 = 1;
    /// H2CData arrives: command, tag, offset (32 bits), whether it is the last, and data.
    pub const DATA: u8 = 2;
    /// The oldest command in execution completes; a byte of the record says how.
    pub const COMPLETE: u8 = 3;
    /// So many milliseconds pass.
    pub const WAIT: u8 = 4;
    /// A buffer of a size is taken away from the pool, or all are given back.
    pub const STARVE: u8 = 5;
    /// The host reads so many bytes; until the first such record it reads everything.
    pub const READ: u8 = 6;
    /// The host closes.
    pub const CLOSE: u8 = 7;
}

/// A command between its arrival and its completion.
struct Pending {
    sqe: Sqe,
    transfer: Transfer,
    data_came: bool,
}

struct Dispatcher {
    transport: Transport,
    pool: BufPool,
    held: Vec<BufMut>,
    now: Instant,
    digests: Digests,
    step: usize,
    entries: usize,
    pending: BTreeMap<Slot, Pending>,
    /// Commands that may complete, oldest first.
    executing: Vec<Slot>,
    /// Answers that the host has not seen: command and bytes of data.
    owed: Vec<(u16, u32)>,
    output: Output,
    reads_all: bool,
    closed: bool,
    connected: bool,
}

/// Runs one input.
///
/// # Panics
/// If the transport breaks a rule.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let how = script.byte();
    let mut dispatcher = Dispatcher::new(how, usize::from(script.byte()));
    if how & 4 == 0 {
        dispatcher.arrive(&bytes::ic_req(dispatcher.digests));
        if how & 8 == 0 {
            let entries = dispatcher.entries as u16;
            dispatcher.transport.connected(entries, how & 16 == 0, true);
            dispatcher.connected = true;
        }
    }
    while !script.is_over() && !dispatcher.transport.is_over() {
        let (operation, record) = script.record();
        dispatcher.execute(operation, record);
        dispatcher.check();
    }
}

impl Dispatcher {
    fn new(how: u8, step: usize) -> Self {
        let pool = BufPool::on_heap(PoolPlan { limits: [8, 4, 2, 2, 1] });
        let now = Instant(1_000_000_000);
        Self {
            transport: Transport::new(&Limits::default(), pool.clone(), now),
            pool,
            held: Vec::new(),
            now,
            digests: Digests::of_field(how),
            step: if step == 0 { usize::MAX } else { step },
            entries: 2 << (how >> 5),
            pending: BTreeMap::new(),
            executing: Vec::new(),
            owed: Vec::new(),
            output: Output::default(),
            reads_all: true,
            closed: false,
            connected: false,
        }
    }

    fn execute(&mut self, operation: u8, record: &[u8]) {
        let mut record = Script::new(record);
        match operation & 7 {
            op::RAW => self.arrive(record.bytes(usize::MAX)),
            op::CAPSULE => {
                let sqe = zerocopy::transmute!(record.array::<64>());
                let capsule = bytes::capsule(self.digests, &sqe, record.bytes(usize::MAX));
                self.arrive(&capsule);
            }
            op::DATA => {
                let (cid, tag) = (record.short(), record.short());
                let (offset, last) = (u32::from_le_bytes(record.array()), record.byte() & 1 != 0);
                let data = record.bytes(usize::MAX);
                let data = if data.is_empty() { &[7; 512] } else { data };
                self.arrive(&bytes::h2c_data(self.digests, cid, tag, offset, data, last));
            }
            op::COMPLETE => self.complete_one(record.byte()),
            op::WAIT => {
                self.now = self.now.plus(Duration::from_millis(u64::from(record.short())));
                self.transport.handle_timeout(self.now);
            }
            op::STARVE => match record.short() {
                0 => self.held.clear(),
                len => self.held.extend(self.pool.try_alloc(usize::from(len) * 16)),
            },
            op::READ => {
                self.reads_all = false;
                self.send(usize::from(record.short()));
            }
            _ => self.transport.received(0, self.now),
        }
        self.work();
    }

    /// Feeds bytes in pieces.
    fn arrive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut taken = 0;
            let mut room = 0;
            for mut slice in self.transport.recv_slices() {
                room += slice.len();
                let n = slice.len().min(self.step - taken).min(bytes.len() - taken);
                slice[..n].copy_from_slice(&bytes[taken..taken + n]);
                taken += n;
            }
            let most =
                if self.connected { STAGING_BYTES_IO + MAX_BYTES } else { STAGING_BYTES_BEFORE_CONNECT };
            assert!(room <= most, "{room} bytes of room");
            if taken == 0 {
                return;
            }
            self.transport.received(taken, self.now);
            bytes = &bytes[taken..];
            self.work();
        }
    }

    /// Takes events, hands over buffers, sends.
    fn work(&mut self) {
        loop {
            while !self.transport.is_congested()
                && let Some(event) = self.transport.next_event(self.now)
            {
                self.event(event);
            }
            if self.reads_all {
                self.send(usize::MAX);
            }
            let Some(len) = self.transport.wants_buffer() else { return };
            let Some(buf) = self.pool.try_alloc(len) else { return };
            self.transport.give_buffer(buf, self.now);
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.closed, "nothing follows the end: {event:?}");
        match event {
            Event::Command(slot) => self.command(slot),
            Event::Data(slot, data) => self.data(slot, Some(data)),
            Event::BadData(slot) => {
                let pending = &self.pending[&slot];
                assert!(self.digests.data && matches!(pending.transfer, Transfer::FromHost(_)));
                self.complete(slot, Status::TRANSIENT_TRANSPORT);
            }
            Event::Closed(_) => self.closed = true,
        }
    }

    fn command(&mut self, slot: Slot) {
        let sqe = *self.transport.sqe(slot);
        assert_eq!(self.transport.find(sqe.cid.get()), Some(slot));
        let transfer = transfer(&sqe);
        let before = self.pending.insert(slot, Pending { sqe, transfer, data_came: false });
        assert!(before.is_none(), "{slot:?} is in use");
        if sqe.opcode & 0x80 != 0 {
            return self.complete(slot, Status::INVALID_OPCODE);
        }
        match self.transport.admit(slot, transfer, self.now) {
            Admission::Ready(data) => {
                let with_data = matches!(transfer, Transfer::FromHost(1..));
                assert_eq!(data.is_some(), with_data);
                self.data(slot, data);
            }
            Admission::Waiting => {}
            Admission::Refused(status) => self.complete(slot, status),
        }
    }

    fn data(&mut self, slot: Slot, data: Option<Buf>) {
        let pending = self.pending.get_mut(&slot).expect("data of a command that is outstanding");
        assert!(!pending.data_came, "data come once");
        pending.data_came = true;
        if let Some(data) = data {
            assert_eq!(pending.transfer, Transfer::FromHost(data.len() as u32));
        }
        self.executing.push(slot);
    }

    fn complete_one(&mut self, how: u8) {
        if self.executing.is_empty() {
            return;
        }
        let slot = self.executing[usize::from(how >> 1) % self.executing.len()];
        let status = if how & 1 == 0 { Status::SUCCESS } else { Status::INTERNAL_ERROR };
        self.complete(slot, status);
    }

    fn complete(&mut self, slot: Slot, status: Status) {
        self.executing.retain(|executing| *executing != slot);
        let Pending { sqe, transfer, .. } = self.pending.remove(&slot).expect("outstanding");
        let data = match transfer {
            Transfer::ToHost(len @ 1..) if status.is_success() => {
                let buf = self.pool.try_zeroed(len as usize).map(BufMut::freeze);
                Some(buf.unwrap_or_else(|| Buf::from_heap(vec![0; len as usize].into())))
            }
            _ => None,
        };
        self.owed.push((sqe.cid.get(), data.as_ref().map_or(0, |data| data.len() as u32)));
        self.transport.complete(slot, Cqe::new(0, status, 0, 0), data, self.now);
    }

    /// The host takes up to `most` bytes, and looks at them.
    fn send(&mut self, mut most: usize) {
        while most > 0 && self.transport.has_output() {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = self.transport.send_slices(&mut slices);
            let piece = most.min(self.step.saturating_mul(16));
            let mut n = 0;
            for slice in &slices[..count] {
                let part = slice.len().min(piece - n);
                self.output.push(&slice[..part]);
                n += part;
            }
            assert!(n > 0, "there is output and nothing to send");
            self.transport.sent(n, self.now);
            most -= n;
        }
        while let Some(told) = self.output.next_pdu() {
            self.told(told);
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Initialized => self.digests = self.output.digests(),
            Told::Terminated => {}
            Told::Done(cqe) if cqe.status.get() == Status::COMMAND_ID_CONFLICT.field() => {}
            Told::Done(cqe) => {
                let cid = cqe.cid.get();
                let at = self.owed.iter().position(|owed| owed.0 == cid && owed.1 == 0);
                self.owed.swap_remove(at.expect("an answer to a command that was completed"));
            }
            Told::Data { cid, len, success } => {
                let at = self.owed.iter().position(|owed| *owed == (cid, len));
                let at = at.expect("data of a read that was completed");
                // Without the flag a response follows.
                self.owed[at].1 = 0;
                if success {
                    self.owed.swap_remove(at);
                }
            }
            Told::R2t { cid, len, .. } => {
                let wants = |pending: &Pending| {
                    pending.sqe.cid.get() == cid && pending.transfer == Transfer::FromHost(len)
                };
                let gone = self.owed.iter().any(|owed| owed.0 == cid);
                assert!(gone || self.pending.values().any(wants), "an R2T for {len} bytes of {cid}");
            }
        }
    }

    fn check(&self) {
        if !self.closed {
            assert_eq!(self.transport.outstanding(), self.pending.len());
            assert!(self.pending.len() <= self.entries.max(2));
        }
        assert!(self.closed || self.transport.deadline() > self.now || self.transport.is_over());
    }
}

/// The direction is in the opcode's bits 1:0 (Base, section 3.3.3.1), the length in dword 12.
fn transfer(sqe: &Sqe) -> Transfer {
    let len = ((sqe.cdw12.get() & 0x7F) + 1) * 512;
    match sqe.opcode & 3 {
        1 => Transfer::FromHost(len),
        2 => Transfer::ToHost(len),
        _ => Transfer::None,
    }
}
