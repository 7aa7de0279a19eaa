//! Why the store does not keep a file or a version.

use std::io;

/// Why a file or a version is not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was not uploaded, or too long ago.
    #[error("the file {0} was not uploaded")]
    FileNotUploaded(String),
    /// The bytes are others than were announced.
    #[error("{0}")]
    ContentMismatch(String),
    /// There are more bytes than there may be.
    #[error("the file is larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// A list of files that cannot be a version.
    #[error("{0}")]
    InvalidFileList(String),
    /// The disk.
    #[error("the store cannot be written: {0}")]
    Disk(#[from] io::Error),
}
