//! Devices that come, go and are missing, compression that is switched, and an orderly end, all under load.

use std::time::{Duration, Instant};

use ashlar_cluster::api::{AddDeviceRequest, UpdateGroupRequest};
use ashlar_cluster::state::Compression;
use ashlar_nvmeof::wire::Status;

use super::bench::{Bench, DEVICE_BYTES, TARGET};
use super::ledger::BLOCK_BYTES;
use crate::node::{Node, PATIENCE};

const BLOCKS: u64 = 2048;

/// How many entries of the log each group recovered replayed, as the node says.
fn replayed(node: &Node) -> Vec<u64> {
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains("recovered a group"));
    let number = |line: &str| line.split_once("replayed=").unwrap().1.trim().parse().unwrap();
    lines.map(number).collect()
}

#[test]
fn an_orderly_end_under_load_leaves_nothing_to_replay() {
    let mut bench = Bench::new(3, BLOCKS);
    let node = bench.create();
    let load = bench.load(&node);
    load.wait_for(300);
    node.stop();
    load.join();
    let node = bench.start();
    assert_eq!(replayed(&node), [0]);
    bench.verify(&node);
    // Against one that was killed, to see that the number is told.
    let load = bench.load(&node);
    load.wait_for(100);
    node.crash();
    load.join();
    let node = bench.start();
    assert!(replayed(&node)[0] > 0, "{}", node.log());
    bench.verify(&node);
    node.stop();
}

#[test]
fn a_volume_whose_device_is_missing_is_a_fault_and_comes_back_with_it() {
    let mut bench = Bench::new(4, BLOCKS);
    let node = bench.create();
    let image = bench.place.image("other.raw", 1 << 20);
    let other_block = node.image("other", &image).block_size_bytes;
    node.target("else", &["other"]);
    let load = bench.load(&node);
    load.wait_for(100);
    node.crash();
    load.join();
    let (disk, away) = (bench.place.path("disk0"), bench.place.path("away"));
    std::fs::rename(&disk, &away).unwrap();

    let mut node = bench.start();
    let said = node.client.status().unwrap().attention.join("\n");
    assert!(said.contains("db") && said.contains("disk0"), "{said}");
    let (code, shown) = node.cli(&["status"]);
    assert!(code == 0 && shown.contains("disk0"), "{shown}");
    assert!(node.client.volume("db").unwrap().fault.is_some());
    let mut host = node.connect("else");
    assert_eq!(host.write(1, 0, &vec![7; other_block as usize]), Status::SUCCESS);
    assert_eq!(host.read(1, 0, other_block), vec![7; other_block as usize]);
    assert!(node.connect(TARGET).controller.namespace(1).is_err());
    assert!(!disk.exists(), "the file was made anew");
    drop(host);
    node.assert_well();
    node.stop();

    std::fs::rename(&away, &disk).unwrap();
    let node = bench.start();
    assert_eq!(node.client.volume("db").unwrap().fault, None);
    bench.verify(&node);
    node.stop();
}

#[test]
fn a_device_is_taken_out_under_load() {
    let mut bench = Bench::new(5, BLOCKS);
    let node = bench.create();
    let load = bench.load(&node);
    load.wait_for(300);
    let second = bench.place.path("disk1");
    let path = second.to_str().unwrap().to_owned();
    node.client.add_device(&AddDeviceRequest { path, size_bytes: Some(DEVICE_BYTES), force: false }).unwrap();
    let (cut, made) = bench.snapshot(&node, "db@two");
    assert!(made);
    load.wait_for(600);
    let first = bench.place.path("disk0");
    let (code, said) = node.cli(&["device", "remove", first.to_str().unwrap(), "--yes", "--watch"]);
    assert_eq!(code, 0, "{said}\n{}", node.log());
    let devices = node.client.devices().unwrap().devices;
    let removed = devices.iter().find(|device| device.path == first.to_str().unwrap());
    assert!(removed.is_none_or(|device| format!("{:?}", device.state) == "Removed"), "{devices:?}");
    load.wait_for(900);
    assert!(load.end() >= 900);
    bench.verify(&node);
    // What the device held is not needed any more.
    node.crash();
    std::fs::remove_file(&first).unwrap();
    let node = bench.start();
    bench.verify(&node);
    bench.verify_snapshot(&node, "db@two", &cut);
    assert!(!first.exists(), "the device was made anew");
    node.stop();
}

#[test]
fn compression_is_switched_under_load() {
    let mut bench = Bench::new(6, BLOCKS).with_checkpoints_of(1 << 20);
    let mut node = bench.create();
    for (round, compression) in
        [Compression::Lz4, Compression::None, Compression::Lz4].into_iter().enumerate()
    {
        let load = bench.load(&node);
        load.wait_for(150);
        let request = UpdateGroupRequest { compression: Some(compression) };
        node.client.update_group("db", &request).unwrap();
        load.wait_for(300);
        if round == 1 {
            load.end();
            bench.verify(&node);
        }
        node.crash();
        node = bench.start();
        assert_eq!(node.client.group("db").unwrap().compression, compression);
        bench.verify(&node);
    }
    // It does compress: what is alike takes next to nothing.
    let stored = |node: &Node| node.client.volume("db").unwrap().space.stored_bytes.unwrap();
    let mut host = node.connect(TARGET);
    let alike = vec![0x42; 8 * BLOCK_BYTES];
    for block in (0..BLOCKS).step_by(8) {
        let write = ashlar_perf::client::io::write(1, block * 8, 64, false);
        let data = ashlar_perf::client::Data::ToController(alike.len() as u32);
        assert_eq!(host.call(write, data, &alike).0, Status::SUCCESS);
    }
    let deadline = Instant::now() + PATIENCE;
    while stored(&node) > BLOCKS * BLOCK_BYTES as u64 / 4 {
        assert!(Instant::now() < deadline, "{} bytes are stored", stored(&node));
        std::thread::sleep(Duration::from_millis(20));
    }
    node.stop();
}
