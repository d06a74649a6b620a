//! The node under test: the target's server and one pass-through volume, put together as a real node is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::{Spawn, Volume};
use ashlar_nvmeof::hub::HubConfig;
use ashlar_nvmeof::limits::Limits;
use ashlar_nvmeof::server::Server;
use ashlar_nvmeof::server::message::Message;
use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
use ashlar_sim::{Control, DiskId, NodeId, SimAccepted, SimDisk, SimEnv, SimMesh};
use ashlar_volume::remote::{self, VolumeMessage};
use ashlar_volume::{AnyVolume, Exchange, NoStore, PassThrough, Reservations, Settings, scratch_pool};

pub const SUBSYSTEM: &str = "nqn.2026-11.io.ashlar:simulated";
pub const PORT: u16 = 4420;
const HUB: ReactorId = ReactorId(0);

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
pub type Target = Server<SimEnv, AnyVol, NodeMessage, Mailbox>;

/// What is served, and by how many reactors.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub node: NodeId,
    pub disk: DiskId,
    pub block: BlockSize,
    /// The reactor the volume lives on.
    pub home: u16,
}

impl Service {
    /// Starts the node's tasks in its present life, the `life`th. Gives the target on each reactor.
    pub fn start(&self, control: &Control, life: u64) -> Vec<Target> {
        let ends = control.mesh::<NodeMessage>(self.node);
        let exchanges: Vec<_> =
            ends.iter().map(|end| Exchange::new(end.clone(), remote::Limits::default())).collect();
        let envs: Vec<SimEnv> = (0..ends.len()).map(|n| control.env(self.node, n as u16)).collect();
        let volumes = self.open(&envs, &exchanges);
        let targets = Arc::new(self.targets(&volumes[0]));
        let mut servers = Vec::new();
        for (reactor, end) in ends.into_iter().enumerate() {
            let hub = (end.here() == HUB).then(|| hub_config(life));
            let env = envs[reactor].clone();
            let server = Target::new(env.clone(), end, Limits::default(), HUB, hub);
            let deliver = server.clone();
            env.spawn(exchanges[reactor].clone().run(move |event| {
                if let remote::Event::Other(_, NodeMessage::Target(message)) = event {
                    deliver.deliver(message);
                }
            }));
            server.set_targets(&targets, |_| Some(volumes[reactor].clone()));
            servers.push(server);
        }
        servers[0].listen(([0, 0, 0, 0], PORT).into()).expect("a node that just started has its ports free");
        servers
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

    fn targets(&self, volume: &AnyVol) -> Targets {
        let subsystem = Subsystem {
            serial: "SIM".into(),
            access: Access::AnyHost,
            listen: BTreeSet::new(),
            namespaces: BTreeMap::from([(1, Namespace { volume: volume.info(), ana_group: 1 })]),
            ana_groups: BTreeMap::from([(1, AnaState::Optimized)]),
        };
        let listen = SocketAddr::from(([0, 0, 0, 0], PORT));
        Targets {
            subsystems: BTreeMap::from([(SUBSYSTEM.into(), subsystem)]),
            ports: vec![Port { id: 1, listen, advertise: None }],
            referrals: Vec::new(),
        }
    }
}

fn hub_config(life: u64) -> HubConfig {
    HubConfig {
        limits: Limits::default(),
        cntlid_min: 1,
        cntlid_max: 0xFFEF,
        model: "Ashlar".into(),
        firmware: "0".into(),
        first_session: life << 32 | 1,
    }
}
