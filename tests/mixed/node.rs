//! A node that serves one volume by both protocols, put together as a real node is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ashlar_env::mesh::{Mesh, ReactorId};
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::VolumeInfo;
use ashlar_env::{Spawn, Volume};
use ashlar_iscsi::scsi::Shared;
use ashlar_nvmeof::hub::HubConfig;
use ashlar_sim::{Control, DiskId, NodeId, SimAccepted, SimDisk, SimEnv, SimMesh};
use ashlar_volume::remote::{self, VolumeMessage};
use ashlar_volume::{AnyVolume, Exchange, NoStore, PassThrough, Reservations, Settings, scratch_pool};

use super::{iscsi, nvme};

const HUB: ReactorId = ReactorId(0);

/// What the reactors of the node send each other.
pub enum NodeMessage {
    Volume(VolumeMessage),
    Nvme(ashlar_nvmeof::server::message::Message<SimAccepted>),
    Iscsi(ashlar_iscsi::server::message::Message<SimAccepted>),
}

impl From<VolumeMessage> for NodeMessage {
    fn from(message: VolumeMessage) -> Self {
        Self::Volume(message)
    }
}

impl From<ashlar_nvmeof::server::message::Message<SimAccepted>> for NodeMessage {
    fn from(message: ashlar_nvmeof::server::message::Message<SimAccepted>) -> Self {
        Self::Nvme(message)
    }
}

impl From<ashlar_iscsi::server::message::Message<SimAccepted>> for NodeMessage {
    fn from(message: ashlar_iscsi::server::message::Message<SimAccepted>) -> Self {
        Self::Iscsi(message)
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
type NvmeServer = ashlar_nvmeof::server::Server<SimEnv, AnyVol, NodeMessage, Mailbox>;
type IscsiServer = ashlar_iscsi::server::Server<SimEnv, AnyVol, NodeMessage, Mailbox>;

/// What is served, and by how many reactors.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub node: NodeId,
    pub disk: DiskId,
    pub block: BlockSize,
    /// The reactor the volume lives on.
    pub home: u16,
}

/// The targets of one reactor.
pub struct Reactor {
    nvme: NvmeServer,
    iscsi: IscsiServer,
}

impl Reactor {
    /// Connections and sessions that are not over.
    pub fn busy(&self) -> usize {
        self.nvme.connections() + self.iscsi.connections() + self.iscsi.sessions().len()
    }
}

impl Service {
    /// Starts the node's tasks in its present life, the `life`th. Gives the targets on each reactor.
    pub fn start(&self, control: &Control, life: u64) -> Vec<Reactor> {
        let ends = control.mesh::<NodeMessage>(self.node);
        let exchanges: Vec<_> =
            ends.iter().map(|end| Exchange::new(end.clone(), remote::Limits::default())).collect();
        let envs: Vec<SimEnv> = (0..ends.len()).map(|n| control.env(self.node, n as u16)).collect();
        let volumes = self.open(&envs, &exchanges);
        let shared = Arc::new(Shared::default());
        let mut reactors = Vec::new();
        for (at, end) in ends.into_iter().enumerate() {
            let reactor = servers(&envs[at], end, &shared, life);
            let (nvme, iscsi) = (reactor.nvme.clone(), reactor.iscsi.clone());
            envs[at].spawn(exchanges[at].clone().run(move |event| match event {
                remote::Event::Other(_, NodeMessage::Nvme(message)) => nvme.deliver(message),
                remote::Event::Other(_, NodeMessage::Iscsi(message)) => iscsi.deliver(message),
                _ => {}
            }));
            reactor
                .nvme
                .set_targets(&Arc::new(subsystems(volumes[at].info())), |_| Some(volumes[at].clone()));
            reactor.iscsi.set_targets(&Arc::new(targets(volumes[at].info())), |_| Some(volumes[at].clone()));
            reactors.push(reactor);
        }
        let free = "a node that just started has its ports free";
        reactors[0].nvme.listen(([0, 0, 0, 0], nvme::node::PORT).into()).expect(free);
        reactors[0].iscsi.listen(([0, 0, 0, 0], iscsi::node::PORT).into()).expect(free);
        reactors
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
}

fn servers(env: &SimEnv, end: Mailbox, shared: &Arc<Shared>, life: u64) -> Reactor {
    let first_session = life << 32 | 1;
    let hub = (end.here() == HUB).then(|| HubConfig {
        limits: Default::default(),
        cntlid_min: 1,
        cntlid_max: 0xFFEF,
        model: "Ashlar".into(),
        firmware: "0".into(),
        first_session,
    });
    Reactor {
        nvme: NvmeServer::new(env.clone(), end.clone(), Default::default(), HUB, hub),
        iscsi: IscsiServer::new(
            env.clone(),
            end,
            Default::default(),
            HUB,
            Arc::clone(shared),
            // The two protocols' sessions have numbers of their own, as in a node.
            first_session | 1 << 31,
        ),
    }
}

fn subsystems(volume: VolumeInfo) -> ashlar_nvmeof::view::Targets {
    use ashlar_nvmeof::view::{Access, AnaState, Namespace, Port, Subsystem, Targets};
    let subsystem = Subsystem {
        serial: "SIM".into(),
        access: Access::AnyHost,
        listen: BTreeSet::new(),
        namespaces: BTreeMap::from([(1, Namespace { volume, ana_group: 1 })]),
        ana_groups: BTreeMap::from([(1, AnaState::Optimized)]),
    };
    Targets {
        subsystems: BTreeMap::from([(nvme::node::SUBSYSTEM.into(), subsystem)]),
        ports: vec![Port { id: 1, listen: ([0, 0, 0, 0], nvme::node::PORT).into(), advertise: None }],
        referrals: Vec::new(),
    }
}

fn targets(volume: VolumeInfo) -> ashlar_iscsi::view::Targets {
    use ashlar_iscsi::view::{Access, AluaState, Portal, Target, Targets, Unit};
    let target = Target {
        name: iscsi::node::TARGET.into(),
        alias: "simulated".into(),
        access: Access::AnyHost,
        listen: BTreeSet::new(),
        units: BTreeMap::from([(1, Unit { volume, name: "simulated".into(), port_group: 1 })]),
        port_groups: BTreeMap::from([(1, AluaState::Optimized)]),
    };
    Targets {
        targets: BTreeMap::from([(iscsi::node::TARGET.into(), target)]),
        portals: vec![Portal { tag: 1, listen: ([0, 0, 0, 0], iscsi::node::PORT).into(), advertise: None }],
    }
}
