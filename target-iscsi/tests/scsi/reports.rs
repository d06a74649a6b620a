//! Commands that report what there is.

use std::collections::BTreeMap;

use ashlar_env::units::BlockSize;
use ashlar_iscsi::scsi::table::COMMANDS;
use ashlar_iscsi::scsi::{Cdb, Request, Status, lun};
use ashlar_iscsi::view::AluaState;

use crate::world::{TARGET, World, info, sense};

fn vpd(page: u8) -> [u8; 6] {
    [0x12, 1, page, 1, 0, 0]
}

#[test]
fn standard_inquiry_data_say_what_the_unit_is() {
    let data = World::small().data(&[0x12, 0, 0, 1, 0, 0]);
    assert_eq!(data.len(), 96);
    assert_eq!(data[..5], [0, 0, 6, 0x12, 91]);
    assert_eq!(data[5] & 0xF7, 0x30, "TPGS");
    assert_eq!(data[6..8], [0x10, 0x02]);
    assert_eq!(&data[8..32], b"ASHLAR  Virtual Disk    ");
    assert!(data[32..36].iter().all(u8::is_ascii));
    assert_eq!(data[58..66], [0x00, 0xA0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xC0]);
}

#[test]
fn inquiry_is_cut_to_what_is_asked_for() {
    let world = World::small();
    for len in [0_u16, 1, 4, 36, 96, 256, 65535] {
        let [high, low] = len.to_be_bytes();
        assert_eq!(world.data(&[0x12, 0, 0, high, low, 0]).len(), usize::from(len).min(96));
    }
    for cdb in [[0x12, 0, 1, 1, 0, 0], [0x12, 2, 0, 1, 0, 0], vpd(0x01), vpd(0xB6)] {
        assert_eq!(world.sense(&cdb, &[]), (5, 0x24, 0));
    }
}

#[test]
fn every_page_that_is_listed_is_there() {
    let world = World::small();
    for thin in [true, false] {
        world.memory.change(|info| info.thin = thin);
        let pages = world.data(&vpd(0x00));
        assert!(pages[4..].is_sorted());
        assert_eq!(pages[4..].contains(&0xB2), thin);
        for page in &pages[4..] {
            let data = world.data(&vpd(*page));
            assert_eq!(data[..2], [0, *page]);
            assert_eq!(usize::from(u16::from_be_bytes([data[2], data[3]])), data.len() - 4, "{page:#x}");
        }
    }
}

#[test]
fn the_unit_is_named_by_its_volume_and_the_port_by_its_target() {
    let world = World::small();
    assert_eq!(&world.data(&vpd(0x80))[4..], b"0123456789ab4def8123456789abcdef");
    let data = world.data(&vpd(0x83));
    let mut designators = BTreeMap::new();
    let mut rest = &data[4..];
    while let [set, kind, _, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*len));
        assert!(designators.insert(kind & 0x3F, (set & 0x0F, bytes.to_vec())).is_none());
        rest = tail;
    }
    assert!(rest.is_empty());
    let (set, naa) = &designators[&0x03];
    assert_eq!((*set, naa.len(), naa[0] >> 4), (1, 16, 6));
    let (set, vendor) = &designators[&0x01];
    assert_eq!((*set, &vendor[..8]), (2, &b"ASHLAR  "[..]));
    assert_eq!(designators[&0x14], (1, vec![0, 0, 0, 1]));
    assert_eq!(designators[&0x15], (1, vec![0, 0, 0, 1]));
    let name = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize((text.len() + 1).next_multiple_of(4), 0);
        (3, bytes)
    };
    assert_eq!(designators[&0x18], name(&format!("{TARGET},t,0x0001")));
    assert_eq!(designators[&0x28], name(TARGET));
}

#[test]
fn limits_agree_with_what_is_done() {
    let world = World::new(info(BlockSize::B4096, 1024));
    let data = world.data(&vpd(0xB0));
    let at = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
    assert_eq!((data.len(), data[4], data[5]), (64, 1, 128));
    assert_eq!(u16::from_be_bytes([data[6], data[7]]), 8);
    assert_eq!([at(8), at(12), at(20), at(24), at(28), at(32)], [256, 256, 1 << 20, 256, 8, 1 << 31]);
    assert_eq!((at(36), at(40), at(44)), (0, 4096, 0));
    world.memory.change(|info| (info.thin, info.atomic_write_blocks) = (false, 1 << 20));
    let data = world.data(&vpd(0xB0));
    assert!(data[20..36].iter().all(|byte| *byte == 0));
    assert_eq!(data[44..48], [0, 0, 1, 0]);
    assert_eq!(world.data(&vpd(0xB1))[4..6], [0, 1]);
}

#[test]
fn capacity_is_told_in_both_ways() {
    let world = World::small();
    assert_eq!(world.data(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [0, 0, 3, 0xFF, 0, 0, 2, 0]);
    let long = |len: u8| [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0];
    let data = world.data(&long(255));
    assert_eq!(data[..16], [0, 0, 0, 0, 0, 0, 3, 0xFF, 0, 0, 2, 0, 0, 3, 0xC0, 0]);
    for len in [0, 1, 15, 32] {
        assert_eq!(world.data(&long(len)).len(), usize::from(len));
    }
    world.memory.change(|info| (info.blocks, info.thin) = (1 << 40, false));
    assert_eq!(world.data(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0])[..4], [0xFF; 4]);
    assert_eq!(world.data(&long(32))[..8], [0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(world.data(&long(32))[14], 0);
}

#[test]
fn luns_are_reported_and_the_unmapped_answer_little() {
    let mut world = World::small();
    let luns = |select: u8, len: u8| [0xA0, 0, select, 0, 0, 0, 0, 0, 0, len, 0, 0];
    assert_eq!(world.data(&luns(0, 255)), [0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for select in [0x01, 0x10, 0x12] {
        assert_eq!(world.data(&luns(select, 255)), [0; 8]);
    }
    assert_eq!(world.data(&luns(2, 255)).len(), 16);
    assert_eq!(world.data(&luns(0, 1)).len(), 1);
    assert_eq!(world.sense(&luns(3, 255), &[]), (5, 0x24, 0));
    world.configure(|targets| {
        let units = &mut targets.targets.get_mut(TARGET).unwrap().units;
        let unit = units[&1].clone();
        units.insert(300, unit);
    });
    assert_eq!(world.data(&luns(0, 255))[16..], [0x41, 0x2C, 0, 0, 0, 0, 0, 0]);
    let other = |lun: u64, cdb: &[u8]| {
        let request = Request { lun, cdb: Cdb::new(cdb), ..world.request(&[], 0) };
        world.give(&world.nexus, &request, &[])
    };
    let first = |lun: u64| other(lun, &[0x12, 0, 0, 0, 255, 0]).data.gather()[0];
    assert_eq!(
        [first(0), first(lun::encode(2)), first(0xC101 << 48), first(u64::MAX)],
        [0x3F, 0x7F, 0x7F, 0x7F]
    );
    assert_eq!(first(0x4001 << 48), 0, "the flat form of a mapped LUN");
    for cdb in [&[0; 6][..], &vpd(0x83), &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0xFF; 10]] {
        let answer = other(0, cdb);
        assert_eq!(answer.status, Status::CheckCondition);
    }
    assert_eq!(sense(&other(0, &[0; 6])), (5, 0x25, 0));
    assert_eq!(other(0, &luns(0, 255)).data.bytes(), 24);
    let told = other(0, &[0x03, 0, 0, 0, 255, 0]);
    assert_eq!((told.status, told.data.gather()[12]), (Status::Good, 0x25));
}

#[test]
fn supported_operation_codes_are_those_of_the_table() {
    let world = World::small();
    let rsoc = |options: u8, opcode: u8, action: u8| {
        [0xA3, 0x0C, options, opcode, 0, action, 0, 0, 0xFF, 0xFF, 0, 0]
    };
    let all = world.data(&rsoc(0, 0, 0));
    let (descriptors, rest) = all[4..].as_chunks::<8>();
    assert!(rest.is_empty());
    assert_eq!(u32::from_be_bytes(all[..4].try_into().unwrap()) as usize, all.len() - 4);
    let missing = ["WRITE ATOMIC (16)"];
    assert_eq!(descriptors.len() + missing.len(), COMMANDS.len());
    for d in descriptors {
        let (opcode, action, has_action) = (d[0], d[3], d[5] & 1 != 0);
        let (right, wrong) = if has_action { (2, 1) } else { (1, 2) };
        assert_eq!(world.sense(&rsoc(wrong, opcode, action), &[]), (5, 0x24, 0), "{opcode:#x}");
        for option in [right, 3] {
            let one = world.data(&rsoc(option, opcode, action));
            assert_eq!((one[1], one[3], one[4]), (3, d[7], opcode));
            assert_eq!(one.len(), 4 + usize::from(d[7]));
            if has_action {
                assert_eq!(one[5] & 0x1F, action);
            }
        }
    }
    let timed = world.data(&rsoc(0x80, 0, 0));
    assert_eq!(timed.len(), 4 + 20 * descriptors.len());
    assert_eq!((timed[4 + 5] & 2, timed[4 + 9]), (2, 0x0A));
    assert_eq!(world.data(&rsoc(0x81, 0x28, 0)).len(), 4 + 10 + 12);
    for (options, opcode, action) in [(1, 0xFF, 0), (2, 0x9E, 0x1F), (3, 0x28, 1), (3, 0x9E, 0)] {
        assert_eq!(world.data(&rsoc(options, opcode, action)), [0, 1, 0, 0]);
    }
    assert_eq!(world.sense(&rsoc(4, 0, 0), &[]), (5, 0x24, 0));
    // A service action beyond the field in the CDB is none.
    assert_eq!(world.data(&[0xA3, 0x0C, 2, 0x9E, 1, 0x10, 0, 0, 0, 255, 0, 0]), [0, 1, 0, 0]);
    assert_eq!(world.data(&[0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]).len(), 1);
}

#[test]
fn task_management_functions_are_reported() {
    let world = World::small();
    assert_eq!(world.data(&[0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]), [0xDA, 0, 0, 0]);
    assert_eq!(world.data(&[0xA3, 0x0D, 0x80, 0, 0, 0, 0, 0, 0, 255, 0, 0])[..4], [0xDA, 0, 0, 12]);
}

#[test]
fn unknown_commands_and_unknown_service_actions_differ() {
    let world = World::small();
    assert_eq!(world.sense(&[0xFF; 10], &[]), (5, 0x20, 0));
    assert_eq!(world.sense(&[0x9E, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]), (5, 0x24, 0));
    let mut naca = [0x12, 0, 0, 0, 96, 4];
    assert_eq!(world.sense(&naca, &[]), (5, 0x24, 0));
    naca[5] = 0xC0;
    assert_eq!(world.data(&naca).len(), 96);
}

#[test]
fn port_groups_are_told_and_asked_to_change() {
    let mut world = World::small();
    let rtpg = |format: u8| [0xA3, format << 5 | 0x0A, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0];
    let group = [0, 0x8B, 0, 1, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(world.data(&rtpg(0)), [&[0, 0, 0, 16][..], &group].concat());
    assert_eq!(world.data(&rtpg(1)), [&[0, 0, 0, 20, 0x10, 60, 0, 0][..], &group].concat());
    assert_eq!(world.sense(&rtpg(2), &[]), (5, 0x24, 0));
    let set = |state: u8, group: u8| {
        let list = [0, 0, 0, 0, state, 0, 0, group];
        world.run(&[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], &list)
    };
    assert_eq!(set(0, 1).status, Status::Good, "as it is");
    assert_eq!(sense(&set(1, 1)), (4, 0x67, 0x0A), "nobody to ask");
    assert_eq!(sense(&set(2, 1)), (5, 0x26, 0));
    assert_eq!(sense(&set(0, 2)), (5, 0x26, 0));
    world
        .units
        .on_change_group(std::rc::Rc::new(|group, state| group == 1 && state == AluaState::NonOptimized));
    let list = [0, 0, 0, 0, 1, 0, 0, 1];
    let cdb = [0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    assert_eq!(world.run(&cdb, &list).status, Status::Good);
    assert_eq!(world.sense(&cdb, &list[..7]), (5, 0x0E, 3));
    assert_eq!(world.sense(&[0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0], &list[..7]), (5, 0x1A, 0));
}

#[test]
fn what_is_not_served_here_still_tells_what_it_is() {
    let mut world = World::small();
    for (state, want) in [(AluaState::Unavailable, (2, 4, 0x0C)), (AluaState::Transitioning, (2, 4, 0x0A))] {
        world.configure(|targets| {
            targets.targets.get_mut(TARGET).unwrap().port_groups.insert(1, state);
        });
        assert_eq!(world.sense(&[0; 6], &[]), (6, 0x2A, 6));
        assert_eq!(world.sense(&[0; 6], &[]), want);
        assert_eq!(world.sense(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[]), want);
        for cdb in [&[0x12, 0, 0, 0, 96, 0][..], &[0x1A, 8, 0x3F, 0, 255, 0], &vpd(0x83)] {
            assert_eq!(world.run(cdb, &[]).status, Status::Good, "{cdb:02x?}");
        }
        let groups = world.data(&[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]);
        assert_eq!(groups[4], state as u8);
    }
}

#[test]
fn the_small_commands_do_their_least() {
    let world = World::small();
    for cdb in [[0x1B, 0, 0, 0, 0, 0], [0x1B, 0, 0, 0, 1, 0], [0x1B, 1, 0, 0, 0x30, 0], [0x1D, 4, 0, 0, 0, 0]]
    {
        assert_eq!(world.run(&cdb, &[]).status, Status::Good);
    }
    for cdb in
        [[0x1B, 0, 0, 0, 2, 0], [0x1B, 0, 0, 0, 0x40, 0], [0x1D, 0x24, 0, 0, 0, 0], [0x1C, 1, 5, 0, 255, 0]]
    {
        assert_eq!(world.sense(&cdb, &[]), (5, 0x24, 0));
    }
    assert_eq!(world.data(&[0x1C, 1, 0, 0, 255, 0]), [0, 0, 0, 1, 0]);
    assert_eq!(world.run(&[0x1D, 0x10, 0, 0, 4, 0], &[0; 4]).status, Status::Good);
    assert_eq!(world.sense(&[0x1D, 0x10, 0, 0, 4, 0], &[7, 0, 0, 0]), (5, 0x26, 0));
    assert_eq!(world.data(&[0x4D, 0, 0x40, 0, 0, 0, 0, 0, 255, 0]), [0, 0, 0, 2, 0, 0x2F]);
    assert_eq!(world.data(&[0x4D, 0, 0x40, 0xFF, 0, 0, 0, 0, 255, 0]).len(), 10);
    assert_eq!(world.data(&[0x4D, 0, 0x6F, 0, 0, 0, 0, 0, 255, 0]).len(), 12);
    for cdb in [[0x4D, 1, 0x40, 0], [0x4D, 0, 0x41, 0], [0x4D, 0, 0x6F, 1]] {
        assert_eq!(world.sense(&[&cdb[..], &[0, 0, 0, 0, 255, 0]].concat(), &[]), (5, 0x24, 0));
    }
}
