//! Log pages (Base, section 5.16.1; discovery: section 5.16.1.23).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Sqe;

/// Log page identifiers (Base, section 5.16.1).
pub mod lid {
    /// Supported log pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Error information.
    pub const ERRORS: u8 = 0x01;
    /// SMART and health.
    pub const SMART: u8 = 0x02;
    /// Firmware slots.
    pub const FIRMWARE: u8 = 0x03;
    /// Changed namespaces.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands supported and their effects.
    pub const EFFECTS: u8 = 0x05;
    /// Asymmetric namespace access.
    pub const ANA: u8 = 0x0C;
    /// Features supported and their effects.
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// Discovery.
    pub const DISCOVERY: u8 = 0x70;
    /// Reservation notification.
    pub const RESERVATION: u8 = 0x80;
}

/// Get Log Page, taken apart (Base, section 5.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLogPage {
    /// LID, CDW10 bits 7:0.
    pub lid: u8,
    /// LSP, CDW10 bits 14:8: specific to the page.
    pub specific: u8,
    /// RAE, CDW10 bit 15: the event stays as it is.
    pub retain_event: bool,
    /// NUMD + 1 dwords of CDW10 bits 31:16 and CDW11 bits 15:0, in bytes: 4 to 16 GiB.
    pub bytes: u64,
    /// LPO, CDW12 and CDW13: where to begin, in bytes.
    pub offset: u64,
    /// OT, CDW14 bit 23: the offset counts entries.
    pub offset_is_index: bool,
    /// CSI, CDW14 bits 31:24.
    pub csi: u8,
}

impl Sqe {
    /// The command as a Get Log Page.
    #[must_use]
    pub fn as_get_log_page(&self) -> GetLogPage {
        let (cdw10, cdw14) = (self.cdw10.get(), self.cdw14.get());
        let dwords = u64::from(cdw10 >> 16) | u64::from(self.cdw11.get() & 0xFFFF) << 16;
        GetLogPage {
            lid: cdw10 as u8,
            specific: (cdw10 >> 8) as u8 & 0x7F,
            retain_event: cdw10 & 1 << 15 != 0,
            bytes: (dwords + 1) * 4,
            offset: u64::from(self.cdw12.get()) | u64::from(self.cdw13.get()) << 32,
            offset_is_index: cdw14 & 1 << 23 != 0,
            csi: (cdw14 >> 24) as u8,
        }
    }
}

/// One error (Base, section 5.16.1.2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ErrorEntry {
    /// 0: the number of this error, from 1; 0 in an empty entry.
    pub count: U64,
    /// 8: the queue.
    pub sq_id: U16,
    /// 10: the command.
    pub cid: U16,
    /// 12: the status field as in the completion.
    pub status: U16,
    /// 14: the byte and bit of the command at fault; FFFFh where none is.
    pub parameter: U16,
    /// 16: the first block that failed.
    pub lba: U64,
    /// 24: the namespace.
    pub nsid: U32,
    /// 28: vendor specific page.
    pub vendor: u8,
    /// 29: TRTYPE.
    pub transport: u8,
    /// 30: reserved.
    pub reserved_30: [u8; 2],
    /// 32: command specific.
    pub command_specific: U64,
    /// 40: transport specific.
    pub transport_specific: U16,
    /// 42: reserved.
    pub reserved_42: [u8; 22],
}

const _: () = assert!(size_of::<ErrorEntry>() == 64);

/// SMART and health (Base, section 5.16.1.3).
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SmartLog {
    /// 0: critical warnings.
    pub critical_warning: u8,
    /// 1: temperature in kelvin; 0 where there is none.
    pub temperature: U16,
    /// 3: spare left, in percent.
    pub available_spare: u8,
    /// 4: spare below which to warn, in percent.
    pub spare_threshold: u8,
    /// 5: life used, in percent.
    pub percentage_used: u8,
    /// 6: endurance group warnings.
    pub endurance_warning: u8,
    /// 7: reserved.
    pub reserved_7: [u8; 25],
    /// 32: data read, in 512 000 bytes, rounded up.
    pub data_units_read: U128,
    /// 48: data written, in 512 000 bytes, rounded up.
    pub data_units_written: U128,
    /// 64: read commands.
    pub host_reads: U128,
    /// 80: write commands.
    pub host_writes: U128,
    /// 96: minutes busy.
    pub busy_minutes: U128,
    /// 112: power cycles.
    pub power_cycles: U128,
    /// 128: hours powered.
    pub power_on_hours: U128,
    /// 144: unsafe shutdowns.
    pub unsafe_shutdowns: U128,
    /// 160: media errors.
    pub media_errors: U128,
    /// 176: error log entries made.
    pub error_entries: U128,
    /// 192: temperatures and thermal management.
    pub reserved_192: [u8; 320],
}

const _: () = assert!(size_of::<SmartLog>() == 512);
const _: () = assert!(core::mem::offset_of!(SmartLog, data_units_read) == 32);

/// The head of the ANA log (Base, section 5.16.1.13).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaHeader {
    /// 0: CHGCNT.
    pub change_count: U64,
    /// 8: the number of group descriptors.
    pub groups: U16,
    /// 10: reserved.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<AnaHeader>() == 16);

/// One ANA group; its NSIDs follow, ascending, 4 bytes each (Base, section 5.16.1.13).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaGroup {
    /// 0: ANAGRPID.
    pub id: U32,
    /// 4: the number of NSIDs that follow.
    pub namespaces: U32,
    /// 8: the change count at which the group last changed.
    pub change_count: U64,
    /// 16: the state in bits 3:0.
    pub state: u8,
    /// 17: reserved.
    pub reserved: [u8; 15],
}

const _: () = assert!(size_of::<AnaGroup>() == 32);

/// LSP bit 0 of the ANA log: groups only, no NSIDs (RGO).
pub const ANA_GROUPS_ONLY: u8 = 1;

/// One reservation notification (Base, section 5.16.1.24).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReservationNotification {
    /// 0: the number of the notification, from 1; a gap shows lost ones; 0 in an empty page.
    pub count: U64,
    /// 8: 1 registration preempted, 2 reservation released, 3 reservation preempted; 0 in an empty page.
    pub kind: u8,
    /// 9: how many more wait, at most 255.
    pub available: u8,
    /// 10: reserved.
    pub reserved_10: [u8; 2],
    /// 12: the namespace.
    pub nsid: U32,
    /// 16: reserved.
    pub reserved_16: [u8; 48],
}

const _: () = assert!(size_of::<ReservationNotification>() == 64);

/// The head of the discovery log (Base, section 5.16.1.23).
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// 0: GENCTR.
    pub generation: U64,
    /// 8: NUMREC.
    pub records: U64,
    /// 16: RECFMT, 0.
    pub record_format: U16,
    /// 18: reserved.
    pub reserved: [u8; 1006],
}

const _: () = assert!(size_of::<DiscoveryHeader>() == 1024);

/// One record of the discovery log (Base, section 5.16.1.23; TSAS: TCP, section 3.5.1).
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryRecord {
    /// 0: TRTYPE: 3 TCP.
    pub transport: u8,
    /// 1: ADRFAM: 1 IPv4, 2 IPv6.
    pub family: u8,
    /// 2: SUBTYPE: 1 referral, 2 NVM subsystem, 3 this discovery subsystem.
    pub subtype: u8,
    /// 3: TREQ: bits 1:0 a secure channel (00b not specified, 01b required, 10b not required), bit 2 flow control may be off.
    pub requirements: u8,
    /// 4: PORTID.
    pub port_id: U16,
    /// 6: CNTLID; FFFFh: dynamic controllers.
    pub controller_id: U16,
    /// 8: ASQSZ, entries of the admin queue, at most.
    pub admin_queue_size: U16,
    /// 10: EFLAGS: bit 1 explicit persistent connections.
    pub flags: U16,
    /// 12: reserved.
    pub reserved_12: [u8; 20],
    /// 32: TRSVCID, the port in decimal, padded with spaces.
    pub service: [u8; 32],
    /// 64: reserved.
    pub reserved_64: [u8; 192],
    /// 256: SUBNQN, padded with NUL.
    pub nqn: [u8; 256],
    /// 512: TRADDR, padded with spaces.
    pub address: [u8; 256],
    /// 768: TSAS: byte 0 is SECTYPE, 0 none.
    pub transport_specific: [u8; 256],
}

const _: () = assert!(size_of::<DiscoveryRecord>() == 1024);
