//! What an idle runtime costs. A process of its own, as it looks at the whole process.

use std::time::Duration;

use ashlar_env::{Clock, Listener, Net};
use ashlar_runtime::{Runtime, RuntimeConfig};

/// Processor time of this process so far, in clock ticks (10 ms).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_runtime_takes_neither_time_nor_memory() {
    let config =
        RuntimeConfig { cores: vec![0, 1, 0, 1], buffer_bytes: 256 << 20, ..RuntimeConfig::default() };
    let runtime = Runtime::<u64>::start(config).unwrap();
    for reactor in runtime.reactors() {
        reactor
            .spawn(|env, _| async move {
                let listener = env.listen("127.0.0.1:0".parse().unwrap()).unwrap();
                env.sleep_until(env.now().plus(Duration::from_secs(3600))).await;
                drop(listener.accept().await);
            })
            .unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    let before = ticks();
    std::thread::sleep(Duration::from_millis(1000));
    assert!(ticks() - before <= 1, "an idle runtime ran for {} ticks in a second", ticks() - before);
    assert!(resident_kib() < 40 << 10, "an idle runtime holds {} KiB", resident_kib());
}
