//! SIGTERM under load: every write is answered or its connection closed, and what was acknowledged is there.

use std::thread::JoinHandle;
use std::time::Duration;

use ashlar_nvmeof::wire::Status;
use ashlar_perf::client::{Data, HostOptions, Queue, RX_BYTES, io};

use super::node::{Host, PATIENCE, Place, TRANSFER_BYTES};

const MIB: u64 = 1 << 20;
/// Hosts, each with its own part of the volume and as many writes in flight as its queue takes.
const HOSTS: u64 = 3;
const BLOCKS_PER_HOST: u64 = 128;
/// Writes that are acknowledged before the node is told to stop.
const WRITES_BEFORE: u64 = 500;

/// What a host knows at the end.
struct Seen {
    /// The last acknowledged and the last sent version of each block; 0 is none.
    acknowledged: Vec<u32>,
    sent: Vec<u32>,
    writes: u64,
}

/// Bytes that tell where and when they were written.
fn stamp(out: &mut [u8], host: u64, block: u64, version: u32) {
    for chunk in out.chunks_mut(16) {
        chunk[..4].copy_from_slice(&(host as u32).to_le_bytes());
        chunk[4..12].copy_from_slice(&block.to_le_bytes());
        chunk[12..16].copy_from_slice(&version.to_le_bytes());
    }
}

/// Overwrites its blocks in turn until the node closes the connection. One write per block is in flight.
fn load(options: HostOptions, host: u64, block_bytes: u32) -> JoinHandle<Seen> {
    // Here, not on the thread: the node is told to stop by what all hosts together have written.
    let connected = Host::connect(&options).unwrap();
    std::thread::spawn(move || {
        // All of it: without its admin queue it would be no host.
        let mut it = connected;
        let blocks = BLOCKS_PER_HOST as usize;
        let mut seen = Seen { acknowledged: vec![0; blocks], sent: vec![0; blocks], writes: 0 };
        let mut in_slot = vec![(0, 0); 16];
        let (mut next, mut version) = (0, 1);
        let (mut buffer, mut done) = (vec![0; RX_BYTES], Vec::new());
        let mut step = |queue: &mut Queue, seen: &mut Seen| -> ashlar_perf::client::Result<()> {
            while let Some(slot) = queue.next_slot() {
                // Blocks come round in another order of slots; a block waits until its last write has ended.
                if seen.sent[next] != seen.acknowledged[next] {
                    break;
                }
                stamp(&mut queue.payload_mut(slot)[..block_bytes as usize], host, next as u64, version);
                in_slot[usize::from(slot)] = (next, version);
                seen.sent[next] = version;
                let lba = host * BLOCKS_PER_HOST + next as u64;
                queue.submit(io::write(1, lba, 1, false), Data::ToController(block_bytes));
                next = (next + 1) % blocks;
                version += u32::from(next == 0);
            }
            queue.flush()?;
            let received = queue.poll(&mut buffer, &mut done);
            for completion in done.drain(..) {
                let (block, version) = in_slot[usize::from(completion.slot)];
                assert_eq!(completion.status, Status::SUCCESS, "a write of a node that stops");
                seen.acknowledged[block] = version;
                seen.writes += 1;
            }
            received.map(drop)
        };
        let ended = loop {
            match step(&mut it.queue, &mut seen) {
                Ok(()) => std::thread::sleep(Duration::from_micros(100)),
                Err(error) => break error,
            }
        };
        assert!(ended.is_path_failure(), "{ended}");
        seen
    })
}

#[test]
fn no_acknowledged_write_is_lost_when_a_node_is_told_to_stop() {
    let place = Place::new();
    let node = place.start();
    let image = place.image("disk.raw", 16 * MIB);
    let block = node.image("disk", &image).block_size_bytes;
    node.target("vm", &["disk"]);
    let hosts: Vec<_> = (0..HOSTS)
        .map(|host| load(HostOptions { host_id: [host as u8 + 1; 16], ..node.host("vm") }, host, block))
        .collect();
    let deadline = std::time::Instant::now() + PATIENCE;
    while node.client.volume("disk").unwrap().io.unwrap().writes < WRITES_BEFORE {
        assert!(std::time::Instant::now() < deadline, "the load does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = node.stop();
    assert!(took < Duration::from_secs(5), "with nothing slow in flight: {took:?}");
    let seen: Vec<Seen> = hosts.into_iter().map(|host| host.join().unwrap()).collect();

    let node = place.start();
    let mut reader = node.connect("vm");
    for (host, seen) in seen.iter().enumerate() {
        assert!(seen.writes > 0, "host {host} wrote nothing");
        let len = BLOCKS_PER_HOST as u32 * block;
        assert!(len as usize <= TRANSFER_BYTES);
        let read = io::read(1, host as u64 * BLOCKS_PER_HOST, BLOCKS_PER_HOST as u32);
        let (status, found) = reader.call(read, Data::FromController(len), &[]);
        assert_eq!(status, Status::SUCCESS);
        let versions = seen.acknowledged.iter().zip(&seen.sent);
        for ((index, (&acknowledged, &sent)), data) in versions.enumerate().zip(found.chunks(block as usize))
        {
            let possible = [acknowledged, sent].map(|version| {
                let mut bytes = vec![0; block as usize];
                if version > 0 {
                    stamp(&mut bytes, host as u64, index as u64, version);
                }
                bytes
            });
            let at = format!("host {host}, block {index}: acknowledged {acknowledged}, sent {sent}");
            assert!(possible.iter().any(|bytes| bytes == data), "{at}, found {:?}", &data[..16]);
        }
    }
    node.stop();
}
