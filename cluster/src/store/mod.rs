//! The control state on disk.
//!
//! One redb file holds a snapshot of the state and the log of commands since. What is kept:
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `meta` | `format` | version of this layout, decimal text |
//! | `meta` | `head` | JSON: index, chain and SHA-256 of the snapshot |
//! | `meta` | `snapshot` | [`State::encode`] |
//! | `meta` | `seal` | index of the last command that was sealed, decimal text |
//! | `log` | index | JSON: the command, and the chain up to it |
//!
//! The *chain* is SHA-256 over the chain before, the index and the command, so a log with a command
//! changed, missing or in another place is recognised.
//!
//! *Two commits per command.* redb keeps the last two commits and falls back to the older one if the
//! newer is torn, as it must after a crash. A newer commit that rotted on disk looks the same, and the
//! last command would silently be gone. So each command is followed by a second commit, the seal, and
//! is acknowledged after it: both commits redb may choose from hold the command.
//!
//! *Opening never damages.* The file is first opened as a copy in memory and verified there: redb's
//! checksums, the chain, the snapshot's hash, the state's invariants. Only a file that passes is opened
//! for writing.
//!
//! *A failed write* (full disk, I/O error) makes redb refuse everything after it. The next command
//! opens the file again and makes it agree with the state that was published, in case the failed
//! command did reach the disk.

mod error;
mod lock;
mod medium;
mod quiet;
mod verify;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use error::StoreError;
use lock::Lock;
use medium::Medium;

use crate::state::{Command, DecodeError, State};

/// Version of the layout above. Another one is refused.
///
/// | Version | Change |
/// |---|---|
/// | 1 | first layout |
pub const LAYOUT_VERSION: u32 = 1;

/// Name of the file in the node's data directory.
pub const FILE_NAME: &str = "control.redb";

/// Commands in the log before a snapshot replaces them. Bounds the time to open.
const LOG_ENTRIES_MAX: u64 = 512;

/// Bytes redb may use for its cache.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// Hash over everything up to a command.
type Chain = [u8; 32];

fn next_chain(chain: &Chain, index: u64, command: &[u8]) -> Chain {
    Sha256::new()
        .chain_update(chain)
        .chain_update(index.to_le_bytes())
        .chain_update(command)
        .finalize()
        .into()
}

/// Describes the snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Commands that led to the snapshot.
    index: u64,
    /// Chain up to the last of them.
    chain: Chain,
    /// SHA-256 of the snapshot's bytes.
    sha256: [u8; 32],
}

/// One entry of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Chain up to and including `command`.
    chain: Chain,
    /// The command.
    command: Command,
}

/// What an open file holds.
#[derive(Debug)]
struct Loaded {
    state: State,
    chain: Chain,
    snapshot_index: u64,
    /// Whether the last command has its second commit.
    sealed: bool,
    /// Whether the snapshot is of an earlier version of the state.
    outdated: bool,
}

/// The control state on disk, open for changes. At most one per file exists in the whole machine.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    medium: Medium,
    /// `None` after a failure, until the next command opens it again.
    database: Option<Database>,
    /// Commands kept so far.
    index: u64,
    chain: Chain,
    snapshot_index: u64,
    _lock: Lock,
}

impl Store {
    /// Opens the control state in `path`, or creates an empty one if there is no such file. The
    /// directory must exist.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]. A file that cannot be used is left exactly as it is.
    pub fn open(path: &Path) -> Result<(Store, State), StoreError> {
        Self::open_on(path, Medium::default())
    }

    fn open_on(path: &Path, medium: Medium) -> Result<(Store, State), StoreError> {
        let lock = Lock::acquire(path)?;
        if !path.try_exists().map_err(|e| StoreError::io(path, "look for", e))? {
            create(path, &medium)?;
        }
        let (database, mut loaded) = verify::open(path, &medium)?;
        let (index, chain) = (loaded.state.applied(), loaded.chain);
        let write = |snapshot| {
            seal(&database, index, chain, snapshot).map_err(|e| StoreError::redb(path, "write to", e))
        };
        if !loaded.sealed {
            write(None)?;
        }
        if loaded.outdated {
            // From here on an earlier release refuses the file by its version, before it meets a command that it
            // does not know. Twice, so that neither of redb's two commits holds the old form.
            write(Some(&loaded.state))?;
            write(None)?;
            loaded.snapshot_index = index;
        }
        let store = Store {
            path: path.to_owned(),
            medium,
            database: Some(database),
            index: loaded.state.applied(),
            chain: loaded.chain,
            snapshot_index: loaded.snapshot_index,
            _lock: lock,
        };
        Ok((store, loaded.state))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of commands kept.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Makes `command` durable: when this returns, a power loss does not undo it. `before` and `after`
    /// are the states before and after it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSpace`] and [`StoreError::Io`]: the command is not kept, and what was kept
    /// before still is. The store can be used further; it recovers by itself once the cause is gone.
    pub fn append(&mut self, command: &Command, before: &State, after: &State) -> Result<(), StoreError> {
        assert_eq!(before.applied(), self.index, "the store and the state agree on what has happened");
        assert_eq!(after.applied(), self.index + 1, "a command is one step");
        if self.database.is_none() {
            self.reopen(before)?;
        }
        let database = self.database.take().expect("opened above");
        let bytes = serde_json::to_vec(command).expect("commands have string keys and no fallible values");
        let index = self.index + 1;
        let chain = next_chain(&self.chain, index, &bytes);
        let snapshot = (index - self.snapshot_index >= LOG_ENTRIES_MAX).then_some(after);

        let entry = Entry { chain, command: command.clone() };
        append_entry(&database, index, &entry)
            .and_then(|()| seal(&database, index, chain, snapshot))
            .map_err(|e| StoreError::redb(&self.path, "write to", e))?;

        // Only a database that has not failed is put back.
        self.database = Some(database);
        (self.index, self.chain) = (index, chain);
        if snapshot.is_some() {
            self.snapshot_index = index;
        }
        Ok(())
    }

    /// Opens the file again after a failure, and takes back a command that was reported as failed but
    /// is there.
    fn reopen(&mut self, published: &State) -> Result<(), StoreError> {
        let (database, loaded) = verify::open(&self.path, &self.medium)?;
        let agrees = loaded.state == *published && loaded.chain == self.chain;
        self.snapshot_index = loaded.snapshot_index;
        if !agrees {
            let write = |e| StoreError::redb(&self.path, "write to", e);
            seal(&database, self.index, self.chain, Some(published)).map_err(write)?;
            // Twice, so that neither of redb's two commits holds the command.
            seal(&database, self.index, self.chain, None).map_err(write)?;
            self.snapshot_index = self.index;
        }
        self.database = Some(database);
        Ok(())
    }
}

/// Creates an empty control state under another name and renames it, so that a crash leaves all or
/// nothing.
fn create(path: &Path, medium: &Medium) -> Result<(), StoreError> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io(&draft, "remove", e));
        }
        _ => {}
    }
    let io = |e| StoreError::io(path, "create", e);
    let database = medium.open(&draft).map_err(|e| StoreError::redb(path, "create", e))?;
    for snapshot in [Some(&State::default()), None] {
        seal(&database, 0, Chain::default(), snapshot).map_err(|e| StoreError::redb(path, "create", e))?;
    }
    drop(database);
    File::open(&draft).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(&draft, path).map_err(io)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(io)
}

/// The first commit of a command.
fn append_entry(database: &Database, index: u64, entry: &Entry) -> Result<(), redb::Error> {
    let bytes = serde_json::to_vec(entry).expect("an entry has string keys and no fallible values");
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?.insert(index, bytes.as_slice())?;
    Ok(transaction.commit()?)
}

/// The second commit of a command: says that the first one counts, and replaces the log by a snapshot
/// if there is one. Durable when it returns, as every commit here.
fn seal(database: &Database, index: u64, chain: Chain, snapshot: Option<&State>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut log = transaction.open_table(LOG)?;
        meta.insert("seal", index.to_string().as_bytes())?;
        if let Some(state) = snapshot {
            let bytes = state.encode();
            let head = Head { index, chain, sha256: Sha256::digest(&bytes).into() };
            let head = serde_json::to_vec(&head).expect("a head has string keys and no fallible values");
            meta.insert("format", LAYOUT_VERSION.to_string().as_bytes())?;
            meta.insert("head", head.as_slice())?;
            meta.insert("snapshot", bytes.as_slice())?;
            log.retain(|_, _| false)?;
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{Faults, store_with_faults};
