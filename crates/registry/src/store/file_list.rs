//! Which lists of files can be a version.

use std::collections::BTreeSet;

use crate::record::FileRecord;

/// Most files of a version.
pub const MAX_FILES: usize = 64;
/// Largest file: that of a graph or of weights.
pub const MAX_FILE_BYTES: u64 = 2 << 30;
/// Longest path of a file within a version, in bytes.
const MAX_PATH_BYTES: usize = 200;
/// Directories that a file may lie in, at most.
const MAX_PATH_PARTS: usize = 3;

/// True for 64 hexadecimal digits, small ones.
#[must_use]
pub fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Refuses lists of files that cannot be a version.
///
/// # Errors
/// One sentence that names the file.
pub fn check_file_list(files: &[FileRecord]) -> Result<(), String> {
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(format!("{} files, where 1 to {MAX_FILES} are possible", files.len()));
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    let mut seen = BTreeSet::new();
    for FileRecord { path, sha256, .. } in files {
        let mut parts = path.split('/');
        if path.len() > MAX_PATH_BYTES || parts.clone().count() > MAX_PATH_PARTS || !parts.all(is_part) {
            return Err(format!(
                "{path:?} is no path of a file: letters, digits, '.', '_', '-' in at most {MAX_PATH_PARTS} parts with '/' between, none of which begins with a dot"
            ));
        }
        if !is_sha256(sha256) {
            return Err(format!("the SHA-256 of {path:?} is not 64 hexadecimal digits"));
        }
        if !seen.insert(path.to_ascii_lowercase()) {
            return Err(format!("{path:?} is there twice, but perhaps for the case of its letters"));
        }
    }
    match seen.iter().find(|path| seen.iter().any(|other| other.starts_with(&format!("{path}/")))) {
        Some(path) => Err(format!("{path:?} is both a file and a directory")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, digit: &str) -> FileRecord {
        FileRecord { path: path.to_owned(), bytes: 1, sha256: digit.repeat(64) }
    }

    #[test]
    fn file_list_with_unsafe_path_is_refused() {
        let good = file("onnx/model.onnx", "0");
        assert_eq!(check_file_list(&[good.clone(), file("tokenizer.json", "0")]), Ok(()));
        for path in [
            "",
            "/",
            "/x",
            "x/",
            "../x",
            "a/../x",
            "a//b",
            ".x",
            "a/.x",
            "a\\b",
            "ä",
            "a b",
            "a\0",
            "a\n",
            "%2e%2e/x",
            "a/b/c/d",
            &"a".repeat(201),
        ] {
            assert!(check_file_list(&[file(path, "0")]).is_err(), "{path:?}");
        }
        assert!(check_file_list(&[file("a", "0"), file("A", "0")]).unwrap_err().contains("twice"));
        assert!(check_file_list(&[file("a", "0"), file("a/b", "0")]).unwrap_err().contains("directory"));
        assert!(check_file_list(&[]).is_err() && check_file_list(&vec![good.clone(); MAX_FILES + 1]).is_err());
        assert!(check_file_list(&[FileRecord { sha256: "A".repeat(64), ..good }]).is_err());
    }
}
