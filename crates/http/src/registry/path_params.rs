//! Names in paths: of a model and its version, or of an experiment. An impossible name is not found.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use predictd_registry::{ResolveError, is_valid_name};
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code};

/// A model; two names are a model and a version of it.
#[derive(Debug)]
pub struct ModelPath<const N: usize = 1>(pub [String; N]);

/// An experiment.
#[derive(Debug)]
pub struct ExperimentPath(pub [String; 1]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for ModelPath<N>
where
    [String; N]: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<[String; N]>::from_request_parts(parts, state).await;
        let Path(names) = path.map_err(|_| ResolveError::UnknownModel)?;
        match names.iter().position(|name| !is_valid_name(name)) {
            None => Ok(Self(names)),
            Some(0) => Err(ResolveError::UnknownModel.into()),
            Some(_) => Err(ResolveError::UnknownVersion.into()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ExperimentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // The rule for names is that of models.
        let path = ModelPath::from_request_parts(parts, state).await;
        path.map(|ModelPath(names)| Self(names)).map_err(|_| unknown_experiment())
    }
}

pub(crate) fn unknown_experiment() -> ApiError {
    ApiError::new(Code::ExperimentNotFound, "There is no experiment of this name; GET /admin/experiments lists them.")
}
