//! The wire types of `/admin/models`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is recorded of all models.
#[derive(Debug, Serialize, Deserialize)]
pub struct RegisteredModelList {
    /// Changes so far.
    pub epoch: i64,
    /// True while the database does not answer: this is what was known last.
    pub stale: bool,
    /// By name.
    pub models: Vec<RegisteredModel>,
}

/// What is recorded of a model.
#[derive(Debug, Serialize, Deserialize)]
pub struct RegisteredModel {
    /// Its name.
    pub name: String,
    /// Changes of this model so far: its `ETag`.
    pub revision: i64,
    /// The version that answers who names none.
    pub active: Option<String>,
    /// The version that a rollback makes active.
    pub previous: Option<String>,
    /// The alias that is followed, and what it stood for when it was looked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followed: Option<String>,
    /// Oldest first.
    pub versions: Vec<RegisteredVersion>,
}

/// What is recorded of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct RegisteredVersion {
    /// Its name.
    pub version: String,
    /// `ready`, `loading`, `failed`, or `stored`: it is not loaded.
    pub state: String,
    /// `directory`, `upload` or `mlflow`.
    pub origin: String,
    /// SHA-256 of the list of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Metadata from its registration.
    pub metadata: BTreeMap<String, String>,
    /// How good it was found to be.
    pub metrics: BTreeMap<String, f64>,
    /// It is kept loaded.
    pub pinned: bool,
    /// When it was registered (RFC 3339).
    pub registered_at: String,
}

/// A model after a change.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChangeView {
    /// Its name.
    pub name: String,
    /// Its revision: its `ETag`.
    pub revision: i64,
    /// The version that answers who names none.
    pub active: Option<String>,
    /// The version that a rollback makes active.
    pub previous: Option<String>,
    /// False if it was so already.
    pub changed: bool,
    /// An experiment that runs on the model: callers who name no version get the versions of its arms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditEntryView {
    /// Which change of all it was.
    pub epoch: i64,
    /// When (RFC 3339).
    pub at: String,
    /// A key's name, or an address.
    pub who: String,
    /// Such as `activate`.
    pub action: String,
    /// The version that it was about.
    pub version: Option<String>,
    /// The experiment that it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A version to be registered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// Its name.
    pub version: String,
    /// Its files, each of which was uploaded to `/admin/store/SHA256`.
    #[serde(default)]
    pub files: Vec<UploadedFile>,
    /// Or what the MLflow server keeps it as: `models:/NAME/3`, `models:/NAME@ALIAS`, `models:/m-ID`, `runs:/RUN/PATH`.
    pub source: Option<String>,
    /// What there is to say of it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// A file of a version to be registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadedFile {
    /// Its path in the version's directory, such as `onnx/model.onnx`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// 64 hexadecimal digits, small ones.
    pub sha256: String,
}

/// A version to be made active.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    /// Its name.
    pub version: String,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// Figures of a version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsRequest {
    /// By name; the same name replaces.
    pub metrics: BTreeMap<String, f64>,
}

/// Whether a version is kept loaded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// It is.
    pub pinned: bool,
}
