//! On what grounds a change is asked for: headers to an [`Order`], and refusals to answers.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::experiments::experiment::ExperimentError;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, Code};
use crate::registry::database::{ChangeError, Unusable};
use crate::registry::keeper::{KeepError, Order};
use crate::registry::mlflow::client::AskError;
use crate::registry::mlflow::pull::PullError;
use crate::registry::record::Refusal;
use crate::registry::store::StoreError;

const KEY: &str = "idempotency-key";
/// Longest Idempotency-Key.
const MAX_KEY: usize = 128;

/// `If-Match` and `Idempotency-Key`.
#[derive(Debug, Default)]
pub struct Grounds {
    revision: Option<i64>,
    key: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Grounds {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let wrong = |detail: &'static str| ApiError::new(Code::InvalidHeader, detail);
        let revision =
            single(&parts.headers, IF_MATCH.as_str(), |tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
        let revision = revision.map_err(|()| wrong("If-Match must be one ETag of this server, such as \"7\"."))?;
        let fits = |key: &str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_graphic());
        let key = single(&parts.headers, KEY, |key| fits(key).then(|| key.to_owned()));
        let key = key.map_err(|()| wrong("An Idempotency-Key has 1 to 128 visible ASCII characters."))?;
        Ok(Self { revision, key })
    }
}

/// A change of what its caller has not seen.
pub(in crate::http) fn not_seen() -> ApiError {
    let detail =
        "Say which state this is decided on: If-Match with the ETag of what is to be changed, as GET shows it.";
    ApiError::new(Code::PreconditionRequired, detail)
}

/// What a header says that may be there once; an error if it cannot be read, or is there twice.
fn single<T>(headers: &HeaderMap, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(read).map(Some).ok_or(()),
        (Some(_), Some(_)) => Err(()),
    }
}

impl Grounds {
    /// An order of this caller. `what` and `body` tell the request from others.
    pub fn order(self, caller: &Caller, what: &[&str], body: &impl Serialize, reason: Option<String>) -> Order {
        let request = || {
            let body = serde_json::to_string(body).unwrap_or_default();
            hex::encode(Sha256::digest(format!("{}\n{body}", what.join("\n"))))
        };
        let key = self.key.map(|key| (key, request()));
        Order { who: caller.to_string(), reason, revision: self.revision, key }
    }

    /// The same, of a caller who must say what it saw.
    ///
    /// # Errors
    /// 428 if it does not.
    pub fn seen(
        self,
        caller: &Caller,
        what: &[&str],
        body: &impl Serialize,
        reason: Option<String>,
    ) -> Result<Order, ApiError> {
        if self.revision.is_none() {
            return Err(not_seen());
        }
        Ok(self.order(caller, what, body, reason))
    }
}

impl From<KeepError> for ApiError {
    fn from(error: KeepError) -> Self {
        let told = |code: Code| Self::new(code, format!("{}.", error.to_string().trim_end_matches('.')));
        match &error {
            KeepError::Change(change) => match change {
                ChangeError::Refused(Refusal::UnknownVersion(_)) => told(Code::ModelNotFound),
                ChangeError::Experiment(ExperimentError::Unknown(_)) => told(Code::ExperimentNotFound),
                ChangeError::Experiment(ExperimentError::Invalid(pointer, reason)) => {
                    Self::at(pointer.clone(), reason.clone())
                }
                ChangeError::Refused(_)
                | ChangeError::OtherRequest
                | ChangeError::Experiment(ExperimentError::Refused(_)) => told(Code::Conflict),
                ChangeError::Stale(_) => told(Code::PreconditionFailed),
                // It names no path, and says what an operator has to do.
                ChangeError::Database(reason) | ChangeError::Unknown(reason)
                    if let Some(unusable) = Unusable::of(reason) =>
                {
                    KeepError::from(unusable).into()
                }
                ChangeError::Database(reason) => {
                    tracing::error!(%reason, "the database did not do what it was asked");
                    Self::new(Code::RegistryUnavailable, "The database does not answer. What is served stays as it is.")
                }
                ChangeError::Unknown(reason) => {
                    tracing::error!(%reason, "the database did not say whether a change was made");
                    let detail = "The database does not answer. Whether the change was made is not known: repeat it with the same Idempotency-Key, or look.";
                    Self::new(Code::RegistryUnavailable, detail)
                }
            },
            KeepError::Store(StoreError::Disk(reason))
            | KeepError::Pull(PullError::Store(StoreError::Disk(reason))) => {
                tracing::error!(%reason, "the store cannot be written");
                Self::new(Code::RegistryUnavailable, "The store cannot be written. What is served stays as it is.")
            }
            KeepError::Spool(reason) => {
                tracing::error!(%reason, "feedback can be kept nowhere");
                Self::new(Code::RegistryUnavailable, "Neither the database nor the disk takes feedback now.")
            }
            KeepError::Store(StoreError::TooLarge(_)) => told(Code::BodyTooLarge),
            KeepError::Pull(PullError::Store(_)) | KeepError::Unfit(_) => told(Code::VersionUnusable),
            KeepError::Store(_) | KeepError::NoMlflow => told(Code::InvalidRequest),
            KeepError::Broken(..) | KeepError::Pull(PullError::Unusable(_) | PullError::Ask(AskError::Refused(_))) => {
                told(Code::VersionUnusable)
            }
            KeepError::Pull(PullError::Ask(AskError::Away(_) | AskError::Strange(_))) => {
                tracing::warn!(%error, "a model could not be pulled");
                told(Code::SourceUnavailable)
            }
            KeepError::Hindered(version, reason) => {
                tracing::error!(version, reason, "a version cannot be loaded now");
                Self::new(Code::RegistryUnavailable, "The version cannot be loaded now. What is served stays as it is.")
            }
            KeepError::Busy | KeepError::Unusable(_) => told(Code::RegistryUnavailable),
            KeepError::NoRoom(..) => told(Code::NoRoom),
            KeepError::GivenUp(reason) => {
                tracing::error!(%reason, "a change of the registry was given up");
                Self::new(Code::Internal, "The change was given up.")
            }
        }
    }
}
