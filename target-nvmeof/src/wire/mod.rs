//! Wire structures, field by field, with the section of the specification that defines each.
//!
//! "Base" is the NVM Express Base Specification 2.0, "NVM" the NVM Command Set Specification 1.0, "TCP" the
//! NVMe/TCP Transport Specification 1.0. All integers are little-endian (zerocopy's types see to it).

pub mod cqe;
pub mod fabrics;
pub mod feature;
pub mod identify;
pub mod log;
pub mod pdu;
pub mod sqe;
pub mod status;

pub use cqe::Cqe;
pub use sqe::Sqe;
pub use status::Status;
