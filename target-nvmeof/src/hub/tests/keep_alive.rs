//! The keep-alive timer and idle controllers.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn with_timeout(timeout_ms: u32) -> (Bench, ConnectionId, Arc<Granted>) {
    let mut bench = Bench::new();
    let (connection, granted) = bench.enabled(&Wish { keep_alive_ms: timeout_ms, ..Wish::admin() });
    (bench, connection, granted)
}

/// Ticks whenever the hub asks to, until `time` has passed.
fn idle(bench: &mut Bench, time: Duration) {
    let end = bench.now.plus(time);
    while bench.hub.next_deadline() <= end {
        bench.now = bench.hub.next_deadline().max(bench.now);
        bench.hub.tick(bench.now);
    }
    bench.now = end;
}

#[test]
fn a_silent_host_is_given_up_with_all_its_queues() {
    let (mut bench, connection, granted) = with_timeout(5000);
    let (io, _) = bench.connect(&Wish::io(granted.cntlid, 1)).unwrap();
    idle(&mut bench, 4 * SECOND);
    assert_eq!(bench.closed(), []);
    idle(&mut bench, 2 * SECOND);
    assert_eq!(bench.closed(), [connection, io]);
    assert!(granted.shared.is_dead());
    assert_eq!(bench.hub.next_deadline(), Instant::FAR_FUTURE, "no timer is left");
}

#[test]
fn commands_and_traffic_keep_a_host_alive() {
    let (mut bench, connection, granted) = with_timeout(5000);
    for _ in 0..10 {
        idle(&mut bench, 4 * SECOND);
        assert_eq!(bench.run(connection, &admin_command(admin::KEEP_ALIVE)).status, Status::SUCCESS);
    }
    for _ in 0..10 {
        idle(&mut bench, 4 * SECOND);
        granted.shared.note_traffic();
    }
    assert_eq!(bench.closed(), []);
    idle(&mut bench, 11 * SECOND);
    assert_eq!(bench.closed(), [connection], "within two timeouts of the last command");
}

#[test]
fn the_timeout_is_rounded_up_and_cut() {
    for (asked, granted) in
        [(0, 0), (1, 1000), (999, 1000), (1000, 1000), (1001, 2000), (u32::MAX, 86_400_000)]
    {
        let (bench, ..) = with_timeout(asked);
        assert_eq!(bench.hub.report()[0].keep_alive_ms, granted, "{asked}");
    }
}

#[test]
fn without_a_timeout_keep_alive_is_invalid_and_patience_endless() {
    let (mut bench, connection, _) = with_timeout(0);
    let done = bench.run(connection, &admin_command(admin::KEEP_ALIVE));
    assert_eq!(done.status, Status::KEEP_ALIVE_INVALID);
    idle(&mut bench, 100_000 * SECOND);
    assert_eq!(bench.closed(), []);
}

#[test]
fn a_timeout_may_change_while_it_runs() {
    let (mut bench, connection, _) = with_timeout(5000);
    bench.run(connection, &set_feature(0x0F, 0, 0));
    idle(&mut bench, 1000 * SECOND);
    assert_eq!(bench.closed(), []);
    bench.run(connection, &set_feature(0x0F, 60_000, 0));
    bench.run(connection, &set_feature(0x0F, 2000, 0));
    idle(&mut bench, 3 * SECOND);
    assert_eq!(bench.closed(), [connection]);
}

#[test]
fn idle_controllers_of_no_use_end() {
    let mut bench = Bench::new();
    let (discovery, _) = bench.enabled(&Wish::discovery());
    let (persistent, _) = bench.enabled(&Wish { keep_alive_ms: 300_000, ..Wish::discovery() });
    let (never_enabled, _) = bench.connect(&Wish::admin()).unwrap();
    let (_in_use, _) = bench.enabled(&Wish::admin());
    idle(&mut bench, 119 * SECOND);
    assert_eq!(bench.closed(), []);
    idle(&mut bench, 2 * SECOND);
    assert_eq!(bench.closed(), [discovery, never_enabled]);
    idle(&mut bench, 200 * SECOND);
    assert_eq!(bench.closed(), [persistent]);
}

#[test]
fn hosts_are_spared_once_when_the_node_stood_still() {
    let (mut bench, connection, _) = with_timeout(5000);
    bench.pass(60 * SECOND);
    bench.hub.tick(bench.now);
    assert_eq!(bench.closed(), [], "the node slept, not the host");
    bench.pass(60 * SECOND);
    bench.hub.tick(bench.now);
    assert_eq!(bench.closed(), [connection], "twice is enough");
}
