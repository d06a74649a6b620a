//! A controller, brought up as a real host does it: admin queue, properties, identify, I/O queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ashlar_nvmeof::wire::Sqe;
use ashlar_nvmeof::wire::fabrics::{CATTR_DISABLE_SQ_FLOW_CONTROL, CONTROLLER_ANY, property};
use ashlar_nvmeof::wire::identify::{IdentifyController, IdentifyNamespace, cns};
use ashlar_nvmeof::wire::sqe::admin;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::fabrics;
use super::queue::{Data, Queue, QueueOptions, Reply};
use super::{ClientError, Digests, Result, dial};

/// Entries of the admin queue.
const ADMIN_ENTRIES: u16 = 32;
/// What any controller takes in an admin command capsule, in bytes.
const ADMIN_IN_CAPSULE_BYTES: u32 = 8192;
/// Most data sent in a command capsule though the controller would take more, in bytes: a larger write is
/// better asked for with R2T, by every host in use.
const IN_CAPSULE_BYTES_MAX: u32 = 8192;

/// Who connects, to what, and how.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Host name or address, and port.
    pub addr: String,
    /// NQN of the subsystem.
    pub subnqn: String,
    /// NQN of this host.
    pub hostnqn: String,
    /// Identifier of this host.
    pub host_id: [u8; 16],
    /// Digests to ask for, on every queue.
    pub digests: Digests,
    /// HPDA of every queue: 0 to 31.
    pub hpda: u8,
    /// Ask for queues without submission queue flow control, and so for the SUCCESS flag.
    pub no_flow_control: bool,
    /// Keep-alive timeout in milliseconds; 0 for none.
    pub kato_ms: u32,
    /// How long each step of the set-up may take.
    pub timeout: Duration,
}

impl HostOptions {
    /// A host with a fixed name that connects to `subnqn` at `addr`, without digests, flow control or
    /// keep-alive, allowing 10 s for each step.
    #[must_use]
    pub fn new(addr: &str, subnqn: &str) -> Self {
        Self {
            addr: addr.into(),
            subnqn: subnqn.into(),
            hostnqn: "nqn.2014-08.org.nvmexpress:uuid:a54a7000-10ad-4ad0-8000-000000000001".into(),
            host_id: [0xA5, 0x4A, 0x70, 0, 0x10, 0xAD, 0x4A, 0xD0, 0x80, 0, 0, 0, 0, 0, 0, 1],
            digests: Digests::NONE,
            hpda: 0,
            no_flow_control: true,
            kato_ms: 0,
            timeout: Duration::from_secs(10),
        }
    }

    fn cattr(&self) -> u8 {
        if self.no_flow_control { CATTR_DISABLE_SQ_FLOW_CONTROL } else { 0 }
    }
}

/// A namespace, from Identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its identifier.
    pub nsid: u32,
    /// Its size in blocks.
    pub blocks: u64,
    /// The size of a block in bytes.
    pub block_bytes: u32,
}

/// An enabled controller and its admin queue.
pub struct Controller {
    options: HostOptions,
    admin: Queue,
    cntlid: u16,
    io_entries_max: u32,
    in_capsule_bytes: u32,
    transfer_bytes_max: u64,
}

impl Controller {
    /// Connects, enables the controller and reads its limits.
    ///
    /// # Errors
    /// The connection fails, the controller refuses, breaks the protocol or is not ready in time.
    pub fn connect(options: &HostOptions) -> Result<Self> {
        let mut admin = Queue::open(
            dial(&options.addr, options.timeout)?,
            QueueOptions {
                depth: ADMIN_ENTRIES - 1,
                payload_bytes: ADMIN_IN_CAPSULE_BYTES as usize,
                in_capsule_bytes: ADMIN_IN_CAPSULE_BYTES,
                digests: options.digests,
                hpda: options.hpda,
                keep_read_data: true,
            },
            options.timeout,
        )?;
        let connect = fabrics::connect(0, ADMIN_ENTRIES, options.cattr(), options.kato_ms);
        let data = fabrics::connect_data(options.host_id, CONTROLLER_ANY, &options.subnqn, &options.hostnqn);
        let reply = admin.call(connect, Data::ToController(1024), data.as_bytes(), options.timeout)?;
        let cntlid = expect("Connect of the admin queue", &reply)?.completion.dw0 as u16;
        let mut controller = Self {
            options: options.clone(),
            admin,
            cntlid,
            io_entries_max: 0,
            in_capsule_bytes: 0,
            transfer_bytes_max: 0,
        };
        controller.enable()?;
        controller.read_limits()?;
        Ok(controller)
    }

    /// CC.EN = 1 with the usual entry sizes, then CSTS.RDY = 1.
    fn enable(&mut self) -> Result<()> {
        let cap = self.property(property::CAPABILITIES, true)?;
        self.io_entries_max = (cap as u32 & 0xFFFF) + 1;
        // IOCQES 4, IOSQES 6, MPS 4 KiB, NVM command set, enable.
        self.set_property(property::CONFIGURATION, 4 << 20 | 6 << 16 | 1)?;
        let deadline = Instant::now() + self.options.timeout;
        loop {
            let csts = self.property(property::STATUS, false)?;
            if csts & 2 != 0 {
                return Err(ClientError::Setup(format!(
                    "the controller reports a fatal state: CSTS {csts:#x}"
                )));
            }
            if csts & 1 != 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(ClientError::Timeout("CC.EN"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// MDTS and IOCCSZ from Identify Controller (Base, section 5.17.2.1).
    fn read_limits(&mut self) -> Result<()> {
        let data = self.identify(cns::CONTROLLER, 0)?;
        let identity = parse::<IdentifyController>(&data)?;
        let cntlid = identity.cntlid.get();
        if cntlid != self.cntlid {
            return Err(ClientError::Protocol(format!(
                "Identify names controller {cntlid:#06x}, Connect {:#06x}",
                self.cntlid
            )));
        }
        let mdts = u32::from(identity.mdts);
        self.transfer_bytes_max =
            if mdts == 0 { u64::MAX } else { 4096u64.checked_shl(mdts).unwrap_or(u64::MAX) };
        let ioccsz = identity.ioccsz.get();
        self.in_capsule_bytes = ioccsz.saturating_mul(16).saturating_sub(64).min(IN_CAPSULE_BYTES_MAX);
        Ok(())
    }

    /// The controller identifier.
    #[must_use]
    pub fn cntlid(&self) -> u16 {
        self.cntlid
    }

    /// The largest transfer of one command in bytes (MDTS).
    #[must_use]
    pub fn transfer_bytes_max(&self) -> u64 {
        self.transfer_bytes_max
    }

    /// The largest data of an I/O command capsule that this host will use, in bytes.
    #[must_use]
    pub fn in_capsule_bytes(&self) -> u32 {
        self.in_capsule_bytes
    }

    /// Entries of an I/O queue, at most.
    #[must_use]
    pub fn io_entries_max(&self) -> u32 {
        self.io_entries_max
    }

    /// Sends an admin command and waits for its end. A bad status is not an error here.
    ///
    /// # Errors
    /// The connection fails or no answer comes in time.
    pub fn admin(&mut self, sqe: Sqe, data: Data, payload: &[u8]) -> Result<Reply> {
        self.admin.call(sqe, data, payload, self.options.timeout)
    }

    /// A property: 8 bytes where `wide`, else 4.
    ///
    /// # Errors
    /// As [`admin`](Self::admin), or the controller refuses.
    pub fn property(&mut self, offset: u32, wide: bool) -> Result<u64> {
        let reply = self.admin(fabrics::property_get(offset, wide), Data::None, &[])?;
        let done = expect("Property Get", &reply)?.completion;
        Ok(u64::from(done.dw0) | u64::from(done.dw1) << 32)
    }

    /// Sets a property of 4 bytes.
    ///
    /// # Errors
    /// As [`admin`](Self::admin), or the controller refuses.
    pub fn set_property(&mut self, offset: u32, value: u32) -> Result<()> {
        let reply = self.admin(fabrics::property_set(offset, value), Data::None, &[])?;
        expect("Property Set", &reply).map(|_| ())
    }

    /// The 4096 bytes of Identify with `cns` for `nsid`.
    ///
    /// # Errors
    /// As [`admin`](Self::admin), or the controller refuses.
    pub fn identify(&mut self, cns: u8, nsid: u32) -> Result<Vec<u8>> {
        let mut sqe = fabrics::command(admin::IDENTIFY, nsid);
        sqe.cdw10 = U32::new(u32::from(cns));
        let reply = self.admin(sqe, Data::FromController(4096), &[])?;
        Ok(expect("Identify", &reply)?.data.clone())
    }

    /// Size and block size of `nsid`.
    ///
    /// # Errors
    /// As [`identify`](Self::identify), or there is no such namespace.
    pub fn namespace(&mut self, nsid: u32) -> Result<Namespace> {
        let data = self.identify(cns::NAMESPACE, nsid)?;
        let identity = parse::<IdentifyNamespace>(&data)?;
        let blocks = identity.nsze.get();
        if blocks == 0 {
            let subnqn = &self.options.subnqn;
            return Err(ClientError::Setup(format!("{subnqn} has no active namespace {nsid}")));
        }
        // FLBAS bits 3:0 and 6:5 pick the LBA format (NVM, section 4.1.5.1).
        let format = identity.flbas & 0xF | (identity.flbas >> 5 & 3) << 4;
        let shift = u32::from(identity.lba_formats[usize::from(format)].lbads);
        if !(9..=16).contains(&shift) {
            return Err(ClientError::Protocol(format!("namespace {nsid} has blocks of 2^{shift} bytes")));
        }
        Ok(Namespace { nsid, blocks, block_bytes: 1 << shift })
    }

    /// The first `bytes` of log page `lid`.
    ///
    /// # Errors
    /// As [`admin`](Self::admin), or the controller refuses.
    pub fn log_page(&mut self, lid: u8, nsid: u32, bytes: u32) -> Result<Vec<u8>> {
        let mut sqe = fabrics::command(admin::GET_LOG_PAGE, nsid);
        let dwords = bytes / 4 - 1;
        sqe.cdw10 = U32::new(u32::from(lid) | (dwords & 0xFFFF) << 16);
        sqe.cdw11 = U32::new(dwords >> 16);
        let reply = self.admin(sqe, Data::FromController(bytes), &[])?;
        Ok(expect("Get Log Page", &reply)?.data.clone())
    }

    /// Asks for `count` I/O queues and returns how many were granted.
    ///
    /// # Errors
    /// As [`admin`](Self::admin), or the controller refuses.
    pub fn request_io_queues(&mut self, count: u16) -> Result<u16> {
        let mut sqe = fabrics::command(admin::SET_FEATURES, 0);
        let asked = u32::from(count - 1);
        sqe.cdw10 = U32::new(7);
        sqe.cdw11 = U32::new(asked | asked << 16);
        let reply = self.admin(sqe, Data::None, &[])?;
        let granted = expect("Set Features (number of queues)", &reply)?.completion.dw0;
        Ok(((granted & 0xFFFF).min(granted >> 16) + 1).min(u32::from(count)) as u16)
    }

    /// Connects I/O queue `qid` (from 1).
    ///
    /// # Errors
    /// The connection fails, the depth is more than the controller allows, or the controller refuses.
    pub fn io_queue(
        &self,
        qid: u16,
        depth: u16,
        payload_bytes: usize,
        keep_read_data: bool,
    ) -> Result<Queue> {
        let options = &self.options;
        let entries = self.io_entries(depth)?;
        let mut queue = Queue::open(
            dial(&options.addr, options.timeout)?,
            QueueOptions {
                depth,
                payload_bytes: payload_bytes.max(1024),
                // Connect's own data always go in the capsule.
                in_capsule_bytes: ADMIN_IN_CAPSULE_BYTES,
                digests: options.digests,
                hpda: options.hpda,
                keep_read_data,
            },
            options.timeout,
        )?;
        let data = fabrics::connect_data(options.host_id, self.cntlid, &options.subnqn, &options.hostnqn);
        let connect = fabrics::connect(qid, entries, options.cattr(), 0);
        let reply = queue.call(connect, Data::ToController(1024), data.as_bytes(), options.timeout)?;
        expect("Connect of an I/O queue", &reply)?;
        queue.set_in_capsule_bytes(self.in_capsule_bytes);
        Ok(queue)
    }

    /// Entries of a queue that takes `depth` commands: one more, where the head must be told from the tail.
    fn io_entries(&self, depth: u16) -> Result<u16> {
        let most = self.io_entries_max;
        let wanted = u32::from(depth) + u32::from(!self.options.no_flow_control);
        if wanted > most {
            return Err(ClientError::Setup(format!(
                "a depth of {depth} needs {wanted} queue entries, the controller has {most}"
            )));
        }
        Ok(wanted.max(2) as u16)
    }

    /// Sends one Keep Alive.
    ///
    /// # Errors
    /// As [`admin`](Self::admin), or the controller refuses.
    pub fn keep_alive(&mut self) -> Result<()> {
        let reply = self.admin(fabrics::command(admin::KEEP_ALIVE, 0), Data::None, &[])?;
        expect("Keep Alive", &reply).map(|_| ())
    }

    /// Shuts the controller down in order (CC.SHN = 01b) and closes the admin connection.
    ///
    /// # Errors
    /// As [`set_property`](Self::set_property).
    pub fn shut_down(mut self) -> Result<()> {
        self.set_property(property::CONFIGURATION, 1 << 14 | 4 << 20 | 6 << 16 | 1)
    }

    /// Keeps the controller alive from a thread of its own, twice in every timeout.
    #[must_use]
    pub fn keep_alive_in_background(self) -> KeptAlive {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut controller = self;
        let thread = std::thread::spawn(move || {
            let every = Duration::from_millis(u64::from(controller.options.kato_ms / 2));
            let mut next = Instant::now() + every;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(if every.is_zero() { Duration::MAX } else { every });
                if !every.is_zero() && Instant::now() >= next {
                    // A failure shows on the I/O queues, which the controller then closes.
                    if controller.keep_alive().is_err() {
                        return;
                    }
                    next = Instant::now() + every;
                }
            }
            let _ = controller.shut_down();
        });
        KeptAlive { stop, thread: Some(thread) }
    }
}

/// A controller that a thread keeps alive; shut down when this is dropped.
pub struct KeptAlive {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for KeptAlive {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn parse<T: FromBytes + zerocopy::Immutable + zerocopy::KnownLayout + zerocopy::Unaligned>(
    data: &[u8],
) -> Result<&T> {
    T::ref_from_bytes(data).map_err(|_| ClientError::Protocol(format!("a structure of {} bytes", data.len())))
}

fn expect<'a>(what: &'static str, reply: &'a Reply) -> Result<&'a Reply> {
    let completion = reply.completion;
    if completion.status.is_success() {
        return Ok(reply);
    }
    Err(ClientError::Status { what, status: completion.status, dw0: completion.dw0 })
}
