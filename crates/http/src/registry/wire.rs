//! `/admin/models`: records to wire types, and what is checked of requests.

use predictd_api::models::{
    ActivateRequest, AuditEntryView, MetricsRequest, ModelChangeView, PinRequest, RegisterRequest, RegisteredModel,
    RegisteredVersion, RollbackRequest, UploadedFile,
};
use predictd_registry::mlflow::uri::ModelUri;
use predictd_registry::record::{FileRecord, ModelRecord, Origin, VersionRecord};
use predictd_registry::version_name::VersionName as Name;
use predictd_registry::{ServedModel, database, is_valid_name, store};
use serde::Serialize;

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

/// What a request without a body says.
#[derive(Debug, Default, Serialize)]
pub(crate) struct EmptyBody {}

/// What is recorded of a model, and how it is served.
pub(super) fn registered_model(name: &str, record: &ModelRecord, served: Option<&ServedModel>) -> RegisteredModel {
    let version = |(name, record): (&Name, &VersionRecord)| {
        let state = served.and_then(|served| served.versions.get(name)).map_or("stored", |state| state.name());
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
            metadata: record.metadata.clone(),
            metrics: record.metrics.clone(),
            pinned: record.pinned,
            registered_at: format_millis(record.registered_at),
        }
    };
    RegisteredModel {
        name: name.to_owned(),
        revision: record.revision,
        active: record.active.clone(),
        previous: record.previous_version().ok().map(str::to_owned),
        followed: record.alias_target.clone(),
        versions: record.versions.iter().map(version).collect(),
    }
}

/// A model as it is after a change.
pub(super) fn model_change(name: String, record: &ModelRecord, changed: bool) -> ModelChangeView {
    let previous = record.previous_version().ok().map(str::to_owned);
    ModelChangeView {
        name,
        revision: record.revision,
        active: record.active.clone(),
        previous,
        changed,
        experiment: None,
    }
}

/// What was answered to the same request before.
pub(super) fn repeated_model_change(name: String, answer: &str) -> Result<ModelChangeView, ApiError> {
    let broken = |_| ApiError::new(Code::Internal, "The answer to the same request cannot be read any more.");
    let (revision, active, previous) = serde_json::from_str(answer).map_err(broken)?;
    Ok(ModelChangeView { name, revision, active, previous, changed: true, experiment: None })
}

/// An entry of a history.
pub(crate) fn audit_entry(entry: database::AuditEntry) -> AuditEntryView {
    let database::AuditEntry { epoch, timestamp_ms: at, actor: who, action, version, experiment, reason, .. } = entry;
    AuditEntryView { epoch, at: format_millis(at), who, action, version, experiment, reason }
}

/// The files of a request, as they are recorded.
pub(super) fn file_records(files: &[UploadedFile]) -> Vec<FileRecord> {
    let record =
        |file: &UploadedFile| FileRecord { path: file.path.clone(), bytes: file.bytes, sha256: file.sha256.clone() };
    files.iter().map(record).collect()
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

impl RequestBody for RegisterRequest {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        json::from_json(bytes)
    }

    fn check(&self, _: &RequestLimits) -> Result<(), ApiError> {
        if !is_valid_name(&self.version) {
            return Err(ApiError::at_pointer("/version", NAME_RULE));
        }
        match &self.source {
            None => store::check_file_list(&file_records(&self.files))
                .map_err(|reason| ApiError::at_pointer("/files", reason))?,
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
        // The body is optional.
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
