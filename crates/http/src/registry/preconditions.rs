//! The preconditions of a change: headers to a [`ChangeContext`], and refusals to answers.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, Method};
use predictd_experiments::experiment::ExperimentError;
use predictd_registry::RegistryError;
use predictd_registry::database::{ChangeError, StorageFault};
use predictd_registry::mlflow::client::MlflowError;
use predictd_registry::mlflow::pull::PullError;
use predictd_registry::record::RecordError;
use predictd_registry::service::ChangeContext;
use predictd_registry::store::StoreError;
use sha2::{Digest, Sha256};

use super::wire::ChangeBody;
use crate::body::{RequestBody, ValidatedJson};
use crate::caller::Caller;
use crate::error::{ApiError, Code};
use crate::state::{App, ModelState};

/// Longest Idempotency-Key.
const MAX_IDEMPOTENCY_KEY_CHARS: usize = 128;

/// A change as a caller orders it.
pub struct ChangeOrder<P, B> {
    /// The models, with the registry.
    pub models: Arc<ModelState>,
    /// The names in the path.
    pub path: P,
    /// The checked body.
    pub body: ValidatedJson<B>,
    caller: Caller,
    /// `If-Match`.
    revision: Option<i64>,
    idempotency_key: Option<String>,
}

impl<P, B: ChangeBody> FromRequest<App> for ChangeOrder<P, B>
where
    P: FromRequestParts<App, Rejection = ApiError> + Send,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = P::from_request_parts(&mut parts, app).await?;
        let Ok(caller) = Caller::from_request_parts(&mut parts, app).await;
        let rule = "If-Match must be one ETag of this server, such as \"7\".";
        let revision = parse_single_header(&parts.headers, IF_MATCH.as_str(), rule, |tag| {
            tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
        })?;
        let rule = "An Idempotency-Key has 1 to 128 visible ASCII characters.";
        let idempotency_key = parse_single_header(&parts.headers, "idempotency-key", rule, |key| {
            let is_short = (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&key.len());
            (is_short && key.bytes().all(|c| c.is_ascii_graphic())).then(|| key.to_owned())
        })?;
        // The body of a DELETE is not read.
        let body = if parts.method == Method::DELETE {
            ValidatedJson(B::parse(b"")?, None)
        } else {
            ValidatedJson::from_request(Request::from_parts(parts, body), app).await?
        };
        Ok(Self { models: Arc::clone(&app.models), path, body, caller, revision, idempotency_key })
    }
}

/// A change of what its caller has not seen.
fn missing_precondition_error() -> ApiError {
    let detail =
        "Say which state this is decided on: If-Match with the ETag of what is to be changed, as GET shows it.";
    ApiError::new(Code::PreconditionRequired, detail)
}

/// The value of a header that may be there once; an error with the `rule` if it cannot be read, or is there twice.
fn parse_single_header<T>(
    headers: &HeaderMap,
    name: &str,
    rule: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let only = value.to_str().ok().filter(|_| values.next().is_none());
    only.and_then(parse).map(Some).ok_or_else(|| ApiError::new(Code::InvalidHeader, rule))
}

impl<P, B: ChangeBody> ChangeOrder<P, B> {
    /// Who changes what, and why. `action`, the `names` of the path and the body tell the request from others.
    ///
    /// # Errors
    /// 428 of a caller who must say what it saw, and does not.
    pub fn context(&self, action: &str, names: &[String]) -> Result<ChangeContext, ApiError> {
        if B::NEEDS_REVISION && self.revision.is_none() {
            return Err(missing_precondition_error());
        }
        let ValidatedJson(body, _) = &self.body;
        let idempotency_key = self.idempotency_key.clone().map(|key| {
            let body = serde_json::to_string(body).unwrap_or_default();
            (key, hex::encode(Sha256::digest(format!("{action}\n{}\n{body}", names.join("\n")))))
        });
        Ok(ChangeContext {
            actor: self.caller.to_string(),
            reason: body.reason().cloned(),
            expected_revision: self.revision,
            idempotency_key,
        })
    }
}

/// The answer whose detail is the sentence of the error.
fn error_as_detail(error: &RegistryError, code: Code) -> ApiError {
    ApiError::new(code, format!("{}.", error.to_string().trim_end_matches('.')))
}

/// The answer while a part of the server does not work. The log has the cause, which callers do not see.
fn unavailable_error(detail: &'static str) -> ApiError {
    ApiError::new(Code::RegistryUnavailable, detail)
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Change(change) => from_change_error(&error, change),
            RegistryError::Store(store) => from_store_error(&error, store),
            RegistryError::Pull(pull) => from_pull_error(&error, pull),
            RegistryError::Spool(reason) => {
                tracing::error!(%reason, "feedback could not be stored");
                unavailable_error("Neither the database nor the disk takes feedback now.")
            }
            RegistryError::RevisionRequired => missing_precondition_error(),
            RegistryError::MlflowNotConfigured => error_as_detail(&error, Code::InvalidRequest),
            RegistryError::BrokenVersion(..) | RegistryError::IncompatibleArms(_) => {
                error_as_detail(&error, Code::VersionUnusable)
            }
            RegistryError::LoadInterrupted(version, reason) => {
                tracing::error!(version, reason, "model version temporarily not loadable");
                unavailable_error("The version cannot be loaded now. What is served stays as it is.")
            }
            RegistryError::Busy | RegistryError::NoRegistry | RegistryError::Storage(_) => {
                error_as_detail(&error, Code::RegistryUnavailable)
            }
            RegistryError::InsufficientMemory(..) => error_as_detail(&error, Code::InsufficientMemory),
            RegistryError::TaskFailure(reason) => {
                tracing::error!(%reason, "registry change aborted");
                Self::new(Code::Internal, "The change was given up.")
            }
        }
    }
}

/// The answer to a change that was not made; its cause is logged if it lies in the server.
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
        ChangeError::UnreadableAnswer(_) => {
            ApiError::new(Code::Internal, "The answer to the same request cannot be read any more.")
        }
        // It names no path, and says what an operator has to do.
        ChangeError::Database(reason) | ChangeError::OutcomeUnknown(reason)
            if let Some(fault) = StorageFault::from_error(reason) =>
        {
            RegistryError::from(fault).into()
        }
        ChangeError::Database(reason) => {
            tracing::error!(%reason, "database operation failed");
            unavailable_error("The database does not answer. What is served stays as it is.")
        }
        ChangeError::OutcomeUnknown(reason) => {
            tracing::error!(%reason, "outcome of the change unknown; database gave no reply");
            let detail = "The database does not answer. Whether the change was made is not known: repeat it with the same Idempotency-Key, or look.";
            unavailable_error(detail)
        }
    }
}

/// As [`from_change_error`], for files that could not be stored.
fn from_store_error(error: &RegistryError, store: &StoreError) -> ApiError {
    match store {
        StoreError::Disk(reason) => {
            tracing::error!(%reason, "store could not be written");
            unavailable_error("The store cannot be written. What is served stays as it is.")
        }
        StoreError::TooLarge(_) => error_as_detail(error, Code::BodyTooLarge),
        _ => error_as_detail(error, Code::InvalidRequest),
    }
}

/// As [`from_change_error`], for a version that could not be pulled from MLflow.
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
