//! INQUIRY (SPC-4, section 6.6): standard data. Vital product data are in `vpd`.

use ashlar_env::Volume;
use ashlar_env::volume::VolumeInfo;

use super::sense::{Failure, Sense};
use super::table::{Found, lookup};
use super::units::{Context, MappedUnit};
use super::vpd;

/// T10 VENDOR IDENTIFICATION.
pub(super) const VENDOR: &[u8; 8] = b"ASHLAR  ";

/// PRODUCT IDENTIFICATION: one for all units, because hosts copy between units by themselves only where it is the same.
const PRODUCT: &[u8; 16] = b"Virtual Disk    ";

/// The size of standard INQUIRY data, in bytes.
const STANDARD_BYTES: usize = 96;

/// SAM-5, iSCSI, SPC-4 and SBC-3, of no particular version (SPC-4, table 145).
const VERSION_DESCRIPTORS: [u16; 4] = [0x00A0, 0x0960, 0x0460, 0x04C0];

/// Peripheral qualifier and device type where there is no unit: LUN 0 might have one, others may not.
const NONE_AT_ZERO: u8 = 0x3F;
const NONE_ELSEWHERE: u8 = 0x7F;

pub(super) fn inquiry<V: Volume>(
    command: &Context<'_, V>,
    unit: Option<(&MappedUnit<V>, &VolumeInfo)>,
) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let (evpd, page) = (cdb.head[1] & 0x01 != 0, cdb.head[2]);
    if cdb.head[1] & 0x02 != 0 {
        return Err(Sense::cdb_bit(1, 1).into());
    }
    let mut data = match (evpd, unit) {
        (true, Some((unit, info))) => vpd::page(command, unit, info, page)?,
        (true, None) => return Err(Sense::cdb_bit(1, 0).into()),
        (false, _) if page != 0 => return Err(Sense::cdb(2).into()),
        (false, unit) => standard(unit.is_some(), command.request.lun),
    };
    data.truncate(usize::from(cdb.u16(3)));
    Ok(data)
}

fn standard(mapped: bool, lun: u64) -> Vec<u8> {
    let mut data = vec![0; STANDARD_BYTES];
    data[0] = match (mapped, lun) {
        (true, _) => 0,
        (false, 0) => NONE_AT_ZERO,
        (false, _) => NONE_ELSEWHERE,
    };
    // SPC-4; hierarchical LUNs, response data format 2.
    data[2..4].copy_from_slice(&[0x06, 0x12]);
    data[4] = (STANDARD_BYTES - 5) as u8;
    // Both ways of changing asymmetric access states; third-party copy where there is EXTENDED COPY.
    let copies = !matches!(lookup(0x83, None, None), Found::NoCode);
    data[5] = 0x30 | if copies { 0x08 } else { 0 };
    // More than one port; command queuing.
    data[6..8].copy_from_slice(&[0x10, 0x02]);
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].fill(b' ');
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let shown = version.len().min(4);
    data[32..32 + shown].copy_from_slice(&version[..shown]);
    for (at, version) in VERSION_DESCRIPTORS.iter().enumerate() {
        data[58 + 2 * at..60 + 2 * at].copy_from_slice(&version.to_be_bytes());
    }
    data
}
