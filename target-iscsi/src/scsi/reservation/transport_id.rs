//! TransportIDs of iSCSI initiator ports (SPC-4, section 7.6.4.6).

use ashlar_env::reservation::{HostId, Nexus};

/// PROTOCOL IDENTIFIER of iSCSI.
const PROTOCOL: u8 = 0x05;
/// TPID FORMAT 01b: the name is of an initiator port, with its ISID.
const OF_PORT: u8 = 0x40;
/// What stands between a name and its ISID.
const SEPARATOR: &str = ",i,0x";
/// Bytes before the name.
const HEADER_BYTES: usize = 4;
/// ADDITIONAL LENGTH is at least this.
const NAME_BYTES_MIN: usize = 20;

/// The TransportID of a nexus' initiator port.
#[must_use]
pub fn of_nexus(nexus: &Nexus) -> Vec<u8> {
    let isid: String = nexus.isid().iter().map(|byte| format!("{byte:02x}")).collect();
    named(OF_PORT, &format!("{}{SEPARATOR}{isid}", nexus.initiator()))
}

/// What stands for an NVMe host: an initiator device of its NVMe name, so that people see what it is.
#[must_use]
pub fn of_nvme_host(host: HostId) -> Vec<u8> {
    let [a, b, c, d, e, f, g, h, rest @ ..] = host.0;
    let id = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let rest = u64::from_be_bytes(rest);
    let (first, second, third) = (id >> 32, id >> 16 & 0xFFFF, id & 0xFFFF);
    let (fourth, fifth) = (rest >> 48, rest & 0xFFFF_FFFF_FFFF);
    named(
        0,
        &format!(
            "nqn.2014-08.org.nvmexpress:uuid:{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{fifth:012x}"
        ),
    )
}

/// The name, ended by a NUL and padded with others to a multiple of 4.
fn named(format: u8, name: &str) -> Vec<u8> {
    let len = (name.len() + 1).next_multiple_of(4).max(NAME_BYTES_MIN);
    let mut bytes = vec![format | PROTOCOL, 0];
    bytes.extend((len as u16).to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(HEADER_BYTES + len, 0);
    bytes
}

/// The nexus of a TransportID and a relative target port identifier. `None` where the bytes are no TransportID of an
/// iSCSI initiator port (which needs an ISID), or not of the length they say.
#[must_use]
pub fn nexus(bytes: &[u8], port: u16) -> Option<Nexus> {
    let (header, name) = bytes.split_at_checked(HEADER_BYTES)?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] != OF_PORT | PROTOCOL || name.len() != len || len < NAME_BYTES_MIN || !len.is_multiple_of(4)
    {
        return None;
    }
    let end = name.iter().position(|&byte| byte == 0)?;
    if name[end..].iter().any(|&byte| byte != 0) {
        return None;
    }
    let (initiator, isid) = str::from_utf8(&name[..end]).ok()?.split_once(SEPARATOR)?;
    Nexus::new(initiator, self::isid(isid)?, port)
}

/// Exactly twelve hexadecimal digits.
fn isid(digits: &str) -> Option<[u8; 6]> {
    if digits.len() != 12 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let value = u64::from_str_radix(digits, 16).ok()?;
    let [_, _, isid @ ..] = value.to_be_bytes();
    Some(isid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Nexus {
        Nexus::new("iqn.2026-01.test:a", [0x00, 0x02, 0x3D, 0xAB, 0xCD, 0xEF], 7).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = of_nexus(&sample());
        assert_eq!(&bytes[..4], &[0x45, 0, 0, 36]);
        assert_eq!(&bytes[4..40], b"iqn.2026-01.test:a,i,0x00023dabcdef\0");
        assert_eq!(nexus(&bytes, 7), Some(sample()));
        let short = of_nexus(&Nexus::new("a", [0; 6], 1).unwrap());
        assert_eq!((short.len(), nexus(&short, 1).is_some()), (24, true));
    }

    #[test]
    fn a_host_of_nvme_has_its_name() {
        let bytes = of_nvme_host(HostId(*uuid::Uuid::from_u128(0x1234_5678).as_bytes()));
        let name = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000012345678";
        assert_eq!(bytes[0], 0x05);
        assert_eq!(&bytes[4..4 + name.len()], name.as_bytes());
        assert!(bytes.len().is_multiple_of(4) && bytes.last() == Some(&0));
    }

    #[test]
    fn every_cut_and_every_lie_about_the_length_is_refused() {
        let whole = of_nexus(&sample());
        for len in 0..whole.len() {
            assert_eq!(nexus(&whole[..len], 7), None, "{len}");
        }
        for (at, value) in [(0, 0x05), (0, 0x46), (2, 0xFF), (3, 32), (39, b'x')] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(nexus(&bytes, 7), None, "{at}");
        }
    }

    #[test]
    fn a_name_without_a_good_isid_is_refused() {
        for name in [
            "iqn.2026-01.test:a,i,0x",
            "iqn.2026-01.test:a",
            "iqn.2026-01.test:a,i,0x00023d",
            "iqn.2026-01.test:a,i,0x+0023dabcdef",
            "iqn.2026-01.test:a,i,0x00023dabcdef0",
            ",i,0x00023dabcdef",
            "a,b,i,0x00023dabcdef",
        ] {
            assert_eq!(nexus(&named(OF_PORT, name), 7), None, "{name}");
        }
    }
}
