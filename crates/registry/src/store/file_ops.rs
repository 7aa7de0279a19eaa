//! Files and directories on the disk: copied, compared, brought there for good, deleted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::StoreError;
use crate::data_directory::create_new_private_file;
use crate::record::FileRecord;

const BUFFER_BYTES: usize = 1 << 20;

/// Copies a file that must be what it is said to be, and brings it to the disk.
pub(super) fn copy_verified(from: &Path, to: &Path, file: &FileRecord) -> Result<(), StoreError> {
    let mut source = File::open(from).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::FileNotUploaded(file.sha256.clone()),
        _ => StoreError::Disk(error),
    })?;
    let mut target = create_new_private_file(to)?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = source.read(&mut buffer)?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        target.write_all(piece)?;
        hash.update(piece);
        bytes += read as u64;
    }
    let path = &file.path;
    if hex::encode(hash.finalize()) != file.sha256 {
        return Err(StoreError::ContentMismatch(format!("{path}: the uploaded file was damaged in the store")));
    }
    if bytes != file.bytes {
        return Err(StoreError::ContentMismatch(format!("{path}: it has {bytes} bytes, not {}", file.bytes)));
    }
    target.set_permissions(Permissions::from_mode(0o400))?;
    target.sync_all()?;
    Ok(())
}

/// True if two files, or the files in two directories, are the same.
pub(super) fn has_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    // An error says nothing of the other one.
    if !fs::metadata(one)?.is_dir() {
        return Ok(other.is_file() && has_same_bytes(one, other)?);
    }
    let names = entry_names(one)?;
    if !other.is_dir() || names != entry_names(other)? {
        return Ok(false);
    }
    for name in names {
        if !has_same_content(&one.join(&name), &other.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn entry_names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn has_same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let mut one = File::open(one)?;
    let mut other = File::open(other)?;
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut buffers = [vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]];
    let [mine, others] = &mut buffers;
    loop {
        let read = one.read(mine)?;
        let (Some(mine), Some(others)) = (mine.get(..read), others.get_mut(..read)) else { return Ok(false) };
        if mine.is_empty() {
            return Ok(true);
        }
        match other.read_exact(others) {
            Ok(()) if mine == others => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Deletes a file, or a directory that may not be written to.
pub(super) fn remove_recursive(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return fs::remove_file(path);
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        remove_recursive(&entry?.path())?;
    }
    fs::remove_dir(path)
}
