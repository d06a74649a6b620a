//! What a session makes of the bytes it receives.
//!
//! PDUs are parsed where they lie in the receive buffer; the data of Data-In are looked at (digest), copied into
//! the slot's payload if somebody wants them, and otherwise passed over. Only the start of a PDU that has not
//! arrived whole is kept from one call to the next, so one buffer serves any number of sessions.

use ashlar_codec::{crc32c, crc32c_append};
use zerocopy::FromBytes;

use super::wire::{Answer, BHS_BYTES, answer, padding};
use crate::client::error::protocol;
use crate::client::{Digests, Result};

/// Data of any PDU but Data-In, at most, in bytes: Linux drops a connection that carries more.
const SMALL_DATA_BYTES_MAX: u32 = 8192;
/// Bytes of an unfinished PDU that may have to be kept: any but Data-In, whole, with both digests.
pub(super) const CARRY_BYTES_MAX: usize = BHS_BYTES + SMALL_DATA_BYTES_MAX as usize + 8;

/// What the parser tells its session.
pub(super) trait Sink {
    /// A Data-In begins. Returns the slot of its command.
    fn data_begins(&mut self, header: &Answer) -> Result<u16>;
    /// Data for `slot` at `offset` of its transfer.
    fn data(&mut self, slot: u16, offset: u32, bytes: &[u8]);
    /// A Data-In has arrived whole.
    fn data_ends(&mut self, slot: u16, header: &Answer) -> Result<()>;
    /// Any other PDU, with its data.
    fn pdu(&mut self, header: &Answer, data: &[u8]) -> Result<()>;
}

/// A Data-In that is arriving.
#[derive(Clone, Copy)]
struct Incoming {
    header: Answer,
    slot: u16,
    offset: u32,
    left: u32,
    /// Padding and digest that follow the data, in bytes.
    trailer: usize,
    crc: u32,
}

/// The receive side of a session.
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
            let step = match &mut self.incoming {
                Some(_) => self.data(rest, sink)?,
                None => self.header(rest, sink)?,
            };
            match step {
                Some(step) => used += step,
                None => return Ok(used),
            }
        }
    }

    /// Goes on with the data of a Data-In. None if it needs more bytes.
    #[inline]
    fn data(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<Option<usize>> {
        let Some(now) = &mut self.incoming else { return Ok(None) };
        let mut used = 0;
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
            if now.left > 0 {
                return Ok(Some(take));
            }
            used = take;
        }
        let Some(trailer) = rest[used..].get(..now.trailer) else {
            return Ok((used > 0).then_some(used));
        };
        if self.digests.data {
            check_data_digest(now.crc, trailer)?;
        }
        used += trailer.len();
        sink.data_ends(now.slot, &now.header)?;
        self.incoming = None;
        Ok(Some(used))
    }

    /// Takes the header of the next PDU, and all of it if it is not a Data-In. None if it needs more bytes.
    #[inline]
    fn header(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<Option<usize>> {
        let start = BHS_BYTES + self.digests.header_bytes();
        if rest.len() < start {
            return Ok(None);
        }
        let Ok((header, after)) = Answer::ref_from_prefix(rest) else { return Ok(None) };
        if self.digests.header && after.first_chunk::<4>() != Some(&crc32c(&rest[..BHS_BYTES]).to_le_bytes())
        {
            return protocol(format!("opcode {:#04x} with a wrong header digest", header.opcode));
        }
        if header.ahs_words != 0 {
            return protocol(format!("opcode {:#04x} with additional header segments", header.opcode));
        }
        let length = header.data_bytes();
        let digest = if length > 0 { self.digests.data_bytes() } else { 0 };
        let trailer = padding(length) as usize + digest;
        if header.opcode == answer::DATA_IN {
            let slot = sink.data_begins(header)?;
            if length == 0 {
                sink.data_ends(slot, header)?;
            } else {
                let (header, offset) = (*header, header.offset.get());
                self.incoming =
                    Some(Incoming { header, slot, offset, left: length, trailer, crc: crc32c(&[]) });
            }
            return Ok(Some(start));
        }
        if length > SMALL_DATA_BYTES_MAX {
            return protocol(format!("opcode {:#04x} with {length} bytes of data", header.opcode));
        }
        let end = start + length as usize;
        let Some(trailer) = rest.get(end..end + trailer) else { return Ok(None) };
        let data = &rest[start..end];
        if digest > 0 {
            check_data_digest(crc32c(data), trailer)?;
        }
        sink.pdu(header, data)?;
        Ok(Some(end + trailer.len()))
    }
}

/// Checks the digest at the end of `trailer`. It covers the padding before it as well as the data, whose CRC is
/// `crc`.
fn check_data_digest(crc: u32, trailer: &[u8]) -> Result<()> {
    let Some((padding, digest)) = trailer.split_last_chunk::<4>() else { return Ok(()) };
    if crc32c_append(crc, padding).to_le_bytes() != *digest {
        return protocol("data with a wrong digest");
    }
    Ok(())
}
