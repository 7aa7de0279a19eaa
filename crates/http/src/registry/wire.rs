//! `/admin/models`: records to wire types, and what is checked of requests.

use predictd_api::models::{
    ActivateRequest, AuditEntryView, MetricsRequest, PinRequest, RegisterRequest, RegisteredModel, RegisteredVersion,
    UploadedFile,
};
use predictd_api::reason::ReasonBody;
use predictd_registry::database::AuditEntry;
use predictd_registry::mlflow::uri::{ModelUri, ModelUriError};
use predictd_registry::record::{FileRecord, ModelRecord, Origin};
use predictd_registry::{ServedModel, VersionState, is_valid_name, store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::body::RequestBody;
use crate::error::ApiError;
use crate::json;
use crate::settings::RequestLimits;

const NAME_RULE: &str = "A name has 1 to 64 lower-case letters, digits, '.', '_' and '-', begins with a letter or a digit, and has no two dots in a row.";
/// Most entries of a history that are shown.
pub(crate) const MAX_HISTORY_ENTRIES: i64 = 1_000;
/// Longest reason, and value of metadata, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;
/// Most entries of metadata.
const MAX_METADATA_ENTRIES: usize = 64;

/// The body of a change.
pub trait ChangeBody: DeserializeOwned + Serialize + Send + 'static {
    /// The caller must name the revision that it saw.
    const NEEDS_REVISION: bool = true;
    /// A request may have no body.
    const IS_OPTIONAL: bool = false;

    /// The reason, for the history.
    fn reason(&self) -> Option<&String> {
        None
    }

    /// Checks the other fields.
    fn check_fields(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

impl<T: ChangeBody> RequestBody for T {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(if T::IS_OPTIONAL && bytes.is_empty() { b"{}" } else { bytes })
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        self.check_fields()?;
        self.reason().map_or(Ok(()), |reason| check_text("/reason", reason))
    }
}

/// The body of a change without fields.
#[derive(Debug, Serialize, Deserialize)]
pub struct EmptyBody {}

impl ChangeBody for EmptyBody {
    const IS_OPTIONAL: bool = true;
}

/// What is recorded of a model, and how it is served.
pub(super) fn registered_model(name: String, record: ModelRecord, served: Option<&ServedModel>) -> RegisteredModel {
    let versions = record.versions.into_iter().map(|(name, record)| {
        let state = served.and_then(|served| served.versions.get(&name)).map_or("stored", VersionState::name);
        let origin = match record.origin {
            Origin::Directory => "directory",
            Origin::Upload => "upload",
            Origin::Mlflow(_) => "mlflow",
        };
        RegisteredVersion {
            version: name.as_str().to_owned(),
            state: state.to_owned(),
            origin: origin.to_owned(),
            digest: record.digest(),
            bytes: record.bytes(),
            metadata: record.metadata,
            metrics: record.metrics,
            pinned: record.pinned,
            registered_at: format_millis(record.registered_at),
        }
    });
    RegisteredModel {
        name,
        revision: record.revision,
        active: record.active,
        previous: record.previous_versions.last().cloned(),
        followed: record.alias_target,
        versions: versions.collect(),
    }
}

/// An entry of a history.
pub(crate) fn audit_entry(entry: AuditEntry) -> AuditEntryView {
    let AuditEntry { epoch, timestamp_ms: at, actor: who, action, version, experiment, reason, .. } = entry;
    AuditEntryView { epoch, at: format_millis(at), who, action, version, experiment, reason }
}

/// The files of a request, as they are recorded.
pub(super) fn file_records(files: &[UploadedFile]) -> Vec<FileRecord> {
    let records =
        files.iter().map(|file| FileRecord { path: file.path.clone(), bytes: file.bytes, sha256: file.sha256.clone() });
    records.collect()
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

pub(crate) fn check_name(pointer: &str, name: Option<&String>) -> Result<(), ApiError> {
    match name {
        Some(name) if !is_valid_name(name) => Err(ApiError::at_pointer(pointer, NAME_RULE)),
        _ => Ok(()),
    }
}

fn check_entry_name(pointer: &str, key: &str) -> Result<(), ApiError> {
    if (1..=64).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-@/".contains(&c)) {
        return Ok(());
    }
    Err(ApiError::at_pointer(pointer, "a name has 1 to 64 letters, digits, '.', '_', '-', '@' and '/'"))
}

pub(super) fn parse_source(source: &str) -> Result<ModelUri, ApiError> {
    source.parse().map_err(|error: ModelUriError| ApiError::at_pointer("/source", error.to_string()))
}

impl ChangeBody for RegisterRequest {
    const NEEDS_REVISION: bool = false;

    fn reason(&self) -> Option<&String> {
        self.reason.as_ref()
    }

    fn check_fields(&self) -> Result<(), ApiError> {
        check_name("/version", Some(&self.version))?;
        match &self.source {
            None => store::check_file_list(&file_records(&self.files))
                .map_err(|reason| ApiError::at_pointer("/files", reason))?,
            Some(_) if !self.files.is_empty() => {
                return Err(ApiError::at_pointer("/source", "there are files and a source: one of them is possible"));
            }
            Some(source) => _ = parse_source(source)?,
        }
        if self.metadata.len() > MAX_METADATA_ENTRIES {
            return Err(ApiError::at_pointer(
                "/metadata",
                format!("at most {MAX_METADATA_ENTRIES} entries are possible"),
            ));
        }
        self.metadata.iter().try_for_each(|(key, value)| {
            check_entry_name("/metadata", key)?;
            check_text("/metadata", value)
        })
    }
}

impl ChangeBody for ActivateRequest {
    fn reason(&self) -> Option<&String> {
        self.reason.as_ref()
    }
}

impl ChangeBody for ReasonBody {
    const IS_OPTIONAL: bool = true;

    fn reason(&self) -> Option<&String> {
        self.reason.as_ref()
    }
}

impl ChangeBody for MetricsRequest {
    fn check_fields(&self) -> Result<(), ApiError> {
        self.metrics.keys().try_for_each(|key| check_entry_name("/metrics", key))
    }
}

impl ChangeBody for PinRequest {}
