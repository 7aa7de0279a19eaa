//! Where the runtime writes its record of a run, for a moment.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the names of these folders begin with.
const PREFIX: &str = ".predictd-profile-";
/// Names that are tried in each place.
const TRIES: usize = 4;
/// A folder that is older was left behind by a process that was killed: loads take less long.
const LEFT_BEHIND: Duration = Duration::from_hours(1);

/// A folder for the record of a run. It is gone when this is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A new folder in the first of these places where one can be made.
    ///
    /// # Errors
    /// One sentence without paths: why it cannot be made in the last of them.
    pub(super) fn new(places: &[PathBuf]) -> Result<Self, String> {
        Self::named(places, random)
    }

    fn named(places: &[PathBuf], mut name: impl FnMut() -> io::Result<String>) -> Result<Self, String> {
        let mut why = None;
        for place in places {
            for _ in 0..TRIES {
                let made = name().and_then(|name| {
                    let path = place.join(name);
                    std::fs::create_dir(&path).map(|()| path)
                });
                match made {
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
    pub(super) fn prefix(&self) -> PathBuf {
        self.0.join("run")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{PREFIX}{:016x}", u64::from_le_bytes(bytes)))
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "the record of a run could not be removed");
    }
}

/// Removes what killed processes left in these places. Others may be at work there: their folders are younger.
pub(super) fn remove_leftovers(places: &[PathBuf], now: SystemTime) {
    for entry in places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten() {
        let is_old = || {
            let facts = entry.metadata().ok()?;
            let age = now.duration_since(facts.modified().ok()?).ok()?;
            (facts.is_dir() && age > LEFT_BEHIND).then_some(())
        };
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_old().is_some() {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn count(place: &Path) -> usize {
        std::fs::read_dir(place).unwrap().count()
    }

    #[test]
    fn a_name_that_is_taken_is_not_an_end() {
        let place = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), place.path().to_owned()];
        let first = Folder::named(&places, || Ok("a".to_owned())).unwrap();
        assert!(first.prefix().parent().unwrap().is_dir());
        let mut names = ["x", "a", "b"].into_iter();
        let second = Folder::named(&places, || Ok(names.next().unwrap().to_owned())).unwrap();
        assert_eq!(second.0, place.path().join("b"));
        let told = Folder::named(&places, || Ok("a".to_owned())).err().unwrap();
        assert!(told.ends_with("entity already exists") && !told.contains("nowhere"), "{told}");
        drop((first, second));
        assert_eq!(count(place.path()), 0);
    }

    #[test]
    fn a_place_that_is_not_there_is_told() {
        let told = Folder::new(&[PathBuf::from("/nowhere")]).err().unwrap();
        assert!(told.ends_with("entity not found"), "{told}");
    }

    #[test]
    fn what_was_left_behind_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let places = [PathBuf::from("/nowhere"), place.path().to_owned()];
        std::mem::forget(Folder::new(&places).unwrap());
        std::fs::create_dir(place.path().join("other")).unwrap();
        std::fs::write(place.path().join(format!("{PREFIX}file")), "").unwrap();
        remove_leftovers(&places, clock::now());
        assert_eq!(count(place.path()), 3, "it may be another process's");
        remove_leftovers(&places, clock::now() + LEFT_BEHIND + Duration::from_mins(1));
        assert_eq!(count(place.path()), 2);
    }
}
