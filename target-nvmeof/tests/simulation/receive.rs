//! What the target sends, PDU by PDU (TCP, section 3.6): checked, and put where it belongs.

use ashlar_codec::crc32c;
use ashlar_env::Rng;
use ashlar_nvmeof::wire::Status;
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, Header, R2t, flags, kind};
use zerocopy::FromBytes;

use crate::bytes::{self, Digests};
use crate::queue::{Inner, Pending, Reply, State};

/// No PDU of the target is larger.
const PDU_BYTES_MAX: usize = (1 << 20) + 256;

impl Inner {
    /// Takes in every whole PDU.
    pub fn take_in(&self, state: &mut State) -> Result<(), String> {
        while let Some(header) = state.input.first_chunk::<8>() {
            let header = Header::read_from_bytes(header).expect("eight bytes");
            let len = header.plen.get() as usize;
            if !(24..=PDU_BYTES_MAX).contains(&len) {
                return Err(format!("a PDU with the header {header:?}"));
            }
            if state.input.len() < len {
                return Ok(());
            }
            let rest = state.input.split_off(len);
            let pdu = std::mem::replace(&mut state.input, rest);
            self.take_pdu(header, &pdu, state).map_err(|what| format!("{what}, in a PDU with {header:?}"))?;
        }
        Ok(())
    }

    fn take_pdu(&self, header: Header, pdu: &[u8], state: &mut State) -> Result<(), String> {
        let Digests { header: digest, .. } = self.manners.digests;
        if header.kind == kind::C2H_TERM {
            return Err(format!("the target ended the connection: {pdu:02x?}"));
        }
        if header.hlen != 24 || (header.flags & flags::HDGST != 0) != digest {
            return Err("the header is wrong".into());
        }
        if digest && pdu.get(24..28) != Some(&crc32c(&pdu[..24]).to_le_bytes()) {
            return Err("the header digest is wrong".into());
        }
        let data_at = if digest { 28 } else { 24 };
        match header.kind {
            kind::CAPSULE_RESP if pdu.len() == data_at => self.response(pdu, state),
            kind::R2T if pdu.len() == data_at => self.ready_to_transfer(pdu, state),
            kind::C2H_DATA => self.data(header, pdu, data_at, state),
            _ => Err("the kind or the length is wrong".into()),
        }
    }

    fn response(&self, pdu: &[u8], state: &mut State) -> Result<(), String> {
        let (capsule, _) = CapsuleResp::read_from_prefix(pdu).expect("24 bytes");
        let cqe = capsule.cqe;
        let pending = outstanding(state, cqe.cid.get())?;
        let status = Status::from_field(cqe.status.get());
        if status.is_success() && pending.filled != pending.input.len() {
            return Err(format!("success after {} of {} bytes", pending.filled, pending.input.len()));
        }
        let head = cqe.sq_head.get();
        let flow = !self.manners.no_flow_control;
        let right = if flow { head < self.manners.entries } else { head == 0xFFFF };
        let is_refusal = pending.connect && !status.is_success();
        if !right && !is_refusal {
            return Err(format!("the queue head is {head}"));
        }
        end(pending, status, cqe.dw0.get());
        Ok(())
    }

    fn data(&self, header: Header, pdu: &[u8], data_at: usize, state: &mut State) -> Result<(), String> {
        let (data, _) = DataPdu::read_from_prefix(pdu).expect("24 bytes");
        let len = data.length.get() as usize;
        let pdo = usize::from(header.pdo);
        let trailer = self.manners.digests.data_bytes();
        let alignment = (usize::from(self.manners.alignment) + 1) * 4;
        if pdo < data_at || !pdo.is_multiple_of(alignment) || pdo + len + trailer != pdu.len() || len == 0 {
            return Err(format!("data of {len} bytes at {pdo}"));
        }
        let bytes = &pdu[pdo..pdo + len];
        if (header.flags & flags::DDGST != 0) != self.manners.digests.data
            || trailer > 0 && pdu[pdo + len..] != crc32c(bytes).to_le_bytes()
        {
            return Err("the data digest is wrong".into());
        }
        let pending = outstanding(state, data.cccid.get())?;
        let (from, to) = (data.offset.get() as usize, data.offset.get() as usize + len);
        if from != pending.filled || to > pending.input.len() {
            return Err(format!("data to {from}..{to}, expected are those from {}", pending.filled));
        }
        pending.input[from..to].copy_from_slice(bytes);
        pending.filled = to;
        let (last, success) = (header.flags & flags::LAST != 0, header.flags & flags::SUCCESS != 0);
        if last != (to == pending.input.len()) || success && !(last && self.manners.no_flow_control) {
            return Err("the flags are wrong".into());
        }
        if success {
            self.env.marks().hit("host: success by the flag of the data");
            end(pending, Status::SUCCESS, 0);
        }
        Ok(())
    }

    fn ready_to_transfer(&self, pdu: &[u8], state: &mut State) -> Result<(), String> {
        let (r2t, _) = R2t::read_from_prefix(pdu).expect("24 bytes");
        let cid = r2t.cccid.get();
        let pending = outstanding(state, cid)?;
        let (from, len) = (r2t.offset.get() as usize, r2t.length.get() as usize);
        if from != pending.asked || len == 0 || from + len > pending.output.len() {
            return Err(format!("asked for {len} bytes from {from}, expected is {}", pending.asked));
        }
        pending.asked = from + len;
        let wanted = pending.output[from..from + len].to_vec();
        let mut at = 0;
        while at < len {
            let most = (len - at).min(self.data_bytes_max);
            // Pieces of whole dwords, of any size.
            let part = match self.env.random_below(3) {
                0 => (self.env.random_below(most as u64) as usize / 4 * 4).max(4).min(most),
                _ => most,
            };
            let piece = &wanted[at..at + part];
            let last = at + part == len;
            let pdu =
                bytes::h2c_data(self.manners.digests, cid, r2t.ttag.get(), (from + at) as u32, piece, last);
            state.send(&pdu);
            at += part;
        }
        let queued = state.queued;
        outstanding(state, cid)?.asked_end = queued;
        Ok(())
    }
}

fn outstanding(state: &mut State, cid: u16) -> Result<&mut Pending, String> {
    let pending = state.pending.get_mut(&cid).filter(|pending| pending.ended.is_none());
    pending.ok_or_else(|| format!("nobody waits for command {cid}"))
}

fn end(pending: &mut Pending, status: Status, dw0: u32) {
    let data = std::mem::take(&mut pending.input);
    pending.ended = Some(Ok(Reply { status, dw0, data }));
    if let Some(waker) = pending.waker.take() {
        waker.wake();
    }
}
