//! How the store reaches its file. Tests put a failing disk in between.

use std::fs::OpenOptions;
use std::path::Path;

use redb::{
    Builder, Database, DatabaseError, StorageBackend, backends::FileBackend, backends::InMemoryBackend,
};

use super::CACHE_BYTES;

/// Opens databases on files.
#[derive(Debug, Clone, Default)]
pub struct Medium {
    #[cfg(test)]
    pub faults: super::tests::Faults,
}

impl Medium {
    /// Opens the database in the file `path`; an empty or missing file becomes an empty database.
    pub fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
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
