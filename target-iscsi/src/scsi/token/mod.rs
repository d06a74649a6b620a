//! Copies by token (ODX): POPULATE TOKEN, WRITE USING TOKEN and RECEIVE ROD TOKEN INFORMATION (SBC-3, sections 5.7, 5.46;
//! SPC-4, section 6.24).
//!
//! A token is good for whoever has it, on any nexus of a target that exports the source; the blocks are read for the
//! nexus that uses it, so reservations of the source hold. Making one takes no time. What a token stands for is
//! described in [`rod`].

pub mod list;
mod plan;
pub mod rod;
#[cfg(test)]
mod tests;
pub mod vpd;

use std::sync::Arc;

use ashlar_env::Volume;
use ashlar_env::volume::{Issuer, VolumeInfo};

use super::copy::registry::{Ending, Job, ListKey, Running};
use super::copy::world::World;
use super::sense::{Asc, Failure, Sense};
use super::units::{Context, MappedUnit};
use super::{Answer, Data, Status, Step, reservation};
use plan::Plan;

/// Service action of POPULATE TOKEN.
pub const POPULATE_TOKEN: u8 = 0x10;
/// Service action of WRITE USING TOKEN.
pub const WRITE_USING_TOKEN: u8 = 0x11;
/// Service action of RECEIVE ROD TOKEN INFORMATION.
pub const RECEIVE_INFORMATION: u8 = 0x07;

/// TRANSFER COUNT UNITS: blocks.
const IN_BLOCKS: u8 = 0xF1;
/// When to ask again for a copy that is under way, in milliseconds.
const ASK_AGAIN_MS: u32 = 100;

/// The parameter list of a command, as long as its CDB says; `None` where the CDB says that there is none.
fn list_of<V>(command: &Context<'_, V>, data: &Data) -> Option<Vec<u8>> {
    let said = command.request.cdb.u32(10) as usize;
    let mut list = data.gather().to_vec();
    list.truncate(said);
    (said > 0).then_some(list)
}

fn key<V>(command: &Context<'_, V>, info: &VolumeInfo) -> ListKey {
    ListKey { session: command.nexus.issuer().session, unit: info.id, id: command.request.cdb.u32(6) }
}

/// The environment, without which there are no tokens.
fn world<V: Volume>(command: &Context<'_, V>) -> Result<World, Failure> {
    command.units.world().cloned().ok_or_else(|| Sense::illegal(Asc::OPERATION_CODE).into())
}

/// POPULATE TOKEN.
pub(super) fn populate<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let world = world(command)?;
    let Some(list) = list_of(command, data) else { return Ok(Step::Done(Answer::good(Data::None))) };
    let asked = list::populate(&list, info)?;
    let shared = Arc::clone(command.nexus.shared());
    let issuer = command.nexus.issuer();
    let running = shared.copies.begin(Some(key(command, info)), POPULATE_TOKEN, false)?;
    let permit = reservation::permit(&command.request.cdb, &unit.volume, issuer);
    let (info, descriptor) = (*info, unit.state.descriptor_sense());
    Ok(Step::Long(Box::pin(async move {
        let permitted = match permit {
            Some(permit) => permit.await,
            None => Ok(()),
        };
        let blocks: u64 = asked.ranges.iter().map(|range| range.blocks()).sum();
        let made = permitted
            .and_then(|()| shared.tokens.make(&world, issuer.session, &info, asked.ranges, asked.timeout));
        match made {
            Ok(token) => {
                running.job().moved(blocks << info.block_size.shift());
                running.end(Ending { failure: None, token: Some(token) }, true);
                Answer::good(Data::None)
            }
            Err(failure) => {
                running.end(Ending { failure: Some(failure), token: None }, true);
                failure.answer(descriptor)
            }
        }
    })))
}

/// WRITE USING TOKEN.
pub(super) fn write<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let world = world(command)?;
    let Some(list) = list_of(command, data) else { return Ok(Step::Done(Answer::good(Data::None))) };
    let asked = list::write(&list, info)?;
    let shared = command.nexus.shared();
    let found = shared.tokens.find(&asked.token, world.now(), asked.delete)?;
    let plan = Plan::new(command.units, unit, &asked, &found)?;
    let issuer = command.nexus.issuer();
    let running = shared.copies.begin(Some(key(command, info)), WRITE_USING_TOKEN, asked.immediate)?;
    let permit = reservation::permit(&command.request.cdb, &unit.volume, issuer);
    let descriptor = unit.state.descriptor_sense();
    Ok(Step::Long(Box::pin(async move {
        let permitted = match permit {
            Some(permit) => permit.await,
            None => Ok(()),
        };
        if asked.immediate && permitted.is_ok() {
            world.spawn(async move {
                carry_out(plan, issuer, running).await.unwrap_or_default();
            });
            return Answer::good(Data::None);
        }
        let done = match permitted {
            Ok(()) => carry_out(plan, issuer, running).await,
            Err(failure) => {
                running.end(Ending { failure: Some(failure), token: None }, true);
                Err(failure)
            }
        };
        match done {
            Ok(()) => Answer::good(Data::None),
            Err(failure) => failure.answer(descriptor),
        }
    })))
}

/// Runs a plan, and takes note of how it ended.
async fn carry_out<V: Volume>(plan: Plan<V>, issuer: Issuer, running: Running) -> Result<(), Failure> {
    let done = plan.run(issuer, running.job()).await;
    running.end(Ending { failure: done.err(), token: None }, true);
    done
}

/// RECEIVE ROD TOKEN INFORMATION.
pub(super) fn information<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let key = ListKey { session: command.nexus.issuer().session, unit: info.id, id: cdb.u32(2) };
    let job = command.nexus.shared().copies.find(key);
    let job = job.filter(|job| matches!(job.action, POPULATE_TOKEN | WRITE_USING_TOKEN));
    let job = job.ok_or_else(|| Sense::cdb(2))?;
    let mut data = describe(&job, info, unit.state.descriptor_sense());
    data.truncate(cdb.u32(10) as usize);
    Ok(data)
}

/// COPY OPERATION STATUS.
fn status_of(job: &Job, ending: Option<&Ending>) -> u8 {
    match ending.map(|ending| ending.failure) {
        None if job.background => 0x12,
        None => 0x11,
        Some(None) => 0x01,
        Some(Some(Failure::Status(Status::TaskAborted))) => 0x60,
        Some(Some(_)) => 0x02,
    }
}

fn describe(job: &Job, info: &VolumeInfo, descriptor: bool) -> Vec<u8> {
    let ending = job.ending();
    let failed = ending.as_ref().and_then(|ending| ending.failure).map(|failure| failure.answer(descriptor));
    let (status, sense) =
        failed.map_or((0, Box::default()), |answer| (answer.status as u8, answer.sense.unwrap_or_default()));
    let mut out = vec![0; 32];
    out[4] = job.action;
    out[5] = status_of(job, ending.as_ref());
    out[6..8].copy_from_slice(&job.segments().to_be_bytes());
    let delay_ms = if ending.is_some() { 0 } else { ASK_AGAIN_MS };
    out[8..12].copy_from_slice(&delay_ms.to_be_bytes());
    out[12] = status;
    out[13] = sense.len() as u8;
    out[14] = sense.len() as u8;
    out[15] = IN_BLOCKS;
    out[16..24].copy_from_slice(&(job.bytes() >> info.block_size.shift()).to_be_bytes());
    out[24..26].copy_from_slice(&job.segments().to_be_bytes());
    out.extend(sense);
    match ending.and_then(|ending| ending.token) {
        Some(token) => {
            out.extend((2 + token.len() as u32).to_be_bytes());
            out.extend([0, 0]);
            out.extend(*token);
        }
        None => out.extend([0; 4]),
    }
    let rest = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&rest.to_be_bytes());
    out
}
