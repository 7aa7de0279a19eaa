//! Files that have their names whole or not at all, also after a loss of power.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces a file, which need not exist, atomically for its readers.
///
/// `write` writes the content to a draft in the same directory, which is made with `mode`. If that fails, the draft is
/// deleted and the file stays as it was.
///
/// # Errors
/// Those of `write`, or if the disk does not allow it.
pub fn replace(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let draft = draft_path(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    let replaced = write(&mut file).and_then(|()| publish(&file, &draft, path));
    replaced.inspect_err(|_| {
        // It is of no use any more.
        fs::remove_file(&draft).ok();
    })
}

/// Gives a draft, which is written to its end, its name in the same directory.
///
/// # Errors
/// If the disk does not allow it.
pub fn publish(file: &File, draft: &Path, path: &Path) -> io::Result<()> {
    // A name must not reach the disk before the content that it promises.
    file.sync_all()?;
    fs::rename(draft, path)?;
    sync_directory(directory_of(path))
}

/// Brings the names in a directory to the disk.
///
/// # Errors
/// If the disk does not allow it.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a file is in.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside the file's that no other process uses: in containers that share a directory, process ids are not unique.
fn draft_path(path: &Path) -> io::Result<PathBuf> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.draft", hex::encode(id)));
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn write_text(text: &'static str) -> impl FnOnce(&mut File) -> io::Result<()> {
        move |file: &mut File| file.write_all(text.as_bytes())
    }

    #[test]
    fn failed_write_keeps_file_and_leaves_no_draft() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        replace(&path, 0o600, write_text("old")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let failed = replace(&path, 0o600, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        replace(&path, 0o600, write_text("new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // Nor can a directory be replaced.
        assert!(replace(directory.path(), 0o600, write_text("new")).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn file_without_directory_is_in_current_one() {
        assert_eq!(directory_of(Path::new("state.json")), Path::new("."));
        assert_eq!(directory_of(Path::new("data/state.json")), Path::new("data"));
    }
}
