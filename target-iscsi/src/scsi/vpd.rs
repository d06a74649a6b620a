//! Vital product data (SPC-4, section 7.8; SBC-3, section 6.6).

use ashlar_env::Volume;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::VolumeInfo;

use super::inquiry::VENDOR;
use super::sense::{Failure, Sense};
use super::table::{Code, Found, lookup};
use super::token::vpd as third_party;
use super::units::{Context, MappedUnit};

/// The most blocks that one UNMAP descriptor, or all of them, free.
pub(super) const UNMAP_BLOCKS_MAX: u32 = 1 << 20;

/// The most descriptors of one UNMAP.
pub(super) const UNMAP_DESCRIPTORS_MAX: u32 = 256;

/// The most bytes that one WRITE SAME writes. libiscsi's suite writes what it then clears by one WRITE SAME with one
/// WRITE, whatever the largest transfer is, where 65536 blocks may be written the same.
pub(super) const WRITE_SAME_BYTES_MAX: u64 = 16 << 20;

/// A locally administered company identifier: there is no registered one.
const COMPANY: u32 = 0x02_A5_4C;

/// The fewest blocks that WRITE ATOMIC must take to be offered: hosts rely on 256 blocks where it is there at all.
pub(super) const ATOMIC_BLOCKS_MIN: u32 = 256;

/// The pages for a volume like this, ascending.
fn pages(info: &VolumeInfo) -> Vec<u8> {
    let mut pages = vec![0x00, 0x80, 0x83, 0x86, 0x87, 0x8F, 0xB0, 0xB1];
    if info.thin {
        pages.push(0xB2);
    }
    pages
}

pub(super) fn page<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    page: u8,
) -> Result<Vec<u8>, Failure> {
    if !pages(info).contains(&page) {
        return Err(Sense::cdb(2).into());
    }
    let body = match page {
        0x00 => pages(info),
        0x80 => serial(info.id).into_bytes(),
        0x83 => identification(command, unit, info),
        0x86 => extended(info),
        // One policy for all mode pages: shared by all nexuses, per unit.
        0x87 => vec![0x3F, 0xFF, 0x00, 0x00],
        0x8F => third_party::page(info, command.units.world().is_some()),
        0xB0 => limits(info),
        0xB1 => characteristics(),
        _ => provisioning(),
    };
    let mut data = vec![0, page];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    Ok(data)
}

/// UNIT SERIAL NUMBER: the volume's identity.
pub(super) fn serial(id: VolumeId) -> String {
    id.0.simple().to_string()
}

/// The unit's NAA IEEE Registered Extended designator: the company, and the last 100 bits of the volume's identity.
pub(super) fn naa(id: VolumeId) -> [u8; 16] {
    let identity = id.0.as_u128() & ((1 << 100) - 1);
    (0x6_u128 << 124 | u128::from(COMPANY) << 100 | identity).to_be_bytes()
}

/// What follows the vendor in the T10 designator: it begins with eight characters of the identity's last 40 bits,
/// because some hosts look at no more.
pub(super) fn vendor_specific(id: VolumeId) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |at: u32| char::from(DIGITS[(id.0.as_u128() >> (5 * (7 - at)) & 31) as usize]);
    (0..8).map(digit).chain(serial(id).chars()).collect()
}

/// Whose designator it is.
enum Association {
    Unit = 0x00,
    Port = 0x10,
    Target = 0x20,
}

fn designator(out: &mut Vec<u8>, association: Association, kind: u8, text: bool, bytes: &[u8]) {
    let code_set = match (text, kind) {
        (true, 8) => 3,
        (true, _) => 2,
        (false, _) => 1,
    };
    // The protocol (iSCSI: 5) is given for ports and targets.
    let (protocol, valid) = if matches!(association, Association::Unit) { (0, 0) } else { (0x50, 0x80) };
    out.extend([protocol | code_set, valid | association as u8 | kind, 0, bytes.len() as u8]);
    out.extend(bytes);
}

/// A name, ended by NUL and padded with it to a multiple of 4.
fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn identification<V: Volume>(command: &Context<'_, V>, unit: &MappedUnit<V>, info: &VolumeInfo) -> Vec<u8> {
    let port = command.nexus.name();
    let tag = port.portal_tag;
    let mut out = Vec::new();
    designator(&mut out, Association::Unit, 3, false, &naa(info.id));
    let vendor = [&VENDOR[..], vendor_specific(info.id).as_bytes()].concat();
    designator(&mut out, Association::Unit, 1, true, &vendor);
    let number = |number: u16| [[0, 0], number.to_be_bytes()].concat();
    designator(&mut out, Association::Port, 4, false, &number(tag));
    designator(&mut out, Association::Port, 5, false, &number(unit.unit.port_group));
    let name = format!("{},t,0x{tag:04x}", port.target);
    designator(&mut out, Association::Port, 8, true, &padded(&name));
    designator(&mut out, Association::Target, 8, true, &padded(&port.target));
    out
}

/// Extended INQUIRY data.
fn extended(info: &VolumeInfo) -> Vec<u8> {
    let mut out = vec![0; 0x3C];
    // HEADSUP, ORDSUP, SIMPSUP.
    out[1] = 0x07;
    // V_SUP: a volatile cache.
    out[2] = u8::from(info.volatile_cache);
    out
}

/// MAXIMUM COMPARE AND WRITE LENGTH: what is compared and what is written fit one buffer together.
pub(super) fn compare_blocks_max(info: &VolumeInfo) -> u8 {
    ((MAX_BYTES as u64 / 2) >> info.block_size.shift()).min(255) as u8
}

/// MAXIMUM WRITE SAME LENGTH.
pub(super) fn write_same_blocks_max(info: &VolumeInfo) -> u64 {
    WRITE_SAME_BYTES_MAX >> info.block_size.shift()
}

fn limits(info: &VolumeInfo) -> Vec<u8> {
    let mut out = vec![0; 0x3C];
    let mut put = |at: usize, value: u32| out[at - 4..at].copy_from_slice(&value.to_be_bytes());
    let buffer_blocks = (MAX_BYTES as u32) >> info.block_size.shift();
    // WSNZ, and both lengths: bytes 4 to 7 of the page.
    let granularity = u16::try_from(info.preferred_write_blocks).unwrap_or(0);
    put(4, 1 << 24 | u32::from(compare_blocks_max(info)) << 16 | u32::from(granularity));
    put(8, buffer_blocks);
    put(12, buffer_blocks);
    if info.thin {
        put(20, UNMAP_BLOCKS_MAX);
        put(24, UNMAP_DESCRIPTORS_MAX);
        put(28, info.unmap_granularity_blocks);
        // UGAVALID: granules begin at block 0.
        put(32, 1 << 31);
    }
    put(40, write_same_blocks_max(info) as u32);
    if let Found::Command(entry) = lookup(0x9C, None, Some(info))
        && entry.code == Code::WriteAtomic
    {
        put(44, atomic_blocks_max(info));
    }
    out
}

/// MAXIMUM ATOMIC TRANSFER LENGTH.
pub(super) fn atomic_blocks_max(info: &VolumeInfo) -> u32 {
    info.atomic_write_blocks.min((MAX_BYTES as u32) >> info.block_size.shift())
}

/// Block device characteristics: nothing turns.
fn characteristics() -> Vec<u8> {
    let mut out = vec![0; 0x3C];
    out[1] = 1;
    out
}

/// Logical block provisioning, of a thin unit: UNMAP, WRITE SAME (16) and (10) with UNMAP, unmapped blocks read as
/// zeros. No thresholds.
fn provisioning() -> Vec<u8> {
    vec![0, 0xE4, 0x02, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_keep_what_is_random_in_an_identity() {
        let id = VolumeId(uuid::Uuid::from_u128(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF));
        let naa = naa(id);
        assert_eq!(naa[..4], [0x60, 0x2A, 0x54, 0xC7]);
        assert_eq!(naa[4..], id.0.as_bytes()[4..]);
        let text = vendor_specific(id);
        assert_eq!((text.len(), &text[8..]), (40, "0123456789abcdef0123456789abcdef"));
        let mut other = *id.0.as_bytes();
        other[15] ^= 1;
        let other = vendor_specific(VolumeId(uuid::Uuid::from_bytes(other)));
        assert_ne!(text[..8], other[..8]);
    }
}
