//! The host against a target in this process: what it sends is checked there, what it refuses here.

use std::time::Duration;

use crate::fake::{BLOCK_BYTES, BLOCKS, Fake, Flaw};
use ashlar_nvmeof::wire::pdu::kind;
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_perf::client::raw::{Heard, RawClient};
use ashlar_perf::client::{ClientError, Controller, Data, Digests, HostOptions, Queue, Reply, io};

const TIMEOUT: Duration = Duration::from_secs(10);

fn connect(fake: &Fake, digests: Digests) -> (Controller, Queue) {
    let mut options = HostOptions::new(&fake.addr, "nqn.2026-01.test:fake");
    options.digests = digests;
    let mut controller = Controller::connect(&options).unwrap();
    let namespace = controller.namespace(1).unwrap();
    assert_eq!((namespace.blocks, u64::from(namespace.block_bytes)), (BLOCKS, BLOCK_BYTES));
    assert_eq!(controller.request_io_queues(4).unwrap(), 4);
    let queue = controller.io_queue(1, 16, 128 << 10, true).unwrap();
    (controller, queue)
}

fn call(queue: &mut Queue, sqe: Sqe, data: Data, payload: &[u8]) -> Result<Reply, ClientError> {
    queue.call(sqe, data, payload, TIMEOUT)
}

/// One command of each kind, with data in the capsule and by R2T.
fn move_data(digests: Digests) {
    let fake = Fake::start(Flaw::None);
    let (mut controller, mut queue) = connect(&fake, digests);
    assert_eq!(controller.transfer_bytes_max(), 128 << 10);
    controller.keep_alive().unwrap();
    for (lba, bytes) in [(0, 512), (8, 8192), (100, 8704), (1000, 128 << 10)] {
        let payload: Vec<u8> = (0..bytes).map(|at: u32| (at * 7 + at / 256) as u8).collect();
        let blocks = bytes / 512;
        let to = Data::ToController(bytes);
        let reply = call(&mut queue, io::write(1, lba, blocks, false), to, &payload).unwrap();
        assert_eq!(reply.completion.status, Status::SUCCESS);
        let read = io::read(1, lba, blocks);
        let reply = call(&mut queue, read, Data::FromController(bytes), &[]).unwrap();
        assert_eq!(reply.completion.status, Status::SUCCESS);
        assert!(reply.data == payload, "{bytes} bytes at {lba}");
        let reply = call(&mut queue, io::compare(1, lba, blocks), to, &payload).unwrap();
        assert_eq!(reply.completion.status, Status::SUCCESS);
        let reply = call(&mut queue, io::write_zeroes(1, lba, 1), Data::None, &[]).unwrap();
        assert_eq!(reply.completion.status, Status::SUCCESS);
        let reply = call(&mut queue, io::compare(1, lba, blocks), to, &payload).unwrap();
        assert_eq!(reply.completion.status, Status::COMPARE_FAILURE);
        let reply = call(&mut queue, io::flush(1), Data::None, &[]).unwrap();
        assert_eq!(reply.completion.status, Status::SUCCESS);
    }
    let beyond = call(&mut queue, io::read(1, BLOCKS, 1), Data::FromController(512), &[]).unwrap();
    assert_eq!(beyond.completion.status, Status::LBA_OUT_OF_RANGE);
    controller.shut_down().unwrap();
}

#[test]
fn data_move_without_digests() {
    move_data(Digests::NONE);
}

#[test]
fn data_move_with_digests() {
    move_data(Digests::BOTH);
    move_data(Digests { header: true, data: false });
    move_data(Digests { header: false, data: true });
}

#[test]
fn a_full_queue_takes_no_more_until_something_completes() {
    let fake = Fake::start(Flaw::None);
    let (_controller, mut queue) = connect(&fake, Digests::NONE);
    for lba in 0..16 {
        assert!(queue.submit(io::read(1, lba, 1), Data::FromController(512)).is_some());
    }
    assert_eq!(queue.submit(io::read(1, 0, 1), Data::FromController(512)), None);
    let (mut buffer, mut done) = (vec![0; 4096], Vec::new());
    while done.len() < 16 {
        queue.flush().unwrap();
        queue.poll(&mut buffer, &mut done).unwrap();
    }
    let mut slots: Vec<u16> = done.iter().map(|completion| completion.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..16).collect::<Vec<u16>>());
    assert_eq!(queue.free_slots(), 16);
}

fn read_from(flaw: Flaw, digests: Digests) -> Result<Reply, ClientError> {
    let fake = Fake::start(flaw);
    let (_controller, mut queue) = connect(&fake, digests);
    call(&mut queue, io::read(1, 0, 8), Data::FromController(4096), &[])?;
    // A second completion arrives with or after the first, and at the latest before the next.
    call(&mut queue, io::read(1, 0, 8), Data::FromController(4096), &[])
}

#[test]
fn a_wrong_data_digest_fails_the_command_only() {
    let reply = read_from(Flaw::BitFlip, Digests::BOTH).unwrap();
    assert_eq!(reply.completion.status, Status::TRANSIENT_TRANSPORT);
}

#[test]
fn a_second_completion_is_noticed() {
    let error = read_from(Flaw::CompletesTwice, Digests::NONE).unwrap_err();
    assert!(matches!(&error, ClientError::Protocol(what) if what.contains("not outstanding")), "{error}");
}

#[test]
fn a_read_that_succeeds_short_is_noticed() {
    let error = read_from(Flaw::ShortRead, Digests::NONE).unwrap_err();
    assert!(matches!(&error, ClientError::Protocol(what) if what.contains("2048 of 4096")), "{error}");
}

#[test]
fn a_closed_connection_is_an_error_at_once() {
    let fake = Fake::start(Flaw::None);
    let (_controller, mut queue) = connect(&fake, Digests::NONE);
    fake.drop_connections();
    let error = call(&mut queue, io::flush(1), Data::None, &[]).unwrap_err();
    assert!(error.is_path_failure(), "{error}");
}

#[test]
fn impossible_queues_are_refused() {
    let fake = Fake::start(Flaw::None);
    let (controller, _queue) = connect(&fake, Digests::NONE);
    assert!(matches!(controller.io_queue(2, 129, 4096, false), Err(ClientError::Setup(_))));
    assert!(matches!(controller.io_queue(2, 0, 4096, false), Err(ClientError::Setup(_))));
}

#[test]
fn the_raw_client_hears_answers_silence_and_the_end() {
    let fake = Fake::start(Flaw::None);
    let mut raw = RawClient::dial(&fake.addr, TIMEOUT).unwrap();
    assert_eq!(raw.hear(Duration::from_millis(20)).unwrap(), Heard::Nothing);
    let response = raw.negotiate(Digests::BOTH, TIMEOUT).unwrap();
    assert_eq!((response.header().kind, response.bytes.len()), (kind::IC_RESP, 128));
    fake.drop_connections();
    assert_eq!(raw.expect_close(TIMEOUT).unwrap(), None);
}
