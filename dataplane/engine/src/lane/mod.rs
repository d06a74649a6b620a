//! A lane: one reactor's share of a volume group, with its own log, maps, snapshots and checkpoints.
//!
//! Files: `core` is the state in memory and how the log changes it; `read`, `write` and `disk` the data path; `checkpoint`,
//! `open` and `state` what makes it durable; `snapshots`, `leave` and `compact` what makes and frees space; `background`
//! decides when; `check` verifies all of it, and `scrub` what rests on the devices, little by little.

mod activity;
mod allocation;
mod background;
pub mod batch;
mod check;
mod checkpoint;
mod compact;
mod config;
pub mod control;
mod copy;
mod core;
mod counter;
mod disk;
mod error;
mod gate;
mod idle;
mod leave;
mod open;
mod pack;
mod pages;
mod place;
mod ranges;
mod read;
mod repair;
mod report;
mod runs;
mod scan;
mod scrub;
mod shared;
mod signal;
mod snapshots;
pub mod state;
mod stream;
mod table;
mod walk;
mod write;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use ashlar_env::Env;
use ashlar_env::buf::{BufPool, PoolPlan};

use crate::chunks::Chunks;
use crate::ids::{Epoch, LaneId, SegmentId};
use crate::log::record::stored_bytes;
use crate::log::{Applied, AppliedOp, Coordinator, Log, Sink};
use crate::map::Entry;
use crate::segment::Segments;

use self::core::Core;
use self::signal::Signal;

pub use self::activity::Activity;
pub use self::check::{CheckReport, DamagedBlock, Holders};
pub use self::config::{LaneConfig, Planted};
pub use self::core::{SnapshotNumber, VolumeNumber};
pub use self::disk::VolumeDisk;
pub use self::error::LaneError;
pub use self::open::Recovery;
pub use self::repair::Copies;
pub use self::report::{LaneReport, MapMemory, SnapshotReport, VolumeReport};
pub use self::scrub::{ScrubDamage, ScrubReport};

/// A lane. Cloning gives the same lane.
pub struct Lane<E: Env, C: Chunks>(Rc<Inner<E, C>>);

impl<E: Env, C: Chunks> Clone for Lane<E, C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Inner<E: Env, C: Chunks> {
    env: E,
    id: LaneId,
    epoch: Epoch,
    config: LaneConfig,
    /// Leaves of maps that may be in memory.
    leaves_max: Cell<usize>,
    segments: Segments<C>,
    shared: Rc<Shared>,
    log: OnceCell<Log<E, C, Rc<Shared>>>,
    /// Who decides that a replica, or an old checkpoint, counts no more.
    coordinator: OnceCell<Rc<dyn Coordinator>>,
    repair: repair::Repair,
    /// Where checkpoints are written.
    checkpoints: RefCell<Option<checkpoint::Place<C>>>,
    /// Where pages of the map are written.
    pages: RefCell<Option<stream::Stream<C>>>,
    /// Buffers of the lane's own, so that it never waits for those of its callers.
    scratch: BufPool,
    /// Wakes the background task.
    work: Signal,
    /// Wakes those who wait for the background task.
    worked: Signal,
    /// Writes in flight.
    ranges: ranges::Ranges,
    /// Changes whose futures were dropped.
    orphans: RefCell<place::Orphans>,
    orphaned: Signal,
    /// Keeps writers out during a restore.
    gate: gate::Gate,
    background: Cell<background::Turns>,
    /// Segments that were deleted, less those that compaction made.
    gained: Cell<i64>,
    /// The number of the next segment after compaction gained nothing: it is not tried again before another was written.
    fruitless: Cell<u32>,
    closed: Cell<bool>,
    /// The next checkpoint begins new segments.
    renew: Cell<bool>,
    /// Segments in which compaction met damage: they are left alone until the lane is opened anew.
    immovable: RefCell<std::collections::BTreeSet<SegmentId>>,
    /// How far scrubbing has come.
    scrub: RefCell<scrub::Scrub>,
    /// Whether the background task has not ended.
    running: Cell<bool>,
    activity: activity::Counts,
}

/// What the log tells: the state that it changes, and how long the log has become.
pub(crate) struct Shared {
    core: RefCell<Core>,
    /// Bytes of data logged since the last checkpoint's cut.
    logged_bytes: Cell<u64>,
    /// What cannot be mended: the lane takes no more writes.
    failed: RefCell<Option<LaneError>>,
    grown: Signal,
}

impl Sink for Rc<Shared> {
    fn applied(&self, op: &AppliedOp<'_>) {
        let applied = self.apply(op);
        if applied.is_err() {
            // Inner pages of volumes are in memory before the volume is open.
            self.failed
                .borrow_mut()
                .get_or_insert(LaneError::Damaged("an inner page is not in memory".into()));
        }
        self.grown.notify();
    }

    fn segment_opened(&self, segment: SegmentId) {
        let mut core = self.core.borrow_mut();
        let birth = core.birth;
        if core.table.get(segment).is_none() {
            core.table.add(segment, crate::ids::SegmentKind::Log, birth);
        }
    }

    fn segment_sealed(&self, segment: SegmentId, length: u32) {
        if let Some(segment) = self.core.borrow_mut().table.get_mut(segment) {
            segment.sealed = Some(length);
        }
    }
}

impl Shared {
    fn apply(&self, op: &AppliedOp<'_>) -> Result<(), crate::map::Missing> {
        let mut core = self.core.borrow_mut();
        let data_bytes = match op.op {
            Applied::Data { sums, .. } => stored_bytes(sums) as u64,
            _ => 0,
        };
        self.logged_bytes.set(self.logged_bytes.get() + data_bytes + 512);
        match op.op {
            Applied::Data { volume, first, sums, place } => {
                let birth = core.birth;
                let mut position = place.granule;
                let mut entries = smallvec::SmallVec::<[Entry; 16]>::new();
                for sum in sums {
                    let address = crate::map::Address { segment: place.segment, position };
                    entries.push(Entry::new(address, sum.granules, sum.crc, birth));
                    position += u32::from(sum.granules);
                }
                core.write(volume, first, &entries)
            }
            Applied::Zero { volume, first, count } | Applied::Unmap { volume, first, count } => {
                core.clear(volume, first, u64::from(count))
            }
            Applied::Control(bytes) => match control::Control::decode(bytes) {
                Some(control) => core.control(&control),
                None => Ok(()),
            },
        }
    }
}

impl<E: Env, C: Chunks> Inner<E, C> {
    fn log(&self) -> &Log<E, C, Rc<Shared>> {
        self.log.get().expect("a lane has its log once it is open")
    }

    fn core(&self) -> std::cell::RefMut<'_, Core> {
        self.shared.core.borrow_mut()
    }

    /// Nothing is written any more once a failure could not be mended.
    fn check(&self) -> Result<(), LaneError> {
        match &*self.shared.failed.borrow() {
            Some(error) => Err(error.clone()),
            None if self.closed.get() => Err(LaneError::Closed),
            None => Ok(()),
        }
    }

    fn fail(&self, error: LaneError) -> LaneError {
        self.shared.failed.borrow_mut().get_or_insert_with(|| error.clone());
        self.work.notify();
        self.worked.notify();
        self.shared.grown.notify();
        self.orphaned.notify();
        self.repair.wanted.notify();
        error
    }

    fn new(env: E, epoch: Epoch, config: LaneConfig, segments: Segments<C>, core: Core) -> Rc<Self> {
        let shared = Shared {
            core: RefCell::new(core),
            logged_bytes: Cell::new(0),
            failed: RefCell::default(),
            grown: Signal::default(),
        };
        let scratch = BufPool::on_heap(PoolPlan::for_bytes(config.scratch_bytes));
        Rc::new(Self {
            id: segments.lane(),
            env,
            epoch,
            leaves_max: Cell::new(config.leaves_max),
            config,
            segments,
            shared: Rc::new(shared),
            log: OnceCell::new(),
            coordinator: OnceCell::new(),
            repair: repair::Repair::default(),
            checkpoints: RefCell::default(),
            pages: RefCell::default(),
            scratch,
            work: Signal::default(),
            worked: Signal::default(),
            ranges: ranges::Ranges::default(),
            orphans: RefCell::default(),
            orphaned: Signal::default(),
            gate: gate::Gate::default(),
            background: Cell::default(),
            gained: Cell::new(0),
            fruitless: Cell::new(0),
            closed: Cell::new(false),
            renew: Cell::new(false),
            immovable: RefCell::default(),
            scrub: RefCell::default(),
            running: Cell::new(false),
            activity: activity::Counts::default(),
        })
    }
}
