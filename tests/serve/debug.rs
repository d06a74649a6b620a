//! `ashlar debug` on the device of a node that was stopped, and of one that runs.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::node::Place;

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
