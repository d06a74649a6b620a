//! What a WRITE USING TOKEN does, step by step.

use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::disk::Durability;
use ashlar_env::spawn::yield_now;
use ashlar_env::units::{BlockRange, BlockSize, Lba};
use ashlar_env::volume::{Issuer, Operation};

use super::list::Write;
use super::rod::{Found, REVOKED, Rod, UNKNOWN};
use crate::scsi::copy;
use crate::scsi::copy::engine::{Copy, Failed};
use crate::scsi::copy::registry::Job;
use crate::scsi::sense::{Asc, Failure, Sense};
use crate::scsi::units::MappedUnit;
use crate::scsi::{Status, Units};

/// How much is zeroed between two looks at whether to go on, in bytes.
const ZERO_STEP_BYTES: u64 = 256 << 20;
/// Where OFFSET INTO ROD is in the parameter list.
const OFFSET_FIELD: u16 = 8;

/// The steps.
pub(super) enum Plan<V> {
    /// Blocks of another place, one run after the other.
    Copies(Vec<Copy<V>>),
    /// Zeros.
    Zeros {
        /// in this volume
        volume: V,
        /// there
        ranges: Box<[BlockRange]>,
    },
}

impl<V: Volume> Plan<V> {
    /// The steps for a token that was found.
    ///
    /// # Errors
    /// INVALID TOKEN OPERATION, TOKEN UNKNOWN where the nexus cannot reach the source, TOKEN REVOKED where the source has
    /// become smaller; INVALID FIELD IN PARAMETER LIST where the token has too few blocks, or blocks of different sizes
    /// do not meet.
    pub fn new(
        units: &Units<V>,
        unit: &MappedUnit<V>,
        asked: &Write,
        found: &Found,
    ) -> Result<Self, Failure> {
        let rod = match found {
            Found::Zeros => {
                return Ok(Self::Zeros { volume: unit.volume.clone(), ranges: asked.ranges.clone() });
            }
            Found::Blocks(rod) => rod,
        };
        let source = units.iter().find(|unit| unit.volume.info().id == rod.volume).ok_or(UNKNOWN)?;
        let blocks = source.volume.info().blocks;
        if rod.ranges.iter().any(|range| range.end().0 > blocks) {
            return Err(REVOKED);
        }
        pair(&source.volume, rod, &unit.volume, asked).map(Self::Copies)
    }

    /// Carries it out.
    ///
    /// # Errors
    /// What the initiator is to be told.
    pub async fn run(self, issuer: Issuer, job: &Arc<Job>) -> Result<(), Failure> {
        match self {
            Self::Copies(copies) => {
                for copy in copies {
                    let copied = copy.run(issuer, |bytes| job.moved(bytes)).await;
                    copied.map_err(|failed| copy::ended(&failed))?;
                    job.segment_done();
                }
            }
            Self::Zeros { volume, ranges } => {
                for range in ranges {
                    zero(&volume, range, issuer, job).await?;
                    job.segment_done();
                }
            }
        }
        Ok(())
    }
}

async fn zero<V: Volume>(
    volume: &V,
    range: BlockRange,
    issuer: Issuer,
    job: &Arc<Job>,
) -> Result<(), Failure> {
    let shift = volume.info().block_size.shift();
    let mut first = range.first().0;
    while first < range.end().0 {
        let blocks = (range.end().0 - first).min(ZERO_STEP_BYTES >> shift);
        let range = BlockRange::new(Lba(first), blocks).expect("a part of a range");
        let zeroes = Operation::WriteZeroes { range, free: true, durability: Durability::Cached };
        let ended = volume.execute(issuer, zeroes).await;
        ended.map_err(|error| copy::ended(&Failed::Destination(error)))?;
        if !job.moved(blocks << shift) {
            return Err(Status::TaskAborted.into());
        }
        first += blocks;
        yield_now().await;
    }
    Ok(())
}

/// A run of blocks as bytes from somewhere on.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    len: u64,
}

fn runs(ranges: &[BlockRange], size: BlockSize) -> impl Iterator<Item = Run> {
    ranges
        .iter()
        .map(move |range| Run { start: range.first().0 << size.shift(), len: range.blocks() << size.shift() })
}

/// Lays the destination's ranges, one after the other, over those of the source from the offset on.
fn pair<V: Volume>(from: &V, rod: &Rod, to: &V, asked: &Write) -> Result<Vec<Copy<V>>, Failure> {
    let (source_size, target_size) = (from.info().block_size, to.info().block_size);
    let too_few = || Failure::from(Sense::parameter(OFFSET_FIELD));
    let mut skip = asked.offset_blocks.checked_mul(u64::from(target_size.bytes())).ok_or_else(too_few)?;
    let mut sources = runs(&rod.ranges, source_size);
    let mut source = Run { start: 0, len: 0 };
    let mut copies = Vec::new();
    for mut target in runs(&asked.ranges, target_size) {
        while target.len > 0 {
            while source.len <= skip {
                skip -= source.len;
                source = sources.next().ok_or_else(too_few)?;
            }
            let len = (source.len - skip).min(target.len);
            let start = source.start + skip;
            let fits = |at: u64, size: BlockSize| at.is_multiple_of(u64::from(size.bytes()));
            if !fits(start | len, source_size) || !fits(len, target_size) {
                return Err(Sense::illegal(Asc::PARAMETER_FIELD).into());
            }
            let range = BlockRange::new(Lba(start >> source_size.shift()), len >> source_size.shift());
            copies.push(Copy {
                from: from.clone(),
                source: range.expect("a part of a range"),
                to: to.clone(),
                at: Lba(target.start >> target_size.shift()),
            });
            source = Run { start: start + len, len: source.len - skip - len };
            skip = 0;
            target = Run { start: target.start + len, len: target.len - len };
        }
    }
    Ok(copies)
}
