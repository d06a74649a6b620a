//! Devices, groups, snapshots, clones and operations through the API, over an engine that only keeps count.

mod common;

use std::time::Duration;

use ashlar_cluster::api::*;
use ashlar_cluster::client::{Client, ClientError};
use ashlar_cluster::state::{Action, GroupId};
use common::Server;

const DISK: &str = "/dev/nvme1n1";

fn log(name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        backing: Backing::Log { thick: false },
        size_bytes: Some(1 << 20),
        block_size_bytes: None,
        read_only: false,
        compression: None,
        copies: None,
    }
}

fn device(path: &str) -> AddDeviceRequest {
    AddDeviceRequest { path: path.into(), size_bytes: None, force: false }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(reply: Result<T, ClientError>, exit_code: u8, why: &str) -> ClientError {
    let error = reply.expect_err("must be refused");
    assert_eq!(error.exit_code, exit_code, "{error:?}");
    assert!(error.refusal.why.contains(why), "{error:?}");
    error
}

/// A server with two disks, one of them a device.
fn start() -> (Server, Client) {
    let server = Server::start();
    let client = server.client();
    for disk in [DISK, "/dev/nvme2n1"] {
        server.engine().disks.insert(disk.into(), 1 << 40);
    }
    client.add_device(&device(DISK)).unwrap();
    (server, client)
}

#[test]
fn a_volume_needs_a_device_and_nothing_else() {
    let server = Server::start();
    let client = server.client();
    let error = refused(client.create_volume(&log("db")), 4, "no device for log-structured volumes");
    assert!(error.refusal.next.contains("ashlar device add"), "{error:?}");
    let reply = server.json("POST", "/v1/devices", r#"{"path":"/srv/disk0","size_bytes":68719476736}"#);
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    // A volume is log-structured and thin unless it says otherwise.
    let reply = server.json("POST", "/v1/volumes", r#"{"name":"db","size_bytes":1048576}"#);
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    let volume = client.volume("db").unwrap();
    assert_eq!(volume.backing, Backing::Log { thick: false });
    assert_eq!((volume.space.logical_bytes, volume.space.physical_bytes), (Some(4096), None));
    assert!(reply.contains("\"physical_bytes\":null"), "{reply}");
    let capacity = client.status().unwrap().capacity;
    assert_eq!((capacity.device_bytes, capacity.used_bytes), (64 << 30, Some(1 << 20)));
    client.delete_volume("db").unwrap();
    assert!(server.engine().volumes.is_empty());
}

#[test]
fn devices_from_addition_to_removal() {
    let (server, client) = start();
    let added = client.device(DISK).unwrap();
    assert_eq!((added.size_bytes, added.state, added.operation), (1 << 40, DeviceState::Active, None));
    assert_eq!(added.space.free_bytes, Some(1 << 30));
    assert_eq!(client.device(&added.id.to_string()).unwrap(), added);
    refused(client.add_device(&device(DISK)), 4, "already");
    refused(client.add_device(&device("/dev/none")), 3, "no file");
    refused(client.add_device(&device("nvme1n1")), 2, "absolute");
    refused(client.device("/dev/none"), 3, "no device /dev/none");
    let as_image = CreateVolumeRequest { backing: Backing::Image { path: DISK.into() }, ..log("x") };
    refused(client.create_volume(&as_image), 4, "is a device of this node");

    client.create_volume(&log("db")).unwrap();
    refused(client.remove_device(DISK, false), 4, "no other device");
    client.add_device(&device("/dev/nvme2n1")).unwrap();
    server.engine().full = true;
    assert_eq!(refused(client.remove_device(DISK, false), 1, "full").refusal.kind, RefusalKind::NoSpace);
    server.engine().full = false;
    let operation = client.remove_device(DISK, false).unwrap().unwrap();
    assert_eq!((operation.id, operation.what.as_str()), (1, "drain device /dev/nvme1n1"));
    assert_eq!((operation.state, operation.done_bytes), (OperationState::Running, Some(1)));
    assert_eq!(client.remove_device(DISK, false).unwrap().unwrap(), operation, "it goes on");
    let draining = client.device(DISK).unwrap();
    assert_eq!((draining.state, draining.operation), (DeviceState::Draining, Some(1)));
    assert_eq!(client.operation(1).unwrap(), operation);

    // The engine has moved everything.
    let finish = Action::FinishOperation { operation: 1, failure: None };
    common::block_on(server.control.submit(finish)).unwrap();
    let ended = client.operations().unwrap().operations;
    assert_eq!((ended.len(), ended[0].state), (1, OperationState::Done));
    assert_eq!(client.device(DISK).unwrap().state, DeviceState::Removed);
    assert_eq!(server.engine().devices.len(), 1);
    assert_eq!(client.remove_device(DISK, false).unwrap(), None);
    let paths: Vec<_> = client.devices().unwrap().devices.into_iter().map(|device| device.path).collect();
    assert_eq!(paths, ["/dev/nvme2n1"]);
    refused(client.operation(7), 3, "no operation 7");
    let reply = server.raw("GET /v1/operations/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
}

#[test]
fn a_failed_device_needs_attention() {
    let (server, client) = start();
    client.create_volume(&log("db")).unwrap();
    let id = client.device(DISK).unwrap().id;
    let fail = Action::FailDevice { device: id, why: "a write failed".into() };
    common::block_on(server.control.submit(fail)).unwrap();
    let device = client.device(DISK).unwrap();
    assert_eq!((device.state, device.fault.as_deref()), (DeviceState::Failed, Some("a write failed")));
    let attention = client.status().unwrap().attention;
    assert!(
        attention.iter().any(|line| line.contains(DISK) && line.contains("a write failed")),
        "{attention:?}"
    );
    refused(client.remove_device(DISK, false), 4, "may be nowhere else");
    assert_eq!(client.remove_device(DISK, true).unwrap(), None);
    assert!(client.devices().unwrap().devices.is_empty() && server.engine().devices.is_empty());
}

#[test]
fn groups_and_their_policy() {
    let (server, client) = start();
    let lz4 = |name: &str| CreateVolumeRequest { compression: Some(Compression::Lz4), ..log(name) };
    client.create_volume(&lz4("vm/boot")).unwrap();
    client.create_volume(&log("vm/data")).unwrap();
    client.create_volume(&log("db")).unwrap();
    refused(client.create_volume(&lz4("db/more")), 4, "its compression is none");
    let groups = client.groups().unwrap().groups;
    assert_eq!(groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["db", "vm"]);
    let vm = client.group("vm").unwrap();
    assert_eq!(vm, groups[1]);
    assert_eq!((vm.compression, vm.size_bytes, vm.snapshots), (Compression::Lz4, 2 << 20, 0));
    assert_eq!(vm.volumes, ["vm/boot", "vm/data"]);
    assert_eq!(vm.space.logical_bytes, Some(4096));

    let none = UpdateGroupRequest { compression: Some(Compression::None) };
    assert_eq!(client.update_group("vm", &none).unwrap().compression, Compression::None);
    let policies: Vec<Compression> =
        server.engine().policies.values().map(|policy| policy.compression).collect();
    assert_eq!(policies, [Compression::None; 2]);
    refused(client.update_group("vm", &UpdateGroupRequest::default()), 2, "changes nothing");
    refused(client.group("vn"), 3, "no group vn");
    refused(client.update_group("vn", &none), 3, "no group vn");
    let reply = server.json("PATCH", "/v1/groups/vm", r#"{"compression":"zip"}"#);
    assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("lz4"), "{reply}");
}

#[test]
fn snapshots_from_creation_to_deletion() {
    let (server, client) = start();
    for name in ["vm/boot", "vm/data", "db"] {
        client.create_volume(&log(name)).unwrap();
    }
    let made = client.create_snapshot("vm@a").unwrap();
    assert_eq!((made.name.as_str(), made.group.as_str(), made.id), ("vm@a", "vm", 7));
    let held: Vec<_> = made.volumes.iter().map(|held| (held.volume.as_str(), held.size_bytes)).collect();
    assert_eq!(held, [("vm/boot", 1 << 20), ("vm/data", 1 << 20)]);
    assert_eq!((made.exclusive_bytes, made.shared_bytes), (Some(1), Some(2)));
    assert_eq!(client.snapshot("vm@a").unwrap(), made);
    refused(client.create_snapshot("vm@a"), 4, "of that name");
    refused(client.create_snapshot("vm"), 2, "GROUP@SNAPSHOT");
    refused(client.create_snapshot("none@a"), 3, "no group none");
    refused(client.delete_volume("vm/boot"), 4, "snapshots hold it: vm@a");
    client.create_snapshot("db@x").unwrap();
    client.create_snapshot("vm@b").unwrap();
    let names = |group| {
        let list = client.snapshots(group).unwrap().snapshots;
        list.into_iter().map(|snapshot| snapshot.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["db@x", "vm@a", "vm@b"]);
    assert_eq!(names(Some("vm")), ["vm@a", "vm@b"]);
    refused(client.snapshots(Some("none")), 3, "no group none");
    assert_eq!(client.volume("vm/boot").unwrap().snapshots, 2);
    assert_eq!(client.group("vm").unwrap().snapshots, 2);
    assert_eq!(client.status().unwrap().counts.snapshots, 3);

    // A reply does not wait for ever for what snapshots take, and nothing else waits for it at all.
    server.engine().space_delay = Duration::from_secs(3600);
    client.volumes().unwrap();
    let list = client.snapshots(None).unwrap().snapshots;
    assert!(list.len() == 3 && list.iter().all(|snapshot| snapshot.exclusive_bytes.is_none()), "{list:?}");
    server.engine().space_delay = Duration::ZERO;

    refused(client.restore_snapshot("vm@a", false), 4, "in the way: vm@b");
    let larger = UpdateVolumeRequest { size_bytes: Some(2 << 20), ..Default::default() };
    client.update_volume("vm/data", &larger).unwrap();
    assert_eq!(client.restore_snapshot("vm@b", false).unwrap().name, "vm@b");
    assert_eq!(client.volume("vm/data").unwrap().size_bytes, 1 << 20);
    assert_eq!(server.engine().restored, [21]);

    let server = server.restart();
    let client = server.client();
    assert_eq!(client.snapshots(None).unwrap().snapshots.len(), 3, "they are kept");
}

#[test]
fn clones_hold_their_snapshot() {
    let (server, client) = start();
    for name in ["vm/boot", "vm/data", "db"] {
        client.create_volume(&log(name)).unwrap();
    }
    client.create_snapshot("vm@a").unwrap();
    client.create_snapshot("db@a").unwrap();
    let clone = client.clone_volume("vm@a/boot", "test").unwrap();
    assert_eq!((clone.name.as_str(), clone.origin.as_deref()), ("vm/test", Some("vm@a")));
    assert_eq!(client.clone_volume("db@a", "db/test").unwrap().name, "db/test");
    assert_eq!(client.snapshot("vm@a").unwrap().clones, ["vm/test"]);
    refused(client.clone_volume("vm@a", "x"), 2, "holds 2 volumes");
    refused(client.clone_volume("vm@a/boot", "other/x"), 4, "stays in group vm");
    refused(client.clone_volume("vm/boot", "x"), 2, "GROUP@SNAPSHOT/VOLUME");
    refused(client.clone_volume("vm@a/boot", "x y"), 2, "' '");
    refused(client.delete_snapshot("vm@a"), 4, "cloned from it: vm/test");
    client.delete_volume("vm/test").unwrap();
    client.delete_snapshot("vm@a").unwrap();
    refused(client.delete_snapshot("vm@a"), 3, "no snapshot vm@a");
    assert_eq!(server.engine().snapshots.len(), 1);
    assert_eq!(server.engine().volumes.len(), 4);
}

#[test]
fn a_difference_comes_in_parts() {
    let (server, client) = start();
    for name in ["vm/boot", "vm/data", "db"] {
        client.create_volume(&log(name)).unwrap();
    }
    for name in ["vm@a", "vm@b", "db@a"] {
        client.create_snapshot(name).unwrap();
    }
    let mut found = Vec::new();
    let mut from = Some(0);
    while let Some(offset) = from {
        let part = client.diff("vm@a", Some("vm@b"), Some("data"), offset).unwrap();
        assert_eq!((part.volume.as_str(), part.to.as_deref()), ("vm/data", Some("vm@b")));
        assert_eq!(part.extents.len(), 4);
        found.extend(part.extents.iter().map(|extent| extent.offset_bytes));
        from = part.next_offset_bytes;
    }
    assert_eq!(found, (0..16).map(|n| n << 16).collect::<Vec<u64>>());
    let query = server.engine().diffs[0];
    assert_ne!(query.group, GroupId(0));
    assert_eq!((query.from, query.to, query.offset_bytes), (7, Some(14), 0));
    assert_eq!(client.diff("db@a", None, None, 0).unwrap().to, None);
    refused(client.diff("vm@a", None, None, 0), 2, "holds 2 volumes");
    refused(client.diff("vm@b", Some("vm@a"), Some("data"), 0), 2, "no later snapshot");
    refused(client.diff("vm@a", Some("db@a"), Some("data"), 0), 2, "of another group");
    refused(client.diff("vm@a", Some("vm@c"), Some("data"), 0), 3, "no snapshot vm@c");
    refused(client.diff("vm@a", None, Some("none"), 0), 3, "no such volume");
    let get = |path: &str| {
        server.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    };
    assert!(get("/v1/snapshots/db@a/diff?extents_max=0").starts_with("HTTP/1.1 400"));
    assert!(get("/v1/snapshots/db@a/diff?extents_max=2").contains("\"next_offset_bytes\":131072"));
}

#[test]
fn a_full_engine_refuses_and_keeps_what_there_is() {
    let (server, client) = start();
    client.create_volume(&log("db")).unwrap();
    server.engine().full = true;
    let thick = CreateVolumeRequest { backing: Backing::Log { thick: true }, ..log("thick") };
    let error = refused(client.create_volume(&thick), 1, "the devices are full");
    assert_eq!(
        (error.refusal.what.as_str(), error.refusal.kind),
        ("create volume thick", RefusalKind::NoSpace)
    );
    refused(client.create_snapshot("db@a"), 1, "the devices are full");
    assert_eq!(client.volumes().unwrap().volumes.len(), 1);
    server.engine().full = false;
    client.create_volume(&thick).unwrap();
    client.create_snapshot("db@a").unwrap();
}
