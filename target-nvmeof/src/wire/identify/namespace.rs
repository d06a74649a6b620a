//! Identify Namespace, CNS 00h (NVM, section 4.1.5.1), 08h (Base, section 5.17.2.8), and the descriptors of
//! CNS 03h (Base, section 5.17.2.3).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One LBA format, 4 bytes (NVM, section 4.1.5.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LbaFormat {
    /// 0: MS, metadata bytes per block.
    pub metadata_bytes: U16,
    /// 2: LBADS, the block size as a power of two.
    pub lbads: u8,
    /// 3: RP, relative performance.
    pub rp: u8,
}

/// Identify Namespace of the NVM command set, 4096 bytes. Offsets are decimal.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// 0: NSZE, size in blocks.
    pub nsze: U64,
    /// 8: NCAP, capacity in blocks.
    pub ncap: U64,
    /// 16: NUSE, blocks allocated.
    pub nuse: U64,
    /// 24: NSFEAT: bit 0 thin, bit 1 the atomicity fields below count, bit 4 the hints from NPWG on count.
    pub nsfeat: u8,
    /// 25: NLBAF, LBA formats, 0's based.
    pub nlbaf: u8,
    /// 26: FLBAS, the LBA format in use.
    pub flbas: u8,
    /// 27: MC.
    pub mc: u8,
    /// 28: DPC.
    pub dpc: u8,
    /// 29: DPS.
    pub dps: u8,
    /// 30: NMIC: bit 0 shared between controllers.
    pub nmic: u8,
    /// 31: RESCAP: bit 0 persistence through power loss, bits 1 to 6 the types, bit 7 IEKEY as of 1.3.
    pub rescap: u8,
    /// 32: FPI.
    pub fpi: u8,
    /// 33: DLFEAT: bits 2:0 what deallocated blocks read as, bit 3 Write Zeroes may deallocate.
    pub dlfeat: u8,
    /// 34: NAWUN, 0's based.
    pub nawun: U16,
    /// 36: NAWUPF, 0's based.
    pub nawupf: U16,
    /// 38: NACWU, 0's based.
    pub nacwu: U16,
    /// 40: NABSN.
    pub nabsn: U16,
    /// 42: NABO.
    pub nabo: U16,
    /// 44: NABSPF.
    pub nabspf: U16,
    /// 46: NOIOB.
    pub noiob: U16,
    /// 48: NVMCAP, bytes.
    pub nvmcap: U128,
    /// 64: NPWG, preferred write granularity in blocks, 0's based.
    pub npwg: U16,
    /// 66: NPWA, preferred write alignment, 0's based.
    pub npwa: U16,
    /// 68: NPDG, preferred deallocate granularity, 0's based.
    pub npdg: U16,
    /// 70: NPDA, preferred deallocate alignment, 0's based.
    pub npda: U16,
    /// 72: NOWS, optimal write size, 0's based.
    pub nows: U16,
    /// 74: MSSRL, the longest source range of Copy in blocks.
    pub mssrl: U16,
    /// 76: MCL, the longest Copy in blocks.
    pub mcl: U32,
    /// 80: MSRC, source ranges of Copy, 0's based.
    pub msrc: u8,
    /// 81: reserved.
    pub reserved_81: [u8; 11],
    /// 92: ANAGRPID.
    pub anagrpid: U32,
    /// 96: reserved.
    pub reserved_96: [u8; 3],
    /// 99: NSATTR: bit 0 write protected.
    pub nsattr: u8,
    /// 100: NVMSETID.
    pub nvmsetid: U16,
    /// 102: ENDGID.
    pub endgid: U16,
    /// 104: NGUID.
    pub nguid: [u8; 16],
    /// 120: EUI64.
    pub eui64: [u8; 8],
    /// 128: LBA formats.
    pub lba_formats: [LbaFormat; 64],
    /// 384: vendor specific.
    pub vendor: [u8; 3712],
}

const _: () = assert!(size_of::<IdentifyNamespace>() == super::IDENTIFY_BYTES as usize);
const _: () = assert!(core::mem::offset_of!(IdentifyNamespace, npwg) == 64);
const _: () = assert!(core::mem::offset_of!(IdentifyNamespace, anagrpid) == 92);
const _: () = assert!(core::mem::offset_of!(IdentifyNamespace, lba_formats) == 128);

/// Identify Namespace independent of the command set, 4096 bytes (Base, section 5.17.2.8).
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespaceIndependent {
    /// 0: NSFEAT.
    pub nsfeat: u8,
    /// 1: NMIC.
    pub nmic: u8,
    /// 2: RESCAP.
    pub rescap: u8,
    /// 3: FPI.
    pub fpi: u8,
    /// 4: ANAGRPID.
    pub anagrpid: U32,
    /// 8: NSATTR.
    pub nsattr: u8,
    /// 9: reserved.
    pub reserved_9: u8,
    /// 10: NVMSETID.
    pub nvmsetid: U16,
    /// 12: ENDGID.
    pub endgid: U16,
    /// 14: NSTAT: bit 0 ready.
    pub nstat: u8,
    /// 15: reserved.
    pub reserved_15: [u8; 4081],
}

const _: () = assert!(size_of::<IdentifyNamespaceIndependent>() == super::IDENTIFY_BYTES as usize);

/// The head of a namespace identification descriptor; the identifier follows (Base, section 5.17.2.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NamespaceDescriptor {
    /// 0: NIDT, the identifier's type.
    pub kind: u8,
    /// 1: NIDL, the identifier's length in bytes.
    pub len: u8,
    /// 2: reserved.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<NamespaceDescriptor>() == 4);
