//! The CRC32C of NVMe/TCP's digests.

use std::hint::black_box;

use ashlar_codec::{crc32c, crc32c_append, crc32c_combine};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for bytes in [72, 512, 4 << 10, 128 << 10] {
        let data: Vec<u8> = (0..bytes).map(|at: usize| (at * 31) as u8).collect();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("whole", bytes), &data, |b, data| {
            b.iter(|| crc32c(black_box(data)));
        });
        group.bench_with_input(BenchmarkId::new("append", bytes), &data, |b, data| {
            b.iter(|| crc32c_append(black_box(7), black_box(data)));
        });
    }
    group.finish();
    c.bench_function("crc32c/combine", |b| {
        b.iter(|| crc32c_combine(black_box(1), black_box(2), black_box(4096)))
    });
}

criterion_group!(benches, digests);
criterion_main!(benches);
