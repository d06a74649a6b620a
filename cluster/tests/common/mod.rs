//! A node without a data path, and a server over it on a loopback port.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ashlar_cluster::api::{IoCountersView, Phase};
use ashlar_cluster::client::Client;
use ashlar_cluster::http::{self, ShutdownTrigger};
use ashlar_cluster::service::{
    self, BoxFuture, ControlHandle, ControlMetrics, ControlPlane, Live, LiveController, LiveSession,
    LiveTarget, Node, Storage,
};
use ashlar_cluster::state::{Action, Backing, Event, Name, Refusal, RefusalKind, State};
use prometheus_client::registry::Registry;
use storage::{Engine, FakeStorage};
use tempfile::TempDir;

/// What the fake node knows and was told.
#[derive(Debug)]
pub struct Notes {
    pub phase: Phase,
    /// Sizes of the images that exist, by path.
    pub images: BTreeMap<String, u64>,
    /// Images that are open.
    pub open: BTreeSet<String>,
    pub events: Vec<Event>,
    pub prepared: usize,
    pub abandoned: usize,
    /// How long `live` takes.
    pub live_delay: Duration,
    /// How long `prepare` takes.
    pub prepare_delay: Duration,
}

pub struct FakeNode {
    pub notes: Mutex<Notes>,
    pub storage: FakeStorage,
    registry: Registry,
}

impl Node for FakeNode {
    fn prepare<'a>(
        &'a self,
        _: &'a Arc<State>,
        action: &'a mut Action,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            let delay = self.notes.lock().unwrap().prepare_delay;
            tokio::time::sleep(delay).await;
            let what = action.describe();
            let mut notes = self.notes.lock().unwrap();
            notes.prepared += 1;
            let Action::CreateVolume(new) = action else { return Ok(()) };
            let Backing::Image { path } = &new.backing else { return Ok(()) };
            if path.starts_with("/full/") {
                return Err(Refusal::new(RefusalKind::NoSpace, what, "the file system is full"));
            }
            let Some(size) = notes.images.get(path).copied() else {
                return Err(Refusal::new(RefusalKind::NotFound, what, format!("there is no file {path}")));
            };
            notes.open.insert(path.clone());
            new.size_bytes.get_or_insert(size);
            new.block_size_bytes.get_or_insert(512);
            Ok(())
        })
    }

    fn abandoned<'a>(&'a self, action: &'a Action) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut notes = self.notes.lock().unwrap();
            notes.abandoned += 1;
            if let Action::CreateVolume(new) = action
                && let Backing::Image { path } = &new.backing
            {
                notes.open.remove(path);
            }
        })
    }

    fn changed<'a>(&'a self, _: &'a Arc<State>, events: &'a [Event]) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.notes.lock().unwrap().events.extend_from_slice(events) })
    }

    fn live<'a>(&'a self, state: &'a Arc<State>) -> BoxFuture<'a, Live> {
        Box::pin(async move {
            let delay = self.notes.lock().unwrap().live_delay;
            tokio::time::sleep(delay).await;
            let controller = LiveController {
                controller_id: 7,
                host_nqn: "nqn.2014-08.org.example:esx1".into(),
                io_queues: 4,
                age_ms: 1000,
            };
            let session = LiveSession {
                tsih: 9,
                isid: [0x80, 0, 0, 0, 0, 1],
                initiator: "iqn.1991-05.com.microsoft:win1".into(),
                portal: 2,
                age_ms: 500,
            };
            let target = |name: &Name| {
                let here = LiveTarget {
                    connections: 5,
                    controllers: vec![controller.clone()],
                    nvme_addresses: vec!["127.0.0.1:4420".parse().unwrap()],
                    sessions: vec![session.clone()],
                    iscsi_addresses: vec!["127.0.0.1:3260".parse().unwrap()],
                };
                (name.clone(), here)
            };
            let io = |id: &_| (*id, IoCountersView { reads: 3, ..IoCountersView::default() });
            let storage = self.storage.report().await;
            Live {
                storage,
                uptime_ms: 1234,
                reactors: 2,
                nvme_listen: vec!["127.0.0.1:4420".parse().unwrap()],
                connections: 5,
                controllers: 1,
                iscsi_listen: vec!["127.0.0.1:3260".parse().unwrap()],
                sessions: 1,
                targets: state.targets().keys().map(target).collect(),
                io: state.volumes().keys().map(io).collect(),
                faults: BTreeMap::new(),
                attention: Vec::new(),
            }
        })
    }

    fn storage(&self) -> &dyn Storage {
        &self.storage
    }

    fn phase(&self) -> Phase {
        self.notes.lock().unwrap().phase
    }

    fn metrics(&self) -> String {
        ashlar_cluster::metrics::render(&self.registry)
    }
}

/// A control plane with its API, on a thread of its own as in the binary.
pub struct Server {
    pub address: SocketAddr,
    pub node: Arc<FakeNode>,
    pub control: ControlHandle,
    stop: Option<ShutdownTrigger>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    directory: Option<TempDir>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(directory: TempDir) -> Self {
        let mut registry = Registry::default();
        let metrics = ControlMetrics::register(&mut registry);
        let notes = Notes {
            phase: Phase::Ready,
            images: BTreeMap::from([("/srv/disk.raw".into(), 1 << 30)]),
            open: BTreeSet::new(),
            events: Vec::new(),
            prepared: 0,
            abandoned: 0,
            live_delay: Duration::ZERO,
            prepare_delay: Duration::ZERO,
        };
        let node = Arc::new(FakeNode { notes: Mutex::new(notes), storage: FakeStorage::default(), registry });
        let (store, state) = service::open(&store_path(&directory), &"rack1-a".parse().unwrap()).unwrap();
        let plane = ControlPlane::new(store, state, node.clone(), metrics);
        let control = plane.handle();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = http::shutdown();
        let thread = std::thread::spawn(move || http::serve(listener, plane, stopped));
        Server { address, node, control, stop: Some(stop), thread: Some(thread), directory: Some(directory) }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.address.to_string())
    }

    pub fn store_path(&self) -> PathBuf {
        store_path(self.directory.as_ref().unwrap())
    }

    pub fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.node.notes.lock().unwrap()
    }

    pub fn engine(&self) -> std::sync::MutexGuard<'_, Engine> {
        self.node.storage.engine.lock().unwrap()
    }

    /// Stops the server and starts another one over the same store.
    pub fn restart(mut self) -> Self {
        self.stop();
        Self::start_in(self.directory.take().unwrap())
    }

    /// Stops the server and waits until its thread has ended.
    pub fn stop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            stop.stop();
            thread.join().unwrap().unwrap();
        }
    }

    /// A raw connection to it, for what a proper client would never send.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends `request` and yields everything that comes back until the server closes.
    pub fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_ref());
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// A request with a JSON body, as text with the connection closed afterwards.
    pub fn json(&self, method: &str, path: &str, body: &str) -> String {
        self.raw(format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn store_path(directory: &TempDir) -> PathBuf {
    directory.path().join(ashlar_cluster::store::FILE_NAME)
}

/// Waits for a future that needs no executor of its own.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
