//! The Fabrics commands and the data of Connect, as a host builds them (Base, section 6).

use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::fabrics::ConnectData;
use ashlar_nvmeof::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT, Sgl, admin, fabrics};
use zerocopy::FromZeros;
use zerocopy::little_endian::{U16, U32, U64};

/// The data with which `hostnqn` asks for controller `cntlid` of `subnqn`. Names longer than 255 bytes are cut,
/// which the controller then refuses as unknown.
#[must_use]
pub fn connect_data(host_id: [u8; 16], cntlid: u16, subnqn: &str, hostnqn: &str) -> ConnectData {
    let mut data = ConnectData::new_zeroed();
    data.host_id = host_id;
    data.controller_id = U16::new(cntlid);
    put_name(&mut data.subsystem_nqn, subnqn);
    put_name(&mut data.host_nqn, hostnqn);
    data
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
