//! What is supported: operation codes and task management functions (SPC-4, sections 6.35 and 6.36).

use ashlar_env::Volume;
use ashlar_env::volume::VolumeInfo;

use super::sense::{Failure, Sense};
use super::table::{COMMANDS, Entry, Found, lookup};
use super::units::Context;

/// SUPPORT: not supported.
const NOT_SUPPORTED: u8 = 0x01;

/// SUPPORT: supported as the standard says.
const SUPPORTED: u8 = 0x03;

/// REPORT SUPPORTED OPERATION CODES.
pub(super) fn commands<V: Volume>(command: &Context<'_, V>, info: &VolumeInfo) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let (timeouts, options) = (cdb.head[2] & 0x80 != 0, cdb.head[2] & 0x07);
    let (opcode, action) = (cdb.head[3], cdb.u16(4));
    let mut data = match options {
        0 => all(timeouts, info),
        1..=3 => one(find(options, opcode, action, info)?, timeouts),
        _ => return Err(Sense::cdb_bit(2, 2).into()),
    };
    data.truncate(cdb.u32(6) as usize);
    Ok(data)
}

fn all(timeouts: bool, info: &VolumeInfo) -> Vec<u8> {
    let mut data = vec![0; 4];
    for entry in COMMANDS.iter().filter(|entry| (entry.offered)(info)) {
        let flags = u8::from(entry.action.is_some()) | if timeouts { 0x02 } else { 0 };
        data.extend([entry.opcode, 0, 0, entry.action.unwrap_or(0), 0, flags, 0, entry.usage.len() as u8]);
        if timeouts {
            data.extend(timeout(entry));
        }
    }
    let len = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&len.to_be_bytes());
    data
}

/// The command asked for; `None` where it is not supported.
fn find(options: u8, opcode: u8, action: u16, info: &VolumeInfo) -> Result<Option<&'static Entry>, Failure> {
    let small = u8::try_from(action).ok().filter(|action| *action < 0x20);
    let has_actions = match lookup(opcode, None, Some(info)) {
        Found::NoCode => return Ok(None),
        Found::NoAction => true,
        Found::Command(_) => false,
    };
    match options {
        // The operation code alone, of a command with service actions; a service action of one without.
        1 if has_actions => return Err(Sense::cdb(3).into()),
        2 if !has_actions => return Err(Sense::cdb(3).into()),
        3 if !has_actions && action != 0 => return Ok(None),
        _ => {}
    }
    Ok(match lookup(opcode, small, Some(info)) {
        Found::Command(entry) => Some(entry),
        Found::NoAction | Found::NoCode => None,
    })
}

fn one(entry: Option<&Entry>, timeouts: bool) -> Vec<u8> {
    let Some(entry) = entry else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let usage = entry.usage_data();
    let mut data = vec![0, SUPPORTED | if timeouts { 0x80 } else { 0 }, 0, usage.len() as u8];
    data.extend(usage);
    if timeouts {
        data.extend(timeout(entry));
    }
    data
}

/// A command timeouts descriptor: what is usual is not told, only what to wait for.
fn timeout(entry: &Entry) -> [u8; 12] {
    let mut out = [0; 12];
    out[1] = 0x0A;
    out[8..].copy_from_slice(&entry.timeout_s.to_be_bytes());
    out
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: abort task, abort task set, clear task set, logical unit reset, target
/// reset.
pub(super) fn task_management<V: Volume>(command: &Context<'_, V>) -> Vec<u8> {
    let cdb = &command.request.cdb;
    let extended = cdb.head[2] & 0x80 != 0;
    let mut data = vec![0; if extended { 16 } else { 4 }];
    data[0] = 0xDA;
    if extended {
        data[3] = 0x0C;
    }
    data.truncate(cdb.u32(6) as usize);
    data
}
