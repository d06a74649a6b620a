//! What a queue makes of the bytes it receives.
//!
//! PDUs are parsed where they lie in the receive buffer; the data of C2HData are looked at (digest), copied
//! into the slot's payload if somebody wants them, and otherwise passed over. Only the start of a PDU that has
//! not arrived whole is kept from one call to the next, so one buffer serves any number of connections.

use ashlar_codec::{crc32c, crc32c_append};
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, Header, IcResp, R2t, TermReq, flags, kind};
use ashlar_nvmeof::wire::{Cqe, Status};
use zerocopy::FromBytes;

use super::error::protocol;
use super::{ClientError, Digests, Result};

/// The length of a receive buffer that suits [`Queue::poll`](super::Queue::poll), in bytes.
pub const RX_BYTES: usize = 512 << 10;

/// Bytes of an unfinished PDU start that may have to be kept: the header and up to 255 bytes of offset.
pub(super) const CARRY_BYTES_MAX: usize = 512;

/// What the parser tells its queue.
pub(super) trait Sink {
    /// ICResp arrived.
    fn ic_resp(&mut self, resp: &IcResp) -> Result<()>;
    /// Data for command `cid` begin. Returns its slot.
    fn data_begins(&mut self, cid: u16, offset: u32, length: u32, last: bool) -> Result<u16>;
    /// Data for `slot` at `offset` of its transfer.
    fn data(&mut self, slot: u16, offset: u32, bytes: &[u8]);
    /// The data of `slot` did not fit their digest.
    fn data_digest_wrong(&mut self, slot: u16);
    /// A completion arrived, or was implied by the SUCCESS flag.
    fn completion(&mut self, cqe: &Cqe) -> Result<()>;
    /// R2T arrived.
    fn r2t(&mut self, r2t: &R2t) -> Result<()>;
}

/// Data that are arriving.
#[derive(Clone, Copy)]
struct Incoming {
    cid: u16,
    slot: u16,
    success: bool,
    offset: u32,
    left: u32,
    crc: u32,
}

/// The receive side of a connection.
pub(super) struct Rx {
    digests: Digests,
    incoming: Option<Incoming>,
}

impl Rx {
    pub(super) const fn new(digests: Digests) -> Self {
        Self { digests, incoming: None }
    }

    /// Parses `bytes` and returns how many were used; the rest is the start of something unfinished.
    pub(super) fn parse(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let step = match self.incoming {
                Some(incoming) => self.data(incoming, rest, sink)?,
                None => self.pdu(rest, sink)?,
            };
            match step {
                Some(step) => used += step,
                None => return Ok(used),
            }
        }
    }

    /// Goes on with the data of a C2HData. None if it needs more bytes.
    #[inline]
    fn data(&mut self, mut now: Incoming, rest: &[u8], sink: &mut impl Sink) -> Result<Option<usize>> {
        if now.left > 0 {
            if rest.is_empty() {
                return Ok(None);
            }
            let take = rest.len().min(now.left as usize);
            let piece = &rest[..take];
            if self.digests.data {
                now.crc = crc32c_append(now.crc, piece);
            }
            sink.data(now.slot, now.offset, piece);
            now.offset += take as u32;
            now.left -= take as u32;
            if now.left > 0 || self.digests.data {
                self.incoming = Some(now);
            } else {
                self.finish(now, sink)?;
            }
            return Ok(Some(take));
        }
        let Some(digest) = rest.first_chunk::<4>() else { return Ok(None) };
        if u32::from_le_bytes(*digest) != now.crc {
            sink.data_digest_wrong(now.slot);
        }
        self.finish(now, sink)?;
        Ok(Some(4))
    }

    #[inline]
    fn finish(&mut self, now: Incoming, sink: &mut impl Sink) -> Result<()> {
        self.incoming = None;
        if now.success { sink.completion(&Cqe::new(now.cid, Status::SUCCESS, 0, 0)) } else { Ok(()) }
    }

    /// Takes the header of the next PDU. None if it needs more bytes.
    #[inline]
    fn pdu(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<Option<usize>> {
        let Ok((header, _)) = Header::ref_from_prefix(rest) else { return Ok(None) };
        match header.kind {
            kind::C2H_DATA => self.c2h_data(rest, sink),
            kind::CAPSULE_RESP => {
                let Some((pdu, used)) = self.header_only::<CapsuleResp>(rest, "CapsuleResp")? else {
                    return Ok(None);
                };
                sink.completion(&pdu.cqe)?;
                Ok(Some(used))
            }
            kind::R2T => {
                let Some((pdu, used)) = self.header_only::<R2t>(rest, "R2T")? else { return Ok(None) };
                sink.r2t(pdu)?;
                Ok(Some(used))
            }
            kind::IC_RESP => {
                let Ok((pdu, _)) = IcResp::ref_from_prefix(rest) else { return Ok(None) };
                if pdu.header.plen.get() != 128 || pdu.header.hlen != 128 {
                    return protocol("ICResp whose length is not 128");
                }
                sink.ic_resp(pdu)?;
                Ok(Some(size_of::<IcResp>()))
            }
            kind::C2H_TERM => {
                let Ok((pdu, _)) = TermReq::ref_from_prefix(rest) else { return Ok(None) };
                Err(ClientError::Terminated { fes: pdu.fes.get(), fei: pdu.fei.get() })
            }
            other => protocol(format!("a PDU of type {other:#04x}")),
        }
    }

    #[inline]
    fn c2h_data(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<Option<usize>> {
        let Ok((pdu, _)) = DataPdu::ref_from_prefix(rest) else { return Ok(None) };
        let header_end = size_of::<DataPdu>() + self.digests.header_bytes();
        let pdo = usize::from(pdu.header.pdo);
        if pdo < header_end {
            return protocol(format!("C2HData whose data offset {pdo} lies in its header of {header_end}"));
        }
        if rest.len() < pdo {
            return Ok(None);
        }
        self.check_header(&pdu.header, size_of::<DataPdu>(), rest, "C2HData")?;
        let length = pdu.length.get();
        let plen = pdo + length as usize + self.digests.data_bytes();
        if pdu.header.plen.get() as usize != plen || length == 0 {
            return protocol(format!("C2HData of {length} bytes in a PDU of {}", pdu.header.plen));
        }
        if (pdu.header.flags & flags::DDGST != 0) != self.digests.data {
            return protocol("C2HData whose DDGST flag is not what was agreed");
        }
        let last = pdu.header.flags & flags::LAST != 0;
        let success = pdu.header.flags & flags::SUCCESS != 0;
        if success && !last {
            return protocol("C2HData with SUCCESS but not LAST");
        }
        let (cid, offset) = (pdu.cccid.get(), pdu.offset.get());
        let slot = sink.data_begins(cid, offset, length, last)?;
        self.incoming = Some(Incoming { cid, slot, success, offset, left: length, crc: crc32c(&[]) });
        Ok(Some(pdo))
    }

    /// A PDU of 24 bytes without data, and its length with its digest.
    fn header_only<'a, T>(&self, rest: &'a [u8], what: &str) -> Result<Option<(&'a T, usize)>>
    where
        T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
    {
        let total = size_of::<T>() + self.digests.header_bytes();
        if rest.len() < total {
            return Ok(None);
        }
        let Ok((header, _)) = Header::ref_from_prefix(rest) else { return Ok(None) };
        self.check_header(header, size_of::<T>(), rest, what)?;
        if header.plen.get() as usize != total {
            return protocol(format!("{what} of {} bytes, not {total}", header.plen));
        }
        let Ok((pdu, _)) = T::ref_from_prefix(rest) else { return Ok(None) };
        Ok(Some((pdu, total)))
    }

    /// Checks HLEN, the HDGST flag and the header digest.
    #[inline]
    fn check_header(&self, header: &Header, hlen: usize, rest: &[u8], what: &str) -> Result<()> {
        if usize::from(header.hlen) != hlen {
            return protocol(format!("{what} whose HLEN is {}, not {hlen}", header.hlen));
        }
        if (header.flags & flags::HDGST != 0) != self.digests.header {
            return protocol(format!("{what} whose HDGST flag is not what was agreed"));
        }
        if self.digests.header {
            let received = rest[hlen..].first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
            if received != Some(crc32c(&rest[..hlen])) {
                return protocol(format!("{what} with a wrong header digest"));
            }
        }
        Ok(())
    }
}
