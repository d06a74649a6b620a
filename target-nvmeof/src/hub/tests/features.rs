//! Features.

use super::*;

fn get(bench: &mut Bench, connection: ConnectionId, fid: u8) -> u32 {
    let done = bench.run(connection, &get_feature(fid, 0, 0));
    assert_eq!(done.status, Status::SUCCESS, "feature {fid:X}");
    done.dw0
}

#[test]
fn queues_are_granted_up_to_the_limit() {
    let mut bench = Bench::new();
    let (connection, granted) = bench.enabled(&Wish::admin());
    assert_eq!(get(&mut bench, connection, 7), 63 << 16 | 63, "all, until the host says");
    for (asked, result) in [(0, 0), (3 << 16 | 3, 3), (7 << 16 | 1, 1), (0xFFFE_FFFE, 63)] {
        let done = bench.run(connection, &set_feature(7, asked, 0));
        assert_eq!((done.status, done.dw0), (Status::SUCCESS, result << 16 | result), "{asked:X}");
    }
    for asked in [0xFFFF, 0xFFFF_0000, 0xFFFF_FFFF, 0xFFFF_0003] {
        assert_eq!(bench.run(connection, &set_feature(7, asked, 0)).status, Status::INVALID_FIELD);
    }
    bench.run(connection, &set_feature(7, 1 << 16 | 1, 0));
    let refused = bench.connect(&Wish::io(granted.cntlid, 3)).unwrap_err();
    assert_eq!((refused.status, refused.dw0), (Status::CONNECT_PARAMETER, 42));
    bench.connect(&Wish::io(granted.cntlid, 2)).unwrap();
    let done = bench.run(connection, &set_feature(7, 0, 0));
    assert_eq!(done.status, Status::COMMAND_SEQUENCE_ERROR, "not while there are queues");
}

#[test]
fn features_read_back_as_they_were_set() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    for (fid, value, kept) in [
        (0x01, 0x0302_0107, 0x0302_0107),
        (0x02, 0, 0),
        (0x04, 0x0000_0150, 0x150),
        (0x05, 77, 77),
        (0x0A, 1, 1),
        (0x0B, 0x9FF, 0x9FF),
        (0x0F, 1, 1000),
        (0x0F, 5001, 6000),
        (0x0F, u32::MAX, 86_400_000),
        (0x0F, 0, 0),
    ] {
        assert_eq!(bench.run(connection, &set_feature(fid, value, 0)).status, Status::SUCCESS, "{fid:X}");
        assert_eq!(get(&mut bench, connection, fid), kept, "{fid:X}");
    }
    let under = Sqe { cdw11: (1 << 20).into(), ..get_feature(4, 0, 0) };
    assert_eq!(bench.run(connection, &under).dw0, 0, "the other threshold is as it was");
}

#[test]
fn bad_values_are_refused() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let saving = Sqe { cdw10: (0x0B | 1 << 31).into(), ..set_feature(0x0B, 0, 0) };
    let cases = [
        (saving, Status::FEATURE_NOT_SAVEABLE),
        (set_feature(0x02, 1, 0), Status::INVALID_FIELD),
        (set_feature(0x04, 1 << 16, 0), Status::INVALID_FIELD),
        (set_feature(0x04, 2 << 20, 0), Status::INVALID_FIELD),
        (set_feature(0x05, 1 << 16, 0), Status::INVALID_FIELD),
        (set_feature(0x0B, 1 << 31, 0), Status::INVALID_FIELD),
        (set_feature(0x0B, 1 << 9, 0), Status::INVALID_FIELD),
        (set_feature(0x06, 1, 0), Status::INVALID_FIELD),
        (set_feature(0x00, 0, 0), Status::INVALID_FIELD),
        (set_feature(0x84, 0, 0), Status::INVALID_FIELD),
        (set_feature(0xFF, 0, 0), Status::INVALID_FIELD),
        (get_feature(0x06, 0, 0), Status::INVALID_FIELD),
        (get_feature(0x03, 0, 0), Status::INVALID_FIELD),
        (get_feature(0x07, 4, 0), Status::INVALID_FIELD),
        (get_feature(0x81, 0, 8), Status::INVALID_FIELD),
    ];
    for (command, status) in cases {
        assert_eq!(bench.run(connection, &command).status, status, "{command:?}");
    }
    let own_id = bench.run_with(connection, &set_feature(0x81, 1, 16), &[1; 16]);
    assert_eq!(own_id.status, Status::COMMAND_SEQUENCE_ERROR);
    let mut behavior = [0; 512];
    behavior[0] = 2;
    assert_eq!(
        bench.run_with(connection, &set_feature(0x16, 0, 512), &behavior).status,
        Status::INVALID_FIELD
    );
    let short = bench.run_with(connection, &set_feature(0x16, 0, 512), &behavior[..511]);
    assert_eq!(short.status, Status::DATA_SGL_LENGTH_INVALID, "less than was promised");
}

#[test]
fn features_with_data() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let host_id = Sqe { cdw11: 1.into(), ..get_feature(0x81, 0, 16) };
    assert_eq!(*bench.run(connection, &host_id).data.unwrap(), HOST_ID);

    let mut behavior = [0; 512];
    behavior[0] = 1;
    assert_eq!(bench.run_with(connection, &set_feature(0x16, 0, 512), &behavior).status, Status::SUCCESS);
    assert_eq!(*bench.run(connection, &get_feature(0x16, 0, 512)).data.unwrap(), behavior);
    assert_eq!(*bench.run(connection, &get_feature(0x16, 1, 512)).data.unwrap(), [0; 512], "the default");
}

#[test]
fn the_timestamp_counts_on() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let timestamp = |bench: &mut Bench| bench.run(connection, &get_feature(0x0E, 0, 8)).data.unwrap();
    bench.pass(Duration::from_millis(300));
    assert_eq!(*timestamp(&mut bench), [0x2C, 1, 0, 0, 0, 0, 0, 0], "since the reset");
    let set = 0x0191_2345_6789_u64.to_le_bytes();
    assert_eq!(bench.run_with(connection, &set_feature(0x0E, 0, 8), &set).status, Status::SUCCESS);
    bench.pass(Duration::from_millis(1000));
    assert_eq!(*timestamp(&mut bench), [0x71, 0x6B, 0x45, 0x23, 0x91, 0x01, 2, 0]);
}

#[test]
fn capabilities_and_defaults() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    bench.run(connection, &set_feature(0x0B, 0x100, 0));
    bench.run(connection, &set_feature(0x07, 0, 0));
    for (fid, default, capabilities) in
        [(0x0B, 0, 4), (0x07, 63 << 16 | 63, 4), (0x04, 0xFFFF, 4), (0x82, 0, 6)]
    {
        for select in [1, 2] {
            let done = bench.run(connection, &Sqe { nsid: 1.into(), ..get_feature(fid, select, 0) });
            assert_eq!((done.status, done.dw0), (Status::SUCCESS, default), "{fid:X}");
        }
        assert_eq!(bench.run(connection, &get_feature(fid, 3, 0)).dw0, capabilities, "{fid:X}");
    }
    let with_buffer = bench.run(connection, &get_feature(0x0E, 3, 8));
    assert_eq!((with_buffer.dw0, with_buffer.data.unwrap().len()), (4, 8));
}

#[test]
fn the_write_cache_is_there_or_not() {
    let mut bench = Bench::new();
    bench.change(|targets| {
        let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
        subsystem.namespaces.get_mut(&1).unwrap().volume.volatile_cache = true;
    });
    let (connection, _) = bench.enabled(&Wish::admin());
    assert_eq!(get(&mut bench, connection, 6), 1);
    assert_eq!(bench.run(connection, &set_feature(6, 1, 0)).status, Status::SUCCESS);
    assert_eq!(bench.run(connection, &set_feature(6, 0, 0)).status, Status::FEATURE_NOT_CHANGEABLE);
}

#[test]
fn a_discovery_controller_has_two_features() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish { keep_alive_ms: 30_000, ..Wish::discovery() });
    assert_eq!(get(&mut bench, connection, 0x0F), 30_000);
    assert_eq!(bench.run(connection, &set_feature(0x0B, 1 << 31, 0)).status, Status::SUCCESS);
    assert_eq!(get(&mut bench, connection, 0x0B), 1 << 31);
    assert_eq!(bench.run(connection, &set_feature(0x0B, 1 << 8, 0)).status, Status::INVALID_FIELD);
    assert_eq!(bench.run(connection, &get_feature(7, 0, 0)).status, Status::INVALID_FIELD);
}
