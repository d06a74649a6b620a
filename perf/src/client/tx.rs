//! What a queue or session has still to send: headers, laid end to end, and references to the slots' payloads.
//!
//! Headers are copied (they are small, and many adjacent ones become one piece), payloads are not.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;

use super::{ClientError, Result};

/// Pieces given to the kernel in one call.
const PIECES_MAX: usize = 128;
/// Sent header bytes that are kept before the rest is moved down.
const SENT_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy)]
enum Piece {
    /// `len` bytes of headers from absolute position `start`.
    Header { start: u64, len: u32 },
    /// `len` bytes of `slot`'s payload from `start`.
    Payload { slot: u16, start: u32, len: u32 },
}

/// The send side of a connection.
#[derive(Default)]
pub(crate) struct Tx {
    headers: Vec<u8>,
    /// Absolute position of `headers[0]`.
    base: u64,
    pieces: VecDeque<Piece>,
}

impl Tx {
    pub(crate) fn header(&mut self, bytes: &[u8]) {
        let at = self.base + self.headers.len() as u64;
        self.headers.extend_from_slice(bytes);
        if let Some(Piece::Header { start, len }) = self.pieces.back_mut()
            && *start + u64::from(*len) == at
        {
            *len += bytes.len() as u32;
            return;
        }
        self.pieces.push_back(Piece::Header { start: at, len: bytes.len() as u32 });
    }

    pub(crate) fn payload(&mut self, slot: u16, start: u32, len: u32) {
        self.pieces.push_back(Piece::Payload { slot, start, len });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Sends until all is gone or the socket takes no more. True if all is gone.
    pub(crate) fn flush(&mut self, stream: &TcpStream, payloads: &[Box<[u8]>]) -> Result<bool> {
        while !self.pieces.is_empty() {
            let sent = match self.write(stream, payloads) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.compact();
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.advance(sent);
        }
        self.base += self.headers.len() as u64;
        self.headers.clear();
        Ok(true)
    }

    fn write(&self, mut stream: &TcpStream, payloads: &[Box<[u8]>]) -> std::io::Result<usize> {
        if let [piece] = self.pieces.as_slices().0
            && self.pieces.len() == 1
        {
            return stream.write(self.bytes(*piece, payloads));
        }
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for piece in self.pieces.iter().take(PIECES_MAX) {
            slices[count] = IoSlice::new(self.bytes(*piece, payloads));
            count += 1;
        }
        stream.write_vectored(&slices[..count])
    }

    fn bytes<'a>(&'a self, piece: Piece, payloads: &'a [Box<[u8]>]) -> &'a [u8] {
        match piece {
            Piece::Header { start, len } => {
                let from = (start - self.base) as usize;
                &self.headers[from..from + len as usize]
            }
            Piece::Payload { slot, start, len } => {
                &payloads[usize::from(slot)][start as usize..(start + len) as usize]
            }
        }
    }

    fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            let len = match front {
                Piece::Header { len, .. } | Piece::Payload { len, .. } => *len as usize,
            };
            if sent >= len {
                sent -= len;
                self.pieces.pop_front();
                continue;
            }
            match front {
                Piece::Header { start, len } => (*start, *len) = (*start + sent as u64, *len - sent as u32),
                Piece::Payload { start, len, .. } => {
                    (*start, *len) = (*start + sent as u32, *len - sent as u32);
                }
            }
            return;
        }
    }

    /// Gives up the headers already sent, so that a peer that reads slowly does not make this grow.
    fn compact(&mut self) {
        let first = self.pieces.iter().find_map(|piece| match piece {
            Piece::Header { start, .. } => Some(*start),
            Piece::Payload { .. } => None,
        });
        let kept_from = first.map_or(self.headers.len(), |start| (start - self.base) as usize);
        if kept_from >= SENT_BYTES_MAX {
            self.headers.drain(..kept_from);
            self.base += kept_from as u64;
        }
    }
}
