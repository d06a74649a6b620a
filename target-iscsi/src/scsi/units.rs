//! The logical units of a target, as one reactor serves them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ashlar_env::Volume;
use ashlar_env::units::VolumeId;
use ashlar_env::volume::{Operation, VolumeInfo};

use super::copy::world::World;
use super::finish::Kind;
use super::sense::{Asc, Failure, Key, Sense};
use super::shared::{Shared, UnitState};
use super::table::{self, Access, Code, Entry, Found};
use super::{Answer, Attribute, Data, Finish, Nexus, Request, Step};
use super::{Status, copy, reservation, token};
use super::{alua, block, diagnostic, inquiry, lun, mode, mode_select, opcodes, report, unmap};
use crate::view::{AluaState, Portal, Target, Unit};

/// The most bytes that one command transfers. What is reported as MAXIMUM TRANSFER LENGTH is less: one buffer.
pub const TRANSFER_BYTES_MAX: u64 = 8 << 20;

/// A logical unit with its volume.
pub struct MappedUnit<V> {
    /// Its LUN.
    pub lun: u16,
    /// The volume.
    pub volume: V,
    /// Its configuration. What the volume is now is asked of the volume.
    pub unit: Unit,
    /// What all sessions share.
    pub state: Arc<UnitState>,
}

/// The logical units of a target.
pub struct Units<V> {
    shared: Arc<Shared>,
    target: Arc<Target>,
    portals: Arc<[Portal]>,
    units: BTreeMap<u16, MappedUnit<V>>,
    /// Commands that copy more than one buffer's worth, and are not at their end.
    pub(super) long_reads: Rc<Cell<usize>>,
    change_group: Option<ChangeGroup>,
    /// What tokens need of the environment.
    world: Option<World>,
}

/// Asks the node to give a target port group another state. Whether it will; the new state comes with a new
/// configuration.
pub type ChangeGroup = Rc<dyn Fn(u16, AluaState) -> bool>;

/// A command on its way through the device server.
pub(super) struct Context<'a, V> {
    pub units: &'a Units<V>,
    pub nexus: &'a Nexus,
    pub request: &'a Request,
    pub entry: &'static Entry,
    /// Not for a LUN that has no unit.
    pub unit: Option<&'a MappedUnit<V>>,
}

impl<V: Volume> Units<V> {
    /// The units of `target`, whose ports are `portals`. `open` gives the volume of an identity as this reactor reaches
    /// it; a unit whose volume it does not have is left out.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        target: Arc<Target>,
        portals: Arc<[Portal]>,
        mut open: impl FnMut(VolumeId) -> Option<V>,
    ) -> Self {
        let mut units = BTreeMap::new();
        for (&lun, unit) in &target.units {
            let Some(volume) = open(unit.volume.id) else { continue };
            let state = shared.unit(unit.volume.id);
            units.insert(lun, MappedUnit { lun, volume, unit: unit.clone(), state });
        }
        Self { shared, target, portals, units, long_reads: Rc::default(), change_group: None, world: None }
    }

    /// The same target in a new configuration: commands that began before go on as they are.
    pub fn update(
        &mut self,
        target: Arc<Target>,
        portals: Arc<[Portal]>,
        open: impl FnMut(VolumeId) -> Option<V>,
    ) {
        let (long_reads, change_group) = (Rc::clone(&self.long_reads), self.change_group.clone());
        let (shared, world) = (Arc::clone(&self.shared), self.world.clone());
        *self = Self { long_reads, change_group, world, ..Self::new(shared, target, portals, open) };
    }

    /// The configuration.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Gives the environment that copies by token need; without it, those commands are refused.
    pub fn set_world(&mut self, world: World) {
        self.world = Some(world);
    }

    pub(super) fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// Says whom SET TARGET PORT GROUPS is to ask. Without it, only the state in force can be set.
    pub fn on_change_group(&mut self, ask: ChangeGroup) {
        self.change_group = Some(ask);
    }

    /// Whom SET TARGET PORT GROUPS asks.
    pub(super) fn change_group(&self) -> Option<ChangeGroup> {
        self.change_group.clone()
    }

    /// The ports of the target.
    #[must_use]
    pub fn portals(&self) -> &[Portal] {
        &self.portals
    }

    /// What all targets of the node share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The units, ascending by LUN.
    pub fn iter(&self) -> impl Iterator<Item = &MappedUnit<V>> {
        self.units.values()
    }

    /// The unit that a LUN of eight bytes means.
    #[must_use]
    pub fn find(&self, lun: u64) -> Option<&MappedUnit<V>> {
        self.units.get(&lun::decode(lun)?)
    }

    /// How many bytes of Data-Out the command wants; 0 for one that will fail, or that is for no unit. The session
    /// fetches these, or as many as the initiator is ready to send, and hands them to [`Self::start`] in buffers of
    /// [`MAX_BYTES`](ashlar_env::buf::MAX_BYTES), the last of which may be shorter.
    #[must_use]
    pub fn wanted_bytes(&self, request: &Request) -> u32 {
        let Some(unit) = self.find(request.lun) else { return 0 };
        let info = unit.volume.info();
        match table::find(&request.cdb, Some(&info)) {
            Found::Command(entry) => wanted(entry, request, &info),
            Found::NoAction | Found::NoCode => 0,
        }
    }

    /// Begins a command, with its Data-Out here.
    pub fn start(&self, nexus: &Nexus, request: &Request, data: Data) -> Step<V> {
        let unit = self.find(request.lun);
        match self.begin(nexus, request, unit, data) {
            Ok(step) => step,
            Err(failure) => {
                let descriptor = unit.is_some_and(|unit| unit.state.descriptor_sense());
                Step::Done(failure.answer(descriptor))
            }
        }
    }

    fn begin(
        &self,
        nexus: &Nexus,
        request: &Request,
        unit: Option<&MappedUnit<V>>,
        data: Data,
    ) -> Result<Step<V>, Failure> {
        let info = unit.map(|unit| unit.volume.info());
        let entry = match table::find(&request.cdb, info.as_ref()) {
            Found::Command(entry) => entry,
            Found::NoAction if unit.is_some() => return Err(Sense::cdb_bit(1, 4).into()),
            Found::NoCode if unit.is_some() => return Err(Sense::illegal(Asc::OPERATION_CODE).into()),
            Found::NoAction | Found::NoCode => return Err(Sense::illegal(Asc::NO_UNIT).into()),
        };
        let command = Context { units: self, nexus, request, entry, unit };
        if request.attribute == Attribute::Aca {
            return Err(Sense::illegal(Asc::INVALID_MESSAGE).into());
        }
        let control = request.cdb.head[entry.usage.len() - 1];
        if control & 0x04 != 0 {
            // NACA, as standard INQUIRY data say.
            return Err(Sense::cdb_bit(entry.usage.len() as u16 - 1, 2).into());
        }
        match (unit, info) {
            (Some(unit), Some(info)) => {
                self.admit(&command, unit, &info)?;
                dispatch(&command, unit, &info, data)
            }
            _ => without_unit(&command),
        }
    }

    /// What may keep a command from being begun at all, in the order of precedence.
    fn admit(
        &self,
        command: &Context<'_, V>,
        unit: &MappedUnit<V>,
        info: &VolumeInfo,
    ) -> Result<(), Failure> {
        let (nexus, entry) = (command.nexus, command.entry);
        if nexus.state.any()
            && entry.meets_unit_attentions()
            && let Some(what) = nexus.state.take(info.id)
        {
            return Err(Sense::new(Key::UnitAttention, what).into());
        }
        if !matches!(entry.access, Access::Always | Access::AnyState) {
            reachable(self.target.port_groups.get(&unit.unit.port_group))?;
        }
        if entry.access == Access::Write && entry.code != Code::SynchronizeCache {
            if info.read_only {
                return Err(Sense::new(Key::DataProtect, Asc::WRITE_PROTECTED).into());
            }
            if unit.state.write_protect.load(Ordering::Relaxed) {
                return Err(Sense::new(Key::DataProtect, Asc::SOFTWARE_PROTECTED).into());
            }
        }
        Ok(())
    }
}

/// Whether the unit is served in this state.
fn reachable(state: Option<&AluaState>) -> Result<(), Failure> {
    let asc = match state {
        None | Some(AluaState::Optimized | AluaState::NonOptimized) => return Ok(()),
        Some(AluaState::Unavailable) => Asc::PORT_UNAVAILABLE,
        Some(AluaState::Transitioning) => Asc::IN_TRANSITION,
    };
    Err(Sense::new(Key::NotReady, asc).into())
}

/// Commands for a LUN that has no unit.
fn without_unit<V: Volume>(command: &Context<'_, V>) -> Result<Step<V>, Failure> {
    let data = match command.entry.code {
        Code::Inquiry => inquiry::inquiry(command, None)?,
        Code::ReportLuns => report::luns(command)?,
        Code::RequestSense => report::request_sense(command, Some(Sense::illegal(Asc::NO_UNIT))),
        _ => return Err(Sense::illegal(Asc::NO_UNIT).into()),
    };
    Ok(Step::Done(Answer::good(Data::from_bytes(data))))
}

/// Does what a command for a unit asks.
fn dispatch<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: Data,
) -> Result<Step<V>, Failure> {
    let answer = match command.entry.code {
        // There is no medium to remove.
        Code::TestUnitReady | Code::PreventAllow => Vec::new(),
        Code::Inquiry => inquiry::inquiry(command, Some((unit, info)))?,
        Code::ReportLuns => report::luns(command)?,
        Code::RequestSense => report::request_sense(command, None),
        Code::ReadCapacity10 => report::capacity_10(info),
        Code::ReadCapacity16 => report::capacity_16(command, info),
        Code::ModeSense6 | Code::ModeSense10 => mode::sense(command, unit, info)?,
        Code::LogSense => diagnostic::log(command)?,
        Code::StartStopUnit => diagnostic::start_stop(command)?,
        Code::SendDiagnostic => diagnostic::send(command, &data)?,
        Code::ReceiveDiagnostic => diagnostic::receive(command)?,
        Code::ReportTargetPortGroups => alua::report(command, unit)?,
        Code::ReportOperationCodes => opcodes::commands(command, info)?,
        Code::ReportTaskManagement => opcodes::task_management(command),
        Code::ModeSelect6 | Code::ModeSelect10 => return mode_select::start(command, unit, info, &data),
        Code::SetTargetPortGroups => return alua::set(command, unit, &data),
        Code::Unmap => return unmap::start(command, unit, info, &data),
        Code::PersistentReserveIn => return Ok(reservation::persistent_in(command, unit)),
        Code::PersistentReserveOut => return reservation::persistent_out(command, unit, &data),
        Code::Reserve | Code::Release => return reservation::of_unit(command, unit),
        Code::ExtendedCopy => return copy::extended(command, unit, &data),
        Code::PopulateToken => return token::populate(command, unit, info, &data),
        Code::WriteUsingToken => return token::write(command, unit, info, &data),
        Code::ReceiveCopyResults => copy::receive(command, unit, info)?,
        Code::ReceiveTokenInformation => token::information(command, unit, info)?,
        _ => match block::start(command, unit, info, data)? {
            // Nothing to do, or nothing left to do: a reservation forbids it all the same.
            Step::Done(Answer { status: Status::Good, data, .. }) => {
                return Ok(permitted(command, unit, data));
            }
            other => return Ok(other),
        },
    };
    Ok(permitted(command, unit, Data::from_bytes(answer)))
}

/// Data-In that are here, once reservations permit the command.
fn permitted<V: Volume>(command: &Context<'_, V>, unit: &MappedUnit<V>, data: Data) -> Step<V> {
    let Some(access) = reservation::allowed::rule(&command.request.cdb).access() else {
        return Step::Done(Answer::good(data));
    };
    let finish = Finish { descriptor: unit.state.descriptor_sense(), kind: Kind::Give(data) };
    Step::Operate { volume: unit.volume.clone(), operation: Operation::Permit(access), finish }
}

/// How much Data-Out a command wants.
fn wanted(entry: &Entry, request: &Request, info: &VolumeInfo) -> u32 {
    let cdb = &request.cdb;
    match entry.code {
        Code::ModeSelect6 => u32::from(cdb.head[4]),
        Code::ModeSelect10 | Code::Unmap => u32::from(cdb.u16(7)),
        Code::SendDiagnostic => u32::from(cdb.u16(3)),
        Code::SetTargetPortGroups => cdb.u32(6).min(1 << 16),
        Code::PersistentReserveOut => cdb.u32(5).min(reservation::output::LIST_BYTES_MAX),
        Code::ExtendedCopy => cdb.u32(10).min(copy::LIST_BYTES_MAX),
        Code::PopulateToken | Code::WriteUsingToken => cdb.u32(10).min(token::list::LIST_BYTES_MAX),
        _ => block::wanted(entry, cdb, info),
    }
}
