//! Text requests and pings.

use super::host::{TARGET, bytes, targets};
use super::*;
use crate::wire::bhs::CONTINUE;
use crate::wire::response::{Reject, TextResponse};

pub fn rejected(host: &mut Host) -> u8 {
    let received = host.take(opcode::REJECT);
    assert_eq!(received.data.len(), 48, "the whole header");
    received.header::<Reject>().reason
}

#[test]
fn discovery_lists_targets_and_portals() {
    let mut host = Host::discovery(targets(2));
    host.text(1, NO_TAG, FINAL, &bytes::text("SendTargets=All"));
    let address = "TargetAddress=10.0.0.1:3260,1 TargetAddress=10.0.0.1:3261,2 ";
    let expected = format!("TargetName={TARGET} {address}TargetName={TARGET}1 {address}");
    assert_eq!(host.take(opcode::TEXT_RESPONSE).text(), expected);
    let mut host = Host::logged_in(Digests::default(), "");
    host.text(1, NO_TAG, FINAL, &bytes::text("SendTargets="));
    assert_eq!(host.take(opcode::TEXT_RESPONSE).text(), format!("TargetName={TARGET} {address}"));
    host.text(1, NO_TAG, FINAL, &bytes::text("SendTargets=All"));
    assert_eq!(host.take(opcode::TEXT_RESPONSE).text(), "SendTargets=Reject ");
}

#[test]
fn long_answers_come_in_parts() {
    let mut host = Host::discovery(targets(300));
    host.text(1, NO_TAG, FINAL, &bytes::text("SendTargets=All"));
    let mut all = Vec::new();
    loop {
        let received = host.take(opcode::TEXT_RESPONSE);
        let pdu: TextResponse = received.header();
        assert!(received.data.len() <= 8192);
        all.extend(&received.data);
        if pdu.flags & FINAL != 0 {
            assert_eq!(pdu.ttt.get(), NO_TAG);
            break;
        }
        assert_eq!(pdu.flags, CONTINUE);
        host.text(1, pdu.ttt.get(), FINAL, &[]);
    }
    let all = String::from_utf8(all).unwrap();
    assert_eq!(all.matches("TargetName=").count(), 300);
}

#[test]
fn questions_may_come_in_parts() {
    let mut host = Host::discovery(targets(1));
    host.text(1, NO_TAG, CONTINUE, b"SendTar");
    let pdu: TextResponse = host.take(opcode::TEXT_RESPONSE).header();
    assert_ne!(pdu.ttt.get(), NO_TAG);
    host.text(1, pdu.ttt.get(), FINAL, b"gets=All\0");
    assert!(host.take(opcode::TEXT_RESPONSE).text().starts_with("TargetName="));
}

#[test]
fn i09_a_text_that_goes_on_with_nothing() {
    let mut host = Host::discovery(targets(1));
    host.text(1, NO_TAG, CONTINUE, &[]);
    assert_eq!(rejected(&mut host), 4);
}

#[test]
fn i10a_texts_out_of_sequence() {
    let mut host = Host::discovery(targets(1));
    host.text(1, NO_TAG, FINAL | CONTINUE, b"a=b\0");
    assert_eq!(rejected(&mut host), 4);
    host.text(1, 1234, FINAL, &[]);
    assert_eq!(rejected(&mut host), 4);
    host.text(1, NO_TAG, CONTINUE, b"a=");
    host.take(opcode::TEXT_RESPONSE);
    host.text(2, NO_TAG, FINAL, b"b\0");
    assert_eq!(rejected(&mut host), 4);
    host.text(3, NO_TAG, FINAL, &bytes::text("SendTargets=All"));
    host.take(opcode::TEXT_RESPONSE);
}

#[test]
fn i10b_long_values_and_other_keys() {
    let mut host = Host::discovery(targets(1));
    let long = [b"SendTargets=".to_vec(), vec![b'x'; 8000], vec![0]].concat();
    host.text(1, NO_TAG, FINAL, &long);
    assert_eq!(rejected(&mut host), 4);
    host.text(1, NO_TAG, FINAL, &bytes::text("MaxBurstLength=512"));
    assert_eq!(host.take(opcode::TEXT_RESPONSE).text(), "MaxBurstLength=NotUnderstood ");
}

#[test]
fn pings_are_answered_with_their_data() {
    for digests in Digests::ALL {
        let mut host = Host::logged_in(digests, "MaxRecvDataSegmentLength=4096");
        for len in [0, 1, 4096, 10_000, 200_000] {
            let data = pattern(len);
            let header = host.nop_header(9);
            host.send(&header, &data);
            let received = host.take(opcode::NOP_IN);
            assert_eq!((received.bhs.itt.get(), &received.data[..]), (9, &data[..len.min(4096)]));
        }
    }
}

#[test]
fn i16_pings_that_break_the_rules() {
    let mut host = Host::logged_in(Digests::default(), "");
    let mut header = host.nop_header(NO_TAG);
    header.opcode = opcode::NOP_OUT;
    host.send(&header, &[]);
    assert_eq!(rejected(&mut host), 4);
    let mut header = host.nop_header(9);
    header.flags = 0;
    host.send(&header, &[1, 2, 3]);
    assert_eq!(rejected(&mut host), 4);
    host.read(1, 512, 512);
    let header = host.nop_header(9);
    host.send(&header, &vec![0; (256 << 10) + 4]);
    assert_eq!(rejected(&mut host), 4);
    assert_eq!(host.closed, Some(Closed::ProtocolError));
}
