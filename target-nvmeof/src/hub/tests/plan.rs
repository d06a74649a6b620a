//! The data plan: what a command may move is known before any of it is taken.

use super::*;
use crate::hub::{QueueKind, data_plan};
use crate::transport::Transfer;

fn plan(sqe: &Sqe) -> Result<Transfer, Status> {
    data_plan(sqe, QueueKind::Admin, &Limits::default())
}

#[test]
fn every_command_has_its_length() {
    let none = Ok(Transfer::None);
    let cases = [
        (Wish::admin().sqe(), Ok(Transfer::FromHost(1024))),
        (property_get(0, 1), none),
        (property_set(0x14, 0, 1), none),
        (identify(1, 0), Ok(Transfer::ToHost(4096))),
        (log(2, 0, 512), Ok(Transfer::ToHost(512))),
        (log(2, 0, 4), Ok(Transfer::ToHost(4))),
        (log(0x70, 0, 1 << 20), Ok(Transfer::ToHost(1 << 20))),
        (log(0x70, 0, (1 << 20) + 4), Err(Status::INVALID_FIELD)),
        (get_feature(7, 0, 0), none),
        (get_feature(0x0E, 0, 8), Ok(Transfer::ToHost(8))),
        (get_feature(0x0E, 3, 8), Ok(Transfer::ToHost(8))),
        (get_feature(0x0E, 3, 0), none),
        (get_feature(0x16, 0, 512), Ok(Transfer::ToHost(512))),
        (set_feature(0x0E, 0, 8), Ok(Transfer::FromHost(8))),
        (set_feature(0x16, 0, 512), Ok(Transfer::FromHost(512))),
        (set_feature(0x81, 1, 16), Ok(Transfer::FromHost(16))),
        (set_feature(0x0B, 0, 0), none),
        (admin_command(admin::KEEP_ALIVE), none),
        (admin_command(admin::ASYNC_EVENT), none),
        (admin_command(admin::ABORT), none),
        (admin_command(0x05), Err(Status::INVALID_OPCODE)),
    ];
    for (command, expected) in cases {
        assert_eq!(plan(&command), expected, "{command:?}");
    }
}

#[test]
fn another_length_is_refused() {
    let commands = [
        Wish::admin().sqe(),
        property_get(0, 1),
        identify(1, 0),
        log(2, 0, 512),
        get_feature(7, 0, 0),
        get_feature(0x0E, 0, 8),
        set_feature(0x16, 0, 512),
        admin_command(admin::KEEP_ALIVE),
    ];
    for command in commands {
        let length = command.sgl.length.get();
        for wrong in [length.wrapping_sub(1), length + 1, length + 4, u32::MAX] {
            let sgl = Sgl { length: wrong.into(), identifier: 0x5A, ..command.sgl };
            let refused = plan(&Sqe { sgl, ..command });
            assert_eq!(refused, Err(Status::DATA_SGL_LENGTH_INVALID), "{wrong} for {command:?}");
        }
    }
}

#[test]
fn a_log_of_16_gib_is_refused() {
    let command = Sqe { cdw10: 0xFFFF_0002.into(), cdw11: 0xFFFF.into(), ..log(2, 0, 4) };
    assert_eq!(plan(&command), Err(Status::INVALID_FIELD));
}

#[test]
fn descriptors_are_checked() {
    let with = |command: Sqe, psdt: u8, identifier: u8, address: u64| {
        let sgl = Sgl { identifier, address: address.into(), ..command.sgl };
        plan(&Sqe { flags: psdt << 6, sgl, ..command })
    };
    let (read, write) = (identify(1, 0), set_feature(0x0E, 0, 8));
    assert_eq!(with(read, 0b00, 0x5A, 0), Err(Status::INVALID_FIELD));
    assert_eq!(with(read, 0b11, 0x5A, 0), Err(Status::INVALID_FIELD));
    assert_eq!(with(read, 0b10, 0x5A, 0), Ok(Transfer::ToHost(4096)));
    assert_eq!(with(read, 0b01, 0x01, 0), Err(Status::INVALID_FIELD), "in-capsule data of a read");
    assert_eq!(with(write, 0b01, 0x01, 0), Ok(Transfer::FromHost(8)));
    assert_eq!(with(write, 0b01, 0x01, 4), Err(Status::SGL_OFFSET_INVALID));
    for identifier in [0x00, 0x40, 0x50, 0xF0] {
        assert_eq!(with(write, 0b01, identifier, 0), Err(Status::SGL_TYPE_INVALID), "{identifier:X}");
    }
}

#[test]
fn before_connect_and_on_io_queues_little_is_known() {
    let limits = Limits::default();
    let unconnected = |sqe: &Sqe| data_plan(sqe, QueueKind::Unconnected, &limits);
    assert_eq!(unconnected(&Wish::admin().sqe()), Ok(Transfer::FromHost(1024)));
    for command in [property_get(0, 1), identify(1, 0), log(2, 0, 512)] {
        assert_eq!(unconnected(&command), Err(Status::INVALID_OPCODE));
    }
    assert_eq!(data_plan(&identify(1, 0), QueueKind::Io, &limits), Err(Status::INVALID_OPCODE));
}
