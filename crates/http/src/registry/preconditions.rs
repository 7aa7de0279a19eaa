//! The preconditions of a change: headers to a [`ChangeContext`], and refusals to answers.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use predictd_experiments::experiment::ExperimentError;
use predictd_registry::database::{ChangeError, StorageFault};
use predictd_registry::mlflow::client::MlflowError;
use predictd_registry::mlflow::pull::PullError;
use predictd_registry::record::RecordError;
use predictd_registry::service::{ChangeContext, RegistryError};
use predictd_registry::store::StoreError;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::caller::Caller;
use crate::error::{ApiError, Code};

const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
/// Longest Idempotency-Key.
const MAX_IDEMPOTENCY_KEY_CHARS: usize = 128;

/// `If-Match` and `Idempotency-Key`.
#[derive(Debug, Default)]
pub struct Preconditions {
    revision: Option<i64>,
    idempotency_key: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Preconditions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let revision = parse_single_header(&parts.headers, IF_MATCH.as_str(), |tag| {
            tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
        });
        let revision = revision.map_err(|()| {
            ApiError::new(Code::InvalidHeader, "If-Match must be one ETag of this server, such as \"7\".")
        })?;
        let key = parse_single_header(&parts.headers, IDEMPOTENCY_KEY_HEADER, |key| {
            is_idempotency_key(key).then(|| key.to_owned())
        });
        let key = key.map_err(|()| {
            ApiError::new(Code::InvalidHeader, "An Idempotency-Key has 1 to 128 visible ASCII characters.")
        })?;
        Ok(Self { revision, idempotency_key: key })
    }
}

fn is_idempotency_key(key: &str) -> bool {
    (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_graphic())
}

/// A change of what its caller has not seen.
pub(crate) fn missing_precondition_error() -> ApiError {
    let detail =
        "Say which state this is decided on: If-Match with the ETag of what is to be changed, as GET shows it.";
    ApiError::new(Code::PreconditionRequired, detail)
}

/// What a header says that may be there once; an error if it cannot be read, or is there twice.
fn parse_single_header<T>(headers: &HeaderMap, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(read).map(Some).ok_or(()),
        (Some(_), Some(_)) => Err(()),
    }
}

impl Preconditions {
    /// An order of this caller. `what` and `body` tell the request from others.
    pub fn into_change_context(
        self,
        caller: &Caller,
        what: &[&str],
        body: &impl Serialize,
        reason: Option<String>,
    ) -> ChangeContext {
        let key = self.idempotency_key.map(|key| {
            let body = serde_json::to_string(body).unwrap_or_default();
            (key, hex::encode(Sha256::digest(format!("{}\n{body}", what.join("\n")))))
        });
        ChangeContext { actor: caller.to_string(), reason, expected_revision: self.revision, idempotency_key: key }
    }

    /// The same, of a caller who must say what it saw.
    ///
    /// # Errors
    /// 428 if it does not.
    pub fn require_change_context(
        self,
        caller: &Caller,
        what: &[&str],
        body: &impl Serialize,
        reason: Option<String>,
    ) -> Result<ChangeContext, ApiError> {
        if self.revision.is_none() {
            return Err(missing_precondition_error());
        }
        Ok(self.into_change_context(caller, what, body, reason))
    }
}

/// The problem whose detail is the sentence of the error.
fn error_as_detail(error: &RegistryError, code: Code) -> ApiError {
    ApiError::new(code, format!("{}.", error.to_string().trim_end_matches('.')))
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Change(change) => from_change_error(&error, change),
            RegistryError::Store(store) => from_store_error(&error, store),
            RegistryError::Pull(pull) => from_pull_error(&error, pull),
            RegistryError::Spool(reason) => {
                tracing::error!(%reason, "feedback could not be stored");
                Self::new(Code::RegistryUnavailable, "Neither the database nor the disk takes feedback now.")
            }
            RegistryError::MlflowNotConfigured => error_as_detail(&error, Code::InvalidRequest),
            RegistryError::BrokenVersion(..) | RegistryError::IncompatibleArms(_) => {
                error_as_detail(&error, Code::VersionUnusable)
            }
            RegistryError::LoadInterrupted(version, reason) => {
                tracing::error!(version, reason, "model version temporarily not loadable");
                Self::new(Code::RegistryUnavailable, "The version cannot be loaded now. What is served stays as it is.")
            }
            RegistryError::Busy | RegistryError::Storage(_) => error_as_detail(&error, Code::RegistryUnavailable),
            RegistryError::InsufficientMemory(..) => error_as_detail(&error, Code::InsufficientMemory),
            RegistryError::TaskFailure(reason) => {
                tracing::error!(%reason, "registry change aborted");
                Self::new(Code::Internal, "The change was given up.")
            }
        }
    }
}

fn from_change_error(error: &RegistryError, change: &ChangeError) -> ApiError {
    match change {
        ChangeError::Record(RecordError::UnknownVersion(_)) => error_as_detail(error, Code::ModelNotFound),
        ChangeError::Experiment(ExperimentError::NotFound(_)) => error_as_detail(error, Code::ExperimentNotFound),
        ChangeError::Experiment(ExperimentError::Invalid(pointer, reason)) => {
            ApiError::at_pointer(pointer.clone(), reason.clone())
        }
        ChangeError::Record(_)
        | ChangeError::IdempotencyKeyReused
        | ChangeError::Experiment(ExperimentError::Conflict(_)) => error_as_detail(error, Code::Conflict),
        ChangeError::RevisionMismatch(_) => error_as_detail(error, Code::PreconditionFailed),
        // It names no path, and says what an operator has to do.
        ChangeError::Database(reason) | ChangeError::OutcomeUnknown(reason)
            if let Some(fault) = StorageFault::from_error(reason) =>
        {
            RegistryError::from(fault).into()
        }
        ChangeError::Database(reason) => {
            tracing::error!(%reason, "database operation failed");
            ApiError::new(Code::RegistryUnavailable, "The database does not answer. What is served stays as it is.")
        }
        ChangeError::OutcomeUnknown(reason) => {
            tracing::error!(%reason, "outcome of the change unknown; database gave no reply");
            let detail = "The database does not answer. Whether the change was made is not known: repeat it with the same Idempotency-Key, or look.";
            ApiError::new(Code::RegistryUnavailable, detail)
        }
    }
}

fn from_store_error(error: &RegistryError, store: &StoreError) -> ApiError {
    match store {
        StoreError::Disk(reason) => {
            tracing::error!(%reason, "store could not be written");
            ApiError::new(Code::RegistryUnavailable, "The store cannot be written. What is served stays as it is.")
        }
        StoreError::TooLarge(_) => error_as_detail(error, Code::BodyTooLarge),
        _ => error_as_detail(error, Code::InvalidRequest),
    }
}

fn from_pull_error(error: &RegistryError, pull: &PullError) -> ApiError {
    match pull {
        PullError::Store(store @ StoreError::Disk(_)) => from_store_error(error, store),
        PullError::Mlflow(MlflowError::Unavailable(_) | MlflowError::InvalidResponse(_)) => {
            tracing::warn!(%error, "model pull failed");
            error_as_detail(error, Code::SourceUnavailable)
        }
        PullError::Store(_) | PullError::InvalidModel(_) | PullError::Mlflow(MlflowError::Rejected(_)) => {
            error_as_detail(error, Code::VersionUnusable)
        }
    }
}
