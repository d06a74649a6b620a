//! What a node refuses: to start where it cannot, and volumes that it cannot serve. Each refusal has the exit code
//! of its kind and tells what, why, what was not lost, and what to do.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use ashlar_cluster::api::{CreateVolumeRequest, RefusalKind};
use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::Status;

use super::node::{Place, overwrite, refuses, volume};

const MIB: u64 = 1 << 20;

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn a_wrong_configuration_file_is_2_with_line_and_column() {
    let place = Place::new();
    fs::write(place.config(), "[node]\nname = \"a\"\n[nvmeof]\n  listn = [\"127.0.0.1:0\"]\n").unwrap();
    assert_says(&place.refuses(2), &["ashlar.toml:4:3", "listn", "listen"]);
    fs::write(place.config(), "[node\n").unwrap();
    assert_says(&place.refuses(2), &["ashlar.toml:1:"]);
    assert!(!place.data().exists(), "a refused start leaves nothing behind");
    fs::remove_file(place.config()).unwrap();
    assert_says(&place.refuses(3), &["ashlar.toml"]);
}

#[test]
fn a_port_in_use_is_4_and_named() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.configure(&[&address], "127.0.0.1:0");
    assert_says(&place.refuses(4), &["NVMe/TCP", &address, "in use", "nothing was", "[nvmeof] listen"]);
    place.configure(&["127.0.0.1:0"], "127.0.0.1:0");
    let text = fs::read_to_string(place.config()).unwrap();
    let (before, after) = text.split_once("[iscsi]\nlisten = [\"127.0.0.1:0\"]").unwrap();
    fs::write(place.config(), format!("{before}[iscsi]\nlisten = [\"{address}\"]{after}")).unwrap();
    assert_says(&place.refuses(4), &["iSCSI", &address, "in use", "nothing was", "[iscsi] listen"]);
    place.configure(&["127.0.0.1:0"], &address);
    assert_says(&place.refuses(4), &["API", &address, "nothing was", "[api] listen"]);
    drop(taken);
    place.start().stop();
}

#[test]
fn an_address_of_another_machine_is_told_from_one_in_use() {
    let place = Place::new();
    // Of the block for documentation (RFC 5737): no machine has it.
    place.configure(&["192.0.2.1:4420"], "127.0.0.1:0");
    assert_says(&place.refuses(2), &["NVMe/TCP", "192.0.2.1:4420", "no such address"]);
    place.configure(&["127.0.0.1:0"], "192.0.2.1:7070");
    assert_says(&place.refuses(2), &["API", "192.0.2.1:7070", "no such address"]);
}

#[test]
fn a_data_directory_has_one_node() {
    let place = Place::new();
    let mut node = place.start();
    let said = place.refuses(4);
    assert_says(&said, &["control.redb", &format!("process {}", node.id()), "--data"]);
    node.assert_well();
    node.stop();
    place.start().stop();
}

#[test]
fn a_data_directory_that_cannot_be_made_or_written_is_1() {
    let place = Place::new();
    place.image("file", 1);
    place.configure_data(&place.path("file").join("data"), &["127.0.0.1:0"], "127.0.0.1:0");
    assert_says(&place.refuses(1), &["file/data", "directory"]);

    place.configure(&["127.0.0.1:0"], "127.0.0.1:0");
    fs::create_dir(place.data()).unwrap();
    fs::set_permissions(place.data(), Permissions::from_mode(0o555)).unwrap();
    let said = refuses(unprivileged(&place), 1);
    assert_says(&said, &["data", "ermission", "not written to", "permissions"]);
    assert_eq!(fs::read_dir(place.data()).unwrap().count(), 0);
}

/// `ashlar serve` without root's right to write everywhere. Who builds may keep the binary where nobody else can
/// go, so it runs from a copy.
fn unprivileged(place: &Place) -> Command {
    let mut command = place.command();
    if rustix::process::geteuid().is_root() {
        let copy = place.path("ashlar");
        fs::copy(env!("CARGO_BIN_EXE_ashlar"), &copy).unwrap();
        fs::set_permissions(place.path(""), Permissions::from_mode(0o755)).unwrap();
        command = Command::new(copy);
        command.arg("serve").arg("--config").arg(place.config()).env_remove("ASHLAR_LOG");
        command.uid(65534).gid(65534);
    }
    command
}

#[test]
fn images_that_cannot_be_served_are_refused() {
    let place = Place::new();
    let node = place.start();
    let create = |path: &str| {
        let (code, said) = node.cli(&["volume", "create", "v", "--image", path]);
        (code, said.replace(place.path("").to_str().unwrap(), ""))
    };
    let at = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let (code, said) = create(&at("missing.raw"));
    assert_says(&said, &["missing.raw", "does not exist", "nothing was changed"]);
    assert_eq!(code, 3, "{said}");
    place.image("small.raw", 511);
    let (code, said) = create(&at("small.raw"));
    assert_says(&said, &["small.raw", "511 bytes", "nothing was changed"]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = create(place.path("").to_str().unwrap());
    assert_says(&said, &["neither a regular file nor a block device"]);
    assert_eq!(code, 2, "{said}");
    assert!(node.client.volumes().unwrap().volumes.is_empty());
    node.stop();
}

#[test]
fn an_image_is_served_by_one_node_at_a_time() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let image = place.image("disk.raw", MIB);
    let (node, other) = (place.start(), elsewhere.start());
    node.image("disk", &image);
    let (code, said) = other.cli(&["volume", "create", "mine", "--image", image.to_str().unwrap()]);
    assert_says(&said, &["disk.raw", "in use"]);
    assert_eq!(code, 4, "{said}");
    // Nor twice by one node.
    let (code, said) = node.cli(&["volume", "create", "again", "--image", image.to_str().unwrap()]);
    assert_eq!(code, 4, "{said}");
    node.stop();
    other.image("mine", &image);
    other.stop();
}

#[test]
fn a_read_only_volume_says_write_protected() {
    let place = Place::new();
    let node = place.start();
    let image = place.image("disk.raw", MIB);
    overwrite(&image, &[7; 4096]);
    let backing = Backing::Image { path: image.to_str().unwrap().into() };
    let request = CreateVolumeRequest { read_only: true, ..volume("disk", backing, None) };
    let created = node.client.create_volume(&request).unwrap();
    assert!(created.read_only);
    node.target("vm", &["disk"]);
    assert_write_protected(&node, created.block_size_bytes);
    node.stop();
    assert_eq!(fs::read(&image).unwrap()[..4096], [7; 4096]);
}

fn assert_write_protected(node: &super::node::Node, block_bytes: u32) {
    let mut host = node.connect("vm");
    // NSATTR bit 0: the host sees beforehand that the namespace is write protected.
    assert_eq!(host.controller.identify(0, 1).unwrap()[99] & 1, 1);
    assert_eq!(host.write(1, 0, &vec![1; block_bytes as usize]), Status::WRITE_PROTECTED);
    assert_eq!(Status::WRITE_PROTECTED.field() >> 1 & 0x7FF, 0x20);
    assert_eq!(host.read(1, 0, block_bytes), vec![7; block_bytes as usize]);
}

/// A file that the node may not write, though nobody said read-only.
#[test]
fn a_file_that_cannot_be_written_is_served_read_only() {
    let place = Place::new();
    let image = place.image("disk.raw", MIB);
    overwrite(&image, &[7; 4096]);
    fs::set_permissions(&image, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(place.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(place.data()).unwrap();
    fs::set_permissions(place.data(), Permissions::from_mode(0o777)).unwrap();
    let node = place.start_as(unprivileged(&place));
    let created = node.image("disk", &image);
    assert!(created.read_only);
    node.target("vm", &["disk"]);
    assert_write_protected(&node, created.block_size_bytes);
    node.stop();
    let node = place.start_as(unprivileged(&place));
    assert_write_protected(&node, created.block_size_bytes);
    node.stop();
}

/// What befalls the bytes of a file.
type Damage = fn(&mut Vec<u8>);

#[test]
fn a_damaged_control_state_is_1_and_left_alone() {
    let place = Place::new();
    let node = place.start();
    node.client.create_volume(&volume("ram", Backing::Memory, Some(MIB))).unwrap();
    node.stop();
    let file = place.data().join("control.redb");
    let good = fs::read(&file).unwrap();
    let flips: [Damage; 4] = [
        |bytes| bytes[3] ^= 0x40,
        |bytes| bytes.truncate(bytes.len() / 3),
        |bytes| bytes.clear(),
        |bytes| {
            let at = bytes.windows(3).position(|window| window == b"ram").expect("the name is in the file");
            bytes[at..at + 3].iter_mut().for_each(|byte| *byte ^= 1);
        },
    ];
    for (number, flip) in flips.iter().enumerate() {
        let mut bad = good.clone();
        flip(&mut bad);
        fs::write(&file, &bad).unwrap();
        let said = place.refuses(1);
        assert_says(&said, &["control.redb", "damaged", "it is as it was found", "backup"]);
        assert_eq!(fs::read(&file).unwrap(), bad, "damage {number}: the file was written to");
    }
    fs::write(&file, &good).unwrap();
    let node = place.start();
    assert_eq!(node.client.volumes().unwrap().volumes.len(), 1);
    node.stop();
}

#[test]
fn a_name_that_is_taken_is_4() {
    let place = Place::new();
    let node = place.start();
    node.client.create_volume(&volume("ram", Backing::Memory, Some(MIB))).unwrap();
    let again = node.client.create_volume(&volume("ram", Backing::Null, Some(MIB))).unwrap_err();
    assert_eq!((again.refusal.kind, again.exit_code), (RefusalKind::Exists, 4));
    node.stop();
}
