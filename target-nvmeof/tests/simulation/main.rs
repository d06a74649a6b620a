//! The target against host models, in the simulator: swarms of seeds, the same seed twice, and planted bugs.
//!
//! A seed draws a node (reactors, volumes and their homes, subsystems), hosts, and the faults of network, disks and
//! processes. Every command that a host sends goes into the ledger of its volume: each block is a register, what a
//! flush covers survives a power failure, and every sector says to which write it belongs.
//!
//! `ASHLAR_SEEDS` says how many seeds to run (default 25), `ASHLAR_FIRST_SEED` where to begin, `ASHLAR_THREADS` on
//! how many threads. With 500 or more, the marks of `scenario::MARKS` must all be reached.

mod books;
#[allow(dead_code, reason = "the fuzz targets use the rest")]
#[path = "../common/bytes.rs"]
mod bytes;
mod controller;
mod flaw;
mod host;
mod node;
mod planted;
mod queue;
mod receive;
mod scenario;
mod work;

use std::process::Command;
use std::thread;

use ashlar_sim::{Marks, Report};

use flaw::Flaw;

/// With as many seeds, every mark is asked for.
const MANY: u64 = 500;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Sums of many runs.
#[derive(Default)]
struct Sums {
    marks: Vec<(String, u64)>,
    steps: u64,
    failures: Vec<String>,
}

/// Runs every `stride`th seed from `first` below `end`; each thread has its own.
fn run_some(first: u64, end: u64, stride: usize) -> Sums {
    let (marks, mut sums) = (Marks::default(), Sums::default());
    for seed in (first..end).step_by(stride) {
        match scenario::run(seed, Flaw::None) {
            Ok(report) => {
                marks.merge(&report.marks);
                sums.steps += report.steps;
            }
            Err(failure) => sums.failures.push(failure.to_string()),
        }
    }
    sums.marks = marks.all();
    sums
}

#[test]
fn every_seed_keeps_its_promises() {
    let (first, count) = (number("ASHLAR_FIRST_SEED").unwrap_or(0), number("ASHLAR_SEEDS").unwrap_or(25));
    let threads = number("ASHLAR_THREADS").unwrap_or(2).max(1);
    let running: Vec<_> = (0..threads)
        .map(|thread| thread::spawn(move || run_some(first + thread, first + count, threads as usize)))
        .collect();
    let all: Vec<Sums> = running.into_iter().map(|thread| thread.join().expect("no panic escapes")).collect();
    let failures: Vec<&str> = all.iter().flat_map(|sums| &sums.failures).map(String::as_str).collect();
    let reached = |name: &str| -> u64 {
        all.iter().flat_map(|sums| &sums.marks).filter(|(mark, _)| mark == name).map(|(_, n)| n).sum()
    };
    let steps: u64 = all.iter().map(|sums| sums.steps).sum();
    println!("{count} seeds from {first}, {steps} steps, {} failures", failures.len());
    for mark in scenario::MARKS {
        println!("{:>10}  {mark}", reached(mark));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let missing: Vec<&&str> = scenario::MARKS.iter().filter(|mark| reached(mark) == 0).collect();
    assert!(count < MANY || missing.is_empty(), "never reached: {missing:?}");
}

/// All that a run says of itself.
fn line(report: &Report) -> String {
    format!(
        "seed={:#x} steps={} time={:?} events={} hash={:#018x} disks={:x?}",
        report.seed, report.steps, report.time, report.events, report.event_hash, report.disk_hashes
    )
}

/// Runs `ASHLAR_SEED` alone: what a failure's line asks for.
#[test]
#[ignore = "runs the one seed that ASHLAR_SEED names"]
fn one_seed() {
    let seed = number("ASHLAR_SEED").expect("ASHLAR_SEED names the seed");
    match scenario::run(seed, Flaw::None) {
        Ok(report) => println!("\n{}", line(&report)),
        Err(failure) => panic!("{failure}"),
    }
}

/// What another process says of a seed.
fn elsewhere(seed: u64) -> String {
    let output = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--ignored", "--exact", "one_seed", "--nocapture"])
        .env("ASHLAR_SEED", seed.to_string())
        .output()
        .expect("this test runs");
    let text = String::from_utf8(output.stdout).expect("the report is text");
    assert!(output.status.success(), "seed {seed}: {text}");
    text.lines().find(|line| line.starts_with("seed=")).unwrap_or_default().to_owned()
}

/// The same seed in two processes: every event and the images of the disks are equal.
#[test]
fn one_seed_is_one_run() {
    let mut lines = Vec::new();
    for seed in [0, 1, 2, 7] {
        let (first, second) = (elsewhere(seed), elsewhere(seed));
        assert!(first.contains("hash=") && first.contains("disks="), "{first}");
        assert_eq!(first, second, "two processes disagree about seed {seed}");
        lines.push(first);
    }
    lines.dedup();
    assert_eq!(lines.len(), 4, "two seeds gave the same run");
}
