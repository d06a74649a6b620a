//! Random sequences of everything that can happen to a hub: it never panics, completes every command once
//! (events at most once), never speaks to a connection it closed, and holds no more than its bounds.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_env::reservation::{HostId, Notice, NoticeKind};
use ashlar_env::volume::Outcome;
use proptest::prelude::*;

use super::*;
use crate::hub::{IoError, QueueKind, data_plan};
use crate::limits::AERS_MAX;
use crate::transport::Transfer;

#[derive(Clone, Debug)]
enum Step {
    Connect { discovery: bool, host: bool, qid: u16, timeout_ms: u32, raw: Option<Vec<u8>> },
    Enable { which: usize },
    Command { which: usize, raw: [u8; 64], sound: bool },
    Known { which: usize, choice: usize, nsid: u32 },
    Disconnect { which: usize },
    Pass { milliseconds: u64 },
    Retarget { choice: u8, nsid: u32 },
    Notice { nsid: u32 },
    Reserved { good: bool },
    IoError { which: usize },
}

fn raw_command() -> impl Strategy<Value = [u8; 64]> {
    let opcode = prop_oneof![
        Just(0x7F),
        Just(0x02),
        Just(0x06),
        Just(0x08),
        Just(0x09),
        Just(0x0A),
        Just(0x0C),
        Just(0x18),
        any::<u8>()
    ];
    (opcode, any::<[u8; 32]>(), any::<[u8; 24]>(), 0_u8..10).prop_map(|(opcode, head, tail, small)| {
        let mut raw = [0; 64];
        raw[8..40].copy_from_slice(&head);
        raw[40..].copy_from_slice(&tail);
        raw[0] = opcode;
        raw[1] = 0x40;
        raw[4] = small;
        raw
    })
}

fn step() -> impl Strategy<Value = Step> {
    let which = || any::<usize>();
    prop_oneof![
        3 => (any::<bool>(), any::<bool>(), 0_u16..4, prop_oneof![Just(0), any::<u32>(), 1..5000_u32],
              proptest::option::weighted(0.1, proptest::collection::vec(any::<u8>(), 0..1100)))
            .prop_map(|(discovery, host, qid, timeout_ms, raw)| Step::Connect { discovery, host, qid, timeout_ms, raw }),
        3 => which().prop_map(|which| Step::Enable { which }),
        4 => (which(), raw_command(), any::<bool>())
            .prop_map(|(which, raw, sound)| Step::Command { which, raw, sound }),
        8 => (which(), any::<usize>(), 0_u32..6).prop_map(|(which, choice, nsid)| Step::Known { which, choice, nsid }),
        1 => which().prop_map(|which| Step::Disconnect { which }),
        1 => (0_u64..20_000).prop_map(|milliseconds| Step::Pass { milliseconds }),
        1 => (any::<u8>(), 1_u32..6).prop_map(|(choice, nsid)| Step::Retarget { choice, nsid }),
        1 => (1_u32..6).prop_map(|nsid| Step::Notice { nsid }),
        2 => any::<bool>().prop_map(|good| Step::Reserved { good }),
        1 => which().prop_map(|which| Step::IoError { which }),
    ]
}

/// Commands a real host sends.
fn known(choice: usize, nsid: u32) -> Sqe {
    let commands = [
        event_request(0),
        event_request(0),
        identify(1, 0),
        identify(0, nsid),
        identify(2, nsid),
        identify(3, nsid),
        log(0x70, 0, 4096),
        log(0x0C, 0, 4096),
        log(4, 0, 4096),
        log(0x80, 0, 64),
        log(2, 0, 512),
        log_retain(1, 64, 64),
        set_feature(0x0B, 0x900, 0),
        set_feature(0x0B, 1 << 31, 0),
        set_feature(0x07, nsid << 16 | nsid, 0),
        set_feature(0x0F, nsid * 1000, 0),
        Sqe { nsid: nsid.into(), ..set_feature(0x82, nsid, 0) },
        Sqe { nsid: nsid.into(), ..set_feature(0x83, nsid, 0) },
        Sqe { nsid: nsid.into(), ..get_feature(0x83, 0, 0) },
        get_feature(0x0E, 0, 8),
        admin_command(admin::KEEP_ALIVE),
        admin_command(admin::ABORT),
        property_get(0x1C, 0),
        property_set(0x14, 0, 0),
        property_set(0x14, 0, u64::from(CC_ENABLE | 1 << 14)),
    ];
    commands[choice % commands.len()]
}

/// What the test knows of a connection.
#[derive(Default)]
struct Peer {
    /// Commands outstanding, and whether they are event requests.
    outstanding: BTreeMap<u16, bool>,
    cid_next: u16,
}

struct World {
    bench: Bench,
    peers: BTreeMap<ConnectionId, Peer>,
    closed: BTreeSet<ConnectionId>,
    /// Reservation actions not answered yet.
    reserving: Vec<(ConnectionId, u16)>,
}

impl World {
    fn pick(&self, which: usize) -> Option<ConnectionId> {
        let count = self.peers.len();
        (count > 0).then(|| *self.peers.keys().nth(which % count).expect("below the count"))
    }

    fn command(&mut self, connection: ConnectionId, mut sqe: Sqe) {
        let peer = self.peers.get_mut(&connection).expect("a peer");
        peer.cid_next += 1;
        let cid = peer.cid_next;
        sqe.cid = cid.into();
        peer.outstanding.insert(cid, sqe.opcode == admin::ASYNC_EVENT);
        let limits = Limits::default();
        let plan = data_plan(&sqe, QueueKind::Admin, &limits);
        let data = match plan {
            Ok(Transfer::FromHost(bytes)) => vec![0; bytes as usize],
            _ => Vec::new(),
        };
        self.bench.hub.command(connection, &sqe, &data, self.bench.now);
        let now = self.drain();
        if let Some(Some(done)) = now.iter().find(|done| done.as_ref().is_some_and(|done| done.cid == cid)) {
            let expected = match plan {
                Ok(Transfer::ToHost(bytes)) if done.status == Status::SUCCESS => Some(bytes as usize),
                _ => None,
            };
            assert_eq!(done.data.as_ref().map(|data| data.len()), expected, "{sqe:?}");
        }
    }

    /// Takes all effects and checks them.
    fn drain(&mut self) -> Vec<Option<Done>> {
        let mut seen = Vec::new();
        while let Some(effect) = self.bench.hub.poll_effect() {
            match effect {
                Effect::Complete { connection, cid, cqe, data } => {
                    assert!(!self.closed.contains(&connection), "spoke to a closed connection");
                    let peer = self.peers.get_mut(&connection).expect("a peer that is there");
                    assert!(peer.outstanding.remove(&cid).is_some(), "completed twice or never sent");
                    seen.push(Some(Done::of(connection, &cqe, data)));
                }
                Effect::Close { connection } => {
                    assert!(self.closed.insert(connection), "closed twice");
                    self.peers.remove(&connection).expect("a peer that is there");
                }
                Effect::Reserve { connection, cid, .. } => self.reserving.push((connection, cid)),
            }
        }
        seen
    }

    fn check(&self) {
        let hub = &self.bench.hub;
        assert!(hub.controllers.len() <= 64 * 4);
        assert_eq!(hub.queues.len(), self.peers.len());
        assert!(hub.timers.len() <= hub.controllers.len());
        let queues: usize = hub.controllers.values().map(|controller| 1 + controller.io.len()).sum();
        assert_eq!(queues, hub.queues.len(), "every queue has its controller and the other way round");
        for (connection, peer) in &self.peers {
            let events = peer.outstanding.values().filter(|&&event| event).count();
            assert!(events <= usize::from(AERS_MAX));
            let others = peer.outstanding.iter().filter(|(_, event)| !**event).map(|(&cid, _)| cid);
            for cid in others {
                assert!(self.reserving.contains(&(*connection, cid)), "a command without an answer");
            }
        }
    }

    fn connect(&mut self, discovery: bool, host: bool, qid: u16, timeout_ms: u32, raw: Option<Vec<u8>>) {
        let cntlid = self.bench.hub.controllers.keys().next_back().copied().unwrap_or(1);
        let base = if qid == 0 { Wish::admin() } else { Wish::io(cntlid, qid) };
        let subsystem = if discovery { DISCOVERY_NQN } else { SUBSYSTEM };
        let host = if host { HOST } else { OTHER_HOST };
        let wish = Wish { subsystem: subsystem.into(), host: host.into(), keep_alive_ms: timeout_ms, ..base };
        let connection = self.bench.connection();
        let data = raw.unwrap_or_else(|| wish.data());
        if self.bench.hub.connect(connection, local(), &wish.sqe(), &data, self.bench.now).is_ok() {
            self.peers.insert(connection, Peer::default());
        }
    }

    fn retarget(&mut self, choice: u8, nsid: u32) {
        self.bench.change(|targets| {
            let Some(subsystem) = targets.subsystems.get_mut(SUBSYSTEM) else {
                *targets = super::targets();
                return;
            };
            match choice {
                0..20 => targets.subsystems.clear(),
                20..40 => subsystem.access = Access::Hosts(BTreeSet::from([HOST.to_owned()])),
                40..60 => subsystem.access = Access::AnyHost,
                60..120 => drop(subsystem.namespaces.remove(&nsid)),
                120..180 => drop(subsystem.namespaces.insert(nsid, namespace(nsid, nsid))),
                180..220 => drop(subsystem.ana_groups.insert(nsid, AnaState::Change)),
                _ => targets.ports[0].id += 1,
            }
        });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect { discovery, host, qid, timeout_ms, raw } => {
                self.connect(discovery, host, qid, timeout_ms, raw);
            }
            Step::Enable { which } => {
                if let Some(connection) = self.pick(which) {
                    self.command(connection, property_set(0x14, 0, u64::from(CC_ENABLE)));
                }
            }
            Step::Command { which, raw, sound } => {
                let mut sqe: Sqe = zerocopy::transmute!(raw);
                if sound {
                    sqe.sgl = identify(1, 0).sgl;
                }
                if let Some(connection) = self.pick(which) {
                    self.command(connection, sqe);
                }
            }
            Step::Known { which, choice, nsid } => {
                if let Some(connection) = self.pick(which) {
                    self.command(connection, known(choice, nsid));
                }
            }
            Step::Disconnect { which } => {
                if let Some(connection) = self.pick(which) {
                    self.peers.remove(&connection);
                    self.closed.insert(connection);
                    self.bench.disconnect(connection);
                }
            }
            Step::Pass { milliseconds } => {
                self.bench.pass(Duration::from_millis(milliseconds));
                self.bench.hub.tick(self.bench.now);
                assert!(self.bench.hub.next_deadline() > self.bench.now);
            }
            Step::Retarget { choice, nsid } => self.retarget(choice, nsid),
            Step::Notice { nsid } => {
                let volume = namespace(nsid, 1).volume.id;
                let notice = Notice { volume, host: HostId(HOST_ID), kind: NoticeKind::ReservationReleased };
                self.bench.hub.reservation_notices(&[notice], self.bench.now);
            }
            Step::Reserved { good } => {
                if let Some((connection, cid)) = self.reserving.pop() {
                    let outcome = if good { Ok(Outcome::Done) } else { Err(Status::ANA_INACCESSIBLE) };
                    self.bench.hub.reserved(connection, cid, outcome, self.bench.now);
                }
            }
            Step::IoError { which } => {
                if let Some(connection) = self.pick(which) {
                    let error = IoError { cid: 1, status: Status::WRITE_FAULT, lba: 1, nsid: 1, sqid: 1 };
                    self.bench.hub.io_error(connection, error, self.bench.now);
                }
            }
        }
        self.drain();
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_is_survived(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world =
            World { bench: Bench::new(), peers: BTreeMap::new(), closed: BTreeSet::new(), reserving: Vec::new() };
        for step in steps {
            world.step(step);
        }
        while let Some(connection) = world.pick(0) {
            world.step(Step::Disconnect { which: 0 });
            assert!(world.closed.contains(&connection));
        }
        prop_assert!(world.bench.hub.controllers.is_empty());
        prop_assert!(world.bench.hub.timers.is_empty());
        prop_assert!(world.bench.hub.queues.is_empty());
    }
}
