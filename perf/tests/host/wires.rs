//! The initiator's headers against the target's: two descriptions of one specification, made apart.

use ashlar_iscsi::wire::request::{DataOut, Login, NopOut, ScsiCommand};
use ashlar_iscsi::wire::response::{
    DataIn, LoginResponse, LogoutResponse, Numbers, R2t, Reject, ScsiResponse,
};
use ashlar_iscsi::wire::{Length, opcode};
use ashlar_perf::iscsi::wire::{Answer, BHS_BYTES, Request, answer, flags, request};
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

fn request() -> Request {
    let mut made = Request::new(request::COMMAND | request::IMMEDIATE, flags::FINAL);
    made.set_data_bytes(0x01_02_03);
    made.lun = [1, 2, 3, 4, 5, 6, 7, 8];
    (made.itt, made.tag) = (U32::new(0x1111), U32::new(0x2222));
    (made.cmd_sn, made.exp_stat_sn) = (U32::new(0x3333), U32::new(0x4444));
    made
}

#[test]
fn the_target_reads_what_the_initiator_writes() {
    let mut made = request();
    made.cdb = std::array::from_fn(|at| at as u8);
    let read = ScsiCommand::read_from_bytes(made.as_bytes()).unwrap();
    assert_eq!(
        (read.opcode, read.length),
        (opcode::SCSI_COMMAND | opcode::IMMEDIATE, Length::of_data(0x01_02_03))
    );
    assert_eq!((read.lun.get(), read.itt.get()), (0x0102_0304_0506_0708, 0x1111));
    assert_eq!((read.expected_bytes.get(), read.cmd_sn.get()), (0x2222, 0x3333));
    assert_eq!((read.exp_stat_sn.get(), read.cdb), (0x4444, made.cdb));
    assert_eq!((flags::READ, flags::WRITE), (ScsiCommand::READ, ScsiCommand::WRITE));

    made.set_data_place(0x5555, 0x6666);
    let read = DataOut::read_from_bytes(made.as_bytes()).unwrap();
    assert_eq!((read.ttt.get(), read.exp_stat_sn.get()), (0x2222, 0x4444));
    assert_eq!((read.data_sn.get(), read.offset.get()), (0x5555, 0x6666));

    let read = NopOut::read_from_bytes(made.as_bytes()).unwrap();
    assert_eq!((read.itt.get(), read.ttt.get(), read.cmd_sn.get()), (0x1111, 0x2222, 0x3333));
    let read = Login::read_from_bytes(made.as_bytes()).unwrap();
    assert_eq!((read.isid.as_bytes(), read.tsih.get()), (&made.lun[..6], 0x0708));
    assert_eq!((read.cmd_sn.get(), read.exp_stat_sn.get()), (0x3333, 0x4444));
}

#[test]
fn opcodes_are_the_same() {
    for (ours, theirs) in [
        (request::NOP_OUT, opcode::NOP_OUT),
        (request::COMMAND, opcode::SCSI_COMMAND),
        (request::LOGIN, opcode::LOGIN),
        (request::DATA_OUT, opcode::DATA_OUT),
        (request::LOGOUT, opcode::LOGOUT),
        (answer::NOP_IN, opcode::NOP_IN),
        (answer::RESPONSE, opcode::SCSI_RESPONSE),
        (answer::LOGIN, opcode::LOGIN_RESPONSE),
        (answer::DATA_IN, opcode::DATA_IN),
        (answer::LOGOUT, opcode::LOGOUT_RESPONSE),
        (answer::R2T, opcode::R2T),
        (answer::ASYNC, opcode::ASYNC),
        (answer::REJECT, opcode::REJECT),
    ] {
        assert_eq!(ours, theirs);
    }
}

fn read(bytes: &[u8]) -> Answer {
    assert_eq!(bytes.len(), BHS_BYTES);
    let answer = Answer::read_from_bytes(bytes).unwrap();
    assert_eq!((answer.stat_sn.get(), answer.exp_cmd_sn.get(), answer.max_cmd_sn.get()), (1, 2, 3));
    answer
}

#[test]
fn the_initiator_reads_what_the_target_writes() {
    let numbers = Numbers { stat_sn: U32::new(1), exp_cmd_sn: U32::new(2), max_cmd_sn: U32::new(3) };

    let mut data = DataIn::new_zeroed();
    (data.numbers, data.length, data.status) = (numbers, Length::of_data(0x01_02_03), 9);
    (data.itt, data.ttt, data.data_sn) = (U32::new(4), U32::new(5), U32::new(6));
    (data.offset, data.residual) = (U32::new(7), U32::new(8));
    let seen = read(data.as_bytes());
    assert_eq!((seen.data_bytes(), seen.status, seen.itt.get()), (0x01_02_03, 9, 4));
    assert_eq!((seen.ttt.get(), seen.sn.get(), seen.offset.get(), seen.length.get()), (5, 6, 7, 8));
    assert_eq!(flags::STATUS, DataIn::STATUS);

    let mut response = ScsiResponse::new_zeroed();
    (response.numbers, response.response, response.status) = (numbers, 1, 2);
    (response.itt, response.residual) = (U32::new(4), U32::new(8));
    let seen = read(response.as_bytes());
    assert_eq!((seen.response, seen.status, seen.itt.get(), seen.length.get()), (1, 2, 4, 8));

    let mut r2t = R2t::new_zeroed();
    (r2t.numbers, r2t.itt, r2t.ttt) = (numbers, U32::new(4), U32::new(5));
    (r2t.r2t_sn, r2t.offset, r2t.wanted_bytes) = (U32::new(6), U32::new(7), U32::new(8));
    let seen = read(r2t.as_bytes());
    assert_eq!((seen.itt.get(), seen.ttt.get(), seen.sn.get()), (4, 5, 6));
    assert_eq!((seen.offset.get(), seen.length.get()), (7, 8));

    let mut login = LoginResponse::new_zeroed();
    (login.numbers, login.version_active, login.status) = (numbers, 7, U16::new(0x0301));
    let seen = read(login.as_bytes());
    assert_eq!((seen.status, seen.sn.to_bytes()), (7, [3, 1, 0, 0]));

    let mut logout = LogoutResponse::new_zeroed();
    (logout.numbers, logout.response, logout.itt) = (numbers, 2, U32::new(4));
    assert_eq!((read(logout.as_bytes()).response, read(logout.as_bytes()).itt.get()), (2, 4));

    let mut reject = Reject::new_zeroed();
    (reject.numbers, reject.reason) = (numbers, 5);
    assert_eq!(read(reject.as_bytes()).response, 5);
}
