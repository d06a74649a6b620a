//! What an operation's outcome becomes: status, sense data, Data-In.

use ashlar_env::VolumeError;
use ashlar_env::volume::Outcome;

use super::sense::{Asc, Failure, Key, Sense};
use super::{Answer, Data, Status};

/// What makes the answer to a command of its operation's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Sense data in descriptor format.
    pub(super) descriptor: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The data read, if there are any.
    Plain,
    /// These data, now that the command is permitted.
    Give(Data),
    /// The parameter data of GET LBA STATUS, cut to an allocation length.
    LbaStatus { allocation_bytes: u32 },
}

impl Finish {
    /// The answer.
    #[must_use]
    pub fn answer(self, ended: Result<Outcome, VolumeError>) -> Answer {
        match ended {
            Ok(Outcome::Data(data)) => Answer::good(Data::One(data)),
            Ok(Outcome::Extents(extents)) => match self.kind {
                Kind::LbaStatus { allocation_bytes } => {
                    let mut bytes = super::report::lba_status(&extents);
                    bytes.truncate(allocation_bytes as usize);
                    Answer::good(Data::from_bytes(bytes))
                }
                Kind::Plain | Kind::Give(_) => Answer::good(Data::None),
            },
            Ok(Outcome::Done | Outcome::Reservation { .. }) => match self.kind {
                Kind::Give(data) => Answer::good(data),
                Kind::Plain | Kind::LbaStatus { .. } => Answer::good(Data::None),
            },
            Err(error) => failure(&error).answer(self.descriptor),
        }
    }
}

/// What a volume's error means to the initiator: the one place where this is decided.
#[must_use]
pub fn failure(error: &VolumeError) -> Failure {
    use VolumeError as E;
    let sense = match error {
        E::OutOfRange => Sense::illegal(Asc::LBA_RANGE),
        E::ReadOnly => Sense::new(Key::DataProtect, Asc::WRITE_PROTECTED),
        E::NoSpace => Sense::new(Key::DataProtect, Asc::NO_SPACE),
        E::Miscompare { at_bytes } => {
            Sense { information: Some(*at_bytes), ..Sense::new(Key::Miscompare, Asc::MISCOMPARE) }
        }
        E::ReservationConflict => return Status::ReservationConflict.into(),
        E::Invalid => Sense::illegal(Asc::CDB_FIELD),
        E::TooManyRegistrants => Sense::illegal(Asc::NO_RESOURCES),
        E::Unsupported => Sense::illegal(Asc::OPERATION_CODE),
        E::Aborted => return Status::TaskAborted.into(),
        E::NotHere => Sense::new(Key::NotReady, Asc::PORT_UNAVAILABLE),
        E::ReadFault => Sense::new(Key::MediumError, Asc::READ_ERROR),
        E::WriteFault => Sense::new(Key::MediumError, Asc::WRITE_ERROR),
    };
    sense.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_sense() {
        use VolumeError as E;
        for (error, key, asc) in [
            (E::OutOfRange, 0x5, (0x21, 0x00)),
            (E::ReadOnly, 0x7, (0x27, 0x00)),
            (E::NoSpace, 0x7, (0x27, 0x07)),
            (E::Miscompare { at_bytes: 7 }, 0xE, (0x1D, 0x00)),
            (E::Invalid, 0x5, (0x24, 0x00)),
            (E::TooManyRegistrants, 0x5, (0x55, 0x00)),
            (E::Unsupported, 0x5, (0x20, 0x00)),
            (E::NotHere, 0x2, (0x04, 0x0C)),
            (E::ReadFault, 0x3, (0x11, 0x00)),
            (E::WriteFault, 0x3, (0x0C, 0x00)),
        ] {
            let answer = Finish { descriptor: false, kind: Kind::Plain }.answer(Err(error.clone()));
            let sense = answer.sense.unwrap();
            assert_eq!(answer.status, Status::CheckCondition);
            assert_eq!((sense[2], (sense[12], sense[13])), (key, asc), "{error}");
        }
        assert_eq!(failure(&E::ReservationConflict), Failure::Status(Status::ReservationConflict));
        assert_eq!(failure(&E::Aborted), Failure::Status(Status::TaskAborted));
    }

    #[test]
    fn a_miscompare_tells_where() {
        let answer = failure(&VolumeError::Miscompare { at_bytes: 0x1234 }).answer(false);
        assert_eq!(answer.sense.unwrap()[..7], [0xF0, 0, 0xE, 0, 0, 0x12, 0x34]);
    }
}
