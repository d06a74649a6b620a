//! Properties, the controller's life, and what may run when.

use super::*;

const CSTS: u32 = 0x1C;
const CC: u32 = 0x14;

fn status(bench: &mut Bench, connection: ConnectionId) -> u32 {
    bench.run(connection, &property_get(CSTS, 0)).dw0
}

#[test]
fn properties_have_the_values_hosts_need() {
    let mut bench = Bench::new();
    let (connection, _) = bench.connect(&Wish::admin()).unwrap();
    let cap = bench.run(connection, &property_get(0, 1));
    assert_eq!(cap.dw0 & 0xFFFF, 1023, "MQES");
    assert_eq!(cap.dw0 >> 16 & 1, 1, "CQR");
    assert_eq!(cap.dw0 >> 24, 15, "TO");
    assert_eq!(cap.dw1, 1 << 5, "CSS b37 alone: no b43, MPSMIN, MPSMAX, CRMS");
    assert_eq!(bench.run(connection, &property_get(8, 0)).dw0, 0x0001_0400, "VS");
    assert_eq!(bench.run(connection, &property_get(CC, 0)).dw0, 0);
    assert_eq!(status(&mut bench, connection), 0);
}

#[test]
fn other_properties_and_sizes_are_invalid() {
    let mut bench = Bench::new();
    let (connection, _) = bench.connect(&Wish::admin()).unwrap();
    let gets = [(0, 0), (8, 1), (CC, 1), (CSTS, 1), (0x20, 0), (0x68, 0), (4, 0), (u32::MAX, 0), (8, 2)];
    for (offset, attribute) in gets {
        let done = bench.run(connection, &property_get(offset, attribute));
        assert_eq!(done.status, Status::INVALID_FIELD, "get {offset:X} {attribute}");
    }
    let sets = [(0, 1), (0, 0), (8, 0), (CSTS, 0), (CC, 1), (CC, 7), (0x20, 0), (u32::MAX, 0)];
    for (offset, attribute) in sets {
        let done = bench.run(connection, &property_set(offset, attribute, 0x0046_0001));
        assert_eq!(done.status, Status::INVALID_FIELD, "set {offset:X} {attribute}");
    }
    assert_eq!(status(&mut bench, connection), 0, "nothing was enabled");
}

#[test]
fn an_unsound_configuration_fails_the_controller() {
    // MPS, IOSQES, IOCQES, AMS, CSS
    for cc in [0x0046_0081, 0x0045_0001, 0x0036_0001, 0x0046_0801, 0x0046_0061, 1] {
        let mut bench = Bench::new();
        let (connection, granted) = bench.connect(&Wish::admin()).unwrap();
        assert_eq!(bench.run(connection, &property_set(CC, 0, cc)).status, Status::SUCCESS);
        assert_eq!(status(&mut bench, connection), 2, "CFS, not RDY, for {cc:X}");
        assert!(!granted.shared.is_ready());
        assert_eq!(bench.run(connection, &identify(1, 0)).status, Status::COMMAND_SEQUENCE_ERROR);
        bench.run(connection, &property_set(CC, 0, cc | 1 << 14));
        assert_eq!(status(&mut bench, connection) >> 2 & 3, 2, "it shuts down all the same");
        bench.run(connection, &property_set(CC, 0, 0));
        assert_eq!(status(&mut bench, connection), 0);
        bench.run(connection, &property_set(CC, 0, u64::from(CC_ENABLE)));
        assert_eq!(status(&mut bench, connection), 1, "a reset mends it");
    }
}

#[test]
fn a_discovery_controller_does_not_mind_entry_sizes() {
    let mut bench = Bench::new();
    let (connection, _) = bench.connect(&Wish::discovery()).unwrap();
    bench.run(connection, &property_set(CC, 0, 1));
    assert_eq!(status(&mut bench, connection), 1);
}

#[test]
fn nothing_but_fabrics_commands_runs_before_enable_or_after_shutdown() {
    let commands = [
        identify(1, 0),
        log(2, 0, 512),
        get_feature(7, 0, 0),
        set_feature(7, 0, 0),
        admin_command(admin::KEEP_ALIVE),
        admin_command(admin::ABORT),
        admin_command(admin::ASYNC_EVENT),
        admin_command(0x05),
    ];
    let mut bench = Bench::new();
    let (connection, granted) = bench.connect(&Wish::admin()).unwrap();
    let refuse_all = |bench: &mut Bench| {
        for command in &commands {
            let done = bench.run(connection, command);
            assert_eq!(done.status, Status::COMMAND_SEQUENCE_ERROR, "{:X}", command.opcode);
        }
    };
    refuse_all(&mut bench);
    bench.run(connection, &property_set(CC, 0, u64::from(CC_ENABLE)));
    assert_eq!(bench.run(connection, &identify(1, 0)).status, Status::SUCCESS);
    bench.run(connection, &property_set(CC, 0, u64::from(CC_ENABLE | 1 << 14)));
    assert_eq!(status(&mut bench, connection) >> 2 & 3, 2, "SHST: done");
    assert!(!granted.shared.is_ready());
    refuse_all(&mut bench);
}

#[test]
fn a_reset_closes_io_queues_and_begins_another_session() {
    let mut bench = Bench::new();
    let (connection, admin) = bench.enabled(&Wish::admin());
    let (io, _) = bench.connect(&Wish::io(admin.cntlid, 1)).unwrap();
    bench.hub.command(connection, &property_set(CC, 0, 0x0046_0000), &[], bench.now);
    assert!(matches!(bench.hub.poll_effect(), Some(Effect::Close { connection }) if connection == io));
    assert_eq!(bench.completion().unwrap().status, Status::SUCCESS);
    assert_eq!(status(&mut bench, connection), 0);
    bench.run(connection, &property_set(CC, 0, u64::from(CC_ENABLE)));
    let (_, again) = bench.connect(&Wish::io(admin.cntlid, 1)).unwrap();
    assert_ne!(again.session, admin.session, "commands of before are not taken for those of after");
}

#[test]
fn io_queues_take_no_property_commands() {
    let mut bench = Bench::new();
    let (_, admin) = bench.enabled(&Wish::admin());
    let (io, _) = bench.connect(&Wish::io(admin.cntlid, 1)).unwrap();
    for command in [property_get(CSTS, 0), property_set(CC, 0, 0), identify(1, 0)] {
        assert_eq!(bench.run(io, &command).status, Status::INVALID_OPCODE);
    }
}

#[test]
fn before_connect_nothing_is_known() {
    let mut bench = Bench::new();
    let stranger = bench.connection();
    for command in [property_get(0, 1), identify(1, 0), admin_command(admin::KEEP_ALIVE)] {
        assert_eq!(bench.run(stranger, &command).status, Status::INVALID_OPCODE);
    }
}

#[test]
fn commands_a_controller_does_not_have() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    let (discovery, _) = bench.enabled(&Wish::discovery());
    for opcode in [0x00, 0x01, 0x04, 0x05, 0x0D, 0x10, 0x14, 0x80, 0x86, 0xFF] {
        assert_eq!(
            bench.run(connection, &admin_command(opcode)).status,
            Status::INVALID_OPCODE,
            "{opcode:X}"
        );
        assert_eq!(bench.run(discovery, &admin_command(opcode)).status, Status::INVALID_OPCODE, "{opcode:X}");
    }
    assert_eq!(bench.run(discovery, &admin_command(admin::ABORT)).status, Status::INVALID_OPCODE);
    for kind in [fabrics::AUTHENTICATION_SEND, fabrics::AUTHENTICATION_RECEIVE, fabrics::DISCONNECT, 0x77] {
        let command = Sqe { nsid: u32::from(kind).into(), ..admin_command(admin::FABRICS) };
        assert_eq!(bench.run(connection, &command).status, Status::INVALID_OPCODE, "{kind:X}");
    }
}

#[test]
fn a_fused_admin_command_is_invalid() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    for fuse in 1..=3 {
        let command = Sqe { flags: 0x40 | fuse, ..identify(1, 0) };
        assert_eq!(bench.run(connection, &command).status, Status::INVALID_FIELD);
    }
}

#[test]
fn abort_never_fails_and_never_aborts() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    for target in [0, 0x1234_0000, u32::MAX] {
        let done = bench.run(connection, &Sqe { cdw10: target.into(), ..admin_command(admin::ABORT) });
        assert_eq!((done.status, done.dw0), (Status::SUCCESS, 1));
    }
}
