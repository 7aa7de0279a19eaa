//! The store itself: uploads come in, versions are put together from them, what nothing names is deleted.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use predictd_platform::atomic_file::{self, sync_directory};
use predictd_platform::clock;

use super::error::StoreError;
use super::file_list::{check_file_list, is_sha256};
use super::file_ops::{copy_verified, has_same_content, remove_recursive};
use super::temp_file::TempFile;
use crate::record::{FileRecord, files_digest};

/// How long unreferenced files are kept after it was uploaded or registered.
const UNREFERENCED_RETENTION: Duration = Duration::from_hours(24);

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    incoming: PathBuf,
    versions: PathBuf,
}

/// A version that was put together and is not there yet. Dropped, it is gone.
#[derive(Debug)]
pub struct StagedVersion {
    /// Where it is for now.
    pub(crate) path: PathBuf,
    digest: String,
}

impl Store {
    /// Opens the store, and makes it if it is not there. No other process writes to it if this process is `alone`: what was
    /// being written when the last one ended is deleted then.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn open(directory: &Path, alone: bool) -> io::Result<Self> {
        let store = Self { incoming: directory.join("incoming"), versions: directory.join("versions") };
        for directory in [&store.incoming, &store.versions] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            for entry in fs::read_dir(directory)?.filter(|_| alone) {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                    remove_recursive(&path)?;
                }
            }
        }
        Ok(store)
    }

    /// The directory of a version.
    #[must_use]
    pub fn version_path(&self, digest: &str) -> PathBuf {
        self.versions.join(digest)
    }

    /// True if there is any version.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn has_versions(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.versions)?
            .any(|entry| entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))))
    }

    /// True if this file was uploaded.
    #[must_use]
    pub fn has_upload(&self, sha256: &str) -> bool {
        is_sha256(sha256) && self.incoming.join(sha256).is_file()
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn create_temp_file(&self) -> io::Result<TempFile> {
        TempFile::create(hidden_path(&self.incoming))
    }

    /// Keeps an upload, if it is what was announced.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is kept then.
    pub fn commit_upload(&self, part: &mut TempFile, sha256: &str) -> Result<u64, StoreError> {
        let hash = part.sha256();
        if hash != sha256 {
            let bytes = part.bytes;
            return Err(StoreError::ContentMismatch(format!("the {bytes} bytes that came have the SHA-256 {hash}")));
        }
        atomic_file::publish(&part.file, &part.path, &self.incoming.join(sha256))?;
        Ok(part.bytes)
    }

    /// Puts a version together from what was uploaded.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is left behind then.
    pub fn stage(&self, files: &[FileRecord]) -> Result<StagedVersion, StoreError> {
        check_file_list(files).map_err(StoreError::InvalidFileList)?;
        let assembled = StagedVersion { path: hidden_path(&self.versions), digest: files_digest(files) };
        let mut directories = BTreeSet::new();
        fs::DirBuilder::new().mode(0o700).create(&assembled.path)?;
        for file in files {
            let to = assembled.path.join(&file.path);
            let parents = to.ancestors().skip(1).take_while(|parent| parent.starts_with(&assembled.path));
            directories.extend(parents.map(Path::to_owned));
            fs::create_dir_all(to.parent().unwrap_or(&assembled.path))?;
            copy_verified(&self.incoming.join(&file.sha256), &to, file)?;
        }
        for directory in &directories {
            fs::set_permissions(directory, Permissions::from_mode(0o500))?;
            sync_directory(directory)?;
        }
        Ok(assembled)
    }

    /// Gives a version its name.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn commit(&self, assembled: &StagedVersion) -> io::Result<()> {
        let named = self.version_path(&assembled.digest);
        if has_same_content(&assembled.path, &named)? {
            // The same files are the same version. It must not count as unused.
            File::open(&named)?.set_modified(clock::now())?;
            return Ok(());
        }
        // What is there was damaged, or half deleted.
        let damaged = if named.is_dir() { Some(self.rename_for_deletion(&named)?) } else { None };
        fs::set_permissions(&assembled.path, Permissions::from_mode(0o700))?;
        fs::rename(&assembled.path, &named)?;
        fs::set_permissions(&named, Permissions::from_mode(0o500))?;
        sync_directory(&named)?;
        sync_directory(&self.versions)?;
        damaged.map_or(Ok(()), |damaged| remove_recursive(&damaged))
    }

    /// Takes its name from something that is to be deleted: whatever happens meanwhile, no process takes what is left of it for
    /// the whole.
    fn rename_for_deletion(&self, named: &Path) -> io::Result<PathBuf> {
        let directory = named.parent().unwrap_or(&self.versions);
        let hidden = hidden_path(directory);
        if named.is_dir() {
            fs::set_permissions(named, Permissions::from_mode(0o700))?;
        }
        fs::rename(named, &hidden)?;
        sync_directory(directory)?;
        Ok(hidden)
    }

    /// Deletes versions that are none of these, and uploads, that have not been touched for a day; how many.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub fn collect_garbage(&self, named: &BTreeSet<String>) -> io::Result<usize> {
        let mut gone = 0;
        for (directory, kept) in [(&self.incoming, None), (&self.versions, Some(named))] {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let age = clock::now().duration_since(entry.metadata()?.modified()?).unwrap_or_default();
                if age > UNREFERENCED_RETENTION && !kept.is_some_and(|kept| kept.contains(&name)) {
                    match self.rename_for_deletion(&entry.path()).and_then(|hidden| remove_recursive(&hidden)) {
                        Ok(()) => gone += 1,
                        // One that cannot be deleted does not keep the others.
                        Err(error) => tracing::warn!(name, %error, "store entry could not be deleted"),
                    }
                }
            }
        }
        Ok(gone)
    }
}

/// A new name in a directory for what does not have its own yet, or no longer.
fn hidden_path(directory: &Path) -> PathBuf {
    directory.join(format!(".{}", clock::new_id()))
}

impl Drop for StagedVersion {
    fn drop(&mut self) {
        // It has its name already if it was committed.
        remove_recursive(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn file(path: &str, content: &[u8]) -> FileRecord {
        let sha256 = hex::encode(Sha256::digest(content));
        FileRecord { path: path.to_owned(), bytes: content.len() as u64, sha256 }
    }

    fn upload(store: &Store, content: &[u8]) {
        let mut part = store.create_temp_file().unwrap();
        part.write(content).unwrap();
        store.commit_upload(&mut part, &hex::encode(Sha256::digest(content))).unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn version_appears_only_when_committed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), true).unwrap();
        let files = [file("model.onnx", b"graph"), file("onnx/weights.bin", b"weights")];
        upload(&store, b"graph");
        assert!(store.has_upload(&files[0].sha256) && !store.has_upload(&files[1].sha256) && !store.has_upload("../x"));
        let missing = store.stage(&files).unwrap_err().to_string();
        assert_eq!(missing, format!("the file {} was not uploaded", files[1].sha256));
        upload(&store, b"weights");
        let assembled = store.stage(&files).unwrap();
        drop(assembled);
        assert!(names(&store.versions).is_empty());
        for _ in 0..2 {
            store.commit(&store.stage(&files).unwrap()).unwrap();
        }
        let version = store.version_path(&files_digest(&files));
        assert_eq!(names(&store.versions), [files_digest(&files)]);
        assert_eq!(fs::read(version.join("onnx/weights.bin")).unwrap(), b"weights");
        assert_eq!(
            (mode(&version), mode(&version.join("onnx")), mode(&version.join("model.onnx"))),
            (0o500, 0o500, 0o400)
        );
        // What was left unfinished is gone after a start of the only process.
        fs::create_dir_all(store.versions.join(".half/onnx")).unwrap();
        Store::open(directory.path(), false).unwrap();
        assert_eq!(names(&store.versions).len(), 2);
        Store::open(directory.path(), true).unwrap();
        assert_eq!(names(&store.versions).len(), 1);
        // Nothing is old enough to be deleted.
        assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap(), 0);
        let long_ago = clock::now() - 2 * UNREFERENCED_RETENTION;
        File::open(&version).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(store.collect_garbage(&BTreeSet::from([files_digest(&files)])).unwrap(), 0);
        assert_eq!(store.collect_garbage(&BTreeSet::new()).unwrap(), 1);
        assert!(names(&store.versions).is_empty());
    }

    #[test]
    fn commit_over_damaged_version_replaces_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), true).unwrap();
        let files = [file("model.onnx", b"graph"), file("onnx/weights.bin", b"weights")];
        upload(&store, b"graph");
        upload(&store, b"weights");
        let commit = || store.commit(&store.stage(&files).unwrap()).unwrap();
        commit();
        let version = store.version_path(&files_digest(&files));
        let whole =
            || fs::read(version.join("model.onnx")).unwrap() == b"graph" && version.join("onnx/weights.bin").is_file();
        let inside = version.join("onnx");
        let weights = version.join("onnx/weights.bin");
        let damages: [&dyn Fn(); 3] =
            [&|| remove_recursive(&weights).unwrap(), &|| remove_recursive(&inside).unwrap(), &|| {
                fs::remove_file(version.join("model.onnx")).unwrap();
                fs::write(version.join("model.onnx"), "grapf").unwrap();
            }];
        for damage in damages {
            for path in [&version, &inside] {
                fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
            }
            damage();
            commit();
            assert!(whole() && names(&store.versions).len() == 1);
        }
        // A deletion that is interrupted leaves no half under its name.
        let hidden = store.rename_for_deletion(&version).unwrap();
        assert!(!version.exists() && hidden.is_dir());
        commit();
        assert!(whole());
        Store::open(directory.path(), true).unwrap();
        assert_eq!(names(&store.versions).len(), 1);
    }

    #[test]
    fn upload_with_wrong_content_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), true).unwrap();
        let mut part = store.create_temp_file().unwrap();
        part.write(b"other").unwrap();
        assert!(matches!(store.commit_upload(&mut part, &"0".repeat(64)), Err(StoreError::ContentMismatch(_))));
        drop(part);
        drop(store.create_temp_file().unwrap());
        assert!(names(&store.incoming).is_empty());
        upload(&store, b"graph");
        let files = [FileRecord { bytes: 6, ..file("model.onnx", b"graph") }];
        assert_eq!(store.stage(&files).unwrap_err().to_string(), "model.onnx: it has 5 bytes, not 6");
        fs::write(store.incoming.join(&files[0].sha256), "worse").unwrap();
        let damaged = store.stage(&[file("model.onnx", b"graph")]).unwrap_err().to_string();
        assert_eq!(damaged, "model.onnx: the uploaded file was damaged in the store");
        assert!(names(&store.versions).is_empty());
    }
}
