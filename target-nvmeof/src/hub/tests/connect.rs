//! Connect: every check, and what comes of success.

use super::*;

#[test]
fn a_refused_connect_says_why() {
    type Edit = fn(&mut Wish);
    let cases: [(&str, Edit, Status, u32); 13] = [
        ("record format", |w| w.record_format = 1, Status::CONNECT_FORMAT, 0),
        ("subsystem unknown", |w| w.subsystem = b"nqn.x".to_vec(), Status::CONNECT_PARAMETER, 0x1_0100),
        ("subsystem without NUL", |w| w.subsystem = vec![b'a'; 256], Status::CONNECT_PARAMETER, 0x1_0100),
        ("subsystem empty", |w| w.subsystem.clear(), Status::CONNECT_PARAMETER, 0x1_0100),
        ("host without NUL", |w| w.host = vec![b'a'; 256], Status::CONNECT_PARAMETER, 0x1_0200),
        ("host not UTF-8", |w| w.host = vec![0xFF; 9], Status::CONNECT_PARAMETER, 0x1_0200),
        ("host with control", |w| w.host = b"nqn.a\nb".to_vec(), Status::CONNECT_PARAMETER, 0x1_0200),
        ("host of 224 bytes", |w| w.host = vec![b'a'; 224], Status::CONNECT_PARAMETER, 0x1_0200),
        ("host not allowed", |w| w.host = b"nqn.stranger".to_vec(), Status::CONNECT_HOST, 0),
        ("a controller asked for", |w| w.cntlid = 5, Status::CONNECT_PARAMETER, 0x1_0010),
        ("queue of one", |w| w.queue_size = 0, Status::CONNECT_PARAMETER, 44),
        ("queue too long", |w| w.queue_size = 128, Status::CONNECT_PARAMETER, 44),
        ("queue far too long", |w| w.queue_size = 65535, Status::CONNECT_PARAMETER, 44),
    ];
    let mut bench = Bench::new();
    for (name, edit, status, dw0) in cases {
        let mut wish = Wish::admin();
        edit(&mut wish);
        let refused = bench.connect(&wish).expect_err(name);
        assert_eq!(refused, Refused { status, dw0 }, "{name}");
    }
    assert!(bench.hub.report().is_empty());
    bench.connect(&Wish { queue_size: 127, ..Wish::admin() }).expect("the longest queue");
}

#[test]
fn a_target_is_unknown_where_it_is_not_served() {
    let mut bench = Bench::new();
    bench.change(|targets| {
        let ports =
            (4420..=4424).map(|port| Port { id: port, listen: ([0; 8], port).into(), advertise: None });
        targets.ports = ports.collect();
    });
    let listen = |bench: &mut Bench, addresses: &[&str]| {
        let listen = addresses.iter().map(|text| address(text)).collect();
        bench.change(|t| t.subsystems.get_mut(SUBSYSTEM).unwrap().listen = listen);
    };
    let connect = |bench: &mut Bench, to: &str| {
        let (connection, wish) = (bench.connection(), Wish::admin());
        bench.hub.connect(connection, address(to), &wish.sqe(), &wish.data(), bench.now).map(drop)
    };
    let unknown = Err(Refused { status: Status::CONNECT_PARAMETER, dw0: 0x1_0100 });
    listen(&mut bench, &["192.0.2.1:4421", "0.0.0.0:4422", "[::]:4423"]);
    for to in ["192.0.2.1:4421", "[::ffff:192.0.2.1]:4421", "192.0.2.7:4422", "192.0.2.7:4423", "[::1]:4423"]
    {
        assert_eq!(connect(&mut bench, to), Ok(()), "{to}");
    }
    for to in ["192.0.2.1:4420", "192.0.2.2:4421", "[2001:db8::1]:4422", "192.0.2.1:4424"] {
        assert_eq!(connect(&mut bench, to), unknown, "{to}");
    }
    assert_eq!(bench.hub.report().len(), 5);
    listen(&mut bench, &["192.0.2.1:4421"]);
    assert_eq!(bench.hub.report().len(), 2, "those elsewhere end");
    listen(&mut bench, &[]);
    assert_eq!(connect(&mut bench, "192.0.2.1:4420"), Ok(()));
}

#[test]
fn connect_data_must_be_1024_bytes() {
    let mut bench = Bench::new();
    let data = Wish::admin().data();
    for len in [0, 1, 1023, 1025, 4096] {
        let mut data = data.clone();
        data.resize(len, 0);
        let connection = bench.connection();
        let refused = bench.hub.connect(connection, local(), &Wish::admin().sqe(), &data, bench.now);
        assert_eq!(refused.unwrap_err().status, Status::DATA_SGL_LENGTH_INVALID, "{len} bytes");
    }
}

#[test]
fn controllers_have_ids_and_sessions_of_their_own() {
    let mut bench = Bench::new();
    let (_, first) = bench.connect(&Wish::admin()).unwrap();
    let (_, second) = bench.connect(&Wish::discovery()).unwrap();
    assert_eq!((first.cntlid, first.dw0, first.session), (0x100, 0x100, 1000));
    assert_eq!((second.cntlid, second.dw0, second.session), (0x101, 0x101, 1001));
    assert!(!first.discovery && second.discovery);
    assert_eq!((first.qid, first.queue_entries, first.sq_flow_control_disabled), (0, 32, false));
    let (_, third) = bench.connect(&Wish { attributes: 4, ..Wish::admin() }).unwrap();
    assert!(third.sq_flow_control_disabled);
}

#[test]
fn an_id_just_given_back_is_not_the_next_one_given() {
    let mut bench = Bench::new();
    for expected in 0x100..=0x1FF {
        let (connection, granted) = bench.connect(&Wish::admin()).unwrap();
        assert_eq!(granted.cntlid, expected);
        bench.disconnect(connection);
    }
    assert_eq!(bench.connect(&Wish::admin()).unwrap().1.cntlid, 0x100, "then from the start");
}

#[test]
fn controllers_are_bounded() {
    let mut bench = Bench::with(Limits { controllers_max: 100, ..Limits::default() }, targets());
    for _ in 0..64 {
        bench.connect(&Wish::admin()).unwrap();
    }
    assert_eq!(bench.connect(&Wish::admin()).unwrap_err().status, Status::CONNECT_BUSY, "one host's share");
    for _ in 64..100 {
        bench.connect(&Wish { host: OTHER_HOST.into(), ..Wish::admin() }).unwrap();
    }
    let refused = bench.connect(&Wish { host: OTHER_HOST.into(), ..Wish::admin() }).unwrap_err();
    assert_eq!(refused.status, Status::CONNECT_BUSY, "the node's limit");
}

#[test]
fn discovery_cannot_take_all_controllers() {
    let mut bench = Bench::with(Limits { controllers_max: 100, ..Limits::default() }, targets());
    let anybody = |number: u32| Wish { host: format!("nqn.{number}").into(), ..Wish::discovery() };
    for number in 0..50 {
        bench.connect(&anybody(number)).unwrap();
    }
    assert_eq!(bench.connect(&anybody(50)).unwrap_err().status, Status::CONNECT_BUSY);
    bench.connect(&Wish::admin()).expect("room for those who have something to do");
}

#[test]
fn event_requests_and_disconnects_leave_nothing_behind() {
    let mut bench = Bench::new();
    for _ in 0..1000 {
        let (connection, _) = bench.enabled(&Wish { keep_alive_ms: 5000, ..Wish::admin() });
        bench.hub.command(connection, &event_request(31), &[], bench.now);
        bench.disconnect(connection);
        assert_eq!(bench.closed(), []);
    }
    assert!(bench.hub.controllers.is_empty() && bench.hub.queues.is_empty() && bench.hub.timers.is_empty());
}

#[test]
fn an_io_queue_needs_its_controller() {
    type Edit = fn(&mut Wish);
    let parameter = Status::CONNECT_PARAMETER;
    let cases: [(&str, Edit, Status, u32); 10] = [
        ("no such controller", |w| w.cntlid += 1, parameter, 0x1_0010),
        ("any controller", |w| w.cntlid = 0xFFFF, parameter, 0x1_0010),
        ("another host's", |w| w.host = OTHER_HOST.into(), parameter, 0x1_0010),
        ("another host id", |w| w.host_id[0] ^= 1, parameter, 0x1_0010),
        ("another subsystem", |w| w.subsystem = DISCOVERY_NQN.into(), parameter, 0x1_0010),
        ("queue 65535", |w| w.qid = 65535, parameter, 42),
        ("queue beyond the count", |w| w.qid = 65, parameter, 42),
        ("queue of one", |w| w.queue_size = 0, parameter, 44),
        ("queue too long", |w| w.queue_size = 1024, parameter, 44),
        ("queue in use", |w| w.qid = 1, Status::COMMAND_SEQUENCE_ERROR, 0),
    ];
    let mut bench = Bench::new();
    let (_, admin) = bench.enabled(&Wish::admin());
    let (_, first) = bench.connect(&Wish::io(admin.cntlid, 1)).unwrap();
    assert_eq!((first.qid, first.queue_entries, first.session), (1, 128, admin.session));
    for (name, edit, status, dw0) in cases {
        let mut wish = Wish::io(admin.cntlid, 2);
        edit(&mut wish);
        assert_eq!(bench.connect(&wish).expect_err(name), Refused { status, dw0 }, "{name}");
    }
    assert_eq!(bench.hub.report()[0].io_queues, 1, "the victim is unharmed");
    bench.connect(&Wish { queue_size: 1023, ..Wish::io(admin.cntlid, 64) }).expect("the last queue");
}

#[test]
fn no_io_queue_without_an_enabled_controller() {
    let mut bench = Bench::new();
    let (connection, admin) = bench.connect(&Wish::admin()).unwrap();
    let wish = Wish::io(admin.cntlid, 1);
    assert_eq!(bench.connect(&wish).unwrap_err().status, Status::COMMAND_SEQUENCE_ERROR);
    bench.run(connection, &property_set(0x14, 0, u64::from(CC_ENABLE)));
    bench.connect(&wish).unwrap();
    bench.disconnect(connection);
    bench.closed();
    let dead = Refused { status: Status::CONNECT_PARAMETER, dw0: 0x1_0010 };
    assert_eq!(bench.connect(&wish).unwrap_err(), dead);
    let (_, discovery) = bench.connect(&Wish::discovery()).unwrap();
    let wish = Wish { subsystem: DISCOVERY_NQN.into(), ..Wish::io(discovery.cntlid, 1) };
    assert_eq!(bench.connect(&wish).unwrap_err(), dead);
}

#[test]
fn a_connected_queue_cannot_connect_again() {
    let mut bench = Bench::new();
    let (connection, admin) = bench.enabled(&Wish::admin());
    let wish = Wish::admin();
    let refused = bench.hub.connect(connection, local(), &wish.sqe(), &wish.data(), bench.now);
    assert_eq!(refused.unwrap_err().status, Status::COMMAND_SEQUENCE_ERROR);
    let done = bench.run_with(connection, &wish.sqe(), &wish.data());
    assert_eq!(done.status, Status::COMMAND_SEQUENCE_ERROR);
    let (io, _) = bench.connect(&Wish::io(admin.cntlid, 1)).unwrap();
    let done = bench.run_with(io, &wish.sqe(), &wish.data());
    assert_eq!(done.status, Status::COMMAND_SEQUENCE_ERROR);
}

#[test]
fn the_admin_queue_takes_its_controller_along() {
    let mut bench = Bench::new();
    let (connection, admin) = bench.enabled(&Wish::admin());
    let (first, _) = bench.connect(&Wish::io(admin.cntlid, 1)).unwrap();
    let (second, granted) = bench.connect(&Wish::io(admin.cntlid, 2)).unwrap();

    bench.disconnect(first);
    assert_eq!(bench.closed(), [], "a closed I/O queue ends alone");
    assert!(granted.shared.is_ready());
    let (first, _) = bench.connect(&Wish::io(admin.cntlid, 1)).expect("its number is free again");

    bench.disconnect(connection);
    assert_eq!(bench.closed(), [second, first], "sorted by connection");
    assert!(granted.shared.is_dead() && !granted.shared.is_ready());
    assert!(bench.hub.report().is_empty());
    bench.disconnect(first);
    assert_eq!(bench.closed(), []);
}
