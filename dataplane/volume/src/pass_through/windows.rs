//! Transfers that do not suit the disk's blocks, through windows that do.
//!
//! A window is a run of whole disk blocks, at most a scratch buffer long. The caller has the range.

use ashlar_env::buf::BufMut;
use ashlar_env::buf::MAX_BYTES;
use ashlar_env::disk::{Disk, Durability};
use ashlar_env::units::{BlockRange, ByteRange};
use ashlar_env::volume::{Issuer, Outcome};
use ashlar_env::{Env, VolumeError};

use super::{Inner, SCRATCH_BYTES};
use crate::persist::ReservationStore;
use crate::range_lock::Hold;
use crate::reservation::Access;

/// One step through a byte range.
struct Window {
    /// Where the window begins on the disk.
    start: u64,
    /// How long it is: whole blocks.
    len: usize,
    /// Where in the window the wanted bytes begin.
    skip: usize,
    /// How many they are.
    wanted: usize,
    /// How many bytes of the whole range lie before them.
    done: usize,
}

impl Window {
    fn is_covered(&self) -> bool {
        self.wanted == self.len
    }
}

/// The windows over `range`, in order.
fn windows(range: ByteRange, block: u32) -> impl Iterator<Item = Window> {
    let mask = u64::from(block) - 1;
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end() {
            return None;
        }
        let start = at & !mask;
        let end = (range.end().saturating_add(mask) & !mask).min(start + SCRATCH_BYTES);
        let stop = end.min(range.end());
        let window = Window {
            start,
            len: (end - start) as usize,
            skip: (at - start) as usize,
            wanted: (stop - at) as usize,
            done: (at - range.start) as usize,
        };
        at = stop;
        Some(window)
    })
}

impl<E: Env, D: Disk, S: ReservationStore> Inner<E, D, S> {
    pub(super) fn bytes(&self, range: BlockRange) -> ByteRange {
        ByteRange { start: self.byte_start(range), len: self.byte_len(range) }
    }

    /// Reads a range that does not suit the disk.
    pub(super) async fn read_windows(
        &self,
        issuer: Issuer,
        range: BlockRange,
    ) -> Result<Outcome, VolumeError> {
        let wanted = self.bytes(range);
        let wide = self.bytes(self.widen(range));
        if wide.len <= MAX_BYTES as u64 {
            let buf = self.env.buffers().alloc(wide.len as usize).await;
            let _held = self.enter(issuer, range, Hold::Shared, Access::Read).await?;
            let buf = self.read_disk(wide.start, buf).await?;
            let skip = (wanted.start - wide.start) as usize;
            return Ok(Outcome::Data(buf.freeze().slice(skip, wanted.len as usize)));
        }
        let mut whole = self.env.buffers().alloc(wanted.len as usize).await;
        let _held = self.enter(issuer, range, Hold::Shared, Access::Read).await?;
        for window in windows(wanted, self.disk_block) {
            let part = self.read_disk(window.start, self.scratch.alloc(window.len).await).await?;
            whole[window.done..][..window.wanted].copy_from_slice(&part[window.skip..][..window.wanted]);
        }
        Ok(Outcome::Data(whole.freeze()))
    }

    /// Writes `data` (or zeros) over the range; what else is in the disk's blocks stays.
    pub(super) async fn overlay(
        &self,
        range: ByteRange,
        data: Option<&[u8]>,
        durability: Durability,
    ) -> Result<(), VolumeError> {
        debug_assert!(data.is_none_or(|data| data.len() as u64 == range.len));
        for window in windows(range, self.disk_block) {
            let mut buf = self.scratch.alloc(window.len).await;
            if !window.is_covered() {
                let read = self.disk.read(window.start, buf).await;
                // To the host the write failed, whatever it took below.
                buf = read.map_err(|error| VolumeError::from_write(&error))?;
            }
            let target = &mut buf[window.skip..][..window.wanted];
            match data {
                Some(data) => target.copy_from_slice(&data[window.done..][..window.wanted]),
                None => target.fill(0),
            }
            self.write_disk(window.start, buf.freeze(), durability).await?;
        }
        Ok(())
    }

    /// Compares the range with `expected`.
    pub(super) async fn compare(&self, range: ByteRange, expected: &[u8]) -> Result<(), VolumeError> {
        for window in windows(range, self.disk_block) {
            let buf = self.read_disk(window.start, self.scratch.alloc(window.len).await).await?;
            let there = &buf[window.skip..][..window.wanted];
            let expected = &expected[window.done..][..window.wanted];
            if there != expected {
                let differs = there.iter().zip(expected).position(|(a, b)| a != b).unwrap_or_default();
                return Err(VolumeError::Miscompare { at_bytes: (window.done + differs) as u64 });
            }
        }
        Ok(())
    }

    /// Reads the range and forgets it.
    pub(super) async fn read_through(&self, range: ByteRange) -> Result<(), VolumeError> {
        for window in windows(range, self.disk_block) {
            self.read_disk(window.start, self.scratch.alloc(window.len).await).await?;
        }
        Ok(())
    }

    pub(super) async fn read_disk(&self, start: u64, buf: BufMut) -> Result<BufMut, VolumeError> {
        self.disk.read(start, buf).await.map_err(|error| VolumeError::from_read(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_range_once_in_whole_blocks() {
        for (start, len, block) in [
            (0, 512, 4096),
            (512, 4096, 4096),
            (3584, 1 << 20, 4096),
            (512, 1024, 512),
            (7 << 20, 600 << 10, 4096),
        ] {
            let (mut at, mut done) = (start, 0);
            for window in windows(ByteRange { start, len }, block) {
                assert!(window.start.is_multiple_of(u64::from(block)));
                assert!(window.len.is_multiple_of(block as usize) && window.len as u64 <= SCRATCH_BYTES);
                assert_eq!(window.start + window.skip as u64, at);
                assert_eq!(window.done, done);
                assert!(window.wanted > 0 && window.skip + window.wanted <= window.len);
                at += window.wanted as u64;
                done += window.wanted;
            }
            assert_eq!(done as u64, len);
        }
    }
}
