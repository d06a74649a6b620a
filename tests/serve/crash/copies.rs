//! A group with two copies on two devices, one of which goes away, comes back with what it had, or fails under load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ashlar_cluster::api::{CreateVolumeRequest, DeviceState, OperationState};
use ashlar_cluster::state::Backing;

use super::bench::{Bench, DEVICE_BYTES, TARGET, wait_for_devices};
use super::ledger::BLOCK_BYTES;
use crate::node::{Node, volume};

/// Blocks of the volume: 8 MiB.
const BLOCKS: u64 = 2048;

/// How long a rebuild may take to begin and to end.
const REBUILD_MAX: Duration = Duration::from_secs(60);

/// A node's directory with a second device, `second`.
fn bench(seed: u64, second: &Path) -> Bench {
    let bench = Bench::new(seed, BLOCKS).with_checkpoints_of(1 << 20);
    let text = fs::read_to_string(bench.place.config()).unwrap();
    let device = format!("[[device]]\nfile = {second:?}\nsize = \"{DEVICE_BYTES}\"\n");
    fs::write(bench.place.config(), text + &device).unwrap();
    bench
}

fn create(bench: &Bench) -> Node {
    let node = bench.start();
    wait_for_devices(&node, 2);
    let size_bytes = BLOCKS * BLOCK_BYTES as u64;
    let log = volume("db", Backing::Log { thick: false }, Some(size_bytes));
    let request = CreateVolumeRequest { copies: Some(2), ..log };
    node.client.create_volume(&request).unwrap();
    node.target(TARGET, &["db"]);
    node
}

fn is_degraded(node: &Node) -> bool {
    let attention = node.client.status().unwrap().attention;
    let said = attention.iter().any(|line| line.contains("group db is degraded"));
    said || node.client.group("db").unwrap().degraded
}

fn until(node: &Node, what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + REBUILD_MAX;
    while !is_so() {
        let attention = node.client.status().map(|status| status.attention);
        assert!(Instant::now() < end, "{what}: {attention:?}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until there are two copies of everything again.
fn wait_until_rebuilt(node: &Node) {
    until(node, "the copies are not made", || !is_degraded(node));
    until(node, "the operation does not end", || {
        let operations = node.client.operations().unwrap().operations;
        let rebuilds: Vec<_> =
            operations.iter().filter(|operation| operation.what == "make missing copies").collect();
        !rebuilds.is_empty() && rebuilds.iter().all(|rebuild| rebuild.state == OperationState::Done)
    });
}

/// Load for a while, and kill -9.
fn load_and_kill(bench: &mut Bench, node: Node) {
    let load = bench.load(&node);
    load.wait_for(200);
    node.crash();
    load.join();
}

#[test]
fn a_device_that_was_away_is_missed_by_nobody_and_not_believed_when_it_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let (second, away) = (place.path().join("disk1"), place.path().join("away"));
    let mut bench = bench(41, &second);
    let (first, first_away) = (bench.place.path("disk0"), bench.place.path("away"));
    let node = create(&bench);
    let (code, said) = node.cli(&["group", "show", "db"]);
    assert!(code == 0 && said.contains("Copies       2\n"), "{said}");
    load_and_kill(&mut bench, node);

    // Without the second device: all is there, and goes on.
    fs::rename(&second, &away).unwrap();
    let node = bench.start();
    bench.verify(&node);
    assert!(is_degraded(&node));
    let (_, said) = node.cli(&["group", "list"]);
    assert!(said.contains("2, degraded"), "{said}");
    load_and_kill(&mut bench, node);
    let node = bench.start();
    bench.verify(&node);

    // What it held is old by now. It is brought up to date while hosts write.
    node.crash();
    fs::rename(&away, &second).unwrap();
    let node = bench.start();
    let load = bench.load(&node);
    load.wait_for(200);
    wait_until_rebuilt(&node);
    load.end();
    bench.verify(&node);
    node.crash();

    // Now the first is not needed.
    fs::rename(&first, &first_away).unwrap();
    let node = bench.start();
    bench.verify(&node);
    assert!(is_degraded(&node));
    load_and_kill(&mut bench, node);

    // The second away and the first back: old data are not served.
    fs::rename(&first_away, &first).unwrap();
    fs::rename(&second, &away).unwrap();
    let node = bench.start();
    let fault = node.client.volume("db").unwrap().fault;
    assert!(fault.is_some(), "{}", node.log());
    node.stop();
    fs::rename(&away, &second).unwrap();
    let node = bench.start();
    bench.verify(&node);
    wait_until_rebuilt(&node);
    bench.verify(&node);
    node.stop();
}

/// A small file system, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where this process may not mount.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "ashlar-test"]).arg(&at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_device_that_fails_under_load_is_left_behind() {
    let place = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(place.path().join("small"), "60m") else {
        eprintln!("not tested: mounting a tmpfs needs root");
        return;
    };
    let second = small.0.join("disk1");
    let mut bench = bench(43, &second);
    let node = create(&bench);
    let load = bench.load(&node);
    // Its file system is full before long: writes fail from then on.
    let failed = || {
        let devices = node.client.devices().unwrap().devices;
        devices.iter().any(|device| device.state == DeviceState::Failed && device.fault.is_some())
    };
    let end = Instant::now() + REBUILD_MAX;
    while !failed() {
        assert!(Instant::now() < end, "the device does not fail: {}", node.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // A third device takes its place.
    assert!(is_degraded(&node));
    load.wait_for(100);
    let third = place.path().join("disk2");
    let (code, said) = node.cli(&["device", "add", third.to_str().unwrap(), "--size", "1GiB"]);
    assert_eq!(code, 0, "{said}");
    wait_until_rebuilt(&node);
    load.end();
    bench.verify(&node);
    node.crash();
    let first = bench.place.path("disk0");
    fs::rename(&first, bench.place.path("away")).unwrap();
    let node = bench.start();
    bench.verify(&node);
    node.stop();
}

#[test]
fn copies_need_as_many_devices() {
    let bench = Bench::new(44, BLOCKS);
    let node = bench.start();
    wait_for_devices(&node, 1);
    let (code, said) = node.cli(&["volume", "create", "db", "--size", "1GiB", "--copies", "2"]);
    assert!(code == 4 && said.contains("2 copies need as many devices, and 1 can be used"), "{said}");
    let (code, said) = node.cli(&["volume", "create", "db", "--size", "1GiB", "--copies", "4"]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = node.cli(&["volume", "create", "db", "--size", "1GiB"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = node.cli(&["volume", "create", "db/more", "--size", "1GiB", "--copies", "2"]);
    assert!(code == 4 && said.contains("group db is there with 1 copies"), "{said}");
    node.stop();
}
