//! Operations over long ranges, piece by piece: each piece is one register to other commands, has its own place
//! in the range table and is checked against reservations anew, so that a host that was preempted meanwhile
//! stops at the next piece.

use ashlar_env::buf::{Buf, MAX_BYTES};
use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::spawn::yield_now;
use ashlar_env::units::{BlockRange, ByteRange, Lba};
use ashlar_env::volume::Issuer;
use ashlar_env::{Env, VolumeError};

use super::{Inner, SCRATCH_BYTES};
use crate::persist::ReservationStore;
use crate::range_lock::{Held, Hold};
use crate::reservation::Access;

/// How much is zeroed or freed at once, in bytes.
const ZERO_STEP_BYTES: u64 = 64 << 20;

/// How much is copied at once, in bytes: with a disk block more at either side it fits a scratch buffer.
const COPY_STEP_BYTES: u64 = 128 << 10;

const _: () = assert!(COPY_STEP_BYTES + 2 * 4096 <= SCRATCH_BYTES);

/// `range` cut at the multiples of `step` blocks.
fn pieces(range: BlockRange, step: u64) -> impl Iterator<Item = BlockRange> {
    let mut first = range.first().0;
    std::iter::from_fn(move || {
        let end = (first - first % step).saturating_add(step).min(range.end().0);
        let piece = BlockRange::new(Lba(first), end.checked_sub(first)?)?;
        first = end;
        (piece.blocks() > 0).then_some(piece)
    })
}

/// The longest part of `range` whose ends are multiples of `granule`; empty where there is none.
fn aligned_part(range: ByteRange, granule: u64) -> ByteRange {
    let start = range.start.next_multiple_of(granule);
    let end = range.end() - range.end() % granule;
    if start < end { ByteRange { start, len: end - start } } else { ByteRange { start: range.start, len: 0 } }
}

/// What lies in `range` before and after `part`.
fn edges(range: ByteRange, part: ByteRange) -> [ByteRange; 2] {
    if part.len == 0 {
        return [range, ByteRange { start: range.end(), len: 0 }];
    }
    [
        ByteRange { start: range.start, len: part.start - range.start },
        ByteRange { start: part.end(), len: range.end() - part.end() },
    ]
}

impl<E: Env, D: Disk, S: ReservationStore> Inner<E, D, S> {
    fn in_blocks(&self, bytes: u64) -> u64 {
        bytes >> self.info.get().block_size.shift()
    }

    pub(super) async fn verify(&self, issuer: Issuer, range: BlockRange) -> Result<(), VolumeError> {
        for piece in pieces(range, self.in_blocks(SCRATCH_BYTES)) {
            let held = self.enter(issuer, piece, Hold::Shared, Access::Read).await?;
            self.read_through(self.bytes(piece)).await?;
            drop(held);
            yield_now().await;
        }
        Ok(())
    }

    pub(super) async fn write_zeroes(
        &self,
        issuer: Issuer,
        range: BlockRange,
        free: bool,
        durability: Durability,
    ) -> Result<(), VolumeError> {
        for piece in pieces(range, self.in_blocks(ZERO_STEP_BYTES)) {
            let held = self.enter(issuer, piece, Hold::Exclusive, Access::Write).await?;
            self.zero(self.bytes(piece), free, durability).await?;
            drop(held);
            yield_now().await;
        }
        Ok(())
    }

    pub(super) async fn unmap(&self, issuer: Issuer, range: BlockRange) -> Result<(), VolumeError> {
        let disk = self.disk.info();
        let granule = u64::from(disk.discard_granularity_bytes);
        let discards =
            granule > 0 && disk.discard_zeroes && granule.is_multiple_of(u64::from(self.disk_block));
        // Pieces end where granules do, so that no granule is lost between two of them.
        let fits = discards && granule.is_multiple_of(u64::from(self.info.get().block_size.bytes()));
        let step = if fits { granule * (ZERO_STEP_BYTES / granule).max(1) } else { ZERO_STEP_BYTES };
        for piece in pieces(range, self.in_blocks(step)) {
            let held = self.enter(issuer, piece, Hold::Exclusive, Access::Write).await?;
            let bytes = self.bytes(piece);
            if discards {
                self.discard(bytes, granule).await?;
            } else {
                // The disk promises nothing about what it discarded: it is asked for zeros.
                self.zero(bytes, granule > 0, Durability::Cached).await?;
            }
            drop(held);
            yield_now().await;
        }
        Ok(())
    }

    /// Discards the granules that lie in `range` whole, and writes zeros over the rest.
    async fn discard(&self, range: ByteRange, granule: u64) -> Result<(), VolumeError> {
        let part = aligned_part(range, granule);
        if part.len > 0 {
            match self.disk.discard(part).await {
                Ok(()) => {}
                Err(DiskError::Unsupported) => return self.zero(range, false, Durability::Cached).await,
                Err(error) => return Err(VolumeError::from_write(&error)),
            }
        }
        for edge in edges(range, part) {
            if edge.len > 0 {
                self.zero(edge, false, Durability::Cached).await?;
            }
        }
        Ok(())
    }

    /// Makes `range` read as zeros.
    async fn zero(&self, range: ByteRange, free: bool, durability: Durability) -> Result<(), VolumeError> {
        let part = aligned_part(range, u64::from(self.disk_block));
        if part.len > 0 {
            match self.disk.write_zeroes(part, free, durability).await {
                Ok(()) => {}
                Err(DiskError::Unsupported) => self.write_zero_data(part, durability).await?,
                Err(error) => return Err(VolumeError::from_write(&error)),
            }
        }
        for edge in edges(range, part) {
            if edge.len > 0 {
                self.overlay(edge, None, durability).await?;
            }
        }
        Ok(())
    }

    /// Writes zeros as data: for a disk that knows no better.
    async fn write_zero_data(&self, range: ByteRange, durability: Durability) -> Result<(), VolumeError> {
        let mut at = range.start;
        while at < range.end() {
            let len = (range.end() - at).min(MAX_BYTES as u64);
            self.write_disk(at, Buf::zeroes(len as usize), durability).await?;
            at += len;
            yield_now().await;
        }
        Ok(())
    }

    pub(super) async fn copy(
        &self,
        issuer: Issuer,
        sources: &[BlockRange],
        to: Lba,
        durability: Durability,
    ) -> Result<(), VolumeError> {
        let mut target = to.0;
        for source in sources {
            for from in pieces(*source, self.in_blocks(COPY_STEP_BYTES)) {
                let to = BlockRange::new(Lba(target), from.blocks()).ok_or(VolumeError::OutOfRange)?;
                let held = self.enter_both(issuer, from, to).await?;
                self.copy_piece(from, to, durability).await?;
                drop(held);
                target = to.end().0;
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Waits for both ranges. They are asked for in one step, so two copies never wait for each other.
    async fn enter_both(
        &self,
        issuer: Issuer,
        from: BlockRange,
        to: BlockRange,
    ) -> Result<(Held<'_>, Option<Held<'_>>), VolumeError> {
        let (wide_from, wide_to) = (self.widen(from), self.widen(to));
        let (write, read) = if wide_from.overlaps(wide_to) {
            // Neighbours in one block of the disk: asking twice would be waiting for oneself.
            let first = wide_from.first().min(wide_to.first());
            let end = wide_from.end().max(wide_to.end());
            let both = BlockRange::new(first, end.0 - first.0).expect("both lie in the volume");
            (self.locks.request(both, Hold::Exclusive, issuer.host), None)
        } else {
            let write = self.locks.request(wide_to, Hold::Exclusive, issuer.host);
            (write, Some(self.locks.request(wide_from, Hold::Shared, issuer.host)))
        };
        let write = write.granted().await;
        let read = match read {
            Some(read) => Some(read.granted().await),
            None => None,
        };
        self.check_again(issuer, from, Access::Read)?;
        self.check_again(issuer, to, Access::Write)?;
        Ok((write, read))
    }

    async fn copy_piece(
        &self,
        from: BlockRange,
        to: BlockRange,
        durability: Durability,
    ) -> Result<(), VolumeError> {
        if self.suits_disk(from) && self.suits_disk(to) {
            match self.disk.copy(self.bytes(from), self.byte_start(to)).await {
                Err(DiskError::Unsupported) => {}
                copied => return copied.map_err(|error| VolumeError::from_write(&error)),
            }
        }
        let (wanted, wide) = (self.bytes(from), self.bytes(self.widen(from)));
        let buf = self.scratch.alloc(wide.len as usize).await;
        let buf = self.read_disk(wide.start, buf).await?;
        if self.suits_disk(from) && self.suits_disk(to) {
            return self.write_disk(self.byte_start(to), buf.freeze(), durability).await;
        }
        // One scratch buffer at a time: the data leave it before the write takes another.
        let skip = (wanted.start - wide.start) as usize;
        let data = buf[skip..][..wanted.len as usize].to_vec();
        drop(buf);
        self.overlay(self.bytes(to), Some(&data), durability).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_and_end_at_multiples() {
        let range = BlockRange::new(Lba(5), 20).unwrap();
        let ends: Vec<_> = pieces(range, 8).map(|piece| (piece.first().0, piece.end().0)).collect();
        assert_eq!(ends, [(5, 8), (8, 16), (16, 24), (24, 25)]);
        assert_eq!(pieces(BlockRange::new(Lba(0), 0).unwrap(), 8).count(), 0);
    }

    #[test]
    fn a_range_is_its_aligned_part_and_its_edges() {
        for (start, len) in [(0, 8192), (100, 5000), (4000, 200), (4096, 4096), (1, 4095)] {
            let range = ByteRange { start, len };
            let part = aligned_part(range, 4096);
            let [head, tail] = edges(range, part);
            assert!(part.len == 0 || (part.start | part.end()).is_multiple_of(4096));
            assert_eq!(head.len + part.len + tail.len, len);
            assert_eq!(head.start, start);
            assert!(tail.end() == range.end());
        }
    }
}
