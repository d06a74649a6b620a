//! A target with two volumes in the simulator, witnesses that must never notice anything, and what is checked after
//! every case.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ashlar_env::buf::PoolPlan;
use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::reservation::Notice;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{Clock, Env, Volume};
use ashlar_nvmeof::hub::HubConfig;
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::server::Server;
use ashlar_nvmeof::server::message::Message;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
use ashlar_nvmeof::wire::sqe::io as opcode;
use ashlar_sim::{Control, DiskGeometry, DiskId, NodeId, Profile, Sim, SimDisk, SimEnv, SimMesh};
use ashlar_volume::reservation_record::ReservationRecord;
use ashlar_volume::{PassThrough, ReservationStore, Reservations, Settings, StoreError, scratch_pool};

use crate::bytes::{self, Digests, Identity};
use crate::raw::Raw;

/// The subsystem with both volumes, as namespaces 1 and 2.
pub const SUBSYSTEM: &str = "nqn.2026-11.io.ashlar:hostile";
/// The blocks that cases work on, from 0; those of the witnesses follow.
pub const CASE_BLOCKS: u64 = 1024;
const VOLUME_BYTES: u64 = 4 << 20;
const REACTORS: u16 = 2;
/// How long everything may take to be as it was.
pub const SETTLE: Duration = Duration::from_secs(30);

type Carried = Message<ashlar_sim::SimAccepted>;
type TestVolume = PassThrough<SimEnv, SimDisk, Store>;
type TestServer = Server<SimEnv, TestVolume, Carried, SimMesh<Carried>>;

/// Limits small enough to be reached.
pub fn limits() -> Limits {
    Limits {
        max_transfer_bytes: 128 << 10,
        io_queue_entries_max: 128,
        io_queues_max: 4,
        controllers_max: 16,
        connections_max: 40,
        unauthenticated_per_address_max: 8,
        ..Limits::default()
    }
}

/// The host that does what the cases do.
pub const CULPRIT: u8 = 0xC1;
/// The witnesses: what they are, the host, the namespace, the blocks of every eighth command. The last is the culprit itself by
/// other connections, of another controller.
const WITNESSES: [(&str, u8, u32, u32); 3] = [
    ("another host on the same volume", 0xA1, 1, 256),
    ("another host on another volume", 0xA2, 2, 8),
    ("the same host", CULPRIT, 1, 128),
];
/// Blocks of each witness.
const WITNESS_BLOCKS: u64 = 1024;

/// Buffers of each reactor: for the transfers of the witnesses and of one hostile connection that keeps all it can
/// get, but not for as many as that asks for.
const POOL: PoolPlan = PoolPlan { limits: [64, 32, 16, 72, 8] };

/// What a case works with.
#[derive(Clone)]
pub struct Arena {
    pub env: SimEnv,
    pub control: Control,
    pub address: SocketAddr,
    target: NodeId,
    servers: Rc<Vec<TestServer>>,
    disks: [DiskId; 2],
    store: Store,
    /// What was to be carried to the hosts of other protocols.
    carried: Rc<RefCell<Vec<Notice>>>,
    /// What the target has when only the witnesses are there, between their commands.
    baseline: Option<Resources>,
}

/// Reservation states that outlive the process, as they are stored.
#[derive(Clone)]
struct Store {
    env: SimEnv,
    records: Rc<RefCell<BTreeMap<VolumeId, ReservationRecord>>>,
}

/// How long a reservation state takes to be stored.
pub const STORE_TIME: Duration = Duration::from_millis(1);

impl ReservationStore for Store {
    fn save(
        &self,
        volume: VolumeId,
        state: &Reservations,
    ) -> impl Future<Output = Result<(), StoreError>> + 'static {
        let (this, record) = (self.clone(), state.clone().into());
        async move {
            this.env.sleep_until(this.env.now().plus(STORE_TIME)).await;
            this.records.borrow_mut().insert(volume, record);
            Ok(())
        }
    }
}

/// The volume behind a namespace.
pub fn volume_of(nsid: u32) -> VolumeId {
    VolumeId(uuid::Uuid::from_u128(nsid.into()))
}

/// The target's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    connections: usize,
    controllers: usize,
    tasks: usize,
    free_buffers: usize,
}

/// A host: `name` tells hosts apart.
pub fn identity(name: u8) -> Identity {
    Identity {
        host_id: [name; 16],
        host_nqn: format!("nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000{name:02x}"),
        subsystem: SUBSYSTEM.to_owned(),
    }
}

/// Runs `play` against a fresh target, with the witnesses at work throughout.
pub fn run<F: Future<Output = Result<(), String>> + 'static>(
    seed: u64,
    play: impl FnOnce(Arena) -> F + 'static,
) {
    let profile = Profile { pool: POOL, ..Profile::calm() };
    let sim = Sim::new(seed, profile).reproduce_by("cargo test -p ashlar-nvmeof --test hostile");
    let target = sim.node("target", REACTORS);
    let arena = Arena {
        env: sim.env(sim.node("case", 1), 0),
        control: sim.control(),
        address: (target.ip(0), 4420).into(),
        target,
        servers: Rc::default(),
        carried: Rc::default(),
        baseline: None,
        store: Store { env: sim.env(target, 0), records: Rc::default() },
        disks: [0, 1].map(|n| {
            let geometry = DiskGeometry { volatile_cache: false, ..DiskGeometry::of_bytes(VOLUME_BYTES) };
            sim.disk(&format!("disk {n}"), geometry)
        }),
    };
    let arena = Arena { servers: Rc::new(serve(&sim, &arena)), ..arena };
    let ready = Rc::new(Cell::new(0));
    let over = Rc::new(Cell::new(false));
    let case = arena.env.node();
    for (place, (name, host, nsid, blocks)) in WITNESSES.into_iter().enumerate() {
        let node = if host == CULPRIT { case } else { sim.node(name, 1) };
        let (ready, over, address) = (Rc::clone(&ready), Rc::clone(&over), arena.address);
        let range = (CASE_BLOCKS + place as u64 * WITNESS_BLOCKS, blocks);
        sim.goal_on(node, 0, move |env| async move {
            if let Err(error) = witness(&env, address, (host, nsid), range, &ready, &over).await {
                env.fail("witness", format!("{name}: {error}"));
            }
        });
    }
    sim.goal_on(case, 0, move |env| async move {
        while ready.get() < WITNESSES.len() {
            arena.sleep(Duration::from_millis(1)).await;
        }
        let baseline = Some(arena.resources_at_rest().await);
        if let Err(error) = play(Arena { baseline, ..arena }).await {
            env.fail("hostile", error);
        }
        over.set(true);
    });
    if let Err(failure) = sim.run() {
        panic!("{failure}");
    }
}

fn serve(sim: &Sim, arena: &Arena) -> Vec<TestServer> {
    let here = sim.env(arena.target, 0);
    let volumes: Vec<TestVolume> = (arena.disks.iter().zip(1..))
        .map(|(disk, nsid)| {
            let settings = Settings {
                id: volume_of(nsid),
                block_size: BlockSize::B512,
                read_only: false,
                reservations: Reservations::default(),
                scratch: scratch_pool(),
            };
            PassThrough::new(here.clone(), here.open_disk(*disk), settings, arena.store.clone())
                .expect("a sound disk")
        })
        .collect();
    let namespaces = (volumes.iter().zip(1..))
        .map(|(volume, nsid)| (nsid, Namespace { volume: volume.info(), ana_group: 1 }))
        .collect();
    let subsystem = Subsystem {
        serial: "HOSTILE".into(),
        access: Access::AnyHost,
        listen: std::collections::BTreeSet::new(),
        namespaces,
        ana_groups: [(1, AnaState::Optimized)].into(),
    };
    let targets = Arc::new(Targets {
        subsystems: [(SUBSYSTEM.to_owned(), subsystem)].into(),
        ports: vec![Port { id: 1, listen: arena.address, advertise: None }],
        referrals: Vec::new(),
    });
    let config = HubConfig {
        limits: limits(),
        cntlid_min: 1,
        cntlid_max: 0xFFEF,
        model: "Ashlar".into(),
        firmware: "0.1.0".into(),
        first_session: 1,
    };
    let mut servers = Vec::new();
    for (reactor, mesh) in sim.mesh::<Carried>(arena.target).into_iter().enumerate() {
        let env = sim.env(arena.target, reactor as u16);
        let hub = (reactor == 0).then(|| config.clone());
        let server = Server::new(env, mesh.clone(), limits(), ReactorId(0), hub);
        let volumes = volumes.clone();
        server.set_targets(&targets, move |id| volumes.iter().find(|volume| volume.info().id == id).cloned());
        if reactor == 0 {
            server.listen(arena.address).expect("a free address");
        }
        let receiver = server.clone();
        sim.spawn_on(arena.target, reactor as u16, move |_| async move {
            loop {
                let (_, message) = poll_fn(|cx| mesh.poll_recv(cx)).await;
                receiver.deliver(message);
            }
        });
        let carried = Rc::clone(&arena.carried);
        server.carry_notices(move |notices| carried.borrow_mut().extend_from_slice(notices));
        servers.push(server);
    }
    servers
}

/// A host like any other: writes and reads its own blocks until all is over; an answer later than a second, an
/// error, or data that are not what it wrote end the run.
async fn witness(
    env: &SimEnv,
    address: SocketAddr,
    (host, nsid): (u8, u32),
    (first, blocks): (u64, u32),
    ready: &Cell<usize>,
    over: &Cell<bool>,
) -> Result<(), String> {
    let mut connected = Host::connect(env, address, &identity(host), Digests::BOTH).await?;
    let mut round = 0;
    ready.set(ready.get() + 1);
    while !over.get() {
        // The large ones are what takes time here.
        let blocks = if round % 8 == 0 { blocks } else { 8 };
        let data = vec![host ^ round; blocks as usize * 512];
        let lba = first + u64::from(round) * u64::from(blocks) % WITNESS_BLOCKS;
        connected.write(nsid, lba, &data).await?;
        if connected.read(nsid, lba, blocks).await? != data {
            return Err(format!("round {round}: what was written is not what is read"));
        }
        round = round.wrapping_add(1);
        env.sleep_until(env.now().plus(Duration::from_millis(500))).await;
    }
    Ok(())
}

/// A well-behaved host with one I/O queue.
pub struct Host {
    /// The admin queue: the controller lives as long as it.
    _admin: Raw,
    io: Raw,
}

impl Host {
    /// Connects both queues.
    pub async fn connect(
        env: &SimEnv,
        address: SocketAddr,
        who: &Identity,
        digests: Digests,
    ) -> Result<Self, String> {
        let (admin, cntlid) = admin_queue(env, address, who, digests).await?;
        let io = io_queue(env, address, who, cntlid, 1, 127, digests).await?;
        Ok(Self { _admin: admin, io })
    }

    /// Writes whole blocks.
    pub async fn write(&mut self, nsid: u32, lba: u64, data: &[u8]) -> Result<(), String> {
        let mut sqe = bytes::io(opcode::WRITE, 1, lba, (data.len() / 512) as u32);
        sqe.nsid = nsid.into();
        self.io.command(&sqe, data).await?.ok().map(drop)
    }

    /// Reads whole blocks.
    pub async fn read(&mut self, nsid: u32, lba: u64, blocks: u32) -> Result<Vec<u8>, String> {
        let mut sqe = bytes::io(opcode::READ, 2, lba, blocks);
        sqe.nsid = nsid.into();
        Ok(self.io.command(&sqe, &[]).await?.ok()?.data)
    }
}

/// An enabled admin queue, and the controller's number.
pub async fn admin_queue(
    env: &SimEnv,
    address: SocketAddr,
    who: &Identity,
    digests: Digests,
) -> Result<(Raw, u16), String> {
    let mut raw = Raw::dial(env, address).await?;
    raw.initialize(digests).await?;
    let done = raw.connect(0, 31, who, 0xFFFF, 0).await?.ok()?;
    raw.command(&bytes::property_set(1, 0x14, 0x46_0001), &[]).await?.ok()?;
    let ready = raw.command(&bytes::property_get(2, 0x1C, false), &[]).await?.ok()?;
    if ready.cqe.dw0.get() != 1 {
        return Err(format!("CSTS {:X}h", ready.cqe.dw0.get()));
    }
    Ok((raw, done.cqe.dw0.get() as u16))
}

/// An I/O queue of `sqsize` + 1 entries.
pub async fn io_queue(
    env: &SimEnv,
    address: SocketAddr,
    who: &Identity,
    cntlid: u16,
    qid: u16,
    sqsize: u16,
    digests: Digests,
) -> Result<Raw, String> {
    let mut raw = Raw::dial(env, address).await?;
    raw.initialize(digests).await?;
    raw.connect(qid, sqsize, who, cntlid, 0).await?.ok()?;
    Ok(raw)
}

impl Arena {
    pub async fn sleep(&self, time: Duration) {
        self.env.sleep_until(self.env.now().plus(time)).await;
    }

    /// Free buffers of the target, over all its reactors.
    pub fn free_buffers(&self) -> usize {
        let free = |reactor| self.control.env(self.target, reactor).buffers().free_count();
        (0..REACTORS).map(free).sum()
    }

    pub fn resources(&self) -> Resources {
        Resources {
            connections: self.servers.iter().map(|server| server.connections()).sum(),
            controllers: self.servers[0].controllers().len(),
            tasks: self.control.task_count(self.target),
            free_buffers: self.free_buffers(),
        }
    }

    /// What was to be carried to the hosts of other protocols since the last call.
    pub fn carried(&self) -> Vec<Notice> {
        self.carried.take()
    }

    /// A command of another protocol did this on the last reactor.
    pub fn tell(&self, notices: &[Notice]) {
        self.servers[usize::from(REACTORS) - 1].tell(notices);
    }

    /// The reservation state stored last of the volume behind a namespace.
    pub fn stored(&self, nsid: u32) -> Option<ReservationRecord> {
        self.store.records.borrow().get(&volume_of(nsid)).cloned()
    }

    /// The media of both volumes, where the cases work.
    pub fn media(&self) -> [Vec<u8>; 2] {
        self.disks.map(|disk| self.control.image(disk).read(0, CASE_BLOCKS as usize * 512))
    }

    /// Runs one case: afterwards the media are as before, a host can connect and read, and all resources come back.
    pub async fn case<F: Future<Output = Result<(), String>>>(
        &self,
        name: &str,
        play: F,
    ) -> Result<(), String> {
        let media = self.media();
        let in_case = |error: String| format!("{name}: {error}");
        play.await.map_err(in_case)?;
        if self.media() != media {
            return Err(in_case("the media changed".into()));
        }
        let after = Host::connect(&self.env, self.address, &identity(0xC0), Digests::NONE).await;
        let mut host = after.map_err(|error| in_case(format!("no host can connect afterwards: {error}")))?;
        let read = host.read(1, 0, 8).await.map_err(in_case)?;
        if read != media[0][..4096] {
            return Err(in_case("a host reads something else afterwards".into()));
        }
        drop(host);
        self.settle().await.map_err(in_case)
    }

    /// The resources while no command of a witness is under way.
    pub async fn resources_at_rest(&self) -> Resources {
        // What is made on first use is there by then.
        self.sleep(Duration::from_secs(2)).await;
        let mut best = self.resources();
        for _ in 0..20 {
            self.sleep(Duration::from_millis(10)).await;
            let now = self.resources();
            if now.free_buffers > best.free_buffers {
                best = now;
            }
        }
        best
    }

    /// Waits until the target has the resources it had.
    pub async fn settle(&self) -> Result<(), String> {
        let until = self.env.now().plus(SETTLE);
        while Some(self.resources()) != self.baseline {
            if self.env.now() >= until {
                return Err(format!("{:?} became {:?}", self.baseline, self.resources()));
            }
            self.sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
