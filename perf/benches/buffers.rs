//! Taking an I/O buffer from its pool and giving it back.

use std::hint::black_box;

use ashlar_env::buf::{BufPool, PoolPlan};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn buffers(c: &mut Criterion) {
    let pool = BufPool::on_heap(PoolPlan::for_bytes(64 << 20));
    let mut group = c.benchmark_group("buffers");
    for bytes in [4 << 10, 128 << 10] {
        group.bench_with_input(BenchmarkId::new("take and drop", bytes), &bytes, |b, &bytes| {
            b.iter(|| pool.try_alloc(black_box(bytes)).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("freeze, window, drop", bytes), &bytes, |b, &bytes| {
            b.iter(|| {
                let shared = pool.try_alloc(black_box(bytes)).unwrap().freeze();
                shared.slice(512, 512)
            });
        });
    }
    group.bench_function("32 in flight of 4096", |b| {
        b.iter(|| {
            let all: [_; 32] = std::array::from_fn(|_| pool.try_alloc(black_box(4096)).unwrap());
            all
        });
    });
    group.finish();
}

criterion_group!(benches, buffers);
criterion_main!(benches);
