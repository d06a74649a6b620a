//! Task management and logout.

use super::*;
use crate::wire::request::function;
use crate::wire::response::{LogoutResponse, TaskManagementResponse};

fn response(host: &mut Host, tag: u32) -> u8 {
    let pdu: TaskManagementResponse = host.take(opcode::TASK_MANAGEMENT_RESPONSE).header();
    assert_eq!(pdu.itt.get(), tag);
    pdu.response
}

fn busy_host() -> Host {
    let mut host = Host::logged_in(Digests::default(), "");
    host.manual = true;
    host.command(1, ScsiCommand::READ, 512, 512);
    host.command(2, ScsiCommand::READ, 512, 512);
    host.command(3, ScsiCommand::WRITE, 512, 512);
    host.take(opcode::R2T);
    host
}

#[test]
fn a_function_is_answered_when_what_it_aborted_has_ended() {
    for (which, left) in [
        (function::ABORT_TASK, 1),
        (function::ABORT_TASK_SET, 0),
        (function::CLEAR_TASK_SET, 0),
        (function::LOGICAL_UNIT_RESET, 0),
        (function::TARGET_WARM_RESET, 0),
        (function::TARGET_COLD_RESET, 0),
    ] {
        let mut host = busy_host();
        host.manage(50, which, 1);
        assert!(host.try_take().is_none(), "operations are under way");
        host.finish_all();
        if which == function::ABORT_TASK {
            assert_eq!(response(&mut host, 50), 0);
            let other = host.take(opcode::DATA_IN);
            assert_eq!(other.bhs.itt.get(), 2, "the other task lives on");
        } else {
            assert_eq!(response(&mut host, 50), 0);
        }
        assert!(host.try_take().is_none(), "no response of an aborted task");
        assert_eq!(host.session.outstanding(), left);
        host.data_out(3, 2 << 16, 0, 0, &pattern(512), true);
        assert_eq!(host.written.len(), left);
    }
}

#[test]
fn tasks_that_are_gone_or_never_were() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.read(1, 512, 512);
    host.manage(50, function::ABORT_TASK, 1);
    assert_eq!(response(&mut host, 50), 0, "what has ended may be aborted");
    host.manage(51, function::CLEAR_ACA, 1);
    assert_eq!(response(&mut host, 51), 5);
}

#[test]
fn i17b_functions_that_are_not_there() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.manage(50, function::TASK_REASSIGN, 1);
    assert_eq!(response(&mut host, 50), 4);
    host.manage(51, 0x7F, 1);
    assert_eq!(response(&mut host, 51), 5);
}

#[test]
fn i17c_abort_of_itself_and_of_strangers() {
    let mut host = busy_host();
    host.manage(50, function::ABORT_TASK, 50);
    assert!(matches!(response(&mut host, 50), 0 | 1));
    host.manage(51, function::ABORT_TASK, 777);
    assert!(matches!(response(&mut host, 51), 0 | 1));
    host.finish_all();
    assert_eq!(host.take(opcode::DATA_IN).bhs.itt.get(), 1, "no task was harmed");
}

#[test]
fn i17d_a_storm_of_resets_during_writes() {
    let mut host = Host::logged_in(Digests::default(), "InitialR2T=No");
    host.manual = true;
    for round in 0..200 {
        host.write(round, 512, &pattern(512), true);
        host.manage(1000 + round, function::LOGICAL_UNIT_RESET, 0);
        host.write(500 + round, 2048, &pattern(512), true);
    }
    let mut resets = 0;
    while host.session.outstanding() > 0 || host.session.has_output() {
        host.finish_all();
        while let Some(received) = host.try_take() {
            match received.bhs.kind() {
                opcode::TASK_MANAGEMENT_RESPONSE => resets += 1,
                opcode::R2T => {
                    let r2t: R2t = received.header();
                    let at = r2t.offset.get();
                    let data = pattern(r2t.wanted_bytes.get() as usize);
                    host.data_out(r2t.itt.get(), r2t.ttt.get(), 0, at, &data, true);
                }
                _ => {}
            }
        }
    }
    assert!(resets > 0);
    drop(host.session);
    assert_eq!(host.pool.free_count(), Host::BUFFERS);
}

#[test]
fn another_session_waits_for_what_executes_and_aborts_what_waits() {
    let mut host = busy_host();
    host.session.quiet(9, |lun| lun == 1 << 48, host.now);
    host.work();
    assert!(host.quiet.is_empty());
    let aborted: ScsiResponse = host.take(opcode::SCSI_RESPONSE).header();
    assert_eq!((aborted.itt.get(), aborted.status), (3, Status::TaskAborted as u8));
    host.finish_all();
    assert_eq!(host.quiet, [9]);
    for tag in [1, 2] {
        assert_eq!(host.take(opcode::DATA_IN).bhs.itt.get(), tag, "they came before");
    }
    host.session.quiet(10, |_| true, host.now);
    host.work();
    assert_eq!(host.quiet, [9, 10]);
}

#[test]
fn i18a_logouts_that_are_refused() {
    let mut host = Host::logged_in(Digests::default(), "");
    for (reason, cid, expected) in [(2, 3, 2), (1, 4, 1)] {
        host.log_out(7, reason, cid);
        let pdu: LogoutResponse = host.take(opcode::LOGOUT_RESPONSE).header();
        assert_eq!(pdu.response, expected);
    }
    host.read(1, 512, 512);
}

#[test]
fn i18b_a_logout_amid_io() {
    for reason in [0, 1] {
        let mut host = busy_host();
        host.log_out(7, reason, 3);
        host.command(9, ScsiCommand::READ, 512, 512);
        assert!(host.try_take().is_none(), "tasks end first, and nothing more is taken");
        host.finish_all();
        for tag in [1, 2] {
            assert_eq!(host.take(opcode::DATA_IN).bhs.itt.get(), tag);
        }
        let pdu: LogoutResponse = host.take(opcode::LOGOUT_RESPONSE).header();
        assert_eq!((pdu.itt.get(), pdu.response), (7, 0));
        assert!(host.session.is_over());
        assert_eq!(host.closed, Some(Closed::LoggedOut));
        assert_eq!(host.session.outstanding(), 0);
    }
}

#[test]
fn an_initiator_is_asked_to_log_out() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.session.ask_for_logout(3, host.now);
    let pdu: crate::wire::response::Async = host.take(opcode::ASYNC).header();
    assert_eq!((pdu.event, pdu.parameter3.get()), (1, 3));
    host.read(1, 512, 512);
}
