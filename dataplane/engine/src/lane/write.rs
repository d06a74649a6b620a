//! Writing to a volume.

use ashlar_env::Env;
use ashlar_env::buf::Buf;

use crate::chunks::Chunks;
use crate::ids::BLOCK_BYTES;
use crate::log::{LogError, Op};

use super::background::Want;
use super::control::Control;
use super::core::VolumeNumber;
use super::gate::Inside;
use super::pack::{compress, is_zero, sums_of};
use super::{Inner, LaneError};

/// The most blocks that one operation of the log clears: what it takes to apply it is bounded.
const CLEAR_BLOCKS_MAX: u64 = 1 << 16;

/// How often in sequence a turn of the background task may gain no space before a write fails for want of it.
const FRUITLESS_MAX: u32 = 2;

/// How blocks are cleared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clear {
    /// The host wrote zeros.
    Zero,
    /// The host gave them up.
    Unmap,
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Writes whole blocks from `first` on, all or nothing. Ready when durable. For whoever is [`Self::admitted`].
    pub(super) async fn write_blocks(
        &self,
        volume: VolumeNumber,
        first: u64,
        data: Buf,
    ) -> Result<(), LaneError> {
        let count = (data.len() / BLOCK_BYTES) as u32;
        if is_zero(&data) {
            return self.append_inside(|| Op::Zero { volume, first, count }).await;
        }
        let packed = if self.core().compression == 0 {
            None
        } else {
            compress(&data, self.scratch.alloc(data.len()).await)
        };
        let (payload, sums) = packed.unwrap_or_else(|| {
            let sums = sums_of(&data);
            (data, sums)
        });
        self.append_inside(|| Op::Data { volume, first, payload: payload.clone(), sums: sums.clone() }).await
    }

    /// Makes whole blocks read as zeros; they take no space afterwards. For whoever is [`Self::admitted`].
    pub(super) async fn clear_blocks(
        &self,
        volume: VolumeNumber,
        mut first: u64,
        end: u64,
        how: Clear,
    ) -> Result<(), LaneError> {
        while first < end {
            let count = (end - first).min(CLEAR_BLOCKS_MAX) as u32;
            self.append_inside(|| match how {
                Clear::Zero => Op::Zero { volume, first, count },
                Clear::Unmap => Op::Unmap { volume, first, count },
            })
            .await?;
            first += u64::from(count);
        }
        Ok(())
    }

    /// Logs a change of volumes or snapshots. Ready when durable and applied.
    pub(super) async fn log_control(&self, control: Control) -> Result<(), LaneError> {
        let bytes: std::sync::Arc<[u8]> = control.encode().into();
        self.append(|| Op::Control(Buf::from_heap(bytes.clone()))).await
    }

    /// The same for whoever has closed the gate.
    pub(super) async fn log_control_inside(&self, control: Control) -> Result<(), LaneError> {
        let bytes: std::sync::Arc<[u8]> = control.encode().into();
        self.append_inside(|| Op::Control(Buf::from_heap(bytes.clone()))).await
    }

    async fn append(&self, op: impl Fn() -> Op) -> Result<(), LaneError> {
        let _inside = self.admitted().await?;
        self.append_inside(op).await
    }

    /// Waits until there may be a change: as long as it holds this, no restore comes between.
    pub(super) async fn admitted(&self) -> Result<Inside<'_>, LaneError> {
        self.admit().await?;
        Ok(self.gate.enter().await)
    }

    /// Logs what `op` makes, again after space was made where there was none.
    async fn append_inside(&self, op: impl Fn() -> Op) -> Result<(), LaneError> {
        let mut fruitless = 0;
        loop {
            match self.log().append(op()).await {
                Ok(()) => {
                    if self.shared.logged_bytes.get() >= self.config.checkpoint_bytes {
                        self.work.notify();
                    }
                    return self.check();
                }
                Err(LogError::Full) if fruitless < FRUITLESS_MAX => {
                    let before = self.gained.get();
                    self.turn(Want::Space).await?;
                    // As long as there is space to be had, whoever comes late is served late.
                    fruitless = if self.gained.get() > before { 0 } else { fruitless + 1 };
                }
                Err(LogError::Full) => return Err(LaneError::Full),
                Err(error @ (LogError::Failed(_) | LogError::Fenced { .. } | LogError::Refused(_))) => {
                    return Err(self.fail(error.into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits while more has been logged than a restart should have to replay.
    async fn admit(&self) -> Result<(), LaneError> {
        let may =
            || self.shared.logged_bytes.get() < self.config.checkpoint_bytes_max || self.check().is_err();
        if !may() {
            self.work.notify();
            self.worked.wait_until(may).await;
        }
        self.check()
    }
}
