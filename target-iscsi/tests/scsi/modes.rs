//! Mode pages.

use ashlar_iscsi::scsi::Status;

use crate::world::{World, cdb_16, sense};

const CONTROL: u8 = 0x0A;

/// MODE SENSE (6) without block descriptors: control and page code, subpage code.
fn mode_sense(control: u8, page: u8, subpage: u8) -> [u8; 6] {
    [0x1A, 0x08, control << 6 | page, subpage, 255, 0]
}

/// MODE SELECT (6) of a page.
fn select(world: &World, page: &[u8]) -> (Status, Option<(u8, u8, u8)>) {
    let list = [&[0; 4], page].concat();
    let answer = world.run(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list);
    (answer.status, (answer.status == Status::CheckCondition).then(|| sense(&answer)))
}

/// The control page now.
fn control(world: &World) -> Vec<u8> {
    world.data(&mode_sense(0, CONTROL, 0))[4..].to_vec()
}

#[test]
fn all_pages_are_what_each_is_alone() {
    let world = World::small();
    for values in 0..3 {
        let all = world.data(&mode_sense(values, 0x3F, 0xFF));
        assert_eq!(usize::from(all[0]), all.len() - 1);
        let each = [(0x08, 0), (0x0A, 0), (0x0A, 1), (0x1C, 0)];
        let each = each.map(|(page, subpage)| world.data(&mode_sense(values, page, subpage))[4..].to_vec());
        assert_eq!(all[4..], each.concat());
        let plain = world.data(&mode_sense(values, 0x3F, 0));
        assert_eq!(plain[4..], [&each[0][..], &each[1], &each[3]].concat());
        assert_eq!(world.data(&mode_sense(values, CONTROL, 0xFF))[4..], [&each[1][..], &each[2]].concat());
    }
}

#[test]
fn the_header_tells_of_the_unit() {
    let world = World::small();
    let data = world.data(&[0x1A, 0, 0x3F, 0, 255, 0]);
    assert_eq!(data[2..12], [0x10, 8, 0, 0, 4, 0, 0, 0, 2, 0], "DPOFUA, and 1024 blocks of 512 bytes");
    let long = world.data(&[0x5A, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(long[..8], [0, 42, 0, 0x10, 1, 0, 0, 16]);
    assert_eq!(long[8..24], [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    assert_eq!(long[24..27], [0x08, 0x12, 0x04], "a write cache");
    world.memory.change(|info| (info.read_only, info.volatile_cache) = (true, false));
    let long = world.data(&[0x5A, 0x08, 0x08, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!((long[3], long[10]), (0x90, 0x00));
    for cut in [0, 1, 4, 20] {
        assert_eq!(world.data(&[0x1A, 0, 0x3F, 0, cut, 0]).len(), usize::from(cut));
    }
}

#[test]
fn mode_sense_refuses_what_is_not_there() {
    let world = World::small();
    assert_eq!(world.sense(&mode_sense(3, 0x3F, 0), &[]), (5, 0x39, 0), "nothing is saved");
    for (page, subpage) in [(0x02, 0), (0x19, 0), (0x08, 1), (0x0A, 2), (0x3F, 1), (0x05, 0xFF)] {
        assert_eq!(world.sense(&mode_sense(0, page, subpage), &[]), (5, 0x24, 0), "{page:#x}/{subpage:#x}");
    }
}

#[test]
fn descriptor_sense_is_given_when_it_is_asked_for() {
    let world = World::small();
    let mut page = control(&world);
    page[2] |= 0x04;
    assert_eq!(select(&world, &page).0, Status::Good);
    assert_eq!(control(&world), page);
    let answer = world.run(&cdb_16(0x88, u64::MAX, 1), &[]);
    assert_eq!(answer.sense.unwrap()[..8], [0x72, 5, 0x21, 0, 0, 0, 0, 0]);
    assert_eq!(world.data(&mode_sense(2, CONTROL, 0))[4 + 2] & 0x04, 0, "the default stays");
    page[2] &= !0x04;
    assert_eq!(select(&world, &page).0, Status::Good);
    assert_eq!(world.sense(&cdb_16(0x88, u64::MAX, 1), &[]), (5, 0x21, 0));
}

#[test]
fn software_write_protection_protects() {
    let world = World::small();
    let mut page = control(&world);
    page[4] |= 0x08;
    assert_eq!(select(&world, &page).0, Status::Good);
    assert_eq!(world.sense(&cdb_16(0x8A, 0, 1), &[0; 512]), (7, 0x27, 2));
    assert_eq!(world.data(&mode_sense(0, 0x3F, 0))[2], 0x90);
    assert_eq!(world.run(&cdb_16(0x88, 0, 1), &[]).status, Status::Good);
    page[4] &= !0x08;
    assert_eq!(select(&world, &page).0, Status::Good);
    assert_eq!(world.run(&cdb_16(0x8A, 0, 1), &[0; 512]).status, Status::Good);
}

#[test]
fn other_nexuses_learn_of_a_change_and_only_of_a_change() {
    let world = World::small();
    let other = world.other(2);
    let ready = [0; 6];
    assert_eq!(sense(&world.run_as(&other, &ready, &[])), (6, 0x29, 0));
    let mut page = control(&world);
    assert_eq!(select(&world, &page).0, Status::Good);
    assert_eq!(world.run_as(&other, &ready, &[]).status, Status::Good);
    page[2] |= 0x04;
    assert_eq!(select(&world, &page).0, Status::Good);
    assert_eq!(world.run(&ready, &[]).status, Status::Good);
    let answer = world.run_as(&other, &ready, &[]);
    assert_eq!(answer.sense.unwrap()[..4], [0x72, 6, 0x2A, 1]);
}

#[test]
fn mode_select_refuses_what_may_not_change() {
    let world = World::small();
    let (page, caching) = (control(&world), world.data(&mode_sense(0, 0x08, 0))[4..].to_vec());
    let wrong = |page: &[u8], at: usize, value: u8| {
        let mut page = page.to_vec();
        page[at] ^= value;
        select(&world, &page).1
    };
    let field = Some((5, 0x26, 0));
    assert_eq!(wrong(&caching, 2, 0x04), field, "WCE");
    assert_eq!(wrong(&page, 3, 0x10), field, "QUEUE ALGORITHM MODIFIER");
    assert_eq!(wrong(&page, 0, 0x0F), field, "no such page");
    // A page that says it is longer, or shorter.
    assert_eq!(wrong(&page, 1, 0x01), field);
    assert_eq!(wrong(&page, 1, 0x10), field);
    assert_eq!(select(&world, &page[..8]).1, Some((5, 0x1A, 0)), "a page that is cut off");
    // A list with one wrong page changes nothing.
    let mut changed = page.clone();
    changed[4] |= 0x08;
    let mut bad = caching.clone();
    bad[2] ^= 0x04;
    assert_eq!(select(&world, &[changed, bad].concat()).1, field);
    assert_eq!(control(&world), page);
}

#[test]
fn mode_select_headers_are_checked() {
    let world = World::small();
    let page = control(&world);
    let give = |flags: u8, list: &[u8]| world.run(&[0x15, flags, 0, 0, list.len() as u8, 0], list);
    assert_eq!(give(0x10, &[]).status, Status::Good, "no list");
    assert_eq!(give(0x10, &[0; 4]).status, Status::Good, "no page");
    for len in 1..4 {
        assert_eq!(sense(&give(0x10, &[0; 4][..len])), (5, 0x1A, 0));
    }
    assert_eq!(sense(&give(0x00, &[0; 4])), (5, 0x24, 0), "PF");
    assert_eq!(sense(&give(0x11, &[0; 4])), (5, 0x24, 0), "SP");
    let with = |blocks: [u8; 4], size: [u8; 4]| [&[0, 0, 0, 8][..], &blocks, &size, &page].concat();
    for blocks in [[0; 4], [0xFF; 4], [0, 0, 4, 0]] {
        for size in [[0; 4], [0, 0, 2, 0]] {
            assert_eq!(give(0x10, &with(blocks, size)).status, Status::Good);
        }
    }
    assert_eq!(sense(&give(0x10, &with([0, 0, 4, 1], [0; 4]))), (5, 0x26, 0));
    assert_eq!(sense(&give(0x10, &with([0; 4], [0, 0, 0x10, 0]))), (5, 0x26, 0));
    assert_eq!(sense(&give(0x10, &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0])), (5, 0x26, 0));
    assert_eq!(sense(&give(0x10, &[0, 0, 0, 8, 0, 0])), (5, 0x1A, 0));
    let long = [&[0, 0, 0, 0, 1, 0, 0, 16][..], &[0, 0, 0, 0, 0, 0, 4, 0], &[0; 8], &page].concat();
    let cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, long.len() as u8, 0];
    assert_eq!(world.run(&cdb, &long).status, Status::Good);
}
