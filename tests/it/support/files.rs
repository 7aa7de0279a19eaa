//! Files and directories.

use std::path::{Path, PathBuf};

pub(crate) fn dir_entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Makes files of the store writable, as only their owner could.
pub(crate) fn make_writable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for path in std::iter::once(directory.to_owned()).chain(dir_entries(directory)) {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
