//! Why a model directory cannot be used.

use std::io::{self, ErrorKind};

/// Longest file name and longest reason of an error, in bytes: a file can make either up.
const MAX_ERROR_BYTES: usize = 512;

/// A file of a model directory that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct ManifestError {
    /// File name within the model directory.
    pub file: String,
    /// One sentence.
    pub reason: String,
    /// It says nothing of the file: the same may go well later.
    pub is_transient: bool,
    /// One sentence, where a server must not start because the model does not run on the device that it must run on.
    pub device_refusal: Option<String>,
}

impl ManifestError {
    /// An error about `file`, cut off where it is too long for a line of the log.
    pub fn new(file: impl Into<String>, reason: impl Into<String>) -> Self {
        let mut file = file.into();
        let mut reason = reason.into();
        for text in [&mut file, &mut reason] {
            text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
        }
        Self { file, reason, is_transient: false, device_refusal: None }
    }

    /// An error of the system about `file`: of the disk, or because there are too many open files.
    pub fn from_io(file: impl Into<String>, error: &io::Error) -> Self {
        let kinds = [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::NotADirectory];
        let about_the_file = kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::ELOOP);
        Self { is_transient: !about_the_file, ..Self::new(file, error.to_string()) }
    }

    /// The same, where the model does not run on the device that it must run on.
    #[must_use]
    pub fn with_device_refusal(self, sentence: String) -> Self {
        Self { device_refusal: Some(sentence), ..self }
    }
}

/// An error about `model.toml`.
pub(crate) fn options_error(reason: impl Into<String>) -> ManifestError {
    ManifestError::new("model.toml", reason)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn manifest_error_from_system_is_transient() {
        for (number, may_pass) in
            [(libc::EMFILE, true), (libc::EIO, true), (libc::ENOENT, false), (libc::EACCES, false)]
        {
            let error = ManifestError::from_io("config.json", &io::Error::from_raw_os_error(number));
            assert_eq!(error.is_transient, may_pass, "{error}");
        }
    }

    #[test]
    fn manifest_error_long_reason_is_truncated() {
        let directory = tempfile::tempdir().unwrap();
        for options in [format!("{} = 1", "x".repeat(5_000)), format!("[sha256]\n\"{}\" = \"0\"", "ä".repeat(5_000))] {
            fs::write(directory.path().join("model.toml"), options).unwrap();
            let refusal = Manifest::load(directory.path()).unwrap_err();
            assert_eq!((refusal.file.as_str(), refusal.reason.len()), ("model.toml", MAX_ERROR_BYTES));
        }
    }
}
