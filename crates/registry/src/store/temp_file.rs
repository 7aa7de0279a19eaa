//! A file on its way into the store, hashed as it is written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::data_directory::create_new_private_file;

/// A file that is being uploaded. Dropped before its end, it is gone.
#[derive(Debug)]
pub struct TempFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    hash: Sha256,
    pub(super) bytes: u64,
}

impl TempFile {
    /// Begins a file of this name, which must not exist.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: create_new_private_file(&path)?, path, hash: Sha256::new(), bytes: 0 })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// SHA-256 of the bytes until now, as hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // It has its name already if it was kept.
        fs::remove_file(&self.path).ok();
    }
}
