//! Files of registered versions, by what is in them.
//!
//! ```text
//! incoming/SHA256          a file that was uploaded, whole and checked
//! versions/DIGEST/PATH     a version: the digest is that of its list of files
//! ```
//!
//! What has its name was written and checked to its end: it is made under another one, which begins with a dot, brought to
//! the disk, and renamed. No path is made of a name that a client chose, but for paths within a version.

mod error;
mod file_list;
mod file_ops;
mod temp_file;
mod upload;
mod version_store;

pub use error::StoreError;
pub use file_list::{MAX_FILE_BYTES, MAX_FILES, check_file_list, is_sha256};
pub use temp_file::TempFile;
pub use upload::UploadWriter;
pub use version_store::{StagedVersion, Store};
