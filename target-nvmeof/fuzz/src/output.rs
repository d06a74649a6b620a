//! What the target said, PDU by PDU, with everything checked that a host could check.

use ashlar_codec::crc32c;
use ashlar_nvmeof::wire::Cqe;
use ashlar_nvmeof::wire::pdu::{CapsuleResp, DataPdu, Header, R2t, TERM_REQ_BYTES_MAX, TermReq, flags, kind};
use zerocopy::FromBytes;

use crate::bytes::Digests;

/// A PDU of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// ICResp.
    Initialized,
    /// A response capsule.
    Done(Cqe),
    /// It wants data.
    R2t { cid: u16, tag: u16, len: u32 },
    /// Data to the host.
    Data { cid: u16, len: u32, success: bool },
    /// A terminate request.
    Terminated,
}

/// Takes the bytes sent and gives the PDUs.
#[derive(Default)]
pub struct Output {
    unread: Vec<u8>,
    started: bool,
    terminated: bool,
    digests: Digests,
}

impl Output {
    /// More bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend(bytes);
    }

    /// The digests that ICResp said the connection has.
    #[must_use]
    pub const fn digests(&self) -> Digests {
        self.digests
    }

    /// The next whole PDU.
    ///
    /// # Panics
    /// If the target sent what it may not.
    pub fn next_pdu(&mut self) -> Option<Told> {
        let (header, _) = Header::read_from_prefix(&self.unread).ok()?;
        let plen = header.plen.get() as usize;
        assert!((24..=(2 << 20)).contains(&plen), "{header:?}");
        if self.unread.len() < plen {
            return None;
        }
        assert!(!self.terminated, "nothing follows a terminate request: {header:?}");
        let pdu: Vec<u8> = self.unread.drain(..plen).collect();
        if !self.started {
            self.started = true;
            if header.kind != kind::C2H_TERM {
                assert_eq!((header.kind, header.flags, header.hlen, plen), (kind::IC_RESP, 0, 128, 128));
                assert!(pdu[16..].iter().all(|byte| *byte == 0), "reserved bytes are zero");
                self.digests = Digests::of_field(pdu[11]);
                return Some(Told::Initialized);
            }
        }
        Some(self.pdu(&header, &pdu))
    }

    fn pdu(&mut self, header: &Header, pdu: &[u8]) -> Told {
        let digests = self.digests;
        assert_eq!(header.hlen, 24);
        if header.kind == kind::C2H_TERM {
            self.terminated = true;
            assert!(header.flags == 0 && pdu.len() <= TERM_REQ_BYTES_MAX as usize, "{header:?}");
            let (term, _) = TermReq::read_from_prefix(pdu).expect("whole");
            assert!((1..=6).contains(&term.fes.get()), "{term:?}");
            return Told::Terminated;
        }
        assert_eq!(header.flags & flags::HDGST != 0, digests.header, "{header:?}");
        if digests.header {
            assert_eq!(pdu[24..28], crc32c(&pdu[..24]).to_le_bytes());
        }
        let first = 24 + digests.header_bytes();
        match header.kind {
            kind::CAPSULE_RESP => {
                assert_eq!(pdu.len(), first);
                Told::Done(CapsuleResp::read_from_prefix(pdu).expect("whole").0.cqe)
            }
            kind::R2T => {
                assert_eq!(pdu.len(), first);
                let r2t = R2t::read_from_prefix(pdu).expect("whole").0;
                assert!(r2t.offset.get() == 0 && r2t.length.get() > 0, "{r2t:?}");
                Told::R2t { cid: r2t.cccid.get(), tag: r2t.ttag.get(), len: r2t.length.get() }
            }
            kind::C2H_DATA => Self::data(digests, header, pdu),
            _ => panic!("a PDU that no controller sends: {header:?}"),
        }
    }

    fn data(digests: Digests, header: &Header, pdu: &[u8]) -> Told {
        let data = DataPdu::read_from_prefix(pdu).expect("whole").0;
        let (len, pdo) = (data.length.get() as usize, usize::from(header.pdo));
        assert!(len > 0 && data.offset.get() == 0 && data.ttag.get() == 0, "{data:?}");
        assert_eq!(pdo + len + digests.data_bytes(), pdu.len(), "{data:?}");
        assert!(pdu[24 + digests.header_bytes()..pdo].iter().all(|byte| *byte == 0), "padding is zero");
        assert_eq!(header.flags & flags::DDGST != 0, digests.data);
        if digests.data {
            assert_eq!(pdu[pdo + len..], crc32c(&pdu[pdo..pdo + len]).to_le_bytes());
        }
        assert!(header.flags & flags::LAST != 0, "{data:?}");
        Told::Data {
            cid: data.cccid.get(),
            len: data.length.get(),
            success: header.flags & flags::SUCCESS != 0,
        }
    }
}
