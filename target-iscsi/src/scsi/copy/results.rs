//! RECEIVE COPY RESULTS: operating parameters, status, and why a copy failed (SPC-4, sections 6.18 to 6.20).

use ashlar_env::Volume;
use ashlar_env::volume::VolumeInfo;

use super::EXTENDED_COPY_LID1;
use super::list::{BLOCK_TO_BLOCK, CSCD_BY_DESIGNATOR, CSCDS_MAX, DESCRIPTORS_BYTES_MAX, SEGMENTS_MAX};
use super::registry::{Job, ListKey, RUNNING_MAX};
use crate::scsi::sense::{Failure, Sense};
use crate::scsi::units::{Context, MappedUnit};

/// RECEIVE COPY STATUS (LID1).
pub const COPY_STATUS: u8 = 0x00;
/// RECEIVE COPY OPERATING PARAMETERS.
pub const OPERATING_PARAMETERS: u8 = 0x03;
/// RECEIVE COPY FAILURE DETAILS (LID1).
pub const FAILURE_DETAILS: u8 = 0x04;

/// The service actions of RECEIVE COPY RESULTS that tell of EXTENDED COPY.
pub(in crate::scsi) fn receive<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let copies = &command.nexus.shared().copies;
    let (session, id) = (command.nexus.issuer().session, u32::from(cdb.head[2]));
    let key = ListKey { session, unit: info.id, id };
    let job = || {
        let job = copies.find(key).filter(|job| job.action == EXTENDED_COPY_LID1);
        job.ok_or_else(|| Failure::from(Sense::cdb(2)))
    };
    let mut data = match cdb.head[1] & 0x1F {
        OPERATING_PARAMETERS => operating_parameters(info),
        COPY_STATUS => {
            let job = job()?;
            if job.ending().is_some_and(|ending| ending.failure.is_none()) {
                // Told once; why one failed can be asked yet.
                copies.forget(key);
            }
            copy_status(&job)
        }
        FAILURE_DETAILS => {
            let data =
                failure_details(&*job()?, unit.state.descriptor_sense()).ok_or_else(|| Sense::cdb(2))?;
            copies.forget(key);
            data
        }
        _ => return Err(Sense::cdb_bit(1, 4).into()),
    };
    data.truncate(cdb.u32(10) as usize);
    Ok(data)
}

/// The length of what follows, in front of it.
fn with_length(rest: &[u8]) -> Vec<u8> {
    [&(rest.len() as u32).to_be_bytes(), rest].concat()
}

fn operating_parameters(info: &VolumeInfo) -> Vec<u8> {
    let mut rest = vec![0; 40];
    // SNLID: a list need not have an identifier.
    rest[0] = 1;
    rest[4..6].copy_from_slice(&(CSCDS_MAX as u16).to_be_bytes());
    rest[6..8].copy_from_slice(&(SEGMENTS_MAX as u16).to_be_bytes());
    rest[8..12].copy_from_slice(&(DESCRIPTORS_BYTES_MAX as u32).to_be_bytes());
    // What a segment can say at most.
    let segment_bytes = u32::from(u16::MAX) << info.block_size.shift();
    rest[12..16].copy_from_slice(&segment_bytes.to_be_bytes());
    rest[30..32].copy_from_slice(&(RUNNING_MAX as u16).to_be_bytes());
    rest[32] = RUNNING_MAX as u8;
    // DATA SEGMENT GRANULARITY, as an exponent.
    rest[33] = info.block_size.shift();
    let types = [BLOCK_TO_BLOCK, CSCD_BY_DESIGNATOR];
    rest[39] = types.len() as u8;
    rest.extend(types);
    with_length(&rest)
}

/// TRANSFER COUNT and its UNITS: bytes, or the smallest power of 1024 of them in which the count has room.
fn transfer_count(bytes: u64) -> (u8, u32) {
    let mut units = 0;
    let mut count = bytes;
    while count > u64::from(u32::MAX) {
        units += 1;
        count >>= 10;
    }
    (units, count as u32)
}

fn copy_status(job: &Job) -> Vec<u8> {
    let status = match job.ending() {
        None => 0x00,
        Some(ending) if ending.failure.is_none() => 0x01,
        Some(_) => 0x02,
    };
    let (units, count) = transfer_count(job.bytes());
    let mut rest = vec![status];
    rest.extend(job.segments().to_be_bytes());
    rest.push(units);
    rest.extend(count.to_be_bytes());
    with_length(&rest)
}

/// `None` where the copy has not failed.
fn failure_details(job: &Job, descriptor: bool) -> Option<Vec<u8>> {
    let answer = job.ending()?.failure?.answer(descriptor);
    let sense = answer.sense.unwrap_or_default();
    let mut rest = vec![0; 56];
    rest[52] = answer.status as u8;
    rest[54..56].copy_from_slice(&(sense.len() as u16).to_be_bytes());
    rest.extend(sense);
    Some(with_length(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_are_told_in_larger_units() {
        assert_eq!(transfer_count(0), (0, 0));
        assert_eq!(transfer_count(u64::from(u32::MAX)), (0, u32::MAX));
        assert_eq!(transfer_count(1 << 32), (1, 1 << 22));
        assert_eq!(transfer_count(1 << 50), (2, 1 << 30));
    }
}
