//! Rows of the list of hostile inputs that a session alone can show.

use zerocopy::big_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::host::{TARGET, bytes, targets};
use super::text::rejected;
use super::*;
use crate::wire::Bhs;
use crate::wire::request::{DataOut, NopOut};
use crate::wire::response::LoginResponse;

/// The status of a login that is refused, after which the connection ends.
fn refused(host: &mut Host) -> u16 {
    let response: LoginResponse = host.take(opcode::LOGIN_RESPONSE).header();
    assert_eq!(host.closed, Some(Closed::Refused));
    assert!(host.session.is_over());
    response.status.get()
}

#[test]
fn i07_nothing_is_said_of_a_session_without_its_secret() {
    // Registration comes after the secret: see the login's tests. Here: a login that is refused asks for none.
    let mut host = Host::new(targets(1));
    host.send_login(0x87, "InitiatorName=iqn.host TargetName=iqn.other");
    assert_eq!(refused(&mut host), 0x0203);
}

#[test]
fn i08a_long_data_and_additional_headers_in_login() {
    for len in [8193_u32, 0xFF_FFFF] {
        let mut host = Host::new(targets(1));
        let mut header = host.login_header(0x87).as_bytes().to_vec();
        header[5..8].copy_from_slice(&len.to_be_bytes()[1..]);
        host.feed(&header);
        assert_eq!(refused(&mut host), 0x0200);
    }
    let mut host = Host::new(targets(1));
    let header = host.login_header(0x87);
    host.feed(&bytes::pdu_with(Digests::default(), &header, &[0; 8], &[]));
    assert_eq!(refused(&mut host), 0x0200);
}

#[test]
fn i08b_other_pdus_before_login() {
    for kind in (0..0x40_u8).filter(|kind| *kind != opcode::LOGIN) {
        let mut host = Host::new(targets(1));
        let mut header = Bhs::new_zeroed();
        (header.opcode, header.flags) = (kind, FINAL);
        host.send(&header, &[]);
        assert_eq!(refused(&mut host), 0x020B);
    }
}

#[test]
fn i11_additional_headers_that_lie() {
    let cases: [(&[u8], &[u8]); 5] = [
        (&[0, 0, 1, 0], &[9]),
        (&[0xFF, 0xFF, 1, 0], &[9]),
        (&[0, 5, 2, 0, 0, 0, 2, 0], &[5]),
        (&[0, 1, 0x3F, 0], &[5]),
        (&[0, 250, 1, 0], &[9]),
    ];
    for (segment, reasons) in cases {
        let mut host = Host::logged_in(Digests { header: true, data: true }, "");
        let header = host.command_header(1, ScsiCommand::READ, 512, 512);
        host.feed(&bytes::pdu_with(host.digests, &header, segment, &[]));
        assert!(reasons.contains(&rejected(&mut host)), "{segment:?}");
        host.cmd_sn -= 1;
        host.read(1, 512, 512);
    }
    // Bytes that never come.
    let mut host = Host::logged_in(Digests::default(), "");
    let mut header = host.command_header(1, ScsiCommand::READ, 512, 512).as_bytes().to_vec();
    header[4] = 255;
    host.feed(&header);
    assert!(host.try_take().is_none());
    host.now = host.session.deadline();
    host.session.handle_timeout(host.now);
    host.work();
    assert_eq!(host.closed, Some(Closed::TimedOut));
}

#[test]
fn an_extended_cdb_arrives_whole() {
    let mut host = Host::logged_in(Digests { header: true, data: true }, "");
    host.manual = true;
    let header = host.command_header(1, 0, 0, 0);
    host.feed(&bytes::pdu_with(host.digests, &header, &[0, 5, 1, 0, 1, 2, 3, 4], &[]));
    assert_eq!(host.session.request(host.running[0]).cdb.rest[..], [1, 2, 3, 4]);
}

#[test]
fn i12a_no_direction_or_both() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.command(1, 0, 512, 512);
    assert_eq!(rejected(&mut host), 9);
    host.command(2, ScsiCommand::READ | ScsiCommand::WRITE, 512, 512);
    assert_eq!(rejected(&mut host), 9);
    // Whether the number is used again or not, the session goes on.
    host.read(3, 512, 512);
    host.cmd_sn -= 2;
    host.read(4, 512, 512);
}

#[test]
fn i12b_immediate_data_beyond_what_is_allowed() {
    for (keys, expected, len) in [
        ("ImmediateData=Yes", 512, 516),
        ("ImmediateData=Yes FirstBurstLength=1024", 8192, 1028),
        ("ImmediateData=No", 512, 512),
    ] {
        let mut host = Host::logged_in(Digests::default(), keys);
        host.write(1, expected, &pattern(len), true);
        assert!(matches!(rejected(&mut host), 4 | 9), "{keys}");
        assert!(host.written.is_empty());
        host.read(2, 512, 512);
    }
}

#[test]
fn i12c_more_data_than_a_pdu_may_have() {
    for len in [(256 << 10) + 1, 0xFF_FFFF_u32] {
        let mut host = Host::logged_in(Digests::default(), "");
        let mut header = host.command_header(1, ScsiCommand::WRITE, u32::MAX, 512).as_bytes().to_vec();
        header[5..8].copy_from_slice(&len.to_be_bytes()[1..]);
        host.feed(&header);
        assert_eq!(rejected(&mut host), 4);
        assert_eq!(host.closed, Some(Closed::ProtocolError));
    }
}

/// A host whose write of 2048 bytes was asked for; the tag of the R2T.
fn asked() -> (Host, u32) {
    let mut host = Host::logged_in(Digests::default(), "MaxBurstLength=1024");
    host.command(1, ScsiCommand::WRITE, 2048, 2048);
    let r2t: R2t = host.take(opcode::R2T).header();
    (host, r2t.ttt.get())
}

fn failed(host: &mut Host, tag: u32) {
    let response: ScsiResponse = host.take(opcode::SCSI_RESPONSE).header();
    assert_eq!((response.itt.get(), response.status), (tag, 2));
    assert!(host.written.is_empty());
    assert_eq!(host.session.outstanding(), 0);
    host.read(99, 512, 512);
}

#[test]
fn i13a_data_that_were_not_asked_for() {
    let (mut host, ttt) = asked();
    host.data_out(7, ttt, 0, 0, &pattern(1024), true);
    host.data_out(7, NO_TAG, 0, 0, &pattern(1024), true);
    assert!(host.try_take().is_none(), "no such task: the data pass");
    host.data_out(1, ttt, 0, 0, &pattern(1024), true);
    host.take(opcode::R2T);
    let cases: [(u32, u32, usize, bool); 5] = [
        (0x10, 0, 1024, true),
        (0, 512, 512, true),
        (0, u32::MAX - 511, 1024, true),
        (0, 0, 1028, true),
        (0, 0, 512, true),
    ];
    for (other, offset, len, last) in cases {
        let (mut host, ttt) = asked();
        host.data_out(1, ttt ^ other, 0, offset, &pattern(len), last);
        failed(&mut host, 1);
    }
    // After F.
    let (mut host, ttt) = asked();
    host.data_out(1, ttt, 0, 0, &pattern(1024), true);
    host.take(opcode::R2T);
    host.data_out(1, ttt, 1, 1024, &pattern(1024), true);
    failed(&mut host, 1);
}

#[test]
fn i13b_data_for_a_read_or_a_finished_task() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.manual = true;
    host.command(1, ScsiCommand::READ, 512, 512);
    host.data_out(1, NO_TAG, 0, 0, &pattern(512), true);
    host.finish_all();
    assert_eq!(host.take(opcode::DATA_IN).bhs.itt.get(), 1);
    host.data_out(1, NO_TAG, 0, 0, &pattern(512), true);
    assert!(host.try_take().is_none());
}

#[test]
fn i13c_unsolicited_data_where_none_may_be() {
    let mut host = Host::logged_in(Digests::default(), "InitialR2T=Yes");
    host.write(1, 2048, &[], false);
    host.take(opcode::R2T);
    host.data_out(1, NO_TAG, 0, 0, &pattern(2048), true);
    let received = host.take(opcode::SCSI_RESPONSE);
    assert_eq!((received.data[4], received.data[14], received.data[15]), (0x0B, 0x0C, 0x0C));
    assert!(host.written.is_empty());
}

#[test]
fn i13d_data_out_without_data() {
    let (mut host, ttt) = asked();
    for number in 0..50 {
        host.data_out(1, ttt, number, 0, &[], false);
    }
    host.data_out(1, ttt, 50, 0, &pattern(1024), true);
    host.take(opcode::R2T);
}

#[test]
fn i14_numbers_of_data_that_are_not_next() {
    for numbers in [[0, 0], [27, 28], [u32::MAX, 0], [1, 0]] {
        let (mut host, ttt) = asked();
        host.data_out(1, ttt, numbers[0], 0, &pattern(512), false);
        host.data_out(1, ttt, numbers[1], 512, &pattern(512), true);
        failed(&mut host, 1);
    }
}

#[test]
fn i15c_ten_thousand_immediate_commands() {
    let mut host = Host::logged_in(Digests::default(), "");
    host.manual = true;
    for tag in 0..10_000 {
        let mut header = host.command_header(tag, ScsiCommand::READ, 512, 512);
        host.cmd_sn -= 1;
        header.opcode |= opcode::IMMEDIATE;
        host.send(&header, &[]);
        if tag >= 32 {
            assert_eq!(rejected(&mut host), 6);
        }
    }
    assert_eq!(host.running.len(), 32);
}

#[test]
fn i17a_snack() {
    let mut host = Host::logged_in(Digests::default(), "");
    let mut header = Bhs::new_zeroed();
    (header.opcode, header.flags, header.itt) = (opcode::SNACK, FINAL, U32::new(1));
    header.rest[24..28].fill(0xFF);
    host.send(&header, &[]);
    assert!(matches!(rejected(&mut host), 3 | 4));
    host.read(1, 512, 512);
}

#[test]
fn i18c_a_connection_that_ends_amid_its_data() {
    let (mut host, ttt) = asked();
    host.data_out(1, ttt, 0, 0, &pattern(512), false);
    host.session.received(0, host.now);
    host.work();
    assert_eq!(host.closed, Some(Closed::ByInitiator));
    assert!(host.written.is_empty());
    drop(host.session);
    assert_eq!(host.pool.free_count(), Host::BUFFERS);
}

#[test]
fn i19a_wrong_header_digests() {
    for (ahs, at) in [(&[][..], 3), (&[], 45), (&[0, 5, 1, 0, 1, 2, 3, 4][..], 52)] {
        let mut host = Host::logged_in(Digests { header: true, data: false }, "");
        let header = host.command_header(1, ScsiCommand::READ, 512, 512);
        let mut bytes = bytes::pdu_with(host.digests, &header, ahs, &[]);
        bytes[at] ^= 8;
        host.feed(&bytes);
        assert!(host.try_take().is_none());
        assert_eq!(host.closed, Some(Closed::ProtocolError));
    }
}

#[test]
fn i19b_wrong_data_digests() {
    let digests = Digests { header: false, data: true };
    // In the data, in the padding, in the digest.
    for at in [48, 49, 50, 51, 52] {
        let mut host = Host::logged_in(digests, "");
        let header = host.command_header(1, ScsiCommand::WRITE, 2, 2);
        let mut bytes = bytes::pdu(digests, &header, &[1, 2]);
        bytes[at] ^= 1;
        host.feed(&bytes);
        assert_eq!(rejected(&mut host), 2);
        assert!(host.written.is_empty() && host.closed == Some(Closed::ProtocolError));
    }
    let mut host = Host::logged_in(digests, "");
    let mut header = crate::wire::request::Text::new_zeroed();
    (header.opcode, header.flags, header.ttt) = (opcode::TEXT | opcode::IMMEDIATE, FINAL, U32::new(NO_TAG));
    let mut bytes = bytes::pdu(digests, &header, b"SendTargets=\0");
    bytes[50] ^= 1;
    host.feed(&bytes);
    assert_eq!(rejected(&mut host), 2);
}

#[test]
fn i28_opcodes_that_are_not_requests() {
    for kind in (0x07..0x40_u8).filter(|kind| *kind != opcode::SNACK) {
        let mut host = Host::logged_in(Digests::default(), "");
        let mut header = Bhs::new_zeroed();
        (header.opcode, header.flags) = (kind, FINAL);
        host.send(&header, &pattern(100));
        assert!(matches!(rejected(&mut host), 4 | 5), "{kind:#x}");
        host.read(1, 512, 512);
    }
    let mut host = Host::logged_in(Digests::default(), "");
    host.send_login(0x87, "InitiatorName=iqn.host");
    assert_eq!(rejected(&mut host), 4);
}

#[test]
fn i29_commands_in_a_discovery_session() {
    for kind in [opcode::SCSI_COMMAND, opcode::TASK_MANAGEMENT, opcode::DATA_OUT] {
        let mut host = Host::discovery(targets(1));
        let mut header = Bhs::new_zeroed();
        (header.opcode, header.flags) = (kind | opcode::IMMEDIATE, FINAL);
        host.send(&header, &[]);
        assert_eq!(rejected(&mut host), 4);
        assert_eq!(host.closed, Some(Closed::ProtocolError));
    }
}

#[test]
fn i26_a_login_that_falls_silent() {
    let mut host = Host::new(targets(1));
    host.send_login(0x04, &format!("InitiatorName=iqn.host TargetName={TARGET}"));
    host.take(opcode::LOGIN_RESPONSE);
    host.now = host.session.deadline();
    assert_eq!(host.now, Instant(1).plus(Limits::default().login_timeout));
    host.session.handle_timeout(host.now);
    host.work();
    assert_eq!(host.closed, Some(Closed::TimedOut));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    /// Whatever arrives, whole or in pieces: no panic, and all memory comes back.
    #[test]
    fn arbitrary_pdus(
        digests in 0..4_usize,
        step in 5..400_usize,
        pdus in proptest::collection::vec((0..9_u8, 0..0x40_u8, 0..8_u32, 0..3000_u32, 0..64_usize, 0..=255_u8), 0..40),
    ) {
        let mut host = Host::logged_in(Digests::ALL[digests], "InitialR2T=No MaxBurstLength=1024 FirstBurstLength=1024");
        host.step = step;
        for (what, kind, tag, number, at, byte) in pdus {
            host.manual = byte & 1 != 0;
            let data = pattern((number % 1025) as usize);
            let mut header = match what {
                0 | 1 => host.command_header(tag, ScsiCommand::WRITE, number, number).as_bytes().to_vec(),
                2 => host.command_header(tag, ScsiCommand::READ, number, number).as_bytes().to_vec(),
                3 | 4 => {
                    let mut header = DataOut::new_zeroed();
                    (header.opcode, header.itt) = (opcode::DATA_OUT, U32::new(tag));
                    header.ttt = if byte & 2 == 0 { U32::new(NO_TAG) } else { U32::new(tag << 16) };
                    header.offset = U32::new(number & !3);
                    header.flags = byte & FINAL;
                    header.as_bytes().to_vec()
                }
                5 => {
                    let mut header: NopOut = host.nop_header(tag);
                    header.opcode = kind | opcode::IMMEDIATE;
                    header.as_bytes().to_vec()
                }
                6 => { host.manage(tag, kind % 9, tag + 1); continue }
                7 => { host.finish_all(); continue }
                _ => host.nop_header(tag).as_bytes().to_vec(),
            };
            if byte & 0x18 == 0x18 && at < header.len() {
                header[at] ^= byte;
            }
            let header = Bhs::read_from(&header);
            let bytes = bytes::pdu(host.digests, &header, if what == 2 { &[] } else { &data });
            host.feed(&bytes);
            while host.try_take().is_some() {}
        }
        host.finish_all();
        drop(host.session);
        proptest::prop_assert_eq!(host.pool.free_count(), Host::BUFFERS);
    }
}

impl Bhs {
    fn read_from(bytes: &[u8]) -> Self {
        zerocopy::FromBytes::read_from_bytes(bytes).expect("headers have one size")
    }
}
