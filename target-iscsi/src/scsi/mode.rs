//! Mode pages, and MODE SENSE (SPC-4, sections 6.11, 6.12 and 7.5).

use std::sync::atomic::Ordering;

use ashlar_env::Volume;
use ashlar_env::volume::VolumeInfo;

use super::sense::{Asc, Failure, Sense};
use super::shared::UnitState;
use super::table::Code;
use super::units::{Context, MappedUnit};

/// What of a page is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Current,
    Changeable,
    Default,
}

/// Every page there is: page code, subpage code, and its length beyond the header.
pub(super) const PAGES: [(u8, u8, usize); 4] =
    [(0x08, 0x00, 0x12), (0x0A, 0x00, 0x0A), (0x0A, 0x01, 0x1C), (0x1C, 0x00, 0x0A)];

/// Control page: D_SENSE, in byte 2 of the page.
pub(super) const D_SENSE: u8 = 0x04;

/// Control page: SWP, in byte 4 of the page.
pub(super) const SWP: u8 = 0x08;

/// A page with its header.
pub(super) fn page(code: u8, subpage: u8, values: Values, state: &UnitState, info: &VolumeInfo) -> Vec<u8> {
    let len = PAGES.iter().find(|page| (page.0, page.1) == (code, subpage)).map_or(0, |page| page.2);
    let mut out = if subpage == 0 { vec![code, len as u8] } else { vec![0x40 | code, subpage, 0, len as u8] };
    let header = out.len();
    out.resize(header + len, 0);
    let change = values == Values::Changeable;
    let current = values == Values::Current;
    match (code, subpage) {
        // Caching: WCE.
        (0x08, _) if !change => out[2] = u8::from(info.volatile_cache) << 2,
        (0x0A, 0x00) => {
            let d_sense = change || current && state.descriptor_sense();
            let swp = change || current && state.write_protect.load(Ordering::Relaxed);
            out[2] = if d_sense { D_SENSE } else { 0 };
            out[4] = if swp { SWP } else { 0 };
            if !change {
                // GLTSD; commands may be reordered without restriction; TAS; busy for as long as it takes.
                out[2] |= 0x02;
                out[3] = 0x10;
                out[5] = 0x40;
                out[8..10].fill(0xFF);
            }
        }
        // Control extension: IALUAE.
        (0x0A, _) if !change => out[4] = 0x01,
        // Informational exceptions: DEXCPT.
        (0x1C, _) if !change => out[2] = 0x08,
        _ => {}
    }
    out
}

/// MODE SENSE (6) and (10).
pub(super) fn sense<V: Volume>(
    command: &Context<'_, V>,
    unit: &MappedUnit<V>,
    info: &VolumeInfo,
) -> Result<Vec<u8>, Failure> {
    let cdb = &command.request.cdb;
    let long = command.entry.code == Code::ModeSense10;
    let values = match cdb.head[2] >> 6 {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => return Err(Sense::illegal(Asc::NO_SAVING).into()),
    };
    let pages = chosen(cdb.head[2] & 0x3F, cdb.head[3])?;
    let long_lba = long && cdb.head[1] & 0x10 != 0;
    let descriptor = if cdb.head[1] & 0x08 != 0 { Vec::new() } else { block_descriptor(info, long_lba) };
    let protected = info.read_only || unit.state.write_protect.load(Ordering::Relaxed);
    // WP; DPO and FUA are honoured.
    let specific = if protected { 0x90 } else { 0x10 };
    let mut data = if long {
        vec![0, 0, 0, specific, u8::from(long_lba && !descriptor.is_empty()), 0, 0, descriptor.len() as u8]
    } else {
        vec![0, 0, specific, descriptor.len() as u8]
    };
    data.extend(descriptor);
    for (code, subpage) in pages {
        data.extend(page(code, subpage, values, &unit.state, info));
    }
    if long {
        let len = (data.len() - 2) as u16;
        data[..2].copy_from_slice(&len.to_be_bytes());
        data.truncate(usize::from(cdb.u16(7)));
    } else {
        data[0] = (data.len() - 1) as u8;
        data.truncate(usize::from(cdb.head[4]));
    }
    Ok(data)
}

/// The pages that a page code and a subpage code mean.
fn chosen(code: u8, subpage: u8) -> Result<Vec<(u8, u8)>, Failure> {
    let all = PAGES.iter().map(|page| (page.0, page.1));
    let pages: Vec<_> = match (code, subpage) {
        (0x3F, 0x00) => all.filter(|page| page.1 == 0).collect(),
        (0x3F, 0xFF) => all.collect(),
        (0x3F, _) => Vec::new(),
        (_, 0xFF) => all.filter(|page| page.0 == code).collect(),
        _ => all.filter(|page| *page == (code, subpage)).collect(),
    };
    if !pages.is_empty() {
        return Ok(pages);
    }
    let known = code == 0x3F || PAGES.iter().any(|page| page.0 == code);
    Err(if known { Sense::cdb(3) } else { Sense::cdb_bit(2, 5) }.into())
}

/// The block descriptor: how many blocks, of how many bytes.
pub(super) fn block_descriptor(info: &VolumeInfo, long: bool) -> Vec<u8> {
    let bytes = info.block_size.bytes().to_be_bytes();
    if long {
        return [&info.blocks.to_be_bytes()[..], &[0; 4], &bytes].concat();
    }
    let blocks = u32::try_from(info.blocks).unwrap_or(u32::MAX);
    [blocks.to_be_bytes(), bytes].concat()
}
