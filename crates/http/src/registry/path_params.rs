//! Names in paths: of a model, and of a version. An impossible name is not found.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use predictd_registry::{ResolveError, is_valid_name};

use crate::error::ApiError;

/// A model.
#[derive(Debug)]
pub struct ModelPath(pub String);

/// A version of a model.
#[derive(Debug)]
pub struct ModelVersionPath(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|_| ResolveError::UnknownModel)?;
        if is_valid_name(&name) { Ok(Self(name)) } else { Err(ResolveError::UnknownModel.into()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ModelVersionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((name, version)) = path.map_err(|_| ResolveError::UnknownModel)?;
        match (is_valid_name(&name), is_valid_name(&version)) {
            (true, true) => Ok(Self(name, version)),
            (true, false) => Err(ResolveError::UnknownVersion.into()),
            (false, _) => Err(ResolveError::UnknownModel.into()),
        }
    }
}
