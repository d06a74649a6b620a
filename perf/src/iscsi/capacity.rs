//! What READ CAPACITY(16) tells (SBC-4, section 5.21).

use crate::client::Result;
use crate::client::error::protocol;

/// The size of a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Blocks.
    pub blocks: u64,
    /// The size of a block in bytes.
    pub block_bytes: u32,
}

/// Bytes of the parameter data.
pub(super) const CAPACITY_BYTES: u32 = 32;

impl Capacity {
    pub(super) fn parse(data: &[u8]) -> Result<Self> {
        let (Some(last), Some(block)) =
            (data.first_chunk::<8>(), data.get(8..).and_then(|rest| rest.first_chunk::<4>()))
        else {
            return protocol(format!("a capacity of {} bytes", data.len()));
        };
        let (last, block_bytes) = (u64::from_be_bytes(*last), u32::from_be_bytes(*block));
        let Some(blocks) = last.checked_add(1) else { return protocol("a unit of 2^64 blocks") };
        if !block_bytes.is_power_of_two() || !(512..=65_536).contains(&block_bytes) {
            return protocol(format!("blocks of {block_bytes} bytes"));
        }
        Ok(Self { blocks, block_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_counts() {
        let mut data = [0; 32];
        (data[7], data[10]) = (0xFF, 0x10);
        assert_eq!(Capacity::parse(&data).unwrap(), Capacity { blocks: 256, block_bytes: 4096 });
        data[10] = 0;
        assert!(Capacity::parse(&data).is_err());
        assert!(Capacity::parse(&data[..11]).is_err());
    }
}
