//! A small NVMe/TCP target in this process: one subsystem, one namespace in memory, a thread per connection.
//!
//! It does just enough for a host to come up and move data, and misbehaves on request.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ashlar_nvmeof::wire::pdu::{CapsuleCmd, CapsuleResp, DataPdu, Header, IcReq, IcResp, R2t, flags, kind};
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, admin, fabrics, io};
use ashlar_nvmeof::wire::{Cqe, Sqe, Status};
use ashlar_perf::client::Digests;
use ashlar_perf::client::raw::pdu;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

pub const BLOCKS: u64 = 4096;
pub const BLOCK_BYTES: u64 = 512;
/// MAXH2CDATA, small so that one R2T takes several H2CData.
const MAX_H2C_DATA: u32 = 8192;
/// Data of one C2HData and of one R2T, so that large transfers take several.
const PIECE_BYTES: u32 = 20_480;

/// What the target does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    #[default]
    None,
    /// Acknowledges a write and does not do it, once in 50.
    LostWrite,
    /// Flips one bit of the data of every read, after the digest was made.
    BitFlip,
    /// Completes every read twice.
    CompletesTwice,
    /// Says a read succeeded after half its data.
    ShortRead,
    /// Closes the connection at every 50th I/O command, before doing it.
    Hangs,
}

pub struct Fake {
    pub addr: String,
    shared: Arc<Shared>,
}

struct Shared {
    flaw: Flaw,
    disk: Mutex<Vec<u8>>,
    commands: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl Fake {
    pub fn start(flaw: Flaw) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            flaw,
            disk: Mutex::new(vec![0; (BLOCKS * BLOCK_BYTES) as usize]),
            commands: AtomicU64::new(0),
            connections: Mutex::new(Vec::new()),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                serving.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&serving);
                let (digests, early) = (Digests::NONE, VecDeque::new());
                std::thread::spawn(move || Connection { stream, shared, digests, qid: 0, early }.run());
            }
        });
        Self { addr, shared }
    }

    /// I/O commands received so far.
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Closes every connection.
    pub fn drop_connections(&self) {
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
    digests: Digests,
    qid: u16,
    /// Capsules that came while data were awaited.
    early: VecDeque<(Vec<u8>, Vec<u8>)>,
}

/// The connection is over.
struct Over;

impl<E: std::error::Error> From<E> for Over {
    fn from(_: E) -> Self {
        Self
    }
}

impl Connection {
    fn run(mut self) {
        let _ = self.serve();
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn serve(&mut self) -> Result<(), Over> {
        let (bytes, _) = self.receive()?;
        let request = IcReq::read_from_bytes(&bytes)?;
        let mut response = IcResp::new_zeroed();
        response.header = Header { kind: kind::IC_RESP, flags: 0, hlen: 128, pdo: 0, plen: U32::new(128) };
        response.dgst = request.dgst;
        response.max_h2c_data = U32::new(MAX_H2C_DATA);
        self.stream.write_all(response.as_bytes())?;
        self.digests = Digests { header: request.dgst & 1 != 0, data: request.dgst & 2 != 0 };
        loop {
            let (bytes, data) = match self.early.pop_front() {
                Some(early) => early,
                None => self.receive()?,
            };
            let capsule = CapsuleCmd::read_from_bytes(&bytes)?;
            self.command(&capsule.sqe, &data)?;
        }
    }

    /// A PDU: its header and its data. Digests are checked.
    fn receive(&mut self) -> Result<(Vec<u8>, Vec<u8>), Over> {
        let mut common = [0; 8];
        self.stream.read_exact(&mut common)?;
        let header = Header::read_from_bytes(&common)?;
        let mut bytes = vec![0; header.plen.get() as usize];
        bytes[..8].copy_from_slice(&common);
        self.stream.read_exact(&mut bytes[8..])?;
        let start = bytes[..usize::from(header.hlen)].to_vec();
        let trailer = if header.flags & flags::DDGST != 0 { 4 } else { 0 };
        let data = match header.pdo {
            0 => Vec::new(),
            pdo => bytes[usize::from(pdo)..bytes.len() - trailer].to_vec(),
        };
        let again = pdu(&start, &data, self.digests);
        assert_eq!(bytes, again, "lengths, flags and digests are as this PDU should have them");
        Ok((start, data))
    }

    fn command(&mut self, sqe: &Sqe, data: &[u8]) -> Result<(), Over> {
        if sqe.opcode == admin::FABRICS {
            return self.fabrics(sqe);
        }
        if self.qid == 0 { self.admin(sqe) } else { self.io(sqe, data) }
    }

    fn fabrics(&mut self, sqe: &Sqe) -> Result<(), Over> {
        match sqe.fabrics_type() {
            fabrics::CONNECT => {
                self.qid = (sqe.cdw10.get() >> 16) as u16;
                self.complete(sqe, Status::SUCCESS, 7, 0)
            }
            // CAP: 128 entries. CSTS: ready. VS and CC are not asked for.
            fabrics::PROPERTY_GET if sqe.cdw11.get() == 0 => self.complete(sqe, Status::SUCCESS, 127, 0),
            fabrics::PROPERTY_GET => self.complete(sqe, Status::SUCCESS, 1, 0),
            _ => self.complete(sqe, Status::SUCCESS, 0, 0),
        }
    }

    fn admin(&mut self, sqe: &Sqe) -> Result<(), Over> {
        match sqe.opcode {
            admin::IDENTIFY => {
                let mut data = vec![0; 4096];
                if sqe.cdw10.get() & 0xFF == 0 {
                    data[..8].copy_from_slice(&BLOCKS.to_le_bytes());
                    data[130] = 9;
                } else {
                    data[77] = 5;
                    data[78] = 7;
                    data[1792..1796].copy_from_slice(&((64 + 8192) / 16u32).to_le_bytes());
                }
                self.send_data(sqe, &data)
            }
            admin::SET_FEATURES => self.complete(sqe, Status::SUCCESS, sqe.cdw11.get(), 0),
            admin::KEEP_ALIVE => self.complete(sqe, Status::SUCCESS, 0, 0),
            _ => self.complete(sqe, Status::INVALID_OPCODE, 0, 0),
        }
    }

    fn io(&mut self, sqe: &Sqe, data: &[u8]) -> Result<(), Over> {
        let number = self.shared.commands.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shared.flaw == Flaw::Hangs && number.is_multiple_of(50) {
            return Err(Over);
        }
        let start = (sqe.cdw10_11() * BLOCK_BYTES) as usize;
        let len = ((u64::from(sqe.cdw12.get() & 0xFFFF) + 1) * BLOCK_BYTES) as usize;
        if sqe.opcode != io::FLUSH && start + len > (BLOCKS * BLOCK_BYTES) as usize {
            return self.complete(sqe, Status::LBA_OUT_OF_RANGE, 0, 0);
        }
        let range = start..start + len;
        match sqe.opcode {
            io::READ => {
                let data = self.shared.disk.lock().unwrap()[range].to_vec();
                self.send_data(sqe, &data)
            }
            io::WRITE => {
                let data = self.take_data(sqe, data, len)?;
                if self.shared.flaw != Flaw::LostWrite || !number.is_multiple_of(50) {
                    self.shared.disk.lock().unwrap()[range].copy_from_slice(&data);
                }
                self.complete(sqe, Status::SUCCESS, 0, 0)
            }
            io::COMPARE => {
                let data = self.take_data(sqe, data, len)?;
                let same = self.shared.disk.lock().unwrap()[range] == data[..];
                self.complete(sqe, if same { Status::SUCCESS } else { Status::COMPARE_FAILURE }, 0, 0)
            }
            io::WRITE_ZEROES => {
                self.shared.disk.lock().unwrap()[range].fill(0);
                self.complete(sqe, Status::SUCCESS, 0, 0)
            }
            io::FLUSH => self.complete(sqe, Status::SUCCESS, 0, 0),
            _ => self.complete(sqe, Status::INVALID_OPCODE, 0, 0),
        }
    }

    /// The data of a write: those in the capsule, or asked for piece by piece.
    fn take_data(&mut self, sqe: &Sqe, in_capsule: &[u8], len: usize) -> Result<Vec<u8>, Over> {
        assert_eq!(sqe.sgl.length.get() as usize, len);
        if sqe.sgl.identifier == SGL_IN_CAPSULE {
            assert_eq!(in_capsule.len(), len);
            return Ok(in_capsule.to_vec());
        }
        let mut data = Vec::new();
        while data.len() < len {
            let wanted = (len - data.len()).min(PIECE_BYTES as usize);
            self.send_r2t(sqe, data.len() as u32, wanted as u32)?;
            let end = data.len() + wanted;
            while data.len() < end {
                let (header, piece) = self.receive()?;
                if header[0] == kind::CAPSULE_CMD {
                    self.early.push_back((header, piece));
                    continue;
                }
                let pdu = DataPdu::read_from_bytes(&header)?;
                assert_eq!((pdu.cccid, pdu.ttag), (sqe.cid, U16::new(99)));
                assert_eq!((pdu.offset.get() as usize, pdu.length.get() as usize), (data.len(), piece.len()));
                assert!(piece.len() <= MAX_H2C_DATA as usize);
                data.extend_from_slice(&piece);
                assert_eq!(pdu.header.flags & flags::LAST != 0, data.len() == end);
            }
        }
        Ok(data)
    }

    fn send_r2t(&mut self, sqe: &Sqe, offset: u32, length: u32) -> Result<(), Over> {
        let mut r2t = R2t::new_zeroed();
        r2t.header = Header { kind: kind::R2T, flags: 0, hlen: 24, pdo: 0, plen: U32::new(24) };
        (r2t.cccid, r2t.ttag) = (sqe.cid, U16::new(99));
        (r2t.offset, r2t.length) = (U32::new(offset), U32::new(length));
        Ok(self.stream.write_all(&pdu(r2t.as_bytes(), &[], self.digests))?)
    }

    /// Sends `data` in pieces; the last says that the command succeeded.
    fn send_data(&mut self, sqe: &Sqe, data: &[u8]) -> Result<(), Over> {
        let flaw = if self.qid == 0 { Flaw::None } else { self.shared.flaw };
        let data = if flaw == Flaw::ShortRead { &data[..data.len() / 2] } else { data };
        let pieces = data.chunks(PIECE_BYTES as usize);
        let last = pieces.len() - 1;
        for (number, piece) in pieces.enumerate() {
            let mut header = DataPdu::new_zeroed();
            header.header = Header { kind: kind::C2H_DATA, flags: 0, hlen: 24, pdo: 0, plen: U32::ZERO };
            if number == last && flaw != Flaw::ShortRead {
                header.header.flags = flags::LAST | flags::SUCCESS;
            }
            header.cccid = sqe.cid;
            header.offset = U32::new(number as u32 * PIECE_BYTES);
            header.length = U32::new(piece.len() as u32);
            let mut bytes = pdu(header.as_bytes(), piece, self.digests);
            if flaw == Flaw::BitFlip {
                bytes[24 + 4 + 100] ^= 1;
            }
            self.stream.write_all(&bytes)?;
        }
        if matches!(flaw, Flaw::CompletesTwice | Flaw::ShortRead) {
            self.complete(sqe, Status::SUCCESS, 0, 0)?;
        }
        Ok(())
    }

    fn complete(&mut self, sqe: &Sqe, status: Status, dw0: u32, dw1: u32) -> Result<(), Over> {
        let header = Header { kind: kind::CAPSULE_RESP, flags: 0, hlen: 24, pdo: 0, plen: U32::new(24) };
        let pdu_bytes = CapsuleResp { header, cqe: Cqe::new(sqe.cid.get(), status, dw0, dw1) };
        Ok(self.stream.write_all(&pdu(pdu_bytes.as_bytes(), &[], self.digests))?)
    }
}
