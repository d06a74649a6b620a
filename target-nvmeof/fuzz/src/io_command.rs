//! The parsers of I/O commands: whatever an entry and its data say, an operation that comes out lies within the
//! volume and has the data it needs. Entries come one after the other, as on one queue, through the pairing of
//! fused commands.
//!
//! The first byte chooses the volume; then follow the records, each an entry of 64 bytes and its data.

use ashlar_env::Buf;
use ashlar_env::units::{BlockRange, BlockSize, VolumeId};
use ashlar_env::volume::{Operation, VolumeInfo};
use ashlar_nvmeof::io::fused::{Arrival, Fused};
use ashlar_nvmeof::io::{operation, transfer};
use ashlar_nvmeof::limits::{COPY_BYTES_MAX, COPY_RANGES_MAX, DSM_RANGES_MAX};
use ashlar_nvmeof::transport::{Slot, Transfer};
use ashlar_nvmeof::wire::Sqe;

use crate::script::Script;

const MAX_TRANSFER_BYTES: u32 = 1 << 20;

/// Runs one input.
///
/// # Panics
/// If an operation came out that no volume may be given.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let volume = volume(script.byte());
    let mut fused = Fused::default();
    let mut entries: Vec<Sqe> = Vec::new();
    while !script.is_over() && entries.len() < 64 {
        let (_, record) = script.record();
        let mut record = Script::new(record);
        let sqe: Sqe = zerocopy::transmute!(record.array::<64>());
        let data = record.bytes(usize::MAX);
        parse(&sqe, &volume, data);
        let slot = Slot(entries.len() as u16);
        entries.push(sqe);
        pair(&mut fused, slot, &entries, data);
    }
}

fn volume(choice: u8) -> VolumeInfo {
    let block_size = if choice & 1 == 0 { BlockSize::B512 } else { BlockSize::B4096 };
    let all = u64::MAX >> block_size.shift();
    VolumeInfo {
        id: VolumeId(uuid::Uuid::nil()),
        block_size,
        blocks: if choice & 2 == 0 { 2048 } else { all },
        read_only: false,
        volatile_cache: true,
        thin: true,
        unmap_granularity_blocks: 8,
        preferred_write_blocks: 8,
        atomic_write_blocks: 1,
    }
}

fn parse(sqe: &Sqe, volume: &VolumeInfo, data: &[u8]) {
    let Ok(transfer) = transfer(sqe, volume, MAX_TRANSFER_BYTES) else { return };
    let brought = match transfer {
        Transfer::None => None,
        Transfer::ToHost(len) => {
            assert!((1..=MAX_TRANSFER_BYTES).contains(&len), "{sqe:?}");
            None
        }
        Transfer::FromHost(len) => {
            assert!((1..=MAX_TRANSFER_BYTES).contains(&len), "{sqe:?}");
            let mut bytes = vec![0; len as usize];
            let n = bytes.len().min(data.len());
            bytes[..n].copy_from_slice(&data[..n]);
            Some(Buf::from_heap(bytes.into()))
        }
    };
    if let Ok(operation) = operation(sqe, volume, brought) {
        check(&operation, volume, transfer);
    }
}

fn check(operation: &Operation, volume: &VolumeInfo, transfer: Transfer) {
    let within = |range: &BlockRange| range.blocks() > 0 && range.end().0 <= volume.blocks;
    let len = |range: &BlockRange| (range.blocks() << volume.block_size.shift()) as usize;
    match operation {
        Operation::Read { range } => {
            assert!(within(range) && transfer == Transfer::ToHost(len(range) as u32), "{operation:?}");
        }
        Operation::Write { range, data, .. } | Operation::Compare { range, expected: data } => {
            assert!(within(range) && data.len() == len(range), "{operation:?}");
        }
        Operation::WriteZeroes { range, .. } | Operation::Verify { range } => {
            assert!(within(range), "{operation:?}");
        }
        Operation::Unmap { ranges } => {
            assert!(ranges.iter().all(within) && ranges.len() <= usize::from(DSM_RANGES_MAX));
        }
        Operation::Copy { sources, to, .. } => {
            let total: u64 = sources.iter().map(|range| range.blocks()).sum();
            assert!(sources.iter().all(within) && sources.len() <= usize::from(COPY_RANGES_MAX));
            assert!(BlockRange::new(*to, total).is_some_and(|range| within(&range)), "{operation:?}");
            assert!(total << volume.block_size.shift() <= u64::from(COPY_BYTES_MAX));
        }
        Operation::Flush | Operation::Reserve(_) => {}
        Operation::ReserveNexus(_) | Operation::Permit(_) | Operation::Allocation { .. } => {
            panic!("no NVMe command asks for this")
        }
        Operation::CompareAndWrite { .. } => panic!("only a pair makes this: {operation:?}"),
    }
}

fn pair(fused: &mut Fused, slot: Slot, entries: &[Sqe], data: &[u8]) {
    let sqe = &entries[usize::from(slot.0)];
    if let Some(orphan) = fused.orphan(sqe) {
        assert!(!fused.holds(orphan.slot));
    }
    match fused.arrive(slot, sqe, |first| &entries[usize::from(first.0)]) {
        Arrival::Single => assert!(!fused.holds(slot)),
        Arrival::Refused { first, .. } => {
            assert!(!fused.holds(slot) && first.is_none_or(|first| !fused.holds(first.slot)));
        }
        Arrival::Held => {
            assert!(fused.holds(slot));
            // Some halves fail, some get their data at once, some keep waiting.
            match data.first().map(|byte| byte % 3) {
                Some(0) => {
                    let other = fused.fail(slot);
                    assert!(!fused.holds(slot) && other.is_none_or(|other| !fused.holds(other.slot)));
                }
                Some(1) => {
                    if let Some(ready) = fused.data(slot, Buf::from_static(b"x")) {
                        assert!(ready.first < ready.second && !fused.holds(ready.first));
                        let [first, second] =
                            [ready.first, ready.second].map(|slot| &entries[usize::from(slot.0)]);
                        assert_eq!((first.nsid, first.cdw10_11()), (second.nsid, second.cdw10_11()));
                    }
                }
                _ => {}
            }
        }
    }
}
