//! A node with nothing to do costs nothing: no processor time, little memory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::time::Duration;

use ashlar_cluster::state::Backing;
use ashlar_perf::client::{Controller, HostOptions};

use super::node::{Place, volume};

/// How long a node is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// What an idle node may use of the processor meanwhile: 0.05 %, which tools show as 0.0 % or 0.1 %. One tick
/// of the kernel's accounting is twice that.
const CPU_MAX: Duration = Duration::from_millis(5);
/// Resident memory, in KiB.
const RESIDENT_KIB_MAX: u64 = 60 << 10;

/// Processor time of each thread so far, as the scheduler has it (in ns, not in ticks).
fn cpu(process: u32) -> BTreeMap<OsString, Duration> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let time = |task: DirEntry| {
        // A thread may have ended since it was listed.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ran = text.split_whitespace().next().map_or(0, |ns| ns.parse().unwrap());
        (task.file_name(), Duration::from_nanos(ran))
    };
    tasks.map(|task| time(task.unwrap())).collect()
}

fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn assert_idle(process: u32) {
    // What the start left to do is not what idling costs.
    std::thread::sleep(Duration::from_millis(500));
    let before = cpu(process);
    std::thread::sleep(WATCHED);
    let used: Duration = (cpu(process).iter())
        .map(|(thread, time)| time.saturating_sub(before.get(thread).copied().unwrap_or_default()))
        .sum();
    println!("{used:?} of processor time in {WATCHED:?}, {} KiB resident", resident_kib(process));
    assert!(used <= CPU_MAX, "{used:?} of processor time in {WATCHED:?}");
    let resident = resident_kib(process);
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB resident");
}

/// Both at once, to spend the time once.
#[test]
fn an_idle_node_costs_nothing_alone_or_with_a_connected_host() {
    let (alone, visited) = (Place::new(), Place::new());
    let (alone, visited) = (alone.start(), visited.start());
    visited.client.create_volume(&volume("ram", Backing::Memory, Some(1 << 30))).unwrap();
    visited.target("vm", &["ram"]);
    let host = HostOptions { kato_ms: 5000, ..visited.host("vm") };
    let mut controller = Controller::connect(&host).unwrap();
    let granted = controller.request_io_queues(4).unwrap();
    let queues: Vec<_> =
        (1..=granted).map(|qid| controller.io_queue(qid, 32, 4096, false).unwrap()).collect();
    let kept = controller.keep_alive_in_background();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_idle(alone.id()));
        scope.spawn(|| assert_idle(visited.id()));
    });
    assert_eq!(visited.client.status().unwrap().counts.controllers, 1, "the host is still there");
    drop(queues);
    drop(kept);
    alone.stop();
    visited.stop();
}
