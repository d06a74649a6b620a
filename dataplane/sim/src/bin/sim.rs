//! Runs the simulator's own scenario for one seed or many.
//!
//! `sim --seed 0x1f2e` prints one line about the run: equal lines are equal runs. `sim --seeds 0..1000` runs
//! them all, prints each failure with its reproduction line, and the marks that none of them reached.

use std::process::ExitCode;

use ashlar_sim::{Marks, Planted, scenario};

const USAGE: &str = "usage: sim --seed N | --seeds A..B   (numbers decimal or 0x...)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--seed", seed] => number(seed).map_or_else(usage, one),
        ["--seeds", range] => match range.split_once("..").map(|(a, b)| (number(a), number(b))) {
            Some((Some(from), Some(to))) => many(from, to),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn one(seed: u64) -> ExitCode {
    match scenario::run(seed, Planted::default()) {
        Ok(report) => {
            println!(
                "seed={:#x} steps={} time={:?} events={} hash={:#018x} disks={:x?}",
                report.seed, report.steps, report.time, report.events, report.event_hash, report.disk_hashes
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(from: u64, to: u64) -> ExitCode {
    let (marks, mut steps, mut failures) = (Marks::default(), 0, 0);
    let mut time = std::time::Duration::ZERO;
    for seed in from..to {
        match scenario::run(seed, Planted::default()) {
            Ok(report) => {
                marks.merge(&report.marks);
                steps += report.steps;
                time += report.time;
            }
            Err(failure) => {
                failures += 1;
                println!("{failure}\n");
            }
        }
    }
    for (mark, count) in marks.all() {
        println!("{count:>10}  {mark}");
    }
    let missing = marks.missing(scenario::MARKS);
    println!("{} seeds, {failures} failures, {steps} steps, {time:?} simulated", to.saturating_sub(from));
    println!("marks never reached: {missing:?}");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
