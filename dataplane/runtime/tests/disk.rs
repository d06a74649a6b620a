//! Devices: files direct and cached, block devices, memory and null; their limits and their failures.

mod common;

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::task::Poll;

use ashlar_env::buf::{Buf, BufMut};
use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Env, Spawn};
use ashlar_runtime::{
    Device, OpenDevice, OpenError, OpenOptions, ReactorEnv, Register, Runtime, RuntimeConfig, Spin,
};
use common::{SHORT, runtime};

const MIB: u64 = 1 << 20;
const CACHED: OpenOptions = OpenOptions { read_only: false, direct: false, block_bytes_max: 4096 };
const READ_ONLY: OpenOptions = OpenOptions { read_only: true, direct: true, block_bytes_max: 4096 };

/// A folder on a disk rather than in memory, so that direct I/O has a chance.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn filled(env: &ReactorEnv, len: usize, byte: u8) -> BufMut {
    let mut buf = env.buffers().try_alloc(len).unwrap();
    buf.fill(byte);
    buf
}

async fn read(env: &ReactorEnv, disk: &Device, start: u64, len: usize) -> Result<Vec<u8>, DiskError> {
    let buf = disk.read(start, filled(env, len, 0xee)).await?;
    Ok(buf.to_vec())
}

async fn write(env: &ReactorEnv, disk: &Device, start: u64, len: usize, byte: u8) -> Result<(), DiskError> {
    disk.write(start, filled(env, len, byte).freeze(), Durability::Cached).await
}

/// Runs `test` on a reactor with the device.
fn with<T, F>(device: OpenDevice, test: impl FnOnce(ReactorEnv, Device) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let runtime = runtime::<()>(1, SHORT);
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let disk = device.attach(&env).unwrap();
        test(env, disk).await
    });
    answer.wait().unwrap()
}

/// What every device that keeps its data must do.
async fn behaves(env: ReactorEnv, disk: Device) {
    let info = disk.info();
    let block = info.block_bytes as usize;
    assert_eq!(info.size_bytes, 4 * MIB);
    assert!(!info.read_only && block.is_power_of_two() && info.physical_block_bytes >= info.block_bytes);
    // What was never written is zeros.
    assert_eq!(read(&env, &disk, 0, 4096).await.unwrap(), [0; 4096]);
    // Neighbours do not touch; FUA and windows that are not aligned in memory are fine.
    write(&env, &disk, 4096, 8192, 1).await.unwrap();
    disk.write(8192, filled(&env, 4096, 2).freeze(), Durability::Fua).await.unwrap();
    let mut odd = env.buffers().try_alloc(block + 100).unwrap();
    odd.fill(3);
    disk.write(4096, odd.freeze().slice(72, block), Durability::Cached).await.unwrap();
    let got = read(&env, &disk, 0, 16384).await.unwrap();
    let expected = [(4096, 0), (block, 3), (4096 - block, 1), (4096, 2), (4096, 0)];
    let expected: Vec<u8> = expected.into_iter().flat_map(|(len, byte)| vec![byte; len]).collect();
    assert!(got == expected);
    disk.flush().await.unwrap();
    // The last block is there, the one after it is not.
    write(&env, &disk, 4 * MIB - block as u64, block, 4).await.unwrap();
    assert_eq!(read(&env, &disk, 4 * MIB - block as u64, block).await.unwrap(), vec![4; block]);
    for (start, len) in
        [(4 * MIB, block), (4 * MIB - block as u64, 2 * block), (u64::MAX - 511, 512), (1, block)]
    {
        assert_eq!(write(&env, &disk, start, len, 5).await, Err(DiskError::OutOfRange));
        assert_eq!(read(&env, &disk, start, len).await, Err(DiskError::OutOfRange));
    }
    // Zeros, freeing and not, over more than one buffer's length and at odd ends.
    for free in [true, false] {
        write(&env, &disk, MIB, MIB as usize, 6).await.unwrap();
        let range = ByteRange { start: MIB + block as u64, len: 2 * MIB };
        disk.write_zeroes(range, free, Durability::Fua).await.unwrap();
        let got = read(&env, &disk, MIB, MIB as usize).await.unwrap();
        assert!(got[..block].iter().all(|&byte| byte == 6) && got[block..].iter().all(|&byte| byte == 0));
    }
    if info.discard_zeroes {
        write(&env, &disk, 0, 65536, 7).await.unwrap();
        disk.discard(ByteRange { start: 4096, len: 32768 }).await.unwrap();
        let got = read(&env, &disk, 0, 65536).await.unwrap();
        assert!(got[4096..36864].iter().all(|&byte| byte == 0));
        assert!(got[..4096].iter().chain(&got[36864..]).all(|&byte| byte == 7));
    }
    disk.flush().await.unwrap();
}

#[test]
fn memory_and_files_behave_alike() {
    let folder = folder();
    for (name, options) in [("direct", OpenOptions::default()), ("cached", CACHED)] {
        let path = folder.path().join(name);
        let device = OpenDevice::create(&path, 4 * MIB, options).unwrap();
        with(device, behaves);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, 4 * MIB);
        assert_eq!(bytes[0], 7, "what was written is in the file");
    }
    let runtime = runtime::<()>(1, SHORT);
    let memory = runtime.reactors()[0].call(|env, _| behaves(env, Device::memory(4 * MIB)));
    memory.wait().unwrap();
}

#[test]
fn a_file_in_memory_is_used_through_the_page_cache() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm");
        return;
    };
    let device = OpenDevice::create(&folder.path().join("image"), 4 * MIB, OpenOptions::default()).unwrap();
    with(device, behaves);
}

#[test]
fn registered_buffers_are_used_like_others() {
    let folder = folder();
    let device = OpenDevice::create(&folder.path().join("image"), 4 * MIB, OpenOptions::default()).unwrap();
    let config = RuntimeConfig {
        cores: vec![0, 0],
        buffer_bytes: 1 << 20,
        register: Register::Always,
        ..RuntimeConfig::default()
    };
    let runtime = Runtime::<()>::start(config).unwrap();
    for reactor in runtime.reactors() {
        let device = device.clone();
        let answer = reactor.call(|env, _| async move {
            let disk = device.attach(&env).unwrap();
            disk.write_zeroes(ByteRange { start: 0, len: 4 * MIB }, true, Durability::Cached).await.unwrap();
            behaves(env, disk).await;
        });
        answer.wait().unwrap();
    }
}

#[test]
fn more_operations_than_slots_all_complete() {
    let folder = folder();
    let device = OpenDevice::create(&folder.path().join("image"), 4 * MIB, OpenOptions::default()).unwrap();
    let config = RuntimeConfig { ring_depth: 4, buffer_bytes: 8 << 20, ..RuntimeConfig::default() };
    let runtime = Runtime::<()>::start(config).unwrap();
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let disk = device.attach(&env).unwrap();
        let left = std::rc::Rc::new(std::cell::Cell::new(200));
        for at in 0..200_u64 {
            let (disk, left, there) = (disk.clone(), left.clone(), env.clone());
            env.spawn(async move {
                write(&there, &disk, at * 4096, 4096, at as u8).await.unwrap();
                assert_eq!(read(&there, &disk, at * 4096, 4096).await.unwrap(), [at as u8; 4096]);
                left.set(left.get() - 1);
            });
        }
        while left.get() > 0 {
            ashlar_env::spawn::yield_now().await;
        }
        (env.stats().disk_waited.get(), env.stats().disk_submitted.get())
    });
    let (waited, submitted) = answer.wait().unwrap();
    assert!(waited > 0);
    assert_eq!(submitted, 400);
}

#[test]
fn a_write_goes_on_when_its_future_is_dropped_and_waiters_are_not_lost() {
    let folder = folder();
    let device = OpenDevice::create(&folder.path().join("image"), 4 * MIB, OpenOptions::default()).unwrap();
    let config =
        RuntimeConfig { ring_depth: 2, buffer_bytes: 1 << 20, spin: Spin::NEVER, ..RuntimeConfig::default() };
    let runtime = Runtime::<()>::start(config).unwrap();
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let disk = device.attach(&env).unwrap();
        let mut futures: Vec<_> = (0..8_u64)
            .map(|at| {
                let data = filled(&env, 4096, 1 + at as u8).freeze();
                Box::pin(disk.write(at * 4096, data, Durability::Cached))
            })
            .collect();
        poll_fn(|cx| {
            for future in &mut futures {
                assert!(future.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        let free = env.buffers().free_count();
        // Two are in the kernel, six wait for a slot; the last of them stays.
        let last = futures.pop().unwrap();
        drop(futures);
        last.await.unwrap();
        let got = read(&env, &disk, 0, 8 * 4096).await.unwrap();
        assert_eq!((got[0], got[4096], got[7 * 4096]), (1, 2, 8));
        assert_eq!(env.buffers().free_count(), free + 8, "buffers come back");
    });
    answer.wait().unwrap();
}

#[test]
fn a_shutdown_waits_for_what_the_kernel_holds() {
    let folder = folder();
    let path = folder.path().join("image");
    let device = OpenDevice::create(&path, 4 * MIB, OpenOptions::default()).unwrap();
    let runtime = runtime::<()>(1, SHORT);
    let (began, begun) = std::sync::mpsc::channel();
    runtime.reactors()[0]
        .spawn(move |env, _| async move {
            let disk = device.attach(&env).unwrap();
            let mut writing = Box::pin(write(&env, &disk, 0, 1 << 20, 9));
            poll_fn(|cx| {
                assert!(writing.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            began.send(()).unwrap();
            writing.await.unwrap();
        })
        .unwrap();
    begun.recv().unwrap();
    runtime.shutdown();
    assert!(std::fs::read(&path).unwrap()[..1 << 20].iter().all(|&byte| byte == 9));
}

#[test]
fn a_resize_keeps_data_and_cuts_what_is_beyond() {
    let folder = folder();
    let path = folder.path().join("image");
    let device = OpenDevice::create(&path, 4 * MIB, OpenOptions::default()).unwrap();
    let test = |env: ReactorEnv, disk: Device| async move {
        write(&env, &disk, 0, 4096, 1).await.unwrap();
        write(&env, &disk, 2 * MIB, 4096, 2).await.unwrap();
        disk.resize(8 * MIB).await.unwrap();
        assert_eq!(disk.info().size_bytes, 8 * MIB);
        write(&env, &disk, 8 * MIB - 4096, 4096, 3).await.unwrap();
        disk.resize(MIB).await.unwrap();
        assert_eq!(read(&env, &disk, MIB, 4096).await, Err(DiskError::OutOfRange));
        disk.resize(4 * MIB).await.unwrap();
        assert_eq!(read(&env, &disk, 2 * MIB, 4096).await.unwrap(), [0; 4096]);
        assert_eq!(read(&env, &disk, 0, 4096).await.unwrap(), [1; 4096]);
        assert_eq!(disk.resize(1000).await, Err(DiskError::OutOfRange));
    };
    with(device, test);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * MIB);
    let runtime = runtime::<()>(1, SHORT);
    runtime.reactors()[0].call(move |env, _| test(env, Device::memory(4 * MIB))).wait().unwrap();
}

#[test]
fn a_hole_takes_no_space() {
    let folder = folder();
    let path = folder.path().join("image");
    let device = OpenDevice::create(&path, 4 * MIB, OpenOptions::default()).unwrap();
    let frees = with(device, |env, disk| async move {
        for at in 0..4 {
            write(&env, &disk, at * MIB, MIB as usize, 1).await.unwrap();
        }
        disk.flush().await.unwrap();
        disk.discard(ByteRange { start: 0, len: 4 * MIB }).await.unwrap();
        disk.flush().await.unwrap();
        disk.info().discard_granularity_bytes > 0
    });
    use std::os::unix::fs::MetadataExt;
    let taken = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(!frees || taken < MIB, "{taken} bytes are still taken");
}

#[test]
fn what_was_written_to_a_file_has_space_and_the_rest_has_none() {
    let folder = folder();
    let path = folder.path().join("image");
    std::fs::write(&path, []).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(16 << 20).unwrap();
    let device = OpenDevice::open(&path, OpenOptions::default()).unwrap();
    with(device, async |env: ReactorEnv, disk: Device| {
        write(&env, &disk, 4 << 20, 64 << 10, 7).await.unwrap();
        let found = disk.allocation(ByteRange { start: 1 << 20, len: 15 << 20 }).await.unwrap();
        let found: Vec<_> = found.iter().map(|it| (it.range.start, it.range.len, it.allocated)).collect();
        // File systems that do not tell holes say that all of it is data.
        let holes = [
            (1 << 20, 3 << 20, false),
            (4 << 20, 64 << 10, true),
            ((4 << 20) + (64 << 10), (12 << 20) - (64 << 10), false),
        ];
        assert!(found == holes || found == [(1 << 20, 15 << 20, true)], "{found:?}");
        assert!(disk.allocation(ByteRange { start: 16 << 20, len: 4096 }).await.is_err());
    });
}

#[test]
fn a_file_cut_short_behind_our_back_is_an_error_not_zeros() {
    for options in [OpenOptions::default(), CACHED] {
        let folder = folder();
        let path = folder.path().join("image");
        let device = OpenDevice::create(&path, 4 * MIB, options).unwrap();
        with(device, move |env, disk| async move {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB).unwrap();
            let error = read(&env, &disk, 2 * MIB, 4096).await.unwrap_err();
            assert!(matches!(&error, DiskError::Medium(what) if what.contains("cut short")), "{error}");
            let error = read(&env, &disk, MIB - 4096, 8192).await.unwrap_err();
            assert!(matches!(&error, DiskError::Medium(_)), "{error}");
            assert!(read(&env, &disk, MIB - 4096, 4096).await.is_ok());
        });
    }
}

/// A loop device over a file, for as long as this value lives.
struct Loop {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Loop {
    fn new(size_bytes: u64) -> Option<Self> {
        let folder = folder();
        let backing = folder.path().join("backing");
        std::fs::File::create(&backing).unwrap().set_len(size_bytes).unwrap();
        let set_up =
            Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(&backing).output();
        match set_up {
            Ok(output) if output.status.success() => {
                let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
                Some(Self { path, _folder: folder })
            }
            _ => {
                eprintln!("skipped: no loop devices here (or not root)");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[test]
fn a_block_device_behaves_and_is_opened_once() {
    let Some(device) = Loop::new(4 * MIB) else { return };
    let open = OpenDevice::open(&device.path, OpenOptions::default()).unwrap();
    let twice = OpenDevice::open(&device.path, OpenOptions::default());
    assert!(matches!(twice, Err(OpenError::InUse { .. })), "{twice:?}");
    with(open, |env, disk| async move {
        behaves(env, disk.clone()).await;
        assert_eq!(disk.resize(64 * MIB).await, Err(DiskError::OutOfRange));
        disk.resize(2 * MIB).await.unwrap();
        assert_eq!(disk.info().size_bytes, 2 * MIB);
    });
    let reader = OpenDevice::open(&device.path, READ_ONLY).unwrap();
    with(reader, |env, disk| async move {
        assert!(disk.info().read_only);
        assert_eq!(read(&env, &disk, 0, 4096).await.unwrap(), [7; 4096]);
        assert_eq!(write(&env, &disk, 0, 4096, 1).await, Err(DiskError::ReadOnly));
    });
}

#[test]
fn an_image_is_served_by_one_process_at_a_time() {
    let folder = folder();
    let path = folder.path().join("image");
    let device = OpenDevice::create(&path, MIB, OpenOptions::default()).unwrap();
    assert!(matches!(OpenDevice::open(&path, OpenOptions::default()), Err(OpenError::InUse { .. })));
    assert!(matches!(OpenDevice::open(&path, READ_ONLY), Err(OpenError::InUse { .. })));
    drop(device);
    let readers = [OpenDevice::open(&path, READ_ONLY).unwrap(), OpenDevice::open(&path, READ_ONLY).unwrap()];
    assert!(matches!(OpenDevice::open(&path, OpenOptions::default()), Err(OpenError::InUse { .. })));
    drop(readers);
    assert!(OpenDevice::open(&path, OpenOptions::default()).is_ok());
}

#[test]
fn what_cannot_be_opened_says_why_and_is_left_alone() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let open = |path: &Path| OpenDevice::open(path, OpenOptions::default());
    assert!(matches!(open(&at("missing")), Err(OpenError::NotFound { .. })));
    assert!(!at("missing").exists());
    assert!(matches!(open(folder.path()), Err(OpenError::NotADisk { .. })));
    assert!(matches!(open(Path::new("/dev/null")), Err(OpenError::NotADisk { .. })));
    std::fs::write(at("tiny"), [1; 100]).unwrap();
    let tiny = open(&at("tiny"));
    assert!(matches!(tiny, Err(OpenError::TooSmall { size_bytes: 100, .. })), "{tiny:?}");
    let exists = OpenDevice::create(&at("tiny"), MIB, OpenOptions::default());
    assert!(matches!(exists, Err(OpenError::Exists { .. })));
    assert_eq!(std::fs::read(at("tiny")).unwrap(), [1; 100]);
    let too_small = OpenDevice::create(&at("none"), 0, OpenOptions::default());
    assert!(matches!(too_small, Err(OpenError::TooSmall { .. })));
    assert!(!at("none").exists(), "what could not be finished is removed");
    // A size that is no multiple of a block is used up to the last whole one.
    std::fs::write(at("odd"), [1; 1000]).unwrap();
    assert_eq!(open(&at("odd")).unwrap().size_bytes(), 512);
}

#[test]
fn a_full_file_system_is_no_failure_of_the_device() {
    // A file system of its own that fills up: only root can mount one.
    let folder = folder();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(folder.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: cannot mount a file system");
        return;
    }
    let device = OpenDevice::create(&folder.path().join("image"), 4 * MIB, OpenOptions::default()).unwrap();
    let result = std::panic::catch_unwind(|| {
        with(device, |env, disk| async move {
            let mut full = Ok(());
            for at in 0..4 {
                full = full.and(write(&env, &disk, at * MIB, MIB as usize, 1).await);
            }
            assert_eq!(full, Err(DiskError::NoSpace));
            disk.discard(ByteRange { start: 0, len: 4 * MIB }).await.unwrap();
            write(&env, &disk, 0, 4096, 2).await.unwrap();
            disk.flush().await.unwrap();
        });
    });
    Command::new("umount").arg(folder.path()).status().unwrap();
    result.unwrap();
}

#[test]
fn null_forgets_and_reads_zeros() {
    let runtime = runtime::<()>(1, SHORT);
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let disk = Device::null(MIB + 100);
        assert_eq!(disk.info().size_bytes, MIB);
        assert!(disk.share().is_none());
        write(&env, &disk, 0, 4096, 1).await.unwrap();
        assert_eq!(read(&env, &disk, 0, 4096).await.unwrap(), [0; 4096]);
        disk.write(MIB - 512, Buf::zeroes(512), Durability::Fua).await.unwrap();
        assert_eq!(write(&env, &disk, MIB, 512, 1).await, Err(DiskError::OutOfRange));
    });
    answer.wait().unwrap();
}
