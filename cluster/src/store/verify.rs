//! Reads a control state and believes nothing in it before it is checked.

use std::fs;
use std::path::Path;

use redb::ReadableTable;

use super::{
    Chain, Database, DecodeError, Digest, Entry, Head, LAYOUT_VERSION, LOG, Loaded, META, Medium,
    ReadableDatabase, Sha256, State, StoreError, next_chain,
};
use crate::store::{medium, quiet};

/// Opens the existing file `path` for writing, after a copy of it in memory has passed every check.
pub fn open(path: &Path, medium: &Medium) -> Result<(Database, Loaded), StoreError> {
    let bytes = fs::read(path).map_err(|e| StoreError::io(path, "read", e))?;
    let on_copy = check_copy(path, &bytes)?;
    drop(bytes);

    let mut database = medium.open(path).map_err(|e| StoreError::redb(path, "open", e))?;
    let loaded = load(path, &mut database)?;
    if loaded.state != on_copy.state || loaded.chain != on_copy.chain {
        return Err(damaged(path, "it changed while it was being opened"));
    }
    Ok((database, loaded))
}

/// Loads from a copy in memory. Damage that makes redb panic is damage all the same.
fn check_copy(path: &Path, bytes: &[u8]) -> Result<Loaded, StoreError> {
    if bytes.is_empty() {
        return Err(damaged(path, "the file is empty"));
    }
    let attempt = quiet::catch(|| {
        let mut database = medium::open_copy(bytes).map_err(|e| StoreError::redb(path, "open", e))?;
        load(path, &mut database)
    });
    match attempt {
        // There is no disk under a copy: an I/O error is an offset that makes no sense.
        Some(Err(StoreError::Io { source, .. })) => Err(damaged(path, source.to_string())),
        Some(outcome) => outcome,
        None => Err(damaged(path, "its structure contradicts itself")),
    }
}

fn damaged(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), why: why.into() }
}

/// Verifies redb's checksums, then the snapshot, then every command of the log.
fn load(path: &Path, database: &mut Database) -> Result<Loaded, StoreError> {
    let redb = |e: redb::Error| StoreError::redb(path, "read", e);
    // What redb could mend it has mended, falling back to the older of two commits if it had to; the
    // checks below tell whether that was one of ours.
    database.check_integrity().map_err(|e| redb(e.into()))?;

    let transaction = database.begin_read().map_err(|e| redb(e.into()))?;
    let meta = transaction.open_table(META).map_err(|e| redb(e.into()))?;
    let log = transaction.open_table(LOG).map_err(|e| redb(e.into()))?;
    let value = |key: &str| -> Result<Vec<u8>, StoreError> {
        let guard = meta.get(key).map_err(|e| redb(e.into()))?;
        Ok(guard.ok_or_else(|| damaged(path, format!("it has no {key}")))?.value().to_vec())
    };

    let layout = number(path, "format", &value("format")?)?;
    if layout != u64::from(LAYOUT_VERSION) {
        let why =
            format!("its layout is version {layout}, and this release reads version {LAYOUT_VERSION} only");
        return Err(StoreError::Version { path: path.to_owned(), why });
    }
    let head: Head = serde_json::from_slice(&value("head")?)
        .map_err(|e| damaged(path, format!("its head cannot be read: {e}")))?;
    let snapshot = value("snapshot")?;
    let mut state = load_snapshot(path, &head, &snapshot)?;
    let mut chain = head.chain;
    for row in log.iter().map_err(|e| redb(e.into()))? {
        let (index, bytes) = row.map_err(|e| redb(e.into()))?;
        chain = replay(path, &mut state, &chain, index.value(), bytes.value())?;
    }

    let sealed = number(path, "seal", &value("seal")?)?;
    if sealed != state.applied() && sealed + 1 != state.applied() {
        return Err(damaged(
            path,
            format!("it ends at change {}, and change {sealed} was kept", state.applied()),
        ));
    }
    let sealed = sealed == state.applied();
    let outdated = State::is_outdated(&snapshot);
    Ok(Loaded { state, chain, snapshot_index: head.index, sealed, outdated })
}

fn number(path: &Path, key: &str, bytes: &[u8]) -> Result<u64, StoreError> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| damaged(path, format!("its {key} is no number")))
}

fn load_snapshot(path: &Path, head: &Head, bytes: &[u8]) -> Result<State, StoreError> {
    // The version comes first: a later release may also hash in another way.
    let state = State::decode(bytes).map_err(|e| match e {
        DecodeError::Version { .. } => StoreError::Version { path: path.to_owned(), why: e.to_string() },
        other => damaged(path, format!("its snapshot: {other}")),
    })?;
    if <[u8; 32]>::from(Sha256::digest(bytes)) != head.sha256 {
        return Err(damaged(path, "its snapshot does not have the hash that was recorded"));
    }
    if state.applied() != head.index {
        return Err(damaged(path, "its snapshot is not the one that was recorded"));
    }
    Ok(state)
}

/// Applies one entry of the log to `state`; yields the chain up to it.
fn replay(
    path: &Path,
    state: &mut State,
    chain: &Chain,
    index: u64,
    bytes: &[u8],
) -> Result<Chain, StoreError> {
    let expected = state.applied() + 1;
    if index != expected {
        return Err(damaged(path, format!("change {expected} is missing")));
    }
    let entry: Entry = serde_json::from_slice(bytes)
        .map_err(|e| damaged(path, format!("change {index} cannot be read: {e}")))?;
    let command =
        serde_json::to_vec(&entry.command).expect("commands have string keys and no fallible values");
    let chain = next_chain(chain, index, &command);
    if chain != entry.chain {
        return Err(damaged(path, format!("change {index} is not the one that was made")));
    }
    state
        .apply(&entry.command)
        .map_err(|refusal| damaged(path, format!("change {index} cannot be made again: {refusal}")))?;
    Ok(chain)
}
