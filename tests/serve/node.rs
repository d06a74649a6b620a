//! Running a node, and what a test does to it. Everything waits with a bound.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use ashlar_cluster::api::{
    AttachVolumeRequest, CreateHostRequest, CreateTargetRequest, CreateVolumeRequest, TargetView, VolumeView,
};
use ashlar_cluster::client::Client;
use ashlar_cluster::state::Backing;
use ashlar_nvmeof::wire::{Sqe, Status};
use ashlar_perf::client::{Controller, Data, HostOptions, Queue, io};
use tempfile::TempDir;

/// How long a start or an end may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory for a node, with its configuration.
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// A fresh one, on ports that the kernel picks.
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.configure(&["127.0.0.1:0"], "127.0.0.1:0");
        place
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn config(&self) -> PathBuf {
        self.path("ashlar.toml")
    }

    /// Writes a configuration with these addresses.
    pub fn configure(&self, nvme: &[&str], api: &str) {
        self.configure_data(&self.data(), nvme, api);
    }

    pub fn configure_data(&self, data: &Path, nvme: &[&str], api: &str) {
        let text = format!(
            "[node]\nname = \"test\"\ndata = {data:?}\n[nvmeof]\nlisten = {nvme:?}\ndiscovery = []\n\
             [iscsi]\nlisten = [\"127.0.0.1:0\"]\n[api]\nlisten = \"{api}\"\n"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// A file of `size_bytes` zeros for a volume.
    pub fn image(&self, name: &str, size_bytes: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(size_bytes).unwrap();
        path
    }

    /// `ashlar serve` here, not started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
        command.arg("serve").arg("--config").arg(self.config());
        command.env_remove("ASHLAR_LOG").env_remove("ASHLAR_API").stdin(Stdio::null());
        command
    }

    /// A node that serves from here.
    pub fn start(&self) -> Node {
        self.start_as(self.command())
    }

    /// The same, started in another way.
    pub fn start_as(&self, mut command: Command) -> Node {
        let log = self.path("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let skip = file.metadata().unwrap().len() as usize;
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let (client, nvme, iscsi) = (Client::new("127.0.0.1:1"), String::new(), String::new());
        let mut node = Node { child, log, skip, client, nvme, iscsi };
        node.wait_until_ready();
        node
    }

    /// Runs a node that must refuse to start with this exit code. Returns what it said.
    pub fn refuses(&self, code: i32) -> String {
        refuses(self.command(), code)
    }
}

/// Runs a command that must end with `code` and say something that a person can use. Returns what it said.
pub fn refuses(mut command: Command, code: i32) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait(&mut child);
    if ended.is_none() {
        let _ = child.kill();
    }
    let Output { stderr, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    let code_seen = ended.expect("the node goes on instead of refusing").code();
    assert_eq!(code_seen, Some(code), "{text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("error: ")), "{text}");
    text
}

/// How the process ended; `None` where it did not.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running node; killed when dropped.
pub struct Node {
    child: Child,
    log: PathBuf,
    /// Bytes of the log that earlier nodes wrote.
    skip: usize,
    pub client: Client,
    /// Where NVMe/TCP listens.
    pub nvme: String,
    /// Where iSCSI listens.
    pub iscsi: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let api = loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(" ready ")) {
                break word_after(line, "api=").to_owned();
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "the node ended: {log}");
            assert!(Instant::now() < deadline, "the node is not ready: {log}");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.client = Client::new(&api);
        let node = self.client.status().unwrap().node;
        (self.nvme, self.iscsi) = (node.nvme_listen[0].to_string(), node.iscsi_listen[0].to_string());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What this node has logged so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap();
        String::from_utf8(bytes[self.skip..].to_vec()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(sent.unwrap().success());
    }

    /// Asks the node to stop: it must end with 0 within 10 s of being asked. Returns how long it took.
    pub fn stop(mut self) -> Duration {
        let asked = Instant::now();
        self.signal("TERM");
        let status = wait(&mut self.child);
        let took = asked.elapsed();
        let log = self.log();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{log}");
        assert!(took < Duration::from_secs(10), "{took:?}: {log}");
        assert!(!log.contains("panicked"), "{log}");
        took
    }

    /// kill -9.
    pub fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// Asserts that the node still runs and answers.
    pub fn assert_well(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.log());
        self.client.status().unwrap();
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> String {
        let mut stream =
            TcpStream::connect(self.client.base().trim_start_matches("http://").trim_end_matches('/'))
                .unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until `holds`.
    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not so in time: {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command line against this node. Returns the exit code and both streams in one.
    pub fn cli(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
        let output = command.args(arguments).env("ASHLAR_API", self.client.base()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    pub fn image(&self, name: &str, path: &Path) -> VolumeView {
        let backing = Backing::Image { path: path.to_str().unwrap().into() };
        self.client.create_volume(&volume(name, backing, None)).unwrap()
    }

    /// A target `name` with these volumes that lets in [`host`]'s host.
    pub fn target(&self, name: &str, volumes: &[&str]) -> TargetView {
        let request = CreateTargetRequest { name: name.into(), ..CreateTargetRequest::default() };
        self.client.create_target(&request).unwrap();
        for &volume in volumes {
            let request = AttachVolumeRequest { volume: volume.into(), nsid: None };
            self.client.attach_volume(name, &request).unwrap();
        }
        let nqn = Some(HostOptions::new("", "").hostnqn);
        let request = CreateHostRequest { name: "host".into(), nqn, ..CreateHostRequest::default() };
        // Another target's test host is the same.
        let _ = self.client.create_host(&request);
        self.client.allow_host(name, "host").unwrap()
    }

    /// How our host connects to target `name`.
    pub fn host(&self, name: &str) -> HostOptions {
        HostOptions { timeout: PATIENCE, ..HostOptions::new(&self.nvme, &nqn(name)) }
    }

    /// Connects to target `name`, with one I/O queue.
    pub fn connect(&self, name: &str) -> Host {
        Host::connect(&self.host(name)).unwrap()
    }
}

/// The rest of the word after `key` in a line of the log.
fn word_after<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(key).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split_whitespace().next().unwrap()
}

/// The NQN that a target gets by itself.
pub fn nqn(target: &str) -> String {
    format!("nqn.2026-11.io.ashlar:{target}")
}

pub fn volume(name: &str, backing: Backing, size_bytes: Option<u64>) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        backing,
        size_bytes,
        block_size_bytes: None,
        read_only: false,
        compression: None,
        copies: None,
    }
}

/// Our host: one controller, one I/O queue.
pub struct Host {
    pub controller: Controller,
    pub queue: Queue,
}

/// The largest transfer of [`Host`]'s queue, in bytes.
pub const TRANSFER_BYTES: usize = 64 << 10;

impl Host {
    pub fn connect(options: &HostOptions) -> ashlar_perf::client::Result<Self> {
        let mut controller = Controller::connect(options)?;
        controller.request_io_queues(1)?;
        let queue = controller.io_queue(1, 16, TRANSFER_BYTES, true)?;
        Ok(Self { controller, queue })
    }

    pub fn call(&mut self, sqe: Sqe, data: Data, payload: &[u8]) -> (Status, Vec<u8>) {
        let reply = self.queue.call(sqe, data, payload, PATIENCE).unwrap();
        (reply.completion.status, reply.data)
    }

    /// Writes one block of `block` bytes.
    pub fn write(&mut self, nsid: u32, lba: u64, block: &[u8]) -> Status {
        self.call(io::write(nsid, lba, 1, false), Data::ToController(block.len() as u32), block).0
    }

    pub fn flush(&mut self, nsid: u32) -> Status {
        self.call(io::flush(nsid), Data::None, &[]).0
    }

    /// Reads one block.
    pub fn read(&mut self, nsid: u32, lba: u64, block_bytes: u32) -> Vec<u8> {
        let (status, data) = self.call(io::read(nsid, lba, 1), Data::FromController(block_bytes), &[]);
        assert_eq!(status, Status::SUCCESS);
        data
    }
}

/// Overwrites a file in place with other bytes.
pub fn overwrite(path: &Path, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all(bytes).unwrap();
}
