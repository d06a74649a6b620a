//! What a reactor serves: the logical units of each target, and what was done to their volumes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Operation, Volume};

use super::stats::VolumeCounts;
use crate::scsi::copy::world::World;
use crate::scsi::{Shared, Units, lun};
use crate::view::{Portal, Targets};

/// The targets of a reactor.
pub struct Exports<V> {
    shared: Arc<Shared>,
    world: World,
    targets: RefCell<Arc<Targets>>,
    by_name: RefCell<BTreeMap<String, Rc<Export<V>>>>,
    counts: RefCell<BTreeMap<VolumeId, Counter>>,
}

/// The counts of one volume.
pub type Counter = Rc<Cell<VolumeCounts>>;

/// One target. Sessions keep a reference; the contents follow the configuration.
pub struct Export<V> {
    /// Its logical units.
    pub units: RefCell<Units<V>>,
    counts: RefCell<BTreeMap<u16, Counter>>,
}

impl<V> Export<V> {
    /// The counts of the volume behind a LUN of eight bytes.
    pub fn counter(&self, lun: u64) -> Option<Counter> {
        self.counts.borrow().get(&lun::decode(lun)?).cloned()
    }
}

/// Counts an operation that begins.
pub fn note(counter: &Cell<VolumeCounts>, operation: &Operation) {
    let mut counts = counter.get();
    match operation {
        Operation::Read { .. } | Operation::Compare { .. } | Operation::Verify { .. } => counts.reads += 1,
        Operation::Write { data, .. } | Operation::CompareAndWrite { data, .. } => {
            counts.writes += 1;
            counts.written_bytes += data.len() as u64;
        }
        Operation::Copy { .. } => counts.writes += 1,
        Operation::Flush => counts.flushes += 1,
        Operation::WriteZeroes { .. } | Operation::Unmap { .. } => counts.deallocates += 1,
        _ => {}
    }
    counter.set(counts);
}

impl<V: Volume> Exports<V> {
    /// Nothing yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>, world: World) -> Self {
        Self {
            shared,
            world,
            targets: RefCell::default(),
            by_name: RefCell::default(),
            counts: RefCell::default(),
        }
    }

    /// What all reactors share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The configuration in force.
    #[must_use]
    pub fn targets(&self) -> Arc<Targets> {
        Arc::clone(&self.targets.borrow())
    }

    /// Follows the configuration. `open` gives this reactor's handle of a volume; a unit whose volume it does not have
    /// is left out.
    pub fn update(&self, targets: &Arc<Targets>, open: impl Fn(VolumeId) -> Option<V>) {
        let portals: Arc<[Portal]> = targets.portals.clone().into();
        let mut by_name = self.by_name.borrow_mut();
        // A target that is gone keeps its units until its sessions have ended: what they reserved must be released.
        by_name.retain(|name, _| targets.targets.contains_key(name));
        for (name, target) in &targets.targets {
            let shared_target = Arc::new(target.clone());
            let export = by_name.entry(name.clone()).or_insert_with(|| {
                let shared = Arc::clone(&self.shared);
                let mut units =
                    Units::new(shared, Arc::clone(&shared_target), Arc::clone(&portals), |_| None);
                units.set_world(self.world.clone());
                Rc::new(Export { units: RefCell::new(units), counts: RefCell::default() })
            });
            export.units.borrow_mut().update(shared_target, Arc::clone(&portals), &open);
            let mut counts = self.counts.borrow_mut();
            let by_lun = target
                .units
                .iter()
                .map(|(&lun, unit)| (lun, Rc::clone(counts.entry(unit.volume.id).or_default())));
            *export.counts.borrow_mut() = by_lun.collect();
        }
        drop(by_name);
        self.targets.replace(Arc::clone(targets));
        self.shared.announce(targets);
    }

    /// The target of this name, in lower case.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<Rc<Export<V>>> {
        self.by_name.borrow().get(name).cloned()
    }

    /// What was done to each volume through this reactor's sessions.
    #[must_use]
    pub fn counts(&self) -> Vec<(VolumeId, VolumeCounts)> {
        self.counts.borrow().iter().map(|(&id, counts)| (id, counts.get())).collect()
    }

    /// Drops the counts of a volume that is gone.
    pub fn forget(&self, volume: VolumeId) {
        self.counts.borrow_mut().remove(&volume);
    }
}
