//! A volume that is nothing: it reads as zeros and forgets what is written. What the transport costs by itself
//! is measured with it.

use std::future::{Future, ready};

use ashlar_env::buf::Buf;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::{Extent, Issuer, Operation, Outcome, VolumeInfo};
use ashlar_env::{Volume, VolumeError};

use crate::check::check;

/// A volume without a disk. It has no reservations.
#[derive(Clone, Copy, Debug)]
pub struct Null {
    info: VolumeInfo,
}

impl Null {
    /// A volume of `blocks` blocks, or `None` where that is above 2^64 bytes.
    #[must_use]
    pub fn new(id: VolumeId, block_size: BlockSize, blocks: u64) -> Option<Self> {
        let info = VolumeInfo {
            id,
            block_size,
            blocks,
            read_only: false,
            volatile_cache: false,
            thin: true,
            unmap_granularity_blocks: 1,
            preferred_write_blocks: 1,
            atomic_write_blocks: 1,
        };
        (blocks <= u64::MAX >> block_size.shift()).then_some(Self { info })
    }

    fn answer(&self, operation: &Operation) -> Result<Outcome, VolumeError> {
        check(&self.info, operation)?;
        match operation {
            Operation::Read { range } => {
                // At most MAX_BYTES, as was checked.
                let len = (range.blocks() << self.info.block_size.shift()) as usize;
                Ok(Outcome::Data(Buf::zeroes(len)))
            }
            Operation::Compare { expected, .. } | Operation::CompareAndWrite { expected, .. } => {
                match expected.iter().position(|&byte| byte != 0) {
                    Some(at) => Err(VolumeError::Miscompare { at_bytes: at as u64 }),
                    None => Ok(Outcome::Done),
                }
            }
            Operation::Allocation { range } => {
                Ok(Outcome::Extents(Box::from([Extent { range: *range, allocated: true }])))
            }
            Operation::Reserve(_) | Operation::ReserveNexus(_) => Err(VolumeError::Unsupported),
            _ => Ok(Outcome::Done),
        }
    }
}

impl Volume for Null {
    fn info(&self) -> VolumeInfo {
        self.info
    }

    fn execute(
        &self,
        _: Issuer,
        operation: Operation,
    ) -> impl Future<Output = Result<Outcome, VolumeError>> + 'static {
        ready(self.answer(&operation))
    }
}
