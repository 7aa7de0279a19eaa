//! The wire types of `/admin/models`.

use std::collections::BTreeMap;

use predictd_registry::mlflow::uri::ModelUri;
use predictd_registry::record::{FileRecord, ModelRecord, Origin, VersionRecord};
use predictd_registry::version_name::VersionName as Name;
use predictd_registry::{ServedModel, database, is_valid_name, store};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::RequestBody;
use crate::error::{ApiError, Code};
use crate::json;
use crate::settings::RequestLimits;

pub(crate) const NAME_RULE: &str = "A name has 1 to 64 lower-case letters, digits, '.', '_' and '-', begins with a letter or a digit, and has no two dots in a row.";
/// Most entries of a history that are shown.
pub(crate) const MAX_HISTORY_ENTRIES: i64 = 1_000;
/// Longest reason, and value of metadata, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Most entries of metadata.
const MAX_METADATA_ENTRIES: usize = 64;

/// What is recorded of all models.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegisteredModelList {
    /// Changes so far.
    pub epoch: i64,
    /// True while the database does not answer: this is what was known last.
    pub stale: bool,
    /// By name.
    pub models: Vec<RegisteredModel>,
}

/// What is recorded of a model.
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
pub struct RegisteredVersion {
    /// Its name.
    pub version: String,
    /// `ready`, `loading`, `failed`, or `stored`: it is not loaded.
    pub state: &'static str,
    /// `directory`, `upload` or `mlflow`.
    pub origin: &'static str,
    /// SHA-256 of the list of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// What whoever registered it says of it.
    pub metadata: BTreeMap<String, String>,
    /// How good it was found to be.
    pub metrics: BTreeMap<String, f64>,
    /// It is kept loaded.
    pub pinned: bool,
    /// When it was registered (RFC 3339).
    pub registered_at: String,
}

/// A model after a change.
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// Its name.
    pub version: String,
    /// Its files, each of which was uploaded to `/admin/store/SHA256`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub files: Vec<FileRecord>,
    /// Or what the MLflow server keeps it as: `models:/NAME/3`, `models:/NAME@ALIAS`, `models:/m-ID`, `runs:/RUN/PATH`.
    #[serde(default)]
    pub source: Option<String>,
    /// What there is to say of it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// A version to be made active.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    /// Its name.
    pub version: String,
    /// Why, for the history.
    pub reason: Option<String>,
}

/// A rollback.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Why, for the history.
    pub reason: Option<String>,
}

/// Figures of a version.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsRequest {
    /// By name; the same name replaces.
    pub metrics: BTreeMap<String, f64>,
}

/// Whether a version is kept loaded.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// It is.
    pub pinned: bool,
}

/// What a request without a body says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct EmptyBody {}

impl RegisteredModel {
    /// What is recorded, and how it is served.
    pub(super) fn from_record(name: &str, record: &ModelRecord, served: Option<&ServedModel>) -> Self {
        let version = |(name, record): (&Name, &VersionRecord)| RegisteredVersion {
            version: name.as_str().to_owned(),
            state: served.and_then(|served| served.versions.get(name)).map_or("stored", |state| state.name()),
            origin: match record.origin {
                Origin::Directory => "directory",
                Origin::Upload => "upload",
                Origin::Mlflow(_) => "mlflow",
            },
            digest: record.digest(),
            bytes: record.bytes(),
            metadata: record.metadata.clone(),
            metrics: record.metrics.clone(),
            pinned: record.pinned,
            registered_at: format_millis(record.registered_at),
        };
        Self {
            name: name.to_owned(),
            revision: record.revision,
            active: record.active.clone(),
            previous: record.previous_version().ok().map(str::to_owned),
            followed: record.alias_target.clone(),
            versions: record.versions.iter().map(version).collect(),
        }
    }
}

impl ModelChangeView {
    /// A model as it is now.
    pub(super) fn from_record(name: String, record: &ModelRecord) -> Self {
        let previous = record.previous_version().ok().map(str::to_owned);
        Self {
            name,
            revision: record.revision,
            active: record.active.clone(),
            previous,
            changed: false,
            experiment: None,
        }
    }

    /// What was answered to the same request before.
    pub(super) fn from_stored_answer(name: String, answer: &str) -> Result<Self, ApiError> {
        let broken = |_| ApiError::new(Code::Internal, "The answer to the same request cannot be read any more.");
        let (revision, active, previous) = serde_json::from_str(answer).map_err(broken)?;
        Ok(Self { name, revision, active, previous, changed: true, experiment: None })
    }
}

impl From<database::AuditEntry> for AuditEntryView {
    fn from(done: database::AuditEntry) -> Self {
        let database::AuditEntry { epoch, timestamp_ms: at, actor: who, action, version, experiment, reason, .. } =
            done;
        Self { epoch, at: format_millis(at), who, action, version, experiment, reason }
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(crate) fn format_millis(at: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(at).unwrap_or_default());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}

fn check_text(pointer: &str, text: &str) -> Result<(), ApiError> {
    // PostgreSQL keeps no NUL.
    if text.len() > MAX_TEXT_BYTES || text.contains('\0') {
        return Err(ApiError::at_pointer(pointer, format!("a text has at most {MAX_TEXT_BYTES} bytes, and no NUL")));
    }
    Ok(())
}

pub(crate) fn check_reason(reason: Option<&String>) -> Result<(), ApiError> {
    reason.map_or(Ok(()), |reason| check_text("/reason", reason))
}

fn check_entry_name(pointer: &str, key: &str) -> Result<(), ApiError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'@' | b'/');
    if (1..=64).contains(&key.len()) && key.bytes().all(plain) {
        return Ok(());
    }
    Err(ApiError::at_pointer(pointer, "a name has 1 to 64 letters, digits, '.', '_', '-', '@' and '/'"))
}

/// What is wrong with a list of files.
fn check_files(files: &[FileRecord]) -> Result<(), ApiError> {
    store::check_file_list(files).map_err(|reason| ApiError::at_pointer("/files", reason))
}

impl RequestBody for RegisterRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        if !is_valid_name(&self.version) {
            return Err(ApiError::at_pointer("/version", NAME_RULE));
        }
        match &self.source {
            None => check_files(&self.files)?,
            Some(_) if !self.files.is_empty() => {
                return Err(ApiError::at_pointer("/source", "there are files and a source: one of them is possible"));
            }
            Some(source) => {
                source.parse::<ModelUri>().map_err(|error| ApiError::at_pointer("/source", error.to_string()))?;
            }
        }
        if self.metadata.len() > MAX_METADATA_ENTRIES {
            return Err(ApiError::at_pointer(
                "/metadata",
                format!("at most {MAX_METADATA_ENTRIES} entries are possible"),
            ));
        }
        for (key, value) in &self.metadata {
            check_entry_name("/metadata", key)?;
            check_text("/metadata", value)?;
        }
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for ActivateRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for RollbackRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        // Whoever is in a hurry need not say anything.
        if bytes.is_empty() { Ok(Self { reason: None }) } else { json::from_json(bytes) }
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        check_reason(self.reason.as_ref())
    }
}

impl RequestBody for MetricsRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        self.metrics.keys().try_for_each(|key| check_entry_name("/metrics", key))
    }
}

impl RequestBody for PinRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        Ok(())
    }
}
