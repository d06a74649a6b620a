//! Slots that have become free: their data are discarded in the background, one at a time, and then they are handed
//! out. Only a slot's data are discarded; its headers stay. A discard that fails changes nothing: nobody relies on
//! what a discarded range reads as.

use std::cmp::Reverse;
use std::rc::Rc;

use ashlar_env::units::ByteRange;
use ashlar_env::{Disk, Spawn};

use super::Inner;

/// Takes back a slot whose free header is durable.
pub(crate) fn release<E: Spawn + Clone + 'static, D: Disk>(inner: &Rc<Inner<E, D>>, slot: u32) {
    let mut table = inner.table.borrow_mut();
    if range(inner, slot).is_none() || inner.device.is_failed() {
        table.free.push(Reverse(slot));
    } else {
        table.discarding.push_back(slot);
        if table.discarding.len() == 1 {
            let worker = Rc::clone(inner);
            inner.env.spawn(discard_all(worker));
        }
    }
    drop(table);
    inner.released.wake();
}

/// The whole granules among the slot's data, in bytes; `None` where there are none.
fn range<E, D: Disk>(inner: &Inner<E, D>, slot: u32) -> Option<ByteRange> {
    let geometry = &inner.superblock.geometry;
    let info = inner.device.disk.info();
    let granule =
        u64::from(info.discard_granularity_bytes).checked_next_multiple_of(info.block_bytes.into())?;
    if granule == 0 {
        return None;
    }
    let start = geometry.data_start(slot).next_multiple_of(granule);
    let end = geometry.slot_start(slot + 1) / granule * granule;
    (start < end).then_some(ByteRange { start, len: end - start })
}

/// Discards until nothing is left to be. The slot at hand stays in the queue meanwhile.
async fn discard_all<E, D: Disk>(inner: Rc<Inner<E, D>>) {
    loop {
        let Some(&slot) = inner.table.borrow().discarding.front() else { return };
        if let (Some(range), false) = (range(&inner, slot), inner.device.is_failed()) {
            let _ = inner.device.disk.discard(range).await;
        }
        let mut table = inner.table.borrow_mut();
        table.discarding.pop_front();
        table.free.push(Reverse(slot));
        drop(table);
        inner.released.wake();
    }
}
