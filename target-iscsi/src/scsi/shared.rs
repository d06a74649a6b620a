//! What the sessions of all reactors share: nexuses, and the state of each logical unit.
//!
//! A logical unit is a volume, by whichever target it is reached. Its state is behind a lock that rare commands take;
//! what reads and writes look at is atomic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ashlar_env::units::VolumeId;

use super::copy::Copies;
use super::lock;
use super::nexus::{Nexus, NexusName, NexusState};
use super::reservation::Elsewhere;
use super::sense::Asc;
use super::token::rod::Tokens;
use crate::view::{Target, Targets, Unit};

/// The state of one logical unit.
#[derive(Debug, Default)]
pub struct UnitState {
    /// Control mode page, D_SENSE: sense data in descriptor format.
    pub descriptor_sense: AtomicBool,
    /// Control mode page, SWP: software write protect.
    pub write_protect: AtomicBool,
}

impl UnitState {
    /// Whether sense data are in descriptor format.
    #[must_use]
    pub fn descriptor_sense(&self) -> bool {
        self.descriptor_sense.load(Ordering::Relaxed)
    }

    /// What a reset undoes here.
    fn reset(&self) {
        self.descriptor_sense.store(false, Ordering::Relaxed);
        self.write_protect.store(false, Ordering::Relaxed);
    }
}

/// All of it, for one node.
#[derive(Debug, Default)]
pub struct Shared {
    nexuses: Mutex<BTreeMap<u64, Arc<NexusState>>>,
    units: Mutex<BTreeMap<VolumeId, Arc<UnitState>>>,
    /// The configuration announced last.
    announced: Mutex<BTreeMap<String, Target>>,
    /// What carries notices of reservations to other protocols.
    pub(super) elsewhere: Elsewhere,
    /// Copies under way, and those that may be asked for.
    pub copies: Copies,
    /// ROD tokens.
    pub tokens: Tokens,
}

impl Shared {
    /// Begins a nexus. `session` is unique in the node's life. Every unit of `target` gets POWER ON, RESET. `None` where
    /// the initiator's name is too long, or has a sign that no name has.
    #[must_use]
    pub fn begin(self: &Arc<Self>, name: NexusName, session: u64, target: &Target) -> Option<Nexus> {
        let state = Arc::new(NexusState::new(name, session)?);
        for unit in target.units.values() {
            state.raise(unit.volume.id, Asc::POWER_ON);
        }
        lock(&self.nexuses).insert(session, Arc::clone(&state));
        Some(Nexus { state, shared: Arc::clone(self) })
    }

    pub(super) fn end(&self, session: u64) {
        lock(&self.nexuses).remove(&session);
        self.copies.end_session(session);
    }

    /// The state of a logical unit; made when first asked for.
    #[must_use]
    pub fn unit(&self, volume: VolumeId) -> Arc<UnitState> {
        Arc::clone(lock(&self.units).entry(volume).or_default())
    }

    /// The nexuses now, by session.
    #[must_use]
    pub fn nexuses(&self) -> Vec<Arc<NexusState>> {
        lock(&self.nexuses).values().cloned().collect()
    }

    /// Raises a unit attention of a unit for the nexuses that `concerns` chooses, among those whose target has the
    /// unit as far as was announced.
    pub fn raise(&self, volume: VolumeId, what: Asc, concerns: impl Fn(&NexusState) -> bool) {
        let targets = self.targets_with(volume);
        for nexus in self.nexuses() {
            if targets.contains(&nexus.name.target) && concerns(&nexus) {
                nexus.raise(volume, what);
            }
        }
    }

    fn targets_with(&self, volume: VolumeId) -> BTreeSet<String> {
        let announced = lock(&self.announced);
        let has = |target: &Target| target.units.values().any(|unit| unit.volume.id == volume);
        announced.iter().filter(|(_, target)| has(target)).map(|(name, _)| name.clone()).collect()
    }

    /// LOGICAL UNIT RESET: mode parameters are as they were at first, and all nexuses learn of it, the one that asked for
    /// it among them (SAM-5, section 6.3.3). Ending the unit's commands, and an SPC-2 reservation, is the sessions' part.
    pub fn reset_unit(&self, volume: VolumeId) {
        self.unit(volume).reset();
        self.raise(volume, Asc::DEVICE_RESET, |_| true);
    }

    /// Target reset (warm or cold): every unit of the target is reset, and all learn of it.
    pub fn reset_target(&self, target: &Target) {
        for unit in target.units.values() {
            self.unit(unit.volume.id).reset();
            self.raise(unit.volume.id, Asc::POWER_ON, |_| true);
        }
    }

    /// Takes note of the configuration in force, and raises the unit attentions for what changed since the last one.
    /// Any reactor may call it, in any order with the others; a configuration announced twice changes nothing.
    pub fn announce(&self, targets: &Targets) {
        let before = {
            let mut announced = lock(&self.announced);
            if *announced == targets.targets {
                return;
            }
            std::mem::replace(&mut *announced, targets.targets.clone())
        };
        let nexuses = self.nexuses();
        for (name, after) in &targets.targets {
            let Some(before) = before.get(name) else { continue };
            let raised = changes(before, after);
            for nexus in nexuses.iter().filter(|nexus| nexus.name.target == *name) {
                raised.iter().for_each(|(volume, what)| nexus.raise(*volume, *what));
            }
        }
    }
}

/// What the initiators of a target must be told.
fn changes(before: &Target, after: &Target) -> Vec<(VolumeId, Asc)> {
    let mut raised = Vec::new();
    let luns = |target: &Target| -> Vec<(u16, VolumeId)> {
        target.units.iter().map(|(lun, unit)| (*lun, unit.volume.id)).collect()
    };
    let remapped = luns(before) != luns(after);
    for (lun, unit) in &after.units {
        let id = unit.volume.id;
        let Some(old) = before.units.get(lun).filter(|old| old.volume.id == id) else {
            raised.push((id, Asc::POWER_ON));
            continue;
        };
        if remapped {
            raised.push((id, Asc::LUNS_CHANGED));
        }
        if (old.volume.blocks, old.volume.block_size) != (unit.volume.blocks, unit.volume.block_size) {
            raised.push((id, Asc::CAPACITY_CHANGED));
        }
        // What the pages of vital product data have of a volume beside its size, and of its place.
        let told = |unit: &Unit| {
            let info = unit.volume;
            let writes = (info.thin, info.unmap_granularity_blocks, info.atomic_write_blocks);
            (unit.port_group, info.preferred_write_blocks, info.volatile_cache, writes)
        };
        if told(old) != told(unit) {
            raised.push((id, Asc::INQUIRY_CHANGED));
        }
        if old.volume.read_only != unit.volume.read_only {
            // WP, in the header of mode parameters.
            raised.push((id, Asc::MODE_CHANGED));
        }
        if before.port_groups.get(&old.port_group) != after.port_groups.get(&unit.port_group) {
            raised.push((id, Asc::ALUA_CHANGED));
        }
    }
    raised
}
