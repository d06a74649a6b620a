//! Self-describing sectors.
//!
//! Every 512-byte sector of a test write says which write it belongs to and where it should lie, and carries a
//! hash over all of it. So one read tells corruption (hash), misdirection (address), a leak from another volume,
//! and tearing (two writes in one block); the register checker tells staleness, loss and phantoms.
//!
//! Layout, little-endian:
//!
//! ```text
//! byte   0      8        16   24       28       32         40      48             504    512
//!        magic  volume   lba  writer   attempt  sequence   epoch   filler ...     hash
//! ```
//!
//! `lba` counts sectors of 512 bytes, whatever the volume's block size. The filler is random by sequence and
//! address, so that it does not compress and every byte counts.

use super::Value;
use crate::rng::{Prng, digest};

/// The size of a stamped sector, in bytes.
pub const SECTOR_BYTES: usize = 512;

const MAGIC: u64 = u64::from_le_bytes(*b"\x89ashstmp");
const FILLER: std::ops::Range<usize> = 48..504;

/// Which write a sector belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The volume.
    pub volume: u64,
    /// Who writes; below 2^16.
    pub writer: u32,
    /// The number of the write among those of its writer, from 1; below 2^48.
    pub sequence: u64,
    /// The attempt: a retry of one command keeps its sequence.
    pub attempt: u32,
    /// The host's epoch at submission.
    pub epoch: u64,
}

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// the bytes are neither zeros nor a whole stamped sector
    #[error("sector {lba} is corrupt")]
    Corrupt {
        /// where, in sectors
        lba: u64,
    },
    /// the sector belongs elsewhere
    #[error("sector {lba} holds what was written to sector {of} by {stamp:?}")]
    Misdirected {
        /// where, in sectors
        lba: u64,
        /// where it belongs
        of: u64,
        /// whose it is
        stamp: Stamp,
    },
    /// the sector belongs to another volume
    #[error("sector {lba} holds data of another volume: {stamp:?}")]
    Leak {
        /// where, in sectors
        lba: u64,
        /// whose it is
        stamp: Stamp,
    },
    /// parts of two writes in what must be all or nothing
    #[error("sector {lba} is of {other:?}, what lies before it of {first:?}")]
    Torn {
        /// where, in sectors
        lba: u64,
        /// the write seen first; `None` is zeros
        first: Option<Value>,
        /// the other
        other: Option<Value>,
    },
}

impl Stamp {
    /// The value that a register holds when this write is in it.
    #[must_use]
    pub const fn value(&self) -> Value {
        Value((self.writer as u64) << 48 | self.sequence)
    }

    /// Fills `data`, which goes to sector `lba` (in units of 512 bytes) of the volume and on.
    ///
    /// # Panics
    /// If `data` is not made of sectors, or the stamp's numbers are too large.
    pub fn fill(&self, lba: u64, data: &mut [u8]) {
        assert!(data.len().is_multiple_of(SECTOR_BYTES), "a write is made of sectors");
        assert!(self.writer < 1 << 16 && (1..1 << 48).contains(&self.sequence), "a stamp's numbers");
        for (lba, sector) in (lba..).zip(data.chunks_mut(SECTOR_BYTES)) {
            self.fill_sector(lba, sector);
        }
    }

    fn fill_sector(&self, lba: u64, sector: &mut [u8]) {
        sector[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        sector[8..16].copy_from_slice(&self.volume.to_le_bytes());
        sector[16..24].copy_from_slice(&lba.to_le_bytes());
        sector[24..28].copy_from_slice(&self.writer.to_le_bytes());
        sector[28..32].copy_from_slice(&self.attempt.to_le_bytes());
        sector[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        sector[40..48].copy_from_slice(&self.epoch.to_le_bytes());
        Prng::new(self.value().0 ^ lba.rotate_left(32)).fill(&mut sector[FILLER]);
        let hash = digest(&sector[..FILLER.end]);
        sector[FILLER.end..].copy_from_slice(&hash.to_le_bytes());
    }

    /// The stamp of a whole sector and the address it names; `None` where it is damaged.
    #[must_use]
    pub fn parse(sector: &[u8]) -> Option<(Self, u64)> {
        let word =
            |at: usize| -> Option<u64> { Some(u64::from_le_bytes(sector.get(at..at + 8)?.try_into().ok()?)) };
        let whole = sector.len() == SECTOR_BYTES
            && word(0)? == MAGIC
            && word(FILLER.end)? == digest(&sector[..FILLER.end]);
        if !whole {
            return None;
        }
        let parties = word(24)?;
        let stamp = Self {
            volume: word(8)?,
            writer: parties as u32,
            attempt: (parties >> 32) as u32,
            sequence: word(32)?,
            epoch: word(40)?,
        };
        Some((stamp, word(16)?))
    }
}

/// The value of the unit at sector `lba` of `volume`, whose bytes are `unit`: one block, or as many as are
/// written all or nothing.
///
/// # Errors
/// What is wrong with it.
pub fn value_of(volume: u64, lba: u64, unit: &[u8]) -> Result<Value, Damage> {
    let mut first = None;
    for (lba, sector) in (lba..).zip(unit.chunks(SECTOR_BYTES)) {
        let value = value_of_sector(volume, lba, sector)?;
        match first {
            None => first = Some(value),
            Some(seen) if seen != value => {
                let name = |value: Value| (value != Value::ZERO).then_some(value);
                return Err(Damage::Torn { lba, first: name(seen), other: name(value) });
            }
            Some(_) => {}
        }
    }
    Ok(first.unwrap_or(Value::ZERO))
}

fn value_of_sector(volume: u64, lba: u64, sector: &[u8]) -> Result<Value, Damage> {
    let Some((stamp, of)) = Stamp::parse(sector) else {
        let zeros = sector.iter().all(|&byte| byte == 0);
        return if zeros { Ok(Value::ZERO) } else { Err(Damage::Corrupt { lba }) };
    };
    if stamp.volume != volume {
        return Err(Damage::Leak { lba, stamp });
    }
    if of != lba {
        return Err(Damage::Misdirected { lba, of, stamp });
    }
    Ok(stamp.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { volume: 3, writer: 5, sequence: 77, attempt: 2, epoch: 9 };

    fn block() -> Vec<u8> {
        let mut data = vec![0; 4096];
        STAMP.fill(64, &mut data);
        data
    }

    #[test]
    fn a_stamp_survives() {
        let data = block();
        assert_eq!(Stamp::parse(&data[512..1024]), Some((STAMP, 65)));
        assert_eq!(value_of(3, 64, &data), Ok(STAMP.value()));
        assert_eq!(value_of(3, 64, &[0; 4096]), Ok(Value::ZERO));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let data = block();
        for at in 0..512 {
            let mut bad = data.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(value_of(3, 64, &bad), Err(Damage::Corrupt { lba: 64 }), "byte {at}");
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let data = block();
        let elsewhere = value_of(3, 65, &data);
        assert_eq!(elsewhere, Err(Damage::Misdirected { lba: 65, of: 64, stamp: STAMP }));
        assert_eq!(value_of(4, 64, &data), Err(Damage::Leak { lba: 64, stamp: STAMP }));
        let mut torn = data.clone();
        let other = Stamp { sequence: 78, ..STAMP };
        other.fill(66, &mut torn[1024..1536]);
        let damage = Damage::Torn { lba: 66, first: Some(STAMP.value()), other: Some(other.value()) };
        assert_eq!(value_of(3, 64, &torn), Err(damage));
        let mut half = data;
        half[2048..].fill(0);
        assert!(matches!(value_of(3, 64, &half), Err(Damage::Torn { lba: 68, other: None, .. })));
    }
}
