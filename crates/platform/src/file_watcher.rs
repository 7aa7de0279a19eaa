//! Files that operators replace while the server runs: keys and certificates.

use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

/// How often the files are looked at. A look costs a few microseconds and works on any file system.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Identifies the content of a file: device, inode, size, time of change.
type FileStamp = Option<(u64, u64, u64, i64, i64)>;

/// A value made from files, and made again when they change.
pub struct FileWatcher<T> {
    description: &'static str,
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    value: RwLock<Arc<T>>,
    last_stamps: Mutex<Vec<FileStamp>>,
}

impl<T: Send + Sync + 'static> FileWatcher<T> {
    /// Loads the value. `description` says what it is, for the log.
    ///
    /// # Errors
    /// What `load` says.
    pub fn open(
        description: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        // Before the content is read: a change in between is seen at the next look.
        let seen = file_stamps(&paths);
        let value = Arc::new(load()?);
        Ok(Arc::new(Self {
            description,
            paths,
            load: Box::new(load),
            value: RwLock::new(value),
            last_stamps: Mutex::new(seen),
        }))
    }

    /// The value as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.value.read())
    }

    /// Looks at the files once. What cannot be loaded leaves the value as it is, and so does a file that is gone.
    pub fn poll(&self) {
        let now = file_stamps(&self.paths);
        if *self.last_stamps.lock() == now {
            return;
        }
        if now.contains(&None) {
            tracing::warn!(files = self.description, "file removed; previous content stays in use");
        } else {
            self.replace_value("changed files reloaded", "changed files invalid; previous content stays in use");
        }
        *self.last_stamps.lock() = now;
    }

    /// Reads the files again, whether they have changed or not. What cannot be loaded leaves the value as it is.
    pub fn reload(&self) {
        let now = file_stamps(&self.paths);
        self.replace_value("files reloaded on signal", "reloaded files invalid; previous content stays in use");
        *self.last_stamps.lock() = now;
    }

    fn replace_value(&self, replaced: &str, invalid: &str) {
        let files = self.description;
        match (self.load)() {
            Ok(value) => {
                *self.value.write() = Arc::new(value);
                tracing::info!(files, "{replaced}");
            }
            Err(error) => tracing::error!(files, error, "{invalid}"),
        }
    }

    /// Polls the files every second until the value is dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let watched: Weak<Self> = Arc::downgrade(self);
        let watch = move || {
            while let Some(watched) = watched.upgrade() {
                // Without this thread no change would be seen any more.
                if catch_unwind(AssertUnwindSafe(|| watched.poll())).is_err() {
                    tracing::error!(files = watched.description, "file reload panicked; previous content stays in use");
                }
                drop(watched);
                std::thread::sleep(POLL_INTERVAL);
            }
        };
        std::thread::Builder::new().name("predictd-files".to_owned()).spawn(watch).map(drop)
    }
}

impl<T> std::fmt::Debug for FileWatcher<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("files", &self.description).finish_non_exhaustive()
    }
}

fn file_stamps(paths: &[PathBuf]) -> Vec<FileStamp> {
    let stamp = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn replace_file(path: &Path, content: &str) {
        let new = path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, path).unwrap();
    }

    #[test]
    fn file_watcher_invalid_change_keeps_old_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let load = {
            let path = path.clone();
            move || fs::read_to_string(&path).unwrap_or_default().parse::<u8>().map_err(|error| error.to_string())
        };
        assert!(FileWatcher::open("number", vec![path.clone()], load.clone()).is_err());
        fs::write(&path, "1").unwrap();
        let watched = FileWatcher::open("number", vec![path.clone()], load).unwrap();
        for (content, value) in [("2", 2), ("none", 2), ("3", 3)] {
            replace_file(&path, content);
            watched.poll();
            assert_eq!(*watched.current(), value);
        }
        fs::remove_file(&path).unwrap();
        watched.poll();
        assert_eq!(*watched.current(), 3);
        replace_file(&path, "4");
        watched.poll();
        assert_eq!(*watched.current(), 4);
    }
}
