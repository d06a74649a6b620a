//! Asynchronous events: of configuration changes; and what a configuration change ends.

use super::*;

const NAMESPACES: u32 = 0x04_0002;
const ANA: u32 = 0x0C_0302;
const DISCOVERY: u32 = 0x70_F002;

/// An enabled I/O controller with events on and requests 31 and 32 outstanding.
fn listening() -> (Bench, ConnectionId) {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    bench.run(connection, &set_feature(0x0B, 0x900, 0));
    request(&mut bench, connection, &[31, 32]);
    (bench, connection)
}

fn request(bench: &mut Bench, connection: ConnectionId, cids: &[u16]) {
    for &cid in cids {
        bench.hub.command(connection, &event_request(cid), &[], bench.now);
    }
}

fn events(bench: &mut Bench) -> Vec<(u16, u32)> {
    let done = std::iter::from_fn(|| bench.completion());
    done.map(|done| (done.cid, done.dw0)).collect()
}

fn grow(bench: &mut Bench, nsid: u32) {
    bench.change(|targets| {
        let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
        subsystem.namespaces.get_mut(&nsid).unwrap().volume.blocks += 1;
    });
}

fn set_ana(bench: &mut Bench, group: u32, state: AnaState) {
    bench.change(|targets| {
        targets.subsystems.get_mut(SUBSYSTEM).unwrap().ana_groups.insert(group, state);
    });
}

fn changed(bench: &mut Bench, connection: ConnectionId) -> Vec<u32> {
    let data = bench.run(connection, &log(4, 0, 4096)).data.unwrap();
    let (ids, _) = data.as_chunks::<4>();
    ids.iter().map(|id| u32::from_le_bytes(*id)).take_while(|&id| id != 0).collect()
}

#[test]
fn a_resize_is_told_once_until_its_log_is_read() {
    let (mut bench, connection) = listening();
    grow(&mut bench, 2);
    assert_eq!(events(&mut bench), [(31, NAMESPACES)]);
    grow(&mut bench, 1);
    assert_eq!(events(&mut bench), [], "the log has not been read");
    bench.run(connection, &log_retain(4, 0, 4096));
    assert_eq!(events(&mut bench), [], "RAE = 1 changes nothing");
    assert_eq!(changed(&mut bench, connection), [1, 2]);
    assert_eq!(events(&mut bench), [], "the log told all");
    assert_eq!(changed(&mut bench, connection), []);
    grow(&mut bench, 3);
    assert_eq!(events(&mut bench), [(32, NAMESPACES)]);
}

#[test]
fn an_event_waits_for_a_request() {
    let (mut bench, connection) = listening();
    grow(&mut bench, 1);
    set_ana(&mut bench, 1, AnaState::Inaccessible);
    assert_eq!(events(&mut bench), [(31, NAMESPACES), (32, ANA)]);
    changed(&mut bench, connection);
    grow(&mut bench, 2);
    assert_eq!(events(&mut bench), []);
    request(&mut bench, connection, &[33]);
    assert_eq!(events(&mut bench), [(33, NAMESPACES)]);
}

#[test]
fn a_partial_read_does_not_swallow_a_later_event() {
    let (mut bench, connection) = listening();
    set_ana(&mut bench, 1, AnaState::Change);
    assert_eq!(events(&mut bench), [(31, ANA)]);
    set_ana(&mut bench, 1, AnaState::Inaccessible);
    bench.hub.command(connection, &log(0x0C, 16, 4), &[], bench.now);
    assert_eq!(bench.completion().unwrap().cid, 77);
    assert_eq!(events(&mut bench), [(32, ANA)]);
}

#[test]
fn only_configured_events_are_told() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    request(&mut bench, connection, &[31]);
    grow(&mut bench, 1);
    bench.run(connection, &set_feature(0x0B, 0x800, 0));
    grow(&mut bench, 1);
    assert_eq!(events(&mut bench), []);
    assert_eq!(changed(&mut bench, connection), [1], "the log knows all the same");
}

#[test]
fn requests_are_bounded() {
    let mut bench = Bench::new();
    let (connection, _) = bench.enabled(&Wish::admin());
    request(&mut bench, connection, &[31, 32, 33, 34]);
    assert_eq!(events(&mut bench), []);
    for cid in 35..1000 {
        let done = bench.run(connection, &event_request(cid));
        assert_eq!(done.status, Status::AER_LIMIT);
    }
    bench.disconnect(connection);
    assert_eq!(bench.closed(), [], "requests are dropped, not completed");
}

#[test]
fn a_reset_leaves_the_requests() {
    let (mut bench, connection) = listening();
    bench.run(connection, &property_set(0x14, 0, 0));
    grow(&mut bench, 1);
    bench.run(connection, &property_set(0x14, 0, u64::from(CC_ENABLE)));
    grow(&mut bench, 1);
    assert_eq!(events(&mut bench), [], "events are off again");
    bench.run(connection, &set_feature(0x0B, 0x100, 0));
    grow(&mut bench, 1);
    assert_eq!(events(&mut bench), [(31, NAMESPACES)]);
}

#[test]
fn namespaces_that_come_and_go_are_told() {
    let (mut bench, connection) = listening();
    bench.change(|targets| {
        let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
        subsystem.namespaces.remove(&2);
        subsystem.namespaces.insert(50, namespace(50, 3));
        subsystem.namespaces.insert(5000, namespace(5000, 3));
    });
    assert_eq!(events(&mut bench), [(31, NAMESPACES), (32, ANA)]);
    assert_eq!(changed(&mut bench, connection), [2, 50], "none beyond NN");
}

#[test]
fn more_changes_than_the_log_holds() {
    let (mut bench, connection) = listening();
    for more in [1024, 1] {
        bench.change(|targets| {
            let subsystem = targets.subsystems.get_mut(SUBSYSTEM).unwrap();
            let first = *subsystem.namespaces.keys().last().unwrap() + 1;
            subsystem.namespaces.extend((first..first + more).map(|nsid| (nsid, namespace(nsid, 1))));
        });
        let data = bench.hub.controller(0x100).events.changed.page();
        assert_eq!(data.len(), if more == 1024 { 4096 } else { 4 });
    }
    events(&mut bench);
    assert_eq!(changed(&mut bench, connection), [u32::MAX]);
    assert_eq!(changed(&mut bench, connection), []);
}

#[test]
fn what_did_not_change_is_not_told() {
    let (mut bench, _) = listening();
    bench.change(|_| {});
    bench.change(|targets| {
        targets.subsystems.insert("nqn.other".into(), targets.subsystems[SUBSYSTEM].clone());
        targets.subsystems.get_mut(SUBSYSTEM).unwrap().ana_groups.insert(9, AnaState::Optimized);
    });
    assert_eq!(events(&mut bench), []);
}

#[test]
fn hosts_that_may_no_longer_connect_go_at_once() {
    let mut bench = Bench::new();
    let (first, granted) = bench.enabled(&Wish::admin());
    let (io, _) = bench.connect(&Wish::io(granted.cntlid, 1)).unwrap();
    let (other, _) = bench.enabled(&Wish { host: OTHER_HOST.into(), ..Wish::admin() });
    let (_discovery, _) = bench.enabled(&Wish::discovery());
    bench.change(|targets| {
        let access = Access::Hosts(BTreeSet::from([OTHER_HOST.to_owned()]));
        targets.subsystems.get_mut(SUBSYSTEM).unwrap().access = access;
    });
    assert_eq!(bench.closed(), [first, io]);
    assert_eq!(bench.connect(&Wish::admin()).unwrap_err().status, Status::CONNECT_HOST);
    bench.change(|targets| targets.subsystems.clear());
    assert_eq!(bench.closed(), [other]);
    assert_eq!(bench.hub.report().len(), 1, "discovery stays");
}

#[test]
fn discovery_changes_are_told_to_whom_they_concern() {
    let mut bench = Bench::new();
    let mut discovery = |host: &str| {
        let wish = Wish { host: host.into(), keep_alive_ms: 30_000, ..Wish::discovery() };
        let (connection, _) = bench.enabled(&wish);
        bench.run(connection, &set_feature(0x0B, 1 << 31, 0));
        request(&mut bench, connection, &[31, 32]);
        connection
    };
    let (first, second) = (discovery(HOST), discovery("nqn.stranger"));
    let concerned = |bench: &mut Bench| {
        let done: Vec<_> = std::iter::from_fn(|| bench.completion()).collect();
        assert!(done.iter().all(|done| done.dw0 == DISCOVERY));
        done.into_iter().map(|done| done.connection).collect::<Vec<_>>()
    };
    grow(&mut bench, 1);
    assert_eq!(concerned(&mut bench), [], "a size is not in the log");
    bench.change(|targets| {
        let access = Access::Hosts(BTreeSet::from([OTHER_HOST.to_owned()]));
        targets.subsystems.get_mut(SUBSYSTEM).unwrap().access = access;
    });
    assert_eq!(concerned(&mut bench), [first]);
    bench.change(|targets| targets.referrals.push(address("198.51.100.1:8009")));
    assert_eq!(concerned(&mut bench), [second], "the first has not read its log yet");
    let done = bench.run(first, &log(0x70, 0, 4096));
    assert_eq!(done.status, Status::SUCCESS);
    assert_eq!(concerned(&mut bench), [], "what it read told both changes");
}
