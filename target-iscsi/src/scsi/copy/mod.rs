//! Third-party copy: EXTENDED COPY (LID1) and RECEIVE COPY RESULTS (SPC-4, sections 6.4 and 6.18 to 6.20).
//!
//! Units are found among those of the nexus' own target only, so that nobody reaches by a designator what is not
//! exported to it. Every block is read and written for the nexus that asked, so the reservations of both units hold.

pub mod engine;
pub mod list;
pub mod registry;
mod results;
#[cfg(test)]
mod tests;
pub mod world;

use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::VolumeError;
use ashlar_env::units::{BlockRange, BlockSize, VolumeId};
use ashlar_env::volume::Issuer;

use super::inquiry::VENDOR;
use super::sense::{Asc, Failure, Key, Sense};
use super::units::{Context, MappedUnit};
use super::{Answer, Data, Status, Step, Units, finish, reservation, vpd};
use engine::{Copy, Failed};
use list::{CSCD_SELF, Cscd, List, Segment, Usage};
use registry::{Ending, Job, ListKey, Registry};

pub(super) use results::receive;

/// Service action of EXTENDED COPY (LID1).
pub const EXTENDED_COPY_LID1: u8 = 0x00;

/// The most bytes of a parameter list that are looked at: one descriptor more of each kind than there may be.
pub const LIST_BYTES_MAX: u32 =
    (list::HEADER_BYTES + list::DESCRIPTORS_BYTES_MAX + list::CSCD_BYTES + list::SEGMENT_BYTES) as u32;

/// The copy was ended by what a unit said.
pub(super) const ABORTED: Failure = Failure::Check(Sense::new(Key::CopyAborted, Asc::NONE));
/// A unit that the nexus cannot reach.
const NOT_REACHABLE: Failure = Failure::Check(Sense::new(Key::CopyAborted, Asc::COPY_TARGET_NOT_REACHABLE));
/// A unit refused or failed what the copy needed.
const UNIT_FAILED: Failure = Failure::Check(Sense::new(Key::CopyAborted, Asc::THIRD_PARTY_FAILURE));

/// A segment with its units found.
struct Resolved<V> {
    copy: Copy<V>,
}

/// EXTENDED COPY (LID1).
pub(super) fn extended<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let said = command.request.cdb.u32(10) as usize;
    if said == 0 {
        return Ok(Step::Done(Answer::good(Data::None)));
    }
    let bytes = data.gather();
    let list = list::parse(&bytes[..said.min(bytes.len())])?;
    let (issuer, id) = (command.nexus.issuer(), unit.volume.info().id);
    let key = (list.usage != Usage::None).then_some(ListKey {
        session: issuer.session,
        unit: id,
        id: u32::from(list.id),
    });
    let running = command.nexus.shared().copies.begin(key, EXTENDED_COPY_LID1, false)?;
    let segments: Vec<_> =
        list.segments.iter().map(|segment| resolve(command.units, unit, &list, segment)).collect();
    let permit = reservation::permit(&command.request.cdb, &unit.volume, issuer);
    let descriptor = unit.state.descriptor_sense();
    Ok(Step::Long(Box::pin(async move {
        let permitted = match permit {
            Some(permit) => permit.await,
            None => Ok(()),
        };
        let copied = match permitted {
            Ok(()) => copy_all(segments, issuer, running.job()).await,
            Err(failure) => Err(failure),
        };
        running.end(Ending { failure: copied.err(), token: None }, list.usage == Usage::Hold);
        match copied {
            Ok(()) => Answer::good(Data::None),
            Err(failure) => failure.answer(descriptor),
        }
    })))
}

async fn copy_all<V: Volume>(
    segments: Vec<Result<Option<Resolved<V>>, Failure>>,
    issuer: Issuer,
    job: &Arc<Job>,
) -> Result<(), Failure> {
    for segment in segments {
        if let Some(segment) = segment? {
            let copied = segment.copy.run(issuer, |bytes| job.moved(bytes)).await;
            copied.map_err(|failed| ended(&failed))?;
        }
        job.segment_done();
    }
    Ok(())
}

/// What the initiator is told of a copy that failed.
pub(super) fn ended(failed: &Failed) -> Failure {
    match failed {
        // Hosts act on these wherever they meet them: thin provisioning that is out of space stops a guest.
        Failed::Destination(error @ (VolumeError::NoSpace | VolumeError::ReadOnly)) => finish::failure(error),
        Failed::Source(VolumeError::OutOfRange) | Failed::Destination(VolumeError::OutOfRange) => ABORTED,
        Failed::Source(VolumeError::NotHere) | Failed::Destination(VolumeError::NotHere) => NOT_REACHABLE,
        Failed::Source(_) | Failed::Destination(_) => UNIT_FAILED,
        Failed::Cancelled => Status::TaskAborted.into(),
    }
}

/// Finds the units of a segment, and what of them it means. `None` for one of no blocks.
fn resolve<V: Volume>(
    units: &Units<V>,
    own: &MappedUnit<V>,
    list: &List,
    segment: &Segment,
) -> Result<Option<Resolved<V>>, Failure> {
    let from = find(units, own, list, segment.source)?;
    let to = find(units, own, list, segment.destination)?;
    if to.state.write_protect.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(Sense::new(Key::DataProtect, Asc::SOFTWARE_PROTECTED).into());
    }
    let (source, target) = (from.volume.info(), to.volume.info());
    let counted = if segment.in_destination_blocks { target.block_size } else { source.block_size };
    let bytes = u64::from(segment.blocks) << counted.shift();
    if bytes == 0 {
        return Ok(None);
    }
    let in_blocks =
        |size: BlockSize| bytes.is_multiple_of(u64::from(size.bytes())).then_some(bytes >> size.shift());
    let (Some(blocks), Some(target_blocks)) = (in_blocks(source.block_size), in_blocks(target.block_size))
    else {
        // The destination would have to be read, and changed in part.
        return Err(Sense::illegal(Asc::PARAMETER_FIELD).into());
    };
    let within =
        |first, blocks, all: u64| BlockRange::new(first, blocks).filter(|range| range.end().0 <= all);
    let range = within(segment.from, blocks, source.blocks).ok_or(ABORTED)?;
    within(segment.to, target_blocks, target.blocks).ok_or(ABORTED)?;
    let copy = Copy { from: from.volume.clone(), source: range, to: to.volume.clone(), at: segment.to };
    Ok(Some(Resolved { copy }))
}

/// The unit of a CSCD, among those that the nexus reaches.
fn find<'a, V: Volume>(
    units: &'a Units<V>,
    own: &'a MappedUnit<V>,
    list: &List,
    index: u16,
) -> Result<&'a MappedUnit<V>, Failure> {
    if index == CSCD_SELF {
        return Ok(own);
    }
    let cscd = list.cscds.get(usize::from(index)).ok_or(NOT_REACHABLE)?;
    let mut found = units.iter().filter(|unit| is_named(unit.volume.info().id, cscd));
    let (Some(unit), None) = (found.next(), found.next()) else { return Err(NOT_REACHABLE) };
    if ![0, unit.volume.info().block_size.bytes()].contains(&cscd.block_bytes) {
        return Err(Sense::illegal(Asc::PARAMETER_FIELD).into());
    }
    Ok(unit)
}

/// Whether a unit has this designator. The T10 designator is longer than a descriptor: its beginning is enough, where
/// it names one unit only.
fn is_named(id: VolumeId, cscd: &Cscd) -> bool {
    match cscd.kind {
        1 => {
            let whole = [&VENDOR[..], vpd::vendor_specific(id).as_bytes()].concat();
            cscd.designator.len() > VENDOR.len() + 8 && whole.starts_with(&cscd.designator)
        }
        3 => cscd.designator == vpd::naa(id),
        _ => false,
    }
}

/// What all sessions share of copies.
pub type Copies = Arc<Registry>;
