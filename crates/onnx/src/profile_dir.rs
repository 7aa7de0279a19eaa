//! Where the runtime writes its record of a run, for a moment.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the names of these folders begin with.
const DIR_NAME_PREFIX: &str = ".predictd-profile-";
/// Names that are tried in each place.
const MAX_NAME_ATTEMPTS: usize = 4;
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
        Self::with_names(parents, random_name)
    }

    fn with_names(parents: &[PathBuf], mut name: impl FnMut() -> io::Result<String>) -> Result<Self, String> {
        let mut why = None;
        for parent in parents {
            for _ in 0..MAX_NAME_ATTEMPTS {
                let created = name().and_then(|name| {
                    let path = parent.join(name);
                    std::fs::create_dir(&path).map(|()| path)
                });
                match created {
                    Ok(path) => return Ok(Self(path)),
                    // It was left behind, or is another process's.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => why = Some(error),
                    Err(error) => {
                        why = Some(error);
                        break;
                    }
                }
            }
        }
        let why = why.map_or_else(|| "there is no place".to_owned(), |error| error.kind().to_string());
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

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{DIR_NAME_PREFIX}{:016x}", u64::from_le_bytes(bytes)))
}

fn remove_dir(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "profiling directory could not be removed");
    }
}

/// Removes what killed processes left in these places. Others may be at work there: their folders are younger.
pub(super) fn remove_stale(parents: &[PathBuf], now: SystemTime) {
    for entry in parents.iter().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten().flatten() {
        let is_old = || {
            let facts = entry.metadata().ok()?;
            let age = now.duration_since(facts.modified().ok()?).ok()?;
            (facts.is_dir() && age > STALE_AGE).then_some(())
        };
        if entry.file_name().to_string_lossy().starts_with(DIR_NAME_PREFIX) && is_old().is_some() {
            remove_dir(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use predictd_platform::clock;

    fn entry_count(place: &Path) -> usize {
        std::fs::read_dir(place).unwrap().count()
    }

    #[test]
    fn profile_dir_taken_name_is_retried() {
        let place = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), place.path().to_owned()];
        let first = ProfileDir::with_names(&places, || Ok("a".to_owned())).unwrap();
        assert!(first.file_prefix().parent().unwrap().is_dir());
        let mut names = ["x", "a", "b"].into_iter();
        let second = ProfileDir::with_names(&places, || Ok(names.next().unwrap().to_owned())).unwrap();
        assert_eq!(second.0, place.path().join("b"));
        let told = ProfileDir::with_names(&places, || Ok("a".to_owned())).err().unwrap();
        assert!(told.ends_with("entity already exists") && !told.contains("nowhere"), "{told}");
        drop((first, second));
        assert_eq!(entry_count(place.path()), 0);
    }

    #[test]
    fn profile_dir_missing_parent_is_reported() {
        let told = ProfileDir::new(&[PathBuf::from("/nowhere")]).err().unwrap();
        assert!(told.ends_with("entity not found"), "{told}");
    }

    #[test]
    fn profile_dir_only_stale_dirs_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), place.path().to_owned()];
        std::mem::forget(ProfileDir::new(&places).unwrap());
        std::fs::create_dir(place.path().join("other")).unwrap();
        std::fs::write(place.path().join(format!("{DIR_NAME_PREFIX}file")), "").unwrap();
        remove_stale(&places, clock::now());
        assert_eq!(entry_count(place.path()), 3, "it may be another process's");
        remove_stale(&places, clock::now() + STALE_AGE + Duration::from_mins(1));
        assert_eq!(entry_count(place.path()), 2);
    }
}
