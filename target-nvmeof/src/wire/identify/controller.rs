//! Identify Controller, CNS 01h (Base, section 5.17.2.1).

use zerocopy::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Identify Controller, 4096 bytes. Offsets are decimal, as in the specification's table.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// 0: VID, PCI vendor.
    pub vid: U16,
    /// 2: SSVID, PCI subsystem vendor.
    pub ssvid: U16,
    /// 4: SN, serial number, ASCII padded with spaces.
    pub serial: [u8; 20],
    /// 24: MN, model number, ASCII padded with spaces.
    pub model: [u8; 40],
    /// 64: FR, firmware revision, ASCII padded with spaces.
    pub firmware: [u8; 8],
    /// 72: RAB.
    pub rab: u8,
    /// 73: IEEE, an OUI, least significant byte first.
    pub ieee: [u8; 3],
    /// 76: CMIC: bit 0 several ports, bit 1 several controllers, bit 3 ANA.
    pub cmic: u8,
    /// 77: MDTS, the largest transfer as a power of two of 4 KiB pages.
    pub mdts: u8,
    /// 78: CNTLID.
    pub cntlid: U16,
    /// 80: VER, as the property VS.
    pub ver: U32,
    /// 84: RTD3R.
    pub rtd3r: U32,
    /// 88: RTD3E.
    pub rtd3e: U32,
    /// 92: OAES, asynchronous events: bit 8 namespace attributes, bit 11 ANA, bit 31 discovery.
    pub oaes: U32,
    /// 96: CTRATT: bit 0 128-bit host identifiers, bit 6 traffic-based keep-alive.
    pub ctratt: U32,
    /// 100: RRLS.
    pub rrls: U16,
    /// 102: reserved.
    pub reserved_102: [u8; 9],
    /// 111: CNTRLTYPE: 1 I/O, 2 discovery.
    pub cntrltype: u8,
    /// 112: FGUID.
    pub fguid: [u8; 16],
    /// 128: CRDT1 to CRDT3, command retry delays.
    pub crdt: [U16; 3],
    /// 134: reserved, and NVMe-MI's NVMSR, VWCI and MEC.
    pub reserved_134: [u8; 122],
    /// 256: OACS, optional admin commands.
    pub oacs: U16,
    /// 258: ACL, Aborts outstanding, 0's based.
    pub acl: u8,
    /// 259: AERL, Asynchronous Event Requests outstanding, 0's based.
    pub aerl: u8,
    /// 260: FRMW: bit 0 slot 1 is read-only, bits 3:1 the number of slots.
    pub frmw: u8,
    /// 261: LPA: bit 0 SMART per namespace, bit 1 commands log, bit 2 offsets and long lengths.
    pub lpa: u8,
    /// 262: ELPE, error log entries, 0's based.
    pub elpe: u8,
    /// 263: NPSS, power states, 0's based.
    pub npss: u8,
    /// 264: AVSCC.
    pub avscc: u8,
    /// 265: APSTA.
    pub apsta: u8,
    /// 266: WCTEMP.
    pub wctemp: U16,
    /// 268: CCTEMP.
    pub cctemp: U16,
    /// 270: MTFA.
    pub mtfa: U16,
    /// 272: HMPRE.
    pub hmpre: U32,
    /// 276: HMMIN.
    pub hmmin: U32,
    /// 280: TNVMCAP, bytes; 0 where not reported.
    pub tnvmcap: U128,
    /// 296: UNVMCAP.
    pub unvmcap: U128,
    /// 312: RPMBS.
    pub rpmbs: U32,
    /// 316: EDSTT.
    pub edstt: U16,
    /// 318: DSTO.
    pub dsto: u8,
    /// 319: FWUG.
    pub fwug: u8,
    /// 320: KAS, the granularity of the keep-alive timeout in 100 ms.
    pub kas: U16,
    /// 322: HCTMA.
    pub hctma: U16,
    /// 324: MNTMT.
    pub mntmt: U16,
    /// 326: MXTMT.
    pub mxtmt: U16,
    /// 328: SANICAP.
    pub sanicap: U32,
    /// 332: HMMINDS.
    pub hmminds: U32,
    /// 336: HMMAXD.
    pub hmmaxd: U16,
    /// 338: NSETIDMAX.
    pub nsetidmax: U16,
    /// 340: ENDGIDMAX.
    pub endgidmax: U16,
    /// 342: ANATT, seconds a group may be in the change state.
    pub anatt: u8,
    /// 343: ANACAP, the states reported: bits 0 to 4 in the order of their codes.
    pub anacap: u8,
    /// 344: ANAGRPMAX, the largest ANAGRPID.
    pub anagrpmax: U32,
    /// 348: NANAGRPID, the number of ANA groups.
    pub nanagrpid: U32,
    /// 352: PELS.
    pub pels: U32,
    /// 356: domain identifier.
    pub domain_id: U16,
    /// 358: reserved.
    pub reserved_358: [u8; 10],
    /// 368: MEGCAP.
    pub megcap: U128,
    /// 384: reserved.
    pub reserved_384: [u8; 128],
    /// 512: SQES: required and largest size of a submission queue entry, as powers of two.
    pub sqes: u8,
    /// 513: CQES: the same of completion queue entries.
    pub cqes: u8,
    /// 514: MAXCMD, commands outstanding in one I/O queue.
    pub maxcmd: U16,
    /// 516: NN, the largest NSID.
    pub nn: U32,
    /// 520: ONCS, optional I/O commands.
    pub oncs: U16,
    /// 522: FUSES: bit 0 compare and write.
    pub fuses: U16,
    /// 524: FNA.
    pub fna: u8,
    /// 525: VWC: bit 0 a volatile write cache, bits 2:1 what Flush does with NSID FFFFFFFFh.
    pub vwc: u8,
    /// 526: AWUN, atomic write in blocks, 0's based.
    pub awun: U16,
    /// 528: AWUPF, atomic write at power failure in blocks, 0's based.
    pub awupf: U16,
    /// 530: ICSVSCC.
    pub icsvscc: u8,
    /// 531: NWPC, write protection by the host.
    pub nwpc: u8,
    /// 532: ACWU, atomic compare and write in blocks, 0's based.
    pub acwu: U16,
    /// 534: CDFS, formats of Copy: bit 0 format 0.
    pub copy_formats: U16,
    /// 536: SGLS: bits 1:0 supported, bit 20 offsets, bit 21 the transport's data block.
    pub sgls: U32,
    /// 540: MNAN, the largest number of namespaces.
    pub mnan: U32,
    /// 544: MAXDNA.
    pub maxdna: U128,
    /// 560: MAXCNA.
    pub maxcna: U32,
    /// 564: reserved.
    pub reserved_564: [u8; 204],
    /// 768: SUBNQN, padded with NUL.
    pub subnqn: [u8; 256],
    /// 1024: reserved.
    pub reserved_1024: [u8; 768],
    /// 1792: IOCCSZ, the command capsule in 16 bytes.
    pub ioccsz: U32,
    /// 1796: IORCSZ, the response capsule in 16 bytes.
    pub iorcsz: U32,
    /// 1800: ICDOFF, the offset of in-capsule data in 16 bytes.
    pub icdoff: U16,
    /// 1802: FCATT: bit 0 clear for dynamic controllers.
    pub fcatt: u8,
    /// 1803: MSDBD, SGL data block descriptors in a command.
    pub msdbd: u8,
    /// 1804: OFCS: bit 0 Disconnect.
    pub ofcs: U16,
    /// 1806: reserved.
    pub reserved_1806: [u8; 242],
    /// 2048: power state descriptors of 32 bytes.
    pub power_states: [[u8; 32]; 32],
    /// 3072: vendor specific.
    pub vendor: [u8; 1024],
}

const _: () = assert!(size_of::<IdentifyController>() == super::IDENTIFY_BYTES as usize);
const _: () = assert!(core::mem::offset_of!(IdentifyController, cntrltype) == 111);
const _: () = assert!(core::mem::offset_of!(IdentifyController, oacs) == 256);
const _: () = assert!(core::mem::offset_of!(IdentifyController, kas) == 320);
const _: () = assert!(core::mem::offset_of!(IdentifyController, sqes) == 512);
const _: () = assert!(core::mem::offset_of!(IdentifyController, subnqn) == 768);
const _: () = assert!(core::mem::offset_of!(IdentifyController, ioccsz) == 1792);
