//! Feedback on disk that waits while the database does not answer.
//!
//! A file holds a line of JSON for each record, and is synced before that is acknowledged. Each process writes a
//! file of its own, which it holds locked; files without a lock are those of processes that are gone, and belong to
//! the process that finds them. What is handed over twice is kept once: see [`FeedbackWriteOutcome`](super::FeedbackWriteOutcome).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use predictd_platform::atomic_file;
use predictd_platform::clock;

use super::FeedbackRecord;
use crate::data_directory::is_at_path;

/// Most bytes of all files that wait.
const MAX_SPOOL_BYTES: u64 = 64 << 20;
const SEGMENT_EXTENSION: &str = "jsonl";

/// The files of a data directory.
#[derive(Debug)]
pub struct FeedbackSpool {
    directory: PathBuf,
    /// The one that is written to.
    writer: Mutex<Option<SegmentWriter>>,
    /// Something may wait.
    has_pending: AtomicBool,
}

#[derive(Debug)]
struct SegmentWriter {
    file: File,
    path: PathBuf,
    length: u64,
}

/// A file that is handed over, locked by this process.
#[derive(Debug)]
pub struct SpoolSegment {
    path: PathBuf,
    reader: BufReader<File>,
}

/// Why nothing more is taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// As much waits as may.
    #[error("{} MiB of feedback wait for the database already", MAX_SPOOL_BYTES >> 20)]
    Full,
    /// The disk.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

impl FeedbackSpool {
    /// The files below a data directory. Those of earlier processes wait to be handed over.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { directory: data.join("spool"), writer: Mutex::default(), has_pending: AtomicBool::new(true) }
    }

    /// True if something may wait.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.has_pending.load(Ordering::Acquire)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segment_paths().iter().flat_map(fs::metadata).map(|metadata| metadata.len()).sum()
    }

    /// Brings these to disk: all of them, or none.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing of them is kept then.
    pub fn append(&self, records: &[FeedbackRecord]) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        for feedback in records {
            serde_json::to_writer(&mut bytes, feedback).map_err(io::Error::from)?;
            bytes.push(b'\n');
        }
        let mut own = self.writer.lock();
        if self.size_bytes() + bytes.len() as u64 > MAX_SPOOL_BYTES {
            return Err(SpoolError::Full);
        }
        let mut current = own.take().map_or_else(|| self.create_segment(), Ok)?;
        self.mark_pending();
        if let Err(error) = current.file.write_all(&bytes).and_then(|()| current.file.sync_data()) {
            // Half of it must not be found later: it was not acknowledged. A file that cannot even be cut is left as it
            // is, and the next record begins another.
            if current.file.set_len(current.length).and_then(|()| current.file.sync_data()).is_ok() {
                *own = Some(current);
            }
            return Err(error.into());
        }
        current.length += bytes.len() as u64;
        // A process that looks for the file by its name must find this one.
        if !is_at_path(&current.file, &current.path)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was removed or replaced").into());
        }
        *own = Some(current);
        Ok(())
    }

    fn create_segment(&self) -> io::Result<SegmentWriter> {
        // Not the directory above it: if that is gone, so is what is kept.
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = self.directory.join(format!("{}.{SEGMENT_EXTENSION}", clock::new_id()));
        let draft = path.with_extension("draft");
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&draft)?;
        // It is locked before it is visible: another process would hand an unlocked file over, and delete it.
        file.try_lock()?;
        atomic_file::publish(&file, &draft, &path)?;
        Ok(SegmentWriter { file, path, length: 0 })
    }

    /// The files that no other process has locked, oldest first. New feedback goes into another.
    #[must_use]
    pub fn take_segments(&self) -> Vec<SpoolSegment> {
        // Before the files are looked for: what comes later is pending again.
        self.has_pending.store(false, Ordering::Release);
        drop(self.writer.lock().take());
        let mut waiting = Vec::new();
        for path in self.segment_paths() {
            match File::open(&path) {
                Ok(file) if file.try_lock().is_ok() => {
                    waiting.push(SpoolSegment { path, reader: BufReader::new(file) });
                }
                // The others need not wait for it. It is looked for again when something else waits, and at the next start.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(file = %path.display(), %error, "spool file could not be read");
                }
                // Another process writes to it, or has handed it over meanwhile.
                _ => {}
            }
        }
        waiting
    }

    /// What is handed over did not get there: it waits on.
    pub fn mark_pending(&self) {
        self.has_pending.store(true, Ordering::Release);
    }

    fn segment_paths(&self) -> Vec<PathBuf> {
        // There is none before the first outage.
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == SEGMENT_EXTENSION));
        paths.sort_unstable();
        paths
    }
}

impl SpoolSegment {
    /// The next records, at most `most`; none at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_batch(&mut self, most: usize) -> io::Result<Vec<FeedbackRecord>> {
        let mut records = Vec::new();
        while records.len() < most {
            let mut line = Vec::new();
            io::Read::take(&mut self.reader, MAX_SPOOL_BYTES).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            // The end of a file whose writer was killed, or ran out of disk, is ignored: nothing of it was acknowledged.
            records.extend(serde_json::from_slice::<FeedbackRecord>(&line).inspect_err(|error| {
                tracing::warn!(file = %self.path.display(), %error, "incomplete spool record ignored");
            }));
        }
        Ok(records)
    }

    /// All of it is kept elsewhere.
    ///
    /// # Errors
    /// If the file cannot be deleted.
    pub fn delete(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        atomic_file::sync_directory(atomic_file::directory_of(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::tests::sample_feedback;

    fn drain_all(spool: &FeedbackSpool) -> Vec<FeedbackRecord> {
        let mut found = Vec::new();
        for mut waiting in spool.take_segments() {
            loop {
                let next = waiting.read_batch(2).unwrap();
                if next.is_empty() {
                    break;
                }
                found.extend(next);
            }
            waiting.delete().unwrap();
        }
        found
    }

    #[test]
    fn spool_segments_drained_once_in_order() {
        let data = tempfile::tempdir().unwrap();
        let spool = FeedbackSpool::new(data.path());
        assert!(spool.has_pending() && drain_all(&spool).is_empty() && !spool.has_pending());
        spool.append(&[sample_feedback(1), sample_feedback(2)]).unwrap();
        spool.append(&[sample_feedback(3)]).unwrap();
        assert!(spool.has_pending() && spool.size_bytes() > 100);
        assert_eq!(drain_all(&spool), [sample_feedback(1), sample_feedback(2), sample_feedback(3)]);
        assert_eq!((drain_all(&spool), spool.size_bytes()), (Vec::new(), 0));
        // What did not get where it should is there again.
        spool.append(&[sample_feedback(4)]).unwrap();
        drop(spool.take_segments());
        spool.mark_pending();
        assert!(spool.has_pending());
        assert_eq!(drain_all(&spool), [sample_feedback(4)]);
    }

    #[test]
    fn spool_segment_of_running_process_not_taken() {
        let data = tempfile::tempdir().unwrap();
        let running = FeedbackSpool::new(data.path());
        let other = FeedbackSpool::new(data.path());
        running.append(&[sample_feedback(1)]).unwrap();
        assert!(drain_all(&other).is_empty());
        drop(running);
        assert_eq!(drain_all(&other), [sample_feedback(1)]);
    }

    #[test]
    fn spool_segment_removed_append_fails() {
        let data = tempfile::tempdir().unwrap();
        let spool = FeedbackSpool::new(data.path());
        spool.append(&[sample_feedback(1)]).unwrap();
        fs::remove_dir_all(data.path().join("spool")).unwrap();
        assert!(matches!(spool.append(&[sample_feedback(2)]), Err(SpoolError::Disk(_))));
        // The next record begins a file that is there.
        spool.append(&[sample_feedback(3)]).unwrap();
        assert_eq!(drain_all(&spool), [sample_feedback(3)]);
        fs::remove_dir_all(data.path()).unwrap();
        assert!(matches!(spool.append(&[sample_feedback(4)]), Err(SpoolError::Disk(_))));
        assert!(!data.path().exists());
    }

    #[test]
    fn spool_truncated_line_is_skipped() {
        let data = tempfile::tempdir().unwrap();
        let spool = FeedbackSpool::new(data.path());
        spool.append(&[sample_feedback(1)]).unwrap();
        drop(spool);
        let path = fs::read_dir(data.path().join("spool")).unwrap().next().unwrap().unwrap().path();
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"{\"id\":\"2\",\"ma").unwrap();
        drop(file);
        assert_eq!(drain_all(&FeedbackSpool::new(data.path())), [sample_feedback(1)]);
    }

    #[test]
    fn spool_over_limit_append_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let spool = FeedbackSpool::new(data.path());
        let long = FeedbackRecord { text: Some("x".repeat(1 << 20)), ..sample_feedback(1) };
        let fitting = (0..100).take_while(|_| spool.append(std::slice::from_ref(&long)).is_ok()).count();
        assert_eq!(fitting as u64, (MAX_SPOOL_BYTES - 1) >> 20);
        assert!(matches!(spool.append(&[long]), Err(SpoolError::Full)));
        assert_eq!(drain_all(&spool).len(), fitting);
    }
}
