//! Volumes reached from another reactor.

mod common;

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::buf::{Buf, BufPool, PoolPlan};
use ashlar_env::disk::Durability;
use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::units::BlockSize;
use ashlar_env::volume::{Operation, Outcome};
use ashlar_env::{Slots, Spawn, Volume, VolumeError};
use ashlar_volume::remote::{Event, Limits};
use ashlar_volume::{AnyVolume, Exchange, Null, VolumeMessage};
use common::mesh::{TestMesh, mesh};
use common::{MemoryDisk, TestEnv, disk_info, filled, issuer, range, serve, volume_id};

#[derive(Debug)]
enum NodeMessage {
    Volume(VolumeMessage),
    Ping(u32),
}

impl From<VolumeMessage> for NodeMessage {
    fn from(message: VolumeMessage) -> Self {
        Self::Volume(message)
    }
}

impl TryFrom<NodeMessage> for VolumeMessage {
    type Error = NodeMessage;

    fn try_from(message: NodeMessage) -> Result<Self, NodeMessage> {
        match message {
            NodeMessage::Volume(message) => Ok(message),
            other => Err(other),
        }
    }
}

type Any = AnyVolume<TestEnv, MemoryDisk, TestMesh<NodeMessage>, NodeMessage>;
type Node = Exchange<TestMesh<NodeMessage>, NodeMessage, Any>;
type Heard = Rc<RefCell<Vec<String>>>;

/// Reactors with their exchanges running, and what each heard besides.
fn reactors(
    env: &TestEnv,
    n: u16,
    room: usize,
    limits: Limits,
) -> (Vec<Node>, Vec<TestMesh<NodeMessage>>, Heard) {
    let ends = mesh(n, room);
    let heard = Heard::default();
    let nodes: Vec<Node> = ends.iter().map(|end| Exchange::new(end.clone(), limits)).collect();
    for (node, end) in nodes.iter().zip(&ends) {
        let (heard, here) = (Rc::clone(&heard), end.here().0);
        env.spawn(node.clone().run(move |event| {
            heard.borrow_mut().push(match event {
                Event::Other(from, NodeMessage::Ping(n)) => format!("{here}: ping {n} from {}", from.0),
                Event::Other(_, other) => panic!("not for the node: {other:?}"),
                Event::Changed(info) => format!("{here}: {} blocks", info.blocks),
            });
        }));
    }
    (nodes, ends, heard)
}

#[test]
fn many_operations_from_all_reactors_reach_the_home_through_short_links() {
    for seed in 0..30 {
        let env = TestEnv::with_pool(seed, BufPool::on_heap(PoolPlan { limits: [400, 0, 0, 0, 0] }));
        let limits = Limits { calls_max: 5, serving_max: 3 };
        let (nodes, ..) = reactors(&env, 3, 2, limits);
        let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
        let info = volume.info();
        nodes[0].publish(AnyVolume::PassThrough(volume));
        let done = Rc::new(RefCell::new(0));
        for writer in 0..15_u8 {
            let remote = nodes[usize::from(writer % 3)].remote(ReactorId(0), info);
            let (env, done) = (env.clone(), Rc::clone(&done));
            let block = u64::from(writer);
            env.clone().spawn(async move {
                for round in 0..5_u8 {
                    let data = filled(&env, &[writer * 16 + round; 4096]);
                    let write = Operation::Write {
                        range: range(block, 1),
                        data: data.clone(),
                        durability: Durability::Cached,
                    };
                    remote.execute(issuer(1), write).await.unwrap();
                    let read = Operation::Read { range: range(block, 1) };
                    let Ok(Outcome::Data(there)) = remote.execute(issuer(1), read).await else { panic!() };
                    assert_eq!(there[..], data[..]);
                }
                *done.borrow_mut() += 1;
            });
        }
        env.run(async {
            while *done.borrow() < 15 {
                ashlar_env::spawn::yield_now().await;
            }
        });
        assert!((0..15).all(|n| disk.bytes()[n * 4096] == n as u8 * 16 + 4));
        assert!(nodes.iter().all(|node| node.calls_open() == 0));
    }
}

#[test]
fn a_dropped_call_goes_on_and_its_place_comes_back() {
    let env = TestEnv::new(1);
    let (nodes, ..) = reactors(&env, 2, 4, Limits { calls_max: 1, serving_max: 1 });
    let (volume, disk) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
    let remote = nodes[1].remote(ReactorId(0), volume.info());
    nodes[0].publish(AnyVolume::PassThrough(volume));
    let data = filled(&env, &[7; 4096]);
    let write = Operation::Write { range: range(2, 1), data, durability: Durability::Cached };
    {
        let mut call = pin!(remote.execute(issuer(1), write));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(nodes[1].calls_open(), 1);
    // The only call is in use until the answer to the abandoned one is there.
    env.run(remote.execute(issuer(1), Operation::Flush)).unwrap();
    assert_eq!(disk.bytes()[8192], 7);
    assert_eq!(nodes[1].calls_open(), 0);
}

#[test]
fn errors_cross_and_a_volume_that_is_not_there_says_so() {
    let env = TestEnv::new(2);
    let (nodes, ..) = reactors(&env, 2, 4, Limits::default());
    let null = Null::new(volume_id(9), BlockSize::B512, 100).unwrap();
    let remote = nodes[1].remote(ReactorId(0), null.info());
    let read = |blocks| Operation::Read { range: range(0, blocks) };
    let ask = |operation| env.run(remote.execute(issuer(1), operation));
    assert_eq!(ask(read(1)).unwrap_err(), VolumeError::NotHere);
    nodes[0].publish(AnyVolume::Null(null));
    assert!(matches!(ask(read(100)), Ok(Outcome::Data(data)) if data[..] == *Buf::zeroes(51200)));
    assert_eq!(ask(read(101)).unwrap_err(), VolumeError::OutOfRange);
    assert!(nodes[0].withdraw(volume_id(9)).is_some());
    assert_eq!(ask(read(1)).unwrap_err(), VolumeError::NotHere);
}

#[test]
fn a_resize_is_told_to_the_reactors_that_show_the_volume() {
    let env = TestEnv::new(3);
    let (nodes, ends, heard) = reactors(&env, 3, 1, Limits::default());
    let (volume, _) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
    let remote = nodes[1].remote(ReactorId(0), volume.info());
    let again = remote.clone();
    assert!(ends[0].try_send(ReactorId(1), NodeMessage::Ping(5)).is_ok(), "the link is full now");
    let info = env.run(volume.resize(128 << 10, false)).unwrap();
    nodes[0].announce(info);
    nodes[0].announce(info);
    env.run(async {
        while heard.borrow().len() < 3 {
            ashlar_env::spawn::yield_now().await;
        }
    });
    assert_eq!((remote.info().blocks, again.info().blocks), (32, 32));
    assert_eq!(*heard.borrow(), ["1: ping 5 from 0", "1: 32 blocks", "1: 32 blocks"]);
}

#[test]
fn any_volume_fits_the_slots_of_a_connection() {
    let env = TestEnv::new(4);
    let (nodes, ..) = reactors(&env, 2, 4, Limits::default());
    let (volume, _) = serve(&env, disk_info(64 << 10, 512), BlockSize::B4096);
    let remote = nodes[1].remote(ReactorId(0), volume.info());
    nodes[0].publish(AnyVolume::PassThrough(volume.clone()));
    let null = Null::new(volume_id(2), BlockSize::B4096, 16).unwrap();
    let all: [Any; 3] = [AnyVolume::PassThrough(volume), AnyVolume::Null(null), AnyVolume::Remote(remote)];
    let mut slots = Slots::new(8);
    for volume in &all {
        let operation = Operation::Read { range: range(3, 1) };
        assert!(slots.insert(volume.execute(issuer(1), operation)).is_ok());
    }
    let mut ended = 0;
    env.run(std::future::poll_fn(|cx| {
        while let Poll::Ready(next) = slots.poll_next(cx) {
            let Some((_, result)) = next else { return Poll::Ready(()) };
            assert!(matches!(result, Ok(Outcome::Data(data)) if data[..] == [0; 4096]));
            ended += 1;
        }
        Poll::Pending
    }));
    assert_eq!(ended, 3);
    let future = all[0].execute(issuer(1), Operation::Flush);
    assert!(size_of_val(&future) <= 320, "{} bytes", size_of_val(&future));
}
