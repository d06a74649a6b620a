//! The Fabrics commands and the data of Connect, as a host builds them (Base, section 6).

use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT, Sgl, admin, fabrics};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The data of Connect, 1024 bytes (Base, section 6.3).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// Bytes 15:0: host identifier.
    pub host_id: [u8; 16],
    /// Bytes 17:16: controller identifier; FFFFh asks for any.
    pub cntlid: U16,
    /// Bytes 255:18: reserved.
    pub reserved_18: [u8; 238],
    /// Bytes 511:256: NQN of the subsystem, ended by a NUL.
    pub subnqn: [u8; 256],
    /// Bytes 767:512: NQN of the host, ended by a NUL.
    pub hostnqn: [u8; 256],
    /// Bytes 1023:768: reserved.
    pub reserved_768: [u8; 256],
}

const _: () = assert!(size_of::<ConnectData>() == 1024);

/// CNTLID in Connect that asks for any controller.
pub const CNTLID_DYNAMIC: u16 = 0xFFFF;
/// CATTR bit: the host does not use submission queue flow control (DISSQFC).
pub const CATTR_NO_FLOW_CONTROL: u8 = 1 << 2;

/// Offsets of the controller properties (Base, section 3.1.3).
pub mod property {
    /// Controller Capabilities, 8 bytes.
    pub const CAP: u32 = 0x00;
    /// Version.
    pub const VS: u32 = 0x08;
    /// Controller Configuration.
    pub const CC: u32 = 0x14;
    /// Controller Status.
    pub const CSTS: u32 = 0x1C;
}

impl ConnectData {
    /// The data with which `hostnqn` asks for controller `cntlid` of `subnqn`. Names longer than 255 bytes are
    /// cut, which the controller then refuses as unknown.
    #[must_use]
    pub fn new(host_id: [u8; 16], cntlid: u16, subnqn: &str, hostnqn: &str) -> Self {
        let mut data = Self::new_zeroed();
        data.host_id = host_id;
        data.cntlid = U16::new(cntlid);
        put_name(&mut data.subnqn, subnqn);
        put_name(&mut data.hostnqn, hostnqn);
        data
    }
}

fn put_name(field: &mut [u8; 256], name: &str) {
    let len = name.len().min(field.len() - 1);
    field[..len].copy_from_slice(&name.as_bytes()[..len]);
}

/// A command with PSDT 01b, as NVMe/TCP wants it. The queue sets the CID and the SGL.
#[must_use]
pub fn command(opcode: u8, nsid: u32) -> Sqe {
    let mut sqe = Sqe::zeroed();
    sqe.opcode = opcode;
    sqe.flags = 0x40;
    sqe.nsid = U32::new(nsid);
    sqe
}

/// Connect. `entries` is the queue's size, `kato_ms` the keep-alive timeout (admin queue only).
#[must_use]
pub fn connect(qid: u16, entries: u16, cattr: u8, kato_ms: u32) -> Sqe {
    let mut sqe = command(admin::FABRICS, u32::from(fabrics::CONNECT));
    sqe.cdw10 = U32::new(u32::from(qid) << 16);
    sqe.cdw11 = U32::new(u32::from(entries.wrapping_sub(1)) | u32::from(cattr) << 16);
    sqe.cdw12 = U32::new(kato_ms);
    sqe
}

/// Property Get of 8 bytes where `wide`, else 4.
#[must_use]
pub fn property_get(offset: u32, wide: bool) -> Sqe {
    let mut sqe = command(admin::FABRICS, u32::from(fabrics::PROPERTY_GET));
    sqe.cdw10 = U32::new(u32::from(wide));
    sqe.cdw11 = U32::new(offset);
    sqe
}

/// Property Set of 4 bytes.
#[must_use]
pub fn property_set(offset: u32, value: u32) -> Sqe {
    let mut sqe = command(admin::FABRICS, u32::from(fabrics::PROPERTY_SET));
    sqe.cdw11 = U32::new(offset);
    sqe.cdw12 = U32::new(value);
    sqe
}

/// The SGL of `bytes` of data in the capsule.
#[must_use]
pub fn sgl_in_capsule(bytes: u32) -> Sgl {
    Sgl { address: U64::ZERO, length: U32::new(bytes), reserved: [0; 3], identifier: SGL_IN_CAPSULE }
}

/// The SGL of `bytes` of data that go by C2HData or R2T.
#[must_use]
pub fn sgl_transport(bytes: u32) -> Sgl {
    Sgl { address: U64::ZERO, length: U32::new(bytes), reserved: [0; 3], identifier: SGL_TRANSPORT }
}
