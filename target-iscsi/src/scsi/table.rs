//! The commands there are: one table, by which CDBs are decoded and which REPORT SUPPORTED OPERATION CODES reports.

use ashlar_env::volume::VolumeInfo;

use super::Cdb;
use super::vpd::ATOMIC_BLOCKS_MIN;

/// Which command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// TEST UNIT READY
    TestUnitReady,
    /// REQUEST SENSE
    RequestSense,
    /// INQUIRY
    Inquiry,
    /// REPORT LUNS
    ReportLuns,
    /// READ CAPACITY (10)
    ReadCapacity10,
    /// READ CAPACITY (16)
    ReadCapacity16,
    /// GET LBA STATUS
    GetLbaStatus,
    /// READ (6), (10), (12), (16)
    Read,
    /// WRITE (6), (10), (12), (16)
    Write,
    /// WRITE ATOMIC (16)
    WriteAtomic,
    /// VERIFY (10), (12), (16)
    Verify,
    /// WRITE AND VERIFY (10), (12), (16)
    WriteAndVerify,
    /// COMPARE AND WRITE
    CompareAndWrite,
    /// ORWRITE (16)
    OrWrite,
    /// WRITE SAME (10), (16)
    WriteSame,
    /// UNMAP
    Unmap,
    /// SYNCHRONIZE CACHE (10), (16)
    SynchronizeCache,
    /// PRE-FETCH (10), (16)
    PreFetch,
    /// MODE SENSE (6)
    ModeSense6,
    /// MODE SENSE (10)
    ModeSense10,
    /// MODE SELECT (6)
    ModeSelect6,
    /// MODE SELECT (10)
    ModeSelect10,
    /// LOG SENSE
    LogSense,
    /// START STOP UNIT
    StartStopUnit,
    /// PREVENT ALLOW MEDIUM REMOVAL
    PreventAllow,
    /// SEND DIAGNOSTIC
    SendDiagnostic,
    /// RECEIVE DIAGNOSTIC RESULTS
    ReceiveDiagnostic,
    /// REPORT TARGET PORT GROUPS
    ReportTargetPortGroups,
    /// SET TARGET PORT GROUPS
    SetTargetPortGroups,
    /// REPORT SUPPORTED OPERATION CODES
    ReportOperationCodes,
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    ReportTaskManagement,
    /// PERSISTENT RESERVE IN, all service actions
    PersistentReserveIn,
    /// PERSISTENT RESERVE OUT, all service actions
    PersistentReserveOut,
    /// RESERVE (6), (10)
    Reserve,
    /// RELEASE (6), (10)
    Release,
    /// EXTENDED COPY (LID1)
    ExtendedCopy,
    /// RECEIVE COPY STATUS, OPERATING PARAMETERS, FAILURE DETAILS (LID1)
    ReceiveCopyResults,
    /// POPULATE TOKEN
    PopulateToken,
    /// WRITE USING TOKEN
    WriteUsingToken,
    /// RECEIVE ROD TOKEN INFORMATION
    ReceiveTokenInformation,
}

/// What of a CDB tells how long its data are, and where they go (for the block commands).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Does not touch the medium, and is served in every asymmetric access state; never stopped by a unit attention
    /// (INQUIRY, REPORT LUNS, REQUEST SENSE).
    Always,
    /// Does not touch the medium, and is served in every asymmetric access state.
    AnyState,
    /// Neither reads nor writes the medium, but needs the unit to be served here.
    Served,
    /// Reads the medium.
    Read,
    /// Writes the medium, or has it written.
    Write,
}

/// One command.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub code: Code,
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION, where the operation code has some. Its place is the low 5 bits of byte 1.
    pub action: Option<u8>,
    /// What it does to the unit.
    pub access: Access,
    /// CDB usage data (SPC-4, section 6.35.3): ones where a bit is looked at. As long as the CDB. Its first byte is the
    /// operation code; the service action is put in where it is reported.
    pub usage: &'static [u8],
    /// The recommended timeout, in seconds.
    pub timeout_s: u32,
    /// Its name in the standards.
    pub name: &'static str,
    /// Whether it is there for such a volume.
    pub offered: fn(&VolumeInfo) -> bool,
}

const fn always(_: &VolumeInfo) -> bool {
    true
}

fn atomic(info: &VolumeInfo) -> bool {
    info.atomic_write_blocks >= ATOMIC_BLOCKS_MIN
}

fn thin(info: &VolumeInfo) -> bool {
    info.thin
}

const fn entry(code: Code, name: &'static str, access: Access, usage: &'static [u8]) -> Entry {
    let timeout_s = 30;
    Entry { code, opcode: usage[0], action: None, access, usage, timeout_s, name, offered: always }
}

const fn persistent_in(action: u8, name: &'static str) -> Entry {
    let usage = &[0x5E, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0x07];
    entry(Code::PersistentReserveIn, name, Access::AnyState, usage).action(action)
}

const fn persistent_out(action: u8, name: &'static str) -> Entry {
    let usage = &[0x5F, 0, 0xFF, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x07];
    entry(Code::PersistentReserveOut, name, Access::Served, usage).action(action)
}

impl Entry {
    const fn action(mut self, action: u8) -> Self {
        self.action = Some(action);
        self
    }

    const fn timeout_s(mut self, timeout_s: u32) -> Self {
        self.timeout_s = timeout_s;
        self
    }

    const fn offered(mut self, offered: fn(&VolumeInfo) -> bool) -> Self {
        self.offered = offered;
        self
    }

    /// Whether a unit attention stops it.
    #[must_use]
    pub fn meets_unit_attentions(&self) -> bool {
        self.access != Access::Always
    }

    /// CDB usage data, with the service action in its place.
    #[must_use]
    pub fn usage_data(&self) -> Vec<u8> {
        let mut usage = self.usage.to_vec();
        if let Some(action) = self.action {
            usage[1] = (usage[1] & 0xE0) | action;
        }
        usage
    }
}

/// All commands, ascending by operation code and service action.
pub static COMMANDS: &[Entry] = &[
    entry(Code::TestUnitReady, "TEST UNIT READY", Access::Served, &[0x00, 0, 0, 0, 0, 0x07]),
    entry(Code::RequestSense, "REQUEST SENSE", Access::Always, &[0x03, 0x01, 0, 0, 0xFF, 0x07]),
    entry(Code::Read, "READ (6)", Access::Read, &[0x08, 0x1F, 0xFF, 0xFF, 0xFF, 0x07]),
    entry(Code::Write, "WRITE (6)", Access::Write, &[0x0A, 0x1F, 0xFF, 0xFF, 0xFF, 0x07]),
    entry(Code::Inquiry, "INQUIRY", Access::Always, &[0x12, 0x01, 0xFF, 0xFF, 0xFF, 0x07]),
    entry(Code::ModeSelect6, "MODE SELECT (6)", Access::Served, &[0x15, 0x11, 0, 0, 0xFF, 0x07]),
    entry(Code::Reserve, "RESERVE (6)", Access::Served, &[0x16, 0x1F, 0, 0, 0, 0x07]),
    entry(Code::Release, "RELEASE (6)", Access::Served, &[0x17, 0x1F, 0, 0, 0, 0x07]),
    entry(Code::ModeSense6, "MODE SENSE (6)", Access::AnyState, &[0x1A, 0x08, 0xFF, 0xFF, 0xFF, 0x07]),
    entry(Code::StartStopUnit, "START STOP UNIT", Access::Served, &[0x1B, 0x01, 0, 0x0F, 0xF7, 0x07]),
    entry(
        Code::ReceiveDiagnostic,
        "RECEIVE DIAGNOSTIC RESULTS",
        Access::Served,
        &[0x1C, 1, 0xFF, 0xFF, 0xFF, 0x07],
    ),
    entry(Code::SendDiagnostic, "SEND DIAGNOSTIC", Access::Served, &[0x1D, 0xF7, 0, 0xFF, 0xFF, 0x07]),
    entry(Code::PreventAllow, "PREVENT ALLOW MEDIUM REMOVAL", Access::Served, &[0x1E, 0, 0, 0, 0x03, 0x07]),
    entry(Code::ReadCapacity10, "READ CAPACITY (10)", Access::Served, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0x07]),
    entry(Code::Read, "READ (10)", Access::Read, &[0x28, 0xFA, 255, 255, 255, 255, 0x1F, 255, 255, 0x07]),
    entry(Code::Write, "WRITE (10)", Access::Write, &[0x2A, 0xFA, 255, 255, 255, 255, 0x1F, 255, 255, 0x07]),
    entry(
        Code::WriteAndVerify,
        "WRITE AND VERIFY (10)",
        Access::Write,
        &[0x2E, 0xF6, 255, 255, 255, 255, 0x1F, 255, 255, 7],
    ),
    entry(Code::Verify, "VERIFY (10)", Access::Read, &[0x2F, 0xF6, 255, 255, 255, 255, 0x1F, 255, 255, 0x07]),
    entry(
        Code::PreFetch,
        "PRE-FETCH (10)",
        Access::Read,
        &[0x34, 0x02, 255, 255, 255, 255, 0x1F, 255, 255, 0x07],
    ),
    entry(
        Code::SynchronizeCache,
        "SYNCHRONIZE CACHE (10)",
        Access::Write,
        &[0x35, 0x02, 255, 255, 255, 255, 0x1F, 255, 255, 7],
    )
    .timeout_s(60),
    entry(
        Code::WriteSame,
        "WRITE SAME (10)",
        Access::Write,
        &[0x41, 0xF8, 255, 255, 255, 255, 0x1F, 255, 255, 0x07],
    )
    .timeout_s(60),
    entry(Code::Unmap, "UNMAP", Access::Write, &[0x42, 0x01, 0, 0, 0, 0, 0x1F, 255, 255, 0x07])
        .timeout_s(60)
        .offered(thin),
    entry(
        Code::LogSense,
        "LOG SENSE",
        Access::AnyState,
        &[0x4D, 0x01, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x07],
    ),
    entry(
        Code::ModeSelect10,
        "MODE SELECT (10)",
        Access::Served,
        &[0x55, 0x11, 0, 0, 0, 0, 0, 255, 255, 0x07],
    ),
    entry(Code::Reserve, "RESERVE (10)", Access::Served, &[0x56, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0x07]),
    entry(Code::Release, "RELEASE (10)", Access::Served, &[0x57, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0x07]),
    entry(
        Code::ModeSense10,
        "MODE SENSE (10)",
        Access::AnyState,
        &[0x5A, 0x18, 255, 255, 0, 0, 0, 255, 255, 0x07],
    ),
    persistent_in(0x00, "PERSISTENT RESERVE IN, READ KEYS"),
    persistent_in(0x01, "PERSISTENT RESERVE IN, READ RESERVATION"),
    persistent_in(0x02, "PERSISTENT RESERVE IN, REPORT CAPABILITIES"),
    persistent_in(0x03, "PERSISTENT RESERVE IN, READ FULL STATUS"),
    persistent_out(0x00, "PERSISTENT RESERVE OUT, REGISTER"),
    persistent_out(0x01, "PERSISTENT RESERVE OUT, RESERVE"),
    persistent_out(0x02, "PERSISTENT RESERVE OUT, RELEASE"),
    persistent_out(0x03, "PERSISTENT RESERVE OUT, CLEAR"),
    persistent_out(0x04, "PERSISTENT RESERVE OUT, PREEMPT"),
    persistent_out(0x05, "PERSISTENT RESERVE OUT, PREEMPT AND ABORT"),
    persistent_out(0x06, "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY"),
    persistent_out(0x07, "PERSISTENT RESERVE OUT, REGISTER AND MOVE"),
    entry(
        Code::ExtendedCopy,
        "EXTENDED COPY (LID1)",
        Access::Served,
        &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x00)
    .timeout_s(60),
    entry(
        Code::PopulateToken,
        "POPULATE TOKEN",
        Access::Read,
        &[0x83, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    )
    .action(0x10),
    entry(
        Code::WriteUsingToken,
        "WRITE USING TOKEN",
        Access::Write,
        &[0x83, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    )
    .action(0x11)
    .timeout_s(60),
    entry(
        Code::ReceiveCopyResults,
        "RECEIVE COPY STATUS (LID1)",
        Access::Served,
        &[0x84, 0, 0xFF, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x00),
    entry(
        Code::ReceiveCopyResults,
        "RECEIVE COPY OPERATING PARAMETERS",
        Access::Served,
        &[0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x03),
    entry(
        Code::ReceiveCopyResults,
        "RECEIVE COPY FAILURE DETAILS (LID1)",
        Access::Served,
        &[0x84, 0, 0xFF, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x04),
    entry(
        Code::ReceiveTokenInformation,
        "RECEIVE ROD TOKEN INFORMATION",
        Access::Served,
        &[0x84, 0, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x07),
    entry(
        Code::Read,
        "READ (16)",
        Access::Read,
        &[0x88, 0xFA, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::CompareAndWrite,
        "COMPARE AND WRITE",
        Access::Write,
        &[0x89, 0xFA, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 255, 0x1F, 7],
    ),
    entry(
        Code::Write,
        "WRITE (16)",
        Access::Write,
        &[0x8A, 0xFA, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::OrWrite,
        "ORWRITE (16)",
        Access::Write,
        &[0x8B, 0xFA, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::WriteAndVerify,
        "WRITE AND VERIFY (16)",
        Access::Write,
        &[0x8E, 0xF6, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::Verify,
        "VERIFY (16)",
        Access::Read,
        &[0x8F, 0xF6, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::PreFetch,
        "PRE-FETCH (16)",
        Access::Read,
        &[0x90, 0x02, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::SynchronizeCache,
        "SYNCHRONIZE CACHE (16)",
        Access::Write,
        &[0x91, 0x02, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    )
    .timeout_s(60),
    entry(
        Code::WriteSame,
        "WRITE SAME (16)",
        Access::Write,
        &[0x93, 0xF9, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    )
    .timeout_s(60),
    entry(
        Code::WriteAtomic,
        "WRITE ATOMIC (16)",
        Access::Write,
        &[0x9C, 0xF8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    )
    .offered(atomic),
    entry(
        Code::ReadCapacity16,
        "READ CAPACITY (16)",
        Access::Served,
        &[0x9E, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0x07],
    )
    .action(0x10),
    entry(
        Code::GetLbaStatus,
        "GET LBA STATUS",
        Access::Read,
        &[0x9E, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 7],
    )
    .action(0x12),
    entry(
        Code::ReportLuns,
        "REPORT LUNS",
        Access::Always,
        &[0xA0, 0, 0xFF, 0, 0, 0, 255, 255, 255, 255, 0, 0x07],
    ),
    entry(
        Code::ReportTargetPortGroups,
        "REPORT TARGET PORT GROUPS",
        Access::AnyState,
        &[0xA3, 0xE0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x0A),
    entry(
        Code::ReportOperationCodes,
        "REPORT SUPPORTED OPERATION CODES",
        Access::AnyState,
        &[0xA3, 0, 0x87, 255, 255, 255, 255, 255, 255, 255, 0, 7],
    )
    .action(0x0C),
    entry(
        Code::ReportTaskManagement,
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        Access::AnyState,
        &[0xA3, 0, 0x80, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x0D),
    entry(
        Code::SetTargetPortGroups,
        "SET TARGET PORT GROUPS",
        Access::AnyState,
        &[0xA4, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 7],
    )
    .action(0x0A),
    entry(
        Code::Read,
        "READ (12)",
        Access::Read,
        &[0xA8, 0xFA, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::Write,
        "WRITE (12)",
        Access::Write,
        &[0xAA, 0xFA, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::WriteAndVerify,
        "WRITE AND VERIFY (12)",
        Access::Write,
        &[0xAE, 0xF6, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
    entry(
        Code::Verify,
        "VERIFY (12)",
        Access::Read,
        &[0xAF, 0xF6, 255, 255, 255, 255, 255, 255, 255, 255, 0x1F, 7],
    ),
];

/// What is known of an operation code and service action.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// the command
    Command(&'static Entry),
    /// the operation code is known, this service action of it is not
    NoAction,
    /// neither
    NoCode,
}

/// Finds the command of a CDB, among those that are there for such a volume (all, without one).
#[must_use]
pub fn find(cdb: &Cdb, volume: Option<&VolumeInfo>) -> Found {
    lookup(cdb.head[0], Some(cdb.head[1] & 0x1F), volume)
}

/// Finds a command. A service action is only looked at where the operation code has some.
#[must_use]
pub fn lookup(opcode: u8, action: Option<u8>, volume: Option<&VolumeInfo>) -> Found {
    let from = FIRST[usize::from(opcode)];
    let mut known = false;
    for entry in COMMANDS.iter().skip(usize::from(from)).take_while(|entry| entry.opcode == opcode) {
        if volume.is_some_and(|volume| !(entry.offered)(volume)) {
            continue;
        }
        if entry.action.is_none() || entry.action == action {
            return Found::Command(entry);
        }
        known = true;
    }
    if known { Found::NoAction } else { Found::NoCode }
}

/// Where in [`COMMANDS`] each operation code begins.
static FIRST: [u8; 256] = first();

const fn first() -> [u8; 256] {
    let mut first = [COMMANDS.len() as u8; 256];
    let mut at = COMMANDS.len();
    while at > 0 {
        at -= 1;
        first[COMMANDS[at].opcode as usize] = at as u8;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_usage_data_are_as_long_as_the_cdbs() {
        for pair in COMMANDS.windows(2) {
            assert!((pair[0].opcode, pair[0].action) < (pair[1].opcode, pair[1].action), "{}", pair[1].name);
        }
        for entry in COMMANDS {
            let want = match entry.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                5 => 12,
                group => panic!("{}: group {group}", entry.name),
            };
            assert_eq!(entry.usage.len(), want, "{}", entry.name);
            assert_eq!(entry.usage_data()[0], entry.opcode);
            assert!(
                matches!(lookup(entry.opcode, entry.action, None), Found::Command(found) if found.name == entry.name)
            );
        }
    }

    #[test]
    fn unknown_codes_and_unknown_actions_differ() {
        assert!(matches!(lookup(0xFF, None, None), Found::NoCode));
        assert!(matches!(lookup(0x9E, Some(0x1F), None), Found::NoAction));
    }
}
