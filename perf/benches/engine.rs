//! The storage engine alone on one reactor, without network: random and sequential reads and writes of a volume on a
//! memory device, beside the same accesses to the bare device.
//!
//! `cargo bench -p ashlar-perf --bench engine -- [--seconds N] [--volume GiB] [--device PATH]
//! [--compress] [--only TEXT]`; as a test (`--test`) it only
//! shows that it runs. Prints thousands of accesses a second, GB/s, and microseconds of the reactor's time each.

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ashlar_engine::chunks::Chunks;
use ashlar_engine::groups::reserve_slots;
use ashlar_engine::ids::{GroupId, LaneId};
use ashlar_engine::lane::{Lane, LaneConfig};
use ashlar_engine::store::{ChunkStore, FormatOptions};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::units::{ByteRange, VolumeId};
use ashlar_env::{Buf, BufMut, Env, Rng, Spawn};
use ashlar_runtime::{Device, OpenDevice, OpenOptions, ReactorEnv, Runtime, RuntimeConfig};

#[derive(Clone, Debug)]
struct Options {
    seconds: f64,
    volume_bytes: u64,
    device: Option<String>,
    compress: bool,
    only: String,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    write: bool,
    random: bool,
    bytes: usize,
    depth: usize,
}

const CASES: [Case; 8] = [
    Case {
        name: "fill, 128 KiB sequential, depth 8",
        write: true,
        random: false,
        bytes: 128 << 10,
        depth: 8,
    },
    Case { name: "4 KiB random write, depth 1", write: true, random: true, bytes: 4096, depth: 1 },
    Case { name: "4 KiB random write, depth 32", write: true, random: true, bytes: 4096, depth: 32 },
    Case { name: "4 KiB random write, depth 128", write: true, random: true, bytes: 4096, depth: 128 },
    Case { name: "4 KiB random read, depth 1", write: false, random: true, bytes: 4096, depth: 1 },
    Case { name: "4 KiB random read, depth 32", write: false, random: true, bytes: 4096, depth: 32 },
    Case { name: "4 KiB random read, depth 128", write: false, random: true, bytes: 4096, depth: 128 },
    Case {
        name: "128 KiB sequential read, depth 8",
        write: false,
        random: false,
        bytes: 128 << 10,
        depth: 8,
    },
];

/// What a case came to.
struct Figures {
    count: u64,
    elapsed: Duration,
    cpu: Duration,
}

fn main() {
    let mut options =
        Options { seconds: 2.0, volume_bytes: 1 << 30, device: None, compress: false, only: String::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => options.seconds = value(&mut arguments),
            "--volume" => options.volume_bytes = value::<u64>(&mut arguments) << 30,
            "--device" => options.device = Some(value(&mut arguments)),
            "--compress" => options.compress = true,
            "--only" => options.only = value(&mut arguments),
            "--test" => options = Options { seconds: 0.05, volume_bytes: 64 << 20, ..options },
            _ => {}
        }
    }
    let core = *ashlar_runtime::usable_cores().last().expect("there is a core");
    let config = RuntimeConfig { cores: vec![core], buffer_bytes: 256 << 20, ..RuntimeConfig::default() };
    let runtime = Runtime::<()>::start(config).expect("a reactor starts");
    let reactor = runtime.reactors()[0].clone();
    println!("{:<34} {:>22} {:>22}", "", "engine k/s  GB/s  us", "device k/s  GB/s  us");
    let run = reactor.call(move |env, _| async move { Box::pin(compare(env, options)).await });
    run.wait().expect("the reactor lives");
    runtime.shutdown();
}

fn value<T: std::str::FromStr>(arguments: &mut impl Iterator<Item = String>) -> T {
    arguments.next().and_then(|value| value.parse().ok()).expect("a value follows")
}

/// A device with room for the volume and for garbage.
async fn device(env: &ReactorEnv, options: &Options, name: &str) -> Device {
    let bytes = options.volume_bytes * 3 + (512 << 20);
    let Some(path) = &options.device else { return touched(Device::memory(bytes), env).await };
    let path = format!("{path}.{name}");
    let _ = std::fs::remove_file(&path);
    let opened =
        OpenDevice::create(Path::new(&path), bytes, OpenOptions::default()).expect("the file is made");
    opened.attach(env).expect("the reactor takes it")
}

/// `device`, whose memory has been given out by the kernel: what is measured is not that.
async fn touched(device: Device, env: &ReactorEnv) -> Device {
    let some = pattern(env, 1 << 20).await;
    for start in (0..device.info().size_bytes).step_by(1 << 20) {
        device.write(start, some.clone(), Durability::Fua).await.expect("there is memory");
    }
    device
}

/// A memory device that keeps what is discarded: taking memory back from the kernel is not the engine's work.
#[derive(Clone)]
struct Keeps(Device);

impl Disk for Keeps {
    fn info(&self) -> DiskInfo {
        DiskInfo { discard_granularity_bytes: 0, ..self.0.info() }
    }

    fn read(&self, start: u64, buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        self.0.read(start, buf)
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.0.write(start, data, durability)
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.0.flush()
    }

    fn discard(&self, range: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.0.discard(range)
    }

    fn write_zeroes(
        &self,
        range: ByteRange,
        free: bool,
        durability: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.0.write_zeroes(range, free, durability)
    }

    fn resize(&self, size_bytes: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        self.0.resize(size_bytes)
    }
}

async fn compare(env: ReactorEnv, options: Options) {
    let bare = device(&env, &options, "bare").await;
    let store = device(&env, &options, "engine").await;
    let formatting =
        FormatOptions { overwrite: true, ..FormatOptions::new(uuid::Uuid::from_u128(1), uuid::Uuid::nil()) };
    let store = ChunkStore::format(env.clone(), Keeps(store), formatting).await.expect("an empty device");
    store.set_reserve(reserve_slots(store.info().slots));
    let lane = LaneId { group: GroupId(1), lane: 0 };
    let lane =
        Lane::create(env.clone(), vec![store], lane, LaneConfig::default()).await.expect("there is space");
    lane.set_compression(options.compress).await.expect("the log works");
    let id = VolumeId(uuid::Uuid::from_u128(2));
    let number = lane.create_volume(id, options.volume_bytes).await.expect("there is space");
    let volume = lane.disk(number, 4096);
    for case in CASES.into_iter().filter(|case| options.only.split(",").any(|only| case.name.contains(only)))
    {
        let engine = run(&env, volume.clone(), case, &options).await;
        let device = run(&env, bare.clone(), case, &options).await;
        println!("{:<34} {:>22} {:>22}", case.name, show(&engine, case), show(&device, case));
    }
    let report = lane.report();
    println!("live {} MiB in {} MiB of segments", report.live_bytes >> 20, report.physical_bytes >> 20);
}

fn show(figures: &Figures, case: Case) -> String {
    let seconds = figures.elapsed.as_secs_f64();
    let rate = figures.count as f64 / seconds;
    let each_us = figures.cpu.as_secs_f64() * 1e6 / figures.count.max(1) as f64;
    format!("{:.1}  {:.2}  {each_us:.2}", rate / 1e3, rate * case.bytes as f64 / 1e9)
}

/// The reactor thread's processor time.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn run<D: Disk + Clone>(env: &ReactorEnv, disk: D, case: Case, options: &Options) -> Figures {
    let slots = options.volume_bytes / case.bytes as u64;
    let (count, live, next) =
        (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(case.depth)), Rc::new(Cell::new(0u64)));
    let fills = case.name.starts_with("fill");
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let (begun, cpu_before) = (Instant::now(), cpu());
    let data = pattern(env, case.bytes).await;
    for _ in 0..case.depth {
        let (env, disk, data) = (env.clone(), disk.clone(), data.clone());
        let (count, live, next) = (Rc::clone(&count), Rc::clone(&live), Rc::clone(&next));
        let task_env = env.clone();
        env.spawn(async move {
            loop {
                let at = next.replace(next.get() + 1);
                if if fills { at >= slots } else { at.is_multiple_of(64) && Instant::now() >= end } {
                    break;
                }
                let slot = if case.random { task_env.random_below(slots) } else { at % slots };
                let start = slot * case.bytes as u64;
                if case.write {
                    disk.write(start, data.clone(), Durability::Fua).await.expect("the device works");
                } else {
                    let buf = task_env.buffers().alloc(case.bytes).await;
                    drop(disk.read(start, buf).await.expect("the device works"));
                }
                count.set(count.get() + 1);
                if !fills && Instant::now() >= end {
                    break;
                }
            }
            live.set(live.get() - 1);
        });
    }
    while live.get() > 0 {
        ashlar_env::spawn::yield_now().await;
    }
    Figures { count: count.get(), elapsed: begun.elapsed(), cpu: cpu() - cpu_before }
}

/// Bytes that do not compress.
async fn pattern(env: &ReactorEnv, bytes: usize) -> Buf {
    let mut buf = env.buffers().alloc(bytes).await;
    for word in buf.as_chunks_mut::<8>().0 {
        *word = env.random_u64().to_le_bytes();
    }
    buf.freeze()
}
