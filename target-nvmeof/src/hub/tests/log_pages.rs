//! Log pages other than discovery.

use std::sync::atomic::Ordering;

use super::*;
use crate::hub::IoError;

fn read(bench: &mut Bench, connection: ConnectionId, lid: u8, bytes: u32) -> Box<[u8]> {
    let done = bench.run(connection, &log(lid, 0, bytes));
    assert_eq!(done.status, Status::SUCCESS, "log {lid:X}");
    let data = done.data.unwrap();
    assert_eq!(data.len(), bytes as usize);
    data
}

fn le(data: &[u8], offset: usize, bytes: usize) -> u128 {
    data[offset..offset + bytes].iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
}

#[test]
fn every_page_said_to_be_supported_is() {
    let mut bench = Bench::new();
    let (io, _) = bench.enabled(&Wish::admin());
    let (discovery, _) = bench.enabled(&Wish::discovery());
    for (connection, expected) in
        [(io, &[0, 1, 2, 3, 4, 5, 0x0C, 0x12, 0x80][..]), (discovery, &[0, 1, 0x70])]
    {
        let supported = read(&mut bench, connection, 0, 1024);
        for lid in 0..=255 {
            let status = bench.run(connection, &log(lid, 0, 64)).status;
            let told = supported[usize::from(lid) * 4] & 1 == 1;
            assert_eq!(told, expected.contains(&lid), "{lid:X}");
            assert_eq!(status == Status::SUCCESS, told, "{lid:X}");
            assert!(told || status == Status::INVALID_LOG_PAGE, "{lid:X}");
        }
    }
}

#[test]
fn offsets_are_checked_on_every_page() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let sizes: [(u8, u64); 8] =
        [(0, 1024), (1, 4096), (2, 512), (3, 512), (4, 4096), (5, 4096), (0x12, 1024), (0x80, 64)];
    // The ANA page may be read as far as Identify Controller lets it grow.
    let ana = 16 + 2048 * 32 + 4096 * 4;
    for (lid, size) in sizes.into_iter().chain([(0x0C, ana)]) {
        let status = |bench: &mut Bench, offset| bench.run(connection, &log(lid, offset, 4096)).status;
        assert_eq!(status(&mut bench, size), Status::SUCCESS, "{lid:X} at its end");
        for offset in [size + 4, 1, 2, 3, u64::MAX, u64::MAX - 3, 1 << 63, 1 << 32] {
            assert_eq!(status(&mut bench, offset), Status::INVALID_FIELD, "{lid:X} at {offset:X}");
        }
        let beyond = bench.run(connection, &log(lid, size - 4, 4096)).data.unwrap();
        assert!(beyond[4..].iter().all(|&byte| byte == 0), "{lid:X}: zeros beyond its end");
    }
    let past_now = bench.run(connection, &log(0x0C, 16 + 2 * 32 + 3 * 4 + 4, 4096)).data.unwrap();
    assert!(past_now.iter().all(|&byte| byte == 0), "zeros where the ANA page may grow to");
    let by_index = Sqe { cdw14: (1 << 23).into(), ..log(2, 0, 512) };
    assert_eq!(bench.run(connection, &by_index).status, Status::INVALID_FIELD);
}

#[test]
fn the_ana_log() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let data = read(&mut bench, connection, 0x0C, 96);
    assert_eq!((le(&data, 0, 8), le(&data, 8, 2)), (0, 2), "CHGCNT, NGRPS");
    assert_eq!((le(&data, 16, 4), le(&data, 20, 4), le(&data, 24, 8), data[32]), (1, 1, 0, 1));
    assert_eq!(le(&data, 48, 4), 2, "NSID 2 is in group 1");
    assert_eq!((le(&data, 52, 4), le(&data, 56, 4), le(&data, 60, 8), data[68]), (2, 2, 0, 2));
    assert_eq!((le(&data, 84, 4), le(&data, 88, 4)), (1, 3), "ascending");
    assert_eq!(le(&data, 92, 4), 0);

    bench.change(|targets| {
        targets.subsystems.get_mut(SUBSYSTEM).unwrap().ana_groups.insert(2, AnaState::Change);
    });
    let groups_only = Sqe { cdw10: (log(0x0C, 0, 96).cdw10.get() | 1 << 8).into(), ..log(0x0C, 0, 96) };
    let data = bench.run(connection, &groups_only).data.unwrap();
    assert_eq!((le(&data, 0, 8), le(&data, 8, 2)), (1, 2), "CHGCNT rose");
    assert_eq!((le(&data, 16, 4), le(&data, 20, 4), le(&data, 24, 8), data[32]), (1, 0, 0, 1));
    assert_eq!((le(&data, 48, 4), le(&data, 52, 4), le(&data, 56, 8), data[64]), (2, 0, 1, 0xF));

    bench.change(|targets| {
        targets.subsystems.get_mut(SUBSYSTEM).unwrap().ana_groups.clear();
    });
    let data = read(&mut bench, connection, 0x0C, 96);
    assert_eq!((data[32], data[68]), (3, 3), "a group nobody speaks for is inaccessible");
}

#[test]
fn the_largest_ana_log_fits_the_smallest_transfer() {
    let mut targets = targets();
    let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
    subsystem.namespaces = (1..=5000).map(|nsid| (nsid, namespace(nsid, nsid))).collect();
    let mut bench = Bench::with(Limits { max_transfer_bytes: 128 << 10, ..Limits::default() }, targets);
    let (connection, _) = bench.enabled(&Wish::admin());
    let data = read(&mut bench, connection, 0x0C, 128 << 10);
    assert_eq!(le(&data, 8, 2), 2048);
    assert_eq!(le(&data, 16 + 2047 * 36, 4), 2048);
    assert!(data[16 + 2048 * 36..].iter().all(|&byte| byte == 0));
}

#[test]
fn smart_sums_over_controllers_that_came_and_went() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let (other, granted) = bench.enabled(&Wish { host: OTHER_HOST.into(), ..Wish::admin() });
    granted.shared.bytes_read.store(512_001, Ordering::Relaxed);
    granted.shared.bytes_written.store(512_000, Ordering::Relaxed);
    granted.shared.read_commands.store(7, Ordering::Relaxed);
    granted.shared.write_commands.store(9, Ordering::Relaxed);
    bench.pass(Duration::from_secs(2 * 3600));
    let live = read(&mut bench, connection, 2, 512);
    bench.disconnect(other);
    let gone = read(&mut bench, connection, 2, 512);
    assert_eq!(live, gone);
    let values = (le(&live, 32, 16), le(&live, 48, 16), le(&live, 64, 16), le(&live, 80, 16));
    assert_eq!(values, (2, 1, 7, 9));
    assert_eq!((live[0], le(&live, 1, 2), live[3], le(&live, 128, 16)), (0, 0, 100, 2));
    let of_namespace = Sqe { nsid: 1.into(), ..log(2, 0, 512) };
    assert_eq!(bench.run(connection, &of_namespace).status, Status::INVALID_FIELD);
}

#[test]
fn the_error_log_keeps_the_newest_64() {
    let mut bench = Bench::new();
    let (connection, admin) = bench.enabled(&Wish::admin());
    let (io, _) = bench.connect(&Wish::io(admin.cntlid, 3)).unwrap();
    for number in 1..=70 {
        let status = if number % 2 == 0 { Status::UNRECOVERED_READ } else { Status::LBA_OUT_OF_RANGE };
        let entry = IoError { cid: number, status, lba: u64::from(number) * 10, nsid: 2, sqid: 3 };
        bench.hub.io_error(io, entry, bench.now);
    }
    let data = read(&mut bench, connection, 1, 4096);
    let newest = (le(&data, 0, 8), le(&data, 8, 2), le(&data, 10, 2), le(&data, 12, 2));
    assert_eq!(newest, (70, 3, 70, u128::from(Status::UNRECOVERED_READ.field())));
    assert_eq!((le(&data, 14, 2), le(&data, 16, 8), le(&data, 24, 4), data[29]), (0xFFFF, 700, 2, 3));
    assert_eq!(le(&data, 63 * 64, 8), 7, "the oldest kept");
    let smart = read(&mut bench, connection, 2, 512);
    assert_eq!((le(&smart, 160, 16), le(&smart, 176, 16)), (35, 70), "media errors, entries");
}

#[test]
fn firmware_and_effects() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let firmware = read(&mut bench, connection, 3, 512);
    assert_eq!((firmware[0], &firmware[8..16]), (1, &b"0.1.0   "[..]));
    let effects = read(&mut bench, connection, 5, 4096);
    for (opcode, effect) in [(0x02, 1), (0x06, 1), (0x08, 1), (0x0C, 1), (0x18, 1), (0x01, 0), (0x80, 0)] {
        assert_eq!(le(&effects, opcode * 4, 4), effect, "admin {opcode:X}");
    }
    for (opcode, effect) in
        [(0, 1), (1, 3), (2, 1), (4, 0), (5, 1), (8, 3), (9, 3), (0x0C, 1), (0x19, 3), (0x79, 0)]
    {
        assert_eq!(le(&effects, 1024 + opcode * 4, 4), effect, "I/O {opcode:X}");
    }
    let of_zns = Sqe { cdw14: (2 << 24).into(), ..log(5, 0, 4096) };
    assert_eq!(bench.run(connection, &of_zns).status, Status::INVALID_FIELD);
    let features = read(&mut bench, connection, 0x12, 1024);
    assert_eq!((features[4 * 7], features[4 * 3], features[4 * 6]), (1, 0, 0));
}
