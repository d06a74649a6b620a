//! Reservation commands (Base, sections 7.2 to 7.5 and 8.19).

use ashlar_env::reservation::{ReservationAction, ReservationReport, ReservationType};
use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::transport::Transfer;
use crate::wire::sqe::io;
use crate::wire::{Sqe, Status};

/// IEKEY, bit 3 of dword 10: do not compare the current key.
const IGNORE_KEY: u32 = 1 << 3;
/// EDS, bit 0 of dword 11 of Report: the extended data structure.
const EXTENDED: u32 = 1;

/// Bytes of the report's header and of each entry, in the extended form.
const REPORT_UNIT_BYTES: usize = 64;

/// What a reservation command transfers: fixed structures, and for a report what the host asks for.
///
/// # Errors
/// The status to complete the command with.
pub fn transfer(sqe: &Sqe, max_transfer_bytes: u32) -> Result<Transfer, Status> {
    let needed = match sqe.opcode {
        io::RESERVATION_REPORT => {
            let len = (u64::from(sqe.cdw10.get()) + 1) * 4;
            return match u32::try_from(len) {
                Ok(len) if len <= max_transfer_bytes => Ok(Transfer::ToHost(len)),
                _ => Err(Status::INVALID_FIELD),
            };
        }
        io::RESERVATION_RELEASE => 8,
        _ => 16,
    };
    match sqe.sgl.length.get() {
        given if (needed..=4096).contains(&given) => Ok(Transfer::FromHost(given)),
        _ => Err(Status::DATA_SGL_LENGTH_INVALID),
    }
}

/// The action a reservation command asks for.
///
/// # Errors
/// The status to complete the command with.
pub fn action(sqe: &Sqe, data: Option<&[u8]>) -> Result<ReservationAction, Status> {
    let dword = sqe.cdw10.get();
    let ignore_key = dword & IGNORE_KEY != 0;
    if sqe.opcode == io::RESERVATION_REPORT {
        // Host identifiers have 128 bits here, which only the extended form can tell.
        let extended = sqe.cdw11.get() & EXTENDED != 0;
        return if extended { Ok(ReservationAction::Report) } else { Err(Status::HOST_ID_INCONSISTENT) };
    }
    let data = data.ok_or(Status::INTERNAL_ERROR)?;
    let (key, rest) = U64::read_from_prefix(data).map_err(|_| Status::DATA_SGL_LENGTH_INVALID)?;
    let second = U64::read_from_prefix(rest).map(|(key, _)| key.get()).unwrap_or_default();
    let (key, sub) = (key.get(), dword & 7);
    match sqe.opcode {
        io::RESERVATION_REGISTER => register(sub, key, second, ignore_key, dword >> 30),
        _ if ignore_key => Err(Status::INVALID_FIELD),
        io::RESERVATION_ACQUIRE => {
            let kind = kind(dword)?;
            match sub {
                0 => Ok(ReservationAction::Acquire { key, kind }),
                1 | 2 => Ok(ReservationAction::Preempt { key, victim: second, kind, abort: sub == 2 }),
                _ => Err(Status::INVALID_FIELD),
            }
        }
        io::RESERVATION_RELEASE => match sub {
            0 => Ok(ReservationAction::Release { key, kind: kind(dword)? }),
            1 => Ok(ReservationAction::Clear { key }),
            _ => Err(Status::INVALID_FIELD),
        },
        _ => Err(Status::INVALID_OPCODE),
    }
}

fn register(
    sub: u32,
    key: u64,
    new_key: u64,
    ignore_key: bool,
    cptpl: u32,
) -> Result<ReservationAction, Status> {
    let persist = match cptpl {
        0 => None,
        2 => Some(false),
        3 => Some(true),
        _ => return Err(Status::INVALID_FIELD),
    };
    match sub {
        0 | 2 if new_key == 0 => Err(Status::INVALID_FIELD),
        0 => Ok(ReservationAction::Register { key: new_key, persist }),
        1 => Ok(ReservationAction::Unregister { key, ignore_key, persist }),
        2 => Ok(ReservationAction::Replace { key, new_key, ignore_key, persist }),
        _ => Err(Status::INVALID_FIELD),
    }
}

/// RTYPE, bits 15:8 of dword 10.
fn kind(dword: u32) -> Result<ReservationType, Status> {
    ReservationType::from_code((dword >> 8) as u8).ok_or(Status::INVALID_FIELD)
}

/// Writes a report in the extended form (Base, figure "Reservation Status Extended Data Structure") into `out`, as
/// much as fits; the rest of `out` is zeroed. The number of registrants is the full one in any case.
pub fn write_report(report: &ReservationReport, out: &mut [u8]) {
    let mut bytes = vec![0; REPORT_UNIT_BYTES * (1 + report.registrants.len())];
    bytes[0..4].copy_from_slice(&report.generation.to_le_bytes());
    bytes[4] = report.kind.map_or(0, |kind| kind as u8);
    bytes[5..7].copy_from_slice(&(report.registrants.len() as u16).to_le_bytes());
    bytes[9] = u8::from(report.persist);
    for (entry, registrant) in
        bytes[REPORT_UNIT_BYTES..].chunks_mut(REPORT_UNIT_BYTES).zip(&report.registrants)
    {
        // Registrations belong to hosts; which controllers a host has is no part of the state.
        entry[0..2].copy_from_slice(&u16::MAX.to_le_bytes());
        entry[2] = u8::from(registrant.holder);
        entry[8..16].copy_from_slice(&registrant.key.to_le_bytes());
        entry[16..32].copy_from_slice(&registrant.host.0);
    }
    let len = bytes.len().min(out.len());
    out[..len].copy_from_slice(&bytes[..len]);
    out[len..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_env::reservation::{HostId, Registrant};
    use zerocopy::little_endian::U32;

    fn sqe(opcode: u8, dword10: u32, len: u32) -> Sqe {
        let mut sqe = Sqe::zeroed();
        sqe.opcode = opcode;
        sqe.cdw10 = U32::new(dword10);
        sqe.sgl.length = U32::new(len);
        sqe
    }

    fn keys(first: u64, second: u64) -> [u8; 16] {
        let mut data = [0; 16];
        data[..8].copy_from_slice(&first.to_le_bytes());
        data[8..].copy_from_slice(&second.to_le_bytes());
        data
    }

    #[test]
    fn register_as_linux_sends_it() {
        let command = sqe(io::RESERVATION_REGISTER, 3 << 30, 16);
        assert_eq!(transfer(&command, 1 << 20), Ok(Transfer::FromHost(16)));
        let expected = ReservationAction::Register { key: 0xA1, persist: Some(true) };
        assert_eq!(action(&command, Some(&keys(0, 0xA1))), Ok(expected));
        assert_eq!(action(&command, Some(&keys(0, 0))), Err(Status::INVALID_FIELD));
        let short = sqe(io::RESERVATION_REGISTER, 3 << 30, 15);
        assert_eq!(transfer(&short, 1 << 20), Err(Status::DATA_SGL_LENGTH_INVALID));
    }

    #[test]
    fn acquire_and_release() {
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        let preempt = ReservationAction::Preempt { key: 1, victim: 2, kind, abort: true };
        assert_eq!(action(&sqe(io::RESERVATION_ACQUIRE, 2 | 3 << 8, 16), Some(&keys(1, 2))), Ok(preempt));
        let release = sqe(io::RESERVATION_RELEASE, 3 << 8, 8);
        let expected = Ok(ReservationAction::Release { key: 1, kind });
        assert_eq!(action(&release, Some(&1u64.to_le_bytes())), expected);
        for bad in [3 | 1 << 8, 0, 7 << 8, IGNORE_KEY | 1 << 8] {
            let command = sqe(io::RESERVATION_ACQUIRE, bad, 16);
            assert_eq!(action(&command, Some(&keys(1, 2))), Err(Status::INVALID_FIELD), "{bad:#x}");
        }
    }

    #[test]
    fn a_report_is_cut_to_what_was_asked() {
        let mut command = sqe(io::RESERVATION_REPORT, 0, 4);
        assert_eq!(transfer(&command, 1 << 20), Ok(Transfer::ToHost(4)));
        assert_eq!(action(&command, None), Err(Status::HOST_ID_INCONSISTENT));
        command.cdw11 = U32::new(1);
        assert_eq!(action(&command, None), Ok(ReservationAction::Report));
        command.cdw10 = U32::MAX_VALUE;
        assert_eq!(transfer(&command, 1 << 20), Err(Status::INVALID_FIELD));

        let registrant = Registrant { host: HostId([9; 16]), key: 0xA1, holder: true, nexus: None };
        let report = ReservationReport {
            generation: 5,
            kind: Some(ReservationType::ExclusiveAccess),
            persist: true,
            registrants: vec![registrant; 3],
            unit: None,
        };
        let mut out = [0xEE; 70];
        write_report(&report, &mut out);
        assert_eq!(out[..10], [5, 0, 0, 0, 2, 3, 0, 0, 0, 1]);
        assert_eq!(out[64..67], [0xFF, 0xFF, 1]);
        let mut long = [0xEE; 64 * 5];
        write_report(&report, &mut long);
        assert_eq!(long[64 + 16..64 + 32], [9; 16]);
        assert!(long[64 * 4..].iter().all(|&b| b == 0));
    }
}
