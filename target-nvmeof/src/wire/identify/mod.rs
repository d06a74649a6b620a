//! Identify data structures (Base, section 5.17; NVM, section 4.1.5).

mod controller;
mod namespace;

pub use controller::IdentifyController;
pub use namespace::{IdentifyNamespace, IdentifyNamespaceIndependent, LbaFormat, NamespaceDescriptor};

/// The length of every Identify data structure.
pub const IDENTIFY_BYTES: u32 = 4096;

/// CNS values: which structure Identify asks for (Base, section 5.17.1).
pub mod cns {
    /// Identify Namespace of the NVM command set.
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespace IDs.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace identification descriptors.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// Identify Namespace specific to a command set.
    pub const NAMESPACE_OF_COMMAND_SET: u8 = 0x05;
    /// Identify Controller specific to a command set.
    pub const CONTROLLER_OF_COMMAND_SET: u8 = 0x06;
    /// Active namespace IDs of a command set.
    pub const ACTIVE_NAMESPACES_OF_COMMAND_SET: u8 = 0x07;
    /// Identify Namespace independent of the command set.
    pub const NAMESPACE_INDEPENDENT: u8 = 0x08;
    /// I/O command sets supported.
    pub const COMMAND_SETS: u8 = 0x1C;
}

/// CSI of the NVM command set.
pub const CSI_NVM: u8 = 0;

/// Namespace identifier types (Base, section 5.17.2.3).
pub mod nidt {
    /// NGUID, 16 bytes.
    pub const NGUID: u8 = 2;
    /// UUID, 16 bytes.
    pub const UUID: u8 = 3;
    /// Command set identifier, 1 byte.
    pub const CSI: u8 = 4;
}
