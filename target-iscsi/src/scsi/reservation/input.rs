//! PERSISTENT RESERVE IN (SPC-4, section 6.14).

use ashlar_env::reservation::{Registrant, ReservationReport};

use super::kind::code_of;
use super::transport_id;

/// Bytes of the header that every answer but that of REPORT CAPABILITIES has.
const HEADER_BYTES: usize = 8;
/// PERSISTENT RESERVATION TYPE MASK: all six types.
const TYPE_MASK: [u8; 2] = [0xEA, 0x01];

/// Service actions.
pub const READ_KEYS: u8 = 0x00;
/// See [`READ_KEYS`].
pub const READ_RESERVATION: u8 = 0x01;
/// See [`READ_KEYS`].
pub const REPORT_CAPABILITIES: u8 = 0x02;
/// See [`READ_KEYS`].
pub const READ_FULL_STATUS: u8 = 0x03;

/// The parameter data of a service action, whole; `None` for one that is not known.
#[must_use]
pub fn parameter_data(action: u8, report: &ReservationReport) -> Option<Vec<u8>> {
    Some(match action {
        READ_KEYS => {
            let keys = report.registrants.iter().flat_map(|one| one.key.to_be_bytes());
            with_header(report, keys.collect())
        }
        READ_RESERVATION => with_header(report, reservation(report)),
        REPORT_CAPABILITIES => capabilities(report).to_vec(),
        READ_FULL_STATUS => {
            let status = report.registrants.iter().flat_map(|one| full_status(report, one));
            with_header(report, status.collect())
        }
        _ => return None,
    })
}

/// PRGENERATION and ADDITIONAL LENGTH, before the rest.
fn with_header(report: &ReservationReport, rest: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + rest.len());
    bytes.extend(report.generation.to_be_bytes());
    bytes.extend((rest.len() as u32).to_be_bytes());
    bytes.extend(rest);
    bytes
}

fn reservation(report: &ReservationReport) -> Vec<u8> {
    let Some(kind) = report.kind else { return Vec::new() };
    // Where all registrants hold, there is no one key.
    let mut holders = report.registrants.iter().filter(|one| one.holder);
    let key = if super::kind::is_of_all(kind) { None } else { holders.next() };
    let mut bytes = vec![0; 16];
    bytes[..8].copy_from_slice(&key.map_or(0, |one| one.key).to_be_bytes());
    bytes[13] = code_of(kind);
    bytes
}

/// CRH, PTPL_C; TMV, PTPL_A; the types. Neither SPEC_I_PT nor ALL_TG_PT.
fn capabilities(report: &ReservationReport) -> [u8; 8] {
    let [first, second] = TYPE_MASK;
    [0, 8, 0x11, 0x80 | u8::from(report.persist), first, second, 0, 0]
}

fn full_status(report: &ReservationReport, one: &Registrant) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[..8].copy_from_slice(&one.key.to_be_bytes());
    if let Some(kind) = report.kind.filter(|_| one.holder) {
        bytes[12] |= 0x01;
        bytes[13] = code_of(kind);
    }
    let id = match &one.nexus {
        Some(nexus) => {
            bytes[18..20].copy_from_slice(&nexus.port().to_be_bytes());
            transport_id::of_nexus(nexus)
        }
        None => {
            // ALL_TG_PT: an NVMe host is registered by whichever port it comes.
            bytes[12] |= 0x02;
            transport_id::of_nvme_host(one.host)
        }
    };
    bytes[20..24].copy_from_slice(&(id.len() as u32).to_be_bytes());
    bytes.extend(id);
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ashlar_env::reservation::{HostId, Nexus, ReservationType as Type};

    use super::*;

    fn report(kind: Option<Type>) -> ReservationReport {
        let nexus = Arc::new(Nexus::new("iqn.2026-01.test:a", [1; 6], 3).unwrap());
        let scsi = Registrant { host: nexus.host(), key: 0xA, holder: kind.is_some(), nexus: Some(nexus) };
        let all = kind.is_some_and(super::super::kind::is_of_all);
        let nvme = Registrant { host: HostId([2; 16]), key: 0xB, holder: all, nexus: None };
        ReservationReport { generation: 9, kind, persist: true, registrants: vec![scsi, nvme], unit: None }
    }

    #[test]
    fn keys_and_reservation() {
        let keys = parameter_data(READ_KEYS, &report(None)).unwrap();
        assert_eq!(keys, [0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xA, 0, 0, 0, 0, 0, 0, 0, 0xB]);
        assert_eq!(parameter_data(READ_RESERVATION, &report(None)).unwrap(), [0, 0, 0, 9, 0, 0, 0, 0]);
        for (kind, key, code) in [
            (Type::WriteExclusive, 0xA, 1),
            (Type::ExclusiveAccess, 0xA, 3),
            (Type::WriteExclusiveRegistrantsOnly, 0xA, 5),
            (Type::ExclusiveAccessRegistrantsOnly, 0xA, 6),
            (Type::WriteExclusiveAllRegistrants, 0, 7),
            (Type::ExclusiveAccessAllRegistrants, 0, 8),
        ] {
            let held = parameter_data(READ_RESERVATION, &report(Some(kind))).unwrap();
            assert_eq!((held.len(), held[7], held[15], held[21]), (24, 16, key, code), "{kind:?}");
        }
    }

    #[test]
    fn capabilities_say_all_types() {
        let bytes = parameter_data(REPORT_CAPABILITIES, &report(None)).unwrap();
        assert_eq!(bytes, [0, 8, 0x11, 0x81, 0xEA, 0x01, 0, 0]);
        assert_eq!(parameter_data(4, &report(None)), None);
    }

    #[test]
    fn full_status_tells_who() {
        let bytes = parameter_data(READ_FULL_STATUS, &report(Some(Type::WriteExclusive))).unwrap();
        assert_eq!(u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize, bytes.len() - 8);
        let first = &bytes[8..];
        assert_eq!((first[7], first[12], first[13], first[19]), (0xA, 1, 1, 3));
        let len = u32::from_be_bytes(first[20..24].try_into().unwrap()) as usize;
        let nexus = transport_id::nexus(&first[24..24 + len], 3).unwrap();
        assert_eq!((nexus.initiator(), nexus.isid()), ("iqn.2026-01.test:a", [1; 6]));
        let second = &first[24 + len..];
        assert_eq!((second[7], second[12], second[13]), (0xB, 2, 0));
        assert_eq!(second[24], 0x05);
    }
}
