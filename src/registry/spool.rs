//! What was told while the database did not answer: on disk until it does.
//!
//! A file holds a line of JSON for each thing told, and is synced before that is acknowledged. Each process writes a
//! file of its own, which it holds locked; files that nobody holds are those of processes that are gone, and belong to
//! whoever finds them. What is handed over twice is kept once: see [`Kept`](super::feedback::Kept).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::feedback::Feedback;
use crate::clock;

/// Most bytes of all files that wait.
const MOST_BYTES: u64 = 64 << 20;
const ENDING: &str = "jsonl";

/// The files of a data directory.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    /// The one that is written to.
    own: Mutex<Option<Own>>,
    /// Something may wait.
    pending: AtomicBool,
}

#[derive(Debug)]
struct Own {
    file: File,
    path: PathBuf,
    length: u64,
}

/// A file that is handed over. Nobody else has it meanwhile.
#[derive(Debug)]
pub struct Waiting {
    path: PathBuf,
    lines: BufReader<File>,
}

/// Why nothing more is taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// As much waits as may.
    #[error("{} MiB of feedback wait for the database already", MOST_BYTES >> 20)]
    Full,
    /// The disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

impl Spool {
    /// The files below a data directory. Those of earlier processes wait to be handed over.
    #[must_use]
    pub fn within(data: &Path) -> Self {
        Self { directory: data.join("spool"), own: Mutex::default(), pending: AtomicBool::new(true) }
    }

    /// True if something may wait.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.paths().into_iter().filter_map(|path| fs::metadata(path).ok());
        sizes.map(|metadata| metadata.len()).sum()
    }

    /// Brings these to disk: all of them, or none.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing of them is kept then.
    pub fn append(&self, told: &[Feedback]) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        for feedback in told {
            serde_json::to_writer(&mut bytes, feedback).map_err(io::Error::from)?;
            bytes.push(b'\n');
        }
        let mut own = self.own.lock();
        if self.bytes() + bytes.len() as u64 > MOST_BYTES {
            return Err(SpoolError::Full);
        }
        let mut current = match own.take() {
            Some(current) => current,
            None => self.create()?,
        };
        self.pending.store(true, Ordering::Release);
        let written = current.file.write_all(&bytes).and_then(|()| current.file.sync_data());
        if let Err(error) = written {
            // Half of it must not be found later: it was not acknowledged. A file that cannot even be cut is left as it
            // is, and the next thing told begins another.
            if current.file.set_len(current.length).and_then(|()| current.file.sync_data()).is_ok() {
                *own = Some(current);
            }
            return Err(error.into());
        }
        current.length += bytes.len() as u64;
        if !current.has_its_name()? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was removed or replaced").into());
        }
        *own = Some(current);
        Ok(())
    }

    fn create(&self) -> io::Result<Own> {
        // Not the directory above it: if that is gone, so is what is kept.
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = self.directory.join(format!("{}.{ENDING}", clock::new_id()));
        let draft = path.with_extension("draft");
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&draft)?;
        // Nobody sees it before it is held: whoever found it free would hand it over, and delete it.
        file.try_lock().map_err(io::Error::from)?;
        fs::rename(draft, &path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(Own { file, path, length: 0 })
    }

    /// The files that nobody else has, oldest first. What is told from now on goes into another.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn hand_over(&self) -> io::Result<Vec<Waiting>> {
        // Before the files are looked for: what comes later is pending again.
        self.pending.store(false, Ordering::Release);
        drop(self.own.lock().take());
        let mut waiting = Vec::new();
        for path in self.paths() {
            let file = match File::open(&path) {
                Ok(file) => file,
                // Another process has handed it over meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // The others need not wait for it. It is looked for again when something else waits, and at the next start.
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "feedback on disk cannot be read");
                    continue;
                }
            };
            if file.try_lock().is_ok() {
                waiting.push(Waiting { path, lines: BufReader::new(file) });
            }
        }
        Ok(waiting)
    }

    /// What is handed over did not get there: it waits on.
    pub fn put_back(&self) {
        self.pending.store(true, Ordering::Release);
    }

    fn paths(&self) -> Vec<PathBuf> {
        // There is none where nothing was ever told in vain.
        let entries = fs::read_dir(&self.directory).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
        paths.sort_unstable();
        paths
    }
}

impl Own {
    /// True if a process that looks for the file by its name finds this one.
    fn has_its_name(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        Ok(fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino())))
    }
}

impl Waiting {
    /// The next of what was told, at most so many; none at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self, most: usize) -> io::Result<Vec<Feedback>> {
        let mut told = Vec::new();
        while told.len() < most {
            let mut line = Vec::new();
            io::Read::take(&mut self.lines, MOST_BYTES).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            match serde_json::from_slice(&line) {
                Ok(feedback) => told.push(feedback),
                // The end of a file whose writer was killed, or ran out of disk: nothing of it was acknowledged.
                Err(error) => {
                    tracing::warn!(file = %self.path.display(), %error, "a line of feedback was not written to its end");
                }
            }
        }
        Ok(told)
    }

    /// All of it is kept elsewhere.
    ///
    /// # Errors
    /// If the file cannot be deleted.
    pub fn done(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: usize) -> Feedback {
        Feedback {
            id: id.to_string(),
            made: 1,
            model: "m".to_owned(),
            version: "1".to_owned(),
            arm: String::new(),
            predicted: vec!["a".to_owned()],
            confidence: 0.75,
            actual: vec!["b".to_owned()],
            text: None,
            who: "somebody".to_owned(),
            told: 2,
        }
    }

    fn all(spool: &Spool) -> Vec<Feedback> {
        let mut found = Vec::new();
        for mut waiting in spool.hand_over().unwrap() {
            loop {
                let next = waiting.next(2).unwrap();
                if next.is_empty() {
                    break;
                }
                found.extend(next);
            }
            waiting.done().unwrap();
        }
        found
    }

    #[test]
    fn what_was_told_is_handed_over_once_in_its_order() {
        let data = tempfile::tempdir().unwrap();
        let spool = Spool::within(data.path());
        assert!(spool.is_pending() && all(&spool).is_empty() && !spool.is_pending());
        spool.append(&[told(1), told(2)]).unwrap();
        spool.append(&[told(3)]).unwrap();
        assert!(spool.is_pending() && spool.bytes() > 100);
        assert_eq!(all(&spool), [told(1), told(2), told(3)]);
        assert_eq!((all(&spool), spool.bytes()), (Vec::new(), 0));
        // What did not get where it should is there again.
        spool.append(&[told(4)]).unwrap();
        drop(spool.hand_over().unwrap());
        spool.put_back();
        assert!(spool.is_pending());
        assert_eq!(all(&spool), [told(4)]);
    }

    #[test]
    fn files_of_processes_that_run_are_theirs() {
        let data = tempfile::tempdir().unwrap();
        let (running, other) = (Spool::within(data.path()), Spool::within(data.path()));
        running.append(&[told(1)]).unwrap();
        assert!(all(&other).is_empty());
        drop(running);
        assert_eq!(all(&other), [told(1)]);
    }

    #[test]
    fn nothing_is_taken_by_a_file_that_nobody_will_find() {
        let data = tempfile::tempdir().unwrap();
        let spool = Spool::within(data.path());
        spool.append(&[told(1)]).unwrap();
        fs::remove_dir_all(data.path().join("spool")).unwrap();
        assert!(matches!(spool.append(&[told(2)]), Err(SpoolError::Disk(_))));
        // The next thing told begins a file that is there.
        spool.append(&[told(3)]).unwrap();
        assert_eq!(all(&spool), [told(3)]);
        fs::remove_dir_all(data.path()).unwrap();
        assert!(matches!(spool.append(&[told(4)]), Err(SpoolError::Disk(_))));
        assert!(!data.path().exists());
    }

    #[test]
    fn half_a_line_was_never_acknowledged() {
        let data = tempfile::tempdir().unwrap();
        let spool = Spool::within(data.path());
        spool.append(&[told(1)]).unwrap();
        drop(spool);
        let path = fs::read_dir(data.path().join("spool")).unwrap().next().unwrap().unwrap().path();
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"id\":\"2\",\"ma").unwrap();
        drop(file);
        assert_eq!(all(&Spool::within(data.path())), [told(1)]);
    }

    #[test]
    fn no_more_waits_than_may() {
        let data = tempfile::tempdir().unwrap();
        let spool = Spool::within(data.path());
        let long = Feedback { text: Some("x".repeat(1 << 20)), ..told(1) };
        let fitting = (0..100).take_while(|_| spool.append(std::slice::from_ref(&long)).is_ok()).count();
        assert_eq!(fitting as u64, (MOST_BYTES - 1) >> 20);
        assert!(matches!(spool.append(&[long]), Err(SpoolError::Full)));
        assert_eq!(all(&spool).len(), fitting);
    }
}
