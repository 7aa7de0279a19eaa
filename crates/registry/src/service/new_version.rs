//! Versions to register.

use std::collections::BTreeMap;

use crate::mlflow::uri::ModelUri;
use crate::record::{FileRecord, Origin};

/// A version to register.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Where its files came from.
    pub origin: Origin,
    /// Its files, which are in the store.
    pub files: Vec<FileRecord>,
    /// What the operator or the MLflow server says of it.
    pub metadata: BTreeMap<String, String>,
}

/// A version to register whose files an MLflow server keeps.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Where its files are.
    pub uri: ModelUri,
    /// What the operator says of it.
    pub metadata: BTreeMap<String, String>,
}
