//! The files of a version: which there are in a directory, and what is in them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use predictd_registry::record::FileRecord;
use predictd_registry::store;
use sha2::{Digest, Sha256};

/// The files of a model directory, hidden ones left out, in the order of their paths in it.
///
/// # Errors
/// One sentence that names a file.
pub fn list_files(directory: &Path) -> Result<Vec<FileRecord>, String> {
    let mut files = Vec::new();
    collect_files(directory, "", &mut files)?;
    files.sort();
    store::check_file_list(&files).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(files)
}

fn file_error(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn collect_files(directory: &Path, prefix: &str, files: &mut Vec<FileRecord>) -> Result<(), String> {
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
            files.push(FileRecord { path: inner, bytes, sha256: hex::encode(hash.finalize()) });
        }
        if files.len() > store::MAX_FILES {
            return Err(format!("{}: more than {} files", directory.display(), store::MAX_FILES));
        }
    }
    Ok(())
}
