//! An initiator that answers R2T out of bytes made beforehand, and allocates nothing itself.

use std::rc::Rc;

use ashlar_codec::crc32c;
use ashlar_iscsi::wire::bhs::FINAL;
use ashlar_iscsi::wire::request::{DataOut, Login, ScsiCommand};
use ashlar_iscsi::wire::response::{DataIn, R2t, ScsiResponse};
use ashlar_iscsi::wire::{BHS_BYTES, Bhs, opcode, padding};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros};

use crate::bytes::{self, Digests};
use crate::world::{Pipe, TestEnv};

pub const TARGET: &str = "iqn.2026-11.io.ashlar:test";
/// Turns in which an answer must come.
const TURNS_MAX: usize = 10_000;

/// How a command's data travel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Immediate,
    Solicited,
}

/// A session.
pub struct Host {
    env: TestEnv,
    pipe: Rc<Pipe>,
    digests: Digests,
    cmd_sn: u32,
}

/// Commands to be sent at once.
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each command begins.
    commands: Vec<usize>,
    /// The Data-Out of each command that gets an R2T, in its place; the tag is filled in.
    data: Vec<Vec<u8>>,
}

impl Host {
    pub fn log_in(env: &TestEnv, digests: Digests) -> Self {
        let mut host = Self { env: env.clone(), pipe: env.dial(), digests: Digests::default(), cmd_sn: 1 };
        let digest = |on| if on { "CRC32C" } else { "None" };
        let keys = format!(
            "InitiatorName=iqn.host TargetName={TARGET} HeaderDigest={} DataDigest={} MaxRecvDataSegmentLength=262144",
            digest(digests.header),
            digest(digests.data)
        );
        let mut header = Login::new_zeroed();
        (header.opcode, header.flags, header.cid) = (0x43, 0x87, U16::new(1));
        header.cmd_sn = U32::new(host.cmd_sn);
        let login = bytes::pdu(host.digests, &header, &bytes::text(&keys));
        host.pipe.to_server.borrow_mut().extend(login);
        host.await_ends(1, &mut []);
        host.digests = digests;
        // The unit attention of a new session.
        let header = host.command(0, 0, [0; 16], 0);
        let mut ready =
            Batch { bytes: bytes::pdu(digests, &header, &[]), commands: vec![0], data: Vec::new() };
        host.run(&mut ready);
        host
    }

    fn command(&self, tag: u32, flags: u8, cdb: [u8; 16], expected: u32) -> ScsiCommand {
        let mut header = ScsiCommand::new_zeroed();
        (header.opcode, header.flags) = (opcode::SCSI_COMMAND, FINAL | flags | 1);
        (header.lun, header.itt, header.cdb) = (U64::new(1 << 48), U32::new(tag), cdb);
        header.expected_bytes = U32::new(expected);
        header
    }

    /// A batch of these commands, each in its own part of a volume of `blocks`.
    pub fn batch(&self, commands: impl Iterator<Item = (Kind, u32)>, blocks: u64) -> Batch {
        let mut batch = Batch { bytes: Vec::new(), commands: Vec::new(), data: Vec::new() };
        for (tag, (kind, count)) in (0..).zip(commands) {
            let payload = vec![tag as u8; count as usize * 512];
            let mut cdb = [0; 16];
            cdb[0] = if kind == Kind::Read { 0x88 } else { 0x8A };
            cdb[2..10].copy_from_slice(&(u64::from(tag) * 256 % blocks).to_be_bytes());
            cdb[10..14].copy_from_slice(&count.to_be_bytes());
            let flags = if kind == Kind::Read { ScsiCommand::READ } else { ScsiCommand::WRITE };
            let header = self.command(tag, flags, cdb, count * 512);
            batch.commands.push(batch.bytes.len());
            let immediate = if kind == Kind::Immediate { &payload[..] } else { &[] };
            batch.bytes.extend(bytes::pdu(self.digests, &header, immediate));
            let mut data_out = DataOut::new_zeroed();
            (data_out.opcode, data_out.flags, data_out.itt) = (opcode::DATA_OUT, FINAL, U32::new(tag));
            batch.data.push(bytes::pdu(self.digests, &data_out, &payload));
        }
        batch
    }

    /// Sends a batch and waits for its end.
    pub fn run(&mut self, batch: &mut Batch) {
        for &at in &batch.commands {
            batch.bytes[at + 24..at + 28].copy_from_slice(&self.cmd_sn.to_be_bytes());
            self.mend(&mut batch.bytes[at..]);
            self.cmd_sn += 1;
        }
        self.pipe.to_server.borrow_mut().extend_from_slice(&batch.bytes);
        self.await_ends(batch.commands.len(), &mut batch.data);
    }

    /// Puts the header digest right.
    fn mend(&self, pdu: &mut [u8]) {
        if self.digests.header {
            let digest = crc32c(&pdu[..BHS_BYTES]).to_le_bytes();
            pdu[BHS_BYTES..BHS_BYTES + 4].copy_from_slice(&digest);
        }
    }

    /// Turns until so many commands have ended; answers R2T out of `data`.
    fn await_ends(&self, count: usize, data: &mut [Vec<u8>]) {
        let (mut done, mut at) = (0, 0);
        for _ in 0..TURNS_MAX {
            self.env.turn();
            let bytes = self.pipe.to_host.borrow();
            while let Some((header, len)) = self.next(&bytes[at..]) {
                let pdu = &bytes[at..at + len];
                at += len;
                match header.kind() {
                    opcode::SCSI_RESPONSE => {
                        let (pdu, _) = ScsiResponse::read_from_prefix(pdu).unwrap();
                        assert!(pdu.status == 0 || data.is_empty(), "{pdu:?}");
                        done += 1;
                    }
                    opcode::DATA_IN => done += usize::from(header.flags & DataIn::STATUS),
                    opcode::R2T => self.answer(R2t::ref_from_prefix(pdu).unwrap().0, data),
                    opcode::LOGIN_RESPONSE => done += 1,
                    other => panic!("a PDU {other:#x}"),
                }
            }
            if done == count && at == bytes.len() {
                drop(bytes);
                self.pipe.to_host.borrow_mut().clear();
                return;
            }
        }
        panic!("{done} of {count} commands ended")
    }

    /// The header and the length of the next PDU, if it is whole.
    fn next(&self, bytes: &[u8]) -> Option<(Bhs, usize)> {
        let (header, _) = Bhs::read_from_prefix(bytes).ok()?;
        let data = header.length.data_bytes() as usize;
        let digests =
            if self.digests.header { 4 } else { 0 } + if self.digests.data && data > 0 { 4 } else { 0 };
        let len = BHS_BYTES + data + padding(data) + digests;
        (bytes.len() >= len).then_some((header, len))
    }

    fn answer(&self, r2t: &R2t, data: &mut [Vec<u8>]) {
        let pdu = &mut data[r2t.itt.get() as usize];
        let (header, _) = DataOut::mut_from_prefix(pdu).unwrap();
        assert_eq!((r2t.offset.get(), r2t.wanted_bytes.get()), (0, header.length.data_bytes()));
        header.ttt = r2t.ttt;
        self.mend(pdu);
        self.pipe.to_server.borrow_mut().extend_from_slice(pdu);
    }
}
