//! Promises of `Disk`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::disk::{Disk, DiskError, Durability};
use ashlar_env::units::ByteRange;
use ashlar_env::{Buf, BufMut, Env};

use super::{fill, first_difference, join_all, sleep, within};

/// The smallest disk that the suite runs on, in bytes.
pub const BYTES_MIN: u64 = 4 << 20;

const PATIENCE: Duration = Duration::from_secs(30);

/// All of them; the contents of the disk are destroyed.
pub async fn all<E: Env, D: Disk>(env: E, disk: D) {
    let info = disk.info();
    assert!(info.size_bytes >= BYTES_MIN, "the suite needs a disk of {BYTES_MIN} bytes");
    assert!(!info.read_only, "the suite needs a disk that can be written");
    assert!(info.block_bytes.is_power_of_two() && info.block_bytes <= 4096);
    let free = env.buffers().free_count();
    writes_read_back(&env, &disk).await;
    a_write_leaves_its_neighbours_alone(&env, &disk).await;
    any_window_of_a_buffer_can_be_written(&env, &disk).await;
    ranges_are_checked(&env, &disk).await;
    many_operations_run_at_once(&env, &disk).await;
    a_dropped_write_still_happens(&env, &disk).await;
    a_dropped_read_is_harmless(&env, &disk).await;
    zeroes_read_as_zeroes(&env, &disk).await;
    discard_keeps_its_promise(&env, &disk).await;
    flushes_succeed(&env, &disk).await;
    within(&env, PATIENCE, async {
        while env.buffers().free_count() < free {
            sleep(&env, Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("an operation kept its buffer");
}

fn block<D: Disk>(disk: &D) -> usize {
    disk.info().block_bytes as usize
}

/// A buffer with the pattern of `salt` for the disk's bytes from `start`.
async fn patterned<E: Env>(env: &E, salt: u64, start: u64, len: usize) -> Buf {
    let mut buf = env.buffers().alloc(len).await;
    fill(salt, start, &mut buf);
    buf.freeze()
}

async fn read<E: Env, D: Disk>(env: &E, disk: &D, start: u64, len: usize) -> BufMut {
    let mut buf = env.buffers().alloc(len).await;
    buf.fill(0xEE);
    let buf = disk.read(start, buf).await.unwrap_or_else(|e| panic!("read {len} bytes from {start}: {e}"));
    assert_eq!(buf.len(), len, "a read changed the length of its buffer");
    buf
}

async fn write<E: Env, D: Disk>(env: &E, disk: &D, salt: u64, start: u64, len: usize) {
    let data = patterned(env, salt, start, len).await;
    let done = disk.write(start, data, Durability::Cached).await;
    done.unwrap_or_else(|e| panic!("write {len} bytes to {start}: {e}"));
}

async fn expect<E: Env, D: Disk>(env: &E, disk: &D, salt: u64, start: u64, len: usize) {
    let got = read(env, disk, start, len).await;
    let differs = first_difference(salt, start, &got);
    assert_eq!(differs, None, "{len} bytes from {start} are not what was written");
}

async fn expect_zeroes<E: Env, D: Disk>(env: &E, disk: &D, start: u64, len: usize) {
    let got = read(env, disk, start, len).await;
    let other = got.iter().position(|&byte| byte != 0);
    assert_eq!(other, None, "{len} bytes from {start} are not zeros");
}

async fn writes_read_back<E: Env, D: Disk>(env: &E, disk: &D) {
    let block = block(disk);
    for (salt, len) in [block, 4096, 12_288, 65_536, 1 << 20].into_iter().enumerate() {
        for start in [0, 4096 * 7, disk.info().size_bytes - (1 << 20)] {
            for durability in [Durability::Cached, Durability::Fua] {
                let salt = salt as u64 * 2 + u64::from(durability == Durability::Fua);
                let data = patterned(env, salt, start, len).await;
                disk.write(start, data, durability).await.expect("a write");
                expect(env, disk, salt, start, len).await;
            }
        }
    }
}

async fn a_write_leaves_its_neighbours_alone<E: Env, D: Disk>(env: &E, disk: &D) {
    let block = block(disk);
    let start = 1 << 20;
    write(env, disk, 20, start, 16 * block).await;
    write(env, disk, 21, start + 5 * block as u64, 3 * block).await;
    expect(env, disk, 20, start, 5 * block).await;
    expect(env, disk, 21, start + 5 * block as u64, 3 * block).await;
    expect(env, disk, 20, start + 8 * block as u64, 8 * block).await;
}

/// Data that came from a network lie anywhere in a buffer.
async fn any_window_of_a_buffer_can_be_written<E: Env, D: Disk>(env: &E, disk: &D) {
    let block = block(disk);
    let mut buf = env.buffers().alloc(65_536).await;
    for offset in [0, 72, 512, 4095, 4096] {
        let start = 2 * block as u64;
        buf.fill(0);
        fill(30, start, &mut buf[offset..offset + 2 * block]);
        let whole = buf.freeze();
        let window = whole.slice(offset, 2 * block);
        drop(whole);
        let done = disk.write(start, window, Durability::Cached).await;
        done.unwrap_or_else(|e| panic!("write a window at offset {offset}: {e}"));
        expect(env, disk, 30, start, 2 * block).await;
        buf = env.buffers().alloc(65_536).await;
    }
    disk.write(0, Buf::zeroes(4096), Durability::Cached).await.expect("zeros that belong to no pool");
    expect_zeroes(env, disk, 0, 4096).await;
}

async fn ranges_are_checked<E: Env, D: Disk>(env: &E, disk: &D) {
    let info = disk.info();
    let block = block(disk);
    let beyond = [
        (info.size_bytes, block),
        (info.size_bytes - block as u64, 2 * block),
        (u64::MAX - block as u64 + 1, block),
        (1, block),
        (block as u64 / 2, block),
        (0, block / 2),
        (0, block + 1),
    ];
    for (start, len) in beyond {
        let range = ByteRange { start, len: len as u64 };
        let buf = env.buffers().alloc(len).await;
        let got = disk.read(start, buf).await.map(drop);
        assert_eq!(got, Err(DiskError::OutOfRange), "read {range:?}");
        let got = disk.write(start, Buf::zeroes(len), Durability::Cached).await;
        assert_eq!(got, Err(DiskError::OutOfRange), "write {range:?}");
        let got = disk.write_zeroes(range, true, Durability::Cached).await;
        assert_eq!(got, Err(DiskError::OutOfRange), "zero {range:?}");
        let got = disk.discard(range).await;
        assert_eq!(got, Err(DiskError::OutOfRange), "discard {range:?}");
    }
    write(env, disk, 31, 0, block).await;
    expect(env, disk, 31, 0, block).await;
}

async fn many_operations_run_at_once<E: Env, D: Disk>(env: &E, disk: &D) {
    let places: Vec<u64> = (0..12).map(|n| n * 64 * 1024).collect();
    join_all(places.iter().map(|&start| write(env, disk, 40, start, 4096))).await;
    join_all(places.iter().map(|&start| expect(env, disk, 40, start, 4096))).await;
    // Overlapping writes end as one of them, block by block.
    let block = block(disk);
    join_all([41, 42].map(|salt| write(env, disk, salt, 0, 2 * block))).await;
    for at in [0, block as u64] {
        let got = read(env, disk, at, block).await;
        let is = |salt| first_difference(salt, at, &got).is_none();
        assert!(is(41) || is(42), "two writes left a mixture in one block");
    }
}

/// Polls `future` once and drops it.
async fn poll_once(future: impl Future) {
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        let _ = Pin::new(&mut future).poll(cx);
        Poll::Ready(())
    })
    .await;
}

async fn a_dropped_write_still_happens<E: Env, D: Disk>(env: &E, disk: &D) {
    write(env, disk, 50, 0, 8192).await;
    let data = patterned(env, 51, 0, 8192).await;
    poll_once(disk.write(0, data, Durability::Cached)).await;
    let lands = async {
        loop {
            let got = read(env, disk, 0, 8192).await;
            if first_difference(51, 0, &got).is_none() {
                break;
            }
            sleep(env, Duration::from_millis(1)).await;
        }
    };
    within(env, PATIENCE, lands).await.expect("a write went with its future");
}

async fn a_dropped_read_is_harmless<E: Env, D: Disk>(env: &E, disk: &D) {
    for _ in 0..20 {
        let buf = env.buffers().alloc(4096).await;
        poll_once(disk.read(0, buf)).await;
        // If the read wrote into memory that is no longer its own, this buffer would show it.
        let other = patterned(env, 52, 0, 4096).await;
        sleep(env, Duration::from_micros(200)).await;
        assert_eq!(first_difference(52, 0, &other), None, "a dropped read wrote into another's buffer");
    }
}

async fn zeroes_read_as_zeroes<E: Env, D: Disk>(env: &E, disk: &D) {
    for free in [false, true] {
        for durability in [Durability::Cached, Durability::Fua] {
            write(env, disk, 60, 0, 65_536).await;
            let range = ByteRange { start: 8192, len: 16_384 };
            disk.write_zeroes(range, free, durability).await.expect("zeroes");
            expect(env, disk, 60, 0, 8192).await;
            expect_zeroes(env, disk, 8192, 16_384).await;
            expect(env, disk, 60, 24_576, 40_960).await;
        }
    }
    let block = block(disk) as u64;
    write(env, disk, 61, 0, 4096).await;
    let one = ByteRange { start: block, len: block };
    disk.write_zeroes(one, true, Durability::Cached).await.expect("zeroes of one block");
    expect(env, disk, 61, 0, block as usize).await;
    expect_zeroes(env, disk, block, block as usize).await;
}

async fn discard_keeps_its_promise<E: Env, D: Disk>(env: &E, disk: &D) {
    write(env, disk, 70, 0, 1 << 20).await;
    match disk.discard(ByteRange { start: 65_536, len: 131_072 }).await {
        Ok(()) if disk.info().discard_zeroes => expect_zeroes(env, disk, 65_536, 131_072).await,
        Ok(()) | Err(DiskError::Unsupported) => {}
        Err(error) => panic!("discard: {error}"),
    }
    expect(env, disk, 70, 0, 65_536).await;
    expect(env, disk, 70, 196_608, 65_536).await;
    write(env, disk, 71, 65_536, 4096).await;
    expect(env, disk, 71, 65_536, 4096).await;
}

async fn flushes_succeed<E: Env, D: Disk>(env: &E, disk: &D) {
    disk.flush().await.expect("a flush of a clean disk");
    write(env, disk, 80, 0, 4096).await;
    let both = join_all([disk.flush(), disk.flush()]).await;
    assert_eq!(both, [Ok(()), Ok(())]);
    expect(env, disk, 80, 0, 4096).await;
}

/// A disk that can change its size does so: new space reads as zeros, what is cut off is out of range. For
/// files and memory.
pub async fn resizes<E: Env, D: Disk>(env: E, disk: D) {
    let size = disk.info().size_bytes;
    write(&env, &disk, 90, size - 4096, 4096).await;
    disk.resize(size + 65_536).await.expect("to grow");
    assert_eq!(disk.info().size_bytes, size + 65_536);
    expect(&env, &disk, 90, size - 4096, 4096).await;
    expect_zeroes(&env, &disk, size, 65_536).await;
    write(&env, &disk, 91, size, 65_536).await;
    disk.resize(size).await.expect("to shrink");
    let buf = env.buffers().alloc(4096).await;
    assert_eq!(disk.read(size, buf).await.map(drop), Err(DiskError::OutOfRange));
    disk.resize(size + 65_536).await.expect("to grow again");
    expect_zeroes(&env, &disk, size, 65_536).await;
    expect(&env, &disk, 90, size - 4096, 4096).await;
}
