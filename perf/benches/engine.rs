//! The storage engine alone on one reactor, without network: random and sequential reads and writes of a volume on a
//! memory device, beside the same accesses to the bare device.
//!
//! `cargo bench -p ashlar-perf --bench engine -- [--seconds N] [--volume GiB] [--device PATH]
//! [--compress] [--only TEXT]`; with `--wear PERCENT` instead how much is written to a device that is so full, per byte
//! that is overwritten at random; as a test (`--test`) it only
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
    wear: Option<u64>,
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
    let mut options = Options {
        seconds: 2.0,
        volume_bytes: 1 << 30,
        device: None,
        compress: false,
        only: String::new(),
        wear: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => options.seconds = value(&mut arguments),
            "--volume" => options.volume_bytes = value::<u64>(&mut arguments) << 30,
            "--device" => options.device = Some(value(&mut arguments)),
            "--compress" => options.compress = true,
            "--wear" => options.wear = Some(value(&mut arguments)),
            "--only" => options.only = value(&mut arguments),
            "--test" => options = Options { seconds: 0.05, volume_bytes: 64 << 20, ..options },
            _ => {}
        }
    }
    let core = *ashlar_runtime::usable_cores().last().expect("there is a core");
    let config = RuntimeConfig { cores: vec![core], buffer_bytes: 256 << 20, ..RuntimeConfig::default() };
    let runtime = Runtime::<()>::start(config).expect("a reactor starts");
    let reactor = runtime.reactors()[0].clone();
    let run = reactor.call(move |env, _| async move {
        match options.wear {
            Some(percent) => Box::pin(wear(env, options, percent)).await,
            None => Box::pin(compare(env, options)).await,
        }
    });
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

/// A memory device that counts what is written, and keeps what is discarded: taking memory back from the kernel is not the engine's work.
#[derive(Clone)]
struct Keeps(Device, Rc<Cell<u64>>);

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
        self.1.set(self.1.get() + data.len() as u64);
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
    println!("{:<34} {:>22} {:>22}", "", "engine k/s  GB/s  us", "device k/s  GB/s  us");
    let bare = device(&env, &options, "bare").await;
    let store = device(&env, &options, "engine").await;
    let formatting =
        FormatOptions { overwrite: true, ..FormatOptions::new(uuid::Uuid::from_u128(1), uuid::Uuid::nil()) };
    let store = ChunkStore::format(env.clone(), Keeps(store, Rc::default()), formatting)
        .await
        .expect("an empty device");
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

/// How often volumes are overwritten before, and while, what is written to the device is counted.
const OVERWRITES: u64 = 3;

/// Write amplification: overwrites at random, uniform and by Zipf's law, of a volume that takes `percent` of its device.
async fn wear(env: ReactorEnv, options: Options, percent: u64) {
    for (name, skew) in [("uniform", None), ("zipf 0.99", Some(0.99))] {
        let bytes = (options.volume_bytes * 100 / percent).next_multiple_of(16 << 20);
        let written = Rc::new(Cell::new(0));
        let formatting = FormatOptions::new(uuid::Uuid::from_u128(1), uuid::Uuid::nil());
        let device = Keeps(Device::memory(bytes), Rc::clone(&written));
        let store = ChunkStore::format(env.clone(), device, formatting).await.expect("an empty device");
        store.set_reserve(reserve_slots(store.info().slots));
        let lane = LaneId { group: GroupId(1), lane: 0 };
        let lane = Lane::create(env.clone(), vec![store], lane, LaneConfig::default())
            .await
            .expect("there is space");
        let id = VolumeId(uuid::Uuid::from_u128(2));
        let number = lane.create_volume(id, options.volume_bytes).await.expect("there is space");
        let volume = lane.disk(number, 4096);
        run(&env, volume.clone(), CASES[0], &options).await;
        let blocks = options.volume_bytes / 4096;
        overwrite(&env, &volume, blocks, skew).await;
        written.set(0);
        let begun = Instant::now();
        overwrite(&env, &volume, blocks, skew).await;
        let host = blocks * OVERWRITES * 4096;
        println!(
            "{percent} % full, {name}: {:.2} bytes written per byte, {:.0} MB/s of the host's",
            written.get() as f64 / host as f64,
            host as f64 / 1e6 / begun.elapsed().as_secs_f64(),
        );
        let _ = lane.close().await;
    }
}

/// Overwrites as many blocks as the volume has, [`OVERWRITES`] times, 64 at a time.
async fn overwrite<D: Disk + Clone>(env: &ReactorEnv, disk: &D, blocks: u64, skew: Option<f64>) {
    let zipf = skew.map(|skew| Rc::new(Zipf::new(blocks, skew)));
    let (left, live) = (Rc::new(Cell::new(blocks * OVERWRITES)), Rc::new(Cell::new(64)));
    let data = pattern(env, 4096).await;
    for _ in 0..64 {
        let (env, disk, data, zipf) = (env.clone(), disk.clone(), data.clone(), zipf.clone());
        let (left, live, task_env) = (Rc::clone(&left), Rc::clone(&live), env.clone());
        env.spawn(async move {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let block = match &zipf {
                    Some(zipf) => zipf.draw(task_env.random_u64()),
                    None => task_env.random_below(blocks),
                };
                disk.write(block * 4096, data.clone(), Durability::Fua).await.expect("the device works");
            }
            live.set(live.get() - 1);
        });
    }
    while live.get() > 0 {
        ashlar_env::spawn::yield_now().await;
    }
}

/// Numbers below a bound, small ones more often: the k-th in proportion to 1 / k^s. Gray et al., "Quickly Generating
/// Billion-Record Synthetic Databases", SIGMOD 1994, section 3.2. What is drawn is then scattered over the volume.
struct Zipf {
    count: u64,
    alpha: f64,
    eta: f64,
    zeta: f64,
    second: f64,
}

impl Zipf {
    fn new(count: u64, skew: f64) -> Self {
        let sum = |count: u64| (1..=count).map(|k| (k as f64).powf(-skew)).sum::<f64>();
        let zeta = sum(count);
        let alpha = 1.0 / (1.0 - skew);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - skew)) / (1.0 - sum(2) / zeta);
        Self { count, alpha, eta, zeta, second: 1.0 + 0.5f64.powf(skew) }
    }

    fn draw(&self, random: u64) -> u64 {
        let u = (random >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = u * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < self.second {
            1
        } else {
            (self.count as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64
        };
        // An odd multiplier is a permutation of the 64-bit numbers; folding keeps it nearly one.
        rank.min(self.count - 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.count
    }
}
