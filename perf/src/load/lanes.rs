//! The connections of a load.

use super::Options;
use super::pattern::Cursor;
use crate::client::{
    ClientError, Controller, Digests, KeptAlive, Namespace, Queue, QueueOptions, Result, dial,
};

/// The size that `ashlar-echo` is taken to have, if the options do not say.
const ECHO_BYTES: u64 = 1 << 30;
/// The block size that `ashlar-echo` is taken to have, in bytes.
const ECHO_BLOCK_BYTES: u32 = 512;

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

/// One connection and what is in flight on it.
pub(super) struct Lane {
    pub(super) queue: Queue,
    pub(super) ops: Vec<Option<Op>>,
    pub(super) cursor: Cursor,
    pub(super) writes_to_flush: u32,
}

/// All connections. The controller goes last, after its queues.
pub(super) struct Lanes {
    pub(super) lanes: Vec<Lane>,
    pub(super) namespace: Namespace,
    _controller: Option<KeptAlive>,
}

impl Lanes {
    /// Connects as the options say. The span of the cursors is theirs or the namespace.
    pub(super) fn connect(options: &Options) -> Result<Self> {
        if options.raw_echo { Self::connect_echo(options) } else { Self::connect_target(options) }
    }

    fn connect_target(options: &Options) -> Result<Self> {
        let bytes = options.block_size.get();
        let mut controller = Controller::connect(&options.host())?;
        let namespace = controller.namespace(options.nsid)?;
        if bytes == 0 || !bytes.is_multiple_of(u64::from(namespace.block_bytes)) {
            let block = namespace.block_bytes;
            return setup(format!("a block size of {bytes} bytes is not whole blocks of {block} bytes"));
        }
        if bytes > controller.transfer_bytes_max() || bytes / u64::from(namespace.block_bytes) > 0x1_0000 {
            let most = controller.transfer_bytes_max();
            return setup(format!("a block size of {bytes} bytes is more than one command moves ({most})"));
        }
        let granted = controller.request_io_queues(options.connections)?;
        if granted < options.connections {
            return setup(format!("the controller grants {granted} of {} connections", options.connections));
        }
        let open = |qid| controller.io_queue(qid, options.depth, bytes as usize, options.verify);
        let queues = (1..=options.connections).map(open).collect::<Result<Vec<_>>>()?;
        let lanes = Self::lanes(options, namespace, queues)?;
        Ok(Self { lanes, namespace, _controller: Some(controller.keep_alive_in_background()) })
    }

    fn connect_echo(options: &Options) -> Result<Self> {
        let size = options.span.map_or(ECHO_BYTES, ashlar_config::Bytes::get);
        let namespace =
            Namespace { nsid: 1, blocks: size / u64::from(ECHO_BLOCK_BYTES), block_bytes: ECHO_BLOCK_BYTES };
        let timeout = options.host().timeout;
        let queue = || {
            let queue = QueueOptions {
                depth: options.depth,
                payload_bytes: options.block_size.get() as usize,
                in_capsule_bytes: u32::MAX,
                digests: Digests::NONE,
                hpda: 0,
                keep_read_data: false,
            };
            Queue::open_unnegotiated(dial(&options.addr, timeout)?, queue)
        };
        let queues = (0..options.connections).map(|_| queue()).collect::<Result<Vec<_>>>()?;
        let lanes = Self::lanes(options, namespace, queues)?;
        Ok(Self { lanes, namespace, _controller: None })
    }

    fn lanes(options: &Options, namespace: Namespace, queues: Vec<Queue>) -> Result<Vec<Lane>> {
        let units = units(options, namespace)?;
        let lane = |(index, queue): (usize, Queue)| Lane {
            queue,
            ops: vec![None; usize::from(options.depth)],
            cursor: Cursor::new(options.pattern, units, index as u64, u64::from(options.connections)),
            writes_to_flush: options.flush_every,
        };
        Ok(queues.into_iter().enumerate().map(lane).collect())
    }
}

/// How many units of the block size the load uses.
pub(super) fn units(options: &Options, namespace: Namespace) -> Result<u64> {
    let size = namespace.blocks * u64::from(namespace.block_bytes);
    let span = options.span.map_or(size, ashlar_config::Bytes::get).min(size);
    match span / options.block_size.get() {
        0 => setup(format!("{span} bytes hold no block of {}", options.block_size)),
        units => Ok(units),
    }
}

pub(super) fn setup<T>(what: String) -> Result<T> {
    Err(ClientError::Setup(what))
}
