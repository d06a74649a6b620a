//! The transport against a host made of bytes.

use ashlar_codec::crc32c;
use ashlar_env::buf::PoolPlan;
use zerocopy::FromBytes;

use super::*;
use crate::wire::pdu::{Header, R2t, TermReq, flags, kind};
use crate::wire::sqe::{SGL_IN_CAPSULE, SGL_TRANSPORT, io};

#[allow(dead_code, reason = "the tests beside need more of it")]
#[path = "../../tests/common/bytes.rs"]
mod bytes;
use bytes::Digests;

const NOW: Instant = Instant(1);

/// All that a connection may carry.
const ALL: [Digests; 4] =
    [Digests::of_field(0), Digests::of_field(1), Digests::of_field(2), Digests::of_field(3)];

fn sqe(cid: u16, opcode: u8, identifier: u8, len: u32) -> Sqe {
    let mut sqe = bytes::sqe(opcode, cid, len);
    sqe.sgl.identifier = identifier;
    sqe
}

fn transport() -> Transport {
    let pool = BufPool::on_heap(PoolPlan { limits: [16, 4, 4, 2, 2] });
    Transport::new(&Limits::default(), pool, NOW)
}

/// Feeds bytes in pieces of `step` and collects the events, admitting each command for `transfer`.
fn feed(transport: &mut Transport, mut bytes: &[u8], step: usize, transfer: Transfer) -> Vec<Event> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let mut taken = 0;
        for mut slice in transport.recv_slices() {
            let n = slice.len().min(step - taken).min(bytes.len() - taken);
            slice[..n].copy_from_slice(&bytes[taken..taken + n]);
            taken += n;
        }
        if taken == 0 {
            break;
        }
        transport.received(taken, NOW);
        bytes = &bytes[taken..];
        while let Some(event) = transport.next_event(NOW) {
            if let Event::Command(slot) = event {
                match transport.admit(slot, transfer, NOW) {
                    Admission::Ready(Some(data)) => events.push(Event::Data(slot, data)),
                    Admission::Refused(status) => {
                        transport.complete(slot, Cqe::new(0, status, 0, 0), None, NOW)
                    }
                    Admission::Ready(None) | Admission::Waiting => {}
                }
            }
            events.push(event);
        }
    }
    events
}

/// All bytes to send, in sends of `step` bytes.
fn drain(transport: &mut Transport, step: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    while transport.has_output() {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = transport.send_slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).take(step).collect();
        sent.extend(&bytes);
        transport.sent(bytes.len(), NOW);
    }
    sent
}

fn connected(host: Digests) -> Transport {
    let mut transport = transport();
    feed(&mut transport, &bytes::ic_req(host), 128, Transfer::None);
    let response = drain(&mut transport, 1000);
    assert_eq!(response.len(), 128);
    assert_eq!(response[11], host.field(), "the digests asked for, no more and no less");
    assert_eq!(response[10], 0, "Linux refuses any other CPDA");
    transport.connected(16, true, true);
    transport
}

#[test]
fn writes_and_reads_at_every_split() {
    for host in ALL {
        for step in [1, 2, 3, 7, 71, 72, 73, 1000, 100_000] {
            let mut transport = connected(host);
            let data: Vec<u8> = (0..4096).map(|n| (n * 7 + n / 256) as u8).collect();
            // In the capsule.
            let capsule = bytes::capsule(host, &sqe(0xF001, io::WRITE, SGL_IN_CAPSULE, 4096), &data);
            let events = feed(&mut transport, &capsule, step, Transfer::FromHost(4096));
            let [Event::Data(slot, got), Event::Command(_)] = &events[..] else { panic!("{events:?}") };
            assert_eq!(got[..], data[..]);
            transport.complete(*slot, Cqe::new(0, Status::SUCCESS, 0, 0), None, NOW);
            let sent = drain(&mut transport, step);
            let (header, _) = Header::read_from_prefix(&sent).unwrap();
            assert_eq!((header.kind, header.hlen), (kind::CAPSULE_RESP, 24));
            assert_eq!(sent[20..22], 0xF001u16.to_le_bytes(), "the identifier comes back as it was");
            assert_eq!(sent[16..18], [0xFF, 0xFF], "no queue head without flow control");
            // By R2T, in two H2CData PDUs.
            let big = data.repeat(4);
            let capsule = bytes::capsule(host, &sqe(7, io::WRITE, SGL_TRANSPORT, 16384), &[]);
            let events = feed(&mut transport, &capsule, step, Transfer::FromHost(16384));
            let [Event::Command(slot)] = events[..] else { panic!("{events:?}") };
            let sent = drain(&mut transport, step);
            let (r2t, _) = R2t::read_from_prefix(&sent).unwrap();
            assert_eq!((r2t.header.kind, r2t.offset.get(), r2t.length.get()), (kind::R2T, 0, 16384));
            let mut bytes = bytes::h2c_data(host, 7, r2t.ttag.get(), 0, &big[..10000], false);
            bytes.extend(bytes::h2c_data(host, 7, r2t.ttag.get(), 10000, &big[10000..], true));
            let events = feed(&mut transport, &bytes, step, Transfer::None);
            let [Event::Data(done, got)] = &events[..] else { panic!("{events:?}") };
            assert_eq!((*done, &got[..]), (slot, &big[..]));
            transport.complete(slot, Cqe::new(0, Status::SUCCESS, 0, 0), None, NOW);
            drain(&mut transport, step);
            // A read of what was written.
            let capsule = bytes::capsule(host, &sqe(8, io::READ, SGL_TRANSPORT, 16384), &[]);
            let events = feed(&mut transport, &capsule, step, Transfer::ToHost(16384));
            let Event::Command(slot) = events[0] else { panic!("{events:?}") };
            transport.complete(slot, Cqe::new(0, Status::SUCCESS, 0, 0), Some(got.clone()), NOW);
            let sent = drain(&mut transport, step.max(100));
            let first = if host.header { 28 } else { 24 };
            let (header, _) = Header::read_from_prefix(&sent).unwrap();
            assert_eq!(header.flags & 0b1100, flags::LAST | flags::SUCCESS);
            assert_eq!(header.plen.get() as usize, sent.len(), "no response capsule follows");
            assert_eq!(sent[first..first + 16384], big[..]);
            if host.data {
                assert_eq!(sent[first + 16384..], crc32c(&big).to_le_bytes());
            }
            assert_eq!(transport.outstanding(), 0);
        }
    }
}

#[test]
fn a_flipped_bit_in_header_or_data_is_seen() {
    let host = Digests::BOTH;
    let good = bytes::capsule(host, &sqe(1, io::WRITE, SGL_IN_CAPSULE, 512), &[5; 512]);
    for at in [10, 40, 75] {
        let mut transport = connected(host);
        let mut bad = good.clone();
        bad[at] ^= 4;
        let events = feed(&mut transport, &bad, 10_000, Transfer::FromHost(512));
        let [Event::Closed(Closed::ProtocolError(FatalError::HeaderDigest))] = events[..] else {
            panic!("{events:?}")
        };
        let sent = drain(&mut transport, 10_000);
        let (term, offending) = TermReq::read_from_prefix(&sent).unwrap();
        assert_eq!((term.header.kind, term.fes.get()), (kind::C2H_TERM, 3));
        assert_eq!(term.fei.get().to_le_bytes(), bad[72..76], "the digest received");
        assert_eq!(offending, &bad[..128]);
    }
    let mut transport = connected(host);
    let mut bad = good.clone();
    bad[100] ^= 1;
    feed(&mut transport, &bad, 10_000, Transfer::FromHost(512));
    let sent = drain(&mut transport, 10_000);
    assert_eq!(sent[22..24], Status::TRANSIENT_TRANSPORT.field().to_le_bytes());
    assert!(transport.closed.is_none());
}

#[test]
fn an_exhausted_pool_delays_and_loses_nothing() {
    let host = ALL[0];
    let mut transport = connected(host);
    let hold: Vec<_> = std::iter::from_fn(|| transport.buffers.try_alloc(1)).collect();
    let mut bytes = bytes::capsule(host, &sqe(1, io::WRITE, SGL_TRANSPORT, 512), &[]);
    bytes.extend(bytes::capsule(host, &sqe(2, io::WRITE, SGL_IN_CAPSULE, 512), &[2; 512]));
    bytes.extend(bytes::capsule(host, &sqe(3, io::FLUSH, SGL_TRANSPORT, 0), &[]));
    let events = feed(&mut transport, &bytes, 10_000, Transfer::FromHost(512));
    assert_eq!(events.len(), 2, "the third command waits behind the in-capsule data: {events:?}");
    drop(hold);
    assert_eq!(transport.wants_buffer(), Some(512));
    let buf = transport.buffers.try_alloc(512).unwrap();
    transport.give_buffer(buf, NOW);
    let Some(Event::Data(Slot(_), data)) = transport.next_event(NOW) else { panic!("data") };
    assert_eq!(data[..], [2; 512]);
    assert!(matches!(transport.next_event(NOW), Some(Event::Command(_))));
    assert_eq!(transport.wants_buffer(), Some(512), "the R2T's turn");
    let buf = transport.buffers.try_alloc(512).unwrap();
    transport.give_buffer(buf, NOW);
    assert!(transport.has_output());
}

#[test]
fn a_silent_peer_is_closed() {
    let mut transport = transport();
    let limit = NOW.plus(Limits::default().handshake_timeout);
    assert_eq!(transport.deadline(), limit);
    transport.handle_timeout(Instant(limit.0 - 1));
    assert!(transport.next_event(NOW).is_none());
    transport.handle_timeout(limit);
    assert!(matches!(transport.next_event(NOW), Some(Event::Closed(Closed::TimedOut))));
    assert!(transport.is_over());
}

proptest::proptest! {
    /// Whatever arrives after a handshake, whole or in pieces: no panic, and the connection ends or lives on.
    #[test]
    fn arbitrary_bytes(
        host in 0..4usize,
        pdus in proptest::collection::vec(
            (0..8u8, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), 0..80usize, proptest::prelude::any::<u8>()), 0..12),
        step in 1..300usize,
    ) {
        let host = ALL[host];
        let mut transport = connected(host);
        for (what, noise, at, byte) in pdus {
            let mut bytes = match what {
                0 => noise.clone(),
                1 => bytes::capsule(host, &sqe(at as u16, io::READ, SGL_TRANSPORT, 512), &[]),
                2 | 3 => bytes::capsule(host, &sqe(at as u16, io::WRITE, SGL_IN_CAPSULE, noise.len() as u32), &noise),
                4 => bytes::capsule(host, &sqe(at as u16, io::WRITE, SGL_TRANSPORT, 512), &[]),
                5 => bytes::h2c_data(host, at as u16, u16::from(byte & 15), 0, &noise, true),
                6 => bytes::h2c_data(host, at as u16, u16::from(byte & 15), 0, &[7; 512], true),
                _ => bytes::ic_req(host),
            };
            if byte & 0x10 != 0 && at < bytes.len() {
                bytes[at] = byte;
            }
            let transfer = if what == 1 { Transfer::ToHost(512) } else { Transfer::FromHost(512) };
            for event in feed(&mut transport, &bytes, step, transfer) {
                if let Event::Data(slot, _) | Event::BadData(slot) = event {
                    transport.complete(slot, Cqe::new(0, Status::SUCCESS, 0, 0), None, NOW);
                }
            }
            drain(&mut transport, step);
        }
    }
}
