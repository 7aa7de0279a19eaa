//! The files of a version: which there are in a directory, and what is in them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use predictd_registry::record::FileRecord;
use predictd_registry::store;
use sha2::{Digest, Sha256};

/// A file, and what is said of it.
#[derive(Debug)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub record: FileRecord,
}

/// The files of a model directory, hidden ones left out, in the order of their paths.
///
/// # Errors
/// One sentence that names a file.
pub fn list_files(directory: &Path) -> Result<Vec<LocalFile>, String> {
    let mut files = Vec::new();
    collect_files(directory, "", &mut files)?;
    files.sort_by(|a, b| a.record.path.cmp(&b.record.path));
    let records: Vec<FileRecord> = files.iter().map(|file| file.record.clone()).collect();
    store::check_file_list(&records).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(files)
}

fn file_error(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn collect_files(directory: &Path, prefix: &str, files: &mut Vec<LocalFile>) -> Result<(), String> {
    for entry in fs::read_dir(directory).map_err(|error| file_error(directory, &error))? {
        let path = entry.map_err(|error| file_error(directory, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_str();
        let name = name.ok_or_else(|| format!("{}: the name is not UTF-8", path.display()))?;
        if name.starts_with('.') {
            continue;
        }
        let inner = format!("{prefix}{name}");
        if path.is_dir() {
            collect_files(&path, &format!("{inner}/"), files)?;
        } else {
            let mut hash = Sha256::new();
            let bytes = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hash));
            let bytes = bytes.map_err(|error| file_error(&path, &error))?;
            let record = FileRecord { path: inner, bytes, sha256: hex::encode(hash.finalize()) };
            files.push(LocalFile { path, record });
        }
        if files.len() > store::MAX_FILES {
            return Err(format!("{}: more than {} files", directory.display(), store::MAX_FILES));
        }
    }
    Ok(())
}
