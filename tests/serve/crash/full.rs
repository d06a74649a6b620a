//! A device that is full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::Status;
use ashlar_perf::client::{Controller, Data, Queue, io};

use super::bench::{Bench, DEVICE_BYTES, Killer, TARGET, wait_for_devices};
use super::ledger::BLOCK_BYTES;
use super::load::{deallocate, range_of};
use super::random::Random;
use crate::node::{Node, volume};

const MIB: u64 = 1 << 20;
const SECTORS: u64 = MIB / 512;
/// A write may wait for rounds of compaction, which take long without optimisation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Kills while compaction runs.
const KILLS: u8 = 8;

struct Writer {
    _controller: Controller,
    queue: Queue,
    data: Vec<u8>,
}

impl Writer {
    fn new(node: &Node) -> Self {
        let mut controller = Controller::connect(&node.host(TARGET)).unwrap();
        controller.request_io_queues(1).unwrap();
        let queue = controller.io_queue(1, 4, MIB as usize, true).unwrap();
        let mut random = Random::new(9);
        let data = (0..MIB / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { _controller: controller, queue, data }
    }

    /// The data of MiB number `mib` in round `round`: no two blocks are alike.
    fn stamp(&mut self, mib: u64, round: u8) {
        for (index, block) in self.data.chunks_mut(BLOCK_BYTES).enumerate() {
            block[..8].copy_from_slice(&(mib << 8 | index as u64).to_le_bytes());
            block[8] = round;
        }
    }

    fn write(&mut self, mib: u64, round: u8) -> Status {
        self.try_write(mib, round).unwrap()
    }

    fn try_write(&mut self, mib: u64, round: u8) -> ashlar_perf::client::Result<Status> {
        self.stamp(mib, round);
        let write = io::write(1, mib * SECTORS, SECTORS as u32, false);
        let sent = self.queue.call(write, Data::ToController(MIB as u32), &self.data, PATIENCE)?;
        Ok(sent.completion.status)
    }

    fn read(&mut self, mib: u64) -> Vec<u8> {
        let read = io::read(1, mib * SECTORS, SECTORS as u32);
        let read = self.queue.call(read, Data::FromController(MIB as u32), &[], PATIENCE).unwrap();
        assert_eq!(read.completion.status, Status::SUCCESS, "MiB {mib}");
        read.data
    }

    fn verify(&mut self, mib: u64, round: u8) {
        let found = self.read(mib);
        self.stamp(mib, round);
        assert!(found == self.data, "MiB {mib} is not what was written in round {round}");
    }

    /// Each block is from one of two rounds. Makes it that of the second.
    fn settle(&mut self, mib: u64, before: u8, after: u8) {
        let found = self.read(mib);
        let [before, after] = [before, after].map(|round| {
            self.stamp(mib, round);
            self.data.clone()
        });
        for (index, block) in found.chunks(BLOCK_BYTES).enumerate() {
            let at = index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES;
            assert!(block == &before[at.clone()] || block == &after[at], "block {index} of MiB {mib}");
        }
    }

    fn unmap(&mut self, mib: u64) {
        let range = range_of(mib * SECTORS, SECTORS as u32);
        let unmapped = self.queue.call(deallocate(1), Data::ToController(16), &range, PATIENCE).unwrap();
        assert_eq!(unmapped.completion.status, Status::SUCCESS, "MiB {mib}");
    }
}

fn is_full(status: Status) -> bool {
    // Capacity Exceeded
    (status.sct(), status.sc()) == (0, 0x81)
}

#[test]
fn a_full_device_refuses_writes_until_space_is_given_back() {
    let bench = Bench::new(7, 1);
    let node = bench.start();
    wait_for_devices(&node, 1);
    let log = Backing::Log { thick: false };
    node.client.create_volume(&volume("big", log, Some(4 * DEVICE_BYTES))).unwrap();
    node.target(TARGET, &["big"]);
    let mut writer = Writer::new(&node);
    let mut written = 0;
    let status = loop {
        match writer.write(written, 1) {
            Status::SUCCESS => written += 1,
            status => break status,
        }
        assert!(written * MIB < DEVICE_BYTES, "a device takes more than it has");
    };
    assert!(is_full(status), "{status:?} after {written} MiB");
    assert!(written * MIB > DEVICE_BYTES / 10 * 7, "full after {written} MiB");
    // It stays so, serves reads, and does not fail for good.
    assert!(is_full(writer.write(written + 5, 1)));
    for mib in (0..written).step_by(37) {
        writer.verify(mib, 1);
    }
    assert!(node.client.status().unwrap().counts.connections > 0);

    // A restart of a full node serves it as well.
    drop(writer);
    node.crash();
    let node = bench.start();
    let mut writer = Writer::new(&node);
    writer.verify(0, 1);
    writer.verify(written - 1, 1);

    // A third of each segment is left.
    let (kept, freed): (Vec<u64>, Vec<u64>) = (0..written).partition(|mib| mib % 3 == 0);
    freed.iter().for_each(|&mib| writer.unmap(mib));
    let mut rounds: BTreeMap<u64, u8> = kept.into_iter().map(|mib| (mib, 1)).collect();
    let deadline = Instant::now() + PATIENCE;
    for &mib in freed.iter().take(freed.len() / 8) {
        write_when_there_is_space(&node, &mut writer, mib, 2, deadline);
        rounds.insert(mib, 2);
    }
    rounds.iter().step_by(9).for_each(|(&mib, &round)| writer.verify(mib, round));
    println!("full after {written} MiB");
    drop(writer);
    kill_while_space_is_gained(&bench, node, rounds);
}

fn write_when_there_is_space(node: &Node, writer: &mut Writer, mib: u64, round: u8, deadline: Instant) {
    loop {
        match writer.write(mib, round) {
            Status::SUCCESS => return,
            status => {
                assert!(
                    is_full(status) && Instant::now() < deadline,
                    "{status:?} at MiB {mib}: {}",
                    node.log()
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Overwrites what is there until the node is killed, some times; `rounds` says which round each MiB is from. Space is
/// gained by compaction meanwhile.
fn kill_while_space_is_gained(bench: &Bench, mut node: Node, mut rounds: BTreeMap<u64, u8>) {
    let mut random = Random::new(8);
    let there: Vec<u64> = rounds.keys().copied().collect();
    let mut overwritten = 0;
    for kill in 0..KILLS {
        let round = 3 + kill;
        let mut writer = Writer::new(&node);
        let killer = Killer::after(&node, Duration::from_millis(random.within(100, 600)));
        let mut touched = BTreeSet::new();
        let open = loop {
            let mib = there[random.below(there.len() as u64) as usize];
            match writer.try_write(mib, round) {
                Ok(Status::SUCCESS) => {
                    rounds.insert(mib, round);
                    overwritten += 1;
                }
                Ok(status) => assert!(is_full(status), "{status:?}"),
                Err(error) => {
                    assert!(error.is_path_failure(), "{error}");
                    break mib;
                }
            }
            touched.insert(mib);
        };
        killer.join();
        node.crash();
        node = bench.start();
        let mut writer = Writer::new(&node);
        writer.settle(open, rounds[&open], round);
        write_when_there_is_space(&node, &mut writer, open, round, Instant::now() + PATIENCE);
        rounds.insert(open, round);
        touched.iter().for_each(|&mib| writer.verify(mib, rounds[&mib]));
    }
    let mut writer = Writer::new(&node);
    for &mib in there.iter().step_by(5) {
        writer.verify(mib, rounds[&mib]);
    }
    println!("{KILLS} kills, {overwritten} MiB overwritten");
    drop(writer);
    node.stop();
}
