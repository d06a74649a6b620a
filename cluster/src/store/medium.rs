//! How the store reaches its file. Tests put a failing disk in between.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, StorageBackend, backends::FileBackend, backends::InMemoryBackend,
};

use super::CACHE_BYTES;

/// The file's mode: it holds secrets of hosts, so nobody but the node's user may read it.
const MODE: u32 = 0o600;

/// Opens databases on files.
#[derive(Debug, Clone, Default)]
pub struct Medium {
    #[cfg(test)]
    pub faults: super::tests::Faults,
}

impl Medium {
    /// Opens the database in the file `path`; an empty or missing file becomes an empty database.
    pub fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
        // One that an earlier release made may be open to others.
        if file.metadata()?.permissions().mode() & 0o077 != 0
            && let Err(error) = file.set_permissions(Permissions::from_mode(MODE))
        {
            tracing::warn!(file = %path.display(), %error, "other users can read secrets of hosts here");
        }
        let backend = FileBackend::new(file)?;
        #[cfg(test)]
        let backend = super::tests::FaultyBackend::new(backend, self.faults.clone());
        builder().create_with_backend(backend)
    }
}

/// Opens a database on `bytes`, which are a copy: nothing reaches the disk.
pub fn open_copy(bytes: &[u8]) -> Result<Database, DatabaseError> {
    let backend = InMemoryBackend::new();
    backend.set_len(bytes.len() as u64)?;
    backend.write(0, bytes)?;
    builder().create_with_backend(backend)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
