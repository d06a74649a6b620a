//! The initiator against a target in this process: what it sends is checked there, what it refuses here.

use crate::portal::{BLOCK_BYTES, BLOCKS, Flaw, Portal};
use ashlar_perf::client::{ClientError, Digests, Result};
use ashlar_perf::iscsi::{Capacity, Data, InitiatorOptions, Outcome, Reply, Session, SessionOptions, cdb};

const TARGET: &str = "iqn.2026-01.test:fake";

fn log_in(portal: &Portal, change: impl Fn(&mut InitiatorOptions)) -> Result<Session> {
    let mut options = InitiatorOptions::new(&portal.addr, TARGET);
    change(&mut options);
    Session::log_in(
        &options,
        SessionOptions { index: 3, depth: 16, payload_bytes: 128 << 10, keep_read_data: true },
    )
}

/// Writes and reads of many sizes.
fn move_data(change: impl Fn(&mut InitiatorOptions)) {
    let portal = Portal::start(Flaw::None);
    let mut session = log_in(&portal, change).unwrap();
    let capacity = session.capacity().unwrap();
    assert_eq!(capacity, Capacity { blocks: BLOCKS, block_bytes: BLOCK_BYTES as u32 });
    for (lba, bytes) in [(0, 512), (8, 8192), (100, 8704), (300, 16_384), (400, 24_576), (1000, 128 << 10)] {
        let payload: Vec<u8> = (0..bytes).map(|at: u32| (at * 7 + at / 256) as u8).collect();
        let blocks = bytes / 512;
        let reply = session.call(&cdb::write(lba, blocks), Data::Out(bytes), &payload).unwrap();
        assert_eq!(reply.outcome, Outcome::SUCCESS);
        let reply = session.call(&cdb::read(lba, blocks), Data::In(bytes), &[]).unwrap();
        assert_eq!(reply.outcome, Outcome::SUCCESS);
        assert!(reply.data == payload, "{bytes} bytes at {lba}");
        let reply = session.call(&cdb::write_same(lba, blocks), Data::Out(512), &[0; 512]).unwrap();
        assert_eq!(reply.outcome, Outcome::SUCCESS);
        let reply = session.call(&cdb::read(lba, blocks), Data::In(bytes), &[]).unwrap();
        assert!(reply.data.iter().all(|&byte| byte == 0));
        let reply = session.call(&cdb::synchronize_cache(), Data::None, &[]).unwrap();
        assert_eq!(reply.outcome, Outcome::SUCCESS);
    }
    let beyond = session.call(&cdb::read(BLOCKS, 1), Data::In(512), &[]).unwrap();
    assert_eq!(beyond.outcome.to_string(), "SCSI status 02h, sense 5/21/00");
    session.log_out().unwrap();
    assert_eq!((portal.pongs(), portal.logouts()), (1, 1));
}

#[test]
fn data_move_with_and_without_immediate_data_and_r2t() {
    for (immediate_data, initial_r2t) in [(true, false), (true, true), (false, false), (false, true)] {
        move_data(|options| {
            (options.immediate_data, options.initial_r2t) = (immediate_data, initial_r2t);
        });
    }
}

#[test]
fn data_move_with_digests() {
    move_data(|options| options.digests = Digests::BOTH);
}

#[test]
fn the_command_window_limits_what_is_in_flight() {
    let portal = Portal::start(Flaw::None);
    let mut session = log_in(&portal, |_| {}).unwrap();
    let mut submitted = 0;
    while session.submit(&cdb::read(submitted, 1), Data::In(512)).is_some() {
        submitted += 1;
    }
    assert_eq!((submitted, session.room(), session.in_flight()), (8, 0, 8));
    let (mut buffer, mut done) = (vec![0; 64 << 10], Vec::new());
    while done.len() < 8 {
        session.flush().unwrap();
        session.poll(&mut buffer, &mut done).unwrap();
    }
    assert!(done.iter().all(|completion| completion.outcome == Outcome::SUCCESS));
    assert_eq!((session.room(), session.in_flight()), (8, 0));
}

fn read_from(flaw: Flaw, digests: Digests) -> Result<Reply> {
    let portal = Portal::start(flaw);
    let mut session = log_in(&portal, |options| options.digests = digests)?;
    session.call(&cdb::read(0, 256), Data::In(131_072), &[])?;
    // A second completion arrives with or after the first, and at the latest before the next.
    session.call(&cdb::read(0, 256), Data::In(131_072), &[])
}

#[test]
fn what_a_target_must_not_send_is_noticed() {
    for (flaw, digests, what) in [
        (Flaw::BitFlip, Digests::BOTH, "wrong digest"),
        (Flaw::CompletesTwice, Digests::NONE, "not outstanding"),
        (Flaw::ShortRead, Digests::NONE, "65536 of 131072"),
        (Flaw::LongBurst, Digests::NONE, "a sequence of Data-In of 81920 bytes"),
        (Flaw::WrongDataSn, Digests::NONE, "DataSN 1, 0 is next"),
        (Flaw::WrongStatSn, Digests::NONE, "StatSN"),
    ] {
        let error = read_from(flaw, digests).unwrap_err();
        assert!(matches!(&error, ClientError::Protocol(said) if said.contains(what)), "{flaw:?}: {error}");
    }
}

#[test]
fn a_refusal_and_a_request_to_leave_are_told() {
    let error = read_from(Flaw::Refuses, Digests::NONE).unwrap_err();
    assert!(matches!(error, ClientError::Login { class: 3, detail: 1 }), "{error}");
    assert!(error.is_path_failure());
    let error = read_from(Flaw::AsksForLogout, Digests::NONE).unwrap_err();
    assert!(matches!(error, ClientError::Asked { event: 1 }), "{error}");
}

#[test]
fn impossible_sessions_are_refused() {
    let portal = Portal::start(Flaw::None);
    assert!(matches!(log_in(&portal, |options| options.lun = 0x4000), Err(ClientError::Setup(_))));
}
