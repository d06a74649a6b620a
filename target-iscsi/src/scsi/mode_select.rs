//! MODE SELECT (SPC-4, sections 6.9 and 6.10).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ashlar_env::Volume;
use ashlar_env::reservation::Access;
use ashlar_env::volume::VolumeInfo;

use super::long::{self, Io};
use super::mode::{D_SENSE, PAGES, SWP, Values, block_descriptor, page};
use super::sense::{Asc, Failure, Sense};
use super::shared::UnitState;
use super::table::Code;
use super::units::{Context, MappedUnit};
use super::{Data, Step};

/// Where a parameter list is read, and what of it is left.
struct List<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> List<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        let some = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        let some = some.ok_or(Sense::illegal(Asc::PARAMETER_LENGTH))?;
        self.at += len;
        Ok(some)
    }

    /// The byte `back` bytes before where we are is wrong.
    fn wrong(&self, back: usize) -> Failure {
        Sense::parameter((self.at - back) as u16).into()
    }
}

/// MODE SELECT (6) and (10): all of the list, or nothing of it.
pub(super) fn start<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: &Data,
) -> Result<Step<V>, Failure> {
    let control = parse(command, unit, info, data)?;
    let (io, state, id) = (Io::new(command, unit), Arc::clone(&unit.state), info.id);
    let (shared, session) = (Arc::clone(command.units.shared()), command.nexus.issuer().session);
    Ok(long::step(unit, async move {
        io.permit(Access::Write).await?;
        if let Some(control) = control
            && apply(&state, &control)
        {
            shared.raise(id, Asc::MODE_CHANGED, |nexus| nexus.issuer.session != session);
        }
        Ok(Data::None)
    }))
}

/// The control page of the list, if it has one.
fn parse<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
    data: &Data,
) -> Result<Option<Vec<u8>>, Failure> {
    let cdb = &command.request.cdb;
    let long = command.entry.code == Code::ModeSelect10;
    let len = if long { usize::from(cdb.u16(7)) } else { usize::from(cdb.head[4]) };
    if cdb.head[1] & 0x10 == 0 {
        // PF: pages in the format of the standard.
        return Err(Sense::cdb_bit(1, 4).into());
    }
    if cdb.head[1] & 0x01 != 0 {
        // SP: nothing is saved.
        return Err(Sense::cdb_bit(1, 0).into());
    }
    if len == 0 {
        return Ok(None);
    }
    if data.bytes() < len {
        return Err(Sense::illegal(Asc::INFORMATION_UNIT).into());
    }
    let bytes = data.gather();
    let mut list = List { bytes: &bytes[..len], at: 0 };
    header(&mut list, long, info)?;
    let mut control = None;
    while list.at < len {
        control = next_page(&mut list, &unit.state, info)?.or(control);
    }
    Ok(control)
}

/// The header and the block descriptor: neither changes anything.
fn header(list: &mut List<'_>, long: bool, info: &VolumeInfo) -> Result<(), Failure> {
    let (descriptor_bytes, long_lba) = if long {
        let header = list.take(8)?;
        (usize::from(u16::from_be_bytes([header[6], header[7]])), header[4] & 0x01 != 0)
    } else {
        (usize::from(list.take(4)?[3]), false)
    };
    let now = block_descriptor(info, long_lba);
    if descriptor_bytes == 0 {
        return Ok(());
    }
    if descriptor_bytes != now.len() {
        return Err(list.wrong(if long { 2 } else { 1 }));
    }
    let descriptor = list.take(descriptor_bytes)?;
    let (blocks, size) = if long_lba { (0..8, 12..16) } else { (0..4, 5..8) };
    // 0 is "as it is", all ones "as many as there are".
    let given = &descriptor[blocks.clone()];
    let same_blocks =
        given == &now[blocks] || [0x00, 0xFF].iter().any(|all| given.iter().all(|byte| byte == all));
    if !same_blocks {
        return Err(list.wrong(descriptor_bytes));
    }
    if descriptor[size.clone()] != now[size.clone()] && descriptor[size.clone()].iter().any(|byte| *byte != 0)
    {
        return Err(list.wrong(descriptor_bytes - size.start));
    }
    Ok(())
}

/// One page: its bytes, where it is the control page.
fn next_page(list: &mut List<'_>, state: &UnitState, info: &VolumeInfo) -> Result<Option<Vec<u8>>, Failure> {
    let head = list.take(2)?;
    let (code, long) = (head[0] & 0x3F, head[0] & 0x40 != 0);
    let (subpage, len, header) = if long {
        let rest = list.take(2)?;
        (head[1], usize::from(u16::from_be_bytes([rest[0], rest[1]])), 4)
    } else {
        (0, usize::from(head[1]), 2)
    };
    let Some(known) = PAGES.iter().find(|page| (page.0, page.1) == (code, subpage)) else {
        return Err(list.wrong(header));
    };
    if len != known.2 || long != (subpage != 0) {
        return Err(list.wrong(1));
    }
    let given = list.take(len)?;
    let now = page(code, subpage, Values::Current, state, info);
    let may = page(code, subpage, Values::Changeable, state, info);
    for (at, byte) in given.iter().enumerate() {
        if (byte ^ now[header + at]) & !may[header + at] != 0 {
            return Err(list.wrong(len - at));
        }
    }
    let is_control = (code, subpage) == (0x0A, 0x00);
    Ok(is_control.then(|| [&now[..header], given].concat()))
}

/// Takes over what may be changed. Whether it changed.
fn apply(state: &UnitState, control: &[u8]) -> bool {
    let (d_sense, swp) = (control[2] & D_SENSE != 0, control[4] & SWP != 0);
    let before = state.descriptor_sense.swap(d_sense, Ordering::Relaxed);
    let protected = state.write_protect.swap(swp, Ordering::Relaxed);
    (before, protected) != (d_sense, swp)
}
