//! Identify Controller.

use zerocopy::FromZeros;

use crate::hub::controller::Controller;
use crate::hub::error_log::ERROR_ENTRIES_MAX;
use crate::hub::events::{OAES_DISCOVERY, OAES_IO};
use crate::hub::keep_alive::KAS;
use crate::hub::property::VERSION;
use crate::hub::{ANA_GROUPS_MAX, Hub, NAMESPACES_MAX, ana};
use crate::limits::{ABORTS_MAX, ADMIN_QUEUE_ENTRIES_MAX, AERS_MAX, IN_CAPSULE_BYTES};
use crate::view::Subsystem;
use crate::wire::identify::IdentifyController;

/// VID and SSVID. This project has no number from the PCI-SIG; hosts only show it, but for 0 they show nothing.
const VENDOR: u16 = 0xA51A;
/// IEEE, least significant byte first. No OUI is assigned either: this one has the bit of locally administered
/// addresses, so it is nobody else's.
const OUI: [u8; 3] = [0x53, 0x41, 0x02];
/// The serial number of the discovery subsystem, which has no storage that it could tell apart.
const DISCOVERY_SERIAL: &str = "DISCOVERY";
/// Seconds an ANA group may be in the change state (ANATT).
const ANA_TRANSITION_S: u8 = 10;
/// All five states are reported (ANACAP).
const ANA_STATES: u8 = 0b1_1111;

const CMIC: u8 = 1 << 0 | 1 << 1 | 1 << 3;
const CTRATT: u32 = 1 << 0 | 1 << 6;
const LPA: u8 = 1 << 1 | 1 << 2;
/// Compare, Dataset Management, Write Zeroes, Save and Select fields, Reservations, Timestamp, Verify, Copy.
const ONCS: u16 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
const FUSES_COMPARE_AND_WRITE: u16 = 1 << 0;
const COPY_FORMAT_0: u16 = 1 << 0;
const SGLS: u32 = 1 << 0 | 1 << 20 | 1 << 21;
const VWC_PRESENT: u8 = 1 << 0;
/// VWC bits 2:1 = 10b: Flush with NSID FFFFFFFFh is refused.
const VWC_NO_FLUSH_ALL: u8 = 0b10 << 1;
const FRMW_ONE_READ_ONLY_SLOT: u8 = 1 << 0 | 1 << 1;
const CNTRLTYPE_IO: u8 = 1;
const CNTRLTYPE_DISCOVERY: u8 = 2;

impl Hub {
    /// Identify Controller.
    pub(super) fn identify_controller(&self, controller: &Controller) -> IdentifyController {
        let config = &self.config;
        let mut identify = IdentifyController {
            vid: VENDOR.into(),
            ssvid: VENDOR.into(),
            serial: padded(DISCOVERY_SERIAL),
            model: padded(&config.model),
            firmware: padded(&config.firmware),
            ieee: OUI,
            mdts: (config.limits.max_transfer_bytes / 4096).ilog2() as u8,
            cntlid: controller.cntlid.into(),
            ver: VERSION.into(),
            acl: ABORTS_MAX - 1,
            aerl: AERS_MAX - 1,
            lpa: LPA,
            elpe: (ERROR_ENTRIES_MAX - 1) as u8,
            frmw: FRMW_ONE_READ_ONLY_SLOT,
            kas: KAS.into(),
            ctratt: CTRATT.into(),
            sgls: SGLS.into(),
            ..IdentifyController::new_zeroed()
        };
        let name = controller.subsystem.as_bytes();
        identify.subnqn[..name.len()].copy_from_slice(name);
        match self.subsystem_of(controller.cntlid) {
            Some(subsystem) => self.io(&mut identify, subsystem),
            None => {
                identify.cntrltype = CNTRLTYPE_DISCOVERY;
                identify.oaes = OAES_DISCOVERY.into();
                identify.maxcmd = ADMIN_QUEUE_ENTRIES_MAX.into();
            }
        }
        identify
    }

    /// What only I/O controllers have.
    ///
    /// AWUN, AWUPF and ACWU stay 0 (one block): hosts read them once and would believe them of namespaces that
    /// come later. Each namespace tells its own.
    fn io(&self, identify: &mut IdentifyController, subsystem: &Subsystem) {
        identify.serial = padded(&subsystem.serial);
        identify.cmic = CMIC;
        identify.oaes = OAES_IO.into();
        identify.cntrltype = CNTRLTYPE_IO;
        identify.anatt = ANA_TRANSITION_S;
        identify.anacap = ANA_STATES;
        identify.anagrpmax = ANA_GROUPS_MAX.into();
        identify.nanagrpid = ANA_GROUPS_MAX.into();
        identify.nn = NAMESPACES_MAX.into();
        identify.mnan = NAMESPACES_MAX.into();
        identify.sqes = 0x66;
        identify.cqes = 0x44;
        identify.maxcmd = self.config.limits.io_queue_entries_max.into();
        identify.oncs = ONCS.into();
        identify.fuses = FUSES_COMPARE_AND_WRITE.into();
        identify.copy_formats = COPY_FORMAT_0.into();
        identify.ioccsz = ((64 + IN_CAPSULE_BYTES) / 16).into();
        identify.iorcsz = 1.into();
        identify.msdbd = 1;
        identify.vwc = VWC_NO_FLUSH_ALL;
        if has_volatile_cache(subsystem) {
            identify.vwc |= VWC_PRESENT;
        }
    }
}

/// Whether a write to any namespace may be lost until a flush.
pub(in crate::hub) fn has_volatile_cache(subsystem: &Subsystem) -> bool {
    ana::shown(subsystem).any(|(_, namespace)| namespace.volume.volatile_cache)
}

/// ASCII text of a fixed length, padded with spaces; what is not printable becomes a question mark.
pub(in crate::hub) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (byte, char) in field.iter_mut().zip(text.chars()) {
        *byte = if matches!(char, ' '..='~') { char as u8 } else { b'?' };
    }
    field
}
