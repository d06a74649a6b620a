//! The node under test: reactors with their servers and exchanges, volumes on disks, put together as the node's
//! own program does it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use ashlar_env::mesh::ReactorId;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::VolumeInfo;
use ashlar_env::{Env, Spawn, Volume};
use ashlar_nvmeof::hub::HubConfig;
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::server::Server;
use ashlar_nvmeof::server::message::Message;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
use ashlar_sim::{Control, DiskId, NodeId, SimAccepted, SimDisk, SimEnv, SimMesh};
use ashlar_volume::remote::{self, Exchange};
use ashlar_volume::{AnyVolume, NoStore, PassThrough, Reservations, Settings, VolumeMessage, scratch_pool};

use crate::flaw::{Flaw, Flawed};

pub const PORT: u16 = 4420;
/// The reactor that accepts and holds the hub.
const HUB: ReactorId = ReactorId(0);

type Mesh = SimMesh<NodeMessage>;
type Any = Flawed<AnyVolume<SimEnv, SimDisk, Mesh, NodeMessage>>;

/// What the reactors send each other.
pub enum NodeMessage {
    Volume(VolumeMessage),
    Target(Message<SimAccepted>),
}

impl From<VolumeMessage> for NodeMessage {
    fn from(message: VolumeMessage) -> Self {
        Self::Volume(message)
    }
}

impl From<Message<SimAccepted>> for NodeMessage {
    fn from(message: Message<SimAccepted>) -> Self {
        Self::Target(message)
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

/// A volume of the node.
#[derive(Clone, Copy, Debug)]
pub struct VolumePlan {
    pub disk: DiskId,
    pub block: BlockSize,
    pub blocks: u64,
    pub volatile_cache: bool,
    pub home: u16,
}

/// A subsystem: its volumes by NSID, as their places among the node's.
pub type SubsystemPlan = BTreeMap<u32, usize>;

/// What the node is, through all its lives.
#[derive(Clone, Debug)]
pub struct NodePlan {
    pub node: NodeId,
    pub reactors: u16,
    pub volumes: Vec<VolumePlan>,
    pub subsystems: Vec<SubsystemPlan>,
    pub flaw: Flaw,
}

/// The name of a subsystem.
pub fn subsystem_nqn(number: usize) -> String {
    format!("nqn.2014-08.org.nvmexpress:simulated:{number}")
}

/// One life of the node.
pub struct Life {
    control: Control,
    node: NodeId,
    servers: Vec<Server<SimEnv, Any, NodeMessage, Mesh>>,
    exchanges: Vec<Exchange<Mesh, NodeMessage, Any>>,
    free_buffers: Vec<usize>,
    /// How many tasks an idle node has: those of its start, and one that each volume makes when it is first used.
    tasks: RangeInclusive<usize>,
}

/// The node of a run, which may die and live again.
pub type Shared = Rc<RefCell<Option<Life>>>;

impl NodePlan {
    /// Starts the node; `lives` is how often it has lived before.
    pub fn start(&self, control: &Control, lives: u64) -> Life {
        let limits = Limits { io_queue_entries_max: 128, ..Limits::default() };
        let envs: Vec<SimEnv> = (0..self.reactors).map(|r| control.env(self.node, r)).collect();
        let free_buffers = envs.iter().map(|env| env.buffers().free_count()).collect();
        let mut servers = Vec::new();
        let mut exchanges = Vec::new();
        for (env, mesh) in envs.iter().zip(control.mesh::<NodeMessage>(self.node)) {
            let hub = (env.reactor() == HUB.0).then(|| hub_config(&limits, lives));
            let server = Server::new(env.clone(), mesh.clone(), limits.clone(), HUB, hub);
            let exchange: Exchange<Mesh, NodeMessage, Any> = Exchange::new(mesh, remote::Limits::default());
            let deliver = server.clone();
            env.spawn(exchange.clone().run(move |event| {
                if let remote::Event::Other(_, NodeMessage::Target(message)) = event {
                    deliver.deliver(message);
                }
            }));
            servers.push(server);
            exchanges.push(exchange);
        }
        let volumes = self.open(&envs, &exchanges);
        let targets = Arc::new(self.targets(&volumes));
        for (reactor, server) in servers.iter().enumerate() {
            server.set_targets(&targets, |id| {
                let at = volumes.iter().position(|volume| volume.info.id == id)?;
                Some(volumes[at].handles[reactor].clone())
            });
        }
        servers[0].listen(self.listens()).expect("a fresh node has its ports free");
        let started = control.task_count(self.node);
        let tasks = started..=started + self.volumes.len();
        Life { control: control.clone(), node: self.node, servers, exchanges, free_buffers, tasks }
    }

    /// Opens every volume at its home, and gives every reactor a way to it.
    fn open(&self, envs: &[SimEnv], exchanges: &[Exchange<Mesh, NodeMessage, Any>]) -> Vec<OpenVolume> {
        let open_one = |(number, plan): (usize, &VolumePlan)| {
            let home = usize::from(plan.home);
            let env = envs[home].clone();
            let settings = Settings {
                id: volume_id(number),
                block_size: plan.block,
                read_only: false,
                reservations: Reservations::default(),
                scratch: scratch_pool(),
            };
            let disk = env.open_disk(plan.disk);
            let volume = PassThrough::new(env, disk, settings, NoStore).expect("the disk holds blocks");
            let volume = Flawed::new(AnyVolume::PassThrough(volume), self.flaw);
            let info = volume.info();
            exchanges[home].publish(volume.clone());
            let handle = |(at, exchange): (usize, &Exchange<Mesh, NodeMessage, Any>)| {
                if at == home {
                    return volume.clone();
                }
                let remote = exchange.remote(ReactorId(plan.home), info);
                Flawed::new(AnyVolume::Remote(remote), Flaw::None)
            };
            OpenVolume { info, handles: exchanges.iter().enumerate().map(handle).collect() }
        };
        self.volumes.iter().enumerate().map(open_one).collect()
    }

    fn targets(&self, volumes: &[OpenVolume]) -> Targets {
        let subsystem = |(number, plan): (usize, &SubsystemPlan)| {
            let namespace =
                |(&nsid, &at): (&u32, &usize)| (nsid, Namespace { volume: volumes[at].info, ana_group: 1 });
            let subsystem = Subsystem {
                serial: format!("SIM{number}"),
                access: Access::AnyHost,
                listen: std::collections::BTreeSet::new(),
                namespaces: plan.iter().map(namespace).collect(),
                ana_groups: [(1, AnaState::Optimized)].into(),
            };
            (subsystem_nqn(number), subsystem)
        };
        Targets {
            subsystems: self.subsystems.iter().enumerate().map(subsystem).collect(),
            ports: vec![Port { id: 1, listen: self.listens(), advertise: None }],
            referrals: Vec::new(),
        }
    }

    fn listens(&self) -> SocketAddr {
        ([0, 0, 0, 0], PORT).into()
    }

    /// Whether any volume of the subsystem has a volatile cache, which is what its controllers announce.
    pub fn has_volatile_cache(&self, subsystem: usize) -> bool {
        self.subsystems[subsystem].values().any(|&at| self.volumes[at].volatile_cache)
    }
}

/// A volume, and each reactor's handle of it.
struct OpenVolume {
    info: VolumeInfo,
    handles: Vec<Any>,
}

fn volume_id(number: usize) -> VolumeId {
    VolumeId(uuid::Uuid::from_u128(number as u128 + 1))
}

fn hub_config(limits: &Limits, lives: u64) -> HubConfig {
    HubConfig {
        limits: limits.clone(),
        cntlid_min: 1,
        cntlid_max: 0xFFEF,
        model: "Simulated".into(),
        firmware: "1".into(),
        first_session: 1 + (lives << 32),
    }
}

impl Life {
    /// Connections served, over all reactors.
    pub fn connections(&self) -> usize {
        self.servers.iter().map(Server::connections).sum()
    }

    /// Controllers that this host has.
    pub fn controllers_of(&self, host_nqn: &str) -> usize {
        self.servers[0].controllers().iter().filter(|controller| controller.host_nqn == host_nqn).count()
    }

    /// What is left over though no host is connected.
    pub fn left_over(&self) -> Option<String> {
        let connections = self.connections();
        let controllers = self.servers[0].controllers().len();
        let calls: usize = self.exchanges.iter().map(Exchange::calls_open).sum();
        let tasks = self.control.task_count(self.node);
        let free: Vec<usize> = (0..self.servers.len())
            .map(|reactor| self.control.env(self.node, reactor as u16).buffers().free_count())
            .collect();
        let none = connections == 0
            && controllers == 0
            && calls == 0
            && self.tasks.contains(&tasks)
            && free == self.free_buffers;
        (!none).then(|| {
            format!(
                "{connections} connections, {controllers} controllers, {calls} calls to other reactors, {tasks} \
                 tasks instead of {:?}, free buffers {free:?} instead of {:?}",
                self.tasks, self.free_buffers
            )
        })
    }
}
