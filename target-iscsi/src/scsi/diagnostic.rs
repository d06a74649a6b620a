//! SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS, LOG SENSE, START STOP UNIT: what they must do at least.

use ashlar_env::Volume;

use super::Data;
use super::sense::{Asc, Failure, Sense};
use super::units::Context;

/// The diagnostic page that lists the diagnostic pages: itself.
const SUPPORTED_PAGES: [u8; 5] = [0x00, 0, 0, 1, 0x00];

/// SEND DIAGNOSTIC (SPC-4, section 6.42): the default self-test finds nothing wrong; others are not there.
pub(super) fn send<V: Volume>(command: &Context<'_, V>, data: &Data) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let (code, self_test, len) = (cdb.head[1] >> 5, cdb.head[1] & 0x04 != 0, usize::from(cdb.u16(3)));
    if code != 0 {
        return Err(Sense::cdb_bit(1, 7).into());
    }
    if len == 0 {
        return Ok(Vec::new());
    }
    if self_test {
        return Err(Sense::cdb(3).into());
    }
    if data.bytes() < len {
        return Err(Sense::illegal(Asc::INFORMATION_UNIT).into());
    }
    match &data.gather()[..] {
        [0x00, _, 0, 0, ..] => Ok(Vec::new()),
        [_, _, _, _, ..] => Err(Sense::parameter(0).into()),
        _ => Err(Sense::illegal(Asc::PARAMETER_LENGTH).into()),
    }
}

/// RECEIVE DIAGNOSTIC RESULTS (SPC-4, section 6.32).
pub(super) fn receive<V: Volume>(command: &Context<'_, V>) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    if cdb.head[1] & 0x01 != 0 && cdb.head[2] != 0 {
        return Err(Sense::cdb(2).into());
    }
    let mut data = SUPPORTED_PAGES.to_vec();
    data.truncate(usize::from(cdb.u16(3)));
    Ok(data)
}

/// Informational exceptions: none, and no temperature.
const EXCEPTIONS: [u8; 8] = [0x00, 0x00, 0x03, 0x04, 0x00, 0x00, 0xFF, 0x00];

/// LOG SENSE (SPC-4, section 6.9): which pages there are, and informational exceptions.
pub(super) fn log<V: Volume>(command: &Context<'_, V>) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let (page, subpage) = (cdb.head[2] & 0x3F, cdb.head[3]);
    if cdb.head[1] & 0x01 != 0 {
        // SP: nothing is saved.
        return Err(Sense::cdb_bit(1, 0).into());
    }
    let body = match (page, subpage) {
        (0x00, 0x00) => vec![0x00, 0x2F],
        (0x00, 0xFF) => vec![0x00, 0x00, 0x00, 0xFF, 0x2F, 0x00],
        (0x2F, 0x00) if cdb.u16(5) == 0 => EXCEPTIONS.to_vec(),
        (0x2F, 0x00) => return Err(Sense::cdb(5).into()),
        (0x00 | 0x2F, _) => return Err(Sense::cdb(3).into()),
        _ => return Err(Sense::cdb_bit(2, 5).into()),
    };
    let format = if subpage == 0 { page } else { 0x40 | page };
    let mut data = vec![format, subpage];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    data.truncate(usize::from(cdb.u16(7)));
    Ok(data)
}

/// START STOP UNIT (SBC-3, section 5.25): there is nothing to start, and stopping would hurt other initiators.
pub(super) fn start_stop<V: Volume>(command: &Context<'_, V>) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    match (cdb.head[4] >> 4, cdb.head[4] & 0x02 != 0) {
        // LOEJ: there is nothing to load or to eject.
        (_, true) => Err(Sense::cdb_bit(4, 1).into()),
        // START_VALID or STOP, ACTIVE, IDLE, STANDBY, LU_CONTROL.
        (0..=3 | 7, false) => Ok(Vec::new()),
        _ => Err(Sense::cdb_bit(4, 7).into()),
    }
}
