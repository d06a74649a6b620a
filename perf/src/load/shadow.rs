//! What the target has acknowledged, and data that say where and when they were written.
//!
//! The namespace is divided into units of the block size. A unit has at most one command in flight that
//! changes it, and none that reads it meanwhile, so what a read must return is always known: exactly what was
//! last acknowledged. Each sector of 512 bytes tells its place, the sequence number of its write, and the run,
//! under a checksum; so a lost, stale, torn, misplaced or damaged write is told apart.

use std::fmt;

use ashlar_codec::crc32c;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::pattern::mix;

/// The unit of checking, in bytes; no block of a namespace is smaller.
pub(super) const SECTOR_BYTES: usize = 512;
const MAGIC: u64 = u64::from_le_bytes(*b"ASHLOAD1");
const FILL_WORDS: usize = 59;

/// A sector as `--verify` writes it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Sector {
    magic: U64,
    /// Which sector of the namespace, in units of 512 bytes.
    number: U64,
    /// Which write of the run, from 1.
    sequence: U64,
    /// Which run.
    run: U64,
    /// Numbers that follow from the three above, so that no two sectors look alike.
    fill: [U64; FILL_WORDS],
    reserved: U32,
    /// CRC32C of all before.
    crc: U32,
}

const _: () = assert!(size_of::<Sector>() == SECTOR_BYTES);

/// What a unit is known to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Nothing: this run has not written it.
    #[default]
    Nothing,
    /// Zeros.
    Zeros,
    /// The data of this write.
    Written(u64),
}

/// A sector that is not what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which sector, in units of 512 bytes from the start of the namespace.
    pub sector: u64,
    /// What it should have held.
    pub expected: Known,
    /// What was found instead.
    pub found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the namespace: ", self.sector * SECTOR_BYTES as u64)?;
        match self.expected {
            Known::Nothing => f.write_str("anything")?,
            Known::Zeros => f.write_str("zeros")?,
            Known::Written(sequence) => write!(f, "write {sequence}")?,
        }
        write!(f, " acknowledged, but found {}", self.found)
    }
}

/// Fills `payload` for write `sequence` of `run` at sector `first`.
pub fn fill_sectors(payload: &mut [u8], first: u64, sequence: u64, run: u64) {
    for (number, bytes) in (first..).zip(payload.as_chunks_mut::<SECTOR_BYTES>().0) {
        let mut sector = Sector::new_zeroed();
        sector.magic = U64::new(MAGIC);
        sector.number = U64::new(number);
        sector.sequence = U64::new(sequence);
        sector.run = U64::new(run);
        let start = mix(number ^ mix(sequence ^ mix(run)));
        for (word, fill) in (0u64..).zip(&mut sector.fill) {
            *fill = U64::new(start.wrapping_mul(2 * word + 1));
        }
        let covered = SECTOR_BYTES - size_of::<U32>();
        sector.crc = U32::new(crc32c(&sector.as_bytes()[..covered]));
        bytes.copy_from_slice(sector.as_bytes());
    }
}

/// Checks that `payload`, read at sector `first`, is what is known of it.
///
/// # Errors
/// The first sector that is not.
pub fn check_sectors(payload: &[u8], first: u64, expected: Known, run: u64) -> Result<(), Fault> {
    for (number, bytes) in (first..).zip(payload.as_chunks::<SECTOR_BYTES>().0) {
        let found = match expected {
            Known::Nothing => return Ok(()),
            Known::Zeros if *bytes == [0; SECTOR_BYTES] => continue,
            Known::Zeros => describe(bytes, number, run),
            Known::Written(sequence) if holds(bytes, number, sequence, run) => continue,
            Known::Written(_) => describe(bytes, number, run),
        };
        return Err(Fault { sector: number, expected, found });
    }
    Ok(())
}

fn parse(bytes: &[u8; SECTOR_BYTES]) -> Option<&Sector> {
    let sector = Sector::ref_from_bytes(bytes).ok()?;
    let covered = SECTOR_BYTES - size_of::<U32>();
    (sector.magic.get() == MAGIC && sector.crc.get() == crc32c(&bytes[..covered])).then_some(sector)
}

fn holds(bytes: &[u8; SECTOR_BYTES], number: u64, sequence: u64, run: u64) -> bool {
    parse(bytes).is_some_and(|sector| {
        sector.number.get() == number && sector.sequence.get() == sequence && sector.run.get() == run
    })
}

fn describe(bytes: &[u8; SECTOR_BYTES], number: u64, run: u64) -> String {
    if *bytes == [0; SECTOR_BYTES] {
        return "zeros".into();
    }
    let Some(sector) = parse(bytes) else {
        let ours = bytes.starts_with(&MAGIC.to_le_bytes());
        return if ours { "a damaged sector (checksum)".into() } else { "data of somebody else".into() };
    };
    if sector.run.get() != run {
        return format!("write {} of an earlier run", sector.sequence);
    }
    if sector.number.get() != number {
        return format!("write {} of byte {}", sector.sequence, sector.number.get() * SECTOR_BYTES as u64);
    }
    format!("write {}", sector.sequence)
}

#[derive(Clone, Default)]
struct Unit {
    known: Known,
    readers: u16,
    writing: bool,
}

/// What is known of every unit.
pub struct Shadow {
    units: Vec<Unit>,
}

impl Shadow {
    /// Of `units` units nothing is known.
    #[must_use]
    pub fn new(units: u64) -> Self {
        Self { units: vec![Unit::default(); units as usize] }
    }

    /// The first unit from `from` on, round the end, that a command may use now: to change it if `change`,
    /// else to read it. It is then in use. None if all are.
    pub fn claim(&mut self, from: u64, change: bool) -> Option<u64> {
        let count = self.units.len() as u64;
        let found = (from..count).chain(0..from).find(|&unit| self.is_free(unit, change))?;
        let unit = &mut self.units[found as usize];
        if change {
            unit.writing = true
        } else {
            unit.readers += 1
        }
        Some(found)
    }

    fn is_free(&self, unit: u64, change: bool) -> bool {
        let unit = &self.units[unit as usize];
        !unit.writing && (!change || unit.readers == 0)
    }

    /// What `unit` is known to hold.
    #[must_use]
    pub fn known(&self, unit: u64) -> Known {
        self.units[unit as usize].known
    }

    /// The change of `unit` was acknowledged: it holds `now`.
    ///
    /// # Panics
    /// If it was not claimed.
    pub fn changed(&mut self, unit: u64, now: Known) {
        let unit = &mut self.units[unit as usize];
        assert!(unit.writing && unit.readers == 0, "a unit is changed only by who claimed it");
        (unit.known, unit.writing) = (now, false);
    }

    /// A read of `unit` ended.
    ///
    /// # Panics
    /// If it was not claimed.
    pub fn was_read(&mut self, unit: u64) {
        let unit = &mut self.units[unit as usize];
        assert!(unit.readers > 0 && !unit.writing, "a unit is released only by who claimed it");
        unit.readers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 99;

    fn block(first: u64, sequence: u64) -> Vec<u8> {
        let mut payload = vec![0; 4096];
        fill_sectors(&mut payload, first, sequence, RUN);
        payload
    }

    fn found(payload: &[u8], first: u64, expected: Known) -> String {
        check_sectors(payload, first, expected, RUN).unwrap_err().found
    }

    #[test]
    fn what_was_written_is_accepted() {
        assert_eq!(check_sectors(&block(8, 5), 8, Known::Written(5), RUN), Ok(()));
        assert_eq!(check_sectors(&[0; 4096], 8, Known::Zeros, RUN), Ok(()));
        assert_eq!(check_sectors(&[7; 4096], 8, Known::Nothing, RUN), Ok(()));
    }

    #[test]
    fn each_kind_of_fault_is_named() {
        let good = block(8, 5);
        assert_eq!(found(&block(8, 4), 8, Known::Written(5)), "write 4");
        assert_eq!(found(&block(16, 5), 8, Known::Written(5)), "write 5 of byte 8192");
        assert_eq!(found(&[0; 4096], 8, Known::Written(5)), "zeros");
        assert_eq!(found(&[7; 4096], 8, Known::Written(5)), "data of somebody else");
        assert_eq!(found(&good, 8, Known::Zeros), "write 5");
        assert_eq!(
            check_sectors(&good, 8, Known::Written(5), RUN + 1).unwrap_err().found,
            "write 5 of an earlier run"
        );
    }

    #[test]
    fn a_torn_write_is_found_at_its_sector() {
        let mut torn = block(8, 5);
        torn[1024..].copy_from_slice(&block(8, 4)[1024..]);
        let fault = check_sectors(&torn, 8, Known::Written(5), RUN).unwrap_err();
        assert_eq!((fault.sector, fault.found.as_str()), (10, "write 4"));
        assert_eq!(fault.to_string(), "byte 5120 of the namespace: write 5 acknowledged, but found write 4");
    }

    #[test]
    fn every_bit_is_guarded() {
        let good = block(8, 5);
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check_sectors(&bad, 8, Known::Written(5), RUN).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_unit_is_written_alone() {
        let mut shadow = Shadow::new(3);
        assert_eq!(shadow.claim(1, true), Some(1));
        assert_eq!(shadow.claim(1, false), Some(2));
        assert_eq!(shadow.claim(2, false), Some(2), "two may read");
        assert_eq!(shadow.claim(1, true), Some(0));
        assert_eq!((shadow.claim(0, true), shadow.claim(0, false)), (None, Some(2)));
        shadow.changed(1, Known::Written(1));
        assert_eq!(shadow.known(1), Known::Written(1));
        assert_eq!(shadow.claim(0, true), Some(1));
        for _ in 0..3 {
            shadow.was_read(2);
        }
        assert_eq!(shadow.claim(2, true), Some(2));
    }
}
