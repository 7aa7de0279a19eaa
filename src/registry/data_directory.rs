//! The data directory: other users cannot read it, and a server notices when it is not there any more.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::backup;

/// Rights of other users.
const OTHERS: u32 = 0o077;
/// Of a directory like `/tmp`, which is everybody's.
const STICKY: u32 = 0o1000;
/// How the names of this program's files begin; `receipt.keys` is checked where it is read.
const OWN_FILES: [&str; 6] =
    [backup::FILE, "predictd.lock", "registry.", "keys.toml", ".receipt.keys.", ".predictd.db"];
/// Directories of this program, and whether all that is in them is its own to change: versions are read-only.
const OWN_DIRECTORIES: [(&str, bool); 4] =
    [("spool", true), ("store", false), ("store/incoming", true), ("store/versions", false)];

/// Makes the directory, if it is not there, and takes the rights of other users to it and to this program's files away:
/// an earlier version, or an operator, may have left them.
///
/// # Errors
/// If it cannot be made or read. What belongs to another user stays as it is, with a warning.
pub fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let found = fs::metadata(directory)?;
    if found.mode() & STICKY != 0 {
        tracing::warn!(directory = %directory.display(), "the data directory is everybody's: choose one that is the server's alone");
    } else {
        tighten(directory, &found);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if OWN_FILES.iter().any(|own| name.starts_with(own)) {
            tighten_file(&path);
        }
    }
    for (name, with_files) in OWN_DIRECTORIES {
        let path = directory.join(name);
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if !found.is_dir() {
            continue;
        }
        tighten(&path, &found);
        let files = fs::read_dir(&path)?.filter(|_| with_files);
        files.filter_map(Result::ok).for_each(|file| tighten_file(&file.path()));
    }
    Ok(())
}

/// Makes the file of a database, if it is not there: SQLite gives its log the rights that the file has.
///
/// # Errors
/// If the disk does not allow it.
pub fn create_private(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file).map(drop)
}

/// The same for a file; not for what a link leads to.
fn tighten_file(path: &Path) {
    if let Ok(found) = fs::symlink_metadata(path)
        && found.is_file()
    {
        tighten(path, &found);
    }
}

fn tighten(path: &Path, found: &Metadata) {
    if found.mode() & OTHERS == 0 {
        return;
    }
    if let Err(error) = remove_rights(path, found) {
        let own = found.uid() == geteuid().as_raw();
        tracing::warn!(path = %path.display(), own, %error, "other users may read what the server keeps: take their rights away");
    }
}

/// Takes the rights of others away from the file that was found, not from what a link leads to by now.
fn remove_rights(path: &Path, found: &Metadata) -> io::Result<()> {
    let flags = if found.is_dir() { OFlags::NONBLOCK } else { OFlags::NOFOLLOW | OFlags::NONBLOCK };
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    file.set_permissions(Permissions::from_mode(found.mode() & 0o7777 & !OTHERS))
}

/// Which file or directory it is, whatever its name.
type Stamp = (u64, u64);

fn stamp(found: &Metadata) -> Stamp {
    (found.dev(), found.ino())
}

/// True if the name leads to this file or directory.
fn is_at(path: &Path, expected: Stamp) -> bool {
    fs::metadata(path).is_ok_and(|found| stamp(&found) == expected)
}

/// The data directory as it was when it was opened, with the file of the database in it.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    /// Open: as long as it is, no other directory can be taken for it.
    directory: File,
    database: OnceLock<Stamp>,
    /// The log of the database as it was seen last; nothing before the first time: not every file system can have one.
    log: Mutex<Option<Stamp>>,
    /// It was removed or replaced under an open connection: a restart does not find what was written since.
    is_log_gone: AtomicBool,
}

/// The data directory, or the file of the database in it, is not the one that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl Anchor {
    /// The directory that has this name now.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            directory: File::open(path)?,
            database: OnceLock::new(),
            log: Mutex::default(),
            is_log_gone: AtomicBool::default(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the file of the database is the one that has its name now.
    pub fn hold_database(&self) {
        if let Ok(found) = fs::metadata(self.path.join(backup::FILE)) {
            self.database.get_or_init(|| stamp(&found));
        }
    }

    /// Looks whether the names still lead to what was opened.
    ///
    /// # Errors
    /// [`Lost`]
    pub fn check(&self) -> Result<(), Lost> {
        let opened = self.directory.metadata().map_err(|_| Lost)?;
        let database = self.database.get().is_none_or(|&expected| is_at(&self.path.join(backup::FILE), expected));
        let log = !self.is_log_gone.load(Ordering::Relaxed);
        if is_at(&self.path, stamp(&opened)) && database && log { Ok(()) } else { Err(Lost) }
    }

    /// The same after something was written, on a connection that is still open: then the log of the database is there too.
    ///
    /// # Errors
    /// [`Lost`]
    pub fn check_written(&self) -> Result<(), Lost> {
        let found = fs::metadata(self.path.join(format!("{}-wal", backup::FILE))).ok().map(|found| stamp(&found));
        self.check()?;
        let mut log = self.log.lock();
        if *log == found {
            return Ok(());
        }
        // SQLite removes the log with its last connection, and makes another one with the next: that one is open here.
        if log.is_some() && !found.is_some_and(is_open_here) {
            self.is_log_gone.store(true, Ordering::Relaxed);
            return Err(Lost);
        }
        *log = found;
        Ok(())
    }
}

/// True if this process has the file open, or cannot tell.
fn is_open_here(file: Stamp) -> bool {
    let Ok(descriptors) = fs::read_dir("/dev/fd") else { return true };
    descriptors.filter_map(Result::ok).any(|descriptor| is_at(&descriptor.path(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_the_one_that_was_opened_or_lost() {
        let place = tempfile::tempdir().unwrap();
        let [data, aside] = ["data", "aside"].map(|name| place.path().join(name));
        make_private(&data).unwrap();
        let anchor = Anchor::open(&data).unwrap();
        create_private(&data.join(backup::FILE)).unwrap();
        anchor.hold_database();
        assert_eq!((anchor.check(), anchor.check_written()), (Ok(()), Ok(())));
        fs::write(data.join("predictd.db-wal"), "").unwrap();
        assert_eq!(anchor.check_written(), Ok(()));
        fs::rename(&data, &aside).unwrap();
        assert_eq!(anchor.check(), Err(Lost));
        make_private(&data).unwrap();
        fs::copy(aside.join(backup::FILE), data.join(backup::FILE)).unwrap();
        assert_eq!(anchor.check(), Err(Lost));
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&aside, &data).unwrap();
        assert_eq!(anchor.check(), Ok(()));
        assert_eq!(anchor.check_written(), Ok(()));
        // What was written went with the log: another one is of no use.
        fs::remove_file(data.join("predictd.db-wal")).unwrap();
        assert_eq!((anchor.check(), anchor.check_written()), (Ok(()), Err(Lost)));
        fs::write(data.join("predictd.db-wal"), "").unwrap();
        assert_eq!((anchor.check(), anchor.check_written()), (Err(Lost), Err(Lost)));
        let anchor = Anchor::open(&data).unwrap();
        anchor.hold_database();
        fs::copy(data.join(backup::FILE), data.join("copy")).unwrap();
        fs::rename(data.join("copy"), data.join(backup::FILE)).unwrap();
        assert_eq!(anchor.check(), Err(Lost));
    }

    #[test]
    fn a_log_that_is_replaced_is_lost_unless_this_process_has_it_open() {
        let place = tempfile::tempdir().unwrap();
        let [log, copy] = ["predictd.db-wal", "copy"].map(|name| place.path().join(name));
        let anchor = Anchor::open(place.path()).unwrap();
        fs::write(&log, "1").unwrap();
        assert_eq!(anchor.check_written(), Ok(()));
        // A checkpoint cuts the log: it is the same file.
        fs::write(&log, "").unwrap();
        assert_eq!(anchor.check_written(), Ok(()));
        // The last connection has ended, and there is a new one.
        let _open = File::create_new(&copy).unwrap();
        fs::rename(&copy, &log).unwrap();
        assert_eq!(anchor.check_written(), Ok(()));
        // Somebody else's.
        fs::copy(&log, &copy).unwrap();
        fs::rename(&copy, &log).unwrap();
        assert_eq!((anchor.check_written(), anchor.check()), (Err(Lost), Err(Lost)));
    }

    #[test]
    fn a_directory_of_everybody_keeps_its_mode() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
        fs::write(place.path().join(backup::FILE), "").unwrap();
        make_private(place.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(place.path()), mode(&place.path().join(backup::FILE))), (0o1777, 0o600));
    }
}
