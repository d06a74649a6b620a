//! PDUs as an initiator makes and takes them apart: what several test programs share.

use ashlar_codec::crc32c;
use ashlar_iscsi::wire::{BHS_BYTES, Bhs, padding};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which digests a connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    pub header: bool,
    pub data: bool,
}

impl Digests {
    pub const ALL: [Self; 4] = [
        Self { header: false, data: false },
        Self { header: true, data: false },
        Self { header: false, data: true },
        Self { header: true, data: true },
    ];
}

/// A PDU: the header with its lengths filled in, additional header segments (a multiple of four bytes), data.
pub fn pdu_with(digests: Digests, header: &(impl IntoBytes + Immutable), ahs: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes[4] = (ahs.len() / 4) as u8;
    bytes[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    bytes.extend(ahs);
    if digests.header {
        bytes.extend(crc32c(&bytes).to_le_bytes());
    }
    let start = bytes.len();
    bytes.extend(data);
    bytes.resize(bytes.len() + padding(data.len()), 0);
    if digests.data && !data.is_empty() {
        bytes.extend(crc32c(&bytes[start..]).to_le_bytes());
    }
    bytes
}

/// A PDU without additional header segments.
pub fn pdu(digests: Digests, header: &(impl IntoBytes + Immutable), data: &[u8]) -> Vec<u8> {
    pdu_with(digests, header, &[], data)
}

/// A PDU from the target.
#[derive(Clone, Debug)]
pub struct Received {
    pub bhs: Bhs,
    pub data: Vec<u8>,
}

impl Received {
    /// The header as what its opcode says.
    pub fn header<T: FromBytes + KnownLayout + Immutable>(&self) -> T {
        T::read_from_bytes(self.bhs.as_bytes()).expect("headers have one size")
    }

    /// The data as text, its NULs as blanks.
    pub fn text(&self) -> String {
        String::from_utf8(self.data.clone()).expect("text").replace('\0', " ")
    }
}

/// Takes the first PDU off `bytes`, if it is whole.
///
/// # Panics
/// If a digest or the padding is wrong.
pub fn take(digests: Digests, bytes: &mut Vec<u8>) -> Option<Received> {
    let (bhs, _) = Bhs::read_from_prefix(bytes).ok()?;
    assert_eq!(bhs.length.ahs_bytes(), 0, "a target sends no additional header segments");
    let len = bhs.length.data_bytes() as usize;
    let data_at = BHS_BYTES + if digests.header { 4 } else { 0 };
    let data_end = data_at + len + padding(len);
    let end = data_end + if digests.data && len > 0 { 4 } else { 0 };
    if bytes.len() < end {
        return None;
    }
    if digests.header {
        assert_eq!(bytes[BHS_BYTES..data_at], crc32c(&bytes[..BHS_BYTES]).to_le_bytes(), "header digest");
    }
    if end > data_end {
        assert_eq!(bytes[data_end..end], crc32c(&bytes[data_at..data_end]).to_le_bytes(), "data digest");
    }
    assert!(bytes[data_at + len..data_end].iter().all(|byte| *byte == 0), "padding is zeros");
    let data = bytes[data_at..data_at + len].to_vec();
    bytes.drain(..end);
    Some(Received { bhs, data })
}

/// A text of pairs that blanks separate.
pub fn text(pairs: &str) -> Vec<u8> {
    pairs.split_whitespace().flat_map(|pair| [pair.as_bytes(), b"\0"].concat()).collect()
}
