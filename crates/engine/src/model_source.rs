//! What to load: a model version and its files.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What to load.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Its directory.
    pub directory: PathBuf,
    /// SHA-256 of its files, if they were registered: paths and hexadecimal digits.
    pub registered_hashes: BTreeMap<String, String>,
}
