//! `PUT /admin/store/{sha256}`: a file of a version, as large as it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use predictd_registry::RegistryError;
use predictd_registry::store::{MAX_FILE_BYTES, UploadWriter, is_sha256};

use crate::body::read_chunk;
use crate::error::{ApiError, Code};
use crate::state::{App, ModelState};

/// True if a file is there: 204, otherwise 404.
#[utoipa::path(get, path = "/admin/store/{sha256}")]
pub async fn exists(State(models): State<Arc<ModelState>>, Path(sha256): Path<String>) -> Result<StatusCode, ApiError> {
    if models.require_registry()?.services().context.store.has_upload(&sha256) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(Code::NotFound, "No such file was uploaded."))
}

/// Upload a file. It must have this SHA-256; it is kept for a day, or as long as a version needs it.
#[utoipa::path(put, path = "/admin/store/{sha256}")]
pub async fn upload(
    State(app): State<App>,
    Path(sha256): Path<String>,
    mut body: Body,
) -> Result<StatusCode, ApiError> {
    if !is_sha256(&sha256) {
        return Err(ApiError::new(Code::InvalidRequest, "The path ends in 64 hexadecimal digits, small ones."));
    }
    let mut file = UploadWriter::open(&app.models.require_registry()?.services().context.store, MAX_FILE_BYTES)
        .await
        .map_err(RegistryError::from)?;
    // As long as bytes come, however many there are.
    while let Some(data) = read_chunk(&mut body, &app, None).await? {
        file.write_chunk(data).await.map_err(RegistryError::from)?;
    }
    file.finish(Some(sha256)).await.map_err(RegistryError::from)?;
    Ok(StatusCode::NO_CONTENT)
}
