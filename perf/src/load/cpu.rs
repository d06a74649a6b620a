//! CPU time of processes, and where this one runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Clock ticks of `/proc/PID/stat` in a second; the kernel's ABI fixes it at 100 (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// The CPU time that the live threads of process `pid` have used, from the scheduler's nanosecond counters
/// where the kernel has them, else from `/proc/PID/stat` in steps of 10 ms.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    match scheduler_time(&process) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => tick_time(&process),
    }
}

/// The sum over the threads of the first field of `schedstat`: nanoseconds spent on a core.
fn scheduler_time(process: &Path) -> Option<Duration> {
    let mut total_ns = 0;
    for task in fs::read_dir(process.join("task")).ok()? {
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        total_ns += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(total_ns))
}

fn tick_time(process: &Path) -> io::Result<Duration> {
    let text = fs::read_to_string(process.join("stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))
}

/// User and system time of a `stat` line: fields 14 and 15. The name in field 2 may hold anything, `)` too.
fn parse_stat(text: &str) -> Option<Duration> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// Keeps this thread, and threads it starts, on `core`.
///
/// # Errors
/// There is no such core, or this process may not use it.
pub fn pin_to(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no core {core}")));
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_shift_the_fields() {
        let line = "42 (a) b (c)) S 1 1 1 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(line), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn work_is_counted() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let mut value = 1u64;
        while cpu_time(pid).unwrap() < before + Duration::from_millis(20) {
            (0..1_000_000).for_each(|_| value = std::hint::black_box(value.wrapping_mul(3)));
        }
        assert!(tick_time(&PathBuf::from("/proc/self")).is_ok());
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(pin_to(CpuSet::MAX_CPU).is_err());
        assert!(pin_to(CpuSet::MAX_CPU - 1).is_err());
    }
}
