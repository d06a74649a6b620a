//! A host that answers R2T out of bytes made beforehand, and allocates nothing itself.

use std::rc::Rc;

use ashlar_nvmeof::wire::fabrics::property;
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, Header, R2t, flags, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, io};
use zerocopy::{FromBytes, IntoBytes};

use crate::bytes::{self, Digests, Identity};
use crate::world::{Pipe, TestEnv};

pub const NQN: &str = "nqn.2026-11.io.ashlar:test";
/// Turns in which an answer must come.
const TURNS_MAX: usize = 10_000;
/// A write of more blocks than this waits for R2T; the capsule holds 8 KiB.
const BLOCKS_IN_CAPSULE: u32 = 16;

/// A controller with one I/O queue.
pub struct Host {
    env: TestEnv,
    io: Rc<Pipe>,
    digests: Digests,
    /// The controller lasts as long as its admin connection.
    _admin: Rc<Pipe>,
}

/// Commands to be sent at once.
pub struct Batch {
    commands: u16,
    capsules: Vec<u8>,
    /// The H2CData of each command that gets an R2T, in its place; the tag is filled in.
    data: Vec<Vec<u8>>,
}

/// Turns until so many completions are there, all successful; answers R2T out of `data`. DW0 of the last.
fn await_completions(env: &TestEnv, pipe: &Pipe, count: u16, digests: Digests, data: &mut [Vec<u8>]) -> u32 {
    let (mut done, mut at, mut dw0) = (0, 0, 0);
    for _ in 0..TURNS_MAX {
        env.turn();
        let bytes = pipe.to_host.borrow();
        while let Some((header, _)) = Header::read_from_prefix(&bytes[at..]).ok()
            && bytes.len() - at >= header.plen.get() as usize
        {
            let pdu = &bytes[at..at + header.plen.get() as usize];
            at += pdu.len();
            match header.kind {
                kind::CAPSULE_RESP => {
                    let (pdu, _) = CapsuleResp::read_from_prefix(pdu).unwrap();
                    assert_eq!(pdu.cqe.status.get(), 0, "{pdu:?}");
                    (done, dw0) = (done + 1, pdu.cqe.dw0.get());
                }
                kind::C2H_DATA => done += u16::from(header.flags & flags::SUCCESS != 0),
                kind::R2T => answer(pipe, R2t::ref_from_prefix(pdu).unwrap().0, digests, data),
                kind::IC_RESP => done += 1,
                other => panic!("a PDU of type {other:#x}"),
            }
        }
        if done == count && at == bytes.len() {
            drop(bytes);
            pipe.to_host.borrow_mut().clear();
            return dw0;
        }
    }
    panic!("{done} of {count} commands completed")
}

fn answer(pipe: &Pipe, r2t: &R2t, digests: Digests, data: &mut [Vec<u8>]) {
    let pdu = &mut data[usize::from(r2t.cccid.get())];
    let (header, _) = DataPdu::mut_from_prefix(pdu).unwrap();
    assert_eq!((r2t.offset, r2t.length), (header.offset, header.length), "an R2T for all of the data");
    header.ttag = r2t.ttag;
    bytes::mend_header_digest(digests, pdu, size_of::<DataPdu>());
    pipe.to_server.borrow_mut().extend_from_slice(pdu);
}

impl Host {
    /// Connects an admin queue, enables the controller, and connects an I/O queue of `entries`.
    pub fn connect(env: &TestEnv, digests: Digests, entries: u16) -> Self {
        let identity = Identity {
            host_id: [1; 16],
            host_nqn: "nqn.2014-08.org.example:host".into(),
            subsystem: NQN.into(),
        };
        let (admin, io) = (env.dial(), env.dial());
        let call = |pipe: &Pipe, bytes: &[u8]| {
            pipe.to_server.borrow_mut().extend_from_slice(bytes);
            await_completions(env, pipe, 1, digests, &mut [])
        };
        call(&admin, &bytes::ic_req(digests));
        let data = bytes::connect_data(&identity, 0xFFFF);
        let cntlid = call(&admin, &bytes::capsule(digests, &bytes::connect(0, 0, 31, 0), &data));
        let enable = bytes::property_set(0, property::CONFIGURATION, 4 << 20 | 6 << 16 | 1);
        call(&admin, &bytes::capsule(digests, &enable, &[]));
        call(&io, &bytes::ic_req(digests));
        let data = bytes::connect_data(&identity, cntlid as u16);
        call(&io, &bytes::capsule(digests, &bytes::connect(0, 1, entries - 1, 0), &data));
        Self { env: env.clone(), io, digests, _admin: admin }
    }

    /// A batch of these opcodes and numbers of blocks, each in its own part of a volume of `blocks`.
    pub fn batch(&self, commands: impl Iterator<Item = (u8, u32)>, blocks: u64) -> Batch {
        let mut batch = Batch { commands: 0, capsules: Vec::new(), data: Vec::new() };
        for (cid, (opcode, count)) in (0..).zip(commands) {
            let payload = vec![cid as u8; count as usize * 512];
            let mut sqe = bytes::io(opcode, cid, u64::from(cid) * 256 % blocks, count);
            let mut in_capsule: &[u8] = &[];
            let mut by_r2t = Vec::new();
            if opcode == io::WRITE && count <= BLOCKS_IN_CAPSULE {
                sqe.sgl.identifier = SGL_IN_CAPSULE;
                in_capsule = &payload;
            } else if opcode == io::WRITE {
                by_r2t = bytes::h2c_data(self.digests, cid, 0, 0, &payload, true);
            }
            batch.capsules.extend(bytes::capsule(self.digests, &sqe, in_capsule));
            batch.data.push(by_r2t);
            batch.commands += 1;
        }
        batch
    }

    /// Sends a batch and waits for its end.
    pub fn run(&mut self, batch: &mut Batch) {
        self.io.to_server.borrow_mut().extend_from_slice(batch.capsules.as_bytes());
        await_completions(&self.env, &self.io, batch.commands, self.digests, &mut batch.data);
    }
}
