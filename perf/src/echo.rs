//! A server that answers in the shape of NVMe/TCP and does nothing else: what it reaches is what this kernel's
//! sockets allow a single-threaded epoll server on this machine.
//!
//! It takes command capsules from the first byte on, with the data of writes in them, and answers a read with
//! one C2HData of zeros that carries the SUCCESS flag and anything else with a response capsule. There is no
//! set-up, no queue, no digest and no namespace. All answers to one receive leave in one send.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use ashlar_nvmeof::wire::pdu::{CapsuleCmd, CapsuleResp, DataPdu, Header, flags, kind};
use ashlar_nvmeof::wire::sqe::io;
use ashlar_nvmeof::wire::{Cqe, Status};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes received at once, at most.
const RX_BYTES: usize = 256 << 10;
/// The largest read answered, in bytes.
const DATA_BYTES_MAX: usize = 1 << 20;
/// Pieces given to the kernel in one call.
const PIECES_MAX: usize = 64;
/// Connections, at most.
const CONNECTIONS_MAX: usize = 1024;

/// Answers on `listener` until a client asks for more than 1 MiB at once, which none of ours does, or the
/// listener fails. Spins on epoll unless `blocking`.
///
/// # Errors
/// The listener or epoll fails. A failing connection is only closed.
pub fn serve(listener: &TcpListener, blocking: bool) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    listener.set_nonblocking(true)?;
    let interest = epoll::EventFlags::IN;
    epoll::add(&poll, listener.as_fd(), epoll::EventData::new_u64(CONNECTIONS_MAX as u64), interest)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Vec::with_capacity(64);
    let mut shared = Shared { rx: vec![0; RX_BYTES], zeros: vec![0; DATA_BYTES_MAX] };
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        events.clear();
        let timeout = if blocking { None } else { Some(&no_wait) };
        match epoll::wait(&poll, spare_capacity(&mut events), timeout) {
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::INTR => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let index = event.data.u64() as usize;
            if index == CONNECTIONS_MAX {
                accept(listener, &poll, &mut peers)?;
            } else if let Some(peer) = &mut peers[index]
                && peer.turn(&mut shared, &poll, index).is_err()
            {
                peers[index] = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: impl AsFd, peers: &mut Vec<Option<Peer>>) -> Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let free = peers.iter().position(Option::is_none);
    let index = free.unwrap_or(peers.len());
    if index == CONNECTIONS_MAX {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    epoll::add(&poll, &stream, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
    let peer = Some(Peer { stream, carry: Vec::new(), skip: 0, tx: Answers::default(), waiting: false });
    if free.is_some() {
        peers[index] = peer
    } else {
        peers.push(peer)
    }
    Ok(())
}

/// Buffers that all connections use in turn.
struct Shared {
    rx: Vec<u8>,
    zeros: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    /// The start of a capsule that has not arrived whole.
    carry: Vec<u8>,
    /// Bytes of a write's data still to pass over.
    skip: usize,
    tx: Answers,
    /// Whether epoll tells when the socket takes more.
    waiting: bool,
}

impl Peer {
    /// Receives once, answers, sends. While answers are stuck nothing is received.
    fn turn(&mut self, shared: &mut Shared, poll: impl AsFd, index: usize) -> Result<()> {
        if self.tx.is_empty() {
            self.receive(shared)?;
        }
        let stuck = !self.tx.flush(&self.stream, &shared.zeros)?;
        if stuck != self.waiting {
            let interest = if stuck { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(poll, &self.stream, epoll::EventData::new_u64(index as u64), interest)?;
            self.waiting = stuck;
        }
        Ok(())
    }

    fn receive(&mut self, shared: &mut Shared) -> Result<()> {
        let carried = self.carry.len();
        shared.rx[..carried].copy_from_slice(&self.carry);
        let received = match self.stream.read(&mut shared.rx[carried..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.carry.clear();
        let mut rest = &shared.rx[..carried + received];
        loop {
            let skipped = self.skip.min(rest.len());
            (self.skip, rest) = (self.skip - skipped, &rest[skipped..]);
            let Ok((capsule, after)) = CapsuleCmd::ref_from_prefix(rest) else { break };
            self.skip = (capsule.header.plen.get() as usize)
                .checked_sub(size_of::<CapsuleCmd>())
                .ok_or(ErrorKind::InvalidData)?;
            self.tx.answer(capsule)?;
            rest = after;
        }
        self.carry.extend_from_slice(rest);
        Ok(())
    }
}

/// A piece of an answer: headers from the buffer, or so many zeros.
#[derive(Clone, Copy)]
enum Piece {
    Header { start: usize, end: usize },
    Zeros(usize),
}

/// Answers not yet sent.
#[derive(Default)]
struct Answers {
    headers: Vec<u8>,
    pieces: VecDeque<Piece>,
}

impl Answers {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn answer(&mut self, capsule: &CapsuleCmd) -> Result<()> {
        let cid = capsule.sqe.cid;
        let data = if capsule.sqe.opcode == io::READ { capsule.sqe.sgl.length.get() as usize } else { 0 };
        if data > DATA_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let header =
            |kind, flags, pdo| Header { kind, flags, hlen: 24, pdo, plen: U32::new(24 + data as u32) };
        if data == 0 {
            let cqe = Cqe::new(cid.get(), Status::SUCCESS, 0, 0);
            self.header(CapsuleResp { header: header(kind::CAPSULE_RESP, 0, 0), cqe }.as_bytes());
            return Ok(());
        }
        let pdu = DataPdu {
            header: header(kind::C2H_DATA, flags::LAST | flags::SUCCESS, 24),
            cccid: cid,
            ttag: U16::ZERO,
            offset: U32::ZERO,
            length: U32::new(data as u32),
            reserved: [0; 4],
        };
        self.header(pdu.as_bytes());
        self.pieces.push_back(Piece::Zeros(data));
        Ok(())
    }

    fn header(&mut self, bytes: &[u8]) {
        let at = self.headers.len();
        self.headers.extend_from_slice(bytes);
        match self.pieces.back_mut() {
            Some(Piece::Header { end, .. }) => *end = at + bytes.len(),
            _ => self.pieces.push_back(Piece::Header { start: at, end: at + bytes.len() }),
        }
    }

    /// Sends until all is gone or the socket takes no more. True if all is gone.
    fn flush(&mut self, mut stream: &TcpStream, zeros: &[u8]) -> Result<bool> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for piece in self.pieces.iter().take(PIECES_MAX) {
                slices[count] = IoSlice::new(match *piece {
                    Piece::Header { start, end } => &self.headers[start..end],
                    Piece::Zeros(len) => &zeros[..len],
                });
                count += 1;
            }
            match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => self.advance(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.headers.clear();
        Ok(true)
    }

    fn advance(&mut self, mut sent: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let len = match piece {
                Piece::Header { start, end } => *end - *start,
                Piece::Zeros(len) => *len,
            };
            if sent < len {
                match piece {
                    Piece::Header { start, .. } => *start += sent,
                    Piece::Zeros(len) => *len -= sent,
                }
                return;
            }
            sent -= len;
            self.pieces.pop_front();
        }
    }
}
