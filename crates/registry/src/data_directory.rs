//! The data directory: other users cannot read it, and a server notices when it is not there any more.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Name of the SQLite database in a data directory.
pub const DATABASE_FILE_NAME: &str = "predictd.db";
/// Rights of other users.
const OTHER_USERS_MODE: u32 = 0o077;
/// Of a directory that all users share, such as `/tmp`.
const STICKY_BIT: u32 = 0o1000;
/// How the names of this program's files begin; `receipt.keys` is checked where it is read.
const OWN_FILE_PREFIXES: [&str; 6] =
    [DATABASE_FILE_NAME, "predictd.lock", "registry.", "keys.toml", ".receipt.keys.", ".predictd.db"];
/// Directories of this program, and whether all that is in them is its own to change: versions are read-only.
const OWN_DIRECTORIES: [(&str, bool); 4] =
    [("spool", true), ("store", false), ("store/incoming", true), ("store/versions", false)];

/// Makes the directory, if it is not there, and takes the rights of other users to it and to this program's files away:
/// an earlier version, or an operator, may have left them.
///
/// # Errors
/// If it cannot be made or read. What belongs to another user stays as it is, with a warning.
pub fn make_directory_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let metadata = fs::metadata(directory)?;
    if metadata.mode() & STICKY_BIT != 0 {
        tracing::warn!(directory = %directory.display(), "data directory shared with other users; choose a private one");
    } else {
        restrict_permissions(directory, &metadata);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if OWN_FILE_PREFIXES.iter().any(|own| name.starts_with(own)) {
            restrict_file(&path);
        }
    }
    for (name, with_files) in OWN_DIRECTORIES {
        let path = directory.join(name);
        if let Ok(metadata) = fs::symlink_metadata(&path)
            && metadata.is_dir()
        {
            restrict_permissions(&path, &metadata);
            for file in fs::read_dir(&path)?.filter(|_| with_files).flatten() {
                restrict_file(&file.path());
            }
        }
    }
    Ok(())
}

/// Opens a file for this user only, and makes it if it is not there: SQLite gives its log the rights that the file has.
///
/// # Errors
/// If the disk does not allow it.
pub fn create_private_file(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)
}

/// The same for a file; not for what a link leads to.
fn restrict_file(path: &Path) {
    if let Ok(metadata) = fs::symlink_metadata(path)
        && metadata.is_file()
    {
        restrict_permissions(path, &metadata);
    }
}

fn restrict_permissions(path: &Path, metadata: &Metadata) {
    if metadata.mode() & OTHER_USERS_MODE != 0
        && let Err(error) = remove_permissions(path, metadata)
    {
        let owned_by_server = metadata.uid() == geteuid().as_raw();
        tracing::warn!(path = %path.display(), owned_by_server, %error, "other users may read server files; remove their permissions");
    }
}

/// Takes the rights of others away from the file that was found, not from what a link leads to by now.
fn remove_permissions(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let flags = if metadata.is_dir() { OFlags::NONBLOCK } else { OFlags::NOFOLLOW | OFlags::NONBLOCK };
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777 & !OTHER_USERS_MODE))
}

/// Makes a file for this user only, which must not exist.
pub(super) fn create_new_private_file(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

/// An error's sentence that begins with the file or directory.
pub(super) fn path_error(path: &Path, error: impl Display) -> String {
    format!("{}: {error}", path.display())
}

/// The right to be the only process that writes to a directory, for as long as the file is open.
///
/// # Errors
/// One sentence, if another one has it.
pub fn lock_data_directory(directory: &Path) -> Result<File, String> {
    let path = directory.join("predictd.lock");
    let file = create_private_file(&path).map_err(|error| path_error(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "another predictd uses {}: give each its own --data-dir, or let them share a --database",
            directory.display()
        )),
        Err(TryLockError::Error(error)) => Err(path_error(&path, error)),
    }
}

/// Which file or directory it is, whatever its name.
type FileIdentity = (u64, u64);

fn file_identity(path: &Path) -> Option<FileIdentity> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// True if the name leads to this open file or directory.
pub(super) fn is_at_path(file: &File, path: &Path) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(file_identity(path) == Some((metadata.dev(), metadata.ino())))
}

/// The data directory as it was when it was opened, with the file of the database in it.
#[derive(Debug)]
pub struct DataDirectory {
    pub(crate) path: PathBuf,
    /// Open: as long as it is, no other directory can be taken for it.
    handle: File,
    database_identity: OnceLock<FileIdentity>,
    /// The log of the database as it was seen last; nothing before the first time: not every file system can have one.
    wal_identity: Mutex<Option<FileIdentity>>,
    /// It was removed or replaced under an open connection: a restart does not find what was written since.
    is_wal_lost: AtomicBool,
}

impl DataDirectory {
    /// The directory that has this name now.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            handle: File::open(path)?,
            database_identity: OnceLock::new(),
            wal_identity: Mutex::default(),
            is_wal_lost: AtomicBool::default(),
        })
    }

    /// From now on the file of the database is the one that has its name now.
    pub(crate) fn record_database_identity(&self) {
        if let Some(found) = file_identity(&self.path.join(DATABASE_FILE_NAME)) {
            self.database_identity.get_or_init(|| found);
        }
    }

    /// Looks whether the names still lead to what was opened.
    pub(crate) fn check_identity(&self) -> bool {
        let database = self.database_identity.get();
        is_at_path(&self.handle, &self.path).unwrap_or(false)
            && (database.is_none() || database == file_identity(&self.path.join(DATABASE_FILE_NAME)).as_ref())
            && !self.is_wal_lost.load(Ordering::Relaxed)
    }

    /// The same after something was written, on a connection that is still open: then the log of the database is there too.
    pub(crate) fn check_after_write(&self) -> bool {
        let found = file_identity(&self.path.join(format!("{DATABASE_FILE_NAME}-wal")));
        if !self.check_identity() {
            return false;
        }
        let mut log = self.wal_identity.lock();
        // SQLite removes the log with its last connection, and makes another one with the next: that one is open here.
        if *log != found && log.is_some() && !found.is_some_and(is_open_in_process) {
            self.is_wal_lost.store(true, Ordering::Relaxed);
            return false;
        }
        *log = found;
        true
    }
}

/// True if this process has the file open, or cannot tell.
fn is_open_in_process(file: FileIdentity) -> bool {
    let Ok(descriptors) = fs::read_dir("/dev/fd") else { return true };
    descriptors.filter_map(Result::ok).any(|descriptor| file_identity(&descriptor.path()) == Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directory_replaced_is_lost() {
        let place = tempfile::tempdir().unwrap();
        let [data, aside] = ["data", "aside"].map(|name| place.path().join(name));
        make_directory_private(&data).unwrap();
        let anchor = DataDirectory::open(&data).unwrap();
        create_private_file(&data.join(DATABASE_FILE_NAME)).unwrap();
        anchor.record_database_identity();
        assert_eq!((anchor.check_identity(), anchor.check_after_write()), (true, true));
        fs::write(data.join("predictd.db-wal"), "").unwrap();
        assert!(anchor.check_after_write());
        fs::rename(&data, &aside).unwrap();
        assert!(!anchor.check_identity());
        make_directory_private(&data).unwrap();
        fs::copy(aside.join(DATABASE_FILE_NAME), data.join(DATABASE_FILE_NAME)).unwrap();
        assert!(!anchor.check_identity());
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&aside, &data).unwrap();
        assert!(anchor.check_identity());
        assert!(anchor.check_after_write());
        // What was written went with the log: another one is of no use.
        fs::remove_file(data.join("predictd.db-wal")).unwrap();
        assert_eq!((anchor.check_identity(), anchor.check_after_write()), (true, false));
        fs::write(data.join("predictd.db-wal"), "").unwrap();
        assert_eq!((anchor.check_identity(), anchor.check_after_write()), (false, false));
        let anchor = DataDirectory::open(&data).unwrap();
        anchor.record_database_identity();
        fs::copy(data.join(DATABASE_FILE_NAME), data.join("copy")).unwrap();
        fs::rename(data.join("copy"), data.join(DATABASE_FILE_NAME)).unwrap();
        assert!(!anchor.check_identity());
    }

    #[test]
    fn wal_replaced_is_lost_unless_open_in_process() {
        let place = tempfile::tempdir().unwrap();
        let [log, copy] = ["predictd.db-wal", "copy"].map(|name| place.path().join(name));
        let anchor = DataDirectory::open(place.path()).unwrap();
        fs::write(&log, "1").unwrap();
        assert!(anchor.check_after_write());
        // A checkpoint cuts the log: it is the same file.
        fs::write(&log, "").unwrap();
        assert!(anchor.check_after_write());
        // The last connection has ended, and there is a new one.
        let _open = File::create_new(&copy).unwrap();
        fs::rename(&copy, &log).unwrap();
        assert!(anchor.check_after_write());
        // Somebody else's.
        fs::copy(&log, &copy).unwrap();
        fs::rename(&copy, &log).unwrap();
        assert_eq!((anchor.check_after_write(), anchor.check_identity()), (false, false));
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn sticky_directory_keeps_mode_files_restricted() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
        fs::write(place.path().join(DATABASE_FILE_NAME), "").unwrap();
        make_directory_private(place.path()).unwrap();
        assert_eq!((mode(place.path()), mode(&place.path().join(DATABASE_FILE_NAME))), (0o1777, 0o600));
    }
}
