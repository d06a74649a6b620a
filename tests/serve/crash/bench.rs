//! A node with one device file, a group `db` with one volume of that name, and the books of that volume.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ashlar_cluster::api::AttachVolumeRequest;
use ashlar_cluster::state::Backing;

use super::ledger::{BLOCK_BYTES, Cut, Ledger};
use super::load::{Load, Shared, verify, verify_cut};
use super::random::Random;
use crate::node::{Node, Place, volume};

/// The least size of a device.
pub const DEVICE_BYTES: u64 = 1 << 30;
/// The target of all volumes.
pub const TARGET: &str = "vm";

/// A node's directory and what its volume must hold.
pub struct Bench {
    pub place: Place,
    pub ledger: Shared,
    pub random: Random,
    /// What is set in the environment of its nodes.
    environment: Vec<(&'static str, String)>,
}

impl Bench {
    /// A directory whose node makes itself a device file, `disk0`.
    pub fn new(seed: u64, blocks: u64) -> Self {
        let place = Place::new();
        let text = std::fs::read_to_string(place.config()).unwrap();
        let device = format!("[[device]]\nfile = {:?}\nsize = \"{DEVICE_BYTES}\"\n", place.path("disk0"));
        std::fs::write(place.config(), format!("{text}[memory]\nbuffers = \"128MiB\"\n{device}")).unwrap();
        let ledger = Arc::new(Mutex::new(Ledger::new(blocks, seed)));
        Self { place, ledger, random: Random::new(seed), environment: Vec::new() }
    }

    /// Has its nodes make a checkpoint after so many bytes.
    pub fn with_checkpoints_of(mut self, bytes: u64) -> Self {
        self.environment.push(("ASHLAR_TEST_CHECKPOINT_BYTES", bytes.to_string()));
        self
    }

    /// The command that starts its node.
    pub fn command(&self) -> Command {
        let mut command = self.place.command();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts its node.
    pub fn start(&self) -> Node {
        self.place.start_as(self.command())
    }

    /// Starts its node for the first time, and makes the volume and a target for it.
    pub fn create(&self) -> Node {
        let node = self.start();
        wait_for_devices(&node, 1);
        let blocks = self.ledger.lock().unwrap().blocks();
        let size_bytes = blocks * BLOCK_BYTES as u64;
        let log = Backing::Log { thick: false };
        node.client.create_volume(&volume("db", log, Some(size_bytes))).unwrap();
        node.target(TARGET, &["db"]);
        node
    }

    /// A load on the volume.
    pub fn load(&mut self, node: &Node) -> Load {
        Load::start(node.host(TARGET), 1, &self.ledger, self.random.next())
    }

    /// Looks at all of the volume.
    pub fn verify(&self, node: &Node) {
        verify(node, TARGET, 1, &self.ledger);
    }

    /// Makes a snapshot while a load may run. What it may hold, if it was made.
    pub fn snapshot(&self, node: &Node, name: &str) -> (Cut, bool) {
        self.ledger.lock().unwrap().begin_cut();
        let made = node.client.create_snapshot(name);
        (self.ledger.lock().unwrap().end_cut(), made.is_ok())
    }

    /// Looks at all of a snapshot, by a clone that is deleted afterwards.
    pub fn verify_snapshot(&self, node: &Node, name: &str, cut: &Cut) {
        node.client.clone_volume(name, "look").unwrap();
        let request = AttachVolumeRequest { volume: "db/look".into(), nsid: Some(2) };
        node.client.attach_volume(TARGET, &request).unwrap();
        verify_cut(node, TARGET, 2, &self.ledger, cut);
        node.client.detach_volume(TARGET, "db/look").unwrap();
        node.client.delete_volume("db/look").unwrap();
    }
}

/// Waits until the devices of the configuration were added: that goes on after the node is ready.
pub fn wait_for_devices(node: &Node, count: usize) {
    let deadline = std::time::Instant::now() + crate::node::PATIENCE;
    while node.client.devices().unwrap().devices.len() < count {
        assert!(std::time::Instant::now() < deadline, "{}", node.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// kill -9 that comes by itself.
pub struct Killer(std::thread::JoinHandle<()>);

impl Killer {
    /// Kills `node` after a while.
    pub fn after(node: &Node, wait: Duration) -> Self {
        let id = node.id().to_string();
        Self(std::thread::spawn(move || {
            std::thread::sleep(wait);
            assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
        }))
    }

    /// Waits until it has come.
    pub fn join(self) {
        self.0.join().expect("it was killed");
    }
}
