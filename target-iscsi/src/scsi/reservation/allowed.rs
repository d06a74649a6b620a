//! Which commands another's reservation allows: SPC-4, tables 66 and 67, SBC-3, table 13, and SPC-2, table 10.

use ashlar_env::reservation::Access;

use crate::scsi::Cdb;

/// How a command stands to reservations. The tables have five patterns; every command follows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Allowed whatever is reserved.
    Always,
    /// Stopped by another's RESERVE alone.
    Attend,
    /// Stopped where others must not read.
    Read,
    /// Stopped where others must not write.
    Write,
    /// A reservation command: has rules of its own.
    Itself,
}

/// What another nexus holds, as the columns of the tables have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// the unit as a whole (RESERVE)
    Unit,
    /// Write Exclusive
    WriteExclusive,
    /// Exclusive Access
    ExclusiveAccess,
    /// Write Exclusive, Registrants Only or All Registrants
    WriteExclusiveRegistrants,
    /// Exclusive Access, Registrants Only or All Registrants
    ExclusiveAccessRegistrants,
}

/// How a nexus stands to the reservation that another holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation {
    /// what the other holds
    pub held: Held,
    /// whether this one is registered
    pub registered: bool,
}

impl Rule {
    /// What the volume is to be asked before such a command is begun; `None` where nothing.
    #[must_use]
    pub const fn access(self) -> Option<Access> {
        match self {
            Self::Always | Self::Itself => None,
            Self::Attend => Some(Access::Attend),
            Self::Read => Some(Access::Read),
            Self::Write => Some(Access::Write),
        }
    }
}

/// The rule of a command. One that is not known follows the strictest.
#[must_use]
pub fn rule(cdb: &Cdb) -> Rule {
    let action = cdb.head[1] & 0x1F;
    match (cdb.head[0], action) {
        // REQUEST SENSE, INQUIRY, READ CAPACITY, LOG SENSE, REPORT LUNS.
        (0x03 | 0x12 | 0x25 | 0x4D | 0xA0, _) | (0x9E, 0x10) => Rule::Always,
        // REPORT IDENTIFYING INFORMATION, TARGET PORT GROUPS, ALIASES, PRIORITY, TIMESTAMP.
        (0xA3, 0x05 | 0x0A | 0x0B | 0x0E | 0x0F) => Rule::Always,
        // START STOP UNIT that only starts, PREVENT ALLOW MEDIUM REMOVAL that allows.
        (0x1B, _) if cdb.head[4] & 0xF1 == 0x01 => Rule::Always,
        (0x1E, _) if cdb.head[4] & 0x03 == 0 => Rule::Always,
        // TEST UNIT READY; RECEIVE COPY RESULTS and its kin, which tell of one's own copies.
        (0x00 | 0x84, _) => Rule::Attend,
        // READ, VERIFY, PRE-FETCH.
        (0x08 | 0x28 | 0xA8 | 0x88 | 0x2F | 0xAF | 0x8F | 0x34 | 0x90, _) => Rule::Read,
        // MODE SENSE, RECEIVE DIAGNOSTIC RESULTS, READ BUFFER, READ DEFECT DATA.
        (0x1A | 0x5A | 0x1C | 0x3C | 0x37 | 0xB7, _) => Rule::Read,
        // POPULATE TOKEN, GET LBA STATUS, REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS.
        (0x83, 0x10) | (0x9E, 0x12) | (0xA3, 0x0C | 0x0D) => Rule::Read,
        // RESERVE and RELEASE, PERSISTENT RESERVE.
        (0x16 | 0x17 | 0x56 | 0x57 | 0x5E | 0x5F, _) => Rule::Itself,
        _ => Rule::Write,
    }
}

/// Whether a command is allowed to a nexus that stands so to another's reservation.
#[must_use]
pub fn allowed(cdb: &Cdb, relation: Relation) -> bool {
    let registrants =
        matches!(relation.held, Held::WriteExclusiveRegistrants | Held::ExclusiveAccessRegistrants);
    let shares = registrants && relation.registered;
    match rule(cdb) {
        Rule::Always => true,
        Rule::Attend => relation.held != Held::Unit,
        Rule::Read => {
            shares || matches!(relation.held, Held::WriteExclusive | Held::WriteExclusiveRegistrants)
        }
        Rule::Write => shares,
        Rule::Itself => of_reservations(cdb, relation, shares),
    }
}

/// The reservation commands. Allowed does not say that they have an effect: a release by another has none.
fn of_reservations(cdb: &Cdb, relation: Relation, shares: bool) -> bool {
    let unit = relation.held == Held::Unit;
    match (cdb.head[0], cdb.head[1] & 0x1F) {
        (0x17 | 0x57, _) => unit || shares,
        (0x16 | 0x56, _) => shares,
        _ if unit => false,
        (0x5E, _) => true,
        // REGISTER, and REGISTER AND IGNORE EXISTING KEY.
        (0x5F, 0x00 | 0x06) => true,
        // RELEASE, CLEAR, PREEMPT, PREEMPT AND ABORT.
        (0x5F, 0x02..=0x05) => relation.registered,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ashlar_env::reservation::{
        HostId, NexusAction, ReservationAction as Action, ReservationType as Type,
    };
    use ashlar_env::volume::Issuer;
    use ashlar_volume::Reservations;

    use super::*;
    use crate::scsi::table::COMMANDS;

    /// The columns of [`TABLE`].
    const COLUMNS: [(Held, Option<bool>); 6] = [
        (Held::Unit, None),
        (Held::WriteExclusive, None),
        (Held::ExclusiveAccess, None),
        (Held::WriteExclusiveRegistrants, Some(true)),
        (Held::WriteExclusiveRegistrants, Some(false)),
        (Held::ExclusiveAccessRegistrants, Some(false)),
    ];

    /// Operation code, service action, byte 4, and A (allowed) or C (conflict) for: another's RESERVE; from any nexus
    /// Write Exclusive, Exclusive Access; from a registered one the registrants' types; from one that is not
    /// registered Write Exclusive and Exclusive Access of the registrants' types.
    const TABLE: &[(u8, u8, u8, &str)] = &[
        (0x00, 0x00, 0, "CAAAAA"),    // TEST UNIT READY
        (0x03, 0x00, 0, "AAAAAA"),    // REQUEST SENSE
        (0x08, 0x00, 0, "CACAAC"),    // READ (6)
        (0x0A, 0x00, 0, "CCCACC"),    // WRITE (6)
        (0x12, 0x00, 0, "AAAAAA"),    // INQUIRY
        (0x15, 0x00, 0, "CCCACC"),    // MODE SELECT (6)
        (0x1A, 0x00, 0, "CACAAC"),    // MODE SENSE (6)
        (0x1B, 0x00, 1, "AAAAAA"),    // START STOP UNIT, START 1 and no power condition
        (0x1B, 0x00, 0, "CCCACC"),    // START STOP UNIT, START 0
        (0x1B, 0x00, 0x11, "CCCACC"), // START STOP UNIT, a power condition
        (0x1C, 0x00, 0, "CACAAC"),    // RECEIVE DIAGNOSTIC RESULTS
        (0x1D, 0x00, 0, "CCCACC"),    // SEND DIAGNOSTIC
        (0x1E, 0x00, 0, "AAAAAA"),    // PREVENT ALLOW MEDIUM REMOVAL, allow
        (0x1E, 0x00, 1, "CCCACC"),    // PREVENT ALLOW MEDIUM REMOVAL, prevent
        (0x25, 0x00, 0, "AAAAAA"),    // READ CAPACITY (10)
        (0x28, 0x00, 0, "CACAAC"),    // READ (10)
        (0x2A, 0x00, 0, "CCCACC"),    // WRITE (10)
        (0x2E, 0x00, 0, "CCCACC"),    // WRITE AND VERIFY (10)
        (0x2F, 0x00, 0, "CACAAC"),    // VERIFY (10)
        (0x34, 0x00, 0, "CACAAC"),    // PRE-FETCH (10)
        (0x35, 0x00, 0, "CCCACC"),    // SYNCHRONIZE CACHE (10)
        (0x37, 0x00, 0, "CACAAC"),    // READ DEFECT DATA (10)
        (0x3B, 0x00, 0, "CCCACC"),    // WRITE BUFFER
        (0x3C, 0x00, 0, "CACAAC"),    // READ BUFFER
        (0x41, 0x00, 0, "CCCACC"),    // WRITE SAME (10)
        (0x42, 0x00, 0, "CCCACC"),    // UNMAP
        (0x48, 0x03, 0, "CCCACC"),    // SANITIZE
        (0x4C, 0x00, 0, "CCCACC"),    // LOG SELECT
        (0x4D, 0x00, 0, "AAAAAA"),    // LOG SENSE
        (0x55, 0x00, 0, "CCCACC"),    // MODE SELECT (10)
        (0x5A, 0x00, 0, "CACAAC"),    // MODE SENSE (10)
        (0x83, 0x00, 0, "CCCACC"),    // EXTENDED COPY (LID1)
        (0x83, 0x10, 0, "CACAAC"),    // POPULATE TOKEN
        (0x83, 0x11, 0, "CCCACC"),    // WRITE USING TOKEN
        (0x84, 0x00, 0, "CAAAAA"),    // RECEIVE COPY STATUS (LID1)
        (0x84, 0x03, 0, "CAAAAA"),    // RECEIVE COPY OPERATING PARAMETERS
        (0x84, 0x04, 0, "CAAAAA"),    // RECEIVE COPY FAILURE DETAILS (LID1)
        (0x84, 0x07, 0, "CAAAAA"),    // RECEIVE ROD TOKEN INFORMATION
        (0x88, 0x00, 0, "CACAAC"),    // READ (16)
        (0x89, 0x00, 0, "CCCACC"),    // COMPARE AND WRITE
        (0x8A, 0x00, 0, "CCCACC"),    // WRITE (16)
        (0x8B, 0x00, 0, "CCCACC"),    // ORWRITE (16)
        (0x8E, 0x00, 0, "CCCACC"),    // WRITE AND VERIFY (16)
        (0x8F, 0x00, 0, "CACAAC"),    // VERIFY (16)
        (0x90, 0x00, 0, "CACAAC"),    // PRE-FETCH (16)
        (0x91, 0x00, 0, "CCCACC"),    // SYNCHRONIZE CACHE (16)
        (0x93, 0x00, 0, "CCCACC"),    // WRITE SAME (16)
        (0x9C, 0x00, 0, "CCCACC"),    // WRITE ATOMIC (16)
        (0x9E, 0x10, 0, "AAAAAA"),    // READ CAPACITY (16)
        (0x9E, 0x12, 0, "CACAAC"),    // GET LBA STATUS
        (0xA0, 0x00, 0, "AAAAAA"),    // REPORT LUNS
        (0xA3, 0x0A, 0, "AAAAAA"),    // REPORT TARGET PORT GROUPS
        (0xA3, 0x0C, 0, "CACAAC"),    // REPORT SUPPORTED OPERATION CODES
        (0xA3, 0x0D, 0, "CACAAC"),    // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
        (0xA4, 0x0A, 0, "CCCACC"),    // SET TARGET PORT GROUPS
        (0xA8, 0x00, 0, "CACAAC"),    // READ (12)
        (0xAA, 0x00, 0, "CCCACC"),    // WRITE (12)
        (0xAE, 0x00, 0, "CCCACC"),    // WRITE AND VERIFY (12)
        (0xAF, 0x00, 0, "CACAAC"),    // VERIFY (12)
        (0xC5, 0x00, 0, "CCCACC"),    // unknown
        (0x5E, 0x00, 0, "CAAAAA"),    // PERSISTENT RESERVE IN
        (0x5E, 0x01, 0, "CAAAAA"),
        (0x5E, 0x02, 0, "CAAAAA"),
        (0x5E, 0x03, 0, "CAAAAA"),
        (0x16, 0x00, 0, "CCCACC"), // RESERVE (6)
        (0x17, 0x00, 0, "ACCACC"), // RELEASE (6)
        (0x56, 0x00, 0, "CCCACC"), // RESERVE (10)
        (0x57, 0x00, 0, "ACCACC"), // RELEASE (10)
    ];

    /// PERSISTENT RESERVE OUT: from a registered nexus, and from one that is not (SPC-4, table 67).
    const OUT: [(u8, bool, bool); 8] = [
        (0x00, true, true),
        (0x01, false, false),
        (0x02, true, false),
        (0x03, true, false),
        (0x04, true, false),
        (0x05, true, false),
        (0x06, true, true),
        (0x07, false, false),
    ];

    fn cdb(opcode: u8, action: u8, byte4: u8) -> Cdb {
        Cdb::new(&[opcode, action, 0, 0, byte4, 0])
    }

    fn letter(cdb: &Cdb, held: Held, registered: bool) -> char {
        if allowed(cdb, Relation { held, registered }) { 'A' } else { 'C' }
    }

    #[test]
    fn every_command_follows_the_table() {
        for &(opcode, action, byte4, row) in TABLE {
            for ((held, registered), want) in COLUMNS.into_iter().zip(row.chars()) {
                let cdb = cdb(opcode, action, byte4);
                for registered in registered.map_or(vec![false, true], |only| vec![only]) {
                    let there = letter(&cdb, held, registered);
                    assert_eq!(there, want, "{opcode:02x}/{action:02x} {held:?} {registered}");
                }
            }
            // Who is registered shares in both of the registrants' types.
            let cdb = cdb(opcode, action, byte4);
            assert_eq!(letter(&cdb, Held::ExclusiveAccessRegistrants, true), row.chars().nth(3).unwrap());
        }
        for (action, registered, stranger) in OUT {
            let cdb = cdb(0x5F, action, 0);
            for held in [Held::WriteExclusive, Held::ExclusiveAccess, Held::WriteExclusiveRegistrants] {
                assert_eq!(allowed(&cdb, Relation { held, registered: true }), registered, "{action}");
                assert_eq!(allowed(&cdb, Relation { held, registered: false }), stranger, "{action}");
            }
            assert!(!allowed(&cdb, Relation { held: Held::Unit, registered: false }));
        }
    }

    #[test]
    fn the_table_has_every_command_there_is() {
        for entry in COMMANDS {
            let action = entry.action.unwrap_or(0);
            let found = TABLE.iter().any(|row| (row.0, row.1) == (entry.opcode, action));
            assert!(found || entry.opcode == 0x5F && action < 8, "{} is not in the table", entry.name);
        }
    }

    const HOLDER: Issuer = Issuer { host: HostId([1; 16]), session: 1 };
    const OTHER: Issuer = Issuer { host: HostId([2; 16]), session: 2 };

    /// A state in which the holder has this, and the other may be registered.
    fn state(held: Held, registered: bool, all: bool) -> Reservations {
        let mut state = Reservations::default();
        let kind = match held {
            Held::Unit => {
                state.apply_nexus(HOLDER, &NexusAction::ReserveUnit).unwrap();
                return state;
            }
            Held::WriteExclusive => Type::WriteExclusive,
            Held::ExclusiveAccess => Type::ExclusiveAccess,
            Held::WriteExclusiveRegistrants if all => Type::WriteExclusiveAllRegistrants,
            Held::WriteExclusiveRegistrants => Type::WriteExclusiveRegistrantsOnly,
            Held::ExclusiveAccessRegistrants if all => Type::ExclusiveAccessAllRegistrants,
            Held::ExclusiveAccessRegistrants => Type::ExclusiveAccessRegistrantsOnly,
        };
        for host in [HOLDER.host].into_iter().chain(registered.then_some(OTHER.host)) {
            state.apply(host, Action::Register { key: 1, persist: None }).unwrap();
        }
        state.apply(HOLDER.host, Action::Acquire { key: 1, kind }).unwrap();
        state
    }

    #[test]
    fn the_volumes_state_says_the_same() {
        for &(opcode, action, byte4, _) in TABLE {
            let cdb = cdb(opcode, action, byte4);
            for (held, registered) in COLUMNS {
                let registered = registered.unwrap_or(false);
                for all in [false, true] {
                    let mut state = state(held, registered, all);
                    let there = match (rule(&cdb), opcode) {
                        (Rule::Itself, 0x16 | 0x56) => {
                            state.apply_nexus(OTHER, &NexusAction::ReserveUnit).is_ok()
                        }
                        (Rule::Itself, 0x17 | 0x57) => {
                            state.apply_nexus(OTHER, &NexusAction::ReleaseUnit).is_ok()
                        }
                        (Rule::Itself, _) => state.report().unit.is_none(),
                        (rule, _) => rule.access().is_none_or(|access| state.allows(OTHER.host, access)),
                    };
                    let want = allowed(&cdb, Relation { held, registered });
                    assert_eq!(there, want, "{opcode:02x}/{action:02x} {held:?} {registered} {all}");
                }
            }
        }
    }
}
