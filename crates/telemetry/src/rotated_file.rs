//! A log file that is rotated by its size, and opened again when an operator asks for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that is rotated: `PATH` becomes `PATH.1`, that `PATH.2`, and so on.
#[derive(Debug, Clone, Copy)]
pub struct LogFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// It is rotated once it has so many bytes.
    pub max_bytes: u64,
    /// Older files that are kept.
    pub max_files: usize,
}

/// How often log files were to be opened again.
static REOPEN_REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Has log files opened again before their next line, after an operator or a program that rotates them has moved them away.
pub fn reopen_log_files() {
    REOPEN_REQUESTS.fetch_add(1, Ordering::Release);
}

/// The file, open.
pub(super) struct RotatedFile {
    path: PathBuf,
    max_bytes: u64,
    /// Older files that are kept.
    max_old_files: usize,
    file: BufWriter<File>,
    bytes: u64,
    /// The count of [`REOPEN_REQUESTS`] that it was opened for.
    handled_reopens: u64,
    /// The last rotation failed: that is reported once.
    is_rotation_failing: bool,
}

impl RotatedFile {
    /// Opens the file, and makes it if it is not there.
    pub(super) fn open(of: &LogFile<'_>) -> io::Result<Self> {
        let reopenings = REOPEN_REQUESTS.load(Ordering::Acquire);
        let (file, bytes) = open_for_append(of.path)?;
        Ok(Self {
            path: of.path.to_owned(),
            max_bytes: of.max_bytes,
            max_old_files: of.max_files.max(1),
            file,
            bytes,
            handled_reopens: reopenings,
            is_rotation_failing: false,
        })
    }

    /// Opens the file that has the name now. If that fails, lines go on to where they went.
    fn reopen(&mut self) -> io::Result<()> {
        self.file.flush()?;
        (self.file, self.bytes) = open_for_append(&self.path)?;
        Ok(())
    }

    /// Gives the file a number, and each older one the next.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        for number in (0..self.max_old_files).rev() {
            match fs::rename(numbered_path(&self.path, number), numbered_path(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.reopen()
    }

    fn prepare_write(&mut self) {
        let requested = REOPEN_REQUESTS.load(Ordering::Acquire);
        if requested != self.handled_reopens {
            self.handled_reopens = requested;
            if let Err(error) = self.reopen() {
                tracing::error!(file = %self.path.display(), %error, "log file could not be reopened; writing continues to the old file");
            }
        }
        if self.bytes < self.max_bytes {
            return;
        }
        let rotated = self.rotate();
        // This line goes into the same log: once, or it would never end.
        if let Err(error) = &rotated
            && !self.is_rotation_failing
        {
            tracing::error!(file = %self.path.display(), %error, "log file could not be rotated; it keeps growing");
        }
        self.is_rotation_failing = rotated.is_err();
    }
}

impl Write for RotatedFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.prepare_write();
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The name of the file, or that of an older one.
pub(super) fn numbered_path(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}

fn open_for_append(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((BufWriter::new(file), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_content(path: &Path, number: usize) -> String {
        fs::read_to_string(numbered_path(path, number)).unwrap()
    }

    #[test]
    fn log_file_full_rotates_and_oldest_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatedFile::open(&LogFile { path: &path, max_bytes: 10, max_files: 2 }).unwrap();
        for number in 0..9 {
            file.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        file.flush().unwrap();
        assert_eq!(
            [file_content(&path, 0), file_content(&path, 1), file_content(&path, 2)],
            ["line 8\n", "line 6\nline 7\n", "line 4\nline 5\n"]
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        // What is there is gone on with.
        drop(file);
        let mut file = RotatedFile::open(&LogFile { path: &path, max_bytes: 10, max_files: 2 }).unwrap();
        file.write_all(b"more\n").unwrap();
        file.flush().unwrap();
        assert_eq!(file_content(&path, 0), "line 8\nmore\n");
    }

    #[test]
    fn log_file_rotation_fails_file_grows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatedFile::open(&LogFile { path: &path, max_bytes: 5, max_files: 1 }).unwrap();
        fs::create_dir_all(numbered_path(&path, 1).join("x")).unwrap();
        for _ in 0..3 {
            file.write_all(b"line\n").unwrap();
        }
        file.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n".repeat(3));
        assert!(file.is_rotation_failing);
    }
}
