//! The connections of a load.

use super::options::{Options, Protocol};
use super::pattern::Cursor;
use super::port::{IscsiPort, NvmePort, Port, Unit};
use crate::client::{ClientError, Controller, Digests, KeptAlive, Queue, QueueOptions, Result, dial};
use crate::iscsi::{Session, SessionOptions};

/// The size that `ashlar-echo` is taken to have, if the options do not say.
const ECHO_BYTES: u64 = 1 << 30;
/// The block size that `ashlar-echo` is taken to have, in bytes.
const ECHO_BLOCK_BYTES: u32 = 512;
/// The smallest payload of an iSCSI slot: what the set-up asks for must fit, in bytes.
const PAYLOAD_BYTES_MIN: u64 = 4096;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Zero,
    Flush,
}

/// A command in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    /// Which unit of the block size.
    pub(super) unit: u64,
    /// Number of the write in this run.
    pub(super) sequence: u64,
    /// When it was issued, in nanoseconds of the run.
    pub(super) at_ns: u64,
}

/// The size of what is loaded: a namespace or a logical unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) blocks: u64,
    pub(super) block_bytes: u32,
}

/// One connection and what is in flight on it.
pub(super) struct Lane {
    pub(super) port: Port,
    pub(super) ops: Vec<Option<Op>>,
    pub(super) cursor: Cursor,
    pub(super) writes_to_flush: u32,
}

/// All connections. The controller goes last, after its queues.
pub(super) struct Lanes {
    pub(super) lanes: Vec<Lane>,
    pub(super) extent: Extent,
    _controller: Option<KeptAlive>,
}

impl Lanes {
    /// Connects as the options say. The span of the cursors is theirs or the whole extent.
    pub(super) fn connect(options: &Options) -> Result<Self> {
        match options.protocol() {
            Protocol::Nvme => Self::connect_nvme(options),
            Protocol::Iscsi => Self::connect_iscsi(options),
            Protocol::Echo => Self::connect_echo(options),
        }
    }

    fn connect_nvme(options: &Options) -> Result<Self> {
        let bytes = options.block_size.get();
        let mut controller = Controller::connect(&options.host())?;
        let namespace = controller.namespace(options.nsid)?;
        let extent = Extent { blocks: namespace.blocks, block_bytes: namespace.block_bytes };
        check_blocks(bytes, extent)?;
        if bytes > controller.transfer_bytes_max() || bytes / u64::from(extent.block_bytes) > 0x1_0000 {
            let most = controller.transfer_bytes_max();
            return setup(format!("a block size of {bytes} bytes is more than one command moves ({most})"));
        }
        let granted = controller.request_io_queues(options.connections)?;
        if granted < options.connections {
            return setup(format!("the controller grants {granted} of {} connections", options.connections));
        }
        let unit = Unit::new(bytes, extent);
        let open = |qid| {
            let queue = controller.io_queue(qid, options.depth, bytes as usize, options.verify)?;
            Ok(Port::Nvme(Box::new(NvmePort::new(queue, options.depth, options.nsid, unit))))
        };
        let ports = (1..=options.connections).map(open).collect::<Result<Vec<_>>>()?;
        let lanes = Self::lanes(options, extent, ports)?;
        Ok(Self { lanes, extent, _controller: Some(controller.keep_alive_in_background()) })
    }

    fn connect_iscsi(options: &Options) -> Result<Self> {
        let bytes = options.block_size.get();
        if bytes > u64::from(u32::MAX) {
            return setup(format!("a block size of {bytes} bytes is more than one command moves"));
        }
        let initiator = options.initiator();
        let open = |index| {
            let session = SessionOptions {
                index,
                depth: options.depth,
                payload_bytes: bytes.max(PAYLOAD_BYTES_MIN) as usize,
                keep_read_data: options.verify,
            };
            Session::log_in(&initiator, session)
        };
        let mut sessions = (0..options.connections).map(open).collect::<Result<Vec<_>>>()?;
        let capacity = sessions[0].capacity()?;
        let extent = Extent { blocks: capacity.blocks, block_bytes: capacity.block_bytes };
        check_blocks(bytes, extent)?;
        let unit = Unit::new(bytes, extent);
        let port = |session| Port::Iscsi(Box::new(IscsiPort::new(session, options.depth, unit)));
        let lanes = Self::lanes(options, extent, sessions.into_iter().map(port).collect())?;
        Ok(Self { lanes, extent, _controller: None })
    }

    fn connect_echo(options: &Options) -> Result<Self> {
        let size = options.span.map_or(ECHO_BYTES, ashlar_config::Bytes::get);
        let extent = Extent { blocks: size / u64::from(ECHO_BLOCK_BYTES), block_bytes: ECHO_BLOCK_BYTES };
        let timeout = options.host().timeout;
        let unit = Unit::new(options.block_size.get(), extent);
        let port = |_| {
            let queue = QueueOptions {
                depth: options.depth,
                payload_bytes: options.block_size.get() as usize,
                in_capsule_bytes: u32::MAX,
                digests: Digests::NONE,
                hpda: 0,
                keep_read_data: false,
            };
            let queue = Queue::open_unnegotiated(dial(&options.address(), timeout)?, queue)?;
            Ok(Port::Nvme(Box::new(NvmePort::new(queue, options.depth, 1, unit))))
        };
        let ports = (0..options.connections).map(port).collect::<Result<Vec<_>>>()?;
        let lanes = Self::lanes(options, extent, ports)?;
        Ok(Self { lanes, extent, _controller: None })
    }

    fn lanes(options: &Options, extent: Extent, ports: Vec<Port>) -> Result<Vec<Lane>> {
        let units = units(options, extent)?;
        let lane = |(index, port): (usize, Port)| Lane {
            port,
            ops: vec![None; usize::from(options.depth)],
            cursor: Cursor::new(options.pattern, units, index as u64, u64::from(options.connections)),
            writes_to_flush: options.flush_every,
        };
        Ok(ports.into_iter().enumerate().map(lane).collect())
    }

    /// Ends the connections in order.
    pub(super) fn close(self) {
        self.lanes.into_iter().for_each(|lane| lane.port.close());
    }
}

/// Checks that accesses of `bytes` are whole blocks.
fn check_blocks(bytes: u64, extent: Extent) -> Result<()> {
    let block = extent.block_bytes;
    if bytes == 0 || !bytes.is_multiple_of(u64::from(block)) {
        return setup(format!("a block size of {bytes} bytes is not whole blocks of {block} bytes"));
    }
    Ok(())
}

/// How many units of the block size the load uses.
pub(super) fn units(options: &Options, extent: Extent) -> Result<u64> {
    let size = extent.blocks * u64::from(extent.block_bytes);
    let span = options.span.map_or(size, ashlar_config::Bytes::get).min(size);
    match span / options.block_size.get() {
        0 => setup(format!("{span} bytes hold no block of {}", options.block_size)),
        units => Ok(units),
    }
}

pub(super) fn setup<T>(what: String) -> Result<T> {
    Err(ClientError::Setup(what))
}
