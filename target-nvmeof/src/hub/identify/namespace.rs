//! Identify Namespace.

use zerocopy::FromZeros;

use crate::limits::{COPY_BYTES_MAX, COPY_RANGE_BYTES_MAX, COPY_RANGES_MAX};
use crate::view::Namespace;
use crate::wire::identify::{IdentifyNamespace, IdentifyNamespaceIndependent, LbaFormat};

/// Every namespace may be reached by several controllers, on every path alike.
const NMIC_SHARED: u8 = 1 << 0;
/// Persistence through power loss, all six types, IEKEY as of 1.3.
const RESCAP_ALL: u8 = 0xFF;
/// Deallocated blocks read as zeros; Write Zeroes may deallocate.
const DLFEAT: u8 = 0b001 | 1 << 3;
const NSFEAT_THIN: u8 = 1 << 0;
const NSFEAT_ATOMICITY: u8 = 1 << 1;
const NSFEAT_HINTS: u8 = 1 << 4;
const NSATTR_WRITE_PROTECTED: u8 = 1 << 0;
const NSTAT_READY: u8 = 1 << 0;

fn nsfeat(namespace: &Namespace) -> u8 {
    let thin = if namespace.volume.thin { NSFEAT_THIN } else { 0 };
    thin | NSFEAT_ATOMICITY | NSFEAT_HINTS
}

fn nsattr(namespace: &Namespace) -> u8 {
    if namespace.volume.read_only { NSATTR_WRITE_PROTECTED } else { 0 }
}

/// A number of blocks, at least 1, as a 0's based field of 16 bits.
fn zeros_based(blocks: u32) -> u16 {
    u16::try_from(blocks.max(1) - 1).unwrap_or(u16::MAX)
}

/// CNS 00h.
pub(super) fn identify(namespace: &Namespace) -> IdentifyNamespace {
    let volume = &namespace.volume;
    let block_bytes = volume.block_size.bytes();
    let atomic = zeros_based(volume.atomic_write_blocks).into();
    let write = zeros_based(volume.preferred_write_blocks).into();
    let unmap = zeros_based(volume.unmap_granularity_blocks).into();
    let mut identify = IdentifyNamespace {
        nsze: volume.blocks.into(),
        ncap: volume.blocks.into(),
        nuse: volume.blocks.into(),
        nsfeat: nsfeat(namespace),
        nmic: NMIC_SHARED,
        rescap: RESCAP_ALL,
        dlfeat: DLFEAT,
        nawun: atomic,
        nawupf: atomic,
        nacwu: atomic,
        nvmcap: (u128::from(volume.blocks) * u128::from(block_bytes)).into(),
        npwg: write,
        npwa: write,
        npdg: unmap,
        npda: unmap,
        nows: write,
        mssrl: u16::try_from(COPY_RANGE_BYTES_MAX / block_bytes).unwrap_or(u16::MAX).into(),
        mcl: (COPY_BYTES_MAX / block_bytes).into(),
        msrc: (COPY_RANGES_MAX - 1) as u8,
        anagrpid: namespace.ana_group.into(),
        nsattr: nsattr(namespace),
        nguid: namespace.nguid(),
        ..IdentifyNamespace::new_zeroed()
    };
    identify.lba_formats[0] = LbaFormat { metadata_bytes: 0.into(), lbads: volume.block_size.shift(), rp: 0 };
    identify
}

/// CNS 08h.
pub(super) fn independent(namespace: &Namespace) -> IdentifyNamespaceIndependent {
    IdentifyNamespaceIndependent {
        nsfeat: nsfeat(namespace),
        nmic: NMIC_SHARED,
        rescap: RESCAP_ALL,
        anagrpid: namespace.ana_group.into(),
        nsattr: nsattr(namespace),
        nstat: NSTAT_READY,
        ..IdentifyNamespaceIndependent::new_zeroed()
    }
}
