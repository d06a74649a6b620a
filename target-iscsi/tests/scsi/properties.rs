//! Any bytes as a command: nothing panics, nothing wraps, no operation leaves the volume.

use ashlar_env::units::BlockSize;
use ashlar_env::volume::Operation;
use ashlar_iscsi::scsi::table::COMMANDS;
use ashlar_iscsi::scsi::units::TRANSFER_BYTES_MAX;
use ashlar_iscsi::scsi::{Attribute, Cdb, Request, Status, lun};
use ashlar_volume::check::check;
use proptest::prelude::*;

use crate::world::{World, info};

/// Any bytes, more often than not with the operation code of a command that is there, and an address near an end.
fn cdbs() -> impl Strategy<Value = Vec<u8>> {
    let any = proptest::collection::vec(any::<u8>(), 16..40);
    let known = (0..COMMANDS.len(), any.clone(), 0..4_u8).prop_map(|(at, mut cdb, end)| {
        let entry = &COMMANDS[at];
        cdb[0] = entry.opcode;
        if let Some(action) = entry.action {
            cdb[1] = cdb[1] & 0xE0 | action;
        }
        match end {
            0 => cdb[2..10].fill(0xFF),
            1 => cdb[2..9].fill(0),
            2 => (cdb[1], cdb[10], cdb[11], cdb[12]) = (cdb[1] & 0x1F, 0, 0, 0),
            _ => {}
        }
        cdb
    });
    prop_oneof![1 => any, 4 => known]
}

/// The operation codes that read at most.
const READS: &[u8] = &[0x08, 0x28, 0xA8, 0x88, 0x2F, 0xAF, 0x8F, 0x34, 0x90, 0x9E, 0x12, 0x25];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_command_panics_or_leaves_the_volume(
        cdb in cdbs(),
        lun in prop_oneof![4 => Just(lun::encode(1)), 1 => any::<u64>()],
        out in proptest::collection::vec(any::<u8>(), 0..2048),
        descriptor in any::<bool>(),
        attribute in prop_oneof![9 => Just(Attribute::Simple), 1 => Just(Attribute::Aca)],
    ) {
        let world = World::new(info(if descriptor { BlockSize::B4096 } else { BlockSize::B512 }, 200));
        let volume = world.memory.clone();
        let request = Request {
            lun,
            cdb: Cdb::new(&cdb),
            attribute,
            out_bytes: out.len() as u32,
            in_bytes: u32::MAX,
        };
        let wanted = world.units.wanted_bytes(&request);
        prop_assert!(u64::from(wanted) <= TRANSFER_BYTES_MAX);
        let answer = world.give(&world.nexus, &request, &out);
        prop_assert_eq!(answer.status == Status::CheckCondition, answer.sense.is_some());
        prop_assert!(answer.status == Status::Good || answer.data.is_empty());
        for operation in volume.seen() {
            let ok = check(&ashlar_env::Volume::info(&volume), &operation);
            prop_assert_eq!(ok, Ok(()), "{:?}", operation);
        }
        let unaltered = matches!(answer.status, Status::Good);
        prop_assert!(unaltered || answer.sense.as_ref().is_none_or(|sense| sense.len() >= 8));
    }

    #[test]
    fn what_reads_never_writes(mut cdb in cdbs(), opcode in proptest::sample::select(READS)) {
        let world = World::new(info(BlockSize::B512, 200));
        cdb[0] = opcode;
        world.run(&cdb, &[0xA5; 1024]);
        let changes = |operation: &Operation| !matches!(
            operation,
            Operation::Read { .. } | Operation::Compare { .. } | Operation::Verify { .. } | Operation::Allocation { .. }
        );
        prop_assert!(!world.memory.seen().iter().any(changes));
    }
}
