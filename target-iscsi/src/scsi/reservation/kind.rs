//! Reservation types: SCSI's codes for what both protocols have (NVMe's SCSI translation reference).

use ashlar_env::reservation::ReservationType as Type;

/// The type with this code in SCSI's TYPE field; `None` for the obsolete and reserved ones.
#[must_use]
pub fn of_code(code: u8) -> Option<Type> {
    Some(match code {
        0x1 => Type::WriteExclusive,
        0x3 => Type::ExclusiveAccess,
        0x5 => Type::WriteExclusiveRegistrantsOnly,
        0x6 => Type::ExclusiveAccessRegistrantsOnly,
        0x7 => Type::WriteExclusiveAllRegistrants,
        0x8 => Type::ExclusiveAccessAllRegistrants,
        _ => return None,
    })
}

/// The code of a type.
#[must_use]
pub const fn code_of(kind: Type) -> u8 {
    match kind {
        Type::WriteExclusive => 0x1,
        Type::ExclusiveAccess => 0x3,
        Type::WriteExclusiveRegistrantsOnly => 0x5,
        Type::ExclusiveAccessRegistrantsOnly => 0x6,
        Type::WriteExclusiveAllRegistrants => 0x7,
        Type::ExclusiveAccessAllRegistrants => 0x8,
    }
}

/// Whether all registrants hold.
#[must_use]
pub const fn is_of_all(kind: Type) -> bool {
    matches!(kind, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_codes_have_a_type_each() {
        let known: Vec<u8> = (0..=255).filter(|&code| of_code(code).is_some()).collect();
        assert_eq!(known, [1, 3, 5, 6, 7, 8]);
        assert!(known.iter().all(|&code| of_code(code).map(code_of) == Some(code)));
        let nvme: Vec<u8> = known.iter().map(|&code| of_code(code).unwrap() as u8).collect();
        assert_eq!(nvme, [1, 2, 3, 4, 5, 6]);
    }
}
