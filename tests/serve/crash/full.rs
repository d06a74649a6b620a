//! A device that is full.

use std::time::{Duration, Instant};

use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::Status;
use ashlar_perf::client::{Controller, Data, Queue, io};

use super::bench::{Bench, DEVICE_BYTES, TARGET, wait_for_devices};
use super::load::{deallocate, range_of};
use super::random::Random;
use crate::node::{Node, PATIENCE, volume};

const MIB: u64 = 1 << 20;
const SECTORS: u64 = MIB / 512;

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
        for (index, block) in self.data.chunks_mut(4096).enumerate() {
            block[..8].copy_from_slice(&(mib << 8 | index as u64).to_le_bytes());
            block[8] = round;
        }
    }

    fn write(&mut self, mib: u64, round: u8) -> Status {
        self.stamp(mib, round);
        let write = io::write(1, mib * SECTORS, SECTORS as u32, false);
        let sent = self.queue.call(write, Data::ToController(MIB as u32), &self.data, PATIENCE).unwrap();
        sent.completion.status
    }

    fn verify(&mut self, mib: u64, round: u8) {
        self.stamp(mib, round);
        let read = io::read(1, mib * SECTORS, SECTORS as u32);
        let read = self.queue.call(read, Data::FromController(MIB as u32), &[], PATIENCE).unwrap();
        assert_eq!(read.completion.status, Status::SUCCESS, "MiB {mib}");
        assert!(read.data == self.data, "MiB {mib} is not what was written in round {round}");
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

    let given_back = written / 4;
    (0..given_back).for_each(|mib| writer.unmap(mib));
    let deadline = Instant::now() + PATIENCE;
    let mut again = 0;
    while again < given_back / 2 {
        match writer.write(again, 2) {
            Status::SUCCESS => again += 1,
            status => {
                assert!(
                    is_full(status) && Instant::now() < deadline,
                    "{status:?} at MiB {again}: {}",
                    node.log()
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    (0..again).step_by(7).for_each(|mib| writer.verify(mib, 2));
    (given_back..written).step_by(37).for_each(|mib| writer.verify(mib, 1));
    println!("full after {written} MiB, {again} MiB written again");
    drop(writer);
    node.stop();
}
