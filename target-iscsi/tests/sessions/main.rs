//! Sessions and what goes on between them: the whole server on two reactors in the simulator. Rows of the list of hostile
//! inputs have their number in their name.

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../common/bytes.rs"]
mod bytes;
#[path = "../sim/node.rs"]
mod node;
mod raw;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::units::BlockSize;
use ashlar_env::{Clock, Env, Stream};
use ashlar_iscsi::limits::Limits;
use ashlar_iscsi::login::chap::Algorithm;
use ashlar_iscsi::view::{Access, Credentials, Host, Secret, Targets};
use ashlar_iscsi::wire::opcode;
use ashlar_iscsi::wire::request::{ScsiCommand, function};
use ashlar_iscsi::wire::response::Async;
use ashlar_iscsi::wire::text;
use ashlar_sim::conformance::sleep;
use ashlar_sim::{Control, DiskGeometry, NodeId, Profile, Sim, SimEnv};

use node::{Life, PORT, Service, TARGET};
use raw::Raw;

/// What a test works with.
struct Arena {
    env: SimEnv,
    control: Control,
    service: Service,
    life: Life,
    address: SocketAddr,
}

impl Arena {
    async fn log_in(&self, name: &str, isid: u8) -> Raw {
        Raw::log_in(&self.env, self.address, name, isid).await
    }

    async fn connect(&self) -> Raw {
        Raw::connect(&self.env, self.address).await
    }

    async fn pause(&self, seconds: u64) {
        sleep(&self.env, Duration::from_secs(seconds)).await;
    }

    fn sessions(&self) -> usize {
        self.life.servers[0].sessions().len()
    }

    fn connections(&self) -> usize {
        self.life.servers.iter().map(|server| server.connections()).sum()
    }

    fn buffers_held(&self) -> usize {
        let all: usize = Profile::calm().pool.limits.iter().sum();
        (0..2).map(|n| all - self.control.env(self.service.node, n).buffers().free_count()).sum()
    }

    fn set_access(&self, access: Option<Access>) {
        let mut targets: Targets = self.service.targets(&self.life);
        match access {
            Some(access) => targets.targets.get_mut(TARGET).expect("the target").access = access,
            None => targets.targets.clear(),
        }
        self.life.set_targets(&Arc::new(targets));
    }
}

fn run<F: Future<Output = ()> + 'static>(access: Access, test: impl FnOnce(Arena) -> F + 'static) {
    let sim = Sim::new(1, Profile::calm());
    let disk = sim.disk("disk", DiskGeometry::of_bytes(1 << 20));
    let node: NodeId = sim.node("node", 2);
    let limits = Limits { unauthenticated_per_address_max: 40, sessions_max: 8, ..Limits::default() };
    let service = Service { node, disk, block: BlockSize::B512, home: 1, limits, access };
    let host = sim.node("host", 1);
    let life = service.start(&sim, 0);
    let control = sim.control();
    let ended = Rc::new(Cell::new(false));
    let seen = Rc::clone(&ended);
    sim.goal_on(host, 0, move |env| async move {
        let address = SocketAddr::new(node.ip(0), PORT);
        test(Arena { env, control, service, life, address }).await;
        seen.set(true);
    });
    sim.run().expect("a test without faults");
    assert!(ended.get());
}

fn with_chap() -> Access {
    let chap = Some(Credentials { user: "a".into(), secret: Secret::new(b"secret-of-host-a") });
    Access::Hosts(BTreeMap::from([("iqn.a".into(), Host { chap, mutual: None })]))
}

/// Logs `iqn.a` in by CHAP; with another secret, the status.
async fn authenticate(raw: &mut Raw, secret: &[u8]) -> u16 {
    let keys = format!("InitiatorName=iqn.a TargetName={TARGET} AuthMethod=CHAP");
    assert_eq!(raw.login(0, 0, &keys).await.expect("an answer").0, 0);
    let (_, answer) = raw.login(0, 0, "CHAP_A=7").await.expect("a challenge");
    let value = |key: &str| answer.split(' ').find_map(|pair| pair.strip_prefix(key)).expect("its key");
    let challenge = text::binary(value("CHAP_C="), 32).expect("a challenge");
    let id = value("CHAP_I=").parse().expect("a number");
    let response = text::to_hex(&Algorithm::Sha256.respond(id, secret, &challenge));
    raw.login(0x83, 0, &format!("CHAP_N=a CHAP_R={response}")).await.expect("an answer").0
}

#[test]
fn i07_a_victims_session_without_its_secret() {
    run(with_chap(), |arena| async move {
        let mut victim = arena.connect().await;
        assert_eq!(authenticate(&mut victim, b"secret-of-host-a").await, 0);
        while victim.test_unit_ready().await != (0, 0) {}
        let mut thief = arena.connect().await;
        let before = arena.env.now();
        assert_eq!(authenticate(&mut thief, b"secret-of-host-b").await, 0x0201);
        assert!(arena.env.now().since(before) >= Duration::from_secs(1), "guesses are slow");
        let mut thief = arena.connect().await;
        let keys = format!("InitiatorName=iqn.a TargetName={TARGET}");
        assert_eq!(thief.login(0x87, 0, &keys).await.expect("an answer").0, 0x0201);
        assert_eq!(victim.test_unit_ready().await, (0, 0));
        assert_eq!(arena.sessions(), 1);
    });
}

#[test]
fn a_login_of_the_same_name_takes_the_sessions_place() {
    run(Access::AnyHost, |arena| async move {
        let mut old = arena.log_in("iqn.a", 1).await;
        let mut other = arena.log_in("iqn.a", 2).await;
        let r2t = old.begin_write(5).await;
        old.data(&r2t, &[7; 256], false).await;
        let mut new = arena.log_in("iqn.a", 1).await;
        let message: Async = old.take(opcode::ASYNC).await.header();
        assert_eq!(message.event, 3);
        assert!(old.receive().await.is_none());
        assert_eq!(new.read().await, [0; 512], "the old session's write was cut off");
        assert_eq!(other.test_unit_ready().await, (0, 0), "another ISID is another session");
        assert_eq!(arena.sessions(), 2);
        arena.pause(10).await;
        assert_eq!((arena.connections(), arena.buffers_held()), (2, 0));
    });
}

#[test]
fn i26_half_open_logins_and_more_connections_than_there_may_be() {
    run(Access::AnyHost, |arena| async move {
        let mut witness = arena.log_in("iqn.a", 1).await;
        let mut open = Vec::new();
        for n in 0..1000 {
            let mut raw = arena.connect().await;
            if n % 2 == 0 {
                raw.send(&[0x43_u8; 20], &[]).await;
            }
            open.push(raw);
            if n % 100 == 0 {
                assert_eq!(witness.test_unit_ready().await, (0, 0));
            }
        }
        arena.pause(1).await;
        assert!(arena.connections() <= 41, "no more than the limit: {}", arena.connections());
        arena.pause(21).await;
        assert_eq!(arena.connections(), 1, "the timer of login");
        assert_eq!(witness.test_unit_ready().await, (0, 0));
        // A second connection of a session, and one of a session that is not there.
        let keys = format!("InitiatorName=iqn.a TargetName={TARGET}");
        for (tsih, expected) in [(1, 0x0206), (77, 0x020A)] {
            let mut more = arena.connect().await;
            more.isid[5] = 1;
            assert_eq!(more.login(0x87, tsih, &keys).await.expect("an answer").0, expected);
        }
        assert_eq!(witness.test_unit_ready().await, (0, 0));
        let mut all = Vec::new();
        for isid in 2..=8 {
            all.push(arena.log_in("iqn.b", isid).await);
        }
        let mut more = arena.connect().await;
        let keys = format!("InitiatorName=iqn.c TargetName={TARGET}");
        assert_eq!(more.login(0x87, 0, &keys).await.expect("an answer").0, 0x0302);
    });
}

#[test]
fn i17d_a_reset_ends_what_others_have_begun() {
    for (which, asc) in [(function::LOGICAL_UNIT_RESET, 0x2903), (function::TARGET_WARM_RESET, 0x2900)] {
        run(Access::AnyHost, move |arena| async move {
            let mut one = arena.log_in("iqn.a", 1).await;
            let mut other = arena.log_in("iqn.b", 1).await;
            let r2t = other.begin_write(5).await;
            let own = one.begin_write(6).await;
            assert_eq!(one.manage(which).await, 0);
            assert_eq!(other.status().await.0, 0x40, "TASK ABORTED");
            other.data(&r2t, &[7; 512], true).await;
            one.data(&own, &[8; 512], true).await;
            for nexus in [&mut one, &mut other] {
                assert_eq!(nexus.test_unit_ready().await, (2, asc));
            }
            assert_eq!(one.read().await, [0; 512]);
            assert_eq!(other.read().await, [0; 512]);
            assert_eq!(arena.buffers_held(), 0);
        });
    }
}

#[test]
fn a_reset_does_not_wait_for_one_that_takes_nothing() {
    run(Access::AnyHost, |arena| async move {
        let mut one = arena.log_in("iqn.a", 1).await;
        let mut slow = arena.log_in("iqn.b", 1).await;
        for tag in 10..60 {
            slow.command(tag, ScsiCommand::READ, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0], 1 << 20).await;
        }
        arena.pause(1).await;
        let before = arena.env.now();
        assert_eq!(one.manage(function::LOGICAL_UNIT_RESET).await, 0);
        assert!(arena.env.now().since(before) < Duration::from_secs(1));
        // Some had begun, and come whole; the others are aborted.
        let (mut read, mut aborted) = (0, 0);
        while read + aborted < 50 {
            let received = slow.receive().await.expect("a response");
            match received.bhs.kind() {
                opcode::DATA_IN => read += usize::from(received.bhs.flags & 1),
                _ => {
                    assert_eq!(received.bhs.specific[1], 0x40);
                    aborted += 1;
                }
            }
        }
        assert!(read > 0 && aborted > 0, "{read} {aborted}");
    });
}

#[test]
fn ordered_commands_wait_for_those_before_and_hold_those_behind() {
    run(Access::AnyHost, |arena| async move {
        let mut raw = arena.log_in("iqn.a", 1).await;
        let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        // Attributes: 1 simple, 2 ordered, 3 head of queue. Tags in the order of their ends.
        for round in 0..20 {
            for (tag, attribute) in [(10, 1), (11, 2), (12, 1), (13, 2), (14, 3)] {
                raw.command_with(tag + round * 10, ScsiCommand::READ | attribute, &read, 512).await;
            }
            let mut ends = Vec::new();
            while ends.len() < 5 {
                ends.push(raw.take(opcode::DATA_IN).await.bhs.itt.get() - round * 10);
            }
            ends.retain(|tag| *tag != 14);
            assert_eq!(ends, [10, 11, 12, 13]);
        }
    });
}

#[test]
fn a_cold_reset_ends_all_sessions() {
    run(Access::AnyHost, |arena| async move {
        let mut one = arena.log_in("iqn.a", 1).await;
        let mut other = arena.log_in("iqn.b", 1).await;
        assert_eq!(one.manage(function::TARGET_COLD_RESET).await, 0);
        for raw in [&mut one, &mut other] {
            raw.take(opcode::ASYNC).await;
            assert!(raw.receive().await.is_none());
        }
        arena.pause(6).await;
        assert_eq!((arena.sessions(), arena.connections()), (0, 0));
    });
}

#[test]
fn functions_for_units_that_are_not_there() {
    run(Access::AnyHost, |arena| async move {
        let mut one = arena.log_in("iqn.a", 1).await;
        let mut targets = arena.service.targets(&arena.life);
        targets.targets.get_mut(TARGET).expect("the target").units.clear();
        arena.life.set_targets(&Arc::new(targets));
        arena.pause(1).await;
        assert_eq!(one.manage(function::LOGICAL_UNIT_RESET).await, 2);
        assert_eq!(one.manage(function::ABORT_TASK_SET).await, 2);
    });
}

#[test]
fn sessions_end_with_their_right_to_be_there() {
    run(Access::AnyHost, |arena| async move {
        let mut one = arena.log_in("iqn.a", 1).await;
        let mut other = arena.log_in("iqn.b", 1).await;
        let hosts = BTreeMap::from([("iqn.b".to_owned(), Host::default())]);
        arena.set_access(Some(Access::Hosts(hosts)));
        one.take(opcode::ASYNC).await;
        assert!(one.receive().await.is_none());
        assert_eq!(other.test_unit_ready().await, (0, 0));
        let mut again = arena.connect().await;
        let keys = format!("InitiatorName=iqn.a TargetName={TARGET}");
        assert_eq!(again.login(0x87, 0, &keys).await.expect("an answer").0, 0x0202);
        arena.set_access(None);
        other.take(opcode::ASYNC).await;
        assert!(other.receive().await.is_none());
        arena.pause(6).await;
        assert_eq!((arena.sessions(), arena.connections()), (0, 0));
    });
}

#[test]
fn a_node_that_stops_says_so() {
    run(Access::AnyHost, |arena| async move {
        let mut one = arena.log_in("iqn.a", 1).await;
        arena.life.servers.iter().for_each(|server| server.drain());
        let message: Async = one.take(opcode::ASYNC).await.header();
        assert_eq!((message.event, message.parameter3.get()), (1, 2));
        assert_eq!(one.test_unit_ready().await, (0, 0), "it goes on until it has logged out");
        one.take(opcode::ASYNC).await;
        assert!(one.receive().await.is_none());
        arena.pause(6).await;
        assert_eq!(arena.connections(), 0);
    });
}

#[test]
fn i18c_connections_that_break_amid_data() {
    run(Access::AnyHost, |arena| async move {
        let mut witness = arena.log_in("iqn.w", 1).await;
        for n in 0..50 {
            let mut raw = arena.log_in("iqn.a", 1).await;
            let r2t = raw.begin_write(5).await;
            raw.data(&r2t, &vec![9; n * 10], false).await;
            raw.stream.shutdown();
        }
        arena.pause(31).await;
        assert_eq!((arena.connections(), arena.sessions(), arena.buffers_held()), (1, 1, 0));
        assert_eq!(witness.read().await, [0; 512]);
    });
}

#[test]
fn what_reserve_reserved_is_free_when_the_session_ends() {
    run(Access::AnyHost, |arena| async move {
        let mut one = arena.log_in("iqn.a", 1).await;
        let mut other = arena.log_in("iqn.b", 1).await;
        one.command(3, 0, &[0x16, 0, 0, 0, 0, 0], 0).await;
        assert_eq!(one.status().await.0, 0);
        other.command(3, ScsiCommand::READ, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512).await;
        assert_eq!(other.status().await.0, 0x18);
        one.stream.shutdown();
        arena.pause(6).await;
        assert_eq!(other.read().await.len(), 512);
    });
}

#[test]
fn an_initiator_that_takes_nothing_holds_no_more_than_its_share() {
    run(Access::AnyHost, |arena| async move {
        let mut witness = arena.log_in("iqn.w", 1).await;
        let mut slow = arena.log_in("iqn.a", 1).await;
        for tag in 0..100 {
            // 1 MiB each.
            slow.command(tag, ScsiCommand::READ, &[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0], 1 << 20).await;
        }
        for _ in 0..10 {
            arena.pause(1).await;
            assert!(arena.buffers_held() <= 8, "{}", arena.buffers_held());
            assert_eq!(witness.test_unit_ready().await, (0, 0));
        }
        arena.pause(60).await;
        assert_eq!((arena.connections(), arena.buffers_held()), (1, 0), "it is given up");
    });
}
