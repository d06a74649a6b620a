//! How a SCSI command ended.

use std::fmt;

/// GOOD.
const GOOD: u8 = 0x00;
/// CHECK CONDITION.
const CHECK_CONDITION: u8 = 0x02;
/// BUSY.
const BUSY: u8 = 0x08;
/// TASK SET FULL.
const TASK_SET_FULL: u8 = 0x28;
/// TASK ABORTED.
const TASK_ABORTED: u8 = 0x40;

/// NOT READY.
const NOT_READY: u8 = 0x2;
/// UNIT ATTENTION.
const UNIT_ATTENTION: u8 = 0x6;
/// ABORTED COMMAND.
const ABORTED_COMMAND: u8 = 0xB;

/// Sense data, as far as they are told apart here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl Sense {
    /// From sense data in fixed (70h, 71h) or descriptor format (72h, 73h; SPC-5, section 4.4). None if they are
    /// neither, or too short.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        match data.first()? & 0x7F {
            0x70 | 0x71 => Some(Self { key: data.get(2)? & 0xF, asc: *data.get(12)?, ascq: *data.get(13)? }),
            0x72 | 0x73 => Some(Self { key: data.get(1)? & 0xF, asc: *data.get(2)?, ascq: *data.get(3)? }),
            _ => None,
        }
    }
}

/// How the data moved differ from what was expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    /// Not at all.
    #[default]
    None,
    /// So many bytes fewer.
    Underflow(u32),
    /// The target had, or wanted, so many bytes more.
    Overflow(u32),
}

/// How a SCSI command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// iSCSI response: 0 if the command was completed at the target.
    pub response: u8,
    /// SCSI status.
    pub status: u8,
    /// Sense data; zeros if there were none.
    pub sense: Sense,
    /// How the data moved differ from what was expected.
    pub residual: Residual,
}

impl Outcome {
    /// GOOD, with all data.
    pub const SUCCESS: Self = Self {
        response: 0,
        status: GOOD,
        sense: Sense { key: 0, asc: 0, ascq: 0 },
        residual: Residual::None,
    };

    /// Completed with GOOD, whatever the residual.
    #[inline]
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.response == 0 && self.status == GOOD
    }

    /// Whether this is a unit attention: the command was not done and may be repeated.
    #[must_use]
    pub fn is_unit_attention(&self) -> bool {
        self.response == 0 && self.status == CHECK_CONDITION && self.sense.key == UNIT_ATTENTION
    }

    /// Whether the command may succeed later: the path or the moment was wrong, not the request.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.status {
            _ if self.response != 0 => true,
            BUSY | TASK_SET_FULL | TASK_ABORTED => true,
            CHECK_CONDITION => matches!(self.sense.key, NOT_READY | UNIT_ATTENTION | ABORTED_COMMAND),
            _ => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.response != 0 {
            return write!(f, "iSCSI response {:#04x}", self.response);
        }
        write!(f, "SCSI status {:02x}h", self.status)?;
        let Sense { key, asc, ascq } = self.sense;
        if self.status == CHECK_CONDITION {
            write!(f, ", sense {key:x}/{asc:02x}/{ascq:02x}")?;
        }
        match self.residual {
            Residual::None => Ok(()),
            Residual::Underflow(bytes) => write!(f, ", {bytes} bytes too few"),
            Residual::Overflow(bytes) => write!(f, ", {bytes} bytes too many"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_sense_are_read() {
        let mut fixed = [0; 18];
        (fixed[0], fixed[2], fixed[12], fixed[13]) = (0x70, 0x26, 0x29, 0x01);
        let expected = Some(Sense { key: 6, asc: 0x29, ascq: 1 });
        assert_eq!(Sense::parse(&fixed), expected);
        assert_eq!(Sense::parse(&[0x72, 6, 0x29, 1, 0, 0, 0, 0]), expected);
        assert_eq!(Sense::parse(&fixed[..13]), None);
        assert_eq!(Sense::parse(&[0x7F; 18]), None);
        assert_eq!(Sense::parse(&[]), None);
    }

    #[test]
    fn what_may_succeed_later_is_told_from_what_may_not() {
        let check = |key| Outcome {
            status: CHECK_CONDITION,
            sense: Sense { key, asc: 0x29, ascq: 0 },
            ..Outcome::SUCCESS
        };
        assert!(check(UNIT_ATTENTION).is_transient() && check(UNIT_ATTENTION).is_unit_attention());
        assert!(check(NOT_READY).is_transient() && !check(NOT_READY).is_unit_attention());
        assert!(!check(5).is_transient() && !Outcome::SUCCESS.is_transient());
        assert!(Outcome { status: BUSY, ..Outcome::SUCCESS }.is_transient());
        assert!(!Outcome { status: 0x18, ..Outcome::SUCCESS }.is_transient(), "a reservation stays");
        assert_eq!(check(5).to_string(), "SCSI status 02h, sense 5/29/00");
    }
}
