//! The node under test: the target's server and one pass-through volume, put together as a real node is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_env::mesh::ReactorId;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{Spawn, Volume};
use ashlar_iscsi::limits::Limits;
use ashlar_iscsi::scsi::Shared;
use ashlar_iscsi::server::Server;
use ashlar_iscsi::server::message::Message;
use ashlar_iscsi::view::{Access, AluaState, Portal, Target, Targets, Unit};
use ashlar_sim::{Control, DiskId, NodeId, SimAccepted, SimDisk, SimEnv, SimMesh};
use ashlar_volume::remote::{self, VolumeMessage};
use ashlar_volume::{AnyVolume, Exchange, NoStore, PassThrough, Reservations, Settings, scratch_pool};

pub const TARGET: &str = "iqn.2026-11.io.ashlar:simulated";
pub const PORT: u16 = 3260;
const REGISTRY: ReactorId = ReactorId(0);

/// What the reactors of the node send each other.
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

type Mailbox = SimMesh<NodeMessage>;
type AnyVol = AnyVolume<SimEnv, SimDisk, Mailbox, NodeMessage>;
pub type TargetServer = Server<SimEnv, AnyVol, NodeMessage, Mailbox>;

/// What is served, and by how many reactors.
#[derive(Clone, Debug)]
pub struct Service {
    pub node: NodeId,
    pub disk: DiskId,
    pub block: BlockSize,
    /// The reactor the volume lives on.
    pub home: u16,
    pub limits: Limits,
    pub access: Access,
}

/// The node in one life.
pub struct Life {
    pub servers: Vec<TargetServer>,
    volumes: Vec<AnyVol>,
}

impl Life {
    /// Puts a configuration in force on every reactor.
    pub fn set_targets(&self, targets: &Arc<Targets>) {
        for (server, volume) in self.servers.iter().zip(&self.volumes) {
            server.set_targets(targets, |_| Some(volume.clone()));
        }
    }
}

impl Service {
    /// Starts the node's tasks in its present life, the `life`th.
    pub fn start(&self, control: &Control, life: u64) -> Life {
        let ends = control.mesh::<NodeMessage>(self.node);
        let exchanges: Vec<_> =
            ends.iter().map(|end| Exchange::new(end.clone(), remote::Limits::default())).collect();
        let envs: Vec<SimEnv> = (0..ends.len()).map(|n| control.env(self.node, n as u16)).collect();
        let volumes = self.open(&envs, &exchanges);
        let shared = Arc::new(Shared::default());
        let mut servers = Vec::new();
        for (reactor, end) in ends.into_iter().enumerate() {
            let (env, limits) = (envs[reactor].clone(), self.limits.clone());
            let first = life << 32 | 1;
            let server = TargetServer::new(env.clone(), end, limits, REGISTRY, Arc::clone(&shared), first);
            let deliver = server.clone();
            env.spawn(exchanges[reactor].clone().run(move |event| {
                if let remote::Event::Other(_, NodeMessage::Target(message)) = event {
                    deliver.deliver(message);
                }
            }));
            servers.push(server);
        }
        let life = Life { servers, volumes };
        life.set_targets(&Arc::new(self.targets(&life)));
        life.servers[0]
            .listen(([0, 0, 0, 0], PORT).into())
            .expect("a node that just started has its ports free");
        life
    }

    fn open(&self, envs: &[SimEnv], exchanges: &[Exchange<Mailbox, NodeMessage, AnyVol>]) -> Vec<AnyVol> {
        let home = usize::from(self.home);
        let settings = Settings {
            id: VolumeId(uuid::Uuid::from_u128(0x51)),
            block_size: self.block,
            read_only: false,
            reservations: Reservations::default(),
            scratch: scratch_pool(),
        };
        let disk = envs[home].open_disk(self.disk);
        let volume = PassThrough::new(envs[home].clone(), disk, settings, NoStore).expect("a volume");
        let info = volume.info();
        let volume = AnyVolume::PassThrough(volume);
        exchanges[home].publish(volume.clone());
        let reach = |(reactor, exchange): (usize, &Exchange<_, _, _>)| {
            if reactor == home {
                return volume.clone();
            }
            AnyVolume::Remote(exchange.remote(ReactorId(self.home), info))
        };
        exchanges.iter().enumerate().map(reach).collect()
    }

    /// The configuration: one target with one unit.
    pub fn targets(&self, life: &Life) -> Targets {
        let unit = Unit { volume: life.volumes[0].info(), name: "simulated".into(), port_group: 1 };
        let target = Target {
            name: TARGET.into(),
            alias: "simulated".into(),
            access: self.access.clone(),
            listen: BTreeSet::new(),
            units: BTreeMap::from([(1, unit)]),
            port_groups: BTreeMap::from([(1, AluaState::Optimized)]),
        };
        let portal = Portal { tag: 1, listen: ([0, 0, 0, 0], PORT).into(), advertise: None };
        Targets { targets: BTreeMap::from([(TARGET.into(), target)]), portals: vec![portal] }
    }
}
