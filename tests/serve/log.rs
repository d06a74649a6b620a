//! Log-structured volumes in a running node: from a device to volumes with data, snapshots, clones and restores, and
//! back, over stops and crashes.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use ashlar_cluster::api::{
    AttachVolumeRequest, Backing, DeviceState, OperationState, RefusalKind, UpdateVolumeRequest, VolumeView,
};
use ashlar_nvmeof::wire::Status;
use ashlar_perf::client::{Data, io};

use super::node::{Host, Node, PATIENCE, Place, volume};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const BLOCK: usize = 4096;

/// A node with one device, a sparse file of 2 GiB.
fn start(place: &Place) -> Node {
    let node = place.start();
    add(place, &node, "disk0");
    node
}

fn add(place: &Place, node: &Node, name: &str) {
    let path = place.path(name);
    let (code, said) = node.cli(&["device", "add", path.to_str().unwrap(), "--size", "2GiB"]);
    assert!(code == 0 && said.contains("2 GiB"), "{said}");
}

fn create(node: &Node, name: &str) -> VolumeView {
    let mut request = volume(name, Backing::Log { thick: false }, Some(64 * MIB));
    request.block_size_bytes = Some(BLOCK as u32);
    node.client.create_volume(&request).unwrap()
}

fn attach(node: &Node, name: &str) -> u32 {
    let request = AttachVolumeRequest { volume: name.into(), nsid: None };
    let target = node.client.attach_volume("t", &request).unwrap();
    target.namespaces.iter().find(|namespace| namespace.volume == name).unwrap().nsid
}

/// The whole of a command line that must succeed.
#[track_caller]
fn done(node: &Node, arguments: &[&str]) -> String {
    let (code, said) = node.cli(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

/// A command line that must be refused.
#[track_caller]
fn refused(node: &Node, arguments: &[&str], why: &str) {
    let (code, said) = node.cli(arguments);
    assert!(code == 4 && said.contains(why), "{arguments:?}: {code}: {said}");
}

impl Host {
    fn put(&mut self, nsid: u32, lba: u64, fill: u8) {
        assert_eq!(self.write(nsid, lba, &[fill; BLOCK]), Status::SUCCESS);
    }

    #[track_caller]
    fn assert_has(&mut self, nsid: u32, lba: u64, fill: u8) {
        assert!(self.read(nsid, lba, BLOCK as u32) == [fill; BLOCK], "block {lba} is not all {fill:#x}");
    }
}

/// Waits until `is_so`, which is asked again and again.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn snapshots_clones_and_restores_hold_what_they_should() {
    let place = Place::new();
    let node = start(&place);
    create(&node, "vm/boot");
    node.target("t", &["vm/boot"]);
    let mut host = node.connect("t");
    for lba in 0..8 {
        host.put(1, lba, 0xA0);
    }
    done(&node, &["snapshot", "create", "vm@a"]);
    for lba in [2, 3, 6] {
        host.put(1, lba, 0xB0);
    }
    let said = done(&node, &["snapshot", "diff", "vm@a/boot"]);
    assert!(said.ends_with("vm/boot: 12 KiB in 2 extents\n"), "{said}");

    done(&node, &["volume", "clone", "vm@a/boot", "test"]);
    let clone = attach(&node, "vm/test");
    host.assert_has(clone, 2, 0xA0);
    host.put(clone, 4, 0xC0);
    for (lba, fill) in [(2, 0xB0), (4, 0xA0), (6, 0xB0)] {
        host.assert_has(1, lba, fill);
    }
    refused(&node, &["snapshot", "delete", "vm@a", "--yes"], "cloned from it: vm/test");
    refused(&node, &["volume", "delete", "vm/boot", "--yes"], "attached");
    done(&node, &["snapshot", "create", "vm@b"]);
    refused(&node, &["snapshot", "restore", "vm@a", "--yes"], "in the way: vm@b");
    host.put(1, 0, 0xD0);
    host.put(clone, 0, 0xD1);
    refused(&node, &["snapshot", "restore", "vm@b", "--yes"], "attached to target t");
    drop(host);
    node.stop();

    let node = place.start();
    let mut host = node.connect("t");
    for (nsid, lba, fill) in
        [(1, 0, 0xD0), (1, 3, 0xB0), (clone, 0, 0xD1), (clone, 4, 0xC0), (clone, 3, 0xA0)]
    {
        host.assert_has(nsid, lba, fill);
    }
    let larger = UpdateVolumeRequest { size_bytes: Some(96 * MIB), ..UpdateVolumeRequest::default() };
    node.client.update_volume("vm/boot", &larger).unwrap();
    host.put(1, 80 * MIB / BLOCK as u64, 0xE0);
    drop(host);
    node.crash();

    let node = place.start();
    assert_eq!(node.client.volume("vm/boot").unwrap().size_bytes, 96 * MIB);
    done(&node, &["snapshot", "restore", "vm@b", "--force", "--yes"]);
    let mut host = node.connect("t");
    for (nsid, lba, fill) in [(1, 0, 0xA0), (1, 2, 0xB0), (clone, 0, 0xA0), (clone, 4, 0xC0)] {
        host.assert_has(nsid, lba, fill);
    }
    let size = |node: &Node, host: &mut Host| {
        let seen = host.controller.namespace(1).unwrap();
        (seen.blocks * u64::from(seen.block_bytes), node.client.volume("vm/boot").unwrap().size_bytes)
    };
    assert_eq!(size(&node, &mut host), (64 * MIB, 64 * MIB));
    drop(host);

    // Away in the order in which they hold each other.
    done(&node, &["target", "delete", "t", "--force", "--yes"]);
    refused(&node, &["volume", "delete", "vm/test", "--yes"], "snapshots hold it: vm@b");
    done(&node, &["snapshot", "delete", "vm@b", "--yes"]);
    done(&node, &["volume", "delete", "vm/test", "--yes"]);
    done(&node, &["snapshot", "delete", "vm@a", "--yes"]);
    done(&node, &["volume", "delete", "vm/boot", "--yes"]);
    assert!(node.client.groups().unwrap().groups.is_empty());
    wait_until("the space does not come back", || {
        node.client.devices().unwrap().devices[0].space.used_bytes == Some(0)
    });
    node.stop();
    let node = place.start();
    assert_eq!(node.client.status().unwrap().attention, Vec::<String>::new());
    create(&node, "vm/boot");
}

#[test]
fn what_is_shared_is_told_and_metrics_tell_space() {
    let place = Place::new();
    let node = start(&place);
    create(&node, "db");
    node.target("t", &["db"]);
    let mut host = node.connect("t");
    for lba in 0..64 {
        host.put(1, lba, lba as u8 + 1);
    }
    assert_eq!(host.flush(1), Status::SUCCESS);
    let space = || node.client.volume("db").unwrap().space;
    let bytes = |blocks: usize| Some((blocks * BLOCK) as u64);
    wait_until("what was written is not counted", || space().stored_bytes == bytes(64));
    assert_eq!(space().shared_bytes, Some(0));
    done(&node, &["snapshot", "create", "db@one"]);
    wait_until("what the snapshot holds is not told", || space().shared_bytes == bytes(64));
    assert_eq!(space().stored_bytes, Some(0));
    for lba in 0..16 {
        host.put(1, lba, lba as u8 + 100);
    }
    wait_until("what was overwritten still counts as shared", || {
        space().shared_bytes == bytes(48) && space().stored_bytes == bytes(16)
    });
    let group = || node.client.group("db").unwrap().space;
    assert!(group().stored_bytes.unwrap() + group().shared_bytes.unwrap() <= group().physical_bytes.unwrap());
    let id = node.client.volume("db").unwrap().id;
    let wanted = [
        format!("ashlar_volume_stored_bytes{{volume=\"{id}\"}} {}", 64 * BLOCK),
        format!("ashlar_volume_logical_bytes{{volume=\"{id}\"}} {}", 64 * BLOCK),
        "ashlar_device_free_bytes{device=".to_owned(),
        "ashlar_group_live_bytes{group=".to_owned(),
    ];
    wait_until("metrics do not tell space", || {
        let text = node.metrics();
        wanted.iter().all(|line| text.contains(line.as_str()))
    });
    node.stop();
}

#[test]
fn space_is_told_and_falls() {
    let place = Place::new();
    let node = start(&place);
    create(&node, "db");
    done(&node, &["group", "set", "db", "--compress", "lz4"]);
    node.target("t", &["db"]);
    let mut host = node.connect("t");
    for lba in 0..64 {
        host.put(1, lba, 0x11);
    }
    assert_eq!(host.flush(1), Status::SUCCESS);
    let space = || node.client.volume("db").unwrap().space;
    wait_until("what was written is not counted", || space().logical_bytes == Some(64 * BLOCK as u64));
    let now = space();
    assert!(now.stored_bytes < now.logical_bytes && now.compressed_bytes > Some(0), "{now:?}");
    let said = done(&node, &["volume", "list"]);
    assert!(said.contains("256 KiB"), "{said}");
    let (status, _) = host.call(io::write_zeroes(1, 0, 48), Data::None, &[]);
    assert_eq!(status, Status::SUCCESS);
    wait_until("what was zeroed is still counted", || space().logical_bytes == Some(16 * BLOCK as u64));
    host.assert_has(1, 47, 0);
    host.assert_has(1, 48, 0x11);
}

#[test]
fn a_device_is_emptied_and_taken_out_under_use() {
    let place = Place::new();
    let node = start(&place);
    create(&node, "db");
    node.target("t", &["db"]);
    let mut host = node.connect("t");
    for lba in 0..256 {
        host.put(1, lba, lba as u8);
    }
    let first = place.path("disk0");
    let first = first.to_str().unwrap();
    refused(&node, &["device", "remove", first, "--yes"], "no other device");
    add(&place, &node, "disk1");
    refused(&node, &["device", "add", first], "already");
    let said = done(&node, &["device", "remove", first, "--yes", "--watch"]);
    assert!(said.contains("done, after"), "{said}");
    let operations = node.client.operations().unwrap().operations;
    assert!(operations.iter().all(|operation| operation.state == OperationState::Done), "{operations:?}");
    assert_eq!(node.client.device(first).unwrap().state, DeviceState::Removed);
    for lba in 0..256 {
        host.assert_has(1, lba, lba as u8);
    }
    host.put(1, 7, 0x77);
    drop(host);
    node.crash();

    // The disk is not needed any more.
    fs::remove_file(first).unwrap();
    let node = place.start();
    assert_eq!(node.client.status().unwrap().attention, Vec::<String>::new());
    let mut host = node.connect("t");
    host.assert_has(1, 7, 0x77);
    host.assert_has(1, 255, 255);
    assert_eq!(done(&node, &["device", "remove", first, "--yes"]), format!("forgot {first}\n"));
    assert_eq!(node.client.devices().unwrap().devices.len(), 1);
}

#[test]
fn a_disk_that_holds_something_is_taken_only_when_told() {
    let place = Place::new();
    let node = place.start();
    let path = place.image("full.raw", 2 * GIB);
    super::node::overwrite(&path, &[0x5A; 1 << 16]);
    let path = path.to_str().unwrap();
    let (code, said) = node.cli(&["device", "add", path]);
    assert!(code != 0 && said.contains("--force") && said.contains("nothing was changed"), "{code} {said}");
    let mut begin = vec![0; 1 << 16];
    fs::File::open(path).unwrap().read_exact(&mut begin).unwrap();
    assert!(begin == [0x5A; 1 << 16], "the disk was written to");
    done(&node, &["device", "add", path, "--force", "--yes"]);
    create(&node, "db");
    let (code, said) = node.cli(&["device", "add", "/nowhere/disk"]);
    assert!(code == 3 && said.contains("/nowhere"), "{code} {said}");
    let thick = volume("thick", Backing::Log { thick: true }, Some(GIB << 10));
    let refusal = node.client.create_volume(&thick).unwrap_err().refusal;
    assert!(matches!(refusal.kind, RefusalKind::NoSpace | RefusalKind::Invalid), "{refusal:?}");
    assert_eq!(node.client.volumes().unwrap().volumes.len(), 1);
}

#[test]
fn the_devices_of_the_configuration_are_added_once() {
    let place = Place::new();
    let text = fs::read_to_string(place.config()).unwrap();
    let path = place.path("disk0");
    fs::write(place.config(), format!("{text}[[device]]\nfile = {path:?}\nsize = \"2GiB\"\n")).unwrap();
    let devices = |node: &Node| {
        wait_until("the device is not added", || !node.client.devices().unwrap().devices.is_empty());
        node.client.devices().unwrap().devices
    };
    let node = place.start();
    let first = devices(&node);
    assert_eq!((first.len(), first[0].size_bytes, first[0].state), (1, 2 * GIB, DeviceState::Active));
    create(&node, "db");
    node.stop();
    let node = place.start();
    assert_eq!(devices(&node)[0].id, first[0].id);
    assert_eq!(node.client.volume("db").unwrap().fault, None);
    node.stop();

    // Without its disk the node starts, and says what is missing.
    let away = place.path("away");
    fs::rename(&path, &away).unwrap();
    let mut node = place.start();
    let fault = node.client.volume("db").unwrap().fault;
    assert!(fault.is_some(), "{fault:?}");
    let attention = node.client.status().unwrap().attention;
    assert!(attention.iter().any(|line| line.contains("disk0")), "{attention:?}");
    node.assert_well();
    node.stop();
    fs::rename(&away, &path).unwrap();
    let node = place.start();
    assert_eq!(node.client.volume("db").unwrap().fault, None);
}
