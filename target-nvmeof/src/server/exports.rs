//! What a reactor serves: the volumes of each subsystem, by namespace identifier.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Operation, Volume};

use super::stats::VolumeCounts;
use crate::view::{AnaState, Targets};
use crate::wire::Status;

/// The subsystems of a reactor.
pub struct Exports<V> {
    subsystems: RefCell<BTreeMap<String, Rc<Namespaces<V>>>>,
    counts: RefCell<BTreeMap<VolumeId, Rc<Cell<VolumeCounts>>>>,
}

/// The namespaces of one subsystem. Connections keep a reference; the contents follow the configuration.
pub struct Namespaces<V> {
    by_id: RefCell<BTreeMap<u32, Export<V>>>,
}

/// A volume as a namespace of a subsystem.
pub struct Export<V> {
    /// The volume.
    pub volume: V,
    ana: AnaState,
    counts: Rc<Cell<VolumeCounts>>,
}

impl<V> Export<V> {
    /// Counts an operation that begins.
    pub fn note(&self, operation: &Operation) {
        let mut counts = self.counts.get();
        match operation {
            Operation::Read { .. } | Operation::Compare { .. } | Operation::Verify { .. } => {
                counts.reads += 1
            }
            Operation::Write { data, .. } | Operation::CompareAndWrite { data, .. } => {
                counts.writes += 1;
                counts.written_bytes += data.len() as u64;
            }
            Operation::Copy { .. } => counts.writes += 1,
            Operation::Flush => counts.flushes += 1,
            Operation::WriteZeroes { .. } | Operation::Unmap { .. } => counts.deallocates += 1,
            Operation::Allocation { .. }
            | Operation::Reserve(_)
            | Operation::ReserveNexus(_)
            | Operation::Permit(_) => {}
        }
        self.counts.set(counts);
    }

    /// Counts bytes that were read.
    pub fn note_read(&self, bytes: u64) {
        let counts = self.counts.get();
        self.counts.set(VolumeCounts { read_bytes: counts.read_bytes + bytes, ..counts });
    }

    /// Counts a command that failed.
    pub fn note_error(&self) {
        let counts = self.counts.get();
        self.counts.set(VolumeCounts { errors: counts.errors + 1, ..counts });
    }
}

impl<V: Volume> Exports<V> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { subsystems: RefCell::default(), counts: RefCell::default() }
    }

    /// Follows the configuration. `open` gives this reactor's handle of a volume; a namespace whose volume it does
    /// not have is left out.
    pub fn update(&self, targets: &Targets, open: impl Fn(VolumeId) -> Option<V>) {
        let mut subsystems = self.subsystems.borrow_mut();
        let mut counts = self.counts.borrow_mut();
        for (nqn, namespaces) in subsystems.iter() {
            if !targets.subsystems.contains_key(nqn) {
                namespaces.by_id.borrow_mut().clear();
            }
        }
        subsystems.retain(|nqn, _| targets.subsystems.contains_key(nqn));
        for (nqn, subsystem) in &targets.subsystems {
            let namespaces = subsystems
                .entry(nqn.clone())
                .or_insert_with(|| Rc::new(Namespaces { by_id: RefCell::new(BTreeMap::new()) }));
            let by_id = subsystem.namespaces.iter().filter_map(|(&nsid, namespace)| {
                let volume = open(namespace.volume.id)?;
                let ana = subsystem.ana_groups.get(&namespace.ana_group).copied();
                let counts = Rc::clone(counts.entry(namespace.volume.id).or_default());
                Some((nsid, Export { volume, ana: ana.unwrap_or(AnaState::Optimized), counts }))
            });
            *namespaces.by_id.borrow_mut() = by_id.collect();
        }
    }

    /// What was done to each volume through this reactor's connections.
    #[must_use]
    pub fn counts(&self) -> Vec<(VolumeId, VolumeCounts)> {
        self.counts.borrow().iter().map(|(&id, counts)| (id, counts.get())).collect()
    }

    /// Drops the counts of a volume that is gone. One that is only detached keeps them, and goes on counting when it
    /// is attached again.
    pub fn forget(&self, volume: VolumeId) {
        self.counts.borrow_mut().remove(&volume);
    }

    /// This reactor's handle of a volume that some subsystem exports.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<V> {
        let subsystems = self.subsystems.borrow();
        let find = |namespaces: &Rc<Namespaces<V>>| {
            let by_id = namespaces.by_id.borrow();
            let found = by_id.values().find(|export| export.volume.info().id == id);
            found.map(|export| export.volume.clone())
        };
        subsystems.values().find_map(find)
    }

    /// The namespaces of the subsystem with this NQN.
    #[must_use]
    pub fn subsystem(&self, nqn: &str) -> Option<Rc<Namespaces<V>>> {
        self.subsystems.borrow().get(nqn).cloned()
    }
}

impl<V: Volume> Default for Exports<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Volume> Namespaces<V> {
    /// Calls `use_it` with namespace `nsid`.
    ///
    /// # Errors
    /// 0/0Bh where there is no such namespace, a path error where its state forbids I/O here.
    pub fn with<R>(&self, nsid: u32, use_it: impl FnOnce(&Export<V>) -> R) -> Result<R, Status> {
        let by_id = self.by_id.borrow();
        let export = by_id.get(&nsid).ok_or(Status::INVALID_NAMESPACE)?;
        crate::io::outcome::check_path(export.ana)?;
        Ok(use_it(export))
    }
}

#[cfg(test)]
mod tests {
    use ashlar_env::units::BlockSize;
    use ashlar_volume::Null;
    use std::collections::BTreeSet;

    use super::*;
    use crate::view::{Access, Namespace, Subsystem};

    fn null(number: u128) -> Null {
        Null::new(VolumeId(uuid::Uuid::from_u128(number)), BlockSize::B512, 8).unwrap()
    }

    fn targets(volumes: &[Null]) -> Targets {
        let namespace = |volume: &Null| Namespace { volume: volume.info(), ana_group: 1 };
        let namespaces = (1..).zip(volumes.iter().map(namespace)).collect();
        let subsystem = Subsystem {
            serial: "1".into(),
            access: Access::AnyHost,
            listen: BTreeSet::new(),
            namespaces,
            ana_groups: BTreeMap::new(),
        };
        Targets { subsystems: [("nqn".to_owned(), subsystem)].into(), ..Targets::default() }
    }

    #[test]
    fn counts_outlive_a_detach_and_not_a_deletion() {
        let volumes = [null(1), null(2)];
        let open = |id| volumes.iter().find(|volume| volume.info().id == id).cloned();
        let exports = Exports::new();
        exports.update(&targets(&volumes), open);
        for nsid in [1, 2] {
            let counted = exports.subsystem("nqn").unwrap().with(nsid, |export| export.note_read(512));
            assert_eq!(counted, Ok(()));
        }
        exports.update(&targets(&volumes[..1]), open);
        exports.update(&targets(&volumes), open);
        let read = |exports: &Exports<Null>| {
            exports.counts().into_iter().map(|(id, counts)| (id, counts.read_bytes)).collect::<Vec<_>>()
        };
        let ids = [0, 1].map(|at| volumes[at].info().id);
        assert_eq!(read(&exports), [(ids[0], 512), (ids[1], 512)]);
        exports.update(&targets(&volumes[..1]), open);
        exports.forget(ids[1]);
        assert_eq!(read(&exports), [(ids[0], 512)]);
    }
}
