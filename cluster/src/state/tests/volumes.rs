//! Volumes, groups and saved reservations.

use crate::state::testing::*;
use crate::state::*;

fn create(text: &str) -> Action {
    Action::CreateVolume(new_volume(text))
}

fn with(text: &str, change: impl FnOnce(&mut NewVolume)) -> Action {
    let mut new = new_volume(text);
    change(&mut new);
    Action::CreateVolume(new)
}

fn image(path: &str) -> Backing {
    Backing::Image { path: path.into() }
}

fn resize(text: &str, size_bytes: u64, allow_shrink: bool) -> Action {
    Action::ResizeVolume { volume: volume_name(text), size_bytes, allow_shrink }
}

fn rename(from: &str, to: &str) -> Action {
    Action::RenameVolume { volume: volume_name(from), to: volume_name(to) }
}

fn delete(text: &str) -> Action {
    Action::DeleteVolume { volume: volume_name(text) }
}

#[test]
fn creating_fills_every_field() {
    let mut state = State::default();
    let events = run(
        &mut state,
        [with("shop/db", |new| {
            new.backing = image("/srv/db.raw");
            new.block_size_bytes = Some(4096);
            new.read_only = true;
        })],
    );
    let id = VolumeId(id_of("shop/db"));
    assert_eq!(events, [Event::VolumeCreated { volume: id }]);
    let expected = Volume {
        id,
        name: volume_name("shop/db"),
        size_bytes: 1 << 20,
        block_size_bytes: 4096,
        backing: image("/srv/db.raw"),
        read_only: true,
        created_ms: 1_790_000_000_000,
        reservation: None,
        origin: None,
    };
    assert_eq!(state.volume(&volume_name("shop/db")), Some(&expected));
    assert_eq!(state.groups().keys().collect::<Vec<_>>(), [&name("shop")]);
    run(&mut state, [create("plain")]);
    assert_eq!(state.volume(&volume_name("plain")).unwrap().block_size_bytes, 512);
}

#[test]
fn creating_is_refused_for_what_is_there() {
    let mut state = State::default();
    run(&mut state, [create("db"), with("img", |new| new.backing = image("/a.raw"))]);
    assert_eq!(refused(&mut state, create("db")).kind, RefusalKind::Exists);
    let same_id = with("other", |new| new.id = VolumeId(id_of("db")));
    assert_eq!(refused(&mut state, same_id).kind, RefusalKind::Exists);
    let same_image = refused(&mut state, with("other", |new| new.backing = image("/a.raw")));
    assert_eq!(same_image.kind, RefusalKind::InUse);
    assert!(same_image.why.contains("volume img serves /a.raw"), "{same_image:?}");
}

#[test]
fn creating_is_refused_for_impossible_geometry() {
    let mut state = State::default();
    let sizes = |size, block| {
        with("db", |new| {
            new.size_bytes = size;
            new.block_size_bytes = block;
        })
    };
    for (size, block, why) in [
        (None, None, "no size was given"),
        (Some(0), None, "must not be zero"),
        (Some(1000), None, "no multiple of the block size, 512"),
        (Some(512), Some(4096), "no multiple of the block size, 4096"),
        (Some(4096), Some(1024), "512 or 4096 bytes, not 1024"),
        (Some(4096), Some(0), "512 or 4096"),
        (Some(VOLUME_BYTES_MAX + 512), None, "the most is"),
        (Some(u64::MAX), None, "the most is"),
    ] {
        let refusal = refused(&mut state, sizes(size, block));
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert!(refusal.why.contains(why), "{size:?} {block:?}: {refusal:?}");
    }
    run(&mut state, [sizes(Some(VOLUME_BYTES_MAX), Some(4096))]);
}

#[test]
fn creating_is_refused_for_impossible_images() {
    let mut state = State::default();
    let long = format!("/{}", "x".repeat(IMAGE_PATH_BYTES_MAX));
    for (path, why) in [("disk.raw", "absolute"), ("", "absolute"), (&long, "longer"), ("/a\0b", "zero byte")]
    {
        let refusal = refused(&mut state, with("db", |new| new.backing = image(path)));
        assert_eq!(refusal.kind, RefusalKind::Invalid);
        assert!(refusal.why.contains(why), "{path:?}: {refusal:?}");
    }
}

#[test]
fn a_volume_grows_and_shrinks_only_when_told() {
    let mut state = State::default();
    run(&mut state, [create("db")]);
    let events = run(&mut state, [resize("db", 2 << 20, false)]);
    let id = VolumeId(id_of("db"));
    let expected = Event::VolumeResized {
        volume: id,
        backing: Backing::Memory,
        size_bytes_before: 1 << 20,
        size_bytes: 2 << 20,
    };
    assert_eq!(events, [expected]);
    assert_eq!(run(&mut state, [resize("db", 2 << 20, false)]), []);
    let refusal = refused(&mut state, resize("db", 1 << 20, false));
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(refusal.next.contains("--allow-shrink"), "{refusal:?}");
    run(&mut state, [resize("db", 1 << 20, true)]);
    assert_eq!(state.volumes()[&id].size_bytes, 1 << 20);
    assert_eq!(refused(&mut state, resize("db", 1000, true)).kind, RefusalKind::Invalid);
    assert_eq!(refused(&mut state, resize("none", 1024, true)).kind, RefusalKind::NotFound);
}

#[test]
fn a_volume_is_renamed_within_its_group() {
    let mut state = State::default();
    run(&mut state, [create("db"), create("shop/a"), create("shop/b")]);
    let ana_group_id = state.groups()[&name("db")].ana_group_id;

    let events = run(&mut state, [rename("shop/a", "shop/c")]);
    assert_eq!(
        events,
        [Event::VolumeRenamed { volume: VolumeId(id_of("shop/a")), from: volume_name("shop/a") }]
    );
    assert_eq!(refused(&mut state, rename("shop/a", "shop/d")).kind, RefusalKind::NotFound);
    assert_eq!(refused(&mut state, rename("shop/c", "shop/b")).kind, RefusalKind::Exists);
    assert_eq!(refused(&mut state, rename("shop/c", "alone")).kind, RefusalKind::Conflict);
    assert_eq!(refused(&mut state, rename("db", "shop/db")).kind, RefusalKind::Exists);
    assert_eq!(run(&mut state, [rename("db", "db")]), []);

    // Alone in a group of its own, it takes the group along: hosts see the same ANA group.
    run(&mut state, [rename("db", "prod")]);
    assert!(!state.groups().contains_key(&name("db")));
    assert_eq!(state.groups()[&name("prod")].ana_group_id, ana_group_id);
}

#[test]
fn renaming_a_group_keeps_its_path_state() {
    let mut state = State::default();
    let group = name("db");
    run(
        &mut state,
        [
            create("db"),
            Action::CreateTarget(new_target("t")),
            Action::AttachVolume { target: name("t"), volume: volume_name("db"), nsid: None },
            Action::SetAnaState { target: name("t"), group, state: AnaState::Inaccessible },
            rename("db", "prod"),
        ],
    );
    assert_eq!(state.targets()[&name("t")].ana_state(&name("prod")), AnaState::Inaccessible);
    assert_eq!(state.targets()[&name("t")].nsid_of(VolumeId(id_of("db"))), Some(1));
}

#[test]
fn deleting_is_refused_while_attached() {
    let mut state = State::default();
    run(
        &mut state,
        [
            create("db"),
            Action::CreateTarget(new_target("t")),
            Action::AttachVolume { target: name("t"), volume: volume_name("db"), nsid: None },
        ],
    );
    let refusal = refused(&mut state, delete("db"));
    assert_eq!(refusal.kind, RefusalKind::InUse);
    assert_eq!(refusal.next, "ashlar target detach t db");
    run(&mut state, [Action::DetachVolume { target: name("t"), volume: volume_name("db") }]);
    let events = run(&mut state, [delete("db")]);
    assert!(matches!(&events[..], [Event::VolumeDeleted { volume, .. }] if volume.name == volume_name("db")));
    let refusal = refused(&mut state, delete("db"));
    assert_eq!(refusal.kind, RefusalKind::NotFound);
}

#[test]
fn a_group_lives_as_long_as_its_volumes_and_numbers_are_reused() {
    let mut state = State::default();
    // Neighbours in the order of names, in three groups.
    run(&mut state, [create("db"), create("db-2"), create("db/x"), create("db.3")]);
    let number =
        |state: &State, group: &str| state.groups().get(&name(group)).map(|group| group.ana_group_id);
    assert_eq!(number(&state, "db"), Some(1));
    assert_eq!(number(&state, "db-2"), Some(2));
    assert_eq!(number(&state, "db.3"), Some(3));
    run(&mut state, [delete("db")]);
    assert_eq!(number(&state, "db"), Some(1));
    run(&mut state, [delete("db/x")]);
    assert_eq!(number(&state, "db"), None);
    run(&mut state, [create("new")]);
    assert_eq!(number(&state, "new"), Some(1));
}

#[test]
fn a_reservation_is_saved_once_per_generation() {
    let mut state = State::default();
    run(&mut state, [create("db")]);
    let volume = VolumeId(id_of("db"));
    let save = |generation, blob: &[u8]| Action::SetReservation { volume, generation, blob: blob.into() };
    assert_eq!(refused(&mut state, save(0, b"a")).kind, RefusalKind::Invalid);
    assert_eq!(run(&mut state, [save(1, b"a")]), [Event::ReservationSaved { volume, generation: 1 }]);
    assert_eq!(run(&mut state, [save(1, b"a")]), []);
    assert_eq!(refused(&mut state, save(1, b"b")).kind, RefusalKind::Conflict);
    run(&mut state, [save(7, b"c")]);
    assert_eq!(refused(&mut state, save(6, b"d")).kind, RefusalKind::Conflict);
    let too_large = vec![0; RESERVATION_BYTES_MAX + 1];
    assert_eq!(refused(&mut state, save(8, &too_large)).kind, RefusalKind::Limit);
    run(&mut state, [save(8, &too_large[1..]), rename("db", "prod")]);
    assert_eq!(state.volumes()[&volume].reservation.as_ref().unwrap().generation, 8);
    run(&mut state, [delete("prod")]);
    assert_eq!(refused(&mut state, save(9, b"e")).kind, RefusalKind::NotFound);
}
