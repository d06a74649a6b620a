//! What a command costs in the sans-IO core: received bytes in, the volume's answer at once, bytes to send out.
//! No socket, no volume: a read is answered with shared zeros, a write is dropped.

use std::hint::black_box;
use std::io::IoSlice;

use ashlar_env::buf::{Buf, BufPool, PoolPlan};
use ashlar_env::clock::Instant;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::{Operation, VolumeInfo};
use ashlar_nvmeof::io::{completion, operation, transfer};
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::transport::{Admission, Event, Slot, Transport};
use ashlar_nvmeof::wire::sqe::io as opcode;
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_perf::client::Digests;
use ashlar_perf::client::fabrics::{connect, connect_data, sgl_in_capsule, sgl_transport};
use ashlar_perf::client::io;
use ashlar_perf::client::raw::{capsule, ic_req};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

const NOW: Instant = Instant(1);
const BATCH: u16 = 32;

struct Core {
    transport: Transport,
    pool: BufPool,
    volume: VolumeInfo,
}

impl Core {
    /// A connected I/O queue.
    fn new(digests: Digests) -> Self {
        let pool = BufPool::on_heap(PoolPlan::for_bytes(64 << 20));
        let volume = VolumeInfo {
            id: VolumeId(uuid::Uuid::from_u128(1)),
            block_size: BlockSize::B512,
            blocks: 1 << 31,
            read_only: false,
            volatile_cache: false,
            thin: true,
            unmap_granularity_blocks: 8,
            preferred_write_blocks: 8,
            atomic_write_blocks: 1,
        };
        let mut core =
            Self { transport: Transport::new(&Limits::default(), pool.clone(), NOW), pool, volume };
        core.receive(ic_req(digests).as_bytes());
        assert!(core.transport.next_event(NOW).is_none());
        core.send();
        let mut sqe = connect(1, 129, 4, 0);
        sqe.sgl = sgl_in_capsule(1024);
        core.receive(&capsule(sqe, connect_data([1; 16], 1, "s", "h").as_bytes(), digests));
        let Some(Event::Command(slot)) = core.transport.next_event(NOW) else { panic!("Connect arrives") };
        core.transport.connected(129, true, true);
        core.transport.complete(slot, completion(Status::SUCCESS), None, NOW);
        while core.transport.next_event(NOW).is_some() {}
        core.send();
        core
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for mut slice in self.transport.recv_slices() {
            let n = slice.len().min(bytes.len() - taken);
            slice[..n].copy_from_slice(&bytes[taken..taken + n]);
            taken += n;
        }
        self.transport.received(taken, NOW);
        taken
    }

    fn send(&mut self) -> usize {
        let mut total = 0;
        loop {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = self.transport.send_slices(&mut slices);
            let bytes = slices[..count].iter().map(|slice| slice.len()).sum();
            if bytes == 0 {
                return total;
            }
            self.transport.sent(bytes, NOW);
            total += bytes;
        }
    }

    /// Takes `bytes` in, answers every command, and returns how many bytes went out.
    fn turn(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            bytes = &bytes[self.receive(bytes)..];
            self.handle();
        }
        self.send()
    }

    fn handle(&mut self) {
        loop {
            match self.transport.next_event(NOW) {
                Some(Event::Command(slot)) => self.arrived(slot),
                Some(Event::Data(slot, data)) => self.execute(slot, Some(data)),
                Some(other) => panic!("{other:?}"),
                None => {
                    let Some(len) = self.transport.wants_buffer() else { return };
                    let buf = self.pool.try_alloc(len).expect("the pool is larger than the batch");
                    self.transport.give_buffer(buf, NOW);
                }
            }
        }
    }

    fn arrived(&mut self, slot: Slot) {
        let moves = transfer(self.transport.sqe(slot), &self.volume, 1 << 20).expect("a good command");
        match self.transport.admit(slot, moves, NOW) {
            Admission::Ready(data) => self.execute(slot, data),
            Admission::Waiting => {}
            Admission::Refused(status) => panic!("{status:?}"),
        }
    }

    fn execute(&mut self, slot: Slot, data: Option<Buf>) {
        let asked = operation(self.transport.sqe(slot), &self.volume, data).expect("a good command");
        let answer = match black_box(asked) {
            Operation::Read { range } => Some(Buf::zeroes(range.blocks() as usize * 512)),
            _ => None,
        };
        self.transport.complete(slot, completion(Status::SUCCESS), answer, NOW);
    }
}

/// The bytes of a batch of commands.
fn batch(op: u8, bytes: u32, digests: Digests) -> Vec<u8> {
    let command = |number: u16| {
        let mut sqe: Sqe = io::ranged(op, 1, u64::from(number) * 8, bytes / 512);
        sqe.cid = U16::new(number);
        let data = vec![0x5A; if op == opcode::WRITE { bytes as usize } else { 0 }];
        sqe.sgl = if data.is_empty() { sgl_transport(bytes) } else { sgl_in_capsule(bytes) };
        capsule(sqe, &data, digests)
    };
    (0..BATCH).flat_map(command).collect()
}

fn core(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    // A read is answered by a data PDU that needs no completion, a write by a completion.
    for (name, op, digests, answer) in [
        ("read", opcode::READ, Digests::NONE, 24 + 4096),
        ("write", opcode::WRITE, Digests::NONE, 24),
        ("read with digests", opcode::READ, Digests::BOTH, 24 + 4 + 4096 + 4),
        ("write with digests", opcode::WRITE, Digests::BOTH, 24 + 4),
    ] {
        let bytes = batch(op, 4096, digests);
        let mut core = Core::new(digests);
        assert_eq!(core.turn(&bytes), usize::from(BATCH) * answer);
        group.bench_with_input(BenchmarkId::new(name, 4096), &bytes, |b, bytes| {
            b.iter(|| core.turn(black_box(bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
