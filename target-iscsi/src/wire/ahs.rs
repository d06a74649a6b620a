//! Additional header segments (RFC 7143, section 11.2.2): only an extended CDB is taken.

/// AHSType of an extended CDB.
const EXTENDED_CDB: u8 = 1;
/// Bytes of a command descriptor block, at most (SPC-4, section 4.2.3).
const CDB_BYTES_MAX: usize = 260;

/// Why additional headers are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AhsError {
    /// their lengths disagree, or are not allowed
    Malformed,
    /// a type that is not served here: bidirectional commands, or unknown
    Unsupported,
}

/// The bytes of a command descriptor block behind its first 16; empty where no segment brings any.
///
/// # Errors
/// Where `segments` are more or other than one extended CDB.
pub fn extended_cdb(segments: &[u8]) -> Result<&[u8], AhsError> {
    if segments.is_empty() {
        return Ok(&[]);
    }
    let &[high, low, kind, _, ref rest @ ..] = segments else { return Err(AhsError::Malformed) };
    if kind & 0x3F != EXTENDED_CDB {
        return Err(AhsError::Unsupported);
    }
    // AHSLength counts all behind the type: a reserved byte and the CDB, without padding.
    let length = usize::from(u16::from_be_bytes([high, low]));
    let cdb = length.checked_sub(1).filter(|&cdb| cdb > 0 && 16 + cdb <= CDB_BYTES_MAX);
    let cdb = cdb.and_then(|cdb| Some((rest.get(..cdb)?, rest.get(cdb + super::padding(cdb)..)?)));
    match cdb {
        Some((cdb, [])) => Ok(cdb),
        Some((_, [_, _, kind, ..])) if kind & 0x3F != EXTENDED_CDB => Err(AhsError::Unsupported),
        _ => Err(AhsError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_extended_cdb_is_taken_and_all_else_refused() {
        assert_eq!(extended_cdb(&[]), Ok(&[][..]));
        let cdb = [0, 17, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        assert_eq!(extended_cdb(&cdb), Ok(&cdb[4..]));
        assert_eq!(extended_cdb(&[0, 3, 1, 0, 7, 8, 0, 0]), Ok(&[7, 8][..]));
        for length in [0, 1, 6, 245, 0xFFFF_u16] {
            let [high, low] = length.to_be_bytes();
            assert_eq!(extended_cdb(&[high, low, 1, 0, 7, 8, 0, 0]), Err(AhsError::Malformed), "{length}");
        }
        assert_eq!(extended_cdb(&[0, 5, 2, 0, 0, 0, 2, 0]), Err(AhsError::Unsupported));
        assert_eq!(extended_cdb(&[0, 5, 9, 0, 0, 0, 2, 0]), Err(AhsError::Unsupported));
        let longest = [vec![0, 245, 1, 0], vec![9; 244]].concat();
        assert_eq!(extended_cdb(&longest).map(<[u8]>::len), Ok(244));
        let longer = [vec![0, 246, 1, 0], vec![9; 248]].concat();
        assert_eq!(extended_cdb(&longer), Err(AhsError::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn anything_is_taken_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1021)) {
            if let Ok(cdb) = extended_cdb(&bytes) {
                assert!(cdb.len() <= 244);
            }
        }
    }
}
