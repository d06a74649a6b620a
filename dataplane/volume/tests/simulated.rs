//! A pass-through volume on the simulator's disk, used from three reactors, through a power failure: each block
//! is a linearizable register, and what was durable is there afterwards.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ashlar_env::disk::Durability;
use ashlar_env::mesh::ReactorId;
use ashlar_env::reservation::HostId;
use ashlar_env::units::{BlockRange, BlockSize, Lba, VolumeId};
use ashlar_env::volume::{Issuer, Operation, Outcome};
use ashlar_env::{Buf, BufPool, Clock, Env, Rng, Volume, VolumeError};
use ashlar_sim::check::Value;
use ashlar_sim::check::crash::Oracle;
use ashlar_sim::check::register::Checker;
use ashlar_sim::check::stamp::{Stamp, value_of};
use ashlar_sim::{Control, Crash, DiskGeometry, DiskId, NodeId, Profile, Sim, SimDisk, SimEnv, SimMesh};
use ashlar_volume::remote::Limits;
use ashlar_volume::{
    AnyVolume, Exchange, NoStore, PassThrough, Reservations, Settings, VolumeMessage, scratch_pool,
};

const BLOCKS: u64 = 24;
const REACTORS: u16 = 3;
const OPERATIONS: usize = 25;

type Any = AnyVolume<SimEnv, SimDisk, SimMesh<Message>, Message>;
type Node = Exchange<SimMesh<Message>, Message, Any>;

struct Message(VolumeMessage);

impl From<VolumeMessage> for Message {
    fn from(message: VolumeMessage) -> Self {
        Self(message)
    }
}

impl TryFrom<Message> for VolumeMessage {
    type Error = Message;

    fn try_from(message: Message) -> Result<Self, Message> {
        Ok(message.0)
    }
}

/// What is known of the blocks, and the order of events.
struct Books {
    checker: Checker,
    oracle: Oracle,
    time: u64,
    sequence: u64,
}

impl Books {
    fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }
}

/// One run: the volume's shape and the books.
#[derive(Clone)]
struct Run {
    control: Control,
    node: NodeId,
    disk: DiskId,
    block: BlockSize,
    books: Rc<RefCell<Books>>,
}

/// A host's way to the volume.
#[derive(Clone)]
struct Host {
    run: Run,
    env: SimEnv,
    volume: Any,
    writer: u32,
}

impl Run {
    /// Serves the disk on the first reactor; gives the volume as each reactor reaches it.
    fn serve(&self) -> Vec<Any> {
        let ends = self.control.mesh::<Message>(self.node);
        let nodes: Vec<Node> =
            ends.into_iter().map(|end| Exchange::new(end, Limits { calls_max: 4, serving_max: 8 })).collect();
        for (reactor, node) in nodes.iter().enumerate() {
            let node = node.clone();
            self.control.spawn_on(self.node, reactor as u16, |_| node.run(|_| {}));
        }
        let env = self.control.env(self.node, 0);
        let disk = env.open_disk(self.disk);
        let settings = Settings {
            id: VolumeId(uuid::Uuid::from_u128(1)),
            block_size: self.block,
            read_only: false,
            reservations: Reservations::default(),
            scratch: scratch_pool(),
        };
        let volume = PassThrough::new(env, disk, settings, NoStore).unwrap();
        let info = volume.info();
        nodes[0].publish(AnyVolume::PassThrough(volume.clone()));
        let remote = |node: &Node| AnyVolume::Remote(node.remote(ReactorId(0), info));
        std::iter::once(AnyVolume::PassThrough(volume)).chain(nodes[1..].iter().map(remote)).collect()
    }

    fn host(&self, volumes: &[Any], reactor: u16, writer: u32) -> Host {
        let env = self.control.env(self.node, reactor);
        Host { run: self.clone(), env, volume: volumes[usize::from(reactor)].clone(), writer }
    }

    fn fail(&self, what: impl std::fmt::Display) {
        self.control.fail("volume", format!("{what}"));
    }
}

impl Host {
    fn execute(&self, operation: Operation) -> impl Future<Output = Result<Outcome, VolumeError>> {
        let issuer = Issuer { host: HostId([1; 16]), session: u64::from(self.writer) };
        self.volume.execute(issuer, operation)
    }

    fn pool(&self) -> &BufPool {
        self.env.buffers()
    }

    async fn step(&self) {
        let first = self.env.random_below(BLOCKS);
        let range = BlockRange::new(Lba(first), 1 + self.env.random_below((BLOCKS - first).min(4))).unwrap();
        match self.env.random_below(10) {
            0..4 => self.read(range).await,
            4..7 => self.write(range).await,
            7 => self.zero(range).await,
            8 => self.swap(BlockRange::new(Lba(first), 1).unwrap()).await,
            _ => self.flush().await,
        }
    }

    async fn read(&self, range: BlockRange) {
        let _ = self.read_data(range).await;
    }

    async fn read_data(&self, range: BlockRange) -> Option<Buf> {
        let begun: Vec<_> = {
            let mut books = self.run.books.borrow_mut();
            let at = books.tick();
            (range.first().0..range.end().0).map(|unit| books.checker.begin_read(unit, at)).collect()
        };
        let outcome = self.execute(Operation::Read { range }).await;
        let Ok(Outcome::Data(data)) = outcome else {
            self.run.fail(format!("read: {outcome:?}"));
            return None;
        };
        let mut books = self.run.books.borrow_mut();
        let at = books.tick();
        let block = self.run.block.bytes() as usize;
        for ((unit, bytes), id) in (range.first().0..).zip(data.chunks(block)).zip(begun) {
            match value_of(1, unit * block as u64 / 512, bytes) {
                Ok(value) => {
                    if let Err(violation) = books.checker.end_read(id, value, at) {
                        self.run.fail(format!("block {unit}: {violation}"));
                    }
                }
                Err(damage) => self.run.fail(damage),
            }
        }
        Some(data)
    }

    /// A buffer full of the next stamp, and the stamp's value.
    async fn stamped(&self, range: BlockRange) -> (Buf, Value) {
        let shift = self.run.block.shift();
        let mut data = self.pool().alloc((range.blocks() << shift) as usize).await;
        let mut books = self.run.books.borrow_mut();
        books.sequence += 1;
        let stamp = Stamp { volume: 1, writer: self.writer, sequence: books.sequence, attempt: 0, epoch: 0 };
        stamp.fill((range.first().0 << shift) / 512, &mut data);
        (data.freeze(), stamp.value())
    }

    async fn write(&self, range: BlockRange) {
        let (data, value) = self.stamped(range).await;
        let durability = self.durability();
        self.change(range, value, durability, Operation::Write { range, data, durability }).await;
    }

    async fn zero(&self, range: BlockRange) {
        let durability = self.durability();
        let operation = if self.env.random_below(2) == 0 {
            Operation::WriteZeroes { range, free: self.env.random_below(2) == 0, durability }
        } else {
            Operation::Unmap { ranges: Box::new([range]) }
        };
        let durability =
            if matches!(operation, Operation::Unmap { .. }) { Durability::Cached } else { durability };
        self.change(range, Value::ZERO, durability, operation).await;
    }

    async fn swap(&self, range: BlockRange) {
        // The pool may be tiny: what is expected is copied, so that no two buffers are held while waiting.
        let Some(seen) = self.read_data(range).await.map(|data| data.to_vec()) else { return };
        let Some(mut expected) = self.pool().try_alloc(seen.len()) else { return };
        expected.copy_from_slice(&seen);
        let Some(room) = self.pool().try_alloc(seen.len()) else { return };
        drop(room);
        let (data, value) = self.stamped(range).await;
        let expected = expected.freeze();
        let durability = self.durability();
        let operation = Operation::CompareAndWrite { range, expected, data, durability };
        self.change(range, value, durability, operation).await;
    }

    fn durability(&self) -> Durability {
        if self.env.random_below(3) == 0 { Durability::Fua } else { Durability::Cached }
    }

    /// Executes what writes `value` to the range; now and then gives up in the middle.
    async fn change(&self, range: BlockRange, value: Value, durability: Durability, operation: Operation) {
        let units = || range.first().0..range.end().0;
        let begun: Vec<_> = {
            let mut books = self.run.books.borrow_mut();
            let at = books.tick();
            units()
                .map(|unit| {
                    (books.checker.begin_write(unit, value, at), books.oracle.begin_write(unit, value, at))
                })
                .collect()
        };
        let Some(outcome) = self.perhaps(self.execute(operation)).await else { return };
        let mut books = self.run.books.borrow_mut();
        let at = books.tick();
        for (write, durable) in begun {
            match &outcome {
                Ok(_) => {
                    books.checker.end_write(write, at);
                    books.oracle.end_write(durable, durability == Durability::Fua, at);
                }
                Err(VolumeError::Miscompare { .. }) => {
                    books.oracle.fence_write(durable, at);
                    if let Err(violation) = books.checker.refuse_write(write, at) {
                        self.run.fail(format!("a refused write was seen: {violation}"));
                    }
                }
                Err(error) => self.run.fail(format!("write: {error}")),
            }
        }
    }

    /// The outcome, or `None` where the future was dropped after some time.
    async fn perhaps<T>(&self, operation: impl Future<Output = T>) -> Option<T> {
        let patience = if self.env.random_below(6) == 0 {
            Duration::from_micros(self.env.random_below(300))
        } else {
            Duration::from_secs(3600)
        };
        let mut over = pin!(self.env.sleep_until(self.env.now().plus(patience)));
        let mut operation = pin!(operation);
        poll_fn(|cx| match operation.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => over.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    async fn flush(&self) {
        let flush = self.run.books.borrow().oracle.begin_flush();
        match self.execute(Operation::Flush).await {
            Ok(_) => self.run.books.borrow_mut().oracle.end_flush(flush),
            Err(error) => self.run.fail(format!("flush: {error}")),
        }
    }

    /// Reads every block once and holds it against what the crash may have left.
    async fn settle(&self) {
        for unit in 0..BLOCKS {
            let Some(data) = self.read_data(BlockRange::new(Lba(unit), 1).unwrap()).await else { return };
            let mut books = self.run.books.borrow_mut();
            let value = value_of(1, unit * u64::from(self.run.block.bytes()) / 512, &data);
            if let Ok(value) = value
                && let Err(violation) = books.oracle.observe(unit, value)
            {
                self.run.fail(format!("block {unit} after the power failure: {violation}"));
            }
        }
    }
}

/// Hosts on all reactors until they have done their steps; the returned counter says how many have.
fn work(run: &Run, volumes: &[Any], generation: u32) -> Rc<RefCell<u32>> {
    let ended = Rc::new(RefCell::new(0));
    for n in 0..6 {
        let reactor = n % REACTORS;
        let host = run.host(volumes, reactor, generation * 100 + u32::from(n));
        let ended = Rc::clone(&ended);
        run.control.spawn_on(run.node, reactor, |_| async move {
            for _ in 0..OPERATIONS {
                host.step().await;
            }
            *ended.borrow_mut() += 1;
        });
    }
    ended
}

async fn through_a_power_failure(run: Run, env: SimEnv) {
    work(&run, &run.serve(), 1);
    let time = Duration::from_micros(env.random_below(6000));
    env.sleep_until(env.now().plus(time)).await;
    run.control.crash(run.node, Crash::Power);
    {
        let mut books = run.books.borrow_mut();
        let at = books.tick();
        for (unit, allowed) in books.oracle.power_failed(at) {
            books.checker.restart(unit, &allowed, at);
        }
    }
    run.control.restart(run.node);
    let volumes = run.serve();
    run.host(&volumes, 1, 900).settle().await;
    let ended = work(&run, &volumes, 2);
    while *ended.borrow() < 6 {
        env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
    }
    run.host(&volumes, 2, 901).read(BlockRange::new(Lba(0), BLOCKS).unwrap()).await;
}

fn run(seed: u64) -> u64 {
    // Block size of the volume, block and sector of the disk. A volume's block is no larger than a sector:
    // otherwise a power failure may tear it, and pass-through volumes do not promise that it will not.
    let shapes = [(BlockSize::B512, 512, 512), (BlockSize::B512, 4096, 512), (BlockSize::B4096, 4096, 4096)];
    let (block, block_bytes, sector_bytes) = shapes[(seed % 3) as usize];
    let sim = Sim::new(seed, Profile::swarm(seed));
    let sim = sim.reproduce_by("cargo test -p ashlar-volume --test simulated (it goes through {seed}, too)");
    let geometry = DiskGeometry {
        block_bytes,
        sector_bytes,
        volatile_cache: !seed.is_multiple_of(5),
        discard_zeroes: seed.is_multiple_of(2),
        ..DiskGeometry::of_bytes(BLOCKS * 4096)
    };
    let books =
        Books { checker: Checker::new(), oracle: Oracle::new(geometry.volatile_cache), time: 0, sequence: 0 };
    let books = Rc::new(RefCell::new(books));
    let control = sim.control();
    let (node, chaos) = (control.node("node", REACTORS), control.node("chaos", 1));
    let disk = control.disk("disk", geometry);
    let run = Run { control: control.clone(), node, disk, block, books: Rc::clone(&books) };
    control.goal_on(chaos, 0, |env| through_a_power_failure(run, env));
    sim.run().unwrap_or_else(|failure| panic!("{failure}"));
    books.borrow().checker.checked()
}

#[test]
fn blocks_are_registers_and_what_is_durable_survives() {
    let checked: u64 = (0..90).map(run).sum();
    assert!(checked > 10_000, "only {checked} reads were checked");
}
