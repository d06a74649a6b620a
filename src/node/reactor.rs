//! What a reactor of this node holds, and what the control thread does to it.
//!
//! The functions here run on a reactor, inside [`ashlar_runtime::ReactorHandle::call`]. What the reactor holds is
//! its own: it is reached through a thread-local, never from elsewhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ashlar_cluster::state::Reservation;
use ashlar_engine::ids::GroupId;
use ashlar_env::mesh::ReactorId;
use ashlar_env::reservation::HostId;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::{Issuer, Operation, VolumeInfo};
use ashlar_env::{BufPool, Clock, Disk, DiskInfo, Instant, Spawn, Volume};
use ashlar_iscsi::scsi::Shared;
use ashlar_iscsi::server::SessionReport;
use ashlar_nvmeof::hub::{ControllerReport, HubConfig};
use ashlar_runtime::{Device, MeshEnd, OpenDevice, ReactorEnv};
use ashlar_volume::remote::{self, Exchange};
use ashlar_volume::{AnyVolume, Null, PassThrough, Settings, scratch_pool};

use super::disk::NodeDisk;
use super::listen::Protocol;
use super::message::NodeMessage;
use super::metrics::ReactorStats;
use super::reservations::{Control, KeptReservations, restore};

pub(crate) type NodeMesh = MeshEnd<NodeMessage>;
pub(crate) type NodeVolume = AnyVolume<ReactorEnv, NodeDisk, NodeMesh, NodeMessage, KeptReservations>;
type NvmeServer = ashlar_nvmeof::server::Server<ReactorEnv, NodeVolume, NodeMessage, NodeMesh>;
type IscsiServer = ashlar_iscsi::server::Server<ReactorEnv, NodeVolume, NodeMessage, NodeMesh>;

/// What each target grants.
#[derive(Clone, Debug)]
pub(crate) struct TargetLimits {
    pub nvmeof: ashlar_nvmeof::limits::Limits,
    pub iscsi: ashlar_iscsi::limits::Limits,
}

/// The reactor that accepts connections and holds the hub.
pub(crate) const HUB_REACTOR: ReactorId = ReactorId(0);

/// Sessions of iSCSI are numbered apart from those of NVMe: above all microseconds since 1970.
const ISCSI_SESSIONS: u64 = 1 << 62;

/// A reactor's part of the node.
pub(crate) struct Reactor {
    env: ReactorEnv,
    nvme: NvmeServer,
    iscsi: IscsiServer,
    exchange: Exchange<NodeMesh, NodeMessage, NodeVolume>,
    volumes: RefCell<BTreeMap<VolumeId, NodeVolume>>,
    scratch: BufPool,
}

thread_local! {
    static REACTOR: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// The reactor at hand.
pub(crate) fn here() -> Rc<Reactor> {
    REACTOR.with_borrow(|reactor| reactor.clone().expect("the reactor was set up when the node started"))
}

/// What a volume is made of.
#[derive(Clone, Debug)]
pub(crate) struct VolumeSpec {
    pub id: VolumeId,
    pub backing: Backing,
    pub block_size: BlockSize,
    pub size_bytes: u64,
    pub read_only: bool,
    pub reservation: Option<Reservation>,
}

/// Where its data are.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    Device(OpenDevice),
    /// A volume of the engine, in this group.
    Log(GroupId),
    Memory,
    Null,
}

/// The properties of a device, as a reactor finds them.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn probe(env: &ReactorEnv, device: OpenDevice) -> Result<DiskInfo, String> {
    let device = device.attach(env).map_err(|error| error.to_string())?;
    Ok(device.info())
}

/// Sets this reactor up; once.
pub(crate) fn set_up(
    env: &ReactorEnv,
    mesh: &NodeMesh,
    limits: &TargetLimits,
    hub: Option<HubConfig>,
    shared: Arc<Shared>,
    first_session: u64,
) -> ReactorStats {
    let nvme = NvmeServer::new(env.clone(), mesh.clone(), limits.nvmeof.clone(), HUB_REACTOR, hub);
    let iscsi = IscsiServer::new(
        env.clone(),
        mesh.clone(),
        limits.iscsi.clone(),
        HUB_REACTOR,
        Arc::clone(&shared),
        first_session | ISCSI_SESSIONS,
    );
    // Whoever changes a reservation, hosts of both protocols hear of it.
    shared.carry_notices(|notices| here().nvme.tell(notices));
    nvme.carry_notices(move |notices| shared.tell(notices));
    let stats = ReactorStats { nvme: nvme.stats(), iscsi: iscsi.stats() };
    let exchange = Exchange::new(mesh.clone(), remote::Limits::default());
    let (to_nvme, to_iscsi) = (nvme.clone(), iscsi.clone());
    env.spawn(exchange.clone().run(move |event| match event {
        remote::Event::Other(_, NodeMessage::Nvme(message)) => to_nvme.deliver(message),
        remote::Event::Other(_, NodeMessage::Iscsi(message)) => to_iscsi.deliver(message),
        _ => {}
    }));
    let volumes = RefCell::default();
    let reactor = Reactor { env: env.clone(), nvme, iscsi, exchange, volumes, scratch: scratch_pool() };
    REACTOR.set(Some(Rc::new(reactor)));
    stats
}

impl Reactor {
    /// Opens a volume that is to live here.
    pub fn open(&self, spec: VolumeSpec, control: Control) -> Result<VolumeInfo, String> {
        let volume = self.make(&spec, control)?;
        Ok(self.publish(volume))
    }

    /// Opens a volume of the engine, which lives here.
    pub fn open_log(&self, spec: VolumeSpec, disk: NodeDisk, control: Control) -> Result<VolumeInfo, String> {
        let volume = self.pass_through(&spec, disk, control)?;
        Ok(self.publish(volume))
    }

    fn publish(&self, volume: NodeVolume) -> VolumeInfo {
        let info = volume.info();
        self.exchange.publish(volume.clone());
        self.volumes.borrow_mut().insert(info.id, volume);
        info
    }

    fn make(&self, spec: &VolumeSpec, control: Control) -> Result<NodeVolume, String> {
        let device = match &spec.backing {
            Backing::Null => {
                let blocks = spec.size_bytes >> spec.block_size.shift();
                let null = Null::new(spec.id, spec.block_size, blocks);
                return null.map(AnyVolume::Null).ok_or_else(|| "the volume has no blocks".into());
            }
            Backing::Memory => Device::memory(spec.size_bytes),
            Backing::Device(device) => device.clone().attach(&self.env).map_err(|error| error.to_string())?,
            Backing::Log(_) => return Err("a volume of the engine is opened where the engine is".into()),
        };
        self.pass_through(spec, NodeDisk::Device(device), control)
    }

    fn pass_through(
        &self,
        spec: &VolumeSpec,
        disk: NodeDisk,
        control: Control,
    ) -> Result<NodeVolume, String> {
        let settings = Settings {
            id: spec.id,
            block_size: spec.block_size,
            read_only: spec.read_only,
            reservations: restore(spec.reservation.as_ref())?,
            scratch: self.scratch.clone(),
        };
        let store = KeptReservations::new(control);
        let volume = PassThrough::new(self.env.clone(), disk, settings, store);
        volume.map(AnyVolume::PassThrough).map_err(|error| error.to_string())
    }

    /// Takes note of a volume that lives on another reactor.
    pub fn know(&self, home: ReactorId, info: VolumeInfo) {
        let remote = AnyVolume::Remote(self.exchange.remote(home, info));
        self.volumes.borrow_mut().insert(info.id, remote);
    }

    /// Lets a volume go. Operations under way end as they would have.
    pub fn close(&self, volume: VolumeId) {
        let _ = self.exchange.withdraw(volume);
        self.nvme.forget_volume(volume);
        self.iscsi.forget_volume(volume);
        self.volumes.borrow_mut().remove(&volume);
    }

    /// Resizes a volume that lives here.
    pub async fn resize(
        &self,
        volume: VolumeId,
        size_bytes: u64,
        shrink: bool,
    ) -> Result<VolumeInfo, String> {
        let volume = self.volumes.borrow().get(&volume).cloned();
        let info = match volume {
            Some(AnyVolume::PassThrough(volume)) => {
                volume.resize(size_bytes, shrink).await.map_err(|error| error.to_string())?
            }
            Some(AnyVolume::Null(null)) => {
                let before = null.info();
                let resized =
                    Null::new(before.id, before.block_size, size_bytes >> before.block_size.shift());
                let volume = AnyVolume::Null(resized.ok_or("the volume would have no blocks")?);
                self.exchange.publish(volume.clone());
                self.volumes.borrow_mut().insert(before.id, volume.clone());
                volume.info()
            }
            Some(AnyVolume::Remote(_)) | None => return Err("the volume is not served here".into()),
        };
        self.exchange.announce(info);
        Ok(info)
    }

    /// Makes all that was completed durable, for a clean end.
    pub async fn flush(&self) {
        let nobody = Issuer { host: HostId::default(), session: 0 };
        let local: Vec<_> = self.volumes.borrow().values().cloned().collect();
        for volume in local.into_iter().filter(|volume| matches!(volume, AnyVolume::PassThrough(_))) {
            // A failed flush has been told to the hosts whose writes it concerns.
            let _ = volume.execute(nobody, Operation::Flush).await;
        }
    }

    pub fn set_targets(
        &self,
        nvmeof: &Arc<ashlar_nvmeof::view::Targets>,
        iscsi: &Arc<ashlar_iscsi::view::Targets>,
    ) {
        let volumes = self.volumes.borrow();
        self.nvme.set_targets(nvmeof, |id| volumes.get(&id).cloned());
        self.iscsi.set_targets(iscsi, |id| volumes.get(&id).cloned());
    }

    pub fn listen(&self, protocol: Protocol, address: SocketAddr) -> Result<SocketAddr, String> {
        let listening = match protocol {
            Protocol::Nvme => self.nvme.listen(address),
            Protocol::Iscsi => self.iscsi.listen(address),
        };
        listening.map_err(|error| error.to_string())
    }

    pub fn drain(&self) {
        self.nvme.drain();
        self.iscsi.drain();
    }

    /// How many connections there are, by any protocol.
    pub fn connections(&self) -> usize {
        self.nvme.connections() + self.iscsi.connections()
    }

    pub fn report(&self) -> ReactorReport {
        ReactorReport {
            now: self.env.now(),
            connections: self.connections(),
            controllers: self.nvme.controllers(),
            sessions: self.iscsi.sessions(),
            nvme: self.nvme.volume_counts(),
            iscsi: self.iscsi.volume_counts(),
        }
    }
}

/// What goes on on a reactor.
pub(crate) struct ReactorReport {
    /// The reactor's time, to which the ages of controllers and sessions relate.
    pub now: Instant,
    pub connections: usize,
    pub controllers: Vec<ControllerReport>,
    pub sessions: Vec<SessionReport>,
    pub nvme: Vec<(VolumeId, ashlar_nvmeof::server::stats::VolumeCounts)>,
    pub iscsi: Vec<(VolumeId, ashlar_iscsi::server::stats::VolumeCounts)>,
}
