//! A record's bytes as the pieces that are handed to the stores.
//!
//! Small payloads are copied once, behind the header; large aligned ones are handed on as they are. Buffers come from a
//! pool of the log's own: whoever waits for an operation holds a buffer of the reactor's pool, so to wait for another of
//! those here could wait for ever.

use ashlar_env::buf::PoolPlan;
use ashlar_env::{Buf, BufMut, BufPool};
use smallvec::SmallVec;

use crate::ids::GRANULE_BYTES;

use super::op::Op;
use super::state::{Item, Queued};

/// The largest piece that is copied together, in bytes.
const COPY_BYTES_MAX: usize = 256 << 10;

/// Enough for four windows of eight records; memory comes with its use.
const PLAN: PoolPlan = PoolPlan { limits: [512, 256, 128, 64, 0] };

const EMPTY: &[u8] = &[];

/// What is handed to a store: mostly one piece.
pub(super) type Pieces = SmallVec<[Buf; 2]>;

/// Makes pieces. Its vectors are used again.
pub(super) struct Assembler {
    pool: BufPool,
    align: usize,
    own_bytes_min: usize,
    /// How much of each operation's payload is handed on as it is; from its beginning.
    own: Vec<usize>,
    /// The lengths of what is copied, before, between and after what is handed on; last first.
    runs: Vec<usize>,
    pieces: Pieces,
    buffer: Option<BufMut>,
    filled: usize,
    run_left: usize,
}

impl Assembler {
    pub fn new(align: usize, own_bytes_min: usize) -> Self {
        Self {
            pool: BufPool::on_heap(PLAN),
            align,
            own_bytes_min,
            own: Vec::new(),
            runs: Vec::new(),
            pieces: Pieces::new(),
            buffer: None,
            filled: 0,
            run_left: 0,
        }
    }

    /// The pieces of the record with `header` and the payloads of `ops`, each a multiple of the alignment. Payloads
    /// are given up: the pieces hold what is needed of them.
    pub fn assemble(&mut self, header: &[u8], ops: &mut [Queued]) -> Pieces {
        self.plan(header.len(), ops);
        self.run_left = self.runs.pop().expect("there is a run for the header");
        self.copy(header);
        self.pad(self.align);
        for (at, queued) in ops.iter_mut().enumerate() {
            let Item::Op(op) = &mut queued.item else { continue };
            match op {
                Op::Data { payload, .. } => {
                    let payload = std::mem::replace(payload, Buf::from_static(EMPTY));
                    self.push(payload, self.own[at]);
                }
                Op::Control(bytes) => {
                    self.copy(bytes);
                    self.pad(GRANULE_BYTES);
                }
                Op::Zero { .. } | Op::Unmap { .. } => {}
            }
        }
        self.pad(self.align);
        self.flush();
        std::mem::take(&mut self.pieces)
    }

    fn plan(&mut self, header: usize, ops: &[Queued]) {
        self.own.clear();
        self.runs.clear();
        let mut run = header.next_multiple_of(self.align);
        let mut at = 0;
        for queued in ops {
            let mut own = 0;
            match &queued.item {
                Item::Op(Op::Data { payload, .. }) => {
                    let aligned = at % self.align == 0 && payload.as_ptr().addr().is_multiple_of(self.align);
                    if aligned && payload.len() >= self.own_bytes_min.max(self.align) {
                        own = payload.len() - payload.len() % self.align;
                        self.runs.push(run);
                        run = 0;
                    }
                    run += payload.len() - own;
                    at += payload.len();
                }
                Item::Op(Op::Control(bytes)) => {
                    let stored = bytes.len().next_multiple_of(GRANULE_BYTES);
                    run += stored;
                    at += stored;
                }
                Item::Op(Op::Zero { .. } | Op::Unmap { .. }) | Item::Roll => {}
            }
            self.own.push(own);
        }
        self.runs.push(run.next_multiple_of(self.align));
        self.runs.reverse();
    }

    fn push(&mut self, payload: Buf, own: usize) {
        if own == 0 {
            self.copy(&payload);
            return;
        }
        self.flush();
        self.run_left = self.runs.pop().expect("a run follows each piece that is handed on");
        self.pieces.push(payload.slice(0, own));
        self.copy(&payload[own..]);
    }

    fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.buffer.is_none() {
                let length = self.run_left.min(COPY_BYTES_MAX);
                self.run_left -= length;
                self.buffer = Some(self.take(length.next_multiple_of(self.align)));
            }
            let buffer = self.buffer.as_mut().expect("it was just made");
            let part = bytes.len().min(buffer.len() - self.filled);
            buffer[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled == buffer.len() {
                self.flush();
            }
        }
    }

    /// Fills up with zeros to a multiple of `unit` bytes.
    fn pad(&mut self, unit: usize) {
        let to = self.filled.next_multiple_of(unit);
        let zeros = Buf::zeroes(to - self.filled);
        self.copy(&zeros);
    }

    fn flush(&mut self) {
        if let Some(mut buffer) = self.buffer.take() {
            assert!(self.filled.is_multiple_of(self.align), "a piece ends at the alignment");
            buffer.truncate(self.filled);
            self.pieces.push(buffer.freeze());
        }
        self.filled = 0;
    }

    /// A buffer, if need be of a new pool: a store that hangs may hold all of the old one for ever.
    fn take(&mut self, bytes: usize) -> BufMut {
        if let Some(buffer) = self.pool.try_alloc(bytes) {
            return buffer;
        }
        self.pool = BufPool::on_heap(PLAN);
        self.pool.try_alloc(bytes).expect("a new pool has a buffer of each size")
    }
}
