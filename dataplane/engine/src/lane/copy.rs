//! Copying within a lane: the copy refers to what its source holds, and no data moves.
//!
//! What the source names is read from its map and logged, so the log alone tells what a copy refers to. Until that is
//! applied the source must not let go of it: the copy holds the source's blocks alone meanwhile ([`super::ranges`]), as
//! well as the gate that keeps out restores. Only what a volume shows is copied, never what only a snapshot holds: what
//! is being let go of gets no new holders. Which stored blocks have copies is in [`super::shared`].
//!
//! Blocks that are not whole, or lie differently within blocks in source and target, are copied as data; so is all once too
//! many blocks have copies.

use std::rc::Rc;

use ashlar_env::Env;
use ashlar_env::units::ByteRange;
use smallvec::smallvec;

use crate::chunks::Chunks;
use crate::ids::{BLOCK_BYTES, BLOCK_SHIFT};
use crate::map::Entry;

use super::control::Control;
use super::core::VolumeNumber;
use super::place::Place;
use super::ranges::Range;
use super::write::Clear;
use super::{Inner, Lane, LaneError};

/// Blocks that one operation of the log copies.
const TOGETHER: u64 = 256;

/// The most bytes that are copied as data at once.
const DATA_BYTES_MAX: u64 = 256 << 10;

/// A piece of a copy, in bytes.
#[derive(Clone, Copy)]
struct Piece {
    from: VolumeNumber,
    start: u64,
    to: VolumeNumber,
    at: u64,
    len: u64,
}

impl<E: Env, C: Chunks> Lane<E, C> {
    /// Copies ranges of bytes of volume `from`, one after the other, to volume `to` from byte `at` on. Ranges are multiples
    /// of 512 bytes. The target must not overlap the sources. What other writers do to the sources meanwhile is copied or
    /// not, block by block; after a crash blocks of the target are the old or the new ones.
    ///
    /// # Errors
    /// [`LaneError::NoVolume`], [`LaneError::OutOfRange`] (also for a target that overlaps a source), or what the log says.
    pub async fn copy(
        &self,
        from: VolumeNumber,
        sources: &[ByteRange],
        to: VolumeNumber,
        at: u64,
    ) -> Result<(), LaneError> {
        let len = sources.iter().try_fold(0_u64, |sum, source| sum.checked_add(source.len));
        let target = len.filter(|len| at.checked_add(*len).is_some()).ok_or(LaneError::OutOfRange)?;
        let overlaps = |source: &&ByteRange| source.start < at + target && at < source.end();
        if from == to && sources.iter().any(|source| overlaps(&source)) {
            return Err(LaneError::OutOfRange);
        }
        let mut at = at;
        for source in sources {
            let piece = Piece { from, start: source.start, to, at, len: source.len };
            Inner::copy_range(&self.0, piece).await?;
            at += source.len;
        }
        Ok(())
    }
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Copies as references what can be, and its edges as data.
    async fn copy_range(this: &Rc<Self>, mut piece: Piece) -> Result<(), LaneError> {
        let block = BLOCK_BYTES as u64;
        if piece.start % block != piece.at % block {
            return this.copy_data(piece).await;
        }
        let head = (piece.start.next_multiple_of(block) - piece.start).min(piece.len);
        this.copy_data(Piece { len: head, ..piece }).await?;
        piece.advance(head);
        while piece.len >= block {
            let blocks = (piece.len / block).min(TOGETHER);
            Self::copy_blocks(this, piece, blocks).await?;
            piece.advance(blocks * block);
        }
        this.copy_data(piece).await
    }

    /// Copies `blocks` whole blocks.
    async fn copy_blocks(this: &Rc<Self>, piece: Piece, blocks: u64) -> Result<(), LaneError> {
        let (source, target) = (piece.start >> BLOCK_SHIFT, piece.at >> BLOCK_SHIFT);
        let ranges = smallvec![
            Range { volume: piece.from, first: source, end: source + blocks, alone: true },
            Range { volume: piece.to, first: target, end: target + blocks, alone: false },
        ];
        let place = Place::of_all(this, ranges).await;
        let copied = this.copy_inside(piece, source, target, blocks).await;
        place.end(copied)
    }

    async fn copy_inside(
        &self,
        piece: Piece,
        source: u64,
        target: u64,
        blocks: u64,
    ) -> Result<(), LaneError> {
        let _inside = self.admitted().await?;
        let len = blocks << BLOCK_SHIFT;
        self.check_inside(piece.from, piece.start, len)?;
        self.check_inside(piece.to, piece.at, len)?;
        let entries = self.find(piece.from, source, blocks as usize).await?;
        if entries.iter().all(|entry| entry.is_empty()) {
            return self.clear_blocks(piece.to, target, target + blocks, Clear::Unmap).await;
        }
        if self.core().table.shared.len() + entries.len() > self.config.shared_blocks_max {
            self.activity.note(|activity| activity.unreferenced += 1);
            return self.copy_blocks_as_data(piece, source, target, blocks).await;
        }
        self.activity.note(|activity| activity.references += 1);
        let entries: Rc<[Entry]> = entries.iter().map(|entry| entry.copied(0)).collect();
        self.log_control_inside(Control::Copy { volume: piece.to, first: target, entries }).await
    }

    async fn copy_blocks_as_data(
        &self,
        piece: Piece,
        source: u64,
        target: u64,
        blocks: u64,
    ) -> Result<(), LaneError> {
        let mut done = 0;
        while done < blocks {
            let some = (self.data_bytes() >> BLOCK_SHIFT).min(blocks - done);
            let buf = self.scratch.alloc((some << BLOCK_SHIFT) as usize).await;
            let data = self.read_blocks(piece.from, source + done, buf).await?;
            self.write_blocks(piece.to, target + done, data.freeze()).await?;
            done += some;
        }
        Ok(())
    }

    /// How many bytes are copied as data at once: a record of the log holds them, with parts of blocks on either side.
    fn data_bytes(&self) -> u64 {
        let half = (self.config.log.record_bytes_max / 2) as u64;
        (half.min(DATA_BYTES_MAX) & !(BLOCK_BYTES as u64 - 1)).max(BLOCK_BYTES as u64)
    }

    /// Copies by reading and writing.
    async fn copy_data(self: &Rc<Self>, mut piece: Piece) -> Result<(), LaneError> {
        while piece.len > 0 {
            let len = piece.len.min(self.data_bytes());
            self.check_inside(piece.from, piece.start, len)?;
            let buf = self.scratch.alloc(len as usize).await;
            let data = self.read_bytes(piece.from, piece.start, buf).await?;
            Self::write_bytes(self, piece.to, piece.at, data.freeze()).await?;
            piece.advance(len);
        }
        Ok(())
    }
}

impl Piece {
    /// Leaves out the first `bytes` bytes.
    const fn advance(&mut self, bytes: u64) {
        self.start += bytes;
        self.at += bytes;
        self.len -= bytes;
    }
}
