//! A read and a write allocate nothing once the depth has been seen: on the null volume, on a pass-through
//! volume whose disk answers at once or later, and on a volume of another reactor.

mod common;

use std::cell::RefCell;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ashlar_env::buf::{Buf, BufMut, BufPool, PoolPlan};
use ashlar_env::disk::{Disk, DiskError, DiskInfo, Durability};
use ashlar_env::mesh::ReactorId;
use ashlar_env::slots::Slots;
use ashlar_env::spawn::yield_now;
use ashlar_env::units::{BlockSize, ByteRange};
use ashlar_env::volume::{Operation, Outcome};
use ashlar_env::{Env, Volume};
use ashlar_volume::remote::{Carries, Limits};
use ashlar_volume::{AnyVolume, Exchange, Null, PassThrough, Reservations, VolumeMessage};
use common::mesh::{TestMesh, mesh};
use common::{TestEnv, disk_info, issuer, range, settings, volume_id};

const DEPTH: u64 = 32;

/// Memory that answers at once, or after one turn, and allocates nothing.
#[derive(Clone)]
struct Memory {
    bytes: Rc<RefCell<Vec<u8>>>,
    late: bool,
}

impl Memory {
    async fn turn(late: bool) {
        if late {
            yield_now().await;
        }
    }
}

impl Disk for Memory {
    fn info(&self) -> DiskInfo {
        disk_info(self.bytes.borrow().len() as u64, 512)
    }

    fn read(&self, start: u64, mut buf: BufMut) -> impl Future<Output = Result<BufMut, DiskError>> + 'static {
        let this = self.clone();
        async move {
            Self::turn(this.late).await;
            let len = buf.len();
            buf.copy_from_slice(&this.bytes.borrow()[start as usize..][..len]);
            Ok(buf)
        }
    }

    fn write(
        &self,
        start: u64,
        data: Buf,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        let this = self.clone();
        async move {
            Self::turn(this.late).await;
            this.bytes.borrow_mut()[start as usize..][..data.len()].copy_from_slice(&data);
            Ok(())
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Ok(()))
    }

    fn discard(&self, _: ByteRange) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }

    fn write_zeroes(
        &self,
        _: ByteRange,
        _: bool,
        _: Durability,
    ) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }

    fn resize(&self, _: u64) -> impl Future<Output = Result<(), DiskError>> + 'static {
        ready(Err(DiskError::Unsupported))
    }
}

fn env() -> TestEnv {
    TestEnv::with_pool(1, BufPool::on_heap(PoolPlan { limits: [3 * DEPTH as usize, 0, 0, 0, 0] }))
}

fn pass_through(env: &TestEnv, late: bool) -> PassThrough<TestEnv, Memory> {
    let disk = Memory { bytes: Rc::new(RefCell::new(vec![1; 1 << 20])), late };
    let settings = settings(BlockSize::B4096, Reservations::default());
    PassThrough::new(env.clone(), disk, settings, ashlar_volume::NoStore).unwrap()
}

/// Reads, writes and flushes at full depth; overlapping ones among them. `background` is what else has to run.
fn rounds<F: Future>(
    env: &TestEnv,
    slots: &mut Slots<F>,
    mut start: impl FnMut(Operation) -> F,
    mut background: impl FnMut(&mut Context<'_>),
    check: impl Fn(F::Output),
) {
    let mut cx = Context::from_waker(Waker::noop());
    for round in 0..20 {
        for n in 0..DEPTH {
            let range = range(n / 2 * 3, 1);
            let operation = match (n + round) % 3 {
                0 => Operation::Read { range },
                1 => Operation::Flush,
                _ => {
                    let mut data = env.buffers().try_alloc(4096).unwrap();
                    data.fill(round as u8);
                    Operation::Write { range, data: data.freeze(), durability: Durability::Fua }
                }
            };
            let id = slots.insert(start(operation)).ok().unwrap();
            if let Poll::Ready(output) = slots.poll_one(id, &mut cx) {
                check(output);
            }
        }
        let mut turns = 0;
        while !slots.is_empty() {
            background(&mut cx);
            if let Poll::Ready(Some((_, output))) = slots.poll_next(&mut cx) {
                check(output);
            }
            turns += 1;
            assert!(turns < 10_000, "it does not end");
        }
    }
}

fn ended_well(result: Result<Outcome, ashlar_env::VolumeError>) {
    assert!(matches!(result, Ok(Outcome::Done | Outcome::Data(_))));
}

/// How often the second of two equal loads allocates.
fn allocations(mut load: impl FnMut()) -> u64 {
    load();
    allocation_counter::measure(load).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn on_the_null_volume() {
    let (env, volume) = (env(), Null::new(volume_id(1), BlockSize::B4096, 1000).unwrap());
    let mut slots = Slots::new(DEPTH as usize);
    let start = |operation| volume.execute(issuer(1), operation);
    assert_eq!(allocations(|| rounds(&env, &mut slots, start, |_| {}, ended_well)), 0);
}

#[test]
fn on_memory_that_answers_at_once_and_later() {
    for late in [false, true] {
        let env = env();
        let volume = pass_through(&env, late);
        let mut slots = Slots::new(DEPTH as usize);
        let start = |operation| volume.execute(issuer(1), operation);
        assert_eq!(allocations(|| rounds(&env, &mut slots, start, |_| {}, ended_well)), 0, "late: {late}");
    }
}

/// A node that talks about nothing but volumes.
struct Message(VolumeMessage);

impl From<VolumeMessage> for Message {
    fn from(message: VolumeMessage) -> Self {
        Self(message)
    }
}

impl From<Message> for Result<VolumeMessage, Message> {
    fn from(message: Message) -> Self {
        Ok(message.0)
    }
}

impl TryFrom<Message> for VolumeMessage {
    type Error = Message;

    fn try_from(message: Message) -> Result<Self, Message> {
        message.into()
    }
}

const fn carries<M: Carries>() {}
const _: () = carries::<Message>();

type Any = AnyVolume<TestEnv, Memory, TestMesh<Message>, Message>;

#[test]
fn on_a_volume_of_another_reactor() {
    let env = env();
    let ends = mesh::<Message>(2, 4);
    let nodes: Vec<Exchange<_, _, Any>> =
        ends.iter().map(|end| Exchange::new(end.clone(), Limits::default())).collect();
    let volume = pass_through(&env, true);
    let remote: Any = AnyVolume::Remote(nodes[1].remote(ReactorId(0), volume.info()));
    nodes[0].publish(AnyVolume::PassThrough(volume));
    let mut home = pin!(nodes[0].clone().run(|_| {}));
    let mut here = pin!(nodes[1].clone().run(|_| {}));
    let mut slots = Slots::new(DEPTH as usize);
    let mut turn = |cx: &mut Context<'_>| {
        for node in [home.as_mut() as Pin<&mut dyn Future<Output = ()>>, here.as_mut()] {
            assert!(node.poll(cx).is_pending());
        }
    };
    let start = |operation| remote.execute(issuer(1), operation);
    assert_eq!(allocations(|| rounds(&env, &mut slots, start, &mut turn, ended_well)), 0);
}
