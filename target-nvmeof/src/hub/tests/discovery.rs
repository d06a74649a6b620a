//! The discovery log.

use super::*;

/// Subtype, family, port id, service, NQN, address.
type Record = (u8, u8, u16, String, String, String);

/// Parses the log as a host would: the generation and the records.
fn read(bench: &mut Bench, connection: ConnectionId) -> (u64, Vec<Record>) {
    let data = bench.run(connection, &log(0x70, 0, 64 << 10)).data.unwrap();
    let generation = u64::from_le_bytes(data[..8].try_into().unwrap());
    let count = u64::from_le_bytes(data[8..16].try_into().unwrap()) as usize;
    assert_eq!(data[16..1024], [0; 1008], "RECFMT and reserved");
    let text =
        |field: &[u8]| String::from_utf8(field.to_vec()).unwrap().trim_end_matches([' ', '\0']).to_owned();
    let record = |index: usize| {
        let r = &data[1024 * (index + 1)..][..1024];
        assert_eq!((r[0], r[3], &r[6..8], &r[8..10]), (3, 4, &[0xFF, 0xFF][..], &[128, 0][..]));
        assert_eq!(r[768..], [0; 256], "SECTYPE 0");
        let port = u16::from_le_bytes([r[4], r[5]]);
        (r[2], r[1], port, text(&r[32..64]), text(&r[256..512]), text(&r[512..768]))
    };
    assert!(data[1024 * (count + 1)..].iter().all(|&byte| byte == 0));
    (generation, (0..count).map(record).collect())
}

fn record(subtype: u8, port: u16, service: &str, nqn: &str, address: &str) -> Record {
    let family = if address.contains(':') { 2 } else { 1 };
    (subtype, family, port, service.into(), nqn.into(), address.into())
}

fn discover(bench: &mut Bench, host: &str, to: &str) -> ConnectionId {
    let wish = Wish { host: host.into(), ..Wish::discovery() };
    let connection = bench.connection();
    bench.hub.connect(connection, address(to), &wish.sqe(), &wish.data(), bench.now).unwrap();
    bench.run(connection, &property_set(0x14, 0, u64::from(CC_ENABLE)));
    connection
}

#[test]
fn a_wildcard_shows_the_address_the_host_came_by() {
    let mut bench = Bench::new();
    let connection = discover(&mut bench, HOST, "192.0.2.1:4420");
    let (_, records) = read(&mut bench, connection);
    assert_eq!(
        records,
        [record(2, 7, "4420", SUBSYSTEM, "192.0.2.1"), record(3, 7, "4420", DISCOVERY_NQN, "192.0.2.1"),]
    );
    let connection = discover(&mut bench, HOST, "[::ffff:192.0.2.9]:4420");
    assert_eq!(read(&mut bench, connection).1[0], record(2, 7, "4420", SUBSYSTEM, "192.0.2.9"));
}

#[test]
fn strangers_see_no_subsystem() {
    let mut bench = Bench::new();
    let connection = discover(&mut bench, "nqn.stranger", "192.0.2.1:4420");
    let (_, records) = read(&mut bench, connection);
    assert_eq!(records, [record(3, 7, "4420", DISCOVERY_NQN, "192.0.2.1")]);
}

#[test]
fn ports_are_shown_as_hosts_reach_them() {
    let mut targets = targets();
    targets.ports = vec![
        Port { id: 1, listen: address("0.0.0.0:8009"), advertise: None },
        Port { id: 2, listen: address("127.0.0.1:4420"), advertise: None },
        Port { id: 3, listen: address("192.0.2.1:4420"), advertise: None },
        Port { id: 4, listen: address("10.0.0.1:4421"), advertise: Some(address("203.0.113.5:4499")) },
        Port { id: 5, listen: address("[2001:db8::1]:4420"), advertise: None },
        Port { id: 6, listen: address("[::]:4430"), advertise: None },
    ];
    targets.referrals = vec![address("198.51.100.7:8009")];
    let mut bench = Bench::with(Limits::default(), targets);

    let connection = discover(&mut bench, HOST, "192.0.2.1:8009");
    assert_eq!(
        read(&mut bench, connection).1,
        [
            record(2, 3, "4420", SUBSYSTEM, "192.0.2.1"),
            record(2, 4, "4499", SUBSYSTEM, "203.0.113.5"),
            record(2, 5, "4420", SUBSYSTEM, "2001:db8::1"),
            record(1, 0, "8009", DISCOVERY_NQN, "198.51.100.7"),
            record(3, 1, "8009", DISCOVERY_NQN, "192.0.2.1"),
        ]
    );
    let connection = discover(&mut bench, HOST, "127.0.0.1:8009");
    let ids: Vec<u16> = read(&mut bench, connection).1.iter().map(|record| record.2).collect();
    assert_eq!(ids, [2, 3, 4, 5, 0, 1], "who came by loopback reaches loopback");
    let connection = discover(&mut bench, HOST, "[2001:db8::1]:4430");
    let ids: Vec<u16> = read(&mut bench, connection).1.iter().map(|record| record.2).collect();
    assert_eq!(ids, [3, 4, 5, 6, 0, 6]);
}

#[test]
fn a_target_is_shown_only_where_it_is_served() {
    let mut targets = targets();
    targets.ports = vec![
        Port { id: 1, listen: address("0.0.0.0:4420"), advertise: None },
        Port { id: 2, listen: address("192.0.2.1:4421"), advertise: None },
        Port { id: 3, listen: address("0.0.0.0:4422"), advertise: Some(address("203.0.113.5:4499")) },
    ];
    let mut bench = Bench::with(Limits::default(), targets);
    let connection = discover(&mut bench, HOST, "192.0.2.1:4420");
    let mut shown = |listen: &[&str]| {
        let listen = listen.iter().map(|text| address(text)).collect();
        bench.change(|t| t.subsystems.get_mut(SUBSYSTEM).unwrap().listen = listen);
        let records = read(&mut bench, connection).1;
        let of_it = records.into_iter().filter(|record| record.0 == 2);
        of_it
            .map(|(_, _, port, service, _, address)| (port, format!("{address}:{service}")))
            .collect::<Vec<_>>()
    };
    let own = |port, address: &str| (port, address.to_owned());
    assert_eq!(shown(&[]).len(), 3);
    assert_eq!(shown(&["192.0.2.1:4421"]), [own(2, "192.0.2.1:4421")]);
    assert_eq!(shown(&["0.0.0.0:4420"]), [own(1, "192.0.2.1:4420")]);
    assert_eq!(
        shown(&["192.0.2.7:4420", "192.0.2.8:4420", "127.0.0.1:4420"]),
        [own(1, "192.0.2.7:4420"), own(1, "192.0.2.8:4420")],
        "of a port on all addresses those of the target, and loopback to loopback only"
    );
    assert_eq!(shown(&["192.0.2.1:4422", "192.0.2.2:4422"]), [own(3, "203.0.113.5:4499")]);
    assert_eq!(shown(&["192.0.2.9:4421", "192.0.2.1:5555"]), []);
}

#[test]
fn a_lone_discovery_port_serves_io_too() {
    let mut targets = targets();
    targets.ports = vec![Port { id: 1, listen: address("0.0.0.0:8009"), advertise: None }];
    let mut bench = Bench::with(Limits::default(), targets);
    let connection = discover(&mut bench, HOST, "192.0.2.1:8009");
    assert_eq!(read(&mut bench, connection).1[0], record(2, 1, "8009", SUBSYSTEM, "192.0.2.1"));
}

#[test]
fn an_address_that_is_no_port_is_for_discovery_only() {
    let mut bench = Bench::new();
    let everybody = Access::AnyHost;
    bench.change(|targets| targets.subsystems.get_mut(SUBSYSTEM).unwrap().access = everybody);
    discover(&mut bench, HOST, "192.0.2.1:8009");
    for (to, served) in [("192.0.2.1:4420", true), ("192.0.2.1:8009", false)] {
        let wish = Wish::admin();
        let connection = bench.connection();
        let connected = bench.hub.connect(connection, address(to), &wish.sqe(), &wish.data(), bench.now);
        // What is not served there is answered like what does not exist: the offset of SUBNQN in the data.
        assert_eq!(connected.err().map(|refused| refused.dw0), (!served).then_some(1 << 16 | 256), "{to}");
    }
}

#[test]
fn the_generation_rises_with_what_any_host_may_see() {
    let mut bench = Bench::new();
    let connection = discover(&mut bench, HOST, "192.0.2.1:4420");
    let mut last = read(&mut bench, connection).0;
    assert!(last >= 1000, "above those before a restart");
    let mut rises = |bench: &mut Bench, edit: fn(&mut Targets)| {
        bench.change(edit);
        let now = read(bench, connection).0;
        let risen = now > last;
        last = now;
        risen
    };
    assert!(!rises(&mut bench, |_| {}));
    assert!(rises(&mut bench, |t| t.referrals.push(address("198.51.100.7:8009"))));
    assert!(rises(&mut bench, |t| t.ports[0].id = 8));
    assert!(rises(&mut bench, |t| t.subsystems.get_mut(SUBSYSTEM).unwrap().access = Access::AnyHost));
    assert!(rises(&mut bench, |t| {
        t.subsystems.get_mut(SUBSYSTEM).unwrap().listen.insert(local());
    }));
    assert!(!rises(&mut bench, |t| t.subsystems.get_mut(SUBSYSTEM).unwrap().namespaces.clear()));
    assert!(rises(&mut bench, |t| t.subsystems.clear()));
}

#[test]
fn any_window_shows_the_same_bytes() {
    let mut targets = targets();
    for number in 0..5 {
        let subsystem = targets.subsystems[SUBSYSTEM].clone();
        targets.subsystems.insert(format!("nqn.2026-11.io.ashlar:n{number}"), subsystem);
    }
    let mut bench = Bench::with(Limits::default(), targets);
    let connection = discover(&mut bench, HOST, "192.0.2.1:4420");
    let whole = bench.run(connection, &log(0x70, 0, 16 << 10)).data.unwrap();
    assert!(whole[8..16] == 7_u64.to_le_bytes());
    for offset in (0..8192).step_by(252) {
        for len in [4, 1024, 1020, 3000] {
            let part = bench.run(connection, &log(0x70, offset as u64, len)).data.unwrap();
            assert_eq!(*part, whole[offset..offset + len as usize], "{len} at {offset}");
        }
    }
    assert_eq!(*bench.run(connection, &log(0x70, 8192, 8)).data.unwrap(), [0; 8], "the end itself");
    for offset in [8196, u64::MAX - 3, 1 << 63, 2, 1023] {
        assert_eq!(
            bench.run(connection, &log(0x70, offset, 1024)).status,
            Status::INVALID_FIELD,
            "{offset:X}"
        );
    }
}
