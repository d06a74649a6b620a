//! The commands of a connection: a table by slot, and which command identifiers are in use.

use ashlar_env::BufMut;

use super::Slot;
use crate::wire::Sqe;

/// How many commands a host may send before Connect has succeeded; only Connect itself makes sense.
const BEFORE_CONNECT: u16 = 2;

pub(super) struct Commands {
    entries: Vec<Entry>,
    free: Vec<u16>,
    /// A bit per command identifier, once the queue is connected; before, the table is searched.
    in_use: Option<Box<[u64; 1024]>>,
}

pub(super) struct Entry {
    pub sqe: Sqe,
    pub state: State,
}

pub(super) enum State {
    Free,
    /// The capsule brought `inline` bytes of data, with a right digest or not.
    Arrived {
        inline: u32,
        digest_ok: bool,
    },
    /// In-capsule data wait for a buffer.
    WaitInline,
    /// An R2T waits for a buffer.
    WaitBuffer {
        len: u32,
    },
    Receiving {
        buf: BufMut,
        received: u32,
        digest_ok: bool,
    },
    Executing,
}

/// Why a command cannot be taken.
pub(super) enum Refused {
    /// The queue has no entry left.
    Full,
    /// Its identifier is in use.
    InUse,
}

impl Commands {
    pub fn before_connect() -> Self {
        let mut commands = Self { entries: Vec::new(), free: Vec::new(), in_use: None };
        commands.add(BEFORE_CONNECT);
        commands
    }

    fn add(&mut self, upto: u16) {
        for slot in self.entries.len() as u16..upto {
            self.entries.push(Entry { sqe: Sqe::zeroed(), state: State::Free });
            self.free.push(slot);
        }
    }

    pub fn resize(&mut self, entries: u16) {
        self.free.reserve_exact(usize::from(entries));
        self.add(entries);
        let mut in_use: Box<[u64; 1024]> = Box::new([0; 1024]);
        for entry in self.entries.iter().filter(|entry| !matches!(entry.state, State::Free)) {
            set(&mut in_use, entry.sqe.cid.get(), true);
        }
        self.in_use = Some(in_use);
    }

    pub fn arrive(&mut self, sqe: &Sqe, inline: u32, digest_ok: bool) -> Result<Slot, Refused> {
        if self.is_in_use(sqe.cid.get()) {
            return Err(Refused::InUse);
        }
        let slot = self.free.pop().ok_or(Refused::Full)?;
        self.entries[usize::from(slot)] = Entry { sqe: *sqe, state: State::Arrived { inline, digest_ok } };
        if let Some(in_use) = &mut self.in_use {
            set(in_use, sqe.cid.get(), true);
        }
        Ok(Slot(slot))
    }

    fn is_in_use(&self, cid: u16) -> bool {
        match &self.in_use {
            Some(bits) => bits[usize::from(cid >> 6)] & (1 << (cid & 63)) != 0,
            None => self.entries.iter().any(|e| !matches!(e.state, State::Free) && e.sqe.cid.get() == cid),
        }
    }

    pub fn get(&self, slot: Slot) -> &Entry {
        &self.entries[usize::from(slot.0)]
    }

    pub fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[usize::from(slot.0)]
    }

    /// Searches the table: for the few commands of admin queues.
    pub fn find(&self, cid: u16) -> Option<Slot> {
        let is_it = |entry: &Entry| !matches!(entry.state, State::Free) && entry.sqe.cid.get() == cid;
        self.entries.iter().position(is_it).map(|at| Slot(at as u16))
    }

    /// The entry a transfer tag names, if there is one.
    pub fn by_tag(&self, tag: u16) -> Option<&Entry> {
        self.entries.get(usize::from(tag))
    }

    pub fn release(&mut self, slot: Slot) -> Entry {
        let sqe = self.get(slot).sqe;
        let entry = std::mem::replace(self.get_mut(slot), Entry { sqe, state: State::Free });
        assert!(!matches!(entry.state, State::Free), "a command is completed once");
        assert!(!matches!(entry.state, State::Receiving { .. }), "a command completes after its data");
        if let Some(in_use) = &mut self.in_use {
            set(in_use, sqe.cid.get(), false);
        }
        self.free.push(slot.0);
        entry
    }

    pub fn outstanding(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

fn set(bits: &mut [u64; 1024], cid: u16, on: bool) {
    let word = &mut bits[usize::from(cid >> 6)];
    let bit = 1 << (cid & 63);
    if on { *word |= bit } else { *word &= !bit }
}
