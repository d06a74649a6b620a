//! Sessions against an initiator made of bytes. Rows of the list of hostile inputs have their number in their name.

mod host;
mod hostile;
mod manage;
mod text;

use super::*;
use crate::scsi::Status;
use crate::wire::NO_TAG;
use crate::wire::bhs::FINAL;
use crate::wire::opcode;
use crate::wire::request::ScsiCommand;
use crate::wire::response::{DataIn, OVERFLOW, R2t, ScsiResponse, UNDERFLOW};
use host::bytes::Digests;
use host::{Host, pattern};

#[test]
fn writes_and_reads_at_every_split() {
    for digests in Digests::ALL {
        for step in [1, 3, 47, 48, 49, 1000, 1 << 20] {
            let mut host = Host::logged_in(digests, "InitialR2T=No ImmediateData=Yes MaxBurstLength=20480");
            host.step = step;
            let data = pattern(5000);
            host.write(1, 5000, &data, true);
            host.expect_good(1);
            assert_eq!(host.written.pop().unwrap(), data);
            // Some with the command, some behind it, the rest asked for.
            let big = pattern(60_001);
            host.write(2, big.len() as u32, &big[..4096], false);
            host.data_out(2, NO_TAG, 0, 4096, &big[4096..8192], false);
            host.data_out(2, NO_TAG, 1, 8192, &big[8192..20_000], true);
            let mut at = 20_000;
            let mut number = 0;
            while at < big.len() {
                let asked = host.take(opcode::R2T);
                let r2t: R2t = asked.header();
                assert_eq!((r2t.itt.get(), r2t.offset.get() as usize, r2t.r2t_sn.get()), (2, at, number));
                let end = at + r2t.wanted_bytes.get() as usize;
                assert!(end <= big.len() && end - at <= 20_480);
                let middle = at + (end - at) / 2;
                host.data_out(2, r2t.ttt.get(), 0, at as u32, &big[at..middle], false);
                host.data_out(2, r2t.ttt.get(), 1, middle as u32, &big[middle..end], true);
                (at, number) = (end, number + 1);
            }
            host.expect_good(2);
            assert_eq!(host.written.pop().unwrap(), big);
            assert_eq!(host.read(3, 60_001, 60_001), pattern(60_001));
            assert_eq!(host.session.outstanding(), 0);
            assert_eq!(host.session.incoming_bytes, 0);
        }
    }
}

#[test]
fn data_in_is_cut_to_segments_and_bursts() {
    for keys in ["MaxRecvDataSegmentLength=1024 MaxBurstLength=2560", "MaxRecvDataSegmentLength=515"] {
        let mut host = Host::logged_in(Digests::default(), keys);
        let (segment, burst) = if keys.contains("Burst") { (1024, 2560) } else { (512, 256 << 10) };
        host.command(1, ScsiCommand::READ, 10_000, 10_000);
        let (mut at, mut number) = (0, 0);
        loop {
            let received = host.take(opcode::DATA_IN);
            let pdu: DataIn = received.header();
            assert_eq!((pdu.offset.get(), pdu.data_sn.get(), pdu.ttt.get()), (at, number, NO_TAG));
            let len = received.data.len() as u32;
            assert!(len <= segment);
            at += len;
            number += 1;
            let at_end = at % burst == 0 || at == 10_000;
            assert_eq!(pdu.flags & FINAL != 0, at_end, "at {at}");
            assert_eq!(pdu.flags & DataIn::STATUS != 0, at == 10_000);
            if at == 10_000 {
                break;
            }
        }
        assert!(host.try_take().is_none());
    }
}

/// (flags, the initiator expects, the command needs, response flags, residual)
const RESIDUALS: [(u8, u32, u32, u8, u32); 8] = [
    (ScsiCommand::READ, 512, 512, 0, 0),
    (ScsiCommand::READ, 512, 100, UNDERFLOW, 412),
    (ScsiCommand::READ, 100, 512, OVERFLOW, 412),
    (ScsiCommand::READ, 0, 512, OVERFLOW, 512),
    (0, 0, 512, OVERFLOW, 512),
    (ScsiCommand::READ, 512, 0, UNDERFLOW, 512),
    (ScsiCommand::WRITE, 512, 100, UNDERFLOW, 412),
    (ScsiCommand::WRITE, 100, 512, OVERFLOW, 412),
];

#[test]
fn residuals_are_exact() {
    for (flags, expected, needed, with, residual) in RESIDUALS {
        let mut host = Host::logged_in(Digests::default(), "");
        host.command(1, flags, expected, needed);
        if flags == ScsiCommand::WRITE {
            let r2t: R2t = host.take(opcode::R2T).header();
            let len = needed.min(expected);
            assert_eq!(r2t.wanted_bytes.get(), len);
            host.data_out(1, r2t.ttt.get(), 0, 0, &pattern(len as usize), true);
        }
        let mut moved = 0;
        let response: ScsiResponse = loop {
            let received = host.try_take().expect("a response");
            if received.bhs.kind() == opcode::SCSI_RESPONSE {
                break received.header();
            }
            moved += received.data.len() as u32;
            if received.bhs.flags & DataIn::STATUS != 0 {
                assert_eq!((with, moved), (0, needed));
                break zerocopy::FromZeros::new_zeroed();
            }
        };
        let case = (flags, expected, needed);
        assert_eq!((response.flags & !FINAL, response.residual.get()), (with, residual), "{case:?}");
        if flags == ScsiCommand::READ {
            assert_eq!(moved, needed.min(expected), "{case:?}");
        }
    }
}

#[test]
fn sense_data_travel_behind_their_length() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.manual = true;
    host.command(1, ScsiCommand::READ, 512, 512);
    let id = host.running.remove(0);
    let sense = Some(vec![0x70; 18].into());
    let answer = Answer { status: Status::CheckCondition, sense, data: Data::None };
    host.session.complete(id, answer, host.now);
    let received = host.take(opcode::SCSI_RESPONSE);
    let response: ScsiResponse = received.header();
    assert_eq!((response.status, response.flags & UNDERFLOW, response.residual.get()), (2, UNDERFLOW, 512));
    assert_eq!(received.data, [&[0, 18][..], &[0x70; 18]].concat());
}

#[test]
fn unwanted_data_are_dropped_and_the_command_ends_behind_them() {
    let mut host = Host::logged_in(Digests::default(), "InitialR2T=No");
    let data = pattern(3000);
    host.write_wanting(1, 3000, 0, &data[..1000], false);
    assert!(host.try_take().is_none(), "the initiator is not done yet");
    host.data_out(1, NO_TAG, 0, 1000, &data[1000..], true);
    let response: ScsiResponse = host.take(opcode::SCSI_RESPONSE).header();
    assert_eq!((response.status, response.residual.get()), (0, 3000));
    assert_eq!(host.written.pop().unwrap(), []);
    // Less than was sent.
    host.write_wanting(2, 3000, 512, &data, true);
    let response: ScsiResponse = host.take(opcode::SCSI_RESPONSE).header();
    assert_eq!(response.residual.get(), 2488);
    assert_eq!(host.written.pop().unwrap(), data[..512]);
}

#[test]
fn the_window_closes_and_opens() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.manual = true;
    for tag in 0..128 {
        host.command(tag, ScsiCommand::READ, 512, 512);
    }
    assert_eq!(host.running.len(), 128);
    host.command(500, ScsiCommand::READ, 512, 512);
    assert_eq!(host.running.len(), 128, "beyond the window: ignored");
    host.cmd_sn -= 1;
    host.finish_all();
    let received: Vec<_> = std::iter::from_fn(|| host.try_take()).collect();
    assert_eq!(received.len(), 128);
    host.command(500, ScsiCommand::READ, 512, 512);
    assert_eq!(host.running.len(), 1);
}

#[test]
fn without_memory_reading_stops_or_the_command_is_busy() {
    let mut host = Host::logged_in(Digests::default(), "InitialR2T=No");
    let hold: Vec<_> = std::iter::from_fn(|| host.pool.try_alloc(1)).collect();
    host.write(1, 512, &pattern(512), true);
    assert_eq!(host.session.wants_buffer(), Some(512));
    assert!(host.written.is_empty());
    drop(hold);
    host.give_buffers();
    host.expect_good(1);
    assert_eq!(host.written.pop().unwrap(), pattern(512));
    // A command that owes data is before one without memory.
    host.write(2, 1024, &pattern(512), false);
    let hold: Vec<_> = std::iter::from_fn(|| host.pool.try_alloc(1)).collect();
    host.write(3, 512, &pattern(512), true);
    let response: ScsiResponse = host.take(opcode::SCSI_RESPONSE).header();
    assert_eq!((response.itt.get(), response.status), (3, Status::Busy as u8));
    host.data_out(2, NO_TAG, 0, 512, &pattern(512), true);
    host.expect_good(2);
    // Asked for when there is room.
    let rest: Vec<_> = std::iter::from_fn(|| host.pool.try_alloc(1)).collect();
    host.command(4, ScsiCommand::WRITE, 2048, 2048);
    assert_eq!(host.session.wants_buffer(), Some(2048));
    drop((hold, rest));
    host.give_buffers();
    let r2t: R2t = host.take(opcode::R2T).header();
    host.data_out(4, r2t.ttt.get(), 0, 0, &pattern(2048), true);
    host.expect_good(4);
}

#[test]
fn a_silent_initiator_is_pinged_and_given_up() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.now = host.session.deadline();
    host.session.handle_timeout(host.now);
    let ping = host.take(opcode::NOP_IN);
    assert_eq!(ping.bhs.itt.get(), NO_TAG);
    let pdu: crate::wire::response::NopIn = ping.header();
    host.answer_ping(pdu.ttt.get());
    for closed in [None, Some(Closed::TimedOut)] {
        host.now = host.session.deadline();
        host.session.handle_timeout(host.now);
        host.sent();
        assert_eq!(host.closed, closed);
    }
}

#[test]
fn an_initiator_that_owes_data_is_given_up() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.command(1, ScsiCommand::WRITE, 512, 512);
    host.take(opcode::R2T);
    host.now = host.session.deadline();
    host.session.handle_timeout(host.now);
    assert!(matches!(host.session.next_event(host.now), Some(Event::Closed(Closed::TimedOut))));
    drop(host.session);
    assert_eq!(host.pool.free_count(), Host::BUFFERS);
}

#[test]
fn many_large_writes_are_asked_for_in_turn() {
    let mut host = Host::with_pool("InitialR2T=No", [200, 200, 200, 16, 40]);
    const LEN: u32 = 8 << 20;
    for tag in 0..100 {
        host.write(tag, LEN, &pattern(60_000), true);
    }
    let mut finished = 0;
    while finished < 100 {
        let asked: Vec<R2t> = std::iter::from_fn(|| host.try_take())
            .filter(|received| received.bhs.kind() == opcode::R2T)
            .map(|received| received.header())
            .collect();
        assert!(!asked.is_empty(), "{finished} finished");
        assert!(host.session.incoming_bytes <= RECEIVING_BYTES_MAX + (8 << 20) + 100 * 65536);
        for r2t in asked {
            // The rest of each is dropped with its task: what counts is who is asked.
            host.manage(1000, crate::wire::request::function::ABORT_TASK, r2t.itt.get());
            finished += 1;
        }
    }
    assert_eq!(host.session.incoming_bytes, 0);
}
