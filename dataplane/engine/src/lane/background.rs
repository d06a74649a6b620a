//! When a lane checkpoints, lets go of what is deleted, and compacts. One task does all of it, one thing at a time.

use std::rc::Rc;

use ashlar_env::Env;

use crate::chunks::Chunks;

use super::{Inner, LaneError};

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A checkpoint of all that was applied before.
    Checkpoint,
    /// Space, as much as there is to be had.
    Space,
}

/// Turns of the background task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// How many were asked for.
    asked: u64,
    /// How many were begun, and ended.
    ended: u64,
    /// Whether one of those asked for wants space.
    space: bool,
}

impl<E: Env, C: Chunks> Inner<E, C> {
    /// Asks for a turn and waits for its end.
    pub(super) async fn turn(&self, want: Want) -> Result<(), LaneError> {
        let mut turns = self.background.get();
        turns.asked += 1;
        turns.space |= want == Want::Space;
        let mine = turns.asked;
        self.background.set(turns);
        self.work.notify();
        self.worked.wait_until(|| self.background.get().ended >= mine || self.check().is_err()).await;
        self.check()
    }

    /// The background task.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            self.work.wait_until(|| self.is_due() || self.check().is_err()).await;
            if self.check().is_err() {
                self.running.set(false);
                self.worked.notify();
                return;
            }
            let mut turns = self.background.get();
            let (asked, space) = (turns.asked, std::mem::take(&mut turns.space));
            self.background.set(turns);
            match self.round(space).await {
                // Full: those who wait find out by themselves.
                Ok(()) | Err(LaneError::Full | LaneError::Closed) => {}
                Err(error) => {
                    self.fail(error);
                }
            }
            let mut turns = self.background.get();
            turns.ended = asked;
            self.background.set(turns);
            self.worked.notify();
        }
    }

    fn is_due(&self) -> bool {
        let turns = self.background.get();
        turns.asked > turns.ended
            || self.shared.logged_bytes.get() >= self.config.checkpoint_bytes
            || self.core().is_letting_go()
            || (self.is_short() && self.segments.next_number() != self.fruitless.get())
            || self.core().leaves.len() > self.leaves_max.get() + self.leaves_max.get() / 4
    }

    async fn round(&self, space: bool) -> Result<(), LaneError> {
        self.checkpoint().await?;
        if self.let_go().await? {
            self.checkpoint().await?;
        }
        if space || self.is_short() {
            let before = self.gained.get();
            let moved = self.compact().await;
            let saved = self.checkpoint().await;
            if self.gained.get() <= before {
                self.fruitless.set(self.segments.next_number());
            }
            moved?;
            saved?;
        }
        Ok(())
    }

    /// Whether so few slots are free that compaction is due.
    fn is_short(&self) -> bool {
        self.segments.stores().iter().any(|store| {
            let info = store.info();
            u64::from(info.free) * 256 < u64::from(info.slots) * u64::from(self.config.free_part)
        })
    }
}
