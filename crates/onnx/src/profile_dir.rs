//! Where the runtime writes its record of a run, for a moment.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the names of these folders begin with.
const DIR_NAME_PREFIX: &str = ".predictd-profile-";
/// A folder that is older was left behind by a process that was killed: loads take less long.
const STALE_AGE: Duration = Duration::from_hours(1);

/// A folder for the record of a run. It is gone when this is dropped.
pub(super) struct ProfileDir(PathBuf);

impl ProfileDir {
    /// A new folder in the first of these places where one can be made.
    ///
    /// # Errors
    /// One sentence without paths: why it cannot be made in the last of them.
    pub(super) fn new(parents: &[PathBuf]) -> Result<Self, String> {
        let mut why = "there is no place".to_owned();
        for parent in parents {
            match tempfile::Builder::new().prefix(DIR_NAME_PREFIX).tempdir_in(parent) {
                // If it cannot be removed, the log has it.
                Ok(created) => return Ok(Self(created.keep())),
                Err(error) => why = error.kind().to_string(),
            }
        }
        Err(format!("no folder for the record of a run can be made in --data-dir or for temporary files: {why}"))
    }

    /// What the file's name begins with.
    pub(super) fn file_prefix(&self) -> PathBuf {
        self.0.join("run")
    }
}

impl Drop for ProfileDir {
    fn drop(&mut self) {
        remove_dir(&self.0);
    }
}

fn remove_dir(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "profiling directory could not be removed");
    }
}

/// Removes what killed processes left in these places. Others may be at work there: their folders are younger.
pub(super) fn remove_stale(parents: &[PathBuf], now: SystemTime) {
    for entry in parents.iter().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DIR_NAME_PREFIX) && is_stale_dir(&entry, now) {
            remove_dir(&entry.path());
        }
    }
}

fn is_stale_dir(entry: &DirEntry, now: SystemTime) -> bool {
    let Ok(metadata) = entry.metadata() else { return false };
    let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
    metadata.is_dir() && age.is_some_and(|age| age > STALE_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use predictd_platform::clock;

    fn entry_count(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn profile_dir_made_in_first_possible_place_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), directory.path().to_owned()];
        let [first, second] = [(); 2].map(|()| ProfileDir::new(&places).unwrap());
        assert!(first.file_prefix().parent().unwrap().is_dir());
        assert_eq!((first.0.parent(), entry_count(directory.path())), (second.0.parent(), 2));
        drop((first, second));
        assert_eq!(entry_count(directory.path()), 0);
    }

    #[test]
    fn profile_dir_missing_parent_is_reported() {
        let error = ProfileDir::new(&[PathBuf::from("/nowhere")]).err().unwrap();
        assert!(error.ends_with("entity not found"), "{error}");
    }

    #[test]
    fn profile_dir_only_stale_dirs_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), directory.path().to_owned()];
        std::mem::forget(ProfileDir::new(&places).unwrap());
        std::fs::create_dir(directory.path().join("other")).unwrap();
        std::fs::write(directory.path().join(format!("{DIR_NAME_PREFIX}file")), "").unwrap();
        remove_stale(&places, clock::now());
        assert_eq!(entry_count(directory.path()), 3, "it may be another process's");
        remove_stale(&places, clock::now() + STALE_AGE + Duration::from_mins(1));
        assert_eq!(entry_count(directory.path()), 2);
    }
}
