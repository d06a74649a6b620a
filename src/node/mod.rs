//! A running node: the reactors with their volumes and targets, and how the control plane reaches them.
//!
//! The control thread holds no part of the data path. It keeps the book of open volumes, and asks reactors to open,
//! resize and close them and to follow the configuration.

mod devices;
mod disk;
mod listen;
mod live;
mod message;
mod metrics;
mod reactor;
mod reservations;
mod storage;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ashlar_cluster::api::Phase;
use ashlar_cluster::service::{BoxFuture, ControlHandle, Live, Node, Storage};
use ashlar_cluster::state::{Action, Event, Refusal, RefusalKind, State, Volume};
use ashlar_config::{Config, Iscsi, Nvmeof, Spin};
use ashlar_env::mesh::ReactorId;
use ashlar_env::units::{BlockSize, VolumeId};
use ashlar_env::volume::VolumeInfo;
use ashlar_iscsi::scsi::Shared;
use ashlar_iscsi::view::Portal;
use ashlar_nvmeof::hub::HubConfig;
use ashlar_nvmeof::view::Port;
use ashlar_runtime::{OpenDevice, OpenError, OpenOptions, ReactorHandle, Runtime, RuntimeConfig};

pub(crate) use listen::CannotListen;
use message::NodeMessage;
pub(crate) use metrics::{EngineCounts, NodeMetrics, ReactorStats};
use reactor::{Backing, HUB_REACTOR, TargetLimits, VolumeSpec, here};
use reservations::Control;
use storage::NodeStorage;

/// How long a node that stops waits for what its hosts have in flight.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(8);

/// How long a node that starts waits for disks that are in use. The kernel gives up those of a process that was killed
/// only when its last I/O has ended, which may be after the process is gone.
const PREDECESSOR_TIME_MAX: Duration = Duration::from_secs(5);

/// What a leaf of a map takes in memory, in bytes: 512 entries and what holds them.
const LEAF_BYTES: u64 = 8 << 10;

/// A node of this process.
pub(crate) struct RunningNode {
    runtime: Mutex<Option<Runtime<NodeMessage>>>,
    reactors: Vec<ReactorHandle<NodeMessage>>,
    stats: Vec<ReactorStats>,
    book: Mutex<Book>,
    control: Control,
    storage: NodeStorage,
    phase: AtomicU8,
    started: Instant,
    nvmeof: Nvmeof,
    iscsi: Iscsi,
    open_to_all: bool,
    metrics: OnceLock<NodeMetrics>,
}

/// What the control thread knows of the volumes.
#[derive(Default)]
struct Book {
    open: BTreeMap<VolumeId, (ReactorId, VolumeInfo)>,
    faults: BTreeMap<VolumeId, String>,
    ports: Vec<Port>,
    portals: Vec<Portal>,
    /// What an operator should look at, one sentence each.
    attention: Vec<String>,
    next_home: u16,
}

impl RunningNode {
    /// Starts the reactors of `config`. `open_to_all`: new targets let every host in.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn start(config: &Config, open_to_all: bool, first_session: u64) -> Result<Arc<Self>, String> {
        let usable: Vec<u32> = ashlar_runtime::usable_cores().into_iter().map(|core| core as u32).collect();
        let cores = config.reactors.cores.choose(&usable).map_err(|error| error.to_string())?;
        let per_reactor = config.memory.buffers.get() / cores.len() as u64;
        let runtime = Runtime::start(RuntimeConfig {
            cores: cores.iter().map(|&core| core as usize).collect(),
            spin: match config.reactors.spin {
                Spin::For(time) => ashlar_runtime::Spin::Adaptive(time),
                Spin::Always => ashlar_runtime::Spin::Always,
            },
            buffer_bytes: usize::try_from(per_reactor).unwrap_or(usize::MAX),
            ..RuntimeConfig::default()
        });
        let runtime = runtime.map_err(|error| error.to_string())?;
        let reactors = runtime.reactors().to_vec();
        let limits = limits(config);
        let shared = Arc::new(Shared::default());
        let stats = reactors.iter().map(|handle| set_up(handle, &limits, &shared, first_session));
        let stats = stats.collect::<Result<_, String>>()?;
        // The hub is on the first reactor; the engine goes to another where there is one.
        let control = Control::default();
        let engine = reactors.last().expect("there is a reactor").clone();
        let leaves = usize::try_from(config.memory.map_cache.get() / LEAF_BYTES).unwrap_or(usize::MAX);
        let storage = NodeStorage::new(engine, Arc::clone(&control), leaves, config.scrub.rate.get());
        Ok(Arc::new(Self {
            runtime: Mutex::new(Some(runtime)),
            reactors,
            stats,
            book: Mutex::default(),
            control,
            storage,
            phase: AtomicU8::new(Phase::Starting as u8),
            started: Instant::now(),
            nvmeof: config.nvmeof.clone(),
            iscsi: config.iscsi.clone(),
            open_to_all,
            metrics: OnceLock::new(),
        }))
    }

    /// Opens the devices and volumes of `state`; one that cannot be opened is a fault, and the others are served.
    pub fn open_all(&self, state: &State) {
        self.storage.start(state, self.started + PREDECESSOR_TIME_MAX);
        for volume in state.volumes().values() {
            if let Err(why) = futures_lite::future::block_on(self.open(state, volume)) {
                tracing::error!(volume = %volume.name, why, "a volume cannot be served");
            }
        }
    }

    /// The control plane is there.
    pub fn connect_control(&self, control: ControlHandle) {
        assert!(self.control.set(control).is_ok(), "there is one control plane");
    }

    /// What scrubbing has done.
    pub fn scrub_counts(&self) -> Arc<EngineCounts> {
        self.storage.scrub_counts()
    }

    /// Where the metrics come from.
    pub fn set_metrics(&self, metrics: NodeMetrics) {
        assert!(self.metrics.set(metrics).is_ok(), "there is one registry");
    }

    /// The counters of each reactor.
    pub fn stats(&self) -> &[ReactorStats] {
        &self.stats
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Closes all connections once what they have in flight is done, and makes the volumes durable.
    pub fn drain(&self) {
        self.set_phase(Phase::Draining);
        let end = Instant::now() + DRAIN_TIME_MAX;
        self.on_all(|| here().drain());
        while self.connections() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        for handle in &self.reactors {
            let _ = handle.call(|_, _| async { here().flush().await }).wait();
        }
        self.storage.stop();
    }

    /// Stops the reactors.
    pub fn stop(&self) {
        drop(self.runtime.lock().expect("no panic while held").take());
    }

    fn connections(&self) -> usize {
        let count = |handle: &ReactorHandle<NodeMessage>| {
            handle.call(|_, _| async { here().connections() }).wait().unwrap_or(0)
        };
        self.reactors.iter().map(count).sum()
    }

    fn on_all(&self, act: impl Fn() + Clone + Send + 'static) {
        for handle in &self.reactors {
            let act = act.clone();
            let _ = handle.call(move |_, _| async move { act() }).wait();
        }
    }

    /// Opens `volume` of `state`, and makes it known to all reactors.
    async fn open(&self, state: &State, volume: &Volume) -> Result<(), String> {
        let id = VolumeId(volume.id.0);
        let opened = if volume.backing.is_log() {
            self.storage.open_volume(volume, &state.groups()[&volume.group()]).await
        } else {
            self.open_as_is(volume).await
        };
        match opened {
            Ok((home, info)) => {
                self.know(home, info).await;
                let mut book = self.book.lock().expect("no panic while held");
                book.faults.remove(&id);
                book.open.insert(id, (home, info));
                Ok(())
            }
            Err(why) => {
                self.book.lock().expect("no panic while held").faults.insert(id, why.clone());
                Err(why)
            }
        }
    }

    /// Opens a volume that needs no engine on the next reactor in turn.
    async fn open_as_is(&self, volume: &Volume) -> Result<(ReactorId, VolumeInfo), String> {
        let home = {
            let mut book = self.book.lock().expect("no panic while held");
            let home = ReactorId(book.next_home % self.reactors.len() as u16);
            book.next_home = home.0 + 1;
            home
        };
        let spec = spec(volume, self.started + PREDECESSOR_TIME_MAX)?;
        let control = Arc::clone(&self.control);
        let open = move |_, _| async move { here().open(spec, control) };
        let opened = self.reactors[usize::from(home.0)].call(open).await;
        Ok((home, opened.unwrap_or_else(|error| Err(error.to_string()))?))
    }

    async fn know(&self, home: ReactorId, info: VolumeInfo) {
        for handle in self.reactors.iter().filter(|handle| handle.id() != home) {
            let _ = handle.call(move |_, _| async move { here().know(home, info) }).await;
        }
    }

    async fn close(&self, id: VolumeId) {
        for handle in &self.reactors {
            let _ = handle.call(move |_, _| async move { here().close(id) }).await;
        }
        let mut book = self.book.lock().expect("no panic while held");
        book.open.remove(&id);
        book.faults.remove(&id);
    }

    async fn resize(&self, id: VolumeId, size_bytes: u64, shrink: bool) -> Result<(), String> {
        let home = self.book.lock().expect("no panic while held").open.get(&id).map(|(home, _)| *home);
        let home = home.ok_or("the volume is not served")?;
        let resize = move |_, _| async move { here().resize(id, size_bytes, shrink).await };
        let info =
            self.reactors[usize::from(home.0)].call(resize).await.map_err(|error| error.to_string())??;
        self.know(home, info).await;
        self.book.lock().expect("no panic while held").open.insert(id, (home, info));
        Ok(())
    }

    /// Makes all reactors follow `state`.
    async fn follow(&self, state: &State) {
        let (nvmeof, iscsi) = {
            let book = self.book.lock().expect("no panic while held");
            let volumes = book.open.iter().map(|(&id, &(_, info))| (id, info)).collect();
            let nvmeof = view::nvmeof::targets(state, &volumes, &book.ports, &self.nvmeof.referrals);
            (Arc::new(nvmeof), Arc::new(view::iscsi::targets(state, &volumes, &book.portals)))
        };
        // The hub goes last: what it tells hosts of is served everywhere by then.
        for handle in self.reactors.iter().rev() {
            let (nvmeof, iscsi) = (Arc::clone(&nvmeof), Arc::clone(&iscsi));
            let _ = handle.call(move |_, _| async move { here().set_targets(&nvmeof, &iscsi) }).await;
        }
    }

    async fn prepare_volume(&self, action: &mut Action) -> Result<(), Refusal> {
        let what = action.describe();
        let Action::CreateVolume(new) = action else { return Ok(()) };
        let ashlar_cluster::state::Backing::Image { path } = &mut new.backing else { return Ok(()) };
        let refuse = |kind, why: String| Err(Refusal::new(kind, what.clone(), why));
        let canonical = match std::fs::canonicalize(&*path) {
            Ok(canonical) => canonical,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let why = format!("{path} does not exist on this node");
                return refuse(RefusalKind::NotFound, why);
            }
            Err(error) => return refuse(RefusalKind::Failed, format!("{path}: {error}")),
        };
        let Some(text) = canonical.to_str() else {
            return refuse(RefusalKind::Invalid, format!("{} is not UTF-8", canonical.display()));
        };
        *path = text.to_owned();
        let (device, read_only) = match open_image(&canonical, new.read_only) {
            Ok(opened) => opened,
            Err(error) => return refuse(kind_of(&error), error.to_string()),
        };
        let probed = self.reactors[0].call(move |env, _| async move { reactor::probe(&env, device) }).await;
        let probed = probed.unwrap_or_else(|error| Err(error.to_string()));
        let info = match probed {
            Ok(info) => info,
            Err(why) => return refuse(RefusalKind::Failed, why),
        };
        if new.size_bytes.is_some_and(|asked| asked > info.size_bytes) {
            return refuse(RefusalKind::Invalid, format!("{path} has {} bytes", info.size_bytes));
        }
        let block_size_bytes = *new.block_size_bytes.get_or_insert(info.block_bytes.clamp(512, 4096));
        let whole = info.size_bytes / u64::from(block_size_bytes) * u64::from(block_size_bytes);
        if whole == 0 {
            let why = format!("{path} has {} bytes, less than one block", info.size_bytes);
            return refuse(RefusalKind::Invalid, why);
        }
        new.size_bytes.get_or_insert(whole);
        new.read_only |= read_only || info.read_only;
        Ok(())
    }
}

/// Opens an image; for reading only where it cannot be written or need not be.
fn open_image(path: &Path, read_only: bool) -> Result<(OpenDevice, bool), OpenError> {
    let options = OpenOptions { read_only, ..OpenOptions::default() };
    match OpenDevice::open(path, options) {
        Err(OpenError::NotWritable { .. }) if !read_only => {
            let options = OpenOptions { read_only: true, ..options };
            OpenDevice::open(path, options).map(|device| (device, true))
        }
        opened => opened.map(|device| (device, read_only)),
    }
}

/// Opens a disk, and tries again until `deadline` while it is in use.
fn once_free<T>(deadline: Instant, open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    loop {
        match open() {
            Err(OpenError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn kind_of(error: &OpenError) -> RefusalKind {
    match error {
        OpenError::NotFound { .. } => RefusalKind::NotFound,
        OpenError::InUse { .. } => RefusalKind::InUse,
        OpenError::NotADisk { .. } | OpenError::TooSmall { .. } | OpenError::BlockTooLarge { .. } => {
            RefusalKind::Invalid
        }
        _ => RefusalKind::Failed,
    }
}

fn set_up(
    handle: &ReactorHandle<NodeMessage>,
    limits: &TargetLimits,
    shared: &Arc<Shared>,
    first_session: u64,
) -> Result<ReactorStats, String> {
    let (limits, shared) = (limits.clone(), Arc::clone(shared));
    let hub = (handle.id() == HUB_REACTOR).then(|| HubConfig {
        limits: limits.nvmeof.clone(),
        cntlid_min: 1,
        cntlid_max: 0xFFEF,
        model: "Ashlar".into(),
        firmware: env!("CARGO_PKG_VERSION").into(),
        first_session,
    });
    let set_up =
        move |env, mesh| async move { reactor::set_up(&env, &mesh, &limits, hub, shared, first_session) };
    handle.call(set_up).wait().map_err(|error| error.to_string())
}

fn limits(config: &Config) -> TargetLimits {
    let (nvmeof, iscsi) = (&config.nvmeof.limits, &config.iscsi.limits);
    TargetLimits {
        nvmeof: ashlar_nvmeof::limits::Limits {
            max_transfer_bytes: u32::try_from(nvmeof.max_transfer.get()).unwrap_or(u32::MAX),
            io_queue_entries_max: nvmeof.queue_depth,
            io_queues_max: nvmeof.io_queues,
            controllers_max: nvmeof.max_controllers,
            connections_max: nvmeof.max_connections,
            connections_per_host_max: nvmeof.max_connections_per_host,
            unauthenticated_per_address_max: nvmeof.max_handshakes_per_address,
            handshake_timeout: nvmeof.handshake_timeout,
        },
        iscsi: ashlar_iscsi::limits::Limits {
            connections_max: iscsi.max_connections,
            unauthenticated_per_address_max: iscsi.max_logins_per_address,
            sessions_max: iscsi.max_sessions.into(),
            sessions_per_initiator_max: iscsi.max_sessions_per_host.into(),
            queue_depth: iscsi.queue_depth,
            login_timeout: iscsi.login_timeout,
            ..ashlar_iscsi::limits::Limits::default()
        },
    }
}

/// What the reactors need to serve `volume`; opens its image, for which it waits until `deadline` while it is in use.
fn spec(volume: &Volume, deadline: Instant) -> Result<VolumeSpec, String> {
    use ashlar_cluster::state::Backing as Stored;
    let backing = match &volume.backing {
        Stored::Image { path } => {
            let opened = once_free(deadline, || open_image(Path::new(path), volume.read_only));
            let (device, read_only) = opened.map_err(|error| error.to_string())?;
            if read_only && !volume.read_only {
                return Err(format!("{path} cannot be written any more"));
            }
            if device.size_bytes() < volume.size_bytes {
                let has = device.size_bytes();
                return Err(format!("{path} has {has} bytes, and the volume has {}", volume.size_bytes));
            }
            Backing::Device(device)
        }
        Stored::Memory => Backing::Memory,
        Stored::Null => Backing::Null,
        Stored::Log { .. } => return Err("it is not served as it is".into()),
    };
    Ok(spec_of(volume, backing))
}

/// What a reactor needs to serve `volume` from `backing`.
fn spec_of(volume: &Volume, backing: Backing) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId(volume.id.0),
        backing,
        block_size: BlockSize::new(volume.block_size_bytes).unwrap_or(BlockSize::B4096),
        size_bytes: volume.size_bytes,
        read_only: volume.read_only,
        reservation: volume.reservation.clone(),
    }
}

impl Node for RunningNode {
    fn prepare<'a>(
        &'a self,
        state: &'a Arc<State>,
        action: &'a mut Action,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            if let Action::ResizeVolume { volume, size_bytes, .. } = &*action
                && let Some(found) = state.volume(volume)
                && *size_bytes > found.size_bytes
            {
                let grown = self.resize(VolumeId(found.id.0), *size_bytes, false).await;
                return grown.map_err(|why| Refusal::new(RefusalKind::Failed, action.describe(), why));
            }
            if let Action::CreateTarget(new) = action {
                new.any_host |= self.open_to_all;
            }
            self.prepare_volume(action).await
        })
    }

    fn abandoned<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, ()> {
        // An image that grew stays larger than its volume: hosts may have seen the new size already.
        tracing::warn!(action = action.describe(), "prepared, but not carried out");
        Box::pin(async {})
    }

    fn changed<'a>(&'a self, state: &'a Arc<State>, events: &'a [Event]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut follow = false;
            let mut closing = Vec::new();
            for event in events {
                follow |= !matches!(event, Event::ReservationSaved { .. });
                match event {
                    Event::VolumeCreated { volume } => {
                        if let Some(volume) = state.volumes().get(volume)
                            && let Err(why) = self.open(state, volume).await
                        {
                            tracing::error!(volume = %volume.name, why, "a volume cannot be served");
                        }
                    }
                    Event::VolumeDeleted { volume, .. } => closing.push(VolumeId(volume.id.0)),
                    // The engine has the sizes that the snapshot holds; hosts are told of them.
                    Event::SnapshotRestored { volumes, .. } => {
                        for volume in volumes.iter().filter_map(|id| state.volumes().get(id)) {
                            let resized = self.resize(VolumeId(volume.id.0), volume.size_bytes, true).await;
                            if let Err(why) = resized {
                                tracing::error!(volume = %volume.name, why, "a restored volume has another size");
                            }
                        }
                    }
                    Event::VolumeResized { volume, size_bytes, size_bytes_before, .. }
                        if size_bytes < size_bytes_before =>
                    {
                        if let Err(why) = self.resize(VolumeId(volume.0), *size_bytes, true).await {
                            tracing::error!(volume = %volume, why, "a volume could not be made smaller");
                        }
                    }
                    _ => {}
                }
            }
            if follow {
                self.follow(state).await;
            }
            for id in closing {
                self.close(id).await;
            }
        })
    }

    fn storage(&self) -> &dyn Storage {
        &self.storage
    }

    fn live<'a>(&'a self, state: &'a Arc<State>) -> BoxFuture<'a, Live> {
        Box::pin(self.gather(state))
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Ready as u8 => Phase::Ready,
            phase if phase == Phase::Draining as u8 => Phase::Draining,
            _ => Phase::Starting,
        }
    }

    fn metrics(&self) -> String {
        self.metrics.get().map(NodeMetrics::render).unwrap_or_default()
    }
}
