//! Unit attentions: who is told what, when, and how often.

use ashlar_iscsi::scsi::sense::Asc;
use ashlar_iscsi::scsi::{Request, Status};

use crate::world::{TARGET, World, cdb_16, sense};

const READY: [u8; 6] = [0; 6];

#[test]
fn a_new_nexus_is_told_once_and_its_inquiries_are_answered() {
    let world = World::small();
    let other = world.other(2);
    for cdb in [&[0x12, 0, 0, 0, 96, 0][..], &[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]] {
        assert_eq!(world.run_as(&other, cdb, &[]).status, Status::Good);
    }
    assert_eq!(sense(&world.run_as(&other, &READY, &[])), (6, 0x29, 0));
    assert_eq!(world.run_as(&other, &READY, &[]).status, Status::Good);
    assert_eq!(world.run(&READY, &[]).status, Status::Good);
}

#[test]
fn a_command_that_meets_a_unit_attention_does_nothing() {
    let world = World::small();
    let other = world.other(2);
    assert_eq!(sense(&world.run_as(&other, &cdb_16(0x8A, 0, 1), &[1; 512])), (6, 0x29, 0));
    assert_eq!(world.memory.bytes()[0], 0);
}

#[test]
fn request_sense_takes_what_waits() {
    let world = World::small();
    let other = world.other(2);
    let told = world.run_as(&other, &[0x03, 0, 0, 0, 255, 0], &[]);
    assert_eq!((told.status, told.data.gather()[2], told.data.gather()[12]), (Status::Good, 6, 0x29));
    assert_eq!(world.run_as(&other, &READY, &[]).status, Status::Good);
    assert_eq!(world.data(&[0x03, 0, 0, 0, 255, 0])[2], 0);
    assert_eq!(world.data(&[0x03, 1, 0, 0, 255, 0])[..4], [0x72, 0, 0, 0]);
    assert_eq!(world.data(&[0x03, 0, 0, 0, 4, 0]).len(), 4);
}

#[test]
fn a_resize_is_told_to_all() {
    let mut world = World::small();
    world.configure(|targets| {
        let target = targets.targets.get_mut(TARGET).unwrap();
        target.units.get_mut(&1).unwrap().volume.blocks = 2048;
    });
    assert_eq!(world.sense(&READY, &[]), (6, 0x2A, 9));
    // The same again is no news.
    let targets = world.targets.clone();
    world.shared.announce(&targets);
    assert_eq!(world.run(&READY, &[]).status, Status::Good);
}

#[test]
fn what_is_mapped_anew_is_told_until_it_is_looked_at() {
    let mut world = World::small();
    let add = |world: &mut World, lun: u16| {
        world.configure(|targets| {
            let units = &mut targets.targets.get_mut(TARGET).unwrap().units;
            let mut unit = units[&1].clone();
            unit.volume.id = ashlar_env::units::VolumeId(uuid::Uuid::from_u128(lun.into()));
            units.insert(lun, unit);
        });
    };
    add(&mut world, 2);
    assert_eq!(world.sense(&READY, &[]), (6, 0x3F, 0x0E));
    add(&mut world, 3);
    world.data(&[0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]);
    assert_eq!(world.run(&READY, &[]).status, Status::Good);
}

#[test]
fn what_changes_of_a_unit_is_told_by_its_kind() {
    let mut world = World::small();
    let change = |world: &mut World, change: fn(&mut ashlar_iscsi::view::Unit)| {
        world.configure(|targets| {
            change(targets.targets.get_mut(TARGET).unwrap().units.get_mut(&1).unwrap());
        });
        world.run(&READY, &[])
    };
    assert_eq!(change(&mut world, |unit| unit.name = "other".into()).status, Status::Good, "no host sees it");
    assert_eq!(sense(&change(&mut world, |unit| unit.volume.thin = false)), (6, 0x3F, 3));
    assert_eq!(sense(&change(&mut world, |unit| unit.volume.read_only = true)), (6, 0x2A, 1));
}

#[test]
fn a_reset_undoes_mode_parameters_and_is_told_to_all() {
    let world = World::small();
    let other = world.other(2);
    world.run_as(&other, &READY, &[]);
    let mut page = world.data(&[0x1A, 8, 0x0A, 0, 255, 0]);
    page[4 + 4] |= 0x08;
    page[..4].fill(0);
    assert_eq!(world.run(&[0x15, 0x10, 0, 0, page.len() as u8, 0], &page).status, Status::Good);
    assert_eq!(sense(&world.run_as(&other, &READY, &[])), (6, 0x2A, 1));
    let id = world.targets.targets[TARGET].units[&1].volume.id;
    world.shared.reset_unit(id);
    assert_eq!(sense(&world.run(&READY, &[])), (6, 0x29, 3));
    assert_eq!(world.run(&cdb_16(0x8A, 0, 1), &[0; 512]).status, Status::Good);
    assert_eq!(sense(&world.run_as(&other, &READY, &[])), (6, 0x29, 3));
    world.shared.reset_target(&world.targets.targets[TARGET]);
    assert_eq!(sense(&world.run_as(&other, &READY, &[])), (6, 0x29, 0));
    assert_eq!(sense(&world.run(&READY, &[])), (6, 0x29, 0));
    assert_eq!(world.run(&READY, &[]).status, Status::Good);
}

#[test]
fn a_nexus_that_ended_is_told_nothing() {
    let world = World::small();
    let id = world.targets.targets[TARGET].units[&1].volume.id;
    let (gone, stays) = (world.other(2), world.other(3));
    let state = std::sync::Arc::clone(gone.state());
    while state.take(id).is_some() {}
    drop(gone);
    assert_eq!(world.shared.nexuses().len(), 2);
    world.shared.raise(id, Asc::RESERVATIONS_PREEMPTED, |nexus| nexus.issuer.session != 1);
    assert!(!state.any());
    assert_eq!(sense(&world.run_as(&stays, &READY, &[])), (6, 0x29, 0));
    assert_eq!(sense(&world.run_as(&stays, &READY, &[])), (6, 0x2A, 3));
}

#[test]
fn the_aca_attribute_is_refused_without_aca() {
    let world = World::small();
    let request = Request { attribute: ashlar_iscsi::scsi::Attribute::Aca, ..world.request(&READY, 0) };
    assert_eq!(sense(&world.give(&world.nexus, &request, &[])), (5, 0x49, 0));
}
