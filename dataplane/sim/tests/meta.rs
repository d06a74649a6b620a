//! The same seed twice, in two processes: every event and the final disk images must be equal.

use std::process::Command;

fn line(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--seed", &seed.to_string()])
        .output()
        .expect("the simulator runs");
    assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("the report is text")
}

#[test]
fn one_seed_is_one_run() {
    let mut lines = Vec::new();
    for seed in 0..40 {
        let (first, second) = (line(seed), line(seed));
        assert_eq!(first, second, "two processes disagree about seed {seed}");
        assert!(first.contains("hash=") && first.contains("disks="));
        lines.push(first.split("steps").nth(1).unwrap_or_default().to_owned());
    }
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 40, "two seeds gave the same run");
}

#[test]
fn wrong_use_is_told() {
    for arguments in [vec![], vec!["--seed"], vec!["--seed", "x"], vec!["--seeds", "1"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_sim")).args(&arguments).output().expect("the simulator runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage"));
    }
}
