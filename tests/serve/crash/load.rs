//! A load that goes on until the node is gone, or until it is told to end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ashlar_nvmeof::wire::Status;
use ashlar_perf::client::{Data, HostOptions, Queue, RX_BYTES, fabrics, io};
use ashlar_perf::load::Fault;
use zerocopy::little_endian::U32;

use super::ledger::{BLOCK_BYTES, BLOCKS_MAX, Cut, Kind, Ledger, Op, SECTOR_BYTES};
use super::random::Random;
use crate::node::{Host, Node, PATIENCE};

/// Commands in flight; [`Host`]'s queue takes so many.
const DEPTH: usize = 16;

/// What hosts and the test share of a ledger.
pub type Shared = Arc<Mutex<Ledger>>;

/// A load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Changes and reads what `ledger` keeps the books of: namespace `nsid` of `options`' target.
    pub fn start(options: HostOptions, nsid: u32, ledger: &Shared, seed: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count, ledger) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(ledger));
        let thread = std::thread::spawn(move || {
            let mut host = Host::connect(&options).unwrap();
            let mut random = Random::new(seed);
            let mut running = Running { nsid, ops: vec![const { None }; DEPTH], done: &count };
            loop {
                let ending = stopped.load(Ordering::Acquire);
                if ending && host.queue.free_slots() == DEPTH {
                    return;
                }
                match running.turn(&mut host.queue, &ledger, &mut random, !ending) {
                    Ok(true) => {}
                    Ok(false) => std::thread::sleep(Duration::from_micros(100)),
                    Err(error) => {
                        assert!(error.is_path_failure(), "{error}");
                        return;
                    }
                }
            }
        });
        Self { stop, done, thread }
    }

    /// Waits until so many commands have ended.
    pub fn wait_for(&self, commands: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.done.load(Ordering::Relaxed) < commands {
            assert!(Instant::now() < deadline && !self.thread.is_finished(), "the load does not go on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it once what is in flight is answered. Returns how many commands have ended.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.join()
    }

    /// Waits for the end of a load whose node is gone. Returns how many commands have ended.
    pub fn join(self) -> u64 {
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        self.done.load(Ordering::Relaxed)
    }
}

struct Running<'a> {
    nsid: u32,
    ops: Vec<Option<Op>>,
    done: &'a AtomicU64,
}

impl Running<'_> {
    /// Issues what fits, and takes what has ended. True if something has.
    fn turn(
        &mut self,
        queue: &mut Queue,
        ledger: &Shared,
        random: &mut Random,
        more: bool,
    ) -> ashlar_perf::client::Result<bool> {
        let mut ledger = ledger.lock().expect("no other thread panics");
        while let Some(slot) = queue.next_slot().filter(|_| more) {
            let Some(op) = ledger.plan(random) else { break };
            if op.kind == Kind::Write {
                ledger.fill(&op, queue.payload_mut(slot));
            }
            let (sqe, data) = command(self.nsid, &op, random.one_in(16));
            if op.kind == Kind::Deallocate {
                queue.payload_mut(slot)[..16].copy_from_slice(&range(&op));
            }
            queue.submit(sqe, data).expect("a slot is free");
            self.ops[usize::from(slot)] = Some(op);
        }
        queue.flush()?;
        let (mut buffer, mut done) = (vec![0; RX_BYTES], Vec::new());
        let received = queue.poll(&mut buffer, &mut done);
        for completion in &done {
            let op = self.ops[usize::from(completion.slot)].take().expect("a command in flight");
            assert_eq!(completion.status, Status::SUCCESS, "{op:?}");
            let data = &queue.payload(completion.slot)[..op.bytes()];
            ledger.done(&op, data).unwrap_or_else(|fault| panic!("{op:?}: {fault}"));
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        received.map(|_| !done.is_empty())
    }
}

/// The command for `op`.
fn command(nsid: u32, op: &Op, special: bool) -> (ashlar_nvmeof::wire::Sqe, Data) {
    let blocks = (op.bytes() / SECTOR_BYTES) as u32;
    let (first, bytes) = (op.sectors.start, op.bytes() as u32);
    match op.kind {
        Kind::Read => (io::read(nsid, first, blocks), Data::FromController(bytes)),
        Kind::Write => (io::write(nsid, first, blocks, special), Data::ToController(bytes)),
        Kind::Zeroes => {
            let mut sqe = io::write_zeroes(nsid, first, blocks);
            // DEAC
            sqe.cdw12 = U32::new(sqe.cdw12.get() | u32::from(special) << 25);
            (sqe, Data::None)
        }
        Kind::Deallocate => (deallocate(nsid), Data::ToController(16)),
    }
}

/// Dataset Management, Deallocate, one range.
pub fn deallocate(nsid: u32) -> ashlar_nvmeof::wire::Sqe {
    let mut sqe = fabrics::command(ashlar_nvmeof::wire::sqe::io::DATASET_MANAGEMENT, nsid);
    sqe.cdw11 = U32::new(1 << 2);
    sqe
}

/// The list of ranges of a [`deallocate`].
fn range(op: &Op) -> [u8; 16] {
    range_of(op.sectors.start, (op.bytes() / SECTOR_BYTES) as u32)
}

/// One range of blocks of a namespace.
pub fn range_of(first: u64, blocks: u32) -> [u8; 16] {
    let mut range = [0; 16];
    range[4..8].copy_from_slice(&blocks.to_le_bytes());
    range[8..].copy_from_slice(&first.to_le_bytes());
    range
}

/// Reads all blocks of a namespace of `node` and has `look` compare them, from a block on.
fn read_all(
    node: &Node,
    target: &str,
    nsid: u32,
    blocks: u64,
    mut look: impl FnMut(u64, &[u8]) -> Result<(), Fault>,
) {
    let mut host = node.connect(target);
    for first in (0..blocks).step_by(BLOCKS_MAX as usize) {
        let bytes = (blocks - first).min(BLOCKS_MAX) as usize * BLOCK_BYTES;
        let lba = first * (BLOCK_BYTES / SECTOR_BYTES) as u64;
        let read = io::read(nsid, lba, (bytes / SECTOR_BYTES) as u32);
        let (status, data) = host.call(read, Data::FromController(bytes as u32), &[]);
        assert_eq!(status, Status::SUCCESS, "block {first}: {}", node.log());
        look(first, &data).unwrap_or_else(|fault| panic!("namespace {nsid}: {fault}\n{}", node.log()));
    }
}

/// Every acknowledged write is there, every other happened to a block as a whole or not at all.
pub fn verify(node: &Node, target: &str, nsid: u32, ledger: &Shared) {
    let mut ledger = ledger.lock().expect("no other thread panics");
    read_all(node, target, nsid, ledger.blocks(), |first, data| ledger.settle(first, data));
}

/// A clone holds what the snapshot `cut` may hold.
pub fn verify_cut(node: &Node, target: &str, nsid: u32, ledger: &Shared, cut: &Cut) {
    let ledger = ledger.lock().expect("no other thread panics");
    read_all(node, target, nsid, ledger.blocks(), |first, data| ledger.check_cut(cut, first, data));
}

/// The volume was put back to the snapshot `cut`: it holds that, and is known to from now on.
pub fn verify_restored(node: &Node, target: &str, nsid: u32, ledger: &Shared, cut: &Cut) {
    let mut ledger = ledger.lock().expect("no other thread panics");
    read_all(node, target, nsid, ledger.blocks(), |first, data| ledger.restored(cut, first, data));
}
