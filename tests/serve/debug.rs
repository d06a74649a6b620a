//! `ashlar debug` on the device of a node that was stopped, and of one that runs.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::Status;

use super::node::{PATIENCE, Place, volume};

/// Runs `ashlar debug` with `arguments`: its exit code, and what it printed.
fn debug(arguments: &[&str], device: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
    command.arg("debug").args(&arguments[..1]).arg("--device").arg(device).args(&arguments[1..]);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn flip(device: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(device).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_stopped_store_is_verified_and_printed_and_stays_as_it_is() {
    let place = Place::new();
    let node = place.start();
    let disk = place.path("disk0");
    let (code, said) = node.cli(&["device", "add", disk.to_str().unwrap(), "--size", "1GiB"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = node.cli(&["volume", "create", "db", "--size", "1GiB"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = node.cli(&["snapshot", "create", "db@a"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = debug(&["check"], &disk);
    assert!(code == 4 && said.contains("in use"), "a running node's: {code} {said}");
    node.stop();

    let changed = || disk.metadata().unwrap().modified().unwrap();
    let before = changed();
    let (code, said) = debug(&["check"], &disk);
    assert!(code == 0 && said.contains("1 volume, 1 snapshot"), "{code} {said}");
    assert!(said.ends_with("nothing is damaged\n"), "{said}");
    let (code, slots) = debug(&["dump", "slots"], &disk);
    assert!(code == 0 && slots.contains("(log)"), "{code} {slots}");
    let segment = slots.lines().find(|line| line.contains("(log)")).unwrap();
    let segment = segment.split_whitespace().nth(2).unwrap();
    let (code, said) = debug(&["dump", "record", segment, "0"], &disk);
    assert!(code == 0 && said.contains("Create"), "{code} {said}");
    let (code, said) = debug(&["dump", "slot", "99999"], &disk);
    assert_eq!(code, 3, "{said}");
    assert_eq!(changed(), before, "nothing was written");

    flip(&disk, 40);
    let (code, said) = debug(&["check", "--output", "json"], &disk);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["sound"]), (1, &serde_json::Value::Bool(false)), "{said}");
    let damage = &report["damages"][0];
    assert!(damage["what"].as_str().unwrap().contains("superblock"), "{said}");
    assert_eq!(report["damages"].as_array().unwrap().len(), 1, "{said}");
    let (code, said) = debug(&["dump", "superblock"], &disk);
    assert!(code == 0 && said.contains("its checksum does not match"), "{code} {said}");

    let (code, said) = debug(&["check"], &place.path("none"));
    assert!(code == 3 && said.contains("no such file"), "{code} {said}");
}

#[test]
fn rot_is_found_by_scrubbing_and_named_by_status() {
    let place = Place::new();
    let node = place.start();
    let disk = place.path("disk0");
    let (code, said) = node.cli(&["device", "add", disk.to_str().unwrap(), "--size", "1GiB"]);
    assert_eq!(code, 0, "{said}");
    node.client.create_volume(&volume("db", Backing::Log { thick: false }, Some(1 << 20))).unwrap();
    node.target("vm", &["db"]);
    let mut host = node.connect("vm");
    // A pattern that is nowhere else, in the fourth block of 4 KiB.
    let mut data = vec![0xD7; 4096];
    data[..8].copy_from_slice(b"rot test");
    for (at, sector) in data.chunks(512).enumerate() {
        assert_eq!(host.write(1, 24 + at as u64, sector), Status::SUCCESS);
    }
    drop(host);
    // What is not sealed yet is not scrubbed: the next start seals it.
    node.stop();
    let mut bytes = vec![0; 64 << 20];
    std::fs::File::open(&disk).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    let mut starts = (0..bytes.len() - 4096).step_by(64);
    let at =
        starts.find(|at| bytes[*at..*at + 4096] == data[..]).expect("the block was written whole at last");
    flip(&disk, at as u64 + 100);

    let node = place.start();
    let deadline = std::time::Instant::now() + PATIENCE;
    let said = loop {
        let attention = node.client.status().unwrap().attention;
        if let Some(said) = attention.into_iter().find(|said| said.contains("db")) {
            break said;
        }
        assert!(std::time::Instant::now() < deadline, "scrubbing found nothing");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(said.starts_with("volume db, block 3 of 4 KiB: a block has a wrong checksum"), "{said}");
    loop {
        let metrics = node.metrics();
        if metrics.contains("ashlar_scrub_damaged 1\n") {
            let read = metrics.lines().find_map(|line| line.strip_prefix("ashlar_scrub_read_bytes_total "));
            assert!(read.unwrap().parse::<u64>().unwrap() >= 4096, "{metrics}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{metrics}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    node.stop();
}
